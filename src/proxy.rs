//! The life of a request: which way it goes, and everything that happens to a turn on that way.
//!
//! The port is the provider's, whole: no path is ours. What is not a turn passes through untouched.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::http::Extensions;
use hyper::{HeaderMap, Method, Request, Response};
use tokio::sync::Semaphore;

use crate::config::{Chat, Mode, Settings};
use crate::downstream::body::Body;
use crate::downstream::room::Room;
use crate::downstream::stall;
use crate::downstream::upload::UploadLimits;
use crate::downstream::{headers, message};
use crate::proto::digest::Key;
use crate::proto::session::profile::Profile;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::turns::Journal;
use crate::upstream::dial::ConnectError;
use crate::upstream::handshake::Dialer;
use crate::upstream::http::Client;
use crate::upstream::origin::Upstream;
use crate::upstream::pool::{Account, Pool};
use admission::{Admission, Guest};
use census::Census;
use chat::ChatModels;
use reply::Problem;

pub mod admission;
mod census;
mod chat;
pub mod passthrough;
mod plan;
mod record;
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
    journal: Arc<Journal>,
    key: Key,
    census: Census,
    chat_models: ChatModels,
    admission: Admission,
    turns: Arc<Semaphore>,
    bodies: Arc<Room>,
}

/// What a proxy is made of, besides its settings.
#[derive(Debug)]
pub struct Parts {
    /// Who may come in, and with whose key they go up.
    pub admission: Admission,
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
        let Parts { admission, profile, upstream, pool, client, dialer, metrics } = parts;
        let turns = Arc::new(Semaphore::new(settings.limits.turns));
        let bodies = Room::new(settings.limits.all_bodies);
        let census = Census::new();
        let journal = Arc::new(Journal::new(settings.limits.recent_turns));
        let chat_models = ChatModels::new(settings.chat_only_models.clone());
        Self {
            settings,
            profile,
            upstream,
            pool,
            client,
            dialer,
            metrics,
            journal,
            key,
            census,
            chat_models,
            admission,
            turns,
            bodies,
        }
    }

    /// Answers one request. Never fails: what goes wrong becomes a response.
    pub async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let limit = self.settings.timeouts.stalled_client;
        self.answer(request).await.map(|body| stall::watched(body, limit))
    }

    async fn answer(self: Arc<Self>, mut request: Request<Incoming>) -> Response<Body> {
        let limits = &self.settings.limits;
        if let Some(flaw) = message::flaw(&request, limits.head, limits.headers) {
            return Problem::from(&flaw).refusal(request.version());
        }
        if let Err(problem) = self.admission.admit(&mut request) {
            tracing::debug!(code = problem.code, "request refused");
            self.metrics.requests_refused.increment();
            return problem.response();
        }
        if tunnel::asked(&request) {
            self.metrics.passthrough.increment();
            return tunnel::open(&self.dialer, &self.upstream, request).await;
        }
        let path = request.uri().path();
        let path = path.strip_prefix("/v1").unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        let chat = path == "/chat/completions" && self.settings.chat == Chat::Translate;
        if request.method() == Method::POST
            && (path == "/responses" || chat)
            && self.settings.mode != Mode::Http
        {
            return turn::run(&self, request, chat).await;
        }
        if request.method() == Method::DELETE
            && let Some(response) = path.strip_prefix("/responses/")
        {
            self.pool.forget(&self.account(request.headers(), request.extensions()).digest, response);
        }
        self.metrics.passthrough.increment();
        passthrough::forward(&self.client, &self.upstream, request, self.settings.timeouts.body_idle).await
    }

    /// Who is asking: as far as the upstream could tell, and which client it is of those that share a key.
    fn account(&self, headers: &HeaderMap, extensions: &Extensions) -> Account {
        let identity = headers::identity(headers, &self.settings.per_turn_headers);
        let mut hasher = self.key.hasher("account");
        let guest = extensions.get::<Guest>().map(Guest::digest);
        if let Some(guest) = guest {
            hasher.field(guest.as_bytes());
        }
        for (name, value) in &identity {
            hasher.field(name.as_str().as_bytes()).field(value.as_bytes());
        }
        let digest = hasher.finish();
        let split_by = self.census.note(&self.key, &digest, guest, &identity);
        let mut handshake = headers::handshake(headers, &self.settings.per_turn_headers);
        if let Some((name, value)) = self.profile.header {
            handshake.entry(name).or_insert(HeaderValue::from_static(value));
        }
        Account { digest, handshake, split_by }
    }

    /// Who may come in.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Everything that is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The last turns.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// The settings it runs by.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The provider's rules.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Whether the upstream can be reached, tried now.
    ///
    /// # Errors
    /// Why not.
    pub async fn reach(&self) -> Result<(), ConnectError> {
        self.dialer.reach(&self.upstream.target("/v1/responses")).await
    }

    /// Turns under way: clients that are uploading, waiting or reading.
    pub fn turns(&self) -> usize {
        self.settings.limits.turns - self.turns.available_permits()
    }

    /// The sockets.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Bytes of request bodies that are held.
    pub fn bodies(&self) -> usize {
        self.bodies.held()
    }

    fn upload_limits(&self) -> UploadLimits {
        let timeouts = &self.settings.timeouts;
        UploadLimits { bytes: self.settings.limits.body, total: timeouts.body, idle: timeouts.body_idle }
    }
}
