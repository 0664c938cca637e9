//! The simulated provider as something that goes down and comes back: on the same port, with its memory or without.
//!
//! It has a runtime of its own, so that its tasks are not counted with anybody else's. Its rules are `src/sim`'s.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tailwire::sim::ledger::{Outcome, Record, Struck};
use tailwire::sim::{Provider, Script, serve};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::losses::Try;
use crate::tally::Tally;

pub(crate) struct House {
    pub(crate) addr: SocketAddr,
    runtime: Option<Runtime>,
    state: Mutex<State>,
}

struct State {
    now: Provider,
    /// The provider before it last lost its memory: attempts that began then may still have to be explained.
    before: Option<Provider>,
    /// Strikes on the books of `now` when its connections were last dropped.
    fresh_from: usize,
    serving: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl House {
    pub(crate) async fn open(script: Script) -> Self {
        let runtime = runtime("provider");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let now = Provider::new(script);
        let serving = Some(run(&runtime, listener, now.clone()));
        let state = Mutex::new(State { now, before: None, fresh_from: 0, serving });
        Self { addr, runtime: Some(runtime), state }
    }

    /// Who is serving now.
    pub(crate) fn provider(&self) -> Provider {
        self.lock().now.clone()
    }

    /// Drops every connection and closes the port.
    pub(crate) async fn go_down(&self) {
        let serving = self.lock().serving.take();
        if let Some((stop, task)) = serving {
            let _ = stop.send(());
            task.await.expect("the provider does not panic");
        }
    }

    /// Serves again on the same port; without its memory it is a provider that knows nobody's responses.
    pub(crate) async fn come_back(&self, remembers: bool, tally: &Tally) {
        let listener = bind(self.addr).await;
        let runtime = self.runtime.as_ref().expect("open until closed");
        let mut state = self.lock();
        if !remembers {
            self.settle(&state, tally);
            let script = Script::default();
            let old = std::mem::replace(&mut state.now, Provider::new(script));
            state.before = Some(old);
        }
        state.fresh_from = state.now.ledger().read(|book| book.struck.len());
        state.serving = Some(run(runtime, listener, state.now.clone()));
    }

    /// The tries of a turn, known by the digest of its settings, oldest first.
    pub(crate) fn tries(&self, settings: &str) -> Vec<Try> {
        let state = self.lock();
        let mut tries = Vec::new();
        for provider in state.before.iter().chain([&state.now]) {
            provider.ledger().read(|book| {
                for record in book.turns.iter().filter(|record| record.settings == settings) {
                    let here = book.struck.iter().filter(|struck| struck.connection == record.connection);
                    tries.push(Try { record: record.clone(), strikes: here.cloned().collect() });
                }
            });
        }
        tries
    }

    /// Faults carried out and limits met between two times on the connections of a credential.
    pub(crate) fn struck(&self, credential: &str, from: Instant, to: Instant) -> Vec<Struck> {
        let state = self.lock();
        let mut faults = Vec::new();
        for provider in state.before.iter().chain([&state.now]) {
            provider.ledger().read(|book| {
                let all = book.struck.iter().chain(&book.limited);
                let here = all.filter(|struck| struck.credential == credential);
                faults.extend(here.filter(|struck| (from..=to).contains(&struck.at)).cloned());
            });
        }
        faults
    }

    /// The record of a response.
    pub(crate) fn record(&self, response: &str) -> Option<Record> {
        let state = self.lock();
        [Some(&state.now), state.before.as_ref()].into_iter().flatten().find_map(|provider| {
            provider.ledger().read(|book| {
                let mut newest = book.turns.iter().rev();
                newest.find(|record| record.response.as_deref() == Some(response)).cloned()
            })
        })
    }

    /// Responses sockets that are open, but for those made deaf: their driver here never learns of their end.
    pub(crate) fn sockets(&self) -> usize {
        let state = self.lock();
        state.now.ledger().read(|book| {
            let fresh = book.struck.iter().skip(state.fresh_from);
            let deaf = fresh.filter(|struck| struck.fault == "IgnorePings").count();
            book.sockets_open.saturating_sub(deaf)
        })
    }

    /// Turns being generated, but for those on connections made deaf.
    pub(crate) fn running(&self) -> usize {
        self.lock().now.ledger().read(|book| {
            let deaf = |connection| {
                book.struck
                    .iter()
                    .any(|struck| struck.connection == connection && struck.fault == "IgnorePings")
            };
            let running = book.turns.iter().filter(|record| record.outcome == Outcome::Running);
            running.filter(|record| !deaf(record.connection)).count()
        })
    }

    /// Closes for good; what the books say joins the tally. True if no task was left.
    pub(crate) async fn close(mut self, tally: &Tally) -> bool {
        self.go_down().await;
        self.settle(&self.lock(), tally);
        let Some(runtime) = self.runtime.take() else { return true };
        let ended = crate::until(|| runtime.metrics().num_alive_tasks() == 0).await;
        tokio::task::block_in_place(|| runtime.shutdown_timeout(Duration::from_secs(10)));
        ended
    }

    /// Takes the book's counts before it is closed.
    fn settle(&self, state: &State, tally: &Tally) {
        state.now.ledger().read(|book| {
            for struck in &book.struck {
                tally.count("faults struck", struck.fault.clone());
            }
            tally.add("upstream", "upgrades asked", book.upgrades_asked);
            tally.add("upstream", "upgrades granted", book.upgrades_granted);
            for violation in &book.violations {
                tally.fail(crate::tally::WRONG, "rule broken", &format!("{violation:?}"));
            }
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }
}

fn run(
    runtime: &Runtime,
    listener: TcpListener,
    provider: Provider,
) -> (oneshot::Sender<()>, JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let task = runtime.spawn(async move {
        let listener = listener.into_std().and_then(TcpListener::from_std).expect("a listener moves");
        serve(listener, provider, async { drop(stopped.await) }).await;
    });
    (stop, task)
}

/// A small runtime of one side's own.
pub(crate) fn runtime(name: &str) -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(name)
        .enable_all()
        .build()
        .expect("threads")
}

/// The port that was ours a moment ago; another program's outgoing connection may hold it for a while.
pub(crate) async fn bind(addr: SocketAddr) -> TcpListener {
    for _ in 0..REBINDS {
        if let Ok(listener) = TcpListener::bind(addr).await {
            return listener;
        }
        tokio::time::sleep(REBIND_PAUSE).await;
    }
    panic!("the port {addr} cannot be had again");
}

const REBINDS: usize = 600;
const REBIND_PAUSE: Duration = Duration::from_millis(50);
