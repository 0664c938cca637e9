//! The provider's files, as far as a proxy can tell: uploads are weighed, downloads are made up and can be ranged.
//!
//! Nothing is stored.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::canon;
use super::http::{Body, error, ok, whole};

/// Says how many bytes an upload had and what they hash to. Reads it as a stream, of any length.
pub(super) async fn upload(request: Request<Incoming>) -> Response<Body> {
    let (parts, mut body) = request.into_parts();
    let kind =
        parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("multipart/form-data") {
        return error(StatusCode::BAD_REQUEST, "Expected a multipart/form-data body.", None);
    }
    let mut hash = Sha256::new();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return error(StatusCode::BAD_REQUEST, "The request body could not be read.", None);
        };
        if let Some(data) = frame.data_ref() {
            bytes += data.len();
            hash.update(data);
        }
    }
    let digest = canon::hex(&hash.finalize());
    ok(
        &json!({ "id": format!("file-{}", &digest[..24]), "object": "file", "bytes": bytes, "sha256": digest }),
    )
}

/// 100 000 bytes that depend on the id alone, or the range of them that was asked for.
pub(super) fn content(headers: &HeaderMap, id: &str) -> Response<Body> {
    let bytes: Bytes = (0..LENGTH.div_ceil(32))
        .flat_map(|block| canon::sha256(&[id.as_bytes(), &block.to_be_bytes()]))
        .take(LENGTH)
        .collect();
    let mut reply = match headers.get(header::RANGE) {
        None => whole(StatusCode::OK, bytes),
        Some(range) => match range.to_str().ok().and_then(range_of) {
            Some((from, to)) => {
                let mut reply = whole(StatusCode::PARTIAL_CONTENT, bytes.slice(from..=to));
                let said = format!("bytes {from}-{to}/{LENGTH}");
                if let Ok(said) = HeaderValue::from_str(&said) {
                    reply.headers_mut().insert(header::CONTENT_RANGE, said);
                }
                reply
            }
            None => error(StatusCode::RANGE_NOT_SATISFIABLE, "The requested range is not satisfiable.", None),
        },
    };
    reply.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    reply
        .headers_mut()
        .entry(header::CONTENT_TYPE)
        .or_insert(HeaderValue::from_static("application/octet-stream"));
    reply
}

/// SHA-256 of bytes as they are, as hexadecimal digits.
pub(super) fn sha256(bytes: &[u8]) -> String {
    canon::hex(&Sha256::digest(bytes))
}

/// First and last byte of a single `bytes=A-B`, `bytes=A-` or `bytes=-N`.
fn range_of(header: &str) -> Option<(usize, usize)> {
    let (from, to) = header.strip_prefix("bytes=")?.split_once('-')?;
    let last = LENGTH - 1;
    let (from, to) = match (from, to) {
        ("", length) => (LENGTH.checked_sub(length.parse().ok()?)?, last),
        (from, "") => (from.parse().ok()?, last),
        (from, to) => (from.parse().ok()?, to.parse::<usize>().ok()?.min(last)),
    };
    (from <= to).then_some((from, to))
}

const LENGTH: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (header, expected) in [
            ("bytes=0-9", Some((0, 9))),
            ("bytes=99999-", Some((99_999, 99_999))),
            ("bytes=-10", Some((99_990, 99_999))),
            ("bytes=5-200000", Some((5, 99_999))),
            ("bytes=100000-", None),
            ("bytes=9-5", None),
            ("lines=1-2", None),
        ] {
            assert_eq!(range_of(header), expected, "{header}");
        }
    }
}
