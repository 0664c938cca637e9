//! Client keys and the upstream key, end to end: what goes up, and that two clients behind one key never meet.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tailwire::config::ProfileName;
use tokio_tungstenite::tungstenite::Message;

use crate::agent::{Agent, assert_same_contexts};
use crate::http::Client;
use crate::support::{ALICE, BOB, Folder, UPSTREAM, clients, until, upstream_key, websocket};
use crate::world::World;

const WORDS: &str = "the same words [sim calls=2 reasoning=1 text=60]";

fn with(world: &World, key: &str) -> Client {
    world.proxied().with("authorization", &format!("Bearer {key}"))
}

/// The provider's digest of the upstream key, as it sees it from a client that presents it itself.
async fn upstream_credential(world: &World) -> String {
    let direct = world.direct().with("authorization", &format!("Bearer {UPSTREAM}"));
    let turn = Agent::new(direct).run("who am I? [sim text=9]").await.remove(0);
    world.record(turn.id()).credential
}

#[tokio::test]
async fn the_upstream_key_goes_up_and_the_client_s_stays() {
    let world = World::start(
        |settings| {
            settings.client_keys = clients(&[&format!("alice {ALICE}")]);
            settings.upstream_key = upstream_key();
        },
        |_| (),
    )
    .await;
    let credential = upstream_credential(&world).await;
    for stream in [false, true] {
        let mut agent = Agent::new(with(&world, ALICE)).set(&json!({"stream": stream}));
        let turns = agent.run(WORDS).await;
        assert_eq!(turns.last().unwrap().told().plan(), ("delta", "exact"));
        for turn in turns {
            assert_eq!(world.record(turn.id()).credential, credential);
        }
    }
    // What passes through, wherever the key stands.
    for (name, value) in [
        ("authorization", format!("Bearer {ALICE}")),
        ("api-key", ALICE.to_owned()),
        ("x-api-key", ALICE.to_owned()),
        ("x-tailwire-key", ALICE.to_owned()),
    ] {
        let client = world.proxied().without("authorization").with(name, &value);
        let echoed = client.get("/v1/echo").await.json();
        assert_eq!(echoed["headers"]["authorization"], json!([format!("Bearer {UPSTREAM}")]), "{name}");
        assert!(!echoed.to_string().contains(ALICE), "{name}");
    }
    // And a turn that goes plain.
    let plain = with(&world, ALICE).with("x-tailwire-mode", "http");
    let turn = Agent::new(plain).run("plain [sim text=9]").await.remove(0);
    assert_eq!(turn.told().plan(), ("http", "mode"));
    assert_eq!(world.record(turn.id()).credential, credential);
    world.assert_lawful();
}

#[tokio::test]
async fn a_tunnel_goes_up_with_the_upstream_key() {
    let world = World::start(
        |settings| {
            settings.client_keys = clients(&[ALICE]);
            settings.upstream_key = upstream_key();
        },
        |_| (),
    )
    .await;
    let credential = upstream_credential(&world).await;
    let mut socket = websocket(&with(&world, ALICE), "/v1/responses").await.unwrap();
    let frame = json!({"type": "response.create", "model": "m", "store": false, "input": "hi"});
    socket.send(Message::text(frame.to_string())).await.unwrap();
    let response = loop {
        let Message::Text(text) = socket.next().await.unwrap().unwrap() else { continue };
        let event: Value = serde_json::from_str(text.as_str()).unwrap();
        if event["type"] == "response.completed" {
            break event["response"]["id"].as_str().unwrap().to_owned();
        }
    };
    assert_eq!(world.record(&response).credential, credential);
}

#[tokio::test]
async fn azure_takes_its_key_in_a_header_of_its_own() {
    let world = World::start(
        |settings| {
            settings.profile = ProfileName::Azure;
            settings.upstream_key = upstream_key();
        },
        |_| (),
    )
    .await;
    let echoed = world.proxied().get("/v1/echo").await.json();
    assert_eq!(echoed["headers"]["api-key"], json!([UPSTREAM]));
    assert_eq!(echoed["headers"]["authorization"], Value::Null);
    let turns = Agent::new(world.proxied()).run(WORDS).await;
    assert_eq!(turns.last().unwrap().told().plan(), ("delta", "exact"));
}

#[tokio::test]
async fn two_clients_behind_one_upstream_key_never_meet() {
    let world = World::start(
        |settings| {
            settings.client_keys = clients(&[ALICE, BOB]);
            settings.upstream_key = upstream_key();
        },
        |_| (),
    )
    .await;
    let mut alice = Agent::new(with(&world, ALICE)).set(&json!({"store": true}));
    let before = alice.run(WORDS).await.pop().unwrap();
    // With the whole transcript, and with the provider's consent: to it the two are one.
    let mut bob = alice.clone();
    bob.client = with(&world, BOB);
    let turn = bob.run("more [sim text=30]").await.remove(0);
    assert_eq!(turn.told().plan(), ("full", "first-turn"));
    let (hers, his) = (world.record(before.id()), world.record(turn.id()));
    assert_eq!(his.previous, None);
    assert_eq!(hers.credential, his.credential);
    assert_ne!(hers.connection, his.connection, "not even a socket");
    // She is who she was, in whichever header her key comes.
    alice.client = world.proxied().with("authorization", "Bearer other").with("x-tailwire-key", ALICE);
    assert_eq!(alice.run("mine [sim text=30]").await[0].told().plan(), ("delta", "exact"));
    assert_eq!(bob.run("mine [sim text=30]").await[0].told().plan(), ("delta", "exact"));
    world.assert_lawful();
}

#[tokio::test]
async fn without_an_upstream_key_clients_bring_their_own_beside_the_client_key() {
    let world = World::start(|settings| settings.client_keys = clients(&[ALICE, BOB]), |_| ()).await;
    let client = |key: &str| world.proxied().with("x-tailwire-key", key);
    let mut direct = Agent::new(world.direct());
    let mut agent = Agent::new(client(ALICE));
    let turns = agent.run(WORDS).await;
    assert_same_contexts(&direct.run(WORDS).await, &turns);
    assert_eq!(turns.last().unwrap().told().plan(), ("delta", "exact"));
    let echoed = client(ALICE).get("/v1/echo").await.json();
    assert_eq!(echoed["headers"]["authorization"], json!([crate::http::CREDENTIAL]));
    assert!(!echoed.to_string().contains(ALICE));
    // One credential, two clients.
    agent.client = client(BOB);
    assert_eq!(agent.run("more [sim text=30]").await[0].told().plan(), ("full", "first-turn"));
}

#[tokio::test]
async fn on_loopback_a_dummy_key_is_replaced() {
    let world = World::start(|settings| settings.upstream_key = upstream_key(), |_| ()).await;
    let credential = upstream_credential(&world).await;
    // Every SDK insists on some key.
    for client in
        [world.proxied().with("authorization", "Bearer unused"), world.proxied().without("authorization")]
    {
        let turn = Agent::new(client).run(WORDS).await.pop().unwrap();
        assert_eq!(turn.told().plan(), ("delta", "exact"));
        assert_eq!(world.record(turn.id()).credential, credential);
    }
}

#[tokio::test]
async fn keys_are_read_again_when_their_files_change() {
    let folder = Folder::new();
    let keys = folder.write("clients", &format!("# who\nalice {ALICE}\n"));
    let upstream = folder.write("upstream", &format!("{UPSTREAM}\n"));
    let world = World::start(
        |settings| {
            settings.client_keys_file = Some(keys);
            settings.upstream_key_file = Some(upstream);
            settings.timeouts.file_check = Duration::from_millis(5);
        },
        |_| (),
    )
    .await;
    let status = |key: &'static str| {
        let client = with(&world, key);
        async move { client.get("/v1/models").await.status }
    };
    assert_eq!((status(ALICE).await, status(BOB).await), (200.into_status(), 401.into_status()));
    folder.write("clients", &format!("bob {BOB}\n\n"));
    until("the new keys", || async { status(BOB).await == 200 }).await;
    assert_eq!(status(ALICE).await, 401);
    // A file without a key would open the port to everybody; a broken one too.
    for broken in ["", "# nobody\n", "bob too-short\n"] {
        folder.write("clients", broken);
        world.proxy.reload();
        assert_eq!(
            (status(BOB).await, status(ALICE).await),
            (200.into_status(), 401.into_status()),
            "{broken:?}"
        );
    }
    folder.write("clients", &format!("{BOB}\n"));
    folder.write("upstream", "sk-planted-next");
    until("the next key", || async {
        let echoed = with(&world, BOB).get("/v1/echo").await.json();
        echoed["headers"]["authorization"] == json!(["Bearer sk-planted-next"])
    })
    .await;
}

#[tokio::test]
async fn f38_a_new_upstream_key_opens_a_new_socket() {
    let folder = Folder::new();
    let file = folder.write("upstream", "sk-planted-before");
    let world = World::start(|settings| settings.upstream_key_file = Some(file), |_| ()).await;
    let mut agent = Agent::new(world.proxied());
    let before = agent.run(WORDS).await.pop().unwrap();
    folder.write("upstream", UPSTREAM);
    world.proxy.reload();
    let turns = agent.run("more [sim calls=1 text=30]").await;
    let credential = upstream_credential(&world).await;
    let (old, new) = (world.record(before.id()), world.record(turns[0].id()));
    assert_ne!(old.credential, credential);
    assert_eq!(new.credential, credential);
    assert_ne!(old.connection, new.connection);
    assert_eq!(turns[0].told().plan(), ("full", "first-turn"));
    assert_eq!(turns[1].told().plan(), ("delta", "exact"));
}

trait IntoStatus {
    fn into_status(self) -> hyper::StatusCode;
}

impl IntoStatus for u16 {
    fn into_status(self) -> hyper::StatusCode {
        hyper::StatusCode::from_u16(self).unwrap()
    }
}
