//! The pooled HTTP client: fallback turns and everything that passes through. Bodies stream both ways, unbounded.
//! It never repeats a request that may have reached the provider, follows no redirect, decodes nothing.
//!
//! HTTP/1.1 only: on one HTTP/2 connection all requests would share its window and its number of streams, and a client
//! that stops reading would hold up the others.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::upstream::connector::Connector;
use crate::upstream::dial::{Chain, ConnectError, DIAL_TIMEOUT};
use crate::upstream::tls::Tls;

/// The body of a request on its way up.
pub type RequestBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// HTTP to the provider, cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    pool: legacy::Client<Connector, RequestBody>,
    connect_timeout: Duration,
}

/// Why there is no response. No text in it holds message content or credentials.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The connection broke, or what came was no HTTP, before a response began. The request may have been read.
    #[error("the connection broke before it answered: {0}")]
    Broken(String),
    /// No connection came about: name, TCP or TLS. The request was not sent.
    #[error("no connection: {0}")]
    Connect(String),
    /// No connection, for the forward proxy on the way. The request was not sent.
    #[error("no connection: {0}")]
    Proxy(String),
    /// No connection within the time for that. The request was not sent.
    #[error("no connection within {} s", .0.as_secs())]
    Timeout(Duration),
}

impl Client {
    /// A client with the default bound on connecting, 10 s.
    #[must_use]
    pub fn new(tls: &Tls) -> Self {
        Self::within(tls, DIAL_TIMEOUT)
    }

    /// A client with this bound on connecting: DNS, TCP and TLS together. Once connected, a provider may take as long as it
    /// likes to answer.
    #[must_use]
    pub fn within(tls: &Tls, connect_timeout: Duration) -> Self {
        Self::over(Connector::new(tls.clone()).with_timeout(connect_timeout))
    }

    /// A client that connects this way.
    #[must_use]
    pub fn over(connector: Connector) -> Self {
        let connect_timeout = connector.timeout;
        let pool = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .build(connector);
        Self { pool, connect_timeout }
    }

    /// Sends a request with an absolute address and returns its response as soon as that begins. The client repeats
    /// a request only if not a byte of it was written (a pooled connection that turned out closed).
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(&self, mut request: Request<RequestBody>) -> Result<Response<Incoming>, SendError> {
        let mut connection = capture_connection(&mut request);
        let response = self.pool.request(request);
        tokio::pin!(response);
        // What it returns is a lock's guard; it must not live across an await.
        let connected = async { drop(connection.wait_for_connection_metadata().await) };
        let connected = tokio::time::timeout(self.connect_timeout, connected);
        let response = tokio::select! {
            biased;
            response = &mut response => response,
            connected = connected => match connected {
                Ok(()) => response.await,
                Err(_) => return Err(SendError::Timeout(self.connect_timeout)),
            },
        };
        response.map_err(|error| match unconnected(&error) {
            Some(ConnectError::Timeout(_)) => SendError::Timeout(self.connect_timeout),
            Some(error @ ConnectError::Proxy { .. }) => SendError::Proxy(error.to_string()),
            Some(error) => SendError::Connect(error.to_string()),
            None if error.is_connect() => SendError::Connect(Chain(&error).to_string()),
            None => SendError::Broken(Chain(&error).to_string()),
        })
    }
}

/// What the connector said, if it is at fault.
fn unconnected(error: &legacy::Error) -> Option<&ConnectError> {
    std::error::Error::source(error)?.downcast_ref()
}

/// Shorter than servers keep idle connections, so that a request rarely meets one being closed.
const POOL_IDLE: Duration = Duration::from_secs(30);
