//! A socket as people are shown it. Decides nothing, and does not say whose it is.

use std::time::Instant;

use crate::proto::session::connection::{Connection, Phase};
use crate::proto::session::lane::State;

/// A socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketView {
    /// Its number in this process, from 0.
    pub number: u64,
    /// False while the handshake is under way.
    pub open: bool,
    /// When it was opened; until then, when that began.
    pub since: Instant,
    /// True if new turns may be placed on it.
    pub accepts: bool,
    /// True if its age or a fault keeps it from new turns for good.
    pub retired: bool,
    /// Lanes it may ever have.
    pub most_lanes: usize,
    /// Those it has had so far, in order.
    pub lanes: Vec<LaneUse>,
}

/// What a lane is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneUse {
    /// It serves a turn.
    Busy,
    /// Idle; it holds a response that may be continued.
    Held,
    /// Idle, with nothing to continue.
    Free,
    /// What still comes on it is for a client that has left.
    Left,
    /// Never used again.
    Burnt,
}

impl LaneUse {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Busy, Self::Held, Self::Free, Self::Left, Self::Burnt];

    /// Its name in labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Held => "held",
            Self::Free => "free",
            Self::Left => "left",
            Self::Burnt => "burnt",
        }
    }
}

impl SocketView {
    /// How many of its lanes are used so.
    #[must_use]
    pub fn count(&self, lane: LaneUse) -> usize {
        self.lanes.iter().filter(|other| **other == lane).count()
    }
}

impl Connection {
    /// What it is doing.
    pub fn view(&self, now: Instant) -> SocketView {
        let lanes = self.lanes.values().map(|lane| match lane.state {
            State::Idle { head: Some(_) } => LaneUse::Held,
            State::Idle { head: None } => LaneUse::Free,
            State::Waiting { .. } | State::Streaming { .. } | State::Settling { .. } => LaneUse::Busy,
            State::Skipping { .. } => LaneUse::Left,
            State::Burnt => LaneUse::Burnt,
        });
        SocketView {
            number: self.id.0,
            open: self.phase == Phase::Open,
            since: self.since,
            accepts: self.accepts(now),
            retired: self.is_retired(now),
            most_lanes: self.max_names.max(1) as usize,
            lanes: lanes.collect(),
        }
    }
}
