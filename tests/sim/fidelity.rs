//! Translation judged by the provider's own Chat endpoint, without a proxy between: what a chat request means as a
//! request for a response, and the response as a chat answer, against the native answer field by field.

use bytes::Bytes;
use serde_json::{Value, json};
use tailwire::proto::dialect::chat::stream::Chunks;
use tailwire::proto::dialect::chat::{collect, request};
use tailwire::proto::wire::event::{Event, EventKind};
use tailwire::sim::Running;

use crate::chat_rows::{read, table, without_ids};
use crate::peer::{http, start};

#[tokio::test]
async fn a_translated_answer_is_the_native_one() {
    let sim = start().await;
    for (row, extra) in table() {
        for (stream, usage) in [(false, false), (true, false), (true, true)] {
            let mut chat = json!({"model": "gpt-sim"});
            chat.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            if stream {
                chat["stream"] = true.into();
            }
            if usage {
                chat["stream_options"] = json!({"include_usage": true});
            }
            let native = http(&sim, "POST", "/v1/chat/completions", chat.to_string()).await;
            assert_eq!(native.status, 200, "{row}: {:?}", native.body);
            let native = String::from_utf8(native.body.to_vec()).unwrap();
            let (seen, translated) = translated(&sim, &chat, stream).await;
            let (ours, theirs) = (read(&translated), read(&native));
            assert_eq!(ours.len(), theirs.len(), "{row}, stream {stream}:\n{translated}\n{native}");
            for (ours, theirs) in ours.into_iter().zip(theirs) {
                assert_eq!(without_ids(ours), without_ids(theirs), "{row}, stream {stream}");
            }
            sim.provider.ledger().read(|book| {
                let native = &book.turns[book.turns.len() - 2];
                let translated = book.answer(&seen).unwrap();
                assert_eq!(translated.digests, native.digests, "{row}: what the model sees");
                assert_eq!(translated.settings, native.settings, "{row}: how it is to answer");
                assert_eq!(translated.items, native.items, "{row}");
            });
        }
    }
}

/// The answer to a chat request by way of the Responses API, and the id of the response.
async fn translated(sim: &Running, chat: &Value, stream: bool) -> (String, String) {
    let translated =
        request::translate(&chat.to_string()).unwrap_or_else(|reason| panic!("{chat}: {reason:?}"));
    let mut body: Value = serde_json::from_str(&translated.body).unwrap();
    body["stream"] = true.into();
    let reply = http(sim, "POST", "/v1/responses", body.to_string()).await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    let mut chunks = Chunks::new(translated.framing, "chatcmpl-none", &translated.model);
    let mut written = Vec::new();
    for data in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let event = Event::parse(Bytes::copy_from_slice(data.as_bytes())).unwrap();
        let terminal = matches!(event.kind(), EventKind::Completed | EventKind::Ended);
        let response: Value = serde_json::from_str(event.value("response").unwrap_or("{}")).unwrap();
        let output = response["output"].to_string();
        chunks.write(&event, terminal.then_some(&*output), &mut written);
        if terminal {
            let id = response["id"].as_str().unwrap().to_owned();
            let whole = collect::body(&response.to_string(), &output, translated.framing);
            return (id, if stream { String::from_utf8(written).unwrap() } else { whole });
        }
    }
    panic!("no end: {text}");
}
