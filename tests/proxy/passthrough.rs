//! Everything that is not a turn passes through untouched, both ways, tunnels included.

use futures_util::{SinkExt, StreamExt};
use http_body_util::BodyExt;
use hyper::{HeaderMap, Method, Request};
use serde_json::{Value, json};
use tailwire::config::Mode;
use tailwire::sim::{Moment, Transport};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::agent::Agent;
use crate::http::{CREDENTIAL, Reply, raw};
use crate::transparency::read;
use crate::world::World;

/// Headers but those that each connection or each answer has for itself.
fn lasting(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for own in ["date", "x-request-id", "openai-processing-ms", "connection", "transfer-encoding"] {
        headers.remove(own);
    }
    headers
}

fn assert_untouched(direct: &Reply, proxied: &Reply, about: &str) {
    assert_eq!(direct.status, proxied.status, "{about}");
    assert_eq!(lasting(&direct.headers), lasting(&proxied.headers), "{about}");
    assert_eq!(direct.trailers, proxied.trailers, "{about}");
    assert!(direct.body == proxied.body, "{about}: {:?}", proxied.body);
}

#[tokio::test]
async fn requests_and_answers_pass_untouched() {
    let world = World::plain().await;
    for (method, path, header) in [
        (Method::GET, "/v1/models", None),
        (Method::GET, "/v1/models/gpt-sim?a=1&a=2", None),
        (Method::HEAD, "/v1/models", None),
        (Method::OPTIONS, "/v1/models", None),
        (Method::GET, "/v1/files/file-1/content", None),
        (Method::GET, "/v1/files/file-1/content", Some(("range", "bytes=10-19"))),
        (Method::GET, "/v1/files/file-1/content", Some(("range", "bytes=-5"))),
        (Method::GET, "/v1/files/file-1/content", Some(("range", "bytes=100000-"))),
        (Method::HEAD, "/v1/files/file-1/content", None),
        (Method::GET, "/v1/trailers", None),
        (Method::GET, "/v1/trailers", Some(("te", "trailers"))),
        (Method::GET, "/v1/responses/resp_none/input_items?limit=5", None),
        (Method::POST, "/v1/embeddings", None),
        (Method::GET, "/health", None),
        (Method::GET, "/metrics", None),
        (Method::GET, "/", None),
        (Method::PUT, "/elsewhere/%2Fslashes%20and?q=%26#", None),
    ] {
        let with = |client: crate::http::Client| match header {
            Some((name, value)) => client.with(name, value),
            None => client,
        };
        let path = path.trim_end_matches('#');
        let direct = with(world.direct()).send(method.clone(), path, "").await;
        let proxied = with(world.proxied()).send(method.clone(), path, "").await;
        assert_untouched(&direct, &proxied, &format!("{method} {path} {header:?}"));
    }
    let trailers = world.proxied().with("te", "trailers").get("/v1/trailers").await;
    assert_eq!(trailers.trailers["x-checksum"], "42");
}

#[tokio::test]
async fn a_request_arrives_as_it_was_sent() {
    let world = World::plain().await;
    let query = "a=1&a=2&b=%26%20&c=%C3%A9&d";
    for method in ["PATCH", "PUT", "POST", "DELETE", "PROPFIND"] {
        let client = world.proxied().with("x-own", "kept").with("connection", "x-hop").with("x-hop", "gone");
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let echo = client.send(method.clone(), &format!("/v1/echo?{query}"), "abc").await.json();
        assert_eq!(echo["method"], method.as_str());
        assert_eq!((&echo["path"], &echo["query"]), (&json!("/v1/echo"), &json!(query)));
        assert_eq!(echo["sha256"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let headers = echo["headers"].as_object().unwrap();
        let names: Vec<&str> = headers.keys().map(String::as_str).collect();
        assert_eq!(names, ["authorization", "content-length", "content-type", "host", "x-own"]);
        assert_eq!(headers["host"], json!([world.sim.addr.to_string()]));
    }
    let chunked = "POST /v1/echo HTTP/1.1\r\nhost: t\r\nauthorization: k\r\ntransfer-encoding: chunked\r\n\
        trailer: x-sum\r\nconnection: close\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n";
    let answer = raw(world.proxy.addr, chunked.as_bytes(), false).await;
    let echo: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((&echo["bytes"], &echo["trailers"]), (&json!(3), &json!({"x-sum": ["7"]})));
}

#[tokio::test]
async fn an_upload_of_twenty_megabytes() {
    let world = World::start(|settings| settings.limits.body = 1 << 20, |_| ()).await;
    let mut body = vec![0; 20 << 20];
    getrandom::fill(&mut body[..4096]).unwrap();
    let kind = "multipart/form-data; boundary=b";
    let direct =
        world.direct().with("content-type", kind).send(Method::POST, "/v1/files", body.clone()).await;
    let proxied = world.proxied().with("content-type", kind).send(Method::POST, "/v1/files", body).await;
    assert_eq!(proxied.json()["bytes"], 20 << 20);
    assert_untouched(&direct, &proxied, "upload");
}

#[tokio::test]
async fn a_base_url_without_its_version_works() {
    let world = World::plain().await;
    assert_untouched(
        &world.direct().get("/v1/models").await,
        &world.proxied().get("/models").await,
        "models",
    );
    let body = json!({"model": "m", "input": "hi", "store": false});
    for (path, plan) in
        [("/responses", "first-turn"), ("/v1/responses", "nothing-new"), ("/v1/responses/", "nothing-new")]
    {
        let reply = world.proxied().send(Method::POST, path, body.to_string()).await;
        assert_eq!((reply.status.as_u16(), reply.told().plan()), (200, ("full", plan)), "{path}");
    }
}

#[tokio::test]
async fn with_mode_http_turns_are_passed_through_as_they_come() {
    let world = World::start(|settings| settings.mode = Mode::Http, |script| script.speed = 10.0).await;
    let agent = Agent::new(world.proxied()).set(&json!({"stream": true, "input": "hi [sim text=100]"}));
    let body = agent.settings.to_string();
    let mut answer = agent.client.open(Method::POST, "/v1/responses", body.clone().into()).await;
    let mut text = Vec::new();
    while !text.windows(10).any(|part| part == b"text.delta") {
        text.extend_from_slice(&answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap());
    }
    assert_eq!(world.in_flight(1).await[0].transport, Transport::Http);
    world.fast();
    text.extend_from_slice(&answer.body_mut().collect().await.unwrap().to_bytes());
    let headers = answer.headers().clone();
    let proxied = Reply { status: answer.status(), headers, trailers: HeaderMap::new(), body: text.into() };
    let direct = world.direct().send(Method::POST, "/v1/responses", body).await;
    assert_eq!(read(&direct), read(&proxied));
    assert_eq!(lasting(&direct.headers), lasting(&proxied.headers));
    assert_eq!(world.ledger().read(|book| book.upgrades_asked), 0);
}

pub(crate) async fn websocket(
    world: &World,
    path: &str,
    key: Option<&str>,
) -> Result<WebSocketStream<TcpStream>, Error> {
    let mut request = Request::get(format!("ws://{}{path}", world.proxy.addr))
        .header("host", world.proxy.addr.to_string())
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", generate_key());
    if let Some(key) = key {
        request = request.header("authorization", key);
    }
    let stream = TcpStream::connect(world.proxy.addr).await.unwrap();
    client_async(request.body(()).unwrap(), stream).await.map(|(socket, _)| socket)
}

#[tokio::test]
async fn a_client_s_own_websocket_is_a_tunnel() {
    let world = World::plain().await;
    let mut realtime = websocket(&world, "/v1/realtime?model=m", Some(CREDENTIAL)).await.unwrap();
    for text in ["hello", &"x".repeat(100_000)] {
        realtime.send(Message::text(text)).await.unwrap();
        assert_eq!(realtime.next().await.unwrap().unwrap(), Message::text(text));
    }
    realtime.close(None).await.unwrap();

    let mut responses = websocket(&world, "/v1/responses", Some(CREDENTIAL)).await.unwrap();
    let mut previous = Value::Null;
    for input in ["hi", "more"] {
        let frame = json!({"type": "response.create", "model": "m", "store": false, "input": input,
            "previous_response_id": previous});
        responses.send(Message::text(frame.to_string())).await.unwrap();
        let terminal = loop {
            let Message::Text(text) = responses.next().await.unwrap().unwrap() else { continue };
            let event: Value = serde_json::from_str(text.as_str()).unwrap();
            if event["type"] == "response.completed" {
                break event;
            }
        };
        assert_eq!(terminal["response"]["previous_response_id"], previous);
        previous = terminal["response"]["id"].clone();
    }
    assert_eq!(world.proxy.sockets(), 0, "it is not one of ours");
    drop(responses);
    assert!(world.ledger().wait(|book| book.sockets_open == 0).await, "the other end hears of it");
    world.assert_lawful();
}

#[tokio::test]
async fn a_refused_tunnel_gets_the_provider_s_answer() {
    let world = World::plain().await;
    let Err(Error::Http(reply)) = websocket(&world, "/v1/responses", None).await else {
        panic!("not refused")
    };
    assert_eq!(reply.status(), 401);
    assert!(reply.headers().contains_key("openai-processing-ms"));
    let mishap = tailwire::sim::Fault::Upgrade(tailwire::sim::script::Upgrade::refuse(426));
    world.sim.provider.mishap(tailwire::sim::Mishap::new(Moment::Upgrade, mishap));
    let refused = websocket(&world, "/v1/responses", Some("k")).await;
    assert!(matches!(refused, Err(Error::Http(reply)) if reply.status() == 426));
}
