//! Faults: who, and what, by name. Never whether to try again: that is computed from the fault and from how far the
//! turn had come (`session::recovery`).

use crate::proto::wire::error::ProviderError;

/// Everything that can end a try on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The socket could not be had: refused, timed out, unreachable.
    Connect,
    /// Events of more than one meaning, garbage, a binary frame, a lane we never named, content nobody asked for.
    Desynchronised,
    /// No event within the first-event limit, or none at all within the silence limit.
    Silent,
    /// The reader of this turn fell further behind than the buffer allows while others shared its socket.
    SlowReader,
    /// The socket closed or broke; the close code, if one was given.
    SocketLost(Option<u16>),
    /// Close 1009, or a message larger than we take.
    TooBig,
    /// The provider's own answer: an `error` frame.
    Provider(Box<ProviderError>),
    /// The proxy is going down.
    ShuttingDown,
}

impl Fault {
    /// A short name for logs and counters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Desynchronised => "desynchronised",
            Self::Silent => "silent",
            Self::SlowReader => "slow-reader",
            Self::SocketLost(_) => "socket-lost",
            Self::TooBig => "too-big",
            Self::Provider(_) => "provider",
            Self::ShuttingDown => "shutting-down",
        }
    }

    /// What to tell a client whose answer cannot be finished.
    pub fn sentence(&self) -> &'static str {
        match self {
            Self::Connect => "The provider could not be reached.",
            Self::Desynchronised => "The provider's stream could not be understood.",
            Self::Silent => "The provider stopped sending.",
            Self::SlowReader => "The response was not read fast enough and its buffer is full.",
            Self::SocketLost(_) => "The connection to the provider was lost.",
            Self::TooBig => "A message was larger than the connection takes.",
            Self::Provider(_) => "The provider reported an error.",
            Self::ShuttingDown => "The proxy is shutting down.",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::proto::wire::event::Event;

    #[test]
    fn every_fault_has_a_name_and_a_sentence_of_its_own() {
        let event = Event::parse(bytes::Bytes::from_static(br#"{"error":{}}"#)).expect("an event");
        let faults = [
            Fault::Connect,
            Fault::Desynchronised,
            Fault::Silent,
            Fault::SlowReader,
            Fault::SocketLost(Some(1006)),
            Fault::TooBig,
            Fault::Provider(Box::new(ProviderError::of_event(&event))),
            Fault::ShuttingDown,
        ];
        let names: BTreeSet<_> = faults.iter().map(Fault::name).collect();
        let sentences: BTreeSet<_> = faults.iter().map(Fault::sentence).collect();
        assert_eq!((names.len(), sentences.len()), (faults.len(), faults.len()));
        // They become a label of counters and a code in front of clients.
        assert!(
            names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')),
            "{names:?}"
        );
    }
}
