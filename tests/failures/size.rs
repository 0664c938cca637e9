//! Too big for the socket: tried once, learned, told to nobody as somebody else's fault; and what falls back goes as it came.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::{Method, Request};
use serde_json::{Value, json};
use tailwire::config::Settings;
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;

use crate::peer::{Stage, ask, body, message, user};

#[tokio::test]
async fn f53_a_frame_refused_for_its_size_is_sent_once_and_its_size_is_remembered() {
    let mut stage = Stage::plain().await;
    let large = body(&[user(&"x".repeat(50_000))]);
    let turn = ask(&stage.client(), &large);
    let mut socket = stage.socket().await;
    socket.frame().await;
    socket.close(1009).await;
    let post = stage.post().await;
    assert_eq!(post.body, large.to_string());
    post.complete("resp_0", &[]);
    assert_eq!(turn.await.unwrap().told().plan(), ("http", "too-large"));
    let turn = ask(&stage.client(), &large);
    stage.post().await.complete("resp_1", &[]);
    assert_eq!(turn.await.unwrap().told().plan(), ("http", "too-large"));
    // Another key's as well: it is the provider's limit. Smaller ones go over sockets as ever.
    let turn = ask(&stage.client().with("authorization", "Bearer sk-planted-b"), &large);
    stage.post().await.complete("resp_2", &[]);
    turn.await.unwrap();
    stage.assert_quiet();
    let turn = ask(&stage.client(), &body(&[user("small")]));
    let mut socket = stage.socket().await;
    let frame = socket.frame().await;
    socket.answer(&frame, "resp_3", &[]).await;
    assert_eq!(turn.await.unwrap().told().plan, "full");
}

#[tokio::test]
async fn f54_the_whole_frame_is_weighed_also_when_a_delta_must_be_repeated_in_full() {
    // Measured at a provider: 16 777 000 bytes pass, 16 777 300 do not.
    assert!(Settings::default().limits.frame + 256 < 16_777_000);
    let mut stage = Stage::start(|settings| settings.limits.frame = 20 << 10).await;
    let mut items = vec![user("one")];
    let mut socket = None;
    for n in 0..4 {
        let turn = ask(&stage.client(), &body(&items));
        if socket.is_none() {
            socket = Some(stage.socket().await);
        }
        let socket = socket.as_mut().unwrap();
        let frame = socket.frame().await;
        assert!(frame.to_string().len() < 20 << 10);
        let said = message(&format!("msg_{n}"), "said");
        socket.answer(&frame, &format!("resp_{n}"), std::slice::from_ref(&said)).await;
        assert_eq!(turn.await.unwrap().told().plan, if n == 0 { "full" } else { "delta" });
        items.extend([said, user(&"x".repeat(9 << 10))]);
    }
    // 36 KiB by now, of which 9 are new. The anchor is lost, and in full it does not fit.
    let asked = body(&items);
    let turn = ask(&stage.client(), &asked);
    let mut socket = socket.unwrap();
    let delta = socket.frame().await;
    let gone = json!({"type": "error", "status": 400, "error": {"code": "previous_response_not_found", "message": "gone"}});
    socket.say(&delta, gone).await;
    let post = stage.post().await;
    assert_eq!(post.body, asked.to_string());
    post.complete("resp_http", &[]);
    assert_eq!(turn.await.unwrap().told().plan(), ("http", "too-large"));
    stage.assert_quiet();
}

#[tokio::test]
async fn f55_a_refusal_for_size_reaches_a_clients_own_socket_as_it_is() {
    let mut stage = Stage::plain().await;
    let addr = stage.proxy.addr;
    let request = Request::get(format!("ws://{addr}/v1/responses"))
        .header("host", addr.to_string())
        .header("authorization", "Bearer sk-planted-a")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", generate_key())
        .body(())
        .unwrap();
    let (mut own, _) = client_async(request, TcpStream::connect(addr).await.unwrap()).await.unwrap();
    let mut socket = stage.socket().await;
    own.send(Message::text(r#"{"type":"response.create","model":"m","input":"large"}"#)).await.unwrap();
    assert_eq!(socket.frame().await["input"], "large");
    let closing = tokio::spawn(socket.close(1009));
    let seen = crate::peer::within("a close", own.next()).await.unwrap().unwrap();
    let Message::Close(Some(close)) = seen else { panic!("{seen:?}") };
    assert_eq!(u16::from(close.code), 1009);
    drop(own);
    closing.await.unwrap();
    // Once, under one key: nobody else's credential was tried.
    assert_eq!(stage.asked(), 1);
    stage.assert_quiet();
}

#[tokio::test]
async fn f56_a_bad_line_does_not_switch_sockets_off_and_each_fault_keeps_its_name() {
    let mut stage = Stage::plain().await;
    let mut streamed = body(&[user("one")]);
    streamed["stream"] = true.into();
    for _ in 0..4 {
        let answer = tokio::spawn({
            let (client, text) = (stage.client(), streamed.to_string());
            async move { client.open(Method::POST, "/v1/responses", Bytes::from(text)).await }
        });
        let mut socket = stage.socket().await;
        let frame = socket.frame().await;
        socket.begin(&frame, "resp").await;
        let answer = answer.await.unwrap();
        assert!(answer.headers()["x-tailwire"].to_str().unwrap().starts_with("plan=full"));
        drop(socket);
        let (text, broken) = crate::streaming::read(answer).await;
        assert!(broken && text.contains(r#""code":"tailwire_socket_lost""#), "{text}");
        crate::peer::until("it is gone", || stage.proxy.sockets() == 0).await;
    }
    stage.assert_quiet();
    assert_eq!(stage.asked(), 4, "each turn on a new socket, none over HTTP");
}

#[tokio::test]
async fn f57_what_went_over_http_for_its_size_is_continued_by_no_connections_id() {
    let mut stage = Stage::plain().await;
    let turn = ask(&stage.client(), &body(&[user("one")]));
    let mut socket = stage.socket().await;
    let frame = socket.frame().await;
    socket.answer(&frame, "resp_0", &[message("msg_0", "said")]).await;
    turn.await.unwrap();
    let large = user(&"x".repeat(50_000));
    let mut items = vec![user("one"), message("msg_0", "said"), large];
    let turn = ask(&stage.client(), &body(&items));
    socket.frame().await;
    socket.close(1009).await;
    stage.post().await.complete("resp_http", &[message("msg_http", "read")]);
    turn.await.unwrap();
    // The client shortens what it sent, and goes on: neither the socket's id nor HTTP's is known where it goes now.
    items[2] = user("the gist of it");
    items.extend([message("msg_http", "read"), user("and?")]);
    let turn = ask(&stage.client(), &body(&items));
    let mut socket = stage.socket().await;
    let frame = socket.frame().await;
    assert_eq!((&frame["previous_response_id"], &frame["input"]), (&Value::Null, &json!(items)));
    let said = message("msg_1", "well");
    socket.answer(&frame, "resp_1", std::slice::from_ref(&said)).await;
    turn.await.unwrap();
    items.extend([said, user("go on")]);
    let turn = ask(&stage.client(), &body(&items));
    let frame = socket.frame().await;
    assert_eq!(frame["previous_response_id"], "resp_1");
    socket.answer(&frame, "resp_2", &[]).await;
    turn.await.unwrap();
}

#[tokio::test]
async fn f58_f79_f80_what_only_sockets_know_never_enters_a_body_of_rest_and_no_warm_up_is_ours() {
    let mut stage = Stage::plain().await;
    // A fallback is the client's own bytes.
    let asked = body(&[user("one")]);
    let turn = ask(&stage.client(), &asked);
    let mut socket = stage.socket().await;
    let first = socket.frame().await;
    assert!(first.get("generate").is_none(), "a turn is the first thing said on a socket");
    socket.close(1009).await;
    let post = stage.post().await;
    assert_eq!(post.body, asked.to_string());
    post.complete("resp_0", &[]);
    turn.await.unwrap();
    // A client's own warm-up holds no place on a socket: it goes where it was sent, and its silence is its own.
    for field in ["generate", "stream_id", "type"] {
        let mut odd = body(&[user("two")]);
        odd[field] = if field == "generate" { json!(false) } else { json!("response.create") };
        let turn = ask(&stage.client(), &odd);
        let post = stage.post().await;
        assert_eq!(post.body, odd.to_string());
        post.answer(400, "{}");
        assert_eq!(turn.await.unwrap().told().why, format!("field:{field}"));
    }
    stage.assert_quiet();
    // Nothing new is nothing to continue: such a request goes in full.
    let turn = ask(&stage.client(), &body(&[user("3")]));
    let mut socket = stage.socket().await;
    let frame = socket.frame().await;
    let said = message("msg_0", "said");
    socket.answer(&frame, "resp_1", std::slice::from_ref(&said)).await;
    turn.await.unwrap();
    for items in [vec![user("3")], vec![user("3"), said]] {
        let turn = ask(&stage.client(), &body(&items));
        let frame = socket.frame().await;
        assert_eq!((&frame["previous_response_id"], &frame["input"]), (&Value::Null, &json!(items)));
        socket.answer(&frame, "resp_2", &[]).await;
        assert_eq!(turn.await.unwrap().told().plan, "full");
    }
}

#[tokio::test]
async fn f56_a_small_frame_refused_for_its_size_sends_nobody_else_over_http() {
    let mut stage = Stage::plain().await;
    for key in ["Bearer sk-planted-a", "Bearer sk-planted-a", "Bearer sk-planted-b"] {
        let client = stage.client().with("authorization", key);
        let turn = ask(&client, &body(&[user("small")]));
        let mut socket = stage.socket().await;
        socket.frame().await;
        socket.close(1009).await;
        stage.post().await.complete("resp", &[]);
        assert_eq!(turn.await.unwrap().told().plan(), ("http", "too-large"));
    }
}
