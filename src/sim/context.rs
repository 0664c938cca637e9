//! The effective context of a request: what a model would read, from whichever mixture of chain and items it came.
//!
//! Settings (instructions, tools, sampling) are not part of it; they are resent with every request anyway.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;

use super::canon::{self, Kind};
use super::compaction::Essence;
use super::refusal::Refusal;

/// One item with what the rules need to know of it, worked out once.
#[derive(Debug)]
pub(super) struct Item {
    /// The item as it came, for `input_items` and references.
    pub(super) value: Value,
    /// Who made it and how it is ordered.
    pub(super) kind: Kind,
    /// Length of its canonical form in bytes: work and tokens are counted in these, however it was written.
    pub(super) size: usize,
    digest: [u8; 32],
    /// The same for a client that drops reasoning: a compaction item may stand for some.
    visible: [u8; 32],
    /// Whether it replaces everything before it.
    covers: bool,
    identity: String,
}

impl Item {
    /// `resolve` finds the identity of a reasoning item that is named by its id alone.
    pub(super) fn new(value: Value, resolve: impl Fn(&str) -> Option<String>) -> Self {
        let kind = Kind::of(&value);
        let essence = (kind == Kind::Compaction).then(|| Essence::of(&value));
        let identity = match kind {
            Kind::Compaction => {
                essence.as_ref().map_or_else(String::new, |known| known.digests.context.clone())
            }
            Kind::Reasoning => canon::reasoning_identity(&value).unwrap_or_else(|| {
                let id = value["id"].as_str().unwrap_or_default();
                resolve(id).unwrap_or_else(|| format!("id:{id}"))
            }),
            _ => String::new(),
        };
        let canonical = canon::canonical(&value, &identity).to_string();
        let digest = canon::sha256(&[canonical.as_bytes()]);
        let visible = essence.as_ref().map_or(digest, |known| {
            canon::sha256(&[canon::canonical(&value, &known.digests.visible).to_string().as_bytes()])
        });
        let covers = essence.is_some_and(|known| known.covers);
        Self { size: canonical.len(), digest, visible, covers, kind, identity, value }
    }

    /// What stands for this reasoning or compaction item; empty for the other kinds.
    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    /// The same item under an id.
    pub(super) fn with_id(&self, id: &str) -> Self {
        let mut value = self.value.clone();
        value["id"] = id.into();
        Self { value, identity: self.identity.clone(), ..*self }
    }

    /// The text of a user's message; none for anything else.
    pub(super) fn user_text(&self) -> Option<String> {
        if self.value["role"] != "user" {
            return None;
        }
        let content = &self.value["content"];
        Some(match content.as_array() {
            Some(parts) => parts.iter().filter_map(canon::text_of).collect(),
            None => content.as_str().unwrap_or_default().to_owned(),
        })
    }
}

/// The two digests of a context, as lower-case hexadecimal SHA-256, and the order of its reasoning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// Everything, hidden reasoning included.
    pub context: String,
    /// Everything but reasoning: what a client that drops reasoning still agrees with.
    pub visible: String,
    /// The reasoning in it, in the order the model reads it: of each thought the first four bytes of a digest, the same
    /// for every copy.
    pub reasoning: Vec<u32>,
}

/// Items in order, those included that a compaction has replaced: the model reads from the latest such item on, but what
/// is sent twice is wrong wherever it stands. Cheap to clone: a chain shares its items.
#[derive(Clone, Debug, Default)]
pub(super) struct Context {
    items: Vec<Arc<Item>>,
}

impl Context {
    /// This context with `new` items after it.
    pub(super) fn followed_by(&self, new: &[Arc<Item>]) -> Self {
        Self { items: self.items.iter().chain(new).cloned().collect() }
    }

    /// What the model reads: the latest compaction item and what follows it, or everything.
    pub(super) fn window(&self) -> &[Arc<Item>] {
        let from = self.items.iter().rposition(|item| item.covers).unwrap_or_default();
        &self.items[from..]
    }

    /// All items, replaced ones included.
    pub(super) fn items(&self) -> &[Arc<Item>] {
        &self.items
    }

    /// What the model reads, in canonical order: within one run of model-made items reasoning, then messages, then
    /// calls.
    pub(super) fn ordered(&self) -> Vec<&Item> {
        let mut ordered: Vec<&Item> = self.window().iter().map(AsRef::as_ref).collect();
        for run in ordered.chunk_by_mut(|left, right| left.kind.model_made() && right.kind.model_made()) {
            run.sort_by_key(|item| item.kind);
        }
        ordered
    }

    /// Total bytes of the canonical forms of what the model reads.
    pub(super) fn size(&self) -> usize {
        self.window().iter().map(|item| item.size).sum()
    }

    /// Both digests, and the thoughts.
    pub(super) fn digests(&self) -> Digests {
        let ordered = self.ordered();
        let digest = |with_reasoning: bool| {
            let parts: Vec<&[u8]> = ordered
                .iter()
                .filter(|item| with_reasoning || item.kind != Kind::Reasoning)
                .map(|item| if with_reasoning { item.digest.as_slice() } else { item.visible.as_slice() })
                .collect();
            canon::hex(&canon::sha256(&parts))
        };
        let thoughts = ordered.iter().filter(|item| item.kind == Kind::Reasoning);
        let reasoning = thoughts.map(|item| {
            let [first, second, third, fourth, ..] = canon::sha256(&[item.identity.as_bytes()]);
            u32::from_be_bytes([first, second, third, fourth])
        });
        Digests { context: digest(true), visible: digest(false), reasoning: reasoning.collect() }
    }

    /// Checks that calls and outputs pair up and that nothing is there twice.
    ///
    /// # Errors
    /// The provider's own 400 for the first item that is wrong; [`Refusal::is_duplicate`] tells the last kind.
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let mut calls: Vec<&str> = Vec::new();
        let mut called = HashSet::new();
        let mut answered = HashSet::new();
        let mut unique = HashSet::new();
        for item in &self.items {
            let call_id = item.value["call_id"].as_str();
            match (item.kind, call_id) {
                (Kind::Call, Some(id)) => {
                    if !called.insert(id) {
                        return Err(Refusal::duplicate(id));
                    }
                    calls.push(id);
                }
                (Kind::Output, Some(id)) => {
                    if !called.contains(id) {
                        return Err(Refusal::no_call_for_output(id));
                    }
                    if !answered.insert(id) {
                        return Err(Refusal::duplicate(id));
                    }
                }
                (Kind::Reasoning | Kind::Compaction, _) if !unique.insert(item.identity()) => {
                    return Err(Refusal::duplicate(item.value["id"].as_str().unwrap_or("reasoning")));
                }
                _ => {}
            }
        }
        match calls.into_iter().find(|id| !answered.contains(id)) {
            Some(id) => Err(Refusal::no_output_for_call(id)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn context(items: &[Value]) -> Context {
        let items: Vec<_> = items.iter().map(|item| Arc::new(Item::new(item.clone(), |_| None))).collect();
        Context::default().followed_by(&items)
    }

    fn user(text: &str) -> Value {
        json!({"role": "user", "content": text})
    }

    fn call(id: &str) -> Value {
        json!({"type": "function_call", "call_id": id, "name": "shell", "arguments": "{}"})
    }

    fn output(id: &str) -> Value {
        json!({"type": "function_call_output", "call_id": id, "output": "ok"})
    }

    fn said(text: &str) -> Value {
        json!({"role": "assistant", "content": text})
    }

    #[test]
    fn the_order_within_an_answer_is_neutral_and_all_other_order_counts() {
        let first = context(&[user("a"), said("b"), call("1"), output("1")]).digests();
        assert_eq!(first, context(&[user("a"), call("1"), said("b"), output("1")]).digests());
        assert_ne!(first, context(&[said("b"), user("a"), call("1"), output("1")]).digests());
        let calls = context(&[call("1"), call("2")]).digests();
        assert_ne!(calls, context(&[call("2"), call("1")]).digests());
    }

    #[test]
    fn reasoning_counts_in_one_digest_only() {
        let reasoning = json!({"type": "reasoning", "id": "rs_1", "summary": []});
        let with = context(&[user("a"), reasoning, said("b")]).digests();
        let without = context(&[user("a"), said("b")]).digests();
        assert_eq!(with.visible, without.visible);
        assert_ne!(with.context, without.context);
    }

    #[test]
    fn thoughts_are_told_in_the_order_they_are_read() {
        let thought = |id: &str| json!({"type": "reasoning", "id": id, "summary": []});
        let of = |items: &[Value]| context(items).digests().reasoning;
        let (one, two) = (of(&[thought("rs_1")]), of(&[thought("rs_2")]));
        assert_ne!(one, two);
        assert_eq!(of(&[thought("rs_1"), user("a"), thought("rs_2")]), [one.clone(), two.clone()].concat());
        assert_eq!(of(&[thought("rs_2"), user("a"), thought("rs_1")]), [two, one.clone()].concat());
        assert_eq!(of(&[said("b"), thought("rs_1")]), one);
        assert!(of(&[user("a"), said("b")]).is_empty());
    }

    /// A compaction item as a response gives it out, or as the end of a compacted window.
    fn compaction(digests: Digests, covers: bool, copy: &str) -> Value {
        json!({"type": "compaction", "id": "cmp_1", "encrypted_content": Essence { digests, covers }.blob(copy)})
    }

    #[test]
    fn what_stood_before_a_compaction_may_be_kept_or_dropped() {
        let long = [user("a"), call("1"), output("1")];
        let item = |copy: &str| compaction(context(&long).digests(), true, copy);
        let next = [said("b"), user("c")];
        let kept = [&long[..], &[item("done")], &next].concat();
        let dropped = [&[item("terminal")], &next[..]].concat();
        let some = [&long[..1], &[item("added")], &next].concat();
        for same in [&dropped, &some] {
            assert_eq!(context(&kept).digests(), context(same).digests());
            assert_eq!(context(&kept).size(), context(same).size());
        }
        for other in [
            [&long[..], &next].concat(),
            [&[said("b"), item("done")], &next[1..]].concat(),
            [&[compaction(context(&long[..1]).digests(), true, "done")], &next[..]].concat(),
        ] {
            assert_ne!(context(&kept).digests().visible, context(&other).digests().visible, "{other:?}");
        }
        assert!(context(&[item("done"), item("added")]).check().is_err_and(|refusal| refusal.is_duplicate()));
        assert!(context(&kept).check().is_ok() && context(&dropped).check().is_ok());
    }

    #[test]
    fn a_compacted_window_is_not_to_be_pruned() {
        let long = [user("a"), said("b"), user("c")];
        let end = compaction(context(&long).digests(), false, "window");
        let window = context(&[user("a"), user("c"), end.clone(), user("d")]).digests();
        assert_ne!(window.visible, context(&[user("c"), end.clone(), user("d")]).digests().visible);
        assert_ne!(window.visible, context(&[end, user("d")]).digests().visible);
    }

    #[test]
    fn a_compaction_of_reasoning_is_another_only_where_reasoning_counts() {
        let reasoning = json!({"type": "reasoning", "id": "rs_1", "summary": []});
        let with = compaction(context(&[user("a"), reasoning]).digests(), true, "done");
        let without = compaction(context(&[user("a")]).digests(), true, "done");
        let (with, without) = (context(&[with]).digests(), context(&[without]).digests());
        assert_eq!(with.visible, without.visible);
        assert_ne!(with.context, without.context);
    }

    #[test]
    fn calls_and_outputs_must_pair_up() {
        let table = [
            (vec![user("a"), call("1"), output("1")], None),
            (vec![user("a"), call("1"), user("b")], Some("No tool output found for function call 1.")),
            (vec![output("1")], Some("No tool call found for function call output with call_id 1.")),
            (
                vec![output("1"), call("1")],
                Some("No tool call found for function call output with call_id 1."),
            ),
            (vec![call("1"), call("1"), output("1")], Some("Duplicate item found with id 1.")),
            (vec![call("1"), output("1"), output("1")], Some("Duplicate item found with id 1.")),
        ];
        for (items, expected) in table {
            let refused = context(&items).check().err().map(|refusal| refusal.message);
            match expected {
                Some(expected) => {
                    assert!(refused.is_some_and(|message| message.starts_with(expected)), "{items:?}")
                }
                None => assert_eq!(refused, None, "{items:?}"),
            }
        }
    }
}
