//! The answer to the earlier request: what it said, and the echo by which the heart knows it again.
//!
//! Gathers as the proxy's relay does: only a completed response is continued, and only if both accounts of its output
//! agree. An answer of Chat Completions, which names no items, is read as the message that its client repeats.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::{Value, json};

use super::read::{Side, object};
use super::{KEY, Unreadable};
use crate::proto::dialect::chat::{collect, request};
use crate::proto::dialect::responses::Restorer;
use crate::proto::transcript::echo::{Echo, Listener};
use crate::proto::wire::event::{Event, EventKind};
use crate::proto::wire::json;
use crate::proto::wire::sse::{Decoder, Frame};

/// What was said.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The response's id, where it is told.
    pub(super) id: Option<String>,
    /// The output's items as JSON, as the client repeats them.
    pub(super) items: Vec<String>,
    /// By which it is known again; `None` if it cannot be continued.
    pub(super) echo: Option<Echo>,
    /// Why it cannot, in words.
    pub(super) obstacle: Option<&'static str>,
}

impl Answer {
    /// Reads the answer to `side`.
    pub(super) fn read(bytes: &[u8], side: &Side) -> Result<Self, Unreadable> {
        if let Some(body) = object(bytes) {
            return Self::of_body(body, side.chat);
        }
        let mut decoder = Decoder::default();
        let mut frames = decoder.push(bytes).map_err(|_| Unreadable::NoAnswer)?;
        // A stream that was cut off lacks its last line's end.
        frames.extend(decoder.push(b"\n\n").map_err(|_| Unreadable::NoAnswer)?);
        frames.retain(|frame| frame.data != "[DONE]");
        let Some(first) = frames.first() else { return Err(Unreadable::NoAnswer) };
        let chunk = serde_json::from_str::<Value>(&first.data).is_ok_and(|chunk| chunk["choices"].is_array());
        match (chunk, side.chat) {
            (true, true) => added_up(&frames),
            (true, false) => Err(Unreadable::OtherApi),
            (false, chat) => Self::of_events(&frames, chat),
        }
    }

    /// What a later request seems to repeat, taken as said: all that can be known without the answer.
    pub(super) fn assumed(items: Vec<String>) -> Self {
        let output = format!("[{}]", items.join(","));
        Self { echo: Listener::default().finish(&KEY, Some(&output)), items, ..Self::default() }
    }

    fn of_body(body: &str, chat: bool) -> Result<Self, Unreadable> {
        let tree: Value = serde_json::from_str(body).map_err(|_| Unreadable::NoAnswer)?;
        let choice = &tree["choices"][0];
        match (choice.is_object(), chat) {
            (true, true) => return Self::of_message(&choice["message"], &choice["finish_reason"]),
            (true, false) => return Err(Unreadable::OtherApi),
            (false, _) => {}
        }
        if !tree["output"].is_array() {
            let error = tree["error"].is_object();
            return if error { Ok(Self::obstructed("it is an error")) } else { Err(Unreadable::NoAnswer) };
        }
        if tree["status"].as_str().is_some_and(|status| status != "completed") {
            return Ok(Self::obstructed(UNFINISHED));
        }
        // The text, not the tree: `1.0` is not `1`.
        let event = format!(r#"{{"type":"response.completed","response":{body}}}"#);
        Self::of_events(&[Frame { name: String::new(), data: event }], chat)
    }

    fn of_events(frames: &[Frame], chat: bool) -> Result<Self, Unreadable> {
        let (mut listener, mut restorer) = (Listener::default(), Restorer::new(None));
        let mut created = None;
        for frame in frames {
            let Ok(event) = Event::parse(Bytes::copy_from_slice(frame.data.as_bytes())) else { continue };
            listener.hear(&KEY, &event);
            restorer.hear(&event);
            match event.kind() {
                EventKind::Created => created = event.response_id(),
                EventKind::Completed => {
                    let id = event.response_id();
                    if created.is_some() && created != id {
                        return Ok(Self::obstructed("it has two ids"));
                    }
                    return Ok(Self {
                        id,
                        ..Self::told(listener, restorer.output(&event).map(Cow::into_owned), chat)
                    });
                }
                EventKind::Ended | EventKind::Error => return Ok(Self::obstructed(UNFINISHED)),
                _ => {}
            }
        }
        let response = frames.iter().any(|frame| frame.data.contains("\"response."));
        if response { Ok(Self::obstructed(UNFINISHED)) } else { Err(Unreadable::NoAnswer) }
    }

    /// As the relay settles a completed response.
    fn told(listener: Listener, output: Option<String>, chat: bool) -> Self {
        let said = listener.finish(&KEY, output.as_deref());
        let output = output.unwrap_or_else(|| "[]".to_owned());
        let repeated = if chat { collect::echo(&output) } else { output };
        let echo = match chat {
            true => said.and_then(|_| Listener::default().finish(&KEY, Some(&repeated))),
            false => said,
        };
        let obstacle =
            echo.is_none().then_some("its events and its last output disagree, or hold what cannot be read");
        Self { items: elements(&repeated), echo, obstacle, id: None }
    }

    fn of_message(message: &Value, reason: &Value) -> Result<Self, Unreadable> {
        if !matches!(reason.as_str(), Some("stop" | "tool_calls")) {
            return Ok(Self::obstructed(UNFINISHED));
        }
        let mut message = message.clone();
        if let Some(fields) = message.as_object_mut() {
            fields.insert("role".to_owned(), json!("assistant"));
        }
        let items = items_of_message(&message.to_string()).ok_or(Unreadable::NoAnswer)?;
        Ok(Self::assumed(items))
    }

    fn obstructed(why: &'static str) -> Self {
        Self { obstacle: Some(why), ..Self::default() }
    }
}

const UNFINISHED: &str = "it did not complete, and only a completed response is continued";

/// The items that one chat message is translated to.
pub(super) fn items_of_message(message: &str) -> Option<Vec<String>> {
    let body = request::translate(&format!(r#"{{"model":"m","messages":[{message}]}}"#)).ok()?.body;
    let members = json::members(&body).ok()?;
    Some(elements(&body[json::find(&members, "input")?.value.clone()]))
}

fn elements(list: &str) -> Vec<String> {
    json::elements(list).unwrap_or_default().into_iter().map(|span| list[span].to_owned()).collect()
}

/// The message that the chunks of a stream add up to.
fn added_up(frames: &[Frame]) -> Result<Answer, Unreadable> {
    let (mut text, mut refusal, mut reason) = (String::new(), String::new(), Value::Null);
    let mut calls: Vec<Value> = Vec::new();
    for frame in frames {
        let chunk: Value = serde_json::from_str(&frame.data).map_err(|_| Unreadable::NoAnswer)?;
        let choice = &chunk["choices"][0];
        let delta = &choice["delta"];
        if !choice["finish_reason"].is_null() {
            reason = choice["finish_reason"].clone();
        }
        text.push_str(delta["content"].as_str().unwrap_or_default());
        refusal.push_str(delta["refusal"].as_str().unwrap_or_default());
        for piece in delta["tool_calls"].as_array().into_iter().flatten() {
            add_call(&mut calls, piece);
        }
    }
    let mut message = json!({ "content": text });
    if !refusal.is_empty() {
        message["refusal"] = refusal.into();
    }
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    Answer::of_message(&message, &reason)
}

/// The first piece of a call names it; those after it add to what it says.
fn add_call(calls: &mut Vec<Value>, piece: &Value) {
    let known = calls.iter_mut().find(|call| call["index"] == piece["index"]);
    let Some(call) = known else { return calls.push(piece.clone()) };
    for (kind, said) in [("function", "arguments"), ("custom", "input")] {
        if let Some(more) = piece[kind][said].as_str() {
            let so_far = call[kind][said].as_str().unwrap_or_default();
            call[kind][said] = format!("{so_far}{more}").into();
        }
    }
}
