//! Takes a client's whole request body: bounded in bytes and time, received and decoded.
//! It does not parse what it took, and a body it refuses is the caller's to answer.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::Body;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue};
use tokio::time::{Instant, timeout_at};

use crate::downstream::coding::{self, Coding, DecodeError};

/// How much and how long a client may upload.
#[derive(Clone, Copy, Debug)]
pub struct UploadLimits {
    /// Most bytes of a body, as received and again decoded; default 64 MiB.
    pub bytes: usize,
    /// Longest time for the whole body; default 5 minutes.
    pub total: Duration,
    /// Longest silence between two pieces of it; default 30 s.
    pub idle: Duration,
}

impl Default for UploadLimits {
    fn default() -> Self {
        Self { bytes: 64 << 20, total: Duration::from_secs(300), idle: Duration::from_secs(30) }
    }
}

/// A request body, whole.
#[derive(Clone, Debug)]
pub struct Upload {
    /// The bytes as they came, for sending the client's own request on.
    pub raw: Bytes,
    /// The bytes decoded; the same buffer as `raw` when nothing was encoded, none if a coding is none of ours: the
    /// provider may know it.
    pub body: Option<Bytes>,
    /// The client's first `Content-Encoding` value, which belongs to `raw`.
    pub encoding: Option<HeaderValue>,
}

impl Upload {
    /// Bytes of memory it takes.
    #[must_use]
    pub fn weight(&self) -> usize {
        let decoded = self.body.as_ref().filter(|body| body.as_ptr() != self.raw.as_ptr());
        self.raw.len() + decoded.map_or(0, Bytes::len)
    }
}

/// What a client did wrong while uploading.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// The bytes do not decode as `Content-Encoding` says.
    #[error("the request body is not valid {0}")]
    Corrupt(&'static str),
    /// Nothing came for [`UploadLimits::idle`].
    #[error("the request body stalled")]
    Stalled,
    /// The body was not whole after [`UploadLimits::total`].
    #[error("the request body took too long")]
    TooLong,
    /// More than [`UploadLimits::bytes`], announced, received or decoded.
    #[error("the request body is larger than {0} bytes")]
    TooLarge(usize),
    /// The client's stream ended before the body did.
    #[error("the request body ended early")]
    Truncated,
}

/// Reads `body` to its end and undoes its `Content-Encoding`. A body whose announced length is refused is left
/// unread.
///
/// # Errors
/// See [`UploadError`]; the connection cannot be used for another request after one.
pub async fn receive<B>(
    headers: &HeaderMap,
    body: &mut B,
    limits: &UploadLimits,
) -> Result<Upload, UploadError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let codings = coding::listed(headers).ok();
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
    if announced > limits.bytes {
        return Err(UploadError::TooLarge(limits.bytes));
    }
    let raw = collect(body, announced, limits).await?;
    let body = match codings {
        None => None,
        Some(codings) => Some(decoded(&raw, codings, limits).await?),
    };
    Ok(Upload { raw, body, encoding: headers.get(CONTENT_ENCODING).cloned() })
}

async fn decoded(raw: &Bytes, codings: Vec<Coding>, limits: &UploadLimits) -> Result<Bytes, UploadError> {
    let (raw, limit, offloaded) = (raw.clone(), limits.bytes, raw.len() > OFFLOAD);
    if codings.is_empty() {
        return Ok(raw);
    }
    let decode = move || coding::decode(raw, &codings, limit);
    let decoded = if offloaded {
        // A worker that dies takes nobody's body for granted: the client sees it as corrupt.
        tokio::task::spawn_blocking(decode).await.unwrap_or(Err(DecodeError::Corrupt("content")))
    } else {
        decode()
    };
    decoded.map_err(|error| match error {
        DecodeError::TooLarge => UploadError::TooLarge(limit),
        DecodeError::Corrupt(coding) => UploadError::Corrupt(coding),
        // Decoding meets only what was listed.
        DecodeError::Unsupported(_) => UploadError::Corrupt("content"),
    })
}

/// The body's bytes in one buffer, under both deadlines.
async fn collect<B>(body: &mut B, announced: usize, limits: &UploadLimits) -> Result<Bytes, UploadError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let end = Instant::now() + limits.total;
    let mut bytes = BytesMut::with_capacity(announced);
    loop {
        let idle = Instant::now() + limits.idle;
        let frame = match timeout_at(idle.min(end), body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => return Ok(bytes.freeze()),
            Ok(Some(Err(_))) => return Err(UploadError::Truncated),
            Err(_) if idle < end => return Err(UploadError::Stalled),
            Err(_) => return Err(UploadError::TooLong),
        };
        // Trailers of an upload mean nothing to us; a request that is passed through keeps them.
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > limits.bytes {
            return Err(UploadError::TooLarge(limits.bytes));
        }
        bytes.extend_from_slice(&data);
    }
}

/// An encoded body longer than this many bytes is decoded off the async threads: at the usual fivefold growth it
/// holds more than 1 MiB, which takes over a millisecond (measured 2026-11).
const OFFLOAD: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use http_body_util::Full;

    use super::*;
    use crate::downstream::body;

    const LIMITS: UploadLimits =
        UploadLimits { bytes: 1000, total: Duration::from_secs(60), idle: Duration::from_secs(10) };

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    async fn upload(pairs: &[(&'static str, &str)], bytes: Vec<u8>) -> Result<Upload, UploadError> {
        receive(&headers(pairs), &mut Full::new(Bytes::from(bytes)), &LIMITS).await
    }

    fn gzip(length: usize) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&vec![b'x'; length]).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn plain_bodies_are_not_copied_twice() {
        let upload = upload(&[], b"{}".to_vec()).await.unwrap();
        assert_eq!(upload.raw, "{}");
        assert_eq!(upload.raw.as_ptr(), upload.body.unwrap().as_ptr());
        assert_eq!(upload.encoding, None);
    }

    #[tokio::test]
    async fn encoded_bodies_keep_their_original() {
        let packed = gzip(900);
        let upload = upload(&[("content-encoding", "gzip")], packed.clone()).await.unwrap();
        assert_eq!(upload.raw, packed);
        assert_eq!(upload.body.unwrap(), vec![b'x'; 900]);
        assert_eq!(upload.encoding.unwrap(), "gzip");
    }

    #[tokio::test]
    async fn each_misdeed_has_its_name() {
        let packed = gzip(900);
        let cut = packed[..packed.len() - 4].to_vec();
        let gz = [("content-encoding", "gzip")];
        for (pairs, body, error) in [
            (&[][..], vec![0; 1001], UploadError::TooLarge(1000)),
            (&[("content-length", "1001")], vec![], UploadError::TooLarge(1000)),
            (&gz, gzip(1001), UploadError::TooLarge(1000)),
            (&gz, cut, UploadError::Corrupt("gzip")),
        ] {
            assert_eq!(upload(pairs, body).await.unwrap_err(), error);
        }
    }

    #[tokio::test]
    async fn an_unknown_coding_is_left_to_the_provider() {
        for coding in ["snappy", "gzip, gzip, gzip, gzip, gzip"] {
            let upload = upload(&[("content-encoding", coding)], vec![1]).await.unwrap();
            assert_eq!((upload.raw.as_ref(), upload.body), (&[1][..], None));
        }
    }

    #[tokio::test]
    async fn large_encoded_bodies_are_decoded_elsewhere() {
        let mut noise = vec![0; OFFLOAD * 2];
        getrandom::fill(&mut noise).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&noise).unwrap();
        let limits = UploadLimits { bytes: OFFLOAD * 4, ..LIMITS };
        let mut body = Full::new(Bytes::from(encoder.finish().unwrap()));
        let upload = receive(&headers(&[("content-encoding", "gzip")]), &mut body, &limits).await.unwrap();
        assert!(upload.body.unwrap() == noise);
    }

    #[tokio::test]
    async fn a_broken_stream_is_truncated() {
        let mut body = body::stream(futures_util::stream::iter([Ok("half".into()), Err("gone".into())]));
        assert_eq!(receive(&headers(&[]), &mut body, &LIMITS).await.unwrap_err(), UploadError::Truncated);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_stalls_and_drops_are_too_long() {
        let mut body = body::stream(futures_util::stream::pending());
        assert_eq!(receive(&headers(&[]), &mut body, &LIMITS).await.unwrap_err(), UploadError::Stalled);

        let drops = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(9)).await;
            Some((Ok(Bytes::from_static(b".")), ()))
        });
        let mut body = body::stream(drops);
        assert_eq!(receive(&headers(&[]), &mut body, &LIMITS).await.unwrap_err(), UploadError::TooLong);
    }
}
