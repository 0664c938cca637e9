//! The life of a connection: sockets that cannot be had, that die idle or half, that grow old, and what a handshake must
//! carry.

use std::time::Duration;

use serde_json::{Value, json};
use tailwire::config::ProfileName;
use tailwire::sim::script::Limits;
use tokio_tungstenite::tungstenite::Message;

use crate::agent::Agent;
use crate::forward::{Forward, Rules, Speaks};
use crate::peer::{Socket, Stage, Upgrades, ask, body, message, until, user};
use crate::world::World;

/// A first turn on a new socket, and what goes on from it.
async fn begun(stage: &mut Stage) -> (Socket, Value) {
    let asked = ask(&stage.client(), &body(&[user("one")]));
    let mut socket = stage.socket().await;
    let frame = socket.frame().await;
    socket.answer(&frame, "resp_0", &[message("msg_0", "said")]).await;
    asked.await.unwrap();
    (socket, body(&[user("one"), message("msg_0", "said"), user("two")]))
}

#[tokio::test]
async fn f40_a_task_longer_than_a_sockets_life_goes_on_over_the_next_socket() {
    let world = World::plain().await;
    let mut agent = Agent::new(world.proxied());
    let before = agent.run("work [sim calls=3 text=9]").await;
    world.sim.provider.script(|script| script.limits.max_age = Duration::ZERO);
    agent.hear("and more [sim text=9]");
    let (turn, _) = agent.step().await;
    assert_eq!(turn.reply.status, 200, "old, and so is the next: the answer comes all the same");
    world.sim.provider.script(|script| script.limits.max_age = Limits::default().max_age);
    let after = agent.run("and on [sim calls=3 text=9]").await;
    assert!(after.iter().skip(1).all(|turn| turn.told().plan == "delta"));
    for turn in before.iter().chain(&after) {
        let direct = world.direct().send(hyper::Method::POST, "/v1/responses", turn.request.clone()).await;
        assert_eq!(direct.response()["sim"], turn.response["sim"]);
    }
    world.assert_lawful();
}

#[tokio::test]
async fn f41_a_failed_handshake_costs_a_turn_one_try_and_the_next_turns_none() {
    let mut stage = Stage::start(|settings| settings.timeouts.connect = Duration::from_millis(200)).await;
    for (policy, handshakes) in [(Upgrades::Hold, 1), (Upgrades::Refuse(503), 1)] {
        stage.upgrades.send_replace(policy);
        let before = stage.asked();
        // A key of its own: what is known of one is not known of another.
        let client = stage.client().with("authorization", &format!("Bearer {policy:?}"));
        for _ in 0..3 {
            let turn = ask(&client, &body(&[user("one")]));
            stage.post().await.complete("resp", &[]);
            assert_eq!(turn.await.unwrap().told().plan(), ("http", "no-socket"));
        }
        assert_eq!(stage.asked() - before, handshakes, "{policy:?}");
    }
}

#[tokio::test]
async fn f42_no_sockets_here_is_believed_at_once() {
    for status in [426, 404, 405] {
        let mut stage = Stage::plain().await;
        stage.upgrades.send_replace(Upgrades::Refuse(status));
        for _ in 0..5 {
            let turn = ask(&stage.client(), &body(&[user("one")]));
            stage.post().await.complete("resp", &[]);
            assert_eq!(turn.await.unwrap().told().plan(), ("http", "no-socket"));
        }
        assert_eq!(stage.asked(), 1, "{status}");
    }
}

#[tokio::test]
async fn f43_a_refusal_that_is_about_the_turn_is_not_about_sockets() {
    for status in [401, 403, 429] {
        let mut stage = Stage::plain().await;
        stage.upgrades.send_replace(Upgrades::Refuse(status));
        let turn = ask(&stage.client(), &body(&[user("one")]));
        // The client hears the provider's own answer to its own request.
        stage.post().await.answer(status, r#"{"error":{"code":"its_own"}}"#);
        let reply = turn.await.unwrap();
        assert_eq!((reply.status.as_u16(), &reply.json()["error"]["code"]), (status, &json!("its_own")));
        stage.upgrades.send_replace(Upgrades::Accept);
        let (_socket, _) = begun(&mut stage).await;
    }
}

/// A process that does not outlive its test.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn f44_socket_and_http_go_the_same_way_whatever_the_proxy_variables_say() {
    use std::process::{Command, Stdio};
    // The proxy knows the one way there is, and nobody else knows that name.
    let mut stage = Stage::plain().await;
    let behind = stage.base_url().trim_start_matches("http://").trim_end_matches("/v1").parse().unwrap();
    let rules = Rules { leads_to: Some(behind), ..Rules::new(Speaks::Connect) };
    let (forward, unwanted) = (Forward::start(rules).await, Forward::start(rules).await);
    let (wanted, nowhere) = (format!("http://{}", forward.addr), format!("http://{}", unwanted.addr));
    let direct = stage.base_url();
    for (upstream, variables, asked) in [
        ("http://provider.invalid:80/v1", &[("http_proxy", &wanted), ("ALL_PROXY", &nowhere)][..], 2),
        ("http://provider.invalid:80/v1", &[("HTTP_PROXY", &wanted), ("HTTPS_PROXY", &nowhere)], 2),
        ("http://provider.invalid:80/v1", &[("ALL_PROXY", &wanted), ("https_proxy", &nowhere)], 2),
        ("http://provider.invalid:80/v1", &[("TAILWIRE_PROXY", &wanted), ("HTTP_PROXY", &nowhere)], 2),
        (&direct, &[("HTTP_PROXY", &nowhere), ("NO_PROXY", &String::from("127.0.0.0/8"))], 0),
        (&direct, &[("HTTP_PROXY", &nowhere), ("TAILWIRE_PROXY", &String::from("off"))], 0),
        (&direct, &[("HTTPS_PROXY", &nowhere)], 0),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tailwire"));
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "off", "--upstream", upstream])
            .env_clear();
        command.envs(variables.iter().map(|(name, value)| (name, value.as_str())));
        let mut child = Child(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
        let out = child.0.stdout.take().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
        let addr = line.split("http://").nth(1).and_then(|rest| rest.split("/v1").next()).unwrap();
        let client = crate::http::Client::new(addr.parse().unwrap());
        let before = forward.asked().len();
        let turn = ask(&client, &body(&[user("one")]));
        let mut socket = stage.socket().await;
        let frame = socket.frame().await;
        socket.answer(&frame, "resp_0", &[]).await;
        assert_eq!(turn.await.unwrap().status, 200);
        let turn = ask(&client.with("x-tailwire-mode", "http"), &body(&[user("one")]));
        stage.post().await.complete("resp_1", &[]);
        assert_eq!(turn.await.unwrap().status, 200);
        assert_eq!((forward.asked().len() - before, unwanted.asked().len()), (asked, 0), "{variables:?}");
    }
    // What is no proxy ends the program; it does not mean directly.
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailwire"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--upstream", &direct]).env_clear();
    let ended = command.env("HTTP_PROXY", "htp://sk-planted-a@proxy").output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(78), "{said}");
    assert!(said.contains("HTTP_PROXY: a proxy's URL begins with") && !said.contains("planted"), "{said}");
}

#[tokio::test]
async fn f46_f50_an_idle_socket_that_died_costs_no_turn_and_is_not_kept() {
    // With a goodbye, and without.
    for code in [Some(1000), Some(1001), None] {
        let mut stage = Stage::plain().await;
        let (socket, next) = begun(&mut stage).await;
        match code {
            Some(code) => socket.close(code).await,
            None => drop(socket),
        }
        until("it is not kept", || stage.proxy.sockets() == 0).await;
        let turn = ask(&stage.client(), &next);
        let mut socket = stage.socket().await;
        let frame = socket.frame().await;
        socket.answer(&frame, "resp_1", &[]).await;
        let reply = turn.await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.told().plan()), (200, ("full", "socket-lost")));
    }
    // Dead without a sign: the frame goes out, and only then is there a reset.
    let mut stage = Stage::plain().await;
    let (mut socket, next) = begun(&mut stage).await;
    let turn = ask(&stage.client(), &next);
    socket.frame().await;
    drop(socket);
    let mut socket = stage.socket().await;
    let frame = socket.frame().await;
    assert_eq!((&frame["previous_response_id"], &frame["input"]), (&Value::Null, &next["input"]));
    socket.answer(&frame, "resp_1", &[]).await;
    assert_eq!(turn.await.unwrap().told().plan(), ("full", "recovered"));
    stage.assert_quiet();
}

#[tokio::test]
async fn f47_a_socket_without_frames_and_without_an_error_is_noticed() {
    let mut stage = Stage::start(|settings| {
        settings.timeouts.ping = Duration::from_millis(100);
        settings.timeouts.pong = Duration::from_millis(1500);
    })
    .await;
    let (mut socket, next) = begun(&mut stage).await;
    let turn = ask(&stage.client(), &next);
    socket.frame().await;
    // It is open and says nothing, not even to pings: nobody reads here any more.
    let mut other = stage.socket().await;
    let frame = other.frame().await;
    other.answer(&frame, "resp_1", &[]).await;
    assert_eq!(turn.await.unwrap().told().plan(), ("full", "recovered"));
    drop(socket);
}

#[tokio::test]
async fn f48_a_long_silent_thought_is_kept_alive_and_waited_for() {
    let mut stage = Stage::start(|settings| {
        settings.timeouts.ping = Duration::from_millis(20);
        settings.timeouts.first_event = Duration::from_millis(1000);
    })
    .await;
    let (mut socket, next) = begun(&mut stage).await;
    let turn = ask(&stage.client(), &next);
    let frame = socket.frame().await;
    socket.begin(&frame, "resp_1").await;
    // Many times as long as any limit but the one for silence: what keeps the line open are pings, and their pongs.
    for _ in 0..80 {
        socket.pinged().await;
    }
    assert!(!turn.is_finished());
    socket.finish(&frame, "resp_1", "completed", &[message("msg_1", "42")]).await;
    assert_eq!(turn.await.unwrap().response()["output"], json!([message("msg_1", "42")]));
    stage.assert_quiet();
}

#[tokio::test]
async fn f49_a_frame_that_is_never_answered_is_given_up_after_its_limit_only() {
    let mut stage =
        Stage::start(|settings| settings.timeouts.first_event = Duration::from_millis(1000)).await;
    let (mut socket, next) = begun(&mut stage).await;
    let turn = ask(&stage.client(), &next);
    socket.frame().await;
    let post = stage.post().await;
    post.complete("resp_1", &[]);
    assert_eq!(turn.await.unwrap().told().plan(), ("http", "recovered"));
    // A model may well take a minute before it says that it begins.
    assert!(tailwire::config::Settings::default().timeouts.first_event >= Duration::from_secs(60));
    // What may still come on that socket comes to nobody.
    assert_eq!(socket.ended().await, Some(1000));
}

#[tokio::test]
async fn f51_a_handshake_carries_what_its_client_said_and_what_its_provider_needs() {
    for (profile, said, expected) in [
        (ProfileName::Openai, None, None),
        (
            ProfileName::Openai,
            Some("responses_websockets=2026-02-04"),
            Some("responses_websockets=2026-02-04"),
        ),
        (ProfileName::Openai, Some("responses=experimental"), Some("responses=experimental")),
        (ProfileName::Chatgpt, None, Some("responses_websockets=2026-02-06")),
        (ProfileName::Chatgpt, Some("responses_websockets=v1"), Some("responses_websockets=v1")),
    ] {
        let mut stage = Stage::start(|settings| settings.profile = profile).await;
        let client = said.map_or_else(|| stage.client(), |said| stage.client().with("openai-beta", said));
        let turn = ask(&client, &body(&[user("one")]));
        let mut socket = stage.socket().await;
        let beta = socket.headers.get("openai-beta").map(|value| value.to_str().unwrap());
        assert_eq!(beta, expected, "{profile:?}");
        assert_eq!(socket.uri.path_and_query().unwrap(), "/v1/responses");
        let frame = socket.frame().await;
        socket.answer(&frame, "resp", &[]).await;
        turn.await.unwrap();
    }
    // A query is part of the handshake that a socket had long ago: such a turn goes where it was sent.
    let mut stage = Stage::plain().await;
    let client = stage.client();
    let text = body(&[user("one")]).to_string();
    let turn = tokio::spawn(async move {
        client.send(hyper::Method::POST, "/v1/responses?model=m&api-version=2", text).await
    });
    let post = stage.post().await;
    assert_eq!(post.path, "/v1/responses?model=m&api-version=2");
    post.complete("resp", &[]);
    assert_eq!(turn.await.unwrap().told().plan.as_str(), "http");
}

#[tokio::test]
async fn f69_signs_of_life_are_not_progress() {
    let mut stage =
        Stage::start(|settings| settings.timeouts.first_event = Duration::from_millis(1000)).await;
    let (mut socket, mut next) = begun(&mut stage).await;
    next["stream"] = true.into();
    let turn = ask(&stage.client(), &next);
    let frame = socket.frame().await;
    // Pings, pongs and asides all the while; nothing of the turn.
    let chatter = tokio::spawn(async move {
        loop {
            socket.send(Message::Ping("alive".into())).await;
            socket.say(&frame, json!({"type": "codex.rate_limits", "allowed": true})).await;
            tokio::task::yield_now().await;
        }
    });
    let post = stage.post().await;
    assert!(!turn.is_finished(), "no status has gone down, and no keep-alive of ours");
    post.answer(503, r#"{"error":{"code":"server_is_overloaded"}}"#);
    assert_eq!(turn.await.unwrap().status, 503);
    chatter.abort();
}
