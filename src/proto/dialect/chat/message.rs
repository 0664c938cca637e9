//! Chat messages as input items: text and parts, calls, results (protocol §5.1).
//!
//! One assistant message is a message item and an item for each of its calls, in that order. Fields that SDKs add when they
//! repeat an answer, and that Chat itself does not read, are left out as Chat leaves them out.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::proto::dialect::chat::part;
use crate::proto::transcript::plan::Reason;
use crate::proto::wire::json;
use crate::proto::wire::object::{Fields, Object, array};

/// The items of a history, as they are translated.
#[derive(Debug, Default)]
pub(super) struct Items {
    /// One after another, with commas between them.
    items: String,
    /// Ids of freeform calls: their results are another kind of item. As JSON.
    custom: HashSet<String>,
}

impl Items {
    /// Translates the next message.
    pub(super) fn push(&mut self, message: &str) -> Result<(), Reason> {
        let message = Fields::read(message).map_err(|_| Reason::Undigestable)?;
        if message.value("name").is_some() {
            return Err(Reason::Field("name"));
        }
        match message.string("role").as_deref() {
            Some(role @ ("system" | "developer")) => self.said(role, &message, part::text),
            Some("user") => self.said("user", &message, part::user),
            Some("assistant") => self.assistant(&message),
            Some("tool") => self.result(&message),
            Some("function") => Err(Reason::Field("functions")),
            _ => Err(Reason::Field("role")),
        }
    }

    /// The members of a JSON array.
    pub(super) fn finish(self) -> String {
        self.items
    }

    fn add(&mut self, item: &str) {
        if !self.items.is_empty() {
            self.items.push(',');
        }
        self.items.push_str(item);
    }

    fn said(
        &mut self,
        role: &str,
        message: &Fields<'_>,
        part: fn(&str) -> Result<String, Reason>,
    ) -> Result<(), Reason> {
        only(message, &["role", "content"])?;
        let content = content(message, part)?.ok_or(Reason::Field("content"))?;
        self.message(role, &content);
        Ok(())
    }

    fn assistant(&mut self, message: &Fields<'_>) -> Result<(), Reason> {
        const READ: [&str; 4] = ["role", "content", "refusal", "tool_calls"];
        // Added by SDKs to what they repeat (`clients.md` A.4 rule 1); Chat's own request type has none of them.
        const ADDED: [&str; 4] = ["annotations", "parsed", "index", "provider_specific_fields"];
        // Where a provider's Chat API tells its reasoning, it also reads it again, and here it could not be said.
        const THOUGHT: [&str; 3] = ["reasoning_content", "reasoning", "reasoning_details"];
        let thought = |name: &&str| message.value(name).is_some_and(|value| !matches!(value, r#""""# | "[]"));
        if let Some(name) = THOUGHT.into_iter().find(thought) {
            return Err(Reason::Field(name));
        }
        only(message, &[&READ[..], &ADDED[..], &THOUGHT[..]].concat())?;
        let calls = message.value("tool_calls").unwrap_or("[]");
        let calls: Vec<&str> = json::elements(calls)
            .map_err(|_| Reason::Field("tool_calls"))?
            .into_iter()
            .map(|span| &calls[span])
            .collect();
        let content = content(message, part::assistant)?;
        let said = match (content, message.value("refusal")) {
            (content, Some(refusal)) => Some(with_refusal(content, refusal)?.into()),
            // Beside calls nothing said and an empty text are the same.
            (Some(content), None) if content != r#""""# || calls.is_empty() => Some(content),
            _ => None,
        };
        if said.is_none() && calls.is_empty() {
            return Err(Reason::Field("content"));
        }
        if let Some(content) = said {
            self.message("assistant", &content);
        }
        calls.into_iter().try_for_each(|call| self.call(call))
    }

    fn message(&mut self, role: &str, content: &str) {
        let mut item = Object::default();
        item.text("type", "message").text("role", role).raw("content", content);
        self.add(&item.finish());
    }

    fn call(&mut self, call: &str) -> Result<(), Reason> {
        const NAME: Reason = Reason::Field("tool_calls");
        let call = Fields::read(call).map_err(|_| Reason::Undigestable)?;
        only(&call, &["id", "type", "index", "function", "custom", "provider_specific_fields"])
            .map_err(|_| NAME)?;
        let id = call.value("id").filter(|id| id.starts_with('"')).ok_or(NAME)?;
        let mut item = Object::default();
        match call.string("type").as_deref() {
            Some("function") => {
                let function = Fields::read(call.value("function").ok_or(NAME)?).map_err(|_| NAME)?;
                only(&function, &["name", "arguments", "parsed_arguments"]).map_err(|_| NAME)?;
                item.text("type", "function_call")
                    .raw("call_id", id)
                    .raw("name", function.value("name").ok_or(NAME)?)
                    .raw("arguments", function.value("arguments").ok_or(NAME)?);
            }
            Some("custom") => {
                let custom = Fields::read(call.value("custom").ok_or(NAME)?).map_err(|_| NAME)?;
                only(&custom, &["name", "input"]).map_err(|_| NAME)?;
                self.custom.insert(id.to_owned());
                item.text("type", "custom_tool_call")
                    .raw("call_id", id)
                    .raw("name", custom.value("name").ok_or(NAME)?)
                    .raw("input", custom.value("input").ok_or(NAME)?);
            }
            _ => return Err(NAME),
        }
        self.add(&item.finish());
        Ok(())
    }

    fn result(&mut self, message: &Fields<'_>) -> Result<(), Reason> {
        only(message, &["role", "content", "tool_call_id"])?;
        let id = message.value("tool_call_id").filter(|id| id.starts_with('"'));
        let id = id.ok_or(Reason::Field("tool_call_id"))?;
        let output = content(message, part::text)?.ok_or(Reason::Field("content"))?;
        let custom = self.custom.contains(id);
        let kind = if custom { "custom_tool_call_output" } else { "function_call_output" };
        let mut item = Object::default();
        item.text("type", kind).raw("call_id", id).raw("output", &output);
        self.add(&item.finish());
        Ok(())
    }
}

/// A message's content: a string as it is, or its parts, each translated.
fn content<'a>(
    message: &Fields<'a>,
    part: fn(&str) -> Result<String, Reason>,
) -> Result<Option<Cow<'a, str>>, Reason> {
    let Some(content) = message.value("content") else { return Ok(None) };
    if content.starts_with('"') {
        return Ok(Some(content.into()));
    }
    let parts = json::elements(content).map_err(|_| Reason::Field("content"))?;
    let parts: Vec<String> = parts.into_iter().map(|span| part(&content[span])).collect::<Result<_, _>>()?;
    Ok(Some(array(&parts).into()))
}

/// What was said, and then a refusal.
fn with_refusal(content: Option<Cow<'_, str>>, refusal: &str) -> Result<String, Reason> {
    let refusal = Object::default().text("type", "refusal").raw("refusal", refusal).finish();
    match content {
        None => Ok(array(&[refusal])),
        Some(text) if text.starts_with('"') => {
            let text = Object::default().text("type", "output_text").raw("text", &text).finish();
            Ok(array(&[text, refusal]))
        }
        Some(_) => Err(Reason::Field("refusal")),
    }
}

/// Nothing is there but what is known: an unknown field might matter.
fn only(fields: &Fields<'_>, known: &[&str]) -> Result<(), Reason> {
    match fields.beyond(known) {
        Some("function_call") => Err(Reason::Field("function_call")),
        Some("audio") => Err(Reason::Field("audio")),
        Some(_) => Err(Reason::Field("messages")),
        None => Ok(()),
    }
}
