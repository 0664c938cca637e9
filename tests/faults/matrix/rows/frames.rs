//! Frames that should not be there, or that nobody knows yet: garbage, binary, huge, unknown, and pings by the hundred.

use serde_json::json;
use tailwire::config::Settings;
use tailwire::sim::{Fault, Moment};

use crate::matrix::table::{
    AT_REST, Cell, Family, NOTHING, Next, Outcome, Row, Rung, Seen, Socket, UNHEARD, harmless, lost,
};

const OPEN: Cell = Cell::Never("frames need an open socket");
const GARBLED: &str = "tailwire_desynchronised";
/// The largest message taken, where it matters, in bytes.
const LARGEST: usize = 256 << 10;

pub(crate) fn garbage() -> Family {
    let noise = |name: &str, text: &str| {
        Row::new(format!("garbage: {name}"), Fault::Garbage(text.to_owned()), lost(OPEN, GARBLED))
    };
    let rows = vec![
        noise("words", "so sorry"),
        noise("half an object", r#"{"type":"response.output_text.delta","#),
        noise("an array", "[]"),
        noise("an object without a type", "{}"),
        noise(
            "a lane we never named",
            r#"{"type":"response.output_text.delta","stream_id":"theirs","delta":"x"}"#,
        ),
        Row::new("binary", Fault::Binary(vec![1, 2, 3]), lost(OPEN, GARBLED)),
    ];
    Family { title: "Garbage", rows }
}

pub(crate) fn unknown() -> Family {
    let aside = |name: &'static str| {
        let frame = json!({ "type": name, "about": { "level": 1 } });
        let row = Row::new(format!("unknown: `{name}`"), Fault::Garbage(frame.to_string()), harmless(OPEN));
        Row { event: Some((name, false)), ..row }
    };
    let future = json!({ "type": "response.future_thing.delta", "thing": { "level": 1 } });
    let named = |moment| match moment {
        Moment::AfterTerminal | Moment::Idle => AT_REST,
        _ => harmless(OPEN)(moment),
    };
    // Without lanes there is only one whose it can be.
    let nameless = move |moment| match (lost(OPEN, GARBLED)(moment), named(moment)) {
        (Cell::Played(lanes), Cell::Played(single)) if lanes != single => Cell::ByWidth(lanes, single),
        (same, _) => same,
    };
    let shown = Some(("response.future_thing.delta", true));
    let ended = json!({ "type": "response.failed", "response": { "id": "resp_other", "status": "failed" } });
    let second = |moment| match moment {
        Moment::Upgrade => OPEN,
        Moment::AfterTerminal | Moment::Idle => AT_REST,
        _ => Cell::Never("before the end it is the end: see `response.failed`"),
    };
    let spontaneous = |moment| match moment {
        Moment::Upgrade => OPEN,
        Moment::AfterTerminal | Moment::Idle => AT_REST,
        Moment::AfterSend => NOTHING,
        // One answer under two ids: what it leaves is not continued.
        _ => Cell::Played(
            Outcome::new(Seen::Right(Rung::None), Seen::Right(Rung::None), Socket::Kept).next(Next::Anew),
        ),
    };
    let rows = vec![
        aside("codex.rate_limits"),
        aside("responsesapi.websocket_timing"),
        aside("response.metadata"),
        Row {
            event: shown,
            ..Row::new("unknown: `response.future_thing.delta`", Fault::Frame(future.clone()), named)
        },
        Row {
            event: shown,
            ..Row::new(
                "unknown: the same without the lane's name",
                Fault::Garbage(future.to_string()),
                nameless,
            )
        },
        Row::new("unexpected: a `response.created` nobody asked for", Fault::SpontaneousEvent, spontaneous),
        Row::new("unexpected: a second end", Fault::Frame(ended), second),
        Row::new("ping flood: 200 at once", Fault::PingFlood(200), harmless(OPEN)),
    ];
    Family { title: "Unknown and unexpected frames", rows }
}

pub(crate) fn huge() -> Family {
    let tune = |settings: &mut Settings| settings.limits.message = LARGEST;
    let huge =
        |bytes| Fault::Frame(json!({ "type": "response.huge_thing.delta", "padding": "x".repeat(bytes) }));
    let large = Seen::Right(Rung::Http("too-large"));
    let over = move |moment| match moment {
        Moment::Upgrade => OPEN,
        Moment::AfterSend => UNHEARD,
        Moment::AfterTerminal | Moment::Idle => AT_REST,
        _ => {
            Cell::Played(Outcome::new(large, Seen::Broken("tailwire_too_big"), Socket::Lost).next(Next::Anew))
        }
    };
    let within = |moment| match moment {
        Moment::AfterTerminal | Moment::Idle => AT_REST,
        _ => harmless(OPEN)(moment),
    };
    let rows = vec![
        Row {
            event: Some(("response.huge_thing.delta", true)),
            ..Row::new("huge: a frame within `limits.message`", huge(LARGEST - 1024), within).tuned(tune)
        },
        Row::new("huge: a frame over `limits.message`", huge(LARGEST + 1), over).tuned(tune),
    ];
    Family { title: "Huge frames", rows }
}
