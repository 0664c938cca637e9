//! Through a forward proxy to the provider: HTTP `CONNECT` and SOCKS 5. A proxy that refuses is an error of its own; it is never
//! gone around.
//!
//! An `http://` upstream takes a tunnel, too: a WebSocket could not pass otherwise (RFC 6455 4.1), and HTTP goes the way the
//! sockets go.

use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use hyper::{Request, StatusCode, Uri};
use hyper_util::client::legacy::connect::proxy::SocksV5;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tower_service::Service;

use crate::config::{Proxy, ProxyKind};
use crate::upstream::connector::{BoxStream, Connector};
use crate::upstream::dial::{Chain, ConnectError, Phase, within};
use crate::upstream::origin::Target;

/// A connection to `target` through `proxy`, as if there were nothing between.
///
/// # Errors
/// [`ConnectError::Proxy`] for whatever the proxy is or does; [`ConnectError::Dns`] for a name that is resolved here; a time-out.
pub(super) async fn through(
    connector: &Connector,
    proxy: &Proxy,
    target: &Target,
    deadline: Instant,
) -> Result<BoxStream, ConnectError> {
    let fault = |reason: String| ConnectError::Proxy { proxy: proxy.to_string(), reason };
    match proxy.kind() {
        ProxyKind::Http | ProxyKind::Https => {
            let stream = meet(connector, proxy, deadline).await?;
            within(deadline, Phase::Proxy, tunnel(proxy, target.place(), stream)).await?.map_err(fault)
        }
        ProxyKind::Socks5h => {
            let stream = meet(connector, proxy, deadline).await?;
            within(deadline, Phase::Proxy, socks(proxy, &target.place(), stream)).await?.map_err(fault)
        }
        ProxyKind::Socks5 => {
            let mut refused = String::new();
            for address in connector.addresses(&target.host, target.port, deadline).await? {
                let stream = meet(connector, proxy, deadline).await?;
                let place = address.to_string();
                match within(deadline, Phase::Proxy, socks(proxy, &place, stream)).await? {
                    Ok(stream) => return Ok(stream),
                    Err(reason) => refused = reason,
                }
            }
            Err(fault(refused))
        }
    }
}

/// A connection to the proxy itself.
async fn meet(connector: &Connector, proxy: &Proxy, deadline: Instant) -> Result<BoxStream, ConnectError> {
    let fault = |reason: String| ConnectError::Proxy { proxy: proxy.to_string(), reason };
    let stream = match connector.reach(proxy.host(), proxy.port(), deadline).await {
        Ok(stream) => stream,
        Err(ConnectError::Timeout(_)) => return Err(ConnectError::Timeout(Phase::Proxy)),
        Err(error) => return Err(fault(error.to_string())),
    };
    if proxy.kind() != ProxyKind::Https {
        return Ok(stream);
    }
    let session = connector.secure_proxy(proxy.host(), stream);
    within(deadline, Phase::Proxy, session)
        .await?
        .map_err(|error| fault(ConnectError::Tls(error).to_string()))
}

/// RFC 9110 9.3.6. By hyper, which tells a refusal's status; hyper-util's own tunnel tells 407 from the rest only.
async fn tunnel(proxy: &Proxy, place: String, stream: BoxStream) -> Result<BoxStream, String> {
    let broken = |error: &dyn std::error::Error| format!("it does not speak HTTP: {}", Chain(error));
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = hyper::Method::CONNECT;
    *request.uri_mut() = place.parse().map_err(|error| broken(&error))?;
    let host = HeaderValue::from_str(&place).map_err(|error| broken(&error))?;
    request.headers_mut().insert(HOST, host);
    if let Some(credentials) = proxy.basic_auth() {
        request.headers_mut().insert(PROXY_AUTHORIZATION, credentials.clone());
    }
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    // Ends by itself once the sender and the response (or what it was upgraded to) are gone.
    tokio::spawn(connection.with_upgrades());
    let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
    match response.status() {
        status if status.is_success() => {}
        // tinyproxy says 401 to credentials that it does not know.
        status @ (StatusCode::PROXY_AUTHENTICATION_REQUIRED | StatusCode::UNAUTHORIZED)
            if proxy.has_credentials() =>
        {
            return Err(format!("it does not accept the user name and password ({})", status.as_u16()));
        }
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            return Err(String::from("it asks for a user name and a password (407)"));
        }
        status => return Err(format!("it refuses to connect to {place}, with status {status}")),
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(|error| broken(&error))?;
    Ok(Box::new(TokioIo::new(upgraded)))
}

/// RFC 1928 and 1929, by hyper-util.
async fn socks(proxy: &Proxy, place: &str, stream: BoxStream) -> Result<BoxStream, String> {
    let mut socks = SocksV5::new(Uri::from_static("http://met"), Met(Some(stream)));
    if let Some((user, password)) = proxy.raw_auth() {
        socks = socks.with_auth(user.to_owned(), password.to_owned());
    }
    let place = place.parse().map_err(|_| String::from("SOCKS cannot express this address"))?;
    match socks.call(place).await {
        Ok(stream) => Ok(Box::new(stream.into_inner())),
        Err(error) => Err(error.to_string()),
    }
}

/// A connection that is there already.
struct Met(Option<BoxStream>);

impl Service<Uri> for Met {
    type Response = TokioIo<BoxStream>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().map(TokioIo::new).ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }
}
