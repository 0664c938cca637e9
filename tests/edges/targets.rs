//! What a request line may ask for: forms of the target, hosts, odd paths, methods. Each is taken as RFC 9110 and 9112
//! say, and reaches the provider as it was written.

use crate::raw::{Caller, Recorder};
use crate::support::{BODY, WHO, asked, assert_answered, get, proxy};
use crate::world::World;

const KEY: &str = "authorization: Bearer sk-planted-a\r\ncontent-type: application/json\r\n";

#[tokio::test]
async fn absolute_targets_go_by_their_path() {
    let world = World::plain().await;
    for path in ["/v1/responses", "/v1/echo", "/responses"] {
        for (target, host) in [
            (format!("http://{}{path}", world.proxy.addr), "t"),
            (format!("http://elsewhere.test{path}"), "elsewhere.test"),
            (format!("HTTPS://elsewhere.test:444{path}"), "another.test"),
            (format!("http://[::1]:8484{path}"), ""),
        ] {
            let said = format!(
                "POST {target} HTTP/1.1\r\nhost: {host}\r\n{KEY}content-length: {}\r\n\r\n{BODY}",
                BODY.len()
            );
            let answer = Caller::saying(world.proxy.addr, said).await.hear().await;
            assert_answered(if path == "/responses" { "/v1/responses" } else { path }, &answer);
        }
    }
    assert_eq!(world.ledger().read(|book| book.upgrades_granted), 1, "they are all one client's turns");
}

#[tokio::test]
async fn a_request_has_one_host() {
    let world = World::plain().await;
    for path in ["/v1/responses", "/v1/echo"] {
        for (target, version, lines, status) in [
            (path, "1.1", "", 400),
            (path, "1.1", "host: a\r\nhost: a\r\n", 400),
            (path, "1.1", "host: a\r\nHost: b\r\n", 400),
            (path, "1.1", "host: a, b\r\n", 400),
            (path, "1.1", "host: a b\r\n", 400),
            (path, "1.1", "host: user@a\r\n", 400),
            (path, "1.1", "host: a/b\r\n", 400),
            (path, "1.1", "host: a:b:c\r\n", 400),
            (&format!("http://a{path}"), "1.1", "", 400),
            (&format!("http://user:word@a{path}"), "1.1", "host: a\r\n", 400),
            (&format!("a{path}"), "1.1", "host: a\r\n", 400),
            (path, "1.1", "host:\r\n", 200),
            (path, "1.1", "host: anything.test:1\r\n", 200),
            (path, "1.0", "", 200),
        ] {
            let length = format!("content-length: {}\r\n", BODY.len());
            let said = format!("POST {target} HTTP/{version}\r\n{lines}{KEY}{length}\r\n{BODY}");
            let before = asked(&world);
            let mut caller = Caller::saying(world.proxy.addr, said + &get("/v1/models")).await;
            let answer = caller.hear().await;
            assert_eq!(answer.status, status, "{target} {lines:?}: {answer:?}");
            if status == 400 {
                if !answer.body.is_empty() {
                    assert!(["tailwire_bad_host", "tailwire_bad_target"].contains(&answer.code().as_str()));
                }
                assert_eq!(caller.rest().await, b"", "{target} {lines:?}");
                assert_eq!(asked(&world), before, "{target} {lines:?}");
            }
        }
    }
}

#[tokio::test]
async fn paths_arrive_as_they_were_written() {
    let upstream = Recorder::start().await;
    let proxy = proxy(&upstream, |_| ()).await;
    for (target, expected) in [
        ("/v1/files/a%2Fb%00%ff%C3%A9%zz", "/v1/files/a%2Fb%00%ff%C3%A9%zz"),
        ("/v1/%2e%2e/secret", "/v1/%2e%2e/secret"),
        ("/v1/../secret", "/v1/../secret"),
        ("/v1/./x", "/v1/./x"),
        ("//", "//"),
        ("//elsewhere.test/v1", "//elsewhere.test/v1"),
        ("/v1//responses", "/v1//responses"),
        ("/v1/responses//", "/v1/responses//"),
        ("/v1/responses;a=b", "/v1/responses;a=b"),
        ("/v1/Responses", "/v1/Responses"),
        ("/v1/%72esponses", "/v1/%72esponses"),
        ("/v1/files/", "/v1/files/"),
        ("/v1/files?", "/v1/files?"),
        ("/v1/files?a=1&a=2&b=%26+%20&c[]=d|e", "/v1/files?a=1&a=2&b=%26+%20&c[]=d|e"),
        ("/v1/files?a=/../b?c", "/v1/files?a=/../b?c"),
        ("/v1/caf\u{e9}?\u{e9}", "/v1/caf\u{e9}?\u{e9}"),
        ("/v1/files#part", "/v1/files"),
        ("/", "/"),
        ("http://elsewhere.test", "/"),
        ("http://elsewhere.test?a", "/?a"),
        ("http://elsewhere.test/v1/x?y", "/v1/x?y"),
    ] {
        let said = format!("POST {target} HTTP/1.1\r\n{WHO}content-length: 0\r\n\r\n");
        let answer = Caller::saying(proxy.addr, said).await.hear().await;
        assert_eq!(answer.status, 200, "{target}");
        assert_eq!(answer.header("x-tailwire"), None, "{target} is no turn");
        let heard = upstream.take();
        assert_eq!(
            heard.split("\r\n").next(),
            Some(format!("POST {expected} HTTP/1.1").as_str()),
            "{target}"
        );
        assert!(heard.contains(&format!("host: {}\r\n", upstream.addr)), "{heard}");
    }
    for raw in [&b"/v1/\xff\xfe"[..], b"/v1/caf\xe9", b"/v1/a\x7fb", b"/v1/a\x01b", b"/v1/a\\b", b"/v1/\"<>"]
    {
        let said = [b"GET ", raw, b" HTTP/1.1\r\n", WHO.as_bytes(), b"\r\n"].concat();
        let answer = Caller::saying(proxy.addr, said).await.hear().await;
        let heard = upstream.take();
        match answer.status {
            400 => assert_eq!(heard, "", "{raw:?}"),
            status => {
                assert_eq!(status, 200, "{raw:?}");
                let line = format!("GET {} HTTP/1.1\r\n", str::from_utf8(raw).unwrap());
                assert!(heard.starts_with(&line), "{raw:?}: {heard}");
            }
        }
    }
}

#[tokio::test]
async fn every_method_is_the_provider_s_business() {
    let upstream = Recorder::answering("HTTP/1.1 405 No\r\nallow: GET\r\ncontent-length: 0\r\n\r\n").await;
    let proxy = proxy(&upstream, |_| ()).await;
    for (line, expected) in [
        ("OPTIONS /v1/responses", "OPTIONS /v1/responses"),
        ("OPTIONS *", "OPTIONS /"),
        ("TRACE /v1/responses", "TRACE /v1/responses"),
        ("HEAD /v1/responses", "HEAD /v1/responses"),
        ("GET /v1/responses", "GET /v1/responses"),
        ("PUT /v1/responses", "PUT /v1/responses"),
        ("post /v1/responses", "post /v1/responses"),
        ("Post /v1/responses", "Post /v1/responses"),
        ("BREW /v1/pot", "BREW /v1/pot"),
        ("M-SEARCH /", "M-SEARCH /"),
        ("DELETE /v1/files/f", "DELETE /v1/files/f"),
        ("PRI /v1", "PRI /v1"),
    ] {
        let mut caller = Caller::saying(proxy.addr, format!("{line} HTTP/1.1\r\n{WHO}\r\n")).await;
        let answer = caller.hear_head().await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET")), "{line}");
        let heard = upstream.take();
        assert!(heard.starts_with(&format!("{expected} HTTP/1.1\r\n")), "{line}: {heard}");
    }
    for target in ["elsewhere.test:443", "/v1/responses", "http://elsewhere.test/"] {
        let said = format!("CONNECT {target} HTTP/1.1\r\nhost: elsewhere.test:443\r\n\r\n");
        let answer = Caller::saying(proxy.addr, said).await.hear().await;
        match answer.status {
            405 => assert_eq!(answer.code(), "tailwire_not_a_forward_proxy", "{target}"),
            status => assert_eq!(status, 400, "{target}"),
        }
    }
    assert_eq!(upstream.take(), "");
}

#[tokio::test]
async fn a_preflight_is_between_browser_and_provider() {
    let allow = "HTTP/1.1 204 No Content\r\naccess-control-allow-origin: https://app.test\r\n\
        access-control-allow-headers: authorization, x-mine\r\nvary: Origin\r\n\r\n";
    let upstream = Recorder::answering(allow).await;
    let proxy = proxy(&upstream, |_| ()).await;
    let lines = [
        "origin: https://app.test",
        "access-control-request-method: POST",
        "access-control-request-headers: x-mine",
    ];
    let said = format!("OPTIONS /v1/responses HTTP/1.1\r\nhost: t\r\n{}\r\n\r\n", lines.join("\r\n"));
    let mut caller = Caller::saying(proxy.addr, said).await;
    let answer = caller.hear_head().await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.test"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("authorization, x-mine"));
    let heard = upstream.take();
    for line in lines {
        assert!(heard.contains(&format!("{line}\r\n")), "{heard}");
    }
    assert!(!heard.contains("authorization:"), "{heard}");
}

#[tokio::test]
async fn a_head_of_an_answer_is_not_followed_by_its_body() {
    let world = World::plain().await;
    let said = format!("HEAD /v1/models HTTP/1.1\r\n{WHO}\r\n");
    let mut caller = Caller::saying(world.proxy.addr, said + &get("/v1/models")).await;
    assert_eq!(caller.hear_head().await.status, 200);
    assert_eq!(caller.hear().await.json()["object"], "list");
}
