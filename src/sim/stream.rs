//! A response as it is told: items, events in the official order, and the object that ends them.
//!
//! Knows no lanes, no store and no clock; it is handed its ids, its time and what to say.

mod message;

use std::collections::VecDeque;

use serde_json::{Map, Value, json};

use super::canon;
use super::compaction::Essence;
use super::context::Digests;
use super::reply::Piece;
use super::script::{Moment, Style};

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// `response.completed`: the only kind a lane remembers.
    Completed,
    /// `response.failed`.
    Failed,
    /// `response.incomplete`.
    Incomplete,
    /// An error, before or after it began.
    Refused,
}

/// One event on its way out.
#[derive(Clone, Debug)]
pub struct Emission {
    /// The event object.
    pub frame: Value,
    /// Tokens generated for it.
    pub tokens: u32,
    /// The moments that have come with it.
    pub moments: Vec<Moment>,
    /// Set on the last event of a response.
    pub ending: Option<Ending>,
}

/// What a response says, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Saying<'a> {
    pub(super) pieces: &'a [Piece],
    /// The last piece breaks off: no more tokens were allowed.
    pub(super) cut: bool,
    /// Probabilities with every token of text, and how many rivals each.
    pub(super) logprobs: Option<usize>,
}

/// The remaining events of one response.
#[derive(Debug)]
pub(super) struct Telling {
    response: Value,
    output: Vec<Value>,
    usage: Value,
    events: VecDeque<Event>,
    done: usize,
    sequence: u64,
    empty_output: bool,
    cut: bool,
}

impl Telling {
    /// A response object's frame (without output) and what it is to say. `mint` makes an id for a prefix.
    /// `input` is the size of the context in tokens: all of it, and what a prompt cache would hold.
    pub(super) fn new(
        response: Value,
        saying: &Saying<'_>,
        style: Style,
        (input_tokens, cached_tokens): (usize, usize),
        mint: &mut dyn FnMut(&str) -> String,
    ) -> Self {
        let mut writer = Writer {
            events: VecDeque::new(),
            output: Vec::new(),
            style,
            status: "completed",
            logprobs: saying.logprobs,
        };
        writer.lifecycle("response.created", Some(Moment::AfterCreated), &response);
        writer.lifecycle("response.in_progress", None, &response);
        if style.future_event {
            writer.push(json!({ "type": "response.future_thing.delta", "thing": { "level": 1 } }), 0);
        }
        let mut reasoning_tokens = 0;
        for (index, piece) in saying.pieces.iter().enumerate() {
            if saying.cut && index + 1 == saying.pieces.len() {
                writer.status = "incomplete";
            }
            let before = writer.tokens();
            writer.piece(piece, mint);
            if matches!(piece, Piece::Reasoning { .. }) {
                reasoning_tokens += writer.tokens() - before;
            }
        }
        writer.mark_last_delta();
        let output_tokens = writer.tokens();
        let usage = json!({
            "input_tokens": input_tokens,
            "input_tokens_details": { "cached_tokens": cached_tokens, "cache_write_tokens": 0 },
            "output_tokens": output_tokens,
            "output_tokens_details": { "reasoning_tokens": reasoning_tokens },
            "total_tokens": input_tokens as u64 + u64::from(output_tokens),
        });
        Self {
            response,
            output: writer.output,
            usage,
            events: writer.events,
            done: 0,
            sequence: 0,
            empty_output: style.empty_output,
            cut: saying.cut,
        }
    }

    /// The response object as last told: what `GET /responses/{id}` returns.
    pub(super) fn response(&self) -> &Value {
        &self.response
    }

    /// The next event; the terminal one carries its ending.
    pub(super) fn next(&mut self, unix: u64) -> Emission {
        let Some(event) = self.events.pop_front() else {
            self.response["usage"] = self.usage.clone();
            if self.cut {
                self.response["incomplete_details"] = json!({ "reason": "max_output_tokens" });
                return self.end("incomplete", self.output.len(), Ending::Incomplete);
            }
            self.response["completed_at"] = unix.into();
            return self.end("completed", self.output.len(), Ending::Completed);
        };
        self.done += usize::from(event.body["type"] == "response.output_item.done");
        let frame = self.numbered(event.body);
        Emission { frame, tokens: event.tokens, moments: event.moments, ending: None }
    }

    /// Ends with `response.failed`.
    pub(super) fn fail(&mut self, code: &str, message: &str) -> Emission {
        self.response["error"] = json!({ "code": code, "message": message });
        self.end("failed", 0, Ending::Failed)
    }

    /// Ends with `response.incomplete`, holding the items that were finished.
    pub(super) fn leave_incomplete(&mut self, reason: &str) -> Emission {
        self.response["incomplete_details"] = json!({ "reason": reason });
        self.response["usage"] = self.usage.clone();
        self.end("incomplete", self.done, Ending::Incomplete)
    }

    fn end(&mut self, status: &str, items: usize, ending: Ending) -> Emission {
        self.events.clear();
        self.response["status"] = status.into();
        self.response["output"] = self.output[..items].into();
        let mut told = self.response.clone();
        if self.empty_output {
            told["output"] = json!([]);
        }
        let frame = self.numbered(json!({ "type": format!("response.{status}"), "response": told }));
        Emission { frame, tokens: 0, moments: vec![Moment::AfterTerminal], ending: Some(ending) }
    }

    fn numbered(&mut self, mut body: Value) -> Value {
        body["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        body
    }
}

/// The response object before anything was said, with every field openai-python 3.54 requires.
pub(super) fn opening(request: &Value, id: &str, digests: &Digests, unix: u64) -> Value {
    let given = |name: &str, default: Value| match &request[name] {
        Value::Null => default,
        value => value.clone(),
    };
    let mut response = Map::new();
    for (name, default) in [
        ("background", json!(false)),
        ("instructions", Value::Null),
        ("max_output_tokens", Value::Null),
        ("max_tool_calls", Value::Null),
        ("metadata", json!({})),
        ("model", Value::Null),
        ("parallel_tool_calls", json!(true)),
        ("previous_response_id", Value::Null),
        ("prompt_cache_key", Value::Null),
        ("reasoning", json!({ "effort": null, "summary": null })),
        ("safety_identifier", Value::Null),
        ("store", json!(true)),
        ("temperature", json!(1.0)),
        ("text", json!({ "format": { "type": "text" }, "verbosity": "medium" })),
        ("tool_choice", json!("auto")),
        ("tools", json!([])),
        ("top_logprobs", json!(0)),
        ("top_p", json!(1.0)),
        ("truncation", json!("disabled")),
        ("user", Value::Null),
    ] {
        response.insert(name.to_owned(), given(name, default));
    }
    let tier = given("service_tier", json!("default"));
    response.insert("service_tier".to_owned(), if tier == "auto" { json!("default") } else { tier });
    for (name, value) in [
        ("id", json!(id)),
        ("object", json!("response")),
        ("created_at", json!(unix)),
        ("completed_at", Value::Null),
        ("status", json!("in_progress")),
        ("error", Value::Null),
        ("incomplete_details", Value::Null),
        ("output", json!([])),
        ("usage", Value::Null),
        (
            "sim",
            json!({ "context": digests.context, "visible": digests.visible, "reasoning": digests.reasoning }),
        ),
    ] {
        response.insert(name.to_owned(), value);
    }
    Value::Object(response)
}

#[derive(Debug)]
struct Event {
    body: Value,
    tokens: u32,
    moments: Vec<Moment>,
}

/// Writes the events of one output after another.
struct Writer {
    events: VecDeque<Event>,
    output: Vec<Value>,
    style: Style,
    /// Of the item being written, when it is done.
    status: &'static str,
    logprobs: Option<usize>,
}

impl Writer {
    fn lifecycle(&mut self, name: &str, moment: Option<Moment>, response: &Value) {
        let body = json!({ "type": name, "response": response });
        self.events.push_back(Event { body, tokens: 0, moments: moment.into_iter().collect() });
    }

    fn push(&mut self, body: Value, tokens: u32) {
        self.events.push_back(Event { body, tokens, moments: Vec::new() });
    }

    /// An event of an item or of one of its parts. `part` is the name and number of the part's index.
    fn item_event(&mut self, name: &str, id: &str, part: Option<&str>, fields: Value, tokens: u32) {
        let setup = name.ends_with(".added") && name != "output_text.annotation.added";
        if self.style.sparse && setup {
            return;
        }
        let mut body = json!({ "type": format!("response.{name}"), "output_index": self.output.len() });
        if !name.starts_with("output_item.") {
            body["item_id"] = id.into();
        }
        if let Some(index) = part {
            body[index] = 0.into();
        }
        if let (Value::Object(body), Value::Object(fields)) = (&mut body, fields) {
            body.extend(fields);
        }
        self.push(body, tokens);
    }

    fn deltas(&mut self, name: &str, id: &str, part: Option<&str>, text: &str, halfway: Option<Moment>) {
        let letters: Vec<char> = text.chars().collect();
        let size =
            if self.style.single_delta && part.is_none() { letters.len().max(1) } else { LETTERS_PER_TOKEN };
        let middle = letters.len().div_ceil(size).div_ceil(2);
        for (index, letters) in letters.chunks(size).enumerate() {
            let piece: String = letters.iter().collect();
            let mut fields = json!({ "delta": piece });
            if name == "output_text.delta" {
                fields["logprobs"] = message::logprobs(&piece, self.logprobs, false);
            }
            let tokens = letters.len().div_ceil(LETTERS_PER_TOKEN);
            self.item_event(name, id, part, fields, u32::try_from(tokens).unwrap_or(u32::MAX));
            if index + 1 == middle
                && let Some(event) = self.events.back_mut()
            {
                event.moments.extend(halfway);
            }
        }
    }

    fn piece(&mut self, piece: &Piece, mint: &mut dyn FnMut(&str) -> String) {
        match piece {
            Piece::Reasoning { identity, summary } => self.reasoning(&mint("rs"), identity, summary),
            Piece::Compaction(essence) => self.compaction(&mint("cmp"), essence),
            Piece::Message { text, commentary, cited } => {
                self.message(&mint("msg"), text, *commentary, *cited);
            }
            Piece::Refusal(text) => self.refusal(&mint("msg"), text),
            Piece::Call { call_id, name, arguments, custom: false } => {
                let id = mint("fc");
                let item = |arguments: &str, status: &str| {
                    json!({ "type": "function_call", "id": id, "call_id": call_id, "name": name,
                        "arguments": arguments, "status": status })
                };
                self.item_event(
                    "output_item.added",
                    &id,
                    None,
                    json!({ "item": item("", "in_progress") }),
                    0,
                );
                let halfway = Some(Moment::MidArguments);
                self.deltas("function_call_arguments.delta", &id, None, arguments, halfway);
                let done = json!({ "arguments": arguments, "name": name });
                self.item_event("function_call_arguments.done", &id, None, done, 0);
                self.finish(&id, item(arguments, self.status), None);
            }
            Piece::Call { call_id, name, arguments, custom: true } => {
                let id = mint("ctc");
                let item = |input: &str, status: &str| {
                    json!({ "type": "custom_tool_call", "id": id, "call_id": call_id, "name": name,
                        "input": input, "status": status })
                };
                self.item_event(
                    "output_item.added",
                    &id,
                    None,
                    json!({ "item": item("", "in_progress") }),
                    0,
                );
                self.deltas("custom_tool_call_input.delta", &id, None, arguments, Some(Moment::MidArguments));
                self.item_event("custom_tool_call_input.done", &id, None, json!({ "input": arguments }), 0);
                self.finish(&id, item(arguments, self.status), None);
            }
        }
    }

    /// Three copies of the blob, all different, as observed of the real provider (protocol 1.16).
    fn reasoning(&mut self, id: &str, identity: &str, summary: &str) {
        let item = |summary: Value, copy: &str| {
            json!({ "type": "reasoning", "id": id, "summary": summary,
                "encrypted_content": canon::reasoning_blob(identity, copy) })
        };
        let part = |text: &str| json!({ "type": "summary_text", "text": text });
        let index = Some("summary_index");
        self.item_event("output_item.added", id, None, json!({ "item": item(json!([]), "added") }), 0);
        self.item_event("reasoning_summary_part.added", id, index, json!({ "part": part("") }), 0);
        self.deltas("reasoning_summary_text.delta", id, index, summary, None);
        self.item_event("reasoning_summary_text.done", id, index, json!({ "text": summary }), 0);
        self.item_event("reasoning_summary_part.done", id, index, json!({ "part": part(summary) }), 0);
        let told_last = item(json!([part(summary)]), "terminal");
        self.finish(id, item(json!([part(summary)]), "done"), Some(told_last));
    }

    fn compaction(&mut self, id: &str, essence: &Essence) {
        let item =
            |copy: &str| json!({ "type": "compaction", "id": id, "encrypted_content": essence.blob(copy) });
        self.item_event("output_item.added", id, None, json!({ "item": item("added") }), 0);
        self.item_event("compaction.compacting", id, None, json!({}), 0);
        self.finish(id, item("done"), Some(item("terminal")));
    }

    /// The item's last event; `terminal` is its copy in the response object where that differs.
    fn finish(&mut self, id: &str, item: Value, terminal: Option<Value>) {
        self.item_event("output_item.done", id, None, json!({ "item": item }), 0);
        self.output.push(terminal.unwrap_or(item));
    }

    fn tokens(&self) -> u32 {
        self.events.iter().map(|event| event.tokens).sum()
    }

    fn mark_last_delta(&mut self) {
        if let Some(event) = self.events.iter_mut().rev().find(|event| event.tokens > 0) {
            event.moments.push(Moment::AfterLastDelta);
        }
    }
}

/// Every token is as long, and every delta is one.
pub(super) const LETTERS_PER_TOKEN: usize = 4;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
