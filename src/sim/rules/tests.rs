//! The rules, one sentence each, on a connection without a socket.

use std::time::Duration;

use serde_json::json;

use super::*;

struct World {
    account: Account,
    limits: Limits,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self { account: Account::new([7; 32]), limits: Limits::default(), now: Instant::now() }
    }

    fn connection(&self, credential: &str) -> Connection {
        Connection::new(self.now, credential.repeat(64))
    }

    fn ask(&mut self, connection: &mut Connection, body: &Value) -> Result<TurnId, Value> {
        let mut frame = json!({"type": "response.create", "model": "m", "store": false});
        frame.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let received = connection.receive(self.now, &self.limits, &mut self.account, &frame.to_string());
        received.map(|received| received.turn)
    }

    fn step(&mut self, connection: &mut Connection, turn: TurnId) -> Emission {
        connection
            .advance(&self.limits, &mut self.account, Style::default(), 1, turn)
            .expect("the turn is in flight")
    }

    /// Runs a turn to its end.
    fn finish(&mut self, connection: &mut Connection, turn: TurnId) -> Value {
        loop {
            let emission = self.step(connection, turn);
            if emission.ending.is_some() {
                return emission.frame;
            }
        }
    }

    fn run(&mut self, connection: &mut Connection, body: &Value) -> Value {
        match self.ask(connection, body) {
            Ok(turn) => self.finish(connection, turn),
            Err(frame) => frame,
        }
    }
}

fn id(frame: &Value) -> &str {
    assert_eq!(frame["type"], "response.completed", "{frame}");
    frame["response"]["id"].as_str().unwrap()
}

fn code(frame: &Value) -> &str {
    assert_eq!(frame["type"], "error", "{frame}");
    frame["error"]["code"].as_str().unwrap_or_default()
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

#[test]
fn a_lane_keeps_its_latest_response_only() {
    let mut world = World::new();
    let mut connection = world.connection("a");
    let first = world.run(&mut connection, &json!({"input": "one"}));
    let next = json!({"input": "two", "previous_response_id": id(&first)});
    let second = world.run(&mut connection, &next);
    id(&second);
    let refused = world.run(&mut connection, &next);
    assert_eq!(code(&refused), "previous_response_not_found");
    assert_eq!(refused["status"], 400);
    assert_eq!(refused["error"]["param"], "previous_response_id");
    assert_eq!(refused["error"]["message"], format!("Previous response with id '{}' not found.", id(&first)));
    id(&world.run(&mut connection, &json!({"input": "three", "previous_response_id": id(&second)})));
    assert_eq!(world.account.drain_violations(), []);
}

#[test]
fn unstored_responses_live_on_their_own_connection_and_stored_ones_anywhere() {
    let mut world = World::new();
    let (mut one, mut two) = (world.connection("a"), world.connection("a"));
    let unstored = world.run(&mut one, &json!({"input": "x"}));
    let refused = world.run(&mut two, &json!({"input": "y", "previous_response_id": id(&unstored)}));
    assert_eq!(code(&refused), "previous_response_not_found");
    let stored = world.run(&mut one, &json!({"input": "x", "store": true}));
    id(&world.run(&mut two, &json!({"input": "y", "previous_response_id": id(&stored)})));
    assert_eq!(world.account.drain_violations(), []);
}

#[test]
fn another_credentials_id_is_not_found_and_put_on_record() {
    let mut world = World::new();
    let (mut one, mut two) = (world.connection("a"), world.connection("b"));
    let stored = world.run(&mut one, &json!({"input": "x", "store": true}));
    let refused = world.run(&mut two, &json!({"input": "y", "previous_response_id": id(&stored)}));
    assert_eq!(code(&refused), "previous_response_not_found");
    let violation = Violation { rule: "foreign id", about: id(&stored).to_owned() };
    assert_eq!(world.account.drain_violations(), [violation]);
}

#[test]
fn a_failed_continuation_evicts_and_a_failed_fork_does_not() {
    let mut world = World::new();
    let mut connection = world.connection("a");
    let first = world.run(&mut connection, &json!({"input": "x", "stream_id": "main"}));
    let bad = json!([{"type": "function_call_output", "call_id": "call_none", "output": "?"}]);
    let fork = json!({"input": bad, "previous_response_id": id(&first), "stream_id": "fork"});
    let refused = world.run(&mut connection, &fork);
    assert_eq!(refused["stream_id"], "fork");
    assert!(refused["error"]["message"].as_str().unwrap().starts_with("No tool call found"));
    let second = world.run(
        &mut connection,
        &json!({"input": "y", "previous_response_id": id(&first), "stream_id": "main"}),
    );
    let failing = json!({"input": bad, "previous_response_id": id(&second), "stream_id": "main"});
    world.run(&mut connection, &failing);
    let after = world.run(
        &mut connection,
        &json!({"input": "z", "previous_response_id": id(&second), "stream_id": "main"}),
    );
    assert_eq!(code(&after), "previous_response_not_found");
    assert_eq!(after["stream_id"], "main");
}

#[test]
fn a_new_chain_takes_the_place_of_the_old_one_even_if_it_fails() {
    let mut world = World::new();
    for stored in [false, true] {
        let mut connection = world.connection("a");
        let first = world.run(&mut connection, &json!({"input": "x", "stream_id": "main", "store": stored}));
        let turn = world.ask(&mut connection, &json!({"input": "y", "stream_id": "main"})).unwrap();
        world.step(&mut connection, turn);
        let spoil = Spoil::Failed { code: "server_error", message: "broke".to_owned() };
        connection.spoil(&world.limits, &mut world.account, Style::default(), 1, (turn, &spoil)).unwrap();
        let next = json!({"input": "z", "previous_response_id": id(&first), "stream_id": "main"});
        let after = world.run(&mut connection, &next);
        assert_eq!(after["type"] == "response.completed", stored, "{after}");
    }
    assert_eq!(world.account.drain_violations(), []);
}

#[test]
fn a_fork_is_for_a_lane_that_is_new() {
    let mut world = World::new();
    let mut connection = world.connection("a");
    let first = world.run(&mut connection, &json!({"input": "x", "stream_id": "main"}));
    let fork = |name: &str| json!({"input": "y", "previous_response_id": id(&first), "stream_id": name});
    id(&world.run(&mut connection, &fork("new")));
    assert_eq!(world.account.drain_violations(), []);
    id(&world.run(&mut connection, &fork("new")));
    let violation = Violation { rule: "fork onto a used lane", about: id(&first).to_owned() };
    assert_eq!(world.account.drain_violations(), [violation]);
    // What is stored needs no lane's memory.
    let stored = world.run(&mut connection, &json!({"input": "x", "stream_id": "main", "store": true}));
    let next = json!({"input": "y", "previous_response_id": id(&stored), "stream_id": "new"});
    id(&world.run(&mut connection, &next));
    assert_eq!(world.account.drain_violations(), []);
}

#[test]
fn a_turn_that_fails_midway_evicts_and_is_not_continuable() {
    let spoils = [
        Spoil::Failed { code: "server_error", message: "broke".to_owned() },
        Spoil::Incomplete("max_output_tokens"),
    ];
    for spoil in spoils {
        let mut world = World::new();
        let mut connection = world.connection("a");
        let first = world.run(&mut connection, &json!({"input": "x"}));
        let next = json!({"input": "y", "previous_response_id": id(&first)});
        let turn = world.ask(&mut connection, &next).unwrap();
        let created = world.step(&mut connection, turn);
        let emission =
            connection.spoil(&world.limits, &mut world.account, Style::default(), 1, (turn, &spoil)).unwrap();
        assert!(emission.ending.is_some());
        for lost in [id(&first), created.frame["response"]["id"].as_str().unwrap()] {
            let refused = world.run(&mut connection, &json!({"input": "y", "previous_response_id": lost}));
            assert_eq!(code(&refused), "previous_response_not_found");
        }
    }
}

#[test]
fn memory_changes_with_the_terminal_event_and_forks_must_begin_before() {
    let mut world = World::new();
    let mut connection = world.connection("a");
    let first = world.run(&mut connection, &json!({"input": "x", "stream_id": "main"}));
    let parent = id(&first);
    let fork = |name: &str| json!({"input": name, "previous_response_id": parent, "stream_id": name});
    let in_time = world.ask(&mut connection, &fork("early")).unwrap();
    let too_late = world.ask(&mut connection, &fork("late")).unwrap();
    let advance = world.ask(&mut connection, &fork("main")).unwrap();
    world.step(&mut connection, in_time);
    id(&world.finish(&mut connection, advance));
    id(&world.finish(&mut connection, in_time));
    assert_eq!(code(&world.finish(&mut connection, too_late)), "previous_response_not_found");
}

#[test]
fn lanes_are_named_counted_and_fifo() {
    let mut world = World::new();
    let mut connection = world.connection("a");
    for name in ["", "a b", "ü", &"x".repeat(257)] {
        let refused = world.ask(&mut connection, &json!({"input": "x", "stream_id": name})).unwrap_err();
        assert_eq!(code(&refused), "invalid_stream_id");
        assert_eq!(refused["stream_id"], Value::Null);
    }
    for number in 1..=32 {
        id(&world.run(&mut connection, &json!({"input": "x", "stream_id": format!("agent_{number}")})));
    }
    let refused = world.ask(&mut connection, &json!({"input": "x", "stream_id": "agent_33"})).unwrap_err();
    assert_eq!(code(&refused), "websocket_stream_limit_reached");
    assert_eq!(refused["stream_id"], "agent_33");
    id(&world.run(&mut connection, &json!({"input": "x", "stream_id": "agent_1"})));
    id(&world.run(&mut connection, &json!({"input": "x"})));

    let first = world.ask(&mut connection, &json!({"input": "x"})).unwrap();
    let second = world.ask(&mut connection, &json!({"input": "y"})).unwrap();
    assert_eq!(connection.in_flight().collect::<Vec<_>>(), [first]);
    world.finish(&mut connection, first);
    assert_eq!(connection.in_flight().collect::<Vec<_>>(), [second]);
}

#[test]
fn the_seventeenth_in_flight_waits() {
    let mut world = World::new();
    let mut connection = world.connection("a");
    let turns: Vec<_> = (0..18)
        .map(|lane| {
            world.ask(&mut connection, &json!({"input": "x", "stream_id": format!("l{lane}")})).unwrap()
        })
        .collect();
    assert_eq!(connection.in_flight().collect::<Vec<_>>(), turns[..16]);
    assert_eq!(connection.waiting(), 2);
    assert!(connection.advance(&world.limits, &mut world.account, Style::default(), 1, turns[16]).is_none());
    world.finish(&mut connection, turns[3]);
    assert_eq!(connection.in_flight().last(), Some(turns[16]));
}

#[test]
fn an_old_connection_and_one_without_lanes() {
    let mut world = World::new();
    let mut connection = world.connection("a");
    world.now += Duration::from_secs(3599);
    let first = world.run(&mut connection, &json!({"input": "x"}));
    world.now += Duration::from_secs(1);
    let refused = world.run(&mut connection, &json!({"input": "y", "previous_response_id": id(&first)}));
    assert_eq!(code(&refused), "websocket_connection_limit_reached");

    world.limits = Limits::one_in_flight();
    let mut connection = world.connection("a");
    let refused = world.run(&mut connection, &json!({"input": "x", "stream_id": "a"}));
    assert_eq!(refused["error"]["message"], "Unsupported parameter: stream_id");
    id(&world.run(&mut connection, &json!({"input": "x"})));
}

#[test]
fn what_may_not_be_sent() {
    let mut world = World::new();
    let mut connection = world.connection("a");
    let mut raw = |text: &str| {
        connection.receive(world.now, &world.limits, &mut world.account, text).unwrap_err()["error"].clone()
    };
    assert_eq!(raw("{")["type"], "invalid_request_error");
    assert_eq!(raw(r#"{"type":"response.cancel"}"#)["param"], "type");
    let refused = world.run(&mut connection, &json!({"input": "x", "background": true}));
    assert_eq!(refused["error"]["param"], "background");
    id(&world.run(&mut connection, &json!({"input": "x", "stream": true})));
    let rules: Vec<_> = world.account.drain_violations().iter().map(|violation| violation.rule).collect();
    assert_eq!(rules, ["client event", "stream"]);
}

#[test]
fn an_overlapping_suffix_is_a_duplicate() {
    let mut world = World::new();
    let mut connection = world.connection("a");
    let first = world.run(&mut connection, &json!({"input": "[sim calls=1 reasoning=1]"}));
    let call = first["response"]["output"][1].clone();
    let output = json!({"type": "function_call_output", "call_id": call["call_id"], "output": "ok"});
    let again = json!({"input": [call, output], "previous_response_id": id(&first)});
    assert_eq!(code(&world.run(&mut connection, &again)), "duplicate_item");
    assert_eq!(world.account.drain_violations()[0].rule, "duplicate");
}

#[test]
fn a_warm_up_produces_nothing_and_can_be_continued() {
    let mut world = World::new();
    let mut connection = world.connection("a");
    let warm = world.run(&mut connection, &json!({"input": [user("hi")], "generate": false}));
    assert_eq!(warm["response"]["output"], json!([]));
    let next = world.run(&mut connection, &json!({"input": [], "previous_response_id": id(&warm)}));
    let whole = world.run(&mut connection, &json!({"input": [user("hi")]}));
    assert_eq!(next["response"]["sim"], whole["response"]["sim"]);
}

#[test]
fn a_chain_and_the_whole_history_are_the_same_context() {
    let mut world = World::new();
    let (mut chained, mut whole) = (world.connection("a"), world.connection("a"));
    let mut history = vec![user("go [sim calls=3 parallel=2 reasoning=1 commentary=1 text=20]")];
    let mut new = history.clone();
    let mut previous = Value::Null;
    for round in 0..4 {
        let delta = world.run(&mut chained, &json!({"input": new, "previous_response_id": previous}));
        let full = world.run(&mut whole, &json!({"input": history}));
        assert_eq!(delta["response"]["sim"], full["response"]["sim"], "round {round}");
        assert_eq!(delta["response"]["usage"], full["response"]["usage"], "round {round}");
        let output = delta["response"]["output"].as_array().unwrap();
        let text = |response: &Value| {
            response["response"]["output"].as_array().unwrap().last().unwrap()["call_id"].clone()
        };
        assert_eq!(text(&delta), text(&full));
        new = output
            .iter()
            .filter(|item| item["type"] == "function_call")
            .map(|call| json!({"type": "function_call_output", "call_id": call["call_id"], "output": format!("{round}")}))
            .collect();
        if new.is_empty() {
            new.push(user("and then? [sim calls=0]"));
        }
        // As a client would: message after the calls, extra fields, arguments written anew.
        let mut echo = output.clone();
        echo.sort_by_key(|item| item["type"] == "message");
        for item in &mut echo {
            item["provider"] = json!({"x": 1});
            item["id"] = Value::Null;
            if let Some(arguments) = item["arguments"].as_str() {
                item["arguments"] = serde_json::from_str::<Value>(arguments).unwrap().to_string().into();
            }
        }
        history.extend(echo);
        history.extend(new.clone());
        previous = id(&delta).into();
    }
    assert_eq!(world.account.drain_violations(), []);
}

#[test]
fn references_resolve_from_the_store_of_the_same_credential_only() {
    let mut world = World::new();
    let (mut one, mut two) = (world.connection("a"), world.connection("b"));
    let first = world.run(&mut one, &json!({"input": "hi", "store": true}));
    let message = &first["response"]["output"][0];
    let body = json!({"input": [user("hi"), {"type": "item_reference", "id": message["id"]}, user("more")]});
    let spelled = json!({"input": [user("hi"), message, user("more")]});
    let referred = world.run(&mut one, &body);
    assert_eq!(referred["response"]["sim"], world.run(&mut one, &spelled)["response"]["sim"]);
    let refused = world.run(&mut two, &body);
    assert_eq!(refused["status"], 404);
    assert!(world.account.delete(&"a".repeat(64), id(&first)));
    assert_eq!(world.run(&mut one, &body)["status"], 404);
}

#[test]
fn http_continues_stored_responses_only() {
    let mut world = World::new();
    let mut connection = world.connection("a");
    let credential = "a".repeat(64);
    let kept = world.account.answer(&credential, &json!({"model": "m", "input": "hi"}), 1).unwrap();
    let body = json!({"input": "more", "previous_response_id": kept["id"]});
    id(&world.run(&mut connection, &body));
    let unkept = world.run(&mut connection, &json!({"input": "hi"}));
    assert_eq!(unkept["response"]["sim"], kept["sim"]);
    let body = json!({"model": "m", "input": "more", "previous_response_id": id(&unkept)});
    let refused = world.account.answer(&credential, &body, 1).unwrap_err();
    assert_eq!(refused.code, Some("previous_response_not_found"));
}

/// More than a thousand tokens of it.
fn long(seed: &str) -> Value {
    user(&format!("{seed} {} [sim text=30 reasoning=1]", "word ".repeat(1000)))
}

#[test]
fn a_context_past_its_threshold_is_compacted_whichever_way_it_came() {
    let mut world = World::new();
    let mut connection = world.connection("a");
    let management = json!([{"type": "compaction", "compact_threshold": 1000}]);
    let ask = |input: &Value, previous: &Value, lane: &str| {
        json!({"input": input, "previous_response_id": previous, "stream_id": lane,
            "context_management": management})
    };
    let turn = world.ask(&mut connection, &ask(&json!([long("a")]), &Value::Null, "chain")).unwrap();
    let mut names = Vec::new();
    let first = loop {
        let emission = world.step(&mut connection, turn);
        names.push(emission.frame["type"].as_str().unwrap().to_owned());
        if emission.ending.is_some() {
            break emission.frame;
        }
    };
    let of_item =
        ["response.output_item.added", "response.compaction.compacting", "response.output_item.done"];
    assert_eq!(names[2..5], of_item);
    let output = first["response"]["output"].as_array().unwrap();
    let kinds: Vec<_> = output.iter().map(|item| item["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["compaction", "reasoning", "message"]);

    let next = user("b [sim text=9]");
    let chained = world.run(&mut connection, &ask(&json!([next]), &first["response"]["id"], "chain"));
    let kept: Vec<Value> = [&[long("a")], &output[..], std::slice::from_ref(&next)].concat();
    for history in [&kept[..], &kept[1..]] {
        let full = world.run(&mut connection, &ask(&json!(history), &Value::Null, "full"));
        assert_eq!(full["response"]["sim"], chained["response"]["sim"]);
        assert_eq!(full["response"]["usage"], chained["response"]["usage"]);
        assert_eq!(full["response"]["output"][0]["type"], "message", "small again");
    }
    let lost = world.run(&mut connection, &ask(&json!(&kept[2..]), &Value::Null, "full"));
    assert_ne!(lost["response"]["sim"]["visible"], chained["response"]["sim"]["visible"]);
    let twice = ask(&json!([output[0], next]), &chained["response"]["id"], "chain");
    assert_eq!(code(&world.run(&mut connection, &twice)), "duplicate_item");
    assert_eq!(world.account.drain_violations().len(), 1);
}

#[test]
fn a_trigger_asks_for_a_compaction_and_nothing_else() {
    let mut world = World::new();
    let mut connection = world.connection("a");
    let input = json!([user("a"), {"type": "compaction_trigger"}]);
    let response = world.run(&mut connection, &json!({"input": input}));
    let output = response["response"]["output"].as_array().unwrap();
    assert_eq!(output.len(), 1, "{response}");
    assert_eq!(output[0]["type"], "compaction");
    let not_last = json!([{"type": "compaction_trigger"}, user("a")]);
    assert_eq!(code(&world.run(&mut connection, &json!({"input": not_last}))), "invalid_value");
    let low = json!([{"type": "compaction", "compact_threshold": 999}]);
    let refused = world.run(&mut connection, &json!({"input": "a", "context_management": low}));
    assert_eq!((code(&refused), &refused["status"]), ("invalid_value", &json!(400)));
}

#[test]
fn a_connection_may_have_a_number_of_requests() {
    let mut world = World::new();
    world.limits.requests = Some(2);
    let mut connection = world.connection("a");
    for _ in 0..2 {
        id(&world.run(&mut connection, &json!({"input": "x"})));
    }
    let refused = world.run(&mut connection, &json!({"input": "x"}));
    assert_eq!((code(&refused), &refused["status"]), ("websocket_request_limit_reached", &json!(429)));
}
