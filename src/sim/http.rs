//! The provider's HTTP face: who may come in, which path is whose, and the small endpoints around the Responses.
//!
//! `POST /v1/responses` itself is `answer.rs`'s, what is around a stored response `stored.rs`'s, upgrades are `upgrade.rs`'s.

use std::convert::Infallible;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::ledger::Traffic;
use super::server::{Provider, Slot};
use super::{answer, canon, chat, files, upgrade};

/// A reply's body: whole or streamed, and able to break off.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;
/// A reply; an error drops the connection instead.
pub(super) type Reply = io::Result<Response<Body>>;

/// One TCP connection's side of every request on it.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) provider: Provider,
    pub(super) traffic: Arc<Traffic>,
    pub(super) slot: Slot,
    accounted: Arc<AtomicU64>,
}

impl Caller {
    pub(super) fn new(provider: Provider, traffic: Arc<Traffic>, slot: Slot) -> Self {
        Self { provider, traffic, slot, accounted: Arc::default() }
    }

    /// Answers one request, with the headers every reply of the provider carries.
    pub(super) async fn answer(self, request: Request<Incoming>) -> Reply {
        let began = Instant::now();
        self.provider.ledger().write(|book| book.http_requests += 1);
        let head = request.method() == Method::HEAD;
        let mut reply = self.clone().route(request).await?;
        if head {
            *reply.body_mut() = empty();
        }
        let spent = began.elapsed().as_millis().to_string();
        let id = canon::hex(&canon::sha256(&[
            &self.traffic.number().to_be_bytes(),
            &self.traffic.read().to_be_bytes(),
        ]));
        for (name, value) in [
            ("x-request-id", format!("req_{}", &id[..32])),
            ("openai-processing-ms", spent),
            ("openai-version", "2020-10-01".to_owned()),
            ("x-ratelimit-limit-requests", "10000".to_owned()),
            ("x-ratelimit-limit-tokens", "2000000".to_owned()),
            ("x-ratelimit-remaining-requests", "9999".to_owned()),
            ("x-ratelimit-remaining-tokens", "1999000".to_owned()),
            ("x-ratelimit-reset-requests", "6ms".to_owned()),
            ("x-ratelimit-reset-tokens", "30ms".to_owned()),
        ] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                reply.headers_mut().entry(HeaderName::from_static(name)).or_insert(value);
            }
        }
        Ok(reply)
    }

    /// Bytes received on the connection since this was last asked.
    pub(super) fn newly_read(&self) -> u64 {
        let read = self.traffic.read();
        read - self.accounted.swap(read, Ordering::Relaxed)
    }

    async fn route(self, request: Request<Incoming>) -> Reply {
        let path = request.uri().path().to_owned();
        let Some(rest) = path.strip_prefix("/v1/") else { return Ok(unknown(request.method(), &path)) };
        let Some(credential) = credential(request.headers()) else {
            let message = "Missing bearer or basic authentication in header";
            return Ok(error(StatusCode::UNAUTHORIZED, message, None));
        };
        let segments: Vec<&str> = rest.split('/').collect();
        let method = match *request.method() {
            Method::HEAD => Method::GET,
            ref method => method.clone(),
        };
        match (method.as_str(), &segments[..]) {
            ("GET", ["responses"]) if is_upgrade(request.headers()) => {
                upgrade::upgrade(self, request, credential).await
            }
            ("GET", ["realtime"]) if is_upgrade(request.headers()) => Ok(upgrade::echo(&self, request)),
            ("POST", ["responses"]) => answer::answer(self, request, credential).await,
            ("POST", ["chat", "completions"]) => chat::complete(self, request, credential).await,
            ("POST", ["responses", "compact"]) => self.compact(request, credential).await,
            ("GET" | "DELETE", ["responses", id]) => Ok(self.stored(&method, &credential, id)),
            ("GET", ["responses", id, "input_items"]) => {
                Ok(self.input_items(&credential, id, request.uri().query()))
            }
            ("POST", ["responses", id, "cancel"]) => Ok(self.cancel(&credential, id)),
            // The simulator's own, for judges in other languages.
            ("GET", ["sim", "answers", id]) => Ok(self.seen(id)),
            ("GET", ["models"]) => {
                Ok(ok(&json!({ "object": "list", "data": [model("gpt-sim"), model("gpt-sim-mini")] })))
            }
            ("GET", ["models", name]) => Ok(ok(&model(name))),
            ("POST", ["files"]) => Ok(files::upload(request).await),
            ("GET", ["files", id, "content"]) => Ok(files::content(request.headers(), id)),
            (_, ["echo"]) => Ok(echo(request).await),
            ("GET", ["trailers"]) => Ok(trailers()),
            ("OPTIONS", _) => {
                let mut reply = whole(StatusCode::NO_CONTENT, Bytes::new());
                reply
                    .headers_mut()
                    .insert(header::ALLOW, HeaderValue::from_static("GET, POST, DELETE, HEAD, OPTIONS"));
                Ok(reply)
            }
            _ => Ok(unknown(&method, &path)),
        }
    }
}

/// SHA-256 of the credential, as hexadecimal digits; organisation and project are part of whose request it is.
fn credential(headers: &HeaderMap) -> Option<String> {
    let key = headers.get(header::AUTHORIZATION).or_else(|| headers.get("api-key"))?;
    let also = |name: &str| headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
    let parts = [key.as_bytes(), also("openai-organization"), also("openai-project")];
    Some(canon::hex(&canon::sha256(&parts)))
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// A request's body, decoded, or the 4xx for one that is too large or cannot be decoded.
pub(super) async fn body(headers: &HeaderMap, body: Incoming) -> Result<Bytes, Response<Body>> {
    let refuse = |status, message| error(status, message, None);
    let bytes = match Limited::new(body, LARGEST_BODY).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(_) => return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, "The request body could not be read.")),
    };
    let mut plain = Vec::new();
    let bound = LARGEST_BODY as u64;
    let decoded = match headers.get(header::CONTENT_ENCODING).map_or(&b"identity"[..], HeaderValue::as_bytes)
    {
        b"identity" => return Ok(bytes),
        b"gzip" => flate2::read::GzDecoder::new(&bytes[..]).take(bound).read_to_end(&mut plain),
        b"zstd" => zstd::stream::read::Decoder::new(&bytes[..])
            .and_then(|decoder| decoder.take(bound).read_to_end(&mut plain)),
        _ => return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported content encoding.")),
    };
    match decoded {
        Ok(_) => Ok(plain.into()),
        Err(_) => Err(refuse(StatusCode::BAD_REQUEST, "We could not decode the body of your request.")),
    }
}

/// Says back what arrived, so that a test can see what was passed through.
async fn echo(request: Request<Incoming>) -> Response<Body> {
    let (parts, incoming) = request.into_parts();
    let Ok(collected) = Limited::new(incoming, LARGEST_BODY).collect().await else {
        return error(StatusCode::PAYLOAD_TOO_LARGE, "The request body could not be read.", None);
    };
    let received = collected.trailers().map(named);
    let bytes = collected.to_bytes();
    ok(&json!({
        "method": parts.method.as_str(),
        "path": parts.uri.path(),
        "query": parts.uri.query(),
        "headers": named(&parts.headers),
        "trailers": received,
        "bytes": bytes.len(),
        "sha256": files::sha256(&bytes),
    }))
}

/// Headers as an object of lists: a name may come more than once.
fn named(headers: &HeaderMap) -> Value {
    headers
        .keys()
        .map(|name| {
            let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
            (name.as_str().to_owned(), values.collect::<Value>())
        })
        .collect::<serde_json::Map<String, Value>>()
        .into()
}

/// Two chunks and a trailer (which HTTP/1.1 sends only to a client with `te: trailers`).
fn trailers() -> Response<Body> {
    let mut trailer = HeaderMap::new();
    trailer.insert("x-checksum", HeaderValue::from_static("42"));
    let data = |text: &'static str| Ok::<_, Infallible>(Frame::data(Bytes::from_static(text.as_bytes())));
    let frames = stream::iter([data("one\n"), data("two\n"), Ok(Frame::trailers(trailer))]);
    let mut reply = Response::new(StreamBody::new(frames).map_err(|never| match never {}).boxed_unsync());
    reply.headers_mut().insert(header::TRAILER, HeaderValue::from_static("x-checksum"));
    reply
}

fn model(name: &str) -> Value {
    json!({ "id": name, "object": "model", "created": 1_790_000_000, "owned_by": "sim" })
}

fn unknown(method: &Method, path: &str) -> Response<Body> {
    error(StatusCode::NOT_FOUND, &format!("Invalid URL ({method} {path})"), None)
}

/// An error in the provider's form.
pub(super) fn error(status: StatusCode, message: &str, code: Option<&str>) -> Response<Body> {
    let error = json!({ "message": message, "type": "invalid_request_error", "param": null, "code": code });
    json_reply(status, &json!({ "error": error }))
}

/// A 200 with a JSON body.
pub(super) fn ok(value: &Value) -> Response<Body> {
    json_reply(StatusCode::OK, value)
}

/// A JSON body with any status.
pub(super) fn json_reply(status: StatusCode, value: &Value) -> Response<Body> {
    let mut reply = whole(status, value.to_string().into());
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// A body that is there already.
pub(super) fn whole(status: StatusCode, bytes: Bytes) -> Response<Body> {
    let body = Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply
}

/// No body.
pub(super) fn empty() -> Body {
    Full::default().map_err(|never: Infallible| match never {}).boxed_unsync()
}

const LARGEST_BODY: usize = 256 * 1024 * 1024;
