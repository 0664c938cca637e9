//! The steps of `tailwire check`: each tries one thing and puts what it saw into words.
//!
//! Judges nothing twice: what one handshake showed is told as name, TCP, TLS and WebSocket.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::IpAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::header::HeaderMap;
use hyper::{Request, StatusCode};
use serde_json::Value;
use tokio::time::timeout;

use super::Finding;
use crate::config::{Proxy, ProxyKind};
use crate::proto::session::profile::Profile;
use crate::upstream::dial::{ConnectError, Phase, Refusal};
use crate::upstream::http::Client;
use crate::upstream::origin::{Target, Upstream};
use crate::upstream::socket::{Outgoing, Received, Socket};

/// The way to the provider, as the settings have it.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) upstream: Upstream,
    pub(super) target: Target,
    pub(super) proxy: Option<Proxy>,
    pub(super) profile: Profile,
    pub(super) headers: HeaderMap,
    /// The longest wait of a step.
    pub(super) patience: Duration,
    pub(super) has_key: bool,
    /// Where the key comes from, or would.
    pub(super) key_name: &'static str,
}

/// Tells how far a dial came; whether as far as HTTP.
pub(super) fn network(way: &Way, error: Option<&ConnectError>, say: &mut impl FnMut(Finding)) -> bool {
    let target = &way.target;
    let stuck = error.map_or(Phase::Upgrade, phase);
    let there = match &way.proxy {
        None => (Phase::Connect, "TCP", format!("port {} accepts connections", target.port)),
        Some(proxy) => (Phase::Proxy, "proxy", format!("{proxy} leads there, as {} says", proxy.source())),
    };
    let works = [
        (Phase::Dns, "name", name(&target.host)),
        there,
        (Phase::Tls, "TLS", String::from("the certificate is trusted")),
    ];
    let names_are_the_proxys = way.proxy.as_ref().is_some_and(|proxy| proxy.kind() != ProxyKind::Socks5);
    for (at, topic, words) in works {
        if let Some(error) = error.filter(|_| stuck == at) {
            say(Finding::fails(topic, format!("{error}; {}", advice(at))));
            return false;
        }
        say(match at {
            Phase::Dns if names_are_the_proxys => Finding::open(topic, "left to the proxy"),
            Phase::Tls if !target.tls => Finding::open(topic, "none: the upstream is plain http"),
            _ => Finding::works(topic, words),
        });
    }
    true
}

fn phase(error: &ConnectError) -> Phase {
    match error {
        ConnectError::Dns(_) => Phase::Dns,
        ConnectError::Connect(_) => Phase::Connect,
        ConnectError::Proxy { .. } => Phase::Proxy,
        ConnectError::Tls(_) => Phase::Tls,
        ConnectError::Timeout(phase) => *phase,
        ConnectError::Upgrade(_) | ConnectError::Refused(_) | ConnectError::Stopping => Phase::Upgrade,
    }
}

fn name(host: &str) -> String {
    let address = host.parse::<IpAddr>().is_ok();
    format!("{host} {}", if address { "is an address" } else { "resolves" })
}

fn advice(phase: Phase) -> &'static str {
    match phase {
        Phase::Dns => "look at `upstream` and at this machine's network",
        Phase::Connect => {
            "look at `upstream` and at firewalls; if a proxy leads out of here, name it in `proxy` or HTTPS_PROXY"
        }
        Phase::Proxy => {
            "look at `proxy`, HTTPS_PROXY and NO_PROXY, and at what the proxy allows; it is never gone around"
        }
        Phase::Tls => {
            "if a private authority vouches for it, name that one's certificate in `extra_ca_files`"
        }
        Phase::Upgrade => "turns go over plain HTTP",
    }
}

/// Asks for the list of models, which every key may read and which costs nothing.
pub(super) async fn http(way: &Way, client: &Client, say: &mut impl FnMut(Finding)) {
    let mut request = Request::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *request.uri_mut() = way.upstream.map("/v1/models");
    *request.headers_mut() = way.headers.clone();
    let status = match timeout(way.patience, client.send(request)).await {
        Ok(Ok(response)) => response.status(),
        Ok(Err(error)) => return without_http(error.to_string(), say),
        Err(_) => return without_http(String::from("no answer in time"), say),
    };
    let answered = format!("`GET {}` is answered {status}", way.upstream.map("/v1/models").path());
    say(match status.is_server_error() {
        false => Finding::works("HTTP", answered),
        true => Finding::fails("HTTP", format!("{answered}; the provider is in trouble, try again later")),
    });
    say(match status {
        _ if !way.has_key => {
            Finding::open("key", "not tried: OPENAI_API_KEY is not set; clients bring their own")
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Finding::fails(
            "key",
            format!("{} is refused with {status}; is it of this provider?", way.key_name),
        ),
        status if status.is_success() => Finding::works("key", format!("{} is accepted", way.key_name)),
        _ => Finding::open("key", "not known: this provider does not list its models"),
    });
}

fn without_http(reason: String, say: &mut impl FnMut(Finding)) {
    say(Finding::fails("HTTP", format!("{reason}; turns that cannot take the socket will fail too")));
    say(Finding::open("key", "not tried: there was no answer"));
}

/// Puts the answer to the handshake into words.
pub(super) fn websocket(way: &Way, unwanted: bool, error: Option<&ConnectError>) -> Finding {
    let path = &way.target.path_and_query;
    let Some(error) = error else {
        return match unwanted {
            false => Finding::works("WebSocket", format!("{path} opens one")),
            true => Finding::open(
                "WebSocket",
                format!("{path} opens one, but `mode = \"http\"` makes no use of it"),
            ),
        };
    };
    match error {
        ConnectError::Refused(refusal) if !way.has_key && asks_for_key(refusal.status) => {
            Finding::open("WebSocket", format!("not known: without a key the answer is {}", refusal.status))
        }
        ConnectError::Refused(refusal) => {
            let said = excerpt(refusal);
            let advice = refused(refusal.status);
            Finding::fails("WebSocket", format!("refused with {}: {said}; {advice}", refusal.status))
        }
        error => Finding::fails("WebSocket", format!("{error}; {}", advice(Phase::Upgrade))),
    }
}

fn asks_for_key(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

fn refused(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => "the key may not use it here; turns go over plain HTTP",
        404 | 405 | 426 | 501 => {
            "this provider has no WebSocket mode at this address: turns go over plain HTTP and nothing is saved"
        }
        429 => "too many requests at the moment; turns go over plain HTTP until it takes sockets again",
        _ => "turns go over plain HTTP until it takes sockets again",
    }
}

/// What a refusal says, on one line: the error's message, or the beginning of the body.
fn excerpt(refusal: &Refusal) -> String {
    let body = String::from_utf8_lossy(&refusal.body);
    let json: Value = serde_json::from_slice(&refusal.body).unwrap_or_default();
    let said = json["error"]["message"].as_str().unwrap_or(&body);
    let line: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.is_empty() {
        true => String::from("no reason given"),
        false => line.chars().filter(|letter| !letter.is_control()).take(EXCERPT).collect(),
    }
}

/// Offers a request that cannot be served on a named lane, and looks whether the answer bears the lane's name.
pub(super) async fn lanes(mut socket: Socket, patience: Duration) -> Finding {
    let mut outbox = VecDeque::from([Outgoing::Text(Bytes::from_static(IMPOSSIBLE.as_bytes()))]);
    match timeout(patience, answer(&mut socket, &mut outbox)).await {
        Ok(Ok(event)) => judge(&event),
        Ok(Err(reason)) => Finding::fails("lanes", format!("the socket ended: {reason}")),
        Err(_) => Finding::fails("lanes", "no answer in time to a request that should have been refused"),
    }
}

/// The first event that is about a response.
async fn answer(socket: &mut Socket, outbox: &mut VecDeque<Outgoing>) -> Result<Value, String> {
    loop {
        match poll_fn(|cx| turn(socket, outbox, cx)).await {
            Received::Text(text) => {
                let event: Value = serde_json::from_slice(&text).unwrap_or_default();
                let kind = event["type"].as_str().unwrap_or_default();
                if kind == "error" || kind.starts_with("response.") {
                    return Ok(event);
                }
            }
            Received::Binary | Received::Ping | Received::Pong => {}
            Received::Closed { code, reason } => return Err(format!("closed with {code:?} {reason}")),
            Received::Lost(reason) => return Err(reason),
            Received::TooLarge => return Err(String::from("a message was too large")),
        }
    }
}

fn turn(socket: &mut Socket, outbox: &mut VecDeque<Outgoing>, cx: &mut Context<'_>) -> Poll<Received> {
    // A failed send is heard of as a lost socket, by the receiving half.
    let _ = socket.poll_send(cx, outbox);
    socket.poll_receive(cx)
}

pub(super) fn judge(event: &Value) -> Finding {
    let said =
        event["error"]["message"].as_str().or_else(|| event["message"].as_str()).unwrap_or("no reason given");
    let about_lanes = said.contains("stream_id") || event["error"]["param"] == "stream_id";
    if event["stream_id"] == LANE {
        Finding::works("lanes", "many turns at once share a socket")
    } else if about_lanes {
        Finding::open(
            "lanes",
            format!("not served ({said}): one turn at a time on a socket, a socket for each turn"),
        )
    } else {
        Finding::open("lanes", format!("not known: the answer names no lane ({said})"))
    }
}

const LANE: &str = "tailwire-check";
/// Without input and for a model that does not exist: it can only be refused.
const IMPOSSIBLE: &str =
    r#"{"type":"response.create","stream_id":"tailwire-check","model":"tailwire-check-no-such-model"}"#;
/// Characters of a refusal that are shown.
const EXCERPT: usize = 200;
