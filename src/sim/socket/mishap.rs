//! Mishaps on a Responses socket: carrying out what the script wants to go wrong.
//!
//! When each one strikes is decided by the moments of the turn; this file only acts.

use serde_json::{Value, json};
use tokio::time::Instant;
use yawc::frame::Frame;

use super::{Driver, Flow};
use crate::sim::answer::{FOREVER, failure, not_found_failure};
use crate::sim::context::Digests;
use crate::sim::rules::{Ending, Spoil, TurnId};
use crate::sim::script::{Fault, Moment, NotFound, Occasion, Script};
use crate::sim::server::unix;
use crate::sim::stream;

impl Driver {
    pub(super) fn strike(&self, moment: Moment, index: usize) -> Option<Fault> {
        let live = &self.live[index];
        let (continued, lane) = (live.previous.is_some(), live.lane.as_deref());
        let connection = self.caller.traffic.number();
        self.provider.strike(&Occasion { moment, http: false, continued, lane, connection })
    }

    /// Carries a fault out, on a turn or on the connection.
    pub(super) async fn suffer(&mut self, fault: Fault, turn: Option<TurnId>, script: &Script) -> Flow {
        self.enter(&fault, turn);
        match fault {
            Fault::Error(mut frame) => {
                self.name_lane(&mut frame, turn);
                self.break_off(frame, turn, script).await
            }
            Fault::ErrorWithoutLane(frame) => self.break_off(frame, turn, script).await,
            Fault::TwoTerminals(mut frame) => {
                self.name_lane(&mut frame, turn);
                self.tell(frame, script).await?;
                self.spoil(turn, &failure("server_is_overloaded"), script).await
            }
            Fault::NotFound(NotFound::Failed) => self.spoil(turn, &not_found_failure(), script).await,
            Fault::NotFound(shape) => {
                let live = self.live.iter().find(|live| Some(live.turn) == turn);
                let previous = live.and_then(|live| live.previous.as_deref()).unwrap_or_default();
                let mut frame = shape.frame(previous);
                self.name_lane(&mut frame, turn);
                self.break_off(frame, turn, script).await
            }
            Fault::Failed(code) => self.spoil(turn, &failure(code), script).await,
            Fault::Incomplete(reason) => self.spoil(turn, &Spoil::Incomplete(reason), script).await,
            Fault::Close(code) => self.close(code.into(), "").await,
            Fault::Reset => {
                self.caller.traffic.reset_on_drop();
                Flow::Break(())
            }
            Fault::HangUp => Flow::Break(()),
            Fault::Silence => {
                if let Some(live) = self.live.iter_mut().find(|live| Some(live.turn) == turn) {
                    live.due = Instant::now() + FOREVER;
                }
                Flow::Continue(())
            }
            Fault::IgnorePings => {
                tokio::time::sleep(FOREVER).await;
                Flow::Break(())
            }
            Fault::Garbage(text) => self.send(Frame::text(text)).await,
            Fault::Binary(bytes) => self.send(Frame::binary(bytes)).await,
            Fault::Frame(mut frame) => {
                self.name_lane(&mut frame, turn);
                self.tell(frame, script).await
            }
            Fault::Trickle(trickle) => {
                self.caller.traffic.trickle(trickle);
                Flow::Continue(())
            }
            Fault::SpontaneousEvent => {
                let response =
                    stream::opening(&json!({ "model": "gpt-sim" }), SPONTANEOUS, &Digests::default(), unix());
                let mut frame =
                    json!({ "type": "response.created", "sequence_number": 0, "response": response });
                self.name_lane(&mut frame, None);
                self.tell(frame, script).await
            }
            Fault::PingFlood(count) => {
                for number in 0..count {
                    self.send(Frame::ping(number.to_string())).await?;
                }
                Flow::Continue(())
            }
            Fault::Upgrade(_) => Flow::Continue(()),
        }
    }

    /// Puts a fault on record, with the turn it is meant for.
    fn enter(&self, fault: &Fault, turn: Option<TurnId>) {
        let facts = turn.and_then(|turn| self.rules.facts(turn));
        let response = facts.map(|facts| facts.response.clone());
        match self.live.iter().find(|live| Some(live.turn) == turn) {
            Some(live) => live.entry.struck(fault, response),
            None => self.provider.ledger().struck(self.caller.traffic.number(), &self.credential, fault),
        }
    }

    /// Ends a turn with an error frame of the script's own.
    async fn break_off(&mut self, frame: Value, turn: Option<TurnId>, script: &Script) -> Flow {
        if let Some(index) = self.live.iter().position(|live| Some(live.turn) == turn) {
            let live = self.live.remove(index);
            live.entry.end(Ending::Refused);
            let rules = &mut self.rules;
            self.provider.account(|account| rules.abandon(&script.limits, account, live.turn));
            self.rest();
        }
        self.tell(frame, script).await
    }

    async fn spoil(&mut self, turn: Option<TurnId>, spoil: &Spoil, script: &Script) -> Flow {
        let Some(index) = self.live.iter().position(|live| Some(live.turn) == turn) else {
            return Flow::Continue(());
        };
        let (rules, turn) = (&mut self.rules, self.live[index].turn);
        let emission = self
            .provider
            .account(|account| rules.spoil(&script.limits, account, script.style, unix(), (turn, spoil)));
        let Some(emission) = emission else { return Flow::Continue(()) };
        let live = self.live.remove(index);
        live.entry.end(emission.ending.unwrap_or(Ending::Failed));
        self.rest();
        self.tell(emission.frame, script).await
    }

    /// The name of the turn's lane; once the turn is over, or without one, of the lane last used.
    fn name_lane(&self, frame: &mut Value, turn: Option<TurnId>) {
        let live = self.live.iter().find(|live| Some(live.turn) == turn);
        let lane = live.map_or(self.last_lane.as_deref(), |live| live.lane.as_deref());
        if let Some(name) = lane {
            frame["stream_id"] = name.into();
        }
    }
}

/// What the ChatGPT backend sends after the end of a response (protocol 1.13, 1.15).
pub(super) fn late_frames() -> [Value; 3] {
    [
        json!({ "type": "codex.rate_limits", "plan_type": "pro", "rate_limits": { "allowed": true } }),
        json!({ "type": "responsesapi.websocket_timing", "timing_metrics": { "server_ms": 12 } }),
        json!({ "type": "response.metadata", "headers": { "x-codex-turn-state": "t" } }),
    ]
}

const SPONTANEOUS: &str = "resp_000000000000000000000000000000000000000000000000";
