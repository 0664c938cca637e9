//! How turns end on a socket, and with the last of them the socket: what a lane holds when its turn is over or its client is
//! gone, and who still listens. What a turn that failed does next is `recovery`'s.

use std::time::Instant;

use crate::proto::id::{HeadId, LaneId, TurnId};
use crate::proto::session::connection::{Action, Connection, Phase};
use crate::proto::session::lane::{Lane, State};

impl Connection {
    /// The turn's ending is known: what its lane holds now.
    pub fn handle_settled(&mut self, now: Instant, turn: TurnId, head: Option<HeadId>) -> Option<LaneId> {
        let settled = self.lanes.iter_mut().find(|(_, lane)| lane.state == State::Settling { turn });
        let place = settled.map(|(id, lane)| {
            lane.state = State::Idle { head };
            lane.touched = now;
            *id
        });
        self.release(turn);
        self.health.touch(now);
        self.close_if_done();
        place
    }

    /// The turn's client is gone. A socket nobody listens to is closed, so that generation stops as over REST.
    pub fn handle_abandoned(&mut self, now: Instant, turn: TurnId) -> Option<(LaneId, HeadId)> {
        self.release(turn);
        let settling = State::Settling { turn };
        let theirs = |lane: &Lane| lane.turn() == Some(turn) || lane.state == settling;
        let (id, lane) = self.lanes.iter_mut().find(|(_, lane)| theirs(lane))?;
        let id = *id;
        if let State::Waiting { before, sent: false, .. } = lane.state {
            lane.state = State::Idle { head: before };
            self.close_if_done();
            return before.map(|head| (id, head));
        }
        lane.state =
            if lane.state == settling { State::Idle { head: None } } else { State::Skipping { since: now } };
        // One whose last event is there but not yet read listens still.
        let listened = self.has_listeners() || self.is_settling();
        if !listened && self.lanes.values().any(|lane| matches!(lane.state, State::Skipping { .. })) {
            self.close();
        }
        None
    }

    pub(super) fn has_listeners(&self) -> bool {
        self.lanes.values().any(|lane| lane.turn().is_some())
    }

    fn is_settling(&self) -> bool {
        self.lanes.values().any(|lane| matches!(lane.state, State::Settling { .. }))
    }

    pub(super) fn close_if_done(&mut self) {
        if self.retired && !self.has_listeners() && !self.is_settling() {
            self.close();
        }
    }

    pub(super) fn close(&mut self) {
        if self.phase != Phase::Closed {
            self.phase = Phase::Closed;
            self.actions.push_back(Action::Close);
        }
    }
}
