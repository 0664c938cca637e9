//! How things stand, as text: for pipes, files and `watch`.
//!
//! No colours and no cursor; the last turns, and no more lines than they need.

use std::fmt::Write;

use tokio::time::Instant;

use super::view::{LETTERS, SOCKET, TURN, View};

/// Turns that are listed.
const TURNS: usize = 20;

/// Everything the screen shows.
pub(super) fn text(view: &View, now: Instant) -> String {
    let mut text = view.title(now) + "\n\n";
    for (name, value) in view.totals(now) {
        let _ = writeln!(text, "{name:12} {value}");
    }
    let sockets = view.sockets(now);
    if !sockets.is_empty() {
        let _ = write!(text, "\n{}{LETTERS}\n", table(&SOCKET, &sockets));
    }
    let turns: Vec<_> = view.rows().take(TURNS).collect();
    if !turns.is_empty() {
        let _ = write!(text, "\n{}", table(&TURN, &turns));
    }
    text
}

/// Columns as wide as they need to be.
fn table<const N: usize>(names: &[&str; N], rows: &[[String; N]]) -> String {
    let width =
        |n: usize| rows.iter().map(|row| row[n].chars().count()).chain([names[n].len()]).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: [&str; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let body = rows.iter().map(|row| line(std::array::from_fn(|n| row[n].as_str())));
    std::iter::once(line(*names)).chain(body).collect()
}
