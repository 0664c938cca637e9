//! Nobody meets another's conversation, socket, answer or error: not by key, not by header, not by timing.

use hyper::Method;
use serde_json::{Value, json};
use tailwire::config::ProfileName;

use crate::peer::{Socket, Stage, Upgrades, ask, body, message, user};

async fn answered(socket: &mut Socket, id: &str, text: &str) -> Value {
    let frame = socket.frame().await;
    socket.answer(&frame, id, &[message(&format!("msg_{id}"), text)]).await;
    frame
}

#[tokio::test]
async fn f34_no_path_leads_a_stranger_to_anothers_response() {
    let mut stage = Stage::plain().await;
    let mut first = body(&[user("one")]);
    first["store"] = true.into();
    let asked = ask(&stage.client(), &first);
    let mut socket = stage.socket().await;
    answered(&mut socket, "resp_0", "said").await;
    asked.await.unwrap();
    let stranger = stage.client().with("authorization", "Bearer sk-planted-b");
    // Whatever the path, the stranger's key goes with it, and the provider judges.
    for (method, path) in [
        (Method::GET, "/v1/responses/resp_0"),
        (Method::GET, "/responses/resp_0/input_items"),
        (Method::POST, "/v1/responses/resp_0/cancel"),
        (Method::DELETE, "/v1/responses/resp_0"),
        (Method::DELETE, "/responses/resp_0"),
        (Method::DELETE, "/v1/responses/resp_0/"),
    ] {
        let (client, verb) = (stranger.clone(), method.clone());
        let pending = tokio::spawn(async move { client.send(verb, path, "").await });
        let post = stage.post().await;
        assert_eq!(
            (post.method.as_str(), &post.headers["authorization"]),
            (method.as_str(), &"Bearer sk-planted-b".parse().unwrap())
        );
        assert!(post.path.starts_with("/v1/responses/resp_0"), "{}", post.path);
        post.answer(404, "{}");
        assert_eq!(pending.await.unwrap().status, 404);
    }
    for path in ["/v1/responses", "/responses"] {
        let client = stranger.clone();
        let named = json!({"model": "m", "previous_response_id": "resp_0", "input": "what did we say?"});
        let pending = tokio::spawn(async move { client.send(Method::POST, path, named.to_string()).await });
        stage.post().await.answer(400, "{}");
        assert_eq!(pending.await.unwrap().told().plan(), ("http", "client-anchor"), "{path}");
    }
    // Its owner goes on as if nothing had been, and deletes it by any name of the path.
    first["input"] = json!([user("one"), message("msg_resp_0", "said"), user("two")]);
    let asked = ask(&stage.client(), &first);
    assert_eq!(answered(&mut socket, "resp_1", "more").await["previous_response_id"], "resp_0");
    asked.await.unwrap();
    let owner = stage.client();
    let pending = tokio::spawn(async move { owner.send(Method::DELETE, "/responses/resp_1", "").await });
    stage.post().await.answer(200, "{}");
    pending.await.unwrap();
    first["input"].as_array_mut().unwrap().extend([message("msg_resp_1", "more"), user("three")]);
    let asked = ask(&stage.client(), &first);
    assert_ne!(answered(&mut socket, "resp_2", "well").await["previous_response_id"], "resp_1");
    asked.await.unwrap();
}

#[tokio::test]
async fn f35_f36_each_key_has_a_socket_of_its_own_whatever_headers_its_clients_choose() {
    let mut stage = Stage::plain().await;
    let keyed = |name: &'static str, value: &str| {
        let client = stage.client().with("session-id", "same").with("x-session-affinity", "same");
        client.without("authorization").with(name, value)
    };
    let clients = [
        keyed("authorization", "Bearer alice"),
        keyed("authorization", "Bearer bob"),
        keyed("api-key", "alice"),
        keyed("x-api-key", "bob"),
        keyed("cookie", "session=carol"),
    ];
    let mut sockets = Vec::new();
    for round in 0..2 {
        for (n, client) in clients.iter().enumerate() {
            let mut asked = body(&[user("the same words")]);
            asked["prompt_cache_key"] = "same".into();
            asked["metadata"] = json!({"of": n.to_string()});
            let pending = ask(client, &asked);
            if round == 0 {
                sockets.push(stage.socket().await);
            }
            let socket: &mut Socket = &mut sockets[n];
            for name in ["authorization", "api-key", "x-api-key", "cookie"] {
                assert_eq!(socket.headers.get(name), client.headers.get(name), "{n}: {name}");
            }
            let frame = answered(socket, &format!("resp_{n}{round}"), &format!("answer {n}")).await;
            assert_eq!(
                (&frame["metadata"]["of"], &frame["previous_response_id"]),
                (&json!(n.to_string()), &Value::Null)
            );
            let reply = pending.await.unwrap();
            assert_eq!(
                reply.response()["output"],
                json!([message(&format!("msg_resp_{n}{round}"), &format!("answer {n}"))])
            );
        }
    }
    stage.assert_quiet();
}

#[tokio::test]
async fn f37_turns_that_meet_while_a_socket_is_opened_each_get_their_own_answer() {
    for profile in [ProfileName::Openai, ProfileName::Azure] {
        let mut stage = Stage::start(|settings| settings.profile = profile).await;
        stage.upgrades.send_replace(Upgrades::Hold);
        let first = ask(&stage.client(), &body(&[user("first")]));
        crate::peer::until("a handshake", || stage.asked() == 1).await;
        let second = ask(&stage.client(), &body(&[user("second")]));
        if profile == ProfileName::Azure {
            crate::peer::until("another", || stage.asked() == 2).await;
        }
        stage.upgrades.send_replace(Upgrades::Accept);
        let mut one = stage.socket().await;
        let mut other = if profile == ProfileName::Azure { Some(stage.socket().await) } else { None };
        let frames = [one.frame().await, other.as_mut().unwrap_or(&mut one).frame().await];
        for (n, frame) in frames.iter().enumerate() {
            let words = frame["input"][0]["content"].as_str().unwrap();
            let socket = if n == 0 { &mut one } else { other.as_mut().unwrap_or(&mut one) };
            socket.answer(frame, &format!("resp_{words}"), &[message("msg", words)]).await;
            if n == 0 {
                let (done, open) = if words == "first" { (&first, &second) } else { (&second, &first) };
                crate::peer::until("its answer", || done.is_finished()).await;
                assert!(!open.is_finished(), "one end is not everybody's");
            }
        }
        for (turn, words) in [(first, "first"), (second, "second")] {
            let response = turn.await.unwrap().response();
            assert_eq!(
                (&response["id"], &response["output"][0]["content"][0]["text"]),
                (&json!(format!("resp_{words}")), &json!(words))
            );
        }
    }
}

#[tokio::test]
async fn f38_a_new_token_gets_a_new_socket_and_the_old_one_carries_nothing_more() {
    let mut stage = Stage::plain().await;
    let asked = ask(&stage.client().with("authorization", "Bearer old"), &body(&[user("one")]));
    let mut old = stage.socket().await;
    answered(&mut old, "resp_0", "said").await;
    asked.await.unwrap();
    let items = [user("one"), message("msg_resp_0", "said"), user("two")];
    for key in ["Bearer new", "Bearer newer"] {
        let asked = ask(&stage.client().with("authorization", key), &body(&items));
        let mut socket = stage.socket().await;
        assert_eq!(socket.headers["authorization"], key);
        let frame = answered(&mut socket, "resp_1", "more").await;
        assert_eq!((&frame["previous_response_id"], &frame["input"]), (&Value::Null, &json!(items)));
        assert_eq!(asked.await.unwrap().status, 200);
    }
    let Stage { proxy, .. } = stage;
    proxy.stop().await;
    assert_eq!(old.ended().await, Some(1000), "no frame under the old token");
}

#[tokio::test]
async fn f39_one_turns_error_never_reaches_the_next_one_on_its_socket() {
    for profile in [ProfileName::Openai, ProfileName::Azure] {
        let mut stage = Stage::start(|settings| settings.profile = profile).await;
        let error = json!({"type": "error", "status": 503,
            "error": {"type": "server_error", "code": "server_is_overloaded", "message": "for the first"}});
        let first = ask(&stage.client(), &body(&[user("first")]));
        let mut socket = stage.socket().await;
        let frame = socket.frame().await;
        socket.say(&frame, error.clone()).await;
        assert_eq!(first.await.unwrap().status, 503);
        let second = ask(&stage.client(), &body(&[user("second")]));
        if profile == ProfileName::Openai {
            // The next one is out when the error comes again, with its lane and without.
            let next = socket.frame().await;
            assert_ne!(next["stream_id"], frame["stream_id"]);
            socket.say(&frame, error.clone()).await;
            socket.say(&Value::Null, error).await;
        }
        let mut socket = stage.socket().await;
        answered(&mut socket, "resp_1", "mine").await;
        let reply = second.await.unwrap();
        assert_eq!((reply.status.as_u16(), &reply.response()["id"]), (200, &json!("resp_1")), "{profile:?}");
    }
}
