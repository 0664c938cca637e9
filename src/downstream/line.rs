//! A client's connection beneath HTTP: what a half-closed, a deaf and a hasty client need that hyper does not do.
//! It parses nothing beyond where requests end, and knows neither requests nor answers, only how many are under way.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep};

use crate::downstream::framing::Framing;

/// How long a connection bears with its client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// A client that has said its last may have gone; so long it is written to before it counts as gone.
    pub(super) half_close: Duration,
    /// A client that takes nothing of what it is sent is cut after this.
    pub(super) stalled: Duration,
}

/// What the two ends of a connection's task tell each other.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    under_way: AtomicUsize,
    switched: AtomicBool,
    /// Bytes are on their way to the client that it has not taken.
    owing: AtomicBool,
    reader: AtomicWaker,
    changed: Notify,
    /// Nothing waits for the client any more.
    taken: Notify,
}

impl Traffic {
    /// A request is under way until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_waiters();
        UnderWay(self.clone())
    }

    /// The connection is no longer one of requests.
    pub(super) fn switch(&self) {
        self.switched.store(true, Ordering::Release);
    }

    /// Resolves once no request has been under way, nor an answer waited for the client, for `span`.
    pub(super) async fn idle(&self, span: Duration) {
        loop {
            let (changed, taken) = (self.changed.notified(), self.taken.notified());
            if self.is_busy() {
                changed.await;
            } else if self.owes() {
                // Its own, so that a ping does not count as a sign of life.
                taken.await;
            } else if tokio::time::timeout(span, changed).await.is_err() {
                return;
            }
        }
    }

    /// Whether bytes wait for the client to take them.
    pub(super) fn owes(&self) -> bool {
        self.owing.load(Ordering::Acquire)
    }

    fn is_busy(&self) -> bool {
        self.under_way.load(Ordering::Acquire) > 0
    }
}

/// Counts one request.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Traffic>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_waiters();
        self.0.reader.wake();
    }
}

/// The connection.
#[derive(Debug)]
pub(super) struct Line<S> {
    inner: S,
    traffic: Arc<Traffic>,
    patience: Patience,
    framing: Framing,
    /// What came while hyper was not listening.
    ahead: BytesMut,
    /// The client will say no more.
    ended: bool,
    held: Option<Pin<Box<Sleep>>>,
    stalled: Option<Pin<Box<Sleep>>>,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl<S> Line<S> {
    pub(super) fn new(inner: S, traffic: Arc<Traffic>, patience: Patience) -> Self {
        Self {
            inner,
            traffic,
            patience,
            framing: Framing::new(),
            ahead: BytesMut::new(),
            ended: false,
            held: None,
            stalled: None,
            lingering: None,
        }
    }

    /// Whether the client's end of input is to be known yet. hyper takes it for the client's end.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.framing.at_rest() {
            return Poll::Ready(());
        }
        self.traffic.reader.register(cx.waker());
        if !self.traffic.is_busy() && !self.traffic.owes() {
            return Poll::Ready(());
        }
        let span = self.patience.half_close;
        self.held.get_or_insert_with(|| Box::pin(sleep(span))).as_mut().poll(cx)
    }

    /// Whether the client has taken nothing for too long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let span = self.patience.stalled;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(span)));
        ready!(stalled.as_mut().poll(cx));
        tracing::info!("a client stopped reading: its connection is closed");
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    /// What a write came to; the client's patience is measured by it, and ours.
    fn wrote(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.traffic.owing.store(true, Ordering::Release);
        if written.is_pending() {
            return self.poll_stalled(cx).map(Err);
        }
        self.stalled = None;
        if let Some(held) = &mut self.held {
            held.as_mut().reset(Instant::now() + self.patience.half_close);
        }
        written
    }
}

impl<S: AsyncRead + Unpin> Line<S> {
    /// Reads what the client says, or that it will say no more.
    fn poll_hear(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        if self.traffic.switched.load(Ordering::Acquire) {
            self.framing.end();
        }
        self.ended = buffer.filled().len() == before && buffer.remaining() > 0;
        self.framing.follow(&mut buffer.filled_mut()[before..]);
        Poll::Ready(Ok(()))
    }

    /// hyper does not listen while the next request waits in its buffer, and so would not hear that the client left.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.traffic.is_busy() || self.framing.is_opaque() || !self.framing.at_rest() {
            return Ok(());
        }
        let mut piece = [0; 1024];
        while !self.ended && self.framing.at_rest() && self.ahead.len() < AHEAD {
            let mut piece = ReadBuf::new(&mut piece);
            if self.poll_hear(cx, &mut piece)?.is_pending() {
                return Ok(());
            }
            self.ahead.extend_from_slice(piece.filled());
        }
        if self.ended && self.framing.at_rest() && self.poll_held(cx).is_ready() && self.traffic.is_busy() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    /// Takes what is left of a refused request. Closing with it unread would reset the connection, and the refusal
    /// would be lost on its way (RFC 9112 9.6).
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scrap = [0; SCRAP];
        let lingering = self.lingering.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        for _ in 0..64 {
            if lingering.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut scrap = ReadBuf::new(&mut scrap);
            match ready!(Pin::new(&mut self.inner).poll_read(cx, &mut scrap)) {
                Ok(()) if !scrap.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let line = &mut *self;
        if !line.ahead.is_empty() {
            let length = line.ahead.len().min(buffer.remaining());
            buffer.put_slice(&line.ahead.split_to(length));
            return Poll::Ready(Ok(()));
        }
        if !line.ended {
            ready!(line.poll_hear(cx, buffer))?;
            if !line.ended {
                return Poll::Ready(Ok(()));
            }
        }
        line.poll_held(cx).map(Ok)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.wrote(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, pieces);
        self.wrote(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if Pin::new(&mut self.inner).poll_flush(cx)?.is_pending() {
            // TLS holds some of what it took.
            return self.poll_stalled(cx).map(Err);
        }
        self.stalled = None;
        if self.traffic.owing.swap(false, Ordering::AcqRel) {
            self.traffic.taken.notify_waiters();
            if self.ended {
                self.traffic.reader.wake();
            }
        }
        Poll::Ready(self.poll_ahead(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
        }
        if !self.ended && !self.framing.is_opaque() && !self.framing.at_rest() {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}

/// How long a client that was refused may go on sending before it is cut off.
const LINGER: Duration = Duration::from_secs(5);
/// Bytes that are taken of a client's next requests before their turn.
const AHEAD: usize = 64 << 10;
const SCRAP: usize = 16 << 10;
