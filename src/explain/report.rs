//! An explanation as a few lines for a person, or as JSON for a program. The words for each reason are here.
//!
//! Prints no content unless told to show it.

use serde_json::{Value, json};

use super::place::Place;
use super::verdict::Verdict;
use super::{EXCERPT, Explanation};
use crate::proto::transcript::plan::Reason;

impl Explanation {
    /// For a person. With `show`, what stands at the place is quoted, cut short.
    pub fn text(&self, show: bool) -> String {
        let mut lines = vec![self.headline()];
        if let Some(Place { path, what, shown }) = &self.place {
            lines.push(format!("  {path}: {what}"));
            let quote = |name: &str, text: &str| format!("    {name} {}", excerpt(text));
            let quotes = [("before:", &shown.0), ("now:   ", &shown.1)];
            lines.extend(
                quotes
                    .iter()
                    .filter(|(_, text)| show && !text.is_empty())
                    .map(|(name, text)| quote(name, text)),
            );
        }
        match &self.verdict {
            Verdict::Delta { new_from, .. } => lines.push(self.counted(*new_from)),
            Verdict::Anchored => {}
            Verdict::Full(reason) | Verdict::Http(reason) => lines.push(format!("  {}", words(reason))),
        }
        if self.assumed && !matches!(self.verdict, Verdict::Http(_)) {
            lines.push("  The response to A was not given; what B repeats is taken for it.".to_owned());
        }
        lines.extend(self.notes.iter().map(|note| format!("  Note: {note}.")));
        lines.join("\n") + "\n"
    }

    fn headline(&self) -> String {
        match &self.verdict {
            Verdict::Delta { grade, .. } => format!("B continues A: plan=delta; grade={grade}"),
            Verdict::Anchored => {
                "B continues A, whose response it names itself: plan=full; reason=client-anchor".to_owned()
            }
            Verdict::Full(reason) => format!("B does not continue A: plan=full; reason={reason}"),
            Verdict::Http(reason) => format!("B does not continue A: plan=http; reason={reason}"),
        }
    }

    fn counted(&self, new_from: usize) -> String {
        let (a, _, b) = self.items;
        let items = if self.chat { "messages and calls" } else { "items" };
        let new = b - new_from;
        format!("  Of B's {b} {items}, {new_from} are known ({a} of A, then its response); sent: {new}.")
    }

    /// For a program: one object. Paths and counts; excerpts only with `show`.
    pub fn json(&self, show: bool) -> String {
        let (a, response, b) = self.items;
        let (grade, new_from) = match &self.verdict {
            Verdict::Delta { grade, new_from } => (Some(grade.to_string()), Some(*new_from)),
            _ => (None, None),
        };
        let place = self.place.as_ref().map_or(Value::Null, |place| {
            let mut object = json!({ "path": place.path, "what": place.what });
            if show {
                object["before"] = excerpt(&place.shown.0).into();
                object["now"] = excerpt(&place.shown.1).into();
            }
            object
        });
        let object = json!({
            "continues": self.verdict.continues(),
            "plan": self.verdict.plan(),
            "grade": grade,
            "reason": self.verdict.reason().map(ToString::to_string),
            "words": self.verdict.reason().map(words),
            "place": place,
            "items": { "a": a, "response": response, "b": b, "new_from": new_from },
            "response_assumed": self.assumed,
            "notes": self.notes,
        });
        format!("{object:#}\n")
    }
}

/// The beginning of a text, on one line.
fn excerpt(text: &str) -> String {
    let mut short: String =
        text.chars().take(EXCERPT).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(EXCERPT).is_some() {
        short.push('…');
    }
    short
}

/// What a reason means for a client that was expected to chain.
fn words(reason: &Reason) -> &'static str {
    match reason {
        Reason::FirstTurn => {
            "B does not begin as A does, or is of another model, user or store: another conversation."
        }
        Reason::HistoryChanged => {
            "B begins as A does, and then tells it otherwise: what was sent may not be edited or cut."
        }
        Reason::EchoMissing => {
            "Everything visible that the response said must come back, or the model would see what the client removed."
        }
        Reason::EchoChanged => "What stands in the model's name must be what the model said.",
        Reason::CallUnanswered => "Every call of the response needs its output among the new items.",
        Reason::ReasoningAdded => {
            "Reasoning must be what the earlier request and its response held, in order and in place."
        }
        Reason::ReasoningDropped => "With `reasoning = \"strict\"` all reasoning must come back.",
        Reason::FieldChanged => {
            "This field is not in tailwire's table, so that a change of it may mean anything."
        }
        Reason::NothingNew => "A repeated request is no continuation of itself: something new must follow.",
        Reason::TooLarge => "The frame would be larger than a socket takes.",
        Reason::NotUnderstood => {
            "There is no `input` (or `messages`) that can be read; the provider answers."
        }
        Reason::DuplicateKey => {
            "Which of the two counts is the reader's taste, so the provider is to read it."
        }
        Reason::Undigestable => "It cannot be compared safely, so the provider is to read it.",
        Reason::Field(_) => "It goes over HTTP as it came.",
        Reason::ClientAnchor => "The client chains by itself, and goes over HTTP as it came.",
        Reason::Profile => "The provider's sockets do not take such a request.",
        Reason::SocketLost | Reason::SocketAged | Reason::LaneAdvanced | Reason::LaneBusy => {
            "It would continue A, but the socket no longer holds that."
        }
        Reason::Header(_)
        | Reason::NotFound
        | Reason::Recovered
        | Reason::Mode
        | Reason::ChatOnly
        | Reason::Refused
        | Reason::NoSocket
        | Reason::Busy => "It is no matter of these two requests.",
    }
}
