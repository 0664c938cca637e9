//! One HTTP/1.1 request on a connection of its own, which may become something else, and why there is none. It knows no
//! WebSocket frame and keeps no connection.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};

use crate::upstream::connector::Connector;
use crate::upstream::origin::Target;

/// What a dial was busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Resolving the name.
    Dns,
    /// Connecting TCP.
    Connect,
    /// Reaching a forward proxy, and being let through by it.
    Proxy,
    /// Shaking hands over TLS.
    Tls,
    /// Waiting for the answer to the upgrade request.
    Upgrade,
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Dns => "resolving its name",
            Self::Connect => "connecting",
            Self::Proxy => "getting through the proxy",
            Self::Tls => "setting up TLS",
            Self::Upgrade => "waiting for the WebSocket handshake",
        })
    }
}

/// Why there is no socket. No text in it holds message content or credentials.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name does not resolve.
    #[error("its name does not resolve: {0}")]
    Dns(io::Error),
    /// No address accepts a connection.
    #[error("it does not accept connections: {0}")]
    Connect(io::Error),
    /// The forward proxy on the way: it is away, refuses, or is none.
    #[error("the proxy {proxy} does not lead there: {reason}")]
    Proxy {
        /// Which, without credentials.
        proxy: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No trusted TLS session: wrong name, unknown authority, no common version.
    #[error("no trusted TLS session: {0}")]
    Tls(io::Error),
    /// The answer to the upgrade breaks RFC 6455, or there was none.
    #[error("the WebSocket handshake failed: {0}")]
    Upgrade(String),
    /// The time budget ran out.
    #[error("it took too long {0}")]
    Timeout(Phase),
    /// The pool closes: nobody waits for it any more.
    #[error("tailwire is stopping")]
    Stopping,
    /// The server answered with another status than 101.
    #[error("it refused the WebSocket with status {}", .0.status)]
    Refused(Box<Refusal>),
}

/// An ordinary HTTP answer to an upgrade request.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Any status but 101.
    pub status: StatusCode,
    /// All of its headers.
    pub headers: HeaderMap,
    /// At most the first 64 KiB of its body, as far as they came within the time budget.
    pub body: Bytes,
}

/// Dials `target` and sends one request (method, headers; the path and `Host` are the target's), which may upgrade
/// the connection (`hyper::upgrade::on`). The connection ends with the response or with what it was upgraded to.
///
/// # Errors
/// Every kind but [`ConnectError::Refused`]: a status is the caller's to judge. Nothing is dialled twice.
pub async fn exchange(
    connector: &Connector,
    target: &Target,
    mut request: Request<Empty<Bytes>>,
    deadline: Instant,
) -> Result<Response<Incoming>, ConnectError> {
    let upgrade = |error: &dyn fmt::Display| ConnectError::Upgrade(error.to_string());
    *request.uri_mut() = target.path_and_query.parse().map_err(|error| upgrade(&error))?;
    let host = HeaderValue::from_str(&target.authority).map_err(|error| upgrade(&error))?;
    request.headers_mut().insert(HOST, host);

    let stream = connector.connect(target, deadline).await?;
    let io = TokioIo::new(stream);
    let answer = async {
        let (mut sender, connection) = http1::handshake(io).await?;
        // Ends by itself once the sender and the response (or what it was upgraded to) are gone.
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await
    };
    within(deadline, Phase::Upgrade, answer).await?.map_err(|error| upgrade(&Chain(&error)))
}

/// Reads a refusal's body as far as bound and budget allow.
pub(super) async fn refusal(response: Response<Incoming>, deadline: Instant) -> Refusal {
    let (parts, mut incoming) = response.into_parts();
    let mut body = Vec::new();
    while let Ok(Some(Ok(frame))) = timeout_at(deadline, incoming.frame()).await {
        if let Ok(data) = frame.into_data() {
            body.extend_from_slice(&data[..data.len().min(REFUSAL_BYTES - body.len())]);
        }
        if body.len() == REFUSAL_BYTES {
            break;
        }
    }
    Refusal { status: parts.status, headers: parts.headers, body: body.into() }
}

/// Bounds one phase.
pub(super) async fn within<F: Future>(
    deadline: Instant,
    phase: Phase,
    future: F,
) -> Result<F::Output, ConnectError> {
    timeout_at(deadline, future).await.map_err(|_| ConnectError::Timeout(phase))
}

/// An error with its causes: hyper's own texts stop at "error sending request".
pub(super) struct Chain<'a>(pub(super) &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(formatter, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// The time budget of one dial, DNS to upgrade.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
const REFUSAL_BYTES: usize = 64 << 10;
