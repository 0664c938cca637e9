//! The model's answer in Chat's form, whole or in chunks, from the events of the response behind it.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::Asked;

/// The `chat.completion` of a finished response.
pub(in crate::sim) fn whole(response: &Value, asked: &Asked) -> Value {
    let mut text: Option<String> = None;
    let mut calls = Vec::new();
    let mut tokens = Vec::new();
    for item in response["output"].as_array().map_or(&[][..], Vec::as_slice) {
        for part in item["content"].as_array().map_or(&[][..], Vec::as_slice) {
            text.get_or_insert_default().push_str(part["text"].as_str().unwrap_or_default());
            tokens.extend(part["logprobs"].as_array().cloned().unwrap_or_default());
        }
        calls.extend(call(item));
    }
    let mut reason = reason(response, !calls.is_empty());
    for stop in &asked.stops {
        if let Some(at) = text.as_ref().and_then(|text| text.find(stop.as_str())) {
            text = text.map(|text| text[..at].to_owned());
            reason = "stop";
        }
    }
    let mut message = json!({ "role": "assistant", "content": text, "refusal": null, "annotations": [] });
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
    reply["usage"] = usage(response);
    reply
}

/// Writes a stream of chunks.
#[derive(Debug)]
pub(in crate::sim) struct Chunks {
    asked: Asked,
    head: Value,
    begun: bool,
    calls: HashMap<u64, usize>,
}

impl Chunks {
    pub(in crate::sim) fn new(asked: Asked) -> Self {
        Self { asked, head: Value::Null, begun: false, calls: HashMap::new() }
    }

    /// The chunks for an event of the response; after its last one the stream ends with `[DONE]`.
    pub(in crate::sim) fn of(&mut self, frame: &Value) -> Vec<Value> {
        let index = frame["output_index"].as_u64().unwrap_or(0);
        match frame["type"].as_str().unwrap_or_default() {
            "response.created" => {
                self.head = head(&frame["response"], "chat.completion.chunk");
                Vec::new()
            }
            "response.output_text.delta" => {
                let tokens = frame["logprobs"].as_array().filter(|list| self.asked.logprobs && !list.is_empty());
                let logprobs = tokens.map_or(Value::Null, |list| json!({ "content": list, "refusal": null }));
                self.delta(json!(""), json!({ "content": frame["delta"] }), logprobs)
            }
            "response.output_item.added" | "response.output_item.done" => self.call(index, &frame["item"]),
            "response.function_call_arguments.delta" => self.more(index, "function", "arguments", &frame["delta"]),
            "response.custom_tool_call_input.delta" => self.more(index, "custom", "input", &frame["delta"]),
            "response.completed" | "response.incomplete" => self.end(&frame["response"]),
            _ => Vec::new(),
        }
    }

    fn call(&mut self, index: u64, item: &Value) -> Vec<Value> {
        let Some(mut call) = call(item).filter(|_| !self.calls.contains_key(&index)) else { return Vec::new() };
        let number = self.calls.len();
        self.calls.insert(index, number);
        call["index"] = number.into();
        self.delta(Value::Null, json!({ "tool_calls": [call] }), Value::Null)
    }

    fn more(&mut self, index: u64, kind: &str, said: &str, delta: &Value) -> Vec<Value> {
        let Some(number) = self.calls.get(&index) else { return Vec::new() };
        let call = json!({ "index": number, kind: { said: delta } });
        self.delta(Value::Null, json!({ "tool_calls": [call] }), Value::Null)
    }

    fn delta(&mut self, content: Value, delta: Value, logprobs: Value) -> Vec<Value> {
        let mut chunks = Vec::new();
        if !std::mem::replace(&mut self.begun, true) {
            let role = json!({ "role": "assistant", "content": content, "refusal": null });
            chunks.push(self.chunk(role, Value::Null, Value::Null));
        }
        chunks.push(self.chunk(delta, logprobs, Value::Null));
        chunks
    }

    fn chunk(&self, delta: Value, logprobs: Value, reason: Value) -> Value {
        let mut chunk = self.head.clone();
        chunk["choices"] = json!([{ "index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason }]);
        if self.asked.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn end(&mut self, response: &Value) -> Vec<Value> {
        let mut chunks = Vec::new();
        if !std::mem::replace(&mut self.begun, true) {
            let role = json!({ "role": "assistant", "content": "", "refusal": null });
            chunks.push(self.chunk(role, Value::Null, Value::Null));
        }
        let reason = reason(response, !self.calls.is_empty());
        chunks.push(self.chunk(json!({}), Value::Null, reason.into()));
        if self.asked.include_usage {
            let mut last = self.head.clone();
            last["choices"] = json!([]);
            last["usage"] = usage(response);
            chunks.push(last);
        }
        chunks
    }
}

fn head(response: &Value, kind: &str) -> Value {
    let id = response["id"].as_str().unwrap_or_default();
    json!({ "id": format!("chatcmpl-{}", id.trim_start_matches("resp_")), "object": kind,
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

fn reason(response: &Value, calls: bool) -> &'static str {
    match (response["incomplete_details"]["reason"].as_str(), calls) {
        (Some("content_filter"), _) => "content_filter",
        (Some(_), _) => "length",
        (None, true) => "tool_calls",
        (None, false) => "stop",
    }
}

fn usage(response: &Value) -> Value {
    let usage = &response["usage"];
    let (input, output) = (&usage["input_tokens_details"], &usage["output_tokens_details"]);
    json!({
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["total_tokens"],
        "prompt_tokens_details": { "cached_tokens": input["cached_tokens"], "audio_tokens": 0,
            "cache_write_tokens": input["cache_write_tokens"] },
        "completion_tokens_details": { "reasoning_tokens": output["reasoning_tokens"], "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0 },
    })
}
