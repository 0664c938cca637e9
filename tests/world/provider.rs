//! The provider's end of every socket, and the socket's task: carries frames up and events down as the real driver does,
//! and checks on the way whose they are.

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;
use serde_json::{Value, json};
use tailwire::proto::core::gate::Refusal;
use tailwire::proto::fault::Fault;
use tailwire::proto::id::{ConnectionId, TurnId};
use tailwire::proto::session::connection::{Action, Verdict};
use tailwire::proto::wire::event::{Event, EventKind};
use tailwire::sim::rules::{Connection, Spoil, TurnId as Told};
use tailwire::sim::script::NotFound;

use crate::turn::Message;
use crate::{World, credential};

/// One socket, both ends.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) tenant: usize,
    pub(crate) rules: Connection,
    open: bool,
    /// Frames not yet written.
    up: VecDeque<(TurnId, Vec<u8>)>,
    /// Which turn the provider is answering, lane and parent.
    sent: HashMap<Told, Sent>,
    /// Turns the provider has forgotten.
    stuck: HashSet<Told>,
    /// Dead, and nobody was told.
    mute: bool,
}

#[derive(Debug, Clone)]
struct Sent {
    turn: TurnId,
    lane: Option<String>,
    previous: Option<String>,
    begun: bool,
}

impl Socket {
    pub(crate) fn new(now: std::time::Instant, tenant: usize) -> Self {
        Self {
            tenant,
            rules: Connection::new(now, credential(tenant)),
            open: false,
            up: VecDeque::new(),
            sent: HashMap::new(),
            stuck: HashSet::new(),
            mute: false,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    pub(crate) fn submit(&mut self, turn: TurnId, frame: Vec<u8>) {
        self.up.push_back((turn, frame));
    }
}

impl World<'_> {
    /// The handshake ends; false if it already has.
    pub(crate) fn open(&mut self, id: ConnectionId, how: u8) -> bool {
        let Some(socket) = self.sockets.get_mut(&id).filter(|socket| !socket.open) else { return false };
        let refusal = match how {
            0..220 => {
                socket.open = true;
                socket.rules = Connection::new(self.now, credential(socket.tenant));
                self.core.opened(self.now, id);
                self.act(id);
                return true;
            }
            220..240 => Refusal::Failure,
            240..248 => Refusal::Answer,
            _ => Refusal::NoSockets,
        };
        self.core.refused(self.now, id, refusal);
        self.act(id);
        assert!(!self.sockets.contains_key(&id), "a refused socket is over");
        true
    }

    /// Writes the next frame; false if there is none.
    pub(crate) fn write(&mut self, id: ConnectionId) -> bool {
        let Some(socket) = self.sockets.get_mut(&id).filter(|socket| socket.open) else { return false };
        let Some((turn, frame)) = socket.up.pop_front() else { return false };
        if !self.core.sending(self.now, id, turn) {
            return true;
        }
        let text = String::from_utf8(frame).expect("UTF-8");
        let ask = self.ask_of(turn);
        ask.sent();
        let settings = ask.settings.clone();
        let Some(socket) = self.sockets.get_mut(&id).filter(|socket| !socket.mute) else { return true };
        let received = match socket.rules.receive(self.now, &self.limits, &mut self.account, &text) {
            Ok(received) => received,
            Err(error) => {
                let lane = serde_json::from_str::<Value>(&text).expect("JSON")["stream_id"].clone();
                self.hear(id, None, &error, lane.as_str());
                return true;
            }
        };
        assert_eq!(received.settings, settings, "the client's settings, all of them");
        let sent = Sent { turn, lane: received.lane, previous: received.previous, begun: false };
        socket.sent.insert(received.turn, sent);
        true
    }

    /// Turns the provider is at work on.
    pub(crate) fn under_way(&self) -> Vec<(ConnectionId, Told)> {
        let alive = self.sockets.iter().filter(|(_, socket)| !socket.mute);
        let turns = alive.flat_map(|(id, socket)| {
            let told = socket.rules.in_flight().filter(|told| !socket.stuck.contains(told));
            told.map(|told| (*id, told))
        });
        turns.collect()
    }

    /// The provider's next event of a turn; false if there is none.
    pub(crate) fn tell(&mut self, id: ConnectionId, told: Told) -> bool {
        let Some(socket) = self.sockets.get_mut(&id) else { return false };
        let emission = socket.rules.advance(&self.limits, &mut self.account, self.style, 1, told);
        let Some(emission) = emission else { return false };
        self.hear(id, Some(told), &emission.frame, None);
        true
    }

    /// The socket's task reads an event, and it goes to the turn it belongs to or nowhere.
    fn hear(&mut self, id: ConnectionId, told: Option<Told>, frame: &Value, lane: Option<&str>) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let sent = told.and_then(|told| socket.sent.get_mut(&told)).map(|sent| {
            sent.begun = true;
            sent.clone()
        });
        let text = if self.setup.pretty { format!("{frame:#}") } else { frame.to_string() };
        let event = Event::parse(Bytes::from(text)).expect("an event");
        let verdict = self.core.event(self.now, id, &event);
        if let Verdict::Deliver(turn) = verdict {
            if let Some(sent) = &sent {
                assert_eq!(turn, sent.turn, "an event of another turn");
            } else {
                assert_eq!(event.kind(), EventKind::Error, "an event of no turn, lane {lane:?}");
            }
            self.ask_of(turn).deliver(Message::Event(event));
        }
        if !self.setup.lazy || !matches!(verdict, Verdict::Deliver(_)) {
            self.act(id);
        }
    }

    /// Carries out what the heart wants of a socket.
    pub(crate) fn act(&mut self, id: ConnectionId) {
        while let Some(action) = self.core.poll_action(id) {
            match action {
                Action::Ping => {
                    if self.sockets.get(&id).is_some_and(|socket| !socket.mute) {
                        self.core.heard(self.now, id);
                    }
                }
                Action::Fault(turn, fault) => {
                    if self.turns.contains_key(&turn) {
                        self.ask_of(turn).deliver(Message::Fault(fault));
                    }
                }
                Action::Close => {
                    // What the closing socket still has to say about its turns is said.
                    while let Some(action) = self.core.poll_action(id) {
                        if let Action::Fault(turn, fault) = action {
                            self.ask_of(turn).deliver(Message::Fault(fault));
                        }
                    }
                    self.core.closed(self.now, id);
                    self.sockets.remove(&id);
                }
            }
        }
    }

    /// Every turn on a socket has reason to fail.
    fn disturb(&mut self, id: ConnectionId) {
        self.asks.values_mut().filter(|ask| ask.is_on(id)).for_each(|ask| ask.disturbed = true);
    }

    /// A socket ends, breaks, or goes dumb.
    pub(crate) fn lose(&mut self, id: ConnectionId, how: u8) {
        let Some(socket) = self.sockets.get_mut(&id).filter(|socket| socket.open) else { return };
        match how % 8 {
            0 => self.core.garbage(id),
            1 => self.core.lost(id, &Fault::TooBig),
            2 => {
                socket.mute = true;
                return self.disturb(id);
            }
            3 => {
                let event =
                    Event::parse(Bytes::from_static(br#"{"type":"response.created","stream_id":"agent"}"#));
                self.core.event(self.now, id, &event.expect("an event"));
            }
            n => self.core.lost(id, &Fault::SocketLost((n > 5).then_some(1006))),
        }
        self.disturb(id);
        self.act(id);
        assert!(!self.sockets.contains_key(&id), "a lost socket is over");
    }

    /// A turn goes wrong at the provider's.
    pub(crate) fn spoil(&mut self, id: ConnectionId, told: Told, how: u8) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let Some(sent) = socket.sent.get(&told).cloned() else { return };
        let early = !sent.begun;
        let continues = sent.previous.as_deref();
        let error = json!({"type": "error", "status": 429, "error": {"type": "tokens", "code": "rate_limit_exceeded", "message": "m"}});
        let spoil = match how % 10 {
            0 => Spoil::Failed { code: "server_error", message: "m".to_owned() },
            1 => Spoil::Incomplete("max_output_tokens"),
            2 if continues.is_some() && early => {
                Spoil::Failed { code: "previous_response_not_found", message: "m".to_owned() }
            }
            3 => {
                socket.stuck.insert(told);
                return self.disturb(id);
            }
            4 => return self.refuse(id, told, &error, false),
            5 => {
                self.refuse(id, told, &error, true);
                let failed =
                    json!({"type": "response.failed", "response": {"id": "resp_x", "status": "failed"}});
                if self.sockets.contains_key(&id) && sent.lane.is_some() {
                    self.hear_late(id, failed, &sent);
                }
                return;
            }
            n if continues.is_some() && early => {
                let shapes = [NotFound::Nested, NotFound::Flat, NotFound::Codeless, NotFound::StatusCode];
                let shape = shapes[usize::from(n) % 4];
                return self.refuse(id, told, &shape.frame(continues.unwrap_or_default()), true);
            }
            _ => return self.refuse(id, told, &error, true),
        };
        // A missing parent is made up for by sending everything; the rest is the provider's last word.
        let missing = matches!(&spoil, Spoil::Failed { code: "previous_response_not_found", .. });
        self.disturb_turn(sent.turn, missing);
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let turn = (told, &spoil);
        if let Some(emission) = socket.rules.spoil(&self.limits, &mut self.account, self.style, 1, turn) {
            self.hear(id, Some(told), &emission.frame, None);
        }
    }

    /// An error frame ends a turn, on its lane or on none.
    fn refuse(&mut self, id: ConnectionId, told: Told, error: &Value, named: bool) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        let Some(sent) = socket.sent.get(&told).cloned() else { return };
        socket.rules.abandon(&self.limits, &mut self.account, told);
        let mut frame = error.clone();
        if let Some(lane) = sent.lane.as_ref().filter(|_| named) {
            frame["stream_id"] = lane.as_str().into();
        }
        let not_found =
            sent.previous.is_some() && named && !sent.begun && frame.to_string().contains("revious");
        if named || sent.lane.is_none() {
            self.disturb_turn(sent.turn, not_found);
        } else {
            self.disturb(id);
        }
        let told = Some(told).filter(|_| named || sent.lane.is_none());
        self.hear(id, told, &frame, None);
    }

    /// The second ending of a turn that has ended.
    fn hear_late(&mut self, id: ConnectionId, mut frame: Value, sent: &Sent) {
        frame["stream_id"] = sent.lane.as_deref().into();
        let event = Event::parse(Bytes::from(frame.to_string())).expect("an event");
        assert_eq!(self.core.event(self.now, id, &event), Verdict::Drop, "nobody waits for a second ending");
        self.act(id);
        assert!(self.sockets.contains_key(&id), "nor does it harm the others");
    }

    /// The turn has reason to fail; if only its parent is missing, it has not unless its client named that itself.
    fn disturb_turn(&mut self, turn: TurnId, missing: bool) {
        if let Some(ask) = self.turns.get(&turn).and_then(|ask| self.asks.get_mut(ask)) {
            ask.bereft |= missing;
            ask.disturbed |= !missing || ask.request.anchor.is_some();
        }
    }
}
