//! Small servers and clients on 127.0.0.1:0, and a guard that tells when something was dropped.

#[path = "../support/scanner.rs"]
mod scanner;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tailwire::downstream::body::{Body, relay};
use tailwire::downstream::listen::{Limits, Stage, serve};
use tailwire::proxy::{passthrough, reply, tunnel};
use tailwire::upstream::handshake::Dialer;
use tailwire::upstream::http::Client;
use tailwire::upstream::origin::Upstream;
use tailwire::upstream::tls::Tls;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

/// A server under test.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) stage: watch::Sender<Stage>,
    pub(crate) served: JoinHandle<u32>,
}

pub(crate) async fn running<H, F>(limits: Limits, handler: H) -> Running
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    scanner::listen();
    let (listener, address) = bind().await;
    let (stage, stages) = watch::channel(Stage::Running);
    let served = tokio::spawn(serve(listener, handler, limits, stages));
    Running { address, stage, served }
}

/// The passages of the proxy in front of `base`, as the door would assemble them.
pub(crate) async fn proxy(base: &str) -> Running {
    let tls = Tls::new(&[]).unwrap();
    let parts = Arc::new((Client::new(&tls), Dialer::new(tls), Upstream::parse(base).unwrap()));
    running(Limits::default(), move |request| {
        let parts = parts.clone();
        async move {
            let (client, dialer, upstream) = &*parts;
            if tunnel::asked(&request) {
                tunnel::open(dialer, upstream, request).await
            } else {
                reply::guarded(passthrough::forward(client, upstream, request, Duration::from_secs(30))).await
            }
        }
    })
    .await
}

/// A provider: hyper alone, none of our own code.
pub(crate) async fn origin<H, F>(handler: H) -> SocketAddr
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let (listener, address) = bind().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let handler = handler.clone();
            let service = service_fn(move |request| {
                let response = handler(request);
                async move { Ok::<_, std::convert::Infallible>(response.await) }
            });
            tokio::spawn(async move {
                let io = TokioIo::new(stream);
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection_with_upgrades(io, service)
                    .await;
            });
        }
    });
    address
}

pub(crate) async fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

pub(crate) async fn h1(address: SocketAddr) -> http1::SendRequest<Body> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

pub(crate) async fn h2(address: SocketAddr) -> http2::SendRequest<Body> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) fn get(uri: &str) -> Request<Body> {
    post(uri, "", |request| request.method("GET"))
}

pub(crate) fn post(
    uri: &str,
    body: impl Into<Bytes>,
    with: impl FnOnce(hyper::http::request::Builder) -> hyper::http::request::Builder,
) -> Request<Body> {
    let request = with(Request::post(uri).header("host", "tailwire.test"));
    request.body(relay(Full::new(body.into()))).unwrap()
}

pub(crate) async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// Tells when it is dropped.
pub(crate) struct Dropped(Option<oneshot::Sender<()>>);

impl Dropped {
    pub(crate) fn channel() -> (Self, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Some(sender)), receiver)
    }
}

impl Drop for Dropped {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            let _ = sender.send(());
        }
    }
}

/// Drives one end of a socket until `done` makes something of what it received.
pub(crate) async fn drive<T>(
    socket: &mut tailwire::upstream::socket::Socket,
    outbox: &mut std::collections::VecDeque<tailwire::upstream::socket::Outgoing>,
    mut done: impl FnMut(tailwire::upstream::socket::Received) -> Option<T>,
) -> T {
    std::future::poll_fn(|cx| {
        let _ = socket.poll_send(cx, outbox);
        loop {
            match socket.poll_receive(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(received) => {
                    if let Some(result) = done(received) {
                        return Poll::Ready(result);
                    }
                }
            }
        }
    })
    .await
}

/// A directory of its own for this test, removed with the guard.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tailwire-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
