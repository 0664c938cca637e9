//! Clients: one that asks and reads, one that keeps its connection, one that stops reading.
//!
//! Shares no code with the proxy; `x-tailwire` is read here anew.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// No single answer takes longer, unless something hangs.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `delta`, `full; first-turn`, `http; busy`.
    pub(crate) plan: String,
    pub(crate) body: Vec<u8>,
    pub(crate) broken: bool,
}

impl Answer {
    async fn read(response: Response<Incoming>) -> Self {
        let told = response.headers().get("x-tailwire").and_then(|value| value.to_str().ok()).unwrap_or("");
        let field = |name: &str| told.split("; ").find_map(|pair| pair.strip_prefix(name));
        let plan = field("plan=").unwrap_or_default();
        let plan = field("reason=").map_or_else(|| plan.to_owned(), |reason| format!("{plan}; {reason}"));
        let mut answer = Self { status: response.status().as_u16(), plan, ..Self::default() };
        let mut incoming = response.into_body();
        while let Some(frame) = incoming.frame().await {
            match frame {
                Ok(frame) => answer.body.extend(frame.into_data().unwrap_or_default()),
                Err(_) => {
                    answer.broken = true;
                    break;
                }
            }
        }
        answer
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The name of the last event of a stream.
    pub(crate) fn last_event(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let at = text.rfind("event: ").map_or(0, |at| at + 7);
        text[at..].lines().next().unwrap_or_default().to_owned()
    }

    /// True if it says this anywhere near its end.
    pub(crate) fn ends_with(&self, words: &str) -> bool {
        let tail = self.body.len().saturating_sub(1000);
        String::from_utf8_lossy(&self.body[tail..]).contains(words)
    }
}

/// One request on a connection of its own.
pub(crate) async fn post(addr: SocketAddr, key: &str, body: impl Into<Bytes>) -> Answer {
    Line::open(addr).await.post(key, body).await
}

/// A connection that is kept.
#[derive(Debug)]
pub(crate) struct Line(SendRequest<Full<Bytes>>);

impl Line {
    pub(crate) async fn open(addr: SocketAddr) -> Self {
        Self(connect(TcpStream::connect(addr).await.expect("a connection")).await)
    }

    pub(crate) async fn post(&mut self, key: &str, body: impl Into<Bytes>) -> Answer {
        let asked = async {
            self.0.ready().await.expect("the connection is kept");
            Answer::read(self.0.send_request(request(key, body.into())).await.expect("an answer")).await
        };
        timeout(PATIENCE, asked).await.expect("an answer in time")
    }
}

/// A client with a small window that has read the head of its answer and stops there. Dropped, it leaves.
#[derive(Debug)]
pub(crate) struct Stalled {
    response: Response<Incoming>,
    _sender: SendRequest<Full<Bytes>>,
}

impl Stalled {
    pub(crate) async fn ask(addr: SocketAddr, key: &str, body: Bytes) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket: see ulimit -n");
        socket.set_recv_buffer_size(4 << 10).expect("a small window");
        let mut sender = connect(socket.connect(addr).await.expect("a connection")).await;
        let response = timeout(PATIENCE, sender.send_request(request(key, body))).await;
        let response = response.expect("a head in time").expect("a head");
        Self { response, _sender: sender }
    }

    /// Reads the rest after all.
    pub(crate) async fn resume(self) -> Answer {
        timeout(PATIENCE, Answer::read(self.response)).await.expect("the rest in time")
    }
}

async fn connect(stream: TcpStream) -> SendRequest<Full<Bytes>> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    sender
}

fn request(key: &str, body: Bytes) -> Request<Full<Bytes>> {
    Request::post("/v1/responses")
        .header("host", "proxy")
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json")
        .body(Full::new(body))
        .expect("a request")
}

/// A turn's body.
pub(crate) fn turn(stream: bool, history: &[Value]) -> Bytes {
    json!({ "model": "gpt-sim", "store": false, "stream": stream, "tools": [], "input": history })
        .to_string()
        .into()
}

pub(crate) fn user(text: &str) -> Value {
    json!({ "role": "user", "content": text })
}
