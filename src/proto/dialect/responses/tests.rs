//! Golden text: socket events in, REST events out.

use bytes::Bytes;

use super::*;

fn event(text: &str) -> Event {
    Event::parse(Bytes::copy_from_slice(text.as_bytes())).expect(text)
}

/// Each line in is an event; each line out is one event's data.
fn check(input: &[&str], expected: &[&str]) {
    let mut restorer = Restorer::new(None);
    let mut out = Vec::new();
    for text in input {
        restorer.write(&event(text), &mut out);
    }
    let frames = sse::Decoder::default().push(&out).expect("sse");
    let data: Vec<&str> = frames.iter().map(|frame| frame.data.as_str()).collect();
    assert_eq!(data, expected);
    for frame in &frames {
        let value: serde_json::Value = serde_json::from_str(&frame.data).expect("json");
        assert_eq!(value["type"], frame.name.as_str());
    }
}

#[test]
fn f83_lane_names_go_the_anchor_comes_back_and_numbers_start_at_0() {
    check(
        &[
            r#"{"type":"response.created","sequence_number":7,"stream_id":"tw0","response":{"id":"r","previous_response_id":"resp_x","output":[]}}"#,
            r#"{"type":"response.in_progress","stream_id":"tw0","sequence_number":8,"response":{"id":"r","previous_response_id":"resp_x","output":[]}}"#,
            r#"{"type":"response.never_heard_of","x":[1, 2],"stream_id":"tw0","sequence_number":9}"#,
            r#"{"type":"response.completed","stream_id":"tw0","sequence_number":12,"response":{"id":"r","previous_response_id":"resp_x","output":[]}}"#,
        ],
        &[
            r#"{"type":"response.created","sequence_number":0,"response":{"id":"r","previous_response_id":null,"output":[]}}"#,
            r#"{"type":"response.in_progress","sequence_number":1,"response":{"id":"r","previous_response_id":null,"output":[]}}"#,
            r#"{"type":"response.never_heard_of","x":[1, 2],"sequence_number":2}"#,
            r#"{"type":"response.completed","sequence_number":3,"response":{"id":"r","previous_response_id":null,"output":[]}}"#,
        ],
    );
}

#[test]
fn f18_a_sparse_stream_is_filled_in_order_and_its_output_rebuilt() {
    check(
        &[
            r#"{"type":"response.created","sequence_number":0,"response":{"id":"r","status":"in_progress"}}"#,
            r#"{"type":"response.output_text.delta","item_id":"m","output_index":0,"content_index":0,"delta":"a"}"#,
            r#"{"type":"response.output_text.delta","item_id":"m","output_index":0,"content_index":0,"delta":"b"}"#,
            r#"{"type":"response.output_item.done","output_index":0,"item":{"id":"m","type":"message"}}"#,
            r#"{"type":"response.completed","response":{"id":"r","output":[]}}"#,
        ],
        &[
            r#"{"type":"response.created","sequence_number":0,"response":{"id":"r","status":"in_progress"}}"#,
            r#"{"type":"response.in_progress","sequence_number":1,"response":{"id":"r","status":"in_progress"}}"#,
            r#"{"type":"response.output_item.added","sequence_number":2,"output_index":0,"item":{"id":"m","type":"message","status":"in_progress","role":"assistant","content":[]}}"#,
            r#"{"type":"response.content_part.added","sequence_number":3,"item_id":"m","output_index":0,"content_index":0,"part":{"type":"output_text","text":"","annotations":[],"logprobs":[]}}"#,
            r#"{"type":"response.output_text.delta","item_id":"m","output_index":0,"content_index":0,"delta":"a","sequence_number":4}"#,
            r#"{"type":"response.output_text.delta","item_id":"m","output_index":0,"content_index":0,"delta":"b","sequence_number":5}"#,
            r#"{"type":"response.output_item.done","output_index":0,"item":{"id":"m","type":"message"},"sequence_number":6}"#,
            r#"{"type":"response.completed","response":{"id":"r","output":[{"id":"m","type":"message"}]},"sequence_number":7}"#,
        ],
    );
}

#[test]
fn a_summary_s_part_is_announced_like_a_message_s() {
    check(
        &[
            r#"{"type":"response.created","response":{"id":"r"}}"#,
            r#"{"type":"response.in_progress","response":{"id":"r"}}"#,
            r#"{"type":"response.reasoning_summary_text.delta","item_id":"s","output_index":0,"summary_index":0,"delta":"a"}"#,
            r#"{"type":"response.reasoning_summary_text.done","item_id":"s","output_index":0,"summary_index":0,"text":"a"}"#,
        ],
        &[
            r#"{"type":"response.created","response":{"id":"r"},"sequence_number":0}"#,
            r#"{"type":"response.in_progress","response":{"id":"r"},"sequence_number":1}"#,
            r#"{"type":"response.output_item.added","sequence_number":2,"output_index":0,"item":{"id":"s","type":"reasoning","summary":[]}}"#,
            r#"{"type":"response.reasoning_summary_part.added","sequence_number":3,"item_id":"s","output_index":0,"summary_index":0,"part":{"type":"summary_text","text":""}}"#,
            r#"{"type":"response.reasoning_summary_text.delta","item_id":"s","output_index":0,"summary_index":0,"delta":"a","sequence_number":4}"#,
            r#"{"type":"response.reasoning_summary_text.done","item_id":"s","output_index":0,"summary_index":0,"text":"a","sequence_number":5}"#,
        ],
    );
}

#[test]
fn a_response_may_fail_before_it_was_in_progress() {
    check(
        &[
            r#"{"type":"response.created","response":{"id":"r"}}"#,
            r#"{"type":"response.failed","response":{"id":"r","output":[]}}"#,
        ],
        &[
            r#"{"type":"response.created","response":{"id":"r"},"sequence_number":0}"#,
            r#"{"type":"response.failed","response":{"id":"r","output":[]},"sequence_number":1}"#,
        ],
    );
}

#[test]
fn arguments_wait_for_the_name_of_their_call() {
    check(
        &[
            r#"{"type":"response.created","response":{"id":"r"}}"#,
            r#"{"type":"response.in_progress","response":{"id":"r"}}"#,
            r#"{"type":"response.function_call_arguments.delta","item_id":"f","output_index":0,"delta":"{}"}"#,
            r#"{"type":"response.output_item.done","output_index":0,"item":{"id":"f","type":"function_call","name":"n","arguments":"{}","status":"completed"}}"#,
            r#"{"type":"response.completed","response":{"id":"r","output":null}}"#,
        ],
        &[
            r#"{"type":"response.created","response":{"id":"r"},"sequence_number":0}"#,
            r#"{"type":"response.in_progress","response":{"id":"r"},"sequence_number":1}"#,
            r#"{"type":"response.output_item.added","sequence_number":2,"output_index":0,"item":{"id":"f","type":"function_call","name":"n","arguments":"","status":"in_progress"}}"#,
            r#"{"type":"response.function_call_arguments.delta","item_id":"f","output_index":0,"delta":"{}","sequence_number":3}"#,
            r#"{"type":"response.output_item.done","output_index":0,"item":{"id":"f","type":"function_call","name":"n","arguments":"{}","status":"completed"},"sequence_number":4}"#,
            r#"{"type":"response.completed","response":{"id":"r","output":[{"id":"f","type":"function_call","name":"n","arguments":"{}","status":"completed"}]},"sequence_number":5}"#,
        ],
    );
}

#[test]
fn past_the_bound_on_what_is_held_nothing_overtakes_anything() {
    let delta = |index: usize, n: usize, bytes: usize| {
        let pad = "x".repeat(bytes);
        format!(
            r#"{{"type":"response.function_call_arguments.delta","item_id":"f{index}","output_index":{index},"delta":"{n} {pad}"}}"#
        )
    };
    let mut input = vec![r#"{"type":"response.in_progress","response":{"id":"r"}}"#.to_owned()];
    // Two calls in turn, 1.2 MB of them before either is named; then one of them is.
    input.extend((0..24).map(|n| delta(n % 2, n, 50_000)));
    input.push(
        r#"{"type":"response.output_item.done","output_index":0,"item":{"id":"f0","type":"function_call","name":"n"}}"#
            .to_owned(),
    );
    input.push(delta(1, 24, 10));
    let (mut restorer, mut out, mut held) = (Restorer::new(None), Vec::new(), 0);
    for text in &input {
        restorer.write(&event(text), &mut out);
        held = held.max(restorer.setup.held_bytes());
    }
    assert!(held > 900_000 && held <= 1 << 20, "{held}");
    let frames = sse::Decoder::default().push(&out).expect("sse");
    let number = |data: &str| {
        let value: serde_json::Value = serde_json::from_str(data).expect("json");
        value["delta"].as_str().map(|delta| delta.split(' ').next().unwrap_or_default().parse::<usize>())
    };
    let order: Vec<usize> =
        frames.iter().filter_map(|frame| number(&frame.data)).map(|n| n.expect("a number")).collect();
    assert_eq!(order, (0..25).collect::<Vec<_>>());
    let done = frames.iter().position(|frame| frame.name == "response.output_item.done");
    assert_eq!(done, Some(frames.len() - 2), "as the socket sent them");
}

#[test]
fn a_response_of_more_parts_than_are_remembered_goes_through_as_it_is() {
    let mut restorer = Restorer::new(None);
    let mut out = Vec::new();
    let part = |n: usize| {
        event(&format!(
            r#"{{"type":"response.output_text.delta","item_id":"m","output_index":0,"content_index":{n},"delta":"x"}}"#
        ))
    };
    let mut sizes = Vec::new();
    for n in 0..70_000 {
        out.clear();
        restorer.write(&part(n), &mut out);
        sizes.push(sse::Decoder::default().push(&out).expect("sse").len());
    }
    assert_eq!((sizes[1], sizes[69_999]), (2, 1), "announced at first; as it is past the bound");
    assert!(sizes.iter().filter(|size| **size == 2).count() <= 1 << 16);
}

#[test]
fn items_told_only_at_the_end_are_announced_before_it() {
    check(
        &[
            r#"{"type":"response.created","response":{"id":"r"}}"#,
            r#"{"type":"response.completed","response":{"id":"r","output":[{"id":"m","type":"message","status":"completed"}]}}"#,
        ],
        &[
            r#"{"type":"response.created","response":{"id":"r"},"sequence_number":0}"#,
            r#"{"type":"response.in_progress","sequence_number":1,"response":{"id":"r"}}"#,
            r#"{"type":"response.output_item.added","sequence_number":2,"output_index":0,"item":{"id":"m","type":"message","status":"in_progress"}}"#,
            r#"{"type":"response.output_item.done","sequence_number":3,"output_index":0,"item":{"id":"m","type":"message","status":"completed"}}"#,
            r#"{"type":"response.completed","response":{"id":"r","output":[{"id":"m","type":"message","status":"completed"}]},"sequence_number":4}"#,
        ],
    );
}

#[test]
fn a_pretty_printed_frame_becomes_one_line() {
    let mut restorer = Restorer::new(Some("resp_mine"));
    let mut out = Vec::new();
    restorer.write(
        &event("{\n \"type\": \"response.created\",\r\n \"response\": {\n  \"previous_response_id\": \"x\",\n \"a\": [1,\n2] }\n}"),
        &mut out,
    );
    let text = String::from_utf8(out).unwrap();
    assert_eq!(
        text,
        "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"previous_response_id\":\"resp_mine\",\"a\":[1,2]},\"sequence_number\":0}\n\n"
    );
}

#[test]
fn f64_an_error_in_mid_stream_takes_the_flat_form() {
    let error = ProviderError::of_event(&event(
        r#"{"type":"error","status":500,"error":{"type":"server_error","code":null,"message":"boom"}}"#,
    ));
    let mut out = Vec::new();
    Restorer::new(None).write_error(&error, &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "event: error\ndata: {\"type\":\"error\",\"code\":\"server_error\",\"message\":\"boom\",\"param\":null,\"sequence_number\":0}\n\n"
    );
}

#[test]
fn collecting_gives_the_object_of_the_terminal_event() {
    let mut restorer = Restorer::new(None);
    restorer.hear(&event(r#"{"type":"response.output_item.done","output_index":1,"item":{"id":"b"}}"#));
    restorer.hear(&event(r#"{"type":"response.output_item.done","output_index":0,"item":{"id":"a"}}"#));
    let terminal = event(r#"{"type":"response.completed","response":{"id":"r","previous_response_id":"x"}}"#);
    assert_eq!(
        restorer.body(&terminal).as_deref(),
        Some(r#"{"id":"r","previous_response_id":null,"output":[{"id":"a"},{"id":"b"}]}"#)
    );
}

#[test]
fn f19_a_json_client_loses_no_finished_call_to_a_shorter_last_event() {
    let call = r#"{"id":"fc_1","type":"function_call","call_id":"call_1","name":"n","arguments":"{}"}"#;
    let text = r#"{"id":"msg_1","type":"message","role":"assistant","content":[]}"#;
    let mut restorer = Restorer::new(None);
    for (n, item) in [text, call].iter().enumerate() {
        restorer.hear(&event(&format!(
            r#"{{"type":"response.output_item.done","output_index":{n},"item":{item}}}"#
        )));
    }
    let last = |output: &str| {
        event(&format!(r#"{{"type":"response.completed","response":{{"id":"r","output":[{output}]}}}}"#))
    };
    let body = |output: &str| restorer.body(&last(output)).unwrap_or_default();
    assert_eq!(body(text), format!(r#"{{"id":"r","output":[{text},{call}]}}"#));
    // As many, under other ids: the event's own account.
    let renamed = text.replace("msg_1", "msg_2");
    assert_eq!(body(&format!("{renamed},{call}")), format!(r#"{{"id":"r","output":[{renamed},{call}]}}"#));
}

#[test]
fn a_response_of_no_members_stays_one() {
    check(
        &[r#"{"type":"response.created","response":{}}"#, r#"{"type":"response.failed"}"#],
        &[
            r#"{"type":"response.created","response":{},"sequence_number":0}"#,
            r#"{"type":"response.failed","sequence_number":1}"#,
        ],
    );
}
