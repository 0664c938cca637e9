//! The listener: protocols, limits, disconnects, drains.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, Response};
use tailwire::downstream::body::{Body, empty, full};
use tailwire::downstream::listen::{Connection, Limits, Stage};
use tailwire::downstream::room::Room;
use tailwire::downstream::upload::{self, UploadLimits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use crate::support::{Dropped, get, h1, h2, post, running, text};

async fn hello(request: Request<Incoming>) -> Response<Body> {
    assert!(request.extensions().get::<Connection>().is_some());
    Response::new(full(format!("{:?}", request.version())))
}

trait Handler: Fn(Request<Incoming>) -> Answer + Clone + Send + Sync + 'static {}
impl<H: Fn(Request<Incoming>) -> Answer + Clone + Send + Sync + 'static> Handler for H {}
type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// A handler that reports that it started, never answers, and tells when it is dropped.
fn stuck() -> (impl Handler, mpsc::Receiver<oneshot::Receiver<()>>) {
    let (started, starts) = mpsc::channel(4);
    let handler = move |request: Request<Incoming>| {
        let started = started.clone();
        Box::pin(async move {
            let (guard, dropped) = Dropped::channel();
            let _ = request.into_body().collect().await;
            started.send(dropped).await.unwrap();
            std::future::pending::<()>().await;
            drop(guard);
            Response::new(empty())
        }) as Answer
    };
    (handler, starts)
}

#[tokio::test]
async fn one_port_speaks_http_1_and_2() {
    let server = running(Limits::default(), hello).await;
    let mut client = h1(server.address).await;
    // Twice on one connection: it is kept alive.
    for _ in 0..2 {
        let response = client.send_request(get("/")).await.unwrap();
        assert_eq!(text(response).await, "HTTP/1.1");
        client.ready().await.unwrap();
    }
    let mut client = h2(server.address).await;
    let response = client.send_request(get("http://tailwire.test/")).await.unwrap();
    assert_eq!(text(response).await, "HTTP/2.0");
}

#[tokio::test]
async fn a_disconnect_drops_the_handler() {
    let (handler, mut starts) = stuck();
    let server = running(Limits::default(), handler).await;

    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
    let dropped = starts.recv().await.unwrap();
    drop(client);
    dropped.await.unwrap();

    // HTTP/2: the stream alone, the connection stays.
    let mut client = h2(server.address).await;
    let asking = tokio::spawn(client.send_request(get("http://tailwire.test/")));
    let dropped = starts.recv().await.unwrap();
    asking.abort();
    dropped.await.unwrap();
    assert!(!client.is_closed());
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let server = running(Limits { connections: 1, ..Limits::default() }, hello).await;
    let mut first = h1(server.address).await;
    let response = first.send_request(get("/")).await.unwrap();
    assert_eq!(text(response).await, "HTTP/1.1");

    let mut second = h1(server.address).await;
    let mut waiting = tokio::spawn(async move { second.send_request(get("/")).await.unwrap() });
    first.ready().await.unwrap();
    let response = first.send_request(get("/")).await.unwrap();
    assert_eq!(text(response).await, "HTTP/1.1");
    assert!(futures_util::poll!(&mut waiting).is_pending());
    drop(first);
    assert_eq!(text(waiting.await.unwrap()).await, "HTTP/1.1");
}

#[tokio::test]
async fn silent_and_slow_clients_are_let_go() {
    let limits = Limits { header_timeout: Duration::from_millis(50), ..Limits::default() };
    let server = running(limits, hello).await;
    for opening in [&b""[..], b"PRI * HT", b"GET / HTTP/1.1\r\nx-slow: ", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let mut client = TcpStream::connect(server.address).await.unwrap();
        client.write_all(opening).await.unwrap();
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest).await;
    }
}

#[tokio::test]
async fn oversized_headers_are_refused() {
    let limits = Limits { header_bytes: 8192, headers: 20, ..Limits::default() };
    let server = running(limits, hello).await;
    for request in [
        post("/", "", |request| request.header("x-long", "a".repeat(9000))),
        post("/", "", |request| (0..30).fold(request, |request, n| request.header(format!("x-{n}"), "a"))),
    ] {
        let response = h1(server.address).await.send_request(request).await.unwrap();
        assert_eq!(response.status(), 431);
    }
}

#[tokio::test]
async fn a_panic_costs_one_connection() {
    let server = running(Limits::default(), |request: Request<Incoming>| async move {
        assert!(request.uri().path() != "/panic", "a bug");
        Response::new(full("fine"))
    })
    .await;
    assert!(h1(server.address).await.send_request(get("/panic")).await.is_err());
    let mut client = h2(server.address).await;
    assert!(client.send_request(get("http://tailwire.test/panic")).await.is_err());
    let response = client.send_request(get("http://tailwire.test/")).await.unwrap();
    assert_eq!(text(response).await, "fine");
}

#[tokio::test]
async fn a_drain_lets_requests_end() {
    let (release, released) = oneshot::channel::<()>();
    let (started, starts) = oneshot::channel::<()>();
    let once = Arc::new(Mutex::new(Some((released, started))));
    let server = running(Limits::default(), move |_| {
        let once = once.lock().unwrap().take();
        async move {
            if let Some((released, started)) = once {
                started.send(()).unwrap();
                released.await.unwrap();
            }
            Response::new(full("done"))
        }
    })
    .await;
    let mut busy = h1(server.address).await;
    let asking = tokio::spawn(async move { text(busy.send_request(get("/")).await.unwrap()).await });
    starts.await.unwrap();
    let mut idle = TcpStream::connect(server.address).await.unwrap();

    server.stage.send_replace(Stage::Draining);
    // The idle connection goes at once, the busy one with its answer.
    let _ = idle.read_to_end(&mut Vec::new()).await;
    assert!(TcpStream::connect(server.address).await.is_err());
    release.send(()).unwrap();
    assert_eq!(asking.await.unwrap(), "done");
    assert_eq!(server.served.await.unwrap(), 0);
}

#[tokio::test]
async fn what_outlives_the_grace_is_cut() {
    for (grace, last) in
        [(Duration::from_millis(20), Stage::Draining), (Duration::from_secs(600), Stage::Cut)]
    {
        let (handler, mut starts) = stuck();
        let server = running(Limits { grace, ..Limits::default() }, handler).await;
        let mut client = h1(server.address).await;
        let asking = tokio::spawn(async move { client.send_request(get("/")).await });
        let dropped = starts.recv().await.unwrap();
        server.stage.send_replace(Stage::Draining);
        server.stage.send_replace(last);
        assert_eq!(server.served.await.unwrap(), 1);
        dropped.await.unwrap();
        assert!(asking.await.unwrap().is_err());
    }
}

#[tokio::test]
async fn uploads_are_taken_from_the_wire() {
    let limits = UploadLimits { bytes: 1000, idle: Duration::from_millis(500), ..UploadLimits::default() };
    let server = running(Limits::default(), move |request: Request<Incoming>| async move {
        let (parts, body) = request.into_parts();
        let room = Room::new(1 << 20);
        Response::new(full(match upload::receive(&parts.headers, body, &room, &limits).await {
            Ok((upload, _)) => format!("{} {}", upload.raw.len(), upload.body.unwrap().len()),
            Err(error) => format!("{error:?}"),
        }))
    })
    .await;
    let bomb = zstd::stream::encode_all(&*vec![0; 100_000], 3).unwrap();
    for (body, coding, expected) in [
        (vec![b'x'; 1000], "identity", "1000 1000"),
        (vec![b'x'; 1001], "identity", "TooLarge(1000)"),
        (bomb, "zstd", "TooLarge(1000)"),
    ] {
        let request = post("/", body, |request| request.header("content-encoding", coding));
        let response = h1(server.address).await.send_request(request).await.unwrap();
        assert_eq!(text(response).await, expected);
    }
    let mut loris = TcpStream::connect(server.address).await.unwrap();
    loris.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{").await.unwrap();
    let mut answer = String::new();
    loris.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("Stalled"), "{answer}");
}
