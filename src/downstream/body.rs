//! The one body type of every response that goes down, and its constructors.
//! It carries bytes and trailers; it knows no media type and no framing.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep};

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

/// A body of chunks as they come; an error breaks it, once the chunks before it had time to go down.
pub fn stream(chunks: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static) -> Body {
    lingering(StreamBody::new(chunks.map_ok(Frame::data)).boxed_unsync())
}

/// Somebody else's body (an upstream response), trailers included.
pub fn relay<B>(body: B) -> Body
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    lingering(body.map_err(Into::into).boxed_unsync())
}

/// The same body; `kept` is let go with it.
pub fn keeping(body: Body, kept: impl Send + 'static) -> Body {
    let frames = body.map_frame(move |frame| {
        let _ = &kept;
        frame
    });
    frames.boxed_unsync()
}

/// A body fed by another task, at most `depth` chunks (at least one) ahead of the client.
#[must_use]
pub fn channel(depth: usize) -> (Feed, Body) {
    let (sender, receiver) = mpsc::channel(depth.max(1));
    (Feed(sender), Fed { receiver, ended: false }.boxed_unsync())
}

/// The writing end of [`channel`]. Dropped without [`Feed::finish`], it breaks the body, so that a task that
/// died can never pass for a complete answer.
#[derive(Debug)]
pub struct Feed(mpsc::Sender<Option<Bytes>>);

impl Feed {
    /// Waits for room and hands over one chunk.
    ///
    /// # Errors
    /// [`Gone`] when the client has let go of the body.
    pub async fn send(&self, chunk: Bytes) -> Result<(), Gone> {
        self.0.send(Some(chunk)).await.map_err(|_| Gone)
    }

    /// Waits for room and ends the body cleanly.
    ///
    /// # Errors
    /// [`Gone`] when the client has let go of the body.
    pub async fn finish(self) -> Result<(), Gone> {
        self.0.send(None).await.map_err(|_| Gone)
    }

    /// Resolves when the client has let go of the body.
    pub async fn gone(&self) {
        self.0.closed().await;
    }
}

/// The client no longer reads this body.
#[derive(Debug, thiserror::Error)]
#[error("the client no longer reads this response")]
pub struct Gone;

/// The reading end of [`channel`].
struct Fed {
    receiver: mpsc::Receiver<Option<Bytes>>,
    ended: bool,
}

impl hyper::body::Body for Fed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = ready!(self.receiver.poll_recv(cx));
        self.ended = !matches!(next, Some(Some(_)));
        Poll::Ready(match next {
            Some(Some(chunk)) => Some(Ok(Frame::data(chunk))),
            Some(None) => None,
            None => Some(Err("the response was abandoned before its end".into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// Holds an error back for a moment: when a body breaks, hyper throws away what it has not yet written, and that may
/// be the error event that says why.
struct Lingering {
    body: Body,
    broken: Option<(BodyError, Pin<Box<Sleep>>)>,
}

fn lingering(body: Body) -> Body {
    Lingering { body, broken: None }.boxed_unsync()
}

impl hyper::body::Body for Lingering {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { body, broken } = &mut *self;
        if broken.is_none() {
            match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Err(error)) => *broken = Some((error, Box::pin(sleep(LINGER)))),
                frame => return Poll::Ready(frame),
            }
        }
        if let Some((_, wait)) = broken {
            ready!(wait.as_mut().poll(cx));
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

/// Long enough for a connection's task to write what is queued, if its client reads at all.
const LINGER: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_came_before_an_error_has_time_to_go_down() {
        let chunks = [Ok(Bytes::from_static(b"why")), Err("broken".into())];
        let mut body = stream(futures_util::stream::iter(chunks));
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "why");
        let error = body.frame();
        assert!(error.now_or_never().is_none(), "the connection is polled, and writes, before it hears");
        assert!(body.frame().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_finished_feed_ends_cleanly() {
        let (feed, body) = channel(4);
        feed.send(Bytes::from_static(b"one ")).await.unwrap();
        feed.send(Bytes::from_static(b"two")).await.unwrap();
        feed.finish().await.unwrap();
        assert_eq!(body.collect().await.unwrap().to_bytes(), "one two");
    }

    #[tokio::test]
    async fn an_abandoned_feed_breaks_the_body() {
        let (feed, body) = channel(4);
        feed.send(Bytes::from_static(b"half")).await.unwrap();
        drop(feed);
        assert!(body.collect().await.is_err());
    }

    #[tokio::test]
    async fn a_feed_hears_that_the_client_went() {
        let (feed, body) = channel(1);
        drop(body);
        feed.gone().await;
        assert!(feed.send(Bytes::new()).await.is_err());
    }
}
