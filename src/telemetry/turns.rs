//! One record for each turn that is over: sizes, times, names. The last of them are kept, and told to whoever follows.
//!
//! No content, no key, no model, no id of a client. Counting is `metrics`'s; nothing here steers a turn.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::broadcast;

use crate::proto::session::recovery::Rung;
use crate::proto::transcript::plan::Grade;

/// Records that wait for one follower; one that is further behind misses the oldest, and is told how many.
const WAITING: usize = 256;

/// A turn that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// Its number in this process, from 1, in the order of the ends.
    pub number: u64,
    /// When its request's head came, by the clock on the wall.
    pub began: SystemTime,
    /// What its client asked.
    pub api: Api,
    /// How its client wanted, or got, the answer.
    pub form: Form,
    /// How it travelled; none if the client left before that was decided.
    pub plan: Option<PlanName>,
    /// How exact a delta was.
    pub grade: Option<Grade>,
    /// Why it was not a delta, by the label that counters use.
    pub reason: Option<&'static str>,
    /// Items sent and items in all; none over HTTP.
    pub items: Option<(usize, usize)>,
    /// Bytes of the client's body as it came.
    pub received: u64,
    /// Bytes of JSON sent upstream, all tries together.
    pub sent: u64,
    /// The same on the wire.
    pub wire: u64,
    /// The last step of recovery; none if the first try had its answer.
    pub rung: Option<Rung>,
    /// Steps of recovery.
    pub recoveries: u32,
    /// From the end of the client's body to the beginning of the frame, or HTTP request, that was answered: what tailwire
    /// itself adds, tries in vain included. None if nothing left.
    pub added: Option<Duration>,
    /// From the end of the client's body to the first event, over HTTP to the head of the answer.
    pub first_event: Option<Duration>,
    /// From the request's head to the end of the answer.
    pub duration: Duration,
    /// The status that the client was told; none if it had left.
    pub status: Option<u16>,
    /// What became of it.
    pub outcome: Outcome,
}

/// Which API a turn came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Api {
    /// `POST /v1/responses`.
    Responses,
    /// `POST /v1/chat/completions`.
    Chat,
}

/// How an answer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One body.
    Json,
    /// A stream of events.
    Sse,
}

/// How a turn travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlanName {
    /// The new items over a socket.
    Delta,
    /// The whole history over a socket.
    Full,
    /// The client's own bytes over HTTP.
    Http,
}

/// What became of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The client has the whole answer.
    Completed,
    /// The client was told of an error, of the provider's or of ours, or its stream broke.
    Failed,
    /// The client left before the end.
    Abandoned,
    /// The client read so slowly that it held up others.
    Lagging,
}

impl Api {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Responses, Self::Chat];

    /// Its name in labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Responses => "responses",
            Self::Chat => "chat",
        }
    }
}

impl Form {
    /// Its name in records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Sse => "sse",
        }
    }
}

impl PlanName {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Delta, Self::Full, Self::Http];

    /// Its name in `x-tailwire` and in labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Delta => "delta",
            Self::Full => "full",
            Self::Http => "http",
        }
    }
}

impl Outcome {
    /// Its name in labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
            Self::Lagging => "lagging",
        }
    }
}

/// The clock on the wall, for people to read: nothing is decided by it.
#[must_use]
pub fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// A time by the clock on the wall in seconds since 1970, to the millisecond.
#[must_use]
pub fn unix_seconds(at: SystemTime) -> f64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as f64 / 1e3
}

/// The last turns, oldest first, and the way to hear of the next.
#[derive(Debug)]
pub struct Journal {
    book: Mutex<Book>,
    most: usize,
    news: broadcast::Sender<Arc<Turn>>,
}

#[derive(Debug, Default)]
struct Book {
    turns: VecDeque<Arc<Turn>>,
    /// Turns ever entered.
    entered: u64,
}

impl Journal {
    /// A journal that keeps the last `most` turns; each takes some 250 bytes.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { book: Mutex::default(), most, news: broadcast::Sender::new(WAITING) }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a turn, whose number is given here, and tells those who follow.
    pub fn enter(&self, mut turn: Turn) {
        let mut book = self.book();
        book.entered += 1;
        turn.number = book.entered;
        let turn = Arc::new(turn);
        if self.most > 0 {
            while book.turns.len() >= self.most {
                book.turns.pop_front();
            }
            book.turns.push_back(turn.clone());
        }
        // Under the lock, so that followers hear in the order of the numbers. Nobody may be following.
        let _ = self.news.send(turn);
    }

    /// The last turns, oldest first.
    #[must_use]
    pub fn turns(&self) -> Vec<Arc<Turn>> {
        self.book().turns.iter().cloned().collect()
    }

    /// The last turns, and every turn after them. A follower that is slow is told how many it missed.
    #[must_use]
    pub fn follow(&self) -> (Vec<Arc<Turn>>, broadcast::Receiver<Arc<Turn>>) {
        let book = self.book();
        (book.turns.iter().cloned().collect(), self.news.subscribe())
    }

    /// Turns ever entered.
    #[must_use]
    pub fn entered(&self) -> u64 {
        self.book().entered
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::error::RecvError;

    use super::*;

    fn turn() -> Turn {
        Turn {
            number: 0,
            began: SystemTime::UNIX_EPOCH,
            api: Api::Responses,
            form: Form::Json,
            plan: Some(PlanName::Delta),
            grade: Some(Grade::Exact),
            reason: None,
            items: Some((1, 3)),
            received: 100,
            sent: 50,
            wire: 20,
            rung: None,
            recoveries: 0,
            added: Some(Duration::from_millis(1)),
            first_event: Some(Duration::from_millis(2)),
            duration: Duration::from_millis(3),
            status: Some(200),
            outcome: Outcome::Completed,
        }
    }

    fn numbers(turns: &[Arc<Turn>]) -> Vec<u64> {
        turns.iter().map(|turn| turn.number).collect()
    }

    #[tokio::test]
    async fn the_last_are_kept_and_a_slow_follower_is_told_what_it_missed() {
        let journal = Journal::new(3);
        journal.enter(turn());
        let (before, mut news) = journal.follow();
        assert_eq!(numbers(&before), [1]);
        for _ in 0..WAITING + 5 {
            journal.enter(turn());
        }
        let last = journal.entered();
        assert_eq!(numbers(&journal.turns()), [last - 2, last - 1, last]);
        assert_eq!(news.recv().await, Err(RecvError::Lagged(5)));
        assert_eq!(news.recv().await.map(|turn| turn.number), Ok(7));
    }

    #[test]
    fn a_journal_may_keep_nothing() {
        let journal = Journal::new(0);
        journal.enter(turn());
        assert_eq!((journal.turns().len(), journal.entered()), (0, 1));
    }
}
