//! Pass-through, resend and tunnel: what goes in on one side comes out on the other.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{HeaderMap, Method, Request, Response};
use tailwire::downstream::body::{Body, empty, full, relay, stream};
use tailwire::downstream::listen::Stage;
use tailwire::proxy::passthrough;
use tailwire::upstream::http::Client;
use tailwire::upstream::origin::Upstream;
use tailwire::upstream::tls::Tls;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::support::{Dropped, bind, get, h1, h2, origin, post, proxy, text};
use crate::wire;

/// Request and body as the provider saw them, one header a line.
async fn mirror(request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut lines = vec![format!("{} {}", parts.method, parts.uri)];
    lines.extend(parts.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())));
    lines.push(String::from_utf8(body.to_vec()).unwrap());
    let response = Response::builder()
        .status(207)
        .header("x-request-id", "req_theirs")
        .header("set-cookie", "a=1")
        .header("set-cookie", "b=2")
        .header("keep-alive", "timeout=5");
    response.body(full(lines.join("\n"))).unwrap()
}

/// A body of these chunks and trailers.
fn trailed(chunks: &[&'static str], trailers: &[(&'static str, &'static str)]) -> Body {
    let trailers: HeaderMap =
        trailers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    let frames: Vec<_> =
        chunks.iter().map(|chunk| Frame::data(Bytes::from_static(chunk.as_bytes()))).collect();
    let frames = frames.into_iter().chain([Frame::trailers(trailers)]).map(Ok::<_, std::io::Error>);
    relay(StreamBody::new(futures_util::stream::iter(frames)))
}

/// A client's own WebSocket to the proxy.
async fn websocket(address: SocketAddr) -> Result<WebSocketStream<TcpStream>, tungstenite::Error> {
    let stream = TcpStream::connect(address).await.unwrap();
    let url = format!("ws://{address}/v1/responses");
    tokio_tungstenite::client_async(url, stream).await.map(|(client, _)| client)
}

/// A body of what is sent, to the sender's end; at most one piece ahead of its reader.
fn fed() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    let pieces = futures_util::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (Ok(piece), receiver))
    });
    (sender, stream(pieces))
}

#[tokio::test]
async fn requests_and_responses_cross_unchanged() {
    let address = origin(mirror).await;
    let server = proxy(&format!("http://{address}/base")).await;
    let request = post("/v1/files?purpose=a%20b&x", "some bytes", |request| {
        request
            .method("PATCH")
            .header("authorization", "Bearer sk-1")
            .header("connection", "x-private")
            .header("x-private", "1")
            .header("x-tailwire-mode", "http")
            .header("x-many", "1")
            .header("x-many", "2")
    });
    let response = h1(server.address).await.send_request(request).await.unwrap();
    assert_eq!(response.status(), 207);
    assert_eq!(response.headers()["x-request-id"], "req_theirs");
    assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
    assert!(!response.headers().contains_key("keep-alive"));
    let seen = text(response).await;
    let mut seen: Vec<_> = seen.lines().collect();
    assert_eq!(seen.remove(0), "PATCH /base/files?purpose=a%20b&x");
    assert_eq!(seen.pop(), Some("some bytes"));
    seen.sort_unstable();
    let host = format!("host: {address}");
    let expected = ["authorization: Bearer sk-1", "content-length: 10", &host, "x-many: 1", "x-many: 2"];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn methods_without_bodies_keep_their_meaning() {
    let address = origin(|request: Request<Incoming>| async move {
        let response = match request.method().as_str() {
            "HEAD" => Response::builder().header("content-length", "12345"),
            "OPTIONS" => Response::builder().status(204).header("allow", "GET, HEAD"),
            _ => {
                assert_eq!(request.headers()["range"], "bytes=2-3");
                assert!(!request.headers().contains_key("content-length"));
                let response = Response::builder().status(206).header("content-range", "bytes 2-3/10");
                return response.body(full("cd")).unwrap();
            }
        };
        response.body(empty()).unwrap()
    })
    .await;
    let server = proxy(&format!("http://{address}")).await;
    let mut client = h1(server.address).await;
    let ask = |method: &str| {
        Request::builder()
            .method(method)
            .uri("/v1/files/1/content")
            .header("host", "a")
            .header("range", "bytes=2-3")
            .body(empty())
            .unwrap()
    };
    let head = client.send_request(ask("HEAD")).await.unwrap();
    assert_eq!(head.headers()["content-length"], "12345");
    assert_eq!(text(head).await, "");
    let options = client.send_request(ask("OPTIONS")).await.unwrap();
    assert_eq!(
        (options.status().as_u16(), &options.headers()["allow"]),
        (204, &"GET, HEAD".parse().unwrap())
    );
    let part = client.send_request(ask("GET")).await.unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.headers()["content-range"], "bytes 2-3/10");
    assert_eq!(text(part).await, "cd");
}

#[tokio::test]
async fn both_directions_stream() {
    let (report, mut reports) = mpsc::channel(1);
    let address = origin(move |request: Request<Incoming>| {
        let report = report.clone();
        async move {
            let (feed, body) = fed();
            tokio::spawn(async move {
                let mut upload = request.into_body();
                let mut total = 0;
                while let Some(frame) = upload.frame().await {
                    let data = frame.unwrap().into_data().unwrap();
                    if total == 0 {
                        report.send(()).await.unwrap();
                        feed.send(data.clone()).await.unwrap();
                    }
                    total += data.len();
                }
                feed.send(total.to_string().into()).await.unwrap();
                drop(feed);
            });
            Response::new(body)
        }
    })
    .await;
    let server = proxy(&format!("http://{address}")).await;
    let (feed, body) = fed();
    let mut client = h1(server.address).await;
    let asking = Request::post("/v1/files").header("host", "a").body(body).unwrap();
    let asking = tokio::spawn(async move { client.send_request(asking).await.unwrap() });
    feed.send(Bytes::from_static(b"first")).await.unwrap();
    // The provider has the first piece, and the client its answer to it, while the upload is still open.
    reports.recv().await.unwrap();
    let mut response = asking.await.unwrap().into_body();
    assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    let piece = Bytes::from(vec![0; 1 << 20]);
    for _ in 0..80 {
        feed.send(piece.clone()).await.unwrap();
    }
    drop(feed);
    let total = response.collect().await.unwrap().to_bytes();
    assert_eq!(total, (5 + (80 << 20)).to_string());
}

#[tokio::test]
async fn trailers_cross_both_ways() {
    let address = origin(|request: Request<Incoming>| async move {
        let sent = request.into_body().collect().await.unwrap();
        let digest = sent.trailers().unwrap()["x-digest"].to_str().unwrap().to_owned();
        assert_eq!(digest, "abc");
        let response = Response::builder().header("trailer", "x-total");
        response.body(trailed(&["data"], &[("x-total", "4")])).unwrap()
    })
    .await;
    let server = proxy(&format!("http://{address}")).await;
    let ask = |uri: &str| {
        let request = Request::post(uri).header("te", "trailers").header("trailer", "x-digest");
        request.body(trailed(&["up"], &[("x-digest", "abc")])).unwrap()
    };
    let mut over_one = ask("/v1/x");
    over_one.headers_mut().insert("host", "a".parse().unwrap());
    let one = h1(server.address).await.send_request(over_one).await.unwrap();
    let two = h2(server.address).await.send_request(ask("http://a.test/v1/x")).await.unwrap();
    for response in [one, two] {
        let received = response.into_body().collect().await.unwrap();
        assert_eq!(received.trailers().unwrap()["x-total"], "4");
        assert_eq!(received.to_bytes(), "data");
    }
}

#[tokio::test]
async fn interim_responses_are_swallowed() {
    let (listener, address) = bind().await;
    tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        wire::head(&mut stream).await;
        let answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n\
                      HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    let server = proxy(&format!("http://{address}")).await;
    let response = h1(server.address).await.send_request(get("/v1/models")).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("link"));
    assert_eq!(text(response).await, "ok");
}

#[tokio::test]
async fn a_client_that_leaves_cancels_upstream() {
    let (guard, dropped) = Dropped::channel();
    let (started, start) = oneshot::channel();
    let once = Arc::new(Mutex::new(Some((guard, started))));
    let address = origin(move |_| {
        let (guard, started) = once.lock().unwrap().take().unwrap();
        async move {
            started.send(()).unwrap();
            std::future::pending::<()>().await;
            drop(guard);
            Response::new(empty())
        }
    })
    .await;
    let server = proxy(&format!("http://{address}")).await;
    let mut client = h1(server.address).await;
    let asking = tokio::spawn(async move { client.send_request(get("/v1/models")).await });
    start.await.unwrap();
    asking.abort();
    dropped.await.unwrap();
}

#[tokio::test]
async fn an_upstream_that_is_away_is_our_502() {
    let (listener, address) = bind().await;
    drop(listener);
    let server = proxy(&format!("http://{address}")).await;
    let response = h1(server.address).await.send_request(get("/v1/models")).await.unwrap();
    assert_eq!(response.status(), 502);
    assert!(response.headers().contains_key("x-request-id"));
    let body = text(response).await;
    assert!(body.contains("\"tailwire_upstream_unreachable\""), "{body}");

    let failed = websocket(server.address).await;
    assert!(matches!(failed, Err(tungstenite::Error::Http(response)) if response.status() == 502));
}

#[tokio::test]
async fn a_resend_is_the_clients_own_request() {
    let address = origin(mirror).await;
    let upstream = Upstream::parse(&format!("http://{address}/v1")).unwrap();
    let client = Client::new(&Tls::new(&[]).unwrap());
    let headers: HeaderMap =
        [("content-encoding", "zstd"), ("content-length", "999"), ("x-tailwire-mode", "http")]
            .into_iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
    let sent = passthrough::resend(&client, &upstream, Method::POST, "/v1/responses", &headers, "raw".into());
    let body = sent.await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let expected =
        format!("POST /v1/responses\ncontent-encoding: zstd\nhost: {address}\ncontent-length: 3\nraw");
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(sorted(std::str::from_utf8(&body).unwrap()), sorted(&expected));
}

#[tokio::test]
async fn a_clients_own_websocket_is_tunnelled() {
    let (listener, address) = bind().await;
    let upstream = tokio::spawn(async move {
        let mut seen = Vec::new();
        for _ in 0..2 {
            let stream = listener.accept().await.unwrap().0;
            let mut peer = tokio_tungstenite::accept_async(stream).await.unwrap();
            while let Some(Ok(message)) = peer.next().await {
                if message.is_text() {
                    peer.send(message.clone()).await.unwrap();
                    seen.push(message);
                }
            }
        }
        seen
    });
    let server = proxy(&format!("http://{address}")).await;
    let mut client = websocket(server.address).await.unwrap();
    let large = Message::text("x".repeat(1 << 20));
    client.send(large.clone()).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), large);
    client.close(None).await.unwrap();
    while client.next().await.is_some() {}

    // A drain ends a tunnel, and the server waits for nothing else.
    let mut client = websocket(server.address).await.unwrap();
    client.send("two".into()).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("two"));
    server.stage.send_replace(Stage::Draining);
    assert_eq!(server.served.await.unwrap(), 0);
    assert!(client.next().await.is_none_or(|message| message.is_err()));
    assert_eq!(upstream.await.unwrap(), [large, Message::text("two")]);
}

#[tokio::test]
async fn a_refused_tunnel_says_why() {
    let (listener, address) = bind().await;
    let head = tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        let head = wire::head(&mut stream).await;
        let answer = "HTTP/1.1 429 Slow\r\nretry-after: 3\r\ncontent-length: 6\r\n\r\nlater!";
        stream.write_all(answer.as_bytes()).await.unwrap();
        head
    });
    let server = proxy(&format!("http://{address}")).await;
    let request = post("/v1/responses?model=a", "", |request| {
        request
            .method("GET")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-extensions", "permessage-deflate; client_max_window_bits")
    });
    let response = h1(server.address).await.send_request(request).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (429, &"3".parse().unwrap())
    );
    assert_eq!(text(response).await, "later!");
    let head = head.await.unwrap();
    assert_eq!(head[0], "GET /v1/responses?model=a HTTP/1.1");
    assert_eq!(wire::value(&head, "sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    let extensions = wire::value(&head, "sec-websocket-extensions");
    assert_eq!(extensions, Some("permessage-deflate; client_max_window_bits"));
}
