//! Every row of protocol §5.1: what it becomes, or the reason why it is the provider's own Chat API that answers.

use serde_json::{Value, json};

use super::*;

fn translated(extra: &Value) -> Result<Value, String> {
    let mut body = json!({"model": "gpt-4.1", "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let translated = translate(&body.to_string()).map_err(|reason| reason.to_string())?;
    Ok(serde_json::from_str(&translated.body).unwrap())
}

fn items(messages: &Value) -> Result<Value, String> {
    translated(&json!({"messages": messages})).map(|body| body["input"].clone())
}

#[test]
fn messages() {
    let say = |role: &str, content: Value| json!({"type": "message", "role": role, "content": content});
    for (message, item) in [
        (json!({"role": "system", "content": "Be brief."}), say("system", json!("Be brief."))),
        (
            json!({"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}),
            say(
                "developer",
                json!([{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]),
            ),
        ),
        (
            json!({"role": "user", "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:x"}},
                {"type": "image_url", "image_url": {"url": "u", "detail": "low"}},
                {"type": "file", "file": {"file_id": "file-1"}},
                {"type": "file", "file": {"file_data": "data:y", "filename": "y.pdf"}},
            ]}),
            say(
                "user",
                json!([
                    {"type": "input_text", "text": "look"},
                    {"type": "input_image", "image_url": "data:x", "detail": "auto"},
                    {"type": "input_image", "image_url": "u", "detail": "low"},
                    {"type": "input_file", "file_id": "file-1"},
                    {"type": "input_file", "file_data": "data:y", "filename": "y.pdf"},
                ]),
            ),
        ),
        (json!({"role": "assistant", "content": "hello"}), say("assistant", json!("hello"))),
        (
            json!({"role": "assistant", "content": [{"type": "text", "text": "a", "annotations": []}],
                "annotations": [], "audio": null, "reasoning_content": null, "reasoning": "", "reasoning_details": []}),
            say("assistant", json!([{"type": "output_text", "text": "a"}])),
        ),
        (
            json!({"role": "assistant", "content": null, "refusal": "no"}),
            say("assistant", json!([{"type": "refusal", "refusal": "no"}])),
        ),
        (
            json!({"role": "assistant", "content": "well", "refusal": "no"}),
            say(
                "assistant",
                json!([{"type": "output_text", "text": "well"}, {"type": "refusal", "refusal": "no"}]),
            ),
        ),
    ] {
        assert_eq!(items(&json!([message])), Ok(json!([item])), "{message}");
    }
}

#[test]
fn calls_and_their_results() {
    let calls = json!([
        {"id": "c1", "type": "function", "index": 0, "function": {"name": "f", "arguments": "{\"a\": 1.0}"}},
        {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "raw"}},
    ]);
    let messages = json!([
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "Both.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "two"}]},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
    ]);
    assert_eq!(
        items(&messages),
        Ok(json!([
            {"type": "message", "role": "user", "content": "go"},
            {"type": "message", "role": "assistant", "content": "Both."},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"a\": 1.0}"},
            {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": "raw"},
            {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "two"}]},
            {"type": "function_call_output", "call_id": "c1", "output": "one"},
        ]))
    );
    for silent in [json!(null), json!("")] {
        let message = json!({"role": "assistant", "content": silent, "tool_calls": [calls[0]]});
        let items = items(&json!([message])).unwrap();
        assert_eq!(items.as_array().unwrap().len(), 1, "{items}");
    }
}

#[test]
fn settings() {
    let function = json!({"name": "f", "description": "d", "parameters": {"type": "object"}});
    let grammar = json!({"type": "grammar", "grammar": {"syntax": "lark", "definition": "x"}});
    let schema = json!({"name": "s", "schema": {"type": "object"}, "description": "d"});
    for (chat, responses) in [
        (
            json!({"temperature": 0.5, "top_p": 1.0, "metadata": {"a": "b"}, "user": "u", "safety_identifier": "s"}),
            None,
        ),
        (
            json!({"prompt_cache_key": "k", "prompt_cache_options": {"mode": "x"}, "service_tier": "flex"}),
            None,
        ),
        (json!({"parallel_tool_calls": false, "moderation": {"x": 1}, "stream": true}), None),
        (json!({"max_tokens": 16}), Some(json!({"max_output_tokens": 16}))),
        (json!({"max_completion_tokens": 400}), Some(json!({"max_output_tokens": 400}))),
        (json!({"reasoning_effort": "low"}), Some(json!({"reasoning": {"effort": "low"}}))),
        (
            json!({"verbosity": "low", "response_format": {"type": "json_object"}}),
            Some(json!({"text": {"format": {"type": "json_object"}, "verbosity": "low"}})),
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": schema}}),
            Some(
                json!({"text": {"format": {"type": "json_schema", "name": "s", "schema": {"type": "object"},
                "description": "d", "strict": false}}}),
            ),
        ),
        (
            json!({"tools": [{"type": "function", "function": function}, {"type": "function", "function": {"name": "g", "strict": true}},
                {"type": "custom", "custom": {"name": "c", "format": grammar}}, {"type": "custom", "custom": {"name": "t", "format": {"type": "text"}}}]}),
            Some(json!({"tools": [
                {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": false},
                {"type": "function", "name": "g", "parameters": null, "strict": true},
                {"type": "custom", "name": "c", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}},
                {"type": "custom", "name": "t", "format": {"type": "text"}},
            ]})),
        ),
        (json!({"tool_choice": "required"}), None),
        (
            json!({"tool_choice": {"type": "function", "function": {"name": "f"}}}),
            Some(json!({"tool_choice": {"type": "function", "name": "f"}})),
        ),
        (
            json!({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto",
                "tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom", "custom": {"name": "c"}}]}}}),
            Some(json!({"tool_choice": {"type": "allowed_tools", "mode": "auto",
                "tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "c"}]}})),
        ),
        (
            json!({"logprobs": true, "top_logprobs": 2}),
            Some(json!({"include": ["message.output_text.logprobs"], "top_logprobs": 2})),
        ),
        (json!({"stream": true, "stream_options": {"include_usage": true}}), Some(json!({"stream": true}))),
        (
            json!({"stream": true, "stream_options": {"include_obfuscation": false}}),
            Some(json!({"stream": true, "stream_options": {"include_obfuscation": false}})),
        ),
    ] {
        assert_settings(&chat, &responses.unwrap_or_else(|| chat.clone()));
    }
    // Neutral values of what has no counterpart.
    let neutral = json!({"n": 1, "store": false, "stop": null, "frequency_penalty": 0, "presence_penalty": 0.0,
        "logit_bias": {}, "modalities": ["text"], "logprobs": false});
    assert_settings(&neutral, &json!({}));
}

/// Asserts what becomes of everything but the messages.
fn assert_settings(chat: &Value, expected: &Value) {
    let mut body = translated(chat).unwrap_or_else(|reason| panic!("{chat}: {reason}"));
    let body = body.as_object_mut().unwrap();
    assert_eq!(body.remove("store"), Some(json!(false)));
    assert_eq!(body.remove("model"), Some(json!("gpt-4.1")));
    body.remove("input");
    assert_eq!(Value::Object(body.clone()), *expected, "{chat}");
}

#[test]
fn what_cannot_be_translated_is_named() {
    let audio = json!([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]);
    for (chat, reason) in [
        (json!({"n": 2}), "field:n"),
        (json!({"store": true}), "field:store"),
        (json!({"messages": [{"role": "user", "name": "ann", "content": "x"}]}), "field:name"),
        (json!({"max_tokens": 15}), "field:max_tokens"),
        (json!({"max_completion_tokens": 1}), "field:max_completion_tokens"),
        (json!({"max_tokens": 20, "max_completion_tokens": 20}), "field:max_tokens"),
        (json!({"model": "gpt-5.2", "logprobs": true}), "field:logprobs"),
        (json!({"top_logprobs": 2}), "field:top_logprobs"),
        (json!({"stop": "x"}), "field:stop"),
        (json!({"seed": 7}), "field:seed"),
        (json!({"frequency_penalty": 0.5}), "field:frequency_penalty"),
        (json!({"presence_penalty": -1}), "field:presence_penalty"),
        (json!({"logit_bias": {"50256": -100}}), "field:logit_bias"),
        (json!({"prediction": {"type": "content", "content": "x"}}), "field:prediction"),
        (json!({"modalities": ["text", "audio"], "audio": {"voice": "x"}}), "field:audio"),
        (json!({"functions": [{"name": "f"}]}), "field:functions"),
        (json!({"function_call": "auto"}), "field:function_call"),
        (json!({"web_search_options": {}}), "field:web_search_options"),
        (json!({"never_heard_of": 1}), "field:other"),
        (json!({"messages": audio}), "field:content"),
        (json!({"messages": [{"role": "function", "name": "f", "content": "x"}]}), "field:name"),
        (
            json!({"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": ""}}]}),
            "field:function_call",
        ),
        (json!({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}), "field:audio"),
        (
            json!({"messages": [{"role": "assistant", "content": "x", "reasoning_content": "hm"}]}),
            "field:reasoning_content",
        ),
        (json!({"messages": [{"role": "assistant", "content": "x", "reasoning": "hm"}]}), "field:reasoning"),
        (
            json!({"messages": [{"role": "assistant", "content": "x", "reasoning_details": [{"text": "hm"}]}]}),
            "field:reasoning_details",
        ),
        (json!({"messages": [{"role": "assistant"}]}), "field:content"),
        (json!({"messages": [{"role": "user", "content": "x", "new": 1}]}), "field:messages"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {}}]}]}),
            "field:content",
        ),
        (json!({"messages": [{"role": "tool", "content": "x"}]}), "field:tool_call_id"),
        (json!({"messages": "x"}), "not-understood"),
        (json!({"model": 7}), "not-understood"),
        (json!({"response_format": {"type": "grammar"}}), "field:response_format"),
        (json!({"tools": [{"type": "web_search"}]}), "field:tools"),
        (json!({"tool_choice": {"type": "mcp"}}), "field:tool_choice"),
        (json!({"stream": true, "stream_options": {"new": true}}), "field:stream_options"),
        (json!({"stream_options": {"include_usage": true}}), "field:stream_options"),
        (json!({"messages": []}), "field:messages"),
    ] {
        assert_eq!(translated(&chat), Err(reason.to_owned()), "{chat}");
    }
    assert_eq!(translate(r#"{"model":"m","model":"n","messages":[]}"#).err(), Some(Reason::DuplicateKey));
    assert_eq!(translate("[]").err(), Some(Reason::NotUnderstood));
}

#[test]
fn a_longer_history_begins_with_the_shorter_one() {
    let first =
        json!({"model": "m", "messages": [{"role": "user", "content": "a"}], "tools": []}).to_string();
    let second = json!({"model": "m", "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"}], "tools": []})
    .to_string();
    let (first, second) = (translate(&first).unwrap().body, translate(&second).unwrap().body);
    let shared = first.find("]").unwrap();
    assert_eq!(first[..shared], second[..shared]);
}

#[test]
fn the_clients_own_letters_travel() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"\u00fc \/ 😀"},{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{\"x\": 1e3}"}}]}],"temperature":1.50}"#;
    let translated = translate(body).unwrap().body;
    for letters in [r#""\u00fc \/ 😀""#, r#""{\"x\": 1e3}""#, r#""temperature":1.50"#] {
        assert!(translated.contains(letters), "{translated}");
    }
}
