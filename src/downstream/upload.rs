//! Takes a client's whole request body: bounded in bytes, time and the room all bodies share, received and decoded.
//! It does not parse what it took, and a body it refuses is the caller's to answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::Body;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue};
use tokio::time::{Instant, timeout_at};

use crate::downstream::coding::{self, Coding, DecodeError};
use crate::downstream::room::{Claim, Room};

/// How much and how long a client may upload.
#[derive(Clone, Copy, Debug)]
pub struct UploadLimits {
    /// Most bytes of a body, as received and again decoded; default 64 MiB.
    pub bytes: usize,
    /// Longest time for the whole body; default 10 minutes.
    pub total: Duration,
    /// Longest silence between two pieces of it; default 30 s.
    pub idle: Duration,
}

impl Default for UploadLimits {
    fn default() -> Self {
        Self { bytes: 64 << 20, total: Duration::from_secs(600), idle: Duration::from_secs(30) }
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
    /// The room that all bodies share is taken.
    #[error("there is no room for the request body")]
    NoRoom,
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

/// Reads `body` to its end and undoes its `Content-Encoding`; what it takes is claimed of `room` as it comes. A body whose
/// announced length is refused is left unread.
///
/// # Errors
/// See [`UploadError`]; the connection cannot be used for another request after one.
pub async fn receive<B>(
    headers: &HeaderMap,
    body: B,
    room: &Arc<Room>,
    limits: &UploadLimits,
) -> Result<(Upload, Claim), UploadError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let codings = coding::listed(headers).ok();
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
    if announced > limits.bytes {
        return Err(UploadError::TooLarge(limits.bytes));
    }
    let mut claim = Claim::new(room);
    let raw = collect(body, announced, &mut claim, limits).await?;
    let body = match codings {
        None => None,
        Some(codings) if codings.is_empty() => Some(raw.clone()),
        Some(codings) => {
            let (body, claimed) = decoded(raw.clone(), codings, claim, limits.bytes).await?.unzip();
            claim = claimed.unwrap_or_else(|| Claim::new(room));
            body
        }
    };
    let upload = Upload { raw, body, encoding: headers.get(CONTENT_ENCODING).cloned() };
    if !claim.set(upload.weight()) {
        return Err(UploadError::NoRoom);
    }
    Ok((upload, claim))
}

/// Decodes off the async threads: few bytes can become many. `None` if the worker died, which is a defect or the end of the
/// process: the provider still gets the client's bytes.
async fn decoded(
    raw: Bytes,
    codings: Vec<Coding>,
    mut claim: Claim,
    limit: usize,
) -> Result<Option<(Bytes, Claim)>, UploadError> {
    let decode = move || coding::decode(raw, &codings, limit, &mut claim).map(|body| (body, claim));
    let Ok(decoded) = tokio::task::spawn_blocking(decode).await else { return Ok(None) };
    decoded.map(Some).map_err(|error| match error {
        DecodeError::TooLarge => UploadError::TooLarge(limit),
        DecodeError::NoRoom => UploadError::NoRoom,
        DecodeError::Corrupt(coding) => UploadError::Corrupt(coding),
        // Decoding meets only what was listed.
        DecodeError::Unsupported(_) => UploadError::Corrupt("content"),
    })
}

/// The body's bytes in one buffer, under both deadlines.
async fn collect<B>(
    mut body: B,
    announced: usize,
    claim: &mut Claim,
    limits: &UploadLimits,
) -> Result<Bytes, UploadError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let end = Instant::now() + limits.total;
    let mut bytes = Vec::with_capacity(announced.min(RESERVED));
    loop {
        let idle = Instant::now() + limits.idle;
        let frame = match timeout_at(idle.min(end), body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => return Ok(bytes.into()),
            Ok(Some(Err(_))) => return Err(UploadError::Truncated),
            Err(_) if idle < end => return Err(UploadError::Stalled),
            Err(_) => return Err(UploadError::TooLong),
        };
        // Trailers of an upload mean nothing to us; a request that is passed through keeps them.
        let Ok(data) = frame.into_data() else { continue };
        let length = bytes.len() + data.len();
        if length > limits.bytes {
            return Err(UploadError::TooLarge(limits.bytes));
        }
        if !claim.set(length) {
            return Err(UploadError::NoRoom);
        }
        if length > bytes.capacity() {
            let wanted = if announced > length { announced.min(2 * length) } else { 2 * length };
            bytes.reserve_exact(wanted - bytes.len());
        }
        bytes.extend_from_slice(&data);
    }
}

/// Bytes of memory that a client gets for an announcement alone.
const RESERVED: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use futures_util::FutureExt;
    use http_body_util::Full;

    use super::*;
    use crate::downstream::body;

    const LIMITS: UploadLimits =
        UploadLimits { bytes: 1000, total: Duration::from_secs(60), idle: Duration::from_secs(10) };

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    async fn received<B>(headers: &HeaderMap, body: B) -> Result<Upload, UploadError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let room = Room::new(usize::MAX);
        let (upload, claim) = receive(headers, body, &room, &LIMITS).await?;
        assert_eq!(claim.bytes(), upload.weight());
        Ok(upload)
    }

    async fn upload(pairs: &[(&'static str, &str)], bytes: Vec<u8>) -> Result<Upload, UploadError> {
        received(&headers(pairs), Full::new(Bytes::from(bytes))).await
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

    #[test]
    fn a_body_whose_worker_dies_goes_up_as_it_came() {
        let ending = tokio::runtime::Runtime::new().unwrap();
        let handle = ending.handle().clone();
        ending.shutdown_background();
        let _entered = handle.enter();
        let claim = Claim::new(&Room::new(usize::MAX));
        let decoded = decoded(gzip(900).into(), vec![Coding::Gzip], claim, 1000);
        assert_eq!(decoded.now_or_never().map(|done| done.map(|body| body.is_none())), Some(Ok(true)));
    }

    #[tokio::test]
    async fn what_a_body_becomes_is_claimed_before_it_is_there() {
        let limits = UploadLimits { bytes: 4 << 20, ..LIMITS };
        let gz = headers(&[("content-encoding", "gzip")]);
        for (room, expected) in [(1 << 20, Err(UploadError::NoRoom)), (16 << 20, Ok(4 << 20))] {
            let room = Room::new(room);
            let taken = receive(&gz, Full::new(Bytes::from(gzip(4 << 20))), &room, &limits).await;
            assert_eq!(taken.map(|(upload, _)| upload.body.unwrap().len()), expected);
            assert_eq!(room.held(), 0, "given back");
        }
        let room = Room::new(100);
        let taken = receive(&headers(&[]), Full::new(Bytes::from(vec![0; 101])), &room, &limits).await;
        assert_eq!(taken.unwrap_err(), UploadError::NoRoom);
    }

    #[tokio::test]
    async fn an_announcement_reserves_little_and_a_body_no_more_than_it_needs() {
        let pieces = (0..48).map(|_| Ok(Bytes::from(vec![b'x'; 64 << 10])));
        let body = body::stream(futures_util::stream::iter(pieces));
        let limits = UploadLimits { bytes: 64 << 20, ..LIMITS };
        let announced = headers(&[("content-length", "3145728")]);
        let (upload, _) = receive(&announced, body, &Room::new(64 << 20), &limits).await.unwrap();
        assert_eq!(upload.raw.len(), 3 << 20);
        assert_eq!(Vec::from(upload.raw).capacity(), 3 << 20);
    }

    #[tokio::test]
    async fn a_broken_stream_is_truncated() {
        let body = body::stream(futures_util::stream::iter([Ok("half".into()), Err("gone".into())]));
        assert_eq!(received(&headers(&[]), body).await.unwrap_err(), UploadError::Truncated);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_stalls_and_drops_are_too_long() {
        let body = body::stream(futures_util::stream::pending());
        assert_eq!(received(&headers(&[]), body).await.unwrap_err(), UploadError::Stalled);

        let drops = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(9)).await;
            Some((Ok(Bytes::from_static(b".")), ()))
        });
        let body = body::stream(drops);
        assert_eq!(received(&headers(&[]), body).await.unwrap_err(), UploadError::TooLong);
    }
}
