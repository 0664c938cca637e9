//! The figures as plain text for a terminal: a table, what is behind it, and what it does not show.
//! Rounds; the exact figures are in the JSON.

use std::fmt::Write as _;

use super::figures::{Figures, Row, Sent, Setup};

/// The whole report.
pub(super) fn table(figures: &Figures) -> String {
    let setup = &figures.setup;
    let mut text = format!("{}\n\n", headline(setup));
    let first = if setup.stream { "first event p50" } else { "answer p50" };
    let heads = ["", "up on the wire", "saved", "delta/full/http", "wall", first, "p95"].map(str::to_owned);
    let rows: Vec<[String; COLUMNS]> = std::iter::once(heads).chain(figures.rows.iter().map(cells)).collect();
    text.push_str(&aligned(&rows));
    if let Some(sent) = figures.rows.iter().find_map(|row| row.sent.as_ref()) {
        text.push_str(&behind(sent, setup));
    }
    text.push_str(&footer(figures));
    text
}

fn headline(setup: &Setup) -> String {
    let [instructions, tools, least, most] =
        [setup.instructions, setup.tools, setup.result_min, setup.result_max].map(configured);
    format!(
        "A coding agent{} with {} tool calls: {instructions} of instructions, {tools} of tools, results of {least} to {most};\n\
         {} ms round trip, {} Mbit/s up, {}.",
        if setup.api == "chat" { " that speaks Chat Completions," } else { "" },
        setup.calls,
        setup.rtt_ms,
        setup.uplink_bits_per_second as f64 / 1e6,
        if setup.stream { "answers streamed" } else { "answers as one JSON body" }
    )
}

fn cells(row: &Row) -> [String; COLUMNS] {
    let dash = || String::from("-");
    let (saved, plans) = match row.sent {
        Some(_) => (per_cent(row.saved), format!("{}/{}/{}", row.delta, row.full, row.http)),
        None => (dash(), dash()),
    };
    [
        row.name.to_owned(),
        size(row.wire_up),
        saved,
        plans,
        format!("{:.2} s", row.wall_ms / 1000.0),
        format!("{:.1} ms", row.first_event_p50_ms),
        format!("{:.1} ms", row.first_event_p95_ms),
    ]
}

/// The first column to the left, the others to the right.
fn aligned(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let mut line = format!("{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(widths).skip(1) {
            let _ = write!(line, "  {cell:>width$}");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// What the bytes are before compression: the same for every run whose turns went the same way.
fn behind(sent: &Sent, setup: &Setup) -> String {
    let floor = if setup.api == "chat" { "tools" } else { "instructions and tools" };
    format!(
        "\nOf {} of JSON, {} had to be sent: {} saved by the delta alone. What was sent:\n{} {floor}, again with each \
         turn; {} new items; {} envelope.\n",
        size(sent.received),
        size(sent.sent),
        per_cent(sent.saved_by_delta),
        size(sent.floor),
        size(sent.new_items),
        size(sent.envelope)
    )
}

fn footer(figures: &Figures) -> String {
    let mut text = String::from("\n");
    for row in figures.rows.iter().filter(|row| row.sent.is_some()) {
        let (saved, equal, turns) = (per_cent(row.saved), row.equal, row.turns);
        let _ = writeln!(text, "{}: {saved} saved on the wire, contexts equal: {equal}/{turns}", row.name);
    }
    let speed = match figures.setup.tokens_per_second {
        0 => String::from("The model speaks at once: times show the link alone."),
        speed => format!("The model speaks {speed} tokens per second."),
    };
    let _ = write!(text, "\n{ABOUT}\n{speed}\n");
    if !figures.faults.is_empty() {
        text.push_str("\nFAILED. These runs contradict what tailwire promises:\n");
        for fault in &figures.faults {
            let _ = writeln!(text, "  {fault}");
        }
    }
    text
}

fn per_cent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A size in the decimal units of networks, to three digits or so.
fn size(bytes: u64) -> String {
    match bytes {
        0..=999 => format!("{bytes} B"),
        1000..=999_999 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.2} MB", bytes as f64 / 1e6),
    }
}

/// A size as people configure it.
fn configured(bytes: usize) -> String {
    if bytes >= 1024 && bytes.is_multiple_of(1024) {
        format!("{} KiB", bytes / 1024)
    } else {
        format!("{bytes} B")
    }
}

const COLUMNS: usize = 7;

const ABOUT: &str = "\
\"Up on the wire\" is what the provider's sockets received, HTTP headers and WebSocket framing included.
Provider and link are simulated. Modelled: each request's round trip, its upload at the link's speed, and two
round trips for a new connection (TCP, TLS 1.3). Not modelled: TLS records, loss, the way down, and what a
provider saves by not reading the history again.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let row = |cells: [&str; COLUMNS]| cells.map(str::to_owned);
        let text = aligned(&[
            row(["", "up", "saved", "d", "wall", "p50", "p95"]),
            row(["direct", "5.31 MB", "-", "-", "4.10 s", "98.0 ms", "1.0 ms"]),
        ]);
        let expected = [
            "             up  saved  d    wall      p50     p95",
            "direct  5.31 MB      -  -  4.10 s  98.0 ms  1.0 ms",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_broken_promise_is_loud() {
        let setup = Setup {
            api: "responses",
            version: "0",
            calls: 1,
            instructions: 8192,
            tools: 1000,
            result_min: 1,
            result_max: 1,
            rtt_ms: 40,
            uplink_bits_per_second: 20_000_000,
            tokens_per_second: 0,
            stream: true,
        };
        let mut figures = Figures { setup, rows: Vec::new(), faults: Vec::new() };
        assert!(!table(&figures).contains("FAILED"));
        figures.faults.push(String::from("tailwire: turn 2 is not a delta"));
        assert!(table(&figures).ends_with(
            "FAILED. These runs contradict what tailwire promises:\n  tailwire: turn 2 is not a delta\n"
        ));
    }

    #[test]
    fn sizes_and_shares() {
        assert_eq!([size(999), size(1000), size(5_312_345)], ["999 B", "1.0 kB", "5.31 MB"]);
        assert_eq!(per_cent(0.9789), "97.9 %");
    }
}
