//! The provider's errors: what an `error` frame or a failed response says, in whichever known shape, and the body and headers
//! that REST would have had. What follows from an error is `session::recovery`'s.

use crate::proto::wire::event::{Event, EventKind};
use crate::proto::wire::json;

/// What an `error` frame, or a failed response's `error`, says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderError {
    /// The HTTP status it names, or the one its code stands for.
    pub status: u16,
    /// `error.code`, else `error.type` (protocol §1.8: the code may be missing).
    pub code: String,
    /// What it means for the ladder.
    pub class: ErrorClass,
    /// The body REST would have carried: `{"error":{…}}`.
    pub body: String,
    /// `retry-after` and rate-limit headers, where the frame had them.
    pub headers: Vec<(String, String)>,
}

/// What an error means for the next rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The `previous_response_id` is not known there, under whatever name (F22, F23).
    NotFound,
    /// The socket is too old for new turns.
    ConnectionLimit,
    /// Lanes are not served, or no more of them.
    LaneRefused,
    /// An item is said to be there already: perhaps only on this socket (F2); over HTTP there is no other memory.
    Duplicate,
    /// The model is not served on the Responses API (a sentence seen of OpenAI's API, 2025-05).
    NotServed,
    /// The provider's answer to this request.
    Answer,
}

impl ProviderError {
    /// Reads an `error` event in any known shape: nested, flat, `status_code`, headers inside or outside.
    pub fn of_event(event: &Event) -> Self {
        let object = event.value("error").filter(|value| value.starts_with('{'));
        let status = event.number("status").or_else(|| event.number("status_code"));
        let headers = event.value("headers").or_else(|| object.and_then(|object| member(object, "headers")));
        Self::new(object.unwrap_or_else(|| event.text()), BAD_REQUEST, status, headers)
    }

    /// Reads the `error` of a failed response, if it has one: a code and a message alone. What was run and failed is the
    /// provider's fault, but for the codes that blame the prompt or a picture in it (OpenAI's API reference, 2026-09).
    pub fn of_response(event: &Event) -> Option<Self> {
        const BLAMED: [&str; 5] = ["invalid_", "image_", "empty_", "unsupported_", "failed_to_download"];
        let error = member(event.value("response")?, "error").filter(|value| value.starts_with('{'))?;
        let code = member(error, "code").and_then(json::string).unwrap_or_default();
        let blamed = BLAMED.iter().any(|start| code.starts_with(start));
        Some(Self::new(error, if blamed { BAD_REQUEST } else { "server_error" }, None, None))
    }

    /// A response that failed without saying why.
    pub fn unexplained() -> Self {
        Self::new(r#"{"message":"The response failed."}"#, "server_error", None, None)
    }

    /// `untyped` is the type of an error that names none.
    fn new(object: &str, untyped: &'static str, status: Option<u64>, headers: Option<&str>) -> Self {
        let text = |key: &str| member(object, key).and_then(json::string).unwrap_or_default().into_owned();
        let (code, message) = (text("code"), text("message"));
        let kind = if object_is_event(object) { String::new() } else { text("type") };
        let class = class(&code, &message, &text("param"));
        let named = if code.is_empty() { &kind } else { &code };
        let status = status.and_then(|status| u16::try_from(status).ok()).filter(|s| (400..600).contains(s));
        Self {
            status: status.unwrap_or_else(|| status_of(named, if kind.is_empty() { untyped } else { &kind })),
            code: named.clone(),
            class,
            body: rest_body(object, &message, kind.is_empty().then_some(untyped)),
            headers: headers.map(rest_headers).unwrap_or_default(),
        }
    }
}

/// The type of errors about what the client sent.
const BAD_REQUEST: &str = "invalid_request_error";

fn member<'a>(object: &'a str, key: &str) -> Option<&'a str> {
    let members = json::members(object).ok()?;
    let value = &object[json::find(&members, key)?.value.clone()];
    (value != "null").then_some(value)
}

/// The flat form is the event itself: its `type` is the event's, not the error's.
fn object_is_event(object: &str) -> bool {
    member(object, "type").and_then(json::string).is_some_and(|kind| EventKind::of(&kind) == EventKind::Error)
}

fn class(code: &str, message: &str, param: &str) -> ErrorClass {
    match code {
        "previous_response_not_found" => return ErrorClass::NotFound,
        "websocket_stream_limit_reached" | "invalid_stream_id" => return ErrorClass::LaneRefused,
        // The age is the one that is published. Whatever else is said of the socket, REST would not have said.
        _ if code.starts_with("websocket_") => return ErrorClass::ConnectionLimit,
        _ => {}
    }
    let lower = message.to_ascii_lowercase();
    let unnamed = code.is_empty() || code == BAD_REQUEST;
    let gone = lower.contains("previous_response_id") && lower.contains("invalid")
        || lower.starts_with("previous response with id")
        || lower.starts_with("response with id") && lower.contains("not found");
    if unnamed && gone {
        ErrorClass::NotFound
    } else if names_lane(&lower, param) && (lower.contains("unsupported") || lower.contains("unknown")) {
        ErrorClass::LaneRefused
    } else if lower.starts_with("duplicate item") {
        ErrorClass::Duplicate
    } else if code == "unsupported_model" || lower.contains("not supported with the responses api") {
        ErrorClass::NotServed
    } else {
        ErrorClass::Answer
    }
}

/// True if an error is about the field that carries a lane's name, not about one of the client's that contains its letters.
fn names_lane(message: &str, param: &str) -> bool {
    const FIELD: &str = "stream_id";
    let mut words = message.split(|c: char| !(c.is_ascii_alphanumeric() || "_.".contains(c)));
    param == FIELD || param.is_empty() && words.any(|word| word.trim_matches('.') == FIELD)
}

/// The status REST would have had, where the frame names none (protocol §2.4).
fn status_of(code: &str, kind: &str) -> u16 {
    match code {
        "server_is_overloaded" | "slow_down" => 503,
        "server_error" | "internal_error" => 500,
        "insufficient_quota" | "usage_limit_reached" | "usage_not_included" => 429,
        _ if code.starts_with("rate_limit") => 429,
        "invalid_api_key" | "authentication_error" => 401,
        "model_not_found" | "not_found_error" => 404,
        _ if kind == BAD_REQUEST => 400,
        _ => 500,
    }
}

/// `{"error":{…}}` with the four keys SDKs read and whatever else the provider said about it.
fn rest_body(object: &str, message: &str, untyped: Option<&str>) -> String {
    let members = json::members(object).unwrap_or_default();
    let raw = |key: &str| json::find(&members, key).map_or("null", |member| &object[member.value.clone()]);
    let kind = untyped.map_or_else(|| raw("type").to_owned(), |kind| format!("\"{kind}\""));
    let message = if message.is_empty() { "\"The provider reported an error.\"" } else { raw("message") };
    let mut body = format!(
        r#"{{"error":{{"message":{message},"type":{kind},"param":{},"code":{}"#,
        raw("param"),
        raw("code")
    );
    const SHOWN: [&str; 10] = [
        "message",
        "type",
        "param",
        "code",
        "headers",
        "sequence_number",
        "stream_id",
        "status",
        "status_code",
        "error",
    ];
    for extra in members.iter().filter(|member| !SHOWN.contains(&&*member.key)) {
        let key = serde_json::to_string(&*extra.key).unwrap_or_default();
        body.push_str(&format!(",{key}:{}", &object[extra.value.clone()]));
    }
    body.push_str("}}");
    body
}

/// Only what REST clients act on: retry and rate-limit headers, whatever JSON type their values have.
fn rest_headers(object: &str) -> Vec<(String, String)> {
    let members = json::members(object).unwrap_or_default();
    let wanted = |key: &str| {
        key.starts_with("retry-after") || key.starts_with("x-ratelimit-") || key.starts_with("x-codex-")
    };
    members
        .iter()
        .map(|member| (member.key.to_ascii_lowercase(), &object[member.value.clone()]))
        .filter(|(key, value)| wanted(key) && *value != "null")
        .map(|(key, value)| {
            (key, json::string(value).map_or_else(|| value.to_owned(), std::borrow::Cow::into_owned))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use ErrorClass::{Answer, ConnectionLimit, Duplicate, LaneRefused, NotFound};
    use bytes::Bytes;

    use super::*;

    fn event(text: &str) -> Event {
        Event::parse(Bytes::copy_from_slice(text.as_bytes())).expect(text)
    }

    /// A frame, the status it stands for, and what it means.
    const ERRORS: &[(&str, u16, ErrorClass)] = &[
        (
            r#"{"type":"error","status":400,"stream_id":"tw0","error":{"type":"invalid_request_error","code":"previous_response_not_found","message":"Previous response with id 'resp_abc' not found.","param":"previous_response_id"}}"#,
            400,
            NotFound,
        ),
        (
            r#"{"type":"error","error":{"type":"invalid_request_error","code":"previous_response_not_found","message":"m"}}"#,
            400,
            NotFound,
        ),
        (
            r#"{"type":"error","status":400,"error":{"type":"invalid_request_error","message":"Invalid `previous_response_id`."}}"#,
            400,
            NotFound,
        ),
        (
            r#"{"type":"error","code":"previous_response_not_found","message":"gone","sequence_number":2}"#,
            400,
            NotFound,
        ),
        (r#"{"error":{"message":"Response with id=abc not found"}}"#, 400, NotFound),
        (
            r#"{"type":"error","status":429,"error":{"code":"websocket_something_new","message":"m"}}"#,
            429,
            ConnectionLimit,
        ),
        (
            r#"{"type":"error","status":400,"error":{"code":"websocket_connection_limit_reached","message":"m"}}"#,
            400,
            ConnectionLimit,
        ),
        (
            r#"{"type":"error","status":400,"error":{"code":"invalid_stream_id","param":"stream_id","message":"m"}}"#,
            400,
            LaneRefused,
        ),
        (
            r#"{"type":"error","status_code":400,"error":{"type":"invalid_request_error","message":"Unsupported parameter: stream_id"}}"#,
            400,
            LaneRefused,
        ),
        (
            r#"{"type":"error","status":400,"error":{"message":"Unknown parameter: 'stream_id'.","param":"stream_id"}}"#,
            400,
            LaneRefused,
        ),
        (
            r#"{"type":"error","status":400,"error":{"message":"Unknown parameter: 'tools[0].stream_id'.","param":"tools[0].stream_id"}}"#,
            400,
            Answer,
        ),
        (
            r#"{"type":"error","status":400,"error":{"message":"Unknown parameter: 'upstream_id'."}}"#,
            400,
            Answer,
        ),
        (
            r#"{"type":"error","status":400,"error":{"type":"invalid_request_error","code":null,"message":"Duplicate item found with id rs_1. Remove duplicate items from your input and try again.","param":"input"}}"#,
            400,
            Duplicate,
        ),
        (
            r#"{"type":"error","status":429,"error":{"type":"usage_limit_reached","message":"m","plan_type":"pro"},"headers":{"x-codex-primary-window-minutes":15,"retry-after":"3","date":"x"}}"#,
            429,
            Answer,
        ),
        (
            r#"{"type":"error","error":{"type":"server_error","code":"server_is_overloaded","message":"m"}}"#,
            503,
            Answer,
        ),
        (
            r#"{"type":"error","error":{"type":"tokens","code":"rate_limit_exceeded","message":"m","headers":{"retry-after-ms":"250"}}}"#,
            429,
            Answer,
        ),
    ];

    #[test]
    fn f02_f23_errors_in_every_known_shape() {
        for &(text, status, class) in ERRORS {
            let error = ProviderError::of_event(&event(text));
            assert_eq!((error.status, error.class), (status, class), "{text}");
            let body: serde_json::Value = serde_json::from_str(&error.body).expect("a body");
            assert!(
                body["error"]["message"].is_string() && body["error"]["type"].is_string(),
                "{}",
                error.body
            );
        }
    }

    #[test]
    fn f83_headers_and_extras_survive_and_the_envelope_does_not() {
        let error = ProviderError::of_event(&event(
            r#"{"type":"error","status":429,"error":{"type":"usage_limit_reached","message":"m","resets_at":5},"headers":{"Retry-After":3,"set-cookie":"x"}}"#,
        ));
        assert_eq!(error.headers, [("retry-after".to_owned(), "3".to_owned())]);
        assert_eq!(
            error.body,
            r#"{"error":{"message":"m","type":"usage_limit_reached","param":null,"code":null,"resets_at":5}}"#
        );
    }

    #[test]
    fn a_failed_response_may_hide_a_not_found() {
        let failed = event(
            r#"{"type":"response.failed","response":{"id":"r","error":{"code":"previous_response_not_found","message":"m"}}}"#,
        );
        assert_eq!(ProviderError::of_response(&failed).map(|error| error.class), Some(NotFound));
        assert_eq!(failed.response_id().as_deref(), Some("r"));
    }

    #[test]
    fn a_failed_response_is_the_providers_fault_unless_it_blames_the_prompt() {
        for (code, status, kind) in [
            ("server_error", 500, "server_error"),
            ("vector_store_timeout", 500, "server_error"),
            ("never_heard_of", 500, "server_error"),
            ("rate_limit_exceeded", 429, "server_error"),
            ("invalid_prompt", 400, BAD_REQUEST),
            ("image_too_large", 400, BAD_REQUEST),
            ("failed_to_download_image", 400, BAD_REQUEST),
        ] {
            let text = format!(
                r#"{{"type":"response.failed","response":{{"error":{{"code":"{code}","message":"m"}}}}}}"#
            );
            let error = ProviderError::of_response(&event(&text)).expect(code);
            assert_eq!((error.status, &*error.code), (status, code));
            let body: serde_json::Value = serde_json::from_str(&error.body).expect("a body");
            assert_eq!(body["error"]["type"], kind, "{code}");
        }
    }
}
