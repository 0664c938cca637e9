//! A chat reply in chunks and the same as one body: whichever events of its items a socket leaves out, and in whatever pieces
//! and letters it says them, joined chunks say what was said, each thing once, and the body says it in its order.

use bytes::Bytes;
use tailwire::proto::dialect::chat::Completion;
use tailwire::proto::dialect::chat::request::Framing;
use tailwire::proto::wire::event::Event;
use tailwire::proto::wire::json;
use tailwire::proto::wire::object::{Fields, quoted};
use tailwire::proto::wire::sse::Decoder;

/// A byte of what is asked and left out; then items, a line each: a letter for its kind, one for the events it has, and what it
/// says, in pieces with `|` between them.
pub(crate) fn check(data: &[u8]) {
    let Some((flags, script)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(script);
    let has = |bit: u8| flags >> bit & 1 == 1;
    let mut items: Vec<Item> = text.lines().take(24).enumerate().filter_map(Item::read).collect();
    // What nothing names can be known by its order only, and what the end leaves out must have been said.
    let nameless = has(3);
    items.iter_mut().for_each(|item| {
        item.events |= if nameless { DELTAS } else { 0 } | if has(0) { DONE } else { 0 };
        item.named = !nameless;
    });
    let mut events: Vec<String> = items.iter().flat_map(Item::events).collect();
    events.push(last(&items, !has(0), has(2)));

    let framing = Framing { include_usage: has(1), logprobs: false };
    let mut streamed = Completion::new(framing, "chatcmpl-x", "m");
    let mut collected = Completion::new(framing, "chatcmpl-x", "m");
    let mut out = Vec::new();
    let events = events.into_iter().map(|text| Event::parse(Bytes::from(text)).expect("an event"));
    let mut body = None;
    for event in events {
        streamed.write(&event, &mut out);
        collected.hear(&event);
        body = collected.body(&event);
    }
    let joined = Said::joined(&out, framing);
    let body = Said::whole(&body.expect("a body"));
    assert_eq!(body, Said::of(items.iter()), "the body, and what was said");
    // What no event told before the last can only come with that.
    let (early, late): (Vec<_>, Vec<_>) = items.iter().partition(|item| item.is_early());
    assert_eq!(joined, Said::of(early.into_iter().chain(late)), "the chunks, and what was said");
}

const ADDED: u8 = 1;
const DELTAS: u8 = 2;
const WHOLE: u8 = 4;
const DONE: u8 = 8;

/// One item of an output, and the events by which it is told.
struct Item {
    index: usize,
    kind: Kind,
    events: u8,
    named: bool,
    /// JSON strings.
    pieces: Vec<String>,
    whole: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Refusal,
    Function,
    Custom,
    Reasoning,
}

impl Item {
    fn read((index, line): (usize, &str)) -> Option<Self> {
        let mut letters = line.chars();
        let kind = match letters.next()? {
            'm' => Kind::Text,
            'r' => Kind::Refusal,
            'f' => Kind::Function,
            'c' => Kind::Custom,
            _ => Kind::Reasoning,
        };
        let events = u8::try_from(letters.next()? as u32 & 15).unwrap_or_default();
        let said: Vec<&str> = letters.as_str().split('|').collect();
        // Letters as they are where that is JSON, whatever it means; else quoted.
        let written = |text: &str| format!("\"{text}\"");
        let is_json =
            |text: &&str| json::first_value(&written(text)).is_ok_and(|span| span.len() == text.len() + 2);
        let raw = said.iter().all(is_json);
        let pieces = said.iter().map(|text| if raw { written(text) } else { quoted(text) }).collect();
        let whole = if raw { written(&said.concat()) } else { quoted(&said.concat()) };
        Some(Self { index, kind, events, named: true, pieces, whole })
    }

    fn is_call(&self) -> bool {
        matches!(self.kind, Kind::Function | Kind::Custom)
    }

    /// Told of before the end. A call is nothing without its name.
    fn is_early(&self) -> bool {
        self.events & if self.is_call() { ADDED | DONE } else { DELTAS | WHOLE | DONE } != 0
    }

    /// The item with this said in it.
    fn with(&self, said: &str) -> String {
        let n = self.index;
        let id = if self.named { format!(r#""id":"i{n}","#) } else { String::new() };
        match self.kind {
            Kind::Text => {
                format!(r#"{{{id}"type":"message","content":[{{"type":"output_text","text":{said}}}]}}"#)
            }
            Kind::Refusal => {
                format!(r#"{{{id}"type":"message","content":[{{"type":"refusal","refusal":{said}}}]}}"#)
            }
            Kind::Function => {
                format!(r#"{{{id}"type":"function_call","call_id":"c{n}","name":"f","arguments":{said}}}"#)
            }
            Kind::Custom => {
                format!(r#"{{{id}"type":"custom_tool_call","call_id":"c{n}","name":"f","input":{said}}}"#)
            }
            Kind::Reasoning => {
                format!(r#"{{{id}"type":"reasoning","summary":[],"encrypted_content":{said}}}"#)
            }
        }
    }

    fn events(&self) -> Vec<String> {
        let id = if self.named { format!(r#""item_id":"i{}","#, self.index) } else { String::new() };
        let event = |name: &str, member: &str, value: &str| {
            let id = if member == "item" { "" } else { &*id };
            format!(
                r#"{{"type":"response.{name}",{id}"output_index":{},"content_index":0,"{member}":{value}}}"#,
                self.index
            )
        };
        let (part, member) = match self.kind {
            Kind::Text => ("output_text", "text"),
            Kind::Refusal => ("refusal", "refusal"),
            Kind::Function => ("function_call_arguments", "arguments"),
            Kind::Custom => ("custom_tool_call_input", "input"),
            Kind::Reasoning => ("reasoning_text", "text"),
        };
        let mut events = Vec::new();
        let sends = |bit: u8| self.events & bit != 0;
        if sends(ADDED) {
            events.push(event("output_item.added", "item", &self.with("\"\"")));
        }
        if sends(DELTAS) {
            events.extend(self.pieces.iter().map(|piece| event(&format!("{part}.delta"), "delta", piece)));
        }
        if sends(WHOLE) {
            events.push(event(&format!("{part}.done"), member, &self.whole));
        }
        if sends(DONE) {
            events.push(event("output_item.done", "item", &self.with(&self.whole)));
        }
        events
    }
}

/// The last event, with or without its output.
fn last(items: &[Item], whole: bool, incomplete: bool) -> String {
    let output: Vec<String> = items.iter().filter(|_| whole).map(|item| item.with(&item.whole)).collect();
    let ends =
        if incomplete { ("incomplete", r#"{"reason":"max_output_tokens"}"#) } else { ("completed", "null") };
    format!(
        r#"{{"type":"response.{}","response":{{"id":"resp_1","model":"m","status":"{}","incomplete_details":{},"output":[{}]}}}}"#,
        ends.0,
        ends.0,
        ends.1,
        output.join(",")
    )
}

/// What a reply says, in UTF-16, as far as half characters go.
#[derive(Debug, Default, PartialEq)]
struct Said {
    text: Vec<u16>,
    refusal: Vec<u16>,
    /// Ids, and what is called with.
    calls: Vec<(String, Vec<u16>)>,
}

impl Said {
    fn of<'a>(items: impl Iterator<Item = &'a Item>) -> Self {
        let mut said = Self::default();
        for item in items {
            let whole = units(&item.whole);
            match item.kind {
                Kind::Text => said.text.extend(whole),
                Kind::Refusal => said.refusal.extend(whole),
                Kind::Function | Kind::Custom => said.calls.push((format!("c{}", item.index), whole)),
                Kind::Reasoning => {}
            }
        }
        said
    }

    fn whole(body: &str) -> Self {
        let mut said = Self::default();
        said.add(choice(body).value("message").expect("a message"));
        said
    }

    fn joined(stream: &[u8], framing: Framing) -> Self {
        let mut frames = Decoder::default().push(stream).expect("a stream");
        assert_eq!(frames.pop().expect("an end").data, "[DONE]");
        if framing.include_usage {
            assert!(frames.pop().expect("the usage").data.contains(r#""choices":[]"#));
        }
        let reasons = frames.iter().filter(|frame| choice(&frame.data).value("finish_reason").is_some());
        assert_eq!(reasons.count(), 1, "it ends once");
        let mut said = Self::default();
        frames.iter().for_each(|frame| said.add(choice(&frame.data).value("delta").expect("a delta")));
        said
    }

    /// Adds a message, or a piece of one.
    fn add(&mut self, message: &str) {
        let message = Fields::read(message).expect("an object");
        self.text.extend(units(message.value("content").unwrap_or_default()));
        self.refusal.extend(units(message.value("refusal").unwrap_or_default()));
        let calls = message.value("tool_calls").unwrap_or("[]");
        for (at, span) in json::elements(calls).expect("calls").into_iter().enumerate() {
            let call = Fields::read(&calls[span]).expect("a call");
            let index = call.value("index").map_or(at, |index| index.parse().expect("a number"));
            if let Some(id) = call.string("id") {
                assert_eq!(self.calls.len(), index, "calls are numbered as they come");
                self.calls.push((id.into_owned(), Vec::new()));
            }
            let said = ["function", "custom"].iter().find_map(|kind| call.value(kind)).expect("its kind");
            let said = Fields::read(said).expect("an object");
            let said = said.value("arguments").or_else(|| said.value("input")).unwrap_or_default();
            self.calls[index].1.extend(units(said));
        }
    }
}

fn choice(reply: &str) -> Fields<'_> {
    let choices = Fields::read(reply).expect("an object").value("choices").expect("choices");
    Fields::read(&choices[1..choices.len() - 1]).expect("one choice")
}

/// A JSON string read by hand, halves of characters and all.
fn units(string: &str) -> Vec<u16> {
    let mut units = Vec::new();
    let mut chars =
        string.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or_default().chars();
    while let Some(char) = chars.next() {
        let plain = match (char, if char == '\\' { chars.next() } else { None }) {
            (_, Some('u')) => {
                let digits: String = chars.by_ref().take(4).collect();
                units.push(u16::from_str_radix(&digits, 16).expect("four digits"));
                continue;
            }
            (_, Some('n')) => '\n',
            (_, Some('r')) => '\r',
            (_, Some('t')) => '\t',
            (_, Some('b')) => '\u{8}',
            (_, Some('f')) => '\u{c}',
            (_, Some(escaped)) => escaped,
            (char, None) => char,
        };
        units.extend(plain.encode_utf16(&mut [0; 2]).iter());
    }
    units
}
