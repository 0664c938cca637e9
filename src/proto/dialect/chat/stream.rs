//! The events of a response as chat chunks, as they come (protocol §5.3): the role first, text and arguments piece by piece,
//! why it ended, the usage if asked for, `[DONE]`.
//!
//! What a sparse socket left out (an announcement, deltas, a whole item) is made up for from the next event that has it,
//! and never twice. Holds no content back: what cannot be shown yet comes again in the event that completes it. Pieces travel
//! as they came; read of them is only how long they are.

use std::collections::BTreeMap;

use crate::proto::dialect::chat::letters::{after, length, letters};
use crate::proto::dialect::chat::reply::{self, Head};
use crate::proto::dialect::chat::request::Framing;
use crate::proto::fault::Fault;
use crate::proto::wire::error::ProviderError;
use crate::proto::wire::event::{Event, EventKind};
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
    /// Parts of text and refusals, by output and content index: UTF-16 units shown, and characters of text before it.
    parts: BTreeMap<(u64, u64), (usize, u64)>,
    /// Messages of which something was shown, by output index: their ids, as JSON.
    messages: BTreeMap<u64, Option<String>>,
    /// Characters of text shown in all.
    chars: u64,
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
    /// UTF-16 units of its arguments shown.
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
            messages: BTreeMap::new(),
            chars: 0,
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
        let said = |member: &str| letters(event.value(member));
        match event.name() {
            "response.output_item.added" => {
                self.announce(index, event.value("item").unwrap_or("{}"), event, out)
            }
            "response.output_item.done" => {
                self.finish_item(index, event.value("item").unwrap_or("{}"), event, out)
            }
            "response.output_text.delta" => self.words(part, Words::Text, said("delta"), event, out),
            "response.output_text.done" => self.rest(part, Words::Text, said("text"), event, out),
            "response.refusal.delta" => self.words(part, Words::Refusal, said("delta"), event, out),
            "response.refusal.done" => self.rest(part, Words::Refusal, said("refusal"), event, out),
            "response.output_text.annotation.added" => self.annotation(part, event, out),
            "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta" => {
                self.arguments(index, said("delta"), event, out);
            }
            "response.function_call_arguments.done" => {
                self.rest_of_call(index, said("arguments"), event, out);
            }
            "response.custom_tool_call_input.done" => self.rest_of_call(index, said("input"), event, out),
            _ => {}
        }
    }

    // ---- words

    fn words(&mut self, part: (u64, u64), words: Words, said: &str, event: &Event, out: &mut Vec<u8>) {
        if said.is_empty() {
            return;
        }
        let length = length(said);
        self.parts.entry(part).or_insert((0, self.chars)).0 += length.units;
        let id = self.messages.entry(part.0).or_default();
        if id.is_none() {
            *id = event.value("item_id").map(str::to_owned);
        }
        let name = match words {
            Words::Text => {
                self.chars += length.chars;
                "content"
            }
            Words::Refusal => "refusal",
        };
        self.begin(r#""""#, out);
        let delta = Object::default().pieces(name, &["\"", said, "\""]).finish();
        let asked = self.framing.logprobs && words == Words::Text;
        let logprobs = event.value("logprobs").filter(|_| asked).and_then(reply::logprobs);
        let logprobs =
            logprobs.map(|list| Object::default().raw("content", &list).raw("refusal", "null").finish());
        self.chunk(&delta, logprobs.as_deref(), "null", event.value("obfuscation"), out);
    }

    /// What of a finished part has not been shown.
    fn rest(&mut self, part: (u64, u64), words: Words, whole: &str, event: &Event, out: &mut Vec<u8>) {
        let shown = self.parts.get(&part).map_or(0, |(shown, _)| *shown);
        self.words(part, words, &after(whole, shown), event, out);
    }

    fn annotation(&mut self, part: (u64, u64), event: &Event, out: &mut Vec<u8>) {
        // Counted from the start of its part there, of the whole text here.
        let shift = self.parts.get(&part).map_or(self.chars, |(_, before)| *before);
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
        let said_in_full = letters(fields.value(said));
        if let Some(index) = self.known.get(&*id) {
            return self.rest_of_call(*index, said_in_full, event, out);
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
        self.arguments(index, said_in_full, event, out);
    }

    fn arguments(&mut self, index: u64, piece: &str, event: &Event, out: &mut Vec<u8>) {
        let Some(call) = self.calls.get_mut(&index).filter(|_| !piece.is_empty()) else { return };
        call.shown += length(piece).units;
        let said = Object::default().pieces(call.said, &["\"", piece, "\""]).finish();
        let call = Object::default().raw("index", &call.number.to_string()).raw(call.kind, &said).finish();
        let delta = Object::default().raw("tool_calls", &array(&[call])).finish();
        self.chunk(&delta, None, "null", event.value("obfuscation"), out);
    }

    fn rest_of_call(&mut self, index: u64, whole: &str, event: &Event, out: &mut Vec<u8>) {
        let Some(call) = self.calls.get(&index) else { return };
        let rest = after(whole, call.shown);
        self.arguments(index, &rest, event, out);
    }

    // ---- ends

    fn finish_item(&mut self, index: u64, item: &str, event: &Event, out: &mut Vec<u8>) {
        let Ok(fields) = Fields::read(item) else { return };
        if reply::call_kind(&fields).is_some() {
            return self.announce(index, item, event, out);
        }
        let Some(content) = reply::message_content(&fields) else { return };
        for (number, span) in (0u64..).zip(json::elements(content).unwrap_or_default()) {
            let Ok(part) = Fields::read(&content[span]) else { continue };
            match part.string("type").as_deref() {
                Some("output_text") => {
                    self.rest((index, number), Words::Text, letters(part.value("text")), event, out);
                }
                Some("refusal") => {
                    self.rest((index, number), Words::Refusal, letters(part.value("refusal")), event, out);
                }
                _ => {}
            }
        }
        if let (Some(id), Some(known)) = (fields.value("id"), self.messages.get_mut(&index)) {
            *known = Some(id.to_owned());
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

    /// Places in the output need not be the indices of the stream: calls and messages that were shown are known by their ids,
    /// messages without one, or with another one now, by their order.
    fn leftovers(&mut self, output: &str, event: &Event, out: &mut Vec<u8>) {
        let spans = json::elements(output).unwrap_or_default();
        let items: Vec<&str> = spans.into_iter().map(|span| &output[span]).collect();
        let mut shown = std::mem::take(&mut self.messages);
        let by_id = |item: &&str| {
            let id = Fields::read(item).ok()?.value("id")?;
            let index = *shown.iter().find(|(_, known)| known.as_deref() == Some(id))?.0;
            shown.remove(&index).and(Some(index))
        };
        let known: Vec<Option<u64>> = items.iter().map(by_id).collect();
        for (number, (item, index)) in (0u64..).zip(items.into_iter().zip(known)) {
            let index = index.or_else(|| {
                let index = *shown.keys().find(|index| self.may_be(**index, item))?;
                shown.remove(&index).and(Some(index))
            });
            // An index of its own: the stream's may be taken.
            self.finish_item(index.unwrap_or(u64::MAX - number), item, event, out);
        }
    }

    /// Whether what was shown at this index may be of this item: it is a message, and says as much.
    fn may_be(&self, index: u64, item: &str) -> bool {
        let fields = Fields::read(item).ok();
        let Some(content) = fields.as_ref().and_then(reply::message_content) else { return false };
        let spans = json::elements(content).unwrap_or_default();
        let says = |number: usize| {
            let part = Fields::read(&content[spans.get(number)?.clone()]).ok()?;
            Some(length(letters(part.value("text").or_else(|| part.value("refusal")))).units)
        };
        let mut shown = self.parts.range((index, 0)..=(index, u64::MAX));
        shown.all(|((_, number), (shown, _))| {
            usize::try_from(*number).ok().and_then(says).is_some_and(|said| said >= *shown)
        })
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

#[cfg(test)]
mod tests;
