//! What the provider saw: counters and one record per turn, for tests and the demo to read.
//!
//! Holds digests, ids and sizes; never a credential, never content. Bounded: the oldest records go first.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::request::Transport;
use super::rules::{Digests, Ending, Violation};
use super::script::{Fault, Trickle};

/// The provider's book, shared by all that write and read it.
#[derive(Clone, Debug)]
pub struct Ledger {
    book: Arc<Mutex<Book>>,
    changed: Arc<watch::Sender<()>>,
}

impl Ledger {
    /// An empty book.
    pub(super) fn new() -> Self {
        Self { book: Arc::default(), changed: Arc::new(watch::Sender::new(())) }
    }

    /// Reads the book; it is locked meanwhile, so `look` must be short.
    pub fn read<T>(&self, look: impl FnOnce(&Book) -> T) -> T {
        look(&self.lock())
    }

    /// Waits until the book satisfies a condition, without polling. False if it does not within four minutes: a bound for what
    /// never comes, no measure of speed.
    pub async fn wait(&self, until: impl Fn(&Book) -> bool) -> bool {
        let mut changes = self.changed.subscribe();
        let satisfied = async { while !self.read(&until) && changes.changed().await.is_ok() {} };
        tokio::time::timeout(PATIENCE, satisfied).await.is_ok()
    }

    /// Changes the book and tells those who wait.
    pub(super) fn write<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        let outcome = change(&mut self.lock());
        self.changed.send_replace(());
        outcome
    }

    /// The client of a turn leaves now: what is generated from here on, nobody wants. `turn` is its place among the
    /// records.
    pub fn leave(&self, turn: usize) {
        self.write(|book| {
            if let Some(record) = book.turns.get_mut(turn) {
                record.left_at.get_or_insert(record.tokens);
            }
        });
    }

    /// Opens a turn's record. Dropping the entry before it has ended records the turn as cancelled.
    pub(super) fn open(&self, record: Record) -> Entry {
        let number = self.write(|book| {
            book.turns_dropped += bound(&mut book.turns);
            book.turns.push_back(record);
            book.turns_dropped + book.turns.len() as u64 - 1
        });
        Entry { ledger: self.clone(), number }
    }

    /// Enters a mishap of a connection, while no turn was meant.
    pub(super) fn struck(&self, connection: u64, credential: &str, fault: &Fault) {
        let struck = Struck::new(connection, credential, name(fault));
        self.write(|book| book.strike(struck));
    }

    /// Enters that a frame was refused on a connection because of a limit, by the code of the refusal.
    pub(super) fn limited(&self, connection: u64, credential: &str, code: &str) {
        let struck = Struck::new(connection, credential, code.to_owned());
        self.write(|book| {
            bound(&mut book.limited);
            book.limited.push_back(struck);
        });
    }

    /// Enters a new TCP connection.
    pub(super) fn connected(&self) -> Arc<Traffic> {
        self.write(|book| {
            bound(&mut book.connections);
            let traffic = Arc::new(Traffic { number: book.connections_opened, ..Traffic::default() });
            book.connections_opened += 1;
            book.connections.push_back(Arc::clone(&traffic));
            traffic
        })
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // A reader that panicked is a failed assertion of a test; the book itself is whole.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything on record. At most 65 536 turns, and as many connections, mishaps and limits met.
#[derive(Debug, Default)]
pub struct Book {
    /// One record per request for a response, oldest first.
    pub turns: VecDeque<Record>,
    /// Rules that were broken. A correct proxy leaves this empty.
    pub violations: Vec<Violation>,
    /// TCP connections, oldest first.
    pub connections: VecDeque<Arc<Traffic>>,
    /// TCP connections ever accepted.
    pub connections_opened: u64,
    /// WebSocket upgrades asked for, granted or not.
    pub upgrades_asked: u64,
    /// WebSocket upgrades granted on `/v1/responses`.
    pub upgrades_granted: u64,
    /// Responses sockets open now.
    pub sockets_open: usize,
    /// The same by credential (SHA-256, hexadecimal).
    pub sockets_of: HashMap<String, usize>,
    /// HTTP requests of any kind, upgrades included.
    pub http_requests: u64,
    /// Pings received on Responses sockets.
    pub pings: u64,
    /// Pongs received on Responses sockets.
    pub pongs: u64,
    /// Mishaps that have struck.
    pub mishaps: u64,
    /// Where they struck, oldest first.
    pub struck: VecDeque<Struck>,
    /// Frames refused because of a limit, with the refusal's code for the fault's name, oldest first.
    pub limited: VecDeque<Struck>,
    turns_dropped: u64,
}

impl Book {
    fn record(&mut self, number: u64) -> Option<&mut Record> {
        let index = number.checked_sub(self.turns_dropped)?;
        self.turns.get_mut(usize::try_from(index).ok()?)
    }

    fn strike(&mut self, struck: Struck) {
        bound(&mut self.struck);
        self.struck.push_back(struck);
    }

    /// Bytes read from and written to all connections on record.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        self.connections
            .iter()
            .fold((0, 0), |(read, written), line| (read + line.read(), written + line.written()))
    }

    /// The record of an answer by the id that its client was told. A chat completion that was translated on the way
    /// is on record as the response that it was.
    #[must_use]
    pub fn answer(&self, id: &str) -> Option<&Record> {
        let own = |id: &str| id.trim_start_matches("chatcmpl-").trim_start_matches("resp_").to_owned();
        let wanted = own(id);
        self.turns.iter().rev().find(|record| record.response.as_deref().map(own).as_ref() == Some(&wanted))
    }

    /// How many turns have ended or are running with this outcome.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> usize {
        self.turns.iter().filter(|record| record.outcome == outcome).count()
    }
}

/// A mishap that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Struck {
    /// Number of the TCP connection it was carried out on.
    pub connection: u64,
    /// Whose connection (SHA-256 of the credential, hexadecimal): also where no turn was read on it, ever.
    pub credential: String,
    /// The name of the fault, as the script's enum has it.
    pub fault: String,
    /// The turn it was meant for, by the digest of its settings; none for a fault of the connection alone.
    pub settings: Option<String>,
    /// The response it was meant for, if that had begun.
    pub response: Option<String>,
    /// When.
    pub at: Instant,
}

impl Struck {
    fn new(connection: u64, credential: &str, fault: String) -> Self {
        let credential = credential.to_owned();
        Self { connection, credential, fault, settings: None, response: None, at: Instant::now() }
    }
}

/// A fault by its name alone: what it carries may be content.
fn name(fault: &Fault) -> String {
    let told = format!("{fault:?}");
    told.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

/// One request for a response.
#[derive(Clone, Debug)]
pub struct Record {
    /// What it came over.
    pub transport: Transport,
    /// SHA-256 of the credential, hexadecimal.
    pub credential: String,
    /// Number of its TCP connection, from 0.
    pub connection: u64,
    /// Its lane; none for the default lane and over HTTP.
    pub stream_id: Option<String>,
    /// The `previous_response_id` it named.
    pub previous: Option<String>,
    /// The id of the response, of the chat completion for [`Transport::Chat`]; none if it was refused before it began.
    pub response: Option<String>,
    /// Digests of its effective context; empty if it was refused before it began.
    pub digests: Digests,
    /// Digest of its fields other than the input and its chain.
    pub settings: String,
    /// Bytes of the JSON that arrived, decompressed.
    pub frame: usize,
    /// Bytes its connection received since the request before: this one on the wire, with framing and pings.
    pub wire: u64,
    /// Items in its input.
    pub items: usize,
    /// Tokens generated so far.
    pub tokens: u64,
    /// Tokens generated when its client left; set by [`Ledger::leave`].
    pub left_at: Option<u64>,
    /// Where it stands.
    pub outcome: Outcome,
    /// When its request was read.
    pub arrived: Instant,
    /// When its response began.
    pub begun: Option<Instant>,
}

impl Record {
    /// A request just arrived.
    pub(super) fn new(
        transport: Transport,
        credential: &str,
        connection: u64,
        frame: usize,
        wire: u64,
    ) -> Self {
        Self {
            transport,
            credential: credential.to_owned(),
            connection,
            stream_id: None,
            previous: None,
            response: None,
            digests: Digests::default(),
            settings: String::new(),
            frame,
            wire,
            items: 0,
            tokens: 0,
            left_at: None,
            outcome: Outcome::Running,
            arrived: Instant::now(),
            begun: None,
        }
    }

    /// Tokens generated after its client left; none if it did not.
    #[must_use]
    pub fn wasted(&self) -> u64 {
        self.left_at.map_or(0, |left| self.tokens - left)
    }
}

/// Where a turn stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Waiting or generating.
    Running,
    /// Ended with its own last event.
    Ended(Ending),
    /// The client went away before its end; nothing was generated after that.
    Cancelled,
}

/// The bytes of one TCP connection.
#[derive(Debug, Default)]
pub struct Traffic {
    number: u64,
    read: AtomicU64,
    written: AtomicU64,
    reset: AtomicBool,
    trickle: Mutex<Option<Trickle>>,
}

impl Traffic {
    /// The connection's number, from 0.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes received on it.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes sent on it.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, read: usize, written: usize) {
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        self.written.fetch_add(written as u64, Ordering::Relaxed);
    }

    /// Makes the connection end with a TCP reset when it is dropped.
    pub(super) fn reset_on_drop(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }

    /// Makes what is written next crawl.
    pub(super) fn trickle(&self, trickle: Trickle) {
        *self.trickle.lock().unwrap_or_else(PoisonError::into_inner) = Some(trickle);
    }

    /// What is left of that; `written` bytes more have gone this way.
    pub(super) fn trickles(&self, written: usize) -> Option<Trickle> {
        let mut trickle = self.trickle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(left) = trickle.as_mut() {
            left.bytes = left.bytes.saturating_sub(written);
        }
        *trickle = trickle.filter(|left| left.bytes > 0);
        *trickle
    }
}

/// The right to write one turn's record.
#[derive(Debug)]
pub(super) struct Entry {
    ledger: Ledger,
    number: u64,
}

impl Entry {
    /// Changes the record, if it is still kept.
    pub(super) fn write(&self, change: impl FnOnce(&mut Record)) {
        self.ledger.write(|book| book.record(self.number).map(change));
    }

    /// Enters a mishap of this turn.
    pub(super) fn struck(&self, fault: &Fault, response: Option<String>) {
        self.ledger.write(|book| {
            let Some(record) = book.record(self.number) else { return };
            let struck = Struck::new(record.connection, &record.credential, name(fault));
            let settings = Some(record.settings.clone());
            book.strike(Struck { settings, response, ..struck });
        });
    }

    /// Records how the turn ended.
    pub(super) fn end(&self, ending: Ending) {
        self.write(|record| record.outcome = Outcome::Ended(ending));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.write(|record| {
            if record.outcome == Outcome::Running {
                record.outcome = Outcome::Cancelled;
            }
        });
    }
}

/// Makes room for one more; returns how many were dropped for it.
fn bound<T>(records: &mut VecDeque<T>) -> u64 {
    let full = records.len() >= MOST_RECORDS;
    if full {
        records.pop_front();
    }
    u64::from(full)
}

/// How long a test waits for what should already be on its way; a loaded machine may take its time.
const PATIENCE: Duration = Duration::from_secs(240);
const MOST_RECORDS: usize = 65_536;
