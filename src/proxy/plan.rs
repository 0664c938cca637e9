//! What the client and the log are told about a turn: `x-tailwire`, and the counters.

use hyper::header::{HeaderName, HeaderValue};

use crate::proto::core::{Plan, Ticket};
use crate::proto::transcript::plan::Reason;
use crate::proto::transcript::request::Request;
use crate::telemetry::metrics::Metrics;

/// The header's name (decisions 1).
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-tailwire");

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
    pub(super) fn wire(ticket: &Ticket, request: &Request, received: usize, sent: usize, wire: u64) -> Self {
        let all = request.items();
        let (plan, why, reason, new) = match &ticket.plan {
            Plan::Delta { new_from, grade, .. } => ("delta", format!("grade={grade}"), None, all - new_from),
            Plan::Full { reason, .. } => ("full", format!("reason={reason}"), Some(reason.label()), all),
        };
        Self { plan, why, reason, items: Some((new, all)), received, sent, wire }
    }

    /// A turn over plain HTTP: what came went up as it was.
    pub(super) fn http(reason: &Reason, received: usize) -> Self {
        Self {
            plan: "http",
            why: format!("reason={reason}"),
            reason: Some(reason.label()),
            items: None,
            received,
            sent: received,
            wire: received as u64,
        }
    }

    /// The header's value.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let items = self.items.map(|(new, all)| format!("; items={new}/{all}")).unwrap_or_default();
        let Self { plan, why, received, sent, wire, .. } = self;
        let text = format!("plan={plan}; {why}{items}; received={received}; sent={sent}; wire={wire}");
        HeaderValue::from_str(&text).ok()
    }

    /// Counts it, and notes it in the log: sizes and names, no content.
    pub(super) fn count(&self, metrics: &Metrics) {
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
