//! How a quantity is distributed, to two digits: counts by size, in one fixed piece of memory, written without a lock.
//!
//! Knows no unit: microseconds or bytes are the caller's to say. Keeps no single value.

use std::sync::atomic::{AtomicU64, Ordering};

/// The smallest bound with two digits, and how many bounds each power of ten has.
const FIRST: u64 = 10;
const PER_DECADE: usize = 90;
/// Powers of ten above the first hundred; beyond 9.9 * 10^11 (bytes: 990 GB, microseconds: 11 days) everything is one count.
const DECADES: usize = 11;
const BELOW: usize = FIRST as usize;
const COUNTS: usize = BELOW + PER_DECADE * DECADES + 1;

/// Counts by size: each bound is a number of two digits followed by zeros, and counts what is above the bound before it
/// and not above itself. 8 KB.
#[derive(Debug)]
pub struct Histogram {
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: (0..COUNTS).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts one more of this size.
    pub fn record(&self, value: u64) {
        // Relaxed, as for a counter: read for people and tests.
        self.counts[place(value)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// What was counted so far.
    #[must_use]
    pub fn reading(&self) -> Reading {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        Reading { counts, sum: self.sum.load(Ordering::Relaxed) }
    }
}

/// A histogram as it was at one time; several can be added up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    counts: Vec<u64>,
    sum: u64,
}

impl Reading {
    /// The two together.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.counts.resize(COUNTS, 0);
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.sum += other.sum;
        self
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them added up.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// How many are not above `bound`; exact where the bound is a number of at most two digits followed by zeros.
    #[must_use]
    pub fn up_to(&self, bound: u64) -> u64 {
        self.counts.iter().take(place(bound) + 1).sum()
    }

    /// The value that `share` (0 to 1) of them do not exceed, rounded up to two digits; none if nothing was counted.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let all = self.count();
        // At least the first, at most the last: a share is a person's figure, not a proof.
        let wanted = ((all as f64 * share).ceil() as u64).clamp(1, all.max(1));
        let mut seen = 0;
        self.counts.iter().enumerate().find_map(|(place, count)| {
            seen += count;
            (seen >= wanted).then(|| bound(place))
        })
    }
}

/// Which count a value belongs to.
fn place(value: u64) -> usize {
    let (mut digits, mut decade) = (value, 0);
    while digits >= 10 * FIRST {
        digits = digits.div_ceil(10);
        decade += 1;
    }
    let place = match usize::try_from(digits) {
        Ok(digits) if digits < BELOW => digits,
        Ok(digits) => BELOW + decade * PER_DECADE + (digits - BELOW),
        Err(_) => COUNTS,
    };
    place.min(COUNTS - 1)
}

/// The largest value of a count.
fn bound(place: usize) -> u64 {
    if place < BELOW {
        return place as u64;
    }
    let (decade, digits) = ((place - BELOW) / PER_DECADE, (place - BELOW) % PER_DECADE + BELOW);
    u32::try_from(decade).ok().and_then(|decade| 10_u64.checked_pow(decade)).unwrap_or(u64::MAX / 100)
        * digits as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_counts_what_is_not_above_it() {
        for value in (0..2_000).chain([99_999, 100_000, 100_001, 990_000_000_000]) {
            let at = place(value);
            assert!(value <= bound(at), "{value} is above its bound {}", bound(at));
            assert!(at == 0 || value > bound(at - 1), "{value} is not above {}", bound(at - 1));
            assert!(bound(at) as f64 <= value as f64 * 1.1 + 1.0, "{value}: two digits");
        }
        assert_eq!((place(990_000_000_001), place(u64::MAX)), (COUNTS - 1, COUNTS - 1));
    }

    #[test]
    fn counts_sums_and_quantiles() {
        let (one, other) = (Histogram::default(), Histogram::default());
        assert_eq!((one.reading().quantile(0.5), one.reading().count()), (None, 0));
        (1..=90).for_each(|value| one.record(value));
        (91..=100).for_each(|value| other.record(value * 1_000));
        let reading = one.reading().and(&other.reading());
        assert_eq!((reading.count(), reading.sum()), (100, 4_095 + 955_000));
        assert_eq!((reading.up_to(0), reading.up_to(50), reading.up_to(91_000)), (0, 50, 91));
        assert_eq!(reading.up_to(u64::MAX), 100);
        for (share, value) in [(0.0, 1), (0.5, 50), (0.9, 90), (0.91, 91_000), (1.0, 100_000)] {
            assert_eq!(reading.quantile(share), Some(value), "{share}");
        }
        assert_eq!(Reading::default().and(&one.reading()), one.reading());
    }
}
