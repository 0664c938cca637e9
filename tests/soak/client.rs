//! A client's side of one attempt: the connection, the request, the answer as far as it came, and what is done to it
//! on the way: read slowly, or left.
//!
//! Says what was seen; what was right is `judge.rs`'s.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::Either;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// How an attempt is made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manner {
    pub(crate) http2: bool,
    /// On a connection of its own, even if there is one.
    pub(crate) fresh: bool,
    /// Waits so long before each piece of the answer, at most [`MOST_PAUSES`] times.
    pub(crate) pause: Option<Duration>,
    pub(crate) leave: Option<Leave>,
}

/// When a client goes away.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Leave {
    /// So long after the request was sent, if there is no answer by then.
    Waiting(Duration),
    /// When so many bytes of the answer's body have come.
    Reading(usize),
}

/// What an attempt came to.
#[derive(Debug)]
#[expect(dead_code, reason = "some fields are for the story of a failure, which is the debug form")]
pub(crate) enum Outcome {
    /// The whole answer, with a response that has ended in one way or another.
    Done(Answer),
    /// A status that is an error, and the error.
    Refused { status: u16, code: String, message: String, plan: String },
    /// A body that ended before its end; the code of the error that stood last in it, and the response it began.
    Broken { code: String, message: String, begun: String, plan: String },
    /// No answer at all.
    Unreachable(String),
    /// Nothing more came for [`LONGEST`].
    Hung(String),
    /// The client itself went away.
    Left,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Value,
    /// `x-tailwire`: `delta; exact`, `full; first-turn`.
    pub(crate) plan: String,
    /// What is wrong with the answer's form; empty if nothing.
    pub(crate) mangled: String,
    /// How its body broke off after the response was there; empty if it ended as a body ends.
    pub(crate) torn: String,
}

/// A connection that is kept.
pub(crate) struct Line {
    sender: Sender,
    task: JoinHandle<()>,
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Line {
    async fn open(addr: SocketAddr, http2: bool) -> Result<Self, String> {
        let stream = TcpStream::connect(addr).await.map_err(|error| format!("connect: {error}"))?;
        let _ = stream.set_nodelay(true);
        let io = TokioIo::new(stream);
        let (sender, task) = if http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.initial_stream_window_size(64 << 10);
            let (sender, connection) =
                builder.handshake(io).await.map_err(|error| format!("h2c: {error}"))?;
            (Sender::Two(sender), tokio::spawn(async move { drop(connection.await) }))
        } else {
            let (sender, connection) =
                http1::handshake(io).await.map_err(|error| format!("http/1.1: {error}"))?;
            (Sender::One(sender), tokio::spawn(async move { drop(connection.await) }))
        };
        Ok(Self { sender, task })
    }

    fn is_for(&self, http2: bool) -> bool {
        match &self.sender {
            Sender::One(sender) => !http2 && !sender.is_closed(),
            Sender::Two(sender) => http2 && !sender.is_closed(),
        }
    }

    fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> {
        match &mut self.sender {
            Sender::One(sender) => Either::Left(sender.send_request(request)),
            Sender::Two(sender) => Either::Right(sender.send_request(request)),
        }
    }
}

/// Makes one attempt. A connection that is still good afterwards stays in `line`.
pub(crate) async fn attempt(
    line: &mut Option<Line>,
    addr: SocketAddr,
    request: Request<Full<Bytes>>,
    manner: Manner,
) -> Outcome {
    let kept = line.take().filter(|line| !manner.fresh && line.is_for(manner.http2));
    let mut current = match kept {
        Some(line) => line,
        None => match timeout(LONGEST, Line::open(addr, manner.http2)).await {
            Ok(Ok(line)) => line,
            Ok(Err(error)) => return Outcome::Unreachable(error),
            Err(_) => return Outcome::Hung("connecting".to_owned()),
        },
    };
    let patience = match manner.leave {
        Some(Leave::Waiting(patience)) => patience,
        _ => LONGEST,
    };
    let response = match timeout(patience, current.send(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Outcome::Unreachable(format!("send: {}", chain(&error))),
        Err(_) if patience < LONGEST => return Outcome::Left,
        Err(_) => return Outcome::Hung("before the head".to_owned()),
    };
    let (outcome, whole) = read(response, manner).await;
    if whole {
        *line = Some(current);
    }
    outcome
}

/// Reads the answer; true if the connection can serve another.
async fn read(response: Response<Incoming>, manner: Manner) -> (Outcome, bool) {
    let (parts, mut incoming) = response.into_parts();
    let plan = plan(&parts.headers);
    let mut body: Vec<u8> = Vec::new();
    let mut broken = None;
    let mut pauses = 0;
    loop {
        if let Some(pause) = manner.pause.filter(|_| pauses < MOST_PAUSES) {
            pauses += 1;
            sleep(pause).await;
        }
        match timeout(LONGEST, incoming.frame()).await {
            Ok(Some(Ok(frame))) => body.extend(frame.into_data().unwrap_or_default()),
            Ok(Some(Err(error))) => {
                broken = Some(chain(&error));
                break;
            }
            Ok(None) => break,
            Err(_) => {
                return (Outcome::Hung(format!("after {} bytes; {plan}", body.len())), false);
            }
        }
        if matches!(manner.leave, Some(Leave::Reading(bytes)) if body.len() >= bytes) {
            return (Outcome::Left, false);
        }
    }
    let whole = broken.is_none();
    let text = String::from_utf8_lossy(&body);
    let stream =
        parts.headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"text/event"));
    let outcome = match (parts.status.as_u16(), stream) {
        (200, true) => of_stream(&text, broken, plan),
        (200, false) => of_body(&text, broken, plan),
        (status, _) => {
            let body: Value = serde_json::from_str(&text).unwrap_or_default();
            let (code, message) = error_of(&body["error"]);
            Outcome::Refused { status, code, message, plan }
        }
    };
    (outcome, whole)
}

fn of_body(text: &str, broken: Option<String>, plan: String) -> Outcome {
    match serde_json::from_str::<Value>(text) {
        Ok(response) if response["object"] == "response" => {
            Outcome::Done(Answer { response, plan, mangled: String::new(), torn: broken.unwrap_or_default() })
        }
        _ => {
            let message = broken.unwrap_or_else(|| format!("no response: {:.200}", text));
            Outcome::Broken { code: String::new(), message, begun: String::new(), plan }
        }
    }
}

fn of_stream(text: &str, broken: Option<String>, plan: String) -> Outcome {
    let mut events: Vec<Value> = Vec::new();
    let mut mangled = String::new();
    for block in text.split_inclusive("\n\n").filter(|block| block.ends_with("\n\n")) {
        match event_of(block) {
            Some(event) => events.push(event),
            None => mangled = format!("no event: {block:.200}"),
        }
    }
    for (index, event) in events.iter().enumerate() {
        if event["sequence_number"] != index as u64 && event["type"] != "error" {
            mangled = format!("event {index} has number {}: {}", event["sequence_number"], event["type"]);
            break;
        }
    }
    let begun = events.iter().find_map(|event| event["response"]["id"].as_str()).unwrap_or_default();
    let begun = begun.to_owned();
    let last = events.last().cloned().unwrap_or_default();
    let kind = last["type"].as_str().unwrap_or_default();
    if ["response.completed", "response.failed", "response.incomplete"].contains(&kind) {
        let mut response = last["response"].clone();
        if response["output"].as_array().is_none_or(Vec::is_empty) && kind == "response.completed" {
            let done = events.iter().filter(|event| event["type"] == "response.output_item.done");
            response["output"] = done.map(|event| event["item"].clone()).collect();
        }
        return Outcome::Done(Answer { response, plan, mangled, torn: broken.unwrap_or_default() });
    }
    let (code, message) = if kind == "error" { error_of(&last) } else { Default::default() };
    let message = format!("{message} {} {mangled}", broken.unwrap_or_default());
    Outcome::Broken { code, message, begun, plan }
}

/// Strict: a name and one line of data, and the two agree.
fn event_of(block: &str) -> Option<Value> {
    let (name, data) = block.trim_end().split_once('\n')?;
    let event: Value = serde_json::from_str(data.strip_prefix("data: ")?).ok()?;
    (name.strip_prefix("event: ")? == event["type"].as_str()?).then_some(event)
}

/// Code (or else type) and message of an error object.
fn error_of(error: &Value) -> (String, String) {
    let code = if error["code"].is_null() { &error["type"] } else { &error["code"] };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(code), text(&error["message"]))
}

/// Plan with reason or grade, from `x-tailwire`; `none` without the header.
fn plan(headers: &HeaderMap) -> String {
    let told = headers.get("x-tailwire").and_then(|value| value.to_str().ok()).unwrap_or("plan=none");
    let field = |name: &str| told.split("; ").find_map(|pair| pair.strip_prefix(name));
    let why = field("reason=").or_else(|| field("grade="));
    [field("plan="), why].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        told = format!("{told}: {error}");
        source = error.source();
    }
    told
}

/// Longer than every wait of the proxy's, one after another: what has not come by then does not come.
pub(crate) const LONGEST: Duration = Duration::from_secs(120);
const MOST_PAUSES: u32 = 40;
