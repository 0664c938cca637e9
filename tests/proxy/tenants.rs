//! Nothing crosses from one tenant to another: not a socket, not a head, however equal their words.

use serde_json::json;
use tailwire::sim::Transport;

use crate::agent::{Agent, assert_same_contexts};
use crate::http::{CREDENTIAL, Client};
use crate::world::World;

const WORDS: &str = "the same words [sim calls=2 reasoning=1 text=60]";

#[tokio::test]
async fn f36_two_credentials_with_equal_words_share_nothing() {
    let world = World::plain().await;
    let mut agents = [CREDENTIAL, "Bearer sk-planted-b"]
        .map(|key| Agent::new(world.proxied().with("authorization", key)).set(&json!({"store": true})));
    let mut runs = Vec::new();
    // In turns, so that each could take up what the other has just left.
    for text in [WORDS, "more [sim text=30]", "and more [sim text=30]"] {
        for agent in &mut agents {
            runs.push(agent.run(text).await);
        }
    }
    for pair in runs.chunks(2) {
        assert_same_contexts(&pair[0], &pair[1]);
    }
    for (n, run) in runs.iter().enumerate() {
        for (m, turn) in run.iter().enumerate() {
            let plan = if n < 2 && m == 0 { ("full", "first-turn") } else { ("delta", "exact") };
            assert_eq!(turn.told().plan(), plan);
        }
    }
    let of = |run: &[crate::agent::Turn]| {
        run.iter()
            .map(|turn| world.record(turn.id()))
            .map(|record| (record.connection, record.credential))
            .collect::<Vec<_>>()
    };
    let (one, other) = (of(&runs[0]), of(&runs[1]));
    assert!(one.iter().all(|pair| *pair == one[0]) && other.iter().all(|pair| *pair == other[0]));
    assert!(one[0].0 != other[0].0 && one[0].1 != other[0].1);
    assert_eq!(world.ledger().read(|book| book.upgrades_granted), 2);
    world.assert_lawful();
}

#[tokio::test]
async fn one_key_may_serve_many_people() {
    let client = |world: &World, name: Option<&'static str>| -> Client {
        match name {
            Some(name) => world.proxied().with(name, "another"),
            None => world.proxied(),
        }
    };
    let table = [
        (json!({"user": "another"}), None, true),
        (json!({"model": "gpt-sim-mini"}), None, true),
        (json!({"safety_identifier": "another"}), None, true),
        (json!({"store": true}), None, true),
        (json!({}), Some("openai-organization"), false),
        (json!({}), Some("openai-project"), false),
        (json!({}), Some("session-id"), false),
        (json!({}), Some("x-some-gateway-user"), false),
        (json!({}), Some("cookie"), false),
    ];
    for (change, header, same_socket) in table {
        let world = World::plain().await;
        let mut first = Agent::new(world.proxied());
        let before = first.run(WORDS).await.pop().unwrap();
        // Somebody else with the first one's whole transcript.
        let mut other = first.clone().set(&change);
        other.client = client(&world, header);
        let turn = other.run("more [sim text=30]").await.remove(0);
        let record = world.record(turn.id());
        assert_eq!(record.transport, Transport::WebSocket);
        assert_eq!(turn.told().plan(), ("full", "first-turn"), "{change} {header:?}");
        assert_eq!(record.previous, None);
        assert_eq!(
            record.connection == world.record(before.id()).connection,
            same_socket,
            "{change} {header:?}"
        );
        // Which costs the first one nothing.
        assert_eq!(first.run("mine [sim text=30]").await[0].told().plan(), ("delta", "exact"));
        world.assert_lawful();
    }
}

#[tokio::test]
async fn f08_what_differs_from_turn_to_turn_separates_nobody() {
    let world = World::plain().await;
    let mut agent = Agent::new(world.proxied());
    agent.run(WORDS).await;
    for (name, value) in [
        ("traceparent", "00-1"),
        ("x-request-id", "r2"),
        ("x-client-request-id", "r3"),
        ("idempotency-key", "i4"),
        ("user-agent", "another/1.0"),
        ("x-stainless-retry-count", "1"),
        ("accept", "text/event-stream"),
        ("x-forwarded-for", "192.0.2.1"),
    ] {
        agent.client = world.proxied().with(name, value);
        assert_eq!(agent.run("more [sim text=30]").await[0].told().plan(), ("delta", "exact"), "{name}");
    }
    assert_eq!(world.ledger().read(|book| book.upgrades_granted), 1);
}

#[tokio::test]
async fn f34_another_s_response_cannot_be_named() {
    let world = World::plain().await;
    let first =
        Agent::new(world.proxied()).set(&json!({"store": true})).run("hi [sim text=30]").await.remove(0);
    let stranger = world.proxied().with("authorization", "Bearer sk-planted-b");
    let body = json!({"model": "gpt-sim", "input": "what did we say?", "previous_response_id": first.id()});
    let refused = stranger.ask(&body).await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.told().plan(), ("http", "client-anchor"));
    assert_eq!(refused.json()["error"]["code"], "previous_response_not_found");
    // The stranger's own doing, passed on as it was: the provider notes it of them.
    world.ledger().read(|book| assert_eq!(book.violations.len(), 1));
    let path = format!("/v1/responses/{}", first.id());
    assert_eq!(stranger.send(hyper::Method::DELETE, &path, "").await.status, 404);
    assert_eq!(world.proxied().ask(&body).await.told().plan(), ("full", "client-anchor"), "still there");
}
