//! Streams and repeats: whose event it is, what counts as an end, what may be done twice, and what a client sees of it.

use async_openai::types::responses::ResponseStreamEvent;
use bytes::Bytes;
use futures_util::future::Either;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tailwire::config::ProfileName;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use crate::http::{Client, Reply};
use crate::peer::{Socket, Stage, ask, body, call, message, until, user, within};

/// The text of an answer, and whether it broke off.
pub(crate) async fn read(answer: Response<Incoming>) -> (String, bool) {
    let mut incoming = answer.into_body();
    let mut text = Vec::new();
    let mut broken = false;
    while let Some(frame) = within("the next piece", incoming.frame()).await {
        match frame {
            Ok(frame) => text.extend(frame.into_data().unwrap_or_default()),
            Err(_) => broken = true,
        }
    }
    (String::from_utf8(text).unwrap(), broken)
}

/// The events of a stream's text.
fn events(text: &str) -> Vec<Value> {
    let data = |block: &str| serde_json::from_str(block.split_once("data: ").unwrap().1).unwrap();
    text.split_terminator("\n\n").map(data).collect()
}

/// A streamed turn, up to its head.
fn open(stage: &Stage, items: &[Value]) -> JoinHandle<Response<Incoming>> {
    let (client, mut asked) = (stage.client(), body(items));
    asked["stream"] = true.into();
    tokio::spawn(
        async move { client.open(Method::POST, "/v1/responses", Bytes::from(asked.to_string())).await },
    )
}

fn delta(text: &str) -> Value {
    json!({"type": "response.output_text.delta", "item_id": "msg", "output_index": 0, "content_index": 0, "delta": text})
}

/// A streamed turn in mid-answer.
async fn under_way(stage: &Stage, socket: &mut Socket, words: &str) -> (Value, Response<Incoming>) {
    let answer = open(stage, &[user(words)]);
    let frame = socket.frame().await;
    socket.begin(&frame, &format!("resp_{words}")).await;
    socket.say(&frame, delta(words)).await;
    (frame, answer.await.unwrap())
}

#[tokio::test]
async fn f60_f62_an_abandoned_answer_flows_on_to_nobody_and_is_counted() {
    let mut stage = Stage::plain().await;
    let opening = open(&stage, &[user("stays")]);
    let mut socket = stage.socket().await;
    let stays = socket.frame().await;
    socket.begin(&stays, "resp_stays").await;
    let stays_answer = opening.await.unwrap();
    let (left, answer) = under_way(&stage, &mut socket, "left").await;
    drop(answer);
    // Another left before it had heard anything.
    let early = ask(&stage.client(), &body(&[user("early")]));
    let unheard = socket.frame().await;
    early.abort();
    until("both are counted", || stage.proxy.metrics().turns_abandoned.value() == 2).await;
    // What was said to those who left goes on while others ask and are answered, on lanes of their own and on theirs.
    let next = ask(&stage.client(), &body(&[user("next")]));
    let frame = socket.frame().await;
    for frame in [&left, &unheard] {
        socket.say(frame, delta("to nobody")).await;
    }
    socket.begin(&frame, "resp_next").await;
    for (frame, id) in [(&left, "resp_left"), (&unheard, "resp_early")] {
        socket.done(frame, &[message("msg", "to nobody")]).await;
        socket.finish(frame, id, "completed", &[message("msg", "to nobody")]).await;
    }
    let said = [message("msg_next", "to the next")];
    socket.done(&frame, &said).await;
    socket.finish(&frame, "resp_next", "completed", &said).await;
    let response = next.await.unwrap().response();
    assert_eq!((&response["id"], &response["output"]), (&json!("resp_next"), &json!(said)));
    for n in 0..3 {
        let turn = ask(&stage.client(), &body(&[user(&format!("later {n}"))]));
        let frame = socket.frame().await;
        let id = format!("resp_later_{n}");
        socket.answer(&frame, &id, &[]).await;
        assert_eq!(turn.await.unwrap().response()["id"], *id, "not shifted by one");
    }
    // An abandoned answer is nobody's history.
    let turn = ask(&stage.client(), &body(&[user("left"), message("msg", "to nobody"), user("so?")]));
    let frame = socket.frame().await;
    assert_eq!(frame["previous_response_id"], Value::Null);
    socket.answer(&frame, "resp_so", &[]).await;
    turn.await.unwrap();
    socket.finish(&stays, "resp_stays", "completed", &[]).await;
    let (text, broken) = read(stays_answer).await;
    assert!(!broken && !text.contains("nobody") && text.contains("response.completed"), "{text}");
    stage.assert_quiet();
}

#[tokio::test]
async fn f62_what_nobody_listens_to_is_read_for_a_while_only() {
    let mut stage =
        Stage::start(|settings| settings.timeouts.abandon_grace = std::time::Duration::from_millis(50)).await;
    let opening = open(&stage, &[user("stays")]);
    let mut socket = stage.socket().await;
    let stays = socket.frame().await;
    socket.begin(&stays, "resp_stays").await;
    let stays_answer = opening.await.unwrap();
    let (left, answer) = under_way(&stage, &mut socket, "left").await;
    drop(answer);
    until("it is counted", || stage.proxy.metrics().turns_abandoned.value() == 1).await;
    // The one that stays ends; the one that left would go on for ever.
    socket.say(&left, delta("on")).await;
    let newcomer = within("a newcomer's own socket", async {
        loop {
            let turn = ask(&stage.client(), &body(&[user("new")]));
            tokio::select! {
                frame = socket.frame() => socket.answer(&frame, "resp_new", &[]).await,
                other = stage.socket() => break (turn, other),
            }
            turn.await.unwrap();
        }
    })
    .await;
    socket.finish(&stays, "resp_stays", "completed", &[]).await;
    assert!(!read(stays_answer).await.1);
    assert_eq!(socket.ended().await, Some(1000), "it is not read any more");
    let (turn, mut other) = newcomer;
    let frame = other.frame().await;
    other.answer(&frame, "resp_new", &[]).await;
    turn.await.unwrap();
}

#[tokio::test]
async fn f63_f72_every_ending_is_an_end_and_keeps_its_reason() {
    for profile in [ProfileName::Openai, ProfileName::Azure] {
        for status in ["failed", "incomplete", "cancelled"] {
            for stream in [false, true] {
                let about = format!("{status} {stream} {profile:?}");
                let mut stage = Stage::start(|settings| settings.profile = profile).await;
                // On one kept-alive connection: a failed answer does not cost the client its connection.
                let stream_to = TcpStream::connect(stage.proxy.addr).await.unwrap();
                let (mut sender, connection) = http1::handshake(TokioIo::new(stream_to)).await.unwrap();
                tokio::spawn(connection);
                let mut send = |items: &[Value]| {
                    let mut asked = body(items);
                    asked["stream"] = stream.into();
                    let request = Request::post("/v1/responses")
                        .header("host", "tailwire.test")
                        .header("content-type", "application/json")
                        .body(Full::new(Bytes::from(asked.to_string())))
                        .unwrap();
                    sender.send_request(request)
                };
                let turn = tokio::spawn(send(&[user("one")]));
                let mut socket = stage.socket().await;
                let frame = socket.frame().await;
                socket.begin(&frame, "resp_0").await;
                let said = [message("msg_0", "so far")];
                socket.done(&frame, &said).await;
                let mut response = crate::peer::response("resp_0", status, &said);
                response["error"] = json!({"code": "server_error", "message": "The reason."});
                response["incomplete_details"] = json!({"reason": "max_output_tokens"});
                let kind = format!("response.{status}");
                socket.say(&frame, json!({"type": kind, "response": response})).await;
                let answer = within(&about, turn).await.unwrap().unwrap();
                assert_eq!(answer.status(), 200, "{about}");
                let (text, broken) = read(answer).await;
                assert!(!broken, "{about}");
                let seen = if stream {
                    let last = events(&text).pop().unwrap();
                    assert_eq!(last["type"], *kind, "{about}");
                    last["response"].clone()
                } else {
                    serde_json::from_str(&text).unwrap()
                };
                assert_eq!(seen, response, "{about}");
                // And nothing goes on from it.
                let turn = tokio::spawn(send(&[user("one"), said[0].clone(), user("two")]));
                let frame = socket.frame().await;
                assert_eq!(frame["previous_response_id"], Value::Null, "{about}");
                socket.answer(&frame, "resp_1", &[]).await;
                assert_eq!(turn.await.unwrap().unwrap().status(), 200, "{about}");
            }
        }
    }
}

#[tokio::test]
async fn f64_an_error_in_mid_stream_has_the_number_and_the_shape_that_strict_clients_want() {
    for error in [
        json!({"type": "error", "status": 500, "error": {"type": "server_error", "message": "Oh."}}),
        json!({"type": "error", "code": "server_error", "message": "Oh."}),
        json!({"error": {"message": "Oh.", "code": "server_error"}}),
    ] {
        let mut stage = Stage::plain().await;
        let answer = open(&stage, &[user("one")]);
        let mut socket = stage.socket().await;
        let frame = socket.frame().await;
        socket.begin(&frame, "resp").await;
        socket.say(&frame, error.clone()).await;
        let (text, broken) = read(answer.await.unwrap()).await;
        assert!(!broken);
        let events = events(&text);
        let last = events.last().unwrap();
        assert_eq!(
            (&last["type"], &last["code"], &last["message"]),
            (&json!("error"), &json!("server_error"), &json!("Oh."))
        );
        assert_eq!(last["sequence_number"], events.len() - 1, "{error}");
        let parsed = serde_json::from_value::<ResponseStreamEvent>(last.clone());
        assert!(matches!(parsed, Ok(ResponseStreamEvent::ResponseError(_))), "{parsed:?}");
    }
}

#[tokio::test]
async fn f65_f67_what_was_shown_is_never_begun_again_and_a_broken_stream_says_so() {
    for close in [Some(1000), Some(1011), None] {
        let mut stage = Stage::plain().await;
        let opening = open(&stage, &[user("one")]);
        let mut socket = stage.socket().await;
        let frame = socket.frame().await;
        socket.begin(&frame, "resp_0").await;
        socket.say(&frame, delta("half of it")).await;
        let answer = opening.await.unwrap();
        match close {
            Some(code) => socket.close(code).await,
            None => drop(socket),
        }
        let (text, broken) = read(answer).await;
        assert!(broken, "{close:?}: a cut stream does not look whole");
        let events = events(&text);
        assert!(events.iter().enumerate().all(|(n, event)| event["sequence_number"] == n), "{text}");
        assert_eq!(events.last().unwrap()["code"], "tailwire_socket_lost");
        stage.assert_quiet();
        // Lost before anything was shown, it is run again, and all that is shown is the second run.
        let opening = open(&stage, &[user("two")]);
        let mut socket = stage.socket().await;
        socket.frame().await;
        drop(socket);
        let mut socket = stage.socket().await;
        let frame = socket.frame().await;
        socket.answer(&frame, "resp_2", &[message("msg_2", "all of it")]).await;
        let (text, broken) = read(opening.await.unwrap()).await;
        let events = self::events(&text);
        assert!(
            !broken && events.iter().enumerate().all(|(n, event)| event["sequence_number"] == n),
            "{text}"
        );
        assert!(events.iter().all(|event| event["response"]["id"].as_str().is_none_or(|id| id == "resp_2")));
    }
    // A JSON client never gets half an answer, and never an empty one.
    let mut stage = Stage::plain().await;
    let turn = ask(&stage.client(), &body(&[user("one")]));
    for _ in 0..2 {
        let mut socket = stage.socket().await;
        let frame = socket.frame().await;
        socket.begin(&frame, "resp").await;
        socket.close(1000).await;
    }
    let reply = turn.await.unwrap();
    assert_eq!(
        (reply.status.as_u16(), &reply.json()["error"]["code"]),
        (502, &json!("tailwire_upstream_interrupted"))
    );
    stage.assert_quiet();
}

#[tokio::test]
async fn f66_f73_work_with_effects_is_never_done_twice() {
    // Tools that act at the provider: not after the frame was sent, whatever has been heard since.
    let mut acting = body(&[user("one")]);
    acting["tools"] =
        json!([{"type": "mcp", "server_label": "tickets", "server_url": "https://example.org"}]);
    for heard in [None, Some(json!({"type": "codex.rate_limits", "rate_limits": {"allowed": true}}))] {
        let mut stage = Stage::plain().await;
        let turn = ask(&stage.client(), &acting);
        let mut socket = stage.socket().await;
        let frame = socket.frame().await;
        if let Some(aside) = heard {
            socket.say(&frame, aside).await;
        }
        drop(socket);
        assert_eq!(turn.await.unwrap().status, 502);
        stage.assert_quiet();
    }
    // Tools that act at the client: a call it has seen is never followed by another for the same wish.
    let tool = |n: u32| call(&format!("fc_{n}"), &format!("call_{n}"), r#"{"cmd":"rm -r build"}"#);
    let mut stage = Stage::plain().await;
    let opening = open(&stage, &[user("clean up")]);
    let mut socket = stage.socket().await;
    let frame = socket.frame().await;
    socket.begin(&frame, "resp_0").await;
    socket.done(&frame, &[tool(0)]).await;
    let answer = opening.await.unwrap();
    drop(socket);
    let (text, broken) = read(answer).await;
    assert!(broken && text.contains("call_0") && text.contains("tailwire_socket_lost"), "{text}");
    stage.assert_quiet();
    // A client that has seen nothing of the first run sees the second one's call, and only that.
    let turn = ask(&stage.client(), &body(&[user("clean up")]));
    let mut socket = stage.socket().await;
    let frame = socket.frame().await;
    socket.begin(&frame, "resp_1").await;
    socket.done(&frame, &[tool(1)]).await;
    drop(socket);
    let mut socket = stage.socket().await;
    let frame = socket.frame().await;
    socket.answer(&frame, "resp_2", &[tool(2)]).await;
    let reply = turn.await.unwrap();
    assert_eq!(reply.response()["output"], json!([tool(2)]));
    assert!(!String::from_utf8_lossy(&reply.body).contains("call_1"));
}

#[tokio::test]
async fn f68_an_error_in_place_of_the_first_event_is_a_status() {
    for stream in [false, true] {
        let mut stage = Stage::plain().await;
        let mut asked = body(&[user("one")]);
        asked["stream"] = stream.into();
        let turn = ask(&stage.client(), &asked);
        let mut socket = stage.socket().await;
        let frame = socket.frame().await;
        // What is not about the turn does not commit its status.
        socket.say(&frame, json!({"type": "codex.rate_limits", "rate_limits": {"allowed": false}})).await;
        let error = json!({"type": "server_error", "code": "server_is_overloaded", "message": "Later.", "param": null});
        socket.say(&frame, json!({"type": "error", "error": error, "headers": {"retry-after": "7"}})).await;
        let reply = turn.await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (503, "7"));
        assert_eq!((reply.header("content-type"), &reply.json()["error"]), ("application/json", &error));
    }
}

#[tokio::test]
async fn f70_no_fault_keeps_a_place_occupied() {
    // One turn at a time, on one socket: whoever kept a place would stop everybody.
    let mut stage = Stage::start(|settings| {
        settings.profile = ProfileName::Azure;
        settings.limits.turns = 1;
        settings.limits.sockets_per_credential = 1;
        settings.timeouts.first_event = std::time::Duration::from_millis(1000);
        settings.timeouts.backoff_min = std::time::Duration::from_millis(1);
        settings.timeouts.backoff_max = std::time::Duration::from_millis(1);
    })
    .await;
    for fault in
        ["error", "1009", "lost", "garbage", "silent", "left early", "left late", "refused", "failed"]
    {
        // A key of its own: its sockets are counted anew.
        let client = stage.client().with("authorization", &format!("Bearer {fault}"));
        let refused = fault == "refused";
        if refused {
            stage.upgrades.send_replace(crate::peer::Upgrades::Refuse(503));
        }
        let turn = ask(&client, &body(&[user("one")]));
        if refused {
            stage.post().await.answer(500, "{}");
            turn.await.unwrap();
            stage.upgrades.send_replace(crate::peer::Upgrades::Accept);
        } else {
            let mut socket = stage.socket().await;
            let frame = socket.frame().await;
            match fault {
                "error" => {
                    socket
                        .say(
                            &frame,
                            json!({"type": "error", "error": {"code": "server_error", "message": "m"}}),
                        )
                        .await
                }
                "failed" => socket.finish(&frame, "resp", "failed", &[]).await,
                "1009" => {
                    socket.close(1009).await;
                    stage.post().await.answer(500, "{}");
                }
                "silent" => stage.post().await.answer(500, "{}"),
                "lost" | "garbage" => {
                    if fault == "garbage" {
                        socket.send(Message::text("so sorry")).await;
                    } else {
                        drop(socket);
                    }
                    let mut again = stage.socket().await;
                    let frame = again.frame().await;
                    again.answer(&frame, "resp", &[]).await;
                }
                _ => {
                    if fault == "left late" {
                        socket.begin(&frame, "resp").await;
                    }
                    let before = stage.proxy.metrics().turns_abandoned.value();
                    turn.abort();
                    until(fault, || stage.proxy.metrics().turns_abandoned.value() > before).await;
                }
            }
            let _ = turn.await;
        }
        let reply = within(fault, place(&mut stage, &client)).await;
        assert_eq!(reply.status, 200, "{fault}");
    }
}

/// A turn of this client, as soon as there is a place: it is free when the last answer's last byte is through.
async fn place(stage: &mut Stage, client: &Client) -> Reply {
    loop {
        let turn = ask(client, &body(&[user("after")]));
        let reply = serve(stage, turn).await;
        if reply.status != 503 {
            return reply;
        }
    }
}

/// Answers whatever a turn asks of the provider, over sockets or HTTP.
async fn serve(stage: &mut Stage, mut turn: JoinHandle<Reply>) -> Reply {
    let mut held: Option<Socket> = None;
    loop {
        let frame = async {
            match &mut held {
                Some(socket) => socket.frame().await,
                None => std::future::pending().await,
            }
        };
        let frame = tokio::select! {
            reply = &mut turn => return reply.unwrap(),
            asked = stage.either() => {
                match asked {
                    Either::Left(socket) => held = Some(socket),
                    Either::Right(post) => post.complete("resp_after", &[]),
                }
                continue;
            }
            frame = frame => frame,
        };
        if let Some(socket) = &mut held {
            socket.answer(&frame, "resp_after", &[]).await;
        }
    }
}

#[tokio::test]
async fn f71_a_stuck_socket_is_tidied_up_without_anybody_waiting() {
    let mut stage = Stage::start(|settings| {
        settings.timeouts.ping = std::time::Duration::from_millis(100);
        settings.timeouts.pong = std::time::Duration::from_millis(500);
    })
    .await;
    // It takes a frame and then neither reads nor writes nor closes.
    let stuck_turn = ask(&stage.client().with("authorization", "Bearer stuck"), &body(&[user("one")]));
    let mut stuck = stage.socket().await;
    stuck.frame().await;
    let mut healthy = None;
    let mut turns = 0;
    // Others are served before, while and after it is given up.
    let mut again = within("the stuck turn's next socket", async {
        loop {
            let turn = ask(&stage.client(), &body(&[user("two")]));
            if healthy.is_none() {
                healthy = Some(stage.socket().await);
            }
            let socket: &mut Socket = healthy.as_mut().unwrap();
            let frame = socket.frame().await;
            socket.answer(&frame, &format!("resp_{turns}"), &[]).await;
            assert_eq!(within("a healthy turn", turn).await.unwrap().status, 200);
            turns += 1;
            if let Some(socket) = stage.new_socket() {
                break socket;
            }
        }
    })
    .await;
    let frame = again.frame().await;
    again.answer(&frame, "resp_stuck", &[]).await;
    assert_eq!(stuck_turn.await.unwrap().status, 200);
    assert!(turns > 0);
    drop(stuck);
}
