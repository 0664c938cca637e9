//! A plain HTTP client, a connection for each request, and what it reads off an answer.
//!
//! Shares no code with the proxy: SSE and `x-tailwire` are parsed here anew.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What every client presents unless told otherwise; `support/scanner.rs` knows it by its beginning.
pub(crate) const CREDENTIAL: &str = "Bearer sk-planted-a";

#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) addr: SocketAddr,
    pub(crate) headers: HeaderMap,
}

impl Client {
    /// Presents [`CREDENTIAL`] and sends JSON.
    pub(crate) fn new(addr: SocketAddr) -> Self {
        let client = Self { addr, headers: HeaderMap::new() };
        client.with("authorization", CREDENTIAL).with("content-type", "application/json")
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    pub(crate) async fn ask(&self, body: &Value) -> Reply {
        self.send(Method::POST, "/v1/responses", body.to_string()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, "").await
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Reply {
        let (parts, body) = self.open(method, path, body.into()).await.into_parts();
        let collected = soon(body.collect()).await.unwrap();
        let trailers = collected.trailers().cloned().unwrap_or_default();
        Reply { status: parts.status, headers: parts.headers, trailers, body: collected.to_bytes() }
    }

    /// Sends a request and returns with the answer's head.
    pub(crate) async fn open(&self, method: Method, path: &str, body: Bytes) -> Response<Incoming> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap();
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().entry("host").or_insert(self.addr.to_string().parse().unwrap());
        let stream = TcpStream::connect(self.addr).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        soon(sender.send_request(request)).await.unwrap()
    }
}

/// Nothing in these tests may hang: what has not come by then does not come.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("no answer")
}

const PATIENCE: Duration = Duration::from_secs(60);

/// Sends bytes as they are, says no more if `ends`, and reads until the other side ends. An end by reset counts.
pub(crate) async fn raw(addr: SocketAddr, bytes: &[u8], ends: bool) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // A server that has heard enough need not listen to the rest.
    let _ = stream.write_all(bytes).await;
    if ends {
        let _ = stream.shutdown().await;
    }
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).unwrap()
}

#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) trailers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.header("content-type").starts_with("text/event-stream")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// The events of a stream. Strict: `event:` and `data:` of one line each, and the two agree.
    pub(crate) fn events(&self) -> Vec<Value> {
        let text = std::str::from_utf8(&self.body).unwrap();
        assert!(text.is_empty() || text.ends_with("\n\n"), "{text}");
        let event = |block: &str| {
            let (name, data) = block.split_once('\n').unwrap_or_else(|| panic!("{block}"));
            let data = data.strip_prefix("data: ").unwrap_or_else(|| panic!("{block}"));
            let event: Value = serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {block}"));
            assert_eq!(name.strip_prefix("event: "), event["type"].as_str(), "{block}");
            event
        };
        text.split_terminator("\n\n").map(event).collect()
    }

    /// The response object: the body, or what the terminal event of the stream holds.
    pub(crate) fn response(&self) -> Value {
        assert_eq!(self.status, 200, "{:?}", self.body);
        let response = match self.is_stream() {
            true => self.events().pop().map(|mut event| event["response"].take()).unwrap_or_default(),
            false => self.json(),
        };
        assert_eq!(response["object"], "response", "{:?}", self.body);
        response
    }

    /// What `x-tailwire` says.
    pub(crate) fn told(&self) -> Told {
        Told::parse(self.header("x-tailwire"))
    }
}

/// A parsed `x-tailwire` header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) plan: String,
    /// The grade of a delta, the reason of anything else.
    pub(crate) why: String,
    /// New and all; none over HTTP.
    pub(crate) items: Option<(usize, usize)>,
    pub(crate) received: usize,
    pub(crate) sent: usize,
    pub(crate) wire: u64,
}

impl Told {
    fn parse(text: &str) -> Self {
        let mut told = Self::default();
        for pair in text.split("; ") {
            let (name, value) = pair.split_once('=').unwrap_or_else(|| panic!("x-tailwire: {text:?}"));
            match name {
                "plan" => told.plan = value.to_owned(),
                "grade" | "reason" => told.why = value.to_owned(),
                "items" => {
                    let (new, all) = value.split_once('/').unwrap();
                    told.items = Some((new.parse().unwrap(), all.parse().unwrap()));
                }
                "received" => told.received = value.parse().unwrap(),
                "sent" => told.sent = value.parse().unwrap(),
                "wire" => told.wire = value.parse().unwrap(),
                _ => panic!("x-tailwire: {text:?}"),
            }
        }
        told
    }

    /// `plan` and its reason or grade, for a comparison in one line.
    pub(crate) fn plan(&self) -> (&str, &str) {
        (&self.plan, &self.why)
    }
}
