//! One upstream socket: its lanes, its clocks, its health. Told what happens (`handle_*`), asked what to do (`poll_*`).
//!
//! Order of use: after any `handle_*` the driver asks `poll_action` until it is empty, then sleeps until
//! `poll_timeout` or the next thing that happens. Does not choose lanes for turns; `core` does.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::proto::digest::Digest;
use crate::proto::fault::Fault;
use crate::proto::id::{ConnectionId, LaneId, TurnId};
use crate::proto::session::Limits;
use crate::proto::session::lane::{Lane, State};
use crate::proto::wire::event::{ErrorClass, Event, EventKind, ProviderError};

/// How long a socket may have been quiet before a new frame is followed by a ping.
const QUIET: Duration = Duration::from_secs(5);

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
    rotate_at: Instant,
    idle_since: Instant,
    heard: Instant,
    pinged: Option<Instant>,
    ping_asked: bool,
    abandoned_at: Option<Instant>,
    forks: Vec<(TurnId, LaneId)>,
    actions: VecDeque<Action>,
}

impl Connection {
    /// A socket about to be opened.
    pub fn new(now: Instant, id: ConnectionId, account: Digest, limits: &Limits, lanes: u32) -> Self {
        // Spread by number, not by chance: no randomness below this line, and neighbours still differ.
        let early = limits.jitter.mul_f64((id.0 % 16) as f64 / 16.0);
        Self {
            id,
            account,
            phase: Phase::Connecting,
            lanes: BTreeMap::new(),
            names: 0,
            max_names: lanes,
            max_in_flight: if lanes == 0 { 1 } else { limits.in_flight },
            retired: false,
            lagging: false,
            largest_frame: 0,
            rotate_at: now + limits.rotate_after - early,
            idle_since: now,
            heard: now,
            pinged: None,
            ping_asked: false,
            abandoned_at: None,
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
            && now < self.rotate_at
            && self.in_flight() < self.max_in_flight
    }

    /// True if its age or a fault keeps it from new turns for good.
    pub fn is_retired(&self, now: Instant) -> bool {
        self.phase == Phase::Closed || self.retired || now >= self.rotate_at
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

    /// The smallest frame that a close with 1009 may be about: unanswered, and above all that was taken before.
    pub fn refused_frame(&self) -> Option<usize> {
        let waiting = self.lanes.values().filter_map(|lane| match lane.state {
            State::Waiting { frame, sent: true, .. } => Some(frame),
            _ => None,
        });
        waiting.filter(|frame| *frame > self.largest_frame).min()
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
        let lane = if self.max_names == 0 {
            if !self.lanes.is_empty() {
                return None;
            }
            LaneId::Default
        } else {
            if self.names == self.max_names {
                return None;
            }
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
            self.idle_since = now;
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
                lane.holds -= 1;
            }
        }
    }

    // ---- what happens

    /// The handshake succeeded.
    pub fn handle_open(&mut self, now: Instant) {
        self.phase = Phase::Open;
        self.heard = now;
        self.idle_since = now;
        self.close_if_done();
    }

    /// A turn's frame is about to be written: false if nobody waits for it any more.
    pub fn handle_send(&mut self, now: Instant, turn: TurnId) -> bool {
        let waiting = self.lanes.values_mut().find(|lane| lane.turn() == Some(turn));
        let Some(lane) = waiting else { return false };
        if let State::Waiting { sent, .. } = &mut lane.state {
            *sent = true;
        }
        lane.touched = now;
        if now.saturating_duration_since(self.heard) >= QUIET {
            self.ping_asked = true;
        }
        true
    }

    /// Any sign of life that is not an event.
    pub fn handle_heard(&mut self, now: Instant) {
        self.heard = now;
        self.pinged = None;
    }

    /// An event: whose it is, and what it does to its lane.
    pub fn handle_event(&mut self, now: Instant, event: &Event) -> Verdict {
        self.handle_heard(now);
        let kind = event.kind();
        if kind == EventKind::Aside {
            return Verdict::Drop;
        }
        let named = self.max_names > 0;
        let ours = |id: &LaneId| self.lanes.contains_key(id) && named == matches!(id, LaneId::Named(_));
        let id = match event.lane().ok().filter(ours) {
            Some(id) => id,
            None if kind != EventKind::Error => return self.desynchronised(),
            None => match self.only_suspect(event) {
                Some(id) => id,
                None => return self.unattributed(),
            },
        };
        let Some(lane) = self.lanes.get_mut(&id) else { return self.desynchronised() };
        lane.touched = now;
        let turn = match lane.state {
            State::Waiting { turn, frame, .. } => {
                self.largest_frame = self.largest_frame.max(frame);
                turn
            }
            State::Streaming { turn } => turn,
            State::Skipping => {
                if kind.is_terminal() {
                    lane.state = ended(kind, event, State::Idle { head: None });
                    self.after_terminal(now, event);
                }
                return Verdict::Drop;
            }
            State::Burnt => return Verdict::Drop,
            State::Idle { .. } | State::Settling { .. } => return self.desynchronised(),
        };
        lane.state = if kind.is_terminal() {
            ended(kind, event, State::Settling { turn })
        } else {
            State::Streaming { turn }
        };
        self.release(turn);
        if kind.is_terminal() {
            self.after_terminal(now, event);
        }
        Verdict::Deliver(turn)
    }

    /// The turn's ending is known: what its lane holds now.
    pub fn handle_settled(
        &mut self,
        now: Instant,
        turn: TurnId,
        head: Option<crate::proto::id::HeadId>,
    ) -> Option<LaneId> {
        let settled = self.lanes.iter_mut().find(|(_, lane)| lane.state == State::Settling { turn });
        let place = settled.map(|(id, lane)| {
            lane.state = State::Idle { head };
            lane.touched = now;
            *id
        });
        self.release(turn);
        self.idle_since = now;
        self.close_if_done();
        place
    }

    /// The turn's client is gone. A socket nobody listens to is closed, so that generation stops as over REST.
    pub fn handle_abandoned(
        &mut self,
        now: Instant,
        turn: TurnId,
    ) -> Option<(LaneId, crate::proto::id::HeadId)> {
        self.release(turn);
        let (id, lane) = self.lanes.iter_mut().find(|(_, lane)| lane.turn() == Some(turn))?;
        let id = *id;
        if let State::Waiting { before, sent: false, .. } = lane.state {
            lane.state = State::Idle { head: before };
            self.close_if_done();
            return before.map(|head| (id, head));
        }
        lane.state = State::Skipping;
        self.abandoned_at.get_or_insert(now);
        if !self.has_listeners() {
            self.close();
        }
        None
    }

    /// The socket is gone, or never came to be: every turn on it ends with `fault`.
    pub fn handle_lost(&mut self, fault: &Fault) {
        if self.phase == Phase::Closed {
            return;
        }
        let turns: Vec<TurnId> = self.lanes.values().filter_map(Lane::turn).collect();
        self.actions.extend(turns.into_iter().map(|turn| Action::Fault(turn, fault.clone())));
        for lane in self.lanes.values_mut().filter(|lane| lane.in_flight()) {
            lane.state = State::Burnt;
        }
        self.close();
    }

    /// Something that must not happen did: the socket cannot be trusted.
    pub fn handle_garbage(&mut self) {
        self.desynchronised();
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
        if self.pinged.is_some_and(|at| now >= at + limits.pong) {
            self.handle_lost(&Fault::SocketLost(None));
            return;
        }
        if self.ping_asked || (self.pinged.is_none() && now >= self.heard + limits.ping) {
            self.ping_asked = false;
            self.pinged.get_or_insert(now);
            self.actions.push_back(Action::Ping);
        }
        self.expire_turns(now, limits);
        let grace_over = self.abandoned_at.is_some_and(|at| now >= at + limits.abandon_grace);
        if grace_over && self.lanes.values().any(|lane| lane.state == State::Skipping) {
            self.retired = true;
        }
        if grace_over {
            self.abandoned_at = None;
        }
        let idle = self.in_flight() == 0 && now >= self.idle_since + limits.idle;
        if now >= self.rotate_at || idle {
            self.retired = true;
        }
        self.close_if_done();
    }

    /// Silence of one turn: the socket that swallowed a frame is given up, as is a turn that stopped in mid-stream.
    fn expire_turns(&mut self, now: Instant, limits: &Limits) {
        for lane in self.lanes.values_mut() {
            let (turn, limit) = match lane.state {
                State::Waiting { turn, sent: true, .. } => (turn, limits.first_event),
                State::Streaming { turn } => (turn, limits.silence),
                _ => continue,
            };
            if now >= lane.touched + limit {
                lane.state = State::Burnt;
                self.retired = true;
                self.actions.push_back(Action::Fault(turn, Fault::Silent));
            }
        }
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
        let mut at = self.pinged.map_or(self.heard + limits.ping, |pinged| pinged + limits.pong);
        if self.ping_asked {
            return Some(self.heard);
        }
        for lane in self.lanes.values() {
            match lane.state {
                State::Waiting { sent: true, .. } => at = at.min(lane.touched + limits.first_event),
                State::Streaming { .. } => at = at.min(lane.touched + limits.silence),
                _ => {}
            }
        }
        if let Some(abandoned) = self.abandoned_at {
            at = at.min(abandoned + limits.abandon_grace);
        }
        if !self.retired {
            at = at.min(self.rotate_at);
            if self.in_flight() == 0 {
                at = at.min(self.idle_since + limits.idle);
            }
        }
        Some(at)
    }

    // ---- inside

    fn has_listeners(&self) -> bool {
        self.lanes.values().any(|lane| lane.turn().is_some())
    }

    fn settling(&self) -> bool {
        self.lanes.values().any(|lane| matches!(lane.state, State::Settling { .. }))
    }

    fn close_if_done(&mut self) {
        if self.retired && !self.has_listeners() && !self.settling() {
            self.close();
        }
    }

    fn close(&mut self) {
        if self.phase != Phase::Closed {
            self.phase = Phase::Closed;
            self.actions.push_back(Action::Close);
        }
    }

    /// More may come of an error that was not a plain not-found: without lanes to tell it apart, the socket goes.
    fn after_terminal(&mut self, now: Instant, event: &Event) {
        self.idle_since = now;
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

    /// Whose an error without a lane must be: the only turn there is. An aged socket's may be about no turn at all, and
    /// leaves those under way alone.
    fn only_suspect(&self, event: &Event) -> Option<LaneId> {
        let mut suspects =
            self.lanes.iter().filter(|(_, lane)| lane.in_flight() || lane.state == State::Burnt);
        let (id, lane) = suspects.next().filter(|_| suspects.next().is_none())?;
        let under_way = !matches!(lane.state, State::Waiting { sent: true, .. });
        let aged = ProviderError::of_event(event).class == ErrorClass::ConnectionLimit;
        (!(under_way && aged)).then_some(*id)
    }

    /// An error that names no lane: it is everybody's who has heard nothing yet (protocol §7.6).
    fn unattributed(&mut self) -> Verdict {
        self.retired = true;
        for lane in self.lanes.values_mut() {
            if let State::Waiting { turn, .. } = lane.state {
                lane.state = State::Burnt;
                self.actions.push_back(Action::Fault(turn, Fault::SocketLost(None)));
            }
        }
        self.close_if_done();
        Verdict::Drop
    }

    fn desynchronised(&mut self) -> Verdict {
        self.handle_lost(&Fault::Desynchronised);
        Verdict::Drop
    }
}

/// The state a terminal event leaves a lane in.
fn ended(kind: EventKind, event: &Event, clean: State) -> State {
    let clean_error = || ProviderError::of_event(event).class == ErrorClass::NotFound;
    if kind != EventKind::Error || clean_error() { clean } else { State::Burnt }
}
