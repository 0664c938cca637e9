//! The only place that words and shapes our own errors. A provider's own error never comes here: it passes through
//! byte for byte.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode, Version};

use crate::downstream::body::{self, Body};
use crate::downstream::message::Flaw;
use crate::downstream::upload::UploadError;
use crate::proto::fault::Fault;
use crate::proto::wire::error::ProviderError;
use crate::upstream::dial::ConnectError;
use crate::upstream::http::SendError;

/// An error of ours, in the provider's shape: SDKs raise it as they would raise the provider's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// `error.code`, always `tailwire_…`, so that nobody takes it for the provider's.
    pub code: &'static str,
    /// `error.message`: a sentence for the SDK's user, without any content of the request.
    pub message: String,
    /// `error.param`: the field or header at fault.
    pub param: Option<&'static str>,
    /// Seconds for `retry-after`.
    pub retry_after: Option<u32>,
}

impl Problem {
    /// 400: a body that is not the JSON object its endpoint needs; `reason` says where it stops making sense.
    #[must_use]
    pub fn bad_json(reason: &str) -> Self {
        let message = format!("The request body is not valid JSON: {reason}.");
        Self::new(StatusCode::BAD_REQUEST, "tailwire_bad_json", message)
    }

    /// 503: a limit of this proxy is reached; `what` completes "too many …".
    #[must_use]
    pub fn overloaded(what: &str, retry_after: u32) -> Self {
        let message = format!("tailwire is at its limit of {what}; try again in {retry_after} s.");
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "tailwire_overloaded", message);
        Self { retry_after: Some(retry_after), ..problem }
    }

    /// 500: our own fault.
    #[must_use]
    pub fn internal() -> Self {
        let message = "tailwire failed while handling this request; this is a bug in tailwire.".to_owned();
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "tailwire_internal", message)
    }

    /// 405: `CONNECT`, which only a forward proxy answers.
    #[must_use]
    pub fn forward_proxying() -> Self {
        let message =
            "tailwire is not a forward proxy: set it as the base URL, not as HTTP(S)_PROXY.".to_owned();
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "tailwire_not_a_forward_proxy", message)
    }

    /// 401: no client key, or none of ours; `header` is where it belongs.
    #[must_use]
    pub fn stranger(header: &'static str) -> Self {
        let message = format!(
            "tailwire asks for a client key in the header `{header}`, and there is none that it knows."
        );
        let problem = Self::new(StatusCode::UNAUTHORIZED, "tailwire_unknown_client_key", message);
        Self { param: Some(header), ..problem }
    }

    /// 403: a request that a foreign web page may have caused; `header` is what shows it.
    #[must_use]
    pub fn foreign(header: &'static str) -> Self {
        let message = format!(
            "tailwire gives its upstream key to programs on this machine only, and `{header}` does not name this machine; \
             a client key would do."
        );
        let problem = Self::new(StatusCode::FORBIDDEN, "tailwire_foreign_request", message);
        Self { param: Some(header), ..problem }
    }

    /// The error as OpenAI words it: `{"error":{"message","type","param","code"}}`.
    #[must_use]
    pub fn body(&self) -> String {
        let kind = if self.status.is_client_error() { "invalid_request_error" } else { "server_error" };
        serde_json::json!({
            "error": { "message": self.message, "type": kind, "param": self.param, "code": self.code }
        })
        .to_string()
    }

    /// The whole response, with a request id of its own.
    #[must_use]
    pub fn response(&self) -> Response<Body> {
        let mut response = Response::new(body::full(self.body()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(id) = HeaderValue::try_from(request_id()) {
            headers.insert("x-request-id", id);
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }

    /// The response to a request that should not have been sent; what else comes on an HTTP/1 connection is not read
    /// as a request.
    #[must_use]
    pub fn refusal(&self, version: Version) -> Response<Body> {
        let mut response = self.response();
        if version < Version::HTTP_2 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    const fn new(status: StatusCode, code: &'static str, message: String) -> Self {
        Self { status, code, message, param: None, retry_after: None }
    }
}

impl From<&UploadError> for Problem {
    fn from(error: &UploadError) -> Self {
        let (status, code, message) = match error {
            UploadError::NoRoom => return Self::overloaded("bytes of request bodies at once", 1),
            UploadError::Corrupt(coding) => (
                StatusCode::BAD_REQUEST,
                "tailwire_corrupt_body",
                format!("The request body is not valid {coding}, although its Content-Encoding says so."),
            ),
            UploadError::Stalled => (
                StatusCode::REQUEST_TIMEOUT,
                "tailwire_upload_stalled",
                "The request body stopped arriving.".to_owned(),
            ),
            UploadError::TooLong => (
                StatusCode::REQUEST_TIMEOUT,
                "tailwire_upload_timeout",
                "The request body took too long to arrive.".to_owned(),
            ),
            UploadError::TooLarge(limit) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "tailwire_body_too_large",
                format!("The request body is larger than tailwire's limit of {limit} bytes."),
            ),
            UploadError::Truncated => (
                StatusCode::BAD_REQUEST,
                "tailwire_truncated_body",
                "The request body ended before it was complete.".to_owned(),
            ),
        };
        let param = match error {
            UploadError::Corrupt(_) => Some("content-encoding"),
            _ => None,
        };
        Self { param, ..Self::new(status, code, message) }
    }
}

impl From<&Flaw> for Problem {
    fn from(flaw: &Flaw) -> Self {
        let (status, code, param) = match flaw {
            Flaw::Coding => (StatusCode::BAD_REQUEST, "tailwire_bad_framing", "transfer-encoding"),
            Flaw::Connection => (StatusCode::BAD_REQUEST, "tailwire_bad_connection", "connection"),
            Flaw::Expectation => (StatusCode::EXPECTATION_FAILED, "tailwire_expectation", "expect"),
            Flaw::Host => (StatusCode::BAD_REQUEST, "tailwire_bad_host", "host"),
            Flaw::Target => {
                return Self::new(StatusCode::BAD_REQUEST, "tailwire_bad_target", flaw.to_string());
            }
            Flaw::TooLarge(_) => {
                let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                return Self::new(status, "tailwire_head_too_large", flaw.to_string());
            }
            Flaw::TooMany(_) => {
                let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                return Self::new(status, "tailwire_too_many_headers", flaw.to_string());
            }
        };
        Self { param: Some(param), ..Self::new(status, code, flaw.to_string()) }
    }
}

impl From<&SendError> for Problem {
    fn from(error: &SendError) -> Self {
        let message = format!("tailwire got no response from the upstream: {error}.");
        match error {
            SendError::Timeout(_) => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "tailwire_upstream_timeout", message)
            }
            SendError::Proxy(_) => Self::new(StatusCode::BAD_GATEWAY, "tailwire_proxy_failed", message),
            SendError::Broken(_) | SendError::Connect(_) => {
                Self::new(StatusCode::BAD_GATEWAY, "tailwire_upstream_unreachable", message)
            }
        }
    }
}

impl From<&ConnectError> for Problem {
    fn from(error: &ConnectError) -> Self {
        let message = format!("tailwire could not open a WebSocket to the upstream: {error}.");
        match error {
            ConnectError::Timeout(_) => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "tailwire_upstream_timeout", message)
            }
            ConnectError::Proxy { .. } => {
                Self::new(StatusCode::BAD_GATEWAY, "tailwire_proxy_failed", message)
            }
            _ => Self::new(StatusCode::BAD_GATEWAY, "tailwire_upstream_unreachable", message),
        }
    }
}

/// The answer to a turn that ended before any of it went down: the provider's own error as REST would have put it, or
/// ours.
pub fn fault(fault: &Fault) -> Response<Body> {
    let problem = match fault {
        Fault::Provider(error) => return provider(error),
        Fault::Silent => Problem::new(StatusCode::GATEWAY_TIMEOUT, "tailwire_upstream_silent", String::new()),
        Fault::ShuttingDown => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "tailwire_draining", String::new())
        }
        _ => Problem::new(StatusCode::BAD_GATEWAY, "tailwire_upstream_interrupted", String::new()),
    };
    Problem { message: fault.sentence().to_owned(), ..problem }.response()
}

fn provider(error: &ProviderError) -> Response<Body> {
    let mut response = Response::new(body::full(error.body.clone()));
    *response.status_mut() = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let headers = response.headers_mut();
    for (name, value) in &error.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(id) = HeaderValue::try_from(request_id()) {
        headers.insert("x-request-id", id);
    }
    response
}

/// A request id in the provider's form: `req_` and 32 hex digits.
#[must_use]
pub fn request_id() -> String {
    minted("req_")
}

/// An id for a chat reply whose response does not name itself.
#[must_use]
pub fn completion_id() -> String {
    minted("chatcmpl-")
}

fn minted(prefix: &str) -> String {
    let mut random = [0; 16];
    // An id that repeats is a nuisance, not a danger: without randomness it is all zeros.
    let _ = getrandom::fill(&mut random);
    format!("{prefix}{:032x}", u128::from_be_bytes(random))
}

/// Runs a handler so that its panic is a 500 for its own client only.
pub async fn guarded(handler: impl Future<Output = Response<Body>>) -> Response<Body> {
    // Whatever the handler shared is behind locks that the panic has poisoned or released.
    AssertUnwindSafe(handler).catch_unwind().await.unwrap_or_else(|_| Problem::internal().response())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use http_body_util::BodyExt;

    use super::*;
    use crate::upstream::dial::Phase;

    #[test]
    fn every_misdeed_has_status_and_code() {
        for (problem, status, code) in [
            (Problem::bad_json("expected value at column 3"), 400, "tailwire_bad_json"),
            (Problem::internal(), 500, "tailwire_internal"),
            (Problem::forward_proxying(), 405, "tailwire_not_a_forward_proxy"),
            (Problem::stranger("authorization"), 401, "tailwire_unknown_client_key"),
            (Problem::foreign("host"), 403, "tailwire_foreign_request"),
            (Problem::overloaded("turns", 1), 503, "tailwire_overloaded"),
            (Problem::from(&UploadError::Corrupt("gzip")), 400, "tailwire_corrupt_body"),
            (Problem::from(&UploadError::Truncated), 400, "tailwire_truncated_body"),
            (Problem::from(&UploadError::Stalled), 408, "tailwire_upload_stalled"),
            (Problem::from(&UploadError::TooLong), 408, "tailwire_upload_timeout"),
            (Problem::from(&UploadError::TooLarge(9)), 413, "tailwire_body_too_large"),
            (Problem::from(&Flaw::Coding), 400, "tailwire_bad_framing"),
            (Problem::from(&Flaw::Connection), 400, "tailwire_bad_connection"),
            (Problem::from(&Flaw::Expectation), 417, "tailwire_expectation"),
            (Problem::from(&Flaw::Host), 400, "tailwire_bad_host"),
            (Problem::from(&Flaw::Target), 400, "tailwire_bad_target"),
            (Problem::from(&Flaw::TooLarge(9)), 431, "tailwire_head_too_large"),
            (Problem::from(&Flaw::TooMany(9)), 431, "tailwire_too_many_headers"),
            (Problem::from(&SendError::Broken("x".into())), 502, "tailwire_upstream_unreachable"),
            (Problem::from(&SendError::Connect("x".into())), 502, "tailwire_upstream_unreachable"),
            (Problem::from(&SendError::Proxy("x".into())), 502, "tailwire_proxy_failed"),
            (Problem::from(&SendError::Timeout(Duration::from_secs(10))), 504, "tailwire_upstream_timeout"),
            (Problem::from(&ConnectError::Timeout(Phase::Tls)), 504, "tailwire_upstream_timeout"),
            (
                Problem::from(&ConnectError::Dns(io::ErrorKind::NotFound.into())),
                502,
                "tailwire_upstream_unreachable",
            ),
        ] {
            assert_eq!((problem.status.as_u16(), problem.code), (status, code));
            assert!(problem.message.ends_with('.'), "{}", problem.message);
        }
    }

    #[tokio::test]
    async fn responses_have_the_providers_shape() {
        let response = Problem::overloaded("turns in flight", 2).response();
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["content-type"], "application/json");
        let id = response.headers()["x-request-id"].to_str().unwrap();
        assert!(id.starts_with("req_") && id.len() == 36, "{id}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let error: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(error["error"]["type"], "server_error");
        assert_eq!(error["error"]["code"], "tailwire_overloaded");
        assert!(error["error"]["param"].is_null());
    }

    #[tokio::test]
    async fn a_panic_is_a_500() {
        let response = guarded(async { panic!("a bug") }).await;
        assert_eq!(response.status(), 500);
    }
}
