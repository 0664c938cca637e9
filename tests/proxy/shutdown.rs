//! Beginning and end: one line, an orderly drain, and the right exit code. Bad usage and bad settings are
//! `tests/cli.rs`'s.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Method;
use serde_json::{Value, json};
use tailwire::sim::{Fault, Mishap, Moment, Script};
use tailwire::{app, sim};
use tokio::net::{TcpListener, TcpStream};

use crate::http::Client;
use crate::world::{World, settings_for};

fn streamed() -> Value {
    json!({"model": "m", "input": "hi [sim text=100]", "stream": true})
}

#[tokio::test]
async fn f81_a_drain_lets_running_turns_end() {
    let world = World::plain().await;
    world.slow();
    let turns = [true, false].map(|stream| {
        let client = world.proxied();
        let mut body = streamed();
        body["stream"] = stream.into();
        tokio::spawn(async move { client.ask(&body).await })
    });
    world.in_flight(2).await;
    let World { sim, proxy } = world;
    let addr = proxy.addr;
    let stopping = tokio::spawn(proxy.stop());
    // The listener goes first.
    while TcpStream::connect(addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!stopping.is_finished());
    sim.provider.script(|script| script.speed = 0.0);
    for turn in turns {
        assert_eq!(turn.await.unwrap().response()["status"], "completed");
    }
    stopping.await.unwrap();
    assert!(sim.provider.ledger().wait(|book| book.sockets_open == 0).await);
}

#[tokio::test]
async fn a_drain_has_an_end() {
    let world = World::start(|settings| settings.timeouts.drain = Duration::from_millis(50), |_| ()).await;
    world.sim.provider.mishap(Mishap::new(Moment::AfterCreated, Fault::Silence));
    let answer = world.proxied().open(Method::POST, "/v1/responses", streamed().to_string().into()).await;
    assert_eq!(answer.status(), 200);
    world.proxy.stop().await;
    assert!(answer.into_body().collect().await.is_err(), "a cut stream does not look whole");
    assert!(world.sim.provider.ledger().wait(|book| book.sockets_open == 0).await);
}

#[tokio::test]
async fn an_upstream_that_is_away_is_a_502_until_it_is_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    drop(listener);
    let mut settings = settings_for(&format!("http://{upstream}/v1"));
    settings.timeouts.backoff_min = Duration::from_millis(1);
    settings.timeouts.backoff_max = Duration::from_millis(1);
    let proxy = app::Running::start(settings).await.unwrap();
    let client = Client::new(proxy.addr);
    for stream in [false, true] {
        let reply = client.ask(&json!({"model": "m", "input": "hi", "stream": stream})).await;
        assert_eq!(reply.status, 502);
        assert_eq!(reply.json()["error"]["code"], "tailwire_upstream_unreachable");
        assert_eq!(reply.json()["error"]["type"], "server_error");
        assert_eq!(reply.told().plan(), ("http", "no-socket"));
    }
    assert_eq!(client.get("/v1/models").await.status, 502);
    let back = TcpListener::bind(upstream).await.unwrap();
    let provider =
        tokio::spawn(sim::serve(back, sim::Provider::new(Script::default()), std::future::pending()));
    // Over HTTP at once, and over a socket as soon as one could be had in the background.
    let mut plan = String::new();
    while plan != "full" {
        let reply = client.ask(&json!({"model": "m", "input": "hi"})).await;
        assert_eq!(reply.status, 200);
        plan = reply.told().plan;
    }
    provider.abort();
    proxy.stop().await;
}

/// The real binary, killed if a test leaves it behind.
struct Binary {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Binary {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailwire"));
        command
            .args(arguments)
            .env_clear()
            .env("TAILWIRE_ADMIN_LISTEN", "off")
            .current_dir(env!("CARGO_TARGET_TMPDIR"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// Its first line, and the address in it.
    fn line(&mut self) -> (String, SocketAddr) {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        let addr =
            line.split("http://").nth(1).and_then(|rest| rest.split("/v1").next()).expect("an address");
        (line.clone(), addr.parse().unwrap())
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// What else it said, and how it ended.
    async fn end(mut self) -> (String, Option<i32>) {
        let end = tokio::task::spawn_blocking(move || {
            let mut rest = String::new();
            self.out.read_to_string(&mut rest).unwrap();
            (rest, self.child.wait().unwrap().code())
        });
        end.await.unwrap()
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        // Already over in a test that passes.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_command_says_one_line_and_drains_on_sigterm() {
    let world = World::plain().await;
    for signal in ["-TERM", "-INT"] {
        let upstream = world.sim.base_url();
        let mut binary = Binary::start(&["serve", "--listen", "127.0.0.1:0", "--upstream", &upstream]);
        let (line, addr) = binary.line();
        assert_eq!(line, format!("tailwire listening on http://{addr}/v1 -> {upstream}\n"));
        world.slow();
        let turn = tokio::spawn(async move { Client::new(addr).ask(&streamed()).await });
        world.in_flight(1).await;
        binary.signal(signal);
        while TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
        world.fast();
        assert_eq!(turn.await.unwrap().response()["status"], "completed");
        assert_eq!(binary.end().await, (String::new(), Some(0)), "{signal}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let world = World::plain().await;
    world.sim.provider.mishap(Mishap::new(Moment::AfterCreated, Fault::Silence));
    let upstream = world.sim.base_url();
    let mut binary = Binary::start(&["--listen", "127.0.0.1:0", "--upstream", &upstream]);
    let (_, addr) = binary.line();
    let answer = Client::new(addr).open(Method::POST, "/v1/responses", streamed().to_string().into()).await;
    binary.signal("-TERM");
    while TcpStream::connect(addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
    binary.signal("-TERM");
    assert!(answer.into_body().collect().await.is_err());
    assert_eq!(binary.end().await.1, Some(0));
}

#[tokio::test]
async fn a_port_in_use_is_unavailable() {
    let world = World::plain().await;
    let taken = world.proxy.addr.to_string();
    let binary = Binary::start(&["serve", "--listen", &taken]);
    assert_eq!(binary.end().await, (String::new(), Some(69)));
}
