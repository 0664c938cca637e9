//! Turn after turn through the heart's face: which socket and lane each is given, and when there is none.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::proto::core::gate::Refusal;
use crate::proto::core::{Placement, Wish};
use crate::proto::digest::Key;
use crate::proto::fault::Fault;
use crate::proto::session::Limits;
use crate::proto::transcript::echo::Listener;
use crate::proto::wire::event::Event;

mod clock;

struct Heart {
    core: Core,
    now: Instant,
    account: Digest,
}

/// A conversation: what was said so far, user and model in turns, and whether the provider stores it.
#[derive(Clone)]
struct Talk {
    said: Vec<String>,
    store: bool,
}

impl Talk {
    fn new(text: &str, store: bool) -> Self {
        Self { said: vec![text.to_owned()], store }
    }

    fn then(&self, answer: &str, text: &str) -> Self {
        let mut said = self.said.clone();
        said.extend([answer.to_owned(), text.to_owned()]);
        Self { said, store: self.store }
    }

    fn body(&self, more: &str) -> String {
        let roles = ["user", "assistant"].into_iter().cycle();
        let items: Vec<String> = (roles.zip(&self.said))
            .map(|(role, text)| format!(r#"{{"role":"{role}","content":"{text}"}}"#))
            .collect();
        format!(r#"{{"model":"m","store":{}{more},"input":[{}]}}"#, self.store, items.join(","))
    }
}

impl Heart {
    fn new(limits: Limits) -> Self {
        let key = Key::new([4; 32]);
        let account = key.hasher("account").finish();
        Self { core: Core::new(key, limits, false, 1 << 20), now: Instant::now(), account }
    }

    fn lanes(lanes: u32) -> Self {
        let in_flight = if lanes == 0 { 1 } else { 16 };
        Self::new(Limits { lanes, in_flight, jitter: Duration::ZERO, ..Limits::default() })
    }

    fn read(&self, body: &str) -> Request {
        Request::parse(self.core.key(), &self.account, Bytes::copy_from_slice(body.as_bytes()), &[])
            .expect(body)
    }

    fn place(&mut self, talk: &Talk) -> Placement {
        let request = self.read(&talk.body(""));
        self.core.begin(self.now, &self.account, &request, &Wish::default())
    }

    fn begin(&mut self, talk: &Talk) -> Ticket {
        match self.place(talk) {
            Placement::Wire(ticket) => ticket,
            Placement::Http(reason, _) => panic!("http: {reason}"),
        }
    }

    fn send(&mut self, ticket: &Ticket) {
        if ticket.open {
            self.core.opened(self.now, ticket.connection);
        }
        assert!(self.core.sending(self.now, ticket.connection, ticket.turn));
    }

    fn hear(&mut self, ticket: &Ticket, event: &str) {
        let lane = ticket.lane.name().map(|name| format!(r#","stream_id":"{name}""#)).unwrap_or_default();
        let text = format!(r#"{{"type":{event}{lane}}}"#);
        self.core.event(self.now, ticket.connection, &Event::parse(Bytes::from(text)).expect("an event"));
    }

    fn settle(&mut self, talk: &Talk, ticket: &Ticket, response: &str, answer: &str) {
        let output = format!(r#"[{{"type":"message","role":"assistant","content":"{answer}"}}]"#);
        let echo = Listener::default().finish(self.core.key(), Some(&output));
        let request = self.read(&talk.body(""));
        self.core.settle(self.now, ticket.turn, &request, response, echo);
    }

    /// A whole turn: its ticket. The model answers with the response's id.
    fn turn(&mut self, talk: &Talk, response: &str) -> Ticket {
        let ticket = self.begin(talk);
        self.send(&ticket);
        self.hear(&ticket, r#""response.completed""#);
        self.settle(talk, &ticket, response, response);
        ticket
    }
}

fn previous(ticket: &Ticket) -> Option<&str> {
    match &ticket.plan {
        Plan::Delta { previous, .. } => Some(previous),
        Plan::Full { .. } => None,
    }
}

fn reason(ticket: &Ticket) -> Option<Reason> {
    match &ticket.plan {
        Plan::Delta { .. } => None,
        Plan::Full { reason, .. } => Some(reason.clone()),
    }
}

#[test]
fn a_conversation_stays_on_its_lane() {
    for lanes in [0, 32] {
        let mut heart = Heart::lanes(lanes);
        let mut talk = Talk::new("a", false);
        let first = heart.turn(&talk, "r0");
        assert!(first.open);
        for n in 1..4 {
            talk = talk.then(&format!("r{}", n - 1), "more");
            let ticket = heart.turn(&talk, &format!("r{n}"));
            assert_eq!((ticket.connection, ticket.lane, ticket.open), (first.connection, first.lane, false));
            assert_eq!(previous(&ticket), Some(&*format!("r{}", n - 1)));
        }
        assert_eq!((heart.core.sockets(), heart.core.turns()), (1, 0));
    }
}

#[test]
fn conversations_share_a_socket_by_lanes_and_take_sockets_without() {
    for (lanes, sockets) in [(0, 3), (32, 1)] {
        let mut heart = Heart::lanes(lanes);
        let tickets: Vec<Ticket> =
            ["a", "b", "c"].iter().map(|text| heart.begin(&Talk::new(text, false))).collect();
        assert_eq!(heart.core.sockets(), sockets, "{lanes} lanes");
        assert_eq!(tickets.iter().filter(|ticket| ticket.open).count(), sockets);
    }
}

#[test]
fn f16_a_branching_conversation_forks_and_its_parent_is_held() {
    let mut heart = Heart::lanes(32);
    let start = Talk::new("a", false);
    heart.turn(&start, "r0");
    let (left, right) = (start.then("r0", "left"), start.then("r0", "right"));
    let advanced = heart.turn(&left, "r1");
    let fresh = heart.turn(&right, "r2");
    assert_eq!(reason(&fresh), Some(Reason::LaneAdvanced), "its parent's lane has gone on");
    assert_eq!(fresh.connection, advanced.connection, "the prompt cache is there");
    // From now on it is known to branch: its turns fork, so that the parent stays.
    let one = heart.begin(&right.then("r2", "x"));
    assert_eq!(previous(&one), Some("r2"));
    assert_ne!(one.lane, fresh.lane);
    let two = heart.begin(&right.then("r2", "y"));
    assert_eq!(previous(&two), Some("r2"));
    assert!(two.lane != fresh.lane && two.lane != one.lane);
    let parent = heart.core.connections[&one.connection].lane(fresh.lane).expect("a lane");
    assert_eq!(parent.holds, 2);
    heart.send(&one);
    heart.hear(&one, r#""response.in_progress""#);
    heart.core.abandon(heart.now, two.turn);
    let parent = heart.core.connections[&one.connection].lane(fresh.lane).expect("a lane");
    assert_eq!((parent.holds, parent.head().is_some()), (0, true), "both forks are under way, or gone");
}

#[test]
fn what_is_stored_is_continued_elsewhere_until_it_is_not_found_there() {
    let mut heart = Heart::lanes(32);
    let start = Talk::new("a", true);
    heart.turn(&start, "r0");
    heart.turn(&start.then("r0", "left"), "r1");
    let right = start.then("r0", "right");
    let away = heart.begin(&right);
    assert_eq!(previous(&away), Some("r0"));
    heart.send(&away);
    heart.hear(&away, r#""error","error":{"code":"previous_response_not_found"}"#);
    heart.core.end(heart.now, away.turn, true);
    assert_eq!(reason(&heart.begin(&right)), Some(Reason::LaneAdvanced), "this scope does not store");
}

#[test]
fn f77_limits_are_kept_by_giving_up_the_oldest_and_then_by_http() {
    let limits = Limits { lanes: 0, in_flight: 1, sockets_per_account: 2, ..Limits::default() };
    let mut heart = Heart::new(limits);
    let (a, b, c) = (Talk::new("a", false), Talk::new("b", false), Talk::new("c", false));
    let old = heart.turn(&a, "r0");
    heart.now += Duration::from_secs(1);
    heart.turn(&b, "r1");
    heart.now += Duration::from_secs(1);
    let third = heart.begin(&c);
    assert_eq!((third.connection, third.open), (old.connection, false), "the oldest idle conversation's");
    assert_eq!(reason(&heart.begin(&a.then("r0", "x"))), Some(Reason::LaneAdvanced));
    assert!(matches!(heart.place(&b.then("r1", "x")), Placement::Http(Reason::Busy, None)));
    assert_eq!(heart.core.sockets(), 2);
}

#[test]
fn an_old_conversation_gives_up_its_lane_before_a_socket_is_opened() {
    let mut heart = Heart::lanes(1);
    let first = heart.turn(&Talk::new("a", false), "r0");
    assert!(heart.begin(&Talk::new("b", false)).open, "it is not old yet");
    heart.now += heart.core.limits().keep_head;
    let third = heart.begin(&Talk::new("c", false));
    assert_eq!((third.connection, third.lane, third.open), (first.connection, first.lane, false));
}

#[test]
fn a_large_frame_goes_on_a_socket_of_its_own() {
    let limits = Limits { own_socket_frame: 1000, frame: 5000, ..Limits::default() };
    let mut heart = Heart::new(limits);
    heart.turn(&Talk::new("a", false), "r0");
    let large = Talk::new(&"x".repeat(2000), false);
    let alone = heart.turn(&large, "r1");
    assert!(alone.open);
    let again = heart.begin(&Talk::new(&"y".repeat(1900), false));
    assert_eq!((again.connection, again.open), (alone.connection, false), "it has taken as much before");
    assert!(matches!(
        heart.place(&Talk::new(&"z".repeat(6000), false)),
        Placement::Http(Reason::TooLarge, None)
    ));
}

#[test]
fn an_aged_socket_is_left_and_a_lost_one_forgotten() {
    let mut heart = Heart::lanes(32);
    let talk = Talk::new("a", false);
    let first = heart.turn(&talk, "r0");
    heart.now += heart.core.limits().rotate_after;
    let moved = heart.begin(&talk.then("r0", "x"));
    assert_eq!(reason(&moved), Some(Reason::SocketAged));
    assert_ne!(moved.connection, first.connection);
    let mut heart = Heart::lanes(32);
    let first = heart.turn(&talk, "r0");
    heart.core.lost(first.connection, &Fault::SocketLost(None));
    heart.core.closed(heart.now, first.connection);
    assert_eq!(reason(&heart.begin(&talk.then("r0", "x"))), Some(Reason::SocketLost));
}

#[test]
fn an_abandoned_turn_that_was_not_sent_gives_the_lane_back() {
    let mut heart = Heart::lanes(32);
    let talk = Talk::new("a", false);
    heart.turn(&talk, "r0");
    let next = talk.then("r0", "x");
    let gone = heart.begin(&next);
    heart.core.abandon(heart.now, gone.turn);
    assert_eq!(previous(&heart.begin(&next)), Some("r0"));
}

#[test]
fn a_client_that_chains_by_itself_takes_the_lane_or_goes_over_http_and_leaves_nothing() {
    let mut heart = Heart::lanes(32);
    let talk = Talk::new("a", true);
    let first = heart.turn(&talk, "r0");
    let anchored = heart.read(&Talk::new("x", true).body(r#","previous_response_id":"r0""#));
    let begin = |heart: &mut Heart| heart.core.begin(heart.now, &heart.account, &anchored, &Wish::default());
    let Placement::Wire(ticket) = begin(&mut heart) else { panic!("on its lane") };
    assert_eq!((ticket.connection, ticket.lane), (first.connection, first.lane));
    assert!(matches!(&ticket.plan, Plan::Full { previous: Some(previous), .. } if &**previous == "r0"));
    assert!(matches!(begin(&mut heart), Placement::Http(Reason::ClientAnchor, None)), "the lane has gone on");
    heart.core.lost(first.connection, &Fault::SocketLost(None));
    heart.core.closed(heart.now, first.connection);
    assert!(matches!(begin(&mut heart), Placement::Http(Reason::ClientAnchor, None)));
    assert_eq!(heart.core.sockets(), 0, "no socket that nobody opens");
}

#[test]
fn a_lane_whose_ending_is_not_settled_is_not_given_away() {
    let mut heart = Heart::lanes(0);
    let talk = Talk::new("a", false);
    let ticket = heart.begin(&talk);
    heart.send(&ticket);
    heart.hear(&ticket, r#""response.completed""#);
    // Another turn of this conversation recovers, and would like the socket it was on.
    let wish = Wish { full: Some(Reason::NotFound), prefer: Some(ticket.connection), ..Wish::default() };
    let request = heart.read(&talk.body(""));
    let Placement::Wire(other) = heart.core.begin(heart.now, &heart.account, &request, &wish) else {
        panic!("on a socket")
    };
    assert!(other.open && other.connection != ticket.connection);
}

#[test]
fn a_probe_needs_room_and_is_due_once() {
    let limits = Limits { lanes: 0, in_flight: 1, sockets_per_account: 1, ..Limits::default() };
    let mut heart = Heart::new(limits);
    let talk = Talk::new("a", true);
    let refused = heart.begin(&talk);
    heart.core.refused(heart.now, refused.connection, Refusal::Failure);
    heart.core.abandon(heart.now, refused.turn);
    assert!(matches!(heart.place(&talk), Placement::Http(Reason::NoSocket, None)), "too early");
    heart.now += Duration::from_secs(1);
    let anchored = heart.read(&talk.body(r#","previous_response_id":"r0""#));
    let placed = heart.core.begin(heart.now, &heart.account, &anchored, &Wish::default());
    assert!(matches!(placed, Placement::Http(Reason::ClientAnchor, None)), "it opens none, so it takes none");
    let Placement::Http(Reason::NoSocket, Some(probe)) = heart.place(&talk) else { panic!("a probe") };
    assert!(matches!(heart.place(&talk), Placement::Http(Reason::NoSocket, None)), "only one");
    heart.core.refused(heart.now, probe, Refusal::Failure);
    heart.core.closed(heart.now, probe);
    heart.core.closed(heart.now, refused.connection);
    assert_eq!(heart.core.sockets(), 0);
}

#[test]
fn a_probe_that_ends_without_a_word_has_failed() {
    let mut heart = Heart::lanes(32);
    let talk = Talk::new("a", true);
    let died = heart.begin(&talk);
    heart.core.closed(heart.now, died.connection);
    heart.core.abandon(heart.now, died.turn);
    for wait in [1, 2, 4] {
        assert!(matches!(heart.place(&talk), Placement::Http(Reason::NoSocket, None)), "too early");
        heart.now += Duration::from_secs(wait);
        let Placement::Http(Reason::NoSocket, Some(probe)) = heart.place(&talk) else { panic!("a probe") };
        heart.core.closed(heart.now, probe);
    }
    heart.now += Duration::from_secs(8);
    let Placement::Http(Reason::NoSocket, Some(probe)) = heart.place(&talk) else { panic!("a probe") };
    heart.core.opened(heart.now, probe);
    assert_eq!(heart.begin(&talk).connection, probe);
    heart.core.closed(heart.now, probe);
    assert!(heart.begin(&talk).open, "one that had opened says nothing about the next");
}

#[test]
fn f77_a_fan_out_of_single_calls_does_not_drive_out_the_conversation_that_waits_for_it() {
    let limits = Limits { lanes: 0, in_flight: 1, sockets_per_account: 3, ..Limits::default() };
    let mut heart = Heart::new(limits);
    let main = Talk::new("a", false);
    heart.turn(&main, "r0");
    let main = main.then("r0", "spawn");
    heart.turn(&main, "r1");
    for n in 0..20 {
        heart.now += Duration::from_secs(1);
        heart.turn(&Talk::new(&format!("single {n}"), false), &format!("s{n}"));
    }
    assert_eq!(previous(&heart.begin(&main.then("r1", "and so?"))), Some("r1"));
    // Past its time it is a conversation like any other.
    let mut heart =
        Heart::new(Limits { lanes: 0, in_flight: 1, sockets_per_account: 1, ..Limits::default() });
    let main = Talk::new("a", false);
    heart.turn(&main, "r0");
    heart.turn(&main.then("r0", "spawn"), "r1");
    heart.now += heart.core.limits().keep_head;
    heart.turn(&Talk::new("single", false), "s");
    assert_eq!(
        reason(&heart.begin(&main.then("r0", "spawn").then("r1", "late"))),
        Some(Reason::LaneAdvanced)
    );
}

#[test]
fn f27_a_response_whose_continuation_was_waited_for_in_vain_is_not_continued_again() {
    for (silence, answered, expected) in [(5, false, None), (4, false, Some("r0")), (60, true, Some("r0"))] {
        let mut heart = Heart::lanes(32);
        let talk = Talk::new("a", true);
        heart.turn(&talk, "r0");
        let next = talk.then("r0", "x");
        let ticket = heart.begin(&next);
        assert_eq!(previous(&ticket), Some("r0"));
        heart.send(&ticket);
        if answered {
            heart.hear(&ticket, r#""response.created""#);
        }
        // The client's own patience ends first.
        heart.now += Duration::from_secs(silence);
        heart.core.abandon(heart.now, ticket.turn);
        assert_eq!(previous(&heart.begin(&next)), expected, "after {silence} s");
    }
}
