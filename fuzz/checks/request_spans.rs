//! A request read as spans, against a general JSON reader; read on after a known prefix, against reading it whole; and the
//! frame it becomes.

use bytes::Bytes;
use serde_json::Value;
use tailwire::proto::digest::{Digest, Key};
use tailwire::proto::transcript::frame::{self, Envelope};
use tailwire::proto::transcript::request::Request;

/// One body, or two with a line break before the second.
pub fn check(data: &[u8]) {
    let key = Key::new([7; 32]);
    let account = key.hasher("account").finish();
    let mut known = Vec::new();
    for body in data.splitn(2, |byte| *byte == b'\n') {
        let whole = read(&key, &account, body);
        let resumed = Request::parse(&key, &account, Bytes::copy_from_slice(body), &known);
        match (&whole, &resumed) {
            (Some(whole), Ok(resumed)) => assert_same(whole, resumed),
            (None, Err(_)) => {}
            (whole, resumed) => panic!("whole: {}, read on: {}", whole.is_some(), resumed.is_ok()),
        }
        known = whole.and_then(|request| request.chain?.prefix).into_iter().collect();
    }
}

/// Reads a body the long way and compares what was read.
fn read(key: &Key, account: &Digest, body: &[u8]) -> Option<Request> {
    let request = Request::parse(key, account, Bytes::copy_from_slice(body), &[]).ok()?;
    let Ok(general) = serde_json::from_slice::<Value>(body) else { return Some(request) };
    assert_eq!(request.stream, general["stream"] == true);
    if let Value::Array(items) = &general["input"] {
        assert_eq!(request.items(), if request.chain.is_some() { items.len() } else { request.items() });
        for (n, item) in items.iter().enumerate().filter(|_| request.chain.is_some()) {
            let span = request.item(n).expect("an item");
            assert_eq!(serde_json::from_str::<Value>(span).ok().as_ref(), Some(item));
        }
    }
    assert_frame(&request, &general);
    Some(request)
}

/// The frame holds the client's own fields, what frames must not hold left out, and the items from the tail on.
fn assert_frame(request: &Request, general: &Value) {
    let items = general["input"].as_array().map_or(0, Vec::len);
    let tail = (request.chain.is_some() && items > 1).then_some(items - 1);
    let envelope = Envelope { stream_id: Some("tw0"), previous: tail.map(|_| "resp_1"), new_from: tail };
    let frame = frame::write(request, envelope);
    assert!(frame.len() <= frame::size(request, tail));
    let frame: Value = serde_json::from_slice(&frame).expect("a frame is JSON");
    assert_eq!((&frame["type"], &frame["stream_id"]), (&"response.create".into(), &"tw0".into()));
    for (name, value) in general.as_object().into_iter().flatten() {
        match name.as_str() {
            "stream" | "background" | "conversation" | "prompt" | "previous_response_id" | "input" => {}
            name => assert_eq!(&frame[name], value, "{name}"),
        }
    }
    match tail {
        Some(from) => assert_eq!(frame["input"], general["input"].as_array().expect("a list")[from..].into()),
        None => assert_eq!(frame["input"], general["input"]),
    }
}

fn assert_same(whole: &Request, resumed: &Request) {
    assert_eq!((whole.stream, whole.store, whole.acts, &whole.anchor), (resumed.stream, resumed.store, resumed.acts, &resumed.anchor));
    assert_eq!((whole.scope, whole.unknown, whole.items()), (resumed.scope, resumed.unknown, resumed.items()));
    let (Some(whole), Some(resumed)) = (&whole.chain, &resumed.chain) else {
        return assert_eq!(whole.chain.is_some(), resumed.chain.is_some());
    };
    assert_eq!(whole.steps.last(), resumed.steps.last());
    assert!(resumed.steps.iter().all(|step| whole.steps.contains(step)));
    assert_eq!(whole.reasoning, resumed.reasoning);
    let prefix = |chain: &tailwire::proto::transcript::request::Chain| chain.prefix.as_ref().map(|p| (p.len, p.digest));
    assert_eq!(prefix(whole), prefix(resumed));
}
