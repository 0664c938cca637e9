//! The model's answer in Chat's form, whole or in chunks, from the events of the response behind it.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::id;
use super::read::Asked;

/// The `chat.completion` of a finished response.
pub(super) fn whole(response: &Value, asked: &Asked) -> Value {
    let (mut text, mut refusal): (Option<String>, Option<String>) = (None, None);
    let (mut calls, mut notes, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for item in list(&response["output"]) {
        // Calls and reasoning have no such parts.
        for part in item["content"].as_array().into_iter().flatten() {
            if let Some(said) = part["refusal"].as_str() {
                refusal.get_or_insert_default().push_str(said);
                continue;
            }
            let text = text.get_or_insert_default();
            let before = text.chars().count();
            text.push_str(part["text"].as_str().unwrap_or_default());
            notes.extend(list(&part["annotations"]).iter().map(|note| citation(note, before)));
            tokens.extend(list(&part["logprobs"]));
        }
        calls.extend(call(&item));
    }
    let silent = text.as_ref().is_some_and(String::is_empty) && (refusal.is_some() || !calls.is_empty());
    let reason = reason(response, !calls.is_empty());
    let text = text.filter(|_| !silent);
    let mut message =
        json!({ "role": "assistant", "content": text, "refusal": refusal, "annotations": notes });
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    let logprobs = match asked.logprobs && !tokens.is_empty() {
        true => json!({ "content": tokens, "refusal": null }),
        false => Value::Null,
    };
    let choices: Vec<Value> = (0..asked.answers)
        .map(|index| json!({ "index": index, "message": message, "logprobs": logprobs, "finish_reason": reason }))
        .collect();
    let mut reply = head(response, "chat.completion");
    reply["choices"] = choices.into();
    reply["usage"] = usage(response, asked.answers);
    reply
}

/// Writes a stream of chunks. Several answers are one and the same, chunk by chunk.
#[derive(Debug)]
pub(super) struct Chunks {
    asked: Asked,
    head: Value,
    begun: bool,
    /// The number of each call, by its place in the output.
    calls: HashMap<u64, usize>,
    /// Letters said in all, and before the part that is being said.
    letters: usize,
    before: usize,
}

impl Chunks {
    pub(super) fn new(asked: Asked) -> Self {
        Self { asked, head: Value::Null, begun: false, calls: HashMap::new(), letters: 0, before: 0 }
    }

    /// The chunks for an event of the response.
    pub(super) fn of(&mut self, frame: &Value) -> Vec<Value> {
        let index = frame["output_index"].as_u64().unwrap_or(0);
        match frame["type"].as_str().unwrap_or_default() {
            "response.created" => {
                self.head = head(&frame["response"], "chat.completion.chunk");
                Vec::new()
            }
            "response.content_part.added" => {
                self.before = self.letters;
                Vec::new()
            }
            "response.output_text.delta" => {
                self.letters += frame["delta"].as_str().unwrap_or_default().chars().count();
                let tokens =
                    frame["logprobs"].as_array().filter(|list| self.asked.logprobs && !list.is_empty());
                let logprobs = tokens.map_or(Value::Null, |list| {
                    json!({ "content": list.iter().map(with_bytes).collect::<Value>(), "refusal": null })
                });
                self.delta(&json!(""), &json!({ "content": frame["delta"] }), &logprobs)
            }
            "response.refusal.delta" => {
                self.delta(&json!(""), &json!({ "refusal": frame["delta"] }), &Value::Null)
            }
            "response.output_text.annotation.added" => {
                let note = citation(&frame["annotation"], self.before);
                self.delta(&json!(""), &json!({ "annotations": [note] }), &Value::Null)
            }
            "response.output_item.added" => self.call(index, &frame["item"]),
            "response.function_call_arguments.delta" => {
                self.more(index, "function", "arguments", &frame["delta"])
            }
            "response.custom_tool_call_input.delta" => self.more(index, "custom", "input", &frame["delta"]),
            "response.completed" | "response.incomplete" => self.end(&frame["response"]),
            _ => Vec::new(),
        }
    }

    fn call(&mut self, index: u64, item: &Value) -> Vec<Value> {
        let Some(mut call) = call(item) else { return Vec::new() };
        let number = self.calls.len();
        self.calls.insert(index, number);
        call["index"] = number.into();
        self.delta(&Value::Null, &json!({ "tool_calls": [call] }), &Value::Null)
    }

    fn more(&mut self, index: u64, kind: &str, said: &str, delta: &Value) -> Vec<Value> {
        let Some(number) = self.calls.get(&index) else { return Vec::new() };
        let call = json!({ "index": number, kind: { said: delta } });
        self.delta(&Value::Null, &json!({ "tool_calls": [call] }), &Value::Null)
    }

    /// A chunk, after the one that names the role and says `content` if it is the first.
    fn delta(&mut self, content: &Value, delta: &Value, logprobs: &Value) -> Vec<Value> {
        let mut chunks = self.role(content);
        chunks.extend(self.chunks(delta, logprobs, None));
        chunks
    }

    fn role(&mut self, content: &Value) -> Vec<Value> {
        if std::mem::replace(&mut self.begun, true) {
            return Vec::new();
        }
        let role = json!({ "role": "assistant", "content": content, "refusal": null });
        self.chunks(&role, &Value::Null, None)
    }

    /// One for each answer.
    fn chunks(&self, delta: &Value, logprobs: &Value, reason: Option<&str>) -> Vec<Value> {
        let chunk = |index: usize| {
            let mut chunk = self.head.clone();
            chunk["choices"] =
                json!([{ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason }]);
            if self.asked.include_usage {
                chunk["usage"] = Value::Null;
            }
            chunk
        };
        (0..self.asked.answers).map(chunk).collect()
    }

    fn end(&mut self, response: &Value) -> Vec<Value> {
        let mut chunks = self.role(&json!(""));
        let reason = reason(response, !self.calls.is_empty());
        chunks.extend(self.chunks(&json!({}), &Value::Null, Some(reason)));
        if self.asked.include_usage {
            let mut last = self.head.clone();
            last["choices"] = json!([]);
            last["usage"] = usage(response, self.asked.answers);
            chunks.push(last);
        }
        chunks
    }
}

fn head(response: &Value, kind: &str) -> Value {
    json!({ "id": id(response["id"].as_str().unwrap_or_default()), "object": kind,
        "created": response["created_at"], "model": response["model"], "service_tier": response["service_tier"],
        "system_fingerprint": null })
}

/// A call item in Chat's form; none for other items.
fn call(item: &Value) -> Option<Value> {
    let (kind, said) = match item["type"].as_str()? {
        "function_call" => ("function", "arguments"),
        "custom_tool_call" => ("custom", "input"),
        _ => return None,
    };
    Some(json!({ "id": item["call_id"], "type": kind, kind: { "name": item["name"], said: item[said] } }))
}

/// A citation, `before` letters further on: Chat has one text where the output has several.
fn citation(note: &Value, before: usize) -> Value {
    let moved = |name: &str| note[name].as_u64().unwrap_or(0) + before as u64;
    json!({ "type": "url_citation", "url_citation": { "url": note["url"], "title": note["title"],
        "start_index": moved("start_index"), "end_index": moved("end_index") } })
}

/// A token's probability with its bytes, which a response's deltas leave out and Chat's do not.
fn with_bytes(token: &Value) -> Value {
    let mut whole = token.clone();
    whole["bytes"] = json!(token["token"].as_str().unwrap_or_default().as_bytes());
    if let Some(rivals) = token["top_logprobs"].as_array() {
        whole["top_logprobs"] = rivals.iter().map(with_bytes).collect();
    }
    whole
}

fn reason(response: &Value, calls: bool) -> &'static str {
    match (response["incomplete_details"]["reason"].as_str(), calls) {
        (Some("content_filter"), _) => "content_filter",
        (Some(_), _) => "length",
        (None, true) => "tool_calls",
        (None, false) => "stop",
    }
}

/// What was read once, and said once for every answer.
fn usage(response: &Value, answers: usize) -> Value {
    let usage = &response["usage"];
    let (input, output) = (&usage["input_tokens_details"], &usage["output_tokens_details"]);
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    let (read, said) = (count(&usage["input_tokens"]), count(&usage["output_tokens"]) * answers as u64);
    json!({
        "prompt_tokens": read,
        "completion_tokens": said,
        "total_tokens": read + said,
        "prompt_tokens_details": { "cached_tokens": input["cached_tokens"], "audio_tokens": 0,
            "cache_write_tokens": input["cache_write_tokens"] },
        "completion_tokens_details": { "reasoning_tokens": count(&output["reasoning_tokens"]) * answers as u64,
            "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0 },
    })
}
