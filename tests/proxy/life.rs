//! The life of turns: which plan each gets, and that what `x-tailwire` says of it is what the provider saw.

use std::io::Write;

use hyper::Method;
use serde_json::{Value, json};
use tailwire::config::Reasoning;
use tailwire::sim::Transport;

use crate::agent::{Agent, Turn, assert_same_contexts};
use crate::world::World;

const WORK: &str = "go [sim calls=3 parallel=2 reasoning=1 commentary=1 text=300]";

/// The header agrees with what arrived at the provider.
fn assert_accounted(world: &World, turn: &Turn) {
    let (told, record) = (turn.told(), world.record(turn.id()));
    assert_eq!(record.transport, Transport::WebSocket);
    assert_eq!(told.received, turn.request.len());
    assert_eq!(told.sent, record.frame);
    let (new, all) = told.items.unwrap();
    assert_eq!(new, record.items);
    let body: Value = serde_json::from_str(&turn.request).unwrap();
    assert_eq!(all, body["input"].as_array().unwrap().len());
    assert!(record.stream_id.is_some(), "only named lanes are used");
}

#[tokio::test]
async fn f21_the_first_turn_goes_in_full_and_the_rest_as_deltas() {
    for stream in [false, true] {
        for store in [json!(false), json!(true), Value::Null] {
            let world = World::start(|_| (), |script| script.deflate = true).await;
            let settings = json!({"stream": stream, "store": store});
            let direct = Agent::new(world.direct()).set(&settings).run(WORK).await;
            let mut agent = Agent::new(world.proxied()).set(&settings);
            let mut turns = agent.run(WORK).await;
            assert_same_contexts(&direct, &turns);
            turns.extend(agent.run("and now [sim text=20]").await);
            assert_eq!(turns.len(), 5);
            for (n, turn) in turns.iter().enumerate() {
                let told = turn.told();
                let plan = if n == 0 { ("full", "first-turn") } else { ("delta", "exact") };
                assert_eq!(told.plan(), plan, "turn {n}");
                assert_accounted(&world, turn);
                assert_eq!(told.items.unwrap().0, if (1..4).contains(&n) { 2 } else { 1 });
                assert_eq!(told.wire, world.record(turn.id()).wire, "turn {n}");
                assert!(n == 0 || told.wire < told.received as u64 / 2, "turn {n}: {told:?}");
                assert_eq!(turn.response["previous_response_id"], Value::Null);
                let previous = n.checked_sub(1).map(|before| turns[before].id());
                assert_eq!(world.record(turn.id()).previous.as_deref(), previous);
            }
            world.assert_lawful();
            assert_eq!(world.ledger().read(|book| book.upgrades_granted), 1);
            assert_eq!(world.proxy.metrics().turns_delta.value(), 4);
        }
    }
}

#[tokio::test]
async fn without_compression_the_wire_carries_the_frame_and_its_head() {
    let world = World::plain().await;
    for turn in Agent::new(world.proxied()).run(WORK).await {
        let (told, record) = (turn.told(), world.record(turn.id()));
        assert_eq!(told.wire, record.wire);
        assert!((6..=14).contains(&(told.wire - told.sent as u64)), "{told:?}");
    }
}

#[tokio::test]
async fn a_client_that_drops_reasoning_continues_unless_told_to_be_strict() {
    for (reasoning, expected) in
        [(Reasoning::Keep, ("delta", "visible")), (Reasoning::Strict, ("full", "reasoning-dropped"))]
    {
        let world = World::start(|settings| settings.reasoning = reasoning, |_| ()).await;
        let mut agents = [world.direct(), world.proxied()].map(Agent::new);
        let mut runs = Vec::new();
        for agent in &mut agents {
            agent.drops_reasoning = true;
            runs.push(agent.run(WORK).await);
        }
        for (direct, proxied) in runs[0].iter().zip(&runs[1]).skip(1) {
            assert_eq!(proxied.told().plan(), expected);
            assert_eq!(direct.context().1, proxied.context().1);
            assert_eq!(direct.context().0 == proxied.context().0, reasoning == Reasoning::Strict);
        }
        world.assert_lawful();
    }
}

/// Every request field that `previous_response_id` does not carry over, with another value than the agent's.
fn free_fields() -> Vec<(&'static str, Value)> {
    vec![
        ("include", json!(["reasoning.encrypted_content"])),
        ("instructions", json!("Be long.")),
        ("max_output_tokens", json!(9000)),
        ("max_tool_calls", json!(3)),
        ("metadata", json!({"a": "b"})),
        ("moderation", json!({"input": true})),
        ("parallel_tool_calls", json!(false)),
        ("prompt_cache_key", json!("k")),
        ("prompt_cache_options", json!({"mode": "implicit", "ttl": "12h"})),
        ("prompt_cache_retention", json!("24h")),
        ("reasoning", json!({"effort": "high", "summary": "auto"})),
        ("service_tier", json!("flex")),
        ("stream_options", json!({"include_obfuscation": false})),
        ("temperature", json!(0.25)),
        ("text", json!({"verbosity": "low"})),
        ("tool_choice", json!("required")),
        ("tools", json!([{"type": "function", "name": "other", "parameters": {}}])),
        ("top_logprobs", json!(2)),
        ("top_p", json!(0.5)),
        ("truncation", json!("auto")),
        ("client_metadata", json!({"turn": "2"})),
        ("context_management", json!([{"type": "compaction", "compact_threshold": 100_000}])),
    ]
}

#[tokio::test]
async fn f01_known_fields_change_in_mid_chain_and_turns_stay_deltas() {
    let world = World::plain().await;
    let mut upstream = Vec::new();
    for (client, proxied) in [(world.direct(), false), (world.proxied(), true)] {
        for (field, value) in free_fields() {
            for back in [false, true] {
                let mut agent = Agent::new(client.clone());
                let changed = json!({field: value.clone()});
                agent.change(&if back { changed.clone() } else { json!({}) });
                agent.run(&format!("{field} {back} [sim text=9]")).await;
                let original = Agent::new(client.clone()).settings[field].take();
                agent.change(&if back { json!({field: original}) } else { changed });
                let turns = agent.run("more [sim text=9]").await;
                let record = world.record(turns[0].id());
                if proxied {
                    assert_eq!(turns[0].told().plan(), ("delta", "exact"), "{field}");
                }
                upstream.push((field, back, record.settings, record.digests));
            }
        }
    }
    let (direct, proxied) = upstream.split_at(upstream.len() / 2);
    assert_eq!(direct, proxied);
    world.assert_lawful();
}

#[tokio::test]
async fn f01_a_change_of_an_unknown_field_breaks_the_chain() {
    let world = World::plain().await;
    let mut agent = Agent::new(world.proxied()).set(&json!({"x_new_switch": 1, "stop_at": null}));
    agent.run("one [sim text=9]").await;
    for (change, expected) in [
        (json!({}), ("delta", "exact")),
        (json!({"x_new_switch": 2}), ("full", "field-changed")),
        (json!({}), ("delta", "exact")),
        (json!({"x_new_switch": null}), ("full", "field-changed")),
        (json!({"another": {"b": 1, "a": 2}}), ("full", "field-changed")),
        (json!({"another": {"a": 2, "b": 1}}), ("delta", "exact")),
    ] {
        agent.change(&change);
        let turn = agent.run("more [sim text=9]").await.remove(0);
        assert_eq!(turn.told().plan(), expected, "{change}");
        let direct =
            world.direct().send(Method::POST, "/v1/responses", turn.request.clone()).await.response();
        assert_eq!(direct["sim"], turn.response["sim"]);
        assert_eq!(world.record(turn.id()).settings, world.record(direct["id"].as_str().unwrap()).settings);
    }
}

#[tokio::test]
async fn a_client_that_chains_by_itself_goes_over_the_lane() {
    let world = World::plain().await;
    let ask = |body: Value| {
        let mut asked = json!({"model": "gpt-sim", "stream": false});
        asked.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let client = world.proxied();
        async move { client.ask(&asked).await }
    };
    let first = ask(json!({"input": "hi"})).await.response();
    let mut previous = first["id"].clone();
    for stream in [false, true] {
        let reply = ask(json!({"input": "more", "previous_response_id": previous, "stream": stream})).await;
        assert_eq!(reply.told().plan(), ("full", "client-anchor"));
        let response = reply.response();
        assert_eq!(response["previous_response_id"], previous);
        if stream {
            assert!(reply.events().iter().all(|event| match &event["response"] {
                Value::Null => true,
                response => response["previous_response_id"] == previous,
            }));
        }
        let record = world.record(response["id"].as_str().unwrap());
        assert_eq!((record.transport, record.items), (Transport::WebSocket, 1));
        assert_eq!(record.previous.as_deref(), previous.as_str());
        previous = response["id"].clone();
    }
    let unknown = ask(json!({"input": "more", "previous_response_id": "resp_unknown"})).await;
    assert_eq!((unknown.status.as_u16(), unknown.told().plan()), (400, ("http", "client-anchor")));
    assert_eq!(unknown.json()["error"]["code"], "previous_response_not_found");

    let path = format!("/v1/responses/{}", previous.as_str().unwrap());
    assert_eq!(world.proxied().send(Method::DELETE, &path, "").await.json()["deleted"], true);
    let gone = ask(json!({"input": "more", "previous_response_id": previous})).await;
    assert_eq!((gone.status.as_u16(), gone.told().plan()), (400, ("http", "client-anchor")));
    world.assert_lawful();
}

#[tokio::test]
async fn a_deleted_response_is_not_continued() {
    let world = World::plain().await;
    let mut agent = Agent::new(world.proxied()).set(&json!({"store": true}));
    let first = agent.run("one [sim text=9]").await.remove(0);
    let path = format!("/responses/{}", first.id());
    assert_eq!(world.proxied().send(Method::DELETE, &path, "").await.json()["deleted"], true);
    let second = agent.run("two [sim text=9]").await.remove(0);
    assert_eq!(second.told().plan(), ("full", "first-turn"));
    assert_eq!(world.record(second.id()).previous, None);
    assert_eq!(agent.run("three [sim text=9]").await[0].told().plan(), ("delta", "exact"));
}

#[tokio::test]
async fn a_client_may_have_one_turn_go_plain() {
    let world = World::plain().await;
    let mut agent = Agent::new(world.proxied());
    agent.run("one [sim text=9]").await;
    agent.client = world.proxied().with("x-tailwire-mode", "http");
    let turn = agent.run("two [sim text=9]").await.remove(0);
    assert_eq!(turn.told().plan(), ("http", "mode"));
    let told = turn.told();
    assert_eq!(
        (told.received, told.sent, told.wire),
        (turn.request.len(), turn.request.len(), turn.request.len() as u64)
    );
    assert_eq!(world.record(turn.id()).transport, Transport::Http);
    let echoed = agent.client.get("/v1/echo").await.json();
    assert_eq!(echoed["headers"]["x-tailwire-mode"], Value::Null);
    assert_eq!(echoed["headers"]["authorization"], json!([crate::http::CREDENTIAL]));
}

#[tokio::test]
async fn a_repeated_request_continues_its_parent() {
    for (store, expected) in [(true, ("delta", "exact")), (false, ("full", "lane-advanced"))] {
        let world = World::plain().await;
        let mut agent = Agent::new(world.proxied()).set(&json!({"store": store}));
        agent.run("one [sim text=9]").await;
        let turn = agent.run("two [sim text=9]").await.remove(0);
        let again = world.proxied().send(Method::POST, "/v1/responses", turn.request.clone()).await;
        assert_eq!(again.told().plan(), expected, "store {store}");
        assert_eq!(again.response()["sim"], turn.response["sim"]);
        // Whichever of the two answers the client goes on with.
        for response in [turn.response.clone(), again.response()] {
            let mut next = agent.clone();
            next.history.truncate(3);
            next.take(&response);
            let after = next.run("three").await.remove(0);
            let direct = world.direct().send(Method::POST, "/v1/responses", after.request.clone()).await;
            assert_eq!(direct.response()["sim"], after.response["sim"]);
        }
        world.assert_lawful();
    }
}

type Edit = fn(&mut Vec<Value>);

#[tokio::test]
async fn f15_an_edited_history_goes_in_full() {
    let world = World::plain().await;
    let edits: [(&str, Edit); 6] = [
        ("first-turn", |history| history[0]["content"] = json!("other words")),
        ("echo-missing", |history| drop(history.remove(1))),
        ("echo-changed", |history| history[1]["content"][0]["text"] = json!("not what it said")),
        ("echo-missing", |history| history.insert(1, json!({"role": "user", "content": "wait"}))),
        ("nothing-new", |history| history.truncate(2)),
        ("first-turn", |history| drop(history.drain(..2))),
    ];
    for (n, (expected, edit)) in edits.into_iter().enumerate() {
        let mut agent = Agent::new(world.proxied());
        agent.run(&format!("{n} [sim text=40]")).await;
        agent.hear("and?");
        edit(&mut agent.history);
        let (turn, _) = agent.step().await;
        assert_eq!(turn.told().plan(), ("full", expected), "edit {n}");
        let direct = world.direct().send(Method::POST, "/v1/responses", turn.request.clone()).await;
        assert_eq!(direct.response()["sim"], turn.response["sim"]);
    }
    world.assert_lawful();
}

#[tokio::test]
async fn the_header_can_be_switched_off() {
    let world = World::start(|settings| settings.plan_header = false, |_| ()).await;
    let client = world.proxied().with("x-tailwire-mode", "http");
    for client in [world.proxied(), client] {
        for turn in Agent::new(client).run(WORK).await {
            assert!(!turn.reply.headers.contains_key("x-tailwire"));
        }
    }
}

/// Brotli without compression: RFC 7932's uncompressed meta-blocks, each of at most 64 KiB.
fn brotli(text: &[u8]) -> Vec<u8> {
    // A window of 16 bits is one zero bit; then ISLAST 0, MNIBBLES 00 (four), MLEN - 1, ISUNCOMPRESSED 1.
    let mut out = Vec::new();
    let (mut bits, mut held) = (0_u64, 1);
    for block in text.chunks(1 << 16) {
        bits |= (((block.len() as u64 - 1) << 3) | (1 << 19)) << held;
        held += 20;
        out.extend_from_slice(&bits.to_le_bytes()[..usize::div_ceil(held, 8)]);
        out.extend_from_slice(block);
        (bits, held) = (0, 0);
    }
    out.push(0b11);
    out
}

fn encoded(coding: &str, text: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::default();
    match coding {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        }
        "zstd" => zstd::encode_all(text, 3).unwrap(),
        "br" => brotli(text),
        _ => text.to_vec(),
    }
}

#[tokio::test]
async fn encoded_bodies_become_the_same_deltas() {
    let world = World::plain().await;
    let mut agent = Agent::new(world.proxied());
    agent.run("one [sim text=300]").await;
    for coding in ["gzip", "zstd", "br", "deflate", "identity"] {
        agent.hear("more [sim text=30]");
        let body = encoded(coding, agent.body().as_bytes());
        let length = body.len();
        let client = world.proxied().with("content-encoding", coding);
        let reply = client.send(Method::POST, "/v1/responses", body).await;
        let told = reply.told();
        assert_eq!(told.plan(), ("delta", "exact"), "{coding}");
        assert_eq!((told.items.unwrap().0, told.received), (1, length), "{coding}");
        agent.take(&reply.response());
    }
    let over_http = world.proxied().with("content-encoding", "zstd").with("x-tailwire-mode", "http");
    agent.hear("plain [sim text=30]");
    let body = encoded("zstd", agent.body().as_bytes());
    assert_eq!(over_http.send(Method::POST, "/v1/responses", body).await.told().plan(), ("http", "mode"));
}
