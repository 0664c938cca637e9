//! What the real binary writes, every line of it, while everything that can go wrong does: no secret, no content.
//!
//! The other tests hear the log of their own process (`support/scanner.rs`); this one hears the whole of another's
//! standard output and error, panics included.

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use http_body_util::BodyExt;
use hyper::Method;
use serde_json::{Value, json};
use tailwire::sim::script::Upgrade;
use tailwire::sim::{Fault, Mishap, Moment, Running, Script};
use tokio::net::TcpListener;

use crate::agent::Agent;
use crate::http::{CREDENTIAL, Client, raw};
use crate::support::{ALICE, Folder, PATIENCE, UPSTREAM, expose, until, websocket};
use crate::world::World;
use crate::world::scanner::{lines, planted};

/// The binary at `trace`, and everything it says.
struct Binary {
    child: Child,
    addr: SocketAddr,
    said: std::thread::JoinHandle<String>,
    warned: std::thread::JoinHandle<String>,
}

impl Binary {
    async fn start(upstream: &str, format: &str, more: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailwire"));
        command.env_clear().current_dir(env!("CARGO_TARGET_TMPDIR"));
        command.args(["--listen", "127.0.0.1:0", "--admin", "off", "--upstream", upstream]);
        command.env("TAILWIRE_LOG_LEVEL", "trace").env("TAILWIRE_LOG_FORMAT", format);
        command.envs(more.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (addr, first) = tokio::task::spawn_blocking(move || {
            let mut line = Vec::new();
            let mut byte = [0];
            while out.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
                line.push(byte[0]);
            }
            (String::from_utf8(line).unwrap(), out)
        })
        .await
        .unwrap();
        let address =
            addr.split("http://").nth(1).and_then(|rest| rest.split("/v1").next()).unwrap_or_default();
        let address = address.parse().unwrap_or_else(|_| panic!("{addr:?}"));
        let hear = |mut stream: Box<dyn Read + Send>, mut all: String| {
            std::thread::spawn(move || {
                stream.read_to_string(&mut all).unwrap();
                all
            })
        };
        let (said, warned) = (hear(Box::new(first), addr), hear(Box::new(err), String::new()));
        Self { child, addr: address, said, warned }
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Everything it said, once it is over.
    async fn end(mut self) -> String {
        self.signal("-TERM");
        let ended = tokio::task::spawn_blocking(move || {
            let code = self.child.wait().unwrap().code();
            (code, self.said.join().unwrap() + "\n" + &self.warned.join().unwrap())
        });
        let (code, said) = ended.await.unwrap();
        assert_eq!(code, Some(0), "it did not end in order");
        said
    }
}

/// Asserts that no line holds what was planted, without showing the line.
fn assert_clean(said: &str) {
    for (number, line) in said.lines().enumerate() {
        let found = planted(line.as_bytes());
        assert_eq!(found, None, "line {number} of what the binary said");
    }
}

/// What a provider might say back: the key it was given, and what the model was told.
fn echoing(status: u16) -> Value {
    json!({"type": "error", "status": status, "error": {"type": "invalid_request_error", "param": null,
        "code": "planted-code", "message": format!("Incorrect API key provided: {CREDENTIAL}; you said [sim planted]")}})
}

/// A conversation, and everything that can go wrong in one.
async fn everything(sim: &Running, client: &Client) {
    for stream in [false, true] {
        let mut agent = Agent::new(client.clone()).set(&json!({"stream": stream, "x_planted": "planted"}));
        agent.run("planted words [sim calls=2 reasoning=1 text=60]").await;
        // Errors of the provider, before and after the first event, and broken sockets.
        for (moment, fault) in [
            (Moment::AfterSend, Fault::Error(echoing(401))),
            (Moment::AfterSend, Fault::Error(echoing(500))),
            (Moment::AfterSend, Fault::ErrorWithoutLane(echoing(400))),
            (Moment::AfterCreated, Fault::Error(echoing(500))),
            (Moment::AfterCreated, Fault::Garbage(format!("planted {CREDENTIAL}"))),
            (Moment::AfterCreated, Fault::Close(1008)),
            (Moment::AfterSend, Fault::Reset),
        ] {
            sim.provider.mishap(Mishap::new(moment, fault));
            let mut agent = agent.clone();
            agent.hear("planted, once more [sim text=30]");
            let answer = client.open(Method::POST, "/v1/responses", agent.body().into()).await;
            // Some of these break off.
            let _ = tokio::time::timeout(PATIENCE, answer.into_body().collect()).await.unwrap();
        }
    }
    // A socket that is refused with the key in the refusal, headers and all.
    let body = echoing(403)["error"].clone();
    let refuse =
        || Fault::Upgrade(Upgrade::Refuse { status: 403, body: json!({"error": body}), retry_after: None });
    sim.provider.mishap(Mishap::new(Moment::Upgrade, refuse()));
    let other = client.clone().with("openai-project", "planted-project");
    other.ask(&json!({"model": "m", "input": "planted [sim text=9]"})).await;
    sim.provider.mishap(Mishap::new(Moment::Upgrade, refuse()));
    assert!(websocket(&other, "/v1/responses?planted=1").await.is_err());
    // Bodies that are none.
    for body in ["{\"input\": \"planted [sim", "planted", "{\"input\": [{\"planted\": 1e999}]}", "\u{0}"] {
        client.send(Method::POST, "/v1/responses", body).await;
    }
    client.clone().with("content-encoding", "gzip").send(Method::POST, "/v1/responses", "planted").await;
    client.clone().with("content-encoding", "planted").send(Method::POST, "/v1/responses", "planted").await;
    client.get(&format!("/v1/planted?key={}", &CREDENTIAL[7..])).await;
    raw(
        client.addr,
        format!("GET /planted HTTP/1.1\r\nauthorization: {CREDENTIAL}\r\nplanted\r\n\r\n").as_bytes(),
        true,
    )
    .await;
    // A client that leaves in the middle.
    sim.provider.script(|script| script.speed = 10.0);
    let body = json!({"model": "m", "stream": true, "input": "planted [sim text=400]"}).to_string();
    drop(client.open(Method::POST, "/v1/responses", body.into()).await);
    let left = |book: &tailwire::sim::ledger::Book| book.sockets_open == 0;
    assert!(sim.provider.ledger().wait(left).await, "the socket is closed behind it");
    sim.provider.script(|script| script.speed = 0.0);
}

#[cfg(unix)]
#[tokio::test]
async fn the_binary_says_nothing_that_it_was_told() {
    let sim = Running::start(Script { deflate: true, ..Script::default() }).await.unwrap();
    for format in ["text", "json"] {
        let binary = Binary::start(&sim.base_url(), format, &[]).await;
        everything(&sim, &Client::new(binary.addr)).await;
        let said = binary.end().await;
        assert_clean(&said);
        // It did speak, of turns, sockets and faults.
        for word in
            ["DEBUG", "socket open", "turn recovers", "stream breaks", "no socket; turns go over HTTP"]
        {
            assert!(said.contains(word), "{word}");
        }
        assert!(said.lines().count() > 50, "{}", said.lines().count());
    }
}

#[cfg(unix)]
#[tokio::test]
async fn nor_does_it_name_its_own_keys() {
    let sim = Running::start(Script::default()).await.unwrap();
    let folder = Folder::new();
    let clients = folder.write("clients", &format!("alice {ALICE}\n"));
    let upstream = folder.write("upstream", UPSTREAM);
    expose(&upstream, 0o644);
    let files = [
        ("TAILWIRE_CLIENT_KEYS_FILE", clients.to_str().unwrap()),
        ("TAILWIRE_UPSTREAM_KEY_FILE", upstream.to_str().unwrap()),
    ];
    let binary = Binary::start(&sim.base_url(), "text", &files).await;
    let client = Client::new(binary.addr);
    assert_eq!(client.get("/v1/models").await.status, 401);
    let alice = client.clone().with("authorization", &format!("Bearer {ALICE}"));
    everything(&sim, &alice).await;
    // Files that cannot be used, and SIGHUP to have them read.
    folder.write("clients", "alice planted\n");
    binary.signal("-HUP");
    folder.write("upstream", "two planted words");
    binary.signal("-HUP");
    folder.write("upstream", "sk-planted-next");
    folder.write("clients", &format!("bob {ALICE}\n"));
    binary.signal("-HUP");
    until("the next key", || async {
        let echoed = alice.get("/v1/echo").await.json();
        echoed["headers"]["authorization"] == json!(["Bearer sk-planted-next"])
    })
    .await;
    let said = binary.end().await;
    assert_clean(&said);
    for word in ["request refused", "request admitted", "keys reloaded", "others on this machine can read"] {
        assert!(said.contains(word), "{word}");
    }
}

#[tokio::test]
async fn an_upstream_that_is_none_is_not_quoted_either() {
    let world = World::plain().await;
    let before = lines();
    // Not HTTP, and what it says is what it was sent.
    let parrot = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", parrot.local_addr().unwrap());
    let repeating = tokio::spawn(async move {
        while let Ok((mut stream, _)) = parrot.accept().await {
            tokio::spawn(async move {
                let (mut reads, mut writes) = stream.split();
                let _ = tokio::io::copy(&mut reads, &mut writes).await;
            });
        }
    });
    let proxy = tailwire::app::Running::start(crate::world::settings_for(&base)).await.unwrap();
    let reply = Client::new(proxy.addr).ask(&json!({"model": "m", "input": "planted [sim text=9]"})).await;
    assert_eq!(reply.status, 502);
    assert!(!reply.json().to_string().contains("planted"), "nor is the client told");
    assert_eq!(Client::new(proxy.addr).get("/v1/models").await.status, 502);
    assert!(lines() > before, "the log was heard");
    repeating.abort();
    drop(world);
}
