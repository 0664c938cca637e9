//! A coding agent as an SDK makes one: it posts its whole history with every call, appends what the model said and what
//! its tools answered, and posts again. In which words is `speech.rs`'s.
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
use tokio::time::{Instant, timeout};

use super::speech::{self, Answer, Heard};
use super::workload::Workload;
use crate::args::DemoApi;
use crate::proto::wire::sse;

/// One agent, with its connections.
#[derive(Debug)]
pub(super) struct Agent {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
    api: DemoApi,
    stream: bool,
}

/// What a turn looked like from the agent's side.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn {
    /// The answer's id.
    pub(super) id: String,
    /// The context the model saw, as the simulated provider digests it: filled in from its book.
    pub(super) context: String,
    /// Bytes of the request's body.
    pub(super) body: usize,
    /// Bytes of the items that were new in it.
    pub(super) fresh: usize,
    /// From the request to the first event; to the whole answer if that is not streamed.
    pub(super) first_event: Duration,
    /// The `x-tailwire` header; empty without one.
    pub(super) plan: String,
}

impl Agent {
    /// An agent that talks to this base URL.
    pub(super) fn new(base_url: &str, api: DemoApi, stream: bool) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(tcp);
        Self { client, url: format!("{base_url}/{}", speech::path(api)), api, stream }
    }

    /// Works until the model calls no more tools; `told` hears of every turn.
    ///
    /// # Errors
    /// No answer, a refusal, or an answer that is none.
    pub(super) async fn run(&self, workload: &Workload, mut told: impl FnMut()) -> io::Result<Vec<Turn>> {
        let mut history = speech::opening(self.api, workload)?;
        let mut fresh = history.iter().map(|item| item.get().len()).sum();
        let mut turns = Vec::new();
        loop {
            let body = speech::body(self.api, workload, &history, self.stream)?;
            let sent = body.len();
            let began = Instant::now();
            let (answer, first_event, plan) = self.ask(body, began).await?;
            turns.push(Turn { id: answer.id, body: sent, fresh, first_event, plan, ..Turn::default() });
            told();
            let results = speech::results(self.api, workload, turns.len(), &answer.calls)?;
            if results.is_empty() {
                return Ok(turns);
            }
            if turns.len() > workload.calls as usize {
                return Err(broken("the model calls more tools than it was told to"));
            }
            fresh = results.iter().map(|result| result.get().len()).sum();
            history.extend(answer.said);
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
            events(self.api, response, began).await?
        } else {
            let body = timeout(PATIENCE, whole(response)).await??;
            (speech::answer(self.api, &body)?, began.elapsed())
        };
        Ok((answer, first_event, plan))
    }
}

/// Reads the stream to its end; the answer is what its events amount to.
async fn events(
    api: DemoApi,
    response: Response<Incoming>,
    began: Instant,
) -> io::Result<(Answer, Duration)> {
    let mut body = response.into_body();
    let (mut decoder, mut heard) = (sse::Decoder::default(), Heard::new(api));
    let mut first_event = None;
    while let Some(frame) = timeout(PATIENCE, body.frame()).await? {
        let frame = frame.map_err(io::Error::other)?;
        let Some(data) = frame.data_ref() else { continue };
        for event in decoder.push(data).map_err(|_| broken("the stream of events is not one"))? {
            first_event.get_or_insert_with(|| began.elapsed());
            heard.hear(&event)?;
        }
    }
    match first_event {
        Some(first_event) => Ok((heard.answer()?, first_event)),
        None => Err(broken("the stream ended before the response did")),
    }
}

async fn whole(response: Response<Incoming>) -> io::Result<Bytes> {
    let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect();
    Ok(body.await.map_err(io::Error::other)?.to_bytes())
}

fn plan(headers: &HeaderMap) -> String {
    headers.get("x-tailwire").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

pub(super) fn broken(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(reason)
}

/// As long as the official SDKs wait by default.
const PATIENCE: Duration = Duration::from_secs(600);
const LARGEST_ANSWER: usize = 64 << 20;
