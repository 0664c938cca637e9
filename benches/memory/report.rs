//! One line of the table: figures, what was checked, and what was seen.

use std::fmt;
use std::time::Duration;

use crate::house::Weighed;

/// How much of each load is made, in percent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale(pub(crate) usize);

impl Scale {
    /// Of so many, at least one.
    pub(crate) fn of(self, full: usize) -> usize {
        (full * self.0 / 100).max(1)
    }
}

#[derive(Debug)]
pub(crate) struct Line {
    name: &'static str,
    weighed: Weighed,
    took: Duration,
    checks: Vec<(bool, String)>,
}

impl Line {
    pub(crate) fn head(about: &str) -> String {
        let title = format!(
            "{:<15} {:>8} {:>8} {:>8} {:>7}  MiB resident; what held",
            "scenario", "before", "peak", "after", "time"
        );
        format!("{about}\n{title}")
    }

    pub(crate) fn new(name: &'static str, weighed: Weighed, took: Duration) -> Self {
        Self { name, weighed, took, checks: Vec::new() }
    }

    /// Adds something that must hold, in words with the figures that were seen.
    pub(crate) fn check(mut self, holds: bool, words: impl Into<String>) -> Self {
        self.checks.push((holds, words.into()));
        self
    }

    pub(crate) fn is_good(&self) -> bool {
        self.checks.iter().all(|(holds, _)| *holds)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |kib: u64| {
            #[expect(clippy::cast_precision_loss, reason = "figures for people")]
            let mib = kib as f64 / 1024.0;
            mib
        };
        let Weighed { before, peak, after } = self.weighed;
        write!(
            f,
            "{:<15} {:>8.1} {:>8.1} {:>8.1} {:>6.1}s",
            self.name,
            mib(before),
            mib(peak),
            mib(after),
            self.took.as_secs_f64()
        )?;
        for (holds, words) in &self.checks {
            write!(f, "\n{:>52}{} {words}", "", if *holds { "ok  " } else { "FAIL" })?;
        }
        Ok(())
    }
}
