//! What all turns so far come to, in one small struct: for the end of `tailwire run`, for `/stats` and for `tailwire top`.
//!
//! Computed from the counters whenever it is asked for; counts nothing itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::telemetry::histogram::Reading;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::turns::PlanName;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Turns by plan.
    pub turns: Turns,
    /// Why turns were not deltas, by the reason's label.
    pub reasons: BTreeMap<String, u64>,
    /// What became of turns.
    pub outcomes: Outcomes,
    /// Their bytes.
    pub bytes: Bytes,
    /// From the end of the client's body to the first event; over HTTP to the head of the answer.
    pub first_event_seconds: Quantiles,
    /// From the end of the client's body to the beginning of what was answered: what tailwire itself adds.
    pub added_seconds: Quantiles,
    /// Steps of recovery, by rung.
    pub recoveries: Recoveries,
}

/// Turns by how they travelled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turns {
    /// The new items over a socket.
    pub delta: u64,
    /// The whole history over a socket.
    pub full: u64,
    /// The client's own bytes over HTTP.
    pub http: u64,
}

/// Turns by how they ended; those under way are not among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// The client has the whole answer.
    pub completed: u64,
    /// The client was told of an error, or its stream broke.
    pub failed: u64,
    /// The client left before the end.
    pub abandoned: u64,
    /// The client read so slowly that it held up others.
    pub lagging: u64,
}

/// Bytes of requests (decisions 7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// What clients sent, as it came.
    pub received: u64,
    /// JSON sent upstream, tries in vain included.
    pub sent: u64,
    /// The same on the wire.
    pub wire: u64,
}

/// Steps of recovery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recoveries {
    /// In full on the same socket.
    pub full_same: u64,
    /// In full on a new socket.
    pub full_new: u64,
    /// Over HTTP.
    pub http: u64,
}

/// How long something takes, in seconds, rounded up to two digits; nothing was measured if `count` is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// How many were measured.
    pub count: u64,
    /// Half took no longer.
    pub p50: Option<f64>,
    /// Nine of ten took no longer.
    pub p90: Option<f64>,
    /// 99 of 100 took no longer.
    pub p99: Option<f64>,
}

impl Summary {
    /// Of everything counted so far.
    #[must_use]
    pub fn of(metrics: &Metrics) -> Self {
        let quantiles = |of: &dyn Fn(PlanName) -> Reading| {
            Quantiles::of(PlanName::ALL.into_iter().fold(Reading::default(), |all, plan| all.and(&of(plan))))
        };
        Self {
            turns: Turns {
                delta: metrics.turns_delta.value(),
                full: metrics.turns_full.value(),
                http: metrics.turns_http.value(),
            },
            reasons: metrics.reasons.values().into_iter().map(|(label, n)| (label.to_owned(), n)).collect(),
            outcomes: Outcomes {
                completed: metrics.turns_completed.value(),
                failed: metrics.turns_failed.value(),
                abandoned: metrics.turns_abandoned.value(),
                lagging: metrics.turns_lagging.value(),
            },
            bytes: Bytes {
                received: metrics.bytes_received.value(),
                sent: metrics.bytes_sent.value(),
                wire: metrics.bytes_wire.value(),
            },
            first_event_seconds: quantiles(&|plan| metrics.first_event.of(plan).reading()),
            added_seconds: quantiles(&|plan| metrics.added.of(plan).reading()),
            recoveries: Recoveries {
                full_same: metrics.recovered_full_same.value(),
                full_new: metrics.recovered_full_new.value(),
                http: metrics.recovered_http.value(),
            },
        }
    }
}

impl Turns {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.delta + self.full + self.http
    }
}

impl Bytes {
    /// The share of bytes that never went over the wire: 1 - wire/received. None before the first byte; below 0 if more went up
    /// than came.
    #[must_use]
    pub fn saved(&self) -> Option<f64> {
        saved(self.wire, self.received)
    }

    /// The same without compression, so that it never passes for the delta: 1 - sent/received.
    #[must_use]
    pub fn saved_before_compression(&self) -> Option<f64> {
        saved(self.sent, self.received)
    }
}

fn saved(went: u64, came: u64) -> Option<f64> {
    (came > 0).then(|| 1.0 - went as f64 / came as f64)
}

impl Quantiles {
    /// Of microseconds.
    #[must_use]
    pub fn of(reading: Reading) -> Self {
        let at = |share| reading.quantile(share).map(|micros| micros as f64 / 1e6);
        Self { count: reading.count(), p50: at(0.5), p90: at(0.9), p99: at(0.99) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::turns::Api;

    #[test]
    fn it_adds_up_and_survives_json() {
        let metrics = Metrics::default();
        assert_eq!(Summary::of(&metrics), Summary::default());
        assert_eq!(Bytes::default().saved(), None);
        metrics.turns_delta.of(Api::Chat).add(3);
        metrics.turns_full.of(Api::Responses).increment();
        metrics.reasons.increment("first-turn");
        metrics.bytes_received.add(1_000);
        metrics.bytes_sent.add(200);
        metrics.bytes_wire.add(50);
        metrics.first_event.of(PlanName::Delta).record(120_000);
        metrics.first_event.of(PlanName::Full).record(1_230_000);
        let summary = Summary::of(&metrics);
        assert_eq!(summary.turns.all(), 4);
        assert_eq!(summary.reasons.get("first-turn"), Some(&1));
        assert_eq!(summary.bytes.saved(), Some(0.95));
        assert_eq!(summary.bytes.saved_before_compression(), Some(0.8));
        let expected = Quantiles { count: 2, p50: Some(0.12), p90: Some(1.3), p99: Some(1.3) };
        assert_eq!(summary.first_event_seconds, expected);
        let text = serde_json::to_string(&summary).unwrap();
        assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
    }
}
