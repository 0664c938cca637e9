//! The peers: a WebSocket client and an HTTP client that share no code with the provider's faces.

#[path = "../support/scanner.rs"]
mod scanner;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tailwire::sim::{Running, Script};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, handshake::client::generate_key};
use tokio_tungstenite::{WebSocketStream, client_async};

pub(crate) async fn start() -> Running {
    scanner::listen();
    Running::start(Script::default()).await.unwrap()
}

pub(crate) fn upgrade_request(sim: &Running, path: &str) -> Request<()> {
    Request::get(format!("ws://{}/v1/{path}", sim.addr))
        .header("host", sim.addr.to_string())
        .header("authorization", "Bearer key-a")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", generate_key())
        .body(())
        .unwrap()
}

/// A WebSocket client that shares no code with the provider's.
pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<TcpStream>,
}

impl Client {
    pub(crate) async fn connect(sim: &Running) -> Self {
        let stream = TcpStream::connect(sim.addr).await.unwrap();
        let (socket, _) = client_async(upgrade_request(sim, "responses"), stream).await.unwrap();
        Self { socket }
    }

    pub(crate) async fn ask(&mut self, body: &Value) {
        let mut frame = json!({"type": "response.create", "model": "gpt-sim", "store": false});
        frame.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        self.socket.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// The next text frame; control frames are passed over.
    pub(crate) async fn event(&mut self) -> Value {
        loop {
            match self.socket.next().await.unwrap().unwrap() {
                Message::Text(text) => return serde_json::from_str(text.as_str()).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Events up to and including a terminal one.
    pub(crate) async fn events(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            events.push(self.event().await);
            if is_terminal(events.last().unwrap()) {
                return events;
            }
        }
    }

    pub(crate) async fn run(&mut self, body: &Value) -> Value {
        self.ask(body).await;
        self.events().await.pop().unwrap()
    }

    /// How the connection ends: a close code, or none for a reset or a bare end.
    pub(crate) async fn end(&mut self) -> Option<CloseCode> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }
}

pub(crate) fn is_terminal(event: &Value) -> bool {
    let kind = event["type"].as_str().unwrap();
    matches!(kind, "response.completed" | "response.failed" | "response.incomplete" | "error")
}

pub(crate) fn kind(event: &Value) -> &str {
    event["type"].as_str().unwrap()
}

pub(crate) fn id(terminal: &Value) -> &str {
    assert_eq!(kind(terminal), "response.completed", "{terminal}");
    terminal["response"]["id"].as_str().unwrap()
}

pub(crate) struct Plain {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Plain {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// One HTTP request on a connection of its own; an error if the connection breaks.
pub(crate) async fn send(sim: &Running, request: Request<Full<Bytes>>) -> Result<Plain, hyper::Error> {
    let stream = TcpStream::connect(sim.addr).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let reply = sender.send_request(request).await;
    drop(sender);
    let (parts, body) = reply?.into_parts();
    let collected = body.collect().await;
    connection.abort();
    let body = collected?;
    let mut headers = parts.headers;
    headers.extend(body.trailers().cloned().unwrap_or_default());
    Ok(Plain { status: parts.status, headers, body: body.to_bytes() })
}

pub(crate) async fn http(sim: &Running, method: &str, path: &str, body: impl Into<Bytes>) -> Plain {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "sim")
        .header("authorization", "Bearer key-a")
        .body(Full::new(body.into()));
    send(sim, request.unwrap()).await.unwrap()
}

pub(crate) async fn post(sim: &Running, body: &Value) -> Plain {
    http(sim, "POST", "/v1/responses", body.to_string()).await
}
