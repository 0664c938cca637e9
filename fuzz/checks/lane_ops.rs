//! A socket's lanes under any order of operations, against a naive book of whose each lane is: an event reaches the turn
//! that asked on that lane and nobody else, every turn hears of one ending, a lane holds what its last turn left there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tailwire::proto::digest::Key;
use tailwire::proto::fault::Fault;
use tailwire::proto::id::{ConnectionId, HeadId, LaneId, TurnId};
use tailwire::proto::session::Limits;
use tailwire::proto::session::connection::{Action, Connection, Verdict};
use tailwire::proto::wire::event::Event;

const CREATED: &str = r#""type":"response.created","response":{"id":"r"}"#;
const DELTA: &str = r#""type":"response.output_text.delta","delta":"x""#;
const COMPLETED: &str = r#""type":"response.completed","response":{"id":"r"}"#;
const ERROR: &str = r#""type":"error","error":{"code":"server_error","message":"m"}"#;
const NOT_FOUND: &str = r#""type":"error","error":{"code":"previous_response_not_found","message":"m"}"#;
const TOO_OLD: &str = r#""type":"error","error":{"code":"websocket_connection_limit_reached","message":"m"}"#;

/// A digit for how many lane names there are; then operations of a letter and a digit, what and on which lane.
pub(crate) fn check(data: &[u8]) {
    let Some((names, operations)) = data.split_first() else { return };
    let mut world = World::new(u32::from(names.wrapping_sub(b'0') % 5));
    for operation in operations.chunks_exact(2) {
        world.step(operation[0], operation[1].wrapping_sub(b'0'));
        world.assert_lawful();
    }
    world.connection.handle_lost(&Fault::SocketLost(None));
    world.act();
    world.assert_lawful();
}

struct World {
    now: Instant,
    limits: Limits,
    connection: Connection,
    names: u32,
    turns: u64,
    /// Turns by the lane they were given, until they have ended or were given up.
    serving: BTreeMap<LaneId, Turn>,
    /// Turns whose ending was heard, and whether it was the last word there; not yet settled.
    ending: BTreeMap<LaneId, (TurnId, bool)>,
    /// Turns that were told of a fault, not yet settled.
    faulted: Vec<TurnId>,
    /// Turns that were told of an ending.
    over: BTreeSet<TurnId>,
    /// Lanes where the provider was asked and has not said its last word.
    asked: BTreeSet<LaneId>,
    heads: BTreeMap<LaneId, HeadId>,
    /// Lanes that must not advance, by the turn that forks from them.
    held: BTreeMap<TurnId, LaneId>,
    open: bool,
}

struct Turn {
    id: TurnId,
    sent: bool,
    before: Option<HeadId>,
}

impl World {
    fn new(names: u32) -> Self {
        let limits = Limits { in_flight: 3, ..Limits::default() };
        let (now, key) = (Instant::now(), Key::new([1; 32]));
        let connection =
            Connection::new(now, ConnectionId(1), key.hasher("account").finish(), &limits, names);
        Self {
            now,
            limits,
            connection,
            names,
            turns: 0,
            serving: BTreeMap::new(),
            ending: BTreeMap::new(),
            faulted: Vec::new(),
            over: BTreeSet::new(),
            asked: BTreeSet::new(),
            heads: BTreeMap::new(),
            held: BTreeMap::new(),
            open: false,
        }
    }

    fn lane(&self, byte: u8) -> LaneId {
        if self.names == 0 { LaneId::Default } else { LaneId::Named(u32::from(byte) % self.names) }
    }

    fn step(&mut self, what: u8, byte: u8) {
        let lane = self.lane(byte);
        match what.wrapping_sub(b'a') % 22 {
            0 => self.new_lane(),
            1 => self.reserve(lane),
            2 => self.open(),
            3 => self.send(lane),
            4 => self.event(lane, CREATED, true),
            5 => self.event(lane, DELTA, true),
            6 => self.event(lane, COMPLETED, true),
            7 => self.event(lane, ERROR, true),
            8 => self.event(lane, NOT_FOUND, true),
            9 => self.event(lane, CREATED, false),
            10 => self.event(lane, DELTA, false),
            11 => self.event(lane, COMPLETED, false),
            12 => self.event(lane, ERROR, false),
            13 => self.event(lane, TOO_OLD, byte.is_multiple_of(2)),
            14 => self.settle(lane, byte),
            15 => self.abandon(lane),
            16 => self.wait(byte),
            17 => self.hold(lane, byte),
            18 => self.connection.handle_lag(byte.is_multiple_of(2)),
            19 => self.connection.handle_excused(self.now),
            20 if byte > 7 => self.connection.retire(),
            _ => self.connection.handle_heard(self.now),
        }
        self.act();
    }

    fn new_lane(&mut self) {
        let before = self.connection.lanes().count();
        let lane = self.connection.new_lane(self.now);
        assert_eq!(lane.is_some(), self.connection.lanes().count() > before, "a name given twice");
    }

    fn open(&mut self) {
        if !self.open && !self.connection.is_closed() {
            self.open = true;
            self.connection.handle_open(self.now);
        }
    }

    fn reserve(&mut self, lane: LaneId) {
        if !self.connection.accepts(self.now) {
            return;
        }
        self.turns += 1;
        let id = TurnId(self.turns);
        if self.connection.reserve(self.now, lane, id, 100) {
            assert!(!self.asked.contains(&lane), "{lane:?} is not done with its last turn");
            assert!(!self.ending.contains_key(&lane), "{lane:?} was given before its turn was settled");
            assert!(!self.held.values().any(|held| *held == lane), "{lane:?} is held by a fork");
            let turn = Turn { id, sent: false, before: self.heads.remove(&lane) };
            assert!(self.serving.insert(lane, turn).is_none(), "{lane:?} serves two turns");
        }
    }

    fn send(&mut self, lane: LaneId) {
        let Some(turn) = self.serving.get_mut(&lane).filter(|turn| self.open && !turn.sent) else { return };
        turn.sent = self.connection.handle_send(self.now, turn.id);
        assert!(turn.sent, "a turn that waits is sent");
        self.connection.handle_written(self.now, turn.id, false);
        self.asked.insert(lane);
    }

    /// The provider says something on `lane`, and with `named` says so.
    fn event(&mut self, lane: LaneId, members: &str, named: bool) {
        if !self.open || self.connection.is_closed() {
            return;
        }
        let name = lane.name().filter(|_| named).map(|name| format!(r#""stream_id":"{name}","#));
        let event = format!("{{{}{members}}}", name.unwrap_or_default());
        let event = Event::parse(Bytes::from(event)).expect("an event");
        let named = named || self.names == 0;
        let alone = self.asked.first().copied().filter(|_| self.asked.len() == 1);
        // Whose it must be, where anybody can tell: errors may come without a name that is known.
        let known = named && self.connection.lane(lane).is_some();
        let whose = if known { Some(lane) } else { alone.filter(|_| !named || event.kind().is_terminal()) };
        let expected = whose.is_some_and(|lane| self.asked.contains(&lane));
        let verdict = self.connection.handle_event(self.now, &event);
        let turn = whose.and_then(|lane| Some((lane, self.serving.get(&lane).filter(|turn| turn.sent)?.id)));
        match verdict {
            Verdict::Deliver(id) => {
                let (lane, asked) = turn.expect("an event for a turn that asked");
                assert_eq!(asked, id, "an event of {lane:?} went to another turn");
                assert!(!self.over.contains(&id), "an event after the end");
                if members != CREATED {
                    self.held.remove(&id);
                }
                if event.kind().is_terminal() {
                    self.serving.remove(&lane);
                    self.ending.insert(lane, (id, [COMPLETED, NOT_FOUND].contains(&members)));
                }
            }
            // Nobody's; or of the socket, and then the turn hears of that.
            Verdict::Drop => {
                let faulted = self.connection.is_closed() || self.connection.is_retired(self.now);
                assert!(turn.is_none() || faulted, "an event for {turn:?} was lost");
                if !expected && known {
                    self.distrust(lane);
                }
            }
        }
        if [COMPLETED, NOT_FOUND].contains(&members) {
            whose.map(|lane| self.asked.remove(&lane));
        }
    }

    /// Something came where nothing was to come: who knows what the lane holds.
    fn distrust(&mut self, lane: LaneId) {
        self.heads.remove(&lane);
        self.ending.get_mut(&lane).into_iter().for_each(|(_, last)| *last = false);
    }

    fn settle(&mut self, lane: LaneId, byte: u8) {
        let Some((turn, last)) = self.ending.remove(&lane) else {
            if let Some(turn) = self.faulted.pop() {
                assert_eq!(
                    self.connection.handle_settled(self.now, turn, None),
                    None,
                    "{turn} left something"
                );
            }
            return;
        };
        let head = byte.is_multiple_of(2).then_some(HeadId(turn.0));
        let place = self.connection.handle_settled(self.now, turn, head);
        // What a closed socket holds is nobody's concern.
        let place = place.filter(|_| !self.connection.is_closed());
        let last = last && !self.connection.is_closed();
        assert_eq!(place, last.then_some(lane), "where the head of {turn} is");
        self.held.remove(&turn);
        self.over.insert(turn);
        self.heads.extend(place.zip(head));
    }

    fn abandon(&mut self, lane: LaneId) {
        let served = self.serving.remove(&lane).map(|turn| (turn.id, turn.before.filter(|_| !turn.sent)));
        let ending = || Some((self.ending.remove(&lane)?.0, None));
        let Some((turn, before)) = served.or_else(ending) else { return };
        let back = self.connection.handle_abandoned(self.now, turn);
        assert_eq!(back, before.map(|head| (lane, head)), "what a turn never sent gives back");
        self.connection.handle_settled(self.now, turn, None);
        self.heads.extend(back);
        self.held.remove(&turn);
        self.over.insert(turn);
    }

    /// Time passes, and every clock that is due has struck.
    fn wait(&mut self, byte: u8) {
        self.now += Duration::from_secs(u64::from(byte) * u64::from(byte));
        self.connection.handle_timeout(self.now, &self.limits);
        let due = self.connection.poll_timeout(&self.limits);
        assert!(due.is_none_or(|at| at > self.now), "a clock strikes without end");
    }

    fn hold(&mut self, lane: LaneId, byte: u8) {
        let parent = self.lane(byte.wrapping_add(1));
        let Some(turn) = self.serving.get(&lane).filter(|turn| !turn.sent && parent != lane) else { return };
        if self.connection.lane(parent).is_some() && !self.held.contains_key(&turn.id) {
            self.connection.hold(turn.id, parent);
            self.held.insert(turn.id, parent);
        }
    }

    fn act(&mut self) {
        let mut actions = 0;
        while let Some(action) = self.connection.poll_action() {
            actions += 1;
            assert!(actions < 64, "no end of actions");
            let Action::Fault(turn, _) = action else { continue };
            assert!(self.over.insert(turn), "{turn} hears of two endings");
            let lane = self.serving.iter().find(|(_, serving)| serving.id == turn).map(|(lane, _)| *lane);
            self.serving.remove(&lane.expect("a fault for a turn that is served"));
            self.held.remove(&turn);
            self.faulted.push(turn);
        }
    }

    fn assert_lawful(&self) {
        assert!(self.connection.in_flight() <= if self.names == 0 { 1 } else { self.limits.in_flight });
        assert!(self.connection.lanes().count() <= self.names.max(1) as usize);
        assert!(!self.connection.is_closed() || self.serving.is_empty(), "a turn waits for a closed socket");
        assert!(!self.connection.is_closed() || !self.connection.accepts(self.now));
        for (lane, turn) in &self.serving {
            let here = self.connection.lane(*lane).and_then(|lane| lane.turn());
            assert_eq!(here, Some(turn.id), "{lane:?} forgot its turn");
        }
        for (id, lane) in self.connection.lanes().filter(|_| !self.connection.is_closed()) {
            assert_eq!(lane.head(), self.heads.get(&id).copied(), "what {id:?} holds");
            assert!(
                lane.turn().is_none() || self.serving.contains_key(&id),
                "{id:?} serves somebody unknown"
            );
        }
    }
}
