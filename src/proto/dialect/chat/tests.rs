//! Chat to items and back (house rules: what is translated keeps roles, calls, ids and order), and the echo: what a reply says is
//! what its client will say next, so that the next request begins with what the response is known by.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::proto::dialect::chat::collect;
use crate::proto::dialect::chat::request::{Framing, translate};
use crate::proto::digest::Key;
use crate::proto::transcript::echo::Listener;
use crate::proto::transcript::request::Request;

fn call() -> impl Strategy<Value = Value> {
    let custom = ("[a-z]{1,6}", ".{0,12}")
        .prop_map(|(name, input)| json!({"type": "custom", "custom": {"name": name, "input": input}}));
    let function = ("[a-z]{1,6}", prop_oneof![Just("{}"), Just(r#"{"a": 1.0, "b":"\u00e9"}"#), Just("not json")])
        .prop_map(|(name, arguments)| json!({"type": "function", "function": {"name": name, "arguments": arguments}}));
    prop_oneof![custom, function]
}

/// A history as agents have one: what was asked, said, called and answered. Calls are numbered, so that all differ.
fn history() -> impl Strategy<Value = Vec<Value>> {
    let said = ("\\PC{1,12}", prop::collection::vec(call(), 0..4))
        .prop_map(|(text, calls)| json!({"role": "assistant", "content": text, "tool_calls": calls}));
    let asked = (prop_oneof![Just("system"), Just("developer"), Just("user")], "\\PC{0,12}")
        .prop_map(|(role, text)| json!({"role": role, "content": text}));
    prop::collection::vec(prop_oneof![said, asked], 1..8).prop_map(|turns| {
        let (mut messages, mut number) = (Vec::new(), 0);
        for mut turn in turns {
            let mut results = Vec::new();
            for call in turn.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
                number += 1;
                call["id"] = format!("call_{number}").into();
                results.push(json!({"role": "tool", "tool_call_id": call["id"], "content": format!("result {number}")}));
            }
            if turn.get("tool_calls") == Some(&json!([])) {
                turn.as_object_mut().expect("a message").remove("tool_calls");
            }
            messages.push(turn);
            messages.extend(results);
        }
        messages
    })
}

fn items(messages: &[Value]) -> Vec<Value> {
    let body = json!({"model": "m", "messages": messages}).to_string();
    let body: Value = serde_json::from_str(&translate(&body).expect("translatable").body).expect("JSON");
    body["input"].as_array().expect("items").clone()
}

/// The messages that items stand for, read back by hand.
fn messages(items: &[Value]) -> Vec<Value> {
    let mut messages: Vec<Value> = Vec::new();
    for item in items {
        let kind = item["type"].as_str().expect("a type");
        let call = match kind {
            "function_call" => json!({"id": item["call_id"], "type": "function",
                "function": {"name": item["name"], "arguments": item["arguments"]}}),
            "custom_tool_call" => json!({"id": item["call_id"], "type": "custom",
                "custom": {"name": item["name"], "input": item["input"]}}),
            "message" => {
                messages.push(json!({"role": item["role"], "content": item["content"]}));
                continue;
            }
            _ => {
                messages.push(
                    json!({"role": "tool", "tool_call_id": item["call_id"], "content": item["output"]}),
                );
                continue;
            }
        };
        let last = messages.last_mut().expect("calls follow words here");
        match last["tool_calls"].as_array_mut() {
            Some(calls) => calls.push(call),
            None => last["tool_calls"] = json!([call]),
        }
    }
    messages
}

/// An output: hidden thoughts, perhaps words, perhaps calls, at least one of the two.
fn output() -> impl Strategy<Value = Vec<Value>> {
    let words = prop::collection::vec("\\PC{1,12}", 0..3);
    (words, prop::collection::vec(call(), 0..4), 0..3usize).prop_filter_map("it says something", |(words, calls, thoughts)| {
        let thought = |n: usize| json!({"type": "reasoning", "id": format!("rs_{n}"), "summary": [], "encrypted_content": format!("x{n}")});
        let said = words.iter().map(|text| json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}));
        let called = calls.iter().enumerate().map(|(n, call)| match call["type"].as_str() {
            Some("custom") => json!({"type": "custom_tool_call", "call_id": format!("call_{n}"), "name": call["custom"]["name"], "input": call["custom"]["input"]}),
            _ => json!({"type": "function_call", "call_id": format!("call_{n}"), "name": call["function"]["name"], "arguments": call["function"]["arguments"]}),
        });
        let all: Vec<Value> = (0..thoughts).map(thought).chain(said).chain(called).collect();
        (all.len() > thoughts).then_some(all)
    })
}

proptest! {
    #[test]
    fn a_history_comes_back_as_it_went(history in history()) {
        prop_assert_eq!(messages(&items(&history)), history);
    }

    #[test]
    fn the_echo_of_a_reply_is_what_its_client_says_next(history in history(), output in output()) {
        let key = Key::new([3; 32]);
        let text = Value::from(output.clone()).to_string();
        let response = json!({"id": "resp_1", "status": "completed", "output": output}).to_string();
        let reply: Value = serde_json::from_str(&collect::body(&response, &text, Framing::default())).expect("JSON");
        let said = reply["choices"][0]["message"].clone();
        // What the client had said, what it was told, its tools' results, and one word more.
        let mut next = history.clone();
        next.push(said.clone());
        for call in said["tool_calls"].as_array().into_iter().flatten() {
            next.push(json!({"role": "tool", "tool_call_id": call["id"], "content": "done"}));
        }
        next.push(json!({"role": "user", "content": "go on"}));
        let body = json!({"model": "m", "messages": next}).to_string();
        let body = translate(&body).expect("translatable").body;
        let account = key.hasher("account").finish();
        let parsed = Request::parse(&key, &account, Bytes::from(body), &[]).expect("a request");
        let echo = Listener::default().finish(&key, Some(&collect::echo(&text))).expect("an echo");
        let old = items(&history).len();
        let calls = said["tool_calls"].as_array().map_or(0, Vec::len);
        let followed = echo.follow(&key, &parsed, old).expect("it follows");
        // All but the results and the last word is known upstream.
        prop_assert_eq!(followed.new_from, parsed.items() - calls - 1);
    }
}
