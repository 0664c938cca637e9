//! A byte stream to the provider: resolve, connect, TLS, each a phase of one time budget, and one HTTP/1.1 request
//! on it. It knows no WebSocket frame and keeps no connection.

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
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::upstream::origin::Target;
use crate::upstream::tls::Tls;

/// What a dial was busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Resolving the name.
    Dns,
    /// Connecting TCP.
    Connect,
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
    /// No trusted TLS session: wrong name, unknown authority, no common version.
    #[error("no trusted TLS session: {0}")]
    Tls(io::Error),
    /// The answer to the upgrade breaks RFC 6455, or there was none.
    #[error("the WebSocket handshake failed: {0}")]
    Upgrade(String),
    /// The time budget ran out.
    #[error("it took too long {0}")]
    Timeout(Phase),
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

/// Either kind of connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Dials `target` and sends one request (method, headers; the path and `Host` are the target's), which may upgrade
/// the connection (`hyper::upgrade::on`). The connection ends with the response or with what it was upgraded to.
///
/// # Errors
/// Every kind but [`ConnectError::Refused`]: a status is the caller's to judge. Nothing is dialled twice.
pub async fn exchange(
    tls: &Tls,
    target: &Target,
    mut request: Request<Empty<Bytes>>,
    deadline: Instant,
) -> Result<Response<Incoming>, ConnectError> {
    let upgrade = |error: &dyn fmt::Display| ConnectError::Upgrade(error.to_string());
    *request.uri_mut() = target.path_and_query.parse().map_err(|error| upgrade(&error))?;
    let host = HeaderValue::from_str(&target.authority).map_err(|error| upgrade(&error))?;
    request.headers_mut().insert(HOST, host);

    let stream = connect(tls, target, deadline).await?;
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

/// A connection to it, ready for a request.
pub(super) async fn connect(
    tls: &Tls,
    target: &Target,
    deadline: Instant,
) -> Result<Box<dyn Stream>, ConnectError> {
    let lookup = lookup_host((target.host.as_str(), target.port));
    let addresses: Vec<_> = within(deadline, Phase::Dns, lookup).await?.map_err(ConnectError::Dns)?.collect();
    let stream = first(&addresses, deadline).await?;
    // A turn is one frame up and many small ones down; waiting to fill segments would delay both.
    let _ = stream.set_nodelay(true);
    if !target.tls {
        return Ok(Box::new(stream));
    }
    let name = ServerName::try_from(target.host.clone())
        .map_err(|error| ConnectError::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let session = TlsConnector::from(tls.socket()).connect(name, stream);
    let session = within(deadline, Phase::Tls, session).await?.map_err(ConnectError::Tls)?;
    Ok(Box::new(session))
}

/// The first address that accepts. Each gets an equal share of the time left, so that a silent one (a broken IPv6
/// route) cannot eat the others' budget.
async fn first(addresses: &[std::net::SocketAddr], deadline: Instant) -> Result<TcpStream, ConnectError> {
    let mut last = ConnectError::Dns(io::Error::new(io::ErrorKind::NotFound, "no addresses"));
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        match within(Instant::now() + share, Phase::Connect, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = ConnectError::Connect(error),
            Err(timeout) => last = timeout,
        }
    }
    Err(last)
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
