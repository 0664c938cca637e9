//! Chat Completions through the proxy: the native answer field by field, each turn after the first a delta, and the
//! provider's own Chat API for whatever has no counterpart.

use hyper::Method;
use serde_json::{Value, json};
use tailwire::config::{Chat, Settings};
use tailwire::sim::ledger::Outcome;
use tailwire::sim::script::Limits;
use tailwire::sim::{Fault, Mishap, Moment, Transport};

use crate::chat_rows::{read, table, without_ids};
use crate::http::{Client, Reply};
use crate::world::World;

async fn ask(client: &Client, body: &Value) -> Reply {
    client.send(Method::POST, "/v1/chat/completions", body.to_string()).await
}

fn text(reply: &Reply) -> String {
    String::from_utf8(reply.body.to_vec()).unwrap()
}

/// What the model saw for this answer: without hidden reasoning, which Chat has no place for.
fn visible(world: &World, reply: &Reply) -> String {
    let answer = read(&text(reply)).swap_remove(0);
    let id = answer["id"].as_str().unwrap();
    world.ledger().read(|book| book.answer(id).expect("the provider made it").digests.visible.clone())
}

#[tokio::test]
async fn an_answer_is_the_native_one() {
    let world = World::plain().await;
    for (row, extra) in table() {
        for (stream, usage) in [(false, false), (true, false), (true, true)] {
            let mut body = json!({"model": "gpt-sim"});
            body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            if stream {
                body["stream"] = true.into();
            }
            if usage {
                body["stream_options"] = json!({"include_usage": true});
            }
            let (native, ours) = (ask(&world.direct(), &body).await, ask(&world.proxied(), &body).await);
            assert_eq!((native.status.as_u16(), ours.status.as_u16()), (200, 200), "{row}: {}", text(&ours));
            assert_eq!(ours.told().plan, "full", "{row}: {:?}", ours.told());
            assert_eq!(visible(&world, &ours), visible(&world, &native), "{row}: what the model sees");
            let kind = |reply: &Reply| reply.header("content-type").split(';').next().map(str::to_owned);
            assert_eq!(kind(&ours), kind(&native), "{row}");
            let (ours, native) = (read(&text(&ours)), read(&text(&native)));
            assert_eq!(ours.len(), native.len(), "{row}, stream {stream}: {ours:?} {native:?}");
            for (ours, native) in ours.into_iter().zip(native) {
                assert_eq!(without_ids(ours), without_ids(native), "{row}, stream {stream}");
            }
        }
    }
    world.assert_lawful();
}

/// An assistant message as an SDK makes it of an answer.
fn message(reply: &Reply) -> Value {
    let parts = read(&text(reply));
    if let [whole] = &parts[..] {
        return whole["choices"][0]["message"].clone();
    }
    let mut message = json!({"role": "assistant", "content": null});
    let mut calls: Vec<Value> = Vec::new();
    for delta in parts.iter().filter_map(|chunk| chunk["choices"].get(0).map(|choice| &choice["delta"])) {
        if let Some(piece) = delta["content"].as_str().filter(|piece| !piece.is_empty()) {
            message["content"] = (message["content"].as_str().unwrap_or_default().to_owned() + piece).into();
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let index = call["index"].as_u64().unwrap() as usize;
            if index == calls.len() {
                calls.push(json!({"id": call["id"], "type": "function",
                    "function": {"name": call["function"]["name"], "arguments": ""}}));
            }
            let piece = call["function"]["arguments"].as_str().unwrap();
            let said = calls[index]["function"]["arguments"].as_str().unwrap().to_owned() + piece;
            calls[index]["function"]["arguments"] = said.into();
        }
    }
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    message
}

#[tokio::test]
async fn every_turn_after_the_first_is_a_delta() {
    for stream in [false, true] {
        let world = World::plain().await;
        let tool =
            json!({"type": "function", "function": {"name": "shell", "parameters": {"type": "object"}}});
        let wish = "go [sim calls=6 parallel=2 reasoning=1 commentary=1 text=80]";
        let mut messages = vec![json!({"role": "user", "content": wish})];
        let mut plans = Vec::new();
        loop {
            let body = json!({"model": "gpt-sim", "stream": stream, "tools": [tool], "messages": messages});
            let reply = ask(&world.proxied(), &body).await;
            let native = ask(&world.direct(), &body).await;
            assert_eq!(visible(&world, &reply), visible(&world, &native), "what the model sees");
            plans.push(reply.told());
            let said = message(&reply);
            assert_eq!(said["content"], message(&native)["content"]);
            messages.push(said.clone());
            let calls = said["tool_calls"].as_array().cloned().unwrap_or_default();
            if calls.is_empty() {
                break;
            }
            messages.extend(
                calls
                    .iter()
                    .map(|call| json!({"role": "tool", "tool_call_id": call["id"], "content": "done"})),
            );
        }
        assert_eq!(plans.len(), 7, "{plans:?}");
        assert_eq!(plans[0].plan(), ("full", "first-turn"));
        for told in &plans[1..] {
            assert_eq!((told.plan(), told.items.unwrap().0), (("delta", "visible"), 2), "{told:?}");
        }
        world.assert_lawful();
    }
}

#[tokio::test]
async fn what_has_no_counterpart_is_the_providers_own() {
    let world = World::plain().await;
    for (extra, reason) in [
        (json!({"n": 2}), "field:n"),
        (json!({"stop": "x"}), "field:stop"),
        (json!({"seed": 1, "stream": true}), "field:seed"),
        (json!({"max_tokens": 3}), "field:max_tokens"),
        (json!({"messages": [{"role": "user", "name": "ann", "content": "hi [sim text=20]"}]}), "field:name"),
        (json!({"messages": [{"role": "robot", "content": "hi"}]}), "field:role"),
        (json!({"messages": []}), "field:messages"),
        (json!({"model": null}), "not-understood"),
    ] {
        let mut body =
            json!({"model": "gpt-sim", "messages": [{"role": "user", "content": "hi [sim text=20]"}]});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let (native, ours) = (ask(&world.direct(), &body).await, ask(&world.proxied(), &body).await);
        assert_eq!(ours.status, native.status, "{extra}");
        assert_eq!(ours.told().plan(), ("http", reason), "{extra}");
        let bare = |reply: &Reply| {
            let parts = read(&text(reply));
            parts
                .into_iter()
                .map(|part| if part["id"].is_string() { without_ids(part) } else { part })
                .collect::<Vec<_>>()
        };
        assert_eq!(bare(&ours), bare(&native), "{extra}");
    }
}

#[tokio::test]
async fn a_model_that_speaks_chat_only_is_found_out_once() {
    let limits = Limits { chat_only: &["gpt-old"], ..Limits::default() };
    let world = World::start(|_| (), |script| script.limits = limits).await;
    let body = json!({"model": "gpt-old", "messages": [{"role": "user", "content": "hi [sim text=20]"}]});
    let frames = |world: &World| {
        world
            .ledger()
            .read(|book| book.turns.iter().filter(|turn| turn.transport == Transport::WebSocket).count())
    };
    for expected in [1, 1] {
        let reply = ask(&world.proxied(), &body).await;
        assert_eq!((reply.status.as_u16(), reply.told().plan()), (200, ("http", "chat-only")));
        assert_eq!(frames(&world), expected);
    }
    let named = World::start(|settings| settings.chat_only_models = vec!["gpt-*".to_owned()], |_| ()).await;
    let reply = ask(&named.proxied(), &body).await;
    assert_eq!((reply.told().plan(), frames(&named)), (("http", "chat-only"), 0));
    // Where nothing is translated nothing is told either.
    let off = World::start(|settings| settings.chat = Chat::Passthrough, |_| ()).await;
    let reply = ask(&off.proxied(), &body).await;
    assert_eq!((reply.status.as_u16(), reply.header("x-tailwire"), frames(&off)), (200, "", 0));
}

#[tokio::test]
async fn a_conversation_whose_translation_is_refused_goes_native_from_then_on() {
    let refused = json!({"type": "error", "status": 400, "error": {"type": "invalid_request_error",
        "code": "unsupported_parameter", "message": "No.", "param": "tools"}});
    let world = World::plain().await;
    let mishap = || Mishap::new(Moment::AfterSend, Fault::Error(refused.clone()));
    let strike = || world.sim.provider.mishap(mishap());
    let first = json!({"role": "user", "content": "one [sim text=20]"});
    let body = |messages: &[&Value]| json!({"model": "gpt-sim", "messages": messages});
    // Refused by both: the request is to blame, and nothing is learnt of its translation.
    strike();
    world.sim.provider.mishap(mishap().over_http());
    let reply = ask(&world.proxied(), &body(&[&first])).await;
    assert_eq!((reply.status.as_u16(), reply.told().plan()), (400, ("http", "refused")));
    strike();
    let reply = ask(&world.proxied(), &body(&[&first])).await;
    let told = reply.told();
    assert_eq!((reply.status.as_u16(), told.plan()), (200, ("http", "refused")));
    assert!(told.sent > told.received, "in vain once: {told:?}");
    let said = message(&reply);
    let more = json!({"role": "user", "content": "two [sim text=20]"});
    let told = ask(&world.proxied(), &body(&[&first, &said, &more])).await.told();
    assert_eq!((told.plan(), told.sent), (("http", "refused"), told.received), "and not again");
    // Other conversations, and other clients' of the same words, have not been refused.
    assert_eq!(ask(&world.proxied(), &body(&[&more])).await.told().plan, "full");
    let other = world.proxied().with("authorization", "Bearer sk-planted-b");
    assert_eq!(ask(&other, &body(&[&first])).await.told().plan, "full");
    assert_eq!(world.proxy.metrics().reasons.value("refused"), 3);
    world.assert_lawful();
}

#[tokio::test]
async fn f59_a_translated_request_counts_with_what_it_becomes() {
    const KIB: usize = 1 << 10;
    let tune = |settings: &mut Settings| {
        settings.limits.body = 200 * KIB;
        settings.limits.all_bodies = 350 * KIB;
    };
    let world = World::start(tune, |_| ()).await;
    world.slow();
    let send = |name: &str| {
        let content = format!("{name} [sim text=400] {}", "x".repeat(100 * KIB));
        let body = json!({"model": "gpt-sim", "messages": [{"role": "user", "content": content}]});
        let client = world.proxied();
        tokio::spawn(async move { ask(&client, &body).await })
    };
    let running = async |turns: usize| {
        assert!(
            world.ledger().wait(|book| book.count(Outcome::Running) == turns).await,
            "{turns} are under way"
        );
    };
    let first = send("one");
    running(1).await;
    let held = world.proxy.bodies();
    assert!((200 * KIB..205 * KIB).contains(&held), "itself and its translation: {held}");
    // There is room for the body, and none for its translation.
    let second = send("two");
    running(2).await;
    let held = world.proxy.bodies();
    assert!((300 * KIB..305 * KIB).contains(&held), "as it came: {held}");
    world.fast();
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!((first.status.as_u16(), first.told().plan()), (200, ("full", "first-turn")));
    assert_eq!((second.status.as_u16(), second.told().plan()), (200, ("http", "too-large")));
    assert_eq!(world.proxy.bodies(), 0);
    world.assert_lawful();
}

#[tokio::test]
async fn failures_before_the_first_chunk_are_statuses_and_after_it_errors() {
    let asking = |stream: bool, hi: &str| json!({"model": "gpt-sim", "stream": stream, "messages": [{"role": "user", "content": format!("{hi} [sim text=60]")}]});
    let body = |stream: bool| asking(stream, "hi");
    let limit = json!({"type": "error", "status": 429, "error": {"type": "requests", "code": "rate_limit_exceeded",
        "message": "Slow down.", "param": null}, "headers": {"retry-after": 3}});
    let invalid = json!({"type": "error", "status": 400, "error": {"type": "invalid_request_error",
        "code": "unsupported_parameter", "message": "No.", "param": "tools"}});
    for stream in [false, true] {
        let world = World::plain().await;
        let strike = |moment, fault: &Fault| world.sim.provider.mishap(Mishap::new(moment, fault.clone()));
        for moment in [Moment::AfterSend, Moment::AfterCreated] {
            strike(moment, &Fault::Failed("server_error"));
            let reply = ask(&world.proxied(), &body(stream)).await;
            assert_eq!(
                (reply.status.as_u16(), &reply.json()["error"]["code"]),
                (500, &json!("server_error"))
            );
            strike(moment, &Fault::Error(limit.clone()));
            let reply = ask(&world.proxied(), &body(stream)).await;
            assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (429, "3"), "{moment:?}");
            strike(moment, &Fault::Close(1011));
            let reply = ask(&world.proxied(), &body(stream)).await;
            assert_eq!(
                (reply.status.as_u16(), reply.told().plan()),
                (200, ("full", "recovered")),
                "{moment:?}"
            );
        }
        // Refused for what the translation made of it, perhaps: its own API is asked.
        strike(Moment::AfterSend, &Fault::Error(invalid.clone()));
        let reply = ask(&world.proxied(), &asking(stream, "well")).await;
        assert_eq!((reply.status.as_u16(), reply.told().plan()), (200, ("http", "refused")));

        strike(Moment::MidText, &Fault::Failed("server_error"));
        let reply = ask(&world.proxied(), &body(stream)).await;
        if stream {
            let last = text(&reply).trim_end().rsplit("data: ").next().map(str::to_owned).unwrap();
            let last: Value = serde_json::from_str(&last).unwrap();
            assert_eq!((reply.status.as_u16(), &last["error"]["code"]), (200, &json!("server_error")));
        } else {
            assert_eq!(reply.status, 500);
        }
        // What failed is not continued.
        assert_eq!(ask(&world.proxied(), &body(stream)).await.told().plan, "full");
        world.assert_lawful();
    }
}
