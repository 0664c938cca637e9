//! A request as the provider reads it: which fields are allowed where, and what they default to.
//!
//! Says nothing about whether the chain it names exists; that is `rules.rs` and `account.rs`.

use serde_json::{Map, Value, json};

use super::refusal::Refusal;
use super::script::Limits;
use super::{canon, compaction};

/// What a request came over. The two differ in a few forbidden fields only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `POST /v1/responses`.
    Http,
    /// A `response.create` frame.
    WebSocket,
    /// `POST /v1/chat/completions`, read as the request for a response that it means.
    Chat,
}

/// A request whose own fields are in order.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// All members as they came.
    pub(super) body: Value,
    /// The input as a list of items.
    pub(super) items: Vec<Value>,
    /// The response to continue.
    pub(super) previous: Option<String>,
    /// Whether the response is kept; true unless told otherwise.
    pub(super) store: bool,
    /// Whether anything is to be generated; false is a warm-up (protocol 1.9).
    pub(super) generate: bool,
    /// Whether an HTTP reply is to be a stream of events.
    pub(super) stream: bool,
    /// Whether the input asks for a compaction.
    pub(super) compacts: bool,
    /// Tokens that may be generated.
    pub(super) limit: Option<u64>,
    /// Texts that end the answer before they are said; Chat only.
    pub(super) stops: Vec<String>,
    /// Probabilities with every token of text, and how many rivals each.
    pub(super) logprobs: Option<usize>,
    /// Tokens of context past which it is compacted.
    pub(super) compact_threshold: Option<u64>,
    /// Digest of everything but the input, its chain and the transport's own fields.
    pub(super) settings: String,
}

impl Request {
    /// Checks the fields that need no knowledge of earlier requests.
    ///
    /// # Errors
    /// The provider's 400 for the first field that is wrong.
    pub(super) fn parse(body: Map<String, Value>, transport: Transport) -> Result<Self, Refusal> {
        if transport == Transport::Http
            && let Some(name) =
                ["type", "stream_id", "generate"].into_iter().find(|name| body.contains_key(*name))
        {
            return Err(Refusal::unknown_parameter(name));
        }
        if transport != Transport::Chat
            && let Some(name) = CHATS_OWN.into_iter().find(|name| body.contains_key(*name))
        {
            return Err(Refusal::unknown_parameter(name));
        }
        let body = Value::Object(body);
        if transport == Transport::WebSocket && body["background"] == true {
            let message = "Background responses are not supported in WebSocket mode.";
            return Err(Refusal::named("unsupported_parameter", "background", message));
        }
        if !body["model"].is_string() {
            let message = "Missing required parameter: 'model'.";
            return Err(Refusal::named("missing_required_parameter", "model", message));
        }
        let previous = text_or_null(&body, "previous_response_id")?;
        if previous.is_some() && !body["conversation"].is_null() {
            let message = "Mutually exclusive parameters: 'previous_response_id' and 'conversation'.";
            return Err(Refusal::named("mutually_exclusive_parameters", "conversation", message));
        }
        let items = items(&body, previous.is_some())?;
        Ok(Self {
            compacts: compaction::triggered(&items)?,
            compact_threshold: compaction::threshold(&body)?,
            items,
            limit: limit(&body, if transport == Transport::Chat { 1 } else { FEWEST_TOKENS })?,
            stops: stops(&body["stop"]),
            logprobs: logprobs(&body),
            // A chat completion is no response that could be asked for later.
            store: flag(&body, "store", true)? && transport != Transport::Chat,
            generate: flag(&body, "generate", true)?,
            stream: flag(&body, "stream", false)?,
            settings: settings(&body),
            previous,
            body,
        })
    }

    /// Whether the model answers on the Responses API at all.
    ///
    /// # Errors
    /// The provider's 400 if it does not.
    pub(super) fn served(&self, limits: &Limits) -> Result<(), Refusal> {
        match limits.chat_only.iter().find(|name| self.body["model"] == **name) {
            Some(name) => Err(Refusal::not_on_responses(name)),
            None => Ok(()),
        }
    }

    /// Rules of the transport that this request breaks and a lenient provider puts up with.
    pub(super) fn lapses(&self, transport: Transport) -> Vec<&'static str> {
        let sent = |name: &str| self.body.get(name).is_some_and(|value| !value.is_null());
        match transport {
            Transport::Http | Transport::Chat => Vec::new(),
            Transport::WebSocket => {
                ["stream", "conversation"].into_iter().filter(|name| sent(name)).collect()
            }
        }
    }
}

fn items(body: &Value, continues: bool) -> Result<Vec<Value>, Refusal> {
    let items = match &body["input"] {
        Value::Array(items) => items.clone(),
        Value::String(text) => {
            vec![
                json!({ "type": "message", "role": "user", "content": [{ "type": "input_text", "text": text }] }),
            ]
        }
        Value::Null if continues || !body["prompt"].is_null() || !body["conversation"].is_null() => {
            Vec::new()
        }
        Value::Null => {
            let message = "Missing required parameter: 'input'.";
            return Err(Refusal::named("missing_required_parameter", "input", message));
        }
        _ => return Err(wrong_type("input", "a string or an array of items")),
    };
    match items.iter().position(|item| canon::type_of(item).is_empty()) {
        Some(index) => {
            Err(Refusal::named("invalid_value", "input", format!("Invalid value: 'input[{index}]'.")))
        }
        None => Ok(items),
    }
}

/// `max_output_tokens`, which Chat calls otherwise and allows to be less.
fn limit(body: &Value, fewest: u64) -> Result<Option<u64>, Refusal> {
    const NAME: &str = "max_output_tokens";
    match (&body[NAME], body[NAME].as_u64()) {
        (Value::Null, _) => Ok(None),
        (_, Some(tokens)) if tokens >= fewest => Ok(Some(tokens)),
        (Value::Number(tokens), _) => Err(Refusal::below_minimum(NAME, fewest, tokens)),
        _ => Err(wrong_type(NAME, "an integer")),
    }
}

fn stops(stop: &Value) -> Vec<String> {
    let one = stop.as_str().map(str::to_owned);
    let more = stop.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    one.into_iter().chain(more).filter(|stop| !stop.is_empty()).collect()
}

fn logprobs(body: &Value) -> Option<usize> {
    let wanted = body["include"].as_array()?.iter().any(|name| name == "message.output_text.logprobs");
    let rivals = body["top_logprobs"].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
    wanted.then(|| rivals.min(MOST_RIVALS))
}

fn text_or_null(body: &Value, name: &'static str) -> Result<Option<String>, Refusal> {
    match &body[name] {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        _ => Err(wrong_type(name, "a string")),
    }
}

fn flag(body: &Value, name: &'static str, default: bool) -> Result<bool, Refusal> {
    match &body[name] {
        Value::Null => Ok(default),
        Value::Bool(value) => Ok(*value),
        _ => Err(wrong_type(name, "a boolean")),
    }
}

fn wrong_type(name: &'static str, expected: &str) -> Refusal {
    Refusal::named("invalid_type", name, format!("Invalid type for '{name}': expected {expected}."))
}

/// What must be the same whichever way a request travels: null is absent, false `background` is the default.
fn settings(body: &Value) -> String {
    let Value::Object(mut members) = canon::without_nulls(body) else { return String::new() };
    for name in ["input", "previous_response_id", "type", "stream_id", "generate", "stream"] {
        members.remove(name);
    }
    if members.get("background") == Some(&Value::Bool(false)) {
        members.remove("background");
    }
    canon::hex(&canon::sha256(&[Value::Object(members).to_string().as_bytes()]))
}

/// Fields of Chat Completions alone: the Responses API refuses them.
const CHATS_OWN: [&str; 17] = [
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "modalities",
    "n",
    "prediction",
    "presence_penalty",
    "reasoning_effort",
    "response_format",
    "seed",
    "stop",
];
/// The least `max_output_tokens` of the Responses API.
const FEWEST_TOKENS: u64 = 16;
const MOST_RIVALS: usize = 20;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn parse(body: &Value, transport: Transport) -> Result<Request, Refusal> {
        Request::parse(body.as_object().unwrap().clone(), transport)
    }

    #[test]
    fn forbidden_fields_by_transport() {
        use Transport::{Chat, Http, WebSocket};
        let table = [
            (Http, json!({"type": "response.create"}), Some("type")),
            (Http, json!({"stream_id": "a"}), Some("stream_id")),
            (Http, json!({"generate": true}), Some("generate")),
            (Http, json!({"background": true, "stream": true}), None),
            (Http, json!({"stop": "x"}), Some("stop")),
            (WebSocket, json!({"messages": []}), Some("messages")),
            (Http, json!({"max_output_tokens": 15}), Some("max_output_tokens")),
            (WebSocket, json!({"max_output_tokens": -1}), Some("max_output_tokens")),
            (Http, json!({"max_output_tokens": 16}), None),
            (Chat, json!({"max_output_tokens": 1, "stop": ["x"], "n": 2}), None),
            (Chat, json!({"max_output_tokens": 0}), Some("max_output_tokens")),
            (WebSocket, json!({"background": true}), Some("background")),
            (
                WebSocket,
                json!({"background": false, "stream": true, "generate": false, "stream_id": "a"}),
                None,
            ),
            (WebSocket, json!({"conversation": "c", "previous_response_id": "r"}), Some("conversation")),
            (WebSocket, json!({"previous_response_id": 7}), Some("previous_response_id")),
            (WebSocket, json!({"model": null}), Some("model")),
            (Http, json!({"input": null}), Some("input")),
            (Http, json!({"input": [{"nothing": 1}]}), Some("input")),
            (Http, json!({"input": null, "previous_response_id": "r"}), None),
        ];
        for (transport, extra, expected) in table {
            let mut body = json!({"model": "m", "input": "hi"});
            body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let refused = parse(&body, transport).err();
            assert_eq!(refused.as_ref().and_then(|refusal| refusal.param), expected, "{body}");
        }
    }

    #[test]
    fn settings_are_blind_to_the_transport_and_to_nothing_else() {
        let http = parse(&json!({"model": "m", "input": "a", "stream": true, "user": null}), Transport::Http)
            .unwrap();
        let frame =
            json!({"model": "m", "input": "b", "previous_response_id": "r", "stream_id": "l", "type": "t"});
        assert_eq!(http.settings, parse(&frame, Transport::WebSocket).unwrap().settings);
        assert_ne!(
            http.settings,
            parse(&json!({"model": "m", "input": "a", "user": "u"}), Transport::Http).unwrap().settings
        );
    }
}
