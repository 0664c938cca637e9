//! `response.create` out: the client's own bytes around the items that are new. Nothing is re-serialised.
//!
//! A flat object with the POST body's fields and the socket's envelope (OpenAI WebSocket guide, 2026-08). What is left
//! out of every frame: `stream`, and `background`, `conversation`, `prompt`, `previous_response_id` when they say
//! nothing (decisions 2.8).

use crate::proto::transcript::fields::{Field, field};
use crate::proto::transcript::request::Request;
use crate::proto::wire::object::Object;

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
    let tail = envelope.new_from.and_then(|from| tail(request, from));
    // New items that cannot be told from old ones are sent with all that came before, and then continue nothing.
    let previous = envelope.previous.filter(|_| envelope.new_from.is_none() || tail.is_some());
    let input = tail.unwrap_or_else(|| &body[request.input.clone()]);
    let settings = body.len() - request.input.len();
    let mut frame = Object::with_capacity(settings + input.len() + 256);
    frame.text("type", "response.create");
    if let Some(name) = envelope.stream_id {
        frame.text("stream_id", name);
    }
    if let Some(id) = previous {
        frame.text("previous_response_id", id);
    }
    for field_of_client in &request.members {
        let name = &*field_of_client.key;
        match field(name) {
            Field::Framing | Field::HttpOnly | Field::Anchor | Field::Envelope => {}
            Field::Input if tail.is_some() => _ = frame.pieces(name, &["[", input, "]"]),
            _ => _ = frame.raw(name, &body[field_of_client.value.clone()]),
        }
    }
    frame.finish().into_bytes()
}

/// The size a frame will have, to within the length of ids and names (256 bytes).
pub fn size(request: &Request, new_from: Option<usize>) -> usize {
    let tail = new_from.and_then(|from| tail(request, from));
    tail.map_or(request.len(), |tail| request.len() - request.input.len() + tail.len()) + 256
}

/// The new items as they stand in the body, commas and all.
fn tail(request: &Request, from: usize) -> Option<&str> {
    let chain = request.chain.as_ref()?;
    let spans = chain.spans.get(from.checked_sub(chain.first)?..)?;
    Some(&request.text.as_str()[spans.first()?.start..spans.last()?.end])
}
