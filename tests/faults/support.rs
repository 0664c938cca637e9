//! A provider, a proxy before it, a second provider to compare with, and agents that keep their own history.
//!
//! Knows how to ask and how to read an answer; which answer is right for a fault is the tests' to say.

#[path = "../support/scanner.rs"]
mod scanner;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::Either;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tailwire::app;
use tailwire::config::{AdminListen, ProfileName, Settings};
use tailwire::sim::script::Limits;
use tailwire::sim::{self, Script};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// How long a test waits for what should already be on its way. Long, as a machine may be busy with much else, and some
/// answers weigh megabytes: a failure is slow, nothing else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// How many responses the provider, and so the proxy, has in flight on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    Lanes,
    Single,
}

pub(crate) struct World {
    pub(crate) sim: sim::Running,
    pub(crate) proxy: app::Running,
    /// Sees every request in full, over HTTP, with nothing in between.
    pub(crate) reference: sim::Running,
}

impl World {
    pub(crate) async fn start(width: Width, tune: impl FnOnce(&mut Settings)) -> Self {
        let sim = sim::Running::start(script(width)).await.unwrap();
        let base = sim.base_url();
        Self::before(sim, &base, width, tune).await
    }

    /// A proxy before `base`, whoever serves that.
    pub(crate) async fn before(
        sim: sim::Running,
        base: &str,
        width: Width,
        tune: impl FnOnce(&mut Settings),
    ) -> Self {
        scanner::listen();
        let mut settings = Settings {
            listen: "127.0.0.1:0".parse().unwrap(),
            admin_listen: AdminListen::Off,
            upstream: base.parse().unwrap(),
            profile: if width == Width::Single { ProfileName::Azure } else { ProfileName::Openai },
            ..Settings::default()
        };
        tune(&mut settings);
        let reference = sim::Running::start(Script::default()).await.unwrap();
        Self { proxy: app::Running::start(settings).await.unwrap(), sim, reference }
    }

    /// Asserts that the answer is complete, and what the model would have said to the client's own full request.
    pub(crate) async fn assert_right(&self, agent: &Agent, answer: &Answer, about: &str) -> Value {
        let response = answer.response();
        assert!(!answer.broken && response["status"] == "completed", "{about}: {answer:?}");
        let mut body = agent.body();
        body["stream"] = false.into();
        let direct = post(self.reference.addr, &agent.key, &body).await.response();
        assert_eq!(response["sim"], direct["sim"], "{about}: another context");
        assert_eq!(bare(&response["output"]), bare(&direct["output"]), "{about}: another answer");
        response
    }

    /// How often turns were repeated so far: in full on the same socket, on a new one, over HTTP.
    pub(crate) fn rungs(&self) -> [u64; 3] {
        let metrics = self.proxy.metrics();
        [&metrics.recovered_full_same, &metrics.recovered_full_new, &metrics.recovered_http]
            .map(tailwire::telemetry::metrics::Counter::value)
    }

    /// The provider saw no rule broken.
    pub(crate) fn assert_lawful(&self) {
        self.sim.provider.ledger().read(|book| assert_eq!(book.violations, []));
    }
}

pub(crate) fn script(width: Width) -> Script {
    let limits = if width == Width::Single { Limits::one_in_flight() } else { Limits::default() };
    Script { limits, deflate: true, ..Script::default() }
}

pub(crate) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Waits for a condition that nobody signals.
pub(crate) async fn until(about: &str, mut condition: impl FnMut() -> bool) {
    let polled = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, polled).await.is_ok(), "{about}");
}

/// What should end, ends.
pub(crate) async fn within<T>(about: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(done) => done,
        Err(_) => panic!("{about}: not in time"),
    }
}

/// A conversation as an agent keeps it: the whole history, sent each time.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) key: String,
    name: &'static str,
    pub(crate) stream: bool,
    pub(crate) store: bool,
    pub(crate) tools: Value,
    pub(crate) instructions: String,
    history: Vec<Value>,
}

impl Agent {
    pub(crate) fn new(key: impl Into<String>, name: &'static str, stream: bool) -> Self {
        Self {
            key: key.into(),
            name,
            stream,
            store: false,
            tools: json!([]),
            instructions: "Be brief.".to_owned(),
            history: Vec::new(),
        }
    }

    pub(crate) fn body(&self) -> Value {
        json!({ "model": "gpt-sim", "store": self.store, "stream": self.stream, "tools": self.tools,
            "instructions": self.instructions, "input": self.history })
    }

    /// The user says something; `wish` is a directive for the simulated model.
    pub(crate) fn ask(&mut self, wish: &str) {
        let text = format!("{}, item {}: go on. [sim {wish}]", self.name, self.history.len());
        self.history.push(json!({ "role": "user", "content": text }));
    }

    /// Takes back the last thing said.
    pub(crate) fn unask(&mut self) {
        self.history.pop();
    }

    /// Takes an answer into the history, and the outputs of its calls.
    pub(crate) fn take(&mut self, response: &Value) {
        for item in response["output"].as_array().unwrap() {
            self.history.push(item.clone());
        }
        for call in
            response["output"].as_array().unwrap().iter().filter(|item| item["type"] == "function_call")
        {
            let output =
                json!({ "type": "function_call_output", "call_id": call["call_id"], "output": "done" });
            self.history.push(output);
        }
    }

    pub(crate) async fn send(&self, world: &World) -> Answer {
        within("an answer", post(world.proxy.addr, &self.key, &self.body())).await
    }

    /// Sends what was asked, expects a right answer, and takes it in. Returns how it travelled.
    pub(crate) async fn finish(&mut self, world: &World, about: &str) -> String {
        let answer = self.send(world).await;
        let response = world.assert_right(self, &answer, about).await;
        self.take(&response);
        answer.plan()
    }

    /// The same for a stream whose body was read elsewhere.
    pub(crate) async fn assert_stream(&self, world: &World, body: &str, about: &str) -> Value {
        let headers = [("content-type".parse().unwrap(), "text/event-stream".parse().unwrap())];
        let headers = headers.into_iter().collect();
        let answer = Answer { status: 200, headers, body: body.to_owned(), broken: false };
        world.assert_right(self, &answer, about).await
    }

    pub(crate) async fn turn(&mut self, world: &World, wish: &str, about: &str) -> String {
        self.ask(wish);
        self.finish(world, about).await
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    /// The body ended before its end.
    pub(crate) broken: bool,
}

impl Answer {
    pub(crate) async fn read(response: Response<Incoming>) -> Self {
        let (parts, mut incoming) = response.into_parts();
        let mut body = Vec::new();
        let mut broken = false;
        while let Some(frame) = incoming.frame().await {
            match frame {
                Ok(frame) => body.extend(frame.into_data().unwrap_or_default()),
                // Asked again, HTTP/2 says so for ever.
                Err(_) => {
                    broken = true;
                    break;
                }
            }
        }
        let body = String::from_utf8(body).unwrap();
        Self { status: parts.status.as_u16(), headers: parts.headers, body, broken }
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.headers["content-type"].as_bytes().starts_with(b"text/event-stream")
    }

    pub(crate) fn events(&self) -> Vec<Value> {
        let data = |block: &str| Some(serde_json::from_str(block.split_once("data: ")?.1).unwrap());
        self.body.split_terminator("\n\n").filter_map(data).collect()
    }

    /// The response object of the last event, or of the body; null if there is none.
    pub(crate) fn response(&self) -> Value {
        if self.is_stream() {
            return self.events().pop().unwrap_or_default()["response"].take();
        }
        if self.broken { Value::Null } else { serde_json::from_str(&self.body).unwrap() }
    }

    /// The code of the error it consists of or ends with; empty if there is none.
    pub(crate) fn code(&self) -> String {
        let error = if self.is_stream() {
            self.events().pop().filter(|event| event["type"] == "error").unwrap_or_default()
        } else {
            serde_json::from_str::<Value>(&self.body).unwrap()["error"].take()
        };
        let code = if error["code"].is_null() { &error["type"] } else { &error["code"] };
        code.as_str().unwrap_or_default().to_owned()
    }

    /// How the turn travelled: `delta`, `full; first-turn`, `http; no-socket`.
    pub(crate) fn plan(&self) -> String {
        let Some(told) = self.headers.get("x-tailwire") else { return String::new() };
        let told = told.to_str().unwrap();
        let field = |name: &str| told.split("; ").find_map(|pair| pair.strip_prefix(name));
        let plan = field("plan=").unwrap();
        field("reason=").map_or_else(|| plan.to_owned(), |reason| format!("{plan}; {reason}"))
    }
}

/// The version of HTTP a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    H2c,
}

/// Sends a request on a connection of its own; the task is the connection, and dies with an abort.
pub(crate) async fn open(
    version: Version,
    addr: SocketAddr,
    request: Request<Full<Bytes>>,
) -> (impl Future<Output = hyper::Result<Response<Incoming>>>, JoinHandle<()>) {
    exchange(version, TcpStream::connect(addr).await.unwrap(), request).await
}

/// The same on a connection that is there.
pub(crate) async fn exchange<B>(
    version: Version,
    stream: TcpStream,
    request: Request<B>,
) -> (impl Future<Output = hyper::Result<Response<Incoming>>>, JoinHandle<()>)
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let io = TokioIo::new(stream);
    if version == Version::Http1 {
        let (mut sender, connection) = http1::handshake(io).await.unwrap();
        let task = tokio::spawn(async move { drop(connection.await) });
        return (Either::Left(async move { sender.send_request(request).await }), task);
    }
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(64 << 10);
    let (mut sender, connection) = builder.handshake(io).await.unwrap();
    let task = tokio::spawn(async move { drop(connection.await) });
    (Either::Right(async move { sender.send_request(request).await }), task)
}

pub(crate) fn request(addr: SocketAddr, key: &str, body: &Value) -> Request<Full<Bytes>> {
    Request::post(format!("http://{addr}/v1/responses"))
        .header("host", addr.to_string())
        .header("authorization", format!("Bearer sk-planted-{key}"))
        .header("content-type", "application/json")
        .body(Full::new(body.to_string().into()))
        .unwrap()
}

async fn post(addr: SocketAddr, key: &str, body: &Value) -> Answer {
    let (response, _connection) = open(Version::Http1, addr, request(addr, key, body)).await;
    Answer::read(response.await.unwrap()).await
}

/// An output without the ids that every run mints anew.
fn bare(output: &Value) -> Value {
    let mut items = output.clone();
    for item in items.as_array_mut().unwrap() {
        item.as_object_mut().unwrap().remove("id");
    }
    items
}
