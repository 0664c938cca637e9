//! Protocol §5.3 from events to chunks, dense and sparse.

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::proto::dialect::chat::collect;

fn event(value: &Value) -> Event {
    Event::parse(Bytes::from(value.to_string())).unwrap()
}

fn response(status: &str, output: &Value) -> Value {
    json!({"id": "resp_7", "created_at": 1700.5, "model": "m", "status": status, "output": output, "service_tier": "default",
        "incomplete_details": if status == "incomplete" { json!({"reason": "max_output_tokens"}) } else { json!(null) },
        "usage": {"input_tokens": 9, "output_tokens": 4, "total_tokens": 13, "input_tokens_details": {"cached_tokens": 5},
            "output_tokens_details": {"reasoning_tokens": 3}}})
}

/// The chunks of a stream of events; the last one's output is what they are checked against.
fn chunks(framing: Framing, events: &[Value]) -> Vec<Value> {
    let mut writer = Chunks::new(framing, "chatcmpl-x", "m");
    let mut out = Vec::new();
    for value in events {
        let output = value["response"]["output"].to_string();
        writer.write(&event(value), Some(&output), &mut out);
    }
    let frames = sse::Decoder::default().push(&out).unwrap();
    let (last, chunks) = frames.split_last().unwrap();
    assert_eq!((last.name.as_str(), last.data.as_str()), ("", "[DONE]"));
    chunks.iter().map(|frame| serde_json::from_str(&frame.data).unwrap()).collect()
}

/// What an SDK makes of the deltas.
fn joined(chunks: &[Value]) -> (String, Vec<(String, String, String)>, String) {
    let (mut text, mut calls, mut reason) = (String::new(), Vec::new(), String::new());
    for chunk in chunks.iter().filter(|chunk| chunk["choices"][0].is_object()) {
        let choice = &chunk["choices"][0];
        text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let index = call["index"].as_u64().unwrap() as usize;
            let kind = if call["custom"].is_object() { "custom" } else { "function" };
            let said = if kind == "custom" { "input" } else { "arguments" };
            if index == calls.len() {
                calls.push((
                    call["id"].as_str().unwrap().into(),
                    call[kind]["name"].as_str().unwrap().into(),
                    String::new(),
                ));
                assert_eq!(call["type"], kind);
            }
            calls[index].2.push_str(call[kind][said].as_str().unwrap_or_default());
        }
        reason.push_str(choice["finish_reason"].as_str().unwrap_or_default());
    }
    (text, calls, reason)
}

fn dense() -> (Value, Vec<Value>) {
    let output = json!([
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "Héllo"}]},
        {"type": "message", "id": "msg_2", "role": "assistant", "content": [{"type": "output_text", "text": "wörlds apart"}]},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{\"a\":1}"},
        {"type": "custom_tool_call", "id": "ct_1", "call_id": "c2", "name": "g", "input": "raw"},
    ]);
    let events = vec![
        json!({"type": "response.created", "response": response("in_progress", &json!([]))}),
        json!({"type": "response.output_text.delta", "output_index": 1, "item_id": "msg_1", "content_index": 0, "delta": "Hé", "obfuscation": "zz"}),
        json!({"type": "response.output_text.delta", "output_index": 1, "item_id": "msg_1", "content_index": 0, "delta": "llo"}),
        json!({"type": "response.output_text.done", "output_index": 1, "item_id": "msg_1", "content_index": 0, "text": "Héllo"}),
        json!({"type": "response.output_item.done", "output_index": 1, "item": output[1]}),
        json!({"type": "response.output_text.delta", "output_index": 2, "item_id": "msg_2", "content_index": 0, "delta": "wörlds apart"}),
        json!({"type": "response.output_item.done", "output_index": 2, "item": output[2]}),
        json!({"type": "response.output_item.added", "output_index": 3, "item": {"type": "function_call", "call_id": "c1", "name": "f", "arguments": ""}}),
        json!({"type": "response.function_call_arguments.delta", "output_index": 3, "delta": "{\"a\":"}),
        json!({"type": "response.function_call_arguments.delta", "output_index": 3, "delta": "1}"}),
        json!({"type": "response.function_call_arguments.done", "output_index": 3, "arguments": "{\"a\":1}"}),
        json!({"type": "response.output_item.done", "output_index": 3, "item": output[3]}),
        json!({"type": "response.output_item.added", "output_index": 4, "item": {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": ""}}),
        json!({"type": "response.custom_tool_call_input.delta", "output_index": 4, "delta": "raw"}),
        json!({"type": "response.output_item.done", "output_index": 4, "item": output[4]}),
        json!({"type": "response.completed", "response": response("completed", &output)}),
    ];
    (output, events)
}

#[test]
fn whichever_events_a_socket_leaves_out_the_reply_is_the_same() {
    let (_, events) = dense();
    let whole = joined(&chunks(Framing::default(), &events));
    let call = |id: &str, name: &str, said: &str| (id.to_owned(), name.to_owned(), said.to_owned());
    let expected = (
        "Héllowörlds apart".to_owned(),
        vec![call("c1", "f", "{\"a\":1}"), call("c2", "g", "raw")],
        "tool_calls".to_owned(),
    );
    assert_eq!(whole, expected);
    let (last, middle) = (&events[events.len() - 1], &events[1..events.len() - 1]);
    // Any subset of the events between the first and the last.
    for leave_out in 0u32..1 << middle.len() {
        // A delta without those before it cannot be told from the first: sockets leave out whole runs.
        let skipped = |n: usize| (leave_out >> n) & 1 == 1;
        if skipped(0) != skipped(1) || skipped(7) != skipped(8) {
            continue;
        }
        let mut some = vec![events[0].clone()];
        some.extend(middle.iter().enumerate().filter(|(n, _)| !skipped(*n)).map(|(_, e)| e.clone()));
        some.push(last.clone());
        let told = joined(&chunks(Framing::default(), &some));
        // What nothing was heard of before the end can only come then.
        let late = (0..=3).all(skipped) && !(4..=5).all(skipped);
        let text = if late { "wörlds apartHéllo" } else { &*expected.0 };
        assert_eq!((&*told.0, told.1.len(), &told.2), (text, 2, &expected.2), "{leave_out:b}");
        for call in &expected.1 {
            assert!(told.1.contains(call), "{leave_out:b}: {told:?}");
        }
    }
}

#[test]
fn messages_are_known_whatever_they_are_called() {
    let text = |text: &str| json!([{"type": "output_text", "text": text}]);
    let delta = |index: u64, id: Option<&str>, delta: &str| json!({"type": "response.output_text.delta", "output_index": index, "content_index": 0, "item_id": id, "delta": delta});
    let item = |id: Option<&str>, content: Value| json!({"type": "message", "id": id, "role": "assistant", "content": content});
    for (shown, output, told) in [
        // Without names, or under other names at the end: in their order.
        (
            vec![delta(1, None, "ab"), delta(3, None, "c")],
            [item(None, text("ab")), item(None, text("cd"))],
            "abcd",
        ),
        (
            vec![delta(0, Some("x"), "ab"), delta(1, Some("y"), "cd")],
            [item(Some("p"), text("ab")), item(Some("q"), text("cd"))],
            "abcd",
        ),
        // The second by its name, so that nothing of the first was shown.
        (
            vec![delta(1, Some("q"), "cd")],
            [item(Some("p"), text("abab")), item(Some("q"), text("cd"))],
            "cdabab",
        ),
    ] {
        let mut events = shown;
        events.push(
            json!({"type": "response.completed", "response": response("completed", &json!(output.to_vec()))}),
        );
        assert_eq!(joined(&chunks(Framing::default(), &events)).0, told);
    }
}

#[test]
fn pieces_travel_as_they_came_and_only_their_length_is_read() {
    let delta = |name: &str, delta: &str| {
        format!(r#"{{"type":"response.{name}.delta","output_index":0,"content_index":0,"delta":{delta}}}"#)
    };
    let text = |text: &str| {
        format!(
            r#"{{"type":"response.output_item.done","output_index":0,"item":{{"type":"message","content":[{{"type":"output_text","text":{text}}}]}}}}"#
        )
    };
    let write = |events: &[String]| {
        let mut writer = Chunks::new(Framing::default(), "x", "m");
        let mut out = Vec::new();
        for text in events {
            writer.write(&Event::parse(Bytes::from(text.clone())).unwrap(), None, &mut out);
        }
        String::from_utf8(out).unwrap()
    };
    let halves = [delta("output_text", r#""\ud83d""#), delta("output_text", r#""\ude00\u0041\/""#)];
    let told = write(&[&halves[..], &[text(r#""😀A/é!""#)]].concat());
    let contents = [r#"{"content":"\ud83d"}"#, r#"{"content":"\ude00\u0041\/"}"#, r#"{"content":"é!"}"#];
    for content in contents {
        assert!(told.contains(&format!(r#""delta":{content}"#)), "{content} in {told}");
    }
    assert_eq!(told.matches("data: ").count(), 4, "{told}");
    // The end brings what a delta began.
    let told = write(&[halves[0].clone(), text(r#""😀A""#)]);
    assert!(told.contains(r#"{"content":"\ude00A"}"#), "{told}");
    let added = r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"function_call","call_id":"c","name":"f","arguments":""}}"#;
    let told = write(&[added.to_owned(), delta("function_call_arguments", r#""{\"\udead""#)]);
    assert!(told.contains(r#""arguments":"{\"\udead""#), "{told}");
}

#[test]
fn the_order_of_chunks() {
    let (_, events) = dense();
    let framing = Framing { include_usage: true, logprobs: false };
    let all = chunks(framing, &events);
    let (usage, chunks) = all.split_last().unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(
        (&usage["usage"]["prompt_tokens"], &usage["usage"]["completion_tokens_details"]["reasoning_tokens"]),
        (&json!(9), &json!(3))
    );
    assert_eq!(
        chunks[0]["choices"][0]["delta"],
        json!({"role": "assistant", "content": "", "refusal": null})
    );
    assert_eq!(chunks[1]["choices"][0]["delta"], json!({"content": "Hé"}));
    assert_eq!((&chunks[1]["obfuscation"], &chunks[2]["obfuscation"]), (&json!("zz"), &Value::Null));
    let last = chunks.last().unwrap();
    assert_eq!(
        (&last["choices"][0]["delta"], &last["choices"][0]["finish_reason"]),
        (&json!({}), &json!("tool_calls"))
    );
    for chunk in &all {
        assert_eq!(
            (&chunk["id"], &chunk["created"], &chunk["model"]),
            (&json!("chatcmpl-7"), &json!(1700), &json!("m"))
        );
        assert_eq!(chunk["object"], "chat.completion.chunk");
    }
    assert!(chunks.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()));
    assert!(chunks[..chunks.len() - 1].iter().all(|chunk| chunk["choices"][0]["finish_reason"].is_null()));
}

#[test]
fn a_call_comes_first_without_content() {
    let item = json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"});
    let events = [
        json!({"type": "response.output_item.done", "output_index": 0, "item": item}),
        json!({"type": "response.completed", "response": response("completed", &json!([item]))}),
    ];
    let chunks = chunks(Framing::default(), &events);
    assert_eq!(chunks[0]["choices"][0]["delta"]["content"], Value::Null);
    assert_eq!(chunks[0]["id"], "chatcmpl-x", "until the response names itself");
}

#[test]
fn why_it_ended() {
    let said =
        json!([{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]}]);
    let refused =
        json!([{"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}]);
    let filtered = {
        let mut filtered = response("incomplete", &said);
        filtered["incomplete_details"]["reason"] = "content_filter".into();
        filtered
    };
    for (kind, response, reason, text, refusal) in [
        ("completed", response("completed", &said), "stop", json!("x"), Value::Null),
        ("incomplete", response("incomplete", &said), "length", json!("x"), Value::Null),
        ("incomplete", filtered, "content_filter", json!("x"), Value::Null),
        ("completed", response("completed", &refused), "stop", Value::Null, json!("no")),
    ] {
        let output = response["output"].to_string();
        let body: Value =
            serde_json::from_str(&collect::body(&response.to_string(), &output, Framing::default())).unwrap();
        let choice = &body["choices"][0];
        assert_eq!(
            (&choice["finish_reason"], &choice["message"]["content"], &choice["message"]["refusal"]),
            (&json!(reason), &text, &refusal)
        );
        let streamed =
            chunks(Framing::default(), &[json!({"type": format!("response.{kind}"), "response": response})]);
        assert_eq!(joined(&streamed).2, reason);
    }
}

#[test]
fn errors_in_the_form_sdks_raise() {
    let writer = Chunks::new(Framing::default(), "x", "m");
    let mut out = Vec::new();
    let busy = event(
        &json!({"type": "error", "status": 503, "error": {"type": "server_error", "code": "busy", "message": "Busy."}}),
    );
    writer.write_error(&ProviderError::of_event(&busy), &mut out);
    writer.write_fault(&Fault::SocketLost(None), &mut out);
    let text = String::from_utf8(out).unwrap();
    assert_eq!(
        text,
        "data: {\"error\":{\"message\":\"Busy.\",\"type\":\"server_error\",\"param\":null,\"code\":\"busy\"}}\n\n\
         data: {\"error\":{\"message\":\"The connection to the provider was lost.\",\"type\":\"server_error\",\"param\":null,\
         \"code\":\"tailwire_socket_lost\"}}\n\n"
    );
}

#[test]
fn logprobs_have_their_bytes_and_citations_their_place() {
    let token = json!({"token": "é", "logprob": -0.5, "top_logprobs": [{"token": "e", "logprob": -1.0}]});
    let note = json!({"type": "url_citation", "start_index": 1, "end_index": 2, "title": "t", "url": "u"});
    let output = json!([
        {"type": "message", "content": [{"type": "output_text", "text": "ab", "annotations": [], "logprobs": [token]}]},
        {"type": "message", "content": [{"type": "output_text", "text": "cd", "annotations": [note]}]},
    ]);
    let response = response("completed", &output);
    let framing = Framing { include_usage: false, logprobs: true };
    let body: Value =
        serde_json::from_str(&collect::body(&response.to_string(), &output.to_string(), framing)).unwrap();
    let choice = &body["choices"][0];
    assert_eq!(choice["message"]["content"], "abcd");
    assert_eq!(
        choice["message"]["annotations"][0]["url_citation"],
        json!({"start_index": 3, "end_index": 4, "title": "t", "url": "u"})
    );
    let shown = json!([{"token": "é", "bytes": [195, 169], "logprob": -0.5, "top_logprobs": [{"token": "e", "bytes": [101], "logprob": -1.0}]}]);
    assert_eq!(choice["logprobs"]["content"], shown);

    let events = [
        json!({"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "ab", "logprobs": [token]}),
        json!({"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "cd"}),
        json!({"type": "response.output_text.annotation.added", "output_index": 1, "content_index": 0, "annotation": note}),
        json!({"type": "response.completed", "response": response}),
    ];
    let chunks = chunks(framing, &events);
    assert_eq!(chunks[1]["choices"][0]["logprobs"]["content"], shown);
    assert_eq!(chunks[3]["choices"][0]["delta"]["annotations"][0]["url_citation"]["start_index"], 3);
}
