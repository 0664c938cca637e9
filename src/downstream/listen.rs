//! Accepts clients: HTTP/1.1 and HTTP/2 with prior knowledge on one port or unix socket, a bounded number of them, and a drain.
//! It is given its socket, its handler and its stages; it binds nothing, reads no signal, routes nothing.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

use crate::downstream::body::{self, Body};
use crate::downstream::line::{Line, Patience, Traffic};
use crate::downstream::listener::{BoxStream, Listener};
use crate::downstream::stall;
use crate::downstream::tls::Tls;

/// What clients may take up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections at a time, tunnels included; default 1024. The next one waits in the kernel's queue.
    pub connections: u32,
    /// Longest wait for a request's headers, and so also the longest an idle connection is kept; default 75 s.
    pub header_timeout: Duration,
    /// Most bytes of a request's headers; at least 8 KiB, default 256 KiB. More is answered 431.
    pub header_bytes: usize,
    /// Most headers of an HTTP/1.1 request; default 200. More is answered 431.
    pub headers: usize,
    /// Most requests in flight on one HTTP/2 connection; default 256. The next one is refused, unprocessed.
    pub streams: u32,
    /// How long a client that closed its side is still written to, counted from the last byte it took; default 0: it counts as
    /// gone at once.
    pub half_close: Duration,
    /// How long a client may take nothing of what waits for it; default 5 minutes. Then its connection is closed; of an
    /// HTTP/2 connection that goes on, the answer ends.
    pub stalled: Duration,
    /// How long a drain waits for requests in flight; default 30 s. Then they are cut.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            header_timeout: Duration::from_secs(75),
            header_bytes: 256 << 10,
            headers: 200,
            streams: 256,
            half_close: Duration::ZERO,
            stalled: Duration::from_secs(300),
            grace: Duration::from_secs(30),
        }
    }
}

/// How far the server is on its way out. Only ever grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Accepting.
    Running,
    /// Accepting no more; requests in flight may end within [`Limits::grace`].
    Draining,
    /// Everything left is cut at once.
    Cut,
}

/// The connection a request came on; found in the request's extensions. Whoever outlives the request on the same
/// connection (a tunnel) keeps a clone: it holds the connection's place and hears of the drain.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The client's address; none on a unix socket.
    pub peer: Option<SocketAddr>,
    stage: watch::Receiver<Stage>,
    _place: Arc<OwnedSemaphorePermit>,
}

impl Connection {
    /// Resolves when the server reaches `stage`.
    pub async fn reached(&self, stage: Stage) {
        reached(&mut self.stage.clone(), stage).await;
    }
}

/// Serves until `stage` (or the loss of its sender) says to stop, then drains; returns how many connections had to
/// be cut. A handler's future is dropped when its client goes away; a handler that panics costs its own connection
/// (HTTP/1.1) or stream (HTTP/2).
pub async fn serve<H, F>(
    listener: impl Into<Listener>,
    handler: H,
    limits: Limits,
    stage: watch::Receiver<Stage>,
) -> u32
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    serve_over(None, listener, handler, limits, stage).await
}

/// [`serve`], over TLS if there is any: a handshake takes a connection's place, and holds up no other client.
pub async fn serve_over<H, F>(
    tls: Option<Tls>,
    listener: impl Into<Listener>,
    handler: H,
    limits: Limits,
    mut stage: watch::Receiver<Stage>,
) -> u32
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = listener.into();
    let places = Arc::new(Semaphore::new(limits.connections as usize));
    let builder = Arc::new(builder(&limits));
    let (announce, announced) = watch::channel(Stage::Running);
    {
        let mut stopping = pin!(reached(&mut stage, Stage::Draining));
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stopping => break,
                accepted = accept(&listener, &places) => accepted,
            };
            let Some((stream, peer, place)) = accepted else { continue };
            let connection = Connection { peer, stage: announced.clone(), _place: Arc::new(place) };
            let (handler, builder) = (handler.clone(), builder.clone());
            match tls.clone() {
                None => drop(tokio::spawn(attend(stream, connection, handler, builder, limits))),
                Some(tls) => drop(tokio::spawn(async move {
                    let secured = tokio::select! {
                        secured = tls.accept(stream) => secured,
                        () = connection.reached(Stage::Draining) => None,
                    };
                    if let Some(stream) = secured {
                        attend(stream, connection, handler, builder, limits).await;
                    }
                })),
            }
        }
    }
    drop(listener);
    announce.send_replace(Stage::Draining);
    let all_back = || places.acquire_many(limits.connections);
    tokio::select! {
        _ = all_back() => return 0,
        () = sleep(limits.grace) => {}
        () = reached(&mut stage, Stage::Cut) => {}
    }
    let cut = limits.connections - u32::try_from(places.available_permits()).unwrap_or(0);
    announce.send_replace(Stage::Cut);
    drop(all_back().await);
    cut
}

/// Waits for a free place, then for a client. `None` after an error that has been waited out.
async fn accept(
    listener: &Listener,
    places: &Arc<Semaphore>,
) -> Option<(BoxStream, Option<SocketAddr>, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, place)),
        Err(error) if of_the_client(&error) => None,
        Err(error) => {
            // Usually "too many open files": nothing improves before somebody else closes one.
            tracing::warn!(kind = %error.kind(), "cannot accept a connection");
            sleep(ACCEPT_BACKOFF).await;
            None
        }
    }
}

/// The client gave up before it was accepted; the listener is fine.
fn of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// One connection, to its end or the server's.
async fn attend<S, H, F>(
    stream: S,
    connection: Connection,
    handler: H,
    builder: Arc<auto::Builder<TokioExecutor>>,
    limits: Limits,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let traffic = Arc::new(Traffic::default());
    let service = service_fn({
        let (traffic, connection) = (traffic.clone(), connection.clone());
        move |mut request: Request<Incoming>| {
            let traffic = traffic.clone();
            let under_way = traffic.begin();
            let one_of_many = request.version() == Version::HTTP_2;
            request.extensions_mut().insert(connection.clone());
            let response = handler(request);
            async move {
                let response = response.await;
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    traffic.switch();
                }
                let owes = move || traffic.owes();
                Ok::<_, Infallible>(response.map(|answer| {
                    let answer = body::keeping(answer, under_way);
                    if one_of_many {
                        // With a body that nobody reads its mark goes, too: nothing else keeps the connection.
                        body::lingering(stall::watched(answer, limits.stalled), STREAM_LINGER, owes)
                    } else {
                        body::lingering(answer, (LINGER, limits.stalled), owes)
                    }
                }))
            }
        }
    });
    let patience = Patience { half_close: limits.half_close, stalled: limits.stalled };
    let line = TokioIo::new(Line::new(stream, traffic.clone(), patience));
    let mut served = pin!(builder.serve_connection_with_upgrades(line, service));
    let mut draining = pin!(connection.reached(Stage::Draining));
    let (mut told, mut idle) = (false, false);
    loop {
        // hyper would time the headers, but from before the client has taken the last answer, and not the wait for the first
        // bytes that tell the protocol, nor an HTTP/2 connection without a request.
        let patience = if idle { GOODBYE } else { limits.header_timeout };
        tokio::select! {
            // A client's broken connection is nobody's error.
            _ = served.as_mut() => return,
            () = traffic.idle(patience) => {
                if idle {
                    return;
                }
                idle = true;
                served.as_mut().graceful_shutdown();
            }
            () = draining.as_mut(), if !told => {
                told = true;
                served.as_mut().graceful_shutdown();
            }
            () = connection.reached(Stage::Cut) => return,
        }
    }
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(limits.header_bytes.max(8192))
        .max_headers(limits.headers);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(H2_WINDOW)
        .initial_connection_window_size(4 * H2_WINDOW)
        .keep_alive_interval(limits.header_timeout)
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// Resolves when the stage is at least `wanted`; a lost sender counts as [`Stage::Draining`], never as a cut.
async fn reached(stage: &mut watch::Receiver<Stage>, wanted: Stage) {
    if stage.wait_for(|now| *now >= wanted).await.is_err() && wanted == Stage::Cut {
        std::future::pending::<()>().await;
    }
}

/// How long an idle client may take to let go of a connection that it was told is over.
const GOODBYE: Duration = Duration::from_secs(1);
/// Long enough for a connection's task to write what is queued, before it is seen whether the client takes it.
const LINGER: Duration = Duration::from_millis(50);
/// On HTTP/2 what waits for a stream's window is not to be seen: long enough for a client that reads at all. What does wait
/// to be seen may be other streams'.
const STREAM_LINGER: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
const ACCEPT_BACKOFF: Duration = Duration::from_millis(200);
/// Bytes a client may send ahead on one HTTP/2 stream; large bodies are common here, streams few.
const H2_WINDOW: u32 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf};
    use tokio::task::JoinHandle;

    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: t\r\n\r\n";

    /// A connection on which every answer has so many bytes.
    async fn answering<S>(stream: S, length: usize, limits: Limits) -> (watch::Sender<Stage>, JoinHandle<()>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (announce, stage) = watch::channel(Stage::Running);
        let place = Arc::new(Semaphore::new(1)).acquire_owned().await.expect("a place");
        let connection = Connection { peer: None, stage, _place: Arc::new(place) };
        let answer = move |_| async move { Response::new(body::full(vec![b'x'; length])) };
        let builder = Arc::new(builder(&limits));
        (announce, tokio::spawn(attend(stream, connection, answer, builder, limits)))
    }

    /// hyper and the system hold the end of an answer long after its body is over.
    #[tokio::test(start_paused = true)]
    async fn a_whole_answer_is_taken_as_slowly_as_a_client_likes() {
        const LENGTH: usize = 1 << 20;
        let limits = Limits::default();
        let (mut client, server) = tokio::io::duplex(4 << 10);
        let (_stage, served) = answering(server, LENGTH, limits).await;
        client.write_all(GET).await.expect("it listens");
        let (mut heard, mut piece) = (Vec::new(), vec![0; 16 << 10]);
        while heard.iter().filter(|byte| **byte == b'x').count() < LENGTH {
            sleep(limits.header_timeout - Duration::from_secs(1)).await;
            let mut taken = 0;
            while taken < piece.len() {
                let read =
                    tokio::time::timeout(Duration::from_secs(1), client.read(&mut piece[taken..])).await;
                match read {
                    Ok(read) => {
                        let read = read.expect("a connection");
                        assert!(read > 0, "cut after {} and {taken}", heard.len());
                        taken += read;
                    }
                    Err(_) => break,
                }
            }
            heard.extend_from_slice(&piece[..taken]);
        }
        served.await.expect("idle at last, it ends");
    }

    /// Takes what is written and gets none of it down, as TLS before a client that does not read.
    struct Kept(DuplexStream);

    impl AsyncRead for Kept {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Kept {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_tls_holds_is_not_held_for_ever() {
        let limits = Limits::default();
        let (mut client, server) = tokio::io::duplex(4 << 10);
        let began = tokio::time::Instant::now();
        let (_stage, served) = answering(Kept(server), 100, limits).await;
        client.write_all(GET).await.expect("it listens");
        tokio::time::timeout(limits.stalled * 2, served).await.expect("it is cut").expect("no defect");
        assert!(began.elapsed() >= limits.stalled, "but not before its time");
    }
}
