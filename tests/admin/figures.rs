//! The figures: to the byte what the provider saw, on every page of the listener, for turns of every kind.

use hyper::Method;
use serde_json::{Value, json};
use tailwire::sim::script::{NotFound, Upgrade};
use tailwire::sim::{Fault, Mishap, Moment, Transport};

use crate::agent::{Agent, Turn};
use crate::http::Told;
use crate::support::{admin, looked_at, scrape, until};
use crate::world::World;

const WORK: &str = "go [sim calls=3 text=300]";

/// What went up by the provider's own book: JSON, and on the wire as `x-tailwire` counts it (over HTTP the body alone).
fn by_the_ledger(world: &World) -> (usize, u64) {
    world.ledger().read(|book| {
        book.turns.iter().fold((0, 0), |(sent, wire), record| match record.transport {
            Transport::WebSocket => (sent + record.frame, wire + record.wire),
            _ => (sent + record.frame, wire + record.frame as u64),
        })
    })
}

/// An agent over sockets as JSON, one as SSE, one over HTTP; and a chat turn.
async fn all_kinds(world: &World) -> Vec<Turn> {
    let mut turns = Agent::new(world.proxied()).run(WORK).await;
    let mut streaming = Agent::new(world.proxied()).set(&json!({"stream": true}));
    turns.extend(streaming.run(&format!("{WORK} as a stream")).await);
    turns.extend(Agent::new(world.proxied().with("x-tailwire-mode", "http")).run(WORK).await);
    turns
}

async fn chat(world: &World) -> (usize, Told) {
    let body =
        json!({"model": "m", "messages": [{"role": "user", "content": "hi [sim text=9]"}]}).to_string();
    let reply = world.proxied().send(Method::POST, "/v1/chat/completions", body.clone()).await;
    assert_eq!(reply.status, 200);
    (body.len(), reply.told())
}

#[tokio::test]
async fn metrics_are_what_the_provider_saw_to_the_byte() {
    let world = looked_at(|_| (), |script| script.deflate = true).await;
    let turns = all_kinds(&world).await;
    let (chat_bytes, chat_told) = chat(&world).await;
    assert_eq!(chat_told.plan(), ("full", "first-turn"));
    let scrape = scrape(&admin(&world)).await;
    let (sent, wire) = by_the_ledger(&world);
    let received = turns.iter().map(|turn| turn.request.len()).sum::<usize>() + chat_bytes;
    for (name, bytes) in [
        ("tailwire_received_bytes_total", received as f64),
        ("tailwire_sent_bytes_total", sent as f64),
        ("tailwire_wire_bytes_total", wire as f64),
    ] {
        assert_eq!(scrape.value(name, &[]), bytes, "{name}");
    }
    assert_eq!(scrape.sum("tailwire_turn_received_bytes_sum"), received as f64);
    assert_eq!(scrape.sum("tailwire_turn_wire_bytes_sum"), wire as f64);
    let run = turns.len() as f64 / 3.0;
    for (plan, api, count) in [
        ("delta", "responses", 2.0 * (run - 1.0)),
        ("full", "responses", 2.0),
        ("http", "responses", run),
        ("full", "chat", 1.0),
        ("delta", "chat", 0.0),
    ] {
        assert_eq!(
            scrape.value("tailwire_turns_total", &[("plan", plan), ("api", api)]),
            count,
            "{plan} {api}"
        );
    }
    assert_eq!(scrape.value("tailwire_turn_reasons_total", &[("reason", "first-turn")]), 3.0);
    assert_eq!(scrape.value("tailwire_turn_reasons_total", &[("reason", "mode")]), run);
    let all = turns.len() as f64 + 1.0;
    assert_eq!(scrape.value("tailwire_turns_ended_total", &[("outcome", "completed")]), all);
    assert_eq!(scrape.sum("tailwire_turns_ended_total"), all);
    for name in ["tailwire_added_latency_seconds_count", "tailwire_first_event_seconds_count"] {
        assert_eq!(scrape.sum(name), all, "{name}");
    }
    let opened = world.ledger().read(|book| book.upgrades_granted) as f64;
    assert_eq!(scrape.value("tailwire_sockets_opened_total", &[]), opened);
    assert_eq!(scrape.sum("tailwire_sockets"), opened);
    assert_eq!(scrape.value("tailwire_turns_under_way", &[]), 0.0);
    assert_eq!(scrape.value("tailwire_request_bodies_bytes", &[]), 0.0);
}

#[tokio::test]
async fn every_turn_is_on_record_as_its_client_was_told() {
    let world = looked_at(|settings| settings.limits.recent_turns = 5, |_| ()).await;
    let turns = all_kinds(&world).await;
    let (chat_bytes, _) = chat(&world).await;
    let rows = admin(&world).get("/turns").await.json()["turns"].take();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 5, "the last ones only");
    let numbers: Vec<u64> = rows.iter().map(|row| row["number"].as_u64().unwrap()).collect();
    let all = turns.len() as u64 + 1;
    assert_eq!(numbers, (all - 4..=all).collect::<Vec<_>>());
    for (row, turn) in rows.iter().zip(&turns[turns.len() - 4..]) {
        let told = turn.told();
        assert_eq!((row["plan"].as_str(), row["reason"].as_str()), (Some("http"), Some(&*told.why)));
        assert_eq!(row["received_bytes"], told.received);
        assert_eq!((&row["sent_bytes"], &row["wire_bytes"]), (&json!(told.sent), &json!(told.wire)));
        assert_eq!(
            (&row["api"], &row["form"], &row["items"]),
            (&json!("responses"), &json!("json"), &Value::Null)
        );
        assert_eq!((&row["status"], &row["outcome"]), (&json!(200), &json!("completed")));
        let seconds = |name: &str| row[name].as_f64().unwrap();
        assert!(seconds("added_seconds") <= seconds("first_event_seconds"), "{row}");
        assert!(seconds("first_event_seconds") <= seconds("duration_seconds"), "{row}");
    }
    let row = rows.last().unwrap();
    assert_eq!(
        (&row["api"], &row["plan"], &row["received_bytes"]),
        (&json!("chat"), &json!("full"), &json!(chat_bytes))
    );
}

#[tokio::test]
async fn a_turn_whose_client_leaves_is_counted_with_what_went_up_for_it() {
    for stream in [false, true] {
        let world = looked_at(|_| (), |script| script.deflate = true).await;
        world.slow();
        let (client, body) =
            (world.proxied(), json!({"model": "m", "input": "hi [sim text=500]", "stream": stream}));
        let text = body.to_string();
        let asking = tokio::spawn(async move { client.ask(&body).await });
        world.in_flight(1).await;
        asking.abort();
        let admin = admin(&world);
        until("it is on record", async || admin.get("/stats").await.json()["outcomes"]["abandoned"] == 1)
            .await;
        let stats = admin.get("/stats").await.json();
        let (sent, wire) = by_the_ledger(&world);
        assert_eq!(
            stats["bytes"],
            json!({"received": text.len(), "sent": sent, "wire": wire}),
            "stream: {stream}"
        );
        assert_eq!(stats["turns"], json!({"delta": 0, "full": 1, "http": 0}));
        let rows = admin.get("/turns").await.json();
        let row = &rows["turns"][0];
        assert_eq!(
            (&row["outcome"], &row["plan"], &row["sent_bytes"]),
            (&json!("abandoned"), &json!("full"), &json!(sent))
        );
        until("the place is free", async || world.proxy.turns().0 == 0).await;
    }
}

#[tokio::test]
async fn a_turn_that_recovers_says_how_far_down_it_went() {
    let after_send = |fault| Mishap::new(Moment::AfterSend, fault);
    let no_socket = Mishap::new(Moment::Upgrade, Fault::Upgrade(Upgrade::refuse(426)));
    let error = json!({"type": "error", "status": 400, "error": {"code": "bad", "message": "m"}});
    for (mishaps, plan, rung, recoveries, status) in [
        (vec![after_send(Fault::NotFound(NotFound::Nested))], "full", "full-same", 1, 200),
        (vec![after_send(Fault::Reset)], "full", "full-new", 1, 200),
        (vec![after_send(Fault::Reset), no_socket], "http", "http", 2, 200),
        (vec![after_send(Fault::Error(error))], "delta", "fail", 0, 400),
    ] {
        let world = looked_at(|_| (), |script| script.deflate = true).await;
        let mut agent = Agent::new(world.proxied());
        agent.run("go [sim text=9]").await;
        mishaps.into_iter().for_each(|mishap| world.sim.provider.mishap(mishap));
        agent.hear("on [sim text=9]");
        let reply = agent.client.send(Method::POST, "/v1/responses", agent.body()).await;
        assert_eq!(reply.status, status, "{rung}");
        let row = admin(&world).get("/turns").await.json()["turns"][1].take();
        let outcome = if status == 200 { "completed" } else { "failed" };
        for (name, value) in [
            ("plan", json!(plan)),
            ("rung", json!(rung)),
            ("recoveries", json!(recoveries)),
            ("status", json!(status)),
            ("outcome", json!(outcome)),
        ] {
            assert_eq!(row[name], value, "{rung}: {name}");
        }
        let sent = admin(&world).get("/stats").await.json()["bytes"]["sent"].take();
        assert_eq!(sent, by_the_ledger(&world).0, "{rung}: tries in vain are counted");
    }
}

#[tokio::test]
async fn stats_show_the_sockets_and_what_the_summary_says() {
    let world = looked_at(|_| (), |_| ()).await;
    let turns = Agent::new(world.proxied()).run(WORK).await;
    let stats = admin(&world).get("/stats").await.json();
    let summary = serde_json::to_value(world.proxy.summary()).unwrap();
    for (name, value) in summary.as_object().unwrap() {
        assert_eq!(&stats[name], value, "{name}");
    }
    let bytes = &stats["bytes"];
    let part = |name: &str| bytes[name].as_f64().unwrap() / bytes["received"].as_f64().unwrap();
    assert_eq!(stats["saved"].as_f64(), Some(1.0 - part("wire")));
    assert_eq!(stats["saved_before_compression"].as_f64(), Some(1.0 - part("sent")));
    assert_eq!(stats["first_event_seconds"]["count"], turns.len());
    let sockets = stats["sockets"].as_array().unwrap();
    assert_eq!(sockets.len(), 1);
    assert_eq!(sockets[0]["state"], "open");
    assert_eq!(sockets[0]["lanes"], json!(["held"]), "one conversation, one lane, which holds its head");
    assert_eq!((&stats["draining"], &stats["profile"]), (&json!(false), &json!("openai")));
    let limit = world.proxy.metrics().sockets_opened.value();
    assert_eq!(stats["held"]["sockets"], json!({"now": limit, "most": 256}));
}

#[tokio::test]
async fn nothing_says_what_was_said_or_by_whom() {
    let world = looked_at(|_| (), |_| ()).await;
    all_kinds(&world).await;
    let admin = admin(&world);
    for path in ["/", "/live", "/ready", "/metrics", "/stats", "/turns"] {
        let reply = admin.get(path).await;
        assert_eq!(reply.status, 200, "{path}");
        assert_eq!(crate::world::scanner::planted(&reply.body), None, "{path}");
    }
}
