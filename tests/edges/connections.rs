//! One connection, several requests: `Expect`, pipelining, how long it is kept, and clients that close one half of it.

use std::time::Duration;

use crate::raw::{Caller, soon};
use crate::support::{BODY, WAYS, WHO, asked, assert_answered, assert_cancelled, get, post};
use crate::world::World;

const STREAM: &str = r#"{"model":"gpt-sim","store":false,"stream":true,"input":"hi [sim text=40]"}"#;

fn expecting(path: &str, expectation: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\n{WHO}expect: {expectation}\r\ncontent-length: {length}\r\n\r\n")
}

fn stream() -> String {
    post("/v1/responses", "")
        .replace(BODY, STREAM)
        .replace(&format!("content-length: {}", BODY.len()), &format!("content-length: {}", STREAM.len()))
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_continue() {
    let world = World::plain().await;
    for path in WAYS {
        for expectation in ["100-continue", "100-Continue"] {
            let mut caller = Caller::saying(world.proxy.addr, expecting(path, expectation, BODY.len())).await;
            assert!(caller.hears_within(Duration::from_secs(20)).await, "{path}: not told");
            caller.say(BODY).await;
            let answer = caller.hear().await;
            assert_eq!(answer.interim, [100], "{path}");
            assert_answered(path, &answer);
        }
        // One that does not wait for it is answered all the same, and so is one too old to know.
        let eager = expecting(path, "100-continue", BODY.len()) + BODY;
        assert_answered(path, &Caller::saying(world.proxy.addr, eager.clone()).await.hear().await);
        let old = eager.replace("HTTP/1.1", "HTTP/1.0");
        let answer = Caller::saying(world.proxy.addr, old).await.hear().await;
        assert_answered(path, &answer);
        assert!(answer.interim.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn what_is_refused_anyway_is_not_asked_for() {
    let world = World::start(
        |settings| {
            settings.limits.body = 8 << 10;
            settings.limits.turns = 1;
        },
        |_| (),
    )
    .await;
    let before = asked(&world);
    for (path, expectation, length, status, code) in [
        ("/v1/responses", "100-continue", 9 << 10, 413, "tailwire_body_too_large"),
        ("/v1/responses", "a-miracle", 10, 417, "tailwire_expectation"),
        ("/v1/echo", "100-continue, a-miracle", 10, 417, "tailwire_expectation"),
    ] {
        let mut caller = Caller::saying(world.proxy.addr, expecting(path, expectation, length)).await;
        let answer = caller.hear().await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path} {expectation}");
        assert!(answer.interim.is_empty(), "{path} {expectation}");
        assert_eq!(caller.rest().await, b"", "its body could still come, so the connection ends");
    }
    assert_eq!(asked(&world), before);

    world.slow();
    let mut first = Caller::saying(world.proxy.addr, post("/v1/responses", "")).await;
    world.in_flight(1).await;
    let mut second =
        Caller::saying(world.proxy.addr, expecting("/v1/responses", "100-continue", BODY.len())).await;
    let answer = second.hear().await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "tailwire_overloaded"));
    assert!(answer.interim.is_empty());
    world.fast();
    assert_answered("/v1/responses", &first.hear().await);
}

/// A refusal reaches a client that is still sending: it is not lost to a reset.
#[tokio::test]
async fn a_refusal_outlives_the_upload_it_refuses() {
    let world = World::start(|settings| settings.limits.body = 8 << 10, |_| ()).await;
    let length = 12 << 20;
    let said = expecting("/v1/responses", "100-continue", length).replace("expect: 100-continue\r\n", "");
    let mut caller = Caller::saying(world.proxy.addr, said).await;
    let piece = vec![b'x'; 64 << 10];
    for _ in 0..length / piece.len() {
        soon(tokio::io::AsyncWriteExt::write_all(&mut caller.stream, &piece)).await.expect("it is reset");
    }
    let answer = caller.hear().await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "tailwire_body_too_large"));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let world = World::plain().await;
    let turn = post("/v1/responses", "");
    let said = [turn.clone(), post("/v1/echo", ""), stream(), get("/v1/models"), turn].concat();
    let mut caller = Caller::saying(world.proxy.addr, said).await;
    assert_answered("/v1/responses", &caller.hear().await);
    assert_answered("/v1/echo", &caller.hear().await);
    let streamed = caller.hear().await;
    let text = String::from_utf8(streamed.body).unwrap();
    assert!(
        text.starts_with("event: response.created") && text.contains("event: response.completed"),
        "{text}"
    );
    assert_eq!(caller.hear().await.json()["object"], "list");
    assert_answered("/v1/responses", &caller.hear().await);

    let said: String = (0..100).map(|n| get(&format!("/v1/models/m-{n}"))).collect();
    let mut caller = Caller::saying(world.proxy.addr, said).await;
    for n in 0..100 {
        assert_eq!(caller.hear().await.json()["id"], format!("m-{n}"));
    }
}

#[tokio::test]
async fn a_pipelining_client_that_leaves_is_noticed() {
    for half_close in [Duration::ZERO, Duration::from_millis(50)] {
        let world = World::start(|settings| settings.timeouts.half_close = half_close, |_| ()).await;
        world.slow();
        let body = BODY.replace("hi", "hi [sim text=400]");
        let turn =
            format!("POST /v1/responses HTTP/1.1\r\n{WHO}content-length: {}\r\n\r\n{body}", body.len());
        let caller =
            Caller::saying(world.proxy.addr, turn + &post("/v1/responses", "") + &get("/v1/models")).await;
        world.in_flight(1).await;
        drop(caller);
        assert_cancelled(&world).await;
        assert_eq!(asked(&world).1, 1, "what was behind it is nobody's");
    }
}

#[tokio::test]
async fn a_connection_is_kept_as_long_as_it_is_meant_to_be() {
    let world = World::start(|settings| settings.timeouts.header = Duration::from_millis(300), |_| ()).await;
    for path in WAYS {
        for (version, line, kept) in [
            ("1.1", "", true),
            ("1.1", "connection: keep-alive\r\n", true),
            ("1.1", "connection: close\r\n", false),
            ("1.1", "connection: keep-alive\r\nconnection: Close\r\n", false),
            ("1.0", "", false),
            ("1.0", "connection: keep-alive\r\n", true),
        ] {
            let said = post(path, line).replace("HTTP/1.1", &format!("HTTP/{version}"));
            let mut caller = Caller::saying(world.proxy.addr, &said).await;
            let answer = caller.hear().await;
            assert_answered(path, &answer);
            assert_eq!(answer.header("connection") == Some("close"), !kept && version == "1.1", "{answer:?}");
            if kept {
                caller.say(&said).await;
                assert_answered(path, &caller.hear().await);
            }
            // Closed at once, or when it was idle for too long.
            assert_eq!(caller.rest().await, b"", "{path} {version} {line:?}");
        }
    }
}

#[tokio::test]
async fn idle_connections_are_bounded_and_give_way() {
    let world = World::start(
        |settings| {
            settings.limits.connections = 1;
            settings.timeouts.header = Duration::from_millis(300);
        },
        |_| (),
    )
    .await;
    let mut idle = Caller::saying(world.proxy.addr, get("/v1/models")).await;
    assert_eq!(idle.hear().await.status, 200);
    // It is not answered before the idle one has gone.
    let mut next = Caller::saying(world.proxy.addr, get("/v1/models")).await;
    assert_eq!(idle.rest().await, b"");
    assert_eq!(next.hear().await.status, 200);
}

#[tokio::test]
async fn a_half_closed_client_gets_its_answer_where_that_is_wished() {
    let world = World::start(|settings| settings.timeouts.half_close = Duration::from_secs(20), |_| ()).await;
    for (said, expected) in [
        (post("/v1/responses", ""), "\"completed\""),
        (post("/v1/responses", "connection: close\r\n"), "\"completed\""),
        (stream(), "event: response.completed"),
        (post("/v1/responses", "x-tailwire-mode: http\r\n"), "\"completed\""),
        (post("/v1/echo", ""), "\"sha256\""),
        (get("/v1/models"), "gpt-sim"),
        (post("/v1/responses", "") + &get("/v1/models"), "gpt-sim-mini"),
    ] {
        for version in ["HTTP/1.1", "HTTP/1.0"] {
            let mut caller = Caller::saying(world.proxy.addr, said.replace("HTTP/1.1", version)).await;
            caller.fall_silent().await;
            let answer = String::from_utf8(caller.rest().await).unwrap();
            assert!(answer.starts_with("HTTP/1."), "{said}: {answer:?}");
            // Of several requests in HTTP/1.0 only the first is one.
            if version == "HTTP/1.1"
                || !said.contains("GET /v1/models HTTP/1.1\r\n")
                || said.starts_with("GET")
            {
                assert!(answer.contains(" 200 OK\r\n") && answer.contains(expected), "{said}: {answer}");
            }
        }
    }
    let large = format!("GET /v1/files/file-1/content HTTP/1.1\r\n{WHO}\r\n");
    let mut caller = Caller::saying(world.proxy.addr, large).await;
    caller.fall_silent().await;
    assert!(caller.rest().await.len() > 100_000);
}

#[tokio::test]
async fn a_half_closed_client_is_waited_for_and_not_for_ever() {
    for (said, expected) in [(post("/v1/responses", ""), "\"completed\""), (stream(), "response.completed")] {
        let patient =
            World::start(|settings| settings.timeouts.half_close = Duration::from_secs(60), |_| ()).await;
        patient.slow();
        let mut caller = Caller::saying(patient.proxy.addr, &said).await;
        caller.fall_silent().await;
        patient.in_flight(1).await;
        patient.fast();
        let answer = String::from_utf8(caller.rest().await).unwrap();
        assert!(answer.contains(expected), "{answer}");

        let hasty = World::start(|settings| settings.timeouts.half_close = Duration::ZERO, |_| ()).await;
        hasty.slow();
        let mut caller = Caller::saying(hasty.proxy.addr, &said).await;
        hasty.in_flight(1).await;
        caller.fall_silent().await;
        assert_cancelled(&hasty).await;
        assert!(!String::from_utf8(caller.rest().await).unwrap().contains(expected));
    }
}
