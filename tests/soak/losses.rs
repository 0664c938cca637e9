//! Which tries of a turn lost their transport, by the provider's own book.
//!
//! A try is lost, once and no more, if
//! - its connection was closed, reset, hung up on, made deaf, or told something that ends all trust in it (garbage, a binary frame,
//!   an error that nobody is named in, a response that nobody asked for), while the attempt ran or at most [`NOTICE`] before: the
//!   proxy may have written to a connection whose end it had not read yet;
//! - or the provider fell silent for this very turn, which takes nobody else's transport;
//! - or the provider had read it and did not begin it within the proxy's limit.
//!
//! Tries on one connection lost it once. A try that the provider never read is lost only if a connection of the same
//! credential could have swallowed it: one made deaf as long ago as it takes to notice, or one that ended or lost all trust
//! at the time. There are never more of those than the proxy says it made.
//!
//! Pure: no world, no clock. What a loss excuses is `excuse.rs`'s.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tailwire::sim::Transport;
use tailwire::sim::ledger::{Outcome, Record, Struck};

/// One try of a turn as the provider has it on its books.
#[derive(Clone, Debug)]
pub(crate) struct Try {
    pub(crate) record: Record,
    /// Faults carried out on its connection, at any time.
    pub(crate) strikes: Vec<Struck>,
}

/// When an attempt began and ended for its client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) from: Instant,
    pub(crate) to: Instant,
}

impl Span {
    /// Whether something happened in it, or so long before it.
    fn saw(&self, at: Instant, before: Duration) -> bool {
        at <= self.to && at + before >= self.from
    }
}

impl Try {
    /// The fault that took this try's transport.
    pub(crate) fn broken(&self, span: Span) -> Option<&Struck> {
        let own = |struck: &&Struck| {
            struck.settings.as_deref() == Some(&*self.record.settings)
                && struck.response.as_ref().is_none_or(|told| Some(told) == self.record.response.as_ref())
        };
        let mut here = self.strikes.iter().filter(|struck| match &*struck.fault {
            SILENCE => span.saw(struck.at, Duration::ZERO) && own(struck),
            fault => breaks(fault) && span.saw(struck.at, NOTICE),
        });
        here.next()
    }

    /// It was read, and not begun within the proxy's limit for the first event.
    fn is_overdue(&self, span: Span, first_event: Duration) -> bool {
        let Record { arrived, begun, outcome, .. } = &self.record;
        let waited = begun.unwrap_or(span.to).saturating_duration_since(*arrived);
        let open = begun.is_some() || matches!(outcome, Outcome::Running | Outcome::Cancelled);
        open && waited + CLOCKS >= first_event
    }
}

/// Over HTTP the client has its own connection's fate, with or without a proxy.
pub(crate) fn lost_over_http(tries: &[Try], span: Span) -> bool {
    let mut http = tries.iter().filter(|seen| seen.record.transport == Transport::Http);
    http.any(|seen| seen.broken(span).is_some())
}

/// Losses of transport under an attempt. `around` are the faults on all connections of its credential; `made` is how many
/// tries the proxy says it made.
pub(crate) fn losses(
    (tries, around): (&[Try], &[Struck]),
    span: Span,
    first_event: Duration,
    made: usize,
) -> usize {
    let lost = tries.iter().filter(|seen| seen.broken(span).is_some() || seen.is_overdue(span, first_event));
    let lost: BTreeSet<u64> = lost.map(|seen| seen.record.connection).collect();
    let unread = made.saturating_sub(tries.len());
    let swallowed = around.iter().filter(|struck| swallows(struck, span, made));
    let elsewhere: BTreeSet<u64> = swallowed
        .map(|struck| struck.connection)
        .filter(|number| tries.iter().all(|seen| seen.record.connection != *number))
        .collect();
    lost.len() + elsewhere.len().min(unread)
}

/// Whether a frame written during the attempt can have been lost on the connection, unread.
fn swallows(struck: &Struck, span: Span, made: usize) -> bool {
    match &*struck.fault {
        DEAF => span.saw(struck.at, DEAFNESS) && struck.at + LEAST_DEAFNESS <= span.to,
        "Close" | "Reset" | "HangUp" | "Garbage" | "Binary" | "ErrorWithoutLane" | "SpontaneousEvent" => {
            // The only try's end is the attempt's.
            let prompt = made > 1 || struck.at + NOTICE >= span.to;
            prompt && span.saw(struck.at, NOTICE)
        }
        _ => false,
    }
}

/// Whether a fault ends or garbles its whole connection. A fault this list does not know is taken to.
fn breaks(fault: &str) -> bool {
    ![
        "Error",
        "TwoTerminals",
        "NotFound",
        "Failed",
        "Incomplete",
        "PingFlood",
        "Upgrade",
        "Frame",
        "Trickle",
        SILENCE,
    ]
    .contains(&fault)
}

const SILENCE: &str = "Silence";
const DEAF: &str = "IgnorePings";
/// How late a busy machine may read of a connection's end.
pub(crate) const NOTICE: Duration = Duration::from_secs(3);
/// How long a socket may have been deaf before that is noticed: a ping and its pong (`proxy.rs`), and a margin.
pub(crate) const DEAFNESS: Duration = Duration::from_secs(30);
/// Sooner than this the proxy cannot know that a socket is deaf: its limit for a pong, less a margin.
const LEAST_DEAFNESS: Duration = Duration::from_secs(10);
/// The proxy's clock for the first event starts with the writing, the provider's with the reading.
const CLOCKS: Duration = Duration::from_secs(3);
