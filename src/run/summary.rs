//! What is told when the command has ended: a few lines for a person, one JSON object for a program.
//!
//! Counts nothing: the numbers are `telemetry::summary`'s.

use std::fmt::Write;

use serde::Serialize;

use crate::telemetry::summary::{Bytes, Quantiles, Summary};
use crate::telemetry::words::{percent, share, size, time};

/// One run of a command.
#[derive(Debug, Serialize)]
pub(super) struct Story {
    /// What the command's exit code was.
    pub(super) command_exit: u8,
    /// How long it ran.
    pub(super) seconds: f64,
    /// Where its turns went.
    pub(super) upstream: String,
    #[serde(flatten)]
    pub(super) summary: Summary,
}

/// The story with what is computed from it.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    story: &'a Story,
    saved: Option<f64>,
    saved_before_compression: Option<f64>,
}

impl Story {
    /// For a person: at most three lines.
    pub(super) fn text(&self) -> String {
        let Summary { turns, reasons, bytes, first_event_seconds, .. } = &self.summary;
        if turns.all() == 0 {
            return "tailwire: no turn came through; if COMMAND made some, it does not read OPENAI_BASE_URL: see `tailwire run --help`\n".to_owned();
        }
        let mut text =
            format!("tailwire: {}, {} as deltas", turns_of(turns.all()), percent(turns.delta, turns.all()));
        if !reasons.is_empty() {
            let mut listed: Vec<(&String, &u64)> = reasons.iter().collect();
            listed.sort_by_key(|(label, count)| (std::cmp::Reverse(**count), (*label).clone()));
            let listed: Vec<String> =
                listed.into_iter().map(|(label, count)| format!("{count} {label}")).collect();
            let _ = write!(text, "; in full: {}", listed.join(", "));
        }
        let _ = write!(text, "\ntailwire: {}", bytes_of(bytes));
        if let Some(words) = first_event_of(first_event_seconds) {
            let _ = write!(text, "\ntailwire: {words}");
        }
        text.push('\n');
        text
    }

    /// For a program.
    pub(super) fn json(&self) -> String {
        let bytes = &self.summary.bytes;
        let told = Told {
            story: self,
            saved: bytes.saved(),
            saved_before_compression: bytes.saved_before_compression(),
        };
        // Numbers and names: there is nothing in it that could not be written.
        serde_json::to_string_pretty(&told).unwrap_or_default() + "\n"
    }
}

fn turns_of(count: u64) -> String {
    if count == 1 { "1 turn".to_owned() } else { format!("{count} turns") }
}

fn bytes_of(bytes: &Bytes) -> String {
    format!(
        "received {}, sent {}, on the wire {}: {} saved, {} without compression",
        size(bytes.received),
        size(bytes.sent),
        size(bytes.wire),
        share(bytes.saved()),
        share(bytes.saved_before_compression())
    )
}

fn first_event_of(times: &Quantiles) -> Option<String> {
    let (half, most) = times.p50.zip(times.p90)?;
    Some(format!("first event after {} (half of them), {} (nine of ten)", time(half), time(most)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::summary::Turns;

    fn story(summary: Summary) -> Story {
        Story { command_exit: 3, seconds: 1.5, upstream: "https://api.example/v1".to_owned(), summary }
    }

    fn busy() -> Summary {
        Summary {
            turns: Turns { delta: 38, full: 2, http: 1 },
            reasons: [("first-turn", 2), ("mode", 1)].map(|(label, n)| (label.to_owned(), n)).into(),
            bytes: Bytes { received: 6_320_000, sent: 643_200, wire: 91_900 },
            first_event_seconds: Quantiles { count: 41, p50: Some(0.21), p90: Some(1.32), p99: Some(2.0) },
            ..Summary::default()
        }
    }

    #[test]
    fn a_person_reads_three_lines() {
        assert_eq!(
            story(busy()).text(),
            "tailwire: 41 turns, 92.7 % as deltas; in full: 2 first-turn, 1 mode\n\
             tailwire: received 6.32 MB, sent 643.2 kB, on the wire 91.9 kB: 98.5 % saved, 89.8 % without compression\n\
             tailwire: first event after 210 ms (half of them), 1.3 s (nine of ten)\n"
        );
        assert!(story(Summary::default()).text().contains("tailwire run --help"));
    }

    #[test]
    fn a_program_reads_one_object() {
        let json: serde_json::Value = serde_json::from_str(&story(busy()).json()).unwrap();
        assert_eq!((&json["command_exit"], &json["turns"]["delta"]), (&3.into(), &38.into()));
        assert_eq!((&json["bytes"]["wire"], &json["reasons"]["mode"]), (&91_900.into(), &1.into()));
        assert!(json["saved"].as_f64().unwrap() > 0.98);
        let json: serde_json::Value = serde_json::from_str(&story(Summary::default()).json()).unwrap();
        assert!(json["saved"].is_null());
    }
}
