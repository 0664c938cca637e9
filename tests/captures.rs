//! Every recorded client, replayed against the heart: each turn's plan must be a delta with exactly the new items where
//! an independent judge (`tests/captures/expect.py`) says so, and no delta where it says none. Prints the matrix.
//! Clients of Chat Completions are `captures/chat.rs`'s, on the same replay.

#[path = "captures/chat.rs"]
mod chat;
#[path = "captures/load.rs"]
mod load;
#[path = "captures/table.rs"]
mod table;

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use load::{Capture, Reply, Turn};
use table::{Expected, Grade as Told, expected};
use tailwire::proto::core::{Core, Placement, Plan, Wish};
use tailwire::proto::digest::{Digest, Key};
use tailwire::proto::session::Limits;
use tailwire::proto::transcript::echo::Listener;
use tailwire::proto::transcript::frame::{self, Envelope};
use tailwire::proto::transcript::plan::{Grade, Reason};
use tailwire::proto::transcript::request::Request;
use tailwire::proto::wire::event::{Event, EventKind};

/// Id of a completed answer, what was heard on the way, and its output.
type Heard = (String, Listener, String);

/// How the turns of an API are read.
struct Dialect {
    is: fn(&Turn) -> bool,
    /// The Responses request that a turn is; none if it has to travel as it is.
    body: fn(&Turn) -> Option<Bytes>,
    hear: fn(&Key, &Reply) -> Option<Heard>,
}

const RESPONSES: Dialect =
    Dialect { is: Turn::is_responses, body: |turn| Some(Bytes::from(turn.body.clone())), hear };

/// What the heart made of one turn.
#[derive(Debug, Clone, PartialEq)]
enum Seen {
    /// Nothing: it cannot be translated.
    Native,
    Delta {
        parent: usize,
        new_from: usize,
        grade: Grade,
        frame: usize,
    },
    Full {
        reason: Reason,
        frame: usize,
    },
}

#[derive(Default)]
struct Row {
    turns: usize,
    exact: usize,
    visible: usize,
    received: usize,
    sent: usize,
}

impl Row {
    fn print(&self, name: &str) {
        let full = self.turns - self.exact - self.visible;
        // A translated body is a little longer than the client's.
        let saved = 100 - (self.sent * 100 / self.received.max(1)).min(100);
        let Self { turns, exact, visible, received, sent } = self;
        println!("| {name} | {turns} | {exact} | {visible} | {full} | {received} | {sent} | {saved} % |");
    }
}

/// The terminal event's response and everything heard on the way, as a driver would gather it.
fn hear(key: &Key, reply: &Reply) -> Option<Heard> {
    let mut listener = Listener::default();
    let output_of = |response: &serde_json::Value| response["output"].to_string();
    match reply {
        Reply::Json(body) => {
            let response: serde_json::Value = serde_json::from_slice(body).ok()?;
            Some((response["id"].as_str()?.to_owned(), listener, output_of(&response)))
        }
        Reply::Sse(events) => {
            for event in events {
                let event = Event::parse(Bytes::copy_from_slice(event.data.as_bytes())).ok()?;
                listener.hear(key, &event);
                if event.kind() == EventKind::Completed {
                    let response: serde_json::Value = serde_json::from_str(event.value("response")?).ok()?;
                    return Some((event.response_id()?, listener, output_of(&response)));
                }
            }
            None
        }
    }
}

/// The account a capture's headers make: its credential (the session headers are constant or per turn in all of them).
fn account(key: &Key, turn: &Turn) -> Digest {
    let mut hasher = key.hasher("account");
    for (name, value) in &turn.headers {
        if name.eq_ignore_ascii_case("authorization") {
            hasher.field(value.as_bytes());
        }
    }
    hasher.finish()
}

/// Replays a capture; with `bytes` the fast path is offered what it may use. `unbounded` keeps every parent alive: the
/// table judges recognition, not which lane still holds what.
fn replay(capture: &Capture, dialect: &Dialect, fast: bool) -> Vec<(usize, Seen)> {
    let key = Key::new([3; 32]);
    let mut core = Core::new(key.clone(), Limits::default(), false, 64 << 20);
    let now = Instant::now();
    let mut parents: HashMap<String, usize> = HashMap::new();
    let mut seen = Vec::new();
    for turn in capture.turns.iter().filter(|turn| (dialect.is)(turn)) {
        let account = account(&key, turn);
        let Some(body) = (dialect.body)(turn) else {
            seen.push((turn.n, Seen::Native));
            continue;
        };
        let known = if fast { core.prefixes(&account) } else { Vec::new() };
        let mut request = Request::parse(&key, &account, body.clone(), &known).expect("a turn");
        let mut found = core.index().continuations(&key, &request);
        if found.is_err() && !known.is_empty() {
            request = Request::parse(&key, &account, body, &[]).expect("a turn");
            found = core.index().continuations(&key, &request);
        }
        seen.push((turn.n, look(&core, &request, found.as_ref().map(|found| &found[0]), &parents)));
        let Some((response, listener, output)) =
            turn.reply.as_ref().and_then(|reply| (dialect.hear)(&key, reply))
        else {
            continue;
        };
        let wish = Wish::default();
        let Placement::Wire(ticket) = core.begin(now, &account, &request, &wish) else { panic!("a place") };
        let stream_id = ticket.lane.name();
        core.opened(now, ticket.connection);
        core.sending(now, ticket.connection, ticket.turn);
        for kind in ["created", "completed"] {
            let text = format!(
                r#"{{"type":"response.{kind}","stream_id":"{}","response":{{"id":"{response}"}}}}"#,
                stream_id.as_deref().unwrap_or_default()
            );
            core.event(now, ticket.connection, &Event::parse(Bytes::from(text)).expect("an event"));
        }
        let echo = listener.finish(&key, Some(&output));
        assert!(echo.is_some(), "{} turn {}: output not understood", capture.name, turn.n);
        core.settle(now, ticket.turn, &request, &response, echo);
        parents.insert(response, turn.n);
        if let Plan::Delta { .. } = ticket.plan {
            assert!(found.is_ok(), "placed as a delta what was not recognised");
        }
    }
    seen
}

fn look(
    core: &Core,
    request: &Request,
    found: Result<&tailwire::proto::transcript::index::Continuation, &Reason>,
    parents: &HashMap<String, usize>,
) -> Seen {
    let envelope = Envelope { stream_id: Some("tw0"), previous: None, new_from: None };
    match found {
        Ok(continuation) => {
            let response = &core.index().head(continuation.head).expect("a head").response;
            let envelope =
                Envelope { previous: Some(response), new_from: Some(continuation.new_from), ..envelope };
            let frame = frame::write(request, envelope);
            check_frame(request, &frame, continuation.new_from);
            Seen::Delta {
                parent: parents[&**response],
                new_from: continuation.new_from,
                grade: continuation.grade,
                frame: frame.len(),
            }
        }
        Err(reason) => {
            let frame = frame::write(request, envelope);
            check_frame(request, &frame, 0);
            Seen::Full { reason: reason.clone(), frame: frame.len() }
        }
    }
}

/// The frame says what the body said, items before `from` aside.
fn check_frame(request: &Request, frame: &[u8], from: usize) {
    let frame: serde_json::Value = serde_json::from_slice(frame).expect("a frame");
    let body: serde_json::Value = serde_json::from_str(request.body()).expect("a body");
    for (name, value) in body.as_object().expect("an object") {
        match name.as_str() {
            "stream" => assert!(frame.get(name).is_none()),
            "input" if value.is_array() => {
                let items = value.as_array().expect("items");
                assert_eq!(frame["input"].as_array().expect("items")[..], items[from..]);
            }
            "previous_response_id" if value.is_null() => {}
            "background" | "conversation" | "prompt" if value.is_null() || value == false => {}
            _ => assert_eq!(&frame[name], value, "{name}"),
        }
    }
    assert_eq!(frame["type"], "response.create");
}

#[test]
fn f05_recognised_turns_equal_the_table_and_nothing_else_is_recognised() {
    let expected = expected().expect("the table");
    let captures = load::captures().expect("captures");
    let mut rows = 0;
    println!("| client | turns | delta exact | delta visible | full | received | sent | saved |");
    println!("|---|---|---|---|---|---|---|---|");
    for capture in captures.iter().filter(|capture| capture.turns.iter().any(Turn::is_responses)) {
        let slow = replay(capture, &RESPONSES, false);
        assert_eq!(
            replay(capture, &RESPONSES, true),
            slow,
            "{}: both ways of reading give one answer",
            capture.name
        );
        let mut row = Row::default();
        for (n, seen) in &slow {
            let told = &expected[&(capture.name.clone(), *n)];
            judge(capture, *n, seen, told, &mut row);
        }
        rows += 1;
        row.print(&capture.name);
    }
    assert!(rows >= 6, "the fixtures of a clone alone are six");
}

fn judge(capture: &Capture, n: usize, seen: &Seen, told: &Expected, row: &mut Row) {
    let size = capture.turns.iter().find(|turn| turn.n == n).map_or(0, |turn| turn.body.len());
    row.turns += 1;
    row.received += size;
    match (seen, told) {
        (
            Seen::Delta { parent, new_from, grade, frame },
            Expected::Delta { parent: p, first_new, grade: g, .. },
        ) => {
            let grade_told = if *g == Told::Exact { Grade::Exact } else { Grade::Visible };
            assert_eq!((parent, new_from, *grade), (p, first_new, grade_told), "{} turn {n}", capture.name);
            row.sent += frame;
            if *grade == Grade::Exact { row.exact += 1 } else { row.visible += 1 }
        }
        (Seen::Full { frame, .. }, Expected::Full { .. }) => row.sent += frame,
        _ => panic!("{} turn {n}: {seen:?}, but the table says {told:?}", capture.name),
    }
}
