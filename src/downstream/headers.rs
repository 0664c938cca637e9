//! Which header goes where: to the socket's handshake, into the scope, upstream over HTTP, down to the client.
//! The classes are tables; nothing here looks at a body or decides a route.

use hyper::HeaderMap;
use hyper::header::{CONNECTION, COOKIE, HeaderName, HeaderValue, TE};

use crate::config::identity::is_essential;

/// What a request header says something about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// This connection only; never crosses (RFC 9110 7.6.1).
    Hop,
    /// The client program: opens a socket with it, but two programs of one person share a scope.
    Client,
    /// This one request: neither handshake nor scope.
    Turn,
    /// Who is asking. Everything end-to-end that we do not know counts as this: the worst case of a narrow scope
    /// is a full resend, of a wide one somebody else's conversation.
    Identity,
}

/// The class of a header; `extra` are configured names that count as per turn.
#[must_use]
pub fn class(name: &HeaderName, extra: &[HeaderName]) -> Class {
    let name = name.as_str();
    if HOP.contains(&name) || name.starts_with("proxy-") {
        Class::Hop
    } else if CLIENT.iter().any(|known| known.covers(name)) {
        Class::Client
    } else if TURN.iter().any(|known| known.covers(name)) || extra.iter().any(|known| known == name) {
        Class::Turn
    } else {
        Class::Identity
    }
}

/// The headers that tell who is asking, sorted by name, then value: hashed into the scope.
#[must_use]
pub fn identity(headers: &HeaderMap, extra: &[HeaderName]) -> Vec<(HeaderName, HeaderValue)> {
    let mut identity: Vec<_> = end_to_end(headers)
        .filter(|(name, _)| class(name, extra) == Class::Identity)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    identity.sort_by(|(name, value), (other, its)| {
        (name.as_str(), value.as_bytes()).cmp(&(other.as_str(), its.as_bytes()))
    });
    identity
}

/// The headers a socket is opened with: identity and client description.
#[must_use]
pub fn handshake(headers: &HeaderMap, extra: &[HeaderName]) -> HeaderMap {
    one_cookie(select(headers, |name| matches!(class(name, extra), Class::Identity | Class::Client)))
}

/// The headers of a request that goes upstream over HTTP: everything end-to-end, and `TE: trailers` (a client
/// that said so gets them). `Host` is left to the sender, `Expect` was answered by our own server.
#[must_use]
pub fn forward(headers: &HeaderMap) -> HeaderMap {
    let mut kept = one_cookie(select(headers, |name| !OURS.contains(&name.as_str())));
    let trailers = headers.get_all(TE).iter().filter_map(|value| value.to_str().ok());
    if trailers
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
    {
        kept.insert(TE, HeaderValue::from_static("trailers"));
    }
    kept
}

/// The headers of an upstream response that go down: everything end-to-end but what would pass for our own account
/// of a turn.
#[must_use]
pub fn response(headers: &HeaderMap) -> HeaderMap {
    select(headers, |name| name != "x-tailwire")
}

/// Whether `Connection` names a header that is meant for the provider: credentials, identity, what describes the body.
/// To leave it out as told (RFC 9110 7.6.1) would change whose request it is, or what; the same section forbids
/// clients to name such a one.
#[must_use]
pub fn hides_essentials(headers: &HeaderMap) -> bool {
    nominated(headers).any(|name| is_essential(&name))
}

fn select(headers: &HeaderMap, keep: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    end_to_end(headers)
        .filter(|(name, _)| keep(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .fold(HeaderMap::with_capacity(headers.len()), |mut kept, (name, value)| {
            kept.append(name, value);
            kept
        })
}

/// The fields that HTTP/2 may split `Cookie` into (RFC 9113 8.2.3) are one again: what goes up is HTTP/1.1.
fn one_cookie(mut headers: HeaderMap) -> HeaderMap {
    let values: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if values.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&values.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
    headers
}

/// All headers but the hop-by-hop ones and those that `Connection` names.
fn end_to_end(headers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    let named: Vec<String> = nominated(headers).collect();
    headers.iter().filter(move |(name, _)| {
        class(name, &[]) != Class::Hop && !named.iter().any(|hop| hop == name.as_str())
    })
}

/// What `Connection` names, in lower case.
fn nominated(headers: &HeaderMap) -> impl Iterator<Item = String> {
    let lists = headers.get_all(CONNECTION).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    lists.flat_map(|list| list.split(',').map(|name| name.trim().to_ascii_lowercase()).collect::<Vec<_>>())
}

/// A known header name, or the beginning of several.
enum Known {
    Name(&'static str),
    Prefix(&'static str),
}

impl Known {
    fn covers(&self, name: &str) -> bool {
        match self {
            Self::Name(known) => name == *known,
            Self::Prefix(known) => name.starts_with(known),
        }
    }
}

/// Hop-by-hop, beside `proxy-*`. `Trailer` is not among them: RFC 9110 lets it cross, and without it hyper sends
/// no trailers over HTTP/1.1.
const HOP: &[&str] = &["connection", "keep-alive", "te", "transfer-encoding", "upgrade"];

/// Addressed to this proxy or remade by the sender.
const OURS: &[&str] = &["host", "expect", "x-tailwire-mode"];

const CLIENT: &[Known] = &[Known::Name("user-agent"), Known::Prefix("x-stainless-")];

const TURN: &[Known] = &[
    Known::Prefix("accept"),
    Known::Prefix("content-"),
    Known::Prefix("if-"),
    Known::Prefix("sec-fetch-"),
    Known::Prefix("sec-websocket-"),
    Known::Prefix("x-b3-"),
    Known::Prefix("x-forwarded-"),
    Known::Prefix("x-tailwire-"),
    Known::Name("b3"),
    Known::Name("baggage"),
    Known::Name("cache-control"),
    Known::Name("date"),
    Known::Name("expect"),
    Known::Name("forwarded"),
    Known::Name("host"),
    Known::Name("idempotency-key"),
    Known::Name("pragma"),
    Known::Name("priority"),
    Known::Name("range"),
    Known::Name("sentry-trace"),
    Known::Name("traceparent"),
    Known::Name("tracestate"),
    Known::Name("trailer"),
    Known::Name("via"),
    Known::Name("x-client-request-id"),
    Known::Name("x-codex-turn-metadata"),
    Known::Name("x-codex-turn-state"),
    Known::Name("x-initiator"),
    Known::Name("x-interaction-type"),
    Known::Name("x-real-ip"),
    Known::Name("x-request-id"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in text.split_terminator('\n') {
            let (name, value) = line.trim().split_once(": ").unwrap();
            headers.append(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    const REQUEST: &str = "host: 127.0.0.1:8484
        connection: keep-alive, X-Hop
        x-hop: 1
        keep-alive: timeout=5
        te: gzip, trailers
        transfer-encoding: chunked
        proxy-authorization: Basic x
        authorization: Bearer sk-1
        openai-beta: responses_multi_agent=v1
        session-id: s1
        x-session-affinity: s1
        cookie: a=b
        user-agent: OpenAI/Python 3.54.0
        x-stainless-retry-count: 1
        accept: application/json
        accept-encoding: gzip
        content-type: application/json
        content-length: 12
        traceparent: 00-1
        x-codex-turn-metadata: {}
        x-tailwire-mode: http
        x-my-trace: 9
        expect: 100-continue";

    #[test]
    fn identity_is_what_we_do_not_know() {
        let extra = [HeaderName::from_static("x-my-trace")];
        let identity = identity(&map(REQUEST), &extra);
        let names: Vec<_> = identity.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["authorization", "cookie", "openai-beta", "session-id", "x-session-affinity"]);
    }

    #[test]
    fn identity_does_not_depend_on_order() {
        let one = identity(&map("b: 2\na: 1\nb: 1\n"), &[]);
        let other = identity(&map("b: 1\nb: 2\na: 1\n"), &[]);
        assert_eq!(one, other);
        assert_eq!(one.len(), 3);
    }

    #[test]
    fn the_handshake_describes_the_client_too() {
        assert_eq!(
            names(&handshake(&map(REQUEST), &[])),
            [
                "authorization",
                "cookie",
                "openai-beta",
                "session-id",
                "user-agent",
                "x-my-trace",
                "x-session-affinity",
                "x-stainless-retry-count"
            ]
        );
    }

    #[test]
    fn forwarding_keeps_all_that_is_end_to_end() {
        let forwarded = forward(&map(REQUEST));
        assert_eq!(forwarded.get(TE).unwrap(), "trailers");
        assert_eq!(forwarded.get("content-length").unwrap(), "12");
        for gone in ["host", "connection", "x-hop", "keep-alive", "transfer-encoding", "proxy-authorization"]
        {
            assert!(!forwarded.contains_key(gone), "{gone}");
        }
        assert!(!forwarded.contains_key("x-tailwire-mode") && !forwarded.contains_key("expect"));
        assert_eq!(forwarded.len(), 15);
    }

    #[test]
    fn a_cookie_in_pieces_goes_up_as_one() {
        let headers = map("cookie: a=1\ncookie: b=2\nx-many: 1\nx-many: 2\n");
        for up in [forward(&headers), handshake(&headers, &[])] {
            assert_eq!(up.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
            assert_eq!(up.get_all("x-many").iter().count(), 2);
        }
    }

    #[test]
    fn responses_lose_only_their_hops() {
        let down = response(&map(
            "connection: close\nkeep-alive: x\nx-request-id: req_1\nset-cookie: a\nset-cookie: b\ntrailer: etag\n",
        ));
        assert_eq!(names(&down), ["set-cookie", "trailer", "x-request-id"]);
        assert_eq!(down.get_all("set-cookie").iter().count(), 2);
    }
}
