//! What the heart says: the earlier request is given to a heart of its own, answered, and the later one begun. The plan
//! that comes out is the verdict.
//!
//! Adds no rule: whatever is not a delta here would not be one in the proxy, for the same reason.

use std::time::Instant;

use bytes::Bytes;

use super::answer::Answer;
use super::read::{Side, account};
use super::{KEY, Options};
use crate::proto::core::{Core, Placement, Plan, Wish};
use crate::proto::session::Limits;
use crate::proto::transcript::plan::{Grade, Reason};
use crate::proto::transcript::request::Request;
use crate::proto::wire::event::Event;
use crate::proto::wire::item::{self, ModelItem};
use crate::proto::wire::object;

/// Where the later request would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It continues the earlier one.
    Delta {
        /// How exactly, if the earlier one was sent in full itself.
        grade: Grade,
        /// Index of its first new item.
        new_from: usize,
    },
    /// It names the response itself, and goes over the lane that holds it.
    Anchored,
    /// It is sent whole.
    Full(Reason),
    /// It goes over HTTP as it is.
    Http(Reason),
}

impl Verdict {
    /// True if what the provider holds is used.
    pub fn continues(&self) -> bool {
        matches!(self, Self::Delta { .. } | Self::Anchored)
    }

    /// Why not.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Full(reason) | Self::Http(reason) => Some(reason),
            Self::Delta { .. } | Self::Anchored => None,
        }
    }

    /// The name of its plan, as `x-tailwire` has it.
    pub fn plan(&self) -> &'static str {
        match self {
            Self::Delta { .. } => "delta",
            Self::Anchored | Self::Full(_) => "full",
            Self::Http(_) => "http",
        }
    }
}

/// The verdict on `b` after `a` was answered so.
pub(super) fn verdict(a: &Side, b: &Side, answer: &Answer, options: &Options) -> Verdict {
    let now = Instant::now();
    let limits = options.profile.apply(Limits::default());
    let mut core = Core::new(KEY, limits, options.strict, INDEX);
    if let Ok(request) = &a.turn {
        play(&mut core, now, request, answer);
    }
    let request = match &b.turn {
        Ok(request) => request,
        Err(reason) => return Verdict::Http(reason.clone()),
    };
    match core.begin(now, &account(), request, &Wish::default()) {
        Placement::Wire(ticket) => match ticket.plan {
            Plan::Delta { new_from, grade, .. } => Verdict::Delta { grade, new_from },
            Plan::Full { previous: Some(_), .. } => Verdict::Anchored,
            Plan::Full { reason, .. } => Verdict::Full(reason),
        },
        Placement::Http(reason, _) => Verdict::Http(reason),
    }
}

/// Bytes of the index; one head weighs far less.
const INDEX: usize = 64 << 20;

/// One whole turn: begun, sent, answered, settled.
fn play(core: &mut Core, now: Instant, request: &Request, answer: &Answer) {
    let Placement::Wire(ticket) = core.begin(now, &account(), request, &Wish::default()) else { return };
    core.opened(now, ticket.connection);
    core.sending(now, ticket.connection, ticket.turn);
    let lane = ticket.lane.name().map(|name| format!(r#""stream_id":"{name}","#)).unwrap_or_default();
    let id = answer.id.as_deref().unwrap_or("resp_earlier");
    let response = object::quoted(id);
    for kind in ["created", "completed"] {
        let text = format!(r#"{{"type":"response.{kind}",{lane}"response":{{"id":{response}}}}}"#);
        if let Ok(event) = Event::parse(Bytes::from(text)) {
            core.event(now, ticket.connection, &event);
        }
    }
    core.settle(now, ticket.turn, request, id, answer.echo.clone());
}

/// Where the items of `b` that repeat all of `a`'s input end, by the heart's own chain.
pub(super) fn known_items(a: &Side, b: &Side) -> Option<usize> {
    let chain = |side: &'_ Side| side.turn.as_ref().ok().and_then(|turn| turn.chain.clone());
    let last = *chain(a)?.steps.last().filter(|step| step.visible > 0)?;
    chain(b)?.steps.iter().find(|step| step.digest == last.digest).map(|step| step.items)
}

/// True if `b` holds the model's words also behind what answers `a`'s response: then turns lie between the two.
pub(super) fn skips(a: &Side, b: &Side) -> bool {
    let Some(from) = known_items(a, b) else { return false };
    let is_new = |item: &ModelItem| matches!(item, ModelItem::Output { .. } | ModelItem::Foreign);
    let mut items = b.items[from..].iter().filter_map(|item| item::model_item(&KEY, item).ok());
    items.any(|item| is_new(&item)) && items.any(|item| !is_new(&item))
}

/// What `b` repeats after `a`'s input as the model's: the answer that `a` must have had if all is well.
pub(super) fn repeated(a: &Side, b: &Side) -> Vec<String> {
    let Some(from) = known_items(a, b) else { return Vec::new() };
    let said = b.items[from..].iter().map_while(|item| match item::model_item(&KEY, item).ok()? {
        ModelItem::Output { .. } | ModelItem::Foreign | ModelItem::Other { call_id: None, .. } => None,
        // What it stands for is not in the file: any item of that id.
        ModelItem::Reference { .. } => Some(referred(item)),
        _ => Some(item.clone()),
    });
    said.collect()
}

fn referred(item: &str) -> String {
    let id = object::Fields::read(item).ok();
    let id = id.as_ref().and_then(|fields| fields.value("id")).unwrap_or("null");
    format!(r#"{{"type":"message","role":"assistant","id":{id},"content":""}}"#)
}
