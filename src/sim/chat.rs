//! `POST /v1/chat/completions`, the provider's own: what a chat request means to the model, and its answer in Chat's form.
//!
//! Reads and writes in its own way: the proxy's translation is judged by it. The model's hidden reasoning is lost between
//! requests, as it is there. Pace and mishaps are `answer.rs`'s. Legacy functions and sound are read, and answered in text.

mod message;
mod read;
mod write;

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};

use self::read::{Asked, read};
use self::write::Chunks;
use super::answer::{Play, Told, arrive, begin, events, nested};
use super::http::{Body, Caller, Reply, json_reply, ok};
use super::request::{self, Transport};
use super::script::Style;

/// Answers a request for a chat completion.
pub(super) async fn complete(caller: Caller, request: Request<Incoming>, credential: String) -> Reply {
    let arrived = match arrive(&caller, request, Transport::Chat, &credential).await {
        Ok(arrived) => arrived,
        Err(reply) => return Ok(reply),
    };
    let read = arrived.object().and_then(|chat| {
        let asked = read(&chat)?;
        let request = request::Request::parse(asked.body.clone(), Transport::Chat)?;
        Ok((asked, request))
    });
    let (asked, request) = match read {
        Ok(read) => read,
        Err(refusal) => return Ok(arrived.refuse(&refusal)),
    };
    // The script's style is about events and sockets, which this endpoint has not.
    let mut play = match begin(caller, arrived, &request, Style::default(), &credential).await? {
        Ok(play) => play,
        Err(reply) => return Ok(reply),
    };
    if request.stream {
        return Ok(chunks(play, asked));
    }
    Ok(match play.finish().await? {
        Ok(response) if response["status"] == "failed" => failed(&response),
        Ok(response) => ok(&write::whole(&response, &asked)),
        Err(reply) => reply,
    })
}

/// The id of the completion that a response stands behind.
pub(super) fn id(response: &str) -> String {
    format!("chatcmpl-{}", response.trim_start_matches("resp_"))
}

fn chunks(play: Play, asked: Asked) -> Response<Body> {
    let mut chunks = Chunks::new(asked);
    events(play, move |told| match told {
        Told::Event(frame, _) if frame["type"] == "response.failed" => data(&failure(&frame["response"])),
        Told::Event(frame, ending) => {
            let mut text: String = chunks.of(&frame).iter().map(data).collect();
            if ending.is_some() {
                text.push_str("data: [DONE]\n\n");
            }
            text
        }
        Told::Error(frame) => data(&nested(&frame)),
        Told::Noise(text) => format!("data: {text}\n\n"),
    })
}

fn data(chunk: &Value) -> String {
    format!("data: {chunk}\n\n")
}

/// A failed response has no form in Chat: it is an error.
fn failed(response: &Value) -> Response<Body> {
    let limited = response["error"]["code"] == "rate_limit_exceeded";
    let status = if limited { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::INTERNAL_SERVER_ERROR };
    json_reply(status, &failure(response))
}

fn failure(response: &Value) -> Value {
    let error = &response["error"];
    json!({ "error": { "message": error["message"], "type": "server_error", "param": null, "code": error["code"] } })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
