//! What a run comes to: counts by name, the first failures in words, and the table that is printed.
//!
//! Judges nothing; it only adds up.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts of a run, shared by all its tasks.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Turns that ended with a right answer.
    turns: AtomicU64,
    counts: Mutex<BTreeMap<(&'static str, String), u64>>,
    failures: Mutex<Vec<String>>,
}

impl Tally {
    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    pub(crate) fn turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// One more of this under a heading.
    pub(crate) fn count(&self, heading: &'static str, name: impl Into<String>) {
        self.add(heading, name, 1);
    }

    pub(crate) fn add(&self, heading: &'static str, name: impl Into<String>, amount: u64) {
        if amount > 0 {
            let mut counts = self.counts.lock().expect("no panic under this lock");
            *counts.entry((heading, name.into())).or_default() += amount;
        }
    }

    /// All of a heading.
    pub(crate) fn total(&self, heading: &str) -> u64 {
        let counts = self.counts.lock().expect("no panic under this lock");
        counts.iter().filter(|((other, _), _)| *other == heading).map(|(_, count)| count).sum()
    }

    /// Counts a failure, and tells of it at once; past a few only the count goes up.
    pub(crate) fn fail(&self, heading: &'static str, name: &str, story: &str) {
        self.count(heading, name);
        let mut failures = self.failures.lock().expect("no panic under this lock");
        if failures.len() < MOST_FAILURES {
            let short: String = story.chars().take(LONGEST_STORY).collect();
            eprintln!("--- {heading}: {name}\n{short}\n---");
            failures.push(short);
        }
    }

    /// The table, by heading.
    pub(crate) fn table(&self, took: Duration) -> String {
        let counts = self.counts.lock().expect("no panic under this lock");
        let mut table = String::new();
        let rate = self.turns() as f64 / took.as_secs_f64();
        let _ = writeln!(
            table,
            "{:<28}{:>9}   ({rate:.1} a second, {:.0} s)",
            "turns",
            self.turns(),
            took.as_secs_f64()
        );
        let mut headings: Vec<&str> = Vec::new();
        for (heading, _) in counts.keys() {
            if !headings.contains(heading) {
                headings.push(heading);
            }
        }
        headings.retain(|heading| !BAD.contains(heading));
        for heading in headings {
            let of = counts.iter().filter(|((other, _), _)| *other == heading);
            let total: u64 = of.clone().map(|(_, count)| count).sum();
            let _ = writeln!(table, "{heading:<28}{total:>9}");
            for ((_, name), count) in of {
                let _ = writeln!(table, "    {name:<24}{count:>9}");
            }
        }
        for heading in BAD {
            let of = counts.iter().filter(|((other, _), _)| *other == heading);
            let total: u64 = of.clone().map(|(_, count)| count).sum();
            let _ = writeln!(table, "{heading:<28}{total:>9}");
            for ((_, name), count) in of {
                let _ = writeln!(table, "    {name:<24}{count:>9}");
            }
        }
        table
    }
}

pub(crate) const WRONG: &str = "wrong contexts";
pub(crate) const LOST: &str = "lost turns";
pub(crate) const LEAKED: &str = "leaks";
/// What must be none.
pub(crate) const BAD: [&str; 3] = [WRONG, LOST, LEAKED];

const MOST_FAILURES: usize = 12;
const LONGEST_STORY: usize = 3000;
