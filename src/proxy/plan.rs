//! What the client and the log are told about a turn: `x-tailwire`, and the counters.

use std::fmt;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use crate::proto::core::{Plan, Ticket};
use crate::proto::transcript::plan::{Grade, Reason};
use crate::proto::transcript::request::Request;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::turns::{Api, PlanName};

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
    pub(super) plan: PlanName,
    why: String,
    pub(super) grade: Option<Grade>,
    pub(super) reason: Option<&'static str>,
    pub(super) items: Option<(usize, usize)>,
    pub(super) received: usize,
    pub(super) sent: usize,
    pub(super) wire: u64,
}

impl Told {
    /// A turn on the wire.
    pub(super) fn wire(ticket: &Ticket, request: &Request, received: usize, spent: Spent) -> Self {
        let all = request.items();
        let Spent { sent, wire } = spent;
        match &ticket.plan {
            Plan::Delta { new_from, grade, .. } => Self {
                plan: PlanName::Delta,
                why: format!("grade={grade}"),
                grade: Some(*grade),
                reason: None,
                items: Some((all - new_from, all)),
                received,
                sent,
                wire,
            },
            Plan::Full { reason, .. } => Self {
                plan: PlanName::Full,
                why: format!("reason={reason}"),
                grade: None,
                reason: Some(reason.label()),
                items: Some((all, all)),
                received,
                sent,
                wire,
            },
        }
    }

    /// A turn over plain HTTP: what came went up as it was, after what was spent on sockets.
    pub(super) fn http(reason: &Reason, received: usize, spent: Spent) -> Self {
        Self {
            plan: PlanName::Http,
            why: format!("reason={reason}"),
            grade: None,
            reason: Some(reason.label()),
            items: None,
            received,
            sent: received + spent.sent,
            wire: received as u64 + spent.wire,
        }
    }

    /// Tells the client.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::try_from(self.to_string()) {
            headers.insert(HEADER, value);
        }
    }

    /// Counts the turn, and notes it in the log: sizes and names, no content.
    pub(super) fn count(&self, metrics: &Metrics, api: Api) {
        metrics.turns(self.plan).of(api).increment();
        if let Some(reason) = self.reason {
            metrics.reasons.increment(reason);
        }
        metrics.bytes_received.add(self.received as u64);
        metrics.bytes_sent.add(self.sent as u64);
        metrics.bytes_wire.add(self.wire);
        metrics.received_sizes.of(self.plan).record(self.received as u64);
        metrics.wire_sizes.of(self.plan).record(self.wire);
        let (new, all) = self.items.unwrap_or_default();
        let Self { why, received, sent, wire, .. } = self;
        tracing::info!(plan = self.plan.name(), why, new, all, received, sent, wire, "turn");
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, why, received, sent, wire, .. } = self;
        write!(f, "plan={}; {why}", plan.name())?;
        if let Some((new, all)) = self.items {
            write!(f, "; items={new}/{all}")?;
        }
        write!(f, "; received={received}; sent={sent}; wire={wire}")
    }
}
