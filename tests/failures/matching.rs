//! Identity and matching: which request continues which response, item by item, with histories as real clients and
//! providers write them.

use hyper::Method;
use serde_json::{Value, json};
use tailwire::config::ProfileName;

use crate::agent::{Agent, assert_same_contexts};
use crate::http::Told;
use crate::peer::{Socket, Stage, ask, body, call, message, output, reasoning, user};
use crate::world::World;

/// One turn on a socket: the frame it made, and what was told of it.
async fn turn(
    stage: &Stage,
    socket: &mut Socket,
    items: &[Value],
    id: &str,
    said: &[Value],
) -> (Value, Told) {
    let asked = ask(&stage.client(), &body(items));
    let frame = socket.frame().await;
    socket.answer(&frame, id, said).await;
    let reply = asked.await.unwrap();
    assert_eq!(reply.response()["output"], json!(said));
    (frame, reply.told())
}

/// The socket of a stage after a first turn: `first` was asked, `said` was answered.
async fn after(stage: &mut Stage, first: &[Value], said: &[Value]) -> Socket {
    let asked = ask(&stage.client(), &body(first));
    let mut socket = stage.socket().await;
    let frame = socket.frame().await;
    socket.answer(&frame, "resp_0", said).await;
    assert_eq!(asked.await.unwrap().status, 200);
    socket
}

/// How a second request travels that goes on from `said` like this; its frame's input is checked to be what is missing.
async fn second(said: &[Value], next: &[Value]) -> (String, String) {
    let mut stage = Stage::plain().await;
    let mut socket = after(&mut stage, &[user("one")], said).await;
    let items: Vec<Value> = [user("one")].into_iter().chain(next.iter().cloned()).collect();
    let (frame, told) = turn(&stage, &mut socket, &items, "resp_1", &[message("msg_z", "end")]).await;
    let (new, all) = told.items.unwrap();
    assert_eq!(all, items.len());
    assert_eq!(frame["input"], json!(items[all - new..]), "the end of what was asked, as it was");
    let anchor = if told.plan == "delta" { json!("resp_0") } else { Value::Null };
    assert_eq!(frame["previous_response_id"], anchor);
    let why = if told.plan == "delta" { new.to_string() } else { told.why };
    (told.plan, why)
}

fn is(plan: &str, why: &str) -> (String, String) {
    (plan.to_owned(), why.to_owned())
}

#[tokio::test]
async fn f02_a_delta_repeats_nothing_and_a_refused_duplicate_is_asked_again_where_nothing_is_remembered() {
    let said = [reasoning("rs_1", "blob"), message("msg_1", "working"), call("fc_1", "call_1", "{}")];
    let mut stage = Stage::plain().await;
    let mut socket = after(&mut stage, &[user("one")], &said).await;
    let mut items = vec![user("one")];
    items.extend(said.clone());
    items.push(output("call_1", "done"));
    let (frame, _) = turn(&stage, &mut socket, &items, "resp_1", &[]).await;
    let text = frame.to_string();
    assert!(!["rs_1", "msg_1", "fc_1"].iter().any(|id| text.contains(id)), "{text}");
    // The history was edited: it goes in full on a socket that holds the same ids.
    items[4]["output"] = json!("done, really");
    let asked = ask(&stage.client(), &body(&items));
    let full = socket.frame().await;
    assert_eq!((&full["input"], &full["previous_response_id"]), (&json!(items), &Value::Null));
    let words = "Duplicate item found with id rs_1. Remove duplicate items from your input and try again.";
    let error = json!({"type": "invalid_request_error", "code": null, "message": words, "param": "input"});
    socket.say(&full, json!({"type": "error", "status": 400, "error": error})).await;
    stage.post().await.complete("resp_2", &[]);
    let reply = asked.await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.told().plan()), (200, ("http", "recovered")));
}

#[tokio::test]
async fn f03_items_with_one_id_and_other_calls_are_other_items() {
    let mut stage = Stage::plain().await;
    let first = [user("one"), call("fc_same", "call_a", "{}"), output("call_a", "done")];
    let mut socket = after(&mut stage, &first, &[message("msg_1", "well")]).await;
    let merged = |id: &str| {
        vec![
            user("one"),
            call("fc_same", id, "{}"),
            output(id, "done"),
            message("msg_1", "well"),
            user("two"),
        ]
    };
    let (frame, told) = turn(&stage, &mut socket, &merged("call_b"), "resp_1", &[]).await;
    assert_eq!((told.plan(), &frame["input"]), (("full", "history-changed"), &json!(merged("call_b"))));
    // The same in the echo of what was just said.
    let said = [call("fc_same", "call_a", "{}")];
    assert_eq!(
        second(&said, &[call("fc_same", "call_b", "{}"), output("call_b", "done")]).await,
        is("full", "echo-changed")
    );
    assert_eq!(
        second(&said, &[call("fc_other", "call_a", "{}"), output("call_a", "done")]).await,
        is("delta", "1")
    );
}

#[tokio::test]
async fn f04_reasoning_named_twice_is_not_mistaken_for_reasoning_held() {
    let said = [reasoning("rs_1", "blob"), message("msg_1", "well")];
    let bare = json!({"type": "reasoning", "id": "rs_1", "summary": []});
    for twice in [reasoning("rs_1", "another blob"), reasoning("rs_1", "blob"), bare] {
        let next = [said[0].clone(), twice.clone(), said[1].clone(), user("two")];
        assert_eq!(second(&said, &next).await, is("full", "reasoning-added"), "{twice}");
    }
    // Two that a provider itself made under one id are held twice.
    let two = [reasoning("rs_1", "a"), reasoning("rs_1", "b"), message("msg_1", "well")];
    assert_eq!(second(&two, &[&two[..], &[user("two")]].concat()).await, is("delta", "1"));
}

#[tokio::test]
async fn f05_an_echo_in_any_clients_hand_is_known() {
    let part = json!({"type": "output_text", "text": "See é.", "logprobs": [{"token": "See", "logprob": -0.5}],
        "annotations": [{"type": "url_citation", "url": "https://example.org", "start_index": 0, "end_index": 3, "title": "x"}]});
    let said = json!({"id": "msg_0a", "type": "message", "status": "completed", "role": "assistant", "content": [part]});
    for echo in [
        said.clone(),
        // Another key order cannot be written with this library's sorted maps: `f05_the_ways_clients_repeat_a_response`.
        json!({"role": "assistant", "content": "See é."}),
        json!({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "See é."}]}),
        json!({"id": "msg_mine", "type": "message", "role": "assistant", "status": "incomplete",
            "content": [{"type": "output_text", "text": "See é.", "annotations": [], "logprobs": null, "parsed": null}]}),
        json!({"role": "assistant", "content": [{"type": "text", "text": "See "}, {"type": "text", "text": "é."}]}),
    ] {
        assert_eq!(
            second(std::slice::from_ref(&said), &[echo.clone(), user("two")]).await,
            is("delta", "1"),
            "{echo}"
        );
    }
    for other in ["See e.", "See é. ", ""] {
        let echo = json!({"role": "assistant", "content": other});
        assert_eq!(
            second(std::slice::from_ref(&said), &[echo, user("two")]).await,
            is("full", "echo-changed"),
            "{other}"
        );
    }
}

#[tokio::test]
async fn f06_arguments_written_anew_are_the_same_arguments() {
    let arguments = r#"{"path":"caf\u00e9 \/tmp", "n": 10.0,"list":[1,{"b":2,"a":null}],"big":12345678901234567,"e":1e3}"#;
    let said = [call("fc_1", "call_1", arguments)];
    for (written, expected) in [
        (
            r#"{"big": 12345678901234568, "e": 1000, "list": [1, {"a": null, "b": 2}], "n": 10, "path": "café /tmp"}"#,
            true,
        ),
        (
            r#"{ "path":"café /tmp","n":10,"list":[ 1,{"a":null,"b":2} ],"big":12345678901234567,"e":1000.0 }"#,
            true,
        ),
        (r#"{"path":"café /tmp","n":10,"list":[1,{"b":2}],"big":12345678901234567,"e":1000}"#, false),
        (
            r#"{"path":"café /tmp","n":11,"list":[1,{"b":2,"a":null}],"big":12345678901234567,"e":1000}"#,
            false,
        ),
        (
            r#"{"path":"café /tmp","n":"10","list":[1,{"b":2,"a":null}],"big":12345678901234567,"e":1000}"#,
            false,
        ),
        (
            r#"{"path":"café /tmp","n":10,"list":[{"b":2,"a":null},1],"big":12345678901234567,"e":1000}"#,
            false,
        ),
    ] {
        let next = [call("fc_1", "call_1", written), output("call_1", "done")];
        let plan = if expected { is("delta", "1") } else { is("full", "echo-changed") };
        assert_eq!(second(&said, &next).await, plan, "{written}");
    }
    // A freeform call's input is text, however much it looks like JSON.
    let freeform = |input: &str| json!({"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_1", "name": "sh", "input": input});
    let answer = json!({"type": "custom_tool_call_output", "call_id": "call_1", "output": "done"});
    for (input, plan) in [(r#"{"a": 1}"#, is("delta", "1")), (r#"{"a":1}"#, is("full", "echo-changed"))] {
        assert_eq!(
            second(&[freeform(r#"{"a": 1}"#)], &[freeform(input), answer.clone()]).await,
            plan,
            "{input}"
        );
    }
}

#[tokio::test]
async fn f07_reasoning_comes_back_in_other_clothes_or_not_at_all() {
    let thought = json!({"id": "rs_1", "type": "reasoning", "encrypted_content": "gAAAA", "status": "completed",
        "summary": [{"type": "summary_text", "text": "One."}, {"type": "summary_text", "text": "Two."}],
        "content": [{"type": "reasoning_text", "text": "hm"}]});
    let said = [thought.clone(), message("msg_1", "well")];
    let with = |changes: Value| {
        let mut echo = thought.clone();
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(echo.as_object_mut().unwrap().remove(name)),
                value => echo[name] = value.clone(),
            }
        }
        echo
    };
    for echo in [
        with(json!({"content": []})),
        with(json!({"content": null, "status": null})),
        with(json!({"summary": []})),
        with(json!({"id": null, "summary": [{"type": "summary_text", "text": "One.\n\nTwo."}]})),
        with(json!({"encrypted_content": null, "content": []})),
    ] {
        assert_eq!(
            second(&said, &[echo.clone(), said[1].clone(), user("two")]).await,
            is("delta", "1"),
            "{echo}"
        );
    }
    assert_eq!(second(&said, &[said[1].clone(), user("two")]).await, is("delta", "1"), "dropped");
    // In two pieces it is more than was said; what the provider would make of the second is not known, so all is sent.
    let halves = [
        with(json!({"summary": [thought["summary"][0]]})),
        with(json!({"summary": [thought["summary"][1]]})),
    ];
    let next = [halves[0].clone(), halves[1].clone(), said[1].clone(), user("two")];
    assert_eq!(second(&said, &next).await, is("full", "reasoning-added"));
    // And another thought is another thought.
    let next = [with(json!({"encrypted_content": "gBBBB", "id": "rs_2"})), said[1].clone(), user("two")];
    assert_eq!(second(&said, &next).await, is("full", "reasoning-added"));
}

#[tokio::test]
async fn f09_calls_of_kinds_nobody_knows_yet_are_model_output_and_the_tail_stays_short() {
    let mut stage = Stage::plain().await;
    let mut items = vec![user("go")];
    let mut socket = None;
    for (n, kind) in
        ["custom_tool_call", "future_tool_call", "computer_call", "future_tool_call"].iter().enumerate()
    {
        let call_id = format!("call_{n}");
        let said = json!({"type": kind, "id": format!("x_{n}"), "call_id": call_id, "status": "completed",
            "name": "tool", "input": "do it", "action": {"type": "wait"}});
        let known = items.len();
        if socket.is_none() {
            socket = Some(after(&mut stage, &items, std::slice::from_ref(&said)).await);
        } else if let Some(socket) = &mut socket {
            let id = format!("resp_{n}");
            let (frame, told) = turn(&stage, socket, &items, &id, std::slice::from_ref(&said)).await;
            assert_eq!((told.plan, told.items), ("delta".to_owned(), Some((1, known))), "{kind}");
            assert_eq!(frame["input"], json!([items[known - 1]]));
        }
        items.push(said);
        items.push(json!({"type": format!("{kind}_output"), "call_id": call_id, "output": "ok"}));
    }
}

#[tokio::test]
async fn f10_a_replay_with_its_calls_inlined_is_complete_and_is_never_refused_here() {
    let calls: Vec<Value> = (0..3).map(|n| call(&format!("fc_{n}"), &format!("call_{n}"), "{}")).collect();
    let outputs: Vec<Value> = (0..3).map(|n| output(&format!("call_{n}"), "done")).collect();
    let replay = [&[user("one")], &calls[..], &outputs[..]].concat();
    // As the first thing this process hears.
    let mut stage = Stage::plain().await;
    let asked = ask(&stage.client(), &body(&replay));
    let mut socket = stage.socket().await;
    let frame = socket.frame().await;
    assert_eq!(frame["input"], json!(replay));
    socket.answer(&frame, "resp_0", &[message("msg_0", "well")]).await;
    assert_eq!(asked.await.unwrap().told().plan(), ("full", "first-turn"));
    // And as new items behind a known history: calls that were never said here.
    let next = [&[message("msg_0", "well")], &replay[..]].concat();
    let items = [&replay[..], &next[..]].concat();
    let (frame, told) = turn(&stage, &mut socket, &items, "resp_1", &[]).await;
    assert_eq!((told.plan.as_str(), &frame["input"]), ("full", &json!(items)));
}

#[tokio::test]
async fn f11_a_call_without_its_output_is_never_left_behind_an_anchor() {
    let said = [call("fc_1", "call_1", "{}"), call("fc_2", "call_2", "{}"), call("fc_3", "call_3", "{}")];
    let answers = |of: &[usize]| -> Vec<Value> {
        let outputs = of.iter().map(|n| output(&format!("call_{n}"), "done"));
        said.iter().cloned().chain(outputs).collect()
    };
    for (answered, plan) in [
        (&[1, 2, 3][..], is("delta", "3")),
        (&[3, 1, 2], is("delta", "3")),
        (&[1, 3], is("full", "call-unanswered")),
        (&[2], is("full", "call-unanswered")),
    ] {
        assert_eq!(second(&said, &answers(answered)).await, plan, "{answered:?}");
    }
    // The user speaks up before all tools have answered.
    let next = [&said[..], &[output("call_1", "done"), user("stop")]].concat();
    assert_eq!(second(&said, &next).await, is("full", "call-unanswered"));
}

#[tokio::test]
async fn f12_sub_agents_of_one_session_keep_their_own_chains() {
    let mut stage = Stage::plain().await;
    let client = stage.client().with("session-id", "s").with("x-session-affinity", "s");
    let of = |role: &str, items: &[Value]| {
        let mut asked = body(items);
        asked["instructions"] = role.into();
        asked["prompt_cache_key"] = "s".into();
        asked["tools"] = json!([{"type": "function", "name": role, "parameters": {}}]);
        asked
    };
    let roles = ["plan", "write", "review"];
    let mut socket = None;
    // One task, and the same words in answer; only their thoughts, which this client drops, are each one's own.
    for role in roles {
        let asked = ask(&client, &of(role, &[user("the task")]));
        if socket.is_none() {
            socket = Some(stage.socket().await);
        }
        let socket = socket.as_mut().unwrap();
        let frame = socket.frame().await;
        let said = [reasoning(&format!("rs_{role}"), role), message(&format!("msg_{role}"), "Sure.")];
        socket.answer(&frame, &format!("resp_{role}"), &said).await;
        asked.await.unwrap();
    }
    let mut socket = socket.unwrap();
    for role in roles {
        let items = [user("the task"), message(&format!("msg_{role}"), "Sure."), user("go")];
        let asked = ask(&client, &of(role, &items));
        let frame = socket.frame().await;
        assert_eq!(
            (&frame["previous_response_id"], &frame["instructions"]),
            (&json!(format!("resp_{role}")), &json!(role))
        );
        socket.answer(&frame, &format!("resp_{role}_2"), &[]).await;
        asked.await.unwrap();
    }
    stage.assert_quiet();
}

#[tokio::test]
async fn f13_twins_that_differ_in_their_first_words_only_never_mix() {
    let world = World::plain().await;
    let run = |client: crate::http::Client, name: &'static str| async move {
        let mut agent = Agent::new(client.with("session-id", "one")).set(&json!({"prompt_cache_key": "one"}));
        let mut turns =
            agent.run(&format!("Look at {name}. [sim calls=2 reasoning=1 text=20 args=20]")).await;
        turns.extend(agent.run("Go on. [sim text=20]").await);
        turns
    };
    world.slow();
    let twins = ["left", "right"].map(|name| tokio::spawn(run(world.proxied(), name)));
    world.in_flight(2).await;
    world.fast();
    for (twin, name) in twins.into_iter().zip(["left", "right"]) {
        let turns = twin.await.unwrap();
        assert_same_contexts(&run(world.direct(), name).await, &turns);
        assert!(turns[1..].iter().all(|turn| turn.told().plan() == ("delta", "exact")));
    }
    world.assert_lawful();
}

#[tokio::test]
async fn f14_a_field_added_to_what_was_sent_goes_up_with_everything() {
    let mut stage = Stage::plain().await;
    let done = output("call_1", "done");
    let first = [user("one"), call("fc_1", "call_1", "{}"), done.clone()];
    let said = message("msg_1", "well");
    let mut socket = after(&mut stage, &first, std::slice::from_ref(&said)).await;
    for (name, value) in
        [("metadata", json!({"took_ms": 12})), ("x_passthrough", json!("late")), ("name", json!("shell"))]
    {
        let mut late = done.clone();
        late[name] = value;
        let items = [user("one"), call("fc_1", "call_1", "{}"), late, said.clone(), user("two")];
        let (frame, told) = turn(&stage, &mut socket, &items, "resp_x", &[]).await;
        assert_eq!((told.plan(), &frame["input"]), (("full", "history-changed"), &json!(items)), "{name}");
    }
}

#[tokio::test]
async fn f15_the_parent_of_a_history_is_continued_not_what_the_socket_did_last() {
    for profile in [ProfileName::Openai, ProfileName::Azure] {
        let lanes = profile == ProfileName::Openai;
        let world = World::start(
            |settings| {
                settings.profile = profile;
                settings.limits.sockets_per_credential = 1;
            },
            |script| {
                if !lanes {
                    script.limits = tailwire::sim::script::Limits::one_in_flight();
                }
            },
        )
        .await;
        let mut agents = ["older", "newer"].map(|topic| (topic, Agent::new(world.proxied())));
        // In turns on one socket; each goes on from what it was told, also one that goes back on its own steps.
        for round in 0..3 {
            for (topic, agent) in &mut agents {
                if round == 2 {
                    agent.history.truncate(2);
                }
                let turn = agent.run(&format!("{topic} {round} [sim text=30]")).await.remove(0);
                let direct = world.direct().send(Method::POST, "/v1/responses", turn.request.clone()).await;
                assert_eq!(direct.response()["sim"], turn.response["sim"], "{topic} {round}");
                if lanes && round == 1 {
                    assert_eq!(turn.told().plan(), ("delta", "exact"));
                }
            }
        }
        assert_eq!(world.ledger().read(|book| book.upgrades_granted), 1);
        world.assert_lawful();
    }
}

#[tokio::test]
async fn f16_two_answers_to_one_history_are_continued_each_by_its_own() {
    let mut stage = Stage::plain().await;
    let asked = body(&[user("one")]);
    let turns = [ask(&stage.client(), &asked), ask(&stage.client(), &asked)];
    let mut socket = stage.socket().await;
    let frames = [socket.frame().await, socket.frame().await];
    for (frame, id) in frames.iter().zip(["a", "b"]) {
        socket.begin(frame, &format!("resp_{id}")).await;
    }
    // The first to begin is the last to end.
    for (frame, id) in frames.iter().zip(["a", "b"]).rev() {
        let said = [message(&format!("msg_{id}"), &format!("I am {id}"))];
        socket.done(frame, &said).await;
        socket.finish(frame, &format!("resp_{id}"), "completed", &said).await;
    }
    for turn in turns {
        assert_eq!(turn.await.unwrap().status, 200);
    }
    // Each by its own; and one that was continued already is not the latest of its lane any more.
    for (id, expected) in [("a", "delta"), ("b", "delta"), ("a", "full")] {
        let said = message(&format!("msg_{id}"), &format!("I am {id}"));
        let (frame, told) =
            turn(&stage, &mut socket, &[user("one"), said, user("go on")], &format!("resp_{id}_2"), &[])
                .await;
        assert_eq!(told.plan, expected, "{id}: {}", told.why);
        let anchor = if expected == "delta" { json!(format!("resp_{id}")) } else { Value::Null };
        assert_eq!(frame["previous_response_id"], anchor);
    }
}

#[tokio::test]
async fn f17_a_session_that_switches_models_is_right_each_time_and_chains_where_it_stays() {
    let world = World::start(|settings| settings.limits.sockets_per_credential = 2, |_| ()).await;
    let mut agent = Agent::new(world.proxied());
    // More switches than a socket has lanes.
    for round in 0..40 {
        agent.change(&json!({"model": if round % 2 == 0 { "gpt-sim" } else { "gpt-sim-mini" }}));
        for again in [false, true] {
            let turn = agent.run(&format!("round {round} {again} [sim text=9]")).await.remove(0);
            let direct = world.direct().send(Method::POST, "/v1/responses", turn.request.clone()).await;
            assert_eq!(direct.response()["sim"], turn.response["sim"], "{round}");
            assert_eq!(turn.told().plan, if again { "delta" } else { "full" }, "{round}: {:?}", turn.told());
        }
    }
    assert!(world.ledger().read(|book| book.upgrades_granted) <= 2);
    world.assert_lawful();
}

#[tokio::test]
async fn f18_items_told_one_by_one_are_the_output_though_the_last_event_has_none() {
    for (stream, last) in [(false, json!([])), (true, json!([])), (false, Value::Null), (true, Value::Null)] {
        let mut stage = Stage::plain().await;
        let said = [reasoning("rs_1", "blob"), call("fc_1", "call_1", "{}")];
        let mut asked = body(&[user("one")]);
        asked["stream"] = stream.into();
        let pending = ask(&stage.client(), &asked);
        let mut socket = stage.socket().await;
        let frame = socket.frame().await;
        socket.begin(&frame, "resp_0").await;
        socket.done(&frame, &said).await;
        let mut response = crate::peer::response("resp_0", "completed", &[]);
        response["output"] = last;
        socket.say(&frame, json!({"type": "response.completed", "response": response})).await;
        assert_eq!(pending.await.unwrap().response()["output"], json!(said));
        let items = [user("one"), said[0].clone(), said[1].clone(), output("call_1", "done")];
        let (frame, told) = turn(&stage, &mut socket, &items, "resp_1", &[]).await;
        assert_eq!((told.plan(), &frame["input"]), (("delta", "exact"), &json!([items[3]])));
    }
}

#[tokio::test]
async fn f19_an_answer_of_two_accounts_loses_no_call_and_is_not_continued() {
    let (text, tool) = (message("msg_1", "working"), call("fc_1", "call_1", "{}"));
    let renamed = call("fc_2", "call_2", "{}");
    for (last, given) in [
        // The call is missing; it is another call.
        (vec![text.clone()], vec![text.clone(), tool.clone()]),
        (vec![text.clone(), renamed.clone()], vec![text.clone(), renamed]),
    ] {
        let mut stage = Stage::plain().await;
        let pending = ask(&stage.client(), &body(&[user("one")]));
        let mut socket = stage.socket().await;
        let frame = socket.frame().await;
        socket.begin(&frame, "resp_0").await;
        socket.done(&frame, &[text.clone(), tool.clone()]).await;
        socket.finish(&frame, "resp_0", "completed", &last).await;
        assert_eq!(pending.await.unwrap().response()["output"], json!(given));
        for answered in ["call_1", "call_2"] {
            let mut items = vec![user("one"), text.clone(), tool.clone(), output(answered, "done")];
            items[2]["call_id"] = answered.into();
            let (frame, told) = turn(&stage, &mut socket, &items, "resp_1", &[]).await;
            assert_eq!((told.plan.as_str(), &frame["previous_response_id"]), ("full", &Value::Null));
        }
    }
}

#[tokio::test]
async fn f20_f21_nothing_is_added_to_what_is_new() {
    // A client that chains by itself: its outputs, and no call of ours beside them.
    let mut stage = Stage::plain().await;
    let mut first = body(&[user("one")]);
    first["store"] = true.into();
    let asked = ask(&stage.client(), &first);
    let mut socket = stage.socket().await;
    let frame = socket.frame().await;
    socket.answer(&frame, "resp_0", &[message("msg_0", "hm"), call("fc_1", "call_1", "{}")]).await;
    asked.await.unwrap();
    let next = json!({"model": "m", "previous_response_id": "resp_0", "input": [output("call_1", "done")]});
    let asked = ask(&stage.client(), &next);
    let frame = socket.frame().await;
    assert_eq!((&frame["previous_response_id"], &frame["input"]), (&json!("resp_0"), &next["input"]));
    socket.answer(&frame, "resp_1", &[]).await;
    asked.await.unwrap();
    // A client that sends all: the anchor stands for what was said, and nothing of that goes with it.
    let said = [message("msg_0", "hm"), call("fc_1", "call_1", "{}")];
    let next = [&said[..], &[output("call_1", "done"), user("and?")]].concat();
    assert_eq!(second(&said, &next).await, is("delta", "2"));
}
