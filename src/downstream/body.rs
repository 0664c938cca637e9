//! The one body type of every response that goes down, and its constructors.
//! It carries bytes and trailers; it knows no media type and no framing.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};

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

/// A body that is already whole; its length is announced.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
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
/// `owes` says that bytes wait for the client. When a body breaks, hyper throws away what it has not yet written, and
/// that may be the error event that says why.
pub fn lingering(body: Body, span: Duration, owes: impl Fn() -> bool + Send + Unpin + 'static) -> Body {
    Lingering { body, span, owes, broken: None }.boxed_unsync()
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
    owes: O,
    broken: Option<(BodyError, Pin<Box<Sleep>>)>,
}

impl<O: Fn() -> bool + Unpin> hyper::body::Body for Lingering<O> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { body, span, owes, broken } = &mut *self;
        if broken.is_none() {
            match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Err(error)) => *broken = Some((error, Box::pin(sleep(*span)))),
                frame => return Poll::Ready(frame),
            }
        }
        while let Some((_, wait)) = broken {
            ready!(wait.as_mut().poll(cx));
            if !owes() {
                break;
            }
            *wait = Box::pin(sleep(*span));
        }
        Poll::Ready(broken.take().map(|(error, _)| Err(error)))
    }

    fn is_end_stream(&self) -> bool {
        self.broken.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_came_before_an_error_has_time_to_go_down() {
        const SPAN: Duration = Duration::from_millis(50);
        let chunks = [Ok(Bytes::from_static(b"why")), Err("broken".into())];
        let owes = Arc::new(AtomicBool::new(true));
        let told = owes.clone();
        let chunks = stream(futures_util::stream::iter(chunks));
        let mut body = lingering(chunks, SPAN, move || told.load(Ordering::Relaxed));
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "why");
        let error = body.frame();
        assert!(error.now_or_never().is_none(), "the connection is polled, and writes, before it hears");
        assert!(
            tokio::time::timeout(SPAN * 100, body.frame()).await.is_err(),
            "a slow client has not taken all"
        );
        owes.store(false, Ordering::Relaxed);
        assert!(body.frame().await.unwrap().is_err());
    }
}
