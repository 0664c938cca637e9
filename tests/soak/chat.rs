//! A conversation as an agent keeps it: its items, what it leaves out of them, its settings, and the body these make.
//!
//! Knows no sockets, and nothing of what became of its requests but the answers it took.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::chance::Chance;

/// How an agent repeats what it was told; after the recordings of real clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habit {
    pub(crate) drops: Drops,
    pub(crate) echo: Echo,
    pub(crate) store: bool,
    /// Sends ids in place of items it was told (with `store` only).
    pub(crate) references: bool,
    pub(crate) settings_first: bool,
}

/// Which reasoning it leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drops {
    Nothing,
    Everything,
    /// The first of an answer's two.
    First,
    /// All before the user's latest words.
    Earlier,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Echo {
    Identical,
    /// Without ids and status, texts as plain strings.
    Bare,
    /// Arguments written anew, null members added.
    Rewritten,
}

/// One item of the history.
#[derive(Clone, Debug)]
struct Entry {
    /// As the client sends it, references aside.
    value: Arc<Value>,
    reasoning: bool,
    hidden: bool,
    /// Its id at the provider, if it may be referred to.
    id: Option<String>,
}

/// One request, ready to be posted as often as it takes.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) body: Bytes,
    /// The response it continues by itself.
    pub(crate) anchor: Option<String>,
    /// It has tools that act: never run twice by the proxy.
    pub(crate) acts: bool,
    pub(crate) refers: bool,
    /// The turn's number in the conversation.
    pub(crate) turn: u64,
}

#[derive(Debug)]
pub(crate) struct Chat {
    pub(crate) habit: Habit,
    entries: Vec<Entry>,
    settings: Vec<(&'static str, Value)>,
    turn: u64,
    /// The last answer taken, and how many entries there were then.
    last: Option<(String, usize)>,
    /// Answers taken: what anchors and references depend on.
    pub(crate) taken: Vec<String>,
}

impl Chat {
    pub(crate) fn new(habit: Habit, story: &mut Chance) -> Self {
        let instructions = format!("Be brief. {}", prose(story, 200, 6000));
        let tool = json!({ "type": "function", "name": "shell", "strict": false, "description": prose(story, 50, 2000),
            "parameters": { "type": "object", "properties": { "path": { "type": "string", "default": null } } } });
        let settings = vec![
            ("model", json!("gpt-sim")),
            ("instructions", json!(instructions)),
            ("tools", json!([tool])),
            ("include", json!(["reasoning.encrypted_content"])),
            ("store", json!(habit.store)),
            ("parallel_tool_calls", json!(true)),
            ("user", Value::Null),
        ];
        Self { habit, entries: Vec::new(), settings, turn: 0, last: None, taken: Vec::new() }
    }

    pub(crate) fn turns(&self) -> u64 {
        self.turn
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of the items, roughly.
    pub(crate) fn size(&self) -> usize {
        self.entries.iter().map(|entry| weight(&entry.value)).sum()
    }

    /// Changes a setting; null takes it away.
    pub(crate) fn set(&mut self, name: &'static str, value: Value) {
        self.settings.retain(|(other, _)| *other != name);
        if !value.is_null() {
            self.settings.push((name, value));
        }
    }

    pub(crate) fn setting(&self, name: &str) -> &Value {
        self.settings.iter().find(|(other, _)| *other == name).map_or(&Value::Null, |(_, value)| value)
    }

    /// The user says something.
    pub(crate) fn say(&mut self, text: &str) {
        self.push(json!({ "role": "user", "content": text }), None);
        if self.habit.drops == Drops::Earlier {
            for entry in self.entries.iter_mut().filter(|entry| entry.reasoning) {
                entry.hidden = true;
            }
        }
    }

    /// Takes an answer into the history, with the outputs of its calls. True if there were any.
    pub(crate) fn take(&mut self, response: &Value, outputs: &mut Chance) -> bool {
        let output = response["output"].as_array().cloned().unwrap_or_default();
        let mut first = true;
        for item in &output {
            let reasoning = item["type"] == "reasoning";
            self.push(self.habit.echo.of(item), item["id"].as_str().filter(|_| self.habit.store));
            let hidden = match self.habit.drops {
                Drops::Everything => reasoning,
                Drops::First => reasoning && first,
                Drops::Nothing | Drops::Earlier => false,
            };
            if let Some(entry) = self.entries.last_mut() {
                entry.hidden = hidden;
            }
            first &= !reasoning;
        }
        let id = response["id"].as_str().unwrap_or_default().to_owned();
        self.last = Some((id.clone(), self.entries.len()));
        self.taken.push(id);
        let calls: Vec<&Value> = output.iter().filter(|item| item["call_id"].is_string()).collect();
        for call in &calls {
            let kind = format!("{}_output", call["type"].as_str().unwrap_or_default());
            let text = format!("ran it: {}", prose(outputs, 20, 6000));
            self.push(json!({ "type": kind, "call_id": call["call_id"], "output": text }), None);
        }
        !calls.is_empty()
    }

    /// The next request. `anchored`: continue the last answer by its id, where that is possible.
    pub(crate) fn ask(&mut self, stream: bool, anchored: bool, label: &str) -> Ask {
        self.turn += 1;
        self.compose(stream, anchored, label)
    }

    /// The same turn without what the client named by its id.
    pub(crate) fn again(&self, stream: bool, label: &str) -> Ask {
        self.compose(stream, false, label)
    }

    fn compose(&self, stream: bool, anchored: bool, label: &str) -> Ask {
        let anchor =
            self.last.clone().filter(|_| anchored && self.habit.store && self.habit.drops == Drops::Nothing);
        let from = anchor.as_ref().map_or(0, |(_, length)| *length);
        let refers = self.habit.references && anchor.is_none();
        let sent = self.entries[from..].iter().filter(|entry| !entry.hidden);
        let input: Vec<Value> = sent
            .map(|entry| match &entry.id {
                Some(id) if refers && !entry.reasoning => json!({ "type": "item_reference", "id": id }),
                _ => Value::clone(&entry.value),
            })
            .collect();
        let mut members = self.settings.clone();
        let at = if self.habit.settings_first { members.len() } else { 1 };
        members.insert(at, ("input", input.into()));
        members.push(("metadata", json!({ "label": label, "turn": self.turn.to_string() })));
        members.push(("stream", json!(stream)));
        if let Some((id, _)) = &anchor {
            members.push(("previous_response_id", json!(id)));
        }
        let acts = self
            .setting("tools")
            .as_array()
            .is_some_and(|tools| tools.iter().any(|tool| tool["type"] == "mcp"));
        let anchor = anchor.map(|(id, _)| id);
        Ask { body: written(&members), anchor, acts, refers, turn: self.turn }
    }

    /// The items of the history that the client sends.
    pub(crate) fn visible(&self) -> Vec<Arc<Value>> {
        self.entries.iter().filter(|entry| !entry.hidden).map(|entry| entry.value.clone()).collect()
    }

    /// All of a body but its input.
    pub(crate) fn around(&self, label: &str) -> Value {
        let mut body: Value =
            self.settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        body["metadata"] = json!({ "label": label, "turn": self.turn.to_string() });
        body["stream"] = false.into();
        body
    }

    // ---- what agents do to their history

    /// An old tool output is cut short, as agents do when the window fills.
    pub(crate) fn prune(&mut self, chance: &mut Chance) -> bool {
        let outputs: Vec<usize> = (0..self.entries.len())
            .filter(|index| self.entries[*index].value["output"].is_string())
            .collect();
        let Some(index) = outputs.get(chance.below(outputs.len())) else { return false };
        let entry = &mut self.entries[*index];
        let mut cut = Value::clone(&entry.value);
        cut["output"] = format!("[cut {index}]").into();
        entry.value = cut.into();
        self.last = None;
        true
    }

    /// Back to before one of the user's messages.
    pub(crate) fn rewind(&mut self, chance: &mut Chance) -> bool {
        let said: Vec<usize> =
            (1..self.entries.len()).filter(|index| self.entries[*index].value["role"] == "user").collect();
        let Some(index) = said.get(chance.below(said.len())) else { return false };
        self.entries.truncate(*index);
        self.last = None;
        true
    }

    /// The history is replaced by a summary of it.
    pub(crate) fn compact(&mut self, chance: &mut Chance) {
        let summary = format!("Summary of what was: {}", prose(chance, 100, 2000));
        self.entries.clear();
        self.last = None;
        self.push(json!({ "role": "user", "content": summary }), None);
    }

    /// The history as it is now, to come back to.
    pub(crate) fn mark(&self) -> usize {
        self.entries.len()
    }

    /// Forgets what was said since a mark; what was hidden meanwhile stays so.
    pub(crate) fn back(&mut self, mark: usize) {
        self.entries.truncate(mark);
        self.last = None;
    }

    fn push(&mut self, value: Value, id: Option<&str>) {
        let reasoning = value["type"] == "reasoning";
        let id = id.map(str::to_owned);
        self.entries.push(Entry { value: value.into(), reasoning, hidden: false, id });
    }
}

impl Echo {
    fn of(self, item: &Value) -> Value {
        let mut told = item.clone();
        let Some(members) = told.as_object_mut() else { return told };
        match (self, item["type"].as_str().unwrap_or_default()) {
            (Self::Identical, _) => {}
            (Self::Bare, "message") => {
                let text = item["content"][0]["text"].clone();
                return json!({ "role": "assistant", "content": text });
            }
            (Self::Bare, "reasoning") => {}
            (Self::Bare, _) => {
                members.remove("id");
                members.remove("status");
            }
            (Self::Rewritten, "function_call") => {
                let arguments = item["arguments"].as_str().unwrap_or_default();
                let anew = serde_json::from_str::<Value>(arguments).map(|value| value.to_string());
                members.insert("arguments".to_owned(), anew.unwrap_or_default().into());
                members.insert("parsed_arguments".to_owned(), Value::Null);
            }
            (Self::Rewritten, "reasoning") => {
                members.insert("content".to_owned(), Value::Null);
                members.insert("status".to_owned(), Value::Null);
            }
            (Self::Rewritten, _) => {
                members.insert("namespace".to_owned(), Value::Null);
            }
        }
        told
    }
}

/// The members as JSON, in this order.
fn written(members: &[(&'static str, Value)]) -> Bytes {
    let mut text = String::from("{");
    for (index, (name, value)) in members.iter().enumerate() {
        text.push_str(if index == 0 { "" } else { ", " });
        text.push_str(&format!("\"{name}\": {value}"));
    }
    text.push('}');
    text.into()
}

fn weight(item: &Value) -> usize {
    ["content", "output", "arguments", "input"]
        .into_iter()
        .filter_map(|name| item[name].as_str())
        .map(str::len)
        .sum::<usize>()
        + 200
}

/// Text of some length between the two, small ones more often.
pub(crate) fn prose(chance: &mut Chance, low: usize, high: usize) -> String {
    let span = high.saturating_sub(low) / (1 << chance.below(6));
    let length = low + chance.below(span + 1);
    let mut text = String::with_capacity(length + 16);
    while text.len() < length {
        text.push_str(chance.pick(&WORDS));
        text.push(' ');
    }
    text
}

const WORDS: [&str; 12] = [
    "the",
    "server",
    "naïve",
    "\"quoted\"",
    "back\\slash",
    "line\n",
    "🦀",
    "tool",
    "of",
    "état",
    "reads",
    "done.",
];
