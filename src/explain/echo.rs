//! Where an echo breaks: the first item of the later request that the response did not say so, or of the response that is
//! not repeated or not answered.
//!
//! Looks with the heart's own view of an item, and in the order in which the heart looks; decides nothing.

use super::KEY;
use super::answer::Answer;
use super::differ;
use super::place::{Place, kind};
use super::read::Side;
use super::verdict::known_items;
use crate::proto::transcript::plan::Reason;
use crate::proto::wire::item::{self, InputItem, ModelItem};
use crate::proto::wire::object::Fields;

/// The place of a reason that is about the response.
pub(super) fn place(a: &Side, b: &Side, answer: &Answer, reason: &Reason) -> Option<Place> {
    if matches!(reason, Reason::ReasoningAdded | Reason::ReasoningDropped) {
        return reasoning(a, b, answer, reason);
    }
    let walk = Walk::new(a, b, answer)?;
    match (reason, walk.stopped) {
        (Reason::EchoChanged, Some(at)) => Some(walk.stranger(at)),
        (Reason::EchoChanged, None) => walk.late(),
        (Reason::EchoMissing, _) => walk.unsaid(),
        (Reason::CallUnanswered, _) => walk.unanswered(),
        _ => None,
    }
}

struct Walk<'a> {
    b: &'a Side,
    said: Vec<(&'a str, ModelItem)>,
    taken: Vec<bool>,
    /// The first item that is no part of the echo.
    at: usize,
    /// The item in the model's name that the response did not say so.
    stopped: Option<usize>,
}

impl<'a> Walk<'a> {
    fn new(a: &Side, b: &'a Side, answer: &'a Answer) -> Option<Self> {
        let said =
            answer.items.iter().filter_map(|text| Some((text.as_str(), view(text)?))).collect::<Vec<_>>();
        let taken = vec![false; said.len()];
        let mut walk = Self { b, said, taken, at: known_items(a, b)?, stopped: None };
        while let Some(item) = b.items.get(walk.at).and_then(|item| view(item)) {
            match &item {
                ModelItem::Output { .. } | ModelItem::Foreign => break,
                ModelItem::Reasoning { .. } => {}
                item => match walk.find(item) {
                    Some(n) => walk.taken[n] = true,
                    None if matches!(item, ModelItem::Other { .. }) => break,
                    None => {
                        walk.stopped = Some(walk.at);
                        break;
                    }
                },
            }
            walk.at += 1;
        }
        Some(walk)
    }

    fn find(&self, item: &ModelItem) -> Option<usize> {
        let open = |n: &usize| !self.taken[*n];
        (0..self.said.len()).filter(open).find(|n| match (item, &self.said[*n].1) {
            (ModelItem::Text { text, .. }, ModelItem::Text { text: said, .. }) => text == said,
            (ModelItem::Text { text, think: true, .. }, ModelItem::Reasoning { think, .. }) => text == think,
            (ModelItem::Call { call, .. }, ModelItem::Call { call: said, .. }) => call == said,
            (ModelItem::Compaction { blob, .. }, ModelItem::Compaction { blob: said, .. }) => blob == said,
            (ModelItem::Other { whole, .. }, ModelItem::Other { whole: said, .. }) => whole == said,
            (ModelItem::Reference { id, .. }, said) => id.is_some() && *id == own_id(said),
            _ => false,
        })
    }

    /// An item in the model's name that the model did not say so: against the one it seems to stand for.
    fn stranger(&self, at: usize) -> Place {
        let (name, text) = (self.b.name(at), &self.b.items[at]);
        let meant = view(text).and_then(|item| self.meant(&item));
        let Some(n) = meant else {
            let what = format!("is {} that the response did not contain", kind(text));
            return Place::new(name, what).showing("", text);
        };
        let said = self.said[n].0;
        let words = [said, text.as_str()].map(message_text);
        let [Some(was), Some(is)] = words else {
            let difference = differ::call(said, text);
            return match difference {
                Some(difference) => Place::within(name, difference),
                None => Place::new(name, "is not what the response said").showing(said, text),
            };
        };
        let what = differ::texts(&was, &is).unwrap_or_else(|| "stands in another place".to_owned());
        Place::new(name, format!("the model's text: {what}")).showing(&was, &is)
    }

    /// The item of the response that an item which is none of them seems to stand for.
    fn meant(&self, item: &ModelItem) -> Option<usize> {
        let open = |n: &usize| !self.taken[*n];
        (0..self.said.len()).filter(open).find(|n| match (item, &self.said[*n].1) {
            (ModelItem::Call { call_id, .. }, ModelItem::Call { call_id: said, .. }) => call_id == said,
            (ModelItem::Text { .. }, ModelItem::Text { .. }) => true,
            (ModelItem::Compaction { .. }, ModelItem::Compaction { .. }) => true,
            _ => false,
        })
    }

    /// Something in the model's name among the new items.
    fn late(&self) -> Option<Place> {
        let models = |at: &usize| {
            !matches!(
                view(&self.b.items[*at]),
                None | Some(
                    ModelItem::Output { .. } | ModelItem::Foreign | ModelItem::Other { call_id: None, .. }
                )
            )
        };
        let at = (self.at..self.b.items.len()).find(models)?;
        let what = format!("is {} among the new items, in the model's name", kind(&self.b.items[at]));
        Some(Place::new(self.b.name(at), what).showing("", &self.b.items[at]))
    }

    /// The first thing said that is not repeated, reasoning aside.
    fn unsaid(&self) -> Option<Place> {
        let said = self.said.iter().enumerate();
        let mut unsaid =
            said.filter(|(n, (_, said))| !self.taken[*n] && !matches!(said, ModelItem::Reasoning { .. }));
        let (n, (text, _)) = unsaid.next()?;
        let size = message_text(text)
            .map_or_else(String::new, |text| format!(" of {} characters", text.chars().count()));
        let what = format!("{}{size} of the response is not repeated", kind(text));
        Some(Place::new(format!("output[{n}]"), what).showing(text, ""))
    }

    /// The first call that has no output among the new items.
    fn unanswered(&self) -> Option<Place> {
        let outputs: Vec<_> = self.b.items[self.at..]
            .iter()
            .filter_map(|item| match view(item) {
                Some(ModelItem::Output { call_id }) => call_id,
                _ => None,
            })
            .collect();
        let call_of = |item: &ModelItem| match item {
            ModelItem::Call { call_id, .. } => Some(*call_id),
            ModelItem::Other { call_id, .. } => *call_id,
            _ => None,
        };
        let open = self
            .said
            .iter()
            .position(|(_, said)| call_of(said).is_some_and(|call| !outputs.contains(&call)))?;
        let text = self.said[open].0;
        let what = format!("{} of the response has no output among the new items", kind(text));
        Some(Place::new(format!("output[{open}]"), what).showing(text, ""))
    }
}

/// Reasoning that is not held, or held and not repeated.
fn reasoning(a: &Side, b: &Side, answer: &Answer, reason: &Reason) -> Option<Place> {
    let keys = |items: &[String]| {
        items.iter().enumerate().filter_map(|(n, item)| Some((n, thought(item)?))).collect::<Vec<_>>()
    };
    let (mine, said, repeated) = (keys(&a.items), keys(&answer.items), keys(&b.items));
    if *reason == Reason::ReasoningDropped {
        let dropped = said.iter().find(|(_, keys)| !repeated.iter().any(|(_, other)| meet(keys, other)));
        return dropped
            .map(|(n, _)| Place::new(format!("output[{n}]"), "the response's reasoning is not repeated"));
    }
    let known = |keys: &Vec<_>| mine.iter().chain(&said).any(|(_, other)| meet(keys, other));
    if let Some((n, _)) = repeated.iter().find(|(_, keys)| !known(keys)) {
        let what = "is reasoning that neither the earlier request nor its response contains";
        return Some(Place::new(b.name(*n), what));
    }
    // All of it is known, so some of it stands elsewhere.
    let mut held = mine.iter().chain(&said);
    let moved = repeated.iter().find(|(_, keys)| !held.any(|(_, other)| meet(keys, other)));
    let (n, _) = moved.or_else(|| repeated.last())?;
    Some(Place::new(b.name(*n), "is reasoning that stands in another place or order than before"))
}

/// By what a reasoning item is known.
fn thought(item: &str) -> Option<Vec<item::ReasoningKey>> {
    match view(item)? {
        ModelItem::Reasoning { key, id, .. } => Some([Some(key), id].into_iter().flatten().collect()),
        _ => match item::input_digest(&KEY, item).ok()? {
            InputItem::Reasoning(key) => Some(vec![key]),
            InputItem::Visible(_) => None,
        },
    }
}

fn meet(keys: &[item::ReasoningKey], others: &[item::ReasoningKey]) -> bool {
    keys.iter().any(|key| others.contains(key))
}

fn view(item: &str) -> Option<ModelItem> {
    item::model_item(&KEY, item).ok()
}

fn own_id(item: &ModelItem) -> Option<crate::proto::digest::Digest> {
    match item {
        ModelItem::Text { id, .. } | ModelItem::Compaction { id, .. } | ModelItem::Other { id, .. } => *id,
        _ => None,
    }
}

/// The joined text of an assistant message, for its length and its first difference.
fn message_text(item: &str) -> Option<String> {
    let fields = Fields::read(item).ok()?;
    if !matches!(view(item)?, ModelItem::Text { .. }) {
        return None;
    }
    let content = fields.value("content").unwrap_or(r#""""#);
    let tree: serde_json::Value = serde_json::from_str(content).ok()?;
    let of_part = |part: &serde_json::Value| {
        ["text", "refusal"].iter().find_map(|name| part[*name].as_str()).unwrap_or_default().to_owned()
    };
    Some(match tree {
        serde_json::Value::String(text) => text,
        tree => tree.as_array().into_iter().flatten().map(of_part).collect(),
    })
}
