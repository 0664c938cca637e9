//! Errors on a socket: whose they are, and what they cost the socket. What the turn then does is `recovery`'s.

use std::time::Instant;

use crate::proto::fault::Fault;
use crate::proto::id::LaneId;
use crate::proto::session::connection::{Action, Connection, Verdict};
use crate::proto::session::lane::{Lane, State};
use crate::proto::wire::event::{ErrorClass, Event, EventKind, ProviderError};

impl Connection {
    /// More may come of an error that was not a plain not-found: without lanes to tell it apart, the socket goes.
    pub(super) fn after_terminal(&mut self, now: Instant, event: &Event) {
        self.health.touch(now);
        if event.kind() != EventKind::Error {
            return;
        }
        match ProviderError::of_event(event).class {
            ErrorClass::NotFound => {}
            ErrorClass::ConnectionLimit | ErrorClass::LaneRefused => self.retired = true,
            ErrorClass::Answer => self.retired |= self.max_names == 0,
        }
        self.close_if_done();
    }

    /// Whose an error is that names no lane of ours: the only turn's, if just one is out. The socket goes all the same.
    pub(super) fn meant(&mut self, event: &Event) -> Option<LaneId> {
        let nameless = event.kind() == EventKind::Error
            && event.lane().is_ok_and(|id| id == LaneId::Default && !self.lanes.contains_key(&id));
        let out = |lane: &Lane| lane.in_flight() && !matches!(lane.state, State::Waiting { sent: false, .. });
        let mut out = self.lanes.iter().filter(|(_, lane)| nameless && out(lane)).map(|(id, _)| *id);
        let only = out.next().filter(|_| out.next().is_none());
        self.retired |= only.is_some();
        only
    }

    /// An error that names no lane: it is everybody's who has heard nothing yet (protocol §7.6).
    pub(super) fn unattributed(&mut self, event: &Event) -> Verdict {
        self.retired = true;
        let error = ProviderError::of_event(event);
        let fault = match error.class {
            // Said of a name or of the socket's age, which all of them share; the name itself may not be repeated.
            ErrorClass::LaneRefused | ErrorClass::ConnectionLimit => Fault::Provider(Box::new(error)),
            ErrorClass::NotFound | ErrorClass::Answer => Fault::SocketLost(None),
        };
        for lane in self.lanes.values_mut() {
            if let State::Waiting { turn, .. } = lane.state {
                lane.state = State::Burnt;
                self.actions.push_back(Action::Fault(turn, fault.clone()));
            }
        }
        self.close_if_done();
        Verdict::Drop
    }
}
