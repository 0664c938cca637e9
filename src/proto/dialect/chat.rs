//! Chat Completions, spoken to clients while Responses is spoken upstream (protocol §5, 2026-11): the request that a chat
//! request means, and the chat reply that a response's events mean.
//!
//! Only what loses nothing is translated; for the rest the reason is named, and the turn goes to the provider's own
//! `/chat/completions` as it came (decisions 5.4). Reasoning never comes down: Chat has no place for it. It stays upstream, and
//! the model keeps it between calls.

use std::borrow::Cow;

use crate::proto::dialect::chat::request::Framing;
use crate::proto::dialect::chat::stream::Chunks;
use crate::proto::dialect::responses::Restorer;
use crate::proto::fault::Fault;
use crate::proto::transcript::plan::Reason;
use crate::proto::wire::error::ProviderError;
use crate::proto::wire::event::Event;
use crate::proto::wire::object::Fields;

pub mod collect;
mod letters;
mod message;
mod part;
pub mod reply;
pub mod request;
pub mod stream;
mod tool;

/// One chat reply in the making.
#[derive(Debug)]
pub struct Completion {
    framing: Framing,
    /// Keeps the items that were finished, should the last event leave them out.
    restorer: Restorer,
    chunks: Chunks,
}

impl Completion {
    /// See [`Chunks::new`].
    pub fn new(framing: Framing, id: &str, model: &str) -> Self {
        Self { framing, restorer: Restorer::new(None), chunks: Chunks::new(framing, id, model) }
    }

    /// Takes note of an event.
    pub fn hear(&mut self, event: &Event) {
        self.restorer.hear(event);
    }

    /// Appends what an event adds to the stream.
    pub fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        self.restorer.hear(event);
        let output = if event.kind().is_terminal() { self.output(event) } else { None };
        self.chunks.write(event, output.as_deref(), out);
    }

    /// See [`Chunks::write_error`].
    pub fn write_error(&self, error: &ProviderError, out: &mut Vec<u8>) {
        self.chunks.write_error(error, out);
    }

    /// See [`Chunks::write_fault`].
    pub fn write_fault(&self, fault: &Fault, out: &mut Vec<u8>) {
        self.chunks.write_fault(fault, out);
    }

    /// The whole reply, made of the last event.
    pub fn body(&self, event: &Event) -> Option<String> {
        let response = self.restorer.body(event)?;
        let output = Fields::read(&response).ok()?.value("output").unwrap_or("[]");
        Some(collect::body(&response, output, self.framing))
    }

    /// See [`Restorer::output`].
    pub fn output<'a>(&self, event: &'a Event) -> Option<Cow<'a, str>> {
        self.restorer.output(event)
    }

    /// See [`Restorer::is_incomplete`].
    pub fn is_incomplete(&self) -> bool {
        self.restorer.is_incomplete()
    }
}

/// Nothing is there but what is known: an unknown field might matter.
fn only(fields: &Fields<'_>, known: &[&str], reason: Reason) -> Result<(), Reason> {
    if fields.beyond(known).is_none() { Ok(()) } else { Err(reason) }
}

#[cfg(test)]
mod tests;
