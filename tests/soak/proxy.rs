//! The proxy as something that is drained, killed and started again on its port, in this process or as the real binary.
//!
//! In this process it has a runtime of its own: a kill is that runtime's end, and its tasks can be counted. Some lives let
//! in only clients with a key; the file of keys then changes while the proxy runs, but for the keys of the run's own clients.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tailwire::app;
use tailwire::args::ServeArgs;
use tailwire::telemetry::metrics::Counter;
use tokio::runtime::Runtime;

use crate::chance::Chance;
use crate::provider::{self, runtime};
use crate::tally::{LEAKED, Tally};

/// How it is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Accept no more, let turns in flight end.
    Drain,
    /// At once, whatever is in flight.
    Kill,
}

/// What a proxy is told: one life's settings.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) profile: &'static str,
    /// Clients need a key.
    pub(crate) keyed: bool,
    pub(crate) variables: Vec<(&'static str, &'static str)>,
}

impl Life {
    /// Draws the settings of a life. Waits are shorter than they ship, and yet longer than a busy machine makes anybody wait.
    pub(crate) fn draw(chance: &mut Chance) -> Self {
        let mut variables = vec![
            ("TAILWIRE_TIMEOUTS_CONNECT", "12s"),
            ("TAILWIRE_TIMEOUTS_FIRST_EVENT", FIRST_EVENT_TEXT),
            ("TAILWIRE_TIMEOUTS_SILENCE", "15s"),
            ("TAILWIRE_TIMEOUTS_PING", "2s"),
            ("TAILWIRE_TIMEOUTS_PONG", "12s"),
            ("TAILWIRE_TIMEOUTS_ABANDON_GRACE", "1s"),
            ("TAILWIRE_TIMEOUTS_DRAIN", "60s"),
            ("TAILWIRE_TIMEOUTS_IDLE_SOCKET", "20s"),
            ("TAILWIRE_TIMEOUTS_HTTP_LATCH", "2s"),
            ("TAILWIRE_TIMEOUTS_BACKOFF_MIN", "100ms"),
            ("TAILWIRE_TIMEOUTS_BACKOFF_MAX", "2s"),
            ("TAILWIRE_LIMITS_TURNS", TURNS_TEXT),
            ("TAILWIRE_LIMITS_TURN_BUFFER", "256KiB"),
            ("TAILWIRE_LIMITS_ALL_BUFFERS", "8MiB"),
            ("TAILWIRE_LIMITS_LAG", "64KiB"),
            ("TAILWIRE_LIMITS_OWN_SOCKET_FRAME", "256KiB"),
        ];
        variables.push(("TAILWIRE_COMPRESSION", chance.pick(&["auto", "off", "takeover", "pooled"])));
        variables.push(("TAILWIRE_REASONING", chance.pick(&["keep", "keep", "strict"])));
        variables.push(("TAILWIRE_LIMITS_INDEX", chance.pick(&["64MiB", "64MiB", "256KiB"])));
        variables.push(("TAILWIRE_LIMITS_FRAME", chance.pick(&["15MiB", "1MiB"])));
        variables.push(("TAILWIRE_LIMITS_SOCKETS_PER_CREDENTIAL", chance.pick(&["16", "16", "16", "4"])));
        let keyed = chance.once_in(2);
        Self { profile: chance.pick(&["openai", "openai", "azure"]), keyed, variables }
    }
}

pub(crate) struct House {
    pub(crate) addr: SocketAddr,
    upstream: String,
    binary: bool,
    /// The keys of its clients.
    keys: PathBuf,
    keyed: bool,
    running: Option<Running>,
}

enum Running {
    Here(Runtime, app::Running),
    Child(Child),
}

impl House {
    pub(crate) async fn open(upstream: String, binary: bool, life: &Life) -> Self {
        let keys = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("soak-{}.keys", std::process::id()));
        let addr = ([127, 0, 0, 1], 0).into();
        let mut house = Self { addr, upstream, binary, keys, keyed: false, running: None };
        house.start(life).await;
        house
    }

    /// Ends it and starts it again on its port.
    pub(crate) async fn stop(&mut self, end: End, tally: &Tally, provider: &provider::House) {
        match self.running.take() {
            Some(Running::Here(runtime, running)) => stop_here(runtime, running, end, tally, provider).await,
            Some(Running::Child(child)) => stop_child(child, end, tally).await,
            None => {}
        }
    }

    pub(crate) async fn start(&mut self, life: &Life) {
        self.keyed = life.keyed;
        write_keys(&self.keys, "");
        let started = if self.binary { self.start_child(life).await } else { self.start_here(life).await };
        self.running = Some(started);
    }

    /// Changes the file of keys, to one that cannot be used now and then, and has it read again.
    pub(crate) fn reload(&self, chance: &mut Chance, tally: &Tally) {
        let (name, more) = match chance.below(5) {
            0 => ("of a file that cannot be used", "short\n".to_owned()),
            1 => ("without other clients", String::new()),
            _ => ("with another client", format!("other other-client-key-{}\n", chance.draw())),
        };
        write_keys(&self.keys, &more);
        match &self.running {
            Some(Running::Here(_, running)) => running.reload(),
            // Without files to read again the signal would end it.
            Some(Running::Child(child)) if self.keyed => signal(child, "-HUP"),
            _ => return,
        }
        tally.count(if self.keyed { "reloads" } else { "reloads of nothing" }, name);
    }

    /// The variables of a life.
    fn variables(&self, life: &Life) -> Vec<(&'static str, String)> {
        let mut variables: Vec<(&'static str, String)> =
            life.variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        if life.keyed {
            variables.push(("TAILWIRE_CLIENT_KEYS_FILE", self.keys.display().to_string()));
        }
        variables
    }

    /// Sockets it has upstream, and bytes that wait for clients; none of a child can be seen.
    pub(crate) fn held(&self) -> Option<(usize, usize)> {
        match &self.running {
            Some(Running::Here(_, running)) => Some((running.sockets(), running.buffered())),
            _ => None,
        }
    }

    /// The process it runs in, for its memory; none if it is this one.
    pub(crate) fn process(&self) -> Option<u32> {
        match &self.running {
            Some(Running::Child(child)) => Some(child.id()),
            _ => None,
        }
    }

    fn arguments(&self, life: &Life) -> ServeArgs {
        ServeArgs {
            listen: Some(self.addr.to_string()),
            upstream: Some(self.upstream.clone()),
            profile: Some(life.profile.to_owned()),
            ..ServeArgs::default()
        }
    }

    async fn start_here(&mut self, life: &Life) -> Running {
        if self.addr.port() != 0 {
            drop(provider::bind(self.addr).await);
        }
        let variables = self.variables(life).into_iter().map(|(name, value)| (name.into(), value.into()));
        let settings = self.arguments(life).settings(variables).expect("they are right");
        let runtime = runtime("proxy");
        for _ in 0..STARTS {
            let started = runtime.spawn(app::Running::start(settings.clone())).await.expect("no panic");
            if let Ok(running) = started {
                self.addr = running.addr;
                return Running::Here(runtime, running);
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("the proxy cannot bind {}", self.addr);
    }

    async fn start_child(&mut self, life: &Life) -> Running {
        for _ in 0..STARTS {
            let mut command = Command::new(env!("CARGO_BIN_EXE_tailwire"));
            command.args(["serve", "--listen", &self.addr.to_string(), "--upstream", &self.upstream]);
            command.args(["--profile", life.profile, "--log", "error", "--admin", "off"]);
            command.envs(self.variables(life)).stdout(Stdio::piped());
            let mut child = command.spawn().expect("the binary is there");
            let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
            let mut line = String::new();
            let _ = tokio::task::block_in_place(|| stdout.read_line(&mut line));
            if let Some(addr) = line.split_once("http://").and_then(|(_, rest)| rest.split('/').next()) {
                self.addr = addr.parse().expect("an address");
                return Running::Child(child);
            }
            let _ = tokio::task::block_in_place(|| child.wait());
            tokio::time::sleep(PAUSE).await;
        }
        panic!("the binary cannot bind {}", self.addr);
    }
}

async fn stop_here(
    runtime: Runtime,
    running: app::Running,
    end: End,
    tally: &Tally,
    provider: &provider::House,
) {
    let metrics = running.metrics();
    let counters: [(&'static str, &Counter); 7] = [
        ("full, same socket", &metrics.recovered_full_same),
        ("full, new socket", &metrics.recovered_full_new),
        ("http", &metrics.recovered_http),
        ("sockets lost", &metrics.sockets_lost),
        ("sockets retired", &metrics.sockets_retired),
        ("turns abandoned", &metrics.turns_abandoned),
        ("turns lagging", &metrics.turns_lagging),
    ];
    for (name, counter) in counters {
        tally.add("recoveries and ends", name, counter.value());
    }
    if end == End::Drain {
        let drained = tokio::time::timeout(LONGEST_DRAIN, runtime.spawn(running.stop())).await;
        if drained.is_err() {
            tally.fail(LEAKED, "drain without end", "the proxy did not stop within its time");
        }
        if !crate::until(|| provider.sockets() == 0).await {
            let story = format!("{} sockets at the provider after a drain", provider.sockets());
            tally.fail(LEAKED, "sockets", &story);
        }
        if !crate::until(|| runtime.metrics().num_alive_tasks() == 0).await {
            let story = format!("{} tasks after a drain", runtime.metrics().num_alive_tasks());
            tally.fail(LEAKED, "tasks", &story);
        }
    } else {
        drop(running);
    }
    tokio::task::block_in_place(|| runtime.shutdown_timeout(LONGEST_SHUTDOWN));
}

async fn stop_child(mut child: Child, end: End, tally: &Tally) {
    if end == End::Kill {
        let _ = child.kill();
        let _ = tokio::task::block_in_place(|| child.wait());
        return;
    }
    signal(&child, "-TERM");
    let mut status = None;
    let ended = crate::until(|| {
        status = child.try_wait().ok().flatten();
        status.is_some()
    });
    if !ended.await || !status.is_some_and(|status| status.success()) {
        tally.fail(LEAKED, "drain without end", &format!("the binary ended with {status:?}"));
        let _ = child.kill();
    }
}

fn signal(child: &Child, name: &str) {
    let _ = Command::new("kill").args([name, &child.id().to_string()]).status();
}

/// The keys of all our clients, and a line more; whole at any moment.
fn write_keys(path: &Path, more: &str) {
    let mut lines: String =
        (0..CLIENTS).map(|number| format!("client-{number} {}\n", client_key(number))).collect();
    lines.push_str(more);
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, lines).expect("the folder of the tests can be written");
    std::fs::rename(&fresh, path).expect("it was just written");
}

/// What a client presents to the proxy; a proxy without keys takes no notice.
pub(crate) fn client_key(number: usize) -> String {
    format!("soak-client-key-{:04}", number % CLIENTS)
}

/// Keys of clients; fewer than there are agents with one credential.
const CLIENTS: usize = 5;
/// How long a turn's first event is waited for.
pub(crate) const FIRST_EVENT: Duration = Duration::from_secs(15);
const FIRST_EVENT_TEXT: &str = "15s";
/// Turns a proxy takes at once: leaked permits would soon show as refusals.
pub(crate) const TURNS: usize = 512;
const TURNS_TEXT: &str = "512";
const STARTS: usize = 100;
const PAUSE: Duration = Duration::from_millis(50);
/// More than the drain time of every life.
const LONGEST_DRAIN: Duration = Duration::from_secs(120);
const LONGEST_SHUTDOWN: Duration = Duration::from_secs(10);
