//! Worlds at length: a simulated provider, the proxy before it, and many agents, while everything goes wrong that can.
//! `just soak` runs it for minutes or hours; without flags (`cargo test`) it is a short run of a fixed seed, so that it
//! cannot rot.
//!
//! What is judged:
//! - **Wrong contexts.** The digests the provider reports for every completed answer are those of a direct run of the
//!   client's own full request (`judge.rs`); its settings, its credential and what it says are compared as well. The
//!   one thing allowed is the documented one: with `reasoning = "keep"` and a plan of `grade=visible` the context may
//!   hold reasoning that the client left out, and then exactly the reasoning of the chain that was continued.
//! - **Lost turns.** An attempt without an answer is lost unless a direct client would have been without one as well: the
//!   rules are at the head of `excuse.rs`, and what counts as a lost transport at that of `losses.rs`. Everything else is
//!   lost: also an attempt that hangs, a body that breaks off after its response, and a turn that 25 attempts do not answer.
//!   After the chaos every agent has two more turns.
//! - **Leaks.** After every drain, and at the end: sockets at the provider, tasks of either side, bytes waiting for
//!   clients, permits of turns, open file descriptors.
//!
//! Every agent's draws depend on the seed and its number alone; how they interleave depends on the machine. It sleeps
//! where its clients and its outages do; nothing here waits for a time to have an effect.
//!
//! Not here: which rung a fault leads to (`tests/faults`); who is let in with which key (`tests/trust`).

mod agent;
mod chance;
mod chaos;
mod chat;
mod client;
mod excuse;
mod judge;
mod lore;
mod losses;
mod provider;
mod proxy;
mod tally;
mod trouble;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use tailwire::sim::{self, Script};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use agent::Agent;
use chance::Chance;
use lore::Lore;
use proxy::{End, Life, MOST_AGENTS, TURNS};
use tally::{BAD, LEAKED, LOST, Tally};
use trouble::Troubles;

/// A run's measures.
#[derive(Clone, Debug, Parser)]
pub(crate) struct Plan {
    /// Everything drawn comes from it.
    #[arg(long, default_value_t = 20_261_127)]
    pub(crate) seed: u64,
    /// Agents that talk at once.
    #[arg(long, default_value_t = MOST_AGENTS, value_parser = agents)]
    pub(crate) agents: usize,
    /// Ends after so many minutes.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) minutes: f64,
    /// Ends after so many turns, if that comes first.
    #[arg(long, default_value_t = u64::MAX)]
    pub(crate) turns: u64,
    /// Lost turns that do not fail the run: for machines so starved that a time-out cannot be told from a loss. They are
    /// printed all the same; a wrong context or a leak always fails it.
    #[arg(long, default_value_t = 0)]
    pub(crate) lost_at_most: u64,
    /// The proxy is the real binary, as a child.
    #[arg(long)]
    pub(crate) binary: bool,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) tally: Tally,
    pub(crate) troubles: Troubles,
    pub(crate) lore: Lore,
    pub(crate) provider: provider::House,
    pub(crate) proxy: Mutex<proxy::House>,
    /// Sees every request in full, over HTTP, with nothing in between.
    pub(crate) reference: sim::Running,
    port: AtomicU16,
    /// The proxy's life is one with `reasoning = "strict"`.
    strict: AtomicBool,
    began: Instant,
}

impl World {
    async fn open(plan: Plan) -> Self {
        let provider = provider::House::open(Script { deflate: true, ..Script::default() }).await;
        let upstream = format!("http://{}/v1", provider.addr);
        let life = Life::draw(&mut Chance::new(plan.seed, 8_888_888));
        let proxy = proxy::House::open(upstream, plan.binary, &life).await;
        Self {
            tally: Tally::default(),
            troubles: Troubles::default(),
            lore: Lore::default(),
            port: AtomicU16::new(proxy.addr.port()),
            strict: AtomicBool::new(life.is_strict()),
            proxy: Mutex::new(proxy),
            reference: sim::Running::start(Script::default()).await.expect("a free port"),
            provider,
            plan,
            began: Instant::now(),
        }
    }

    pub(crate) fn proxy_addr(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port.load(Ordering::Relaxed)).into()
    }

    pub(crate) fn lives(&self, life: &Life) {
        self.strict.store(life.is_strict(), Ordering::Relaxed);
    }

    pub(crate) fn is_strict(&self) -> bool {
        self.strict.load(Ordering::Relaxed)
    }

    pub(crate) fn is_over(&self) -> bool {
        let minutes = self.began.elapsed().as_secs_f64() / 60.0;
        self.tally.turns() >= self.plan.turns || minutes >= self.plan.minutes
    }
}

fn main() -> ExitCode {
    let Some(plan) = plan() else { return ExitCode::SUCCESS };
    println!(
        "soak: seed {}, {} agents, {} minutes{}",
        plan.seed,
        plan.agents,
        plan.minutes,
        if plan.binary { ", the real binary" } else { "" }
    );
    let runtime = provider::runtime("agents");
    let (before, lost_at_most) = (descriptors(), plan.lost_at_most);
    let tally = runtime.block_on(async { tokio::spawn(soak(plan)).await.expect("the soak does not panic") });
    let after = settled(before);
    println!("file descriptors            {before} before, {after} after");
    if after > before {
        tally.fail(LEAKED, "descriptors", &format!("{after} open, {before} before"));
    }
    let bad: Vec<String> = BAD.iter().map(|heading| format!("{} {heading}", tally.total(heading))).collect();
    println!("soak: {}", bad.join(", "));
    let allowed = |heading: &str| if heading == LOST { lost_at_most } else { 0 };
    let good = BAD.iter().all(|heading| tally.total(heading) <= allowed(heading));
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The flags; without any of ours this is one test among others, which a filter may leave out.
fn plan() -> Option<Plan> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|given| given == "--seed" || given == "--minutes" || given == "--soak") {
        let own = arguments.into_iter().filter(|given| given != "--soak");
        return Some(Plan::parse_from(std::iter::once("soak".to_owned()).chain(own)));
    }
    let filters: Vec<&String> = arguments.iter().filter(|given| !given.starts_with('-')).collect();
    let listed = arguments.iter().any(|given| given == "--list");
    let wanted = filters.is_empty() || filters.iter().any(|filter| "soak".contains(&***filter));
    let short = Plan { seed: 7, agents: 8, minutes: 1.0, turns: 120, lost_at_most: 0, binary: false };
    (wanted && !listed).then_some(short)
}

async fn soak(plan: Plan) -> Tally {
    let world = Arc::new(World::open(plan).await);
    let idle_tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    println!("memory                      {}", memory(&world).await);
    let chaos = tokio::spawn(chaos::run(world.clone()));
    let watch = tokio::spawn(watch(world.clone()));
    let stalls = tokio::spawn(stalls(world.clone()));
    let mut agents = JoinSet::new();
    for number in 0..world.plan.agents {
        agents.spawn(Agent::new(world.clone(), number).run());
    }
    while let Some(ended) = agents.join_next().await {
        ended.expect("an agent does not panic");
    }
    chaos.await.expect("the chaos does not panic");
    for number in 0..world.plan.agents {
        agents.spawn(Agent::new(world.clone(), 1000 + number).calm());
    }
    while let Some(ended) = agents.join_next().await {
        ended.expect("an agent does not panic");
    }
    for watcher in [watch, stalls] {
        watcher.abort();
        let _ = watcher.await;
    }
    let took = world.began.elapsed();
    println!("memory                      {}", memory(&world).await);
    quiet(&world).await;
    let left = |what: &str, number: usize| world.tally.fail(LEAKED, "tasks", &format!("{number} {what}"));
    let handle = tokio::runtime::Handle::current();
    if !until(|| handle.metrics().num_alive_tasks() <= idle_tasks).await {
        left("tasks of the agents and the reference", handle.metrics().num_alive_tasks() - idle_tasks);
    }
    let world = Arc::into_inner(world).expect("all that held it have ended");
    let World { tally, provider, reference, .. } = world;
    if !provider.close(&tally).await {
        tally.fail(LEAKED, "tasks", "the provider's did not end");
    }
    reference.stop().await.expect("the reference does not panic");
    println!("{}", tally.table(took));
    tally
}

/// Nobody talks any more: what is left is what leaked.
async fn quiet(world: &World) {
    let leaked = |name: &str, story: String| world.tally.fail(LEAKED, name, &story);
    if !until(|| world.provider.running() == 0).await {
        leaked("turns", format!("{} turns are still generated", world.provider.running()));
    }
    let mut proxy = world.proxy.lock().await;
    let buffered = || proxy.held().map_or(0, |(_, buffered)| buffered);
    if !until(|| buffered() == 0).await {
        leaked("bytes", format!("{} bytes wait for clients", buffered()));
    }
    let same = || proxy.held().is_none_or(|(sockets, _)| sockets == world.provider.sockets());
    if !until(same).await {
        let (here, there) = (proxy.held(), world.provider.sockets());
        leaked("sockets", format!("{here:?} sockets at the proxy, {there} at the provider"));
    }
    let refused = refused_at_the_brim(world.proxy_addr()).await;
    if refused != 1 {
        leaked("permits", format!("{refused} of {} turns at once are refused, not 1", TURNS + 1));
    }
    proxy.stop(End::Drain, &world.tally, &world.provider).await;
}

/// One turn more than the proxy takes at once, none of which ever says all of its body; how many are refused.
async fn refused_at_the_brim(addr: SocketAddr) -> usize {
    let mut streams = Vec::new();
    for _ in 0..=TURNS {
        let mut stream = TcpStream::connect(addr).await.expect("the proxy listens");
        let head = format!(
            "POST /v1/responses HTTP/1.1\r\nhost: h\r\nauthorization: Bearer brim\r\nx-tailwire-key: {}\r\ncontent-length: 99\r\n\r\n{{",
            proxy::client_key(0)
        );
        stream.write_all(head.as_bytes()).await.expect("the proxy reads");
        streams.push(stream);
    }
    let mut answers = JoinSet::new();
    for mut stream in streams {
        answers.spawn(async move {
            let mut first = [0; 12];
            stream.read_exact(&mut first).await.is_ok() && first.ends_with(b"503")
        });
    }
    // The one refusal is waited for; if there are more, they are on their way together with it.
    let mut refused = 0;
    let mut patience = REFUSED_WITHIN;
    while let Ok(Some(answer)) = tokio::time::timeout(patience, answers.join_next()).await {
        if answer.unwrap_or_default() {
            refused += 1;
            patience = REFUSED_TOGETHER;
        }
    }
    refused
}

/// A sign of life each minute.
async fn watch(world: Arc<World>) {
    loop {
        tokio::time::sleep(Duration::from_secs(60)).await;
        let bad: Vec<String> =
            BAD.iter().map(|heading| format!("{} {heading}", world.tally.total(heading))).collect();
        let (seconds, turns) = (world.began.elapsed().as_secs(), world.tally.turns());
        println!("{seconds:>6} s {turns:>8} turns, {}; memory {}", bad.join(", "), memory(&world).await);
    }
}

/// How far the machine is behind: a time-out that is lost to a stall as long as itself says nothing about the proxy. Excuses
/// nothing; it is there to be read beside what was lost.
async fn stalls(world: Arc<World>) {
    loop {
        let due = Instant::now() + TICK;
        tokio::time::sleep(TICK).await;
        let late = due.elapsed();
        if late >= STALL {
            world.tally.count("stalls of the machine", format!("{} s", late.as_secs()));
        }
    }
}

async fn memory(world: &World) -> String {
    let mut told = resident("self");
    if let Some(child) = world.proxy.lock().await.process() {
        told = format!("{told}, the proxy's own {}", resident(&child.to_string()));
    }
    told
}

fn resident(process: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.map_or_else(|| "unknown".to_owned(), |line| line.trim().to_owned())
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Open descriptors when they are as few as before, or have been more for too long: a runtime's last threads may still be
/// closing theirs.
fn settled(before: usize) -> usize {
    for _ in 0..PATIENCE_TICKS {
        if descriptors() <= before {
            break;
        }
        std::thread::sleep(TICK);
    }
    descriptors()
}

fn agents(text: &str) -> Result<usize, String> {
    let number = text.parse().map_err(|error| format!("{error}"))?;
    (1..=MOST_AGENTS).contains(&number).then_some(number).ok_or_else(|| format!("1 to {MOST_AGENTS}"))
}

/// A task that wakes so late is starved.
const STALL: Duration = Duration::from_secs(1);
/// How long the one refusal at the brim is waited for.
const REFUSED_WITHIN: Duration = Duration::from_secs(60);
const REFUSED_TOGETHER: Duration = Duration::from_secs(2);

/// Waits for a condition that nobody signals; false if it does not come about.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) -> bool {
    for _ in 0..PATIENCE_TICKS {
        if condition() {
            return true;
        }
        tokio::time::sleep(TICK).await;
    }
    false
}

/// A minute and a half: a drain in full, on a slow machine.
const PATIENCE_TICKS: usize = 9000;
const TICK: Duration = Duration::from_millis(10);
