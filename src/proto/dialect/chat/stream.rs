//! The events of a response as chat chunks, as they come (protocol §5.3): the role first, text and arguments piece by piece,
//! why it ended, the usage if asked for, `[DONE]`.
//!
//! What a sparse socket left out (an announcement, deltas, a whole item) is made up for from the next event that has it,
//! and never twice. Holds no content back: what cannot be shown yet comes again in the event that completes it.

use std::collections::BTreeMap;

use crate::proto::dialect::chat::reply::{self, Head};
use crate::proto::dialect::chat::request::Framing;
use crate::proto::fault::Fault;
use crate::proto::wire::event::{Event, EventKind, ProviderError};
use crate::proto::wire::json;
use crate::proto::wire::object::{Fields, Object, array};
use crate::proto::wire::sse;

/// Writes the chunks of one reply.
#[derive(Debug)]
pub struct Chunks {
    framing: Framing,
    head: Head,
    /// The role has been sent.
    begun: bool,
    /// Parts of text and refusals, by output and content index: bytes shown, and characters of text before it.
    parts: BTreeMap<(u64, u64), (usize, u64)>,
    /// Bytes of text shown in all, and characters.
    text: (usize, u64),
    refusal: usize,
    calls: BTreeMap<u64, Call>,
    /// Where the calls shown are, by id.
    known: BTreeMap<String, u64>,
}

/// A call that has been announced.
#[derive(Debug)]
struct Call {
    /// Chat counts calls from 0, whatever stands between them.
    number: usize,
    kind: &'static str,
    said: &'static str,
    /// Bytes of its arguments shown.
    shown: usize,
}

/// One of the two kinds of words a message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Words {
    Text,
    Refusal,
}

impl Chunks {
    /// For a request with this framing. `id` and `model` stand in until the response names its own.
    pub fn new(framing: Framing, id: &str, model: &str) -> Self {
        Self {
            framing,
            head: Head::standing_in(id, model),
            begun: false,
            parts: BTreeMap::new(),
            text: (0, 0),
            refusal: 0,
            calls: BTreeMap::new(),
            known: BTreeMap::new(),
        }
    }

    /// Appends what an event adds to the reply. `output` is the terminal event's, as far as it is known.
    pub fn write(&mut self, event: &Event, output: Option<&str>, out: &mut Vec<u8>) {
        match event.kind() {
            EventKind::Created | EventKind::InProgress => {
                if let Some(response) = event.value("response") {
                    self.head = Head::of(response);
                }
            }
            EventKind::Content | EventKind::ItemDone => self.content(event, out),
            EventKind::Completed | EventKind::Ended => self.end(event, output.unwrap_or("[]"), out),
            EventKind::Error | EventKind::Aside => {}
        }
    }

    /// Appends the error that SDKs raise in mid-stream, for an error of the provider.
    pub fn write_error(&self, error: &ProviderError, out: &mut Vec<u8>) {
        sse::encode("", &error.body, out);
    }

    /// The same for a fault of the connection.
    pub fn write_fault(&self, fault: &Fault, out: &mut Vec<u8>) {
        let mut error = Object::default();
        error
            .text("message", fault.sentence())
            .text("type", "server_error")
            .raw("param", "null")
            .text("code", &format!("tailwire_{}", fault.name().replace('-', "_")));
        sse::encode("", &Object::default().raw("error", &error.finish()).finish(), out);
    }

    fn content(&mut self, event: &Event, out: &mut Vec<u8>) {
        let Some(index) = event.number("output_index") else { return };
        let part = (index, event.number("content_index").unwrap_or(0));
        match event.name() {
            "response.output_item.added" => {
                self.announce(index, event.value("item").unwrap_or("{}"), event, out)
            }
            "response.output_item.done" => {
                self.finish_item(index, event.value("item").unwrap_or("{}"), event, out)
            }
            "response.output_text.delta" => self.words(part, Words::Text, &text(event, "delta"), event, out),
            "response.output_text.done" => self.rest(part, Words::Text, &text(event, "text"), event, out),
            "response.refusal.delta" => self.words(part, Words::Refusal, &text(event, "delta"), event, out),
            "response.refusal.done" => self.rest(part, Words::Refusal, &text(event, "refusal"), event, out),
            "response.output_text.annotation.added" => self.annotation(part, event, out),
            "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta" => {
                self.arguments(index, &text(event, "delta"), event, out);
            }
            "response.function_call_arguments.done" => {
                self.rest_of_call(index, &text(event, "arguments"), event, out);
            }
            "response.custom_tool_call_input.done" => {
                self.rest_of_call(index, &text(event, "input"), event, out);
            }
            _ => {}
        }
    }

    // ---- words

    fn words(&mut self, part: (u64, u64), words: Words, said: &str, event: &Event, out: &mut Vec<u8>) {
        if said.is_empty() {
            return;
        }
        self.parts.entry(part).or_insert((0, self.text.1)).0 += said.len();
        let name = match words {
            Words::Text => {
                self.text.0 += said.len();
                self.text.1 += said.chars().count() as u64;
                "content"
            }
            Words::Refusal => {
                self.refusal += said.len();
                "refusal"
            }
        };
        self.begin(r#""""#, out);
        let delta = Object::default().text(name, said).finish();
        let asked = self.framing.logprobs && words == Words::Text;
        let logprobs = event.value("logprobs").filter(|_| asked).and_then(reply::logprobs);
        let logprobs =
            logprobs.map(|list| Object::default().raw("content", &list).raw("refusal", "null").finish());
        self.chunk(&delta, logprobs.as_deref(), "null", event.value("obfuscation"), out);
    }

    /// What of a finished part has not been shown.
    fn rest(&mut self, part: (u64, u64), words: Words, whole: &str, event: &Event, out: &mut Vec<u8>) {
        let shown = self.parts.get(&part).map_or(0, |(shown, _)| *shown);
        self.words(part, words, whole.get(shown..).unwrap_or_default(), event, out);
    }

    fn annotation(&mut self, part: (u64, u64), event: &Event, out: &mut Vec<u8>) {
        // Counted from the start of its part there, of the whole text here.
        let shift = self.parts.get(&part).map_or(self.text.1, |(_, before)| *before);
        let Some(note) = event.value("annotation").and_then(|note| reply::annotation(note, shift)) else {
            return;
        };
        self.begin(r#""""#, out);
        let delta = Object::default().raw("annotations", &array(&[note])).finish();
        self.chunk(&delta, None, "null", None, out);
    }

    // ---- calls

    /// The first chunk of a call: id, kind and name; then what is known of its arguments and has not been shown.
    fn announce(&mut self, index: u64, item: &str, event: &Event, out: &mut Vec<u8>) {
        let Ok(fields) = Fields::read(item) else { return };
        let Some((kind, said)) = reply::call_kind(&fields) else { return };
        let (Some(id), Some(name)) = (fields.string("call_id"), fields.value("name")) else { return };
        let said_in_full = fields.string(said).unwrap_or_default();
        if let Some(index) = self.known.get(&*id) {
            return self.rest_of_call(*index, &said_in_full, event, out);
        }
        self.known.insert(id.clone().into_owned(), index);
        let number = self.calls.len();
        self.calls.insert(index, Call { number, kind, said, shown: 0 });
        self.begin("null", out);
        let mut named = Object::default();
        named.raw("name", name).text(said, "");
        let mut call = Object::default();
        call.raw("index", &number.to_string()).text("id", &id).text("type", kind).raw(kind, &named.finish());
        let delta = Object::default().raw("tool_calls", &array(&[call.finish()])).finish();
        self.chunk(&delta, None, "null", None, out);
        self.arguments(index, &said_in_full, event, out);
    }

    fn arguments(&mut self, index: u64, piece: &str, event: &Event, out: &mut Vec<u8>) {
        let Some(call) = self.calls.get_mut(&index).filter(|_| !piece.is_empty()) else { return };
        call.shown += piece.len();
        let said = Object::default().text(call.said, piece).finish();
        let call = Object::default().raw("index", &call.number.to_string()).raw(call.kind, &said).finish();
        let delta = Object::default().raw("tool_calls", &array(&[call])).finish();
        self.chunk(&delta, None, "null", event.value("obfuscation"), out);
    }

    fn rest_of_call(&mut self, index: u64, whole: &str, event: &Event, out: &mut Vec<u8>) {
        let Some(call) = self.calls.get(&index) else { return };
        let rest = whole.get(call.shown..).unwrap_or_default().to_owned();
        self.arguments(index, &rest, event, out);
    }

    // ---- ends

    fn finish_item(&mut self, index: u64, item: &str, event: &Event, out: &mut Vec<u8>) {
        let Ok(fields) = Fields::read(item) else { return };
        if reply::call_kind(&fields).is_some() {
            return self.announce(index, item, event, out);
        }
        let content = fields.value("content").filter(|_| fields.string("type").as_deref() == Some("message"));
        let content = content.unwrap_or("[]");
        for (number, span) in (0u64..).zip(json::elements(content).unwrap_or_default()) {
            let Ok(part) = Fields::read(&content[span]) else { continue };
            match part.string("type").as_deref() {
                Some("output_text") => {
                    let whole = part.string("text").unwrap_or_default();
                    self.rest((index, number), Words::Text, &whole, event, out);
                }
                Some("refusal") => {
                    let whole = part.string("refusal").unwrap_or_default();
                    self.rest((index, number), Words::Refusal, &whole, event, out);
                }
                _ => {}
            }
        }
    }

    /// What no event has shown, then the reason, the usage, and the end.
    fn end(&mut self, event: &Event, output: &str, out: &mut Vec<u8>) {
        let response = event.value("response").unwrap_or("{}");
        if response != "{}" {
            self.head = Head::of(response);
        }
        self.leftovers(output, event, out);
        self.begin(r#""""#, out);
        let reason = reply::finish_reason(response, !self.known.is_empty());
        self.chunk("{}", None, reason, None, out);
        if self.framing.include_usage {
            let usage = reply::usage(response).unwrap_or_else(|| "null".to_owned());
            let mut object = self.head.begin("chat.completion.chunk");
            object.raw("choices", "[]").raw("usage", &usage);
            sse::encode("", &self.head.end(&mut object), out);
        }
        sse::encode("", "[DONE]", out);
    }

    /// Places in the output need not be the indices of the stream: what was shown is known by its length and its call ids.
    fn leftovers(&mut self, output: &str, event: &Event, out: &mut Vec<u8>) {
        let (mut text, mut refusal) = (String::new(), String::new());
        let spans = json::elements(output).unwrap_or_default();
        for span in &spans {
            let Ok(fields) = Fields::read(&output[span.clone()]) else { continue };
            let content =
                fields.value("content").filter(|_| fields.string("type").as_deref() == Some("message"));
            let content = content.unwrap_or("[]");
            for part in json::elements(content).unwrap_or_default() {
                let Ok(part) = Fields::read(&content[part]) else { continue };
                text.push_str(&part.string("text").unwrap_or_default());
                refusal.push_str(&part.string("refusal").unwrap_or_default());
            }
        }
        let rest = text.get(self.text.0..).unwrap_or_default().to_owned();
        self.words((u64::MAX, 0), Words::Text, &rest, event, out);
        let rest = refusal.get(self.refusal..).unwrap_or_default().to_owned();
        self.words((u64::MAX, 1), Words::Refusal, &rest, event, out);
        for (number, span) in (0u64..).zip(spans) {
            // An index of its own: the stream's may be taken.
            self.announce(u64::MAX - 1 - number, &output[span], event, out);
        }
    }

    // ---- chunks

    /// The chunk that names the role, before anything else. `content` is what it says so far, as JSON.
    fn begin(&mut self, content: &str, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let mut delta = Object::default();
        delta.text("role", "assistant").raw("content", content).raw("refusal", "null");
        self.chunk(&delta.finish(), None, "null", None, out);
    }

    fn chunk(
        &self,
        delta: &str,
        logprobs: Option<&str>,
        reason: &str,
        obfuscation: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        let mut choice = Object::default();
        choice
            .raw("index", "0")
            .raw("delta", delta)
            .raw("logprobs", logprobs.unwrap_or("null"))
            .raw("finish_reason", reason);
        let mut object = self.head.begin("chat.completion.chunk");
        object.raw("choices", &array(&[choice.finish()]));
        if self.framing.include_usage {
            object.raw("usage", "null");
        }
        object.raw_if("obfuscation", obfuscation);
        sse::encode("", &self.head.end(&mut object), out);
    }
}

fn text(event: &Event, member: &str) -> String {
    event.string(member).unwrap_or_default()
}

#[cfg(test)]
mod tests;
