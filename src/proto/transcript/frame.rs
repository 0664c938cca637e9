//! `response.create` out: the client's own bytes around the items that are new. Nothing is re-serialised.
//!
//! A flat object with the POST body's fields and the socket's envelope (OpenAI WebSocket guide, 2026-08). What is left
//! out of every frame: `stream`, and `background`, `conversation`, `prompt`, `previous_response_id` when they say
//! nothing (decisions 2.8).

use crate::proto::transcript::fields::{Field, field};
use crate::proto::transcript::request::Request;

/// What a frame says besides the client's own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The lane; `None` on the default lane.
    pub stream_id: Option<&'a str>,
    /// The response to continue.
    pub previous: Option<&'a str>,
    /// Index of the first item to send; `None` for all of `input` as it is.
    pub new_from: Option<usize>,
}

/// Writes the frame.
pub fn write(request: &Request, envelope: Envelope<'_>) -> Vec<u8> {
    let body = request.text.as_str();
    let input = input(request, envelope.new_from);
    let settings = body.len() - (request.input.end - request.input.start);
    let mut frame = Vec::with_capacity(settings + input.len() + 256);
    frame.extend_from_slice(br#"{"type":"response.create""#);
    if let Some(name) = envelope.stream_id {
        member("stream_id", &quoted(name), &mut frame);
    }
    if let Some(id) = envelope.previous {
        member("previous_response_id", &quoted(id), &mut frame);
    }
    for field_of_client in &request.members {
        let name = &*field_of_client.key;
        match field(name) {
            Field::Framing | Field::HttpOnly | Field::Anchor | Field::Envelope => {}
            Field::Input if envelope.new_from.is_some() => {
                member(name, &["[", input, "]"].concat(), &mut frame)
            }
            _ => member(name, &body[field_of_client.value.clone()], &mut frame),
        }
    }
    frame.push(b'}');
    frame
}

/// The size a frame will have, to within the length of ids and names (256 bytes).
pub fn size(request: &Request, new_from: Option<usize>) -> usize {
    request.len() - (request.input.end - request.input.start) + input(request, new_from).len() + 256
}

/// The new items as they stand in the body, commas and all.
fn input(request: &Request, new_from: Option<usize>) -> &str {
    let body = request.text.as_str();
    let whole = &body[request.input.clone()];
    let Some((from, chain)) = new_from.zip(request.chain.as_ref()) else { return whole };
    let spans = from.checked_sub(chain.first).and_then(|from| chain.spans.get(from..)).unwrap_or_default();
    match (spans.first(), spans.last()) {
        (Some(first), Some(last)) => &body[first.start..last.end],
        _ => whole.trim_start_matches('[').trim_end_matches(']'),
    }
}

fn member(name: &str, value: &str, frame: &mut Vec<u8>) {
    frame.push(b',');
    frame.extend_from_slice(quoted(name).as_bytes());
    frame.push(b':');
    frame.extend_from_slice(value.as_bytes());
}

/// A JSON string. Serialising a `str` cannot fail.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}
