//! Frames of the provider: what a general JSON reader takes for an event is one, and says the same of itself; and what goes
//! down to the client is every event once, numbered from 0, with nothing changed but what is ours.

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tailwire::proto::dialect::responses::Restorer;
use tailwire::proto::id::LaneId;
use tailwire::proto::wire::error::ProviderError;
use tailwire::proto::wire::event::{Event, EventKind};
use tailwire::proto::wire::sse::{Decoder, Frame};

const ANCHOR: &str = "resp_of_the_client";

/// Text messages of one response, apart by blank lines.
pub(crate) fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut down = Down {
        restorer: Restorer::new(Some(ANCHOR)),
        out: Vec::new(),
        expected: Vec::new(),
        done: Vec::new(),
    };
    // A reader of trees gives up over nesting, half surrogate pairs and huge numbers; spans do not.
    let mut readable = true;
    for message in text.split("\n\n") {
        let general = general(message);
        let Some(event) = parse(message, general.as_ref()) else { continue };
        readable &= general.is_some();
        if let Some(general) = &general {
            assert_says_the_same(&event, general);
        }
        down.write(&event, general);
    }
    if let Err(error) = Event::parse(Bytes::copy_from_slice(data)) {
        assert!(std::str::from_utf8(data).is_err() || !is_event(&text), "{error:?}");
    }
    down.assert_complete(readable);
}

/// The tree, if its nesting leaves room for what we put around it.
fn general(text: &str) -> Option<Value> {
    let nesting = text.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count();
    serde_json::from_str(text).ok().filter(|_| nesting < 100)
}

fn is_event(text: &str) -> bool {
    general(text).is_some_and(|value| value["type"].is_string() || value.get("error").is_some())
}

fn parse(text: &str, general: Option<&Value>) -> Option<Event> {
    let parsed = Event::parse(Bytes::copy_from_slice(text.as_bytes()));
    let name = general.map(|value| match (&value["type"], value.get("error")) {
        (Value::String(name), _) => Some(name.as_str()),
        (_, Some(_)) => Some("error"),
        _ => None,
    });
    match name {
        Some(name) => assert_eq!(parsed.as_ref().ok().map(Event::name), name),
        None => assert!(parsed.is_err() || serde_json::from_str::<&RawValue>(text).is_ok(), "not JSON"),
    }
    parsed.ok()
}

fn assert_says_the_same(event: &Event, general: &Value) {
    let lane = match &general["stream_id"] {
        Value::Null => Some(LaneId::Default),
        Value::String(name) => (0..100).map(LaneId::Named).find(|lane| lane.name().as_ref() == Some(name)),
        _ => None,
    };
    assert!(event.lane().ok() == lane || matches!(event.lane(), Ok(LaneId::Named(100..))), "{lane:?}");
    assert_eq!(event.number("output_index"), general["output_index"].as_u64());
    assert_eq!(event.string("delta").as_deref(), general["delta"].as_str());
    assert_eq!(event.response_id().as_deref(), general["response"]["id"].as_str());
    assert!(event.weight() > event.text().len());
    for error in
        [Some(ProviderError::of_event(event)), ProviderError::of_response(event)].into_iter().flatten()
    {
        assert!((400..600).contains(&error.status), "{}", error.status);
        let body: Value = serde_json::from_str(&error.body).expect("the body of an error is JSON");
        assert!(body["error"].is_object() && !body["error"]["message"].is_null(), "{body}");
    }
}

/// What a client that reads SSE is sent.
struct Down {
    restorer: Restorer,
    out: Vec<u8>,
    /// Name and data of every event, without its number.
    expected: Vec<(String, Value)>,
    done: Vec<(u64, Value)>,
}

impl Down {
    fn write(&mut self, event: &Event, general: Option<Value>) {
        self.restorer.write(event, &mut self.out);
        let Some(mut data) = general else { return };
        if let (EventKind::ItemDone, Some(index)) = (event.kind(), data["output_index"].as_u64()) {
            self.done
                .extend(data.get("item").filter(|item| !item.is_null()).map(|item| (index, item.clone())));
        }
        let object = data.as_object_mut().expect("an event is an object");
        object.remove("stream_id");
        object.remove("sequence_number");
        if let Some(Value::Object(response)) = object.get_mut("response") {
            response.entry("previous_response_id").and_modify(|id| *id = ANCHOR.into());
            let said = response.get("output");
            let nothing = said.is_none_or(|output| *output == Value::Null || *output == json!([]));
            if event.kind().is_terminal() && nothing && (said.is_none() || !self.done.is_empty()) {
                self.done.sort_by_key(|(index, _)| *index);
                response.insert("output".into(), self.done.iter().map(|(_, item)| item.clone()).collect());
            }
        }
        self.expected.push((event.name().replace(['\r', '\n'], ""), data));
    }

    /// An error in mid-stream lets go of whatever was held.
    fn assert_complete(mut self, readable: bool) {
        let error =
            Event::parse(Bytes::from_static(br#"{"type":"error","message":"the end"}"#)).expect("an event");
        self.restorer.write_error(&ProviderError::of_event(&error), &mut self.out);
        let frames = Decoder::default().push(&self.out).expect("what goes down is a stream of events");
        if !readable {
            return;
        }
        let unread = |frame: Frame| {
            let data =
                serde_json::from_str(&frame.data).unwrap_or_else(|_| panic!("not JSON: {}", frame.data));
            (frame.name, data)
        };
        let mut shown: Vec<(String, Value)> = frames.into_iter().map(unread).collect();
        for (number, (name, data)) in shown.iter_mut().enumerate() {
            // A name is a line: it has no line breaks.
            let kind = data["type"].as_str().map(|kind| kind.replace(['\r', '\n'], ""));
            assert!(kind.is_none_or(|kind| kind == *name) && data["stream_id"].is_null(), "{name}: {data}");
            let numbered = data.as_object_mut().and_then(|data| data.remove("sequence_number"));
            assert_eq!(numbered, Some(number.into()), "{data}");
        }
        assert_eq!(shown.pop().map(|(_, data)| data["message"].clone()), Some("the end".into()));
        for expected in self.expected {
            let at = shown.iter().position(|shown| *shown == expected);
            shown.swap_remove(at.unwrap_or_else(|| panic!("not shown: {expected:?} in {shown:?}")));
        }
        let supplied =
            ["created", "in_progress", "output_item.added", "output_item.done", "content_part.added"];
        for (name, _) in shown {
            let name = name.strip_prefix("response.").unwrap_or_default();
            assert!(
                supplied.contains(&name) || name == "reasoning_summary_part.added",
                "{name} from nowhere"
            );
        }
    }
}
