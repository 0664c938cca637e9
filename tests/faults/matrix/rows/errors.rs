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
    let limit =
        json!({ "type": "requests", "code": "rate_limit_exceeded", "message": "Slow down.", "param": null });
    let mut inside = limit.clone();
    inside["headers"] = json!({ "retry-after": "4" });
    let usage =
        json!({ "type": "usage_limit_reached", "message": "The limit is reached.", "plan_type": "pro" });
    let input = json!({ "type": "invalid_request_error", "message": "Model does not support image inputs" });
    let busy = json!({ "type": "server_error", "code": "server_is_overloaded", "message": "Busy." });
    let plain = json!({ "type": "server_error", "code": "server_error", "message": "Oh." });
    let quota = json!({ "type": "insufficient_quota", "code": "insufficient_quota", "message": "No more." });
    let country = json!({ "type": "invalid_request_error", "code": "unsupported_country", "message": "No." });
    let overload = json!({ "type": "error", "status": 503, "error": busy });
    let row = |name: &str, frame: Value, status, code| {
        Row::new(format!("error: {name}"), Fault::Error(frame), passed(status, code, false))
    };
    let mut rows = vec![
        row("nested", json!({ "type": "error", "status": 503, "error": busy }), 503, "server_is_overloaded"),
        row(
            "nested, without a status",
            json!({ "type": "error", "error": quota }),
            429,
            "insufficient_quota",
        ),
        row(
            "`status_code` for `status`",
            json!({ "type": "error", "status_code": 403, "error": country }),
            403,
            "unsupported_country",
        ),
        row(
            "nested, without a code",
            json!({ "type": "error", "status": 400, "error": input }),
            400,
            "invalid_request_error",
        ),
        Row {
            header: Some(("retry-after", "3")),
            ..row(
                "headers beside it",
                json!({ "type": "error", "status": 429, "error": limit, "headers": { "retry-after": 3 } }),
                429,
                "rate_limit_exceeded",
            )
        },
        Row {
            header: Some(("retry-after", "4")),
            ..row(
                "headers within it",
                json!({ "type": "error", "status": 429, "error": inside }),
                429,
                "rate_limit_exceeded",
            )
        },
        Row {
            header: Some(("x-codex-primary-window-minutes", "15")),
            ..row(
                "a type for a code, headers of mixed types",
                json!({ "type": "error", "status": 429, "error": usage, "headers":
                    { "x-codex-primary-used-percent": "100.0", "x-codex-primary-window-minutes": 15 } }),
                429,
                "usage_limit_reached",
            )
        },
        row(
            "flat",
            json!({ "type": "error", "code": "server_error", "message": "Oh.", "param": null, "sequence_number": 7 }),
            500,
            "server_error",
        ),
        row(
            "flat, only a message",
            json!({ "type": "error", "code": null, "message": "Oh.", "param": null }),
            400,
            "invalid_request_error",
        ),
        row("an event without a type", json!({ "error": plain }), 500, "server_error"),
        row(
            "an error without a type (xAI)",
            json!({ "type": "error", "error": { "code": "internal_error", "message": "Oh." } }),
            500,
            "internal_error",
        ),
        row(
            "`response.error`",
            json!({ "type": "response.error", "status": 500, "error": plain }),
            500,
            "server_error",
        ),
    ];
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
