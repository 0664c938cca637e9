//! The real binary as a child process before a provider in this one, and what the child weighs.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tailwire::sim::{Running, Script};
use tokio::time::sleep;

/// Resident memory in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weighed {
    pub(crate) before: u64,
    pub(crate) peak: u64,
    pub(crate) after: u64,
    /// From the load's end until no more than [`FLOOR`] is held beyond what was before; none if that never came.
    pub(crate) back: Option<Duration>,
}

/// What may stay for good, in KiB: threads' stacks and caches, code that was first used under load.
const FLOOR: u64 = 16 << 10;
/// How long the way back may take.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct House {
    pub(crate) sim: Running,
    pub(crate) addr: SocketAddr,
    child: Child,
    before: u64,
    started: Instant,
}

/// The build that is weighed, and what the system allows.
pub(crate) fn describe() -> String {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default();
    let files = files.split_whitespace().next().unwrap_or("?");
    format!("{}; ulimit -n is {files}, of which 1,000 readers need about 3,000", binary().display())
}

fn binary() -> PathBuf {
    std::env::var_os("TAILWIRE_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_tailwire").into(), PathBuf::from)
}

impl House {
    /// A proxy at its defaults but for these variables (`LIMITS_BODY`, say), weighed once it has served a turn.
    pub(crate) async fn start(script: Script, settings: &[(&str, &str)]) -> Self {
        let sim = Running::start(script).await.expect("a port for the provider");
        let mut command = Command::new(binary());
        command.args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "off",
            "--profile",
            "openai",
            "--log",
            "error",
        ]);
        command.args(["--upstream", &sim.base_url()]).env_clear().stdout(Stdio::piped());
        command.envs(settings.iter().map(|(name, value)| (format!("TAILWIRE_{name}"), *value)));
        let mut child = command.spawn().expect("the binary is built");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it says where it listens");
        let addr = line.split_once("http://").and_then(|(_, rest)| rest.split_once("/v1"));
        let addr = addr.and_then(|(addr, _)| addr.parse().ok()).expect("an address");
        let mut house = Self { sim, addr, child, before: 0, started: Instant::now() };
        let warm = crate::client::post(addr, "warm", r#"{"model":"m","input":"hi [sim text=20]"}"#).await;
        assert_eq!(warm.status, 200, "{warm:?}");
        house.before = house.settled().await;
        house.started = Instant::now();
        house
    }

    /// Resident memory now, in KiB.
    pub(crate) fn weight(&self) -> u64 {
        self.read("VmRSS:")
    }

    /// Waits until the weight no longer changes, for half a minute at most.
    pub(crate) async fn settled(&self) -> u64 {
        let (mut last, mut same) = (self.weight(), 0);
        for _ in 0..120 {
            sleep(Duration::from_millis(250)).await;
            let now = self.weight();
            same = if now.abs_diff(last) <= last / 200 { same + 1 } else { 0 };
            last = now;
            if same == 12 {
                break;
            }
        }
        last
    }

    /// Bytes the provider has read.
    pub(crate) fn heard(&self) -> u64 {
        self.sim.provider.ledger().read(|book| book.traffic().0)
    }

    /// Waits for a condition, for a minute at most.
    pub(crate) async fn until(&self, about: &str, condition: impl Fn() -> bool) {
        for _ in 0..6000 {
            if condition() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("{about}: not in time");
    }

    /// Waits until the provider writes no more, for a minute at most.
    pub(crate) async fn standstill(&self) {
        let written = || self.sim.provider.ledger().read(|book| book.traffic().1);
        let (mut last, mut same) = (written(), 0);
        for _ in 0..240 {
            sleep(Duration::from_millis(250)).await;
            same = if written() == last { same + 1 } else { 0 };
            last = written();
            if same == 8 {
                break;
            }
        }
    }

    /// All three figures; the last once everything the load held has gone.
    pub(crate) async fn weigh(&self) -> (Weighed, Duration) {
        let (took, ended) = (self.started.elapsed(), Instant::now());
        let mut back = None;
        while back.is_none() && ended.elapsed() < PATIENCE {
            sleep(Duration::from_millis(50)).await;
            back = (self.weight() <= self.before + FLOOR).then(|| ended.elapsed());
        }
        let after = self.settled().await;
        (Weighed { before: self.before, peak: self.read("VmHWM:"), after, back }, took)
    }

    fn read(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let value = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
        value.trim().trim_end_matches(" kB").parse().expect("the process is there, on Linux")
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
