//! Clients that stop reading and do not leave. A connection that takes none of what waits for it, and a body none of
//! whose next pieces is asked for, end after a while; what they held is given back.
//!
//! Says nothing to the client: it would not read that either.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::downstream::body::{Body, BodyError};

/// A connection whose writes fail once its peer has taken nothing for so long. Covers whatever is on its way down:
/// turns, JSON, what passes through, tunnels.
#[derive(Debug)]
pub struct Timed<S> {
    stream: S,
    limit: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Timed<S> {
    /// Gives the peer `limit` for each write.
    pub fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, waiting: None }
    }

    fn timed<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(waiting.as_mut().poll(cx));
        tracing::info!("a client stopped reading: its connection is closed");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.timed(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.timed(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The same body, dropped early if nobody asks for its next piece within `limit`: one stream of an HTTP/2 connection
/// can stall while the others are read. Waiting for the provider is no stall.
pub fn watched(body: Body, limit: Duration) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let slot = Arc::new(Mutex::new(Slot { body: Some(body), handed: None }));
    let watch = tokio::spawn(watch(slot.clone(), limit));
    Watched { slot, watch }.boxed_unsync()
}

struct Slot {
    body: Option<Body>,
    /// When the last piece was handed over, while the next has not been asked for.
    handed: Option<Instant>,
}

struct Watched {
    slot: Arc<Mutex<Slot>>,
    watch: JoinHandle<()>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.abort();
        // The aborted task lets go of its half only when it is next scheduled.
        let body = lock(&self.slot).body.take();
        drop(body);
    }
}

async fn watch(slot: Arc<Mutex<Slot>>, limit: Duration) {
    loop {
        let now = Instant::now();
        let due = lock(&slot).handed.map_or(now, |handed| handed) + limit;
        if due <= now {
            let stalled = lock(&slot).body.take();
            tracing::info!("a client stopped reading: its answer ends");
            // Outside of the lock: it tells the pool.
            drop(stalled);
            return;
        }
        sleep_until(due).await;
    }
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut slot = lock(&self.slot);
        slot.handed = None;
        let Some(body) = &mut slot.body else {
            return Poll::Ready(Some(Err("the client stopped reading".into())));
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        slot.handed = Some(Instant::now());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.slot).body.as_ref().is_some_and(hyper::body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.slot).body.as_ref().map(hyper::body::Body::size_hint).unwrap_or_default()
    }
}

/// Held while a piece is made ready, never across an await.
fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;
    use crate::downstream::body;

    const LIMIT: Duration = Duration::from_secs(300);

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_takes_nothing_ends_and_one_that_takes_a_little_does_not() {
        use tokio::io::AsyncReadExt;
        let (client, server) = duplex(64);
        let (mut client, mut server) = (client, Timed::new(server, LIMIT));
        let reading = async {
            for _ in 0..8 {
                sleep(LIMIT - Duration::from_secs(1)).await;
                client.read_exact(&mut [0; 32]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(server.write_all(&[0; 64 + 8 * 32]), reading);
        written.unwrap();
        let before = Instant::now();
        assert_eq!(server.write_all(b"more").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(before.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_nobody_asks_for_is_dropped_and_one_that_waits_for_its_source_is_not() {
        let kept = Arc::new(());
        let silent = body::keeping(body::stream(stream::pending()), kept.clone());
        let mut waiting = watched(silent, LIMIT);
        assert!(tokio::time::timeout(LIMIT * 3, waiting.frame()).await.is_err());
        assert_eq!(Arc::strong_count(&kept), 2, "a model may think for as long as it likes");
        drop(waiting);

        let pieces = stream::iter([Ok(Bytes::from_static(b"a")), Ok(Bytes::from_static(b"b"))]);
        let mut stalled = watched(body::keeping(body::stream(pieces), kept.clone()), LIMIT);
        assert!(stalled.frame().await.unwrap().is_ok());
        sleep(LIMIT - Duration::from_secs(1)).await;
        assert!(stalled.frame().await.unwrap().is_ok(), "just in time");
        sleep(LIMIT + Duration::from_secs(1)).await;
        assert_eq!(Arc::strong_count(&kept), 1, "given back");
        assert!(stalled.frame().await.unwrap().is_err(), "and never a clean end");
    }
}
