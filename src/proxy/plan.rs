//! What the client and the log are told about a turn: `x-tailwire`, and the counters.

use std::fmt;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use crate::proto::core::{Plan, Ticket};
use crate::proto::transcript::plan::Reason;
use crate::proto::transcript::request::Request;
use crate::proxy::Proxy;
use crate::telemetry::metrics::Metrics;

/// The header's name (decisions 1).
const HEADER: HeaderName = HeaderName::from_static("x-tailwire");

/// Bytes that went up for a turn on sockets, tries in vain included.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spent {
    /// JSON of the frames.
    pub(super) sent: usize,
    /// The same on the wire.
    pub(super) wire: u64,
}

/// The plan of a turn and its three sizes in bytes.
#[derive(Debug, Clone)]
pub(super) struct Told {
    plan: &'static str,
    why: String,
    reason: Option<&'static str>,
    items: Option<(usize, usize)>,
    received: usize,
    sent: usize,
    wire: u64,
}

impl Told {
    /// A turn on the wire.
    pub(super) fn wire(ticket: &Ticket, request: &Request, received: usize, spent: Spent) -> Self {
        let all = request.items();
        let (plan, why, reason, new) = match &ticket.plan {
            Plan::Delta { new_from, grade, .. } => ("delta", format!("grade={grade}"), None, all - new_from),
            Plan::Full { reason, .. } => ("full", format!("reason={reason}"), Some(reason.label()), all),
        };
        Self { plan, why, reason, items: Some((new, all)), received, sent: spent.sent, wire: spent.wire }
    }

    /// A turn over plain HTTP: what came went up as it was, after what was spent on sockets.
    pub(super) fn http(reason: &Reason, received: usize, spent: Spent) -> Self {
        Self {
            plan: "http",
            why: format!("reason={reason}"),
            reason: Some(reason.label()),
            items: None,
            received,
            sent: received + spent.sent,
            wire: received as u64 + spent.wire,
        }
    }

    /// Tells the client, if the settings want it told, and counts the turn.
    pub(super) fn tell(&self, proxy: &Proxy, headers: &mut HeaderMap) {
        self.count(&proxy.metrics);
        if proxy.settings.plan_header
            && let Ok(value) = HeaderValue::try_from(self.to_string())
        {
            headers.insert(HEADER, value);
        }
    }

    /// Counts it, and notes it in the log: sizes and names, no content.
    fn count(&self, metrics: &Metrics) {
        let plan = match self.plan {
            "delta" => &metrics.turns_delta,
            "full" => &metrics.turns_full,
            _ => &metrics.turns_http,
        };
        plan.increment();
        if let Some(reason) = self.reason {
            metrics.reasons.increment(reason);
        }
        metrics.bytes_received.add(self.received as u64);
        metrics.bytes_sent.add(self.sent as u64);
        metrics.bytes_wire.add(self.wire);
        let (new, all) = self.items.unwrap_or_default();
        let Self { plan, why, received, sent, wire, .. } = self;
        tracing::info!(plan, why, new, all, received, sent, wire, "turn");
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, why, received, sent, wire, .. } = self;
        write!(f, "plan={plan}; {why}")?;
        if let Some((new, all)) = self.items {
            write!(f, "; items={new}/{all}")?;
        }
        write!(f, "; received={received}; sent={sent}; wire={wire}")
    }
}
