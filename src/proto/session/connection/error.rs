//! Errors and nameless events on a socket, and its loss: whose they are, and what they cost the socket. What the turn
//! then does is `recovery`'s.

use std::time::Instant;

use crate::proto::fault::Fault;
use crate::proto::id::LaneId;
use crate::proto::session::connection::{Action, Connection, Phase, Verdict};
use crate::proto::session::lane::{Lane, State};
use crate::proto::wire::error::{ErrorClass, ProviderError};
use crate::proto::wire::event::{Event, EventKind};

impl Connection {
    /// The lane an event belongs to: the one it names, or the only one it can mean.
    pub(super) fn whose(&mut self, event: &Event) -> Option<LaneId> {
        let named = self.max_names > 0;
        let ours = |id: &LaneId| self.lanes.contains_key(id) && named == matches!(id, LaneId::Named(_));
        match event.lane().ok().filter(ours) {
            Some(id) => Some(id),
            None if event.kind() == EventKind::Error => self.only_suspect(event),
            None => self.unnamed(event),
        }
    }

    /// More may come of an error that was not a plain not-found: without lanes to tell it apart, the socket goes.
    pub(super) fn after_terminal(&mut self, now: Instant, event: &Event) {
        self.health.touch(now);
        if event.kind() != EventKind::Error {
            return;
        }
        let class = ProviderError::of_event(event).class;
        self.refuses_lanes |= class == ErrorClass::LaneRefused && !self.answered;
        match class {
            ErrorClass::NotFound => {}
            ErrorClass::ConnectionLimit | ErrorClass::LaneRefused => self.retired = true,
            ErrorClass::Answer | ErrorClass::Duplicate | ErrorClass::NotServed => {
                self.retired |= self.max_names == 0;
            }
        }
        let used_up = self.max_names > 0 && !self.has_new_lane();
        self.retired |= used_up && self.lanes.values().all(|lane| lane.state == State::Burnt);
        self.close_if_done();
    }

    /// Whose an event is that carries no lane name although a name was given: the server ignores names. If just one turn is
    /// out it is its, and from now on the socket serves one at a time. It must never have used a name before.
    fn unnamed(&mut self, event: &Event) -> Option<LaneId> {
        if self.max_names == 0 || self.answered || event.value("stream_id").is_some() {
            return None;
        }
        let unsent = |lane: &Lane| matches!(lane.state, State::Waiting { sent: false, .. });
        // A burnt lane's answer may still come, and must not become another turn's.
        let mut out = self.lanes.iter().filter(|(_, lane)| lane.asked);
        let first = out.next().map(|(id, _)| *id)?;
        let only = out.next().is_none().then_some(first);
        for lane in self.lanes.values_mut().filter(|lane| unsent(lane)) {
            // Two at once could not be told apart; these have not left yet.
            self.actions.extend(lane.turn().map(|turn| Action::Fault(turn, Fault::SocketLost(None))));
            lane.state = State::Burnt;
        }
        self.nameless = true;
        self.max_in_flight = 1;
        self.max_names = self.names;
        only
    }

    /// Whose an error without a lane must be: the only turn that is out. An aged socket's may be about no turn at all, and
    /// leaves those under way alone. The socket takes no new turns all the same.
    fn only_suspect(&mut self, event: &Event) -> Option<LaneId> {
        let mut suspects = self.lanes.iter().filter(|(_, lane)| lane.asked);
        let (id, lane) = suspects.next().filter(|_| suspects.next().is_none())?;
        let under_way = !matches!(lane.state, State::Waiting { .. });
        let aged = ProviderError::of_event(event).class == ErrorClass::ConnectionLimit;
        let only = (!(under_way && aged)).then_some(*id);
        self.retired |= only.is_some();
        only
    }

    /// An error that names no lane: it is everybody's who has heard nothing yet (protocol §7.6).
    pub(super) fn unattributed(&mut self, event: &Event) -> Verdict {
        self.retired = true;
        let error = ProviderError::of_event(event);
        self.refuses_lanes |= error.class == ErrorClass::LaneRefused && !self.answered;
        let fault = match error.class {
            // Said of a name or of the socket's age, which all of them share; the name itself may not be repeated.
            ErrorClass::LaneRefused | ErrorClass::ConnectionLimit => Fault::Provider(Box::new(error)),
            ErrorClass::NotFound | ErrorClass::Answer | ErrorClass::Duplicate | ErrorClass::NotServed => {
                Fault::SocketLost(None)
            }
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

    /// The socket is gone, or never came to be: every turn on it ends with `fault`.
    pub fn handle_lost(&mut self, fault: &Fault) {
        self.handle_too_big(|_| false, fault);
    }

    /// The socket ended over a size: the turns it was about hear that, the others that it is lost.
    pub fn handle_too_big(&mut self, about: impl Fn(&Lane) -> bool, others: &Fault) {
        if self.phase == Phase::Closed {
            return;
        }
        for lane in self.lanes.values() {
            let fault = if about(lane) { Fault::TooBig } else { others.clone() };
            self.actions.extend(lane.turn().map(|turn| Action::Fault(turn, fault)));
        }
        for lane in self.lanes.values_mut().filter(|lane| lane.in_flight()) {
            lane.state = State::Burnt;
        }
        self.close();
    }

    /// Content on a lane that has nobody to hear it. Its name tells it apart, so only this lane is over; the socket takes no new
    /// turns. Without names nothing tells anything apart.
    pub(super) fn unexpected(&mut self, id: LaneId) -> Verdict {
        if id == LaneId::Default || self.nameless {
            return self.desynchronised();
        }
        self.retired = true;
        if let Some(lane) = self.lanes.get_mut(&id) {
            self.actions.extend(lane.turn().map(|turn| Action::Fault(turn, Fault::SocketLost(None))));
            lane.state = State::Burnt;
            lane.asked = true;
        }
        self.close_if_done();
        Verdict::Drop
    }

    pub(super) fn desynchronised(&mut self) -> Verdict {
        self.handle_lost(&Fault::Desynchronised);
        Verdict::Drop
    }
}
