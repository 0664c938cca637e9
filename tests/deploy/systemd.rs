//! sd_notify, the watchdog and socket activation, by a service manager in miniature against the real binary.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tailwire::sim::script::Script;

use super::http::Client;
use super::supervisor::{Manager, Service, copy};

/// Where nothing listens: nothing here goes up but what a test says.
const NOWHERE: &str = "http://127.0.0.1:9/v1";

#[test]
fn a_service_manager_hears_ready_alive_and_stopping() {
    let path = std::env::temp_dir().join(format!("tailwire-notify-{}", std::process::id()));
    for manager in [Manager::abstractly(), Manager::at(&path)] {
        let arguments = ["--listen", "127.0.0.1:0", "--upstream", NOWHERE];
        let service = Service::start(&arguments, &[("WATCHDOG_USEC", "40000")], Some(&manager), None);
        let address = manager.wait_ready();
        TcpStream::connect(address).expect("ready means that clients can connect");
        for _ in 0..3 {
            assert_eq!(manager.wait("WATCHDOG"), "WATCHDOG=1");
        }
        // Asked to reload, with nothing there to be read again, a service goes on. Were it to end by this signal, it would
        // not drain on the next.
        service.signal("-HUP");
        service.signal("-TERM");
        let notice = manager.wait("STOPPING=1\n");
        assert!(notice.contains("\nEXTEND_TIMEOUT_USEC=40000000\n"), "drain 30 s and 10 s more: {notice}");
        let output = service.end();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    std::fs::remove_file(path).unwrap();
}

/// The promise of the `.socket` unit: while one program drains and the next starts, clients wait in the socket's queue.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_behind_a_handed_over_socket_loses_no_turn() {
    let provider = TcpListener::bind("127.0.0.1:0").unwrap();
    provider.set_nonblocking(true).unwrap();
    let upstream = format!("http://{}/v1", provider.local_addr().unwrap());
    let simulated = tailwire::sim::Provider::new(Script::default());
    let provider = tokio::net::TcpListener::from_std(provider).unwrap();
    tokio::spawn(tailwire::sim::serve(provider, simulated, std::future::pending()));

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let arguments = ["--listen", "127.0.0.1:1", "--upstream", &upstream];
    let manager = Manager::abstractly();
    let old = Service::start(&arguments, &[], Some(&manager), Some(copy(&listener)));
    assert_eq!(manager.wait_ready(), address, "the socket handed over, not `listen`");
    let mut under_way = Turn::begin(address);
    under_way.say_half();
    under_way.wait_taken();

    old.signal("-TERM");
    manager.wait("STOPPING=1\n");
    old.wait_deaf(&listener);
    let mut waiting = Turn::begin(address);
    waiting.say_half();
    waiting.say_rest();
    under_way.say_rest();
    assert!(under_way.answer().starts_with("HTTP/1.1 200 "), "what was under way ends in the old program");
    assert_eq!(old.end().status.code(), Some(0));

    let new = Service::start(&arguments, &[], Some(&manager), Some(copy(&listener)));
    assert_eq!(manager.wait_ready(), address);
    assert!(waiting.answer().starts_with("HTTP/1.1 200 "), "who came meanwhile is served by the new one");
    let reply = Client::new(address).ask(&json!({"model": "m", "input": "later"})).await;
    assert_eq!(reply.status, 200);
    new.signal("-TERM");
    assert_eq!(new.end().status.code(), Some(0));
}

#[test]
fn what_cannot_be_served_is_refused_and_said() {
    let local = || copy(&TcpListener::bind("127.0.0.1:0").unwrap());
    let remote = || copy(&TcpListener::bind("0.0.0.0:0").unwrap());
    let connected = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        OwnedFd::from(TcpStream::connect(listener.local_addr().unwrap()).unwrap())
    };
    let file =
        || OwnedFd::from(File::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap());
    let datagrams = || OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    for (socket, variables, complaint) in [
        (local(), [("SOCKETS", "2")], "handed over 2 sockets; one is expected"),
        (local(), [("SOCKETS", "many")], "malformed socket activation environment"),
        (file(), [("SOCKETS", "1")], "no listening TCP socket"),
        (datagrams(), [("SOCKETS", "1")], "no listening TCP socket"),
        (connected(), [("SOCKETS", "1")], "no listening TCP socket"),
        (remote(), [("SOCKETS", "1")], "set `listen` to it too"),
    ] {
        let output = Service::start(&["--upstream", NOWHERE], &variables, None, Some(socket)).end();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "{complaint}: {stderr}");
        assert!(stderr.contains(complaint), "{complaint}: {stderr}");
        assert!(output.stdout.is_empty());
    }
}

/// A parent's variables, inherited by mistake, are not about this process.
#[test]
fn a_socket_for_another_process_is_not_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let manager = Manager::abstractly();
    let arguments = ["--listen", "127.0.0.1:0", "--upstream", NOWHERE];
    let service = Service::start(&arguments, &[("LISTEN_PID", "1")], Some(&manager), Some(copy(&listener)));
    assert_ne!(manager.wait_ready(), listener.local_addr().unwrap());
    service.signal("-TERM");
    assert_eq!(service.end().status.code(), Some(0));
}

/// A turn said in two halves, so that it is under way for as long as a test wants.
struct Turn {
    stream: TcpStream,
    body: String,
}

impl Turn {
    fn begin(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let body = json!({"model": "m", "input": "hello"}).to_string();
        let head = format!(
            "POST /v1/responses HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer sk-planted-a\r\n\
             content-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        Self { stream, body }
    }

    fn say_half(&mut self) {
        self.stream.write_all(&self.body.as_bytes()[..10]).unwrap();
    }

    fn say_rest(&mut self) {
        self.stream.write_all(&self.body.as_bytes()[10..]).unwrap();
    }

    /// Waits until somebody has read the head and wants the body.
    fn wait_taken(&mut self) {
        let mut interim = [0; CONTINUE.len()];
        self.stream.read_exact(&mut interim).unwrap();
        assert_eq!(interim, CONTINUE.as_bytes());
    }

    /// All that is answered, an interim answer aside.
    fn answer(mut self) -> String {
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).unwrap();
        answer.trim_start_matches(CONTINUE).to_owned()
    }
}

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
