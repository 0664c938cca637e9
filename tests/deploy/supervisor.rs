//! A service manager in miniature: starts the real binary as systemd would, hands it sockets, hears its notices.
//!
//! A shell in between names its own process id and becomes the program: what `systemd-socket-activate` does.

use std::fs::{DirEntry, read_link};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Where a manager listens for notices.
pub(crate) struct Manager {
    socket: UnixDatagram,
    address: String,
}

impl Manager {
    /// In the abstract space, where nothing has to be cleaned up.
    pub(crate) fn abstractly() -> Self {
        let name = format!("tailwire-deploy-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let address = UnixAddr::from_abstract_name(&name).unwrap();
        Self { socket: UnixDatagram::bind_addr(&address).unwrap(), address: format!("@{name}") }.patient()
    }

    /// At a path, as systemd does it.
    pub(crate) fn at(path: &std::path::Path) -> Self {
        let _ = std::fs::remove_file(path);
        Self { socket: UnixDatagram::bind(path).unwrap(), address: path.to_str().unwrap().to_owned() }
            .patient()
    }

    fn patient(self) -> Self {
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        self
    }

    /// The next notice that begins with `beginning`, whole.
    pub(crate) fn wait(&self, beginning: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            let length =
                self.socket.recv(&mut buffer).unwrap_or_else(|error| panic!("no {beginning}: {error}"));
            let notice = std::str::from_utf8(&buffer[..length]).unwrap();
            if notice.starts_with(beginning) {
                return notice.to_owned();
            }
        }
    }

    /// Waits until clients can connect; where.
    pub(crate) fn wait_ready(&self) -> SocketAddr {
        let notice = self.wait("READY=1\n");
        let (_, url) = notice.split_once("STATUS=listening on http://").expect("a status with an address");
        url.split_once("/v1 -> ").expect("a base URL").0.parse().unwrap()
    }
}

/// The program as a service.
pub(crate) struct Service(Option<Child>);

impl Service {
    /// Starts it with these arguments and variables, and `sockets` as file descriptors from 3 on.
    pub(crate) fn start(
        arguments: &[&str],
        variables: &[(&str, &str)],
        manager: Option<&Manager>,
        socket: Option<OwnedFd>,
    ) -> Self {
        let mut command = match &socket {
            None => Command::new(env!("CARGO_BIN_EXE_tailwire")),
            Some(_) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", BECOME, env!("CARGO_BIN_EXE_tailwire")]);
                shell
            }
        };
        command.env_clear().args(arguments).envs(variables.iter().copied());
        command.stdin(socket.map_or_else(Stdio::null, Stdio::from));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(manager) = manager {
            command.env("NOTIFY_SOCKET", &manager.address);
        }
        Self(Some(command.spawn().unwrap()))
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.0.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Waits until it has let go of its copy of the listener: nobody who comes now comes to it.
    pub(crate) fn wait_deaf(&self, listener: &TcpListener) {
        let socket = read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        let held = format!("/proc/{}/fd", self.0.as_ref().unwrap().id());
        let deadline = Instant::now() + PATIENCE;
        let holds = |entry: std::io::Result<DirEntry>| {
            entry.is_ok_and(|entry| read_link(entry.path()).ok() == Some(socket.clone()))
        };
        while std::fs::read_dir(&held).unwrap().any(holds) {
            assert!(Instant::now() < deadline, "it listens on");
            std::thread::yield_now();
        }
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A copy of the listener to hand over; the manager keeps its own.
pub(crate) fn copy(listener: &TcpListener) -> OwnedFd {
    listener.try_clone().unwrap().into()
}

static NEXT: AtomicU32 = AtomicU32::new(0);
const PATIENCE: Duration = Duration::from_secs(60);
/// `SOCKETS` copies of standard input; a `LISTEN_PID` that was set beforehand stays.
const BECOME: &str = r#"exec 3<&0
test "${SOCKETS-1}" = 1 || exec 4<&0
export LISTEN_FDS="${SOCKETS-1}" LISTEN_PID="${LISTEN_PID-$$}"
unset SOCKETS
exec "$0" "$@" </dev/null"#;
