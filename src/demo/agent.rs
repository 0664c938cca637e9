//! A coding agent as an SDK makes one: it posts its whole history with every call, appends what the model said and what
//! its tools answered, and posts again.
//!
//! Knows a base URL and nothing else: the same code runs against the provider and against tailwire. It only notes the
//! `x-tailwire` header where there is one. Nothing is retried: a failure ends the run.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::{Instant, timeout};

use super::workload::Workload;
use crate::proto::wire::sse;

/// One agent, with its connections.
#[derive(Debug)]
pub(super) struct Agent {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
    stream: bool,
}

/// What a turn looked like from the agent's side.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn {
    /// The context the model saw, as the simulated provider digests it.
    pub(super) context: Digests,
    /// Bytes of the request's body.
    pub(super) body: usize,
    /// Bytes of the items that were new in it.
    pub(super) fresh: usize,
    /// From the request to the first event; to the whole answer if that is not streamed.
    pub(super) first_event: Duration,
    /// The `x-tailwire` header; empty without one.
    pub(super) plan: String,
}

/// With and without the model's hidden reasoning. Two contexts are the same if both are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Digests {
    pub(super) context: String,
    pub(super) visible: String,
}

impl Agent {
    /// An agent that talks to this base URL.
    pub(super) fn new(base_url: &str, stream: bool) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(tcp);
        Self { client, url: format!("{base_url}/responses"), stream }
    }

    /// Works until the model calls no more tools; `told` hears of every turn.
    ///
    /// # Errors
    /// No answer, a refusal, or an answer that is none.
    pub(super) async fn run(&self, workload: &Workload, mut told: impl FnMut()) -> io::Result<Vec<Turn>> {
        let mut history = vec![workload.task.clone()];
        let mut fresh = workload.task.get().len();
        let mut turns = Vec::new();
        loop {
            let body = body(workload, &history, self.stream)?;
            let sent = body.len();
            let began = Instant::now();
            let (answer, first_event, plan) = self.ask(body, began).await?;
            turns.push(Turn { context: answer.sim, body: sent, fresh, first_event, plan });
            told();
            let results = results(workload, turns.len(), &answer.output)?;
            if results.is_empty() {
                return Ok(turns);
            }
            if turns.len() > workload.calls as usize {
                return Err(broken("the model calls more tools than it was told to"));
            }
            fresh = results.iter().map(|result| result.get().len()).sum();
            history.extend(answer.output);
            history.extend(results);
        }
    }

    async fn ask(&self, body: Bytes, began: Instant) -> io::Result<(Answer, Duration, String)> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .header(AUTHORIZATION, "Bearer sk-demo")
            .header(USER_AGENT, concat!("tailwire-demo/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))
            .map_err(io::Error::other)?;
        let asked = timeout(PATIENCE, self.client.request(request));
        let response = asked.await?.map_err(io::Error::other)?;
        let (status, plan) = (response.status(), plan(response.headers()));
        if status != StatusCode::OK {
            let body = timeout(PATIENCE, whole(response)).await??;
            let body = String::from_utf8_lossy(&body).into_owned();
            return Err(broken(format!("the agent was answered {status}: {body}")));
        }
        let (answer, first_event) = if self.stream {
            events(response, began).await?
        } else {
            let body = timeout(PATIENCE, whole(response)).await??;
            (serde_json::from_slice(&body)?, began.elapsed())
        };
        Ok((answer, first_event, plan))
    }
}

/// A request body as SDKs write one. Fields in the order of openai-python's `create`, which is the alphabet's.
fn body(workload: &Workload, history: &[Box<RawValue>], stream: bool) -> io::Result<Bytes> {
    #[derive(Serialize)]
    struct Body<'a> {
        include: [&'static str; 1],
        input: &'a [Box<RawValue>],
        instructions: &'a str,
        model: &'static str,
        store: bool,
        stream: bool,
        tools: &'a RawValue,
    }
    let body = Body {
        include: ["reasoning.encrypted_content"],
        input: history,
        instructions: &workload.instructions,
        model: "gpt-sim",
        store: false,
        stream,
        tools: &workload.tools,
    };
    Ok(serde_json::to_vec(&body)?.into())
}

/// A response object, as far as the agent cares.
#[derive(Debug, Deserialize)]
struct Answer {
    status: String,
    output: Vec<Box<RawValue>>,
    sim: Digests,
}

/// The outputs of the calls among these items.
fn results(workload: &Workload, turn: usize, output: &[Box<RawValue>]) -> io::Result<Vec<Box<RawValue>>> {
    #[derive(Deserialize)]
    struct Item {
        r#type: String,
        call_id: Option<String>,
    }
    let mut results = Vec::new();
    for item in output {
        let item: Item = serde_json::from_str(item.get())?;
        if item.r#type == "function_call" {
            let output = workload.result(turn);
            let result = json!({ "type": "function_call_output", "call_id": item.call_id, "output": output });
            results.push(to_raw_value(&result)?);
        }
    }
    Ok(results)
}

/// Reads the stream to its end; the answer is the completed response's.
async fn events(response: Response<Incoming>, began: Instant) -> io::Result<(Answer, Duration)> {
    #[derive(Deserialize)]
    struct Completed {
        response: Answer,
    }
    let mut body = response.into_body();
    let mut decoder = sse::Decoder::default();
    let (mut first_event, mut answer) = (None, None);
    while let Some(frame) = timeout(PATIENCE, body.frame()).await? {
        let frame = frame.map_err(io::Error::other)?;
        let Some(data) = frame.data_ref() else { continue };
        for event in decoder.push(data).map_err(|_| broken("the stream of events is not one"))? {
            first_event.get_or_insert_with(|| began.elapsed());
            match event.name.as_str() {
                "response.completed" => {
                    answer = Some(serde_json::from_str::<Completed>(&event.data)?.response);
                }
                "response.failed" | "response.incomplete" | "error" => {
                    return Err(broken(format!("the turn ended badly: {}", event.data)));
                }
                _ => {}
            }
        }
    }
    let (Some(first_event), Some(answer)) = (first_event, answer) else {
        return Err(broken("the stream ended before the response did"));
    };
    if answer.status == "completed" {
        Ok((answer, first_event))
    } else {
        Err(broken("a turn was not completed"))
    }
}

async fn whole(response: Response<Incoming>) -> io::Result<Bytes> {
    let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect();
    Ok(body.await.map_err(io::Error::other)?.to_bytes())
}

fn plan(headers: &HeaderMap) -> String {
    headers.get("x-tailwire").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

fn broken(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(reason)
}

/// As long as the official SDKs wait by default.
const PATIENCE: Duration = Duration::from_secs(600);
const LARGEST_ANSWER: usize = 64 << 20;
