//! What a file holds: a request of either API as the turn it means, or the answer to one, as JSON or as a stream.
//!
//! Reads with the heart's own readers, the translation of Chat included. Judges nothing.

use bytes::Bytes;

use super::{KEY, Options, Unreadable, answer};
use crate::proto::dialect::chat::request;
use crate::proto::digest::Digest;
use crate::proto::transcript::plan::Reason;
use crate::proto::transcript::request::Request;
use crate::proto::wire::json;

/// One request, as the proxy would read it.
#[derive(Debug)]
pub(super) struct Side {
    /// It is a request of Chat Completions; what follows is its translation.
    pub(super) chat: bool,
    /// The body as it came, which is a JSON object.
    pub(super) body: String,
    /// The turn it means, or why it goes over HTTP as it came.
    pub(super) turn: Result<Request, Reason>,
    /// The items, each as JSON; a text as the message it stands for.
    pub(super) items: Vec<String>,
    /// For each item of a chat request the message that it came from.
    messages: Vec<usize>,
}

impl Side {
    /// Reads a body.
    pub(super) fn read(bytes: &[u8], options: &Options) -> Result<Self, Unreadable> {
        let body = object(bytes).ok_or(Unreadable::NoObject)?;
        let members = json::members(body).map_err(|_| Unreadable::NoObject)?;
        let chat = json::find(&members, "input").is_none() && json::find(&members, "messages").is_some();
        let translated = match chat {
            true => request::translate(body).map(|translated| translated.body),
            false => Ok(body.to_owned()),
        };
        let turn = translated.and_then(|body| turn(body, options));
        let items = turn.as_ref().map(items).unwrap_or_default();
        let messages = if chat { messages(body) } else { Vec::new() };
        Ok(Self { chat, body: body.to_owned(), turn, items, messages })
    }

    /// What a person calls item `index`.
    pub(super) fn name(&self, index: usize) -> String {
        match self.messages.get(index) {
            Some(message) if self.chat => format!("messages[{message}]"),
            _ if self.body_input_is_text() => "input".to_owned(),
            _ => format!("input[{index}]"),
        }
    }

    fn body_input_is_text(&self) -> bool {
        self.turn
            .as_ref()
            .ok()
            .and_then(|turn| turn.value("input"))
            .is_some_and(|input| input.starts_with('"'))
    }
}

/// The text of a JSON object.
pub(super) fn object(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    // A mark of byte order is no JSON, but editors leave it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    json::members(text).ok().map(|_| text)
}

/// As the proxy reads a body, its profile's rules included.
fn turn(body: String, options: &Options) -> Result<Request, Reason> {
    let request = Request::parse(&KEY, &account(), Bytes::from(body), &[])?;
    if request.chain.is_none() {
        return Err(Reason::Undigestable);
    }
    if options.profile.rules_out(&request) {
        return Err(Reason::Profile);
    }
    Ok(request)
}

/// Both requests come from one client: what its headers say is not in the files.
pub(super) fn account() -> Digest {
    KEY.hasher("account").finish()
}

fn items(request: &Request) -> Vec<String> {
    let input = request.value("input").unwrap_or("[]");
    if input.starts_with('"') {
        return vec![format!(r#"{{"role":"user","content":{input}}}"#)];
    }
    (0..request.items()).filter_map(|index| request.item(index)).map(str::to_owned).collect()
}

/// For each item of a chat request's translation its message: each message is translated by itself, and counted.
fn messages(body: &str) -> Vec<usize> {
    let Ok(members) = json::members(body) else { return Vec::new() };
    let list = json::find(&members, "messages").map_or("[]", |member| &body[member.value.clone()]);
    let spans = json::elements(list).unwrap_or_default();
    let counted = spans.into_iter().enumerate().flat_map(|(n, span)| {
        let items = answer::items_of_message(&list[span]).map_or(0, |items| items.len());
        std::iter::repeat_n(n, items)
    });
    counted.collect()
}
