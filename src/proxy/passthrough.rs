//! Requests that are not turns, and turns that go plain: up as they came, down as they come.
//! It reads no body, retries nothing, and sees no difference between JSON, SSE and a file.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, HeaderMap};
use hyper::{Method, Request, Response};

use crate::downstream::body::{self, Body};
use crate::downstream::headers;
use crate::proxy::reply::Problem;
use crate::upstream::http::{Client, RequestBody, SendError};
use crate::upstream::origin::Upstream;

/// Sends a client's request on, its body streamed, and streams the response back: status, end-to-end headers, body,
/// trailers. If there is no response, the client gets our own 502 or 504; 400 or 408 if its body broke off or was silent
/// for longer than `idle`.
pub async fn forward(
    client: &Client,
    upstream: &Upstream,
    request: Request<Incoming>,
    idle: Duration,
) -> Response<Body> {
    if request.method() == Method::CONNECT {
        return Problem::forward_proxying().response();
    }
    let (parts, incoming) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let fault = Arc::new(OnceLock::new());
    let body = body::timed(incoming, idle, fault.clone());
    match send(client, upstream, parts.method, path, headers::forward(&parts.headers), body).await {
        Ok(response) => response,
        Err(error) => match fault.get() {
            Some(fault) => Problem::from(fault).response(),
            None => {
                tracing::warn!(%error, "a request could not be passed through");
                Problem::from(&error).response()
            }
        },
    }
}

/// Sends a body that was already taken from the client, as it was (`body` and `Content-Encoding` must belong
/// together), under the client's own headers, and streams the response back.
///
/// # Errors
/// See [`SendError`].
pub async fn resend(
    client: &Client,
    upstream: &Upstream,
    method: Method,
    path_and_query: &str,
    request_headers: &HeaderMap,
    body: Bytes,
) -> Result<Response<Body>, SendError> {
    let mut headers = headers::forward(request_headers);
    // The length is known again, even where the client sent chunks.
    headers.remove(CONTENT_LENGTH);
    let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
    send(client, upstream, method, path_and_query, headers, body).await
}

async fn send(
    client: &Client,
    upstream: &Upstream,
    method: Method,
    path_and_query: &str,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Response<Body>, SendError> {
    // A new request: nothing of the client's connection (version, extensions) may cross with the old one.
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = upstream.map(path_and_query);
    *request.headers_mut() = headers;
    let (parts, incoming) = client.send(request).await?.into_parts();
    let mut response = Response::new(body::relay(incoming));
    *response.status_mut() = parts.status;
    *response.headers_mut() = headers::response(&parts.headers);
    Ok(response)
}
