//! The agent's words in either API: its requests, what it makes of an answer, and what it says back. Written as SDKs write them.
//!
//! Sends nothing, waits for nothing.

use std::io;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::agent::broken;
use super::workload::Workload;
use crate::args::DemoApi;
use crate::proto::wire::sse::Frame;

/// An answer, as far as the agent cares.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) id: String,
    /// What joins the history: items, or one message.
    pub(super) said: Vec<Box<RawValue>>,
    /// Ids of the calls in it.
    pub(super) calls: Vec<String>,
}

/// Where requests go, below the base URL.
pub(super) fn path(api: DemoApi) -> &'static str {
    match api {
        DemoApi::Responses => "responses",
        DemoApi::Chat => "chat/completions",
    }
}

/// The history before the first call.
pub(super) fn opening(api: DemoApi, workload: &Workload) -> io::Result<Vec<Box<RawValue>>> {
    match api {
        DemoApi::Responses => Ok(vec![workload.task.clone()]),
        DemoApi::Chat => Ok(vec![
            to_raw_value(&json!({ "role": "system", "content": workload.instructions }))?,
            to_raw_value(&json!({ "role": "user", "content": workload.ask }))?,
        ]),
    }
}

/// A request body. Fields in the order of openai-python's `create`, which is the alphabet's.
pub(super) fn body(
    api: DemoApi,
    workload: &Workload,
    history: &[Box<RawValue>],
    stream: bool,
) -> io::Result<Bytes> {
    #[derive(Serialize)]
    struct Responses<'a> {
        include: [&'static str; 1],
        input: &'a [Box<RawValue>],
        instructions: &'a str,
        model: &'static str,
        store: bool,
        stream: bool,
        tools: &'a RawValue,
    }
    #[derive(Serialize)]
    struct Chat<'a> {
        messages: &'a [Box<RawValue>],
        model: &'static str,
        stream: bool,
        tools: &'a RawValue,
    }
    let (instructions, model) = (workload.instructions.as_str(), "gpt-sim");
    let body = match api {
        DemoApi::Responses => serde_json::to_vec(&Responses {
            include: ["reasoning.encrypted_content"],
            input: history,
            instructions,
            model,
            store: false,
            stream,
            tools: &workload.tools,
        })?,
        DemoApi::Chat => {
            serde_json::to_vec(&Chat { messages: history, model, stream, tools: &workload.chat_tools })?
        }
    };
    Ok(body.into())
}

/// What the tools answer to these calls.
pub(super) fn results(
    api: DemoApi,
    workload: &Workload,
    turn: usize,
    calls: &[String],
) -> io::Result<Vec<Box<RawValue>>> {
    let result = |id: &String| {
        let output = workload.result(turn);
        Ok(to_raw_value(&match api {
            DemoApi::Responses => json!({ "type": "function_call_output", "call_id": id, "output": output }),
            DemoApi::Chat => json!({ "role": "tool", "tool_call_id": id, "content": output }),
        })?)
    };
    calls.iter().map(result).collect()
}

/// A whole answer.
///
/// # Errors
/// It is none, or was not completed.
pub(super) fn answer(api: DemoApi, body: &[u8]) -> io::Result<Answer> {
    match api {
        DemoApi::Responses => serde_json::from_slice::<Response>(body)?.answer(),
        DemoApi::Chat => {
            let mut completion: Value = serde_json::from_slice(body)?;
            let id = completion["id"].as_str().unwrap_or_default().to_owned();
            message(id, &completion["choices"][0]["message"].take())
        }
    }
}

/// A response object.
#[derive(Debug, Deserialize)]
struct Response {
    id: String,
    status: String,
    output: Vec<Box<RawValue>>,
}

impl Response {
    fn answer(self) -> io::Result<Answer> {
        #[derive(Deserialize)]
        struct Item {
            r#type: String,
            call_id: Option<String>,
        }
        if self.status != "completed" {
            return Err(broken("a turn was not completed"));
        }
        let mut calls = Vec::new();
        for item in &self.output {
            let item: Item = serde_json::from_str(item.get())?;
            calls.extend(item.call_id.filter(|_| item.r#type == "function_call"));
        }
        Ok(Answer { id: self.id, said: self.output, calls })
    }
}

/// An assistant's message.
fn message(id: String, message: &Value) -> io::Result<Answer> {
    if message["role"] != "assistant" {
        return Err(broken("the answer has no message"));
    }
    let calls = message["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
    let calls = calls.iter().filter_map(|call| call["id"].as_str().map(str::to_owned)).collect();
    Ok(Answer { id, said: vec![to_raw_value(message)?], calls })
}

/// An answer that streams.
#[derive(Debug)]
pub(super) enum Heard {
    /// The response of the last event.
    Responses(Option<Box<Answer>>),
    /// The message so far, its id, and whether it ended.
    Chat(Value, String, bool),
}

impl Heard {
    pub(super) fn new(api: DemoApi) -> Self {
        match api {
            DemoApi::Responses => Self::Responses(None),
            DemoApi::Chat => {
                Self::Chat(json!({ "role": "assistant", "content": null }), String::new(), false)
            }
        }
    }

    /// Takes the next event.
    ///
    /// # Errors
    /// It says that the turn failed.
    pub(super) fn hear(&mut self, event: &Frame) -> io::Result<()> {
        #[derive(Deserialize)]
        struct Completed {
            response: Response,
        }
        match (self, event.name.as_str()) {
            (Self::Responses(answer), "response.completed") => {
                *answer = Some(Box::new(serde_json::from_str::<Completed>(&event.data)?.response.answer()?));
            }
            (Self::Responses(_), "response.failed" | "response.incomplete" | "error") => {
                return Err(broken(format!("the turn ended badly: {}", event.data)));
            }
            (Self::Responses(_), _) => {}
            (Self::Chat(..), _) if event.data == "[DONE]" => {}
            (Self::Chat(message, id, ended), _) => {
                let chunk: Value = serde_json::from_str(&event.data)?;
                if chunk["error"].is_object() {
                    return Err(broken(format!("the turn ended badly: {}", event.data)));
                }
                id.clear();
                id.push_str(chunk["id"].as_str().unwrap_or_default());
                *ended |= chunk["choices"][0]["finish_reason"].is_string();
                add(message, &chunk["choices"][0]["delta"]);
            }
        }
        Ok(())
    }

    /// What the events amount to.
    ///
    /// # Errors
    /// They did not come to an end.
    pub(super) fn answer(self) -> io::Result<Answer> {
        let unended = || broken("the stream ended before the response did");
        match self {
            Self::Responses(answer) => answer.map(|answer| *answer).ok_or_else(unended),
            Self::Chat(_, _, false) => Err(unended()),
            Self::Chat(said, id, true) => message(id, &said),
        }
    }
}

/// Adds a chunk's delta to the message, as SDKs do.
fn add(message: &mut Value, delta: &Value) {
    append(&mut message["content"], &delta["content"]);
    for call in delta["tool_calls"].as_array().map_or(&[][..], Vec::as_slice) {
        let index = call["index"].as_u64().and_then(|index| usize::try_from(index).ok()).unwrap_or(0);
        if message["tool_calls"].is_null() {
            message["tool_calls"] = json!([]);
        }
        let Some(calls) = message["tool_calls"].as_array_mut() else { continue };
        if index == calls.len() {
            let function = json!({ "name": call["function"]["name"], "arguments": "" });
            calls.push(json!({ "id": call["id"], "type": "function", "function": function }));
        }
        if let Some(known) = calls.get_mut(index) {
            append(&mut known["function"]["arguments"], &call["function"]["arguments"]);
        }
    }
}

fn append(text: &mut Value, more: &Value) {
    if let Some(more) = more.as_str().filter(|more| !more.is_empty()) {
        *text = format!("{}{more}", text.as_str().unwrap_or_default()).into();
    }
}
