//! The one body type of every response that goes down, and its constructors.
//! It carries bytes and trailers; it knows no media type and no framing.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use crate::downstream::upload::UploadError;

/// A response body on its way to a client.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Why a body ended early. Whatever it says, the client sees a broken body: a connection cut before the last
/// chunk (HTTP/1.1) or a reset stream (HTTP/2), never a clean end.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body without a byte.
#[must_use]
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is already whole; its length is announced. It goes down in pieces, so that it lasts as long as its client
/// takes: hyper holds what it was handed, and lets go of its body with the last of it.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Pieces(bytes.into()).boxed_unsync()
}

/// A body of chunks as they come; an error breaks it.
pub fn stream(chunks: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static) -> Body {
    StreamBody::new(chunks.map_ok(Frame::data)).boxed_unsync()
}

/// Somebody else's body (an upstream response), trailers included.
pub fn relay<B>(body: B) -> Body
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// The same body; should it break, it does so once what came before had time to go down: so long at least, and as long as
/// `owes` says that bytes wait for the client, but hardly longer than `most`. When a body breaks, hyper throws away what it
/// has not yet written, and that may be the error event that says why.
pub(super) fn lingering(
    body: Body,
    (span, most): (Duration, Duration),
    owes: impl Fn() -> bool + Send + Unpin + 'static,
) -> Body {
    Lingering { body, span, most, owes, broken: None }.boxed_unsync()
}

/// The same body; `kept` is let go with it.
pub fn keeping(body: Body, kept: impl Send + Unpin + 'static) -> Body {
    Keeping { body, _kept: kept }.boxed_unsync()
}

/// A client's body on its way up; silence longer than `idle` is an error. What went wrong with it is left in `fault`,
/// as whoever sends it up only says that sending failed.
pub fn timed<B>(body: B, idle: Duration, fault: Arc<OnceLock<UploadError>>) -> Body
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BodyError>,
{
    Timed { body, idle, fault, silence: None }.boxed_unsync()
}

/// What is left of a whole body.
struct Pieces(Bytes);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let length = self.0.len().min(PIECE);
        Poll::Ready((length > 0).then(|| Ok(Frame::data(self.0.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

/// Hands its body through unchanged, its length included.
struct Keeping<K> {
    body: Body,
    _kept: K,
}

impl<K: Unpin> hyper::body::Body for Keeping<K> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct Timed<B> {
    body: B,
    idle: Duration,
    fault: Arc<OnceLock<UploadError>>,
    silence: Option<Pin<Box<Sleep>>>,
}

impl<B> hyper::body::Body for Timed<B>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { body, idle, fault, silence } = &mut *self;
        let fault = match Pin::new(body).poll_frame(cx) {
            Poll::Ready(Some(Err(_))) => fault.get_or_init(|| UploadError::Truncated),
            Poll::Ready(frame) => {
                *silence = None;
                return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
            }
            Poll::Pending => {
                let silence = silence.get_or_insert_with(|| Box::pin(sleep(*idle)));
                ready!(silence.as_mut().poll(cx));
                fault.get_or_init(|| UploadError::Stalled)
            }
        };
        Poll::Ready(Some(Err(fault.clone().into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct Lingering<O> {
    body: Body,
    span: Duration,
    most: Duration,
    owes: O,
    broken: Option<(BodyError, Pin<Box<Sleep>>, Instant)>,
}

impl<O: Fn() -> bool + Unpin> hyper::body::Body for Lingering<O> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { body, span, most, owes, broken } = &mut *self;
        if broken.is_none() {
            match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Err(error)) => *broken = Some((error, Box::pin(sleep(*span)), Instant::now() + *most)),
                frame => return Poll::Ready(frame),
            }
        }
        while let Some((_, wait, end)) = broken {
            ready!(wait.as_mut().poll(cx));
            if !owes() || Instant::now() >= *end {
                break;
            }
            *wait = Box::pin(sleep(*span));
        }
        Poll::Ready(broken.take().map(|(error, ..)| Err(error)))
    }

    fn is_end_stream(&self) -> bool {
        self.broken.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes of a whole body that are handed over at a time: what a client has still to take beyond that can be seen.
const PIECE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::FutureExt;
    use hyper::body::Body as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_came_before_an_error_has_time_to_go_down() {
        const SPAN: Duration = Duration::from_millis(50);
        let chunks = [Ok(Bytes::from_static(b"why")), Err("broken".into())];
        let owes = Arc::new(AtomicBool::new(true));
        let told = owes.clone();
        let chunks = stream(futures_util::stream::iter(chunks));
        let mut body = lingering(chunks, (SPAN, SPAN * 1000), move || told.load(Ordering::Relaxed));
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "why");
        let error = body.frame();
        assert!(error.now_or_never().is_none(), "the connection is polled, and writes, before it hears");
        assert!(
            tokio::time::timeout(SPAN * 100, body.frame()).await.is_err(),
            "a slow client has not taken all"
        );
        owes.store(false, Ordering::Relaxed);
        assert!(body.frame().await.unwrap().is_err());

        let mut body =
            lingering(stream(futures_util::stream::iter([Err("broken".into())])), (SPAN, SPAN * 9), || true);
        let waited = Instant::now();
        assert!(body.frame().await.unwrap().is_err());
        assert_eq!(waited.elapsed(), SPAN * 9, "what waits for others is no reason to wait for ever");
    }

    #[tokio::test]
    async fn a_whole_body_goes_down_in_pieces_of_the_length_it_announced() {
        for (length, pieces) in [(0, 0), (1, 1), (PIECE, 1), (PIECE + 1, 2), (5 * PIECE, 5)] {
            let mut body = full(vec![b'x'; length]);
            assert_eq!(body.size_hint().exact(), Some(length as u64));
            assert_eq!(body.is_end_stream(), length == 0);
            let (mut count, mut sum) = (0, 0);
            while let Some(frame) = body.frame().await {
                let bytes = frame.unwrap().into_data().unwrap().len();
                assert!(bytes <= PIECE);
                (count, sum) = (count + 1, sum + bytes);
            }
            assert_eq!((count, sum), (pieces, length));
        }
    }
}
