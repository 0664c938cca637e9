//! `/metrics`: the counters, the distributions and how things stand, as Prometheus and OpenMetrics write them.
//!
//! Every series there can be is there from the start, so that a rate begins at 0; reasons alone come as they occur. The table
//! of names is this file and, held against it by a test, `docs/metrics.md`.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::encoding::{prometheus_text, text as open_metrics};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::admin::stats::{Level, SocketRow, Stats};
use crate::proto::session::connection::view::LaneUse;
use crate::proxy::Proxy;
use crate::telemetry::histogram::Reading;
use crate::telemetry::metrics::{ByPlan, Metrics};
use crate::telemetry::turns::{Api, PlanName};

/// Bounds of times, in microseconds, of at most two digits followed by zeros, as all bounds here.
const TIMES: [u64; 18] = [
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
];
/// Bounds of sizes, in bytes.
const SIZES: [u64; 17] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 50_000_000,
];

/// The text and its media type: OpenMetrics where it is asked for, else what every Prometheus reads.
///
/// # Errors
/// None that a `String` could cause.
pub(super) fn text(
    stats: Stats,
    proxy: Arc<Proxy>,
    open: bool,
) -> Result<(String, &'static str), fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape { stats, proxy }));
    let mut text = String::new();
    if open {
        open_metrics::encode(&mut text, &registry)?;
        return Ok((text, OPEN_METRICS));
    }
    prometheus_text::encode(&mut text, &registry)?;
    Ok((text, prometheus_text::CONTENT_TYPE))
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is told at one time.
#[derive(Debug)]
struct Scrape {
    stats: Stats,
    proxy: Arc<Proxy>,
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        let metrics = self.proxy.metrics();
        self.process(&mut page)?;
        turns(&mut page, metrics)?;
        bytes(&mut page, metrics)?;
        times(&mut page, metrics)?;
        self.sockets(&mut page)?;
        self.held(&mut page)
    }
}

impl Scrape {
    fn process(&self, page: &mut Page<'_>) -> fmt::Result {
        let Stats { version, upstream, profile, started_unix_seconds, draining, .. } = &self.stats;
        page.family("tailwire_build", "What is running", None, MetricType::Info, |family| {
            family.encode_info(&[("version", &**version), ("profile", profile), ("upstream", upstream)])
        })?;
        let seconds = Some(Unit::Seconds);
        page.family(
            "process_start_time",
            "When the process began to serve, in seconds since 1970",
            seconds,
            MetricType::Gauge,
            |family| family.encode_gauge(started_unix_seconds),
        )?;
        page.gauge(
            "tailwire_draining",
            "1 once it takes no new connections and is about to stop",
            u64::from(*draining),
        )
    }

    fn sockets(&self, page: &mut Page<'_>) -> fmt::Result {
        let events = &self.stats.socket_events;
        for (name, help, value) in [
            ("tailwire_sockets_opened", "Upstream sockets that opened", events.opened),
            (
                "tailwire_sockets_refused",
                "Upstream sockets that were refused, or not to be had",
                events.refused,
            ),
            (
                "tailwire_sockets_lost",
                "Upstream sockets that ended under a turn, or without an answer to a ping",
                events.lost,
            ),
            (
                "tailwire_sockets_retired",
                "Upstream sockets closed on purpose: age, idleness, an error that could not be attributed",
                events.retired,
            ),
        ] {
            page.counter(name, help, None, value)?;
        }
        let help = "Upstream sockets there are: being opened, open, open but taking no turn now, taking none any more";
        page.gauges(
            "tailwire_sockets",
            help,
            "state",
            SocketRow::STATES.map(|state| (state, self.stats.sockets_in(state))),
        )?;
        let help = "Lanes of all sockets: serving a turn, idle with a response that may be continued, idle without, \
                    still answering a client that left, never to be used again";
        page.gauges(
            "tailwire_lanes",
            help,
            "use",
            LaneUse::ALL.map(|lane| (lane.name(), self.stats.lanes(lane))),
        )
    }

    fn held(&self, page: &mut Page<'_>) -> fmt::Result {
        let held = &self.stats.held;
        let bytes = || Some(Unit::Bytes);
        for (name, what, unit, Level { now, most }) in [
            ("tailwire_turns_under_way", "Turns under way", None, held.turns),
            ("tailwire_request_bodies", "Request bodies that are held", bytes(), held.bodies_bytes),
            ("tailwire_answer_buffers", "Answers that wait for their clients", bytes(), held.buffers_bytes),
            ("tailwire_index", "The index of conversations", bytes(), held.index_bytes),
        ] {
            page.family(name, what, unit.clone(), MetricType::Gauge, |family| family.encode_gauge(&now))?;
            let (name, help) = (format!("{name}_limit"), format!("{what}: the most there may be"));
            page.family(&name, &help, unit, MetricType::Gauge, |family| family.encode_gauge(&most))?;
        }
        let help = "Upstream sockets, open or opening: the most there may be";
        page.gauge("tailwire_sockets_limit", help, held.sockets.most as u64)
    }
}

fn turns(page: &mut Page<'_>, metrics: &Metrics) -> fmt::Result {
    let help = "Turns by how they travelled and by the API they came by";
    page.family("tailwire_turns", help, None, MetricType::Counter, |family| {
        for plan in PlanName::ALL {
            for api in Api::ALL {
                let labels = [("plan", plan.name()), ("api", api.name())];
                count(&mut family.encode_family(&labels)?, metrics.turns(plan).of(api).value())?;
            }
        }
        Ok(())
    })?;
    let help = "Turns that went in full or over HTTP, by the reason";
    page.counters("tailwire_turn_reasons", help, "reason", metrics.reasons.values())?;
    let help = "Turns that are over, by what became of them";
    page.counters(
        "tailwire_turns_ended",
        help,
        "outcome",
        [
            ("completed", metrics.turns_completed.value()),
            ("failed", metrics.turns_failed.value()),
            ("abandoned", metrics.turns_abandoned.value()),
            ("lagging", metrics.turns_lagging.value()),
        ],
    )?;
    let help = "Steps of recovery: in full on the same socket, in full on a new one, over HTTP";
    page.counters(
        "tailwire_recoveries",
        help,
        "rung",
        [
            ("full-same", metrics.recovered_full_same.value()),
            ("full-new", metrics.recovered_full_new.value()),
            ("http", metrics.recovered_http.value()),
        ],
    )?;
    for (name, help, value) in [
        (
            "tailwire_turns_overloaded",
            "Turns answered 503 at a limit of tailwire's own",
            metrics.turns_overloaded.value(),
        ),
        (
            "tailwire_requests_passed_through",
            "Requests that are no turns, passed through untouched",
            metrics.passthrough.value(),
        ),
        (
            "tailwire_requests_refused",
            "Requests without a client key, or of foreign pages: answered 401 or 403",
            metrics.requests_refused.value(),
        ),
    ] {
        page.counter(name, help, None, value)?;
    }
    Ok(())
}

fn bytes(page: &mut Page<'_>, metrics: &Metrics) -> fmt::Result {
    for (name, help, value) in [
        ("tailwire_received", "Turns' bodies as their clients sent them", metrics.bytes_received.value()),
        ("tailwire_sent", "JSON sent upstream for turns, tries in vain included", metrics.bytes_sent.value()),
        ("tailwire_wire", "The same on the wire, compressed", metrics.bytes_wire.value()),
    ] {
        page.counter(name, help, Some(Unit::Bytes), value)?;
    }
    let bytes = |bytes: u64| bytes as f64;
    for (name, help, sizes) in [
        ("tailwire_turn_received", "Size of a turn's body as its client sent it", &metrics.received_sizes),
        ("tailwire_turn_wire", "What went over the wire for a turn", &metrics.wire_sizes),
    ] {
        page.histogram((name, help, Unit::Bytes), sizes, &SIZES, bytes)?;
    }
    Ok(())
}

fn times(page: &mut Page<'_>, metrics: &Metrics) -> fmt::Result {
    let seconds = |micros: u64| micros as f64 / 1e6;
    for (name, help, spans) in [
        (
            "tailwire_added_latency",
            "From the end of a client's body to the beginning of what was answered: what tailwire itself adds",
            &metrics.added,
        ),
        (
            "tailwire_first_event",
            "From the end of a client's body to the first event; over HTTP to the head of the answer",
            &metrics.first_event,
        ),
    ] {
        page.histogram((name, help, Unit::Seconds), spans, &TIMES, seconds)?;
    }
    Ok(())
}

/// What is being written.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn family(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        kind: MetricType,
        samples: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let help = format!("{help}.");
        samples(&mut self.0.encode_descriptor(name, &help, unit.as_ref(), kind)?)
    }

    fn counter(&mut self, name: &str, help: &str, unit: Option<Unit>, value: u64) -> fmt::Result {
        self.family(name, help, unit, MetricType::Counter, |family| count(family, value))
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'static str, u64)>,
    ) -> fmt::Result {
        self.family(name, help, None, MetricType::Counter, |family| {
            let mut values = values.into_iter();
            values.try_for_each(|(word, value)| count(&mut family.encode_family(&[(label, word)])?, value))
        })
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.family(name, help, None, MetricType::Gauge, |family| family.encode_gauge(&value))
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'static str, usize)>,
    ) -> fmt::Result {
        self.family(name, help, None, MetricType::Gauge, |family| {
            let mut values = values.into_iter();
            values.try_for_each(|(word, value)| family.encode_family(&[(label, word)])?.encode_gauge(&value))
        })
    }

    /// One distribution for each plan; `scale` turns what was recorded into the unit.
    fn histogram(
        &mut self,
        (name, help, unit): (&str, &str, Unit),
        plans: &ByPlan,
        bounds: &[u64],
        scale: impl Fn(u64) -> f64,
    ) -> fmt::Result {
        self.family(name, help, Some(unit), MetricType::Histogram, |family| {
            for plan in PlanName::ALL {
                let reading = plans.of(plan).reading();
                let buckets = buckets(&reading, bounds, &scale);
                let labels = [("plan", plan.name())];
                let mut plan = family.encode_family(&labels)?;
                plan.encode_histogram::<NoLabelSet>(scale(reading.sum()), reading.count(), &buckets, None)?;
            }
            Ok(())
        })
    }
}

/// How many there are between each bound and the one before it.
fn buckets(reading: &Reading, bounds: &[u64], scale: impl Fn(u64) -> f64) -> Vec<(f64, u64)> {
    let mut below = 0;
    let mut buckets: Vec<_> = bounds
        .iter()
        .map(|bound| {
            let before = std::mem::replace(&mut below, reading.up_to(*bound));
            (scale(*bound), below - before)
        })
        .collect();
    buckets.push((f64::INFINITY, reading.count() - below));
    buckets
}

fn count(encoder: &mut MetricEncoder<'_>, value: u64) -> fmt::Result {
    encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)
}
