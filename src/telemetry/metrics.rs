//! Counters of what has happened since the start, as one struct that the proxy writes and tests read.
//! They only ever grow; nothing here steers a turn, and nothing here is a gauge or a page: what is shown anywhere is read
//! from here.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::telemetry::histogram::Histogram;
use crate::telemetry::turns::{Api, PlanName};

/// A number that grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts `amount` more.
    pub fn add(&self, amount: u64) {
        // Relaxed: counters are read for people and tests, which synchronise by other means.
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters by label, at most [`Labelled::LIMIT`] of them; what comes after is counted as `other`.
#[derive(Debug, Default)]
pub struct Labelled(Mutex<BTreeMap<&'static str, u64>>);

impl Labelled {
    /// How many labels are told apart. Labels come from closed lists in the code, well below this.
    pub const LIMIT: usize = 64;

    /// Counts one more under `label`.
    pub fn increment(&self, label: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = counts.contains_key(label) || counts.len() < Self::LIMIT;
        *counts.entry(if known { label } else { "other" }).or_default() += 1;
    }

    /// The count under `label` so far.
    #[must_use]
    pub fn value(&self, label: &str) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(label).copied().unwrap_or_default()
    }

    /// Every label with its count, in the labels' order.
    #[must_use]
    pub fn values(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(label, count)| (*label, *count)).collect()
    }
}

/// A number that grows, told apart by the API that turns came by.
#[derive(Debug, Default)]
pub struct ByApi {
    responses: Counter,
    chat: Counter,
}

impl ByApi {
    /// The counter of one API.
    #[must_use]
    pub fn of(&self, api: Api) -> &Counter {
        match api {
            Api::Responses => &self.responses,
            Api::Chat => &self.chat,
        }
    }

    /// The count so far, of both.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.responses.value() + self.chat.value()
    }
}

/// A distribution, told apart by plan.
#[derive(Debug, Default)]
pub struct ByPlan {
    delta: Histogram,
    full: Histogram,
    http: Histogram,
}

impl ByPlan {
    /// The distribution of one plan.
    #[must_use]
    pub fn of(&self, plan: PlanName) -> &Histogram {
        match plan {
            PlanName::Delta => &self.delta,
            PlanName::Full => &self.full,
            PlanName::Http => &self.http,
        }
    }
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Requests without a client key, or of foreign pages: answered 401 or 403, not forwarded.
    pub requests_refused: Counter,
    /// Turns that were answered 503 at a limit of ours, unread or unsent.
    pub turns_overloaded: Counter,
    /// Turns that went as a delta.
    pub turns_delta: ByApi,
    /// Turns that went over a socket in full.
    pub turns_full: ByApi,
    /// Turns that went over plain HTTP.
    pub turns_http: ByApi,
    /// Why turns went in full or over HTTP, by the reason's name in `x-tailwire`.
    pub reasons: Labelled,
    /// Bytes of clients' turn bodies as they came, before content decoding.
    pub bytes_received: Counter,
    /// Bytes of the JSON sent upstream for turns, before compression.
    pub bytes_sent: Counter,
    /// The same bytes as they went over the wire.
    pub bytes_wire: Counter,
    /// Upstream sockets that opened.
    pub sockets_opened: Counter,
    /// Handshakes that the upstream refused, or that failed.
    pub sockets_refused: Counter,
    /// Sockets that ended with turns in flight, or without an answer to a ping.
    pub sockets_lost: Counter,
    /// Sockets that were closed on purpose: age, idleness, an error that could not be attributed.
    pub sockets_retired: Counter,
    /// Turns repeated in full on the same socket.
    pub recovered_full_same: Counter,
    /// Turns repeated in full on a new socket.
    pub recovered_full_new: Counter,
    /// Turns repeated over HTTP.
    pub recovered_http: Counter,
    /// Turns whose client has the whole answer.
    pub turns_completed: Counter,
    /// Turns whose client was told of an error, or whose stream broke.
    pub turns_failed: Counter,
    /// Turns whose client went away before the end.
    pub turns_abandoned: Counter,
    /// Turns that were ended because their client read too slowly.
    pub turns_lagging: Counter,
    /// From the end of a client's body to the beginning of the frame or request that was answered, in microseconds.
    pub added: ByPlan,
    /// From the end of a client's body to the first event, over HTTP to the head of the answer, in microseconds.
    pub first_event: ByPlan,
    /// Bytes of a client's body as it came.
    pub received_sizes: ByPlan,
    /// Bytes that went over the wire for a turn.
    pub wire_sizes: ByPlan,
    /// Requests that were passed through without being a turn.
    pub passthrough: Counter,
}

impl Metrics {
    /// Turns that travelled so.
    #[must_use]
    pub fn turns(&self, plan: PlanName) -> &ByApi {
        match plan {
            PlanName::Delta => &self.turns_delta,
            PlanName::Full => &self.turns_full,
            PlanName::Http => &self.turns_http,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded() {
        let labels: Vec<&'static str> =
            (0..Labelled::LIMIT + 6).map(|number| &*format!("reason-{number}").leak()).collect();
        let counts = Labelled::default();
        for label in &labels {
            counts.increment(label);
            counts.increment(label);
        }
        assert_eq!(counts.value("reason-0"), 2);
        assert_eq!(counts.value("other"), 12);
        assert_eq!(counts.values().len(), Labelled::LIMIT + 1);
    }
}
