//! One socket told a story, line by line: where its events go, what it asks for, when it closes.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::proto::digest::Key;
use crate::proto::id::HeadId;
use crate::proto::wire::error::ErrorClass;

const A: TurnId = TurnId(1);
const B: TurnId = TurnId(2);

struct Socket {
    connection: Connection,
    limits: Limits,
    now: Instant,
}

impl Socket {
    fn new(lanes: u32) -> Self {
        let (limits, now) = (Limits::default(), Instant::now());
        let account = Key::new([0; 32]).hasher("account").finish();
        let mut connection = Connection::new(now, ConnectionId(0), account, &limits, lanes);
        connection.handle_open(now);
        Self { connection, limits, now }
    }

    /// A turn on a lane of its own, its frame sent.
    fn send(&mut self, turn: TurnId) -> LaneId {
        let lane = self.connection.new_lane(self.now).expect("a lane is left");
        assert!(self.connection.reserve(self.now, lane, turn, 100));
        assert!(self.connection.handle_send(self.now, turn));
        lane
    }

    fn hear(&mut self, lane: LaneId, event: &str) -> Verdict {
        let stream_id = lane.name().map(|name| format!(r#","stream_id":"{name}""#)).unwrap_or_default();
        self.hear_text(&format!(r#"{{{event}{stream_id}}}"#))
    }

    fn hear_text(&mut self, text: &str) -> Verdict {
        let event = Event::parse(Bytes::copy_from_slice(text.as_bytes())).expect("an event");
        self.connection.handle_event(self.now, &event)
    }

    fn wait(&mut self, wait: Duration) {
        self.now += wait;
        self.connection.handle_timeout(self.now, &self.limits);
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.connection.poll_action()).collect()
    }
}

const CREATED: &str = r#""type":"response.created""#;
const COMPLETED: &str = r#""type":"response.completed""#;
const FAILED: &str = r#""type":"response.failed""#;
const ERROR: &str = r#""type":"error","error":{"code":"server_error","message":"m"}"#;
const NOT_FOUND: &str = r#""type":"error","error":{"code":"previous_response_not_found","message":"m"}"#;

#[test]
fn an_event_goes_to_the_turn_of_its_lane() {
    let mut socket = Socket::new(32);
    let (a, b) = (socket.send(A), socket.send(B));
    assert_eq!(socket.hear(b, CREATED), Verdict::Deliver(B));
    assert_eq!(socket.hear(a, CREATED), Verdict::Deliver(A));
    assert_eq!(socket.hear(a, COMPLETED), Verdict::Deliver(A));
    assert_eq!(socket.hear(b, r#""type":"codex.rate_limits""#), Verdict::Drop);
    assert_eq!(socket.connection.handle_settled(socket.now, A, Some(HeadId(7))), Some(a));
    assert_eq!(socket.connection.lane(a).and_then(Lane::head), Some(HeadId(7)));
    assert_eq!(socket.actions(), []);
}

#[test]
fn what_nobody_asked_for_ends_the_socket() {
    for text in [
        r#"{"type":"response.created","stream_id":"agent"}"#,
        r#"{"type":"response.created","stream_id":"tw9"}"#,
        r#"{"type":"response.created"}"#,
    ] {
        let mut socket = Socket::new(32);
        let lane = socket.send(A);
        socket.hear(lane, CREATED);
        let idle = socket.connection.new_lane(socket.now).expect("a lane");
        assert_eq!(idle.name().as_deref(), Some("tw1"));
        assert_eq!(socket.hear_text(text), Verdict::Drop, "{text}");
        assert_eq!(socket.actions(), [Action::Fault(A, Fault::Desynchronised), Action::Close], "{text}");
        assert!(socket.connection.is_closed());
    }
}

#[test]
fn f60_a_tail_on_a_lane_whose_next_frame_is_not_sent_yet_ends_the_socket() {
    let mut socket = Socket::new(32);
    let lane = socket.send(A);
    socket.hear(lane, COMPLETED);
    socket.connection.handle_settled(socket.now, A, None);
    assert!(socket.connection.reserve(socket.now, lane, B, 1));
    assert_eq!(socket.hear(lane, COMPLETED), Verdict::Drop, "never B's answer");
    assert_eq!(socket.actions(), [Action::Fault(B, Fault::SocketLost(None)), Action::Close]);
}

#[test]
fn content_on_an_idle_lane_ends_that_lane_and_lets_the_neighbours_finish() {
    let mut socket = Socket::new(32);
    let (a, b) = (socket.send(A), socket.send(B));
    socket.hear(a, COMPLETED);
    socket.connection.handle_settled(socket.now, A, Some(HeadId(1)));
    assert_eq!(socket.hear(a, r#""type":"response.output_text.delta""#), Verdict::Drop);
    assert_eq!((socket.actions(), socket.connection.lane(a).and_then(Lane::head)), (vec![], None));
    assert!(socket.connection.is_retired(socket.now) && !socket.connection.is_closed());
    assert_eq!(socket.hear(b, COMPLETED), Verdict::Deliver(B));
    socket.connection.handle_settled(socket.now, B, None);
    assert_eq!(socket.actions(), [Action::Close]);
}

#[test]
fn a_refused_size_is_told_to_the_turn_it_is_about() {
    let mut socket = Socket::new(32);
    socket.send(A);
    let large = socket.connection.new_lane(socket.now).expect("a lane");
    socket.connection.reserve(socket.now, large, B, 5000);
    socket.connection.handle_send(socket.now, B);
    let is_it = |lane: &Lane| matches!(lane.state, State::Waiting { frame: 5000, .. });
    socket.connection.handle_too_big(is_it, &Fault::SocketLost(Some(1009)));
    let told =
        [Action::Fault(A, Fault::SocketLost(Some(1009))), Action::Fault(B, Fault::TooBig), Action::Close];
    assert_eq!(socket.actions(), told);
}

#[test]
fn a_server_that_ignores_names_is_understood_and_serves_one_at_a_time() {
    let mut socket = Socket::new(32);
    let lane = socket.send(A);
    assert_eq!(socket.hear_text(&format!("{{{CREATED}}}")), Verdict::Deliver(A));
    assert!(socket.connection.is_nameless() && !socket.connection.accepts(socket.now));
    assert_eq!(socket.hear_text(&format!("{{{COMPLETED}}}")), Verdict::Deliver(A));
    assert_eq!(socket.connection.handle_settled(socket.now, A, Some(HeadId(1))), Some(lane));
    assert!(socket.connection.accepts(socket.now) && !socket.connection.has_new_lane());

    let mut two = Socket::new(32);
    two.send(A);
    two.send(B);
    assert_eq!(two.hear_text(&format!("{{{CREATED}}}")), Verdict::Drop, "whose?");
    let lost = Fault::Desynchronised;
    assert_eq!(two.actions(), [Action::Fault(A, lost.clone()), Action::Fault(B, lost), Action::Close]);
    assert!(two.connection.is_nameless());
}

#[test]
fn a_late_answer_without_a_name_is_never_another_turn_s() {
    for silent in [true, false] {
        let mut socket = Socket::new(4);
        socket.send(A);
        let lane = socket.connection.new_lane(socket.now).expect("a lane is left");
        assert!(socket.connection.reserve(socket.now, lane, B, 100));
        if silent {
            socket.wait(socket.limits.first_event);
            socket.connection.handle_heard(socket.now);
            socket.wait(Duration::ZERO);
            assert!(socket.actions().contains(&Action::Fault(A, Fault::Silent)));
        } else {
            assert_eq!(socket.hear_text(&format!("{{{ERROR}}}")), Verdict::Deliver(A));
        }
        assert!(socket.connection.handle_send(socket.now, B));
        // Of A, for all anybody can tell: a server that ignores names does not say.
        assert_eq!(socket.hear_text(&format!("{{{FAILED}}}")), Verdict::Drop, "{silent}");
        assert_eq!(socket.actions(), [Action::Fault(B, Fault::Desynchronised), Action::Close]);
    }
}

#[test]
fn an_error_without_a_lane_is_everybodys_who_has_heard_nothing() {
    let mut socket = Socket::new(32);
    let (a, b) = (socket.send(A), socket.send(B));
    socket.hear(a, CREATED);
    assert_eq!(socket.hear_text(&format!("{{{ERROR}}}")), Verdict::Drop);
    assert_eq!(socket.actions(), [Action::Fault(B, Fault::SocketLost(None))]);
    assert!(!socket.connection.accepts(socket.now));
    assert_eq!(socket.hear(b, CREATED), Verdict::Drop, "what still comes for it is nobody's");
    assert_eq!(socket.hear(a, COMPLETED), Verdict::Deliver(A));
    socket.connection.handle_settled(socket.now, A, None);
    assert_eq!(socket.actions(), [Action::Close]);
}

#[test]
fn lanes_refused_without_naming_one_is_told_to_all_as_it_is() {
    let mut socket = Socket::new(32);
    socket.send(A);
    socket.send(B);
    let refusal = r#"{"type":"error","status":400,"error":{"code":"unsupported_parameter","message":"Unsupported parameter: stream_id","param":"stream_id"}}"#;
    assert_eq!(socket.hear_text(refusal), Verdict::Drop);
    let told = socket.actions();
    let class = |action: &Action| match action {
        Action::Fault(turn, Fault::Provider(error)) => Some((*turn, error.class)),
        _ => None,
    };
    let refused = ErrorClass::LaneRefused;
    assert_eq!(told.iter().filter_map(class).collect::<Vec<_>>(), [(A, refused), (B, refused)]);
    assert_eq!(told.last(), Some(&Action::Close));
}

#[test]
fn an_error_without_a_lane_is_the_only_turn_s() {
    let mut socket = Socket::new(32);
    let lane = socket.send(A);
    // A turn whose frame has not gone out cannot be meant.
    let waiting = socket.connection.new_lane(socket.now).expect("a lane is left");
    assert!(socket.connection.reserve(socket.now, waiting, B, 100));
    socket.hear(lane, CREATED);
    assert_eq!(socket.hear_text(&format!("{{{ERROR}}}")), Verdict::Deliver(A));
    assert!(socket.connection.is_retired(socket.now));
    assert_eq!(socket.actions(), []);
}

#[test]
fn f39_after_an_error_its_lane_is_burnt_and_without_lanes_the_socket() {
    for (lanes, accepts) in [(32, true), (0, false)] {
        let mut socket = Socket::new(lanes);
        let lane = socket.send(A);
        assert_eq!(socket.hear(lane, ERROR), Verdict::Deliver(A));
        assert_eq!(socket.connection.accepts(socket.now), accepts, "{lanes} lanes");
        assert_eq!(socket.hear(lane, FAILED), Verdict::Drop, "the second ending of one turn");
        assert!(!socket.connection.reserve(socket.now, lane, B, 1), "nor is it used again");
    }
    let mut socket = Socket::new(0);
    let lane = socket.send(A);
    assert_eq!(socket.hear(lane, NOT_FOUND), Verdict::Deliver(A));
    socket.connection.handle_settled(socket.now, A, None);
    assert!(
        socket.connection.reserve(socket.now, lane, B, 1),
        "a plain not-found leaves the socket as it was"
    );
}

#[test]
fn a_turn_abandoned_before_it_is_sent_leaves_its_lane_as_it_was() {
    let mut socket = Socket::new(32);
    let lane = socket.send(A);
    socket.hear(lane, COMPLETED);
    socket.connection.handle_settled(socket.now, A, Some(HeadId(3)));
    assert!(socket.connection.reserve(socket.now, lane, B, 1));
    assert_eq!(socket.connection.lane(lane).and_then(Lane::head), None, "taken");
    assert_eq!(socket.connection.handle_abandoned(socket.now, B), Some((lane, HeadId(3))));
    assert!(!socket.connection.handle_send(socket.now, B), "nobody waits for it");
    assert_eq!(socket.connection.lane(lane).and_then(Lane::head), Some(HeadId(3)));
}

#[test]
fn a_socket_nobody_listens_to_closes_and_a_shared_one_retires_after_the_grace() {
    let mut alone = Socket::new(32);
    alone.send(A);
    assert_eq!(alone.connection.handle_abandoned(alone.now, A), None);
    assert_eq!(alone.actions(), [Action::Close]);

    let mut shared = Socket::new(32);
    let (a, b) = (shared.send(A), shared.send(B));
    shared.connection.handle_abandoned(shared.now, A);
    assert_eq!(shared.hear(a, CREATED), Verdict::Drop, "read, and not passed on");
    shared.wait(Duration::from_secs(4));
    assert!(shared.connection.accepts(shared.now));
    shared.wait(Duration::from_secs(1));
    assert!(!shared.connection.accepts(shared.now));
    assert_eq!(shared.hear(b, COMPLETED), Verdict::Deliver(B));
    shared.connection.handle_settled(shared.now, B, None);
    assert!(shared.connection.is_closed(), "with the last one listened to");

    let mut ended = Socket::new(32);
    let a = ended.send(A);
    ended.send(B);
    ended.connection.handle_abandoned(ended.now, A);
    assert_eq!(ended.hear(a, COMPLETED), Verdict::Drop);
    assert!(ended.connection.lane(a).is_some_and(Lane::is_empty), "it serves again, remembering nothing");
    ended.wait(Duration::from_secs(9));
    assert!(ended.connection.accepts(ended.now), "it ended within its grace");
}

#[test]
fn each_abandoned_turn_has_a_grace_of_its_own() {
    const C: TurnId = TurnId(3);
    let mut socket = Socket::new(32);
    let (a, b, c) = (socket.send(A), socket.send(B), socket.send(C));
    let start = socket.now;
    socket.connection.handle_abandoned(socket.now, A);
    socket.wait(Duration::from_secs(3));
    socket.connection.handle_abandoned(socket.now, B);
    assert_eq!(socket.connection.poll_timeout(&socket.limits), Some(start + Duration::from_secs(5)), "A's");
    assert_eq!(socket.hear(a, COMPLETED), Verdict::Drop, "it ended within its grace");
    assert_eq!(socket.connection.poll_timeout(&socket.limits), Some(start + Duration::from_secs(8)), "B's");
    socket.wait(Duration::from_secs(4));
    assert!(socket.connection.accepts(socket.now), "B left three seconds after A");
    socket.wait(Duration::from_secs(1));
    assert!(!socket.connection.accepts(socket.now) && !socket.connection.is_closed());
    assert!(
        socket.connection.poll_timeout(&socket.limits).is_some_and(|at| at > socket.now),
        "it is over once"
    );
    assert_eq!(socket.hear(b, CREATED), Verdict::Drop);
    assert_eq!(socket.hear(c, COMPLETED), Verdict::Deliver(C));
    socket.connection.handle_settled(socket.now, C, None);
    assert_eq!(socket.actions(), [Action::Close], "with the last one listened to");
}

#[test]
fn a_turn_whose_ending_is_not_yet_read_listens_still() {
    let mut socket = Socket::new(32);
    let (a, b) = (socket.send(A), socket.send(B));
    socket.hear(a, COMPLETED);
    socket.connection.handle_abandoned(socket.now, B);
    assert_eq!(socket.actions(), []);
    assert_eq!(socket.connection.handle_settled(socket.now, A, Some(HeadId(1))), Some(a));
    assert_eq!(socket.connection.lane(a).and_then(Lane::head), Some(HeadId(1)), "A goes on from here");
    assert_eq!(socket.hear(b, CREATED), Verdict::Drop);
    socket.wait(socket.limits.abandon_grace);
    assert_eq!(socket.actions(), [Action::Close], "but B is read for no longer than its grace");

    let mut unread = Socket::new(32);
    let a = unread.send(A);
    unread.send(B);
    unread.hear(a, COMPLETED);
    unread.connection.handle_abandoned(unread.now, B);
    assert_eq!(unread.actions(), []);
    assert_eq!(unread.connection.handle_abandoned(unread.now, A), None);
    assert_eq!(unread.actions(), [Action::Close], "A never read it, and nobody listens to B");

    let mut done = Socket::new(32);
    let a = done.send(A);
    done.hear(a, COMPLETED);
    assert_eq!(done.connection.handle_abandoned(done.now, A), None);
    assert_eq!(done.actions(), [], "nothing is generated: the socket serves on");
    assert!(done.connection.lane(a).is_some_and(Lane::is_empty), "and remembers nothing of A");
}

#[test]
fn f49_silence_ends_a_turn_and_retires_its_socket() {
    for (events, limit) in [(&[][..], Limits::default().first_event), (&[CREATED], Limits::default().silence)]
    {
        let mut socket = Socket::new(32);
        let lane = socket.send(A);
        for event in events {
            socket.hear(lane, event);
        }
        socket.now += limit;
        socket.connection.handle_heard(socket.now);
        assert!(socket.connection.poll_timeout(&socket.limits).is_some_and(|at| at <= socket.now));
        socket.wait(Duration::ZERO);
        assert_eq!(socket.actions(), [Action::Fault(A, Fault::Silent), Action::Close]);
    }
    let mut unsent = Socket::new(32);
    let lane = unsent.connection.new_lane(unsent.now).expect("a lane");
    unsent.connection.reserve(unsent.now, lane, A, 1);
    unsent.now += Duration::from_secs(120);
    unsent.connection.handle_heard(unsent.now);
    unsent.wait(Duration::ZERO);
    assert_eq!(unsent.actions(), [], "what was not sent cannot be answered");
}

#[test]
fn f40_an_old_or_rested_socket_closes_when_its_last_turn_ends() {
    let mut old = Socket::new(32);
    let lane = old.send(A);
    old.hear(lane, CREATED);
    old.now += old.limits.rotate_after;
    assert!(old.connection.is_retired(old.now) && !old.connection.accepts(old.now));
    old.connection.handle_heard(old.now);
    old.hear(lane, r#""type":"response.output_text.delta""#);
    old.wait(Duration::ZERO);
    assert_eq!(old.actions(), []);
    old.hear(lane, COMPLETED);
    assert_eq!(old.actions(), [], "its ending is not yet settled");
    old.connection.handle_settled(old.now, A, None);
    assert_eq!(old.actions(), [Action::Close]);

    let mut rested = Socket::new(32);
    rested.now += rested.limits.idle;
    rested.connection.handle_heard(rested.now);
    rested.wait(Duration::ZERO);
    assert_eq!(rested.actions(), [Action::Close]);
}

#[test]
fn a_lost_socket_tells_its_turns_once() {
    let mut socket = Socket::new(32);
    let lane = socket.send(A);
    socket.send(B);
    socket.hear(lane, COMPLETED);
    socket.connection.handle_lost(&Fault::SocketLost(Some(1006)));
    socket.connection.handle_lost(&Fault::Desynchronised);
    assert_eq!(socket.actions(), [Action::Fault(B, Fault::SocketLost(Some(1006))), Action::Close]);
}

#[test]
fn a_refused_frame_is_the_largest_above_all_that_were_taken() {
    let mut socket = Socket::new(32);
    let taken = socket.send(A);
    socket.hear(taken, CREATED);
    assert_eq!((socket.connection.largest_frame(), socket.connection.refused_frame()), (100, None));
    for (n, frame) in [(10, 90), (11, 5000), (12, 3000)] {
        let lane = socket.connection.new_lane(socket.now).expect("a lane");
        socket.connection.reserve(socket.now, lane, TurnId(n), frame);
        socket.connection.handle_send(socket.now, TurnId(n));
    }
    assert_eq!(socket.connection.refused_frame(), Some(5000));
}

#[test]
fn limits_of_lanes_and_turns_in_flight() {
    let mut socket = Socket::new(32);
    for n in 0..16 {
        assert!(socket.connection.accepts(socket.now), "{n} in flight");
        socket.send(TurnId(n));
    }
    assert!(!socket.connection.accepts(socket.now));
    for _ in 16..32 {
        assert!(socket.connection.new_lane(socket.now).is_some());
    }
    assert!(!socket.connection.has_new_lane() && socket.connection.new_lane(socket.now).is_none());

    let mut single = Socket::new(0);
    assert_eq!(single.send(A), LaneId::Default);
    assert!(!single.connection.accepts(single.now) && single.connection.new_lane(single.now).is_none());
    socket.connection.handle_lag(true);
    assert!(!socket.connection.accepts(socket.now));
}

#[test]
fn a_fork_holds_its_parent_until_it_is_under_way() {
    for release in ["event", "abandoned", "settled"] {
        let mut socket = Socket::new(32);
        let parent = socket.connection.new_lane(socket.now).expect("a lane");
        socket.send(A);
        socket.connection.hold(A, parent);
        assert!(!socket.connection.reserve(socket.now, parent, B, 1), "held");
        match release {
            "event" => {
                socket.hear(LaneId::Named(1), CREATED);
                assert!(!socket.connection.reserve(socket.now, parent, B, 1), "created is too soon");
                socket.hear(LaneId::Named(1), r#""type":"response.in_progress""#);
            }
            "abandoned" => _ = socket.connection.handle_abandoned(socket.now, A),
            _ => _ = socket.connection.handle_settled(socket.now, A, None),
        }
        assert!(socket.connection.reserve(socket.now, parent, B, 1), "{release}");
    }
}

#[test]
fn f61_a_client_that_leaves_with_its_end_already_read_leaves_a_lane_that_holds_nothing() {
    for lanes in [32, 0] {
        let mut socket = Socket::new(lanes);
        let lane = socket.send(A);
        assert_eq!(socket.hear(lane, CREATED), Verdict::Deliver(A));
        // Everything is queued for its reader, up to the end; the reader leaves before it has read that.
        assert_eq!(socket.hear(lane, COMPLETED), Verdict::Deliver(A));
        assert_eq!(socket.connection.handle_abandoned(socket.now, A), None);
        assert_eq!(socket.connection.handle_settled(socket.now, A, Some(HeadId(1))), None);
        assert!(socket.connection.lane(lane).is_some_and(Lane::is_empty), "nothing to be continued");
        // The end was read, so the lane is clean; what comes next is the next turn's, and what comes before it is not.
        assert!(socket.connection.reserve(socket.now, lane, B, 1));
        assert_eq!(socket.hear(lane, COMPLETED), Verdict::Drop, "{lanes} lanes: never B's");
        assert!(!socket.connection.accepts(socket.now));
    }
    // Not yet at its end, it is not clean: nobody is placed there until it is.
    let mut socket = Socket::new(32);
    let lane = socket.send(A);
    socket.send(B);
    socket.hear(lane, CREATED);
    socket.connection.handle_abandoned(socket.now, A);
    assert!(socket.connection.lane(lane).is_some_and(|lane| !lane.is_free()));
    assert_eq!(socket.hear(lane, COMPLETED), Verdict::Drop);
    assert!(socket.connection.lane(lane).is_some_and(Lane::is_empty));
}
