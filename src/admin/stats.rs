//! How things stand, and turns, as JSON: what `/stats`, `/turns` and `/events` say. Seconds and bytes, shares from 0 to 1.
//!
//! Read from the counters and the sockets whenever somebody asks; keeps nothing.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::proto::session::connection::view::{LaneUse, SocketView};
use crate::proto::session::recovery::Rung;
use crate::proxy::Proxy;
use crate::telemetry::summary::Summary;
use crate::telemetry::turns::{self, Turn};

type Word = Cow<'static, str>;

/// How things stand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// tailwire's.
    pub version: Word,
    /// The provider's base URL.
    pub upstream: String,
    /// Whose rules hold there.
    pub profile: Word,
    /// When this process began to serve, by the clock on the wall.
    pub started_unix_seconds: f64,
    /// Since then.
    pub uptime_seconds: f64,
    /// True once it is on its way out.
    pub draining: bool,
    /// What all turns come to.
    #[serde(flatten)]
    pub summary: Summary,
    /// 1 - wire/received; none before the first byte.
    pub saved: Option<f64>,
    /// 1 - sent/received: the same without compression.
    pub saved_before_compression: Option<f64>,
    /// What did not become a turn.
    pub requests: Requests,
    /// What became of sockets.
    pub socket_events: SocketEvents,
    /// What is held, and the limit of it.
    pub held: Held,
    /// The sockets there are, the oldest first.
    pub sockets: Vec<SocketRow>,
}

/// Requests that did not become a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// Passed through untouched, being no turns.
    pub passed_through: u64,
    /// 401 or 403: no client key, or of a foreign page.
    pub refused: u64,
    /// 503: turns beyond a limit of ours.
    pub overloaded: u64,
}

/// Upstream sockets since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketEvents {
    /// Opened.
    pub opened: u64,
    /// Refused by the upstream, or not to be had.
    pub refused: u64,
    /// Ended under a turn, or without an answer to a ping.
    pub lost: u64,
    /// Closed on purpose.
    pub retired: u64,
}

/// What is held now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Turns under way (`limits.turns`).
    pub turns: Level,
    /// Sockets, open or opening (`limits.sockets`).
    pub sockets: Level,
    /// Bytes of request bodies (`limits.all_bodies`).
    pub bodies_bytes: Level,
    /// Bytes of answers that wait for their clients (`limits.all_buffers`).
    pub buffers_bytes: Level,
    /// Bytes of the index of conversations (`limits.index`).
    pub index_bytes: Level,
}

/// How much of something there is, and may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// Now.
    pub now: usize,
    /// At most.
    pub most: usize,
}

/// One upstream socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SocketRow {
    /// Its number in this process, from 0.
    pub number: u64,
    /// `opening`, `open`, `full` (takes no turn now) or `retired` (takes none any more).
    pub state: Word,
    /// When it was opened, counted from this process's start.
    pub since_seconds: f64,
    /// Lanes it may ever have.
    pub most_lanes: usize,
    /// Those it has had, in order: `busy`, `held` (may be continued), `free`, `left` (by its client) or `burnt`.
    pub lanes: Vec<Word>,
}

/// One turn; see [`Turn`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TurnRow {
    /// Its number, in the order of the ends.
    pub number: u64,
    /// When it began, by the clock on the wall.
    pub began_unix_seconds: f64,
    /// `responses` or `chat`.
    pub api: Word,
    /// `json` or `sse`.
    pub form: Word,
    /// `delta`, `full` or `http`; none if its client left before that was decided.
    pub plan: Option<Word>,
    /// `exact` or `visible`, of a delta.
    pub grade: Option<Word>,
    /// Why it was not a delta.
    pub reason: Option<Word>,
    /// Items that went up; none over HTTP.
    pub items_sent: Option<usize>,
    /// Items that came.
    pub items: Option<usize>,
    /// What came.
    pub received_bytes: u64,
    /// JSON that went up, tries in vain included.
    pub sent_bytes: u64,
    /// The same on the wire.
    pub wire_bytes: u64,
    /// The last step of recovery: `full-same`, `full-new`, `http` or `fail`; none if there was none.
    pub rung: Option<Word>,
    /// Steps of recovery.
    pub recoveries: u32,
    /// What tailwire itself added.
    pub added_seconds: Option<f64>,
    /// To the first event.
    pub first_event_seconds: Option<f64>,
    /// From head to end.
    pub duration_seconds: f64,
    /// What the client was told.
    pub status: Option<u16>,
    /// `completed`, `failed`, `abandoned` or `lagging`.
    pub outcome: Word,
}

impl Stats {
    pub(super) fn of(proxy: &Proxy, started: Instant, started_unix_seconds: f64, draining: bool) -> Self {
        let (metrics, settings) = (proxy.metrics(), proxy.settings());
        let (limits, pool) = (&settings.limits, proxy.pool());
        let summary = Summary::of(metrics);
        let level = |now, most| Level { now, most };
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            upstream: settings.upstream.to_string(),
            profile: proxy.profile().name.into(),
            started_unix_seconds,
            uptime_seconds: seconds(started.elapsed()),
            draining,
            saved: summary.bytes.saved(),
            saved_before_compression: summary.bytes.saved_before_compression(),
            summary,
            requests: Requests {
                passed_through: metrics.passthrough.value(),
                refused: metrics.requests_refused.value(),
                overloaded: metrics.turns_overloaded.value(),
            },
            socket_events: SocketEvents {
                opened: metrics.sockets_opened.value(),
                refused: metrics.sockets_refused.value(),
                lost: metrics.sockets_lost.value(),
                retired: metrics.sockets_retired.value(),
            },
            held: Held {
                turns: level(proxy.turns(), limits.turns),
                sockets: level(pool.sockets(), limits.sockets),
                bodies_bytes: level(proxy.bodies(), limits.all_bodies),
                buffers_bytes: level(pool.buffered(), limits.all_buffers),
                index_bytes: level(pool.index_bytes(), limits.index),
            },
            sockets: pool.view().iter().map(|socket| SocketRow::of(socket, started)).collect(),
        }
    }

    /// True if anything but the time is another.
    pub(super) fn differs_from(&self, other: &Self) -> bool {
        Self { uptime_seconds: other.uptime_seconds, ..self.clone() } != *other
    }

    /// How many lanes of all sockets are used so.
    pub(super) fn lanes(&self, lane: LaneUse) -> usize {
        self.sockets.iter().flat_map(|socket| &socket.lanes).filter(|word| **word == lane.name()).count()
    }

    /// How many sockets are in this state.
    pub(super) fn sockets_in(&self, state: &str) -> usize {
        self.sockets.iter().filter(|socket| socket.state == state).count()
    }
}

impl SocketRow {
    /// Every state there is.
    pub(super) const STATES: [&'static str; 4] = ["opening", "open", "full", "retired"];

    fn of(socket: &SocketView, started: Instant) -> Self {
        let state = match socket {
            SocketView { retired: true, .. } => "retired",
            SocketView { open: false, .. } => "opening",
            SocketView { accepts: false, .. } => "full",
            _ => "open",
        };
        Self {
            number: socket.number,
            state: state.into(),
            since_seconds: seconds(socket.since.saturating_duration_since(started)),
            most_lanes: socket.most_lanes,
            lanes: socket.lanes.iter().map(|lane| lane.name().into()).collect(),
        }
    }
}

impl TurnRow {
    pub(super) fn of(turn: &Turn) -> Self {
        Self {
            number: turn.number,
            began_unix_seconds: turns::unix_seconds(turn.began),
            api: turn.api.name().into(),
            form: turn.form.name().into(),
            plan: turn.plan.map(|plan| plan.name().into()),
            grade: turn.grade.map(|grade| grade.to_string().into()),
            reason: turn.reason.map(Word::from),
            items_sent: turn.items.map(|(sent, _)| sent),
            items: turn.items.map(|(_, all)| all),
            received_bytes: turn.received,
            sent_bytes: turn.sent,
            wire_bytes: turn.wire,
            rung: turn.rung.map(|rung| rung_name(rung).into()),
            recoveries: turn.recoveries,
            added_seconds: turn.added.map(seconds),
            first_event_seconds: turn.first_event.map(seconds),
            duration_seconds: seconds(turn.duration),
            status: turn.status,
            outcome: turn.outcome.name().into(),
        }
    }
}

fn rung_name(rung: Rung) -> &'static str {
    match rung {
        Rung::FullSame => "full-same",
        Rung::FullNew => "full-new",
        Rung::Http => "http",
        Rung::Fail => "fail",
    }
}

/// To the microsecond.
fn seconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e6
}
