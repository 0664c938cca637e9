//! A chat request as the context and the settings that the model works with.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use crate::sim::refusal::Refusal;

/// A chat request, read.
#[derive(Clone, Debug, Default)]
pub(in crate::sim) struct Asked {
    /// The same as members of a request for a response.
    pub(in crate::sim) body: Map<String, Value>,
    /// How many answers.
    pub(in crate::sim) answers: usize,
    /// Texts that end an answer before they are said.
    pub(in crate::sim) stops: Vec<String>,
    /// One more chunk with the usage.
    pub(in crate::sim) include_usage: bool,
    /// Token probabilities with the text.
    pub(in crate::sim) logprobs: bool,
}

/// Reads a chat request.
///
/// # Errors
/// The provider's 400 for the first field that is wrong.
pub(in crate::sim) fn read(chat: &Map<String, Value>) -> Result<Asked, Refusal> {
    let field = |name: &str| chat.get(name).filter(|value| !value.is_null());
    if let Some(name) = ["input", "previous_response_id", "instructions"].into_iter().find(|name| field(name).is_some()) {
        return Err(Refusal::unknown_parameter(name));
    }
    let missing = |name: &'static str| {
        Refusal::named("missing_required_parameter", name, format!("Missing required parameter: '{name}'."))
    };
    let model = field("model").ok_or_else(|| missing("model"))?;
    let messages = field("messages").and_then(Value::as_array).ok_or_else(|| missing("messages"))?;
    let mut body = Map::new();
    body.insert("model".into(), model.clone());
    body.insert("input".into(), items(messages)?.into());
    body.insert("store".into(), field("store").cloned().unwrap_or(json!(false)));
    for name in SAME {
        if let Some(value) = field(name) {
            body.insert(name.into(), value.clone());
        }
    }
    if let Some(tools) = field("tools").and_then(Value::as_array) {
        body.insert("tools".into(), tools.iter().map(flat).collect());
    }
    if let Some(choice) = field("tool_choice") {
        body.insert("tool_choice".into(), if choice.is_object() { flat(choice) } else { choice.clone() });
    }
    let options = field("stream_options").cloned().unwrap_or_default();
    let logprobs = field("logprobs") == Some(&json!(true));
    if logprobs {
        body.insert("include".into(), json!(["message.output_text.logprobs"]));
    }
    Ok(Asked {
        body,
        answers: field("n").and_then(Value::as_u64).map_or(1, |n| usize::try_from(n).unwrap_or(1).clamp(1, MOST_ANSWERS)),
        stops: match field("stop") {
            Some(Value::String(stop)) => vec![stop.clone()],
            Some(Value::Array(stops)) => stops.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        },
        include_usage: options["include_usage"] == true,
        logprobs,
    })
}

fn items(messages: &[Value]) -> Result<Vec<Value>, Refusal> {
    let mut items = Vec::new();
    let mut freeform = HashSet::new();
    for (index, message) in messages.iter().enumerate() {
        let invalid = || Refusal::named("invalid_value", "messages", format!("Invalid value: 'messages[{index}]'."));
        let content = &message["content"];
        match message["role"].as_str() {
            Some(role @ ("system" | "developer" | "user")) => {
                let mut item = json!({ "type": "message", "role": role, "content": parts(content) });
                if !message["name"].is_null() {
                    item["name"] = message["name"].clone();
                }
                items.push(item);
            }
            Some("assistant") => {
                let calls = message["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
                let mut said: Vec<Value> = match content {
                    Value::String(text) if text.is_empty() && !calls.is_empty() => Vec::new(),
                    Value::String(text) => vec![json!({ "type": "output_text", "text": text })],
                    Value::Array(parts) => parts.clone(),
                    _ => Vec::new(),
                };
                if let Some(refusal) = message["refusal"].as_str() {
                    said.push(json!({ "type": "refusal", "refusal": refusal }));
                }
                if said.is_empty() && calls.is_empty() {
                    return Err(invalid());
                }
                if !said.is_empty() {
                    items.push(json!({ "type": "message", "role": "assistant", "content": said }));
                }
                for call in calls {
                    let id = &call["id"];
                    items.push(if call["type"] == "custom" {
                        freeform.insert(id.to_string());
                        json!({ "type": "custom_tool_call", "call_id": id, "name": call["custom"]["name"],
                            "input": call["custom"]["input"] })
                    } else {
                        json!({ "type": "function_call", "call_id": id, "name": call["function"]["name"],
                            "arguments": call["function"]["arguments"] })
                    });
                }
            }
            Some("tool") => {
                let id = &message["tool_call_id"];
                let custom = freeform.contains(&id.to_string());
                let kind = if custom { "custom_tool_call_output" } else { "function_call_output" };
                items.push(json!({ "type": kind, "call_id": id, "output": parts(content) }));
            }
            _ => return Err(invalid()),
        }
    }
    Ok(items)
}

/// A client's content: text as it is, parts by the names that the other API has for them.
fn parts(content: &Value) -> Value {
    let Some(parts) = content.as_array() else { return content.clone() };
    parts
        .iter()
        .map(|part| match part["type"].as_str() {
            Some("text") => json!({ "type": "input_text", "text": part["text"] }),
            Some("image_url") => {
                let detail = part["image_url"]["detail"].as_str().unwrap_or("auto");
                json!({ "type": "input_image", "image_url": part["image_url"]["url"], "detail": detail })
            }
            Some("file") => {
                let mut file = part["file"].clone();
                file["type"] = "input_file".into();
                file
            }
            _ => part.clone(),
        })
        .collect()
}

/// A tool, or the choice of one, without Chat's nesting.
fn flat(nested: &Value) -> Value {
    let kind = nested["type"].as_str().unwrap_or_default();
    let mut flat = nested[kind].clone();
    if !flat.is_object() {
        return nested.clone();
    }
    flat["type"] = kind.into();
    if let Some(tools) = flat["tools"].as_array() {
        flat["tools"] = tools.iter().map(self::flat).collect();
    }
    if kind == "custom" && flat["format"]["type"] == "grammar" {
        flat["format"] = self::flat(&flat["format"]);
    }
    flat
}

/// Members with the same name and meaning on both APIs, as far as the model's answer can show them.
const SAME: [&str; 12] = [
    "metadata",
    "moderation",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_options",
    "safety_identifier",
    "service_tier",
    "stream",
    "temperature",
    "top_logprobs",
    "top_p",
    "user",
];

/// Answers to one request at most.
const MOST_ANSWERS: usize = 8;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn asked(chat: &Value) -> Result<Asked, Refusal> {
        read(chat.as_object().unwrap())
    }

    #[test]
    fn a_conversation_with_calls() {
        let chat = json!({"model": "m", "n": 3, "stop": "x", "logprobs": true, "stream_options": {"include_usage": true},
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]},
                {"role": "assistant", "content": "", "tool_calls": [{"id": "a", "type": "custom", "custom": {"name": "n", "input": "i"}}]},
                {"role": "tool", "tool_call_id": "a", "content": "ok"},
            ],
            "tools": [{"type": "function", "function": {"name": "f"}},
                {"type": "custom", "custom": {"name": "c", "format": {"type": "grammar", "grammar": {"syntax": "lark"}}}}],
            "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]}}});
        let asked = asked(&chat).unwrap();
        assert_eq!((asked.answers, &asked.stops[..], asked.include_usage, asked.logprobs), (3, &["x".to_owned()][..], true, true));
        assert_eq!(asked.body["store"], false);
        assert_eq!(
            asked.body["input"],
            json!([
                {"type": "message", "role": "user", "content": [{"type": "input_image", "image_url": "u", "detail": "auto"}]},
                {"type": "custom_tool_call", "call_id": "a", "name": "n", "input": "i"},
                {"type": "custom_tool_call_output", "call_id": "a", "output": "ok"},
            ])
        );
        assert_eq!(asked.body["tools"][1], json!({"type": "custom", "name": "c", "format": {"type": "grammar", "syntax": "lark"}}));
        assert_eq!(
            asked.body["tool_choice"],
            json!({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]})
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (chat, param) in [
            (json!({"messages": []}), "model"),
            (json!({"model": "m"}), "messages"),
            (json!({"model": "m", "messages": [], "input": "x"}), "input"),
            (json!({"model": "m", "messages": [{"role": "assistant"}]}), "messages"),
            (json!({"model": "m", "messages": [{"role": "robot"}]}), "messages"),
        ] {
            assert_eq!(asked(&chat).unwrap_err().param, Some(param), "{chat}");
        }
    }
}
