//! One item of a conversation: what it is, and the digests by which it is recognised.
//!
//! Two ways of looking, as two kinds of promise need: *old input* is what the client itself said before, where almost
//! everything counts ([`input_digest`]); *model items* are what the provider said and the client repeats in its own
//! words, where only what the model said counts ([`model_item`], `clients.md` A.4). Reasoning has keys of its own.

use crate::proto::digest::{Digest, Hasher, Key};
use crate::proto::wire::json::{self, JsonError, Numbers};
use crate::proto::wire::object::Fields;

/// Items whose `id` and `status` are the carrier's, not the content's. Every other type counts whole; so do those where
/// the id names the call that is answered (`local_shell_call_output`), or the status is the result (outputs of
/// `apply_patch` and `shell`).
const KNOWN: [&str; 12] = [
    "message",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "shell_call",
    "local_shell_call",
    "apply_patch_call",
    "computer_call",
    "computer_call_output",
    "reasoning",
    "compaction",
];

/// Identity of a reasoning item: by its encrypted content, else by its id, else whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReasoningKey([u8; 16]);

/// What an input item is to the chain of digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputItem {
    /// Everything that is not reasoning: part of the visible chain.
    Visible(Digest),
    /// A reasoning item: matched by its key, beside the chain.
    Reasoning(ReasoningKey),
}

/// What an item is as the model's own output, or as the client's echo of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelItem {
    /// An assistant message: the joined text.
    Text {
        /// Digest of the joined text.
        text: Digest,
        /// Digest of the id, if it has one.
        id: Option<Digest>,
        /// True if the whole text stands between `<think>` tags (`clients.md` A.4 rule 7).
        think: bool,
    },
    /// A function or custom tool call: type, call id, name and arguments.
    Call {
        /// Digest of all four.
        call: Digest,
        /// Digest of the call id alone.
        call_id: Digest,
    },
    /// A reasoning item.
    Reasoning {
        /// The key by which an echo names it.
        key: ReasoningKey,
        /// The key of its id, if it has one.
        id: Option<ReasoningKey>,
        /// Digest of the text a client shows for it between `<think>` tags.
        think: Digest,
    },
    /// `item_reference`: stands for the item of that id.
    Reference {
        /// Digest of the id.
        id: Option<Digest>,
        /// The same id as a reasoning key.
        key: Option<ReasoningKey>,
    },
    /// An item that answers a call.
    Output {
        /// Digest of the call id answered.
        call_id: Option<Digest>,
    },
    /// What the provider compacted a context to. The item stands for everything before it.
    Compaction {
        /// Digest of its encrypted content.
        blob: Digest,
        /// Digest of the id, if it has one.
        id: Option<Digest>,
    },
    /// Any other type: whole, id and status aside.
    Other {
        /// Digest of the whole.
        whole: Digest,
        /// Digest of the id, if it has one.
        id: Option<Digest>,
        /// Digest of the call id, if it is a call the client must answer.
        call_id: Option<Digest>,
    },
    /// A message of another role: never the model's.
    Foreign,
}

/// How an item of the request counts as old input.
pub fn input_digest(key: &Key, text: &str) -> Result<InputItem, JsonError> {
    let item = View::new(text)?;
    if item.kind == "reasoning" {
        return Ok(InputItem::Reasoning(item.reasoning_key(key)?));
    }
    let mut out = Vec::with_capacity(text.len() + 64);
    item.canonical(Numbers::Exact, &mut out)?;
    let mut hasher = key.hasher("item");
    hasher.field(&out);
    Ok(InputItem::Visible(hasher.finish()))
}

/// How a plain string as `input` counts: as the one user message it stands for.
pub fn text_digest(key: &Key, string: &str) -> Result<Digest, JsonError> {
    let mut message = String::with_capacity(string.len() + 32);
    message.push_str(r#"{"role":"user","content":"#);
    message.push_str(string);
    message.push('}');
    match input_digest(key, &message)? {
        InputItem::Visible(digest) => Ok(digest),
        InputItem::Reasoning(_) => Err(JsonError::Syntax),
    }
}

/// What an item is as model output or as its echo.
pub fn model_item(key: &Key, text: &str) -> Result<ModelItem, JsonError> {
    let item = View::new(text)?;
    let id = item.string("id");
    let id_digest = id.as_deref().map(|id| digest(key, "id", &[id.as_bytes()]));
    let call_id = item.string("call_id").map(|id| digest(key, "call-id", &[id.as_bytes()]));
    Ok(match item.kind.as_str() {
        "message" if item.string("role").as_deref() == Some("assistant") => match item.assistant_text()? {
            Some(text) => ModelItem::Text {
                text: digest(key, "text", &[text.as_bytes()]),
                id: id_digest,
                think: text.starts_with("<think>") && text.ends_with("</think>"),
            },
            None => ModelItem::Other { whole: item.whole(key)?, id: id_digest, call_id: None },
        },
        "message" => ModelItem::Foreign,
        "function_call" | "custom_tool_call" => match call_id {
            Some(call_id) => ModelItem::Call { call: item.call(key)?, call_id },
            None => ModelItem::Other { whole: item.whole(key)?, id: id_digest, call_id: None },
        },
        "reasoning" => ModelItem::Reasoning {
            key: item.reasoning_key(key)?,
            id: id.as_deref().map(|id| id_key(key, id)),
            think: digest(key, "text", &[item.think_text()?.as_bytes()]),
        },
        "compaction" if item.string("encrypted_content").is_some() => ModelItem::Compaction {
            blob: digest(key, "compaction", &[&item.string_form("encrypted_content")?]),
            id: id_digest,
        },
        "item_reference" => {
            ModelItem::Reference { id: id_digest, key: id.as_deref().map(|id| id_key(key, id)) }
        }
        "local_shell_call_output" => {
            let answered = item.string("call_id").or(id);
            let call_id = answered.map(|id| digest(key, "call-id", &[id.as_bytes()]));
            ModelItem::Output { call_id }
        }
        kind if kind.ends_with("_output") => ModelItem::Output { call_id },
        kind => {
            let call_id = call_id.filter(|_| kind.ends_with("_call"));
            ModelItem::Other { whole: item.whole(key)?, id: id_digest, call_id }
        }
    })
}

fn digest(key: &Key, domain: &'static str, fields: &[&[u8]]) -> Digest {
    let mut hasher = key.hasher(domain);
    for field in fields {
        hasher.field(field);
    }
    hasher.finish()
}

fn id_key(key: &Key, id: &str) -> ReasoningKey {
    reasoning_key(key.hasher("reasoning-id"), id.as_bytes())
}

fn reasoning_key(mut hasher: Hasher, bytes: &[u8]) -> ReasoningKey {
    hasher.field(bytes);
    let mut short = [0; 16];
    short.copy_from_slice(&hasher.finish().as_bytes()[..16]);
    ReasoningKey(short)
}

/// An item's members, looked up by name.
struct View<'a> {
    fields: Fields<'a>,
    /// `type`, or what its absence means: a role makes a message, an id alone a reference (protocol §3.2).
    kind: String,
}

impl<'a> View<'a> {
    fn new(text: &'a str) -> Result<Self, JsonError> {
        let mut view = Self { fields: Fields::read(text)?, kind: String::new() };
        view.kind = match view.string("type") {
            Some(kind) => kind,
            None if view.string("role").is_some() => "message".to_owned(),
            None if view.value("type").is_none() && view.value("id").is_some() => "item_reference".to_owned(),
            None => String::new(),
        };
        Ok(view)
    }

    fn value(&self, key: &str) -> Option<&'a str> {
        self.fields.value(key)
    }

    fn string(&self, key: &str) -> Option<String> {
        self.fields.string(key).map(std::borrow::Cow::into_owned)
    }

    /// The members that are not null, by name.
    fn sorted(&self) -> impl Iterator<Item = (&str, &'a str)> {
        let mut members: Vec<(&str, &'a str)> = self.fields.iter().collect();
        members.sort_unstable_by_key(|(name, _)| *name);
        members.into_iter()
    }

    /// Old input: everything counts except key order, space, escapes, null members, and what merely carries the item.
    fn canonical(&self, numbers: Numbers, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let known = KNOWN.contains(&self.kind.as_str());
        // A type that is no name does not say what the item is, and counts like any member.
        let named = self.string("type").is_some();
        json::tagged(b't', self.kind.as_bytes(), out);
        for (name, value) in self.sorted() {
            if (named && name == "type") || (known && (name == "id" || name == "status")) {
                continue;
            }
            json::tagged(b'k', name.as_bytes(), out);
            match (self.kind.as_str(), name) {
                ("message", "content") => self.content(value, numbers, out)?,
                ("function_call", "arguments") => arguments(value, out)?,
                _ => json::canonical(value, numbers, false, out)?,
            }
        }
        Ok(())
    }

    /// A string is the list of one text part; null members of parts are absent.
    fn content(&self, value: &str, numbers: Numbers, out: &mut Vec<u8>) -> Result<(), JsonError> {
        if !value.starts_with(['[', '"']) {
            return json::canonical(value, numbers, false, out);
        }
        out.push(b'[');
        if value.starts_with('"') {
            let kind = if self.string("role").as_deref() == Some("assistant") {
                "output_text"
            } else {
                "input_text"
            };
            let part = format!(r#"{{"text":{value},"type":"{kind}"}}"#);
            return json::canonical(&part, numbers, true, out);
        }
        for part in json::elements(value)? {
            json::canonical(&value[part], numbers, true, out)?;
        }
        Ok(())
    }

    /// The whole item, id and status aside.
    fn whole(&self, key: &Key) -> Result<Digest, JsonError> {
        let mut out = Vec::new();
        for (name, value) in self.sorted().filter(|(name, _)| *name != "id" && *name != "status") {
            json::tagged(b'k', name.as_bytes(), &mut out);
            json::canonical(value, Numbers::Double, true, &mut out)?;
        }
        Ok(digest(key, "whole", &[&out]))
    }

    fn call(&self, key: &Key) -> Result<Digest, JsonError> {
        let mut said = Vec::new();
        match self.kind.as_str() {
            "custom_tool_call" => said.extend_from_slice(self.string_form("input")?.as_slice()),
            _ => arguments(self.value("arguments").unwrap_or("\"\""), &mut said)?,
        }
        let call_id = self.string_form("call_id")?;
        let name = self.string_form("name")?;
        Ok(digest(key, "call", &[self.kind.as_bytes(), &call_id, &name, &said]))
    }

    fn string_form(&self, member: &str) -> Result<Vec<u8>, JsonError> {
        let mut out = Vec::new();
        json::canonical(self.value(member).unwrap_or("null"), Numbers::Exact, false, &mut out)?;
        Ok(out)
    }

    /// The joined text of an assistant message; `None` if it has parts that are not text.
    fn assistant_text(&self) -> Result<Option<String>, JsonError> {
        let Some(content) = self.value("content") else { return Ok(Some(String::new())) };
        if content.starts_with('"') {
            return Ok(json::string(content).map(std::borrow::Cow::into_owned));
        }
        let mut text = String::new();
        for part in json::elements(content)? {
            let Some(part) = part_text(&content[part])? else { return Ok(None) };
            text.push_str(&part);
        }
        Ok(Some(text))
    }

    /// What pydantic-ai writes for a reasoning item: its summary between tags, two line breaks for an empty one.
    fn think_text(&self) -> Result<String, JsonError> {
        let summary = self.value("summary").unwrap_or("[]");
        let mut parts = Vec::new();
        if summary.starts_with('[') {
            for part in json::elements(summary)? {
                parts.extend(part_text(&summary[part])?);
            }
        }
        Ok(format!("<think>\n{}\n</think>", parts.join("\n\n")))
    }

    fn reasoning_key(&self, key: &Key) -> Result<ReasoningKey, JsonError> {
        if let Some(blob) = self.string("encrypted_content") {
            return Ok(reasoning_key(key.hasher("reasoning-blob"), blob.as_bytes()));
        }
        if let Some(id) = self.string("id") {
            return Ok(id_key(key, &id));
        }
        Ok(reasoning_key(key.hasher("reasoning-whole"), self.whole(key)?.as_bytes()))
    }
}

/// The text of one text, refusal or summary part; `None` for anything else.
fn part_text(part: &str) -> Result<Option<String>, JsonError> {
    let members = json::members(part)?;
    let text = |key: &str| {
        json::find(&members, key)
            .and_then(|member| json::string(&part[member.value.clone()]))
            .map(std::borrow::Cow::into_owned)
    };
    Ok(match text("type").as_deref() {
        Some("output_text" | "text" | "input_text" | "summary_text") => text("text"),
        // Marked, so that a refusal and a text of the same words differ.
        Some("refusal") => text("refusal").map(|refusal| format!("\u{0}refusal\u{0}{refusal}")),
        _ => None,
    })
}

/// A call's arguments as the JSON value they hold, numbers as doubles, nothing as `{}`; else as the text they are.
fn arguments(value: &str, out: &mut Vec<u8>) -> Result<(), JsonError> {
    let Some(text) = json::string(value) else { return json::canonical(value, Numbers::Double, false, out) };
    let text = if text.trim().is_empty() { "{}" } else { &*text };
    let start = out.len();
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    if is_json && json::canonical(text, Numbers::Double, false, out).is_ok() {
        return Ok(());
    }
    out.truncate(start);
    json::tagged(b'a', text.as_bytes(), out);
    Ok(())
}

#[cfg(test)]
mod tests;
