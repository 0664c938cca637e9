//! The chaos run's rule of what counts as a lost transport, against books written by hand.

use std::time::{Duration, Instant};

use tailwire::sim::Transport;
use tailwire::sim::ledger::{Outcome, Record, Struck};
use tailwire::sim::rules::{Digests, Ending};

use crate::losses::{Span, Try, losses, lost_over_http};

/// Where in time: the attempt lasts from 100 to 120 s.
struct Clock(Instant);

impl Clock {
    fn at(&self, seconds: u64) -> Instant {
        self.0 + Duration::from_secs(seconds)
    }

    fn span(&self) -> Span {
        Span { from: self.at(100), to: self.at(120) }
    }

    fn record(&self, connection: u64, transport: Transport) -> Record {
        Record {
            transport,
            credential: "c".to_owned(),
            connection,
            stream_id: None,
            previous: None,
            response: Some(format!("resp_{connection}")),
            digests: Digests::default(),
            settings: "turn".to_owned(),
            frame: 0,
            wire: 0,
            items: 1,
            tokens: 0,
            left_at: None,
            outcome: Outcome::Cancelled,
            arrived: self.at(101),
            begun: Some(self.at(101)),
        }
    }

    fn struck(&self, connection: u64, fault: &str, at: u64) -> Struck {
        Struck {
            connection,
            credential: "c".to_owned(),
            fault: fault.to_owned(),
            settings: None,
            response: None,
            at: self.at(at),
        }
    }

    fn seen(&self, connection: u64, strikes: &[(&str, u64)]) -> Try {
        let strikes = strikes.iter().map(|(fault, at)| self.struck(connection, fault, *at)).collect();
        Try { record: self.record(connection, Transport::WebSocket), strikes }
    }

    fn count(&self, tries: &[Try], around: &[Struck], made: usize) -> usize {
        losses((tries, around), self.span(), Duration::from_secs(15), made)
    }
}

#[test]
fn a_connection_is_lost_once_and_only_while_the_attempt_was_on_it() {
    let clock = Clock(Instant::now());
    for (strikes, lost) in [
        (&[][..], 0),
        (&[("Reset", 110)], 1),
        (&[("Reset", 99)], 1),
        (&[("Reset", 90)], 0),
        (&[("Reset", 121)], 0),
        (&[("SpontaneousEvent", 90)], 0),
        (&[("SpontaneousEvent", 110)], 1),
        (&[("Garbage", 110), ("SpontaneousEvent", 111), ("Reset", 112)], 1),
        (&[("Error", 110), ("Frame", 110), ("Trickle", 111), ("PingFlood", 112)], 0),
        (&[("ErrorWithoutLane", 110)], 1),
    ] {
        assert_eq!(clock.count(&[clock.seen(1, strikes)], &[], 1), lost, "{strikes:?}");
        let twice = [clock.seen(1, strikes), clock.seen(1, strikes)];
        assert_eq!(clock.count(&twice, &[], 2), lost, "two tries on one connection, {strikes:?}");
    }
    let two = [clock.seen(1, &[("Reset", 110)]), clock.seen(2, &[("Close", 111)])];
    assert_eq!(clock.count(&two, &[], 2), 2);
}

#[test]
fn a_silence_takes_only_the_turn_it_was_for() {
    let clock = Clock(Instant::now());
    for (settings, response, lost) in [
        (None, None, 0),
        (Some("another"), None, 0),
        (Some("turn"), None, 1),
        (Some("turn"), Some("resp_1"), 1),
        (Some("turn"), Some("resp_0"), 0),
    ] {
        let mut seen = clock.seen(1, &[("Silence", 105)]);
        seen.strikes[0].settings = settings.map(str::to_owned);
        seen.strikes[0].response = response.map(str::to_owned);
        assert_eq!(clock.count(&[seen], &[], 1), lost, "{settings:?} {response:?}");
    }
}

#[test]
fn a_try_that_is_not_begun_in_time_is_lost_and_one_that_only_takes_long_is_not() {
    let clock = Clock(Instant::now());
    for (begun, outcome, lost) in [
        (Some(101), Outcome::Cancelled, 0),
        (Some(117), Outcome::Cancelled, 1),
        (None, Outcome::Running, 1),
        (None, Outcome::Cancelled, 1),
        (None, Outcome::Ended(Ending::Refused), 0),
    ] {
        let mut seen = clock.seen(1, &[]);
        seen.record.begun = begun.map(|at| clock.at(at));
        seen.record.outcome = outcome;
        assert_eq!(clock.count(&[seen.clone()], &[], 1), lost, "{begun:?} {outcome:?}");
        seen.strikes.push(clock.struck(1, "Reset", 118));
        assert_eq!(clock.count(&[seen], &[], 1), 1, "not twice");
    }
}

#[test]
fn a_try_nobody_read_needs_a_connection_that_could_have_swallowed_it() {
    let clock = Clock(Instant::now());
    for (fault, at, one, of_two) in [
        ("IgnorePings", 106, 1, 1),
        ("IgnorePings", 85, 1, 1),
        ("IgnorePings", 60, 0, 0),
        // It cannot have been noticed yet.
        ("IgnorePings", 115, 0, 0),
        ("Reset", 119, 1, 1),
        ("Reset", 105, 0, 1),
        ("Reset", 90, 0, 0),
        ("Garbage", 119, 1, 1),
        ("Frame", 119, 0, 0),
        ("Silence", 119, 0, 0),
        ("message_too_big", 119, 0, 0),
        ("websocket_connection_limit_reached", 119, 0, 0),
    ] {
        let around = [clock.struck(7, fault, at)];
        assert_eq!(clock.count(&[], &around, 1), one, "{fault} at {at}, the only try");
        let read = [clock.seen(1, &[])];
        assert_eq!(clock.count(&read, &around, 1), 0, "{fault} at {at}, but the try was read");
        assert_eq!(clock.count(&read, &around, 2), of_two, "{fault} at {at}, one of two tries was read");
    }
    let many: Vec<Struck> = (10..20).map(|number| clock.struck(number, "Reset", 119)).collect();
    assert_eq!(clock.count(&[], &many, 1), 1, "no more than there were tries");
}

#[test]
fn over_http_only_the_clients_own_connection_counts() {
    let clock = Clock(Instant::now());
    let mut seen = clock.seen(1, &[("Reset", 110)]);
    assert!(!lost_over_http(&[seen.clone()], clock.span()), "not over HTTP");
    seen.record.transport = Transport::Http;
    assert!(lost_over_http(&[seen.clone()], clock.span()));
    seen.strikes[0].at = clock.at(90);
    assert!(!lost_over_http(&[seen], clock.span()), "long before");
}
