//! Server events in: what a frame is and whose, found from its top-level members alone; the text is kept as it came.
//!
//! Frames are text with one JSON object each (OpenAI WebSocket guide, 2026-08). Does not know which lanes exist or
//! what any of them is waiting for.

use bytes::Bytes;

use crate::proto::id::LaneId;
use crate::proto::wire::json::{self, JsonError, Member};

/// What a frame means to the life of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// `response.created`.
    Created,
    /// `response.in_progress` or `response.queued`.
    InProgress,
    /// `response.completed`: the one ending that can be continued.
    Completed,
    /// `response.incomplete`, `response.failed` or `response.cancelled`: an ending that cannot.
    Ended,
    /// An `error` frame, nested or flat: ends its request.
    Error,
    /// `response.output_item.done`.
    ItemDone,
    /// Any other `response.*` event, known to us or not.
    Content,
    /// Not part of a REST stream: provider-internal prefixes, socket-only families. Dropped wherever it comes.
    Aside,
}

impl EventKind {
    /// True if nothing more of this response follows.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Ended | Self::Error)
    }

    pub(super) fn of(name: &str) -> Self {
        match name {
            "response.created" => Self::Created,
            "response.in_progress" | "response.queued" => Self::InProgress,
            "response.completed" => Self::Completed,
            "response.incomplete" | "response.failed" | "response.cancelled" => Self::Ended,
            "error" | "response.error" => Self::Error,
            "response.output_item.done" => Self::ItemDone,
            // Socket-only or backend-only families (protocol §1.10, §1.13, §1.15, 2026-09).
            "response.metadata" | "response.done" => Self::Aside,
            _ if name.starts_with("response.steer.") || name.starts_with("response.inject.") => Self::Aside,
            _ if name.starts_with("response.") => Self::Content,
            _ => Self::Aside,
        }
    }
}

/// One server event.
#[derive(Debug, Clone)]
pub struct Event {
    text: Bytes,
    members: Vec<Member>,
    kind: EventKind,
    name: Box<str>,
}

impl Event {
    /// Reads a text frame. An object without a `type` but with an `error` counts as an error (xAI, protocol §1.8).
    pub fn parse(text: Bytes) -> Result<Self, JsonError> {
        let read = std::str::from_utf8(&text).map_err(|_| JsonError::Syntax)?;
        let members = json::members(read)?;
        let name = json::find(&members, "type").and_then(|m| json::string(&read[m.value.clone()]));
        let name: Box<str> = match name {
            Some(name) => name.into(),
            None if json::find(&members, "error").is_some() => "error".into(),
            None => return Err(JsonError::Syntax),
        };
        Ok(Self { kind: EventKind::of(&name), name, members, text })
    }

    /// What it means.
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// Its `type`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text, as received.
    pub fn text(&self) -> &str {
        // Checked in `parse`, the only constructor.
        std::str::from_utf8(&self.text).unwrap_or_default()
    }

    /// Its top-level members, in order.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The text of a top-level member; null is absent.
    pub fn value(&self, key: &str) -> Option<&str> {
        let value = &self.text()[json::find(&self.members, key)?.value.clone()];
        (value != "null").then_some(value)
    }

    /// A top-level number, such as `output_index`.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.value(key)?.parse().ok()
    }

    /// A top-level string.
    pub fn string(&self, key: &str) -> Option<String> {
        json::string(self.value(key)?).map(std::borrow::Cow::into_owned)
    }

    /// The lane it came on; `Err` for a name we never give.
    pub fn lane(&self) -> Result<LaneId, JsonError> {
        let Some(name) = self.value("stream_id") else { return Ok(LaneId::Default) };
        json::string(name).and_then(|name| LaneId::parse(Some(&name))).ok_or(JsonError::Syntax)
    }

    /// The id of the response a lifecycle event carries.
    pub fn response_id(&self) -> Option<String> {
        let response = self.value("response")?;
        let members = json::members(response).ok()?;
        json::string(&response[json::find(&members, "id")?.value.clone()]).map(std::borrow::Cow::into_owned)
    }

    /// The same event in memory of its own, if it is so short that it may be a small part of what it came in.
    #[must_use]
    pub fn detached(self) -> Self {
        if self.text.len() > SHARED_BYTES {
            return self;
        }
        Self { text: Bytes::copy_from_slice(&self.text), ..self }
    }

    /// Bytes it weighs in a queue.
    pub fn weight(&self) -> usize {
        self.text.len() + self.members.len() * 48 + 64
    }
}

/// Longer texts have (nearly) a buffer of their own.
const SHARED_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Event {
        Event::parse(Bytes::copy_from_slice(text.as_bytes())).expect(text)
    }

    #[test]
    fn kinds_by_name() {
        for (name, kind) in [
            ("response.created", EventKind::Created),
            ("response.queued", EventKind::InProgress),
            ("response.completed", EventKind::Completed),
            ("response.incomplete", EventKind::Ended),
            ("response.failed", EventKind::Ended),
            ("error", EventKind::Error),
            ("response.output_text.delta", EventKind::Content),
            ("response.never_heard_of", EventKind::Content),
            ("response.metadata", EventKind::Aside),
            ("response.steer.accepted", EventKind::Aside),
            ("codex.rate_limits", EventKind::Aside),
            ("responsesapi.websocket_timing", EventKind::Aside),
        ] {
            assert_eq!(event(&format!(r#"{{"type":"{name}"}}"#)).kind(), kind, "{name}");
        }
        assert!(Event::parse(Bytes::from_static(b"{}")).is_err());
        assert!(Event::parse(Bytes::from_static(b"[1]")).is_err());
        assert!(Event::parse(Bytes::from_static(b"\xff")).is_err());
    }

    #[test]
    fn lanes_by_name() {
        assert_eq!(event(r#"{"type":"x"}"#).lane(), Ok(LaneId::Default));
        assert_eq!(event(r#"{"stream_id":"tw3","type":"x"}"#).lane(), Ok(LaneId::Named(3)));
        for foreign in [r#""agent""#, "7", "{}", r#""\ud800""#] {
            let event = event(&format!(r#"{{"stream_id":{foreign},"type":"x"}}"#));
            assert!(event.lane().is_err(), "{foreign}");
        }
    }
}
