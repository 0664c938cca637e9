//! A provider by hand: it takes sockets and posts, and a test says each of its words, in the order of a report.
//!
//! Knows no rules of any provider, and shares no code with the proxy: frames are tokio-tungstenite's, HTTP is hyper's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::Either;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{HeaderMap, Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tailwire::app;
use tailwire::config::Settings;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::http::{Client, Reply};
use crate::world::settings_for;

/// What has not happened by then does not happen.
const PATIENCE: Duration = Duration::from_secs(120);

/// How upgrades are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upgrades {
    Accept,
    Refuse(u16),
    /// With many characters of two bytes behind so many of one.
    RefuseAtLength(u16, usize),
    /// Not until that changes.
    Hold,
}

/// The provider, and a proxy before it.
pub(crate) struct Stage {
    pub(crate) proxy: app::Running,
    pub(crate) upgrades: watch::Sender<Upgrades>,
    upstream: String,
    asked: Arc<AtomicUsize>,
    sockets: mpsc::Receiver<Socket>,
    posts: mpsc::Receiver<Post>,
}

impl Stage {
    pub(crate) async fn plain() -> Self {
        Self::start(|_| ()).await
    }

    pub(crate) async fn start(tune: impl FnOnce(&mut Settings)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = format!("http://{}/v1", listener.local_addr().unwrap());
        let mut settings = settings_for(&upstream);
        tune(&mut settings);
        let (upgrades, policy) = watch::channel(Upgrades::Accept);
        let (socket, sockets) = mpsc::channel(64);
        let (post, posts) = mpsc::channel(64);
        let asked = Arc::<AtomicUsize>::default();
        let desk = Desk { policy, asked: asked.clone(), sockets: socket, posts: post };
        tokio::spawn(serve(listener, desk));
        Self {
            proxy: app::Running::start(settings).await.unwrap(),
            upgrades,
            upstream,
            asked,
            sockets,
            posts,
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.proxy.addr)
    }

    /// The provider's.
    pub(crate) fn base_url(&self) -> String {
        self.upstream.clone()
    }

    /// Handshakes so far.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// The next socket that was opened.
    pub(crate) async fn socket(&mut self) -> Socket {
        within("a socket", self.sockets.recv()).await.unwrap()
    }

    /// Whatever comes first.
    pub(crate) async fn either(&mut self) -> Either<Socket, Post> {
        let first = async {
            tokio::select! {
                Some(socket) = self.sockets.recv() => Either::Left(socket),
                Some(post) = self.posts.recv() => Either::Right(post),
            }
        };
        within("a socket or a post", first).await
    }

    /// A socket that was opened meanwhile.
    pub(crate) fn new_socket(&mut self) -> Option<Socket> {
        self.sockets.try_recv().ok()
    }

    /// The proxy begins to go down; the task ends when it has.
    pub(crate) fn stop(self) -> JoinHandle<()> {
        tokio::spawn(self.proxy.stop())
    }

    /// The next plain HTTP request.
    pub(crate) async fn post(&mut self) -> Post {
        within("a post", self.posts.recv()).await.unwrap()
    }

    /// Nobody has opened a socket or posted anything that was not taken yet.
    pub(crate) fn assert_quiet(&mut self) {
        assert!(self.sockets.try_recv().is_err(), "another socket");
        assert!(self.posts.try_recv().is_err(), "another post");
    }
}

/// A turn under way.
pub(crate) fn ask(client: &Client, body: &Value) -> JoinHandle<Reply> {
    let (client, body) = (client.clone(), body.clone());
    tokio::spawn(async move { client.ask(&body).await })
}

/// What should end, ends.
pub(crate) async fn within<T>(about: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("{about}: not in time"),
    }
}

/// Waits for a condition that nobody signals.
pub(crate) async fn until(about: &str, mut condition: impl FnMut() -> bool) {
    within(about, async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A plain HTTP request, to be answered.
pub(crate) struct Post {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    reply: oneshot::Sender<Response<Full<Bytes>>>,
}

impl Post {
    pub(crate) fn answer(self, status: u16, body: impl Into<Bytes>) {
        let response = Response::builder().status(status).header("content-type", "application/json");
        // The client may have gone meanwhile.
        let _ = self.reply.send(response.body(Full::new(body.into())).unwrap());
    }

    /// Answers with a completed response of this output.
    pub(crate) fn complete(self, id: &str, output: &[Value]) {
        self.answer(200, response(id, "completed", output).to_string());
    }
}

/// One Responses socket.
pub(crate) struct Socket {
    pub(crate) headers: HeaderMap,
    pub(crate) uri: Uri,
    stream: WebSocketStream<TokioIo<Upgraded>>,
}

impl Socket {
    /// The next text as it came, or the close code or loss in its place.
    async fn next(&mut self) -> Result<String, Option<u16>> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(close))) => return Err(close.map(|close| close.code.into())),
                Some(Ok(other)) => panic!("{other:?}"),
                Some(Err(Error::Io(_) | Error::Protocol(_))) | None => return Err(None),
                Some(Err(error)) => panic!("{error}"),
            }
        }
    }

    pub(crate) async fn text(&mut self) -> String {
        within("a frame", self.next()).await.expect("a frame")
    }

    /// The next `response.create`.
    pub(crate) async fn frame(&mut self) -> Value {
        let frame: Value = serde_json::from_str(&self.text().await).unwrap();
        assert_eq!(frame["type"], "response.create");
        frame
    }

    /// The other side ends the socket, without another frame.
    pub(crate) async fn ended(&mut self) -> Option<u16> {
        within("an end", self.next()).await.expect_err("no frame more")
    }

    /// Reads up to the next ping; its pong goes out.
    pub(crate) async fn pinged(&mut self) {
        let ping = async {
            while !self.stream.next().await.unwrap().unwrap().is_ping() {}
            self.stream.flush().await.unwrap();
        };
        within("a ping", ping).await;
    }

    /// Says an event on the lane of a frame.
    pub(crate) async fn say(&mut self, frame: &Value, mut event: Value) {
        if frame["stream_id"].is_string() {
            event["stream_id"] = frame["stream_id"].clone();
        }
        self.send(Message::text(event.to_string())).await;
    }

    /// Sends a message; the other side may have gone.
    pub(crate) async fn send(&mut self, message: Message) {
        let _ = within("a write", self.stream.send(message)).await;
    }

    /// Tells that the response has begun.
    pub(crate) async fn begin(&mut self, frame: &Value, id: &str) {
        for kind in ["created", "in_progress"] {
            let response = response(id, "in_progress", &[]);
            self.say(frame, json!({"type": format!("response.{kind}"), "response": response})).await;
        }
    }

    /// Tells of finished items.
    pub(crate) async fn done(&mut self, frame: &Value, output: &[Value]) {
        for (index, item) in output.iter().enumerate() {
            let done = json!({"type": "response.output_item.done", "output_index": index, "item": item});
            self.say(frame, done).await;
        }
    }

    /// A last event with this status and output.
    pub(crate) async fn finish(&mut self, frame: &Value, id: &str, status: &str, output: &[Value]) {
        let kind = format!("response.{status}");
        self.say(frame, json!({"type": kind, "response": response(id, status, output)})).await;
    }

    /// A whole answer.
    pub(crate) async fn answer(&mut self, frame: &Value, id: &str, output: &[Value]) {
        self.begin(frame, id).await;
        self.done(frame, output).await;
        self.finish(frame, id, "completed", output).await;
    }

    /// Says goodbye and waits until the other side has left too.
    pub(crate) async fn close(mut self, code: u16) {
        let close = CloseFrame { code: code.into(), reason: "".into() };
        self.send(Message::Close(Some(close))).await;
        let left = async { while self.stream.next().await.is_some_and(|message| message.is_ok()) {} };
        within("the other side's end", left).await;
    }
}

/// A response object.
pub(crate) fn response(id: &str, status: &str, output: &[Value]) -> Value {
    let usage = match status {
        "in_progress" => Value::Null,
        _ => json!({"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}),
    };
    json!({"id": id, "object": "response", "created_at": 1, "status": status, "model": "m", "error": null,
        "incomplete_details": null, "previous_response_id": null, "output": output, "usage": usage})
}

pub(crate) fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

/// An assistant's message as providers write it.
pub(crate) fn message(id: &str, text: &str) -> Value {
    let part = json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
    json!({"id": id, "type": "message", "status": "completed", "role": "assistant", "content": [part]})
}

pub(crate) fn call(id: &str, call_id: &str, arguments: &str) -> Value {
    json!({"id": id, "type": "function_call", "status": "completed", "call_id": call_id, "name": "shell",
        "arguments": arguments})
}

pub(crate) fn output(call_id: &str, text: &str) -> Value {
    json!({"type": "function_call_output", "call_id": call_id, "output": text})
}

pub(crate) fn reasoning(id: &str, blob: &str) -> Value {
    let summary = json!([{"type": "summary_text", "text": "Thinking."}]);
    json!({"id": id, "type": "reasoning", "summary": summary, "encrypted_content": blob})
}

/// A request of these items that stores nothing.
pub(crate) fn body(items: &[Value]) -> Value {
    json!({"model": "m", "instructions": "Be brief.", "store": false, "input": items})
}

/// What the two doors of the provider are told.
#[derive(Clone)]
struct Desk {
    policy: watch::Receiver<Upgrades>,
    asked: Arc<AtomicUsize>,
    sockets: mpsc::Sender<Socket>,
    posts: mpsc::Sender<Post>,
}

async fn serve(listener: TcpListener, desk: Desk) {
    while let Ok((stream, _)) = listener.accept().await {
        let desk = desk.clone();
        let service = service_fn(move |request| {
            let desk = desk.clone();
            async move { Ok::<_, std::convert::Infallible>(desk.handle(request).await) }
        });
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
        });
    }
}

impl Desk {
    async fn handle(mut self, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
        if !request.headers().contains_key("upgrade") {
            return self.post(request).await;
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        let policy = *self.policy.wait_for(|policy| *policy != Upgrades::Hold).await.unwrap();
        let refusal = match policy {
            Upgrades::Refuse(status) => Some((status, "No socket.".to_owned())),
            Upgrades::RefuseAtLength(status, shift) => {
                Some((status, "x".repeat(shift) + &"é".repeat(40_000)))
            }
            Upgrades::Accept | Upgrades::Hold => None,
        };
        if let Some((status, message)) = refusal {
            let body = json!({"error": {"message": message, "type": "invalid_request_error", "code": null}});
            return Response::builder().status(status).body(Full::new(body.to_string().into())).unwrap();
        }
        let key = derive_accept_key(request.headers()["sec-websocket-key"].as_bytes());
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            // A handshake that nobody waited for any more.
            let Ok(upgraded) = upgrade.await else { return };
            let stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
            let (parts, _) = request.into_parts();
            let socket = Socket { headers: parts.headers, uri: parts.uri, stream };
            // A test that is over takes no more.
            let _ = self.sockets.send(socket).await;
        });
        let response = Response::builder().status(101).header("connection", "upgrade");
        let response = response.header("upgrade", "websocket").header("sec-websocket-accept", key);
        response.body(Full::default()).unwrap()
    }

    async fn post(self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let Ok(body) = body.collect().await else { return Response::new(Full::default()) };
        let (reply, answered) = oneshot::channel();
        let path = parts.uri.to_string();
        let method = parts.method.to_string();
        let post = Post { method, path, headers: parts.headers, body: body.to_bytes(), reply };
        let _ = self.posts.send(post).await;
        let unanswered = || Response::builder().status(599).body(Full::default()).unwrap();
        answered.await.unwrap_or_else(|_| unanswered())
    }
}
