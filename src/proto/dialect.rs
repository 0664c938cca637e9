//! The REST dialects clients speak: how the provider's events become their stream or their JSON body.
//!
//! A dialect is chosen by the path of a request; from there on a turn is the same in all of them.

use std::borrow::Cow;

use crate::proto::dialect::chat::Completion;
use crate::proto::dialect::chat::request::Framing;
use crate::proto::dialect::responses::Restorer;
use crate::proto::fault::Fault;
use crate::proto::wire::error::ProviderError;
use crate::proto::wire::event::{Event, EventKind};

pub mod chat;
pub mod responses;
pub mod setup;

/// What a client speaks, with what its request says about the reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialect {
    /// The Responses API, as upstream.
    Responses,
    /// Chat Completions, translated.
    Chat {
        /// How the reply is to be written.
        framing: Framing,
        /// The model asked for, should the response not name its own.
        model: String,
    },
}

/// The reply to one request, in its client's dialect.
#[derive(Debug)]
pub enum Reply {
    /// The provider's events, restored.
    Responses(Box<Restorer>),
    /// The chat reply they amount to.
    Chat(Box<Completion>),
}

impl Reply {
    /// For a client of this dialect that sent this `previous_response_id`. `id` stands in for a chat reply whose response
    /// does not name itself.
    pub fn new(dialect: &Dialect, previous: Option<&str>, id: &str) -> Self {
        match dialect {
            Dialect::Responses => Self::Responses(Box::new(Restorer::new(previous))),
            Dialect::Chat { framing, model } => Self::Chat(Box::new(Completion::new(*framing, id, model))),
        }
    }

    /// Takes note of an event for a client that reads JSON.
    pub fn hear(&mut self, event: &Event) {
        match self {
            Self::Responses(restorer) => restorer.hear(event),
            Self::Chat(completion) => completion.hear(event),
        }
    }

    /// Appends what a client that reads a stream is shown of an event.
    pub fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        match self {
            Self::Responses(restorer) => restorer.write(event, out),
            Self::Chat(completion) => completion.write(event, out),
        }
    }

    /// Appends an error of the provider's that came in mid-stream.
    pub fn write_error(&mut self, error: &ProviderError, out: &mut Vec<u8>) {
        match self {
            Self::Responses(restorer) => restorer.write_error(error, out),
            Self::Chat(completion) => completion.write_error(error, out),
        }
    }

    /// Appends a fault of the connection that came in mid-stream.
    pub fn write_fault(&mut self, fault: &Fault, out: &mut Vec<u8>) {
        match self {
            Self::Responses(restorer) => restorer.write_fault(fault, out),
            Self::Chat(completion) => completion.write_fault(fault, out),
        }
    }

    /// The JSON body that the last event makes; `None` if it has none, or an output that cannot be put back.
    pub fn body(&self, event: &Event) -> Option<String> {
        match self {
            Self::Responses(restorer) => restorer.body(event),
            Self::Chat(completion) => completion.body(event),
        }
    }

    /// True if more was said than is kept, so that no JSON body can be made.
    pub fn is_incomplete(&self) -> bool {
        match self {
            Self::Responses(restorer) => restorer.is_incomplete(),
            Self::Chat(completion) => completion.is_incomplete(),
        }
    }

    /// The last event's `output` as it was told.
    pub fn output<'a>(&self, event: &'a Event) -> Option<Cow<'a, str>> {
        match self {
            Self::Responses(restorer) => restorer.output(event),
            Self::Chat(completion) => completion.output(event),
        }
    }

    /// An output as a client of this dialect repeats it, where that is another than was told.
    pub fn echo(&self, output: &str) -> Option<String> {
        match self {
            Self::Responses(_) => None,
            Self::Chat(_) => Some(chat::collect::echo(output)),
        }
    }

    /// The error that an event stands for in this dialect, although it is none of the socket's: Chat has no failed responses.
    pub fn failure(&self, event: &Event) -> Option<ProviderError> {
        let failed = event.kind() == EventKind::Ended && event.name() != "response.incomplete";
        match self {
            Self::Chat(_) if failed => {
                Some(ProviderError::of_response(event).unwrap_or_else(ProviderError::unexplained))
            }
            Self::Chat(_) | Self::Responses(_) => None,
        }
    }
}
