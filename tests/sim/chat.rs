//! The provider's own Chat Completions endpoint, judged by itself: whole answers and streams agree, both are what the
//! published types read, and the model behind it is the one of the Responses API.

use async_openai::types::chat::{CreateChatCompletionResponse, CreateChatCompletionStreamResponse};
use http_body_util::Full;
use hyper::Request;
use serde_json::{Map, Value, json};
use tailwire::sim::ledger::{Outcome, Record};
use tailwire::sim::rules::Ending;
use tailwire::sim::{Fault, Mishap, Moment, Running, Transport};

use crate::peer::{Client, Plain, http, post, send, start};

#[tokio::test]
async fn the_model_behind_both_endpoints_is_one() {
    let sim = start().await;
    let question = "go [sim calls=2 parallel=2 commentary=1 reasoning=1 text=40]";
    let mut messages = vec![json!({"role": "user", "content": question})];
    let mut items = messages.clone();
    let tools =
        json!([{"type": "function", "name": "shell", "parameters": {"type": "object"}, "strict": false}]);
    let nested =
        json!([{"type": "function", "function": {"name": "shell", "parameters": {"type": "object"}}}]);
    for turn in 0..3 {
        let ours = ask(&sim, &json!({"messages": messages, "tools": nested, "max_tokens": 900})).await.json();
        let body = json!({"model": "gpt-sim", "store": false, "input": items, "tools": tools, "max_output_tokens": 900});
        let theirs = post(&sim, &body).await.json();
        let (chat, response) = (record(&sim, &ours), record(&sim, &theirs));
        assert_eq!((chat.transport, response.transport), (Transport::Chat, Transport::Http));
        assert_eq!(chat.response.as_deref(), ours["id"].as_str());
        assert_eq!(chat.digests, response.digests, "turn {turn}");
        assert_eq!((chat.settings, chat.items), (response.settings, response.items));
        assert_eq!(ours["usage"]["prompt_tokens"], theirs["usage"]["input_tokens"]);
        assert_eq!(ours["usage"]["completion_tokens"], theirs["usage"]["output_tokens"]);
        assert_eq!(chat.tokens, ours["usage"]["completion_tokens"].as_u64().unwrap());

        let message = &ours["choices"][0]["message"];
        messages.push(message.clone());
        let output = theirs["output"].as_array().unwrap();
        // Chat's model forgets what it thought.
        items.extend(output.iter().filter(|item| item["type"] != "reasoning").cloned());
        let calls = message["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
        assert_eq!(calls.len(), if turn < 2 { 2 } else { 0 });
        for call in calls {
            messages.push(json!({"role": "tool", "tool_call_id": call["id"], "content": "done"}));
            items.push(json!({"type": "function_call_output", "call_id": call["id"], "output": "done"}));
        }
    }
    let seen = http(&sim, "GET", "/v1/sim/answers/chatcmpl-none", "").await;
    assert_eq!(seen.status, 404);
    sim.provider.ledger().read(|book| assert_eq!(book.violations, []));
}

/// What is asked for beside a user's message, how it ends, and what the answer has.
fn table() -> Vec<(&'static str, Value, &'static str, &'static [&'static str])> {
    let tools =
        json!([{"type": "function", "function": {"name": "f"}}, {"type": "custom", "custom": {"name": "c"}}]);
    vec![
        ("[sim text=40]", json!({}), "stop", &["content"]),
        ("[sim text=0]", json!({}), "stop", &[]),
        (
            "[sim text=40 reasoning=2]",
            json!({"stream_options": {"include_usage": true}}),
            "stop",
            &["content"],
        ),
        ("[sim calls=1 parallel=3]", json!({"tools": tools}), "tool_calls", &["tool_calls"]),
        (
            "[sim calls=1 custom=1 commentary=1]",
            json!({"tools": tools}),
            "tool_calls",
            &["content", "tool_calls"],
        ),
        ("[sim refuse=1]", json!({}), "stop", &["refusal"]),
        ("[sim cite=2 text=30]", json!({}), "stop", &["content", "annotations"]),
        ("[sim text=400]", json!({"max_tokens": 3}), "length", &["content"]),
        ("[sim calls=1]", json!({"tools": tools, "max_completion_tokens": 20}), "length", &["tool_calls"]),
        ("[sim text=400]", json!({"stop": ["the ", "a ", "of "]}), "stop", &["content"]),
        ("[sim text=40]", json!({"n": 3, "stream_options": {"include_usage": true}}), "stop", &["content"]),
        ("[sim text=30]", json!({"logprobs": true, "top_logprobs": 2}), "stop", &["content"]),
        ("[sim text=30]", json!({"logprobs": true, "n": 2, "max_tokens": 2}), "length", &["content"]),
    ]
}

#[tokio::test]
async fn a_stream_says_what_the_whole_answer_says() {
    let sim = start().await;
    for (question, extra, reason, has) in table() {
        let mut body = json!({"messages": [{"role": "user", "content": question}]});
        extend(&mut body, &extra);
        let mut plain = body.clone();
        plain.as_object_mut().unwrap().remove("stream_options");
        let reply = ask(&sim, &plain).await;
        let mut whole = reply.json();
        serde_json::from_value::<CreateChatCompletionResponse>(without_custom(&whole)).expect(question);
        for choice in whole["choices"].as_array().unwrap() {
            assert_eq!(choice["finish_reason"], reason, "{question} {extra}");
            for member in ["content", "refusal", "annotations", "tool_calls"] {
                let value = &choice["message"][member];
                let empty = value.is_null() || *value == json!([]) || *value == "";
                assert_eq!(empty, !has.contains(&member), "{question} {extra}: {member} {value}");
            }
        }
        let usage = &whole["usage"];
        let sum = usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap();
        assert_eq!(usage["total_tokens"], sum);

        body["stream"] = true.into();
        let reply = ask(&sim, &body).await;
        assert_eq!(reply.headers["content-type"], "text/event-stream; charset=utf-8");
        let with_usage = !extra["stream_options"].is_null();
        let mut joined = join(&chunks(&reply), with_usage);
        if !with_usage {
            whole.as_object_mut().unwrap().remove("usage");
        }
        for (answer, kind) in [(&mut whole, "chat.completion"), (&mut joined, "chat.completion.chunk")] {
            let head = answer.as_object_mut().unwrap();
            assert_eq!(head.remove("object").unwrap(), kind);
            assert!(head.remove("id").unwrap().as_str().unwrap().starts_with("chatcmpl-"));
            head.remove("created");
        }
        assert_eq!(joined, whole, "{question} {extra}");
    }
}

#[tokio::test]
async fn a_stop_and_a_limit_cut_the_same_text() {
    let sim = start().await;
    let body = |extra: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "[sim text=400]"}]});
        extend(&mut body, &extra);
        body
    };
    let text = |reply: Plain| reply.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let whole = text(ask(&sim, &body(json!({}))).await);
    let stopped = text(ask(&sim, &body(json!({"stop": "then "}))).await);
    assert_eq!(stopped, whole.split("then ").next().unwrap());
    let limited = text(ask(&sim, &body(json!({"max_tokens": 5}))).await);
    assert_eq!(limited, whole.chars().take(20).collect::<String>());
}

#[tokio::test]
async fn too_many_tokens_end_a_response_incomplete() {
    let sim = start().await;
    let body = |tokens: u64| {
        json!({"model": "gpt-sim", "max_output_tokens": tokens, "input": "[sim text=400]",
            "include": ["message.output_text.logprobs"], "top_logprobs": 1})
    };
    let refused = post(&sim, &body(15)).await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["error"]["param"]),
        (400, &json!("max_output_tokens"))
    );
    let mut client = Client::connect(&sim).await;
    let over_socket = client.run(&body(16)).await;
    assert_eq!(over_socket["type"], "response.incomplete");
    for response in [&post(&sim, &body(16)).await.json(), &over_socket["response"]] {
        assert_eq!(response["status"], "incomplete");
        assert_eq!(response["incomplete_details"]["reason"], "max_output_tokens");
        assert_eq!(response["output"][0]["status"], "incomplete");
        assert_eq!(response["usage"]["output_tokens"], 16);
        let part = &response["output"][0]["content"][0];
        assert_eq!(part["text"].as_str().unwrap().chars().count(), 64);
        assert_eq!(part["logprobs"].as_array().unwrap().len(), 16);
    }
}

#[tokio::test]
async fn a_model_of_chat_only_is_refused_elsewhere() {
    let sim = start().await;
    sim.provider.script(|script| script.limits.chat_only = &["gpt-old"]);
    let message = "The requested model 'gpt-old' is not supported with the Responses API.";
    let reply = post(&sim, &json!({"model": "gpt-old", "input": "hi"})).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["error"]["message"]), (400, &json!(message)));
    let mut client = Client::connect(&sim).await;
    let frame = client.run(&json!({"model": "gpt-old", "input": "hi", "stream_id": "a"})).await;
    assert_eq!((&frame["type"], &frame["status"]), (&json!("error"), &json!(400)));
    assert_eq!((&frame["stream_id"], &frame["error"]), (&json!("a"), &reply.json()["error"]));
    assert_eq!(client.run(&json!({"input": "hi", "stream_id": "a"})).await["type"], "response.completed");
    let body = json!({"model": "gpt-old", "messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(ask(&sim, &body).await.json()["model"], "gpt-old");
}

#[tokio::test]
async fn what_goes_wrong_has_chat_s_form() {
    let sim = start().await;
    let plain = json!({"messages": [{"role": "user", "content": "[sim text=200]"}]});
    let mut stream = plain.clone();
    stream["stream"] = true.into();

    let request = Request::post("/v1/chat/completions").header("host", "sim");
    let refused = send(&sim, request.body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(refused.status, 401);
    for (body, status) in [("{", 400), ("{}", 400), (r#"{"model":"m","messages":[{"role":"tool"}]}"#, 400)] {
        let refused = http(&sim, "POST", "/v1/chat/completions", body).await;
        assert_eq!(refused.status.as_u16(), status);
        assert_eq!(refused.json()["error"]["type"], "invalid_request_error", "{body}");
    }
    let limited = json!({"type": "error", "status": 429, "error": {"type": "tokens", "code": "rate_limit_exceeded", "message": "slow down"}});
    for (moment, fault, status, code) in [
        (Moment::AfterSend, Fault::Error(limited.clone()), 429, "rate_limit_exceeded"),
        (Moment::MidText, Fault::Error(limited), 429, "rate_limit_exceeded"),
        (Moment::MidText, Fault::Failed("rate_limit_exceeded"), 429, "rate_limit_exceeded"),
        (Moment::AfterCreated, Fault::Failed("server_error"), 500, "server_error"),
    ] {
        let mishap = Mishap::new(moment, fault).over_http().times(2);
        sim.provider.mishap(mishap);
        let reply = ask(&sim, &plain).await;
        assert_eq!(
            (reply.status.as_u16(), &reply.json()["error"]["code"]),
            (status, &json!(code)),
            "{moment:?}"
        );
        let reply = ask(&sim, &stream).await;
        if moment == Moment::AfterSend {
            assert_eq!(reply.status, 429);
            continue;
        }
        let text = String::from_utf8(reply.body.to_vec()).unwrap();
        let last: Value = serde_json::from_str(text.trim_end().rsplit_once("data: ").unwrap().1).unwrap();
        assert_eq!((reply.status.as_u16(), &last["error"]["code"]), (200, &json!(code)), "no [DONE] either");
    }
    sim.provider.mishap(Mishap::new(Moment::MidText, Fault::Incomplete("content_filter")).over_http());
    assert_eq!(ask(&sim, &plain).await.json()["choices"][0]["finish_reason"], "content_filter");
    let ledger = sim.provider.ledger();
    assert!(ledger.wait(|book| book.count(Outcome::Ended(Ending::Incomplete)) == 1).await);
    ledger.read(|book| assert!(book.turns.iter().all(|turn| turn.transport == Transport::Chat)));
}

async fn ask(sim: &Running, body: &Value) -> Plain {
    let mut whole = json!({"model": "gpt-sim"});
    extend(&mut whole, body);
    http(sim, "POST", "/v1/chat/completions", whole.to_string()).await
}

fn extend(body: &mut Value, more: &Value) {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
}

fn record(sim: &Running, answer: &Value) -> Record {
    sim.provider.ledger().read(|book| book.answer(answer["id"].as_str().unwrap()).unwrap().clone())
}

/// The chunks of a stream, each of which the published types read.
fn chunks(reply: &Plain) -> Vec<Value> {
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    let events: Vec<&str> = text.trim_end().split("\n\n").collect();
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(*done, "data: [DONE]");
    let parse = |event: &&str| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
    let chunks: Vec<Value> = chunks.iter().map(parse).collect();
    for chunk in &chunks {
        serde_json::from_value::<CreateChatCompletionStreamResponse>(without_custom(chunk)).expect("a chunk");
    }
    chunks
}

/// The types of async-openai 0.43 do not know freeform calls in chunks, and in a whole answer by another name.
fn without_custom(answer: &Value) -> Value {
    let mut answer = answer.clone();
    for choice in answer["choices"].as_array_mut().unwrap() {
        for said in ["message", "delta"] {
            if let Some(calls) = choice.get_mut(said).and_then(|said| said["tool_calls"].as_array_mut()) {
                calls.retain(|call| call["custom"].is_null());
            }
        }
    }
    answer
}

/// The whole answer that chunks add up to, as an SDK adds them up.
fn join(chunks: &[Value], with_usage: bool) -> Value {
    let mut choices: Vec<Value> = Vec::new();
    let mut usage = Value::Null;
    for chunk in chunks {
        assert_eq!(chunk.get("usage").is_some(), with_usage, "{chunk}");
        if chunk["choices"] == json!([]) {
            usage = chunk["usage"].clone();
        }
        for piece in chunk["choices"].as_array().unwrap() {
            let index = usize::try_from(piece["index"].as_u64().unwrap()).unwrap();
            if index == choices.len() {
                assert_eq!(piece["delta"]["role"], "assistant", "the first names the role");
                choices.push(json!({"index": index, "finish_reason": null, "logprobs": null,
                    "message": {"role": "assistant", "content": null, "refusal": null, "annotations": []}}));
            }
            let choice = &mut choices[index];
            assert!(choice["finish_reason"].is_null(), "the reason comes last");
            choice["finish_reason"] = piece["finish_reason"].clone();
            if let Some(tokens) = piece["logprobs"]["content"].as_array() {
                if choice["logprobs"].is_null() {
                    choice["logprobs"] = json!({"content": [], "refusal": null});
                }
                choice["logprobs"]["content"].as_array_mut().unwrap().extend(tokens.iter().cloned());
            }
            add(&mut choice["message"], &piece["delta"]);
        }
    }
    for choice in &mut choices {
        let message = &mut choice["message"];
        if message["content"] == "" && !message["refusal"].is_null() {
            message["content"] = Value::Null;
        }
    }
    let mut joined = chunks[0].clone();
    joined["choices"] = choices.into();
    if with_usage {
        joined["usage"] = usage;
    }
    joined
}

fn add(message: &mut Value, delta: &Value) {
    let text =
        |old: &Value, new: &Value| format!("{}{}", old.as_str().unwrap_or_default(), new.as_str().unwrap());
    for name in ["content", "refusal"] {
        if delta[name].is_string() {
            message[name] = text(&message[name], &delta[name]).into();
        }
    }
    if let Some(notes) = delta["annotations"].as_array() {
        message["annotations"].as_array_mut().unwrap().extend(notes.iter().cloned());
    }
    for call in delta["tool_calls"].as_array().into_iter().flatten() {
        let calls = message.as_object_mut().unwrap().entry("tool_calls").or_insert(json!([]));
        let calls = calls.as_array_mut().unwrap();
        let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
        if index == calls.len() {
            let mut first: Map<String, Value> = call.as_object().unwrap().clone();
            first.remove("index");
            calls.push(first.into());
            continue;
        }
        let (kind, said) =
            if call["custom"].is_null() { ("function", "arguments") } else { ("custom", "input") };
        calls[index][kind][said] = text(&calls[index][kind][said], &call[kind][said]).into();
    }
}
