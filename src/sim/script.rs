//! What the provider is told to be: fast or slow, near or far, strict in which ways, and what goes wrong when.
//!
//! Plain data. Nothing here acts; the faces read it anew for every request, so that a test may change it at any time.

use std::time::Duration;

use serde_json::{Value, json};

/// Everything adjustable about the provider. The default is instant, near, and healthy, with OpenAI's published limits.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// Model speed in tokens per second; one delta event is one token. 0 is instant.
    pub speed: f64,
    /// The modelled way between client and provider.
    pub link: Link,
    /// The modelled work on a context before the first output.
    pub cost: Cost,
    /// What a connection may ask for.
    pub limits: Limits,
    /// How answers are written down.
    pub style: Style,
    /// How a WebSocket upgrade is answered.
    pub upgrade: Upgrade,
    /// Accept an offer of permessage-deflate.
    pub deflate: bool,
    /// Requests for a response are taken in, and not worked on until this is false again.
    pub held: bool,
    /// Ping every connection this often; none by default.
    pub ping_every: Option<Duration>,
}

/// A modelled link, applied inside the provider so that no test needs a slow network.
#[derive(Clone, Copy, Debug, Default)]
pub struct Link {
    /// Round trip, spent once per request.
    pub rtt: Duration,
    /// Client to provider in bytes per second, shared by all requests of a connection. 0 is unlimited.
    pub uplink: u64,
    /// Round trips a new connection costs before its first request (TCP 1, TLS 1.3 another).
    pub handshakes: u32,
}

/// Modelled work per byte of the effective context, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// For bytes that came with the request or were loaded from the store.
    pub fresh: f64,
    /// For bytes the connection still holds from the chain's last response.
    pub cached: f64,
}

/// The limits of one connection (protocol 1.6, 2026-08).
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Responses processed at once over all lanes; the excess waits its turn.
    pub in_flight: usize,
    /// Distinct lane names over the connection's life; none refuses `stream_id` altogether.
    pub lanes: Option<usize>,
    /// Age from which a connection answers no more requests.
    pub max_age: Duration,
    /// Sockets that one credential may have open at once; the next upgrade is refused with 429. None by default: no
    /// such limit is published.
    pub sockets: Option<usize>,
    /// Requests that one connection answers; the next is refused. None by default: no such limit is published.
    pub requests: Option<usize>,
    /// Largest client message in bytes, decompressed; a larger one closes the connection with 1009.
    pub max_frame: usize,
    /// Models that answer on Chat Completions and are refused on the Responses API, over HTTP and in a frame.
    pub chat_only: &'static [&'static str],
}

impl Limits {
    /// The providers without lanes: one response at a time, any `stream_id` refused.
    #[must_use]
    pub fn one_in_flight() -> Self {
        Self { in_flight: 1, lanes: None, ..Self::default() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight: 16,
            lanes: Some(32),
            max_age: Duration::from_secs(60 * 60),
            sockets: None,
            requests: None,
            max_frame: 16 * 1024 * 1024,
            chat_only: &[],
        }
    }
}

/// Deviations in how events and lists are written (protocol 1.16). All off by default.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of a test double, not states")]
pub struct Style {
    /// Leave out the set-up events (`output_item.added`, `content_part.added`, `reasoning_summary_part.added`).
    pub sparse: bool,
    /// `output: []` in the terminal event.
    pub empty_output: bool,
    /// One event of a type nobody knows yet, `response.future_thing.delta`, after `response.in_progress`.
    pub future_event: bool,
    /// `input_items` lists what a chain's earlier responses stood for as well. Which of the two readings is the
    /// provider's is not documented.
    pub whole_input_items: bool,
    /// Arguments of a call in a single delta (xAI).
    pub single_delta: bool,
    /// Frames after the terminal event: `codex.rate_limits`, `responsesapi.websocket_timing`, `response.metadata`.
    /// WebSocket only.
    pub late_frames: bool,
    /// Frames as pretty-printed JSON over several lines. WebSocket only.
    pub pretty: bool,
}

/// How a WebSocket upgrade is answered.
#[derive(Clone, Debug, Default)]
pub enum Upgrade {
    /// With 101.
    #[default]
    Accept,
    /// With an ordinary HTTP reply.
    Refuse {
        /// Its status.
        status: u16,
        /// Its JSON body.
        body: Value,
        /// Its `retry-after`, in seconds.
        retry_after: Option<u32>,
    },
    /// Never.
    Hang,
}

impl Upgrade {
    /// A refusal with an ordinary error body.
    #[must_use]
    pub fn refuse(status: u16) -> Self {
        let body = json!({ "error": {
            "message": "The WebSocket upgrade was refused.", "type": "invalid_request_error", "param": null, "code": null,
        } });
        Self::Refuse { status, body, retry_after: None }
    }
}

/// When a mishap strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// At the upgrade request.
    Upgrade,
    /// The request was read, no event has been sent.
    AfterSend,
    /// After `response.created`.
    AfterCreated,
    /// Half way through the text deltas of a message.
    MidText,
    /// Half way through the argument deltas of a call.
    MidArguments,
    /// After the last delta of the response.
    AfterLastDelta,
    /// After the terminal event.
    AfterTerminal,
    /// As soon as a connection that has served a turn has nothing in flight.
    Idle,
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answer an upgrade like this, once.
    Upgrade(Upgrade),
    /// The turn ends with this error frame (over HTTP: its `status` and `error`). The lane's name is added.
    Error(Value),
    /// The same without the lane's name.
    ErrorWithoutLane(Value),
    /// An `error` and then a `response.failed` for the same request.
    TwoTerminals(Value),
    /// The id is not found, in one of the shapes seen in the wild.
    NotFound(NotFound),
    /// The turn ends with `response.failed` and this code.
    Failed(&'static str),
    /// The turn ends with `response.incomplete` and this reason.
    Incomplete(&'static str),
    /// The connection is closed with this code.
    Close(u16),
    /// The TCP connection is reset.
    Reset,
    /// The TCP connection ends in order, without a close frame or an answer: what clients call 1006.
    HangUp,
    /// The turn is never heard of again; the connection lives.
    Silence,
    /// The connection neither reads, writes nor answers pings any more.
    IgnorePings,
    /// A text frame that is not an event; the turn goes on.
    Garbage(String),
    /// A binary frame; the turn goes on.
    Binary(Vec<u8>),
    /// One more frame under the name of the turn's lane, or of the lane last used; the turn goes on.
    Frame(Value),
    /// What is written from now on crawls; then the connection is itself again.
    Trickle(Trickle),
    /// A `response.created` nobody asked for, on the lane last used.
    SpontaneousEvent,
    /// This many pings at once; the turn goes on.
    PingFlood(u32),
}

/// A connection that writes in small pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trickle {
    /// Bytes that go this way; frames and an upgrade's answer count alike.
    pub bytes: usize,
    /// Bytes of one piece, at least 1.
    pub piece: usize,
    /// The wait before each piece.
    pub pause: Duration,
}

/// The known shapes of "previous response not found" (protocol 1.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFound {
    /// As documented, `error` nested.
    Nested,
    /// The same without a status (the alpha's).
    NoStatus,
    /// The flat error event.
    Flat,
    /// The ChatGPT backend's since 2026-08: no code, no param.
    Codeless,
    /// `status_code` in place of `status`.
    StatusCode,
    /// With top-level `headers` of mixed types.
    Headers,
    /// Inside a `response.failed`.
    Failed,
}

impl NotFound {
    /// The error frame for an id; for [`Self::Failed`] the nested one, which the driver wraps.
    #[must_use]
    pub fn frame(self, id: &str) -> Value {
        let message = format!("Previous response with id '{id}' not found.");
        let error = json!({
            "type": "invalid_request_error", "code": "previous_response_not_found",
            "message": message, "param": "previous_response_id",
        });
        match self {
            Self::Nested | Self::Failed => json!({"type": "error", "status": 400, "error": error}),
            Self::NoStatus => json!({"type": "error", "error": error}),
            Self::StatusCode => json!({"type": "error", "status_code": 400, "error": error}),
            Self::Headers => json!({"type": "error", "status": 400, "error": error,
                "headers": {"x-codex-primary-used-percent": "12.5", "x-codex-primary-window-minutes": 15}}),
            Self::Flat => json!({"type": "error", "code": "previous_response_not_found", "message": message,
                "param": "previous_response_id", "sequence_number": 0}),
            Self::Codeless => json!({"type": "error", "status": 400,
                "error": {"type": "invalid_request_error", "message": "Invalid `previous_response_id`."}}),
        }
    }
}

/// One thing to go wrong, the next time its moment comes for a turn it applies to.
#[derive(Clone, Debug)]
pub struct Mishap {
    pub(super) moment: Moment,
    pub(super) fault: Fault,
    http: bool,
    continued: Option<bool>,
    lane: Option<String>,
    connection: Option<u64>,
    skip: u32,
    times: u32,
}

impl Mishap {
    /// Once, at the next such moment of a WebSocket turn.
    #[must_use]
    pub fn new(moment: Moment, fault: Fault) -> Self {
        Self { moment, fault, http: false, continued: None, lane: None, connection: None, skip: 0, times: 1 }
    }

    /// For turns over HTTP in place of the WebSocket.
    #[must_use]
    pub fn over_http(self) -> Self {
        Self { http: true, ..self }
    }

    /// Only for turns with (true) or without (false) a `previous_response_id`.
    #[must_use]
    pub fn continued(self, continued: bool) -> Self {
        Self { continued: Some(continued), ..self }
    }

    /// Only on this named lane.
    #[must_use]
    pub fn on_lane(self, name: impl Into<String>) -> Self {
        Self { lane: Some(name.into()), ..self }
    }

    /// Only on the TCP connection of this number, as the ledger counts them.
    #[must_use]
    pub fn on_connection(self, number: u64) -> Self {
        Self { connection: Some(number), ..self }
    }

    /// Let this many such moments pass first.
    #[must_use]
    pub fn skip(self, moments: u32) -> Self {
        Self { skip: moments, ..self }
    }

    /// Strike this many times.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// Whether it applies to what is happening.
    pub(super) fn applies(&self, at: &Occasion<'_>) -> bool {
        self.moment == at.moment
            && self.http == at.http
            && self.continued.is_none_or(|continued| continued == at.continued)
            && self.lane.as_deref().is_none_or(|lane| at.lane == Some(lane))
            && self.connection.is_none_or(|number| number == at.connection)
    }

    /// Counts one matching moment: whether it strikes now.
    pub(super) fn strike(&mut self) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.times = self.times.saturating_sub(1);
        true
    }

    /// Whether it has struck often enough.
    pub(super) fn is_spent(&self) -> bool {
        self.times == 0
    }
}

/// What a mishap is matched against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Occasion<'a> {
    pub(super) moment: Moment,
    pub(super) http: bool,
    pub(super) continued: bool,
    pub(super) lane: Option<&'a str>,
    /// Number of the TCP connection.
    pub(super) connection: u64,
}
