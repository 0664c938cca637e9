//! What an independent judge says about every recorded Responses turn: continue which, from where, how well.
//!
//! Reads `tests/fixtures/captures.tsv`, which `expect.py` beside this file writes. It computes nothing
//! itself, so a mistake in the proxy's own rules cannot slip into what the proxy is judged by.

use std::collections::HashMap;

use super::load::Result;

/// The right plan for one turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Expected {
    /// Nothing may be continued.
    Full {
        /// Items in the request.
        items: usize,
    },
    /// The turn continues an earlier one.
    Delta {
        /// The number of the turn it continues.
        parent: usize,
        /// Index in the request's input where the new items start; all after it are new.
        first_new: usize,
        /// Items in the request.
        items: usize,
        /// Did all reasoning of the chain come back?
        grade: Grade,
    },
}

/// How well the request repeats the chain it continues.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Grade {
    /// Nothing is missing.
    Exact,
    /// Reasoning is missing; everything visible is there.
    Visible,
}

/// The whole table, by capture name and turn number.
pub(crate) fn expected() -> Result<HashMap<(String, usize), Expected>> {
    let lines = include_str!("../fixtures/captures.tsv").lines();
    lines.filter(|line| !line.starts_with('#')).skip(1).map(row).collect()
}

pub(crate) fn row(line: &str) -> Result<((String, usize), Expected)> {
    let columns: Vec<&str> = line.split('\t').collect();
    let &[capture, turn, parent, first_new, items, grade] = columns.as_slice() else {
        return Err(format!("not six columns: {line}").into());
    };
    let items = items.parse()?;
    let grade = match grade {
        "exact" => Some(Grade::Exact),
        "visible" => Some(Grade::Visible),
        "-" => None,
        other => return Err(format!("no grade: {other}").into()),
    };
    let expected = match grade {
        None => Expected::Full { items },
        Some(grade) => {
            Expected::Delta { parent: parent.parse()?, first_new: first_new.parse()?, items, grade }
        }
    };
    Ok(((capture.to_owned(), turn.parse()?), expected))
}

#[cfg(test)]
mod tests {
    use super::super::load::{captures, roots};
    use super::*;

    /// Requests, recognised pairs and unrecognised ones per capture, as counted by another program
    /// (2026-11-23): the table must agree although it was made by other code.
    const TOTALS: &str = include_str!("../fixtures/captures-totals.tsv");

    #[test]
    fn every_responses_turn_has_its_row_and_every_row_its_turn() -> Result<()> {
        let mut rows = expected()?;
        for capture in captures()? {
            for turn in capture.turns.iter().filter(|turn| turn.is_responses()) {
                let row = rows.remove(&(capture.name.clone(), turn.n));
                let row = row.ok_or_else(|| format!("{} turn {} has no row", capture.name, turn.n))?;
                let body: serde_json::Value = serde_json::from_slice(&turn.body)?;
                let told = body["input"].as_array().map_or(1, Vec::len);
                let (Expected::Full { items } | Expected::Delta { items, .. }) = row;
                assert_eq!(items, told, "{} turn {}", capture.name, turn.n);
            }
        }
        if roots().len() > 1 {
            assert!(rows.is_empty(), "rows without a turn: {:?}", rows.keys());
        }
        Ok(())
    }

    #[test]
    fn deltas_begin_after_their_parents_items_and_leave_something_new() -> Result<()> {
        let rows = expected()?;
        for ((capture, turn), row) in &rows {
            let Expected::Delta { parent, first_new, items, .. } = *row else { continue };
            let parent_row = rows.get(&(capture.clone(), parent)).ok_or("a parent without a row")?;
            let (Expected::Full { items: old } | Expected::Delta { items: old, .. }) = *parent_row;
            assert!(parent < *turn && old < first_new && first_new < items, "{capture} turn {turn}: {row:?}");
        }
        Ok(())
    }

    #[test]
    fn the_totals_agree_with_another_count() -> Result<()> {
        let rows = expected()?;
        let mut named = 0;
        for line in TOTALS.lines().filter(|line| !line.starts_with('#')).skip(1) {
            let (capture, counts) = line.split_once('\t').ok_or("no columns")?;
            let told: Vec<usize> =
                counts.split('\t').map(str::parse).collect::<std::result::Result<_, _>>()?;
            let of = |wanted: fn(&Expected) -> bool| {
                rows.iter().filter(|((name, _), row)| name == capture && wanted(row)).count()
            };
            let (all, pairs) = (of(|_| true), of(|row| matches!(row, Expected::Delta { .. })));
            // The first request of a capture has nothing before it and is no pair.
            assert_eq!(told, [all, pairs, all - pairs - 1], "{capture}");
            named += all;
        }
        assert_eq!(named, rows.len(), "captures that the other count does not know");
        Ok(())
    }
}
