//! All sockets of the process: places turns, opens what the heart asks for, hands frames to the sockets' tasks.
//!
//! Decides nothing; asks `proto::core`.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::HeaderName;
use tokio::sync::{Notify, mpsc};

use crate::proto::core::{Core, Placement, Ticket, Wish};
use crate::proto::digest::{Digest, Key};
use crate::proto::fault::Fault;
use crate::proto::id::{ConnectionId, TurnId};
use crate::proto::session::connection::view::SocketView;
use crate::proto::transcript::echo::Echo;
use crate::proto::transcript::prefix::Prefix;
use crate::proto::transcript::request::Request;
use crate::telemetry::metrics::Metrics;
use crate::upstream::connection::{self, Command};
use crate::upstream::dial::ConnectError;
use crate::upstream::extension::Compression;
use crate::upstream::handshake::{Dialer, Opened};
use crate::upstream::heart::Heart;
use crate::upstream::inbox::{self, Bounds, Inbox};
use crate::upstream::origin::Target;

/// Commands a socket's task may have waiting: turns in flight and wake-ups; more cannot be needed.
const COMMANDS: usize = 256;

/// Up to this many sockets keep their compression windows (375 KB each, measured 2026-11); more share a pool.
const FEW_SOCKETS: usize = 32;

/// A client as the upstream sees it.
#[derive(Clone)]
pub struct Account {
    /// Digest of upstream, credential and identity headers.
    pub digest: Digest,
    /// Headers of the handshake, should this turn open a socket.
    pub handshake: HeaderMap,
    /// The header that splits its credential into many scopes, if one does (F8).
    pub split_by: Option<HeaderName>,
}

/// Names no header's value: the credential is among them.
impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handshake: Vec<_> = self.handshake.keys().collect();
        f.debug_struct("Account")
            .field("digest", &self.digest)
            .field("handshake", &handshake)
            .finish_non_exhaustive()
    }
}

/// All sockets of this process.
#[derive(Debug)]
pub struct Pool {
    heart: Heart,
    links: Mutex<HashMap<ConnectionId, Link>>,
    dialer: Dialer,
    target: Target,
    offer: Option<Compression>,
    bounds: Bounds,
    buffered: Arc<AtomicUsize>,
    idle: Notify,
}

#[derive(Debug)]
struct Link {
    commands: mpsc::Sender<Command>,
    relief: Arc<Notify>,
}

impl Pool {
    /// A pool without sockets. Without an `offer`, compression is chosen by the number of sockets.
    pub fn new(
        core: Core,
        (dialer, target): (Dialer, Target),
        offer: Option<Compression>,
        bounds: Bounds,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            heart: Heart::new(core, metrics),
            links: Mutex::default(),
            dialer,
            target,
            offer,
            bounds,
            buffered: Arc::default(),
            idle: Notify::new(),
        })
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.heart.lock()
    }

    fn links(&self) -> MutexGuard<'_, HashMap<ConnectionId, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The digest key.
    pub fn key(&self) -> Key {
        self.core().key().clone()
    }

    /// Prefixes by which a request of this account may be found.
    pub fn prefixes(&self, account: &Digest) -> Vec<Prefix> {
        self.core().prefixes(account)
    }

    /// True if the request continues something known, wherever that is.
    pub fn recognises(&self, key: &Key, request: &Request) -> bool {
        self.core().index().continuations(key, request).is_ok()
    }

    /// Places a turn, opening a socket if that is what it takes.
    pub fn begin(self: &Arc<Self>, account: &Account, request: &Request, wish: &Wish) -> Placement {
        let mut core = self.core();
        let placement = core.begin(Instant::now(), &account.digest, request, wish);
        let opening = match &placement {
            Placement::Wire(ticket) if ticket.open => Some(ticket.connection),
            Placement::Http(_, probe) => *probe,
            Placement::Wire(_) => None,
        };
        // Under the heart's lock: the next turn may be placed on this socket, and must find its link.
        let opening = opening.map(|id| (id, self.link(id)));
        drop(core);
        if let Some((id, (commands, relief))) = opening {
            let (pool, headers) = (self.clone(), account.handshake.clone());
            let dial = async move { pool.dial(&headers).await };
            tokio::spawn(self.clone().attend(id, dial, commands, relief));
        }
        placement
    }

    fn link(&self, id: ConnectionId) -> (mpsc::Receiver<Command>, Arc<Notify>) {
        let (commands, inbound) = mpsc::channel(COMMANDS);
        let relief = Arc::new(Notify::new());
        self.links().insert(id, Link { commands, relief: relief.clone() });
        (inbound, relief)
    }

    /// A socket's whole life; nothing of it is left behind.
    async fn attend(
        self: Arc<Self>,
        id: ConnectionId,
        dial: impl Future<Output = Result<Opened, ConnectError>>,
        mut commands: mpsc::Receiver<Command>,
        relief: Arc<Notify>,
    ) {
        let entry = Entry { pool: &self, id };
        let last = connection::run(&self.heart, id, dial, &mut commands, relief).await;
        drop(entry);
        commands.close();
        while let Some(command) = commands.recv().await {
            if let Command::Create { outlet, .. } = command {
                outlet.fail(last.clone());
            }
        }
    }

    /// Hands a frame to its socket; the answer comes through the inbox.
    pub fn submit(&self, ticket: &Ticket, frame: Bytes) -> Inbox {
        let links = self.links();
        let link = links.get(&ticket.connection);
        let relief = link.map(|link| link.relief.clone()).unwrap_or_default();
        let (outlet, inbox) = inbox::queue(self.bounds, self.buffered.clone(), relief);
        let command = Command::Create { turn: ticket.turn, frame, outlet };
        let refused = match link {
            Some(link) => link.commands.try_send(command).err().map(|error| match error {
                mpsc::error::TrySendError::Full(command) | mpsc::error::TrySendError::Closed(command) => {
                    command
                }
            }),
            None => Some(command),
        };
        if let Some(Command::Create { outlet, .. }) = refused {
            outlet.fail(Fault::SocketLost(None));
        }
        inbox
    }

    /// A turn completed: what it said can be continued.
    pub fn settle(&self, turn: TurnId, request: &Request, response: &str, echo: Option<Echo>) {
        let connection = self.core().settle(Instant::now(), turn, request, response, echo);
        self.wake(connection);
    }

    /// A turn ended in a way that cannot be continued.
    pub fn end(&self, turn: TurnId, not_found: bool) {
        let connection = self.core().end(Instant::now(), turn, not_found);
        self.wake(connection);
    }

    /// The provider refused a turn for the response it continues.
    pub fn disown(&self, turn: TurnId) {
        self.core().disown(turn);
    }

    /// Nobody waits for a turn any more.
    pub fn abandon(&self, turn: TurnId) {
        let connection = self.core().abandon(Instant::now(), turn);
        self.wake(connection);
    }

    /// The client deleted a response.
    pub fn forget(&self, account: &Digest, response: &str) {
        self.core().forget(account, response);
    }

    /// The provider refused lanes.
    pub fn degrade(&self) {
        self.core().degrade();
    }

    /// Sockets that are open or opening.
    pub fn sockets(&self) -> usize {
        self.core().sockets()
    }

    /// Turns that have a place on a socket.
    pub fn turns(&self) -> usize {
        self.core().turns()
    }

    /// The sockets as people are shown them, the oldest first.
    pub fn view(&self) -> Vec<SocketView> {
        self.core().view(Instant::now())
    }

    /// Bytes that the index of conversations takes up.
    pub fn index_bytes(&self) -> usize {
        self.core().index().weight()
    }

    /// Bytes queued for readers.
    pub fn buffered(&self) -> usize {
        self.buffered.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Closes every socket once its turns are over, and waits for that.
    pub async fn close(&self) {
        self.core().retire_all();
        let ids: Vec<ConnectionId> = self.links().keys().copied().collect();
        for id in ids {
            self.wake(Some(id));
        }
        loop {
            let idle = self.idle.notified();
            if self.links().is_empty() {
                return;
            }
            idle.await;
        }
    }

    /// Lets a socket's task look again at what the heart wants of it.
    fn wake(&self, connection: Option<ConnectionId>) {
        let links = self.links();
        if let Some(link) = connection.and_then(|id| links.get(&id)) {
            // A full queue has commands in it, and any command makes the task look.
            let _ = link.commands.try_send(Command::Wake);
        }
    }

    async fn dial(&self, headers: &HeaderMap) -> Result<Opened, ConnectError> {
        let few = self.sockets() <= FEW_SOCKETS;
        let offer = self.offer.unwrap_or(if few { Compression::Takeover } else { Compression::Pooled });
        self.dialer.open(&self.target, headers, offer).await
    }
}

/// A socket's place in the heart and among the links; given back even if its task dies of a defect.
struct Entry<'a> {
    pool: &'a Pool,
    id: ConnectionId,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.pool.core().closed(Instant::now(), self.id);
        self.pool.links().remove(&self.id);
        self.pool.idle.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto::core::gate::Refusal;
    use crate::proto::session::Limits;
    use crate::upstream::origin::Upstream;
    use crate::upstream::tls::Tls;

    fn pool(limits: Limits) -> Arc<Pool> {
        let dialer = Dialer::new(Tls::new(&[]).expect("a trust store"));
        let target = Upstream::parse("http://127.0.0.1:9/v1").expect("an address").target("/v1/responses");
        let core = Core::new(Key::new([1; 32]), limits, false, 1 << 20);
        Pool::new(core, (dialer, target), None, Bounds { lag: 1, turn: 1, all: 1, turns: 1 }, Arc::default())
    }

    #[tokio::test]
    async fn a_probe_whose_task_dies_is_followed_by_another() {
        let pool = pool(Limits { backoff: (Duration::ZERO, Duration::ZERO), ..Limits::default() });
        let account = pool.key().hasher("account").finish();
        let body = r#"{"model":"m","store":false,"input":[{"role":"user","content":"a"}]}"#;
        let request = Request::parse(&pool.key(), &account, body.into(), &[]).expect("a request");
        let place = || pool.core().begin(Instant::now(), &account, &request, &Wish::default());
        let Placement::Wire(first) = place() else { panic!("a socket") };
        pool.core().refused(Instant::now(), first.connection, Refusal::Failure);
        pool.core().closed(Instant::now(), first.connection);
        for _ in 0..3 {
            let Placement::Http(_, Some(probe)) = place() else { panic!("a probe") };
            let (commands, relief) = pool.link(probe);
            let dial = async { panic!("a defect, as a test wants it") };
            let died = tokio::spawn(pool.clone().attend(probe, dial, commands, relief)).await;
            assert!(died.is_err_and(|error| error.is_panic()));
            assert_eq!((pool.sockets(), pool.links().len()), (0, 0), "nothing of it is left");
        }
    }
}
