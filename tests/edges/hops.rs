//! Hop-by-hop hygiene: what is of one connection stays there, what is not crosses, and nothing is invented.

use crate::raw::{Answer, Caller, Recorder, header};
use crate::support::{BODY, WHO, assert_answered, get, post, proxy};
use crate::world::World;

/// The names in a head as text, sorted.
fn names(head: &str) -> Vec<String> {
    let head = head.split("\r\n\r\n").next().unwrap();
    let lines = head.split("\r\n").skip(1);
    let mut names: Vec<_> = lines.map(|line| line.split(':').next().unwrap().to_ascii_lowercase()).collect();
    names.sort();
    names
}

const HOPS: &str = "connection: close, X-Hop, te\r\nconnection: \u{e9}, x-other-hop\r\nx-hop: 1\r\nx-other-hop: 1\r\n\
    keep-alive: timeout=5\r\nproxy-authorization: Basic eA==\r\nproxy-connection: keep-alive\r\nproxy-anything: 1\r\n\
    te: gzip;q=1, trailers\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\nconnection: http2-settings\r\n\
    x-tailwire-mode: http\r\nx-mine: 1\r\nvia: 1.1 theirs\r\nx-forwarded-for: 192.0.2.1\r\n";

#[tokio::test]
async fn requests_lose_their_hops_and_gain_nothing() {
    let upstream = Recorder::start().await;
    let proxy = proxy(&upstream, |_| ()).await;
    for path in ["/v1/responses", "/v1/files"] {
        let answer = Caller::saying(proxy.addr, post(path, HOPS)).await.hear().await;
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{path}");
        let heard = upstream.take();
        let expected = [
            "authorization",
            "content-length",
            "content-type",
            "host",
            "te",
            "via",
            "x-forwarded-for",
            "x-mine",
        ];
        assert_eq!(names(&heard), expected, "{path}");
        assert_eq!(header(&heard, "te"), Some("trailers"), "{path}");
        assert_eq!(header(&heard, "via"), Some("1.1 theirs"), "{path}");
        assert_eq!(header(&heard, "x-forwarded-for"), Some("192.0.2.1"), "{path}");
        let plain = Caller::saying(proxy.addr, post(path, "x-tailwire-mode: http\r\n")).await.hear().await;
        assert_eq!(plain.status, 200);
        assert_eq!(
            names(&upstream.take()),
            ["authorization", "content-length", "content-type", "host"],
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_handshake_loses_them_too() {
    let upstream = Recorder::answering("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n").await;
    let proxy = proxy(&upstream, |_| ()).await;
    let hops = HOPS.replace("x-tailwire-mode: http\r\n", "x-tailwire-else: 1\r\n");
    Caller::saying(proxy.addr, post("/v1/responses", &hops)).await.hear().await;
    let heard = upstream.take();
    assert!(heard.starts_with("GET /v1/responses HTTP/1.1\r\n"), "a handshake came first: {heard}");
    let handshake = heard.split("\r\n\r\n").next().unwrap();
    for gone in [
        "x-hop",
        "x-other-hop",
        "keep-alive:",
        "proxy-",
        "te:",
        "h2c",
        "http2-settings",
        "x-tailwire",
        "via:",
    ] {
        assert!(!handshake.contains(&format!("\r\n{gone}")), "{gone}: {handshake}");
    }
    assert_eq!(header(handshake, "x-mine"), Some("1"));
    assert_eq!(header(handshake, "authorization"), Some("Bearer sk-planted-a"));
}

#[tokio::test]
async fn answers_lose_their_hops_and_gain_nothing() {
    let upstream = Recorder::answering(
        "HTTP/1.1 200 OK\r\nconnection: close, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\nproxy-authenticate: Basic\r\n\
         proxy-status: x\r\nupgrade: h2c\r\nx-tailwire: plan=delta; grade=exact\r\ndate: then\r\nserver: theirs\r\n\
         set-cookie: a=1\r\nset-cookie: b=2\r\ncontent-length: 2\r\n\r\nok",
    )
    .await;
    for (path, told) in [("/v1/files", false), ("/v1/responses", false), ("/v1/responses", true)] {
        let proxy = proxy(&upstream, |settings| settings.plan_header = told).await;
        let mut caller = Caller::saying(proxy.addr, post(path, "x-tailwire-mode: http\r\n")).await;
        let answer: Answer = caller.hear().await;
        let mut expected = vec!["content-length", "date", "server", "set-cookie", "set-cookie"];
        expected.extend(told.then_some("x-tailwire"));
        assert_eq!(names(&answer.head), expected, "{path} {told}");
        assert_eq!(answer.header("date"), Some("then"), "{path}");
        let plan = answer.header("x-tailwire").map(|plan| plan.starts_with("plan=http; reason=mode"));
        assert_eq!(plan, told.then_some(true), "{path}: {answer:?}");
        // The upstream's connection closes; the client's does not.
        caller.say(post(path, "x-tailwire-mode: http\r\n")).await;
        assert_eq!(caller.hear().await.status, 200);
    }
}

/// A credential that is left out by order of `Connection` would make the request somebody else's.
#[tokio::test]
async fn no_credential_is_taken_for_a_hop() {
    let upstream = Recorder::start().await;
    let proxy = proxy(&upstream, |_| ()).await;
    for named in
        ["authorization", "Authorization , close", "api-key", "host", "content-type", "openai-organization"]
    {
        for path in ["/v1/responses", "/v1/files"] {
            let lines = format!("connection: {named}\r\napi-key: k\r\nopenai-organization: o\r\n");
            let mut caller = Caller::saying(proxy.addr, post(path, &lines) + &get("/v1/models")).await;
            let answer = caller.hear().await;
            assert_eq!((answer.status, answer.code().as_str()), (400, "tailwire_bad_connection"), "{named}");
            assert_eq!(caller.rest().await, b"", "{named}");
        }
    }
    assert_eq!(upstream.take(), "");
}

/// What is named and unknown is of the connection: it goes nowhere, and tells no conversations apart.
#[tokio::test]
async fn a_hop_is_no_identity() {
    let world = World::plain().await;
    for n in 0..2 {
        let body = BODY.replace("hi", &format!("hi {n}"));
        let said = format!(
            "POST /v1/responses HTTP/1.1\r\n{WHO}connection: x-hop\r\nx-hop: {n}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_answered("/v1/responses", &Caller::saying(world.proxy.addr, said).await.hear().await);
    }
    assert_eq!(world.ledger().read(|book| book.upgrades_granted), 1);
}

/// `Upgrade: h2c` may be ignored (RFC 9110 7.8), and is obsolete.
#[tokio::test]
async fn h2c_is_not_taken_up() {
    let world = World::plain().await;
    let h2c =
        "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n";
    for path in ["/v1/responses", "/v1/echo"] {
        let mut caller = Caller::saying(world.proxy.addr, post(path, h2c)).await;
        for _ in 0..2 {
            let answer = caller.hear().await;
            assert!(answer.head.starts_with("HTTP/1.1 200 "), "{answer:?}");
            assert_answered(path, &answer);
            caller.say(post(path, h2c)).await;
        }
    }
}
