//! The life of a request: which way it goes, and everything that happens to a turn on that way.
//!
//! The port is the provider's, whole: no path is ours. What is not a turn passes through untouched.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request, Response};

use crate::config::{Mode, Settings};
use crate::downstream::body::Body;
use crate::downstream::headers;
use crate::downstream::upload::UploadLimits;
use crate::proto::digest::Key;
use crate::proto::session::profile::Profile;
use crate::telemetry::metrics::Metrics;
use crate::upstream::handshake::Dialer;
use crate::upstream::http::Client;
use crate::upstream::origin::Upstream;
use crate::upstream::pool::{Account, Pool};

pub mod passthrough;
mod plan;
mod relay;
pub mod reply;
pub mod tunnel;
mod turn;

/// What every request needs; one per process.
#[derive(Debug)]
pub struct Proxy {
    pub(crate) settings: Settings,
    pub(crate) profile: Profile,
    pub(crate) upstream: Upstream,
    pub(crate) pool: Arc<Pool>,
    pub(crate) client: Client,
    pub(crate) dialer: Dialer,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) key: Key,
}

impl Proxy {
    /// Answers one request. Never fails: what goes wrong becomes a response.
    pub async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        if tunnel::asked(&request) {
            self.metrics.passthrough.increment();
            return tunnel::open(&self.dialer, &self.upstream, request).await;
        }
        let path = request.uri().path();
        let path = path.strip_prefix("/v1").unwrap_or(path).trim_end_matches('/');
        if request.method() == Method::POST && path == "/responses" && self.settings.mode != Mode::Http {
            return turn::run(&self, request).await;
        }
        if request.method() == Method::DELETE
            && let Some(response) = path.strip_prefix("/responses/")
        {
            self.pool.forget(&self.account(request.headers()).digest, response);
        }
        self.metrics.passthrough.increment();
        passthrough::forward(&self.client, &self.upstream, request).await
    }

    /// Who is asking, as far as the upstream could tell.
    pub(crate) fn account(&self, headers: &hyper::HeaderMap) -> Account {
        let mut hasher = self.key.hasher("account");
        for (name, value) in headers::identity(headers, &self.settings.per_turn_headers) {
            hasher.field(name.as_str().as_bytes()).field(value.as_bytes());
        }
        let mut handshake = headers::handshake(headers, &self.settings.per_turn_headers);
        if let Some((name, value)) = self.profile.header {
            handshake.entry(name).or_insert(hyper::header::HeaderValue::from_static(value));
        }
        Account { digest: hasher.finish(), handshake }
    }

    pub(crate) fn upload_limits(&self) -> UploadLimits {
        let timeouts = &self.settings.timeouts;
        UploadLimits { bytes: self.settings.limits.body, total: timeouts.body, idle: timeouts.body_idle }
    }
}
