//! The judge: what the provider says to the same request sent directly, in full, over HTTP.

use serde_json::{Value, json};
use tailwire::proto::wire::sse;
use tailwire::sim::rules::{Account, Connection};
use tailwire::sim::script::Limits;

use crate::client::{Prepared, Said};

/// What the client must get to see.
#[derive(Debug, Clone)]
pub(crate) enum Expected {
    /// An answer to this context.
    Answer { visible: String, context: String, reasoning: Value, output: Value },
    /// A refusal with this status.
    Refused(u16),
}

/// Asks directly. The answer is judged by the digests of what the model read, and by what it said.
pub(crate) fn expected(direct: &mut Account, credential: &str, request: &Prepared) -> Expected {
    match direct.answer(credential, &request.direct, 1) {
        Ok(response) => Expected::Answer {
            visible: text(&response["sim"]["visible"]),
            context: text(&response["sim"]["context"]),
            reasoning: response["sim"]["reasoning"].clone(),
            output: response["output"].clone(),
        },
        Err(refusal) => Expected::Refused(refusal.status),
    }
}

/// The digest of what the client set, as the provider works it out for a frame.
pub(crate) fn settings(now: std::time::Instant, body: &str) -> String {
    let mut frame: Value = serde_json::from_str(body).expect("a body");
    let members = frame.as_object_mut().expect("an object");
    members.remove("stream");
    members.insert("type".to_owned(), "response.create".into());
    members.retain(|_, value| !value.is_null());
    let mut scratch = Account::new([0; 32]);
    let mut connection = Connection::new(now, "0".repeat(64));
    let received = connection.receive(now, &Limits::default(), &mut scratch, &frame.to_string());
    received.map(|received| received.settings).unwrap_or_default()
}

/// Output without what differs between two tellings of it; without reasoning where that may differ too.
pub(crate) fn said(output: &Value, reasoning: bool) -> Value {
    let items = output.as_array().cloned().unwrap_or_default();
    let kept = items.into_iter().filter(|item| reasoning || item["type"] != "reasoning");
    kept.map(|mut item| {
        let members = item.as_object_mut().expect("an item");
        members.remove("id");
        members.remove("encrypted_content");
        item
    })
    .collect()
}

/// Whether all that one list has stands in the other, in the same order.
pub(crate) fn is_within(part: &Value, whole: &Value) -> bool {
    let mut rest = whole.as_array().into_iter().flatten();
    part.as_array().into_iter().flatten().all(|wanted| rest.any(|item| item == wanted))
}

/// What a client made of the stream it read.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) names: Vec<String>,
    pub(crate) last: Value,
    /// Items as their own events told them.
    pub(crate) done: Vec<Value>,
}

/// Reads SSE as a client does; each event must be numbered, named, and none may tell of lanes.
pub(crate) fn read(stream: &[u8]) -> Story {
    let mut story = Story::default();
    let mut decoder = sse::Decoder::default();
    for event in decoder.push(stream).expect("events") {
        let data: Value = serde_json::from_str(&event.data).expect("one JSON object per event");
        assert_eq!(data["sequence_number"], json!(story.names.len()), "numbered from 0");
        assert_eq!(Some(&*event.name), data["type"].as_str());
        assert!(data.get("stream_id").is_none(), "no lanes: {data}");
        if data["type"] == "response.output_item.done" {
            story.done.push(data["item"].clone());
        }
        story.names.push(event.name.clone());
        story.last = data;
    }
    story
}

/// The items of an answer in both copies.
pub(crate) fn both(done: &[Value], output: &Value) -> Vec<Said> {
    let last = output.as_array().cloned().unwrap_or_default();
    let copy = |n: usize, last: &Value| done.get(n).cloned().unwrap_or_else(|| last.clone());
    last.iter().enumerate().map(|(n, last)| Said { done: copy(n, last), last: last.clone() }).collect()
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
