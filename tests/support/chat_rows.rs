//! Chat requests for every row of the translation (protocol §5.1), and how two answers to one of them are compared.
//!
//! Says nothing about who answers.

use serde_json::{Value, json};

pub(crate) type Row = (&'static str, Value);

/// One request for every row of the translation.
pub(crate) fn table() -> Vec<Row> {
    [answers(), messages(), formats(), settings()].concat()
}

fn user(content: &str) -> Value {
    json!([{"role": "user", "content": content}])
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"a": {"type": "number"}}})
}

fn tools() -> Value {
    let schema = schema();
    let function = json!({"type": "function", "function": {"name": "f", "description": "d \u{e9}", "parameters": schema}});
    let strict = json!({"type": "function", "function": {"name": "g", "parameters": schema, "strict": true}});
    let bare = json!({"type": "function", "function": {"name": "h"}});
    let custom = json!({"type": "custom", "custom": {"name": "c", "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "s: \"x\""}}}});
    json!([function, strict, bare, custom])
}

/// What a model can say.
fn answers() -> Vec<Row> {
    let tools = tools();
    vec![
        ("a text", json!({"messages": user("[sim text=60]")})),
        ("an empty text", json!({"messages": user("[sim text=0]")})),
        ("reasoning", json!({"messages": user("[sim text=20 reasoning=2]")})),
        ("a refusal", json!({"messages": user("[sim refuse=1]")})),
        ("a citation", json!({"messages": user("[sim cite=1 text=20]")})),
        ("citations", json!({"messages": user("[sim cite=3 text=20]")})),
        ("a call", json!({"messages": user("[sim calls=1]"), "tools": tools})),
        (
            "calls after words",
            json!({"messages": user("[sim calls=1 parallel=3 commentary=1]"), "tools": tools}),
        ),
        (
            "a freeform call",
            json!({"messages": user("[sim calls=1 custom=1]"), "tools": tools, "parallel_tool_calls": false}),
        ),
        (
            "no tools wanted",
            json!({"messages": user("[sim calls=1]"), "tools": tools, "tool_choice": "none"}),
        ),
        (
            "a tool wanted",
            json!({"messages": user("[sim calls=1]"), "tools": tools, "tool_choice": {"type": "function", "function": {"name": "f"}}}),
        ),
        (
            "tools allowed",
            json!({"messages": user("[sim calls=1]"), "tools": tools, "tool_choice": {"type": "allowed_tools",
            "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom", "custom": {"name": "c"}}]}}}),
        ),
    ]
}

/// What it can be told.
fn messages() -> Vec<Row> {
    let call = |id: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{\"b\": 1.0, \"a\":\"\\u00e9\"}"}});
    let free = json!({"id": "call_c", "type": "custom", "custom": {"name": "c", "input": "x\n"}});
    let result = |id: &str, content: Value| json!({"role": "tool", "tool_call_id": id, "content": content});
    let history = json!([
        {"role": "system", "content": "s"},
        {"role": "developer", "content": [{"type": "text", "text": "d"}]},
        {"role": "user", "content": "go [sim calls=2 parallel=2 text=30]"},
        {"role": "assistant", "content": null, "refusal": null, "annotations": [], "tool_calls": [call("call_a"), call("call_b")]},
        result("call_b", json!("ok")), result("call_a", json!([{"type": "text", "text": "t"}, {"type": "text", "text": "u"}])),
        {"role": "assistant", "content": "and", "tool_calls": [free]},
        result("call_c", json!("")),
    ]);
    let spoken = json!([
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "text", "text": "b"}, {"type": "refusal", "refusal": "c"}]},
        {"role": "user", "content": "d"},
        {"role": "assistant", "content": null, "refusal": "never"},
        {"role": "user", "content": "[sim text=20]"},
    ]);
    let tools = tools();
    vec![
        (
            "parts",
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "[sim text=20]"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
            {"type": "image_url", "image_url": {"url": "https://x/y", "detail": "low"}},
            {"type": "file", "file": {"file_id": "f"}}, {"type": "file", "file": {"filename": "n", "file_data": "d"}}]}]}),
        ),
        ("calls and results", json!({"messages": history, "tools": tools})),
        ("words and refusals", json!({"messages": spoken})),
    ]
}

/// How its words are to be, and how many.
fn formats() -> Vec<Row> {
    let (schema, tools) = (schema(), tools());
    vec![
        (
            "a JSON object",
            json!({"messages": user("JSON [sim text=20]"), "response_format": {"type": "json_object"}}),
        ),
        ("a plain format", json!({"messages": user("[sim text=20]"), "response_format": {"type": "text"}})),
        (
            "a schema",
            json!({"messages": user("[sim text=20]"), "verbosity": "low",
            "response_format": {"type": "json_schema", "json_schema": {"name": "s", "description": "d", "schema": schema}}}),
        ),
        (
            "a strict schema",
            json!({"messages": user("[sim text=20]"),
            "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema, "strict": true}}}),
        ),
        ("an old limit", json!({"messages": user("[sim text=400]"), "max_tokens": 16})),
        (
            "a limit in a call",
            json!({"messages": user("[sim calls=1 args=400]"), "tools": tools, "max_completion_tokens": 30}),
        ),
        (
            "a limit in reasoning",
            json!({"messages": user("[sim reasoning=3 text=40]"), "max_completion_tokens": 16}),
        ),
        (
            "logprobs",
            json!({"model": "gpt-4.1", "messages": user("[sim text=30 cite=2]"), "logprobs": true, "top_logprobs": 2}),
        ),
    ]
}

fn settings() -> Vec<Row> {
    vec![
        ("effort", json!({"messages": user("[sim text=20]"), "reasoning_effort": "low"})),
        (
            "sampling",
            json!({"messages": user("[sim text=20]"), "temperature": 0.5, "top_p": 1, "n": 1, "presence_penalty": 0, "frequency_penalty": 0.0,
            "stop": [], "logit_bias": {}, "modalities": ["text"], "seed": null, "store": false}),
        ),
        (
            "who and where",
            json!({"messages": user("[sim text=20]"), "user": "u", "safety_identifier": "s", "metadata": {"a": "b"},
            "prompt_cache_key": "k", "service_tier": "auto"}),
        ),
        (
            "nulls",
            json!({"messages": user("[sim text=20]"), "tools": null, "tool_choice": null, "stop": null, "n": null, "max_tokens": null,
            "response_format": null, "stream_options": null, "logprobs": null}),
        ),
    ]
}

/// An answer, or the data of a stream's events.
pub(crate) fn read(text: &str) -> Vec<Value> {
    if text.starts_with('{') {
        return vec![serde_json::from_str(text).unwrap()];
    }
    let events = text.trim_end().split("\n\n").map(|event| event.strip_prefix("data: ").expect(text));
    events
        .map(|data| if data == "[DONE]" { json!("done") } else { serde_json::from_str(data).unwrap() })
        .collect()
}

/// Ids and times aside. What is missing and what is null is not the same here.
pub(crate) fn without_ids(mut answer: Value) -> Value {
    if let Some(members) = answer.as_object_mut() {
        assert!(members.remove("id").unwrap().as_str().unwrap().starts_with("chatcmpl-"));
        assert!(members.remove("created").unwrap().is_u64());
    }
    answer
}
