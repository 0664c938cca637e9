//! Bad input: it gets the provider's own answer or ours in the provider's shape, it never hangs or breaks anything,
//! and a turn that runs at the same time does not notice.

use std::io::Write;
use std::time::Duration;

use hyper::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::agent::{Agent, Turn};
use crate::http::{Reply, raw};
use crate::transparency::read;
use crate::world::World;

/// A turn that is under way while other things happen.
struct Bystander {
    running: JoinHandle<(Agent, Turn)>,
}

impl Bystander {
    async fn start(world: &World) -> Self {
        world.slow();
        let mut agent = Agent::new(world.proxied()).set(&json!({"stream": true}));
        let running = tokio::spawn(async move {
            let turn = agent.run("meanwhile [sim text=200]").await.remove(0);
            (agent, turn)
        });
        world.in_flight(1).await;
        world.fast();
        Self { running }
    }

    /// Its answer is whole.
    async fn assert_whole(self, world: &World) -> Agent {
        let (agent, turn) = self.running.await.unwrap();
        let direct = world.direct().send(Method::POST, "/v1/responses", turn.request).await;
        assert_eq!(read(&direct), read(&turn.reply));
        agent
    }

    /// And its conversation goes on where it was.
    async fn assert_undisturbed(self, world: &World) {
        let mut agent = self.assert_whole(world).await;
        assert_eq!(agent.run("and? [sim text=9]").await[0].told().plan(), ("delta", "exact"));
        assert_eq!(world.ledger().read(|book| book.upgrades_granted), 1);
    }
}

fn nested(open: &str, close: &str, depth: usize) -> String {
    format!("{}1{}", open.repeat(depth), close.repeat(depth))
}

fn bad_bodies() -> Vec<Vec<u8>> {
    let deep = 100_000;
    let mut bodies: Vec<Vec<u8>> = [
        "",
        " ",
        "{",
        "null",
        "nonsense",
        r#"{"model":"m","input":"x""#,
        r#"{"model":"m","input":"x"} {}"#,
        r#"{"model":"m","input":"x",}"#,
        r#"{"model":"m","input":["x" "y"]}"#,
        r#"{"model":"m","input":[{"role":"user","content":"a" "b"}]}"#,
        r#"{'model':'m'}"#,
        "\u{feff}{\"model\":\"m\",\"input\":\"x\"}",
        r#"{"model":"m","input":7}"#,
        r#"{"model":"m","input":{}}"#,
        r#"{"model":"m","input":[[[]]]}"#,
        r#"{"model":"m","input":[null]}"#,
        r#"{"model":"m","input":"x","stream":"yes"}"#,
        r#"{"model":"m","input":"x","stream":1}"#,
        r#"{"model":"m","input":"x","temperature":NaN}"#,
        r#"{"model":"m","input":"x","temperature":1e400}"#,
        r#"{"model":"m","input":"x","temperature":01}"#,
        r#"{"model":"m","input":"lone \ud800 surrogate"}"#,
        r#"{"model":"m","input":[{"role":"user","content":"lone \udc00 surrogate"}]}"#,
        r#"{"model":"m","input":"x","lone \ud800 key":1}"#,
        r#"{"model":"m","input":"x","metadata":{"a":"\ud800"}}"#,
        "{\"model\":\"m\",\"input\":\"raw \n break\"}",
        r#"{"model":"m","input":"x","model":"n"}"#,
        r#"{"model":"m","input":"x","input":"y"}"#,
        r#"{"model":"m","input":"x","stream":false,"stream":false}"#,
        r#"{"model":"m","input":"x","mod\u0065l":"n"}"#,
        r#"{"model":"m","input":[{"role":"user","content":"a","content":"b"}]}"#,
        r#"{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"a","text":"b"}]}]}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    bodies.extend([
        b"{\"model\":\"m\",\"input\":\"\xff\"}".to_vec(),
        b"\xff\xfe{\0}\0".to_vec(),
        format!(r#"{{"model":"m","input":{}}}"#, nested("[", "]", deep)).into(),
        format!(r#"{{"model":"m","input":[{}]}}"#, nested("{\"a\":", "}", deep)).into(),
        format!(r#"{{"model":"m","input":"x","metadata":{}}}"#, nested("{\"a\":", "}", deep)).into(),
        format!(r#"{{"model":"m","input":"x","x_new":{}}}"#, nested("[", "]", deep)).into(),
        nested("[", "]", deep).into(),
        "[".repeat(deep).into(),
        nested("{\"input\":", "}", deep).into(),
    ]);
    bodies
}

#[tokio::test]
async fn a_bad_body_gets_the_provider_s_own_answer() {
    let world = World::plain().await;
    let bystander = Bystander::start(&world).await;
    for body in bad_bodies() {
        let direct = world.direct().send(Method::POST, "/v1/responses", body.clone()).await;
        let proxied = world.proxied().send(Method::POST, "/v1/responses", body.clone()).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(90)]).into_owned();
        assert_eq!(direct.status, proxied.status, "{shown}");
        assert_eq!(read(&direct), read(&proxied), "{shown}");
    }
    for kind in ["text/plain", "multipart/form-data; boundary=b", "application/x-www-form-urlencoded", ""] {
        let body = json!({"model": "m", "input": "x"});
        let direct = world.direct().with("content-type", kind).ask(&body).await;
        let proxied = world.proxied().with("content-type", kind).ask(&body).await;
        assert_eq!((direct.status, read(&direct)), (proxied.status, read(&proxied)), "{kind}");
        assert_eq!(proxied.told().plan(), ("http", "not-understood"));
    }
    // A frame that the provider cannot read costs its socket: whose it was is not said. Later turns move on.
    let after = bystander.assert_whole(&world).await.run("and? [sim text=9]").await.remove(0);
    let direct = world.direct().send(Method::POST, "/v1/responses", after.request.clone()).await;
    assert_eq!(direct.response()["sim"], after.response["sim"]);
    world.assert_lawful();
}

#[tokio::test]
async fn a_key_named_twice_is_never_guessed_at() {
    let world = World::plain().await;
    let client = world.proxied();
    let post = async |input: &str, rest: &str| {
        let body = format!(r#"{{"model":"m","store":false,"input":[{input}]{rest}}}"#);
        client.send(Method::POST, "/v1/responses", body).await
    };
    let twice = r#"{"role":"user","content":"a","content":"b [sim text=9]"}"#;
    let first = post(twice, "").await;
    assert_eq!(first.told().plan(), ("http", "undigestable"));
    let said = first.response()["output"][0].to_string();
    let more = r#"{"role":"user","content":"more"}"#;
    assert_eq!(post(&format!("{twice},{said},{more}"), "").await.told().plan(), ("http", "undigestable"));
    assert_eq!(post(more, r#","model":"n""#).await.told().plan(), ("http", "duplicate-key"));
}

/// An error of ours, in the provider's shape.
fn assert_ours(reply: &Reply, status: u16, code: &str) {
    assert_eq!(reply.status, status, "{:?}", reply.body);
    assert_eq!(reply.header("content-type"), "application/json");
    assert!(reply.header("x-request-id").starts_with("req_"));
    let body = reply.json();
    assert_eq!(body.as_object().unwrap().len(), 1);
    assert_eq!(body["error"]["code"], code);
    assert_eq!(body["error"]["type"], if status < 500 { "invalid_request_error" } else { "server_error" });
    assert!(body["error"]["message"].is_string() && body["error"].get("param").is_some());
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_however_it_comes() {
    let world = World::start(|settings| settings.limits.body = 8 << 10, |_| ()).await;
    let bystander = Bystander::start(&world).await;
    let requests = world.ledger().read(|book| book.http_requests);
    let large = json!({"model": "m", "input": "x".repeat(9 << 10)}).to_string();
    let plain = world.proxied();
    let packed = plain.clone().with("content-encoding", "gzip");
    assert_ours(
        &plain.send(Method::POST, "/v1/responses", large.clone()).await,
        413,
        "tailwire_body_too_large",
    );
    assert_ours(
        &packed.send(Method::POST, "/v1/responses", gzip(large.as_bytes())).await,
        413,
        "tailwire_body_too_large",
    );
    assert_ours(
        &packed.send(Method::POST, "/v1/responses", gzip(large.as_bytes())[..20].to_vec()).await,
        400,
        "tailwire_corrupt_body",
    );
    let unknown = plain.clone().with("content-encoding", "snappy");
    assert_ours(
        &unknown.send(Method::POST, "/v1/responses", large.clone()).await,
        413,
        "tailwire_body_too_large",
    );
    let chunk = "x".repeat(9 << 10);
    let head =
        "POST /v1/responses HTTP/1.1\r\nhost: t\r\nauthorization: k\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunked = format!("{head}{:x}\r\n{chunk}\r\n0\r\n\r\n", chunk.len());
    let answer = raw(world.proxy.addr, chunked.as_bytes(), true).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("tailwire_body_too_large"), "{answer}");
    assert_eq!(world.ledger().read(|book| book.http_requests), requests, "nothing of it went up");
    // The limit is on what is held in memory; what only passes through may be larger.
    let upload = plain.with("content-type", "multipart/form-data; boundary=b");
    assert_eq!(upload.send(Method::POST, "/v1/files", large).await.status, 200);
    bystander.assert_undisturbed(&world).await;
}

#[tokio::test]
async fn an_upload_that_never_ends_well_is_given_up() {
    let world = World::start(
        |settings| {
            settings.timeouts.body_idle = Duration::from_millis(100);
            settings.timeouts.header = Duration::from_millis(300);
        },
        |_| (),
    )
    .await;
    let bystander = Bystander::start(&world).await;
    let requests = world.ledger().read(|book| book.http_requests);
    let head =
        "POST /v1/responses HTTP/1.1\r\nhost: t\r\nauthorization: k\r\ncontent-type: application/json\r\n";
    let half = r#"{"model":"m","inp"#;
    let half = format!("{head}content-length: 1000\r\n\r\n{half}");
    let chunk = format!("{head}transfer-encoding: chunked\r\n\r\n5\r\n{{\"mod");
    let garbled = format!("{head}transfer-encoding: chunked\r\n\r\nnot a number\r\n");
    for (request, ends, expected) in [
        (&half, false, "HTTP/1.1 408 "),
        (&chunk, false, "HTTP/1.1 408 "),
        (&half, true, "HTTP/1.1 400 "),
        (&chunk, true, "HTTP/1.1 400 "),
        (&garbled, false, "HTTP/1.1 400 "),
    ] {
        let answer = raw(world.proxy.addr, request.as_bytes(), ends).await;
        assert!(answer.starts_with(expected), "{request}: {answer}");
        let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert!(body["error"]["code"].as_str().unwrap().starts_with("tailwire_"), "{body}");
    }
    // Not even a whole head: there is no request to answer.
    raw(world.proxy.addr, b"POST /v1/respon", false).await;
    raw(world.proxy.addr, head.as_bytes(), false).await;
    raw(world.proxy.addr, b"", false).await;
    assert_eq!(world.ledger().read(|book| book.http_requests), requests, "nothing of it went up");
    bystander.assert_undisturbed(&world).await;
}

#[tokio::test]
async fn heads_that_are_too_much_or_no_heads_at_all() {
    let world = World::plain().await;
    let bystander = Bystander::start(&world).await;
    let huge = format!("GET /v1/models HTTP/1.1\r\nhost: t\r\nx-huge: {}\r\n\r\n", "x".repeat(300 << 10));
    let many = format!("GET /v1/models HTTP/1.1\r\nhost: t\r\n{}\r\n", "x-many: 1\r\n".repeat(300));
    let long = format!("GET /v1/{} HTTP/1.1\r\nhost: t\r\n\r\n", "x".repeat(100 << 10));
    for (request, expected) in [
        (huge.as_str(), &["431"][..]),
        (&many, &["431"]),
        (&long, &["414"]),
        ("nonsense\r\n\r\n", &["400"]),
        ("GET / HTTP/9.9\r\n\r\n", &["400"]),
        ("GET /v1/models HTTP/1.1\r\nbad header\r\n\r\n", &["400"]),
        ("CONNECT elsewhere:443 HTTP/1.1\r\nhost: elsewhere:443\r\n\r\n", &["405"]),
    ] {
        let answer = raw(world.proxy.addr, request.as_bytes(), true).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(expected.contains(&status), "{}: {answer}", &request[..request.len().min(80)]);
    }
    bystander.assert_undisturbed(&world).await;
}
