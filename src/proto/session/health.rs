//! The clocks of one socket: its age, its rest, its signs of life.
//!
//! Says what time has done to the socket; knows no lanes and decides nothing about turns.

use std::time::{Duration, Instant};

use crate::proto::session::Limits;

/// How long a socket may have been quiet before a new frame is followed by a ping.
const QUIET: Duration = Duration::from_secs(5);

/// What the last ping has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulse {
    /// Nothing to do.
    Beating,
    /// Ping now.
    Ask,
    /// A ping was not answered in time.
    Gone,
}

/// The clocks.
#[derive(Debug)]
pub struct Health {
    rotate_at: Instant,
    idle_since: Instant,
    heard: Instant,
    pinged: Option<Instant>,
    ping_asked: bool,
}

impl Health {
    /// Of a socket about to be opened. `number` spreads the ages of neighbours over [`Limits::jitter`].
    pub fn new(now: Instant, limits: &Limits, number: u64) -> Self {
        // By number, not by chance: there is no randomness below this line, and neighbours still differ.
        let early = limits.jitter.mul_f64((number % 16) as f64 / 16.0);
        Self {
            rotate_at: now + limits.rotate_after - early,
            idle_since: now,
            heard: now,
            pinged: None,
            ping_asked: false,
        }
    }

    /// A turn began or ended: the socket is at rest from now on at the earliest.
    pub fn touch(&mut self, now: Instant) {
        self.idle_since = now;
    }

    /// A sign of life.
    pub fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.pinged = None;
    }

    /// Nothing could be heard until now, for a reason of ours: all waits begin anew.
    pub fn excuse(&mut self, now: Instant) {
        self.heard = now;
        self.pinged = self.pinged.map(|_| now);
    }

    /// A frame is about to be written: after a quiet time a ping follows it, so that a dead peer is noticed soon.
    pub fn send(&mut self, now: Instant) {
        self.ping_asked |= now.saturating_duration_since(self.heard) >= QUIET;
    }

    /// True once the socket is too old for new turns.
    pub fn is_old(&self, now: Instant) -> bool {
        now >= self.rotate_at
    }

    /// True once it has rested longer than is worth keeping it open.
    pub fn is_rested(&self, now: Instant, limits: &Limits) -> bool {
        now >= self.idle_since + limits.idle
    }

    /// Is it alive? Told [`Pulse::Ask`], the caller must ping.
    pub fn pulse(&mut self, now: Instant, limits: &Limits) -> Pulse {
        if self.pinged.is_some_and(|at| now >= at + limits.pong) {
            return Pulse::Gone;
        }
        if !self.ping_asked && (self.pinged.is_some() || now < self.heard + limits.ping) {
            return Pulse::Beating;
        }
        self.ping_asked = false;
        self.pinged.get_or_insert(now);
        Pulse::Ask
    }

    /// When one of these clocks is next due. A retired socket neither ages nor rests; a busy one does not rest.
    pub fn due(&self, limits: &Limits, retired: bool, busy: bool) -> Instant {
        if self.ping_asked {
            return self.heard;
        }
        let mut at = self.pinged.map_or(self.heard + limits.ping, |pinged| pinged + limits.pong);
        if !retired {
            at = at.min(self.rotate_at);
        }
        if !retired && !busy {
            at = at.min(self.idle_since + limits.idle);
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f47_a_ping_after_silence_and_death_without_an_answer() {
        let (limits, start) = (Limits::default(), Instant::now());
        let mut health = Health::new(start, &limits, 0);
        assert_eq!(health.due(&limits, false, false), start + limits.ping);
        assert_eq!(health.pulse(start, &limits), Pulse::Beating);
        let asked = start + limits.ping;
        assert_eq!(health.pulse(asked, &limits), Pulse::Ask);
        assert_eq!(health.pulse(asked, &limits), Pulse::Beating, "asked once");
        assert_eq!(health.due(&limits, false, false), asked + limits.pong);
        health.hear(asked);
        assert_eq!(health.pulse(asked + limits.pong, &limits), Pulse::Beating, "answered");
        let again = asked + limits.ping;
        assert_eq!(health.pulse(again, &limits), Pulse::Ask);
        assert_eq!(health.pulse(again + limits.pong, &limits), Pulse::Gone);
    }

    #[test]
    fn f46_a_frame_after_a_quiet_time_is_followed_by_a_ping() {
        let (limits, start) = (Limits::default(), Instant::now());
        let mut health = Health::new(start, &limits, 0);
        health.send(start + Duration::from_secs(4));
        assert_eq!(health.pulse(start + Duration::from_secs(4), &limits), Pulse::Beating);
        let later = start + QUIET;
        health.send(later);
        assert!(health.due(&limits, false, true) <= later, "at once");
        assert_eq!(health.pulse(later, &limits), Pulse::Ask);
        assert!(health.due(&limits, false, true) > later);
    }

    #[test]
    fn a_long_way_up_is_not_death() {
        let (limits, start) = (Limits::default(), Instant::now());
        let mut health = Health::new(start, &limits, 0);
        let sent = start + QUIET;
        health.send(sent);
        assert_eq!(health.pulse(sent, &limits), Pulse::Ask);
        // The ping waits behind the frame; the wait for its answer begins when both are on the wire.
        let written = sent + limits.pong;
        health.excuse(written);
        assert_eq!(health.pulse(written, &limits), Pulse::Beating);
        assert_eq!(health.pulse(written + limits.pong, &limits), Pulse::Gone, "but it does end");
    }

    #[test]
    fn age_is_spread_and_ends_rest() {
        let (limits, start) = (Limits::default(), Instant::now());
        let (first, second) = (Health::new(start, &limits, 0), Health::new(start, &limits, 1));
        assert!(first.is_old(start + limits.rotate_after) && !first.is_old(start + limits.rotate_after / 2));
        assert!(second.is_old(start + limits.rotate_after - Duration::from_secs(11)));
        assert!(first.is_rested(start + limits.idle, &limits));
        assert!(!first.is_rested(start + limits.idle / 2, &limits));
    }
}
