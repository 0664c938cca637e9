//! May this credential try for a socket? Latched shut after "no sockets here", closed for a growing while after a
//! failure, open otherwise. While it is shut, turns go over HTTP at once (F41–F43, F56).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::proto::digest::Digest;
use crate::proto::session::Limits;

/// Accounts with a shut gate that are remembered; past it the map is emptied, which costs one handshake each.
const MAX_GATES: usize = 4096;

/// Why a socket could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The provider answered: no sockets here (404, 405, 426, 501).
    NoSockets,
    /// The provider answered with another refusal (401, 403, 429 …): its answer to this turn, not about sockets.
    Answer,
    /// Time-out, drop, or a server error.
    Failure,
}

impl Refusal {
    /// What a status of a refused upgrade means.
    pub fn of_status(status: u16) -> Self {
        match status {
            404 | 405 | 426 | 501 => Self::NoSockets,
            500.. => Self::Failure,
            _ => Self::Answer,
        }
    }
}

#[derive(Debug)]
enum Gate {
    Latched { until: Instant },
    Waiting { until: Instant, failures: u32, probing: bool },
}

/// The gates of all accounts.
#[derive(Debug, Default)]
pub struct Gates(HashMap<Digest, Gate>);

impl Gates {
    /// `None`: open. `Some(probe)`: shut; with `probe` a handshake is due in the background, and the caller, who said that
    /// there is room for a socket, must open one: no other is due before its end is told.
    pub fn check(&mut self, now: Instant, account: &Digest, room: bool) -> Option<bool> {
        match self.0.get_mut(account)? {
            Gate::Latched { until } if now >= *until => {
                self.0.remove(account);
                None
            }
            Gate::Latched { .. } => Some(false),
            Gate::Waiting { until, probing, .. } => {
                let probe = room && now >= *until && !*probing;
                *probing |= probe;
                Some(probe)
            }
        }
    }

    /// A socket was had.
    pub fn succeeded(&mut self, account: &Digest) {
        self.0.remove(account);
    }

    /// A socket could not be had.
    pub fn failed(&mut self, now: Instant, account: &Digest, refusal: Refusal, limits: &Limits) {
        if self.0.len() >= MAX_GATES {
            self.0.clear();
        }
        let gate = match refusal {
            Refusal::NoSockets => Gate::Latched { until: now + limits.latch },
            Refusal::Answer => {
                self.0.remove(account);
                return;
            }
            Refusal::Failure => {
                let failures = match self.0.get(account) {
                    Some(Gate::Waiting { failures, .. }) => failures + 1,
                    _ => 0,
                };
                let (first, longest) = limits.backoff;
                let wait: Duration = (first * 2u32.saturating_pow(failures.min(16))).min(longest);
                Gate::Waiting { until: now + wait, failures, probing: false }
            }
        };
        self.0.insert(*account, gate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::digest::Key;

    #[test]
    fn f41_shut_for_longer_each_time_and_probed_once() {
        let account = Key::new([0; 32]).hasher("account").finish();
        let (limits, start) = (Limits::default(), Instant::now());
        let mut gates = Gates::default();
        assert_eq!(gates.check(start, &account, true), None);
        let mut now = start;
        for wait in [1, 2, 4, 8] {
            gates.failed(now, &account, Refusal::Failure, &limits);
            assert_eq!(gates.check(now, &account, true), Some(false));
            now += Duration::from_secs(wait);
            assert_eq!(gates.check(now, &account, false), Some(false), "no room for one");
            assert_eq!(gates.check(now, &account, true), Some(true), "a probe after {wait} s");
            assert_eq!(gates.check(now, &account, true), Some(false), "only one");
        }
        gates.succeeded(&account);
        assert_eq!(gates.check(now, &account, true), None);
    }

    #[test]
    fn f42_f43_no_sockets_latches_and_an_answer_does_not() {
        let account = Key::new([0; 32]).hasher("account").finish();
        let (limits, now) = (Limits::default(), Instant::now());
        let mut gates = Gates::default();
        for (status, shut) in
            [(401, false), (403, false), (429, false), (404, true), (426, true), (503, true)]
        {
            gates.succeeded(&account);
            gates.failed(now, &account, Refusal::of_status(status), &limits);
            assert_eq!(gates.check(now, &account, true).is_some(), shut, "{status}");
        }
        gates.failed(now, &account, Refusal::NoSockets, &limits);
        assert_eq!(gates.check(now + limits.latch, &account, true), None);
    }
}
