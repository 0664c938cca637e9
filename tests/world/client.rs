//! The client of a world: a tree of conversations, and the requests it makes of them, written as freely as the recorded
//! agents write theirs. Knows what each request means, however it is put; knows nothing of sockets or of the heart.

use serde_json::{Value, json};

use crate::dress::{self, Dress};
use crate::twist::{Twist, twist};

/// What a request is to be like; every number is taken modulo what there is.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Which answer to go on from, counted from the newest.
    pub(crate) node: u8,
    /// Start a conversation instead: whose, and in which scope.
    pub(crate) fresh: Option<u8>,
    /// Go on in another scope, or as somebody else with the same transcript.
    pub(crate) moved: Option<u8>,
    pub(crate) message: u8,
    pub(crate) twist: Twist,
    /// Where the twist strikes.
    pub(crate) at: u8,
    /// How the last answer is repeated.
    pub(crate) echo: u8,
    pub(crate) dress: u8,
    pub(crate) tune: u16,
    pub(crate) stream: bool,
    /// Name the response to continue, where it is stored.
    pub(crate) anchor: bool,
}

/// One item as it is sent and as it is meant: they differ where it is named by reference.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) wire: Value,
    pub(crate) meaning: Value,
}

impl Entry {
    pub(crate) fn new(item: Value) -> Self {
        Self { wire: item.clone(), meaning: item }
    }

    pub(crate) fn kind(&self) -> &str {
        self.meaning["type"].as_str().unwrap_or("message")
    }

    pub(crate) fn is_said(&self) -> bool {
        matches!(self.kind(), "reasoning" | "compaction")
            || self.is_call()
            || self.meaning["role"] == "assistant"
    }

    pub(crate) fn is_call(&self) -> bool {
        self.kind().ends_with("_call")
    }

    /// Changes it, unless it is named by reference. It loses its id, under which the provider would store the change.
    pub(crate) fn change(&mut self, change: impl Fn(&mut Value)) {
        if self.wire == self.meaning {
            change(&mut self.wire);
            self.wire.as_object_mut().expect("an item").remove("id");
            self.meaning = self.wire.clone();
        }
    }
}

/// An item of an answer, in the two copies a client gets to see.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) done: Value,
    pub(crate) last: Value,
}

/// An answer, and what it answered: where a conversation may go on.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) tenant: usize,
    pub(crate) scope: usize,
    pub(crate) history: Vec<Entry>,
    pub(crate) output: Vec<Said>,
    pub(crate) response: Option<String>,
    /// The answer was somebody else's, or of another scope.
    pub(crate) foreign: bool,
}

/// A request, ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) tenant: usize,
    pub(crate) scope: usize,
    pub(crate) history: Vec<Entry>,
    /// Items that are not new.
    pub(crate) known: usize,
    pub(crate) body: String,
    /// The same request with everything said in full.
    pub(crate) direct: Value,
    pub(crate) stream: bool,
    pub(crate) anchor: Option<String>,
}

pub(crate) const TENANTS: usize = 3;

/// What chains must not cross, besides the tenant: `model`, `user`, `store`.
const SCOPES: [(&str, Option<&str>, Option<bool>); 5] = [
    ("m-1", None, Some(false)),
    ("m-1", None, None),
    ("m-1", Some("ann"), Some(false)),
    ("m-2", None, Some(false)),
    ("m-1", Some("ann"), Some(true)),
];

/// Few, so that conversations often say the same.
const MESSAGES: [&str; 8] = [
    "Plain. [sim text=9]",
    "Think. [sim text=9 reasoning=1]",
    "Call. [sim text=5 calls=1 args=12]",
    "Call and think. [sim text=5 calls=2 args=12 reasoning=1 commentary=1]",
    "Call both, naïve/\"quoted\". [sim text=5 calls=1 parallel=2 args=12 commentary=1]",
    "Freeform. [sim text=5 calls=1 custom=1 args=7 reasoning=2]",
    "Think twice. [sim text=3 reasoning=2]",
    "Compact. [sim text=9 reasoning=1 calls=2 args=12 commentary=1 compact=1]",
];

impl Node {
    /// Where a conversation starts.
    pub(crate) fn root(number: u8) -> Self {
        let number = usize::from(number);
        let scope = [0, 0, 1, 2, 3, 4, 1, 0][number / TENANTS % 8];
        Self {
            tenant: number % TENANTS,
            scope,
            history: Vec::new(),
            output: Vec::new(),
            response: None,
            foreign: false,
        }
    }

    /// The same conversation of somebody else, or with another model: as far as it does not hang on what is stored.
    pub(crate) fn moved(mut self, number: u8) -> Self {
        if self.history.iter().all(|item| item.wire == item.meaning) {
            self.tenant = usize::from(number) % TENANTS;
            self.scope = usize::from(number) / TENANTS % SCOPES.len();
            self.response = None;
            self.foreign = true;
            // Ids are the provider's: sent by somebody else it would store the items as theirs.
            self.history.iter_mut().for_each(|item| item.change(|_| ()));
            let copies = self.output.iter_mut().flat_map(|said| [&mut said.done, &mut said.last]);
            copies.filter_map(Value::as_object_mut).for_each(|item| drop(item.remove("id")));
        }
        self
    }

    fn is_stored(&self) -> bool {
        SCOPES[self.scope].2 != Some(false) && !self.foreign
    }

    /// The next request of this conversation.
    pub(crate) fn ask(&self, wanted: &Wanted) -> Prepared {
        let anchor = self.response.clone().filter(|_| wanted.anchor && self.is_stored());
        let mut items = self.history.clone();
        let echo_at = items.len();
        items.extend(self.output.iter().filter_map(|said| echo(said, wanted.echo, self.is_stored())));
        if anchor.is_none() {
            twist(&mut items, echo_at, wanted);
        }
        let known = items.len();
        let from = echo_at.min(known);
        let mut new = outputs(&items[from..], wanted.at);
        if wanted.twist == Twist::Unanswered && !new.is_empty() {
            new.remove(usize::from(wanted.at) % new.len());
        }
        if new.is_empty() || wanted.message.is_multiple_of(7) {
            new.push(message(wanted.message));
        }
        if wanted.message % 16 == 3 {
            new.push(Entry::new(json!({"type": "x_note", "text": "of an unknown type", "id": "x1"})));
        }
        items.extend(new);
        let sent = if anchor.is_some() { known } else { 0 };
        let body = self.body(wanted, &items[sent..], anchor.as_deref());
        let mut direct: Value = serde_json::from_str(&body).expect("a body");
        if anchor.is_some() || items.iter().any(|item| item.wire != item.meaning) {
            direct["input"] = items.iter().map(|item| item.meaning.clone()).collect();
            direct.as_object_mut().expect("an object").remove("previous_response_id");
        }
        Prepared {
            tenant: self.tenant,
            scope: self.scope,
            history: items,
            known,
            body,
            direct,
            stream: wanted.stream,
            anchor,
        }
    }

    fn body(&self, wanted: &Wanted, items: &[Entry], anchor: Option<&str>) -> String {
        let dress = Dress(wanted.dress);
        let tune = |bit: u16| wanted.tune & 1 << bit != 0;
        let (model, user, store) = SCOPES[self.scope];
        let mut members: Vec<(&str, Value)> = vec![("model", json!(model))];
        members.extend(user.map(|user| ("user", json!(user))));
        members.extend(store.map(|store| ("store", json!(store))));
        members.extend(anchor.map(|anchor| ("previous_response_id", json!(anchor))));
        for (bit, name, value) in [
            (0, "instructions", json!("Be brief.")),
            (1, "temperature", json!(0.5)),
            (2, "tools", json!([{"type": "function", "name": "read", "parameters": {"a": 1}}])),
            (3, "tool_choice", json!("none")),
            (4, "metadata", json!({"b": "1", "a": null})),
            (5, "x_new_switch", json!({"on": [1.0, 1]})),
            (6, "background", json!(false)),
            (7, "include", json!(["reasoning.encrypted_content"])),
            (8, "background", json!(true)),
            (14, "stream_id", json!("main")),
        ] {
            // What breaks a chain, or goes over HTTP, is rarer than what does not.
            let rare = matches!(bit, 5 | 8 | 14) && wanted.tune & 0b1_1000_0000_0000 != 0;
            if tune(bit) && !rare && !members.iter().any(|(known, _)| *known == name) {
                members.push((name, value));
            }
        }
        if dress.has(dress::NULLS) {
            members.extend([("prompt", Value::Null), ("conversation", Value::Null), ("top_p", Value::Null)]);
        }
        let input = match items {
            [only] if dress.has(dress::WRAP) && only.wire["content"].is_string() && !only.is_said() => {
                only.wire["content"].clone()
            }
            _ => items.iter().map(|item| dress.item(&item.wire)).collect(),
        };
        let at = if dress.has(dress::INPUT_FIRST) { 0 } else { members.len() };
        members.insert(at, ("input", input));
        if wanted.stream || tune(9) {
            members.push(("stream", json!(wanted.stream)));
        }
        if tune(10) && tune(11) && tune(12) && tune(13) {
            members.push(("temperature", json!(1)));
        }
        dress.object(&members)
    }
}

/// An item of the answer as the client repeats it.
fn echo(said: &Said, style: u8, stored: bool) -> Option<Entry> {
    let reasoning = said.last["type"] == "reasoning";
    Some(match style % 6 {
        0 => Entry::new(said.last.clone()),
        1 => Entry::new(said.done.clone()),
        2 => Entry::new(minimal(&said.last)),
        3 if reasoning => return None,
        3 => Entry::new(minimal(&said.done)),
        4 if stored && (reasoning || said.last["type"] == "message" || said.last["type"] == "compaction") => {
            Entry {
                wire: json!({"type": "item_reference", "id": said.last["id"]}),
                meaning: said.last.clone(),
            }
        }
        5 if stored && reasoning => {
            let mut wire = said.last.clone();
            wire.as_object_mut().expect("an item").remove("encrypted_content");
            Entry { wire, meaning: said.last.clone() }
        }
        _ => Entry::new(said.done.clone()),
    })
}

/// The least an agent keeps of an item.
fn minimal(item: &Value) -> Value {
    match item["type"].as_str().unwrap_or_default() {
        "message" => {
            let parts = item["content"].as_array().cloned().unwrap_or_default();
            let text: String = parts.iter().filter_map(|part| part["text"].as_str()).collect();
            json!({"role": "assistant", "content": text})
        }
        "function_call" => {
            let arguments: Value =
                serde_json::from_str(item["arguments"].as_str().unwrap_or("{}")).expect("JSON");
            json!({"type": "function_call", "call_id": item["call_id"], "name": item["name"],
                "arguments": arguments.to_string()})
        }
        "compaction" => json!({"type": "compaction", "encrypted_content": item["encrypted_content"]}),
        "custom_tool_call" => {
            json!({"type": "custom_tool_call", "call_id": item["call_id"], "name": item["name"],
            "input": item["input"]})
        }
        _ => {
            json!({"type": "reasoning", "summary": item["summary"], "encrypted_content": item["encrypted_content"]})
        }
    }
}

/// An output for every call.
fn outputs(echo: &[Entry], seed: u8) -> Vec<Entry> {
    let calls = echo.iter().filter(|entry| entry.is_call());
    let answer = |call: &Entry| {
        json!({"type": format!("{}_output", call.kind()), "call_id": call.meaning["call_id"],
            "output": if seed.is_multiple_of(4) { "other\u{1F980}" } else { "ok" }})
    };
    calls.map(|call| Entry::new(answer(call))).collect()
}

fn message(number: u8) -> Entry {
    let text = MESSAGES[usize::from(number) % MESSAGES.len()];
    Entry::new(if number & 8 == 0 {
        json!({"role": "user", "content": text})
    } else {
        json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})
    })
}
