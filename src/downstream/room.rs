//! Room for request bodies, in bytes, shared by all that are held at a time. It counts; the body is the caller's.
//!
//! Claimed as the bytes come, not as they are announced: an announcement costs its client nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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

    /// Bytes claimed.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_there_is_and_all_of_it_comes_back() {
        let room = Room::new(1000);
        let mut first = Claim::new(&room);
        assert!(first.set(600));
        assert_eq!((first.bytes(), room.held()), (600, 600));
        let mut second = Claim::new(&room);
        assert!(!second.set(401) && !first.set(1001) && room.held() == 600, "nothing changes");
        assert!(first.set(300), "it turned out smaller");
        assert!(second.set(401));
        drop((first, second));
        assert_eq!(room.held(), 0);
    }
}
