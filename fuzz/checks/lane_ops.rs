//! A socket's lanes under any order of operations, against a naive book of whose each lane is: an event reaches the turn
//! that asked on that lane and nobody else, no turn hears of two endings, no lane serves two turns, limits hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tailwire::proto::digest::Key;
use tailwire::proto::id::{ConnectionId, HeadId, LaneId, TurnId};
use tailwire::proto::session::Limits;
use tailwire::proto::session::connection::{Action, Connection, Verdict};
use tailwire::proto::wire::event::Event;

/// The first byte is how many lane names there are; then operations of two bytes each, what and on which lane.
pub fn check(data: &[u8]) {
    let Some((names, operations)) = data.split_first() else { return };
    let mut world = World::new(u32::from(names % 5));
    for operation in operations.chunks_exact(2) {
        world.step(operation[0], operation[1]);
        world.assert_lawful();
    }
}

struct World {
    now: Instant,
    limits: Limits,
    connection: Connection,
    names: u32,
    turns: u64,
    /// Turns by the lane they were given, until they have ended or were given up.
    serving: BTreeMap<LaneId, Turn>,
    /// Turns whose ending was heard; not yet settled.
    ending: BTreeMap<LaneId, TurnId>,
    over: BTreeSet<TurnId>,
    open: bool,
    /// A provider that ignores lane names is told apart by its first events: whose they are is then the machine's to say.
    named: bool,
}

struct Turn {
    id: TurnId,
    sent: bool,
    heard: bool,
}

impl World {
    fn new(names: u32) -> Self {
        let limits = Limits { in_flight: 2, ..Limits::default() };
        let (now, key) = (Instant::now(), Key::new([1; 32]));
        let account = key.hasher("account").finish();
        let connection = Connection::new(now, ConnectionId(1), account, &limits, names);
        Self {
            now,
            limits,
            connection,
            names,
            turns: 0,
            serving: BTreeMap::new(),
            ending: BTreeMap::new(),
            over: BTreeSet::new(),
            open: false,
            named: names > 0,
        }
    }

    fn lane(&self, byte: u8) -> LaneId {
        if self.names == 0 { LaneId::Default } else { LaneId::Named(u32::from(byte) % self.names) }
    }

    fn step(&mut self, what: u8, byte: u8) {
        let lane = self.lane(byte);
        match what % 12 {
            0 => drop(self.connection.new_lane(self.now)),
            1 => self.reserve(lane),
            2 if !self.open => {
                self.open = true;
                self.connection.handle_open(self.now);
            }
            3 => self.send(lane),
            4 => self.event(lane, r#""type":"response.created","response":{"id":"r"}"#, false),
            5 => self.event(lane, r#""type":"response.output_text.delta","delta":"x""#, false),
            6 => self.event(lane, r#""type":"response.completed","response":{"id":"r"}"#, true),
            7 => self.event(lane, r#""type":"error","error":{"code":"server_error","message":"m"}"#, true),
            8 => self.settle(lane, byte),
            9 => self.abandon(lane),
            10 => {
                self.now += Duration::from_secs(u64::from(byte) * 2);
                self.connection.handle_timeout(self.now, &self.limits);
            }
            11 if byte > 250 => self.connection.retire(),
            _ => self.connection.handle_heard(self.now),
        }
        self.act();
    }

    fn reserve(&mut self, lane: LaneId) {
        if !self.connection.accepts(self.now) {
            return;
        }
        self.turns += 1;
        let id = TurnId(self.turns);
        if self.connection.reserve(self.now, lane, id, 100) {
            let before = self.serving.insert(lane, Turn { id, sent: false, heard: false });
            assert!(before.is_none(), "{lane:?} serves two turns");
            assert!(!self.ending.contains_key(&lane), "{lane:?} was given before its turn was settled");
        }
    }

    fn send(&mut self, lane: LaneId) {
        let Some(turn) = self.serving.get_mut(&lane).filter(|turn| self.open && !turn.sent) else { return };
        turn.sent = self.connection.handle_send(self.now, turn.id);
        assert!(turn.sent, "a turn that waits is sent");
        self.connection.handle_written(self.now, turn.id, false);
    }

    fn event(&mut self, lane: LaneId, members: &str, terminal: bool) {
        if !self.open || self.connection.is_closed() {
            return;
        }
        let name = lane.name().map(|name| format!(r#""stream_id":"{name}","#)).unwrap_or_default();
        let event = Event::parse(Bytes::from(format!("{{{name}{members}}}"))).expect("an event");
        let verdict = self.connection.handle_event(self.now, &event);
        let asked = self.serving.get_mut(&lane).filter(|turn| turn.sent);
        match verdict {
            Verdict::Deliver(id) => {
                let turn = asked.expect("an event for a turn that asked");
                assert_eq!(turn.id, id, "an event of {lane:?} went to another turn");
                assert!(!self.over.contains(&id), "an event after the end");
                turn.heard = true;
                if terminal {
                    self.serving.remove(&lane);
                    self.ending.insert(lane, id);
                }
            }
            // Nobody's, or the end of the socket: then every turn hears of that.
            Verdict::Drop => assert!(asked.is_none() || self.connection.is_closed() || !self.named),
        }
    }

    fn settle(&mut self, lane: LaneId, byte: u8) {
        let Some(turn) = self.ending.remove(&lane) else { return };
        let head = (byte % 2 == 0).then_some(HeadId(turn.0));
        self.connection.handle_settled(self.now, turn, head);
        self.over.insert(turn);
    }

    fn abandon(&mut self, lane: LaneId) {
        let Some(turn) = self.serving.remove(&lane) else { return };
        self.connection.handle_abandoned(self.now, turn.id);
        self.over.insert(turn.id);
    }

    fn act(&mut self) {
        let mut actions = 0;
        while let Some(action) = self.connection.poll_action() {
            actions += 1;
            assert!(actions < 64, "no end of actions");
            let Action::Fault(turn, _) = action else { continue };
            assert!(self.over.insert(turn), "{turn} hears of two endings");
            let lane = self.serving.iter().find(|(_, serving)| serving.id == turn).map(|(lane, _)| *lane);
            let lane = lane.expect("a fault for a turn that is served");
            self.serving.remove(&lane);
        }
    }

    fn assert_lawful(&self) {
        assert!(self.connection.in_flight() <= self.limits.in_flight.max(1));
        assert!(self.connection.lanes().count() <= self.names.max(1) as usize);
        for (lane, turn) in &self.serving {
            let here = self.connection.lane(*lane).and_then(|lane| lane.turn());
            assert_eq!(here, Some(turn.id), "{lane:?} forgot its turn");
        }
        if self.connection.is_closed() {
            assert!(!self.connection.accepts(self.now));
        }
    }
}
