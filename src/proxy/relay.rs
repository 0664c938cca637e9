//! One try of a turn on the wire: the frame up, the events down, as SSE or as one JSON body.
//!
//! Dropped before its end, it tells the pool that nobody waits any more: that is how a vanished client is noticed.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use hyper::Response;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};

use crate::downstream::body::{self, Body, BodyError};
use crate::proto::core::{Plan, Ticket};
use crate::proto::dialect::{Dialect, Reply};
use crate::proto::fault::Fault;
use crate::proto::id::ConnectionId;
use crate::proto::transcript::echo::Listener;
use crate::proto::transcript::frame::{self, Envelope};
use crate::proto::transcript::request::Request;
use crate::proto::wire::error::{ErrorClass, ProviderError};
use crate::proto::wire::event::{Event, EventKind};
use crate::proxy::plan::{Spent, Told};
use crate::proxy::record::Record;
use crate::proxy::{Proxy, reply};
use crate::telemetry::turns::Outcome;
use crate::upstream::inbox::{Inbox, Message};

/// Events already there are sent down in one piece up to about this size.
const PIECE: usize = 64 << 10;

/// What a try came to.
pub(super) enum Answer {
    /// The first event came, and the client wants a stream.
    Stream,
    /// The response is complete, and the client wants one body.
    Body(String),
    /// Nothing has gone down yet, and this happened.
    Fault(Fault),
}

/// See the module.
pub(super) struct Try {
    proxy: Arc<Proxy>,
    record: Arc<Record>,
    request: Arc<Request>,
    ticket: Ticket,
    inbox: Inbox,
    reply: Reply,
    listener: Listener,
    /// What is to be sent down first: the events that decided the answer's status.
    ready: Vec<u8>,
    received: usize,
    sent: usize,
    /// What earlier tries of this turn sent in vain.
    spent: Spent,
    /// The id `response.created` named.
    created: Option<String>,
    /// The first event, if it was no opening: perhaps a late word of another turn's. The next one decides.
    early: Option<Event>,
    begun: bool,
    ended: bool,
    /// What became of the turn, once it has ended.
    outcome: Outcome,
}

impl Try {
    /// Sends the frame.
    pub(super) fn start(
        record: &Arc<Record>,
        (request, dialect): (&Arc<Request>, &Dialect),
        ticket: Ticket,
        received: usize,
        spent: Spent,
    ) -> Self {
        let proxy = record.proxy();
        let lane = ticket.lane.name();
        let (previous, new_from) = match &ticket.plan {
            Plan::Delta { previous, new_from, .. } => (Some(&**previous), Some(*new_from)),
            Plan::Full { previous, .. } => (previous.as_deref(), None),
        };
        let frame = frame::write(request, Envelope { stream_id: lane.as_deref(), previous, new_from });
        let sent = frame.len();
        let inbox = proxy.pool.submit(&ticket, frame.into());
        Self {
            proxy: proxy.clone(),
            record: record.clone(),
            request: request.clone(),
            ticket,
            inbox,
            reply: Reply::new(dialect, request.anchor.as_deref(), &reply::completion_id()),
            listener: Listener::default(),
            ready: Vec::new(),
            received,
            sent,
            spent,
            created: None,
            early: None,
            begun: false,
            ended: false,
            outcome: Outcome::Completed,
        }
    }

    /// What this try and those before it sent.
    pub(super) fn spent(&self) -> Spent {
        let (sent, wire) = self.inbox.wire().map_or((0, 0), |wire| (self.sent, wire));
        Spent { sent: self.spent.sent + sent, wire: self.spent.wire + wire }
    }

    pub(super) fn is_delta(&self) -> bool {
        matches!(self.ticket.plan, Plan::Delta { .. })
    }

    /// True if the frame names a response to continue, found by us or named by the client.
    fn continues(&self) -> bool {
        self.is_delta() || self.request.anchor.is_some()
    }

    pub(super) fn was_sent(&self) -> bool {
        self.inbox.wire().is_some()
    }

    pub(super) fn has_begun(&self) -> bool {
        // An early event may have been its own, and what acts is not run twice on a guess.
        self.begun || self.early.is_some()
    }

    pub(super) fn connection(&self) -> ConnectionId {
        self.ticket.connection
    }

    /// Waits until the answer's status is known: the first event of a stream that its client is shown (the second, if that is
    /// no opening), the last of a body.
    pub(super) async fn answer(&mut self) -> Answer {
        loop {
            let event = match self.inbox.next().await {
                Message::Event(event) => event,
                Message::Fault(fault) => return Answer::Fault(fault),
            };
            if let Some(error) = self.error(&event) {
                return Answer::Fault(Fault::Provider(Box::new(error)));
            }
            if !self.has_begun() && matches!(event.kind(), EventKind::Content | EventKind::ItemDone) {
                self.early = Some(event);
                continue;
            }
            // Nothing is part of an output before its response is opened; sparse sockets open none (protocol §1.16).
            let opens = event.kind() == EventKind::Created;
            let early = self.early.take().filter(|early| !opens || early.value("output_index").is_none());
            self.begun = true;
            self.record.hear();
            let events = early.iter().chain([&event]);
            if self.request.stream {
                let mut ready = std::mem::take(&mut self.ready);
                events.for_each(|event| self.show(event, &mut ready));
                self.ready = ready;
                if self.ready.is_empty() {
                    continue;
                }
                return Answer::Stream;
            }
            for event in events {
                self.hear(event);
                self.reply.hear(event);
            }
            if event.kind().is_terminal() {
                self.settle(&event);
                return match self.reply.body(&event) {
                    Some(body) => Answer::Body(body),
                    None if self.reply.is_incomplete() => Answer::Fault(Fault::TooBig),
                    None => Answer::Fault(Fault::Desynchronised),
                };
            }
        }
    }

    /// An error frame; or a failed response that says only that the one it continued is not there, or that the client's
    /// dialect knows as an error only.
    fn error(&self, event: &Event) -> Option<ProviderError> {
        match event.kind() {
            EventKind::Error => Some(ProviderError::of_event(event)),
            EventKind::Ended => ProviderError::of_response(event)
                .filter(|error| self.continues() && error.class == ErrorClass::NotFound)
                .or_else(|| self.reply.failure(event)),
            _ => None,
        }
    }

    /// This try is over without an answer.
    pub(super) fn fail(mut self, fault: &Fault) {
        self.ended = true;
        match fault {
            Fault::Provider(error) => self.refused(error),
            fault => {
                if *fault == Fault::Silent && !self.begun {
                    // What it continued may be why, and would be so again (F27).
                    self.proxy.pool.disown(self.ticket.turn);
                }
                self.proxy.pool.abandon(self.ticket.turn);
            }
        }
    }

    /// The provider's error: the turn is over, and what it continued is not asked of again if it may be to blame. Only an
    /// overload says nothing about it.
    fn refused(&self, error: &ProviderError) {
        if error.status != 503 {
            self.proxy.pool.disown(self.ticket.turn);
        }
        self.proxy.pool.end(self.ticket.turn, error.class == ErrorClass::NotFound);
    }

    /// The whole answer as JSON.
    pub(super) fn body(self, body: String) -> Response<Body> {
        let length = HeaderValue::from(body.len());
        let mut response = Response::new(body::keeping(body::full(body), self.record.clone()));
        response.headers_mut().insert(CONTENT_LENGTH, length);
        self.head(&mut response, "application/json");
        self.record.end(self.outcome);
        response
    }

    /// The answer as it comes, as SSE.
    pub(super) fn stream(self) -> Response<Body> {
        let mut head = Response::new(body::empty());
        self.head(&mut head, "text/event-stream; charset=utf-8");
        let pieces = futures_util::stream::unfold(Some(self), |relay| async {
            let mut relay = relay?;
            let (piece, on) = relay.piece().await;
            if relay.ended {
                relay.record.end(relay.outcome);
            }
            Some((piece, on.then_some(relay)))
        });
        head.map(|_| body::stream(pieces))
    }

    fn head(&self, response: &mut Response<Body>, kind: &'static str) {
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Ok(id) = HeaderValue::try_from(reply::request_id()) {
            headers.insert("x-request-id", id);
        }
        self.record.tell(self.told(), self.left(), response);
    }

    /// When the frame began to be written, once it did.
    pub(super) fn left(&self) -> Option<Instant> {
        self.inbox.left()
    }

    /// What is told about this try.
    pub(super) fn told(&self) -> Told {
        Told::wire(&self.ticket, &self.request, self.received, self.spent())
    }

    fn hear(&mut self, event: &Event) {
        if event.kind() == EventKind::Created {
            self.created = event.response_id();
        }
        self.listener.hear(&self.proxy.key, event);
    }

    /// The next bytes of the stream, and whether more follow. All events that are there go down together.
    async fn piece(&mut self) -> (Result<Bytes, BodyError>, bool) {
        let mut out = std::mem::take(&mut self.ready);
        if self.ended {
            // Either it ended with what was ready, or it broke.
            return match out.is_empty() {
                true => (Err("the provider's stream broke".into()), false),
                false => (Ok(out.into()), false),
            };
        }
        // Nothing is sent again once the answer has begun; a long answer must not keep a large body.
        if let Some(request) = Arc::get_mut(&mut self.request).filter(|request| !request.is_empty()) {
            request.forget_body();
        }
        loop {
            if out.len() >= PIECE {
                return (Ok(out.into()), true);
            }
            let message = match self.inbox.try_next() {
                Some(message) => message,
                None if out.is_empty() => self.inbox.next().await,
                None => return (Ok(out.into()), true),
            };
            let broken = matches!(message, Message::Fault(_));
            self.write(message, &mut out);
            if self.ended {
                // A broken stream ends broken, after the error event, as a dropped REST stream would.
                return (Ok(out.into()), broken);
            }
        }
    }

    fn write(&mut self, message: Message, out: &mut Vec<u8>) {
        match message {
            Message::Event(event) => {
                let failure = match event.kind() {
                    EventKind::Error => Some(ProviderError::of_event(&event)),
                    _ => self.reply.failure(&event),
                };
                let Some(error) = failure else { return self.show(&event, out) };
                self.reply.write_error(&error, out);
                self.ended = true;
                self.outcome = Outcome::Failed;
                self.refused(&error);
            }
            Message::Fault(fault) => {
                tracing::info!(fault = fault.name(), "stream breaks");
                self.reply.write_fault(&fault, out);
                self.ended = true;
                self.outcome = broken_by(&fault);
                self.proxy.pool.abandon(self.ticket.turn);
            }
        }
    }

    /// One more event of the stream.
    fn show(&mut self, event: &Event, out: &mut Vec<u8>) {
        self.hear(event);
        self.reply.write(event, out);
        if event.kind().is_terminal() {
            self.settle(event);
        }
    }

    /// The last event was read: what it leaves to be continued. Told before the client can see the end, so that its next
    /// turn finds it.
    fn settle(&mut self, event: &Event) {
        self.ended = true;
        if event.name() == "response.failed" {
            self.outcome = Outcome::Failed;
        }
        let same = |id: &String| self.created.as_ref().is_none_or(|created| created == id);
        // One response under two ids is two responses in one lane: there is nothing to be continued.
        let id = event.response_id().filter(same).filter(|_| event.kind() == EventKind::Completed);
        let Some(id) = id else {
            self.proxy.pool.end(self.ticket.turn, false);
            return;
        };
        let output = self.reply.output(event);
        let said = std::mem::take(&mut self.listener).finish(&self.proxy.key, output.as_deref());
        let echo = match output.and_then(|output| self.reply.echo(&output)) {
            // Only what both accounts of the output agree in is continued, in whatever words it comes back.
            Some(repeated) if said.is_some() => Listener::default().finish(&self.proxy.key, Some(&repeated)),
            Some(_) => None,
            None => said,
        };
        self.proxy.pool.settle(self.ticket.turn, &self.request, &id, echo);
    }
}

impl Drop for Try {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.record.note(self.told(), self.left());
        if let Some(Message::Fault(Fault::SlowReader)) = self.inbox.try_next() {
            // It read too slowly to hear of it.
            self.record.end(Outcome::Lagging);
        }
        self.proxy.pool.abandon(self.ticket.turn);
    }
}

fn broken_by(fault: &Fault) -> Outcome {
    if *fault == Fault::SlowReader { Outcome::Lagging } else { Outcome::Failed }
}
