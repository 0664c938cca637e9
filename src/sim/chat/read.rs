//! A chat request as the context and the settings that the model works with.
//!
//! The messages are `message.rs`'s.

use serde_json::{Map, Value, json};

use super::message::items;
use crate::sim::refusal::Refusal;

/// A chat request, read.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// The same as members of a request for a response. What has no such member keeps its own name.
    pub(super) body: Map<String, Value>,
    /// How many answers.
    pub(super) answers: usize,
    /// One more chunk with the usage.
    pub(super) include_usage: bool,
    /// Token probabilities with the text.
    pub(super) logprobs: bool,
}

/// Reads a chat request.
///
/// # Errors
/// The provider's 400 for the first field that is wrong.
pub(super) fn read(chat: &Map<String, Value>) -> Result<Asked, Refusal> {
    let field = |name: &str| chat.get(name).filter(|value| !value.is_null());
    if let Some(name) = chat.keys().find(|name| !is_known(name)) {
        return Err(Refusal::invalid(format!("Unrecognized request argument supplied: {name}")));
    }
    let model = field("model").ok_or_else(|| missing("model"))?;
    let messages = field("messages").and_then(Value::as_array).ok_or_else(|| missing("messages"))?;
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    put("model", model.clone());
    put("input", items(messages)?.into());
    put("store", field("store").cloned().unwrap_or(json!(false)));
    for name in SAME.into_iter().chain(OWN) {
        if let Some(value) = field(name).filter(|value| !is_neutral(name, value)) {
            put(name, value.clone());
        }
    }
    if let Some(limit) = limit(field("max_tokens"), field("max_completion_tokens"))? {
        put("max_output_tokens", limit.clone());
    }
    if let Some(effort) = field("reasoning_effort") {
        put("reasoning", json!({ "effort": effort }));
    }
    let text = text(field("response_format"), field("verbosity"));
    if text != json!({}) {
        put("text", text);
    }
    let tools: Vec<Value> =
        field("tools").and_then(Value::as_array).into_iter().flatten().map(tool).collect();
    if !tools.is_empty() {
        put("tools", tools.into());
    }
    if let Some(choice) = field("tool_choice") {
        put("tool_choice", if choice.is_object() { flat(choice) } else { choice.clone() });
    }
    let logprobs = field("logprobs") == Some(&json!(true));
    if logprobs {
        put("include", json!(["message.output_text.logprobs"]));
    } else if field("top_logprobs").is_some() {
        return Err(needs("top_logprobs", "logprobs"));
    }
    let options = field("stream_options").cloned().unwrap_or_default();
    if !options.is_null() && field("stream") != Some(&json!(true)) {
        return Err(needs("stream_options", "stream"));
    }
    if !options["include_obfuscation"].is_null() {
        put("stream_options", json!({ "include_obfuscation": options["include_obfuscation"] }));
    }
    Ok(Asked {
        body,
        answers: answers(field("n"))?,
        include_usage: options["include_usage"] == true,
        logprobs,
    })
}

fn missing(name: &'static str) -> Refusal {
    Refusal::named("missing_required_parameter", name, format!("Missing required parameter: '{name}'."))
}

fn needs(name: &'static str, other: &str) -> Refusal {
    let message = format!("The '{name}' parameter is only allowed when '{other}' is enabled.");
    Refusal { param: Some(name), ..Refusal::invalid(message) }
}

fn answers(n: Option<&Value>) -> Result<usize, Refusal> {
    match n.map(Value::as_u64) {
        None => Ok(1),
        Some(Some(count @ 1..=MOST_ANSWERS)) => Ok(usize::try_from(count).unwrap_or(1)),
        Some(Some(count @ 0)) => Err(Refusal::below_minimum("n", 1, count)),
        Some(_) => {
            let message = format!("Invalid 'n': expected an integer <= {MOST_ANSWERS}.");
            Err(Refusal::named("integer_above_max_value", "n", message))
        }
    }
}

fn limit<'a>(old: Option<&'a Value>, new: Option<&'a Value>) -> Result<Option<&'a Value>, Refusal> {
    if old.is_some() && new.is_some() {
        let message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.";
        return Err(Refusal::named("invalid_parameter_combination", "max_tokens", message));
    }
    for (name, limit) in [("max_tokens", old), ("max_completion_tokens", new)] {
        if let Some(limit) = limit.filter(|limit| limit.as_u64().unwrap_or(0) == 0) {
            return Err(Refusal::below_minimum(name, 1, limit));
        }
    }
    Ok(old.or(new))
}

/// How the text is to be: its format, flat, and its length.
fn text(format: Option<&Value>, verbosity: Option<&Value>) -> Value {
    let mut text = json!({});
    if let Some(format) = format {
        let mut format = flat(format);
        if format["type"] == "json_schema" && format["strict"].is_null() {
            format["strict"] = false.into();
        }
        text["format"] = format;
    }
    if let Some(verbosity) = verbosity {
        text["verbosity"] = verbosity.clone();
    }
    text
}

/// A tool; a function is not strict unless it says so.
fn tool(nested: &Value) -> Value {
    let mut tool = flat(nested);
    if tool["type"] == "function" && tool["strict"].is_null() {
        tool["strict"] = false.into();
    }
    tool
}

/// A tool, the choice of one, or a format without Chat's nesting.
fn flat(nested: &Value) -> Value {
    let kind = nested["type"].as_str().unwrap_or_default();
    let mut flat = nested[kind].clone();
    if !flat.is_object() {
        return nested.clone();
    }
    flat["type"] = kind.into();
    if kind == "allowed_tools" {
        flat["tools"] = flat["tools"].as_array().into_iter().flatten().map(self::flat).collect();
    }
    if kind == "custom" && flat["format"]["type"] == "grammar" {
        flat["format"] = self::flat(&flat["format"]);
    }
    flat
}

/// Whether a field without a counterpart says no more than its absence would.
fn is_neutral(name: &str, value: &Value) -> bool {
    match name {
        "n" => *value == 1,
        "frequency_penalty" | "presence_penalty" => value.as_f64() == Some(0.0),
        "stop" => *value == json!([]),
        "logit_bias" => *value == json!({}),
        "modalities" => *value == json!(["text"]),
        _ => false,
    }
}

fn is_known(name: &str) -> bool {
    SAME.contains(&name) || OWN.contains(&name) || READ.contains(&name)
}

/// Members with the same name and meaning on both APIs.
const SAME: [&str; 13] = [
    "metadata",
    "moderation",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "stream",
    "temperature",
    "top_logprobs",
    "top_p",
    "user",
];

/// Members without a counterpart.
const OWN: [&str; 12] = [
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "modalities",
    "n",
    "prediction",
    "presence_penalty",
    "seed",
    "stop",
    "web_search_options",
];

/// Members that stand elsewhere in a request for a response.
const READ: [&str; 12] = [
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "model",
    "reasoning_effort",
    "response_format",
    "store",
    "stream_options",
    "tool_choice",
    "tools",
    "verbosity",
];

/// Answers to one request at most.
const MOST_ANSWERS: u64 = 128;
