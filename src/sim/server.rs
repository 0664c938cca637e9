//! The provider as a process: its listener, its connections, and the state they share.
//!
//! One task per TCP connection does everything for that connection, an upgraded socket included, so that
//! dropping the task ends it all. What is answered is decided in `http.rs`, `answer.rs` and `socket.rs`.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Sleep;

use super::http;
use super::ledger::{Ledger, Traffic};
use super::rules::Account;
use super::script::{Fault, Mishap, Occasion, Script};

/// Serves the provider on a listener until `shutdown`; then every connection is dropped and its task ended.
pub async fn serve(listener: TcpListener, provider: Provider, shutdown: impl Future<Output = ()>) {
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(provider.clone(), stream))),
                // Out of file descriptors, or the peer is gone again: neither is helped by trying at once.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    connections.shutdown().await;
}

/// The provider: what it is told to be, what it remembers, and what it has seen. Clones share everything.
#[derive(Clone, Debug)]
pub struct Provider {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    script: Mutex<Script>,
    mishaps: Mutex<VecDeque<Mishap>>,
    account: Mutex<Account>,
    ledger: Ledger,
    told: watch::Sender<()>,
}

impl Provider {
    /// A provider with an empty memory.
    #[must_use]
    pub fn new(script: Script) -> Self {
        let mut seed = [0; 32];
        // Ids need only be unlike those of other runs; without entropy they are merely predictable.
        let _ = getrandom::fill(&mut seed);
        Self {
            shared: Arc::new(Shared {
                script: Mutex::new(script),
                mishaps: Mutex::default(),
                account: Mutex::new(Account::new(seed)),
                ledger: Ledger::new(),
                told: watch::Sender::new(()),
            }),
        }
    }

    /// Changes the script; holds for requests from now on, and for the pace of running ones.
    pub fn script(&self, change: impl FnOnce(&mut Script)) {
        change(&mut lock(&self.shared.script));
        self.shared.told.send_replace(());
    }

    /// Queues a mishap behind those queued already.
    pub fn mishap(&self, mishap: Mishap) {
        lock(&self.shared.mishaps).push_back(mishap);
        self.shared.told.send_replace(());
    }

    /// Forgets the mishaps that have not struck yet.
    pub fn calm(&self) {
        lock(&self.shared.mishaps).clear();
    }

    /// What the provider has seen.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }

    /// The script as it is now.
    pub(super) fn now(&self) -> Script {
        lock(&self.shared.script).clone()
    }

    /// Tells of changes to the script and of new mishaps.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.shared.told.subscribe()
    }

    /// The fault of the first mishap that this occasion brings about.
    pub(super) fn strike(&self, occasion: &Occasion<'_>) -> Option<Fault> {
        let mut mishaps = lock(&self.shared.mishaps);
        let index = mishaps.iter().position(|mishap| mishap.applies(occasion))?;
        let mishap = &mut mishaps[index];
        let fault = mishap.strike().then(|| mishap.fault.clone())?;
        if mishap.is_spent() {
            mishaps.remove(index);
        }
        self.ledger().write(|book| book.mishaps += 1);
        Some(fault)
    }

    /// Works on the memory; broken rules go into the ledger.
    pub(super) fn account<T>(&self, work: impl FnOnce(&mut Account) -> T) -> T {
        let mut account = lock(&self.shared.account);
        let outcome = work(&mut account);
        let violations = account.drain_violations();
        drop(account);
        if !violations.is_empty() {
            self.ledger().write(|book| {
                book.violations.extend(violations);
                book.violations.truncate(MOST_VIOLATIONS);
            });
        }
        outcome
    }
}

/// A provider running on a free loopback port, for tests and the demo. Dropping it stops it.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its handle.
    pub provider: Provider,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    /// Starts a provider on `127.0.0.1` and a port of the system's choice.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(script: Script) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let provider = Provider::new(script);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serve(listener, provider.clone(), async {
            // A dropped handle stops it just as well.
            let _ = stopped.await;
        }));
        Ok(Self { addr, provider, stop, task })
    }

    /// The base URL as SDKs are given it.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// Stops it and waits until all its tasks have ended.
    ///
    /// # Errors
    /// When its task panicked.
    pub async fn stop(self) -> Result<(), tokio::task::JoinError> {
        let _ = self.stop.send(());
        self.task.await
    }
}

/// Seconds since 1970, for `created_at`.
pub(super) fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

/// What an upgraded connection goes on to do.
pub(super) type Afterwards = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where a request handler leaves what its connection is to do after an upgrade.
#[derive(Clone, Default)]
pub(super) struct Slot(Arc<Mutex<Option<Afterwards>>>);

impl Slot {
    pub(super) fn fill(&self, afterwards: Afterwards) {
        *lock(&self.0) = Some(afterwards);
    }

    fn take(&self) -> Option<Afterwards> {
        lock(&self.0).take()
    }
}

async fn connection(provider: Provider, stream: TcpStream) {
    let traffic = provider.ledger().connected();
    // Without it every small event waits for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let link = provider.now().link;
    tokio::time::sleep(link.rtt * link.handshakes).await;

    let slot = Slot::default();
    let caller = http::Caller::new(provider, Arc::clone(&traffic), slot.clone());
    let service = hyper::service::service_fn(move |request| caller.clone().answer(request));
    let io = TokioIo::new(Counted { stream, traffic, pause: None });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(io, service)
        .with_upgrades()
        .await;
    if let (Ok(()), Some(afterwards)) = (served, slot.take()) {
        afterwards.await;
    }
}

/// A TCP stream that counts its bytes, and crawls when told to.
struct Counted {
    stream: TcpStream,
    traffic: Arc<Traffic>,
    /// The wait before the next piece of a trickle.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Counted {
    /// How much of so many bytes may be written now.
    fn poll_share(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<usize> {
        let Some(trickle) = self.traffic.trickles(0) else {
            self.pause = None;
            return Poll::Ready(bytes);
        };
        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(trickle.pause)));
        ready!(pause.as_mut().poll(cx));
        Poll::Ready(bytes.min(trickle.piece.max(1)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.traffic.is_reset() {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.traffic.count(buffer.filled().len() - before, 0);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let share = ready!(self.poll_share(cx, bytes.len()));
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &bytes[..share]))?;
        if self.pause.take().is_some() {
            self.traffic.trickles(written);
        }
        self.traffic.count(0, written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.traffic.is_reset() {
            // A reset is not preceded by an orderly end.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is changed in single steps; a panic elsewhere leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const MOST_CONNECTIONS: usize = 4096;
const MOST_VIOLATIONS: usize = 1000;
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
