//! `tailwire explain` over every recorded client: its verdict is the one an independent judge has worked out, and the one
//! the heart comes to by itself, for the recorded pairs and for pairs that were bent on purpose; and it always finds words.

#[path = "captures/load.rs"]
mod load;
#[path = "captures/table.rs"]
mod table;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Instant;

use bytes::Bytes;
use load::{Reply, Turn};
use serde_json::{Value, json};
use table::{Expected, expected, row};
use tailwire::explain::{Options, Unreadable, Verdict, compare};
use tailwire::proto::core::{Core, Placement, Plan, Wish};
use tailwire::proto::digest::Key;
use tailwire::proto::session::Limits;
use tailwire::proto::session::profile::Profile;
use tailwire::proto::transcript::echo::Listener;
use tailwire::proto::transcript::request::Request;
use tailwire::proto::wire::event::Event;

fn options() -> Options {
    Options { profile: Profile::named("openai").expect("it is in the table"), strict: false }
}

/// The answer as a client's log would hold it.
fn recorded(reply: &Reply) -> Vec<u8> {
    match reply {
        Reply::Json(body) => body.clone(),
        Reply::Sse(events) => {
            let mut text = String::new();
            for event in events {
                if !event.name.is_empty() {
                    let _ = writeln!(text, "event: {}", event.name);
                }
                let _ = write!(text, "data: {}\n\n", event.data);
            }
            text.into_bytes()
        }
    }
}

/// What the independent judge says of the chat turns; none where a turn travels as it is.
fn expected_of_chat() -> HashMap<(String, usize), Option<Expected>> {
    let lines =
        include_str!("fixtures/captures-chat.tsv").lines().filter(|line| !line.starts_with('#')).skip(1);
    let told = lines.map(|line| {
        let (turn, told) = row(&line.replace("\tnative", "\t-")).expect("a row");
        (turn, (!line.ends_with("\tnative")).then_some(told))
    });
    told.collect()
}

/// Earlier turns that each turn is compared with, besides the one it continues.
const BACK: usize = 2;

#[test]
fn every_recorded_pair_is_judged_as_the_table_has_it() {
    let of_responses = expected().expect("the table");
    let of_chat = expected_of_chat();
    let (mut continued, mut not) = (0, 0);
    for capture in load::captures().expect("captures") {
        let turns: Vec<&Turn> =
            capture.turns.iter().filter(|turn| turn.is_responses() || turn.is_chat()).collect();
        for (at, later) in turns.iter().enumerate() {
            let named = (capture.name.clone(), later.n);
            let told = if later.is_chat() { of_chat[&named] } else { Some(of_responses[&named]) };
            let parent = match told {
                Some(Expected::Delta { parent, .. }) => Some(parent),
                _ => None,
            };
            let earlier =
                turns[..at].iter().enumerate().filter(|(n, turn)| n + BACK >= at || parent == Some(turn.n));
            for (_, earlier) in earlier {
                let Some(reply) = earlier.reply.as_ref().map(recorded) else { continue };
                let found = compare(&earlier.body, &later.body, Some(&reply), &options())
                    .expect("requests and an answer");
                let pair = format!("{} {} -> {}: {found:?}", capture.name, earlier.n, later.n);
                match (&found.verdict, told) {
                    (Verdict::Delta { new_from, .. }, Some(Expected::Delta { parent, first_new, .. })) => {
                        assert_eq!((earlier.n, *new_from), (parent, first_new), "{pair}");
                        continued += 1;
                    }
                    (verdict, Some(Expected::Delta { parent, .. })) => {
                        assert!(parent != earlier.n && !verdict.continues(), "{pair}");
                        not += 1;
                    }
                    (verdict, _) => {
                        assert!(!verdict.continues(), "{pair}");
                        not += 1;
                    }
                }
                if !found.verdict.continues() {
                    assert!(found.path().is_some(), "no place was found: {pair}");
                }
            }
        }
    }
    println!("{continued} pairs continue, {not} do not");
    assert!(continued >= 50 && not >= 50, "{continued} {not}: the fixtures of a clone alone have more");
}

/// What the heart does with `b` after `a`, played here by hand.
fn plan(a: &Value, b: &Value, output: &Value) -> String {
    let key = Key::new([9; 32]);
    let account = key.hasher("somebody").finish();
    let now = Instant::now();
    let mut core = Core::new(key.clone(), Limits::default(), false, 64 << 20);
    let parse = |body: &Value| Request::parse(&key, &account, Bytes::from(body.to_string()), &[]);
    let read = |body: &Value| parse(body).map_err(|reason| reason.to_string());
    let (a, b) = match (read(a), read(b)) {
        (Ok(a), Ok(b)) => (a, b),
        (_, Err(reason)) | (Err(reason), _) => return format!("http {reason}"),
    };
    if b.chain.is_none() {
        return "http undigestable".to_owned();
    }
    let Placement::Wire(ticket) = core.begin(now, &account, &a, &Wish::default()) else { panic!("a place") };
    core.opened(now, ticket.connection);
    core.sending(now, ticket.connection, ticket.turn);
    for kind in ["created", "completed"] {
        let lane = ticket.lane.name();
        let event =
            json!({ "type": format!("response.{kind}"), "stream_id": lane, "response": { "id": "r" } });
        core.event(now, ticket.connection, &Event::parse(event.to_string().into()).expect("an event"));
    }
    let echo = Listener::default().finish(&key, Some(&output.to_string()));
    core.settle(now, ticket.turn, &a, "r", echo);
    match core.begin(now, &account, &b, &Wish::default()) {
        Placement::Wire(ticket) => match ticket.plan {
            Plan::Delta { new_from, grade, .. } => format!("delta {new_from} {grade}"),
            Plan::Full { reason, .. } => format!("full {reason}"),
        },
        Placement::Http(reason, _) => format!("http {reason}"),
    }
}

/// Bends a request; `n` says where.
type Bend = (&'static str, fn(&mut Value, usize));

fn input(body: &mut Value) -> &mut Vec<Value> {
    body["input"].as_array_mut().expect("items")
}

/// The first string that is content, changed.
fn edit(value: &mut Value) -> bool {
    match value {
        Value::String(text) => {
            text.push('!');
            true
        }
        Value::Array(list) => list.iter_mut().any(edit),
        Value::Object(map) => map.iter_mut().any(|(name, value)| {
            ["content", "text", "output", "arguments", "encrypted_content", "input"].contains(&name.as_str())
                && edit(value)
        }),
        _ => false,
    }
}

const BENDS: &[Bend] = &[
    ("nothing", |_, _| {}),
    ("an item gone", |body, n| drop(input(body).remove(n))),
    ("an item twice", |body, n| {
        let item = input(body)[n].clone();
        input(body).insert(n, item);
    }),
    ("an item edited", |body, n| {
        edit(&mut input(body)[n]);
    }),
    ("two items swapped", |body, n| {
        let last = input(body).len() - 1;
        input(body).swap(n, last);
    }),
    ("cut after", |body, n| input(body).truncate(n + 1)),
    ("cut before", |body, n| drop(input(body).drain(..n))),
    ("a field added to an item", |body, n| input(body)[n]["x_new"] = json!(1)),
    ("null added to an item", |body, n| input(body)[n]["x_new"] = Value::Null),
    ("a stranger", |body, n| input(body).insert(n, json!({ "type": "x_item", "x": 1 }))),
    ("a message of the model's", |body, n| {
        input(body).insert(n, json!({ "role": "assistant", "content": "Psst" }))
    }),
    ("reasoning", |body, n| {
        input(body).insert(
            n,
            json!({ "type": "reasoning", "id": "rs_new", "summary": [], "encrypted_content": "n" }),
        );
    }),
    ("a message for what follows", |body, n| {
        input(body).truncate(n + 1);
        input(body)[n] = json!({ "role": "user", "content": "Never mind" });
    }),
    ("another model", |body, _| body["model"] = json!("another")),
    ("a user", |body, _| body["user"] = json!("somebody")),
    ("store", |body, _| body["store"] = json!(body["store"] == false)),
    ("an unknown field", |body, _| body["x_switch"] = json!([1])),
    ("instructions", |body, _| body["instructions"] = json!("Be brief.")),
    ("a prompt", |body, _| body["prompt"] = json!({ "id": "p" })),
    ("generate", |body, _| body["generate"] = json!(false)),
];

#[test]
fn bent_pairs_are_judged_as_the_heart_does_and_every_refusal_has_a_place() {
    let mut plans: HashMap<String, usize> = HashMap::new();
    let mut wordless = Vec::new();
    let mut played = 0;
    for capture in load::captures().expect("captures") {
        let turns: Vec<&Turn> = capture.turns.iter().filter(|turn| turn.is_responses()).collect();
        // The stored clients' third pairs have every kind of item; large bodies are more bytes, and no more cases.
        let is_stored = load::roots()[0].join(&capture.name).is_dir();
        let small = |pair: &&[&Turn]| is_stored && pair[1].body.len() < 40_000;
        let Some(pair) = turns.windows(2).nth(2).filter(small) else { continue };
        let body = |turn: &Turn| serde_json::from_slice::<Value>(&turn.body).expect("JSON");
        let (a, whole) = (body(pair[0]), body(pair[1]));
        let Some(output) = pair[0].reply.as_ref().map(recorded).and_then(|reply| output(&reply)) else {
            continue;
        };
        let answer = json!({ "id": "r", "status": "completed", "output": output }).to_string();
        for (name, bend) in BENDS {
            let items = whole["input"].as_array().map_or(0, Vec::len);
            for n in (0..items).filter(|n| *n < 2 || n + 7 > items) {
                let mut b = whole.clone();
                bend(&mut b, n);
                let found = compare(
                    a.to_string().as_bytes(),
                    b.to_string().as_bytes(),
                    Some(answer.as_bytes()),
                    &options(),
                );
                let found = found.expect("requests and an answer");
                let told = match &found.verdict {
                    Verdict::Delta { new_from, grade } => format!("delta {new_from} {grade}"),
                    verdict => format!("{} {}", verdict.plan(), verdict.reason().expect("no delta has one")),
                };
                assert_eq!(told, plan(&a, &b, &output), "{}: {name} at {n}", capture.name);
                *plans
                    .entry(
                        told.split(' ').take(2).collect::<Vec<_>>().join(" ").replace(char::is_numeric, ""),
                    )
                    .or_default() += 1;
                if !found.verdict.continues() && found.path().is_none() {
                    wordless.push(format!("{}: {name} at {n}: {told}", capture.name));
                }
                played += 1;
            }
        }
    }
    println!("{played} bent pairs: {plans:?}");
    for reason in [
        "history-changed",
        "first-turn",
        "echo-missing",
        "echo-changed",
        "call-unanswered",
        "reasoning-added",
        "field-changed",
        "nothing-new",
    ] {
        assert!(plans.contains_key(&format!("full {reason}")), "{reason} never came up: {plans:?}");
    }
    assert!(wordless.is_empty(), "no place was found for {} of {played}: {wordless:#?}", wordless.len());
}

/// The output of a recorded answer.
fn output(reply: &[u8]) -> Option<Value> {
    if let Ok(body) = serde_json::from_slice::<Value>(reply) {
        return Some(body["output"].clone());
    }
    let text = std::str::from_utf8(reply).ok()?;
    let events =
        text.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    let mut last = events.filter(|event| event["type"] == "response.completed");
    Some(last.next()?["response"]["output"].take())
}

#[test]
fn without_the_answer_what_is_repeated_is_taken_for_it() {
    let a = json!({ "model": "m", "input": [{ "role": "user", "content": "Go" }] });
    let call = json!({ "type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}" });
    let result = json!({ "type": "function_call_output", "call_id": "c1", "output": "1" });
    let with = |items: &[&Value]| {
        let mut b = a.clone();
        input(&mut b).extend(items.iter().map(|item| (*item).clone()));
        b.to_string()
    };
    for (b, verdict) in [
        (with(&[&call, &result]), "delta"),
        (
            with(&[
                &json!({ "type": "item_reference", "id": "msg_1" }),
                &json!({ "role": "user", "content": "On" }),
            ]),
            "delta",
        ),
        (with(&[&call, &json!({ "role": "user", "content": "On" })]), "call-unanswered"),
        (with(&[&call]), "nothing-new"),
        (with(&[]), "nothing-new"),
    ] {
        let found = compare(a.to_string().as_bytes(), b.as_bytes(), None, &options()).expect("two requests");
        let told = found.verdict.reason().map_or_else(|| found.verdict.plan(), |reason| reason.label());
        // A request that only repeats the earlier one is told as the first turn it is, or as nothing new.
        assert!(found.assumed && told == verdict, "{b}: {told}");
    }
}

#[test]
fn what_is_no_request_and_no_answer_is_said_to_be_so() {
    let request = br#"{"model":"m","input":"Hi"}"#;
    let chat = br#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#;
    let chat_answer =
        br#"{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"Ho"}}]}"#;
    let failure = |a: &[u8], b: &[u8], response: Option<&[u8]>| compare(a, b, response, &options()).err();
    assert_eq!(failure(b"[]", request, None), Some(Unreadable::NoObject));
    assert_eq!(failure(request, b"{", None), Some(Unreadable::NoObject));
    assert_eq!(failure(request, request, Some(b"nothing")), Some(Unreadable::NoAnswer));
    assert_eq!(failure(request, request, Some(b"{}")), Some(Unreadable::NoAnswer));
    assert_eq!(failure(request, request, Some(chat_answer)), Some(Unreadable::OtherApi));
    assert_eq!(failure(chat, chat, Some(chat_answer)), None);
}

#[test]
fn an_unfinished_answer_is_not_continued_and_the_note_says_why() {
    let a = json!({ "model": "m", "input": [{ "role": "user", "content": "Go" }] }).to_string();
    let b = json!({ "model": "m", "input": [{ "role": "user", "content": "Go" }, { "role": "assistant", "content": "Half" },
        { "role": "user", "content": "On" }] })
    .to_string();
    let text = r#"{"type":"message","role":"assistant","content":[{"type":"output_text","text":"Half"}]}"#;
    for (answer, continues) in [
        (format!(r#"{{"id":"r","status":"incomplete","output":[{text}]}}"#), false),
        (format!(r#"{{"id":"r","status":"completed","output":[{text}]}}"#), true),
        (
            format!(
                "data: {{\"type\":\"response.created\",\"response\":{{\"id\":\"r\"}}}}\n\ndata: {{\"type\":\"response.output_item.done\",\"output_index\":0,\"item\":{text}}}\n\n"
            ),
            false,
        ),
        (
            format!(
                "data: {{\"type\":\"response.output_item.done\",\"output_index\":0,\"item\":{text}}}\n\ndata: {{\"type\":\"response.completed\",\"response\":{{\"id\":\"r\",\"output\":[]}}}}"
            ),
            true,
        ),
    ] {
        let found =
            compare(a.as_bytes(), b.as_bytes(), Some(answer.as_bytes()), &options()).expect("readable");
        assert_eq!(found.verdict.continues(), continues, "{answer}");
        assert_eq!(found.text(false).contains("the response to A cannot be continued"), !continues);
    }
}

#[test]
fn a_turn_left_out_between_the_two_is_noticed() {
    let items = [
        json!({ "role": "user", "content": "Go" }),
        json!({ "role": "assistant", "content": "One" }),
        json!({ "role": "user", "content": "On" }),
        json!({ "role": "assistant", "content": "Two" }),
        json!({ "role": "user", "content": "On" }),
    ];
    let body = |items: &[Value]| json!({ "model": "m", "input": items }).to_string();
    for (later, skips) in [(&items[..3], false), (&items[..], true)] {
        let found = compare(body(&items[..1]).as_bytes(), body(later).as_bytes(), None, &options())
            .expect("two requests");
        assert_eq!(found.verdict.continues(), !skips);
        assert_eq!(found.text(false).contains("compare it with the request just before it"), skips);
    }
}

#[test]
fn content_is_shown_only_where_it_is_asked_for() {
    let body = |secret: &str| {
        json!({ "model": "m", "input": [{ "role": "user", "content": format!("the word is {secret}") }, { "role": "user", "content": "On" }] }).to_string()
    };
    let (a, b) = (body("planted-one"), body("planted-two"));
    let found = compare(a.as_bytes(), b.as_bytes(), None, &options()).expect("two requests");
    assert_eq!(found.path(), Some("input[0].content[0].text"));
    for (show, text) in [
        (false, found.text(false)),
        (false, found.json(false)),
        (true, found.text(true)),
        (true, found.json(true)),
    ] {
        assert_eq!(text.contains("planted"), show, "{text}");
    }
}
