//! What happens to the sockets, told to the heart by their drivers, and what the heart wants of them.
//!
//! Chooses no places and knows no requests; `seat` and `core` do.

use std::time::Instant;

use crate::proto::core::Core;
use crate::proto::core::gate::Refusal;
use crate::proto::fault::Fault;
use crate::proto::id::{ConnectionId, TurnId};
use crate::proto::session::connection::view::SocketView;
use crate::proto::session::connection::{Action, Verdict};
use crate::proto::session::lane::{Lane, State};
use crate::proto::transcript::index::Place;
use crate::proto::transcript::plan::Reason;
use crate::proto::wire::event::Event;

/// Below this many bytes no limit is learned: it would send every turn of everybody over HTTP, for good (F56). No provider
/// is known to take less than a MB.
const SMALLEST_LIMIT: usize = 16 << 10;

impl Core {
    /// The sockets as people are shown them, the oldest first.
    pub fn view(&self, now: Instant) -> Vec<SocketView> {
        self.connections.values().map(|connection| connection.view(now)).collect()
    }

    /// A socket is open.
    pub fn opened(&mut self, now: Instant, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        self.gates.succeeded(connection.account());
        connection.handle_open(now);
    }

    /// A socket was refused or could not be had: its turns go over HTTP.
    pub fn refused(&mut self, now: Instant, id: ConnectionId, refusal: Refusal) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        self.gates.failed(now, connection.account(), refusal, &self.limits);
        connection.handle_lost(&Fault::Connect);
    }

    /// What to do next on a socket; `None` when there is nothing.
    pub fn poll_action(&mut self, id: ConnectionId) -> Option<Action> {
        self.connections.get_mut(&id)?.poll_action()
    }

    /// When [`Self::timeout`] is next due.
    pub fn poll_timeout(&self, id: ConnectionId) -> Option<Instant> {
        self.connections.get(&id)?.poll_timeout(&self.limits)
    }

    /// Time passed on a socket.
    pub fn timeout(&mut self, now: Instant, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.handle_timeout(now, &self.limits);
        }
    }

    /// A turn's frame is about to be written: false if nobody waits for it any more.
    pub fn sending(&mut self, now: Instant, id: ConnectionId, turn: TurnId) -> bool {
        self.connections.get_mut(&id).is_some_and(|connection| connection.handle_send(now, turn))
    }

    /// A sign of life that is not an event.
    pub fn heard(&mut self, now: Instant, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.handle_heard(now);
        }
    }

    /// An event: to whom it goes.
    pub fn event(&mut self, now: Instant, id: ConnectionId, event: &Event) -> Verdict {
        let Some(connection) = self.connections.get_mut(&id) else { return Verdict::Drop };
        let verdict = connection.handle_event(now, event);
        self.degraded |= connection.is_nameless();
        verdict
    }

    /// The provider named a response on this socket. An id it gave before (xAI, protocol §4) means the new one from now on: what
    /// it meant is forgotten, and ids of that scope are not used away from their lane any more.
    pub fn named(&mut self, id: ConnectionId, response: &str) {
        let Some(account) = self.connections.get(&id).map(|connection| *connection.account()) else { return };
        let older = self.index.by_response(&account, response).and_then(|head| self.index.remove(head));
        if let Some(older) = older {
            self.unstore(older.scope());
        }
    }

    /// Something that must not be on this wire was.
    pub fn garbage(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.handle_lost(&Fault::Desynchronised);
        }
    }

    /// A socket ended: its turns hear of `fault`, and what it held is gone. Call `poll_action`, then `closed`.
    pub fn lost(&mut self, id: ConnectionId, fault: &Fault) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.handle_lost(fault);
        }
    }

    /// The provider closed the socket because a frame was too big: that size is the limit for all that follow, unless it is
    /// so small that the close must have meant something else.
    pub fn refused_size(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            let refused = connection.refused_frame();
            if let Some(refused) = refused {
                self.limits.frame = self.limits.frame.min((refused - 1).max(SMALLEST_LIMIT));
            }
            let is_it =
                |lane: &Lane| matches!(lane.state, State::Waiting { frame, .. } if Some(frame) == refused);
            connection.handle_too_big(is_it, &Fault::SocketLost(Some(1009)));
        }
    }

    /// A message was larger than we take: it was part of some answer that had begun.
    pub fn too_large(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            let begun = |lane: &Lane| matches!(lane.state, State::Streaming { .. });
            connection.handle_too_big(begun, &Fault::SocketLost(None));
        }
    }

    /// A turn's frame is on the wire. `slow`: it took so long that silence meant nothing.
    pub fn written(&mut self, now: Instant, id: ConnectionId, turn: TurnId, slow: bool) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.handle_written(now, turn, slow);
        }
    }

    /// What was silent was so for a reason of ours (a long upload, a slow reader): silence counts from here.
    pub fn excused(&mut self, now: Instant, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.handle_excused(now);
        }
    }

    /// A reader on this socket fell behind, or caught up.
    pub fn lag(&mut self, id: ConnectionId, lagging: bool) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.handle_lag(lagging);
        }
    }

    /// No new turns on any socket: the proxy is going down.
    pub fn retire_all(&mut self) {
        for connection in self.connections.values_mut() {
            connection.retire();
        }
    }

    /// The socket's task is over: nothing of it remains. One that ended without a word on its handshake has failed at it.
    pub fn closed(&mut self, now: Instant, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else { return };
        if connection.is_connecting() {
            self.gates.failed(now, connection.account(), Refusal::Failure, &self.limits);
        }
        for (_, lane) in connection.lanes() {
            if let Some(head) = lane.head() {
                self.index.set_place(head, Place::Gone(Reason::SocketLost));
            }
        }
    }

    /// The provider refused lanes: sockets opened from now on carry one turn at a time.
    pub fn degrade(&mut self) {
        self.degraded = true;
    }

    /// True once [`Self::degrade`] was called.
    pub fn is_degraded(&self) -> bool {
        self.degraded
    }
}
