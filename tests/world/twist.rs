//! What clients do to a history before they send it again: edits, cuts, losses, another order. Each is done to what is sent
//! and to what is meant alike.

use serde_json::{Value, json};

use crate::client::{Entry, Wanted};

/// What the client does to the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Twist {
    None,
    EditOld,
    EditSaid,
    DropReasoning,
    DropOneReasoning,
    AddReasoning,
    MoveReasoning,
    DropText,
    DropCall,
    Reorder,
    Unanswered,
    FieldOnOld,
    FieldOnSaid,
    Cut,
    Twice,
    Swap,
}

/// Does it. The last answer begins at `echo_at`.
pub(crate) fn twist(items: &mut Vec<Entry>, echo_at: usize, wanted: &Wanted) {
    let at = usize::from(wanted.at);
    // The n-th item of a kind, counted from `from`.
    let pick = |items: &[Entry], from: usize, kind: &dyn Fn(&Entry) -> bool| {
        let found: Vec<usize> = (from..items.len()).filter(|n| kind(&items[*n])).collect();
        found.get(at % found.len().max(1)).copied()
    };
    let reasoning = |entry: &Entry| entry.kind() == "reasoning";
    let text = |entry: &Entry| entry.is_said() && entry.kind() == "message";
    match wanted.twist {
        Twist::None | Twist::Unanswered => {}
        Twist::EditOld => {
            if let Some(n) = pick(items, 0, &|entry| !entry.is_said()) {
                items[n].change(edit);
            }
        }
        Twist::EditSaid => {
            if let Some(n) = pick(items, 0, &|entry| entry.is_said() && entry.kind() != "reasoning") {
                items[n].change(edit);
            }
        }
        Twist::DropReasoning => items.retain(|entry| entry.kind() != "reasoning"),
        Twist::DropOneReasoning => drop(pick(items, 0, &reasoning).map(|n| items.remove(n))),
        Twist::AddReasoning => {
            let foreign = json!({"type": "reasoning", "id": format!("rs_{at}"), "summary": [], "encrypted_content": "gA"});
            items.insert(at % (items.len() + 1), Entry::new(foreign));
        }
        Twist::MoveReasoning => {
            // A compaction item that moves takes what stands before it out of the context.
            let movable = |entry: &Entry| reasoning(entry) || entry.kind() == "compaction";
            if let Some(n) = pick(items, echo_at, &movable) {
                let moved = items.remove(n);
                items.push(moved);
            }
        }
        Twist::DropText => {
            drop(pick(items, if at < 128 { echo_at } else { 0 }, &text).map(|n| items.remove(n)))
        }
        Twist::DropCall => drop(pick(items, echo_at, &Entry::is_call).map(|n| items.remove(n))),
        Twist::Reorder => items[echo_at..].sort_by_key(text),
        Twist::FieldOnOld => {
            if let Some(n) = pick(&items[..echo_at], 0, &|_| true) {
                items[n].change(|item| item["x_tag"] = "new".into());
            }
        }
        Twist::FieldOnSaid => {
            if let Some(n) = pick(items, echo_at, &|entry| entry.kind() != "reasoning") {
                items[n].change(|item| item["provider"] = json!({"a": [1, null]}));
            }
        }
        Twist::Cut => drop(items.drain(..(at % 3).min(echo_at))),
        Twist::Twice => {
            if let Some(n) = pick(items, echo_at, &|_| true) {
                items.push(items[n].clone());
            }
        }
        Twist::Swap => {
            if let Some(n) = pick(&items[..echo_at], 0, &|entry| !entry.is_said()) {
                items.swap(0, n);
            }
        }
    }
}

/// Says something else in its place.
fn edit(item: &mut Value) {
    for name in ["arguments", "input", "output", "content"] {
        match &mut item[name] {
            Value::String(text) if name == "arguments" => return *text = r#"{"edited":1}"#.to_owned(),
            Value::String(text) => return text.insert(0, '!'),
            Value::Array(parts) if !parts.is_empty() => return parts[0]["text"] = "!".into(),
            _ => {}
        }
        if item[name].is_null() {
            item.as_object_mut().expect("an item").remove(name);
        }
    }
}
