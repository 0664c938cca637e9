//! Room for request bodies, in bytes, shared by all that are held at a time. It counts; the body is the caller's.
//!
//! Claimed as the bytes come, not as they are announced: an announcement costs its client nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// So many bytes, and no more.
#[derive(Debug)]
pub struct Room {
    held: AtomicUsize,
    most: usize,
}

impl Room {
    /// Room for `most` bytes.
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), most })
    }

    /// Bytes claimed now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

/// One body's part of the room; given back when dropped.
#[derive(Debug)]
pub struct Claim {
    room: Arc<Room>,
    bytes: usize,
}

impl Claim {
    /// A claim to nothing yet.
    #[must_use]
    pub fn new(room: &Arc<Room>) -> Self {
        Self { room: room.clone(), bytes: 0 }
    }

    /// Claims `bytes` in all; false, and nothing changed, if there is no room for that.
    pub fn set(&mut self, bytes: usize) -> bool {
        let (before, room) = (self.bytes, &*self.room);
        let changed = room.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            let held = (held - before).saturating_add(bytes);
            (bytes <= before || held <= room.most).then_some(held)
        });
        if changed.is_ok() {
            self.bytes = bytes;
        }
        changed.is_ok()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.room.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A body on its way in, claiming room for each piece; it breaks where there is none.
#[derive(Debug)]
pub struct Claiming<B> {
    body: B,
    claim: Claim,
    /// Bytes claimed for each that comes: an encoded body is decoded beside the original.
    factor: usize,
    refused: bool,
}

/// There is no room for more.
#[derive(Debug, thiserror::Error)]
#[error("no room for more of the body, or it broke")]
pub struct Broken;

impl<B> Claiming<B> {
    /// Counts `factor` bytes for each of `body`.
    pub fn new(body: B, room: &Arc<Room>, factor: usize) -> Self {
        Self { body, claim: Claim::new(room), factor, refused: false }
    }

    /// True if it broke for want of room.
    pub fn is_refused(&self) -> bool {
        self.refused
    }

    /// What was claimed.
    pub fn claimed(self) -> Claim {
        self.claim
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Claiming<B> {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        let frame = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => return Poll::Ready(Some(Err(Broken))),
            None => return Poll::Ready(None),
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        this.refused = !this.claim.set(this.claim.bytes + bytes * this.factor);
        Poll::Ready(Some(if this.refused { Err(Broken) } else { Ok(frame) }))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;

    #[tokio::test]
    async fn no_more_than_there_is_and_all_of_it_comes_back() {
        let room = Room::new(1000);
        let body = |bytes: usize| Full::new(Bytes::from(vec![b'x'; bytes]));
        let mut first = Claiming::new(body(100), &room, 6);
        assert!(first.frame().await.is_some_and(|frame| frame.is_ok()));
        let mut claim = first.claimed();
        assert_eq!(room.held(), 600);
        let mut second = Claiming::new(body(401), &room, 1);
        assert!(second.frame().await.is_some_and(|frame| frame.is_err()) && second.is_refused());
        assert!(!claim.set(1001) && room.held() == 600, "nothing changes");
        assert!(claim.set(300), "it turned out smaller");
        let mut third = Claiming::new(body(401), &room, 1);
        assert!(third.frame().await.is_some_and(|frame| frame.is_ok()) && !third.is_refused());
        drop((claim, third));
        assert_eq!(room.held(), 0);
    }
}
