//! What a chat request is read as, and what is refused.

use super::read::*;
use super::*;
use crate::sim::refusal::Refusal;

fn asked(chat: &Value) -> Result<Asked, Refusal> {
    read(chat.as_object().unwrap())
}

fn refused(extra: &Value) -> Refusal {
    let mut chat = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    chat.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    asked(&chat).expect_err(&extra.to_string())
}

#[test]
fn a_conversation_with_calls() {
    let chat = json!({"model": "m", "n": 3, "stop": "x", "stream": true, "stream_options": {"include_usage": true},
    "messages": [
        {"role": "user", "name": "eve", "content": [{"type": "image_url", "image_url": {"url": "u"}},
            {"type": "file", "file": {"file_id": "f"}}]},
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "a", "type": "custom", "custom": {"name": "n", "input": "i"}},
            {"id": "b", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "t"}]},
        {"role": "tool", "tool_call_id": "a", "content": "ok"},
        {"role": "assistant", "content": [{"type": "text", "text": "no"}], "refusal": "never"},
        {"role": "developer", "content": "d"},
    ]});
    let asked = asked(&chat).unwrap();
    assert_eq!((asked.answers, asked.include_usage, asked.logprobs), (3, true, false));
    let part = |kind: &str, text: &str| json!({"type": kind, "text": text});
    assert_eq!(
        asked.body["input"],
        json!([
            {"type": "message", "role": "user", "name": "eve", "content": [
                {"type": "input_image", "image_url": "u", "detail": "auto"}, {"type": "input_file", "file_id": "f"}]},
            {"type": "custom_tool_call", "call_id": "a", "name": "n", "input": "i"},
            {"type": "function_call", "call_id": "b", "name": "f", "arguments": ""},
            {"type": "function_call_output", "call_id": "b", "output": [part("input_text", "t")]},
            {"type": "custom_tool_call_output", "call_id": "a", "output": "ok"},
            {"type": "message", "role": "assistant", "content": [part("output_text", "no"), {"type": "refusal", "refusal": "never"}]},
            {"type": "message", "role": "developer", "content": "d"},
        ])
    );
    let request = request::Request::parse(asked.body, Transport::Chat).unwrap();
    assert_eq!((request.stops, request.stream, request.store), (vec!["x".to_owned()], true, false));
}

#[test]
fn settings_stand_where_the_other_api_has_them() {
    let chat = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}],
        "max_completion_tokens": 7, "reasoning_effort": "low", "verbosity": "high", "logprobs": true, "top_logprobs": 2,
        "n": 1, "presence_penalty": 0.0, "stop": [], "logit_bias": {}, "seed": null,
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}},
        "tools": [{"type": "function", "function": {"name": "f"}},
            {"type": "custom", "custom": {"name": "c", "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "d"}}}}],
        "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]}}});
    let mut body = asked(&chat).unwrap().body;
    body.remove("input");
    assert_eq!(
        Value::Object(body),
        json!({"model": "m", "store": false, "max_output_tokens": 7, "reasoning": {"effort": "low"},
            "include": ["message.output_text.logprobs"], "top_logprobs": 2,
            "text": {"verbosity": "high", "format": {"type": "json_schema", "name": "s", "schema": {"type": "object"}, "strict": false}},
            "tools": [{"type": "function", "name": "f", "strict": false},
                {"type": "custom", "name": "c", "format": {"type": "grammar", "syntax": "lark", "definition": "d"}}],
            "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}})
    );
}

#[test]
fn what_is_wrong_is_named() {
    let call = json!({"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]});
    let result = json!({"role": "tool", "tool_call_id": "a", "content": "ok"});
    let user = json!({"role": "user", "content": "u"});
    for (extra, param, words) in [
        (json!({"model": null}), Some("model"), "'model'"),
        (json!({"messages": null}), Some("messages"), "'messages'"),
        (json!({"messages": []}), Some("messages"), "empty array"),
        (json!({"input": "x"}), None, "argument supplied: input"),
        (json!({"previous_response_id": "r"}), None, "argument supplied: previous_response_id"),
        (json!({"messages": [{"role": "assistant"}]}), Some("messages"), "expected a string, got null"),
        (
            json!({"messages": [{"role": "user", "content": null}]}),
            Some("messages"),
            "expected a string, got null",
        ),
        (
            json!({"messages": [{"role": "robot", "content": "x"}]}),
            Some("messages"),
            "Invalid value: 'robot'",
        ),
        (
            json!({"messages": [{"role": "system", "content": [{"type": "image_url"}]}]}),
            Some("messages"),
            "'image_url'",
        ),
        (json!({"messages": [user, result]}), Some("messages"), "must be a response to a preceeding message"),
        (json!({"messages": [call]}), Some("messages"), "did not have response messages: a"),
        (json!({"messages": [call, user, result]}), Some("messages"), "did not have response messages: a"),
        (
            json!({"messages": [call, result, result]}),
            Some("messages"),
            "must be a response to a preceeding message",
        ),
        (json!({"max_tokens": 1, "max_completion_tokens": 1}), Some("max_tokens"), "at the same time"),
        (json!({"max_tokens": 0}), Some("max_tokens"), ">= 1, but got 0"),
        (json!({"n": 0}), Some("n"), ">= 1"),
        (json!({"n": 129}), Some("n"), "<= 128"),
        (
            json!({"stream_options": {"include_usage": true}}),
            Some("stream_options"),
            "only allowed when 'stream'",
        ),
        (json!({"top_logprobs": 1}), Some("top_logprobs"), "only allowed when 'logprobs'"),
    ] {
        let refusal = refused(&extra);
        assert_eq!((refusal.status, refusal.param), (400, param), "{extra}: {refusal:?}");
        assert!(refusal.message.contains(words), "{extra}: {refusal:?}");
    }
}
