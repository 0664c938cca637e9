//! What is wrong with a request as a message, whatever it asks for: what hyper accepts and a careful server refuses.
//! It looks at the head only, and words no answer.

use hyper::body::Body;
use hyper::header::{EXPECT, HOST, TRANSFER_ENCODING};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Version};

use crate::downstream::headers;

/// Why a request is refused unread. What is ambiguous about its framing never comes this far: hyper answers that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Another transfer coding than `chunked`, or that twice (RFC 9112 6.1, 7).
    #[error("Transfer-Encoding must be chunked, once, or be left out.")]
    Coding,
    /// `Connection` names a header that is meant for the provider (RFC 9110 7.6.1).
    #[error("Connection names a header that is not of this connection only.")]
    Connection,
    /// Something else is expected than `100-continue` (RFC 9110 10.1.1).
    #[error("Expect may only be 100-continue.")]
    Expectation,
    /// No `Host`, several, one that is none, or one that contradicts `:authority` (RFC 9112 3.2, RFC 9113 8.3.1).
    #[error("A request needs exactly one valid Host.")]
    Host,
    /// A target that the method cannot have, or one with a user name or password (RFC 9112 3.2, RFC 9110 4.2.4).
    #[error("The request target is not a path or a URL without credentials.")]
    Target,
    /// A head of more bytes than this.
    #[error("The request's head is larger than {0} bytes.")]
    TooLarge(usize),
    /// More headers than this.
    #[error("The request has more than {0} headers.")]
    TooMany(usize),
}

/// The first flaw of a request, if it has one; its head may have at most so many bytes and headers.
#[must_use]
pub fn flaw<B: Body>(request: &Request<B>, bytes: usize, most: usize) -> Option<Flaw> {
    let headers = request.headers();
    // hyper counts HTTP/2's in bytes only, and bounds HTTP/1.1's bytes by what its buffer happens to hold.
    let sizes = headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    if sizes.sum::<usize>() + request.uri().path().len() > bytes {
        return Some(Flaw::TooLarge(bytes));
    }
    if headers.len() > most {
        return Some(Flaw::TooMany(most));
    }
    let codings = headers.get_all(TRANSFER_ENCODING);
    let chunked = codings.iter().all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if !chunked || codings.iter().nth(1).is_some() {
        return Some(Flaw::Coding);
    }
    if !is_target(request) {
        return Some(Flaw::Target);
    }
    if !is_addressed(request) {
        return Some(Flaw::Host);
    }
    if headers.get_all(EXPECT).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Some(Flaw::Expectation);
    }
    headers::hides_essentials(headers).then_some(Flaw::Connection)
}

/// Whether the target has the form that its method goes with. Any host will do: tailwire knows no name of its own.
fn is_target<B>(request: &Request<B>) -> bool {
    let (method, uri) = (request.method(), request.uri());
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return false;
    }
    match (uri.scheme(), uri.authority()) {
        _ if method == Method::CONNECT => true,
        (None, Some(_)) => false,
        _ => uri.path().starts_with('/') || uri.path() == "*" && method == Method::OPTIONS,
    }
}

fn is_addressed<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, more) = (hosts.next(), hosts.next());
    let authority = request.uri().authority();
    match host {
        _ if more.is_some() => false,
        None => request.version() < Version::HTTP_11 || authority.is_some() && is_http_2(request),
        Some(host) => match Authority::try_from(host.as_bytes()) {
            _ if host.is_empty() => true,
            Ok(host) if host.as_str().contains('@') => false,
            // In HTTP/1.1 the target's host counts, and this one is ignored.
            Ok(host) if is_http_2(request) => authority.is_none_or(|authority| *authority == host),
            Ok(_) => true,
            Err(_) => false,
        },
    }
}

fn is_http_2<B>(request: &Request<B>) -> bool {
    request.version() >= Version::HTTP_2
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;

    use super::*;

    fn flaw_of(method: &str, uri: &str, version: Version, headers: &[(&str, &str)]) -> Option<Flaw> {
        let request = Request::builder().method(method).uri(uri).version(version);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        flaw(&request.body(Empty::<&[u8]>::new()).unwrap(), 200, 4)
    }

    #[test]
    fn the_head_of_a_request_is_judged() {
        let host = ("host", "a:1");
        for (method, uri, headers, expected) in [
            ("GET", "/", &[host][..], None),
            ("GET", "http://b/x", &[host], None),
            ("OPTIONS", "*", &[host], None),
            ("CONNECT", "b:1", &[host], None),
            ("POST", "/", &[host, ("expect", "100-Continue"), ("transfer-encoding", "Chunked")], None),
            ("GET", "/", &[host, ("connection", "close, x-hop"), ("x-hop", "1")], None),
            ("GET", "/", &[("host", "")], None),
            ("GET", "/", &[], Some(Flaw::Host)),
            ("GET", "/", &[host, host], Some(Flaw::Host)),
            ("GET", "/", &[("host", "a b")], Some(Flaw::Host)),
            ("GET", "/", &[("host", "a/b")], Some(Flaw::Host)),
            ("GET", "/", &[("host", "u@a")], Some(Flaw::Host)),
            ("GET", "http://u:p@b/x", &[host], Some(Flaw::Target)),
            ("GET", "b:1", &[host], Some(Flaw::Target)),
            ("GET", "*", &[host], Some(Flaw::Target)),
            ("GET", "/", &[host, ("expect", "a miracle")], Some(Flaw::Expectation)),
            ("GET", "/", &[host, ("transfer-encoding", "gzip, chunked")], Some(Flaw::Coding)),
            (
                "GET",
                "/",
                &[host, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
                Some(Flaw::Coding),
            ),
            ("GET", "/", &[host, ("connection", "close, Authorization")], Some(Flaw::Connection)),
            ("GET", "/", &[host, ("connection", "content-length")], Some(Flaw::Connection)),
            ("GET", "/", &[host, host, host, host, host], Some(Flaw::TooMany(4))),
        ] {
            assert_eq!(
                flaw_of(method, uri, Version::HTTP_11, headers),
                expected,
                "{method} {uri} {headers:?}"
            );
        }
        let long = ("x-long", "x".repeat(200));
        let long = flaw_of("GET", "/", Version::HTTP_11, &[host, (long.0, &long.1)]);
        assert_eq!(long, Some(Flaw::TooLarge(200)));
        assert_eq!(flaw_of("GET", "/", Version::HTTP_10, &[]), None);
        assert_eq!(flaw_of("GET", "http://a/", Version::HTTP_2, &[]), None);
        assert_eq!(flaw_of("GET", "http://a/", Version::HTTP_2, &[("host", "A")]), None);
        assert_eq!(flaw_of("GET", "http://a/", Version::HTTP_2, &[("host", "b")]), Some(Flaw::Host));
    }
}
