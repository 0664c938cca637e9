//! Where a verdict comes from: the first item and field that the heart's reason is about, found again for the eye.
//!
//! Never decides: it is given the reason and looks for what it means. Where it finds nothing it says nothing, and the
//! reason stands alone.

use std::borrow::Cow;

use super::answer::{Answer, items_of_message};
use super::differ::{self, Difference};
use super::read::Side;
use super::verdict::Verdict;
use super::{KEY, echo};
use crate::proto::digest::Digest;
use crate::proto::transcript::fields::{Field, field};
use crate::proto::transcript::plan::Reason;
use crate::proto::wire::item::{self, InputItem};
use crate::proto::wire::json::{self, Member};
use crate::proto::wire::object::Fields;

/// A place in the later request, or in the earlier where it is missing from the later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Such as `input[3].content[0].text` or `model`.
    pub(super) path: String,
    /// What happened there, without content.
    pub(super) what: String,
    /// What stands in the earlier request or in the response, and in the later request, from the first difference on.
    pub(super) shown: (String, String),
}

impl Place {
    pub(super) fn new(path: impl Into<String>, what: impl Into<String>) -> Self {
        Self { path: path.into(), what: what.into(), shown: Default::default() }
    }

    /// A difference within what has a name.
    pub(super) fn within(name: String, difference: Difference) -> Self {
        let Difference { path, what, shown } = difference;
        let path = if path.is_empty() { name } else { format!("{name}.{path}") };
        Self { path, what, shown }
    }

    pub(super) fn showing(mut self, earlier: &str, later: &str) -> Self {
        self.shown = (earlier.to_owned(), later.to_owned());
        self
    }
}

/// The place of a verdict that is no continuation.
pub(super) fn place(a: &Side, b: &Side, answer: &Answer, verdict: &Verdict) -> Option<Place> {
    let reason = verdict.reason()?;
    match reason {
        Reason::FirstTurn | Reason::HistoryChanged | Reason::NothingNew => {
            scope(a, b).or_else(|| history(a, b, reason))
        }
        Reason::FieldChanged => changed(a, b, Field::Unknown).into_iter().next(),
        Reason::EchoMissing
        | Reason::EchoChanged
        | Reason::CallUnanswered
        | Reason::ReasoningAdded
        | Reason::ReasoningDropped => echo::place(a, b, answer, reason),
        Reason::Field(name) => Some(untranslatable(b).unwrap_or_else(|| {
            let on = if b.chat { "in the Responses API" } else { "on a socket" };
            Place::new(*name, format!("has no counterpart {on}"))
        })),
        Reason::DuplicateKey => duplicate(&b.body),
        Reason::Undigestable => undigestable(b),
        Reason::ClientAnchor => {
            Some(Place::new("previous_response_id", "names a response that no lane holds"))
        }
        _ => None,
    }
}

/// What must be the same for two requests to be of one chain.
fn scope(a: &Side, b: &Side) -> Option<Place> {
    changed(a, b, Field::Scope).into_iter().next()
}

/// The fields of a kind that differ, in the earlier request's order. A null field is an absent one.
pub(super) fn changed(a: &Side, b: &Side, kind: Field) -> Vec<Place> {
    let (Ok(earlier), Ok(later)) = (&a.turn, &b.turn) else { return Vec::new() };
    let mut names: Vec<&str> = Vec::new();
    for Member { key, .. } in earlier.members.iter().chain(&later.members) {
        if field(key) == kind && !names.contains(&&**key) {
            names.push(key);
        }
    }
    let places = names.into_iter().filter_map(|name| {
        // Absent and true are one (protocol §1.3).
        let default = if name == "store" { "true" } else { "null" };
        let value =
            |value: Option<&str>| value.filter(|value| *value != "null").unwrap_or(default).to_owned();
        let (x, y) = (value(earlier.value(name)), value(later.value(name)));
        let wrap =
            |value: &str| if value == "null" { "{}".to_owned() } else { format!(r#"{{"v":{value}}}"#) };
        let mut difference = differ::items(&wrap(&x), &wrap(&y))?;
        difference.path = difference.path.strip_prefix('v').unwrap_or_default().to_owned();
        let path = format!("{name}{}", difference.path);
        Some(Place { path, what: difference.what, shown: difference.shown })
    });
    places.collect()
}

/// The first visible item in which the histories part.
fn history(a: &Side, b: &Side, reason: &Reason) -> Option<Place> {
    let (x, y) = (visible(a), visible(b));
    let common = x.iter().zip(&y).take_while(|(x, y)| x.digest == y.digest).count();
    let (Some(gone), came) = (x.get(common), y.get(common)) else {
        let repeats = *reason == Reason::NothingNew || y.len() <= x.len();
        return repeats.then(|| Place::new(b.name(b.items.len()), "nothing new comes after what is known"));
    };
    let Some(came) = came else {
        let what = format!("is missing: the later request ends after {common} of {} items", x.len());
        return Some(Place::new(a.name(gone.index), what).showing(&a.items[gone.index], ""));
    };
    let (name, was, is) = (b.name(came.index), &a.items[gone.index], &b.items[came.index]);
    if let Some(n) = x[common + 1..].iter().position(|item| item.digest == came.digest) {
        let n = n + 1;
        let what = format!("{} of the earlier request {} missing here: {}", items(n), are(n), kind(was));
        return Some(Place::new(name, what).showing(was, is));
    }
    if let Some(n) = y[common + 1..].iter().position(|item| item.digest == gone.digest) {
        let n = n + 1;
        let what = format!("{} that the earlier request has not {} here: {}", items(n), stand(n), kind(is));
        return Some(Place::new(name, what).showing(was, is));
    }
    let difference = differ::items(was, is)?;
    Some(Place::within(name, difference))
}

/// An item of the visible chain.
struct Visible {
    index: usize,
    digest: Digest,
}

fn visible(side: &Side) -> Vec<Visible> {
    let digests =
        side.items.iter().enumerate().filter_map(|(index, text)| match item::input_digest(&KEY, text) {
            Ok(InputItem::Visible(digest)) => Some(Visible { index, digest }),
            Ok(InputItem::Reasoning(_)) | Err(_) => None,
        });
    digests.collect()
}

fn items(n: usize) -> String {
    if n == 1 { "an item".to_owned() } else { format!("{n} items") }
}

fn are(n: usize) -> &'static str {
    if n == 1 { "is" } else { "are" }
}

fn stand(n: usize) -> &'static str {
    if n == 1 { "stands" } else { "stand" }
}

/// What an item is, in a word or two: its type, and whose message.
pub(super) fn kind(item: &str) -> String {
    let fields = Fields::read(item).ok();
    let word = |name: &str| fields.as_ref().and_then(|fields| fields.string(name)).map(Cow::into_owned);
    match (word("type"), word("role")) {
        (None, Some(role)) => format!("a {role} message"),
        (Some(kind), Some(role)) if kind == "message" => format!("a {role} message"),
        (Some(kind), _) => format!("a {kind}"),
        (None, None) => "an item".to_owned(),
    }
}

fn duplicate(body: &str) -> Option<Place> {
    let members = json::members(body).ok()?;
    let mut keys: Vec<&str> = members.iter().map(|member| &*member.key).collect();
    keys.sort_unstable();
    let twice = keys.windows(2).find(|pair| pair[0] == pair[1])?;
    Some(Place::new(twice[0], "is named twice"))
}

/// The first chat message that cannot be said in the Responses API.
fn untranslatable(b: &Side) -> Option<Place> {
    let members = json::members(&b.body).ok().filter(|_| b.chat)?;
    let list = &b.body[json::find(&members, "messages")?.value.clone()];
    let spans = json::elements(list).ok()?;
    let (n, span) =
        spans.into_iter().enumerate().find(|(_, span)| items_of_message(&list[span.clone()]).is_none())?;
    let has_name = Fields::read(&list[span]).is_ok_and(|message| message.value("name").is_some());
    let path = format!("messages[{n}]{}", if has_name { ".name" } else { "" });
    Some(Place::new(path, "has no counterpart in the Responses API"))
}

fn undigestable(b: &Side) -> Option<Place> {
    let members = json::members(&b.body).ok()?;
    let name = if b.chat { "messages" } else { "input" };
    let list = &b.body[json::find(&members, name)?.value.clone()];
    let spans = json::elements(list).ok()?;
    let unread = spans.into_iter().position(|span| item::input_digest(&KEY, &list[span]).is_err())?;
    Some(Place::new(format!("{name}[{unread}]"), "two readers could read it differently"))
}
