//! The queue between a socket and the reader of one turn, bounded in bytes. The socket never waits for a reader: it is
//! told how far behind the reader is, and decides.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::proto::fault::Fault;
use crate::proto::wire::event::Event;

/// What a reader finds.
#[derive(Debug)]
pub enum Message {
    /// An event of its response.
    Event(Event),
    /// The try is over.
    Fault(Fault),
}

/// How far behind a reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backlog {
    /// Not noticeably.
    Fine,
    /// More than the lag limit: its socket should take no new turns.
    Lagging,
    /// At the bound: nothing more may be queued for it.
    Full,
}

/// Limits of one queue, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Above this the reader lags.
    pub lag: usize,
    /// Above this its queue is full.
    pub turn: usize,
    /// What all queues together may hold, but for one event each.
    pub all: usize,
    /// Most queues there may be; at least 1.
    pub turns: usize,
}

impl Bounds {
    /// How many bytes may wait for one reader while `all` wait for all of them. Up to half of [`Self::all`] that is the
    /// bound of a turn; beyond, each may have its share of the other half, so that no number of turns exceeds the whole.
    fn full(&self, all: usize) -> usize {
        if all > self.all / 2 { self.turn.min(self.share()) } else { self.turn }
    }

    fn share(&self) -> usize {
        self.all / 2 / self.turns.max(1)
    }
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Message>,
    bytes: usize,
    /// Nobody will read; nothing is kept any more.
    orphaned: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    filled: Notify,
    relief: Arc<Notify>,
    bounds: Bounds,
    all: Arc<AtomicUsize>,
    /// Bytes of the turn's frame on the wire; 0 until it was sent.
    wire: AtomicU64,
    /// When it began to be written.
    left: OnceLock<Instant>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Held for a push or a pop, never across an await; a panic elsewhere leaves the queue whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.orphaned = true;
        state.queue.clear();
        self.0.all.fetch_sub(std::mem::take(&mut state.bytes), Ordering::Relaxed);
        drop(state);
        self.0.relief.notify_one();
    }
}

/// The reader's end.
#[derive(Debug)]
pub struct Inbox(Arc<Shared>);

/// The socket's end.
#[derive(Debug)]
pub struct Outlet(Arc<Shared>);

/// A queue. `relief` is notified when a lagging reader has caught up or is gone; `all` counts the bytes of all queues.
pub fn queue(bounds: Bounds, all: Arc<AtomicUsize>, relief: Arc<Notify>) -> (Outlet, Inbox) {
    let shared = Shared {
        state: Mutex::default(),
        filled: Notify::new(),
        relief,
        bounds,
        all,
        wire: AtomicU64::new(0),
        left: OnceLock::new(),
    };
    let shared = Arc::new(shared);
    (Outlet(shared.clone()), Inbox(shared))
}

impl Outlet {
    /// Queues an event and says how the reader is doing. At [`Backlog::Full`] no further event should be pushed.
    pub fn push(&self, event: Event) -> Backlog {
        let mut state = self.0.state();
        if state.orphaned {
            return Backlog::Fine;
        }
        // What waits must not keep the buffer it came in, and what else was in there, from being freed.
        let event = if state.queue.is_empty() { event } else { event.detached() };
        let weight = event.weight();
        self.0.all.fetch_add(weight, Ordering::Relaxed);
        state.bytes += weight;
        state.queue.push_back(Message::Event(event));
        drop(state);
        self.0.filled.notify_one();
        self.backlog()
    }

    /// How far behind the reader is now.
    pub fn backlog(&self) -> Backlog {
        let bytes = self.0.state().bytes;
        let bounds = self.0.bounds;
        if bytes > bounds.full(self.0.all.load(Ordering::Relaxed)) {
            Backlog::Full
        } else if bytes > bounds.lag {
            Backlog::Lagging
        } else {
            Backlog::Fine
        }
    }

    /// Ends the try. A reader that lags too far loses what it has not read.
    pub fn fail(self, fault: Fault) {
        let mut state = self.0.state();
        if fault == Fault::SlowReader {
            self.0.all.fetch_sub(std::mem::take(&mut state.bytes), Ordering::Relaxed);
            state.queue.clear();
        }
        state.queue.push_back(Message::Fault(fault));
        drop(state);
        self.0.filled.notify_one();
    }

    /// Notes what the turn's frame weighed on the wire.
    pub fn sent(&self, wire: u64) {
        self.0.left.get_or_init(Instant::now);
        self.0.wire.store(wire.max(1), Ordering::Relaxed);
    }

    /// True once nobody will read.
    pub fn is_orphaned(&self) -> bool {
        self.0.state().orphaned
    }
}

impl Drop for Outlet {
    /// Whatever became of the socket's task, its reader hears an end; behind a terminal event nobody reads on.
    fn drop(&mut self) {
        let mut state = self.0.state();
        if !state.orphaned {
            state.queue.push_back(Message::Fault(Fault::SocketLost(None)));
        }
        drop(state);
        self.0.filled.notify_one();
    }
}

impl Inbox {
    /// The next message. Cancel-safe.
    pub async fn next(&mut self) -> Message {
        loop {
            if let Some(message) = self.try_next() {
                return message;
            }
            self.0.filled.notified().await;
        }
    }

    /// The next message if there is one already.
    pub fn try_next(&mut self) -> Option<Message> {
        let mut state = self.0.state();
        let message = state.queue.pop_front()?;
        if let Message::Event(event) = &message {
            let before = state.bytes;
            state.bytes = state.bytes.saturating_sub(event.weight());
            self.0.all.fetch_sub(before - state.bytes, Ordering::Relaxed);
            let Bounds { lag, turn, .. } = self.0.bounds;
            let passed = |level: usize| before > level && state.bytes <= level;
            // Whichever bound it was that was reached, half of it is the mark at which reading goes on.
            if passed(lag.min(turn) / 2) || passed(self.0.bounds.share() / 2) {
                self.0.relief.notify_one();
            }
        }
        Some(message)
    }

    /// When the frame began to be written, once it did.
    pub fn left(&self) -> Option<Instant> {
        self.0.left.get().copied()
    }

    /// Bytes of the frame on the wire, once it was sent.
    pub fn wire(&self) -> Option<u64> {
        Some(self.0.wire.load(Ordering::Relaxed)).filter(|wire| *wire > 0)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn event(bytes: usize) -> Event {
        let text = format!(r#"{{"type":"response.x","pad":"{}"}}"#, "x".repeat(bytes));
        Event::parse(Bytes::from(text)).expect("an event")
    }

    #[tokio::test]
    async fn bytes_are_counted_in_and_out_and_relief_is_told() {
        let all = Arc::new(AtomicUsize::new(0));
        let relief = Arc::new(Notify::new());
        let bounds = Bounds { lag: 1_000, turn: 3_000, all: 100_000, turns: 4 };
        let (outlet, mut inbox) = queue(bounds, all.clone(), relief.clone());
        assert_eq!(outlet.push(event(100)), Backlog::Fine);
        assert_eq!(outlet.push(event(1_500)), Backlog::Lagging);
        assert_eq!(outlet.push(event(1_500)), Backlog::Full);
        while let Some(message) = inbox.try_next() {
            assert!(matches!(message, Message::Event(_)));
        }
        relief.notified().await;
        assert_eq!((outlet.backlog(), all.load(Ordering::Relaxed)), (Backlog::Fine, 0));
        outlet.push(event(10));
        drop(inbox);
        relief.notified().await;
        assert!(outlet.is_orphaned());
        assert_eq!(all.load(Ordering::Relaxed), 0, "what was never read is given back");
        assert_eq!(outlet.push(event(5_000)), Backlog::Fine);
        assert_eq!(all.load(Ordering::Relaxed), 0, "nor is anything kept from then on");
    }

    #[tokio::test]
    async fn the_sum_over_all_turns_bounds_each() {
        let all = Arc::new(AtomicUsize::new(0));
        let bounds = Bounds { lag: 1_000, turn: 50_000, all: 8_000, turns: 4 };
        let (one, _inbox) = queue(bounds, all.clone(), Arc::default());
        let (two, mut other) = queue(bounds, all, Arc::default());
        assert_eq!(one.push(event(3_000)), Backlog::Lagging);
        assert_eq!(one.push(event(1_500)), Backlog::Full, "more than half is used, and by this one");
        assert_eq!(two.push(event(100)), Backlog::Fine, "a reader that keeps up is not to blame");
        assert_eq!(two.push(event(900)), Backlog::Full, "beyond its share");
        while other.try_next().is_some() {}
        assert_eq!(two.push(event(700)), Backlog::Fine, "within it again");
    }

    #[tokio::test]
    async fn no_number_of_stalled_readers_exceeds_the_sum() {
        let all = Arc::new(AtomicUsize::new(0));
        let bounds = Bounds { lag: 10_000, turn: 50_000, all: 400_000, turns: 100 };
        let largest = event(700).weight();
        let mut queues: Vec<_> =
            (0..bounds.turns).map(|_| queue(bounds, all.clone(), Arc::default())).collect();
        // In turn, one more each time, so that every one is met at every level of the sum.
        for turn in 0..bounds.turns {
            for (outlet, _) in queues.iter().take(turn + 1) {
                while outlet.backlog() != Backlog::Full {
                    outlet.push(event(700));
                }
            }
        }
        let held = all.load(Ordering::Relaxed);
        assert!(held > bounds.all / 2 && held <= bounds.all + bounds.turns * largest, "{held}");
        // A mark that nobody passes would leave its socket waiting for ever.
        let (outlet, mut inbox) = queues.pop().expect("the last one, which has its share and no more");
        while outlet.backlog() == Backlog::Full {
            assert!(inbox.try_next().is_some());
        }
        while inbox.try_next().is_some() {}
        inbox.0.relief.notified().await;
    }

    #[tokio::test]
    async fn a_socket_s_end_is_heard_even_if_its_task_died() {
        let (outlet, mut inbox) =
            queue(Bounds { lag: 10, turn: 10, all: 10, turns: 1 }, Arc::default(), Arc::default());
        outlet.push(event(1));
        drop(outlet);
        assert!(matches!(inbox.next().await, Message::Event(_)));
        assert!(matches!(inbox.next().await, Message::Fault(Fault::SocketLost(None))));
    }

    #[tokio::test]
    async fn a_fault_comes_after_what_was_said_unless_the_reader_is_the_fault() {
        for (fault, said) in [(Fault::SocketLost(None), 1), (Fault::SlowReader, 0)] {
            let (outlet, mut inbox) =
                queue(Bounds { lag: 10, turn: 10, all: 10, turns: 1 }, Arc::default(), Arc::default());
            outlet.push(event(1));
            outlet.fail(fault);
            let mut events = 0;
            while let Message::Event(_) = inbox.next().await {
                events += 1;
            }
            assert_eq!(events, said);
        }
    }
}
