//! The provider's WebSocket face: one task that drives a connection's rules over frames.
//!
//! What a frame means is decided in `rules.rs`; this file reads, waits, writes, and carries out mishaps.

mod mishap;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::Duration;

use futures_util::SinkExt;
use serde_json::Value;
use tokio::time::{Instant, sleep_until, timeout};
use yawc::close::CloseCode;
use yawc::frame::{Frame, OpCode};
use yawc::{HttpStream, WebSocket};

use super::answer::{FOREVER, generating, reading, travel};
use super::http::Caller;
use super::ledger::{Entry, Outcome, Record};
use super::request::Transport;
use super::rules::{Connection, Emission, Ending, TurnId};
use super::script::{Fault, Moment, Occasion, Script};
use super::server::{Provider, unix};

/// An upgraded connection.
pub(super) type Socket = WebSocket<HttpStream>;
type Flow = ControlFlow<()>;

/// Owns one Responses socket.
pub(super) struct Driver {
    caller: Caller,
    provider: Provider,
    socket: Socket,
    credential: String,
    rules: Connection,
    /// Frames under way on the modelled link.
    arrivals: VecDeque<Arrival>,
    uplink_free: Instant,
    live: Vec<Live>,
    last_lane: Option<String>,
    /// A turn has ended here: only then does an idle connection have mishaps of its own.
    served: bool,
    /// Whether an idle mishap is to be looked for.
    look_idle: bool,
    next_ping: Instant,
}

struct Arrival {
    due: Instant,
    text: String,
    wire: u64,
}

/// A turn that the rules know of and the ledger has an entry for.
struct Live {
    turn: TurnId,
    entry: Entry,
    lane: Option<String>,
    previous: Option<String>,
    due: Instant,
    begun: bool,
}

impl Driver {
    pub(super) fn new(caller: Caller, socket: Socket, credential: String) -> Self {
        let now = Instant::now();
        caller.provider.ledger().write(|book| {
            book.upgrades_granted += 1;
            book.sockets_open += 1;
            *book.sockets_of.entry(credential.clone()).or_default() += 1;
        });
        Self {
            provider: caller.provider.clone(),
            rules: Connection::new(now.into_std(), credential.clone()),
            caller,
            socket,
            credential,
            arrivals: VecDeque::new(),
            uplink_free: now,
            live: Vec::new(),
            last_lane: None,
            served: false,
            look_idle: false,
            next_ping: now,
        }
    }

    pub(super) async fn run(mut self) {
        let mut changes = self.provider.changes();
        self.next_ping += self.provider.now().ping_every.unwrap_or_default();
        loop {
            let script = self.provider.now();
            if self.work(&script).await.is_break() {
                return;
            }
            let due = self.next_due(&script);
            let ping = script.ping_every.map_or_else(|| Instant::now() + FOREVER, |_| self.next_ping);
            let flow = tokio::select! {
                frame = self.socket.next_frame(), if self.arrivals.len() < MOST_ARRIVALS => match frame {
                    Ok(frame) => self.hear(frame, &script).await,
                    Err(_) => {
                        // Polled once more, yawc sends the close frame it has prepared.
                        let _ = timeout(FAREWELL, self.socket.next_frame()).await;
                        Flow::Break(())
                    }
                },
                () = sleep_until(due) => Flow::Continue(()),
                () = sleep_until(ping) => {
                    self.next_ping = Instant::now() + script.ping_every.unwrap_or(FOREVER);
                    self.send(Frame::ping("sim")).await
                }
                _ = changes.changed() => {
                    self.look_idle |= self.served && !self.rules_busy();
                    Flow::Continue(())
                }
            };
            if flow.is_break() {
                return;
            }
        }
    }

    /// Takes a frame off the wire; a request goes on to arrive when the modelled link has carried it.
    async fn hear(&mut self, frame: Frame, script: &Script) -> Flow {
        match frame.opcode() {
            OpCode::Text if frame.payload().len() > script.limits.max_frame => {
                self.provider.ledger().limited(
                    self.caller.traffic.number(),
                    &self.credential,
                    "message_too_big",
                );
                self.close(CloseCode::Size, "message too big").await
            }
            OpCode::Text => match String::from_utf8(frame.into_payload().into()) {
                Ok(text) => {
                    let wire = self.caller.newly_read();
                    let link = travel(script, wire);
                    let sent = self.uplink_free.max(Instant::now()) + (link - script.link.rtt);
                    self.uplink_free = sent;
                    self.arrivals.push_back(Arrival { due: sent + script.link.rtt, text, wire });
                    Flow::Continue(())
                }
                Err(_) => self.close(CloseCode::Invalid, "invalid UTF-8").await,
            },
            OpCode::Binary => self.close(CloseCode::Unsupported, "text frames only").await,
            OpCode::Ping => {
                self.provider.ledger().write(|book| book.pings += 1);
                Flow::Continue(())
            }
            OpCode::Pong => {
                self.provider.ledger().write(|book| book.pongs += 1);
                Flow::Continue(())
            }
            OpCode::Close | OpCode::Continuation => Flow::Continue(()),
        }
    }

    /// Does what is due: arrivals, then one event of every turn whose time has come, then idle mishaps.
    async fn work(&mut self, script: &Script) -> Flow {
        let now = Instant::now();
        while let Some(arrival) = self.arrivals.pop_front_if(|arrival| !script.held && arrival.due <= now) {
            self.receive(arrival, script).await?;
        }
        let turns: Vec<TurnId> = self.rules.in_flight().collect();
        for turn in turns {
            if let Some(index) = self.live.iter().position(|live| live.turn == turn && live.due <= now) {
                self.step(index, script).await?;
            }
        }
        if self.look_idle && !self.rules_busy() && self.arrivals.is_empty() {
            self.look_idle = false;
            let lane = self.last_lane.clone();
            let (lane, connection) = (lane.as_deref(), self.caller.traffic.number());
            let idle = Occasion { moment: Moment::Idle, http: false, continued: false, lane, connection };
            if let Some(fault) = self.provider.strike(&idle) {
                return self.suffer(fault, None, script).await;
            }
        }
        Flow::Continue(())
    }

    async fn receive(&mut self, arrival: Arrival, script: &Script) -> Flow {
        let Arrival { text, wire, .. } = arrival;
        let number = self.caller.traffic.number();
        let record = Record::new(Transport::WebSocket, &self.credential, number, text.len(), wire);
        let entry = self.provider.ledger().open(record);
        let rules = &mut self.rules;
        let now = Instant::now();
        let received =
            self.provider.account(|account| rules.receive(now.into_std(), &script.limits, account, &text));
        match received {
            Err(frame) => {
                entry.end(Ending::Refused);
                let code = frame["error"]["code"].as_str().unwrap_or_default();
                if code.starts_with("websocket_") {
                    self.provider.ledger().limited(number, &self.credential, code);
                }
                self.tell(frame, script).await
            }
            Ok(received) => {
                entry.write(|record| {
                    record.stream_id.clone_from(&received.lane);
                    record.previous.clone_from(&received.previous);
                    record.items = received.items;
                    record.settings = received.settings;
                });
                self.last_lane.clone_from(&received.lane);
                let (turn, lane, previous) = (received.turn, received.lane, received.previous);
                self.live.push(Live { turn, entry, lane, previous, due: now, begun: false });
                Flow::Continue(())
            }
        }
    }

    /// One event of one turn, or the mishap in its place.
    async fn step(&mut self, index: usize, script: &Script) -> Flow {
        let turn = self.live[index].turn;
        if !self.live[index].begun {
            // It may have waited for its lane; it does not catch up for that.
            self.live[index].due = Instant::now();
            if let Some(fault) = self.strike(Moment::AfterSend, index) {
                // More than one may strike now.
                return self.suffer(fault, Some(turn), script).await;
            }
            self.live[index].begun = true;
        }
        let rules = &mut self.rules;
        let emission = self
            .provider
            .account(|account| rules.advance(&script.limits, account, script.style, unix(), turn));
        match emission {
            Some(emission) => self.emit(index, emission, script).await,
            None => Flow::Continue(()),
        }
    }

    /// Sends an event of a turn, puts it on record, and brings about what comes with its moment.
    async fn emit(&mut self, index: usize, emission: Emission, script: &Script) -> Flow {
        let turn = self.live[index].turn;
        let facts = self.rules.facts(turn).cloned();
        let live = &mut self.live[index];
        if emission.frame["type"] == "response.created"
            && let Some(facts) = facts
        {
            live.due += reading(script, (facts.fresh, facts.cached));
            live.entry.write(|record| {
                record.begun = Some(std::time::Instant::now());
                record.response = Some(facts.response);
                record.digests = facts.digests;
            });
        }
        live.due += generating(script, emission.tokens);
        let faults: Vec<Fault> =
            emission.moments.iter().filter_map(|moment| self.strike(*moment, index)).collect();
        let live = &self.live[index];
        live.entry.write(|record| {
            record.tokens += u64::from(emission.tokens);
            if let Some(ending) = emission.ending {
                record.outcome = Outcome::Ended(ending);
            }
        });
        if emission.ending.is_some() {
            self.live.remove(index);
            self.rest();
        }
        self.tell(emission.frame, script).await?;
        if emission.ending.is_some() && script.style.late_frames {
            for frame in mishap::late_frames() {
                self.tell(frame, script).await?;
            }
        }
        for fault in faults {
            self.suffer(fault, Some(turn), script).await?;
        }
        Flow::Continue(())
    }

    async fn tell(&mut self, frame: Value, script: &Script) -> Flow {
        let text = if script.style.pretty { format!("{frame:#}") } else { frame.to_string() };
        self.send(Frame::text(text)).await
    }

    async fn send(&mut self, frame: Frame) -> Flow {
        match self.socket.send(frame).await {
            Ok(()) => Flow::Continue(()),
            Err(_) => Flow::Break(()),
        }
    }

    /// Closes with a code, and reads on for a moment so that the close frame is not lost in a reset.
    async fn close(&mut self, code: CloseCode, reason: &str) -> Flow {
        if self.socket.send(Frame::close(code, reason)).await.is_ok() {
            let answered = async {
                while let Ok(frame) = self.socket.next_frame().await {
                    if frame.opcode() == OpCode::Close {
                        return;
                    }
                }
            };
            let _ = timeout(FAREWELL, answered).await;
        }
        Flow::Break(())
    }

    /// A turn has ended: if it was the last one, the connection is idle.
    fn rest(&mut self) {
        self.served = true;
        self.look_idle = true;
    }

    fn rules_busy(&self) -> bool {
        self.rules.waiting() > 0 || self.rules.in_flight().next().is_some()
    }

    fn next_due(&self, script: &Script) -> Instant {
        let turns = self
            .rules
            .in_flight()
            .filter_map(|turn| self.live.iter().find(|live| live.turn == turn).map(|live| live.due));
        turns
            .chain(self.arrivals.front().filter(|_| !script.held).map(|arrival| arrival.due))
            .min()
            .unwrap_or_else(|| Instant::now() + FOREVER)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.provider.ledger().write(|book| {
            book.sockets_open -= 1;
            if let Some(open) = book.sockets_of.get_mut(&self.credential) {
                *open -= 1;
            }
            book.sockets_of.retain(|_, open| *open > 0);
        });
    }
}

const MOST_ARRIVALS: usize = 64;
/// How long a closing connection is read for the peer's own close frame.
const FAREWELL: Duration = Duration::from_secs(2);
