//! The promise: what a client reads through tailwire is what it would have read from the provider, apart from ids,
//! times and encrypted blobs; whichever way the turn went, and however oddly the socket writes.

use hyper::Method;
use serde_json::{Value, json};
use tailwire::sim::script::Style;
use tailwire::sim::{Fault, Mishap, Moment};

use crate::agent::{Agent, Turn};
use crate::http::{Client, Reply};
use crate::world::World;

const TALKS: [&str; 3] = [
    "go [sim calls=2 parallel=2 reasoning=2 commentary=1 text=300 args=200]",
    "again [sim calls=1 custom=1 text=30]",
    "and say it [sim text=500]",
];

/// Replaces what differs from run to run: ids by the order in which they first appear, times, blobs.
fn normal(value: &Value, ids: &mut Vec<String>) -> Value {
    match value {
        Value::Array(elements) => elements.iter().map(|element| normal(element, ids)).collect(),
        Value::Object(members) => {
            let known = |(name, value): (&String, &Value)| {
                let normal = match (name.as_str(), value) {
                    ("id" | "item_id", Value::String(id)) => {
                        let number = ids.iter().position(|known| known == id).unwrap_or_else(|| {
                            ids.push(id.clone());
                            ids.len() - 1
                        });
                        json!(format!("id {number}"))
                    }
                    ("created_at" | "completed_at", Value::Number(_)) => json!("a time"),
                    ("encrypted_content", Value::String(_)) => json!("a blob"),
                    _ => normal(value, ids),
                };
                (name.clone(), normal)
            };
            Value::Object(members.iter().map(known).collect())
        }
        other => other.clone(),
    }
}

/// Everything a client reads of an answer.
pub(crate) fn read(reply: &Reply) -> Vec<Value> {
    let mut ids = Vec::new();
    if !reply.is_stream() {
        return vec![normal(&reply.json(), &mut ids)];
    }
    let events = reply.events();
    for (n, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], n, "{event}");
    }
    events.iter().map(|event| normal(event, &mut ids)).collect()
}

/// Names the first difference; whole streams are too long to look at.
pub(crate) fn assert_same(direct: &[Value], proxied: &[Value], about: &str) {
    for (n, (direct, proxied)) in direct.iter().zip(proxied).enumerate() {
        assert_eq!(direct, proxied, "number {n} {about}");
    }
    assert_eq!(direct.len(), proxied.len(), "{about}");
}

fn assert_headers(direct: &Reply, proxied: &Reply) {
    assert_eq!(proxied.status, direct.status);
    assert_eq!(proxied.header("content-type"), direct.header("content-type"));
    assert!(proxied.header("x-request-id").starts_with("req_"), "{:?}", proxied.headers);
    for name in proxied.headers.keys() {
        let theirs = direct.headers.contains_key(name);
        let ours = name == "x-tailwire";
        let framing = ["date", "content-length", "transfer-encoding"].contains(&name.as_str());
        assert!(theirs || ours || framing, "{name} in {:?}", proxied.headers);
    }
    for hop in ["connection", "keep-alive", "upgrade", "te", "proxy-authenticate", "sec-websocket-accept"] {
        assert!(!proxied.headers.contains_key(hop), "{hop}");
    }
}

async fn talk(mut agent: Agent) -> Vec<Turn> {
    let mut turns = Vec::new();
    for text in TALKS {
        turns.extend(agent.run(text).await);
    }
    turns
}

/// The same conversation with the provider as it should be, and through tailwire with its socket as it is.
async fn both(stream: bool, style: Style) -> (Vec<Turn>, Vec<Turn>) {
    let world = World::plain().await;
    let settings = json!({"stream": stream, "store": true});
    // What only sockets leave out, REST has.
    world.sim.provider.script(|script| script.style = Style { sparse: false, empty_output: false, ..style });
    let direct = talk(Agent::new(world.direct()).set(&settings)).await;
    world.sim.provider.script(|script| script.style = style);
    let proxied = talk(Agent::new(world.proxied()).set(&settings)).await;
    assert_eq!(direct.len(), proxied.len());
    for (n, (direct, proxied)) in direct.iter().zip(&proxied).enumerate() {
        assert_headers(&direct.reply, &proxied.reply);
        assert_eq!(proxied.told().plan == "full", n == 0, "turn {n} under {style:?}: {:?}", proxied.told());
    }
    world.assert_lawful();
    (direct, proxied)
}

#[tokio::test]
async fn an_answer_is_the_provider_s_own() {
    let plain = Style::default();
    for style in [
        plain,
        Style { empty_output: true, ..plain },
        Style { late_frames: true, ..plain },
        Style { future_event: true, ..plain },
        Style { single_delta: true, ..plain },
        Style { pretty: true, ..plain },
        Style {
            empty_output: true,
            late_frames: true,
            future_event: true,
            single_delta: true,
            pretty: true,
            ..plain
        },
    ] {
        for stream in [false, true] {
            let (direct, proxied) = both(stream, style).await;
            for (direct, proxied) in direct.iter().zip(&proxied) {
                assert_same(&read(&direct.reply), &read(&proxied.reply), &format!("{style:?}"));
            }
        }
    }
}

/// An announcement holds what could be known of its item: which one it is, and for a call its name.
pub(crate) fn announced(mut event: Value) -> Value {
    if event["type"] == "response.output_item.added"
        && let Some(item) = event["item"].as_object_mut()
    {
        item.retain(|name, _| ["id", "type", "name", "call_id"].contains(&name.as_str()));
    }
    event
}

#[tokio::test]
async fn a_sparse_socket_s_missing_events_are_supplied_in_order() {
    for style in [
        Style { sparse: true, ..Style::default() },
        Style { sparse: true, empty_output: true, single_delta: true, ..Style::default() },
    ] {
        let (direct, proxied) = both(false, style).await;
        for (direct, proxied) in direct.iter().zip(&proxied) {
            assert_same(&read(&direct.reply), &read(&proxied.reply), &format!("{style:?}"));
        }
        let (direct, proxied) = both(true, style).await;
        for (direct, proxied) in direct.iter().zip(&proxied) {
            let read = |reply| read(reply).into_iter().map(announced).collect::<Vec<_>>();
            assert_same(&read(&direct.reply), &read(&proxied.reply), &format!("{style:?}"));
        }
    }
}

async fn assert_same_answer(
    world: &World,
    tweak: impl Fn(Client) -> Client,
    request: (Method, &str, &Value),
) {
    let (method, path, body) = request;
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let direct = tweak(world.direct()).send(method.clone(), path, text.clone()).await;
    let proxied = tweak(world.proxied()).send(method, path, text).await;
    assert_headers(&direct, &proxied);
    assert_eq!(direct.json(), proxied.json(), "{body}");
    assert!(direct.status.is_client_error(), "{body}");
}

#[tokio::test]
async fn a_refusal_is_the_provider_s_own() {
    let world = World::plain().await;
    let call = json!({"type": "function_call", "call_id": "c", "name": "shell", "arguments": "{}"});
    let output = json!({"type": "function_call_output", "call_id": "c", "output": "ok"});
    let hello = json!({"role": "user", "content": "hi"});
    let model = "gpt-sim";
    for body in [
        json!({"model": model}),
        json!({"model": model, "input": 7}),
        json!({"model": model, "input": null}),
        json!({"model": model, "input": [7]}),
        json!({"model": model, "input": [{"nothing": 1}]}),
        json!({"input": "hi"}),
        json!({"model": 7, "input": "hi"}),
        json!({"model": model, "input": "hi", "stream": "yes"}),
        json!({"model": model, "input": "hi", "store": "no"}),
        json!({"model": model, "input": "hi", "type": "response.create"}),
        json!({"model": model, "input": "hi", "stream_id": "a"}),
        json!({"model": model, "input": "hi", "generate": false}),
        json!({"model": model, "input": "hi", "previous_response_id": 7}),
        json!({"model": model, "input": "hi", "previous_response_id": "resp_none"}),
        json!({"model": model, "input": "hi", "previous_response_id": "resp_none", "conversation": "conv_1"}),
        json!({"model": model, "input": [hello, call]}),
        json!({"model": model, "input": [hello, output]}),
        json!({"model": model, "input": [hello, call, call, output]}),
        json!({"model": model, "input": [hello, {"type": "item_reference", "id": "msg_none"}]}),
        json!([]),
        json!("text"),
    ] {
        for stream in [false, true] {
            let mut body = body.clone();
            if let Some(members) = body.as_object_mut() {
                members.entry("stream").or_insert(stream.into());
            }
            let request = (Method::POST, "/v1/responses", &body);
            assert_same_answer(&world, |client| client, request.clone()).await;
            assert_same_answer(&world, |client| client.without("authorization"), request).await;
        }
    }
    for (method, path) in [
        (Method::GET, "/v1/responses/resp_none"),
        (Method::DELETE, "/v1/responses/resp_none"),
        (Method::POST, "/v1/responses/resp_none/cancel"),
        (Method::GET, "/v1/responses"),
        (Method::GET, "/v1/nowhere"),
        (Method::GET, "/nowhere"),
        (Method::POST, "/v1/chat/completions"),
    ] {
        assert_same_answer(&world, |client| client, (method, path, &Value::Null)).await;
    }
}

#[tokio::test]
async fn f11_a_missing_tool_output_in_mid_chain_is_refused_as_ever() {
    let world = World::plain().await;
    let mut agent = Agent::new(world.proxied());
    agent.hear("go [sim calls=2]");
    agent.step().await;
    agent.history.pop();
    agent.hear("never mind");
    let refused = world.direct().send(Method::POST, "/v1/responses", agent.body()).await;
    let proxied = world.proxied().send(Method::POST, "/v1/responses", agent.body()).await;
    assert_eq!((refused.status, refused.json()), (proxied.status, proxied.json()));
    assert_eq!(refused.status, 400);
}

#[tokio::test]
async fn f63_f72_bad_endings_are_the_provider_s_own() {
    let error = |status: u16, code: &str| {
        let error = json!({"type": "some_error", "code": code, "message": "No.", "param": null});
        Fault::Error(json!({"type": "error", "status": status, "error": error}))
    };
    let table = [
        (Moment::AfterSend, error(429, "rate_limit_exceeded")),
        (Moment::AfterSend, error(500, "server_error")),
        (Moment::AfterSend, error(503, "server_is_overloaded")),
        (Moment::AfterSend, error(400, "context_length_exceeded")),
        (Moment::AfterCreated, Fault::Failed("rate_limit_exceeded")),
        (Moment::MidText, Fault::Failed("server_error")),
        (Moment::MidText, Fault::Incomplete("max_output_tokens")),
        (Moment::MidText, Fault::Incomplete("content_filter")),
        (Moment::MidText, error(500, "server_error")),
    ];
    for (moment, fault) in table {
        for stream in [false, true] {
            let world = World::plain().await;
            let body = json!({"model": "gpt-sim", "stream": stream, "input": "hi"});
            world.sim.provider.mishap(Mishap::new(moment, fault.clone()).over_http());
            let direct = world.direct().ask(&body).await;
            world.sim.provider.mishap(Mishap::new(moment, fault.clone()));
            let proxied = world.proxied().ask(&body).await;
            assert_headers(&direct, &proxied);
            assert_same(&read(&direct), &read(&proxied), &format!("{moment:?} {fault:?}"));
            world.assert_lawful();
        }
    }
}
