//! One lane of a connection: a FIFO that serves one turn at a time and remembers its latest response.
//!
//! Knows nothing of other lanes or of what the turns say.

use std::time::Instant;

use crate::proto::id::{HeadId, TurnId};
use crate::proto::session::Limits;
use crate::proto::wire::error::{ErrorClass, ProviderError};
use crate::proto::wire::event::{Event, EventKind};

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
    Skipping {
        /// When the client left.
        since: Instant,
    },
    /// An error ended here and more may follow: whatever comes is dropped, and nothing is sent again.
    Burnt,
}

/// Whom an event on a lane concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The turn it belongs to.
    Turn(TurnId),
    /// Nobody any more.
    Nobody,
    /// Nothing was to come here.
    Unexpected,
}

/// A lane.
#[derive(Debug, Clone)]
pub struct Lane {
    /// Where it stands.
    pub state: State,
    /// Forks of its latest response that the provider has not yet taken up: until then the lane must not advance.
    pub holds: u32,
    /// The provider may still say something here: a frame went up and no clean ending came down. Stays so once burnt.
    pub asked: bool,
    /// Last time a turn or an event touched it.
    pub touched: Instant,
}

impl Lane {
    /// A new lane, with nothing in its memory.
    pub fn new(now: Instant) -> Self {
        Self { state: State::Idle { head: None }, holds: 0, asked: false, touched: now }
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

    /// The frame of the turn that waits here may reach the provider from now on.
    pub fn send(&mut self, now: Instant) {
        if let State::Waiting { sent, .. } = &mut self.state {
            *sent = true;
            self.asked = true;
        }
        self.touched = now;
    }

    /// Takes an event of the provider.
    pub fn handle_event(&mut self, now: Instant, event: &Event) -> Heard {
        let terminal = event.kind().is_terminal();
        let turn = match self.state {
            State::Waiting { turn, sent: true, .. } | State::Streaming { turn } => Some(turn),
            State::Skipping { .. } => None,
            State::Burnt => return Heard::Nobody,
            // Nothing was asked here yet: it is the tail of something else, and must never become this turn's answer.
            State::Waiting { sent: false, .. } | State::Idle { .. } | State::Settling { .. } => {
                return Heard::Unexpected;
            }
        };
        self.touched = now;
        self.state = match turn {
            _ if terminal && !is_clean(event) => State::Burnt,
            Some(turn) if terminal => State::Settling { turn },
            Some(turn) => State::Streaming { turn },
            None if terminal => State::Idle { head: None },
            None => self.state,
        };
        self.asked = !terminal || self.state == State::Burnt;
        turn.map_or(Heard::Nobody, Heard::Turn)
    }

    /// Nothing could be heard until now, for a reason of ours: silence counts from here.
    pub fn excuse(&mut self, now: Instant) {
        if self.in_flight() {
            self.touched = now;
        }
    }

    /// The turn, if it has been silent for too long: the lane is burnt, for its answer may still come.
    pub fn expire(&mut self, now: Instant, limits: &Limits) -> Option<TurnId> {
        let turn = self.due(limits).filter(|at| now >= *at).and_then(|_| self.turn())?;
        self.state = State::Burnt;
        Some(turn)
    }

    /// When [`Self::expire`] is due.
    pub fn due(&self, limits: &Limits) -> Option<Instant> {
        match self.state {
            State::Waiting { sent: true, .. } => Some(self.touched + limits.first_event),
            State::Streaming { .. } => Some(self.touched + limits.silence),
            _ => None,
        }
    }

    /// When the turn whose client is gone has been read for long enough.
    pub fn grace_ends(&self, limits: &Limits) -> Option<Instant> {
        match self.state {
            State::Skipping { since } => Some(since + limits.abandon_grace),
            _ => None,
        }
    }

    /// The turn that is being served and still has a client.
    pub fn turn(&self) -> Option<TurnId> {
        match self.state {
            State::Waiting { turn, .. } | State::Streaming { turn } => Some(turn),
            State::Idle { .. } | State::Settling { .. } | State::Skipping { .. } | State::Burnt => None,
        }
    }

    /// True while the provider is at work for this lane.
    pub fn in_flight(&self) -> bool {
        matches!(self.state, State::Waiting { .. } | State::Streaming { .. } | State::Skipping { .. })
    }

    /// True if a turn can be given it: nothing is under way here, nothing is about to be told of it, no fork needs it.
    pub fn is_free(&self) -> bool {
        self.holds == 0 && matches!(self.state, State::Idle { .. })
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

/// True if nothing more follows this terminal event: after an `error` a `response.failed` may still come, except where
/// the request was refused for its parent.
fn is_clean(event: &Event) -> bool {
    event.kind() != EventKind::Error || ProviderError::of_event(event).class == ErrorClass::NotFound
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;

    const TURN: TurnId = TurnId(1);

    fn event(text: &'static str) -> Event {
        Event::parse(Bytes::from_static(text.as_bytes())).expect("an event")
    }

    #[test]
    fn the_states_as_drawn() {
        let waiting = State::Waiting { turn: TURN, before: Some(HeadId(1)), sent: true, frame: 9 };
        let streaming = State::Streaming { turn: TURN };
        let idle = State::Idle { head: Some(HeadId(1)) };
        let (turn, nobody, unexpected) = (Heard::Turn(TURN), Heard::Nobody, Heard::Unexpected);
        let delta = event(r#"{"type":"response.output_text.delta"}"#);
        let end = event(r#"{"type":"response.completed"}"#);
        let error = event(r#"{"type":"error","error":{"code":"server_error","message":"m"}}"#);
        let not_found = event(r#"{"type":"error","error":{"code":"previous_response_not_found"}}"#);
        let settling = State::Settling { turn: TURN };
        let skipping = State::Skipping { since: Instant::now() };
        for (before, event, heard, after) in [
            (waiting, &delta, turn, streaming),
            (waiting, &end, turn, settling),
            (waiting, &not_found, turn, settling),
            (waiting, &error, turn, State::Burnt),
            (streaming, &delta, turn, streaming),
            (streaming, &end, turn, settling),
            (streaming, &error, turn, State::Burnt),
            (skipping, &delta, nobody, skipping),
            (skipping, &end, nobody, State::Idle { head: None }),
            (skipping, &error, nobody, State::Burnt),
            (State::Burnt, &end, nobody, State::Burnt),
            (idle, &delta, unexpected, idle),
            (settling, &end, unexpected, settling),
        ] {
            let now = Instant::now();
            let mut lane = Lane { state: before, ..Lane::new(now) };
            assert_eq!(
                (lane.handle_event(now, event), lane.state),
                (heard, after),
                "{before:?} {}",
                event.name()
            );
        }
    }

    #[test]
    fn only_an_idle_unheld_lane_can_be_given() {
        let now = Instant::now();
        let mut lane = Lane::new(now);
        assert!(lane.is_empty());
        lane.holds = 1;
        assert!(!lane.reserve(now, TURN, 1) && !lane.is_empty() && !lane.is_free());
        lane.holds = 0;
        for state in [State::Settling { turn: TURN }, State::Skipping { since: now }, State::Burnt] {
            let mut busy = Lane { state, ..Lane::new(now) };
            assert!(!busy.is_free() && !busy.reserve(now, TURN, 1), "{state:?}");
        }
        assert!(lane.reserve(now, TURN, 1));
        assert_eq!((lane.turn(), lane.in_flight(), lane.head()), (Some(TURN), true, None));
        assert!(!lane.reserve(now, TurnId(2), 1));
    }

    #[test]
    fn only_what_was_sent_can_be_late() {
        let (limits, start) = (Limits::default(), Instant::now());
        let mut lane = Lane::new(start);
        lane.reserve(start, TURN, 1);
        assert_eq!(lane.due(&limits), None);
        lane.state = State::Waiting { turn: TURN, before: None, sent: true, frame: 1 };
        assert_eq!(lane.due(&limits), Some(start + limits.first_event));
        assert_eq!(lane.expire(start + Duration::from_secs(1), &limits), None);
        assert_eq!(lane.expire(start + limits.first_event, &limits), Some(TURN));
        assert_eq!((lane.state, lane.expire(start + limits.silence, &limits)), (State::Burnt, None));
    }
}
