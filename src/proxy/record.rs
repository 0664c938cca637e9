//! The record of a turn while it is under way: its times, its plan, its steps of recovery; counted, and entered in the
//! journal, at its end.
//!
//! Decides nothing. It also keeps the turn's place among the turns that may be under way.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::{Body as _, Frame, SizeHint};
use hyper::header::CONTENT_TYPE;
use tokio::sync::OwnedSemaphorePermit;

use crate::downstream::body::{Body, BodyError};
use crate::proto::session::recovery::Rung;
use crate::proxy::Proxy;
use crate::proxy::plan::Told;
use crate::telemetry::turns::{Api, Form, Outcome, Turn, wall_clock};

/// See the module. Shared by all that know something about the turn; if all of them let go before its end, its client
/// has left.
pub(super) struct Record {
    proxy: Arc<Proxy>,
    api: Api,
    began: Instant,
    /// The same by the clock on the wall.
    began_at: SystemTime,
    /// When the client's body was there.
    uploaded: Instant,
    state: Mutex<State>,
    _permit: OwnedSemaphorePermit,
}

#[derive(Default)]
struct State {
    told: Option<Told>,
    is_counted: bool,
    is_ended: bool,
    streams: bool,
    status: Option<u16>,
    rung: Option<Rung>,
    recoveries: u32,
    left: Option<Instant>,
    first_event: Option<Instant>,
}

impl Record {
    /// Of a turn whose head came at `began`, and whose body has just come.
    pub(super) fn begin(
        proxy: &Arc<Proxy>,
        permit: OwnedSemaphorePermit,
        chat: bool,
        began: Instant,
    ) -> Arc<Self> {
        Arc::new(Self {
            proxy: proxy.clone(),
            api: if chat { Api::Chat } else { Api::Responses },
            began,
            began_at: wall_clock().checked_sub(began.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH),
            uploaded: Instant::now(),
            state: Mutex::default(),
            _permit: permit,
        })
    }

    /// Whose turn it is.
    pub(super) fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its client wants a stream of events.
    pub(super) fn streams(&self, streams: bool) {
        self.state().streams = streams;
    }

    /// A try that had no answer, or has none yet: how it was sent, and when it left.
    pub(super) fn note(&self, told: Told, left: Option<Instant>) {
        let mut state = self.state();
        if !state.is_counted {
            state.told = Some(told);
            state.left = left;
        }
    }

    /// The turn takes a step of recovery.
    pub(super) fn recover(&self, rung: Rung) {
        let mut state = self.state();
        state.rung = Some(rung);
        state.first_event = None;
        state.recoveries += u32::from(rung != Rung::Fail);
    }

    /// Its answer has begun.
    pub(super) fn hear(&self) {
        self.state().first_event.get_or_insert_with(Instant::now);
    }

    /// The client gets an answer, and is told with it how the turn went, if the settings want it told. Here the turn is
    /// counted.
    pub(super) fn tell(&self, told: Told, left: Option<Instant>, response: &mut Response<Body>) {
        if self.proxy.settings.plan_header {
            told.tell(response.headers_mut());
        }
        let mut state = self.state();
        state.status = Some(response.status().as_u16());
        (state.told, state.left) = (Some(told), left);
        self.count(&mut state);
    }

    /// The turn is over, if it was not before. Told before the client can see the end, so that whoever has read that finds
    /// the turn in the journal.
    pub(super) fn end(&self, outcome: Outcome) {
        let mut state = self.state();
        if std::mem::replace(&mut state.is_ended, true) {
            return;
        }
        // What went up for a client that left went up.
        self.count(&mut state);
        let turn = self.turn(&state, outcome);
        drop(state);
        let metrics = &self.proxy.metrics;
        match outcome {
            Outcome::Completed => metrics.turns_completed.increment(),
            Outcome::Failed => metrics.turns_failed.increment(),
            Outcome::Abandoned => metrics.turns_abandoned.increment(),
            // The socket that would not wait for it has counted it.
            Outcome::Lagging => {}
        }
        if let Some(plan) = turn.plan {
            turn.added.into_iter().for_each(|added| metrics.added.of(plan).record(micros(added)));
            turn.first_event.into_iter().for_each(|first| metrics.first_event.of(plan).record(micros(first)));
        }
        self.proxy.journal.enter(turn);
    }

    /// Somebody else's answer, watched to its end: an error by its status, or if it breaks.
    pub(super) fn watch(self: Arc<Self>, response: Response<Body>) -> Response<Body> {
        let kind = response.headers().get(CONTENT_TYPE);
        self.streams(kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")));
        let whole = outcome_of(response.status().as_u16());
        response.map(|body| Watched { body, record: self, whole }.seen().boxed_unsync())
    }

    fn count(&self, state: &mut State) {
        if let Some(told) = state.told.as_ref().filter(|_| !state.is_counted) {
            told.count(&self.proxy.metrics, self.api);
            state.is_counted = true;
        }
    }

    fn turn(&self, state: &State, outcome: Outcome) -> Turn {
        let told = state.told.as_ref();
        let since_upload = |at: Instant| at.saturating_duration_since(self.uploaded);
        Turn {
            number: 0,
            began: self.began_at,
            api: self.api,
            form: if state.streams { Form::Sse } else { Form::Json },
            plan: told.map(|told| told.plan),
            grade: told.and_then(|told| told.grade),
            reason: told.and_then(|told| told.reason),
            items: told.and_then(|told| told.items),
            received: told.map_or(0, |told| told.received as u64),
            sent: told.map_or(0, |told| told.sent as u64),
            wire: told.map_or(0, |told| told.wire),
            rung: state.rung,
            recoveries: state.recoveries,
            added: state.left.map(since_upload),
            first_event: state.first_event.map(since_upload),
            duration: self.began.elapsed(),
            status: state.status,
            outcome,
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.end(Outcome::Abandoned);
    }
}

/// What an answer with this status is if all of it goes down.
fn outcome_of(status: u16) -> Outcome {
    if status < 400 { Outcome::Completed } else { Outcome::Failed }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Hands its body through, and ends the record with it; dropped before that, its client has left.
struct Watched {
    body: Body,
    record: Arc<Record>,
    whole: Outcome,
}

impl Watched {
    fn seen(self) -> Self {
        if self.body.is_end_stream() {
            self.record.end(self.whole);
        }
        self
    }
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Err(_)) => self.record.end(Outcome::Failed),
            // A body of known length is asked for nothing behind its last byte.
            Some(Ok(_)) if self.body.is_end_stream() => self.record.end(self.whole),
            None => self.record.end(self.whole),
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
