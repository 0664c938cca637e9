//! Streams of HTTP/2 whose clients stop reading and do not leave: a body none of whose next pieces is asked for ends after a
//! while, and what it held is given back. Says nothing to the client: it would not read that either. The stream itself ends
//! when it is read on, or with its connection. Connections are `line`'s.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, SizeHint};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::downstream::body::{Body, BodyError};

/// A body that is dropped early if nobody asks for its next piece within `limit`: one stream of an HTTP/2 connection
/// can stall while the others are read. Waiting for the provider is no stall.
pub(super) fn watched(body: Body, limit: Duration) -> Body {
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
    use tokio::time::sleep;

    use super::*;
    use crate::downstream::body;

    const LIMIT: Duration = Duration::from_secs(300);

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
