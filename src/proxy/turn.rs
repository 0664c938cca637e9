//! The life of a turn: read, place, send, wait for the first sign, hand over to the relay; and the ladder's loop.
//!
//! Control flow only. Where a turn goes is `proto::core`'s to say, what a fault leads to `proto::session::recovery`'s.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request as HttpRequest, Response};

use crate::downstream::body::Body;
use crate::downstream::room::Claim;
use crate::downstream::upload::{self, Upload, UploadError};
use crate::proto::core::{Placement, Plan, Ticket, Wish};
use crate::proto::dialect::Dialect;
use crate::proto::digest::Digest;
use crate::proto::fault::Fault;
use crate::proto::session::recovery::{self, Progress, Rung};
use crate::proto::transcript::plan::Reason;
use crate::proto::transcript::request::Request;
use crate::proto::wire::error::ErrorClass;
use crate::proxy::chat::{self, Translation};
use crate::proxy::plan::{Spent, Told};
use crate::proxy::record::Record;
use crate::proxy::relay::{Answer, Try};
use crate::proxy::reply::{self, Problem};
use crate::proxy::{Proxy, passthrough};
use crate::telemetry::turns::Outcome;
use crate::upstream::pool::Account;

/// Bodies above this are parsed off the async threads: beside a 50 MB body every stream would stand still.
const PARSE_INLINE: usize = 1 << 20;

/// Answers `POST /v1/responses`, or with `chat` `POST /v1/chat/completions`.
pub(super) async fn run(proxy: &Arc<Proxy>, request: HttpRequest<Incoming>, chat: bool) -> Response<Body> {
    let began = Instant::now();
    // Before the body is read: it is the bodies that take the room.
    let Ok(permit) = proxy.turns.clone().try_acquire_owned() else {
        proxy.metrics.turns_overloaded.increment();
        return Problem::overloaded("turns at once", 1).response();
    };
    let (parts, body) = request.into_parts();
    let received = upload::receive(&parts.headers, body, &proxy.bodies, &proxy.upload_limits()).await;
    let (upload, claim) = match received {
        Ok(received) => received,
        Err(error) => {
            if matches!(error, UploadError::NoRoom) {
                proxy.metrics.turns_overloaded.increment();
            }
            return Problem::from(&error).response();
        }
    };
    let record = Record::begin(proxy, permit, chat, began);
    let account = proxy.account(&parts.headers, &parts.extensions);
    let mut turn =
        Turn { proxy: proxy.clone(), parts, upload, claim, account, record, chat, conversation: None };
    match turn.read().await {
        Ok((request, dialect)) => turn.live(Arc::new(request), dialect).await,
        Err(reason) => turn.fall_back(&reason, Spent::default()).await,
    }
}

struct Turn {
    proxy: Arc<Proxy>,
    parts: Parts,
    upload: Upload,
    /// The room it takes, for as long as it is held here.
    claim: Claim,
    account: Account,
    /// What is kept of it, and its place among the turns that may be under way; a stream keeps it to its end.
    record: Arc<Record>,
    /// It came as a chat request.
    chat: bool,
    /// Whose turn it is, if it was translated.
    conversation: Option<Digest>,
}

impl Turn {
    /// The request and what its client speaks, or why it goes over HTTP as it came.
    async fn read(&mut self) -> Result<(Request, Dialect), Reason> {
        if asks_for_http(&self.parts.headers) {
            return Err(Reason::Mode);
        }
        if self.parts.uri.query().is_some() {
            return Err(Reason::Field("query"));
        }
        if !is_json(&self.parts.headers) {
            return Err(Reason::NotUnderstood);
        }
        let Some(body) = self.upload.body.clone() else { return Err(Reason::NotUnderstood) };
        let (proxy, account) = (self.proxy.clone(), self.account.digest);
        let (large, chat) = (body.len() > PARSE_INLINE, self.chat);
        let parse = move || {
            if !chat {
                return Ok((parse(&proxy, &account, &body)?, Dialect::Responses, None));
            }
            let Translation { body, dialect, conversation } = chat::translate(&proxy, &account, &body)?;
            Ok((parse(&proxy, &account, &body)?, dialect, Some(conversation)))
        };
        let parsed = if large {
            // A panic in there is a defect; the provider still gets the client's bytes.
            tokio::task::spawn_blocking(parse).await.unwrap_or(Err(Reason::NotUnderstood))
        } else {
            parse()
        };
        let (request, dialect, conversation) = parsed?;
        self.conversation = conversation;
        // A translation stands beside what it was made of. The turn as it came is in here already, and has its room.
        if chat && !self.claim.set(self.upload.weight() + request.len()) {
            return Err(Reason::TooLarge);
        }
        if request.chain.is_none() {
            return Err(Reason::Undigestable);
        }
        if self.proxy.profile.rules_out(&request) {
            return Err(Reason::Profile);
        }
        Ok((request, dialect))
    }

    /// Tries, and tries again as the ladder says.
    async fn live(self, request: Arc<Request>, dialect: Dialect) -> Response<Body> {
        self.record.streams(request.stream);
        let mut wish = Wish::default();
        let anchored = request.anchor.is_some();
        let mut progress = Progress {
            once: request.acts || anchored,
            anchored,
            translated: self.chat,
            ..Progress::default()
        };
        let mut spent = Spent::default();
        loop {
            let ticket = match self.proxy.pool.begin(&self.account, &request, &wish) {
                Placement::Wire(ticket) => self.explained(ticket),
                Placement::Http(reason, _) => {
                    drop(request);
                    return self.fall_back(&reason, spent).await;
                }
            };
            let mut attempt =
                Try::start(&self.record, (&request, &dialect), ticket, self.upload.raw.len(), spent);
            let fault = match attempt.answer().await {
                Answer::Stream => return attempt.stream(),
                Answer::Body(body) => return attempt.body(body),
                Answer::Fault(fault) => fault,
            };
            progress.delta = attempt.is_delta();
            progress.sent = attempt.was_sent();
            progress.begun = attempt.has_begun();
            spent = attempt.spent();
            let (connection, told, left) = (attempt.connection(), attempt.told(), attempt.left());
            attempt.fail(&fault);
            let rung = recovery::next(&fault, progress);
            self.record.recover(rung);
            tracing::info!(fault = fault.name(), ?rung, "turn recovers");
            self.note(&fault, &dialect);
            wish = match rung {
                Rung::FullSame => {
                    progress.tried_same = true;
                    self.proxy.metrics.recovered_full_same.increment();
                    Wish { full: Some(Reason::NotFound), prefer: Some(connection), ..Wish::default() }
                }
                Rung::FullNew => {
                    progress.tried_new = true;
                    self.proxy.metrics.recovered_full_new.increment();
                    Wish { full: Some(Reason::Recovered), new_socket: true, prefer: None }
                }
                Rung::Http => {
                    self.proxy.metrics.recovered_http.increment();
                    drop(request);
                    return self.fall_back(&reason_of(&fault), spent).await;
                }
                Rung::Fail => {
                    let mut response = reply::fault(&fault);
                    self.record.tell(told, left, &mut response);
                    self.record.end(if fault == Fault::SlowReader {
                        Outcome::Lagging
                    } else {
                        Outcome::Failed
                    });
                    return response;
                }
            };
            progress.rerun |= progress.sent && !was_refused(&fault, progress.begun);
        }
    }

    /// Remembers a model that is not served on the Responses API: its next chat turns go native at once.
    fn note(&self, fault: &Fault, dialect: &Dialect) {
        if let (Fault::Provider(error), Dialect::Chat { model, .. }) = (fault, dialect)
            && error.class == ErrorClass::NotServed
        {
            self.proxy.chat_models.note(model);
        }
    }

    /// A first turn for a client that seems to make nothing else: the reason is in its headers.
    fn explained(&self, mut ticket: Ticket) -> Ticket {
        if let (Plan::Full { reason, .. }, Some(name)) = (&mut ticket.plan, &self.account.split_by)
            && *reason == Reason::FirstTurn
        {
            *reason = Reason::Header(name.to_string());
        }
        ticket
    }

    /// The client's own bytes over HTTP.
    async fn fall_back(self, reason: &Reason, spent: Spent) -> Response<Body> {
        let told = Told::http(reason, self.upload.raw.len(), spent);
        let Self { proxy, parts, upload, mut claim, record, conversation, .. } = self;
        claim.set(upload.weight());
        let raw = upload.raw;
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let (client, upstream) = (&proxy.client, &proxy.upstream);
        let left = Some(Instant::now());
        record.note(told.clone(), left);
        let sent = passthrough::resend(client, upstream, parts.method, path, &parts.headers, raw).await;
        drop(claim);
        if sent.is_ok() {
            record.hear();
        }
        let mut response = sent.unwrap_or_else(|error| Problem::from(&error).response());
        if let Some(conversation) = conversation.filter(|_| *reason == Reason::Refused)
            && response.status().is_success()
        {
            proxy.refused.note(conversation, Instant::now());
        }
        record.tell(told, left, &mut response);
        record.watch(response)
    }
}

/// Parses by what is known of this client; the long way if that shortcut leads nowhere, for the same answer.
fn parse(proxy: &Proxy, account: &Digest, body: &Bytes) -> Result<Request, Reason> {
    let known = proxy.pool.prefixes(account);
    let request = Request::parse(&proxy.key, account, body.clone(), &known)?;
    request.prepare(&proxy.key);
    let shortcut = request.chain.as_ref().is_some_and(|chain| chain.first > 0);
    if shortcut && !proxy.pool.recognises(&proxy.key, &request) {
        return Request::parse(&proxy.key, account, body.clone(), &[]);
    }
    Ok(request)
}

fn asks_for_http(headers: &HeaderMap) -> bool {
    headers.get("x-tailwire-mode").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"http"))
}

/// JSON by its content type; a client that names none means JSON, as every provider takes it.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(CONTENT_TYPE) else { return true };
    kind.to_str().is_ok_and(|kind| kind.to_ascii_lowercase().contains("json"))
}

/// True if the frame was certainly not run: the provider says so, and had not begun; or what it continues was not there.
fn was_refused(fault: &Fault, begun: bool) -> bool {
    matches!(fault, Fault::Provider(error) if !begun || error.class == ErrorClass::NotFound)
}

fn reason_of(fault: &Fault) -> Reason {
    match fault {
        Fault::TooBig => Reason::TooLarge,
        Fault::Provider(error) if error.class == ErrorClass::NotServed => Reason::ChatOnly,
        Fault::Provider(error) if error.class == ErrorClass::Answer => Reason::Refused,
        Fault::Connect => Reason::NoSocket,
        _ => Reason::Recovered,
    }
}
