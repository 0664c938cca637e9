//! What only sockets have: their limits, which no REST client may hear of; and a client's own socket through the tunnel,
//! with warm-ups, close codes and compression between the two ends.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::Full;
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tailwire::app;
use tailwire::config::ProfileName;
use tailwire::sim::ledger::Outcome;
use tailwire::sim::script::{Limits, Upgrade};
use tailwire::sim::{Fault, Mishap, Moment, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;

use crate::agent::{Agent, Turn, assert_same_contexts};
use crate::passthrough::websocket;
use crate::world::{World, settings_for};

const WORDS: &str = "go [sim calls=3 parallel=2 reasoning=1 text=60]";

async fn direct() -> Vec<Turn> {
    let world = World::plain().await;
    Agent::new(world.direct()).run(WORDS).await
}

fn error(status: u16, code: &str) -> Value {
    json!({"type": "error", "status": status, "error": {"type": "invalid_request_error", "code": code,
        "message": "Said of this socket.", "param": null}})
}

#[tokio::test]
async fn a_limit_that_only_sockets_have_is_no_client_s_error() {
    let expected = direct().await;
    for (code, status) in [
        ("websocket_connection_limit_reached", 400),
        ("websocket_stream_limit_reached", 400),
        ("websocket_request_limit_reached", 429),
    ] {
        for (stream, times) in [(false, 1), (true, 1), (false, 9), (true, 9)] {
            // The first turn, or one that is continued.
            for skip in [0, 2] {
                let world = World::plain().await;
                let fault = Fault::Error(error(status, code));
                world.sim.provider.mishap(Mishap::new(Moment::AfterSend, fault).skip(skip).times(times));
                let mut agent = Agent::new(world.proxied()).set(&json!({"stream": stream}));
                let turns = agent.run(WORDS).await;
                assert_same_contexts(&expected, &turns);
                let struck = turns[skip as usize].told();
                let plan = if times == 1 { ("full", "recovered") } else { ("http", "recovered") };
                assert_eq!(struck.plan(), plan, "{code} {stream} {skip}");
                world.assert_lawful();
            }
        }
    }
}

#[tokio::test]
async fn a_socket_that_has_had_its_requests_is_left() {
    let expected = direct().await;
    let world = World::start(|_| (), |script| script.limits.requests = Some(2)).await;
    let turns = Agent::new(world.proxied()).run(WORDS).await;
    assert_same_contexts(&expected, &turns);
    let plans: Vec<_> = turns.iter().map(|turn| turn.told().plan).collect();
    assert_eq!(plans, ["full", "delta", "full", "delta"]);
    world.assert_lawful();
}

#[tokio::test]
async fn without_a_socket_to_be_had_turns_go_over_http() {
    let expected = direct().await;
    let world = World::start(|_| (), |script| script.limits.sockets = Some(0)).await;
    let turns = Agent::new(world.proxied()).run(WORDS).await;
    assert_same_contexts(&expected, &turns);
    assert!(turns.iter().all(|turn| turn.told().plan() == ("http", "no-socket")));
    assert_eq!(world.ledger().read(|book| book.upgrades_granted), 0);

    // One socket may be had, and it is busy.
    let limits = Limits { sockets: Some(1), ..Limits::one_in_flight() };
    let world =
        World::start(|settings| settings.profile = ProfileName::Azure, |script| script.limits = limits).await;
    world.slow();
    let ask = |text: &'static str| {
        let mut agent = Agent::new(world.proxied());
        tokio::spawn(async move { agent.run(text).await.remove(0) })
    };
    let first = ask("one [sim text=100]");
    world.in_flight(1).await;
    let second = ask("two [sim text=100]");
    assert!(world.ledger().wait(|book| book.count(Outcome::Running) == 2).await);
    world.fast();
    let turns = [first.await.unwrap(), second.await.unwrap()];
    let over = turns.each_ref().map(|turn| world.record(turn.id()).transport);
    assert_eq!(over, [Transport::WebSocket, Transport::Http]);
    world.assert_lawful();
}

#[tokio::test]
async fn a_limit_that_rest_has_too_is_passed_on() {
    let frame = json!({"type": "error", "status": 429, "error": {"type": "tokens", "code": "rate_limit_exceeded",
        "message": "Rate limit reached.", "param": null, "headers": {"retry-after": "7"}}});
    for stream in [false, true] {
        let world = World::plain().await;
        let body = json!({"model": "gpt-sim", "store": false, "input": "hi", "stream": stream});
        let mishap = Mishap::new(Moment::AfterSend, Fault::Error(frame.clone()));
        world.sim.provider.mishap(mishap.clone().over_http());
        world.sim.provider.mishap(mishap);
        let (direct, proxied) = (world.direct().ask(&body).await, world.proxied().ask(&body).await);
        assert_eq!(proxied.status, 429);
        assert_eq!(direct.json(), proxied.json());
        assert_eq!(proxied.header("retry-after"), "7");
        assert_eq!(world.ledger().read(|book| book.turns.len()), 2, "asked once each way");
        // The rate-limit headers of REST are not to be had on a socket, and are not made up.
        assert!(direct.headers.contains_key("x-ratelimit-remaining-tokens"));
        assert!(!proxied.headers.keys().any(|name| name.as_str().starts_with("x-ratelimit-")));
    }
}

#[tokio::test]
async fn f58_what_belongs_to_a_socket_never_goes_over_http() {
    let world = World::plain().await;
    for (field, value) in
        [("generate", json!(false)), ("type", json!("response.create")), ("stream_id", json!("a"))]
    {
        for stream in [false, true] {
            let mut body = json!({"model": "gpt-sim", "input": "hi", "store": false, "stream": stream});
            body[field] = value.clone();
            let (direct, proxied) = (world.direct().ask(&body).await, world.proxied().ask(&body).await);
            assert_eq!((direct.status, direct.json()), (proxied.status, proxied.json()), "{field}");
            assert_eq!(proxied.json()["error"]["param"], field, "REST has no such field");
            assert_eq!(proxied.told().plan(), ("http", format!("field:{field}").as_str()));
        }
    }
    assert_eq!(world.ledger().read(|book| book.upgrades_asked), 0);

    // A turn that comes to HTTP by way of a socket takes nothing of the socket's along; the provider would refuse it.
    let expected = direct().await;
    for refused in [true, false] {
        let world = World::plain().await;
        match refused {
            true => world.sim.provider.script(|script| script.upgrade = Upgrade::refuse(503)),
            false => world.sim.provider.script(|script| script.limits.max_frame = 100),
        }
        let turns = Agent::new(world.proxied()).run(WORDS).await;
        assert_same_contexts(&expected, &turns);
        for turn in turns {
            let record = world.record(turn.id());
            assert_eq!((record.transport, record.frame), (Transport::Http, turn.request.len()));
        }
    }
}

/// The events of one request on a client's own socket.
async fn run(socket: &mut WebSocketStream<TcpStream>, body: &Value) -> Vec<Value> {
    let mut frame = json!({"type": "response.create", "model": "gpt-sim", "store": false});
    frame.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    socket.send(Message::text(frame.to_string())).await.unwrap();
    let mut events = Vec::new();
    loop {
        let message = soon(socket.next()).await.unwrap().unwrap();
        let Message::Text(text) = message else { panic!("{message:?}") };
        let event: Value = serde_json::from_str(text.as_str()).unwrap();
        let last = ["response.completed", "error"].iter().any(|kind| event["type"] == *kind);
        events.push(event);
        if last {
            return events;
        }
    }
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("nothing came")
}

#[tokio::test]
async fn f80_a_warm_up_is_chained_with_nothing_new() {
    let world = World::plain().await;
    let mut socket = websocket(&world, "/v1/responses", Some("Bearer key-a")).await.unwrap();
    let input = json!([{"role": "user", "content": "go [sim text=60 reasoning=1]"}]);
    let settings = json!({"instructions": "Be brief.", "stream": true, "tools": []});
    let with = |changes: Value| {
        let mut body = settings.clone();
        body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        body
    };
    let warm = run(&mut socket, &with(json!({"generate": false, "input": input}))).await;
    let names: Vec<_> = warm.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(names, ["response.created", "response.in_progress", "response.completed"]);
    let id = warm[2]["response"]["id"].clone();
    assert_eq!(warm[2]["response"]["output"], json!([]));

    let answer = run(&mut socket, &with(json!({"previous_response_id": id, "input": []}))).await;
    let response = &answer.last().unwrap()["response"];
    assert_eq!(response["previous_response_id"], id, "nothing is put back that nobody took out");
    let full = world.direct().ask(&json!({"model": "gpt-sim", "store": false, "input": input})).await.json();
    assert_eq!(response["sim"], full["sim"]);
    assert_eq!(response["output"].as_array().unwrap().len(), 2);
    // The frames came as they were sent, those fields included that our own frames never have.
    world.ledger().read(|book| {
        let seen: Vec<_> = book.turns.iter().map(|turn| (turn.items, turn.stream_id.clone())).collect();
        assert_eq!(seen[..2], [(1, None), (0, None)]);
        assert_eq!(book.violations.iter().filter(|broken| broken.about == "response.create").count(), 2);
    });
    assert_eq!(world.proxy.sockets(), 0);
}

#[tokio::test]
async fn f79_a_warm_up_that_is_never_finished_holds_up_nobody() {
    let world = World::plain().await;
    world.sim.provider.mishap(Mishap::new(Moment::AfterCreated, Fault::Silence));
    let mut stuck = websocket(&world, "/v1/responses", Some("Bearer key-a")).await.unwrap();
    let frame = json!({"type": "response.create", "model": "gpt-sim", "generate": false, "input": "hi"});
    stuck.send(Message::text(frame.to_string())).await.unwrap();
    let Message::Text(text) = soon(stuck.next()).await.unwrap().unwrap() else { panic!("no event") };
    assert!(text.as_str().contains("response.created"), "all there is comes through");

    let turns = Agent::new(world.proxied()).run("meanwhile [sim calls=1]").await;
    assert_eq!(turns.iter().map(|turn| turn.told().plan).collect::<Vec<_>>(), ["full", "delta"]);
    let mut other = websocket(&world, "/v1/responses", Some("Bearer key-a")).await.unwrap();
    assert_eq!(run(&mut other, &json!({"generate": false, "input": "hi"})).await.len(), 3);
    drop(stuck);
    assert!(world.ledger().wait(|book| book.turns[0].outcome == Outcome::Cancelled).await);
}

#[tokio::test]
async fn f55_close_codes_reach_a_client_of_the_tunnel_as_they_are() {
    let world = World::start(|_| (), |script| script.limits.max_frame = 10_000).await;
    let mut socket = websocket(&world, "/v1/responses", Some("Bearer key-a")).await.unwrap();
    let frame = json!({"type": "response.create", "model": "m", "input": "x".repeat(20_000)});
    socket.send(Message::text(frame.to_string())).await.unwrap();
    assert_eq!(closed(&mut socket).await, (1009, "message too big".to_owned()));
    assert_eq!(world.ledger().read(|book| book.turns.len()), 0, "asked of nobody else");
    for code in [1000, 1001, 1008, 1011, 1012, 1013, 4001] {
        world.sim.provider.mishap(Mishap::new(Moment::AfterCreated, Fault::Close(code)));
        let mut socket = websocket(&world, "/v1/responses", Some("Bearer key-a")).await.unwrap();
        let frame = json!({"type": "response.create", "model": "m", "input": "x"});
        socket.send(Message::text(frame.to_string())).await.unwrap();
        assert_eq!(closed(&mut socket).await.0, code);
    }
}

async fn closed(socket: &mut WebSocketStream<TcpStream>) -> (u16, String) {
    loop {
        match soon(socket.next()).await {
            Some(Ok(Message::Close(Some(frame)))) => return (frame.code.into(), frame.reason.to_string()),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_client_of_the_tunnel_has_its_own_compression() {
    let world = World::start(|_| (), |script| script.deflate = true).await;
    let request = Request::get("/v1/responses")
        .header("host", "x")
        .header("authorization", "Bearer key-a")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", generate_key())
        .header("sec-websocket-extensions", "permessage-deflate");
    let stream = TcpStream::connect(world.proxy.addr).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let reply = soon(sender.send_request(request.body(Full::<Bytes>::default()).unwrap())).await.unwrap();
    assert_eq!(reply.status(), 101);
    let granted = reply.headers()["sec-websocket-extensions"].to_str().unwrap().to_owned();
    assert!(granted.starts_with("permessage-deflate"), "{granted}");
    let io = TokioIo::new(hyper::upgrade::on(reply).await.unwrap());
    let options = yawc::Options::default().with_balanced_compression().with_compression_threshold(64);
    let mut socket =
        yawc::WebSocket::from_stream_with_extensions(io, yawc::Role::Client, Some(&granted), options)
            .unwrap();
    let frame =
        json!({"type": "response.create", "model": "m", "generate": false, "input": "word ".repeat(2000)});
    for _ in 0..2 {
        socket.send(yawc::frame::Frame::text(frame.to_string())).await.unwrap();
        while !soon(socket.next_frame()).await.unwrap().as_str().contains("response.completed") {}
    }
    world.ledger().read(|book| {
        let sizes: Vec<_> = book.turns.iter().map(|turn| (turn.frame as u64, turn.wire)).collect();
        assert!(sizes.iter().all(|(frame, wire)| wire * 10 < *frame), "{sizes:?}");
    });
}

/// Reads a head off a stream: its lines.
async fn head(stream: &mut TcpStream) -> Vec<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(soon(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(bytes).unwrap().lines().map(|line| line.to_ascii_lowercase()).collect()
}

#[tokio::test]
async fn a_tunnel_changes_no_bit_of_either_side() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}/v1", listener.local_addr().unwrap());
    let proxy = app::Running::start(settings_for(&upstream)).await.unwrap();
    let mut client = TcpStream::connect(proxy.addr).await.unwrap();
    let asked = "GET /v1/responses?model=m HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\nconnection: Upgrade\r\n\
        upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        sec-websocket-extensions: permessage-deflate; client_max_window_bits=10, x-own\r\n\
        sec-websocket-protocol: one, two\r\nopenai-beta: responses_websockets=2026-02-06\r\n\r\n";
    client.write_all(asked.as_bytes()).await.unwrap();
    let mut provider = soon(listener.accept()).await.unwrap().0;
    let lines = head(&mut provider).await;
    assert_eq!(lines[0], "get /v1/responses?model=m http/1.1");
    for name in [
        "sec-websocket-extensions",
        "sec-websocket-protocol",
        "sec-websocket-key",
        "openai-beta",
        "authorization",
    ] {
        let sent = asked.lines().map(str::to_ascii_lowercase).find(|line| line.starts_with(name)).unwrap();
        assert!(lines.contains(&sent), "{sent} in {lines:?}");
    }
    let granted = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nsec-websocket-extensions: permessage-deflate; \
        client_max_window_bits=10\r\nsec-websocket-protocol: two\r\nopenai-model: m\r\n\r\n";
    provider.write_all(granted.as_bytes()).await.unwrap();
    let lines = head(&mut client).await;
    for line in granted.lines().filter(|line| line.starts_with("sec-") || line.starts_with("openai-")) {
        assert!(lines.contains(&line.to_ascii_lowercase()), "{line} in {lines:?}");
    }
    // No frame that any rule would let pass: reserved bits, unknown opcodes, noise.
    let mut noise = vec![0; 300_000];
    getrandom::fill(&mut noise).unwrap();
    let (up, down) = noise.split_at(100_000);
    let (mut client_reads, mut client_writes) = client.split();
    let (mut provider_reads, mut provider_writes) = provider.split();
    let (mut heard_up, mut heard_down) = (vec![0; up.len()], vec![0; down.len()]);
    let all = async {
        tokio::try_join!(
            client_writes.write_all(up),
            provider_writes.write_all(down),
            async { provider_reads.read_exact(&mut heard_up).await.map(drop) },
            async { client_reads.read_exact(&mut heard_down).await.map(drop) },
        )
    };
    soon(all).await.unwrap();
    assert!(heard_up == up && heard_down == down);
    // A close frame of the client's, with a code of its own, then the end.
    let goodbye = [0x88, 0x82, 0, 0, 0, 0, 0x0f, 0xa1];
    client_writes.write_all(&goodbye).await.unwrap();
    let mut heard = [0; 8];
    soon(provider_reads.read_exact(&mut heard)).await.unwrap();
    assert_eq!(heard, goodbye);
    drop(client);
    assert_eq!(soon(provider.read(&mut [0; 8])).await.unwrap(), 0, "one end takes the other with it");
}
