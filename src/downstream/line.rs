//! A client's connection beneath HTTP: what a half-closed, a deaf and a hasty client need that hyper does not do.
//! It parses nothing beyond where requests end, and knows neither requests nor answers, only how many are under way.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

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
    pub(super) unread: Duration,
}

/// What the two ends of a connection's task tell each other.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    under_way: AtomicUsize,
    switched: AtomicBool,
    reader: AtomicWaker,
    changed: Notify,
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

    /// Resolves once no request has been under way for `span`.
    pub(super) async fn idle(&self, span: Duration) {
        loop {
            let changed = self.changed.notified();
            if self.is_busy() {
                changed.await;
            } else if tokio::time::timeout(span, changed).await.is_err() {
                return;
            }
        }
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
    /// The client will say no more.
    ended: bool,
    /// Bytes are on their way to the client that it has not taken.
    owing: bool,
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
            ended: false,
            owing: false,
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
        if !self.traffic.is_busy() && !self.owing {
            return Poll::Ready(());
        }
        let span = self.patience.half_close;
        self.held.get_or_insert_with(|| Box::pin(sleep(span))).as_mut().poll(cx)
    }

    /// What a write came to; the client's patience is measured by it, and ours.
    fn wrote(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.owing = true;
        if written.is_pending() {
            let span = self.patience.unread;
            let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(span)));
            ready!(stalled.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        self.stalled = None;
        if let Some(held) = &mut self.held {
            held.as_mut().reset(Instant::now() + self.patience.half_close);
        }
        written
    }
}

impl<S: AsyncRead + Unpin> Line<S> {
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
        if !line.ended {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut line.inner).poll_read(cx, buffer))?;
            if line.traffic.switched.load(Ordering::Acquire) {
                line.framing.end();
            }
            let fresh = &mut buffer.filled_mut()[before..];
            if !fresh.is_empty() {
                line.framing.follow(fresh);
                return Poll::Ready(Ok(()));
            }
            line.ended = buffer.remaining() > 0;
        }
        line.poll_held(cx).map(Ok)
    }
}

impl<S: AsyncWrite + AsyncRead + Unpin> AsyncWrite for Line<S> {
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
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        if std::mem::take(&mut self.owing) && self.ended {
            self.traffic.reader.wake();
        }
        Poll::Ready(Ok(()))
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
const SCRAP: usize = 16 << 10;
