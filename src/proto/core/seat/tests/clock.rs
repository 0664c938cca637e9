//! What a clock that leaps costs: a laptop that slept, a machine that was stopped. Time is an argument here, so it may
//! leap as far as it likes, and what happened before the leap may be told after it.
//!
//! At worst one full resend of a conversation, no timer that never rests, and no arithmetic that breaks.

use super::*;
use crate::proto::session::connection::Action;

/// Where the conversation's turn was when the clock leapt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Idle,
    Placed,
    Sent,
    Streaming,
}

/// What the driver still has to tell, in one order or another.
#[derive(Clone, Copy, Debug)]
enum Tale {
    Timeout,
    Heard,
    Event,
}

struct Night {
    heart: Heart,
    /// A socket whose peer has forgotten it.
    dead: Option<ConnectionId>,
    faults: Vec<TurnId>,
    fulls: usize,
}

impl Night {
    /// Carries out what the heart wants of a socket, until its clocks rest.
    fn rest(&mut self, id: ConnectionId) {
        for _ in 0..8 {
            while let Some(action) = self.heart.core.poll_action(id) {
                match action {
                    Action::Ping if self.dead == Some(id) => {}
                    Action::Ping => self.heart.core.heard(self.heart.now, id),
                    Action::Fault(turn, _) => self.faults.push(turn),
                    Action::Close => self.close(id),
                }
            }
            if self.heart.core.poll_timeout(id).is_none_or(|at| at > self.heart.now) {
                return;
            }
            self.heart.core.timeout(self.heart.now, id);
        }
        panic!("a timer that never rests");
    }

    fn close(&mut self, id: ConnectionId) {
        while let Some(action) = self.heart.core.poll_action(id) {
            if let Action::Fault(turn, _) = action {
                self.faults.push(turn);
            }
        }
        self.heart.core.closed(self.heart.now, id);
    }

    /// Waits, by the heart's own clocks, for a turn to hear of its socket's end; true within the time that may take.
    fn wait(&mut self, ticket: &Ticket) -> bool {
        let start = self.heart.now;
        for _ in 0..20 {
            if self.faults.contains(&ticket.turn) {
                return self.heart.now
                    <= start + self.heart.core.limits().ping + self.heart.core.limits().pong;
            }
            let Some(at) = self.heart.core.poll_timeout(ticket.connection) else { return false };
            self.heart.now = self.heart.now.max(at);
            self.rest(ticket.connection);
        }
        false
    }

    fn place(&mut self, talk: &Talk, wish: &Wish) -> Ticket {
        let request = self.heart.read(&talk.body(""));
        let placement = self.heart.core.begin(self.heart.now, &self.heart.account, &request, wish);
        let Placement::Wire(ticket) = placement else { panic!("{placement:?}") };
        self.fulls += usize::from(previous(&ticket).is_none());
        ticket
    }

    /// From its place to its end, by way of a new socket if the first one is dead.
    fn finish(&mut self, talk: &Talk, ticket: Ticket, sent: bool, response: &str) {
        if !sent && !self.faults.contains(&ticket.turn) {
            self.heart.send(&ticket);
        }
        self.rest(ticket.connection);
        let over = self.faults.contains(&ticket.turn);
        if over || self.dead == Some(ticket.connection) {
            assert!(over || self.wait(&ticket), "a dead socket is noticed");
            self.heart.core.abandon(self.heart.now, ticket.turn);
            let wish = Wish { full: Some(Reason::Recovered), new_socket: true, prefer: None };
            let again = self.place(talk, &wish);
            assert_ne!(again.connection, ticket.connection);
            return self.finish(talk, again, false, response);
        }
        self.heart.hear(&ticket, r#""response.completed""#);
        self.heart.settle(talk, &ticket, response, response);
        self.rest(ticket.connection);
    }

    fn turn(&mut self, talk: &Talk, response: &str) {
        let ticket = self.place(talk, &Wish::default());
        self.finish(talk, ticket, false, response);
    }

    /// Tells what happened around the leap. A clock read before the lock was had may be told after a later one.
    fn tell(&mut self, tale: Tale, at: Instant, ticket: &Ticket, moment: Moment) {
        match tale {
            Tale::Timeout => self.heart.core.timeout(at, ticket.connection),
            Tale::Heard if self.dead.is_none() => self.heart.core.heard(at, ticket.connection),
            Tale::Event if moment == Moment::Streaming => {
                let now = std::mem::replace(&mut self.heart.now, at);
                self.heart.hear(ticket, r#""response.output_text.delta""#);
                self.heart.now = now;
            }
            Tale::Heard | Tale::Event => {}
        }
        self.rest(ticket.connection);
    }
}

/// One conversation over one leap; how many of its turns went in full after the leap.
fn leap(
    (lanes, store, dead): (u32, bool, bool),
    moment: Moment,
    seconds: u64,
    tales: [(Tale, bool); 3],
) -> usize {
    let mut night = Night { heart: Heart::lanes(lanes), dead: None, faults: Vec::new(), fulls: 0 };
    let first = Talk::new("a", store);
    night.turn(&first, "r0");
    let talk = first.then("r0", "b");
    let evening = night.heart.now;
    let ticket = night.place(&talk, &Wish::default());
    let connection = ticket.connection;
    match moment {
        Moment::Idle => {
            night.finish(&talk, ticket.clone(), false, "r1");
        }
        Moment::Placed => {}
        Moment::Sent | Moment::Streaming => {
            night.heart.send(&ticket);
            if moment == Moment::Streaming {
                night.heart.hear(&ticket, r#""response.created""#);
            }
        }
    }
    assert_eq!(night.fulls, 1, "the first turn's");

    night.heart.now += Duration::from_secs(seconds);
    night.dead = dead.then_some(connection);
    for (tale, before) in tales {
        let at = if before { evening } else { night.heart.now };
        night.tell(tale, at, &ticket, moment);
    }
    if moment != Moment::Idle {
        night.finish(&talk, ticket, moment != Moment::Placed, "r1");
    }
    let talk = talk.then("r1", "c");
    night.turn(&talk, "r2");
    let fulls = night.fulls - 1;
    let talk = talk.then("r2", "d");
    let last = night.place(&talk, &Wish::default());
    assert_eq!(previous(&last), Some("r2"), "as if nothing had been");
    night.finish(&talk, last, false, "r3");
    assert_eq!(night.heart.core.turns(), 0);
    fulls
}

#[test]
fn a_leap_costs_at_most_one_full_resend_whatever_is_told_in_which_order() {
    const DAY: u64 = 24 * 60 * 60;
    let leaps = [4, 26, 91, 56 * 60, 8 * 60 * 60, 36_500 * DAY];
    let (timeout, heard, event) = (Tale::Timeout, Tale::Heard, Tale::Event);
    let orders = [
        [timeout, heard, event],
        [timeout, event, heard],
        [heard, timeout, event],
        [heard, event, timeout],
        [event, timeout, heard],
        [event, heard, timeout],
    ];
    let mut worst = 0;
    for world in [0, 32].into_iter().flat_map(|lanes| {
        [(lanes, false, false), (lanes, false, true), (lanes, true, false), (lanes, true, true)]
    }) {
        for moment in [Moment::Idle, Moment::Placed, Moment::Sent, Moment::Streaming] {
            for seconds in leaps {
                for order in orders {
                    for stale in [0b000, 0b010, 0b101] {
                        let mut bit = 0;
                        let tales = order.map(|tale| {
                            bit += 1;
                            (tale, stale >> (bit - 1) & 1 == 1)
                        });
                        let fulls = leap(world, moment, seconds, tales);
                        assert!(fulls <= 1, "{world:?} {moment:?} {seconds} s {tales:?}: {fulls} in full");
                        worst = worst.max(fulls);
                    }
                }
            }
        }
    }
    assert_eq!(worst, 1, "leaps that cost nothing prove nothing");
}
