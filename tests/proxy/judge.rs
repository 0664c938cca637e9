//! Outside judges: tokio-tungstenite, which shares no code with our frames, accepts the upstream socket; and
//! async-openai's types, which know only the published API, parse everything a client is given.

use std::time::Instant;

use async_openai::types::responses::{Response, ResponseStreamEvent};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tailwire::app;
use tailwire::sim::rules::{Account, Connection};
use tailwire::sim::script::{Limits, Style};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response as Accepted};

use crate::agent::{Agent, Turn, assert_same_contexts};
use crate::http::{CREDENTIAL, Client};
use crate::world::{World, settings_for};

/// What the judge saw of one socket: its handshake, and its frames.
#[derive(Debug)]
enum Seen {
    Handshake(Request),
    Frame(Value),
}

/// Accepts one socket and lets the provider's rules answer, at once and in order.
async fn judge(stream: TcpStream, seen: mpsc::Sender<Seen>) {
    let mut handshake = None;
    #[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
    let look = |request: &Request, reply: Accepted| -> Result<Accepted, ErrorResponse> {
        handshake = Some(request.clone());
        Ok(reply)
    };
    let mut socket = accept_hdr_async(stream, look).await.unwrap();
    seen.send(Seen::Handshake(handshake.unwrap())).await.unwrap();
    let (limits, mut account) = (Limits::default(), Account::new([7; 32]));
    let mut rules = Connection::new(Instant::now(), "0123456789abcdef");
    while let Some(Ok(message)) = socket.next().await {
        let text = match message {
            Message::Text(text) => text,
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Close(_) => return,
            other => panic!("{other:?}"),
        };
        let frame: Value = serde_json::from_str(text.as_str()).expect("one JSON object in each frame");
        assert!(frame.is_object());
        let received = rules.receive(Instant::now(), &limits, &mut account, text.as_str()).unwrap();
        seen.send(Seen::Frame(frame)).await.unwrap();
        while let Some(event) = rules.advance(&limits, &mut account, Style::default(), 1, received.turn) {
            socket.send(Message::text(event.frame.to_string())).await.unwrap();
        }
        assert_eq!(account.drain_violations(), []);
    }
}

#[tokio::test]
async fn tokio_tungstenite_accepts_our_socket_and_our_frames() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (seen, mut all) = mpsc::channel(64);
    let upstream = format!("http://{}/v1", listener.local_addr().unwrap());
    let judging = tokio::spawn(async move { judge(listener.accept().await.unwrap().0, seen).await });
    let proxy = app::Running::start(settings_for(&upstream)).await.unwrap();
    let client = Client::new(proxy.addr).with("user-agent", "agent/1").with("openai-project", "p");
    // The last one is long enough for a frame's longest form of length.
    let long = format!("{} [sim text=9]", "long ".repeat(20_000));
    let words = ["go [sim calls=2 reasoning=1]", "é🦀 \u{2028} \"quoted\" [sim text=9]", &long];
    let mut agent = Agent::new(client);
    let mut turns = Vec::new();
    for (n, text) in words.into_iter().enumerate() {
        agent.change(&json!({"stream": n % 2 == 0}));
        turns.extend(agent.run(text).await);
    }
    let plans: Vec<_> = turns.iter().map(|turn| turn.told().plan).collect();
    assert_eq!(plans, ["full", "delta", "delta", "delta", "delta"]);
    proxy.stop().await;
    judging.await.unwrap();

    let Some(Seen::Handshake(handshake)) = all.recv().await else { panic!("no handshake") };
    assert_eq!((handshake.method().as_str(), handshake.uri().path()), ("GET", "/v1/responses"));
    for (name, value) in [
        ("authorization", CREDENTIAL),
        ("user-agent", "agent/1"),
        ("openai-project", "p"),
        ("host", &upstream[7..upstream.len() - 3]),
    ] {
        assert_eq!(handshake.headers()[name], value, "{name}");
    }
    assert!(!handshake.headers().contains_key("content-type"));
    let mut previous = Value::Null;
    for turn in &turns {
        let Some(Seen::Frame(frame)) = all.recv().await else { panic!("a frame for each turn") };
        assert_eq!(frame["type"], "response.create");
        assert_eq!(frame["previous_response_id"], previous);
        assert_eq!(frame["instructions"], agent.settings["instructions"]);
        assert!(frame.get("stream").is_none() && frame["stream_id"].is_string());
        assert_eq!(frame["input"].as_array().unwrap().len(), turn.told().items.unwrap().0);
        previous = turn.response["id"].clone();
    }
    assert!(all.recv().await.is_none(), "one socket, no frame more");

    let world = World::plain().await;
    let mut direct = Agent::new(world.direct());
    let mut same = Vec::new();
    for text in words {
        same.extend(direct.run(text).await);
    }
    assert_same_contexts(&same, &turns);
}

fn assert_parses(turn: &Turn) {
    let events = if turn.reply.is_stream() { turn.reply.events() } else { Vec::new() };
    for event in events {
        if event["type"] == "response.future_thing.delta" {
            continue;
        }
        if let Err(error) = serde_json::from_value::<ResponseStreamEvent>(event.clone()) {
            panic!("{error}: {event}");
        }
    }
    if let Err(error) = serde_json::from_value::<Response>(turn.response.clone()) {
        panic!("{error}: {}", turn.response);
    }
}

#[tokio::test]
async fn everything_a_client_is_given_has_the_published_types() {
    let plain = Style::default();
    let odd = Style { empty_output: true, late_frames: true, single_delta: true, pretty: true, ..plain };
    for style in [plain, Style { sparse: true, ..plain }, odd, Style { sparse: true, ..odd }] {
        for stream in [false, true] {
            let world = World::start(|_| (), |script| script.style = style).await;
            let mut agent = Agent::new(world.proxied()).set(&json!({"stream": stream}));
            for text in
                ["go [sim calls=2 parallel=2 reasoning=1 commentary=1]", "again [sim calls=1 custom=1]"]
            {
                agent.run(text).await.iter().for_each(assert_parses);
            }
        }
    }
}
