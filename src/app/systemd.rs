//! What a service manager gives us and hears of us: sockets handed over (sd_listen_fds(3)), and notices of being ready, alive
//! and on the way out (sd_notify(3)). Says nothing where nobody asked for it.
//!
//! Reads the environment and never changes it. Opens no socket for clients, decides nothing about when to start or stop.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::Settings;

/// The service manager, if there is one that listens.
#[derive(Debug)]
pub(super) struct Supervisor {
    line: Option<Line>,
    /// How long it waits for a sign of life before it ends us.
    patience: Option<Duration>,
}

impl Supervisor {
    /// The one that `NOTIFY_SOCKET` and `WATCHDOG_USEC` tell of. A socket that cannot be used is reported in the log: the
    /// manager will give up on us, and that line says why.
    pub(super) fn from_environment() -> Self {
        let variable = |name| std::env::var_os(name).filter(|text| !text.is_empty());
        let line = variable("NOTIFY_SOCKET").and_then(|address| match Line::open(&address) {
            Ok(line) => Some(line),
            Err(error) => {
                tracing::warn!(%error, "the service manager's NOTIFY_SOCKET cannot be used");
                None
            }
        });
        let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
        let ours =
            variable("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(std::process::id().into());
        let patience = number("WATCHDOG_USEC").filter(|span| ours && *span > 0).map(Duration::from_micros);
        Self { line, patience }
    }

    /// Whether anybody hears.
    pub(super) fn listens(&self) -> bool {
        self.line.is_some()
    }

    /// Clients can connect.
    pub(super) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// No more clients; what is under way may take `drain`. The manager is asked for that long, whatever its own limit.
    pub(super) fn stopping(&self, drain: Duration) {
        let span = (drain + AFTER_DRAIN).as_micros();
        self.tell(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={span}\nSTATUS=draining"));
    }

    /// Gives a sign of life at every half of the watchdog's patience, each after `works` came back: it runs on the runtime
    /// that serves the turns, and should touch what every turn needs, so that a program that hangs falls silent.
    pub(super) fn reassure(self: Arc<Self>, works: impl Fn() + Send + 'static) -> JoinHandle<()> {
        tokio::spawn(async move {
            let (Some(_), Some(patience)) = (&self.line, self.patience) else { return };
            let mut beats = interval((patience / 2).max(SHORTEST_BEAT));
            beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                beats.tick().await;
                works();
                self.tell("WATCHDOG=1");
            }
        })
    }

    fn tell(&self, message: &str) {
        let Some(line) = &self.line else { return };
        if let Err(error) = line.send(message) {
            tracing::warn!(%error, "the service manager was not told");
        }
    }
}

/// The socket that a service manager handed over instead of having us bind one, if it did (`LISTEN_FDS`, `LISTEN_PID`).
///
/// # Errors
/// There are several, it is no listening TCP socket, or other machines can reach it while `settings.listen` is on loopback: then
/// nothing has checked who may come in.
#[cfg(target_os = "linux")]
pub(super) fn handed_over(settings: &Settings) -> io::Result<Option<TcpListener>> {
    let refuse = |message: String| io::Error::new(io::ErrorKind::InvalidInput, message);
    let mut given =
        sd_listen_fds::get().map_err(|error| refuse(format!("LISTEN_FDS or LISTEN_PID: {error}")))?;
    let Some((_, socket)) = given.pop() else { return Ok(None) };
    if !given.is_empty() {
        let count = given.len() + 1;
        return Err(refuse(format!("the service manager handed over {count} sockets; one is expected")));
    }
    let socket = socket2::Socket::from(socket.into_std());
    let address = socket.local_addr().ok().and_then(|address| address.as_socket());
    let (Some(address), Ok(true)) = (address, socket.is_listener()) else {
        return Err(refuse("what the service manager handed over is no listening TCP socket".into()));
    };
    if !address.ip().is_loopback() && settings.listen.is_local() {
        return Err(refuse(format!(
            "other machines can reach {address}, which the service manager handed over; set `listen` to it too, so that its \
             rules are checked"
        )));
    }
    socket.set_cloexec(true)?;
    socket.set_nonblocking(true)?;
    Ok(Some(socket.into()))
}

/// Elsewhere nobody hands over sockets in this way.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub(super) fn handed_over(_settings: &Settings) -> io::Result<Option<TcpListener>> {
    Ok(None)
}

/// A way to the service manager.
#[cfg(unix)]
#[derive(Debug)]
struct Line(std::os::unix::net::UnixDatagram);

#[cfg(unix)]
impl Line {
    /// A path, or a name in Linux's abstract space if it begins with `@`.
    fn open(address: &std::ffi::OsStr) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixDatagram::unbound()?;
        // A manager that reads nothing must not stop a turn.
        socket.set_write_timeout(Some(LONGEST_WRITE))?;
        #[cfg(target_os = "linux")]
        if let Some(name) = std::os::unix::ffi::OsStrExt::as_bytes(address).strip_prefix(b"@") {
            use std::os::linux::net::SocketAddrExt;
            socket.connect_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)?;
            return Ok(Self(socket));
        }
        socket.connect(address)?;
        Ok(Self(socket))
    }

    fn send(&self, message: &str) -> io::Result<()> {
        self.0.send(message.as_bytes()).map(drop)
    }
}

/// No such thing here.
#[cfg(not(unix))]
#[derive(Debug)]
struct Line;

#[cfg(not(unix))]
impl Line {
    fn open(_address: &std::ffi::OsStr) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn send(&self, _message: &str) -> io::Result<()> {
        Ok(())
    }
}

/// What comes after the drain: cut connections, close sockets, exit.
const AFTER_DRAIN: Duration = Duration::from_secs(10);
/// A watchdog of less than this would be about nothing but load.
const SHORTEST_BEAT: Duration = Duration::from_millis(10);
const LONGEST_WRITE: Duration = Duration::from_secs(1);

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::sync::{Mutex, mpsc};

    use super::*;

    /// A supervisor with this patience, and what it hears.
    fn supervised(patience: Option<Duration>) -> (Arc<Supervisor>, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        (Arc::new(Supervisor { line: Some(Line(ours)), patience }), theirs)
    }

    fn heard(manager: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 256];
        let message = |length: usize, buffer: &[u8]| String::from_utf8(buffer[..length].to_vec()).unwrap();
        std::iter::from_fn(|| manager.recv(&mut buffer).ok().map(|length| message(length, &buffer))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn signs_of_life_come_at_every_half_of_the_patience() {
        let (supervisor, manager) = supervised(Some(Duration::from_secs(30)));
        let alive = supervisor.reassure(|| ());
        tokio::time::sleep(Duration::from_millis(60_500)).await;
        assert_eq!(heard(&manager), ["WATCHDOG=1"; 5], "at 0, 15, 30, 45 and 60 s");
        alive.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_watchdog_there_are_none() {
        let (supervisor, manager) = supervised(None);
        supervisor.clone().reassure(|| ()).await.unwrap();
        assert!(heard(&manager).is_empty());
        supervisor.stopping(Duration::from_secs(30));
        assert_eq!(heard(&manager), ["STOPPING=1\nEXTEND_TIMEOUT_USEC=40000000\nSTATUS=draining"]);
    }

    /// What a turn needs is stuck: the beat waits with it, and the manager sees to the rest.
    #[test]
    fn a_program_that_hangs_falls_silent() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let (supervisor, manager) = supervised(Some(Duration::from_millis(20)));
        let needed = Arc::new(Mutex::new(()));
        let stuck = needed.lock().unwrap();
        let (entered, at) = mpsc::sync_channel(1);
        let lock = needed.clone();
        let _alive = runtime.enter();
        let alive = supervisor.reassure(move || {
            let _ = entered.try_send(());
            drop(lock.lock().unwrap());
        });
        at.recv_timeout(Duration::from_secs(60)).expect("the first beat");
        assert!(heard(&manager).is_empty(), "silent while it is stuck");
        drop(stuck);
        manager.set_nonblocking(false).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut buffer = [0; 16];
        let length = manager.recv(&mut buffer).expect("a sign of life once it goes on");
        assert_eq!(&buffer[..length], b"WATCHDOG=1");
        alive.abort();
    }
}
