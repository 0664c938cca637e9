//! A client that itself asks for a WebSocket: its handshake goes up unchanged, then bytes go both ways.
//! It reads no frame; what is compressed, said or refused in there is between the two ends.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy, split};
use tokio::time::timeout;

use crate::downstream::body::{self, Body};
use crate::downstream::headers;
use crate::downstream::listen::{Connection, Stage};
use crate::proxy::reply::Problem;
use crate::upstream::handshake::Dialer;
use crate::upstream::origin::Upstream;

/// Whether a request asks for a WebSocket (RFC 6455 4.2.1). One with a body does not: its bytes would be the tunnel's
/// first for one end and the body's for the other.
#[must_use]
pub fn asked(request: &Request<Incoming>) -> bool {
    let lists = |name, token: &str| {
        let values = request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|listed| listed.trim().eq_ignore_ascii_case(token))
    };
    request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && request.body().is_end_stream()
        && lists(CONNECTION, "upgrade")
        && lists(UPGRADE, "websocket")
}

/// Opens the tunnel. A refusal goes down as the upstream said it; without an answer the client gets our 502 or 504.
/// The tunnel keeps its connection's place and ends when either side closes, when a drain begins, or when the client takes
/// nothing of what waits for it for `timeouts.stalled_client`; it may be silent for as long as it likes.
pub async fn open(dialer: &Dialer, upstream: &Upstream, mut request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let target = upstream.target(path);
    let mut handshake = Request::new(Empty::<Bytes>::new());
    *handshake.headers_mut() = upgrading(headers::forward(request.headers()));
    let answer = match dialer.relay(&target, handshake).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::warn!(%error, "a WebSocket could not be passed through");
            return Problem::from(&error).response();
        }
    };
    let down = headers::response(answer.headers());
    let status = answer.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let mut response = Response::new(body::relay(answer.into_body()));
        *response.status_mut() = status;
        *response.headers_mut() = down;
        return response;
    }
    let connection = request.extensions().get::<Connection>().cloned();
    let client = hyper::upgrade::on(&mut request);
    tokio::spawn(carry(client, hyper::upgrade::on(answer), connection));
    let mut response = Response::new(body::empty());
    *response.status_mut() = status;
    *response.headers_mut() = upgrading(down);
    response
}

/// The two hop-by-hop headers that an upgrade needs again on each hop.
fn upgrading(mut headers: HeaderMap) -> HeaderMap {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers
}

async fn carry(client: OnUpgrade, provider: OnUpgrade, connection: Option<Connection>) {
    let draining = async {
        match &connection {
            Some(connection) => connection.reached(Stage::Draining).await,
            None => std::future::pending().await,
        }
    };
    let carried = async {
        // An end that went away during the handshake takes the other with it.
        if let (Ok(client), Ok(provider)) = tokio::join!(client, provider) {
            both_ways(client, provider).await;
        }
    };
    tokio::select! { () = draining => {} () = carried => {} }
}

/// Copies through 8 KiB each way until one side has closed and its last bytes are through.
async fn both_ways(client: Upgraded, provider: Upgraded) {
    let (mut client_reads, mut client_writes) = split(TokioIo::new(client));
    let (mut provider_reads, mut provider_writes) = split(TokioIo::new(provider));
    tokio::select! {
        _ = copy(&mut client_reads, &mut provider_writes) => {}
        _ = copy(&mut provider_reads, &mut client_writes) => {}
    }
    let goodbye = async { tokio::join!(client_writes.shutdown(), provider_writes.shutdown()) };
    let _ = timeout(GOODBYE, goodbye).await;
}

/// How long an end may take to accept that the other is gone.
const GOODBYE: Duration = Duration::from_secs(1);
