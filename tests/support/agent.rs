//! A stateless agent: posts its whole history, runs the tools it is asked for, and posts again.
//!
//! It repeats what it was told as it was told, unless it is of the kind that drops reasoning. What its tools say
//! depends on the call alone, so that two agents with the same words have the same conversation.

use hyper::Method;
use serde_json::{Value, json};

use crate::http::{Client, Reply, Told};

#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) client: Client,
    /// All top-level fields but the input.
    pub(crate) settings: Value,
    pub(crate) history: Vec<Value>,
    pub(crate) drops_reasoning: bool,
}

/// One request and its answer.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    /// The body as it was posted.
    pub(crate) request: String,
    pub(crate) reply: Reply,
    /// The response object in it.
    pub(crate) response: Value,
}

impl Agent {
    pub(crate) fn new(client: Client) -> Self {
        let tool = json!({"type": "function", "name": "shell", "strict": false, "description": "Runs a command.",
            "parameters": {"type": "object", "properties": {"path": {"type": "string"}}}});
        let settings =
            json!({"model": "gpt-sim", "instructions": "Be brief.", "store": false, "tools": [tool]});
        Self { client, settings, history: Vec::new(), drops_reasoning: false }
    }

    /// Changes settings; null takes one away.
    pub(crate) fn set(mut self, changes: &Value) -> Self {
        self.change(changes);
        self
    }

    pub(crate) fn change(&mut self, changes: &Value) {
        let settings = self.settings.as_object_mut().unwrap();
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(settings.remove(name)),
                value => drop(settings.insert(name.clone(), value.clone())),
            }
        }
    }

    pub(crate) fn hear(&mut self, text: &str) {
        self.history.push(json!({"role": "user", "content": text}));
    }

    /// The body of the next request.
    pub(crate) fn body(&self) -> String {
        let mut body = self.settings.clone();
        body["input"] = self.history.as_slice().into();
        body.to_string()
    }

    /// One request; its answer and the outputs of its calls join the history. Returns whether there were calls.
    pub(crate) async fn step(&mut self) -> (Turn, bool) {
        let request = self.body();
        let reply = self.client.send(Method::POST, "/v1/responses", request.clone()).await;
        let response = reply.response();
        let calls = self.take(&response);
        (Turn { request, reply, response }, calls)
    }

    /// Works on what a user says until there is nothing left to do.
    pub(crate) async fn run(&mut self, text: &str) -> Vec<Turn> {
        self.hear(text);
        let mut turns = Vec::new();
        loop {
            let (turn, calls) = self.step().await;
            turns.push(turn);
            if !calls {
                return turns;
            }
        }
    }

    /// Takes an answer into the history, runs its calls, and says whether there were any.
    pub(crate) fn take(&mut self, response: &Value) -> bool {
        let output = response["output"].as_array().unwrap();
        let kept = output.iter().filter(|item| !(self.drops_reasoning && item["type"] == "reasoning"));
        self.history.extend(kept.cloned());
        let before = self.history.len();
        for call in output.iter().filter(|item| item["call_id"].is_string()) {
            let kind = format!("{}_output", call["type"].as_str().unwrap());
            let id = call["call_id"].as_str().unwrap();
            let output = format!("ran {id}: {}", "ok ".repeat(200));
            self.history.push(json!({"type": kind, "call_id": id, "output": output}));
        }
        self.history.len() > before
    }
}

impl Turn {
    pub(crate) fn id(&self) -> &str {
        self.response["id"].as_str().unwrap()
    }

    /// Digests of the context the model saw: all of it, and without reasoning.
    pub(crate) fn context(&self) -> (&str, &str) {
        let digests = &self.response["sim"];
        (digests["context"].as_str().unwrap(), digests["visible"].as_str().unwrap())
    }

    pub(crate) fn told(&self) -> Told {
        self.reply.told()
    }
}

/// Asserts that two runs showed the model the same contexts. They need not have said so in the same way.
pub(crate) fn assert_same_contexts(one: &[Turn], other: &[Turn]) {
    let contexts = |turns: &[Turn]| turns.iter().map(|turn| turn.context().0.to_owned()).collect::<Vec<_>>();
    assert_eq!(contexts(one), contexts(other));
}
