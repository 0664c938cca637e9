//! Canonical forms: when two items mean the same to the model, and nothing looser than that.
//!
//! This is the oracle's own reading of the protocol. It deliberately shares nothing with the proxy's digests:
//! a mistake made in both places would be invisible to every test.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// What an item is to the order of a context: model-made items of one answer may be echoed in another order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Hidden reasoning, first in the canonical order of an answer.
    Reasoning,
    /// A message of role `assistant`.
    Message,
    /// Any kind of tool call.
    Call,
    /// An output of a tool call, sent by the client.
    Output,
    /// What a context was compacted to: a border that no item moves across.
    Compaction,
    /// Everything else a client sends: user, system and developer messages, configuration, unknown types.
    Client,
}

impl Kind {
    /// Reads the kind off an item's `type` and `role`; an item with a role and no type is a message.
    pub(super) fn of(item: &Value) -> Self {
        match type_of(item) {
            "message" if item["role"] == "assistant" => Self::Message,
            "reasoning" => Self::Reasoning,
            "compaction" => Self::Compaction,
            "program" => Self::Call,
            other if other.ends_with("_call") => Self::Call,
            other if other.ends_with("_output") && item["call_id"].is_string() => Self::Output,
            _ => Self::Client,
        }
    }

    /// Whether the model made it, so that an echo of it may carry fields of the client's own.
    pub(super) fn model_made(self) -> bool {
        self <= Self::Call
    }
}

/// An item's type; `message` where only a role is given (protocol 3.2).
pub(super) fn type_of(item: &Value) -> &str {
    match (item["type"].as_str(), item["role"].is_string(), item["id"].is_string()) {
        (Some(name), _, _) => name,
        (None, true, _) => "message",
        (None, false, true) => "item_reference",
        (None, false, false) => "",
    }
}

/// The canonical value of an item: equal exactly when the model would see the same thing.
///
/// `identity` is what stands for a reasoning or a compaction item; it is ignored for the other kinds.
pub(super) fn canonical(item: &Value, identity: &str) -> Value {
    match (Kind::of(item), type_of(item)) {
        (Kind::Reasoning, _) => json!({ "reasoning": identity }),
        (Kind::Compaction, _) => json!({ "compaction": identity }),
        (Kind::Message, _) => json!({ "assistant": assistant_content(&item["content"]) }),
        (Kind::Call, "function_call") => json!({
            "function": item["name"], "call_id": item["call_id"], "arguments": arguments(&item["arguments"]),
        }),
        (Kind::Call, "custom_tool_call") => json!({
            "custom": item["name"], "call_id": item["call_id"], "input": item["input"],
        }),
        (_, "message") => client_item(item, "content"),
        (Kind::Output, _) => client_item(item, "output"),
        _ => client_item(item, ""),
    }
}

/// What stands for a reasoning item: the identity inside any relayed copy of `encrypted_content`.
///
/// Foreign blobs stand for themselves. None when there is no blob at all.
pub(super) fn reasoning_identity(item: &Value) -> Option<String> {
    let blob = item["encrypted_content"].as_str()?;
    let plain = BASE64.decode(blob).ok().and_then(|bytes| {
        let identity = bytes.strip_prefix(BLOB_MARK)?.get(..64)?;
        String::from_utf8(identity.to_vec()).ok()
    });
    Some(plain.unwrap_or_else(|| format!("blob:{}", hex(&sha256(&[blob.as_bytes()])))))
}

/// A copy of `encrypted_content` for an identity of 64 hex digits: copies differ in bytes, never in meaning
/// (observed of the real provider, protocol 1.16). The rest is noise, as incompressible as ciphertext.
pub(super) fn reasoning_blob(identity: &str, copy: &str) -> String {
    let mut bytes = BLOB_MARK.to_vec();
    bytes.extend_from_slice(identity.as_bytes());
    for block in 0_u8..14 {
        bytes.extend_from_slice(&sha256(&[identity.as_bytes(), copy.as_bytes(), &[block]]));
    }
    BASE64.encode(bytes)
}

/// SHA-256 over length-prefixed parts, so that no two lists of parts collide by concatenation.
pub(super) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Drops null members of objects, at any depth: null means absent in this API.
pub(super) fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(
            members
                .iter()
                .filter(|(_, member)| !member.is_null())
                .map(|(name, member)| (name.clone(), without_nulls(member)))
                .collect(),
        ),
        Value::Array(elements) => elements.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// A client's own item: all of it counts, but its id, status, and how a lone text is wrapped.
fn client_item(item: &Value, content: &str) -> Value {
    let mut members = match without_nulls(item) {
        Value::Object(members) => members,
        other => return other,
    };
    members.remove("id");
    members.remove("status");
    if type_of(item) == "message" {
        members.remove("type");
        members.remove("phase");
    }
    if let Some(text) = members.get(content).and_then(Value::as_str) {
        let wrapped = json!([{ "type": "input_text", "text": text }]);
        members.insert(content.to_owned(), wrapped);
    }
    Value::Object(members)
}

/// The joined text of an assistant's message; parts that are not text stay between the texts.
fn assistant_content(content: &Value) -> Vec<Value> {
    let mut joined: Vec<Value> = Vec::new();
    let mut text = String::new();
    for part in content.as_array().map_or_else(|| std::slice::from_ref(content), Vec::as_slice) {
        if let Some(more) = part.as_str().or_else(|| text_of(part)) {
            text.push_str(more);
        } else if !part.is_null() {
            joined.extend((!text.is_empty()).then(|| Value::String(std::mem::take(&mut text))));
            joined.push(match part["refusal"].as_str() {
                Some(refusal) => json!({ "refusal": refusal }),
                None => without_nulls(part),
            });
        }
    }
    joined.extend((!text.is_empty()).then_some(Value::String(text)));
    joined
}

/// The text of a text part, under any of the type names clients use for one.
pub(super) fn text_of(part: &Value) -> Option<&str> {
    match part["type"].as_str()? {
        "output_text" | "input_text" | "text" => part["text"].as_str(),
        _ => None,
    }
}

/// Call arguments as a JSON value, numbers as doubles: eleven of 27 clients write them anew.
/// Text that is no JSON stands for itself; empty text is the empty object.
fn arguments(text: &Value) -> Value {
    let Some(text) = text.as_str() else { return text.clone() };
    if text.trim().is_empty() {
        return Value::Object(Map::new());
    }
    serde_json::from_str(text)
        .map_or_else(|_| json!({ "text": text }), |value| json!({ "json": doubles(value) }))
}

fn doubles(value: Value) -> Value {
    match value {
        // JavaScript writes minus zero as zero.
        Value::Number(number) => number.as_f64().map_or(Value::Null, |double| json!(double + 0.0)),
        Value::Array(elements) => elements.into_iter().map(doubles).collect(),
        Value::Object(members) => {
            Value::Object(members.into_iter().map(|(name, member)| (name, doubles(member))).collect())
        }
        other => other,
    }
}

const BLOB_MARK: &[u8] = b"sim-reasoning:";

#[cfg(test)]
mod tests {
    use super::*;

    fn same(left: &Value, right: &Value) -> bool {
        canonical(left, "r") == canonical(right, "r")
    }

    #[test]
    fn wrappings_ids_and_key_order_do_not_count() {
        let full = json!({"type": "message", "role": "user", "id": "x", "status": "completed", "phase": null,
            "content": [{"type": "input_text", "text": "hi", "detail": null}]});
        assert!(same(&json!({"role": "user", "content": "hi"}), &full));
        assert!(!same(&json!({"role": "user", "content": "hi", "name": "n"}), &full));
        assert!(!same(&json!({"role": "system", "content": "hi"}), &full));
        let two = json!({"role": "user", "content": [{"type": "input_text", "text": "h"}, {"type": "input_text", "text": "i"}]});
        assert!(!same(&two, &full), "a user's parts are not joined");
        let output = json!({"type": "function_call_output", "call_id": "c", "output": "o", "id": "y"});
        assert!(same(
            &json!({"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "o"}]}),
            &output
        ));
        assert!(!same(
            &json!({"type": "function_call_output", "call_id": "c", "output": "o", "extra": 1}),
            &output
        ));
    }

    #[test]
    fn an_echo_may_carry_fields_of_its_own() {
        let message = json!({"type": "message", "id": "m", "role": "assistant", "status": "completed", "phase": "final_answer",
            "content": [{"type": "output_text", "text": "ab", "annotations": [], "logprobs": []}]});
        assert!(same(
            &json!({"role": "assistant", "content": "ab", "name": "x", "provider": {"a": 1}}),
            &message
        ));
        assert!(same(
            &json!({"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}),
            &message
        ));
        assert!(!same(&json!({"role": "assistant", "content": "ab "}), &message));
    }

    #[test]
    fn arguments_are_values() {
        let call = |arguments: &str| json!({"type": "function_call", "call_id": "c", "name": "n", "arguments": arguments});
        assert!(same(
            &call(r#"{"b": 10.0, "a":"\u00e8", "n":12345678901234567}"#),
            &call(r#"{"a":"è","b":10,"n":12345678901234568}"#)
        ));
        assert!(same(&call(""), &call("")));
        assert!(!same(&call(r#"{"a":null}"#), &call("{}")));
        assert!(!same(&call(r#"{"a":1}"#), &call(r#"{"a":2}"#)));
        assert!(!same(&call("not json"), &call("not  json")));
    }

    #[test]
    fn every_copy_of_a_blob_has_one_identity() {
        let identity = hex(&sha256(&[b"x"]));
        let (first, second) = (reasoning_blob(&identity, "added"), reasoning_blob(&identity, "done"));
        assert_ne!(first, second);
        assert!((600..800).contains(&first.len()), "{}", first.len());
        for blob in [first, second] {
            assert_eq!(
                reasoning_identity(&json!({ "encrypted_content": blob })).as_deref(),
                Some(identity.as_str())
            );
        }
        assert!(
            reasoning_identity(&json!({"encrypted_content": "gAAAA"}))
                .is_some_and(|id| id.starts_with("blob:"))
        );
        assert_eq!(reasoning_identity(&json!({"id": "rs_1"})), None);
    }
}
