//! One table: what goes wrong and when; what the client then sees, and by which rung. Each row is played with a first
//! turn and a delta, as JSON and as SSE, over lanes and one in flight; the conversation and its neighbour go on after.
//!
//! Refused upgrades are `upgrade.rs`'s.

use serde_json::json;
use tailwire::config::Settings;
use tailwire::sim::ledger::Book;
use tailwire::sim::script::NotFound;
use tailwire::sim::{Fault, Mishap, Moment};

use crate::support::{Agent, Answer, Width, World, ms, until};

/// What a client sees of the turn that something happens to.
#[derive(Clone, Copy, Debug)]
enum Seen {
    /// The right answer, by this many repeats: in full on the same socket, on a new one, over HTTP.
    Right([u64; 3]),
    /// A status with an error's code.
    Status(u16, &'static str),
    /// A response that ended with this status of its own.
    Ended(&'static str),
    /// A stream that ends with the flat error of this code.
    Error(&'static str),
    /// The same, and the body is broken off.
    Broken(&'static str),
}

use Seen::{Broken, Ended, Error, Right, Status};

const CLEAN: Seen = Right([0, 0, 0]);
const SAME: Seen = Right([1, 0, 0]);
const NEW: Seen = Right([0, 1, 0]);
const HTTP: Seen = Right([0, 0, 1]);
const LOST: Seen = Broken("tailwire_socket_lost");
const GARBLED: Seen = Broken("tailwire_desynchronised");

/// One fault, and what it leads to before the first event, then in mid-answer for JSON and for SSE.
struct Row {
    name: &'static str,
    fault: Fault,
    moments: &'static [Moment],
    before: Seen,
    json: Seen,
    sse: Seen,
    /// After the end of a turn it costs the socket.
    fatal: bool,
}

const EVERY: &[Moment] = &[
    Moment::AfterSend,
    Moment::AfterCreated,
    Moment::MidText,
    Moment::MidArguments,
    Moment::AfterLastDelta,
    Moment::AfterTerminal,
    Moment::Idle,
];
/// A reset may take with it what was sent just before, an ending too.
const UNFINISHED: &[Moment] =
    &[Moment::AfterSend, Moment::AfterCreated, Moment::MidText, Moment::MidArguments, Moment::Idle];
/// Once before the first event and once within the answer.
const TWICE: &[Moment] = &[Moment::AfterSend, Moment::MidText];
const THRICE: &[Moment] = &[Moment::AfterSend, Moment::MidText, Moment::Idle];
const AFTER: &[Moment] = &[Moment::AfterTerminal, Moment::Idle];

fn row(name: &'static str, fault: Fault, moments: &'static [Moment], seen: [Seen; 3]) -> Row {
    let [before, json, sse] = seen;
    Row { name, fault, moments, before, json, sse, fatal: true }
}

fn losses() -> Vec<Row> {
    let mut rows = vec![row("reset", Fault::Reset, UNFINISHED, [NEW, NEW, LOST])];
    rows.push(row("close 1000", Fault::Close(1000), EVERY, [NEW, NEW, LOST]));
    // Before the first event it is about the frame's size: `upgrade.rs`. After it the frame was taken: a loss like any other.
    rows.push(row("close 1009", Fault::Close(1009), &[Moment::MidText], [NEW, NEW, LOST]));
    for (name, code) in [("close 1001", 1001), ("close 1011", 1011), ("close 1012", 1012)] {
        rows.push(row(name, Fault::Close(code), TWICE, [NEW, NEW, LOST]));
    }
    for (name, text) in [("garbage: words", "so sorry"), ("garbage: []", "[]"), ("garbage: {}", "{}")] {
        rows.push(row(name, Fault::Garbage(text.to_owned()), TWICE, [NEW, NEW, GARBLED]));
    }
    rows.push(row(
        "garbage: a lane not ours",
        Fault::Garbage(FOREIGN_LANE.to_owned()),
        TWICE,
        [NEW, NEW, GARBLED],
    ));
    rows.push(row("binary", Fault::Binary(vec![1, 2, 3]), THRICE, [NEW, NEW, GARBLED]));
    rows.push(row("spontaneous event", Fault::SpontaneousEvent, AFTER, [CLEAN; 3]));
    rows.push(Row { fatal: false, ..row("ping flood", Fault::PingFlood(200), THRICE, [CLEAN; 3]) });
    rows
}

const FOREIGN_LANE: &str = r#"{"type":"response.output_text.delta","stream_id":"theirs","delta":"x"}"#;

fn errors() -> Vec<Row> {
    let limit = json!({ "type": "error", "status": 429,
        "error": { "type": "requests", "code": "rate_limit_exceeded", "message": "Slow down.", "param": null },
        "headers": { "retry-after": 3, "x-ratelimit-remaining-requests": "0" } });
    let busy = json!({ "type": "error", "status": 503,
        "error": { "type": "server_error", "code": "server_is_overloaded", "message": "Busy." } });
    let flat = json!({ "type": "error", "code": "server_error", "message": "Oh.", "param": null, "sequence_number": 7 });
    let bare = json!({ "error": { "type": "server_error", "message": "Oh." } });
    let aged = json!({ "type": "error", "status": 400, "error": { "type": "invalid_request_error",
        "code": "websocket_connection_limit_reached", "message": "This connection is too old." } });
    let passed = |status, code| [Status(status, code), Status(status, code), Error(code)];
    vec![
        row("rate limit", Fault::Error(limit), TWICE, passed(429, "rate_limit_exceeded")),
        row(
            "overload, twice told",
            Fault::TwoTerminals(busy.clone()),
            TWICE,
            passed(503, "server_is_overloaded"),
        ),
        row("error: flat", Fault::Error(flat), TWICE, passed(500, "server_error")),
        row("error: no type", Fault::Error(bare), TWICE, passed(500, "server_error")),
        row("error: no lane", Fault::ErrorWithoutLane(busy), TWICE, passed(503, "server_is_overloaded")),
        row(
            "connection limit",
            Fault::Error(aged),
            TWICE,
            [NEW, NEW, Error("websocket_connection_limit_reached")],
        ),
        row("failed", Fault::Failed("server_error"), TWICE, [Ended("failed"); 3]),
        row("incomplete", Fault::Incomplete("max_output_tokens"), TWICE, [Ended("incomplete"); 3]),
    ]
}

fn not_found(delta: bool) -> Vec<Row> {
    const CODE: &str = "previous_response_not_found";
    let shapes = [
        ("not found: nested", NotFound::Nested, CODE),
        ("not found: flat", NotFound::Flat, CODE),
        ("not found: no code", NotFound::Codeless, "invalid_request_error"),
        ("not found: status_code", NotFound::StatusCode, CODE),
        ("not found: headers", NotFound::Headers, CODE),
    ];
    let answer = |code| if delta { SAME } else { Status(400, code) };
    let mut rows: Vec<Row> = shapes
        .into_iter()
        .map(|(name, shape, code)| {
            row(name, Fault::NotFound(shape), TWICE, [answer(code), answer(code), Error(code)])
        })
        .collect();
    let failed = if delta { SAME } else { Ended("failed") };
    let seen = [failed, failed, Ended("failed")];
    rows.push(row("not found: failed", Fault::NotFound(NotFound::Failed), TWICE, seen));
    rows
}

#[tokio::test]
async fn a_lost_or_garbled_socket() {
    play(|_| losses(), |_| {}).await;
}

#[tokio::test]
async fn an_error_of_the_provider() {
    play(|_| errors(), |_| {}).await;
}

#[tokio::test]
async fn a_response_that_is_not_found() {
    play(not_found, |_| {}).await;
}

#[tokio::test]
async fn a_turn_never_heard_of_again() {
    let rows = |_| vec![row("silence", Fault::Silence, TWICE, [HTTP, NEW, Broken("tailwire_silent")])];
    let tune = |settings: &mut Settings| {
        settings.timeouts.first_event = ms(300);
        settings.timeouts.silence = ms(300);
    };
    play(rows, tune).await;
}

#[tokio::test]
async fn pings_without_an_answer() {
    let rows = |_| vec![row("no pongs", Fault::IgnorePings, THRICE, [NEW, NEW, LOST])];
    let tune = |settings: &mut Settings| {
        settings.timeouts.ping = ms(150);
        settings.timeouts.pong = ms(300);
    };
    play(rows, tune).await;
}

/// Plays rows in all their forms.
async fn play(rows: impl Fn(bool) -> Vec<Row>, tune: impl Fn(&mut Settings) + Copy) {
    for width in [Width::Lanes, Width::Single] {
        for delta in [false, true] {
            let shared = World::start(width, tune).await;
            for row in rows(delta) {
                for (moment, stream) in
                    row.moments.iter().flat_map(|moment| [(*moment, false), (*moment, true)])
                {
                    let case = Case { row: &row, moment, delta, stream, width };
                    if AFTER.contains(&moment) {
                        // It strikes any socket that is idle.
                        case.play(&World::start(width, tune).await).await;
                    } else {
                        case.play(&shared).await;
                    }
                }
            }
        }
    }
}

struct Case<'a> {
    row: &'a Row,
    moment: Moment,
    delta: bool,
    stream: bool,
    width: Width,
}

impl Case<'_> {
    async fn play(&self, world: &World) {
        let Self { row, moment, .. } = *self;
        let about = self.about();
        // A credential of its own: none of the sockets that are there.
        let key = &*about;
        let idle = moment == Moment::Idle;
        let mut neighbour = Agent::new(key, "neighbour", !self.stream);
        // Alone on its socket where only one is in flight: an idle moment must find the right one.
        let accompanied = !(idle && self.width == Width::Single);
        if accompanied {
            neighbour.turn(world, "text=20", &about).await;
        }
        let mut agent = Agent::new(key, "agent", self.stream);
        if self.delta {
            agent.turn(world, "text=20", &about).await;
        }
        let struck = |book: &Book| book.mishaps;
        let (before, so_far) = (world.rungs(), world.sim.provider.ledger().read(struck));
        let mishap = Mishap::new(moment, row.fault.clone());
        if !idle {
            world.sim.provider.mishap(mishap.clone().continued(self.delta));
        }
        agent.ask(if moment == Moment::MidArguments { "calls=1 args=60" } else { "text=40" });
        let answer = agent.send(world).await;
        if idle {
            world.sim.provider.mishap(mishap);
        }
        assert!(world.sim.provider.ledger().wait(|book| struck(book) > so_far).await, "{about}: no mishap");
        let rungs: Vec<u64> =
            world.rungs().iter().zip(before).map(|(after, before)| after - before).collect();
        let seen = self.expected();
        self.assert_seen(world, seen, &agent, &answer, &rungs, &about).await;
        let lost = AFTER.contains(&moment) && row.fatal;
        if lost {
            // What is left is the neighbour's, where that has a socket of its own.
            let left = usize::from(accompanied && self.width == Width::Single);
            until(&about, || world.proxy.sockets() == left).await;
        }
        // A client repeats what failed, as every SDK does.
        let again = if matches!(seen, Right(_)) {
            agent.take(&answer.response());
            String::from("-")
        } else {
            agent.finish(world, &about).await
        };
        let next = agent.turn(world, "text=20", &about).await;
        let beside = if accompanied { neighbour.turn(world, "text=20", &about).await } else { String::new() };
        let told = format!("{seen:?}");
        println!(
            "{about:<58} {told:<37} {:<18} | again {again:<19} | next {next:<17} | beside {beside}",
            answer.plan()
        );
        world.assert_lawful();
        let expected = match seen {
            _ if lost => "full; socket-lost",
            // What came over HTTP is held on no socket.
            Right([_, _, 1]) => "full; ",
            _ => "delta",
        };
        assert!(next.starts_with(expected), "{about}: {next}");
    }

    fn about(&self) -> String {
        let turn = if self.delta { "delta" } else { "first" };
        let form = if self.stream { "sse" } else { "json" };
        format!("{} {:?} {turn} {form} {:?}", self.row.name, self.moment, self.width)
    }

    fn expected(&self) -> Seen {
        match self.moment {
            Moment::AfterTerminal | Moment::Idle => CLEAN,
            Moment::AfterSend => self.row.before,
            _ if self.stream => self.row.sse,
            _ => self.row.json,
        }
    }

    async fn assert_seen(
        &self,
        world: &World,
        seen: Seen,
        agent: &Agent,
        answer: &Answer,
        rungs: &[u64],
        about: &str,
    ) {
        let expected = if let Right(rungs) = seen { rungs } else { [0, 0, 0] };
        assert_eq!(rungs, expected, "{about}: the rungs; {answer:?}");
        let code = answer.code();
        match seen {
            Right(_) => drop(world.assert_right(agent, answer, about).await),
            Status(status, expected) => {
                assert_eq!((answer.status, &*code), (status, expected), "{about}: {answer:?}");
                assert!(!answer.broken, "{about}");
            }
            Ended(status) => {
                assert_eq!(answer.response()["status"], status, "{about}: {answer:?}");
                assert!(!answer.broken, "{about}");
            }
            Error(expected) | Broken(expected) => {
                assert_eq!((answer.status, &*code), (200, expected), "{about}: {answer:?}");
                assert_eq!(answer.broken, matches!(seen, Broken(_)), "{about}: {answer:?}");
            }
        }
    }
}
