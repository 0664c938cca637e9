//! The admin listener: health, metrics, records of turns and the dashboard, on a port of its own.
//!
//! Looks, and changes nothing: GET and HEAD only. Nothing it says holds content, a key, or whose something is. Deciding,
//! counting and recording are for the rooms below.

use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::watch;

use crate::downstream::body::{self, Body};
use crate::downstream::listen::{Connection, Stage};
use crate::downstream::stall;
use crate::proxy::Proxy;
use crate::proxy::admission;
use crate::telemetry::turns::{unix_seconds, wall_clock};
use ready::{Probe, Unready};
use stats::{Stats, TurnRow};

mod events;
mod exposition;
mod page;
mod ready;
pub mod stats;

/// Connections at a time; the next one waits to be accepted. Followers of `/events` are among them.
pub const CONNECTIONS: u32 = 64;

/// See the module.
#[derive(Debug)]
pub struct Admin {
    proxy: Arc<Proxy>,
    /// How far the proxy is on its way out.
    stage: watch::Receiver<Stage>,
    started: Instant,
    started_unix_seconds: f64,
    probe: Probe,
    /// It listens on loopback: whoever asks under another name is a page of a foreign site.
    local: bool,
}

impl Admin {
    /// Looks at this proxy. With `local` it answers to names of this machine only.
    pub fn new(proxy: Arc<Proxy>, stage: watch::Receiver<Stage>, local: bool) -> Arc<Self> {
        let probe = Probe::new(proxy.settings().timeouts.ready);
        let (started, started_unix_seconds) = (Instant::now(), unix_seconds(wall_clock()));
        Arc::new(Self { proxy, stage, started, started_unix_seconds, probe, local })
    }

    /// Answers one request.
    pub async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let limit = self.proxy.settings().timeouts.stalled_client;
        self.answer(&request).await.map(|body| stall::watched(body, limit))
    }

    async fn answer(self: Arc<Self>, request: &Request<Incoming>) -> Response<Body> {
        if let Err(header) = self.admit(request) {
            return refusal(
                StatusCode::FORBIDDEN,
                "tailwire_foreign_request",
                &format!("This port is for this machine, and `{header}` does not name it."),
            );
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response =
                refusal(StatusCode::METHOD_NOT_ALLOWED, "tailwire_read_only", "Only GET and HEAD.");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/" => page::response(),
            "/live" => json(StatusCode::OK, &serde_json::json!({ "live": true })),
            "/ready" => self.ready().await,
            "/metrics" => self.metrics(request.headers()),
            "/stats" => json(StatusCode::OK, &self.stats()),
            "/turns" => json(StatusCode::OK, &serde_json::json!({ "turns": self.turns() })),
            "/events" => self.events(request),
            _ => refusal(
                StatusCode::NOT_FOUND,
                "tailwire_not_found",
                "There are /, /live, /ready, /metrics, /stats, /turns and /events.",
            ),
        }
    }

    /// No foreign page may read it: on loopback by the same rule that guards the upstream key; elsewhere, where names are many,
    /// a page must at least have come from here.
    fn admit(&self, request: &Request<Incoming>) -> Result<(), &'static str> {
        let headers = request.headers();
        if self.local {
            return admission::local(request.uri().authority(), headers);
        }
        let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
        let host = request.uri().authority().map(|host| host.as_str().as_bytes());
        let host = host.or_else(|| headers.get(HOST).map(HeaderValue::as_bytes));
        let origin = origin.as_bytes();
        let origin = origin.strip_prefix(b"https://").or_else(|| origin.strip_prefix(b"http://"));
        if origin.is_some() && origin == host { Ok(()) } else { Err("origin") }
    }

    fn draining(&self) -> bool {
        *self.stage.borrow() > Stage::Running
    }

    async fn ready(&self) -> Response<Body> {
        let unready = match self.draining() {
            true => Some(Unready::Draining),
            false => self.probe.check(&self.proxy).await.err(),
        };
        match unready {
            None => json(StatusCode::OK, &serde_json::json!({ "ready": true })),
            Some(unready) => json(
                StatusCode::SERVICE_UNAVAILABLE,
                &serde_json::json!({ "ready": false, "reason": unready.name(), "message": unready.to_string() }),
            ),
        }
    }

    fn metrics(&self, headers: &HeaderMap) -> Response<Body> {
        let asked = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
        let open = asked.is_some_and(|accept| accept.contains("application/openmetrics-text"));
        match exposition::text(self.stats(), self.proxy.clone(), open) {
            Ok((text, kind)) => answer(StatusCode::OK, kind, text),
            Err(_) => refusal(
                StatusCode::INTERNAL_SERVER_ERROR,
                "tailwire_internal",
                "tailwire failed while writing its metrics; this is a bug in tailwire.",
            ),
        }
    }

    fn stats(&self) -> Stats {
        Stats::of(&self.proxy, self.started, self.started_unix_seconds, self.draining())
    }

    fn turns(&self) -> Vec<TurnRow> {
        self.proxy.journal().turns().iter().map(|turn| TurnRow::of(turn)).collect()
    }

    fn events(self: Arc<Self>, request: &Request<Incoming>) -> Response<Body> {
        let connection = request.extensions().get::<Connection>().cloned();
        // A HEAD would leave a follower behind that nobody reads.
        let body = match (request.method(), connection) {
            (&Method::GET, Some(connection)) => events::stream(self, connection),
            _ => body::empty(),
        };
        respond(StatusCode::OK, "text/event-stream; charset=utf-8", body)
    }
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<Body> {
    // Only maps with keys that are no texts cannot be written, and there are none.
    let text = serde_json::to_string(value).unwrap_or_default();
    answer(status, "application/json", text)
}

fn refusal(status: StatusCode, code: &'static str, message: &str) -> Response<Body> {
    json(status, &serde_json::json!({ "error": { "code": code, "message": message } }))
}

fn answer(status: StatusCode, kind: &'static str, text: String) -> Response<Body> {
    respond(status, kind, body::full(text))
}

fn respond(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "same-origin"),
        ("referrer-policy", "no-referrer"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}
