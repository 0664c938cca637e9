//! A whole response as a whole chat reply, and as the one assistant message that its client will repeat (protocol §5.2).

use crate::proto::dialect::chat::letters::{length, letters};
use crate::proto::dialect::chat::reply::{self, Head};
use crate::proto::dialect::chat::request::Framing;
use crate::proto::wire::json;
use crate::proto::wire::object::{Fields, Object, array};

/// What a response says, as Chat says it.
#[derive(Debug, Default)]
pub(super) struct Message {
    /// The letters of all messages; `None` if there was no text part.
    text: Option<String>,
    /// Its characters.
    chars: u64,
    refusal: Option<String>,
    /// Calls as JSON, each in the form of the whole reply.
    calls: Vec<String>,
    annotations: Vec<String>,
    /// Token probabilities as JSON lists.
    logprobs: Vec<String>,
    /// Items that are no messages, as they are.
    others: Vec<String>,
}

impl Message {
    /// Reads an output: a JSON array of items.
    pub(super) fn of(output: &str) -> Self {
        let mut message = Self::default();
        for span in json::elements(output).unwrap_or_default() {
            message.item(&output[span]);
        }
        message
    }

    fn item(&mut self, item: &str) {
        let Ok(fields) = Fields::read(item) else { return };
        if let Some(content) = reply::message_content(&fields) {
            for span in json::elements(content).unwrap_or_default() {
                self.part(&content[span]);
            }
            return;
        }
        self.others.push(item.to_owned());
        let Some((kind, said)) = reply::call_kind(&fields) else { return };
        let mut named = Object::default();
        named
            .raw("name", fields.value("name").unwrap_or(r#""""#))
            .raw(said, fields.value(said).unwrap_or(r#""""#));
        let mut call = Object::default();
        call.raw("id", fields.value("call_id").unwrap_or(r#""""#))
            .text("type", kind)
            .raw(kind, &named.finish());
        self.calls.push(call.finish());
    }

    fn part(&mut self, part: &str) {
        let Ok(fields) = Fields::read(part) else { return };
        match fields.string("type").as_deref() {
            Some("output_text") => {
                let text = self.text.get_or_insert_default();
                let (said, shift) = (letters(fields.value("text")), self.chars);
                text.push_str(said);
                self.chars += length(said).chars;
                let notes = fields.value("annotations").unwrap_or("[]");
                for span in json::elements(notes).unwrap_or_default() {
                    self.annotations.extend(reply::annotation(&notes[span], shift));
                }
                self.logprobs.extend(fields.value("logprobs").and_then(reply::logprobs));
            }
            Some("refusal") => {
                let refusal = self.refusal.get_or_insert_default();
                refusal.push_str(letters(fields.value("refusal")));
            }
            _ => {}
        }
    }

    /// True if the answer calls tools.
    pub(super) fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }

    /// The output as a client of Chat repeats it: one message for all of its text, then the rest as it is.
    fn echo(&self) -> String {
        let mut parts = Vec::new();
        if let Some(text) = &self.text {
            parts.push(Object::default().text("type", "output_text").raw("text", &text_of(text)).finish());
        }
        if let Some(refusal) = &self.refusal {
            parts.push(Object::default().text("type", "refusal").raw("refusal", &text_of(refusal)).finish());
        }
        // Beside calls an empty text is none: clients leave it out.
        let silent = self.text.as_deref().unwrap_or_default().is_empty() && self.refusal.is_none();
        let mut items = Vec::new();
        if !(parts.is_empty() || silent && self.has_calls()) {
            let mut message = Object::default();
            message.text("type", "message").text("role", "assistant").raw("content", &array(&parts));
            items.push(message.finish());
        }
        items.extend_from_slice(&self.others);
        array(&items)
    }

    fn write(&self) -> String {
        let text = self
            .text
            .as_deref()
            .filter(|text| !(text.is_empty() && (self.has_calls() || self.refusal.is_some())));
        let null = || "null".to_owned();
        let mut message = Object::default();
        message
            .text("role", "assistant")
            .raw("content", &text.map_or_else(null, text_of))
            .raw("refusal", &self.refusal.as_deref().map_or_else(null, text_of))
            .raw("annotations", &array(&self.annotations));
        if self.has_calls() {
            message.raw("tool_calls", &array(&self.calls));
        }
        message.finish()
    }
}

/// Letters as a JSON string.
fn text_of(letters: &str) -> String {
    format!("\"{letters}\"")
}

/// An output as its client will repeat it.
pub fn echo(output: &str) -> String {
    Message::of(output).echo()
}

/// The `chat.completion` for a response object with this output.
pub fn body(response: &str, output: &str, framing: Framing) -> String {
    let message = Message::of(output);
    let probabilities = message.logprobs.iter().map(|list| &list[1..list.len() - 1]).collect::<Vec<_>>();
    let logprobs = match framing.logprobs && !probabilities.is_empty() {
        true => Object::default().raw("content", &array(&probabilities)).raw("refusal", "null").finish(),
        false => "null".to_owned(),
    };
    let mut choice = Object::default();
    choice
        .raw("index", "0")
        .raw("message", &message.write())
        .raw("logprobs", &logprobs)
        .raw("finish_reason", reply::finish_reason(response, message.has_calls()));
    let head = Head::of(response);
    let mut object = head.begin("chat.completion");
    object.raw("choices", &array(&[choice.finish()])).raw_if("usage", reply::usage(response).as_deref());
    head.end(&mut object)
}
