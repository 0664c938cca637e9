//! Who is not let in: answered in the SDKs' shape before any body is read, and nothing of it goes up.

use hyper::Method;
use serde_json::json;
use tokio_tungstenite::tungstenite::Error;

use crate::http::{Client, Reply, raw};
use crate::support::{ALICE, clients, upstream_key, websocket};
use crate::world::World;

fn assert_refused(reply: &Reply, status: u16, code: &str, about: &str) {
    assert_eq!(reply.status, status, "{about}");
    let error = &reply.json()["error"];
    assert_eq!(error["code"], code, "{about}");
    assert_eq!(error["type"], "invalid_request_error", "{about}");
    assert!(error["message"].is_string() && error["param"].is_string(), "{about}");
    let challenge = if status == 401 { "Bearer" } else { "" };
    assert_eq!(reply.header("www-authenticate"), challenge, "{about}");
    assert!(reply.header("x-request-id").starts_with("req_"), "{about}");
}

/// Every way in: a turn, what passes through, a tunnel, a preflight.
async fn assert_shut(world: &World, client: &Client, status: u16, code: &str, about: &str) {
    let refused = world.proxy.metrics().requests_refused.value();
    let turn = client.ask(&json!({"model": "m", "input": "hi [sim text=9]"})).await;
    assert_refused(&turn, status, code, about);
    for (method, path) in [
        (Method::GET, "/v1/models"),
        (Method::POST, "/v1/files"),
        (Method::DELETE, "/v1/responses/resp_1"),
        (Method::OPTIONS, "/v1/responses"),
        (Method::GET, "/anything"),
    ] {
        assert_refused(&client.send(method, path, "").await, status, code, about);
    }
    let Err(Error::Http(reply)) = websocket(client, "/v1/responses").await else {
        panic!("{about}: not refused")
    };
    assert_eq!(reply.status(), status, "{about}");
    assert_eq!(world.proxy.metrics().requests_refused.value() - refused, 7, "{about}");
    world.ledger().read(|book| assert_eq!((book.http_requests, book.connections_opened), (0, 0), "{about}"));
}

#[tokio::test]
async fn without_a_client_key_nothing_goes_up() {
    for upstream in [true, false] {
        let world = World::start(
            |settings| {
                settings.client_keys = clients(&[ALICE]);
                settings.upstream_key = upstream_key().filter(|_| upstream);
            },
            |_| (),
        )
        .await;
        let code = "tailwire_unknown_client_key";
        for (about, client) in [
            ("none", world.proxied().without("authorization")),
            ("another", world.proxied()),
            ("nearly", world.proxied().with("x-tailwire-key", "sk-planted-alice-0124")),
            ("empty", world.proxied().with("authorization", "Bearer ")),
        ] {
            assert_shut(&world, &client, 401, code, about).await;
        }
        if !upstream {
            // Or it would be sent to the provider.
            let client = world.proxied().with("authorization", &format!("Bearer {ALICE}"));
            assert_shut(&world, &client, 401, code, "misplaced").await;
        }
    }
}

#[tokio::test]
async fn no_foreign_page_spends_the_upstream_key() {
    let world = World::start(|settings| settings.upstream_key = upstream_key(), |_| ()).await;
    let code = "tailwire_foreign_request";
    for (name, value) in [
        ("host", "evil.test"),
        ("host", "evil.test:8484"),
        ("origin", "https://evil.test"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
    ] {
        let client = world.proxied().with(name, value);
        assert_shut(&world, &client, 403, code, &format!("{name}: {value}")).await;
    }
    for (name, value) in [
        ("host", "localhost"),
        ("host", "tool.localhost:1"),
        ("origin", "http://localhost:3000"),
        ("sec-fetch-site", "same-origin"),
    ] {
        assert_eq!(world.proxied().with(name, value).get("/v1/models").await.status, 200, "{name}: {value}");
    }
}

#[tokio::test]
async fn without_an_upstream_key_the_port_is_a_wire() {
    // There is nothing of ours to spend: a page that can name a credential has no need of us.
    let world = World::plain().await;
    let client = world.proxied().with("host", "evil.test").with("origin", "https://evil.test");
    let echoed = client.get("/v1/echo").await.json();
    assert_eq!(echoed["headers"]["origin"], json!(["https://evil.test"]));
    assert_eq!(client.ask(&json!({"model": "m", "input": "hi [sim text=9]"})).await.told().plan, "full");
    assert_eq!(client.without("authorization").get("/v1/models").await.status, 401);
}

#[tokio::test]
async fn a_refusal_waits_for_no_body() {
    let world = World::start(|settings| settings.client_keys = clients(&[ALICE]), |_| ()).await;
    let head = "POST /v1/responses HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                content-length: 50000000\r\n\r\n{\"input\":";
    let answer = raw(world.proxy.addr, head.as_bytes(), false).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let head = head.replacen("content-type", "expect: 100-continue\r\ncontent-type", 1);
    let answer = raw(world.proxy.addr, head.as_bytes(), false).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "no 100 first: {answer}");
}
