//! `POST /v1/responses`: one JSON object or a stream of events, at the script's pace and with its mishaps; and what
//! `POST /v1/chat/completions` has in common with it.
//!
//! The content comes from the rules, Chat's form from `chat.rs`; this file only waits, writes and breaks off. `background` is accepted but
//! has no queue behind it: such a response is finished when its reply is.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::account::{Spoil, Turn};
use super::chat;
use super::http::{Body, Caller, Reply, body, json_reply, ok};
use super::ledger::{Entry, Record};
use super::refusal::Refusal;
use super::request::{self, Transport};
use super::rules::Ending;
use super::script::{Fault, Moment, NotFound, Occasion, Script, Style};
use super::server::unix;

/// Answers a request for a response.
pub(super) async fn answer(caller: Caller, request: Request<Incoming>, credential: String) -> Reply {
    let arrived = match arrive(&caller, request, Transport::Http, &credential).await {
        Ok(arrived) => arrived,
        Err(reply) => return Ok(reply),
    };
    let asked = arrived.object().and_then(|body| {
        let asked = request::Request::parse(body, Transport::Http)?;
        asked.served(&arrived.script.limits)?;
        Ok(asked)
    });
    let asked = match asked {
        Ok(asked) => asked,
        Err(refusal) => return Ok(arrived.refuse(&refusal)),
    };
    let style = arrived.script.style;
    let mut play = match begin(caller, arrived, &asked, style, &credential).await? {
        Ok(play) => play,
        Err(reply) => return Ok(reply),
    };
    if asked.stream {
        let mut count = 0;
        return Ok(events(play, move |told| {
            count += 1;
            match told {
                Told::Event(frame, _) => sse(&frame),
                Told::Error(frame) => sse(&flat(&frame, count - 1)),
                Told::Noise(text) => format!("data: {text}\n\n"),
            }
        }));
    }
    Ok(match play.finish().await? {
        Ok(response) => ok(&response),
        Err(reply) => reply,
    })
}

/// A request that has come all the way and is on record.
pub(super) struct Arrived {
    bytes: Bytes,
    pub(super) script: Script,
    entry: Entry,
}

impl Arrived {
    /// Its body.
    ///
    /// # Errors
    /// The provider's 400 for one that is no JSON object.
    pub(super) fn object(&self) -> Result<Map<String, Value>, Refusal> {
        match serde_json::from_slice(&self.bytes) {
            Ok(Value::Object(body)) => Ok(body),
            _ => Err(Refusal::invalid("We could not parse the JSON body of your request.")),
        }
    }

    /// Says no.
    pub(super) fn refuse(&self, refusal: &Refusal) -> Response<Body> {
        self.entry.end(Ending::Refused);
        json_reply(StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST), &refusal.body())
    }
}

/// Reads a request off the modelled link, or has the reply for one that cannot be read.
pub(super) async fn arrive(
    caller: &Caller,
    request: Request<Incoming>,
    transport: Transport,
    credential: &str,
) -> Result<Arrived, Response<Body>> {
    let (parts, incoming) = request.into_parts();
    let bytes = body(&parts.headers, incoming).await?;
    let script = caller.provider.now();
    let wire = caller.newly_read();
    let record = Record::new(transport, credential, caller.traffic.number(), bytes.len(), wire);
    let entry = caller.provider.ledger().open(record);
    tokio::time::sleep(travel(&script, wire)).await;
    caller.provider.released().await;
    Ok(Arrived { bytes, script, entry })
}

/// Begins to tell an answer; or has the reply, where nothing was said yet. An error breaks the connection.
pub(super) async fn begin(
    caller: Caller,
    arrived: Arrived,
    asked: &request::Request,
    style: Style,
    credential: &str,
) -> io::Result<Result<Play, Response<Body>>> {
    arrived.entry.write(|record| {
        record.previous.clone_from(&asked.previous);
        record.items = asked.items.len();
        record.settings.clone_from(&asked.settings);
    });
    let provider = caller.provider.clone();
    let begun = provider.account(|account| account.open(asked, credential, style, unix()));
    let turn = match begun {
        Ok(turn) => turn,
        Err(refusal) => return Ok(Err(arrived.refuse(&refusal))),
    };
    let mut play = Play::new(caller, arrived.entry, turn, asked.previous.clone(), &arrived.script);
    play.meet(Moment::AfterSend);
    if let Some(fault) = play.fault.take() {
        match play.suffer(fault).await? {
            // Nothing has been said yet, so an error still becomes a status.
            Some(Told::Error(frame)) => return Ok(Err(play.error_reply(&frame))),
            told => play.queued = told,
        }
    }
    Ok(Ok(play))
}

/// How long a request of so many bytes is under way, with its answer's first byte.
pub(super) fn travel(script: &Script, bytes: u64) -> Duration {
    let uplink = script.link.uplink;
    #[expect(clippy::cast_precision_loss, reason = "a modelled delay")]
    let sending = if uplink == 0 { 0.0 } else { bytes as f64 / uplink as f64 };
    script.link.rtt + Duration::from_secs_f64(sending)
}

/// How long the model takes over a context.
pub(super) fn reading(script: &Script, (fresh, cached): (usize, usize)) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "a modelled delay")]
    let nanoseconds = script.cost.fresh * fresh as f64 + script.cost.cached * cached as f64;
    Duration::from_secs_f64(nanoseconds.max(0.0) / 1e9)
}

/// How long the model takes over so many tokens.
pub(super) fn generating(script: &Script, tokens: u32) -> Duration {
    if script.speed > 0.0 {
        Duration::from_secs_f64(f64::from(tokens) / script.speed)
    } else {
        Duration::ZERO
    }
}

/// A response being told over HTTP. Dropped early, it leaves its turn on record as cancelled.
pub(super) struct Play {
    caller: Caller,
    entry: Entry,
    turn: Option<Turn>,
    previous: Option<String>,
    due: Instant,
    fault: Option<Fault>,
    queued: Option<Told>,
}

/// One thing the client is told.
pub(super) enum Told {
    /// An event; the last one has an ending.
    Event(Value, Option<Ending>),
    /// An error frame that ends the turn.
    Error(Value),
    /// Something that is no event at all.
    Noise(String),
}

impl Play {
    fn new(caller: Caller, entry: Entry, turn: Turn, previous: Option<String>, script: &Script) -> Self {
        entry.write(|record| {
            record.begun = Some(std::time::Instant::now());
            record.response = Some(match record.transport {
                Transport::Chat => chat::id(&turn.facts.response),
                Transport::Http | Transport::WebSocket => turn.facts.response.clone(),
            });
            record.digests = turn.facts.digests.clone();
        });
        let due = Instant::now() + reading(script, (turn.facts.fresh, turn.facts.cached));
        Self { caller, entry, turn: Some(turn), previous, due, fault: None, queued: None }
    }

    /// What comes next; none after the end. An error breaks the connection.
    async fn next(&mut self) -> io::Result<Option<Told>> {
        if let Some(told) = self.queued.take() {
            return Ok(Some(told));
        }
        if let Some(fault) = self.fault.take()
            && let Some(told) = self.suffer(fault).await?
        {
            return Ok(Some(told));
        }
        tokio::time::sleep_until(self.due).await;
        let Some(turn) = &mut self.turn else { return Ok(None) };
        let emission = turn.next(unix());
        self.due += generating(&self.caller.provider.now(), emission.tokens);
        self.entry.write(|record| record.tokens += u64::from(emission.tokens));
        for moment in &emission.moments {
            self.meet(*moment);
        }
        if let Some(ending) = emission.ending {
            self.end(ending);
        }
        Ok(Some(Told::Event(emission.frame, emission.ending)))
    }

    fn meet(&mut self, moment: Moment) {
        let continued = self.previous.is_some();
        let connection = self.caller.traffic.number();
        let occasion = Occasion { moment, http: true, continued, lane: None, connection };
        if self.fault.is_none() {
            self.fault = self.caller.provider.strike(&occasion);
        }
    }

    /// Carries a fault out, as far as it has a meaning over HTTP.
    async fn suffer(&mut self, fault: Fault) -> io::Result<Option<Told>> {
        let response = self.turn.as_ref().map(|turn| turn.facts.response.clone());
        self.entry.struck(&fault, response);
        let spoil = match fault {
            Fault::Error(frame) | Fault::ErrorWithoutLane(frame) | Fault::TwoTerminals(frame) => {
                return Ok(Some(self.break_off(frame)));
            }
            Fault::NotFound(NotFound::Failed) => not_found_failure(),
            Fault::NotFound(shape) => {
                let frame = shape.frame(self.previous.as_deref().unwrap_or_default());
                return Ok(Some(self.break_off(frame)));
            }
            Fault::Failed(code) => failure(code),
            Fault::Incomplete(reason) => Spoil::Incomplete(reason),
            Fault::Close(_) | Fault::HangUp => return Err(io::ErrorKind::ConnectionAborted.into()),
            Fault::Reset => {
                self.caller.traffic.reset_on_drop();
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Fault::Silence | Fault::IgnorePings => {
                tokio::time::sleep(FOREVER).await;
                return Err(io::ErrorKind::TimedOut.into());
            }
            Fault::Garbage(text) => return Ok(Some(Told::Noise(text))),
            Fault::Frame(frame) => return Ok(Some(Told::Event(frame, None))),
            Fault::Trickle(trickle) => {
                self.caller.traffic.trickle(trickle);
                return Ok(None);
            }
            Fault::Upgrade(_) | Fault::Binary(_) | Fault::SpontaneousEvent | Fault::PingFlood(_) => {
                return Ok(None);
            }
        };
        let Some(turn) = &mut self.turn else { return Ok(None) };
        let emission = turn.spoil(&spoil);
        if let Some(ending) = emission.ending {
            self.end(ending);
        }
        Ok(Some(Told::Event(emission.frame, emission.ending)))
    }

    fn break_off(&mut self, frame: Value) -> Told {
        self.turn = None;
        self.entry.end(Ending::Refused);
        Told::Error(frame)
    }

    fn end(&mut self, ending: Ending) {
        if let Some(turn) = self.turn.take() {
            self.caller.provider.account(|account| account.keep(turn, ending));
        }
        self.entry.end(ending);
    }

    /// The response that the terminal event has, or the reply for an error in its place.
    pub(super) async fn finish(&mut self) -> io::Result<Result<Value, Response<Body>>> {
        while let Some(told) = self.next().await? {
            match told {
                Told::Event(mut frame, Some(_)) => return Ok(Ok(frame["response"].take())),
                Told::Error(frame) => return Ok(Err(self.error_reply(&frame))),
                Told::Event(..) | Told::Noise(_) => {}
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    fn error_reply(&self, frame: &Value) -> Response<Body> {
        self.entry.end(Ending::Refused);
        let status = frame["status"].as_u64().or_else(|| frame["status_code"].as_u64()).unwrap_or(400);
        let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        json_reply(status.unwrap_or(StatusCode::BAD_REQUEST), &nested(frame))
    }
}

/// An answer as server-sent events, as `write` writes them down: no event for an empty text.
pub(super) fn events(play: Play, write: impl FnMut(Told) -> String + Send + 'static) -> Response<Body> {
    let frames = stream::unfold((play, write), |(mut play, mut write)| async move {
        loop {
            let text = match play.next().await {
                Ok(None) => return None,
                Err(error) => return Some((Err(error), (play, write))),
                Ok(Some(told)) => write(told),
            };
            if !text.is_empty() {
                return Some((Ok(Frame::data(Bytes::from(text))), (play, write)));
            }
        }
    });
    let mut reply = Response::new(StreamBody::new(frames).boxed_unsync());
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    reply.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    reply
}

/// The body of an error reply: the four members that clients know.
pub(super) fn nested(frame: &Value) -> Value {
    let error = if frame["error"].is_object() { &frame["error"] } else { frame };
    let error: Value = ["message", "type", "param", "code"]
        .map(|name| (name.to_owned(), error[name].clone()))
        .into_iter()
        .collect();
    json!({ "error": error })
}

/// An event of the Responses API: no `[DONE]` follows the last one.
fn sse(frame: &Value) -> String {
    format!("event: {}\ndata: {frame}\n\n", frame["type"].as_str().unwrap_or("message"))
}

/// The error event of a stream, which has no nested object.
fn flat(frame: &Value, sequence: u64) -> Value {
    let error = if frame["error"].is_object() { &frame["error"] } else { frame };
    json!({ "type": "error", "code": error["code"], "message": error["message"], "param": error["param"],
        "sequence_number": sequence })
}

/// The failure of a code, worded as the provider words it.
pub(super) fn failure(code: &'static str) -> Spoil {
    let message = match code {
        "rate_limit_exceeded" => {
            "Rate limit reached for gpt-sim on tokens per min. Please try again in 1.054s.".to_owned()
        }
        _ => "The server had an error while processing your request. Sorry about that!".to_owned(),
    };
    Spoil::Failed { code, message }
}

/// "Not found" inside a failed response.
pub(super) fn not_found_failure() -> Spoil {
    Spoil::Failed { code: "previous_response_not_found", message: "Previous response not found.".to_owned() }
}

/// Longer than any test or client waits, and yet an end.
pub(super) const FOREVER: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::super::script::{Cost, Link};
    use super::*;

    #[test]
    fn the_modelled_times() {
        let link = Link { rtt: Duration::from_millis(40), uplink: 1_000_000, handshakes: 2 };
        let script =
            Script { speed: 50.0, link, cost: Cost { fresh: 100.0, cached: 1.0 }, ..Script::default() };
        assert_eq!(travel(&script, 500_000), Duration::from_millis(540));
        assert_eq!(reading(&script, (10_000, 100_000)), Duration::from_micros(1100));
        assert_eq!(generating(&script, 5), Duration::from_millis(100));
        let instant = Script::default();
        let nothing = (travel(&instant, 1 << 30), reading(&instant, (1, 1)), generating(&instant, 9));
        assert_eq!(nothing, (Duration::ZERO, Duration::ZERO, Duration::ZERO));
    }
}
