//! Prints the table as `docs/recovery.md`, checks that the page is the table's, and that the table leaves nothing out.
//!
//! `UPDATE=1 cargo test --test faults recovery_page` writes the page anew.

use std::fmt::Write;
use std::path::PathBuf;

use tailwire::sim::Moment;

use crate::matrix::table::{Cell, Family, MOMENTS, Next, Outcome, Row, Rung, Seen, Socket, Turns};

#[test]
fn recovery_page() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/recovery.md");
    let page = page(&super::table());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/recovery.md is not the table's: UPDATE=1 cargo test --test faults recovery_page"
    );
}

/// What must be in the table, by the beginning of its name.
const FAULTS: &[&str] = &[
    "upgrade refused: 401",
    "upgrade refused: 403",
    "upgrade refused: 404",
    "upgrade refused: 405",
    "upgrade refused: 426",
    "upgrade refused: 429 with retry-after",
    "upgrade refused: 500",
    "upgrade refused: 501",
    "upgrade refused: 503",
    "DNS: the name does not resolve",
    "DNS: no answer in time",
    "connect: refused",
    "connect: no answer in time",
    "TLS: no answer in time",
    "reset",
    "close 1000",
    "close 1001",
    "close 1006",
    "close 1009",
    "close 1011",
    "close 1012",
    "close 1013",
    "error: nested",
    "error: flat",
    "error: `status_code`",
    "error: headers beside it",
    "error: without the lane's name",
    "error: followed by `response.failed`",
    "not found: nested",
    "not found: flat",
    "not found: without a code",
    "not found: `status_code`",
    "not found: headers beside it",
    "not found: within `response.failed`",
    "`response.failed`",
    "`response.incomplete`",
    "silence",
    "trickle: a byte at a time",
    "trickle: in pieces",
    "garbage",
    "binary",
    "huge: a frame within",
    "huge: a frame over",
    "unknown: `codex.",
    "unknown: `response.future",
    "ping flood",
    "missing pongs",
    "age limit, told to the turn",
    "age limit, told to nobody",
    "the 33rd lane",
    "one conversation more",
    "one turn more",
];

#[test]
fn every_fault_meets_every_moment() {
    let rows: Vec<Row> = super::table().into_iter().flat_map(|family| family.rows).collect();
    for fault in FAULTS {
        assert!(rows.iter().any(|row| row.name.starts_with(fault)), "{fault} is missing");
    }
    let (mut played, mut never) = (0, 0);
    for row in &rows {
        assert_eq!(rows.iter().filter(|other| other.name == row.name).count(), 1, "{} twice", row.name);
        for moment in MOMENTS {
            match row.cell(moment) {
                Cell::Never(reason) => {
                    assert!(reason.len() > 20, "{} {moment:?}: no reason", row.name);
                    never += 1;
                }
                Cell::Played(_) | Cell::ByWidth(..) => played += 1,
            }
        }
        match row.turns {
            Turns::Both => {}
            Turns::Deltas(reason) | Turns::Firsts(reason) => assert!(reason.len() > 20, "{}", row.name),
        }
    }
    assert_eq!(played + never, rows.len() * MOMENTS.len());
    for moment in MOMENTS {
        let played = rows.iter().filter(|row| !matches!(row.cell(moment), Cell::Never(_))).count();
        assert!(played > 10, "{moment:?}: only {played}");
    }
    println!(
        "{} faults × {} moments: {played} cells played, {never} with a reason",
        rows.len(),
        MOMENTS.len()
    );
}

const INTRO: &str = "\
# Recovery

What a client sees when something goes wrong between tailwire and the provider, and what becomes of its conversation. This
page is printed from the table that `cargo test --test faults` plays, cell by cell, against the simulated provider: over lanes and
with one turn in flight, for clients that read JSON and clients that read SSE, for first turns and for turns that continue one.

A turn that fails before its client has seen a byte takes the next rung, each at most once:

1. **delta**: the new items only, on the socket that holds the rest;
2. **full, same socket**: the whole history, where the provider did not know what was to be continued;
3. **full, new socket**: the same on another socket, where the one it had is lost;
4. **HTTP**: the client's own bytes, where no socket is to be had;
5. **error**: the provider's own, or one with a code that begins with `tailwire_`.

Nothing is repeated after the first byte: a stream then ends with the flat `error` event. A client that reads JSON has seen nothing
before the end, so its turn may still be repeated.

How to read the tables:

- *JSON*, *SSE*: what the client sees of the turn that is struck. \"The answer\" is the right one, as the provider's REST API would
  have given it to the same request.
- The clients of the tables speak Responses. Chat Completions take the same rungs, with three differences: their streams end with an
  error in Chat's own form, a failed response is an error to them, and what the provider refuses of a translated request before it
  runs it goes to its Chat API as it came (`http; refused`, `http; chat-only`).
- *Rung*: the last one taken; \"none\" if none was needed.
- *`x-tailwire`*: plan and reason of the struck turn. \"As planned\" is what it would have been without the fault.
- *Socket*: what becomes of the one on which it happened. Where it is lost, other conversations on it go in full with their next
  turn (`full; socket-lost`); otherwise they notice nothing.
- A moment at which a fault cannot strike, or shows nothing new, is *not played*, and says why.
- *Next turn*: how the conversation's next turn travels. After an error the client first repeats its request, which goes in full.
";

fn page(families: &[Family]) -> String {
    let mut page = INTRO.to_owned();
    for family in families {
        write!(page, "\n## {}\n", family.title).unwrap();
        // Faults that come to the same share a table.
        let mut sections: Vec<(Vec<&str>, String)> = Vec::new();
        for row in &family.rows {
            let told = section(row);
            match sections.iter_mut().find(|(_, other)| *other == told) {
                Some((names, _)) => names.push(&row.name),
                None => sections.push((vec![&row.name], told)),
            }
        }
        for (names, told) in sections {
            write!(page, "\n### {}\n\n{told}", capital(&names.join("; "))).unwrap();
        }
    }
    page
}

fn capital(name: &str) -> String {
    let (first, rest) = name.split_at(1);
    first.to_uppercase() + rest
}

/// What follows a fault's name: its remarks, and a line for each moment; neighbouring moments that come to the same share
/// theirs.
fn section(row: &Row) -> String {
    let mut told = String::new();
    for remark in remarks(row) {
        write!(told, "{remark}\n\n").unwrap();
    }
    told.push_str("| Moment | JSON | SSE | Rung | `x-tailwire` | Socket | Next turn |\n");
    told.push_str("|---|---|---|---|---|---|---|\n");
    let mut lines: Vec<(Vec<&str>, Vec<String>)> = Vec::new();
    for moment in MOMENTS {
        let cell = lines_of(row.cell(moment));
        match lines.last_mut() {
            Some((moments, last)) if *last == cell => moments.push(when(moment)),
            _ => lines.push((vec![when(moment)], cell)),
        }
    }
    for (moments, cell) in lines {
        for line in cell {
            writeln!(told, "| {}{line}", moments.join(", ")).unwrap();
        }
    }
    told
}

/// A cell as it follows its moments: one line, or one for each width.
fn lines_of(cell: &Cell) -> Vec<String> {
    match cell {
        Cell::Never(reason) => vec![format!(" | *not played: {reason}* | | | | | |")],
        Cell::Played(outcome) => vec![line(outcome)],
        Cell::ByWidth(lanes, single) => {
            vec![format!("; over lanes{}", line(lanes)), format!("; one in flight{}", line(single))]
        }
    }
}

fn remarks(row: &Row) -> Vec<String> {
    let mut remarks = Vec::new();
    match row.turns {
        Turns::Both => {}
        Turns::Deltas(reason) => remarks.push(format!("Turns that continue only: {reason}.")),
        Turns::Firsts(reason) => remarks.push(format!("First turns only: {reason}.")),
    }
    if row.handshakes > 1 {
        remarks
            .push("An upgrade that fails like this is asked for once more without compression.".to_owned());
    }
    if let Some((name, value)) = row.header {
        remarks.push(format!("A status carries the error's headers: `{name}: {value}`."));
    }
    match row.event {
        Some((name, true)) => remarks.push(format!("A stream is shown the `{name}`, unless it has ended.")),
        Some((name, false)) => remarks.push(format!("A stream is not shown the `{name}`.")),
        None => {}
    }
    remarks
}

fn line(outcome: &Outcome) -> String {
    let Outcome { json, sse, socket, .. } = *outcome;
    let both = |json: String, sse: String| {
        if json == sse { json } else { format!("JSON: {json}; SSE: {sse}") }
    };
    format!(
        " | {} | {} | {} | {} | {} | {} |",
        see(json),
        see(sse),
        both(rung(json), rung(sse)),
        both(told(json), told(sse)),
        fate(socket),
        both(next(outcome, false), next(outcome, true)),
    )
}

fn when(moment: Moment) -> &'static str {
    match moment {
        Moment::Upgrade => "before the upgrade",
        Moment::AfterSend => "after sending",
        Moment::AfterCreated => "after `response.created`",
        Moment::MidText => "within text",
        Moment::MidArguments => "within arguments",
        Moment::AfterLastDelta => "after the last delta",
        Moment::AfterTerminal => "after the last event",
        Moment::Idle => "on an idle socket",
    }
}

fn see(seen: Seen) -> String {
    match seen {
        Seen::Right(_) => "the answer".to_owned(),
        Seen::Status(status, code) | Seen::Down(status, code) => format!("{status}, `{code}`"),
        Seen::Ended(status) => format!("a response with status `{status}`"),
        Seen::Error(code) => format!("`error` event, `{code}`; the stream ends"),
        Seen::Broken(code) => format!("`error` event, `{code}`; the body breaks off"),
    }
}

fn rung(seen: Seen) -> String {
    let rung = match seen {
        Seen::Right(Rung::None) | Seen::Ended(_) => "none",
        Seen::Right(Rung::Same) => "full, same socket",
        Seen::Right(Rung::New) => "full, new socket",
        Seen::Right(Rung::Http(_)) => "HTTP",
        Seen::Down(..) => "HTTP, then error",
        Seen::Status(..) | Seen::Error(_) | Seen::Broken(_) => "error",
    };
    rung.to_owned()
}

fn told(seen: Seen) -> String {
    // One of the two turns is enough to see whether the plan was changed.
    let [first, delta] = [false, true].map(|delta| seen.plan(Moment::AfterSend, delta));
    if first == delta { format!("`{first}`") } else { "as planned".to_owned() }
}

fn fate(socket: Socket) -> &'static str {
    match socket {
        Socket::Kept => "kept",
        Socket::LaneGone => "kept; its lane is not used again",
        Socket::Lost => "lost",
        Socket::None => "—",
    }
}

fn next(outcome: &Outcome, stream: bool) -> String {
    let next = outcome.next_after(stream);
    match (outcome.seen(stream), next) {
        (_, Next::Again) => format!("the same, `{}`", next.plan()),
        (_, Next::Anew) => "in full".to_owned(),
        (Seen::Right(_), _) => format!("`{}`", next.plan()),
        _ => format!("repeated in full, then `{}`", next.plan()),
    }
}
