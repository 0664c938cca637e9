//! What there is to show, and the words for it: the same cells for the screen and for the text.
//!
//! Draws nothing, asks nobody.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::feed::Update;
use crate::admin::stats::{SocketRow, Stats, TurnRow};
use crate::telemetry::summary::Quantiles;
use crate::telemetry::words::{age, percent, share, size, time};

/// Turns that are kept to be shown; older ones are forgotten.
const TURNS: usize = 256;
/// What counts as now.
const NOW: Duration = Duration::from_secs(60);
/// Turns that counted in the last [`NOW`]; past it the oldest counts no more.
const RECENT: usize = 1 << 14;

/// A proxy as it was last heard of.
#[derive(Debug)]
pub(super) struct View {
    /// Where it is asked.
    pub(super) source: String,
    stats: Option<Heard>,
    /// Newest first.
    pub(super) turns: VecDeque<TurnRow>,
    /// When turns were told, what they received and sent on the wire.
    recent: VecDeque<(Instant, u64, u64)>,
    /// Turns that were too fast to be told.
    missed: u64,
    /// Why nothing is heard any more.
    lost: Option<String>,
}

#[derive(Debug)]
struct Heard {
    stats: Stats,
    at: Instant,
}

impl View {
    /// Nothing heard yet.
    pub(super) fn new(source: String) -> Self {
        Self { source, stats: None, turns: VecDeque::new(), recent: VecDeque::new(), missed: 0, lost: None }
    }

    /// Takes in what was heard.
    pub(super) fn take(&mut self, update: Update, now: Instant) {
        if !matches!(update, Update::Lost(_)) {
            self.lost = None;
        }
        match update {
            Update::Snapshot(stats, turns) => {
                self.stats = Some(Heard { stats: *stats, at: now });
                self.turns = turns.into_iter().rev().take(TURNS).collect();
            }
            Update::Stats(stats) => self.stats = Some(Heard { stats: *stats, at: now }),
            Update::Turn(turn) => {
                self.recent.push_back((now, turn.received_bytes, turn.wire_bytes));
                self.recent.truncate(RECENT);
                self.turns.push_front(*turn);
                self.turns.truncate(TURNS);
            }
            Update::Missed(turns) => self.missed += turns,
            Update::Lost(why) => self.lost = Some(why),
        }
        self.recent.retain(|(at, ..)| now.saturating_duration_since(*at) <= NOW);
    }

    /// How things stood when that was last heard.
    pub(super) fn stats(&self) -> Option<&Stats> {
        self.stats.as_ref().map(|heard| &heard.stats)
    }

    /// Whose figures these are.
    pub(super) fn title(&self, now: Instant) -> String {
        let Some(Heard { stats, .. }) = &self.stats else { return format!("tailwire at {}", self.source) };
        let draining = if stats.draining { ", draining" } else { "" };
        format!(
            "tailwire {} -> {} ({}), up {}{draining}",
            stats.version,
            stats.upstream.trim_end_matches('/'),
            stats.profile,
            age(self.uptime(now))
        )
    }

    /// What is not as it should be.
    pub(super) fn warning(&self) -> Option<String> {
        if let Some(why) = &self.lost {
            return Some(format!("Nothing is heard of {} any more: {why}. Trying again.", self.source));
        }
        (self.missed > 0)
            .then(|| format!("{} turns were too fast to be listed; they are counted.", self.missed))
    }

    /// Since its start, and on by our own clock since that was heard.
    fn uptime(&self, now: Instant) -> f64 {
        self.stats.as_ref().map_or(0.0, |heard| {
            heard.stats.uptime_seconds + now.saturating_duration_since(heard.at).as_secs_f64()
        })
    }

    /// Name and value of what turns came to.
    pub(super) fn totals(&self, now: Instant) -> Vec<(&'static str, String)> {
        let Some(stats) = self.stats() else { return Vec::new() };
        let (bytes, turns) = (&stats.summary.bytes, &stats.summary.turns);
        let all = turns.all();
        let recent = self.recent.iter().filter(|(at, ..)| now.saturating_duration_since(*at) <= NOW);
        let (received, wire) = recent.fold((0, 0), |(received, wire), (_, r, w)| (received + r, wire + w));
        let plan = |count: u64| format!("{count} ({})", percent(count, all));
        vec![
            (
                "saved",
                format!(
                    "{} ({} without compression)",
                    share(stats.saved),
                    share(stats.saved_before_compression)
                ),
            ),
            (
                "bytes",
                format!(
                    "received {}, sent {}, on the wire {}",
                    size(bytes.received),
                    size(bytes.sent),
                    size(bytes.wire)
                ),
            ),
            ("last minute", format!("received {}, on the wire {}", size(received), size(wire))),
            ("turns", format!("{all}, {} under way", stats.held.turns.now)),
            (
                "plans",
                format!("delta {}, full {}, http {}", plan(turns.delta), plan(turns.full), plan(turns.http)),
            ),
            ("reasons", self.reasons()),
            ("first event", quantiles(&stats.summary.first_event_seconds)),
            ("added", quantiles(&stats.summary.added_seconds)),
            ("trouble", self.trouble()),
        ]
    }

    fn reasons(&self) -> String {
        let Some(stats) = self.stats() else { return String::new() };
        let mut listed: Vec<(&String, &u64)> = stats.summary.reasons.iter().collect();
        listed.sort_by_key(|(label, count)| (std::cmp::Reverse(**count), (*label).clone()));
        let listed: Vec<String> =
            listed.into_iter().map(|(label, count)| format!("{label} {count}")).collect();
        if listed.is_empty() { "-".to_owned() } else { listed.join(", ") }
    }

    fn trouble(&self) -> String {
        let Some(stats) = self.stats() else { return String::new() };
        let (outcomes, recoveries) = (&stats.summary.outcomes, &stats.summary.recoveries);
        format!(
            "failed {}, abandoned {}, lagging {}; recovered {}; sockets lost {}",
            outcomes.failed,
            outcomes.abandoned,
            outcomes.lagging,
            recoveries.full_same + recoveries.full_new + recoveries.http,
            stats.socket_events.lost
        )
    }

    /// One row for each socket.
    pub(super) fn sockets(&self, now: Instant) -> Vec<[String; SOCKET.len()]> {
        let sockets = self.stats().map_or(&[][..], |stats| &stats.sockets);
        let row = |socket: &SocketRow| {
            let lanes: String = socket.lanes.iter().map(|lane| letter(lane)).collect();
            [
                socket.number.to_string(),
                socket.state.to_string(),
                age(self.uptime(now) - socket.since_seconds),
                format!("{}/{}", socket.lanes.len(), socket.most_lanes),
                lanes,
            ]
        };
        sockets.iter().map(row).collect()
    }

    /// One row for each of the last turns, newest first.
    pub(super) fn rows(&self) -> impl Iterator<Item = [String; TURN.len()]> {
        let dash = || "-".to_owned();
        self.turns.iter().map(move |turn| {
            let why = turn.reason.as_ref().or(turn.grade.as_ref());
            let items =
                turn.items_sent.zip(turn.items).map_or_else(dash, |(sent, all)| format!("{sent}/{all}"));
            [
                turn.number.to_string(),
                turn.api.to_string(),
                turn.plan.as_ref().map_or_else(dash, ToString::to_string),
                why.map_or_else(dash, ToString::to_string),
                items,
                size(turn.received_bytes),
                size(turn.wire_bytes),
                turn.first_event_seconds.map_or_else(dash, time),
                time(turn.duration_seconds),
                turn.status.map_or_else(dash, |status| status.to_string()),
                turn.outcome.to_string(),
            ]
        })
    }
}

/// What the columns of sockets are.
pub(super) const SOCKET: [&str; 5] = ["socket", "state", "age", "lanes", "use"];
/// What the letters are.
pub(super) const LETTERS: &str = "B busy, h held, f free, l left, x burnt";
/// What the columns of turns are.
pub(super) const TURN: [&str; 11] =
    ["turn", "api", "plan", "why", "items", "received", "wire", "first event", "took", "status", "outcome"];

fn letter(lane: &str) -> char {
    match lane {
        "busy" => 'B',
        "held" => 'h',
        "free" => 'f',
        "left" => 'l',
        "burnt" => 'x',
        _ => '?',
    }
}

fn quantiles(times: &Quantiles) -> String {
    let word = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), time);
    format!("half {}, nine of ten {}, 99 of 100 {}", word(times.p50), word(times.p90), word(times.p99))
}
