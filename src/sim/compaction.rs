//! Compaction: when a context is replaced by one item, what that item stands for, and `POST /responses/compact`.
//!
//! Two kinds of item, told apart by their blobs. The one a response gives out stands for everything before it, which a
//! client may keep or drop. The one at the end of a compacted window stands for what the window has lost; the window is
//! to be passed on unpruned (OpenAI's compaction guide, 2026-11).

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::account::Account;
use super::canon;
use super::context::{Context, Digests, Item};
use super::refusal::Refusal;
use super::request::Request;

/// What a compaction item stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Essence {
    /// The context it replaced, with reasoning and without.
    pub(super) digests: Digests,
    /// Whether it replaced everything before it.
    pub(super) covers: bool,
}

impl Essence {
    /// Reads it out of any copy of the item's blob. A foreign blob stands for itself, and for all before it.
    pub(super) fn of(item: &Value) -> Self {
        let blob = item["encrypted_content"].as_str().unwrap_or_default();
        let plain = BASE64.decode(blob).unwrap_or_default();
        for (mark, covers) in MARKS {
            let texts = plain.strip_prefix(mark).and_then(|rest| {
                let text = |from: usize| String::from_utf8(rest.get(from..from + 64)?.to_vec()).ok();
                Some((text(0)?, text(64)?))
            });
            if let Some((context, visible)) = texts {
                let digests = Digests { context, visible, ..Digests::default() };
                return Self { digests, covers };
            }
        }
        let itself = format!("blob:{}", canon::hex(&canon::sha256(&[blob.as_bytes()])));
        let digests = Digests { context: itself.clone(), visible: itself, ..Digests::default() };
        Self { digests, covers: true }
    }

    /// A copy of the blob: copies differ in bytes, never in meaning, as those of reasoning do (protocol 1.16).
    pub(super) fn blob(&self, copy: &str) -> String {
        let [(whole, _), (window, _)] = MARKS;
        let mut bytes = if self.covers { whole } else { window }.to_vec();
        bytes.extend_from_slice(self.digests.context.as_bytes());
        bytes.extend_from_slice(self.digests.visible.as_bytes());
        for block in 0_u8..14 {
            bytes.extend_from_slice(&canon::sha256(&[
                self.digests.context.as_bytes(),
                copy.as_bytes(),
                &[block],
            ]));
        }
        BASE64.encode(bytes)
    }
}

/// Whether a response to this request begins with a compaction item.
pub(super) fn is_due(request: &Request, tokens: usize) -> bool {
    request.compacts || request.compact_threshold.is_some_and(|threshold| tokens as u64 > threshold)
}

/// The smallest `compact_threshold` of `context_management`, if it has one.
///
/// # Errors
/// The provider's 400 for a list that is none, an unknown type, or a threshold below 1000.
pub(super) fn threshold(body: &Value) -> Result<Option<u64>, Refusal> {
    let wrong = |message: &str| Err(Refusal::named("invalid_value", "context_management", message));
    let entries = match &body["context_management"] {
        Value::Null => return Ok(None),
        Value::Array(entries) => entries,
        _ => return wrong("Invalid type for 'context_management': expected an array."),
    };
    let mut smallest = None;
    for entry in entries {
        if entry["type"] != "compaction" {
            return wrong("Invalid value: 'context_management[0].type'. Supported values are: 'compaction'.");
        }
        let given = match &entry["compact_threshold"] {
            Value::Null => continue,
            value => value.as_u64(),
        };
        let Some(given) = given.filter(|given| *given >= SMALLEST_THRESHOLD) else {
            return wrong(
                "Invalid 'context_management[0].compact_threshold': expected an integer of at least 1000.",
            );
        };
        smallest = Some(smallest.map_or(given, |known: u64| known.min(given)));
    }
    Ok(smallest)
}

/// Whether the input asks for a compaction.
///
/// # Errors
/// The provider's 400 for a trigger that is not the last item, and for a compaction item without its content.
pub(super) fn triggered(items: &[Value]) -> Result<bool, Refusal> {
    if items.iter().any(|item| canon::type_of(item) == "compaction" && !item["encrypted_content"].is_string())
    {
        let message = "Missing required parameter: 'input.encrypted_content'.";
        return Err(Refusal::named("missing_required_parameter", "input", message));
    }
    let is_trigger = |item: &Value| canon::type_of(item) == "compaction_trigger";
    match items.iter().position(is_trigger) {
        None => Ok(false),
        Some(index) if index + 1 == items.len() => Ok(true),
        Some(_) => {
            let message = "A 'compaction_trigger' must be the last item of the input.";
            Err(Refusal::named("invalid_value", "input", message))
        }
    }
}

/// Answers `POST /responses/compact`: the users' messages, then one item for all the rest. Nothing is stored, and the
/// id cannot be continued.
///
/// # Errors
/// The provider's 4xx.
pub(super) fn compact(
    account: &mut Account,
    request: &Request,
    credential: &str,
    unix: u64,
) -> Result<Value, Refusal> {
    let context = account.context(request, credential)?;
    context.check()?;
    let essence = Essence { digests: context.digests(), covers: false };
    let mut output: Vec<Value> = retained(&context);
    for item in output.iter_mut().filter(|item| !item["id"].is_string()) {
        item["id"] = account.mint("msg", credential).into();
    }
    output.push(json!({ "id": account.mint("cmp", credential), "type": "compaction",
        "encrypted_content": essence.blob("window") }));
    let tokens = context.size() / 4 + 1;
    Ok(json!({ "id": account.mint("resp", credential), "object": "response.compaction", "created_at": unix,
        "output": output,
        "usage": { "input_tokens": tokens, "input_tokens_details": { "cached_tokens": 0 }, "output_tokens": 100,
            "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": tokens + 100 } }))
}

fn retained(context: &Context) -> Vec<Value> {
    let users = context.window().iter().filter(|item| item.user_text().is_some());
    let message = |item: &Arc<Item>| {
        let content = match &item.value["content"] {
            Value::String(text) => json!([{ "type": "input_text", "text": text }]),
            parts => parts.clone(),
        };
        json!({ "type": "message", "role": "user", "status": "completed", "id": item.value["id"],
            "content": content })
    };
    users.map(message).collect()
}

const SMALLEST_THRESHOLD: u64 = 1000;
const MARKS: [(&[u8], bool); 2] = [(b"sim-compaction:", true), (b"sim-compacted-window:", false)];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn every_copy_of_a_blob_stands_for_the_same() {
        let digests = Digests {
            context: canon::hex(&canon::sha256(&[b"a"])),
            visible: canon::hex(&canon::sha256(&[b"b"])),
            ..Digests::default()
        };
        for covers in [true, false] {
            let essence = Essence { digests: digests.clone(), covers };
            let (one, other) = (essence.blob("done"), essence.blob("terminal"));
            assert_ne!(one, other);
            for blob in [one, other] {
                assert_eq!(Essence::of(&json!({ "encrypted_content": blob })), essence);
            }
        }
        let foreign = Essence::of(&json!({ "encrypted_content": "gAAAA" }));
        assert!(foreign.covers && foreign.digests.context.starts_with("blob:"));
    }

    #[test]
    fn thresholds_and_triggers() {
        let read = |management: Value| threshold(&json!({ "context_management": management }));
        assert_eq!(read(Value::Null).unwrap(), None);
        assert_eq!(read(json!([{ "type": "compaction" }])).unwrap(), None);
        assert_eq!(read(json!([{ "type": "compaction", "compact_threshold": 1000 }])).unwrap(), Some(1000));
        for wrong in [
            json!([{ "type": "compaction", "compact_threshold": 999 }]),
            json!([{ "type": "compaction", "compact_threshold": "1000" }]),
            json!([{ "type": "compaction", "compact_threshold": -1 }]),
            json!([{ "type": "truncation", "compact_threshold": 5000 }]),
            json!([7]),
            json!({ "type": "compaction", "compact_threshold": 5000 }),
        ] {
            let refusal = read(wrong.clone()).unwrap_err();
            assert_eq!((refusal.status, refusal.param), (400, Some("context_management")), "{wrong}");
        }
        let (user, trigger) =
            (json!({"role": "user", "content": "a"}), json!({"type": "compaction_trigger"}));
        assert!(triggered(&[user.clone(), trigger.clone()]).unwrap());
        assert!(!triggered(std::slice::from_ref(&user)).unwrap());
        assert!(triggered(&[trigger, user]).is_err());
        assert!(triggered(&[json!({"type": "compaction", "id": "cmp_1"})]).is_err());
    }
}
