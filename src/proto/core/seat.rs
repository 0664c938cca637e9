//! Which socket and lane a turn takes. Never queues a turn behind another; never takes a lane whose head it does not
//! continue while there is another way.

use std::time::Instant;

use crate::proto::core::{Core, Plan, Ticket, Turn};
use crate::proto::digest::Digest;
use crate::proto::id::{ConnectionId, HeadId, LaneId, TurnId};
use crate::proto::session::connection::Connection;
use crate::proto::session::lane::Lane;
use crate::proto::transcript::frame;
use crate::proto::transcript::index::{Head, Past, Place};
use crate::proto::transcript::plan::Reason;
use crate::proto::transcript::request::Request;

/// A place found for a turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat {
    connection: ConnectionId,
    lane: LaneId,
    open: bool,
    /// The lane whose head this turn forks from; it is held until the fork is under way.
    fork_of: Option<LaneId>,
}

impl Core {
    /// A place from which `head` can be continued, and whether that is away from its lane.
    pub(super) fn delta_seat(
        &mut self,
        now: Instant,
        account: &Digest,
        request: &Request,
        head: HeadId,
        size: usize,
    ) -> Result<(Seat, bool), Reason> {
        let reason = match self.held_seat(now, head) {
            Ok(seat) => return Ok((seat, false)),
            Err(reason) => reason,
        };
        // A stored response can be continued on any lane, unless this scope was seen not to store.
        let stored = self.index.head(head).is_some_and(|head| head.stored);
        if stored && !self.unstored.contains(&request.scope) {
            let home = self.connection_of(head);
            return self
                .full_seat(now, account, home, size, false)
                .map(|seat| (seat, true))
                .ok_or(Reason::Busy);
        }
        Err(reason)
    }

    /// The place where `head` is held, or a fork beside it.
    pub(super) fn held_seat(&mut self, now: Instant, head: HeadId) -> Result<Seat, Reason> {
        let Some(found) = self.index.head(head) else { return Err(Reason::HistoryChanged) };
        let branchy = found.branchy;
        match found.place.clone() {
            Place::Lane(id, lane) => self.lane_seat(now, id, lane, head, branchy),
            Place::Gone(reason) => Err(reason),
        }
    }

    /// The head's own lane, or a fork beside it.
    fn lane_seat(
        &mut self,
        now: Instant,
        id: ConnectionId,
        lane: LaneId,
        head: HeadId,
        branchy: bool,
    ) -> Result<Seat, Reason> {
        let connection = self.connections.get_mut(&id).ok_or(Reason::SocketLost)?;
        if connection.is_retired(now) {
            return Err(Reason::SocketAged);
        }
        if !connection.accepts(now) {
            return Err(Reason::LaneBusy);
        }
        let state = connection.lane(lane).ok_or(Reason::SocketLost)?;
        if state.head() != Some(head) {
            return Err(Reason::LaneAdvanced);
        }
        let held = state.holds > 0;
        if !(held || branchy) {
            return Ok(Seat { connection: id, lane, open: false, fork_of: None });
        }
        match connection.new_lane(now) {
            Some(fork) => Ok(Seat { connection: id, lane: fork, open: false, fork_of: Some(lane) }),
            None if held => Err(Reason::LaneBusy),
            None => Ok(Seat { connection: id, lane, open: false, fork_of: None }),
        }
    }

    /// A place for a whole history: an empty lane, a new lane, a new socket, an old conversation's lane; in this order.
    pub(super) fn full_seat(
        &mut self,
        now: Instant,
        account: &Digest,
        home: Option<ConnectionId>,
        size: usize,
        new_socket: bool,
    ) -> Option<Seat> {
        let large = size > self.limits.own_socket_frame;
        // While the gate is shut no turn waits for a handshake, least of all for the one that probes.
        let shut = self.gates.check(now, account, false).is_some();
        let mut own: Vec<ConnectionId> = self
            .connections
            .values()
            .filter(|c| c.account() == account && c.accepts(now) && !(shut && c.is_connecting()))
            .filter(|c| !(large && size > c.largest_frame()))
            .map(Connection::id)
            .collect();
        own.sort_by_key(|id| (Some(*id) != home, id.0));
        if new_socket {
            // One that is being opened is as new; turns that lost a socket together need not open one each.
            own.retain(|id| self.connections.get(id).is_some_and(Connection::is_connecting));
        }
        let keep = self.limits.keep_head;
        for id in &own {
            let connection = self.connections.get_mut(id)?;
            let stale = |touched: Instant| now.saturating_duration_since(touched) >= keep;
            let single =
                !connection.lanes().any(|(lane, _)| lane != LaneId::Default) && !connection.has_new_lane();
            let empty = connection.lanes().find(|(_, lane)| lane.is_empty()).map(|(lane, _)| lane);
            // One turn at a time: a conversation's own socket is its home even when it goes in full.
            let own_lane = (single && Some(*id) == home).then_some(LaneId::Default);
            let oldest = idle_lanes(connection).min_by_key(|(_, _, touched)| *touched);
            let old = oldest.filter(|(_, _, touched)| stale(*touched)).map(|(lane, _, _)| lane);
            let lane = empty.or(own_lane).or_else(|| connection.new_lane(now)).or(old);
            if let Some(lane) = lane.filter(|lane| connection.lane(*lane).is_some_and(Lane::is_free)) {
                return Some(Seat { connection: *id, lane, open: false, fork_of: None });
            }
        }
        if self.has_room(account) && !shut {
            let id = self.open(now, *account);
            let lane = self.connections.get_mut(&id)?.new_lane(now)?;
            return Some(Seat { connection: id, lane, open: true, fork_of: None });
        }
        // A fan-out of single calls must not drive out the conversation that waits for them (F77).
        let goes_on = |head: HeadId, touched: Instant| {
            self.index.head(head).is_some_and(Head::has_grown)
                && now.saturating_duration_since(touched) < keep
        };
        let idle = own.iter().filter_map(|id| self.connections.get(id)).flat_map(|connection| {
            idle_lanes(connection).map(|(lane, head, touched)| {
                let seat = Seat { connection: connection.id(), lane, open: false, fork_of: None };
                ((goes_on(head, touched), touched), seat)
            })
        });
        idle.min_by_key(|(order, _)| *order).map(|(_, seat)| seat)
    }

    /// True if this account may have another socket.
    pub(super) fn has_room(&self, account: &Digest) -> bool {
        let of_account = self.connections.values().filter(|c| c.account() == account && !c.is_closed());
        of_account.count() < self.limits.sockets_per_account && self.connections.len() < self.limits.sockets
    }

    /// Takes the place.
    #[expect(clippy::too_many_arguments, reason = "one call site per plan; a struct would only rename them")]
    pub(super) fn ticket(
        &mut self,
        now: Instant,
        account: &Digest,
        request: &Request,
        seat: Seat,
        plan: Plan,
        past: Past,
        elsewhere: bool,
    ) -> Ticket {
        let turn = TurnId(self.next);
        self.next += 1;
        let new_from = match &plan {
            Plan::Delta { new_from, .. } => Some(*new_from),
            Plan::Full { .. } => None,
        };
        let continues = match &plan {
            Plan::Delta { previous, .. } | Plan::Full { previous: Some(previous), .. } => {
                self.index.by_response(account, previous)
            }
            Plan::Full { previous: None, .. } => None,
        };
        if let Some(connection) = self.connections.get_mut(&seat.connection) {
            if let Some(head) = connection.lane(seat.lane).and_then(Lane::head) {
                self.index.set_place(head, Place::Gone(Reason::LaneAdvanced));
            }
            let size = frame::size(request, new_from);
            let reserved = connection.reserve(now, seat.lane, turn, size);
            debug_assert!(reserved, "a seat is free when it is given");
            if let Some(parent) = seat.fork_of {
                connection.hold(turn, parent);
            }
        }
        let record = Turn {
            account: *account,
            connection: seat.connection,
            past,
            continues,
            elsewhere,
            scope: request.scope,
        };
        self.turns.insert(turn, record);
        Ticket { turn, connection: seat.connection, open: seat.open, lane: seat.lane, plan }
    }
}

/// The idle, unheld lanes with a head, and when each was last touched.
fn idle_lanes(connection: &Connection) -> impl Iterator<Item = (LaneId, HeadId, Instant)> {
    let idle = connection.lanes().filter(|(_, lane)| lane.holds == 0);
    idle.filter_map(|(id, lane)| Some((id, lane.head()?, lane.touched)))
}

#[cfg(test)]
mod tests;
