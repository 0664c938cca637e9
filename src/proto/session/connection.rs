//! One upstream socket: its lanes, and whose its events are. Told what happens (`handle_*`), asked what to do (`poll_*`).
//!
//! Order of use: after any `handle_*` the driver asks `poll_action` until it is empty, then sleeps until
//! `poll_timeout` or the next thing that happens. Does not choose lanes for turns; `core` does. Its clocks are `health`'s.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::proto::digest::Digest;
use crate::proto::fault::Fault;
use crate::proto::id::{ConnectionId, LaneId, TurnId};
use crate::proto::session::Limits;
use crate::proto::session::health::{Health, Pulse};
use crate::proto::session::lane::{Heard, Lane, State};
use crate::proto::wire::event::{Event, EventKind};

mod end;
mod error;
pub mod view;

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a ping.
    Ping,
    /// Tell a turn that its try is over.
    Fault(TurnId, Fault),
    /// Close the socket: nothing more is expected of it.
    Close,
}

/// Where an event belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// To this turn.
    Deliver(TurnId),
    /// Nowhere.
    Drop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Open,
    Closed,
}

/// One socket.
#[derive(Debug)]
pub struct Connection {
    id: ConnectionId,
    account: Digest,
    phase: Phase,
    /// When it was opened; until then, when that began.
    since: Instant,
    lanes: BTreeMap<LaneId, Lane>,
    /// Names used so far; they are never given back (protocol §1.7).
    names: u32,
    /// 0: only the default lane.
    max_names: u32,
    max_in_flight: usize,
    /// Takes no new turns; closed when the last listened-to turn ends.
    retired: bool,
    /// A reader of one of its turns lags: takes no new turns meanwhile.
    lagging: bool,
    largest_frame: usize,
    /// Some event came under one of our lane names.
    answered: bool,
    /// The provider ignores lane names: one turn at a time, without looking at them.
    nameless: bool,
    health: Health,
    forks: Vec<(TurnId, LaneId)>,
    actions: VecDeque<Action>,
}

impl Connection {
    /// A socket about to be opened.
    pub fn new(now: Instant, id: ConnectionId, account: Digest, limits: &Limits, lanes: u32) -> Self {
        Self {
            id,
            account,
            phase: Phase::Connecting,
            since: now,
            lanes: BTreeMap::new(),
            names: 0,
            max_names: lanes,
            max_in_flight: if lanes == 0 { 1 } else { limits.in_flight },
            retired: false,
            lagging: false,
            largest_frame: 0,
            answered: false,
            nameless: false,
            health: Health::new(now, limits, id.0),
            forks: Vec::new(),
            actions: VecDeque::new(),
        }
    }

    /// Its number.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Whose it is.
    pub fn account(&self) -> &Digest {
        &self.account
    }

    /// True if new turns may be placed on it.
    pub fn accepts(&self, now: Instant) -> bool {
        self.phase != Phase::Closed
            && !self.retired
            && !self.lagging
            && !self.health.is_old(now)
            && self.in_flight() < self.max_in_flight
    }

    /// True if its age or a fault keeps it from new turns for good.
    pub fn is_retired(&self, now: Instant) -> bool {
        self.phase == Phase::Closed || self.retired || self.health.is_old(now)
    }

    /// True if the provider was seen to ignore lane names.
    pub fn is_nameless(&self) -> bool {
        self.nameless
    }

    /// True until the handshake is over.
    pub fn is_connecting(&self) -> bool {
        self.phase == Phase::Connecting
    }

    /// True once closed.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Responses the provider is at work on.
    pub fn in_flight(&self) -> usize {
        self.lanes.values().filter(|lane| lane.in_flight()).count()
    }

    /// Largest frame it has taken and answered, in bytes.
    pub fn largest_frame(&self) -> usize {
        self.largest_frame
    }

    /// The largest frame that a close with 1009 may be about: unanswered, and above all that was taken before.
    pub fn refused_frame(&self) -> Option<usize> {
        let waiting = self.lanes.values().filter_map(|lane| match lane.state {
            State::Waiting { frame, sent: true, .. } => Some(frame),
            _ => None,
        });
        waiting.filter(|frame| *frame > self.largest_frame).max()
    }

    /// How long a turn whose frame was sent has waited for its first event; `None` once one has come.
    pub fn unheard_for(&self, now: Instant, turn: TurnId) -> Option<Duration> {
        let waits =
            |lane: &&Lane| matches!(lane.state, State::Waiting { turn: its, sent: true, .. } if its == turn);
        self.lanes.values().find(waits).map(|lane| now.saturating_duration_since(lane.touched))
    }

    /// A lane.
    pub fn lane(&self, lane: LaneId) -> Option<&Lane> {
        self.lanes.get(&lane)
    }

    /// All lanes.
    pub fn lanes(&self) -> impl Iterator<Item = (LaneId, &Lane)> {
        self.lanes.iter().map(|(id, lane)| (*id, lane))
    }

    /// A lane never used here, if there is one left.
    pub fn new_lane(&mut self, now: Instant) -> Option<LaneId> {
        if !self.has_new_lane() {
            return None;
        }
        let lane = if self.max_names == 0 {
            LaneId::Default
        } else {
            self.names += 1;
            LaneId::Named(self.names - 1)
        };
        self.lanes.insert(lane, Lane::new(now));
        Some(lane)
    }

    /// True if [`Self::new_lane`] would find one.
    pub fn has_new_lane(&self) -> bool {
        if self.max_names == 0 { self.lanes.is_empty() } else { self.names < self.max_names }
    }

    /// Gives a lane to a turn.
    pub fn reserve(&mut self, now: Instant, lane: LaneId, turn: TurnId, frame: usize) -> bool {
        let reserved = self.lanes.get_mut(&lane).is_some_and(|lane| lane.reserve(now, turn, frame));
        if reserved {
            self.health.touch(now);
        }
        reserved
    }

    /// Keeps `parent` from advancing until the fork by `turn` is under way.
    pub fn hold(&mut self, turn: TurnId, parent: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&parent) {
            lane.holds += 1;
            self.forks.push((turn, parent));
        }
    }

    fn release(&mut self, turn: TurnId) {
        while let Some(n) = self.forks.iter().position(|(fork, _)| *fork == turn) {
            let (_, parent) = self.forks.swap_remove(n);
            if let Some(lane) = self.lanes.get_mut(&parent) {
                lane.holds = lane.holds.saturating_sub(1);
            }
        }
    }

    // ---- what happens

    /// The handshake succeeded.
    pub fn handle_open(&mut self, now: Instant) {
        self.phase = Phase::Open;
        self.since = now;
        self.health.hear(now);
        self.health.touch(now);
        self.close_if_done();
    }

    /// A turn's frame is about to be written: false if nobody waits for it any more.
    pub fn handle_send(&mut self, now: Instant, turn: TurnId) -> bool {
        let waiting = self.lanes.values_mut().find(|lane| lane.turn() == Some(turn));
        let Some(lane) = waiting else { return false };
        lane.send(now);
        self.health.send(now);
        true
    }

    /// A turn's frame is on the wire: its silence counts from here. After a slow way up, so does the socket's.
    pub fn handle_written(&mut self, now: Instant, turn: TurnId, slow: bool) {
        if slow {
            self.health.excuse(now);
        }
        let lane = self.lanes.values_mut().find(|lane| lane.turn() == Some(turn));
        lane.into_iter().for_each(|lane| lane.excuse(now));
    }

    /// Nothing could be heard until now, for a reason of ours: silence counts from here.
    pub fn handle_excused(&mut self, now: Instant) {
        self.health.excuse(now);
        for lane in self.lanes.values_mut() {
            lane.excuse(now);
        }
    }

    /// Any sign of life that is not an event.
    pub fn handle_heard(&mut self, now: Instant) {
        self.health.hear(now);
    }

    /// An event: whose it is, and what it does to its lane.
    pub fn handle_event(&mut self, now: Instant, event: &Event) -> Verdict {
        self.handle_heard(now);
        let kind = event.kind();
        if kind == EventKind::Aside {
            return Verdict::Drop;
        }
        let id = match self.whose(event) {
            Some(id) => id,
            None if kind == EventKind::Error => return self.unattributed(event),
            None => return self.desynchronised(),
        };
        let Some(lane) = self.lanes.get_mut(&id) else { return self.desynchronised() };
        if let State::Waiting { frame, .. } = lane.state {
            self.largest_frame = self.largest_frame.max(frame);
        }
        let busy = lane.in_flight();
        let verdict = match lane.handle_event(now, event) {
            Heard::Unexpected => return self.unexpected(id),
            Heard::Nobody => Verdict::Drop,
            Heard::Turn(turn) => {
                // `created` does not yet say that the parent was read; `in_progress` does (protocol §1.7).
                if kind != EventKind::Created {
                    self.release(turn);
                }
                Verdict::Deliver(turn)
            }
        };
        self.answered |= matches!(id, LaneId::Named(_)) && event.value("stream_id").is_some();
        if kind.is_terminal() && busy {
            self.after_terminal(now, event);
        }
        verdict
    }

    /// A reader fell behind, or caught up.
    pub fn handle_lag(&mut self, lagging: bool) {
        self.lagging = lagging;
    }

    /// Takes no new turns from now on.
    pub fn retire(&mut self) {
        self.retired = true;
        self.close_if_done();
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant, limits: &Limits) {
        if self.phase != Phase::Open {
            return;
        }
        match self.health.pulse(now, limits) {
            Pulse::Gone => return self.handle_lost(&Fault::SocketLost(None)),
            Pulse::Ask => self.actions.push_back(Action::Ping),
            Pulse::Beating => {}
        }
        // The socket that swallowed a frame is given up, as is a turn that stopped in mid-stream.
        for turn in self.lanes.values_mut().filter_map(|lane| lane.expire(now, limits)) {
            self.retired = true;
            self.actions.push_back(Action::Fault(turn, Fault::Silent));
        }
        self.retired |= self.lanes.values().any(|lane| lane.grace_ends(limits).is_some_and(|at| now >= at));
        let rested = self.in_flight() == 0 && self.health.is_rested(now, limits);
        self.retired |= rested || self.health.is_old(now);
        self.close_if_done();
    }

    // ---- what to do

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Self::handle_timeout`] if nothing happens before.
    pub fn poll_timeout(&self, limits: &Limits) -> Option<Instant> {
        if self.phase != Phase::Open {
            return None;
        }
        let clocks = self.health.due(limits, self.retired, self.in_flight() > 0);
        // A grace's end retires the socket, which happens once.
        let grace = |lane: &Lane| if self.retired { None } else { lane.grace_ends(limits) };
        let due = self.lanes.values().flat_map(|lane| [lane.due(limits), grace(lane)]).flatten();
        due.chain([clocks]).min()
    }
}

#[cfg(test)]
mod tests;
