//! A request read as spans, against a general JSON reader; read on after a known prefix, against reading it whole; and the
//! frame it becomes.

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tailwire::proto::digest::{Digest, Key};
use tailwire::proto::transcript::frame::{self, Envelope};
use tailwire::proto::transcript::plan::Reason;
use tailwire::proto::transcript::prefix::Prefix;
use tailwire::proto::transcript::request::{Chain, Request};

/// Apart by blank lines: a body; what a second one says after the first one's known prefix; and any third.
pub(crate) fn check(data: &[u8]) {
    let key = Key::new([7; 32]);
    let account = key.hasher("account").finish();
    let (body, rest) = halves(data);
    let (rest, third) = halves(rest);
    let first = read(&key, &account, body, &[]);
    let known = first.as_ref().and_then(|request| request.chain.as_ref()?.prefix.clone());
    let next = [&body[..known.as_ref().map_or(0, |prefix| prefix.len)], rest].concat();
    let second = read(&key, &account, &next, known.as_slice());
    let third = read(&key, &account, third, known.as_slice());
    for other in [second, third].into_iter().flatten() {
        let say = |request: &Request| serde_json::from_str(request.body()).unwrap_or_default();
        first.iter().for_each(|first| assert_apart((first, &say(first)), (&other, &say(&other))));
    }
}

fn halves(data: &[u8]) -> (&[u8], &[u8]) {
    let cut = data.windows(2).position(|pair| pair == b"\n\n").unwrap_or(data.len());
    (&data[..cut], data.get(cut + 2..).unwrap_or_default())
}

/// Reads a body the long way and, with a prefix known, the short way; compares what was read.
fn read(key: &Key, account: &Digest, body: &[u8], known: &[Prefix]) -> Option<Request> {
    let parse = |known: &[Prefix]| Request::parse(key, account, Bytes::copy_from_slice(body), known);
    let (whole, resumed) = (parse(&[]), parse(known));
    match (&whole, &resumed) {
        (Ok(whole), Ok(resumed)) => assert_same(whole, resumed),
        (whole, resumed) => assert_eq!(whole.as_ref().err(), resumed.as_ref().err()),
    }
    let general = serde_json::from_slice::<Value>(body).ok();
    if whole.is_ok() {
        let text = std::str::from_utf8(body).expect("a request is text");
        assert!(serde_json::from_str::<&RawValue>(text).is_ok(), "not JSON");
    }
    if let Some(general) = &general {
        assert_refused_with_reason(body, general, whole.as_ref().err());
        for request in [&whole, &resumed].into_iter().flatten() {
            assert_says_the_same(request, general);
            assert_frame(request, general);
        }
    }
    whole.ok()
}

/// What is refused, by name, and that nothing else is.
fn assert_refused_with_reason(body: &[u8], general: &Value, refused: Option<&Reason>) {
    let empty = Map::new();
    let fields = general.as_object().unwrap_or(&empty);
    let flag = |name| matches!(general[name], Value::Null | Value::Bool(_));
    let understood = general.is_object()
        && (general["input"].is_array() || general["input"].is_string())
        && flag("stream")
        && flag("store")
        && (general["previous_response_id"].is_null() || general["previous_response_id"].is_string());
    let off = |name| matches!(general[name], Value::Null | Value::Bool(false));
    let http = ["background", "conversation", "prompt"].into_iter().any(|name| !off(name));
    let envelope = ["type", "stream_id", "generate"].into_iter().any(|name| fields.contains_key(name));
    if !understood || http || envelope {
        assert!(refused.is_some(), "taken: {general}");
    } else if is_unambiguous(body, general) {
        assert_eq!(refused, None, "{general}");
    }
    match refused {
        Some(Reason::Field(name)) => assert!(fields.contains_key(*name), "{name}"),
        Some(Reason::DuplicateKey) => assert!(!is_unambiguous(body, general), "{general}"),
        Some(reason) => assert_eq!(reason, &Reason::NotUnderstood),
        None => {}
    }
}

/// True if no object names a key twice: as many colons outside of strings as the tree has members.
fn is_unambiguous(body: &[u8], general: &Value) -> bool {
    let (mut colons, mut quoted, mut escaped) = (0, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b':' if !quoted => colons += 1,
            _ => {}
        }
    }
    colons == members(general)
}

fn members(value: &Value) -> usize {
    match value {
        Value::Object(object) => object.len() + object.values().map(members).sum::<usize>(),
        Value::Array(list) => list.iter().map(members).sum(),
        _ => 0,
    }
}

fn assert_says_the_same(request: &Request, general: &Value) {
    assert_eq!((request.stream, request.store), (general["stream"] == true, general["store"] != false));
    assert_eq!(request.anchor.as_deref(), general["previous_response_id"].as_str());
    let acting = ["mcp", "shell", "code_interpreter", "computer"];
    let acts =
        |tool: &Value| tool["type"].as_str().is_some_and(|kind| acting.iter().any(|a| kind.starts_with(a)));
    assert_eq!(request.acts, general["tools"].as_array().is_some_and(|tools| tools.iter().any(acts)));
    let one = [general["input"].clone()];
    let items = general["input"].as_array().map_or(&one[..], Vec::as_slice);
    let readable = general["input"].is_string() || items.iter().all(Value::is_object);
    let Some(chain) = &request.chain else {
        assert_eq!(request.items(), 0);
        return assert!(
            !readable || !is_unambiguous(request.body().as_bytes(), general),
            "no chain: {general}"
        );
    };
    assert!(readable);
    assert_eq!((request.items(), chain.items), (items.len(), items.len()));
    let visible = items.iter().filter(|item| item["type"] != "reasoning").count();
    assert_eq!(chain.steps.last().map(|step| step.visible as usize), Some(visible));
    assert_eq!(chain.reasoning.len(), items.len() - visible);
    for (n, item) in items.iter().enumerate().filter(|_| general["input"].is_array()) {
        match request.item(n) {
            Some(span) => assert_eq!(serde_json::from_str::<Value>(span).ok().as_ref(), Some(item)),
            None => assert!(n < chain.first, "item {n} was not read"),
        }
    }
}

/// The frame holds the client's own fields, what frames must not hold left out, and the items from the tail on.
fn assert_frame(request: &Request, general: &Value) {
    let chain =
        request.chain.as_ref().filter(|chain| general["input"].is_array() && chain.items > chain.first);
    for from in [None, chain.map(|chain| chain.items - 1), chain.map(|chain| chain.first)] {
        let previous = from.map(|_| "resp_1");
        let frame = frame::write(request, Envelope { stream_id: Some("tw0"), previous, new_from: from });
        assert!(frame.len() <= frame::size(request, from));
        let frame: Value = serde_json::from_slice(&frame).expect("a frame is JSON");
        let mut expected = general.clone();
        for name in ["stream", "background", "conversation", "prompt", "previous_response_id"] {
            expected.as_object_mut().map(|fields| fields.remove(name));
        }
        expected["type"] = "response.create".into();
        expected["stream_id"] = "tw0".into();
        if let Some(from) = from {
            expected["previous_response_id"] = json!(previous);
            expected["input"] = general["input"].as_array().expect("a list")[from..].into();
        }
        assert_eq!(frame, expected);
    }
}

fn assert_same(whole: &Request, resumed: &Request) {
    let settings = |r: &Request| (r.stream, r.store, r.acts, r.anchor.clone(), r.scope, r.unknown, r.items());
    assert_eq!(settings(whole), settings(resumed));
    let (Some(whole), Some(resumed)) = (&whole.chain, &resumed.chain) else {
        return assert_eq!(whole.chain.is_some(), resumed.chain.is_some());
    };
    // Reasoning at the end of what was known counts with the last visible item before it.
    let links =
        |chain: &Chain| chain.steps.iter().map(|step| (step.visible, step.digest)).collect::<Vec<_>>();
    let (all, new) = (links(whole), links(resumed));
    assert!(all.ends_with(&new), "{all:?} {new:?}");
    assert!(whole.steps.ends_with(&resumed.steps[1..]));
    assert_eq!(whole.reasoning, resumed.reasoning);
    let prefix = |chain: &Chain| chain.prefix.as_ref().map(|prefix| (prefix.len, prefix.digest));
    assert_eq!(prefix(whole), prefix(resumed));
}

/// One scope, or one digest, only of what is equal.
fn assert_apart((one, first): (&Request, &Value), (other, second): (&Request, &Value)) {
    let scope = |said: &Value| ["model", "user", "safety_identifier"].map(|name| said[name].clone());
    if first.is_object() && second.is_object() && one.scope == other.scope {
        assert_eq!((one.store, scope(first)), (other.store, scope(second)));
        let end = |request: &Request| Some(request.chain.as_ref()?.steps.last()?.digest);
        if end(one).is_some() && end(one) == end(other) {
            assert_eq!(visible(first), visible(second), "one digest");
        }
    }
}

/// The items that count, by what counts of them.
fn visible(said: &Value) -> Vec<Value> {
    let one = [json!({ "role": "user", "content": said["input"] })];
    let items = said["input"].as_array().map_or(&one[..], Vec::as_slice);
    items.iter().filter(|item| item["type"] != "reasoning").map(counting).collect()
}

/// An item without what merely carries it, in the one spelling of several.
fn counting(item: &Value) -> Value {
    let mut item = without_nulls(item);
    let kind = match (item["type"].as_str(), &item["role"], item.get("type"), item.get("id")) {
        (Some(kind), ..) => kind.to_owned(),
        (None, Value::String(_), ..) => "message".to_owned(),
        (None, _, None, Some(_)) => "item_reference".to_owned(),
        _ => String::new(),
    };
    let carried = ["message", "compaction", "function_call", "custom_tool_call", "function_call_output"];
    let carried =
        carried.contains(&&*kind) || kind == "custom_tool_call_output" || kind.starts_with("computer_call");
    let carried = carried || ["shell_call", "local_shell_call", "apply_patch_call"].contains(&&*kind);
    for name in ["id", "status"].into_iter().filter(|_| carried) {
        item.as_object_mut().map(|item| item.remove(name));
    }
    if kind == "message" {
        let part = if item["role"] == "assistant" { "output_text" } else { "input_text" };
        match &mut item["content"] {
            Value::Array(parts) => parts.iter_mut().for_each(|part| *part = without_nulls(part)),
            content if content.is_string() => *content = json!([{ "type": part, "text": content.clone() }]),
            _ => {}
        }
    }
    if kind == "function_call" && item.get("arguments").is_some() {
        item["arguments"] = arguments(&item["arguments"]);
    }
    if item["type"].is_null() || item["type"].is_string() {
        item["type"] = kind.into();
    }
    item
}

fn without_nulls(value: &Value) -> Value {
    let Value::Object(object) = value else { return value.clone() };
    object
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// What a call is given: the JSON in the text, numbers by about their value.
fn arguments(value: &Value) -> Value {
    match value {
        Value::String(text) if text.trim().is_empty() => json!({}),
        Value::String(text) => {
            serde_json::from_str(text).map_or_else(|_| value.clone(), |said| doubles(&said))
        }
        said => doubles(said),
    }
}

fn doubles(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!([number.as_f64().map(|value| format!("{:.9e}", value + 0.0))]),
        Value::Array(list) => list.iter().map(doubles).collect(),
        Value::Object(object) => object.iter().map(|(name, value)| (name.clone(), doubles(value))).collect(),
        other => other.clone(),
    }
}
