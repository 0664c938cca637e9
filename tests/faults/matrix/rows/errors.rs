//! The provider's own errors: `error` events in every known shape (protocol §1.8), not-found in all its forms, responses
//! that end badly.

use serde_json::{Value, json};
use tailwire::sim::script::NotFound;
use tailwire::sim::{Fault, Moment};

use crate::matrix::table::{AT_REST, Cell, Family, NEW, Outcome, Row, SAME, Seen, Socket, Turns};

const IN_BAND: Cell = Cell::Never("an event needs an open socket; a refused upgrade is a row of its own");

/// The error becomes the client's: a status before the first byte, the flat event after it. More may follow it, so its
/// lane is not used again; without lanes nothing tells it apart, so the socket is not.
fn passed(status: u16, code: &'static str, alone: bool) -> impl Fn(Moment) -> Cell {
    move |moment| {
        let told = Seen::Status(status, code);
        let sse = match moment {
            Moment::Upgrade => return IN_BAND,
            Moment::AfterTerminal | Moment::Idle => return AT_REST,
            Moment::AfterSend => told,
            _ => Seen::Error(code),
        };
        let lanes = if alone { Socket::Lost } else { Socket::LaneGone };
        Cell::ByWidth(Outcome::new(told, sse, lanes), Outcome::new(told, sse, Socket::Lost))
    }
}

pub(crate) fn errors() -> Family {
    let mut rows = nested();
    rows.extend(with_headers());
    rows.extend(odd());
    let overload = json!({ "type": "error", "status": 503, "error": busy() });
    let two = |moment| match moment {
        Moment::AfterTerminal | Moment::Idle => {
            Cell::Never("a turn that is over ends no more: see the error by itself")
        }
        _ => passed(503, "server_is_overloaded", false)(moment),
    };
    rows.push(Row::new("error: followed by `response.failed`", Fault::TwoTerminals(overload.clone()), two));
    let alone = passed(503, "server_is_overloaded", true);
    rows.push(Row::new("error: without the lane's name", Fault::ErrorWithoutLane(overload), alone));
    Family { title: "`error` events", rows }
}

fn row(name: &str, frame: Value, status: u16, code: &'static str) -> Row {
    Row::new(format!("error: {name}"), Fault::Error(frame), passed(status, code, false))
}

fn busy() -> Value {
    json!({ "type": "server_error", "code": "server_is_overloaded", "message": "Busy." })
}

/// The error as an object within the event.
fn nested() -> Vec<Row> {
    let quota = json!({ "type": "insufficient_quota", "code": "insufficient_quota", "message": "No more." });
    let country = json!({ "type": "invalid_request_error", "code": "unsupported_country", "message": "No." });
    let input = json!({ "type": "invalid_request_error", "message": "Model does not support image inputs" });
    let status = json!({ "type": "error", "status": 503, "error": busy() });
    let alias = json!({ "type": "error", "status_code": 403, "error": country });
    let codeless = json!({ "type": "error", "status": 400, "error": input });
    vec![
        row("nested", status, 503, "server_is_overloaded"),
        row(
            "nested, without a status",
            json!({ "type": "error", "error": quota }),
            429,
            "insufficient_quota",
        ),
        row("`status_code` for `status`", alias, 403, "unsupported_country"),
        row("nested, without a code", codeless, 400, "invalid_request_error"),
    ]
}

fn with_headers() -> Vec<Row> {
    let limit = json!({ "type": "requests", "code": "rate_limit_exceeded", "message": "Slow down." });
    let beside = json!({ "type": "error", "status": 429, "error": limit, "headers": { "retry-after": 3 } });
    let mut inside = json!({ "type": "error", "status": 429, "error": limit });
    inside["error"]["headers"] = json!({ "retry-after": "4" });
    let usage = json!({ "type": "error", "status": 429,
        "error": { "type": "usage_limit_reached", "message": "The limit is reached.", "plan_type": "pro" },
        "headers": { "x-codex-primary-used-percent": "100.0", "x-codex-primary-window-minutes": 15 } });
    let carrying = |header, row| Row { header: Some(header), ..row };
    let code = "rate_limit_exceeded";
    vec![
        carrying(("retry-after", "3"), row("headers beside it", beside, 429, code)),
        carrying(("retry-after", "4"), row("headers within it", inside, 429, code)),
        carrying(
            ("x-codex-primary-window-minutes", "15"),
            row("a type for a code, headers of mixed types", usage, 429, "usage_limit_reached"),
        ),
    ]
}

/// Events that are not as documented.
fn odd() -> Vec<Row> {
    let plain = json!({ "type": "server_error", "code": "server_error", "message": "Oh." });
    let flat = json!({ "type": "error", "code": "server_error", "message": "Oh.", "param": null,
        "sequence_number": 7 });
    let bare = json!({ "type": "error", "code": null, "message": "Oh.", "param": null });
    let kindless = json!({ "type": "error", "error": { "code": "internal_error", "message": "Oh." } });
    let other = json!({ "type": "response.error", "status": 500, "error": plain });
    vec![
        row("flat", flat, 500, "server_error"),
        row("flat, only a message", bare, 400, "invalid_request_error"),
        row("an event without a type", json!({ "error": plain }), 500, "server_error"),
        row("an error without a type (xAI)", kindless, 500, "internal_error"),
        row("`response.error`", other, 500, "server_error"),
    ]
}

pub(crate) fn not_found() -> Family {
    const CODE: &str = "previous_response_not_found";
    let shapes = [
        ("nested", NotFound::Nested, Seen::Error(CODE)),
        ("nested, without a status", NotFound::NoStatus, Seen::Error(CODE)),
        ("flat", NotFound::Flat, Seen::Error(CODE)),
        ("without a code", NotFound::Codeless, Seen::Error("invalid_request_error")),
        ("`status_code` for `status`", NotFound::StatusCode, Seen::Error(CODE)),
        ("headers beside it", NotFound::Headers, Seen::Error(CODE)),
        ("within `response.failed`", NotFound::Failed, Seen::Ended("failed")),
    ];
    let rows = shapes.map(|(name, shape, late)| {
        let cells = move |moment| match moment {
            Moment::Upgrade => IN_BAND,
            Moment::AfterTerminal | Moment::Idle => Cell::Never("it answers a request, and none is out"),
            Moment::AfterSend => Cell::Played(Outcome::new(SAME, SAME, Socket::Kept)),
            _ => Cell::Played(Outcome::new(SAME, late, Socket::Kept)),
        };
        let turns = Turns::Deltas("a first turn names no response");
        Row { turns, ..Row::new(format!("not found: {name}"), Fault::NotFound(shape), cells) }
    });
    Family { title: "`previous_response_not_found`", rows: rows.into() }
}

pub(crate) fn endings() -> Family {
    let row = |name: &str, fault, status| {
        let cells = move |moment| match moment {
            Moment::Upgrade => IN_BAND,
            Moment::AfterTerminal | Moment::Idle => {
                Cell::Never("a response ends once; a second end is an unexpected event")
            }
            _ => Cell::Played(Outcome::new(Seen::Ended(status), Seen::Ended(status), Socket::Kept)),
        };
        Row::new(name, fault, cells)
    };
    let rows = vec![
        row("`response.failed`: server_error", Fault::Failed("server_error"), "failed"),
        row("`response.failed`: rate_limit_exceeded", Fault::Failed("rate_limit_exceeded"), "failed"),
        row("`response.incomplete`: max_output_tokens", Fault::Incomplete("max_output_tokens"), "incomplete"),
        row("`response.incomplete`: content_filter", Fault::Incomplete("content_filter"), "incomplete"),
    ];
    Family { title: "Responses that end badly", rows }
}

pub(crate) fn lanes_refused() -> Family {
    let row = |name: &str, fault| {
        let cells = move |moment| match moment {
            Moment::Upgrade => IN_BAND,
            Moment::AfterSend => Cell::Played(Outcome::new(NEW, NEW, Socket::Lost)),
            _ => Cell::Never("a lane's name is refused before its response begins"),
        };
        Row::new(name, fault, cells).apart()
    };
    let refusal = |code: &str, message: &str| {
        json!({ "type": "error", "status": 400, "error":
            { "type": "invalid_request_error", "code": code, "message": message, "param": "stream_id" } })
    };
    let unknown = json!({ "type": "error", "status": 400, "error":
        { "type": "invalid_request_error", "message": "Unsupported parameter: stream_id" } });
    let rows = vec![
        row(
            "the 33rd lane, refused by the provider",
            Fault::Error(refusal("websocket_stream_limit_reached", "At most 32.")),
        ),
        row(
            "a lane's name, refused without repeating it",
            Fault::ErrorWithoutLane(refusal("invalid_stream_id", "No.")),
        ),
        row("lanes unknown to the provider", Fault::ErrorWithoutLane(unknown)),
    ];
    Family { title: "Lanes refused", rows }
}
