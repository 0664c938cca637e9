//! A frame of the provider: what a general JSON reader takes for an event is one, under the same name; whatever it is,
//! it can be asked everything, and what goes down to the client is readable.

use bytes::Bytes;
use serde_json::Value;
use tailwire::proto::dialect::responses::Restorer;
use tailwire::proto::wire::event::{Event, ProviderError};
use tailwire::proto::wire::sse::Decoder;

/// One text message of the socket.
pub fn check(data: &[u8]) {
    let general: Option<Value> = serde_json::from_slice(data).ok();
    let parsed = Event::parse(Bytes::copy_from_slice(data));
    let name = general.as_ref().and_then(|value| value.as_object()?.get("type")?.as_str());
    if let Some(name) = name {
        assert_eq!(parsed.as_ref().map(Event::name), Ok(name));
    }
    let Ok(event) = parsed else { return };
    let _ = (event.lane(), event.number("output_index"), event.string("delta"), event.response_id(), event.weight());
    let mut restorer = Restorer::new(Some("resp_of_the_client"));
    let mut out = Vec::new();
    restorer.write(&event, &mut out);
    for error in [Some(ProviderError::of_event(&event)), ProviderError::of_response(&event)].into_iter().flatten() {
        assert!((400..600).contains(&error.status), "{}", error.status);
        restorer.write_error(&error, &mut out);
        if general.is_some() {
            let body: Value = serde_json::from_str(&error.body).expect("the body of an error is JSON");
            assert!(body["error"].is_object(), "{body}");
        }
    }
    let frames = Decoder::default().push(&out).expect("what goes down is a stream of events");
    for frame in frames.iter().filter(|_| general.is_some()) {
        let data: Value = serde_json::from_str(&frame.data).expect("data is JSON");
        assert!(data["sequence_number"].is_u64() && data.get("stream_id").is_none(), "{data}");
    }
}
