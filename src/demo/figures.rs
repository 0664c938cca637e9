//! What the runs measured, beside one another, and what in them breaks a promise.
//!
//! Bytes on the wire are those the provider's side counted on its connections, HTTP headers and WebSocket framing
//! included; tailwire's own account of itself (`x-tailwire`) is shown only where it says so.

use std::time::Duration;

use serde::Serialize;

use super::agent::Turn;
use super::workload::Workload;
use crate::args::{DemoApi, DemoArgs};

/// One run as it was observed.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) name: &'static str,
    /// Through tailwire, so that promises hold.
    pub(super) through: bool,
    pub(super) turns: Vec<Turn>,
    pub(super) wall: Duration,
    /// Bytes the provider read and wrote.
    pub(super) traffic: (u64, u64),
    /// Rules of the provider that were broken.
    pub(super) violations: Vec<String>,
}

/// All figures of a demonstration. Times are in milliseconds, sizes in bytes, shares from 0 to 1.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub(super) setup: Setup,
    /// The direct run first.
    pub(super) rows: Vec<Row>,
    /// Broken promises; empty if all is well.
    pub(super) faults: Vec<String>,
}

/// What was run.
#[derive(Debug, Serialize)]
pub(super) struct Setup {
    pub(super) version: &'static str,
    /// `responses` or `chat`.
    pub(super) api: &'static str,
    pub(super) calls: u32,
    pub(super) instructions: usize,
    pub(super) tools: usize,
    pub(super) result_min: usize,
    pub(super) result_max: usize,
    pub(super) rtt_ms: u128,
    pub(super) uplink_bits_per_second: u64,
    pub(super) tokens_per_second: u32,
    pub(super) stream: bool,
}

/// One run's figures.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) name: &'static str,
    /// Bytes the provider read.
    pub(super) wire_up: u64,
    /// Bytes the provider wrote.
    pub(super) wire_down: u64,
    /// Of the direct run's bytes up.
    pub(super) saved: f64,
    pub(super) turns: usize,
    pub(super) delta: usize,
    pub(super) full: usize,
    pub(super) http: usize,
    pub(super) wall_ms: f64,
    pub(super) first_event_p50_ms: f64,
    pub(super) first_event_p95_ms: f64,
    /// Turns whose context is the direct run's.
    pub(super) equal: usize,
    /// What was sent, by tailwire's own account; none for the direct run.
    pub(super) sent: Option<Sent>,
}

/// The JSON that tailwire sent, before compression.
#[derive(Debug, Serialize)]
pub(super) struct Sent {
    /// Bytes of the bodies the agent posted.
    pub(super) received: u64,
    /// Bytes of the frames sent for them.
    pub(super) sent: u64,
    /// Of those, instructions and tools, which nothing upstream keeps.
    pub(super) floor: u64,
    /// Of those, items that were new.
    pub(super) new_items: u64,
    /// Of those, everything else.
    pub(super) envelope: u64,
    /// 1 - sent / received: what the delta saves without compression.
    pub(super) saved_by_delta: f64,
}

impl Figures {
    /// Compares runs of one workload; the first is the direct one.
    pub(super) fn new(arguments: &DemoArgs, workload: &Workload, runs: &[Run]) -> Self {
        let setup = Setup {
            version: env!("CARGO_PKG_VERSION"),
            api: match arguments.api {
                DemoApi::Responses => "responses",
                DemoApi::Chat => "chat",
            },
            calls: arguments.calls,
            instructions: arguments.instructions,
            tools: arguments.tools,
            result_min: arguments.result_min,
            result_max: arguments.result_max,
            rtt_ms: arguments.link.rtt.as_millis(),
            uplink_bits_per_second: arguments.link.uplink,
            tokens_per_second: arguments.link.tokens_per_second,
            stream: !arguments.no_stream,
        };
        let Some(direct) = runs.first() else { return Self { setup, rows: Vec::new(), faults: Vec::new() } };
        let rows = runs.iter().map(|run| Row::new(run, direct, workload.floor(arguments.api))).collect();
        let faults = runs.iter().flat_map(|run| faults(run, direct)).collect();
        Self { setup, rows, faults }
    }
}

impl Row {
    fn new(run: &Run, direct: &Run, floor: usize) -> Self {
        let count = |plan: &str| run.turns.iter().filter(|turn| field(turn, "plan") == Some(plan)).count();
        let mut waits: Vec<Duration> = run.turns.iter().map(|turn| turn.first_event).collect();
        waits.sort_unstable();
        Self {
            name: run.name,
            wire_up: run.traffic.0,
            wire_down: run.traffic.1,
            saved: share(run.traffic.0, direct.traffic.0),
            turns: run.turns.len(),
            delta: count("delta"),
            full: count("full"),
            http: count("http"),
            wall_ms: milliseconds(run.wall),
            first_event_p50_ms: milliseconds(percentile(&waits, 50)),
            first_event_p95_ms: milliseconds(percentile(&waits, 95)),
            equal: equal(run, direct).filter(|equal| *equal).count(),
            sent: run.through.then(|| Sent::new(&run.turns, floor)),
        }
    }
}

impl Sent {
    fn new(turns: &[Turn], floor: usize) -> Self {
        let sum = |name: &str| turns.iter().filter_map(|turn| field(turn, name)?.parse::<u64>().ok()).sum();
        let (received, sent): (u64, u64) = (sum("received"), sum("sent"));
        let floor = (floor * turns.len()) as u64;
        let new_items = turns.iter().map(|turn| turn.fresh as u64).sum();
        let envelope = sent.saturating_sub(floor).saturating_sub(new_items);
        Self { received, sent, floor, new_items, envelope, saved_by_delta: share(sent, received) }
    }
}

/// Whether each turn's context is that of the direct run.
fn equal(run: &Run, direct: &Run) -> impl Iterator<Item = bool> {
    let known = |turn: &Turn| !turn.context.is_empty();
    run.turns.iter().zip(&direct.turns).map(move |(turn, other)| known(turn) && turn.context == other.context)
}

/// The promises that a run breaks, in words.
fn faults(run: &Run, direct: &Run) -> Vec<String> {
    let mut faults: Vec<String> = run
        .violations
        .iter()
        .map(|violation| format!("{}: the provider objects: {violation}", run.name))
        .collect();
    if run.turns.len() != direct.turns.len() {
        faults.push(format!("{}: {} turns, not {}", run.name, run.turns.len(), direct.turns.len()));
    }
    let unequal = equal(run, direct).enumerate().filter(|(_, equal)| !equal);
    faults
        .extend(unequal.map(|(n, _)| format!("{}: turn {}: the model saw another context", run.name, n + 1)));
    for (n, turn) in run.turns.iter().enumerate().skip(1).filter(|_| run.through) {
        if field(turn, "plan") != Some("delta") {
            faults.push(format!("{}: turn {} is not a delta: `{}`", run.name, n + 1, turn.plan));
        }
    }
    for (n, turn) in run.turns.iter().enumerate().filter(|_| run.through) {
        if field(turn, "received") != Some(turn.body.to_string().as_str()) {
            faults.push(format!("{}: turn {} had {} bytes, not `{}`", run.name, n + 1, turn.body, turn.plan));
        }
    }
    faults
}

/// A field of the `x-tailwire` header.
fn field<'a>(turn: &'a Turn, name: &str) -> Option<&'a str> {
    turn.plan
        .split(';')
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 1.0 - part as f64 / whole as f64 }
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 100.0
}

/// The smallest of the sorted values that so many per cent do not exceed.
fn percentile(sorted: &[Duration], per_cent: usize) -> Duration {
    let rank = (sorted.len() * per_cent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(context: &str, plan: &str) -> Turn {
        let body = if plan.contains("received=1500") { 1500 } else { 1000 };
        Turn { context: context.to_owned(), plan: plan.to_owned(), body, fresh: 100, ..Turn::default() }
    }

    fn run(name: &'static str, turns: Vec<Turn>) -> Run {
        let through = name != "direct";
        Run {
            name,
            through,
            turns,
            wall: Duration::from_millis(1500),
            traffic: (if through { 200 } else { 4000 }, 9),
            violations: Vec::new(),
        }
    }

    #[test]
    fn every_broken_promise_is_named() {
        let direct = run("direct", vec![turn("a", ""), turn("b", ""), turn("c", "")]);
        assert!(faults(&direct, &direct).is_empty());
        let full = "plan=full; reason=first-turn; items=1/1; received=1000; sent=990; wire=300";
        let delta = "plan=delta; grade=exact; items=1/3; received=1000; sent=400; wire=100";
        let good = run("tailwire", vec![turn("a", full), turn("b", delta), turn("c", delta)]);
        assert!(faults(&good, &direct).is_empty());
        let short = delta.replace("received=1000", "received=999");
        let mut bad =
            run("tailwire", vec![turn("a", full), turn("x", full), turn("c", &short), turn("d", delta)]);
        bad.violations.push(String::from("TooManyLanes"));
        let found = faults(&bad, &direct).join("\n");
        for words in [
            "TooManyLanes",
            "4 turns, not 3",
            "turn 2: the model saw",
            "turn 2 is not a delta",
            "turn 3 had 1000 bytes",
        ] {
            assert!(found.contains(words), "{words} in {found}");
        }
    }

    #[test]
    fn the_sums() {
        let direct = run("direct", vec![turn("a", ""), turn("b", "")]);
        let plans =
            ["plan=full; received=1000; sent=990; wire=300", "plan=delta; received=1500; sent=260; wire=90"];
        let row = Row::new(&run("tailwire", vec![turn("a", plans[0]), turn("b", plans[1])]), &direct, 150);
        assert_eq!((row.delta, row.full, row.http, row.equal), (1, 1, 0, 2));
        assert_eq!((row.saved, row.wall_ms), (0.95, 1500.0));
        let sent = row.sent.unwrap();
        assert_eq!(
            (sent.received, sent.sent, sent.floor, sent.new_items, sent.envelope),
            (2500, 1250, 300, 200, 750)
        );
        assert_eq!(sent.saved_by_delta, 0.5);
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let values: Vec<Duration> = (1..=41).map(Duration::from_millis).collect();
        assert_eq!(percentile(&values, 50), Duration::from_millis(21));
        assert_eq!(percentile(&values, 95), Duration::from_millis(39));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }
}
