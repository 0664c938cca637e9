//! The set-up events that SDK stream helpers insist on and a sparse socket may leave out (protocol §1.16, §2.2): what must
//! come before an event that did not.
//!
//! Knows the order of events, nothing of their numbers or of how they are written.

use std::collections::{BTreeSet, VecDeque};

use crate::proto::wire::event::{Event, EventKind};
use crate::proto::wire::json;
use crate::proto::wire::object::Object;

/// Something to write before an event.
#[derive(Debug)]
pub enum Supplied {
    /// An event the socket left out: its name and its members without `type` and `sequence_number`.
    Event {
        /// Its `type`.
        name: &'static str,
        /// Its other members, as JSON without braces.
        members: String,
    },
    /// An event that came too early to be shown, now due.
    Held(Event),
}

/// Bytes of one response's events held back at a time, and things of it remembered. Past either, what is held and all
/// that follows is shown as the socket sent it, in its order, and nothing is supplied any more.
const MAX_HELD_BYTES: usize = 1 << 20;
const MAX_KNOWN: usize = 1 << 16;

/// What has been shown so far.
#[derive(Debug, Default)]
pub struct Setup {
    created: Option<String>,
    in_progress: bool,
    items: BTreeSet<u64>,
    finished: BTreeSet<u64>,
    /// Ids and call ids of items that events spoke of, as JSON.
    spoken: BTreeSet<String>,
    /// Parts by output index, the name of their own index, and that index.
    parts: BTreeSet<(u64, &'static str, u64)>,
    /// Events of calls whose name is not known yet, in the order they came.
    held: VecDeque<(u64, Event)>,
    held_bytes: usize,
    /// A bound was passed: events go through as they are.
    overrun: bool,
}

impl Setup {
    /// What must be written before `event`. `output` is the terminal event's, as the client will see it.
    pub fn before(&mut self, event: &Event, output: Option<&str>) -> Vec<Supplied> {
        let mut supplied = Vec::new();
        if self.is_overrun(event) {
            supplied.extend(self.flush().map(Supplied::Held));
            return supplied;
        }
        match event.kind() {
            EventKind::Created => self.created = Some(event.value("response").unwrap_or("{}").to_owned()),
            EventKind::InProgress => {
                self.create(event, &mut supplied);
                self.in_progress |= event.name() == "response.in_progress";
            }
            EventKind::Content | EventKind::ItemDone => {
                self.progress(&mut supplied);
                self.content(event, &mut supplied);
            }
            EventKind::Completed | EventKind::Ended => {
                self.create(event, &mut supplied);
                // A response may fail before it was ever in progress, and then its output is what it is.
                if event.kind() == EventKind::Completed {
                    self.progress(&mut supplied);
                    self.leftovers(output.unwrap_or("[]"), &mut supplied);
                }
                supplied.extend(self.flush().map(Supplied::Held));
            }
            EventKind::Error | EventKind::Aside => {}
        }
        supplied
    }

    /// Events still held at the end: shown late rather than lost.
    pub fn flush(&mut self) -> impl Iterator<Item = Event> + use<> {
        self.held_bytes = 0;
        std::mem::take(&mut self.held).into_iter().map(|(_, event)| event)
    }

    /// Bytes of events that wait.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// True if the event must wait until its item is known; it is kept and comes back from [`Self::before`].
    pub fn holds(&mut self, event: &Event) -> bool {
        let Some(index) = self.early(event).filter(|_| !self.overrun) else { return false };
        self.held_bytes += event.weight();
        self.held.push_back((index, event.clone().detached()));
        true
    }

    /// The item this event belongs to, if it cannot be shown before that is announced, and is not.
    fn early(&self, event: &Event) -> Option<u64> {
        let index = event.number("output_index").filter(|_| event.kind() == EventKind::Content)?;
        let told = event.name() == "response.output_item.added"
            || self.items.contains(&index)
            || skeleton(event).is_some();
        (!told).then_some(index)
    }

    /// True from the event on that would go past a bound.
    fn is_overrun(&mut self, event: &Event) -> bool {
        let known = self.items.len() + self.finished.len() + self.spoken.len() + self.parts.len();
        // One alone may be as large as the socket takes.
        let heavy = self.held_bytes > 0 && self.held_bytes + event.weight() > MAX_HELD_BYTES;
        self.overrun = self.overrun || known > MAX_KNOWN || (heavy && self.early(event).is_some());
        self.overrun
    }

    fn create(&mut self, event: &Event, supplied: &mut Vec<Supplied>) {
        if self.created.is_none() {
            let response = event.value("response").unwrap_or("{}").to_owned();
            let started =
                with(&response, &[("status", "\"in_progress\""), ("output", "[]"), ("usage", "null")]);
            supplied.push(Supplied::Event {
                name: "response.created",
                members: format!(r#""response":{started}"#),
            });
            self.created = Some(started);
        }
    }

    fn progress(&mut self, supplied: &mut Vec<Supplied>) {
        if let (false, Some(response)) = (self.in_progress, &self.created) {
            let members = format!(r#""response":{response}"#);
            supplied.push(Supplied::Event { name: "response.in_progress", members });
            self.in_progress = true;
        }
    }

    fn content(&mut self, event: &Event, supplied: &mut Vec<Supplied>) {
        let Some(index) = event.number("output_index") else { return };
        match event.name() {
            "response.output_item.added" => {
                self.items.insert(index);
                self.spoken.extend(event.value("item").map(names).unwrap_or_default());
                return;
            }
            "response.output_item.done" => {
                self.spoken.extend(event.value("item").map(names).unwrap_or_default());
                self.add(index, event.value("item"), supplied);
                self.finished.insert(index);
                return;
            }
            _ => {}
        }
        if !self.items.contains(&index) {
            let Some(item) = skeleton(event) else { return };
            self.items.insert(index);
            supplied.push(added(index, &item));
        }
        for (name, numbered) in PARTS {
            let Some(part) = event.number(numbered) else { continue };
            if self.parts.insert((index, numbered, part))
                && let Some(empty) = empty_part(event.name())
            {
                let id = event.value("item_id").unwrap_or("\"\"");
                let members =
                    format!(r#""item_id":{id},"output_index":{index},"{numbered}":{part},"part":{empty}"#);
                supplied.push(Supplied::Event { name, members });
            }
        }
    }

    /// Announces a finished item that was not, then lets what was held for it go.
    fn add(&mut self, index: u64, item: Option<&str>, supplied: &mut Vec<Supplied>) {
        if !self.items.insert(index) {
            return;
        }
        let Some(item) = item else { return };
        let blank = [
            ("status", "\"in_progress\""),
            ("content", "[]"),
            ("arguments", "\"\""),
            ("input", "\"\""),
            ("summary", "[]"),
        ];
        supplied.push(added(index, &with(item, &blank)));
        let (due, held) = std::mem::take(&mut self.held).into_iter().partition(|(of, _)| *of == index);
        self.held = held;
        let due: VecDeque<(u64, Event)> = due;
        self.held_bytes -= due.iter().map(|(_, event)| event.weight()).sum::<usize>();
        supplied.extend(due.into_iter().map(|(_, event)| Supplied::Held(event)));
    }

    /// Items of the output that no event spoke of. An item is known by its id or call id: places in the output need not be
    /// the indices of the stream.
    fn leftovers(&mut self, output: &str, supplied: &mut Vec<Supplied>) {
        for (index, span) in (0u64..).zip(json::elements(output).unwrap_or_default()) {
            let item = &output[span];
            let known = names(item).iter().any(|name| self.spoken.contains(name));
            if known && (self.finished.contains(&index) || !self.items.contains(&index)) {
                continue;
            }
            self.add(index, Some(item), supplied);
            if self.finished.insert(index) {
                let members = format!(r#""output_index":{index},"item":{item}"#);
                supplied.push(Supplied::Event { name: "response.output_item.done", members });
            }
        }
    }
}

/// The id and call id of an item, as JSON.
fn names(item: &str) -> Vec<String> {
    let members = json::members(item).unwrap_or_default();
    let value = |key| json::find(&members, key).map(|member| item[member.value.clone()].to_owned());
    ["id", "call_id"].into_iter().filter_map(value).filter(|name| name != "null").collect()
}

fn added(index: u64, item: &str) -> Supplied {
    let members = format!(r#""output_index":{index},"item":{item}"#);
    Supplied::Event { name: "response.output_item.added", members }
}

/// The item an event belongs to, as far as the event tells; calls cannot be told without their name.
fn skeleton(event: &Event) -> Option<String> {
    let id = event.value("item_id")?;
    let name = event.name().strip_prefix("response.")?;
    if name.starts_with("content_part.") || name.starts_with("output_text.") || name.starts_with("refusal.") {
        return Some(format!(
            r#"{{"id":{id},"type":"message","status":"in_progress","role":"assistant","content":[]}}"#
        ));
    }
    name.starts_with("reasoning_").then(|| format!(r#"{{"id":{id},"type":"reasoning","summary":[]}}"#))
}

/// What announces the parts of an item, and the member that numbers them.
const PARTS: [(&str, &str); 2] = [
    ("response.content_part.added", "content_index"),
    ("response.reasoning_summary_part.added", "summary_index"),
];

/// The part a delta belongs to; `None` for the event that announces it itself, or for one that needs none.
fn empty_part(name: &str) -> Option<&'static str> {
    match name {
        "response.output_text.delta"
        | "response.output_text.done"
        | "response.output_text.annotation.added" => {
            Some(r#"{"type":"output_text","text":"","annotations":[],"logprobs":[]}"#)
        }
        "response.refusal.delta" | "response.refusal.done" => Some(r#"{"type":"refusal","refusal":""}"#),
        "response.reasoning_summary_text.delta" | "response.reasoning_summary_text.done" => {
            Some(r#"{"type":"summary_text","text":""}"#)
        }
        "response.reasoning_text.delta" | "response.reasoning_text.done" => {
            Some(r#"{"type":"reasoning_text","text":""}"#)
        }
        _ => None,
    }
}

/// An object with some members, where it has them, replaced.
fn with(object: &str, replaced: &[(&str, &str)]) -> String {
    let members = json::members(object).unwrap_or_default();
    let mut out = Object::with_capacity(object.len());
    for member in &members {
        let replacement = replaced.iter().find(|(key, _)| *key == &*member.key);
        out.raw(&member.key, replacement.map_or_else(|| &object[member.value.clone()], |(_, value)| value));
    }
    out.finish()
}
