//! HTTP/1.1 by hand, both ends: a client that says bytes as they are, and an upstream that keeps what it was sent.
//!
//! Shares no code with the proxy, nor with hyper.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A connection to a server.
pub(crate) struct Caller {
    pub(crate) stream: TcpStream,
    heard: Vec<u8>,
}

/// One response.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The statuses of interim responses before it.
    pub(crate) interim: Vec<u16>,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Caller {
    pub(crate) async fn to(addr: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(addr).await.unwrap(), heard: Vec::new() }
    }

    /// A connection on which this was said.
    pub(crate) async fn saying(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> Self {
        let mut caller = Self::to(addr).await;
        caller.say(bytes).await;
        caller
    }

    /// A server that has heard enough need not listen to all of it.
    pub(crate) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = soon(self.stream.write_all(bytes.as_ref())).await;
    }

    /// Says no more, and goes on listening.
    pub(crate) async fn fall_silent(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// The next response.
    pub(crate) async fn hear(&mut self) -> Answer {
        let mut answer = self.hear_head().await;
        answer.body = match answer.header("content-length") {
            Some(length) => self.take(length.parse().unwrap()).await,
            None if answer.header("transfer-encoding") == Some("chunked") => self.chunks().await,
            None => self.rest().await,
        };
        answer
    }

    /// The next response without what follows its head: the answer to HEAD.
    pub(crate) async fn hear_head(&mut self) -> Answer {
        let mut interim = Vec::new();
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.extend(self.take(1).await);
            }
            let head = String::from_utf8(head).unwrap();
            assert!(head.starts_with("HTTP/1."), "{head}");
            let status = head[9..12].parse().unwrap();
            match status {
                100 | 103 => interim.push(status),
                _ => return Answer { status, interim, head, body: Vec::new() },
            }
        }
    }

    /// Whether the next response begins within `span`.
    pub(crate) async fn hears_within(&mut self, span: Duration) -> bool {
        if self.heard.is_empty() {
            let mut byte = [0];
            let read = tokio::time::timeout(span, self.stream.read(&mut byte)).await;
            self.heard.extend(&byte[..read.map_or(0, |read| read.unwrap_or(0))]);
        }
        !self.heard.is_empty()
    }

    /// Everything to the other side's end. A reset counts as one.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.heard);
        let _ = soon(self.stream.read_to_end(&mut rest)).await;
        rest
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.extend(self.take(1).await);
            }
            let size = usize::from_str_radix(str::from_utf8(&line).unwrap().trim(), 16).unwrap();
            if size == 0 {
                assert_eq!(self.take(2).await, b"\r\n", "no trailers were asked for");
                return body;
            }
            body.extend(self.take(size).await);
            self.take(2).await;
        }
    }

    async fn take(&mut self, length: usize) -> Vec<u8> {
        while self.heard.len() < length {
            let read = soon(self.stream.read_buf(&mut self.heard)).await.unwrap();
            assert!(read > 0, "it ended: {:?}", String::from_utf8_lossy(&self.heard));
        }
        self.heard.drain(..length).collect()
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of an error of ours.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// A header's value in a head as text; the first one of several.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    lines
        .map(|(name, value)| (name, value.trim()))
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|found| found.1)
}

/// An upstream that answers every request with the same bytes and keeps all it was sent.
pub(crate) struct Recorder {
    pub(crate) addr: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
    changed: watch::Receiver<()>,
}

impl Recorder {
    /// `answer` is sent after each head; what follows a head is kept and not waited for.
    pub(crate) async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (change, changed) = watch::channel(());
        let (book, answer, change) = (heard.clone(), Arc::new(answer.into()), Arc::new(change));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(record(stream, book.clone(), answer.clone(), change.clone()));
            }
        });
        Self { addr, heard, changed }
    }

    /// Answers 200 with a small body.
    pub(crate) async fn start() -> Self {
        Self::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// What came so far, of all connections.
    pub(crate) fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock().unwrap()).into_owned()
    }

    /// The same, and forgets it.
    pub(crate) fn take(&self) -> String {
        let heard = self.heard();
        self.heard.lock().unwrap().clear();
        heard
    }

    /// Waits until what came satisfies a condition.
    pub(crate) async fn wait(&self, until: impl Fn(&str) -> bool) -> String {
        let mut changed = self.changed.clone();
        soon(async {
            while !until(&self.heard()) {
                changed.changed().await.unwrap();
            }
            self.heard()
        })
        .await
    }
}

async fn record(
    mut stream: TcpStream,
    book: Arc<Mutex<Vec<u8>>>,
    answer: Arc<Vec<u8>>,
    change: Arc<watch::Sender<()>>,
) {
    let mut head = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        book.lock().unwrap().push(byte);
        head.push(byte);
        if head.ends_with(b"\r\n\r\n") && head.windows(9).any(|part| part == b" HTTP/1.1") {
            head.clear();
            if stream.write_all(&answer).await.is_err() {
                break;
            }
        }
        change.send_replace(());
    }
    book.lock().unwrap().extend_from_slice(b"<end>");
    change.send_replace(());
}

/// Nothing in these tests may hang: what has not come by then does not come.
pub(crate) async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it takes too long")
}

const PATIENCE: Duration = Duration::from_secs(20);
