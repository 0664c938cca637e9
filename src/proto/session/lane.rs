//! One lane of a connection: a FIFO that serves one turn at a time and remembers its latest response.
//!
//! Knows nothing of other lanes, of time limits or of what the turns say.

use std::time::Instant;

use crate::proto::id::{HeadId, TurnId};

/// ```text
///            reserve                event                 terminal             settled
///   Idle ───────────────▶ Waiting ───────────▶ Streaming ───────────▶ Settling ────────▶ Idle(head)
///    ▲                       │ abandoned           │ abandoned
///    │ terminal              ▼                     ▼
///    └─────────────────── Skipping ◀───────────────┘
///
///   an error that may be followed by more: any of the busy states ──▶ Burnt (never used again)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Free. Upstream holds `head` as this lane's latest response, if any.
    Idle {
        /// What can be continued here.
        head: Option<HeadId>,
    },
    /// A turn has the lane; no event of it has come.
    Waiting {
        /// Whose.
        turn: TurnId,
        /// What the lane held before, in case the turn is never sent.
        before: Option<HeadId>,
        /// True once its frame may have reached the provider.
        sent: bool,
        /// The frame's size in bytes.
        frame: usize,
    },
    /// Events of the turn are coming.
    Streaming {
        /// Whose.
        turn: TurnId,
    },
    /// The terminal event was read; what the lane holds now is about to be told.
    Settling {
        /// Whose.
        turn: TurnId,
    },
    /// The turn's client is gone; what still comes is dropped, up to the terminal event.
    Skipping,
    /// An error ended here and more may follow: whatever comes is dropped, and nothing is sent again.
    Burnt,
}

/// A lane.
#[derive(Debug, Clone)]
pub struct Lane {
    /// Where it stands.
    pub state: State,
    /// Forks of its latest response that the provider has not yet taken up: until then the lane must not advance.
    pub holds: u32,
    /// Last time a turn or an event touched it.
    pub touched: Instant,
}

impl Lane {
    /// A new lane, with nothing in its memory.
    pub fn new(now: Instant) -> Self {
        Self { state: State::Idle { head: None }, holds: 0, touched: now }
    }

    /// Gives the lane to a turn. Only an idle, unheld lane can be given.
    pub fn reserve(&mut self, now: Instant, turn: TurnId, frame: usize) -> bool {
        let State::Idle { head: before } = self.state else { return false };
        if self.holds > 0 {
            return false;
        }
        self.touched = now;
        self.state = State::Waiting { turn, before, sent: false, frame };
        true
    }

    /// The turn that is being served and still has a client.
    pub fn turn(&self) -> Option<TurnId> {
        match self.state {
            State::Waiting { turn, .. } | State::Streaming { turn } => Some(turn),
            State::Idle { .. } | State::Settling { .. } | State::Skipping | State::Burnt => None,
        }
    }

    /// True while the provider is at work for this lane.
    pub fn in_flight(&self) -> bool {
        matches!(self.state, State::Waiting { .. } | State::Streaming { .. } | State::Skipping)
    }

    /// True if it could take a new turn without losing a head.
    pub fn is_empty(&self) -> bool {
        self.holds == 0 && self.state == State::Idle { head: None }
    }

    /// The head it holds while idle.
    pub fn head(&self) -> Option<HeadId> {
        match self.state {
            State::Idle { head } => head,
            _ => None,
        }
    }
}
