//! The simulated provider alone, through its sockets: tokio-tungstenite and a bare HTTP client as peers.
//!
//! The rules themselves are tested without sockets in `src/sim/rules/tests.rs`; here are the faces and the mishaps.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "sim/chat.rs"]
mod chat;
#[path = "support/chat_rows.rs"]
mod chat_rows;
#[path = "sim/fidelity.rs"]
mod fidelity;
#[path = "soak/losses.rs"]
mod losses;
#[path = "sim/losses.rs"]
mod lost;
#[path = "sim/mishaps.rs"]
mod mishaps;
#[path = "sim/peer.rs"]
mod peer;

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http_body_util::Full;
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tailwire::sim::ledger::Outcome;
use tailwire::sim::rules::Ending;
use tailwire::sim::script::{Limits, Style, Upgrade};
use tailwire::sim::{Fault, Mishap, Moment, Running, Script, Transport};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::peer::{Client, http, id, is_terminal, kind, post, send, start, upgrade_request};

#[tokio::test]
async fn an_agent_s_turns_over_the_socket_and_over_http_have_one_context() {
    let sim = start().await;
    let mut client = Client::connect(&sim).await;
    let mut history = vec![json!({"role": "user", "content": "go [sim calls=2 reasoning=1 text=40]"})];
    let (mut new, mut previous) = (history.clone(), Value::Null);
    for _ in 0..3 {
        let delta = client
            .run(&json!({"input": new, "previous_response_id": previous, "stream_id": "a", "user": "u"}))
            .await;
        assert_eq!(delta["stream_id"], "a");
        let full =
            post(&sim, &json!({"model": "gpt-sim", "store": false, "input": history, "user": "u"})).await;
        assert_eq!(full.json()["sim"], delta["response"]["sim"]);
        previous = id(&delta).into();
        let output = delta["response"]["output"].as_array().unwrap();
        new = output
            .iter()
            .filter(|item| item["type"] == "function_call")
            .map(|call| json!({"type": "function_call_output", "call_id": call["call_id"], "output": "done"}))
            .collect();
        history.extend(output.iter().chain(&new).cloned());
    }
    let ledger = sim.provider.ledger();
    assert!(ledger.wait(|book| book.count(Outcome::Ended(Ending::Completed)) == 6).await);
    ledger.read(|book| {
        assert_eq!(book.violations, []);
        let (socket, http): (Vec<_>, Vec<_>) =
            book.turns.iter().partition(|record| record.transport == Transport::WebSocket);
        for (over_socket, over_http) in socket.iter().zip(&http) {
            assert_eq!(over_socket.digests, over_http.digests);
            assert_eq!(over_socket.settings, over_http.settings);
            assert_eq!(over_socket.credential, over_http.credential);
            assert!(over_socket.wire as usize > over_socket.frame, "masked, with a header");
        }
        assert!(socket[2].frame < http[2].frame / 2, "{} of {}", socket[2].frame, http[2].frame);
    });
}

#[tokio::test]
async fn named_lanes_interleave_and_the_default_lane_is_unnamed() {
    let sim = start().await;
    let mut client = Client::connect(&sim).await;
    for lane in [json!("one"), json!("two"), Value::Null] {
        client.ask(&json!({"input": "hi [sim text=400]", "stream_id": lane})).await;
    }
    let mut numbers = std::collections::BTreeMap::<String, u64>::new();
    let mut ended = 0;
    while ended < 3 {
        let event = client.event().await;
        let next = numbers.entry(event["stream_id"].as_str().unwrap_or("-").to_owned()).or_default();
        assert_eq!(event["sequence_number"], *next);
        *next += 1;
        ended += usize::from(is_terminal(&event));
    }
    assert_eq!(numbers.keys().collect::<Vec<_>>(), ["-", "one", "two"]);
}

#[tokio::test]
async fn limits() {
    let sim = start().await;
    let mut client = Client::connect(&sim).await;
    for lane in 1..=32 {
        id(&client.run(&json!({"input": "x", "stream_id": format!("l{lane}")})).await);
    }
    let refused = client.run(&json!({"input": "x", "stream_id": "l33"})).await;
    assert_eq!(refused["error"]["code"], "websocket_stream_limit_reached");
    let unknown = client.run(&json!({"input": "x", "previous_response_id": "resp_none"})).await;
    assert_eq!(unknown["error"]["code"], "previous_response_not_found");
    assert_eq!(unknown["status"], 400);

    sim.provider.script(|script| script.limits.max_age = Duration::ZERO);
    let refused = client.run(&json!({"input": "x"})).await;
    assert_eq!(refused["error"]["code"], "websocket_connection_limit_reached");
    sim.provider.script(|script| script.limits = Limits::one_in_flight());
    let refused = client.run(&json!({"input": "x", "stream_id": "l1"})).await;
    assert_eq!(refused["error"]["message"], "Unsupported parameter: stream_id");

    sim.provider.script(|script| script.limits = Limits { max_frame: 10_000, ..Limits::default() });
    client.ask(&json!({"input": "x".repeat(10_000)})).await;
    assert_eq!(client.end().await, Some(CloseCode::Size));
    let mut client = Client::connect(&sim).await;
    client.socket.send(Message::binary(&b"{}"[..])).await.unwrap();
    assert_eq!(client.end().await, Some(CloseCode::Unsupported));
}

#[tokio::test]
async fn the_seventeenth_response_waits_for_a_place() {
    let sim = start().await;
    sim.provider.mishap(Mishap::new(Moment::AfterCreated, Fault::Silence).times(15));
    let mut client = Client::connect(&sim).await;
    for lane in 0..15 {
        client.ask(&json!({"input": "x", "stream_id": format!("silent{lane}")})).await;
        assert_eq!(kind(&client.event().await), "response.created");
    }
    for lane in ["sixteen", "seventeen"] {
        client.ask(&json!({"input": "x", "stream_id": lane})).await;
    }
    for lane in ["sixteen", "seventeen"] {
        for event in client.events().await {
            assert_eq!(event["stream_id"], lane);
        }
    }
}

#[tokio::test]
async fn styles_of_the_socket() {
    let style =
        Style { late_frames: true, pretty: true, sparse: true, empty_output: true, ..Style::default() };
    let sim = Running::start(Script { style, ..Script::default() }).await.unwrap();
    let mut client = Client::connect(&sim).await;
    let terminal = client.run(&json!({"input": "x"})).await;
    assert_eq!(terminal["response"]["output"], json!([]));
    for expected in ["codex.rate_limits", "responsesapi.websocket_timing", "response.metadata"] {
        assert_eq!(kind(&client.event().await), expected);
    }
}

#[tokio::test]
async fn upgrades_can_be_refused_reset_and_tunnelled() {
    let sim = start().await;
    sim.provider.script(|script| {
        script.upgrade =
            Upgrade::Refuse { status: 429, body: json!({"error": {"code": "slow"}}), retry_after: Some(7) };
    });
    let connect = async || {
        let stream = TcpStream::connect(sim.addr).await.unwrap();
        client_async(upgrade_request(&sim, "responses"), stream).await.err()
    };
    let Some(Error::Http(reply)) = connect().await else { panic!("not refused") };
    assert_eq!(reply.status(), 429);
    assert_eq!(reply.headers()["retry-after"], "7");
    sim.provider.script(|script| script.upgrade = Upgrade::Accept);
    sim.provider.mishap(Mishap::new(Moment::Upgrade, Fault::Reset));
    sim.provider.mishap(Mishap::new(Moment::Upgrade, Fault::Upgrade(Upgrade::refuse(426))));
    assert!(!matches!(connect().await, None | Some(Error::Http(_))));
    assert!(matches!(connect().await, Some(Error::Http(reply)) if reply.status() == 426));
    assert!(connect().await.is_none());

    let mut anonymous = upgrade_request(&sim, "responses");
    anonymous.headers_mut().remove("authorization");
    let refused = client_async(anonymous, TcpStream::connect(sim.addr).await.unwrap()).await;
    assert!(matches!(refused, Err(Error::Http(reply)) if reply.status() == 401));

    let stream = TcpStream::connect(sim.addr).await.unwrap();
    let (mut tunnel, _) = client_async(upgrade_request(&sim, "realtime"), stream).await.unwrap();
    tunnel.send(Message::text("hello")).await.unwrap();
    assert_eq!(tunnel.next().await.unwrap().unwrap(), Message::text("hello"));
}

#[tokio::test]
async fn generation_stops_when_the_client_goes() {
    let sim = Running::start(Script { speed: 50.0, ..Script::default() }).await.unwrap();
    let mut client = Client::connect(&sim).await;
    client.ask(&json!({"input": "x [sim text=100000]"})).await;
    while kind(&client.event().await) != "response.output_text.delta" {}
    drop(client);
    assert!(sim.provider.ledger().wait(|book| book.turns[0].outcome == Outcome::Cancelled).await);

    let mut stream = TcpStream::connect(sim.addr).await.unwrap();
    let body = json!({"model": "m", "input": "x [sim text=100000]", "stream": true}).to_string();
    let head = format!(
        "POST /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: k\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    tokio::io::AsyncWriteExt::write_all(&mut stream, (head + &body).as_bytes()).await.unwrap();
    assert!(sim.provider.ledger().wait(|book| book.turns.len() == 2 && book.turns[1].tokens > 0).await);
    drop(stream);
    assert!(sim.provider.ledger().wait(|book| book.turns[1].outcome == Outcome::Cancelled).await);
    sim.provider.ledger().read(|book| assert!(book.turns.iter().all(|record| record.tokens < 1000)));
}

#[tokio::test]
async fn stored_responses_over_http() {
    let sim = start().await;
    let first = post(
        &sim,
        &json!({"model": "gpt-sim", "input": [{"role": "user", "content": "hi", "id": "msg_mine"}]}),
    )
    .await;
    assert_eq!(first.status, 200);
    for name in ["x-request-id", "openai-processing-ms", "x-ratelimit-remaining-tokens"] {
        assert!(first.headers.contains_key(name), "{name}");
    }
    let response = first.json();
    let path = format!("/v1/responses/{}", response["id"].as_str().unwrap());
    assert_eq!(http(&sim, "GET", &path, "").await.json(), response);
    let items = http(&sim, "GET", &format!("{path}/input_items"), "").await.json();
    assert_eq!(items["first_id"], "msg_mine");
    assert_eq!(http(&sim, "POST", &format!("{path}/cancel"), "").await.status, 400);
    let next = json!({"model": "gpt-sim", "input": "more", "previous_response_id": response["id"]});
    assert_eq!(post(&sim, &next).await.json()["previous_response_id"], response["id"]);
    assert_eq!(http(&sim, "DELETE", &path, "").await.json()["deleted"], true);
    assert_eq!(http(&sim, "GET", &path, "").await.status, 404);
    let refused = post(&sim, &next).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["error"]["code"]),
        (400, &json!("previous_response_not_found"))
    );
}

#[tokio::test]
async fn events_over_http_are_those_of_the_socket() {
    let sim = start().await;
    let mut client = Client::connect(&sim).await;
    client.ask(&json!({"input": "go [sim calls=1 reasoning=1 commentary=1]"})).await;
    let socket: Vec<_> = client.events().await.iter().map(|event| kind(event).to_owned()).collect();
    let body =
        json!({"model": "gpt-sim", "input": "go [sim calls=1 reasoning=1 commentary=1]", "stream": true});
    let reply = post(&sim, &body).await;
    assert_eq!(reply.headers["content-type"], "text/event-stream; charset=utf-8");
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    let mut kinds = Vec::new();
    for block in text.split_terminator("\n\n") {
        let (name, data) = block.split_once('\n').unwrap();
        let event: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name, format!("event: {}", kind(&event)));
        assert_eq!(event["sequence_number"], kinds.len());
        kinds.push(kind(&event).to_owned());
    }
    assert_eq!(kinds, socket);
}

#[tokio::test]
async fn errors_over_http() {
    let sim = start().await;
    let refused = http(&sim, "POST", "/v1/responses", "{").await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["error"]["type"]),
        (400, &json!("invalid_request_error"))
    );
    let leaked = post(&sim, &json!({"type": "response.create", "model": "m", "input": "x"})).await;
    assert_eq!(leaked.json()["error"]["param"], "type");
    assert_eq!(http(&sim, "POST", "/v1/completions", "{}").await.status, 404);
    assert_eq!(http(&sim, "GET", "/elsewhere", "").await.status, 404);
    let anonymous = Request::get("/v1/models").header("host", "sim").body(Full::default()).unwrap();
    assert_eq!(send(&sim, anonymous).await.unwrap().status, 401);

    let body = json!({"model": "m", "input": "x"});
    let frame = json!({"type": "error", "status": 429, "error": {"type": "t", "code": "c", "message": "m", "extra": 1}});
    sim.provider.mishap(Mishap::new(Moment::AfterSend, Fault::Error(frame.clone())).over_http());
    let refused = post(&sim, &json!({"model": "m", "input": "x", "stream": true})).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json(), json!({"error": {"type": "t", "code": "c", "message": "m", "param": null}}));
    sim.provider.mishap(Mishap::new(Moment::MidText, Fault::Error(frame)).over_http());
    let broken = post(&sim, &json!({"model": "m", "input": "x", "stream": true})).await;
    assert!(
        broken.body.ends_with(b"\n\n") && broken.body.windows(12).any(|window| window == b"event: error")
    );
    sim.provider.mishap(Mishap::new(Moment::AfterSend, Fault::Failed("server_error")).over_http());
    assert_eq!(post(&sim, &body).await.json()["status"], "failed");
    sim.provider.mishap(Mishap::new(Moment::MidText, Fault::Reset).over_http());
    let request = Request::post("/v1/responses").header("host", "sim").header("api-key", "k");
    assert!(send(&sim, request.body(Full::new(body.to_string().into())).unwrap()).await.is_err());
}

#[tokio::test]
async fn the_small_endpoints() {
    let sim = start().await;
    assert_eq!(http(&sim, "GET", "/v1/models", "").await.json()["data"][0]["id"], "gpt-sim");
    let head = http(&sim, "HEAD", "/v1/models", "").await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(http(&sim, "OPTIONS", "/v1/models", "").await.status, 204);
    let echo = http(&sim, "PATCH", "/v1/echo?a=1&a=2", "abc").await.json();
    assert_eq!(echo["query"], "a=1&a=2");
    assert_eq!(echo["sha256"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(echo["headers"]["authorization"], json!(["Bearer key-a"]));
    let request = |path: &str, name: &str, value: &str| {
        Request::get(path)
            .header("host", "sim")
            .header("api-key", "k")
            .header(name, value)
            .body(Full::default())
            .unwrap()
    };
    let whole = http(&sim, "GET", "/v1/files/file-1/content", "").await;
    let part = send(&sim, request("/v1/files/file-1/content", "range", "bytes=10-19")).await.unwrap();
    assert_eq!(part.status, 206);
    assert_eq!(part.headers["content-range"], "bytes 10-19/100000");
    assert_eq!(part.body, whole.body.slice(10..20));
    let trailers = send(&sim, request("/v1/trailers", "te", "trailers")).await.unwrap();
    assert_eq!(
        (&trailers.body[..], &trailers.headers["x-checksum"]),
        (&b"one\ntwo\n"[..], &"42".parse().unwrap())
    );
    let upload = Request::post("/v1/files").header("host", "sim").header("api-key", "k");
    let upload =
        upload.header("content-type", "multipart/form-data; boundary=b").body(Full::new("abc".into()));
    assert_eq!(send(&sim, upload.unwrap()).await.unwrap().json()["bytes"], 3);
}

#[tokio::test]
async fn a_foreign_id_is_on_record_and_stopping_ends_everything() {
    let sim = start().await;
    let mut client = Client::connect(&sim).await;
    let stored = client.run(&json!({"input": "x", "store": true})).await;
    let body = json!({"model": "m", "input": "y", "previous_response_id": id(&stored)}).to_string();
    let request =
        Request::post("/v1/responses").header("host", "sim").header("authorization", "Bearer key-b");
    let refused = send(&sim, request.body(Full::new(body.into())).unwrap()).await.unwrap();
    assert_eq!(refused.status, 400);
    let ledger = sim.provider.ledger().clone();
    ledger.read(|book| assert_eq!(book.violations[0].rule, "foreign id"));
    sim.stop().await.unwrap();
    assert_eq!(client.end().await, None);
    ledger.read(|book| assert_eq!(book.sockets_open, 0));
}

#[tokio::test]
async fn deflate_is_granted_and_keeps_its_window() {
    let sim = Running::start(Script { deflate: true, ..Script::default() }).await.unwrap();
    let mut request = upgrade_request(&sim, "responses").map(|()| Full::<bytes::Bytes>::default());
    request.headers_mut().insert("sec-websocket-extensions", "permessage-deflate".parse().unwrap());
    let stream = TcpStream::connect(sim.addr).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let reply = sender.send_request(request).await.unwrap();
    assert_eq!(reply.status(), 101);
    let granted = reply.headers()["sec-websocket-extensions"].to_str().unwrap().to_owned();
    let io = TokioIo::new(hyper::upgrade::on(reply).await.unwrap());
    let options = yawc::Options::default().with_balanced_compression().with_compression_threshold(64);
    let mut socket =
        yawc::WebSocket::from_stream_with_extensions(io, yawc::Role::Client, Some(&granted), options)
            .unwrap();
    for _ in 0..2 {
        let text: String = (0..200).map(|number| format!("{} ", number * 7919 % 1009)).collect();
        let frame = json!({"type": "response.create", "model": "m", "input": text});
        socket.send(yawc::frame::Frame::text(frame.to_string())).await.unwrap();
        loop {
            let frame = socket.next_frame().await.unwrap();
            if is_terminal(&serde_json::from_str(frame.as_str()).unwrap()) {
                break;
            }
        }
    }
    sim.provider.ledger().read(|book| {
        let (first, second) = (&book.turns[0], &book.turns[1]);
        assert!(first.wire < first.frame as u64 * 3 / 4, "{first:?}");
        assert!(second.wire < first.wire / 4, "{second:?}");
    });
}

#[tokio::test]
async fn encoded_bodies_and_periodic_pings() {
    let ping_every = Some(Duration::from_millis(1));
    let sim = Running::start(Script { ping_every, ..Script::default() }).await.unwrap();
    let body = json!({"model": "m", "input": "x"}).to_string();
    let request = Request::post("/v1/responses").header("host", "sim").header("api-key", "k");
    let packed = zstd::encode_all(body.as_bytes(), 3).unwrap();
    let request = request.header("content-encoding", "zstd").body(Full::new(packed.into()));
    assert_eq!(send(&sim, request.unwrap()).await.unwrap().status, 200);
    sim.provider.ledger().read(|book| assert_eq!(book.turns[0].frame, body.len()));

    let mut client = Client::connect(&sim).await;
    while !client.socket.next().await.unwrap().unwrap().is_ping() {}
    client.socket.flush().await.unwrap();
    assert!(sim.provider.ledger().wait(|book| book.pongs > 0).await);
}
