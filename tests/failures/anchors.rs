//! Stale and foreign anchors: what a `previous_response_id` may name, on which socket, under whose key, and what it costs
//! when the provider does not know it.

use serde_json::{Value, json};

use crate::peer::{Socket, Stage, Upgrades, ask, body, call, message, output, reasoning, until, user};

/// A first turn on a new socket: the body that asked, and the one that goes on from its answer.
async fn begun(stage: &mut Stage, store: bool) -> (Socket, Value) {
    let mut first = body(&[user("one")]);
    first["store"] = store.into();
    let turn = ask(&stage.client(), &first);
    let mut socket = stage.socket().await;
    let frame = socket.frame().await;
    socket.answer(&frame, "resp_0", &[message("msg_0", "said")]).await;
    assert_eq!(turn.await.unwrap().told().plan(), ("full", "first-turn"));
    first["input"] = json!([user("one"), message("msg_0", "said"), user("two")]);
    (socket, first)
}

#[tokio::test]
async fn f22_f23_f28_an_unknown_anchor_costs_one_resend_under_every_name_and_time_after_time() {
    let message = "Previous response with id 'resp_0' not found.";
    let named =
        json!({"type": "invalid_request_error", "code": "previous_response_not_found", "message": message});
    let shapes = [
        json!({"type": "error", "status": 400, "error": named}),
        json!({"type": "error", "status_code": 404, "error": named}),
        json!({"type": "error", "code": "previous_response_not_found", "message": message, "param": null}),
        json!({"type": "error", "status": 400,
            "error": {"type": "invalid_request_error", "message": "Invalid `previous_response_id`."}}),
        json!({"type": "error", "error": {"message": message}}),
        json!({"error": {"type": "invalid_request_error", "code": null, "message": message}}),
        json!({"type": "response.failed", "response": {"id": "resp_x", "object": "response", "status": "failed",
            "error": {"code": "previous_response_not_found", "message": message}, "output": []}}),
    ];
    let mut stage = Stage::plain().await;
    let (mut socket, next) = begun(&mut stage, false).await;
    let mut items = next["input"].as_array().unwrap().clone();
    for (n, shape) in shapes.into_iter().enumerate() {
        let turn = ask(&stage.client(), &body(&items));
        let delta = socket.frame().await;
        assert!(delta["previous_response_id"].is_string(), "{n}: no chaining any more");
        socket.say(&delta, shape).await;
        let full = socket.frame().await;
        assert_eq!(full["previous_response_id"], Value::Null);
        assert_eq!(full["input"], json!(items), "{n}");
        let said = crate::peer::message(&format!("msg_{n}x"), &format!("answer {n}"));
        socket.answer(&full, &format!("resp_{n}x"), std::slice::from_ref(&said)).await;
        let reply = turn.await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.told().plan()), (200, ("full", "not-found")), "{n}");
        assert_eq!(reply.response()["output"], json!([said]));
        items.extend([said, user("more")]);
    }
    let turn = ask(&stage.client(), &body(&items));
    let delta = socket.frame().await;
    assert_eq!(delta["previous_response_id"], "resp_6x");
    socket.answer(&delta, "resp_last", &[]).await;
    assert_eq!(turn.await.unwrap().told().plan(), ("delta", "exact"));
    stage.assert_quiet();
}

#[tokio::test]
async fn f24_the_error_about_a_clients_own_anchor_is_the_providers_to_the_byte() {
    let mut stage = Stage::plain().await;
    let (mut socket, _) = begun(&mut stage, true).await;
    let anchored = json!({"model": "m", "previous_response_id": "resp_0", "input": "more"});
    let turn = ask(&stage.client(), &anchored);
    let frame = socket.frame().await;
    assert_eq!((&frame["previous_response_id"], &frame["input"]), (&json!("resp_0"), &json!("more")));
    let gone = json!({"type": "error", "status": 400, "error":
        {"type": "invalid_request_error", "code": "previous_response_not_found", "message": "gone"}});
    socket.say(&frame, gone).await;
    let post = stage.post().await;
    assert_eq!(post.body, anchored.to_string(), "the client's own bytes, its anchor among them");
    let words =
        "{ \"error\" : {\"code\":\"previous_response_not_found\", \"z\":1.50, \"message\":\"h\\u00e9\"} }";
    post.answer(404, words);
    let reply = turn.await.unwrap();
    assert_eq!((reply.status.as_u16(), &reply.body[..]), (404, words.as_bytes()));
}

#[tokio::test]
async fn f25_an_anchor_is_never_sent_under_another_key() {
    let mut stage = Stage::plain().await;
    let (_socket, next) = begun(&mut stage, true).await;
    let stranger = stage.client().with("authorization", "Bearer sk-planted-b");
    let turn = ask(&stranger, &next);
    let mut other = stage.socket().await;
    assert_eq!(other.headers["authorization"], "Bearer sk-planted-b");
    let frame = other.frame().await;
    assert_eq!((&frame["previous_response_id"], &frame["input"]), (&Value::Null, &next["input"]));
    other.answer(&frame, "resp_b", &[]).await;
    assert_eq!(turn.await.unwrap().told().plan(), ("full", "first-turn"));
    // Named by the stranger itself, it goes where the provider judges it, and holds nothing up here.
    let turn = ask(&stranger, &json!({"model": "m", "previous_response_id": "resp_0", "input": "more"}));
    let post = stage.post().await;
    assert_eq!(post.headers["authorization"], "Bearer sk-planted-b");
    post.answer(400, "{}");
    assert_eq!(turn.await.unwrap().told().plan(), ("http", "client-anchor"));
}

#[tokio::test]
async fn f26_an_unstored_response_is_not_continued_on_a_new_socket() {
    let mut stage = Stage::plain().await;
    let (socket, next) = begun(&mut stage, false).await;
    socket.close(1000).await;
    until("the proxy knows", || stage.proxy.sockets() == 0).await;
    let turn = ask(&stage.client(), &next);
    let mut socket = stage.socket().await;
    let frame = socket.frame().await;
    assert_eq!((&frame["previous_response_id"], &frame["input"]), (&Value::Null, &next["input"]));
    socket.answer(&frame, "resp_1", &[]).await;
    assert_eq!(turn.await.unwrap().told().plan(), ("full", "socket-lost"));
}

#[tokio::test]
async fn f27_f74_what_the_socket_is_silent_about_goes_over_http_and_its_anchor_is_not_used_again() {
    let mut stage =
        Stage::start(|settings| settings.timeouts.first_event = std::time::Duration::from_millis(1000)).await;
    let (mut socket, mut next) = begun(&mut stage, true).await;
    let image = json!({"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA"}]});
    next["input"].as_array_mut().unwrap().push(image);
    // Over HTTP such a request is refused at once; on the socket it is never heard of again.
    let turn = ask(&stage.client(), &next);
    let delta = socket.frame().await;
    assert_eq!(delta["previous_response_id"], "resp_0");
    let post = stage.post().await;
    assert_eq!(post.body, next.to_string());
    post.answer(400, r#"{"error":{"code":"invalid_image"}}"#);
    let reply = turn.await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.told().plan()), (400, ("http", "recovered")));
    assert_eq!(reply.json()["error"]["code"], "invalid_image");
    // The anchor may have been the reason: the next turn does without.
    next["input"].as_array_mut().unwrap().pop();
    let turn = ask(&stage.client(), &next);
    let mut socket = stage.socket().await;
    let full = socket.frame().await;
    assert_eq!((&full["previous_response_id"], &full["input"]), (&Value::Null, &next["input"]));
    socket.answer(&full, "resp_1", &[message("msg_1", "well")]).await;
    assert_eq!(turn.await.unwrap().status, 200);
    next["input"].as_array_mut().unwrap().extend([message("msg_1", "well"), user("three")]);
    let turn = ask(&stage.client(), &next);
    let delta = socket.frame().await;
    assert_eq!(delta["previous_response_id"], "resp_1", "one silence does not end chaining");
    socket.answer(&delta, "resp_2", &[]).await;
    turn.await.unwrap();
}

#[tokio::test]
async fn f27_an_anchor_that_fails_with_a_server_error_is_not_used_again() {
    let mut stage = Stage::plain().await;
    let (mut socket, next) = begun(&mut stage, true).await;
    let turn = ask(&stage.client(), &next);
    let delta = socket.frame().await;
    assert_eq!(delta["previous_response_id"], "resp_0");
    let broken = json!({"type": "error", "status": 500, "error": {"type": "server_error", "message": "Oh."}});
    socket.say(&delta, broken).await;
    assert_eq!(turn.await.unwrap().status, 500);
    // The client's SDK repeats it.
    let turn = ask(&stage.client(), &next);
    let full = socket.frame().await;
    assert_eq!(full["previous_response_id"], Value::Null);
    socket.answer(&full, "resp_1", &[]).await;
    assert_eq!(turn.await.unwrap().status, 200);
}

#[tokio::test]
async fn f28_a_history_with_dead_ids_is_the_providers_to_judge_and_ends_no_chaining() {
    let mut stage = Stage::plain().await;
    let dead = body(&[user("one"), json!({"type": "item_reference", "id": "msg_dead"}), user("two")]);
    let turn = ask(&stage.client(), &dead);
    let mut socket = stage.socket().await;
    let frame = socket.frame().await;
    assert_eq!(frame["input"], dead["input"]);
    let error = json!({"type": "invalid_request_error", "code": null, "param": "input",
        "message": "Item with id 'msg_dead' not found."});
    socket.say(&frame, json!({"type": "error", "status": 404, "error": error})).await;
    let reply = turn.await.unwrap();
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]), (404, &error));
    // The client spells it out, and goes on as if nothing had been.
    let mut items = vec![user("one"), message("msg_dead", "said"), user("two")];
    for n in 0..3 {
        let turn = ask(&stage.client(), &body(&items));
        let frame = socket.frame().await;
        assert_eq!(frame["previous_response_id"].is_string(), n > 0);
        let said = message(&format!("msg_{n}"), &format!("answer {n}"));
        socket.answer(&frame, &format!("resp_{n}"), std::slice::from_ref(&said)).await;
        assert_eq!(turn.await.unwrap().told().plan().0, if n > 0 { "delta" } else { "full" });
        items.extend([said, user("more")]);
    }
}

#[tokio::test]
async fn f29_a_request_of_new_items_only_never_travels_without_its_anchor() {
    let anchored = json!({"model": "m", "previous_response_id": "resp_0", "input": "more"});
    // Lost after it was sent: its fate is unknown, and nobody guesses.
    let mut stage = Stage::plain().await;
    let (mut socket, _) = begun(&mut stage, true).await;
    let turn = ask(&stage.client(), &anchored);
    socket.frame().await;
    drop(socket);
    let reply = turn.await.unwrap();
    assert_eq!(
        (reply.status.as_u16(), &reply.json()["error"]["code"]),
        (502, &json!("tailwire_upstream_interrupted"))
    );
    stage.assert_quiet();
    // Lost before: over HTTP, as it came.
    let turn = ask(&stage.client(), &anchored);
    let post = stage.post().await;
    assert_eq!(post.body, anchored.to_string());
    post.complete("resp_1", &[]);
    assert_eq!(turn.await.unwrap().told().plan(), ("http", "client-anchor"));
    stage.assert_quiet();
}

#[tokio::test]
async fn f30_what_falls_back_keeps_its_own_key_and_nobody_elses_state() {
    for status in [401, 403, 429, 503] {
        let mut stage = Stage::plain().await;
        let (_socket, _) = begun(&mut stage, true).await;
        stage.upgrades.send_replace(Upgrades::Refuse(status));
        let client =
            stage.client().with("authorization", "Bearer sk-planted-b").with("x-codex-turn-state", "mine");
        let asked = body(&[user("one"), message("msg_0", "said"), user("two")]);
        let turn = ask(&client, &asked);
        let post = stage.post().await;
        assert_eq!(post.headers["authorization"], "Bearer sk-planted-b", "{status}");
        assert_eq!(post.headers.get_all("x-codex-turn-state").iter().collect::<Vec<_>>(), ["mine"]);
        assert_eq!(post.body, asked.to_string(), "no anchor of another key's");
        post.complete("resp_b", &[]);
        assert_eq!(turn.await.unwrap().told().plan(), ("http", "no-socket"));
    }
}

#[tokio::test]
async fn f31_encrypted_reasoning_travels_to_the_byte_and_to_its_own_key_only() {
    let mut stage = Stage::plain().await;
    // Escaped and spaced as no serialiser would do it.
    let thought = r#"{"id":"rs_1" , "type":"reasoning","encrypted_content":"gAAAA\u0042\/sk-proj-1234567890abcdef==","summary":[ ]}"#;
    let asked = format!(
        r#"{{"model":"m","store":false,"input":[{{"role":"user","content":"a"}},{thought},{}]}}"#,
        message("m", "b")
    );
    let asked = format!("{}{}", &asked[..asked.len() - 2], r#",{"role":"user","content":"c"}]}"#);
    for (key, http) in [("Bearer sk-planted-a", false), ("Bearer sk-planted-b", true)] {
        let mut client = stage.client().with("authorization", key);
        if http {
            client = client.with("x-tailwire-mode", "http");
        }
        let text = asked.clone();
        let turn = tokio::spawn(async move { client.send(hyper::Method::POST, "/v1/responses", text).await });
        if http {
            let post = stage.post().await;
            assert_eq!(
                (post.body, &post.headers["authorization"]),
                (asked.clone().into(), &key.parse().unwrap())
            );
        } else {
            let mut socket = stage.socket().await;
            assert_eq!(socket.headers["authorization"], key);
            let text = socket.text().await;
            assert!(text.contains(thought), "{text}");
            let frame: Value = serde_json::from_str(&text).unwrap();
            socket.answer(&frame, "resp", &[]).await;
        }
        turn.await.unwrap();
    }
}

#[tokio::test]
async fn f32_after_a_compaction_the_history_goes_in_full_and_is_continued_from_there() {
    let mut stage = Stage::plain().await;
    let (mut socket, _) = begun(&mut stage, true).await;
    let summary = json!({"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAAA"});
    for (n, compacted) in [
        vec![user("Summary of the conversation so far: one."), user("two")],
        vec![user("one"), summary, user("two")],
    ]
    .into_iter()
    .enumerate()
    {
        let mut items = compacted;
        for plan in ["full", "delta"] {
            let mut asked = body(&items);
            asked["store"] = true.into();
            let turn = ask(&stage.client(), &asked);
            let frame = socket.frame().await;
            let said = message(&format!("msg_{n}{plan}"), &format!("answer {n}{plan}"));
            socket.answer(&frame, &format!("resp_{n}{plan}"), std::slice::from_ref(&said)).await;
            assert_eq!(turn.await.unwrap().told().plan, plan, "{n}");
            match plan {
                "full" => assert_eq!(
                    (&frame["previous_response_id"], &frame["input"]),
                    (&Value::Null, &json!(items))
                ),
                _ => assert_eq!(frame["previous_response_id"], format!("resp_{n}full")),
            }
            items.extend([said, user("more")]);
        }
    }
}

#[tokio::test]
async fn f33_each_continuation_carries_instructions_tools_and_all_other_settings() {
    let mut stage = Stage::plain().await;
    let tools =
        json!([{"type": "function", "name": "shell", "parameters": {"type": "object"}, "strict": false}]);
    let mut items = vec![user("one")];
    let mut socket = None;
    for n in 0..3 {
        let mut asked = body(&items);
        asked["tools"] = tools.clone();
        asked["temperature"] = json!(0.5);
        let turn = ask(&stage.client(), &asked);
        if socket.is_none() {
            socket = Some(stage.socket().await);
        }
        let socket = socket.as_mut().unwrap();
        let frame = socket.frame().await;
        assert_eq!(frame["previous_response_id"].is_string(), n > 0);
        for name in ["model", "instructions", "store", "tools", "temperature"] {
            assert_eq!(frame[name], asked[name], "{name}");
        }
        let call_id = format!("call_{n}");
        let said =
            [reasoning(&format!("rs_{n}"), &format!("blob {n}")), call(&format!("fc_{n}"), &call_id, "{}")];
        socket.answer(&frame, &format!("resp_{n}"), &said).await;
        turn.await.unwrap();
        items.extend(said);
        items.push(output(&call_id, "done"));
    }
}
