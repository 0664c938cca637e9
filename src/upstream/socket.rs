//! One WebSocket's frames, over a stream that is already upgraded. The only file that names yawc.
//! It does not dial, ping, time or reconnect; the task that owns it does.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Sink;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Handle, RuntimeFlavor};
use yawc::{CompressionLevel, Frame, OpCode, Options, Role, WebSocket, WebSocketError};

/// A client's end of a WebSocket. One task uses it; dropping it closes the connection.
pub struct Socket {
    stream: WebSocket<Counted>,
    counters: Arc<Counters>,
    extension: Option<String>,
    /// Pings whose pongs the transport has not taken.
    unanswered: usize,
    ended: bool,
}

/// What came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A text message, checked to be UTF-8.
    Text(Bytes),
    /// A binary message, which the protocol has no use for (§1.2 of the dossier, 2026-11).
    Binary,
    /// A ping; its pong is on the way.
    Ping,
    /// A pong.
    Pong,
    /// The peer said goodbye; our reply is on the way. Nothing follows.
    Closed {
        /// Its close code, if it gave one.
        code: Option<u16>,
        /// Its reason, up to 123 bytes.
        reason: String,
    },
    /// The connection broke, or the peer broke the protocol: a kind, never content. Nothing follows.
    Lost(String),
    /// A message longer than the bound; the peer is told 1009. Nothing follows.
    TooLarge,
}

/// What goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// One text message, valid UTF-8; compressed if that was agreed on.
    Text(Bytes),
    /// An empty ping.
    Ping,
    /// Goodbye: a legal close code and a reason of at most 123 bytes. Go on receiving until the peer's reply.
    Close(u16, &'static str),
}

impl Socket {
    /// Frames over `upgraded`, with the extension as agreed (normalised) and at most `message_bytes` per message
    /// received, decompressed.
    pub(super) fn new(
        upgraded: Upgraded,
        extension: Option<String>,
        pool: &DeflatePool,
        message_bytes: usize,
    ) -> Self {
        let counters = Arc::new(Counters::default());
        let io = Counted { io: TokioIo::new(upgraded), counters: counters.clone() };
        // yawc refuses what reaches a limit; ours may be reached.
        let limit = message_bytes.saturating_add(1);
        let mut options = Options::default()
            .with_limits(limit, limit)
            .with_utf8()
            .with_read_buffer_capacity(IDLE_BUFFER)
            .with_write_buffer_capacity(IDLE_BUFFER);
        if extension.is_some() {
            options = options
                .with_compression_level(CompressionLevel::new(LEVEL))
                .with_compression_threshold(THRESHOLD)
                .with_deflate_pool(pool.0.clone());
        }
        let stream = WebSocket::from_stream_with_extensions(io, Role::Client, extension.as_deref(), options)
            .expect("compression is configured whenever it was agreed on");
        Self { stream, counters, extension, unanswered: 0, ended: false }
    }

    /// The next thing received. Pongs and close replies are sent along the way. After an end, only
    /// [`Received::Lost`].
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        if self.ended {
            return Poll::Ready(Received::Lost("the connection has ended".to_owned()));
        }
        let received = match ready!(self.stream.poll_next_frame(cx)) {
            Ok(frame) => match frame.opcode() {
                OpCode::Text => Received::Text(frame.into_payload()),
                OpCode::Pong => Received::Pong,
                OpCode::Ping => self.ping(cx),
                OpCode::Close => closed(frame.payload()),
                OpCode::Binary | OpCode::Continuation => Received::Binary,
            },
            Err(WebSocketError::FrameTooLarge) => Received::TooLarge,
            Err(WebSocketError::ConnectionClosed) => {
                Received::Lost("the connection ended without a goodbye".to_owned())
            }
            Err(error) => Received::Lost(error.to_string()),
        };
        if matches!(received, Received::Closed { .. } | Received::Lost(_) | Received::TooLarge) {
            self.ended = true;
            // Our half of the goodbye goes out if the transport takes it now; nobody waits for it.
            let _ = Pin::new(&mut self.stream).poll_ready(cx);
        }
        Poll::Ready(received)
    }

    /// Hands queued frames to the codec, in order, and drives the bytes out; a frame leaves the queue when the codec
    /// has it. `Ready(Ok)` when queue and buffers are empty. Reading is never held up by it, whatever the size.
    ///
    /// # Errors
    /// The connection broke: a kind, never content.
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &mut VecDeque<Outgoing>,
    ) -> Poll<Result<(), String>> {
        while !outbox.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_ready(cx)).map_err(|error| error.to_string())?;
            let Some(next) = outbox.pop_front() else { break };
            self.encode(next).map_err(|error| error.to_string())?;
        }
        Pin::new(&mut self.stream).poll_flush(cx).map_err(|error| error.to_string())
    }

    /// Bytes of frames written so far: after compression, before TLS; the handshake is not in it.
    #[must_use]
    pub fn bytes_written(&self) -> u64 {
        self.counters.written.load(Ordering::Relaxed)
    }

    /// Bytes of frames read so far, counted like [`Self::bytes_written`].
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.counters.read.load(Ordering::Relaxed)
    }

    /// The compression agreed on, as a header would say it.
    #[must_use]
    pub fn compression(&self) -> Option<&str> {
        self.extension.as_deref()
    }

    fn encode(&mut self, outgoing: Outgoing) -> Result<(), WebSocketError> {
        let frame = match outgoing {
            Outgoing::Text(text) => Frame::text(text),
            Outgoing::Ping => Frame::ping(Bytes::new()),
            Outgoing::Close(code, reason) => Frame::close(code.into(), reason),
        };
        let large = self.extension.is_some() && frame.payload().len() > OFFLOAD;
        let sink = Pin::new(&mut self.stream);
        // Compressing takes about 8 ms per MB (measured 2026-11): other streams should not wait for that.
        let threads = || Handle::try_current().map(|handle| handle.runtime_flavor());
        if large && matches!(threads(), Ok(RuntimeFlavor::MultiThread)) {
            tokio::task::block_in_place(|| sink.start_send(frame))
        } else {
            sink.start_send(frame)
        }
    }

    /// yawc queues a pong per ping without a bound; a peer that pings but does not read is cut off.
    fn ping(&mut self, cx: &mut Context<'_>) -> Received {
        match Pin::new(&mut self.stream).poll_ready(cx) {
            Poll::Ready(Err(error)) => return Received::Lost(error.to_string()),
            Poll::Ready(Ok(())) => self.unanswered = 0,
            Poll::Pending => self.unanswered += 1,
        }
        if self.unanswered > UNANSWERED_PINGS {
            return Received::Lost("the peer pings but does not read".to_owned());
        }
        Received::Ping
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Socket")
            .field("compression", &self.extension)
            .field("bytes_written", &self.bytes_written())
            .field("bytes_read", &self.bytes_read())
            .finish_non_exhaustive()
    }
}

fn closed(payload: &[u8]) -> Received {
    match payload {
        [high, low, reason @ ..] => Received::Closed {
            code: Some(u16::from_be_bytes([*high, *low])),
            reason: String::from_utf8_lossy(reason).into_owned(),
        },
        _ => Received::Closed { code: None, reason: String::new() },
    }
}

/// Deflate state shared by the sockets of one dialer that start each message afresh.
#[derive(Clone, Debug)]
pub(super) struct DeflatePool(yawc::DeflatePool);

impl Default for DeflatePool {
    fn default() -> Self {
        Self(yawc::DeflatePool::new(POOLED_STATES))
    }
}

/// The transport, counting.
struct Counted {
    io: TokioIo<Upgraded>,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    read: AtomicU64,
    written: AtomicU64,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.counters.read.fetch_add((buffer.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.counters.written.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Most bytes of a received message, decompressed, unless set otherwise.
pub(super) const MESSAGE_BYTES: usize = 64 << 20;
/// Shorter messages go uncompressed. Never 0: yawc 0.5.0 loops forever on an empty message with takeover.
const THRESHOLD: usize = 64;
/// Level 1 saves a third less on a prefix inside the window; 9 hardly more than 6 (measured 2026-11).
const LEVEL: u32 = 6;
/// What each buffer shrinks back to between messages.
const IDLE_BUFFER: usize = 4 << 10;
/// A message longer than this many bytes is compressed beside the async threads.
const OFFLOAD: usize = 1 << 20;
const UNANSWERED_PINGS: usize = 1024;
const POOLED_STATES: usize = 16;
