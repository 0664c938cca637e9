//! The life of a request: which way it goes, and everything that happens to a turn on that way.
//!
//! The port is the provider's, whole: no path is ours. What is not a turn passes through untouched.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{HeaderMap, Method, Request, Response};
use tokio::sync::Semaphore;

use crate::config::{Mode, Settings};
use crate::downstream::body::Body;
use crate::downstream::upload::UploadLimits;
use crate::downstream::{headers, message};
use crate::proto::digest::Key;
use crate::proto::session::profile::Profile;
use crate::telemetry::metrics::Metrics;
use crate::upstream::handshake::Dialer;
use crate::upstream::http::Client;
use crate::upstream::origin::Upstream;
use crate::upstream::pool::{Account, Pool};
use census::Census;
use reply::Problem;

mod census;
pub mod passthrough;
mod plan;
mod relay;
pub mod reply;
pub mod tunnel;
mod turn;

/// What every request needs; one per process.
#[derive(Debug)]
pub struct Proxy {
    settings: Settings,
    profile: Profile,
    upstream: Upstream,
    pool: Arc<Pool>,
    client: Client,
    dialer: Dialer,
    metrics: Arc<Metrics>,
    key: Key,
    census: Census,
    turns: Arc<Semaphore>,
}

/// What a proxy is made of, besides its settings.
#[derive(Debug)]
pub struct Parts {
    /// The provider's rules.
    pub profile: Profile,
    /// Where it is.
    pub upstream: Upstream,
    /// The sockets.
    pub pool: Arc<Pool>,
    /// HTTP to it.
    pub client: Client,
    /// Sockets for clients that ask for one themselves.
    pub dialer: Dialer,
    /// The counters.
    pub metrics: Arc<Metrics>,
}

impl Proxy {
    /// A proxy of these parts. `key` is the process's digest key.
    pub fn new(settings: Settings, key: Key, parts: Parts) -> Self {
        let Parts { profile, upstream, pool, client, dialer, metrics } = parts;
        let turns = Arc::new(Semaphore::new(settings.limits.turns));
        Self { settings, profile, upstream, pool, client, dialer, metrics, key, census: Census::new(), turns }
    }

    /// Answers one request. Never fails: what goes wrong becomes a response.
    pub async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let limits = &self.settings.limits;
        if let Some(flaw) = message::flaw(&request, limits.head, limits.headers) {
            return Problem::from(&flaw).refusal(request.version());
        }
        if tunnel::asked(&request) {
            self.metrics.passthrough.increment();
            return tunnel::open(&self.dialer, &self.upstream, request).await;
        }
        let path = request.uri().path();
        let path = path.strip_prefix("/v1").unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        if request.method() == Method::POST && path == "/responses" && self.settings.mode != Mode::Http {
            return turn::run(&self, request).await;
        }
        if request.method() == Method::DELETE
            && let Some(response) = path.strip_prefix("/responses/")
        {
            self.pool.forget(&self.account(request.headers()).digest, response);
        }
        self.metrics.passthrough.increment();
        passthrough::forward(&self.client, &self.upstream, request, self.settings.timeouts.body_idle).await
    }

    /// Who is asking, as far as the upstream could tell.
    fn account(&self, headers: &HeaderMap) -> Account {
        let identity = headers::identity(headers, &self.settings.per_turn_headers);
        let mut hasher = self.key.hasher("account");
        for (name, value) in &identity {
            hasher.field(name.as_str().as_bytes()).field(value.as_bytes());
        }
        let digest = hasher.finish();
        let split_by = self.census.note(&self.key, &digest, &identity);
        let mut handshake = headers::handshake(headers, &self.settings.per_turn_headers);
        if let Some((name, value)) = self.profile.header {
            handshake.entry(name).or_insert(HeaderValue::from_static(value));
        }
        Account { digest, handshake, split_by }
    }

    /// Everything that is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Turns under way: clients that are uploading, waiting or reading.
    pub fn turns(&self) -> usize {
        self.settings.limits.turns - self.turns.available_permits()
    }

    /// The sockets.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    fn upload_limits(&self) -> UploadLimits {
        let timeouts = &self.settings.timeouts;
        UploadLimits { bytes: self.settings.limits.body, total: timeouts.body, idle: timeouts.body_idle }
    }
}
