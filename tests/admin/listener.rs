//! The listener itself: health, methods, who may look, and how many.

use std::time::Duration;

use hyper::Method;
use serde_json::json;
use tailwire::config::{AdminListen, Settings};
use tailwire::{app, sim};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::http::{Client, raw};
use crate::support::{admin, looked_at, until};
use crate::world::{World, settings_for};

/// Nothing that was found out counts any longer.
fn impatient(settings: &mut Settings) {
    settings.timeouts.ready = Duration::from_millis(1);
}

#[tokio::test]
async fn health_is_live_while_it_serves_and_ready_while_turns_may_come() {
    let world = looked_at(impatient, |_| ()).await;
    let client = admin(&world);
    assert_eq!(client.get("/live").await.json(), json!({"live": true}));
    let ready = client.get("/ready").await;
    assert_eq!((ready.status.as_u16(), ready.json()), (200, json!({"ready": true})));

    // A turn under way keeps it from stopping; meanwhile it lives, and is not ready.
    world.slow();
    let asking = {
        let client = world.proxied();
        tokio::spawn(async move { client.ask(&json!({"model": "m", "input": "hi [sim text=100]"})).await })
    };
    world.in_flight(1).await;
    let World { sim, proxy } = world;
    let stopping = tokio::spawn(proxy.stop());
    until("it drains", async || client.get("/ready").await.status == 503).await;
    assert_eq!(client.get("/ready").await.json()["reason"], "draining");
    assert_eq!(client.get("/live").await.status, 200);
    assert_eq!(client.get("/stats").await.json()["draining"], true);
    sim.provider.script(|script| script.speed = 0.0);
    assert_eq!(asking.await.unwrap().status, 200);
    stopping.await.unwrap();
}

#[tokio::test]
async fn an_upstream_that_is_away_is_not_ready_until_it_is_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = listener.local_addr().unwrap();
    drop(listener);
    let mut settings = settings_for(&format!("http://{upstream}/v1"));
    settings.admin_listen = AdminListen::At(([127, 0, 0, 1], 0).into());
    impatient(&mut settings);
    let proxy = app::Running::start(settings).await.unwrap();
    let client = Client::new(proxy.admin_addr().unwrap());
    let reply = client.get("/ready").await;
    assert_eq!((reply.status.as_u16(), &reply.json()["reason"]), (503, &json!("upstream-unreachable")));
    let message = reply.json()["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with("The upstream cannot be reached: it does not accept connections: "),
        "{message}"
    );
    assert_eq!(client.get("/live").await.status, 200);
    let back = TcpListener::bind(upstream).await.unwrap();
    let provider = sim::Provider::new(sim::Script::default());
    let serving = tokio::spawn(sim::serve(back, provider, std::future::pending()));
    until("it is there", async || client.get("/ready").await.status == 200).await;
    serving.abort();
}

#[tokio::test]
async fn what_is_known_of_the_upstream_counts_for_a_while_and_is_asked_once() {
    let world = looked_at(|settings| settings.timeouts.ready = Duration::from_secs(3600), |_| ()).await;
    let client = admin(&world);
    let asked = (0..8).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.get("/ready").await.status })
    });
    for status in asked.collect::<Vec<_>>() {
        assert_eq!(status.await.unwrap(), 200);
    }
    assert_eq!(world.ledger().read(|book| book.connections_opened), 1, "one try for all of them");
}

#[tokio::test]
async fn it_looks_and_changes_nothing() {
    let world = looked_at(|_| (), |_| ()).await;
    let client = admin(&world);
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH] {
        let reply = client.send(method.clone(), "/stats", "{}").await;
        assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, "GET, HEAD"), "{method}");
        assert_eq!(reply.json()["error"]["code"], "tailwire_read_only");
    }
    for path in ["/nothing", "/v1/responses", "/stats/", "/METRICS", "//"] {
        let reply = client.get(path).await;
        assert_eq!(
            (reply.status.as_u16(), reply.json()["error"]["code"].as_str()),
            (404, Some("tailwire_not_found"))
        );
    }
    for path in ["/", "/live", "/ready", "/metrics", "/stats", "/turns", "/events"] {
        let reply = client.send(Method::HEAD, path, "").await;
        assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 0), "{path}");
        assert_eq!(reply.header("cache-control"), "no-store", "{path}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
    }
    assert_eq!(world.ledger().read(|book| (book.turns.len(), book.http_requests)), (0, 0), "nothing went up");
    assert_eq!(world.proxied().get("/stats").await.status, 404, "the proxy's port is the provider's");
}

#[tokio::test]
async fn no_foreign_page_may_look() {
    let world = looked_at(|_| (), |_| ()).await;
    let client = admin(&world);
    let own = client.addr.to_string();
    for (headers, status) in [
        (&[("host", "localhost:8485")][..], 200),
        (&[("host", "evil.example")], 403),
        (&[("host", "127.0.0.1.evil.example")], 403),
        (&[("host", &*own), ("origin", "http://evil.example")], 403),
        (&[("host", &*own), ("origin", "null")], 403),
        (&[("host", &*own), ("origin", "http://localhost:8485")], 200),
        (&[("host", &*own), ("sec-fetch-site", "cross-site")], 403),
        (&[("host", &*own), ("sec-fetch-site", "same-origin")], 200),
        (&[("host", &*own), ("sec-fetch-site", "none")], 200),
    ] {
        for path in ["/", "/stats", "/metrics", "/events"] {
            let asking =
                headers.iter().fold(client.clone(), |client, (name, value)| client.with(name, value));
            let reply = asking.send(Method::HEAD, path, "").await;
            assert_eq!(reply.status.as_u16(), status, "{path} {headers:?}");
            assert_eq!(reply.header("access-control-allow-origin"), "");
        }
    }
}

#[tokio::test]
async fn where_others_may_look_a_page_must_have_come_from_here() {
    let everywhere = |settings: &mut Settings| {
        settings.admin_listen = AdminListen::At(([0, 0, 0, 0], 0).into());
        settings.admin_allow_remote = true;
    };
    let world = World::start(everywhere, |_| ()).await;
    let port = world.proxy.admin_addr().unwrap().port();
    let client = Client::new(([127, 0, 0, 1], port).into());
    for (host, origin, status) in [
        ("pod.cluster.local:8485", "", 200),
        ("pod.cluster.local:8485", "http://pod.cluster.local:8485", 200),
        ("pod.cluster.local:8485", "http://evil.example", 403),
    ] {
        let asking = client.clone().with("host", host);
        let asking = if origin.is_empty() { asking } else { asking.with("origin", origin) };
        assert_eq!(asking.get("/live").await.status.as_u16(), status, "{host} {origin}");
    }
}

#[tokio::test]
async fn the_page_may_do_nothing_but_look() {
    let world = looked_at(|_| (), |_| ()).await;
    let reply = admin(&world).get("/").await;
    let policy = reply.header("content-security-policy");
    for part in ["default-src 'none'", "script-src 'sha256-", "style-src 'sha256-", "frame-ancestors 'none'"]
    {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(reply.header("content-type"), "text/html; charset=utf-8");
}

#[tokio::test]
async fn metrics_come_in_the_form_that_was_asked_for() {
    let world = looked_at(|_| (), |_| ()).await;
    let plain = admin(&world).get("/metrics").await;
    assert_eq!(plain.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = String::from_utf8(plain.body.to_vec()).unwrap();
    assert!(text.contains("# TYPE tailwire_turns_total counter\n") && !text.contains("# EOF"), "{text}");
}

#[tokio::test]
async fn connections_are_bounded_and_a_head_has_a_deadline() {
    let quick = |settings: &mut Settings| settings.timeouts.header = Duration::from_millis(300);
    let world = looked_at(quick, |_| ()).await;
    let addr = world.proxy.admin_addr().unwrap();
    let mut idle = Vec::new();
    for _ in 0..tailwire::admin::CONNECTIONS {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(b"GET /live HTTP/1.1\r\nhost: localhost\r\n").await.unwrap();
        idle.push(stream);
    }
    // All places are taken by heads that never end: the next one waits until they are given up.
    let next =
        tokio::spawn(raw(addr, b"GET /live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", false));
    for mut stream in idle {
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut rest))
            .await
            .expect("given up");
    }
    assert!(next.await.unwrap().starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn without_a_place_there_is_none_unless_one_was_asked_for() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings_for("http://127.0.0.1:9/v1");
    settings.admin_listen = AdminListen::At(taken.local_addr().unwrap());
    let error = app::Running::start(settings).await.err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().starts_with("admin_listen 127.0.0.1:"), "{error}");
    let off = app::Running::start(settings_for("http://127.0.0.1:9/v1")).await.unwrap();
    assert_eq!(off.admin_addr(), None);
}
