//! The names of the three plans and of every reason why a turn was not a delta. People read them in `x-tailwire`.

use std::fmt;

/// Whether the model sees exactly what the client sent, or also reasoning of its own that the client dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// Exactly what the client sent.
    Exact,
    /// Everything visible is the same; upstream also keeps reasoning that the client left out (billed as input).
    Visible,
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact",
            Self::Visible => "visible",
        })
    }
}

/// Why a turn is not a delta, or goes over plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reason {
    // ---- full: over the socket, with the whole history
    /// No conversation that starts like this is known.
    FirstTurn,
    /// The conversation is known, but its history was edited, cut or rewritten.
    HistoryChanged,
    /// Something the model said is missing from the history.
    EchoMissing,
    /// The history has something in the model's name that the model did not say so.
    EchoChanged,
    /// A call of the model has no output among the new items.
    CallUnanswered,
    /// The history has reasoning that the response did not contain.
    ReasoningAdded,
    /// Reasoning was dropped, and `reasoning = "strict"`.
    ReasoningDropped,
    /// A top-level field we do not know changed.
    FieldChanged,
    /// Nothing new follows the known history.
    NothingNew,
    /// The socket that held the history is gone.
    SocketLost,
    /// The socket that held the history is too old for new turns.
    SocketAged,
    /// Another turn of this conversation took the place this one continues.
    LaneAdvanced,
    /// The place this turn continues is busy.
    LaneBusy,
    /// One credential with many scopes that differ in this header only (F8).
    Header(String),
    /// A step of recovery: the delta was refused.
    NotFound,
    /// A step of recovery: the socket was lost under the turn.
    Recovered,
    // ---- http: the client's own bytes
    /// Larger than a frame may be; or a chat request for whose translation there is no room.
    TooLarge,
    /// Not a JSON object in UTF-8, or no `input` in it; the provider answers.
    NotUnderstood,
    /// A top-level key named twice.
    DuplicateKey,
    /// The history cannot be digested: a key named twice inside an item, nesting beyond 128, half a surrogate pair, a number
    /// no double holds. What a provider makes of it is for its own REST API to say.
    Undigestable,
    /// A field with no counterpart on the socket.
    Field(&'static str),
    /// The client names a response to continue that we cannot reach on a socket.
    ClientAnchor,
    /// `x-tailwire-mode: http`, or the setting.
    Mode,
    /// The provider's profile rules this request out.
    Profile,
    /// The model is spoken to over its own Chat API: by the settings, or because the provider said so.
    ChatOnly,
    /// The provider refused what a chat request was translated to, now or earlier in its conversation; its own Chat API is to
    /// answer.
    Refused,
    /// The provider does not serve sockets, or refused one a moment ago.
    NoSocket,
    /// Every socket this credential may have is busy.
    Busy,
}

impl Reason {
    /// The label counters use: the name without what varies.
    pub fn label(&self) -> &'static str {
        match self {
            Self::FirstTurn => "first-turn",
            Self::HistoryChanged => "history-changed",
            Self::EchoMissing => "echo-missing",
            Self::EchoChanged => "echo-changed",
            Self::CallUnanswered => "call-unanswered",
            Self::ReasoningAdded => "reasoning-added",
            Self::ReasoningDropped => "reasoning-dropped",
            Self::FieldChanged => "field-changed",
            Self::NothingNew => "nothing-new",
            Self::Undigestable => "undigestable",
            Self::SocketLost => "socket-lost",
            Self::SocketAged => "socket-aged",
            Self::LaneAdvanced => "lane-advanced",
            Self::LaneBusy => "lane-busy",
            Self::Header(_) => "header",
            Self::NotFound => "not-found",
            Self::Recovered => "recovered",
            Self::TooLarge => "too-large",
            Self::NotUnderstood => "not-understood",
            Self::DuplicateKey => "duplicate-key",
            Self::Field(_) => "field",
            Self::ClientAnchor => "client-anchor",
            Self::Mode => "mode",
            Self::Profile => "profile",
            Self::ChatOnly => "chat-only",
            Self::Refused => "refused",
            Self::NoSocket => "no-socket",
            Self::Busy => "busy",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Field(name) => write!(f, "field:{name}"),
            other => f.write_str(other.label()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_has_a_label_of_its_own_and_is_shown_by_it() {
        use Reason::*;
        let reasons = [
            FirstTurn,
            HistoryChanged,
            EchoMissing,
            EchoChanged,
            CallUnanswered,
            ReasoningAdded,
            ReasoningDropped,
            FieldChanged,
            NothingNew,
            SocketLost,
            SocketAged,
            LaneAdvanced,
            LaneBusy,
            Header("user-agent".into()),
            NotFound,
            Recovered,
            TooLarge,
            NotUnderstood,
            DuplicateKey,
            Undigestable,
            Field("prompt"),
            ClientAnchor,
            Mode,
            Profile,
            ChatOnly,
            Refused,
            NoSocket,
            Busy,
        ];
        let labels: BTreeSet<_> = reasons.iter().map(Reason::label).collect();
        assert_eq!(labels.len(), reasons.len());
        for reason in &reasons {
            assert!(reason.to_string().starts_with(reason.label()), "{reason}");
        }
        assert_eq!(Header("user-agent".into()).to_string(), "header:user-agent");
        assert_eq!(Field("prompt").to_string(), "field:prompt");
    }
}
