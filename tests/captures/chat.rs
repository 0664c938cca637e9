//! The recorded clients of Chat Completions, translated and replayed against the heart: a delta with exactly the new
//! items where an independent judge (`expect_chat.py`) says so, none where it says none, and native where it says that.
//!
//! The recorded replies are Chat's own, so the output behind each is made up: what was said, and reasoning that Chat
//! does not show. Reasoning never comes back; every continuation is of the visible grade.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::{Value, json};
use tailwire::proto::dialect::chat::{collect, request};
use tailwire::proto::digest::Key;
use tailwire::proto::transcript::echo::Listener;
use tailwire::proto::transcript::plan::Reason;

use super::load::{self, Event, Reply, Result, Turn};
use super::table::{Expected, row};
use super::{Dialect, Heard, Row, Seen, judge, replay};

const CHAT: Dialect = Dialect { is: Turn::is_chat, body, hear };

fn translated(turn: &Turn) -> std::result::Result<request::Translated, Reason> {
    request::translate(std::str::from_utf8(&turn.body).expect("UTF-8"))
}

fn body(turn: &Turn) -> Option<Bytes> {
    translated(turn).ok().map(|translated| Bytes::from(translated.body))
}

fn hear(_: &Key, reply: &Reply) -> Option<Heard> {
    let (id, message, reason) = match reply {
        Reply::Json(body) => whole(body)?,
        Reply::Sse(events) => added_up(events)?,
    };
    let completed = reason == "stop" || reason == "tool_calls";
    let output = collect::echo(&output(&id, &message).to_string());
    completed.then(|| (format!("resp_{id}"), Listener::default(), output))
}

fn whole(body: &[u8]) -> Option<(String, Value, String)> {
    let mut reply: Value = serde_json::from_slice(body).ok()?;
    let reason = reply["choices"][0]["finish_reason"].as_str()?.to_owned();
    Some((reply["id"].as_str()?.to_owned(), reply["choices"][0]["message"].take(), reason))
}

/// The message that chunks add up to.
fn added_up(events: &[Event]) -> Option<(String, Value, String)> {
    let (mut id, mut reason, mut text) = (String::new(), String::new(), String::new());
    let mut calls: Vec<Value> = Vec::new();
    let said = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for event in events.iter().filter(|event| event.data != "[DONE]") {
        let chunk: Value = serde_json::from_str(&event.data).ok()?;
        id = said(&chunk["id"]);
        let choice = &chunk["choices"][0];
        reason.push_str(&said(&choice["finish_reason"]));
        text.push_str(&said(&choice["delta"]["content"]));
        for piece in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let index = usize::try_from(piece["index"].as_u64()?).ok()?;
            if index == calls.len() {
                calls.push(piece.clone());
                continue;
            }
            let arguments = &mut calls[index]["function"]["arguments"];
            *arguments = format!("{}{}", said(arguments), said(&piece["function"]["arguments"])).into();
        }
    }
    Some((id, json!({ "content": text, "tool_calls": calls }), reason))
}

/// The output of the response that a chat answer could have stood for.
fn output(id: &str, message: &Value) -> Value {
    let mut items = vec![json!({ "type": "reasoning", "id": format!("rs_{id}"), "summary": [],
        "encrypted_content": format!("sealed for {id}") })];
    if let Some(text) = message["content"].as_str().filter(|text| !text.is_empty()) {
        let part = json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] });
        items.push(
            json!({ "type": "message", "id": format!("msg_{id}"), "role": "assistant", "status": "completed",
            "content": [part] }),
        );
    }
    for (n, call) in message["tool_calls"].as_array().into_iter().flatten().enumerate() {
        items.push(json!({ "type": "function_call", "id": format!("fc_{id}_{n}"), "call_id": call["id"],
            "name": call["function"]["name"], "arguments": call["function"]["arguments"], "status": "completed" }));
    }
    items.into()
}

/// The whole table; none where a turn is not to be translated.
fn expected() -> Result<HashMap<(String, usize), Option<Expected>>> {
    let lines = include_str!("../fixtures/captures-chat.tsv").lines();
    lines
        .filter(|line| !line.starts_with('#'))
        .skip(1)
        .map(|line| {
            let translated = !line.ends_with("\tnative");
            let (turn, told) = row(&line.replace("\tnative", "\t-"))?;
            Ok((turn, translated.then_some(told)))
        })
        .collect()
}

/// Requests and recognised turns per capture, as counted by another program (2026-11-23).
fn totals() -> Result<HashMap<&'static str, (usize, usize)>> {
    let lines = include_str!("../fixtures/captures-chat-totals.tsv").lines();
    let count = |line: &'static str| {
        let &[capture, requests, recognised] = line.split('\t').collect::<Vec<_>>().as_slice() else {
            return Err("not three columns".into());
        };
        Ok((capture, (requests.parse()?, recognised.parse()?)))
    };
    lines.filter(|line| !line.starts_with('#')).skip(1).map(count).collect()
}

#[test]
fn translated_turns_equal_the_table_and_nothing_else_is_recognised() {
    let (expected, totals) = (expected().expect("the table"), totals().expect("the totals"));
    let captures = load::captures().expect("captures");
    let mut rows = 0;
    println!("| client of Chat | turns | delta exact | delta visible | full | received | sent | saved |");
    println!("|---|---|---|---|---|---|---|---|");
    for capture in captures.iter().filter(|capture| capture.turns.iter().any(Turn::is_chat)) {
        let slow = replay(capture, &CHAT, false);
        assert_eq!(
            replay(capture, &CHAT, true),
            slow,
            "{}: both ways of reading give one answer",
            capture.name
        );
        let mut row = Row::default();
        let mut native = 0;
        for (n, seen) in &slow {
            match (seen, &expected[&(capture.name.clone(), *n)]) {
                (Seen::Native, None) => native += 1,
                (seen, Some(told)) => judge(capture, *n, seen, told, &mut row),
                (seen, None) => panic!("{} turn {n}: {seen:?}, but it cannot be translated", capture.name),
            }
        }
        let (requests, recognised) = totals[&*capture.name];
        assert_eq!(slow.len(), requests, "{}", capture.name);
        assert!(row.visible + native >= recognised, "{}: {}", capture.name, row.visible);
        let translated = slow.iter().take_while(|(_, seen)| *seen != Seen::Native).count();
        assert_eq!(translated + native, requests, "{}: once native, native to the end", capture.name);
        assert_eq!(row.exact, 0, "{}: its reasoning cannot have come back", capture.name);
        rows += 1;
        if translated > 0 {
            row.print(&capture.name);
        }
        if native > 0 {
            println!("| {} | {native} | – | – | – | native: not translated | – | – |", capture.name);
        }
    }
    assert!(rows >= 4, "the fixtures of a clone alone are four");
}

#[test]
fn what_stays_native_has_a_named_reason() {
    let captures = load::captures().expect("captures");
    let mut named = 0;
    for capture in &captures {
        for turn in capture.turns.iter().filter(|turn| turn.is_chat()) {
            if let Err(reason) = translated(turn) {
                let known = [Reason::Field("name"), Reason::Field("reasoning_content")];
                assert!(known.contains(&reason), "{} turn {}: {reason}", capture.name, turn.n);
                named += usize::from(reason == known[0]);
            }
        }
    }
    assert!(named > 0, "a fixture has names");
}

#[test]
fn the_table_and_the_captures_are_of_one_size() -> Result<()> {
    let mut rows = expected()?;
    for capture in load::captures()? {
        for turn in capture.turns.iter().filter(|turn| turn.is_chat()) {
            let row = rows.remove(&(capture.name.clone(), turn.n));
            let row = row.ok_or_else(|| format!("{} turn {} has no row", capture.name, turn.n))?;
            let (Some(Expected::Full { items } | Expected::Delta { items, .. }), Some(body)) =
                (row, body(turn))
            else {
                continue;
            };
            let body: Value = serde_json::from_slice(&body)?;
            assert_eq!(
                body["input"].as_array().map(Vec::len),
                Some(items),
                "{} turn {}",
                capture.name,
                turn.n
            );
        }
    }
    if load::roots().len() > 1 {
        assert!(rows.is_empty(), "rows without a turn: {:?}", rows.keys());
    }
    Ok(())
}
