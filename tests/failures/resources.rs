//! What must be bounded, what must not wait for each other, how a drain ends, and what must not leak.

use bytes::Bytes;
use hyper::Method;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tailwire::config::{Compression, ProfileName, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use crate::peer::{Stage, Upgrades, ask, body, message, reasoning, until, user, within};

#[tokio::test]
async fn f75_what_waits_for_a_slow_reader_is_bounded_in_bytes() {
    const TURN: usize = 256 << 10;
    let mut stage = Stage::start(|settings| {
        settings.limits.lag = 16 << 10;
        settings.limits.turn_buffer = TURN;
        settings.limits.all_buffers = 1 << 20;
        settings.compression = Compression::Off;
    })
    .await;
    // A client that reads the head of its answer, and stops there.
    let small = TcpSocket::new_v4().unwrap();
    small.set_recv_buffer_size(8 << 10).unwrap();
    let stream = small.connect(stage.proxy.addr).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut asked = body(&[user("at length")]);
    asked["stream"] = true.into();
    let request = hyper::Request::post("/v1/responses").header("host", "tailwire.test");
    let request = request.body(http_body_util::Full::new(Bytes::from(asked.to_string()))).unwrap();
    let opening = tokio::spawn(async move { sender.send_request(request).await });
    let mut socket = stage.socket().await;
    let frame = socket.frame().await;
    socket.begin(&frame, "resp").await;
    let answer = within("a head", opening).await.unwrap().unwrap();
    // As much as ever is taken: many times the bound, as far as the proxy reads.
    let piece = "x".repeat(16 << 10);
    let sent = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
    let sending = tokio::spawn({
        let sent = sent.clone();
        async move {
            for _ in 0..4096 {
                let event = json!({"type": "response.output_text.delta", "item_id": "msg", "output_index": 0,
                    "content_index": 0, "delta": piece});
                socket.say(&frame, event).await;
                sent.fetch_add(piece.len(), std::sync::atomic::Ordering::SeqCst);
            }
        }
    });
    let sent = || sent.load(std::sync::atomic::Ordering::SeqCst);
    let mut most = 0;
    let mut watch = |buffered: usize| most = most.max(buffered);
    until("a backlog at its bound", || {
        watch(stage.proxy.buffered());
        stage.proxy.buffered() >= TURN
    })
    .await;
    // It stands still: while others are served, nothing more of it is taken.
    for round in 0.. {
        let before = sent();
        // A socket has 32 names, and each of these turns takes one: a round has a socket of its own.
        let others = stage.client().with("authorization", &format!("Bearer other-{round}"));
        let mut socket = None;
        for n in 0..20 {
            let turn = ask(&others, &body(&[user("beside")]));
            if socket.is_none() {
                socket = Some(stage.socket().await);
            }
            let socket = socket.as_mut().unwrap();
            let frame = socket.frame().await;
            socket.answer(&frame, &format!("resp_{n}"), &[]).await;
            assert_eq!(turn.await.unwrap().status, 200);
            watch(stage.proxy.buffered());
        }
        if sent() == before {
            break;
        }
    }
    assert!(!sending.is_finished());
    assert!(most <= TURN + (20 << 10), "{most} bytes waited");
    drop(answer);
    connection.abort();
    until("nothing is kept", || stage.proxy.buffered() == 0).await;
    sending.abort();
}

#[tokio::test]
async fn f78_a_long_turn_holds_up_nobody_who_shares_its_session() {
    for profile in [ProfileName::Openai, ProfileName::Azure] {
        let mut stage = Stage::start(|settings| settings.profile = profile).await;
        let client = stage.client().with("session-id", "one").with("x-session-affinity", "one");
        let of = |words: &str| {
            let mut asked = body(&[user(words)]);
            asked["prompt_cache_key"] = "one".into();
            asked
        };
        let long = ask(&client, &of("foreground"));
        let mut first = stage.socket().await;
        let frame = first.frame().await;
        first.begin(&frame, "resp_long").await;
        for n in 0..5 {
            let turn = ask(&client, &of(&format!("background {n}")));
            let mut other = match (profile, n) {
                (ProfileName::Azure, 0) => Some(stage.socket().await),
                _ => None,
            };
            let socket = other.as_mut().unwrap_or(&mut first);
            if profile == ProfileName::Azure && n > 0 {
                // The background's own socket serves on; it is held here no longer than this test looks.
                turn.abort();
                break;
            }
            let frame = socket.frame().await;
            let id = format!("resp_{n}");
            socket.answer(&frame, &id, &[]).await;
            assert_eq!(within("a background turn", turn).await.unwrap().response()["id"], *id);
        }
        assert!(!long.is_finished());
        first.finish(&frame, "resp_long", "completed", &[]).await;
        assert_eq!(long.await.unwrap().response()["id"], "resp_long");
    }
}

#[tokio::test]
async fn f81_a_drain_finishes_what_it_has_and_takes_nothing_new() {
    let mut stage = Stage::plain().await;
    // Three that came before: one in mid-answer, one whose body is still arriving, one idle on a kept connection.
    let running = ask(&stage.client(), &body(&[user("running")]));
    let mut socket = stage.socket().await;
    let frame = socket.frame().await;
    socket.begin(&frame, "resp_running").await;
    let text = body(&[user("arriving")]).to_string();
    let (early, late) = text.split_at(text.len() / 2);
    let mut arriving = TcpStream::connect(stage.proxy.addr).await.unwrap();
    let head = format!(
        "POST /v1/responses HTTP/1.1\r\nhost: t\r\nauthorization: Bearer sk-planted-a\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        text.len()
    );
    arriving.write_all(format!("{head}{early}").as_bytes()).await.unwrap();
    let mut idle = TcpStream::connect(stage.proxy.addr).await.unwrap();
    idle.write_all(b"GET /v1/models HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
    let post = stage.post().await;
    assert_eq!(post.path, "/v1/models");
    post.answer(200, "{}");
    let mut seen = [0; 1024];
    assert!(within("its answer", idle.read(&mut seen)).await.unwrap() > 0);
    let addr = stage.proxy.addr;
    let stopping = stage.stop();
    within("the listener is gone", async {
        while TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Nothing new on what was idle: its connection is closed.
    let _ = idle.write_all(b"GET /v1/models HTTP/1.1\r\nhost: t\r\n\r\n").await;
    let mut rest = Vec::new();
    let _ = within("its end", idle.read_to_end(&mut rest)).await;
    assert!(rest.is_empty(), "a new request was answered: {}", String::from_utf8_lossy(&rest));
    // What had come before is served to its end.
    arriving.write_all(late.as_bytes()).await.unwrap();
    let next = socket.frame().await;
    assert_eq!(next["input"][0]["content"], "arriving");
    socket.answer(&next, "resp_arriving", &[]).await;
    let mut answer = String::new();
    within("its answer", arriving.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("resp_arriving"), "{answer}");
    assert!(!stopping.is_finished());
    socket.finish(&frame, "resp_running", "completed", &[]).await;
    assert_eq!(running.await.unwrap().response()["id"], "resp_running");
    within("the drain's end", stopping).await.unwrap();
    assert_eq!(socket.ended().await, Some(1000));
}

#[tokio::test]
async fn f82_nothing_is_cut_in_the_middle_of_a_character() {
    // Errors of a provider that speaks more than ASCII, at every offset of a character to any round number.
    for shift in 0..4 {
        let words = format!("{}{}", "x".repeat(shift), "é🦀".repeat(40_000));
        let mut stage = Stage::plain().await;
        let turn = ask(&stage.client(), &body(&[user(&words)]));
        let mut socket = stage.socket().await;
        let frame = socket.frame().await;
        assert_eq!(frame["input"][0]["content"], *words);
        let error = json!({"type": "server_error", "code": "server_error", "message": words, "param": null});
        socket.say(&frame, json!({"type": "error", "status": 500, "error": error})).await;
        let reply = turn.await.unwrap();
        assert_eq!((reply.status.as_u16(), &reply.json()["error"]), (500, &error));
        // A farewell whose reason is as long as a farewell may be, and a refusal longer than we keep.
        let reason = format!("{}{}", "x".repeat(shift), "é".repeat(60));
        let turn = ask(&stage.client(), &body(&[user("next")]));
        socket.frame().await;
        let close =
            tokio_tungstenite::tungstenite::protocol::CloseFrame { code: 1011.into(), reason: reason.into() };
        socket.send(Message::Close(Some(close))).await;
        let mut socket = stage.socket().await;
        let frame = socket.frame().await;
        socket.answer(&frame, "resp", &[]).await;
        assert_eq!(turn.await.unwrap().status, 200);
        stage.upgrades.send_replace(Upgrades::RefuseAtLength(403, shift));
        let turn = ask(&stage.client().with("authorization", "Bearer other"), &body(&[user("next")]));
        stage.post().await.answer(403, "{}");
        assert_eq!(turn.await.unwrap().status, 403);
    }
}

#[tokio::test]
async fn f83_no_lane_no_envelope_and_no_anchor_of_ours_is_shown() {
    let mut stage = Stage::plain().await;
    let mut items = vec![user("one")];
    let mut socket = None;
    for (n, stream) in [true, false, true, false].into_iter().enumerate() {
        let mut asked = body(&items);
        asked["stream"] = stream.into();
        let turn = ask(&stage.client(), &asked);
        if socket.is_none() {
            socket = Some(stage.socket().await);
        }
        let socket = socket.as_mut().unwrap();
        let frame = socket.frame().await;
        assert_eq!(frame["previous_response_id"].is_string(), n > 0);
        let said = [reasoning(&format!("rs_{n}"), "blob"), message(&format!("msg_{n}"), "said")];
        // As the provider writes it: with the lane's name, and with the anchor that was ours.
        let mut response = crate::peer::response(&format!("resp_{n}"), "in_progress", &[]);
        response["previous_response_id"] = frame["previous_response_id"].clone();
        socket.say(&frame, json!({"type": "codex.rate_limits", "plan_type": "pro"})).await;
        socket
            .say(&frame, json!({"type": "response.created", "response": response, "sequence_number": 7}))
            .await;
        socket
            .say(&frame, json!({"type": "response.metadata", "headers": {"x-codex-turn-state": "secret"}}))
            .await;
        socket.done(&frame, &said).await;
        response["status"] = "completed".into();
        response["output"] = json!(said);
        socket.say(&frame, json!({"type": "response.completed", "response": response})).await;
        socket.say(&frame, json!({"type": "responsesapi.websocket_timing", "timing_metrics": {}})).await;
        let reply = turn.await.unwrap();
        assert_eq!(reply.response()["previous_response_id"], Value::Null);
        let shown = format!("{:?} {}", reply.headers, String::from_utf8_lossy(&reply.body));
        let lane = frame["stream_id"].as_str().unwrap();
        for leak in
            ["stream_id", &format!("\"{lane}\""), "codex", "responsesapi", "turn-state", "response.metadata"]
        {
            assert!(!shown.contains(leak), "{leak}: {shown}");
        }
        if n > 0 {
            assert!(!shown.contains(&format!("resp_{}", n - 1)), "an anchor of ours: {shown}");
        }
        items.extend(said);
        items.push(user("more"));
    }
    // An error, in the words of REST.
    let turn = ask(&stage.client(), &body(&[user("refused")]));
    let mut socket = socket.unwrap();
    let frame = socket.frame().await;
    let error = json!({"type": "invalid_request_error", "code": "bad", "message": "No.", "param": "input"});
    socket.say(&frame, json!({"type": "error", "status": 400, "error": error, "headers": {"x-internal": "1", "set-cookie": "s"}})).await;
    let reply = turn.await.unwrap();
    assert_eq!(reply.json(), json!({"error": error}));
    assert!(!reply.headers.contains_key("x-internal") && !reply.headers.contains_key("set-cookie"));
    // How messages are compressed is a setting of ours with its reason, no default of a library's.
    assert_eq!(Settings::default().compression, Compression::Auto);
    let off = Stage::start(|settings| settings.compression = Compression::Off).await;
    assert!(offered(off).await.is_none());
    assert!(offered(Stage::plain().await).await.is_some());
}

/// The compression a socket was asked for.
async fn offered(mut stage: Stage) -> Option<String> {
    let client = stage.client();
    let text = body(&[user("one")]).to_string();
    let turn = tokio::spawn(async move { client.send(Method::POST, "/v1/responses", text).await });
    let mut socket = stage.socket().await;
    let offer =
        socket.headers.get("sec-websocket-extensions").map(|value| value.to_str().unwrap().to_owned());
    let frame = socket.frame().await;
    socket.answer(&frame, "resp", &[]).await;
    within("an answer", turn).await.unwrap();
    offer
}
