//! HTTP/2 with prior knowledge, frame by frame: malformed requests cost their stream, floods their connection, and an
//! idle or draining connection is told to go.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::raw::{Caller, Recorder, header, soon};
use crate::support::{BODY, asked, assert_answered, get, proxy};
use crate::world::World;

/// A client that writes frames as it is told.
struct Peer {
    stream: TcpStream,
}

#[derive(Clone, Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

impl Peer {
    async fn to(addr: SocketAddr) -> Self {
        let mut peer = Self { stream: TcpStream::connect(addr).await.unwrap() };
        peer.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        peer.send(SETTINGS, 0, 0, &[]).await;
        peer
    }

    /// False once the other side has had enough.
    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        soon(self.stream.write_all(&frame)).await.is_ok()
    }

    /// Headers as literals, none of them compressed or remembered.
    async fn ask(&mut self, stream: u32, flags: u8, headers: &[(&str, &[u8])]) -> bool {
        let mut block = Vec::new();
        for (name, value) in headers {
            block.push(0);
            for text in [name.as_bytes(), value] {
                assert!(text.len() < 127 + 128, "one more byte of length is all that is written here");
                match text.len() {
                    length @ 0..127 => block.push(u8::try_from(length).unwrap()),
                    length => block.extend([127, u8::try_from(length - 127).unwrap()]),
                }
                block.extend(text);
            }
        }
        self.send(HEADERS, flags | END_HEADERS, stream, &block).await
    }

    /// The next frame that is no formality; none once the connection has ended. Settings and pings are answered.
    async fn hear(&mut self) -> Option<Frame> {
        // Pings alone keep nobody waiting for ever.
        soon(async {
            loop {
                let mut head = [0; 9];
                self.stream.read_exact(&mut head).await.ok()?;
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let mut payload = vec![0; usize::try_from(length).unwrap()];
                self.stream.read_exact(&mut payload).await.ok()?;
                let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                match (head[3], head[4] & 1) {
                    (SETTINGS, 0) => drop(self.send(SETTINGS, 1, 0, &[]).await),
                    (PING, 0) => drop(self.send(PING, 1, 0, &payload).await),
                    (HEADERS | DATA | RST_STREAM | GOAWAY, _) => {
                        return Some(Frame { kind: head[3], flags: head[4], stream, payload });
                    }
                    _ => {}
                }
            }
        })
        .await
    }

    /// What ends a stream: the bytes of its answer, or the code it was reset with.
    async fn outcome(&mut self, stream: u32) -> Result<Vec<u8>, u32> {
        let mut body = Vec::new();
        while let Some(frame) = self.hear().await {
            match frame.kind {
                RST_STREAM if frame.stream == stream => return Err(code(&frame.payload)),
                GOAWAY if code(&frame.payload[4..]) != 0 => return Err(code(&frame.payload[4..])),
                DATA if frame.stream == stream => body.extend(frame.payload),
                _ => {}
            }
            if [HEADERS, DATA].contains(&frame.kind)
                && frame.stream == stream
                && frame.flags & END_STREAM != 0
            {
                return Ok(body);
            }
        }
        Err(u32::MAX)
    }
}

fn code(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

fn turn<'a>(more: &[(&'a str, &'a [u8])]) -> Vec<(&'a str, &'a [u8])> {
    let mut headers: Vec<(&str, &[u8])> = vec![
        (":method", b"POST"),
        (":scheme", b"http"),
        (":authority", b"t"),
        (":path", b"/v1/responses"),
        ("authorization", b"Bearer sk-planted-a"),
        ("content-type", b"application/json"),
    ];
    headers.extend(more);
    headers
}

#[tokio::test]
async fn a_turn_over_http_2_is_a_turn() {
    let world = World::plain().await;
    let mut peer = Peer::to(world.proxy.addr).await;
    for (stream, te) in [(1, &b"trailers"[..]), (3, b"trailers")] {
        peer.ask(stream, 0, &turn(&[("te", te)])).await;
        peer.send(DATA, END_STREAM, stream, BODY.as_bytes()).await;
        let body: serde_json::Value = serde_json::from_slice(&peer.outcome(stream).await.unwrap()).unwrap();
        assert_eq!(body["status"], "completed");
    }
}

#[tokio::test]
async fn malformed_requests_cost_their_stream_only() {
    let world = World::plain().await;
    let mut peer = Peer::to(world.proxy.addr).await;
    let mut stream = 1;
    for extra in [
        ("connection", &b"close"[..]),
        ("connection", b"authorization"),
        ("keep-alive", b"timeout=5"),
        ("proxy-connection", b"keep-alive"),
        ("transfer-encoding", b"chunked"),
        ("upgrade", b"websocket"),
        ("te", b"gzip"),
        ("x-split", b"a\r\nauthorization: Bearer sk-planted-b"),
        ("x-split", b"a\nb"),
        ("x-nul", b"a\0b"),
        ("X-Upper", b"1"),
        ("x bad", b"1"),
        ("x-bad\r\ny", b"1"),
        ("", b"1"),
        (":path", b"/v1/models"),
        (":unknown", b"1"),
        ("content-length", b"5000"),
        ("content-length", b"+47"),
    ] {
        peer.ask(stream, 0, &turn(&[extra])).await;
        peer.send(DATA, END_STREAM, stream, BODY.as_bytes()).await;
        let outcome = peer.outcome(stream).await;
        // Refused by a reset, or by an answer of 4xx; never taken for a turn.
        let refused = outcome.as_ref().map_or(true, |body| !body.windows(9).any(|part| part == b"completed"));
        assert!(refused, "{extra:?}: {outcome:?}");
        stream += 2;
        if outcome == Err(u32::MAX) || matches!(outcome, Err(9)) {
            peer = Peer::to(world.proxy.addr).await;
            stream = 1;
        }
    }
    assert_eq!(asked(&world).1, 0, "no turn was made of it");
    peer.ask(stream, 0, &turn(&[])).await;
    peer.send(DATA, END_STREAM, stream, BODY.as_bytes()).await;
    assert!(peer.outcome(stream).await.is_ok(), "the connection goes on");
}

#[tokio::test]
async fn hosts_of_http_2_must_agree() {
    let upstream = Recorder::start().await;
    let proxy = proxy(&upstream, |_| ()).await;
    let mut peer = Peer::to(proxy.addr).await;
    let start: [(&str, &[u8]); 3] = [(":method", b"GET"), (":scheme", b"http"), (":path", b"/v1/files")];
    let mut stream = 1;
    for (more, taken) in [
        (&[(":authority", &b"t"[..])][..], true),
        (&[(":authority", b"t"), ("host", b"T")], true),
        (&[(":authority", b"t"), ("host", b"other")], false),
        (&[(":authority", b"user:word@t")], false),
        (&[(":authority", b"t"), ("host", b"t"), ("host", b"t")], false),
    ] {
        let headers = [&start[..], more].concat();
        peer.ask(stream, END_STREAM, &headers).await;
        let outcome = peer.outcome(stream).await;
        assert_eq!(outcome.as_deref() == Ok(b"ok"), taken, "{more:?}: {outcome:?}");
        let heard = upstream.take();
        assert_eq!(heard.is_empty(), !taken, "{more:?}: {heard}");
        if taken {
            let host = upstream.addr.to_string();
            assert_eq!(header(&heard, "host"), Some(host.as_str()), "{heard}");
        }
        stream += 2;
    }
}

#[tokio::test]
async fn heads_and_streams_of_http_2_are_bounded() {
    let world = World::start(
        |settings| {
            settings.limits.head = 8 << 10;
            settings.limits.headers = 20;
            settings.limits.streams = 2;
        },
        |_| (),
    )
    .await;
    let long = [b'x'; 200];
    let many: Vec<(&str, &[u8])> = (0..20).map(|_| ("x-many", &b"1"[..])).collect();
    let large: Vec<(&str, &[u8])> = (0..50).map(|_| ("x-long", &long[..])).collect();
    for more in [many, large] {
        let mut peer = Peer::to(world.proxy.addr).await;
        peer.ask(1, 0, &turn(&more)).await;
        peer.send(DATA, END_STREAM, 1, BODY.as_bytes()).await;
        let outcome = peer.outcome(1).await;
        let text = outcome.map(|body| String::from_utf8(body).unwrap());
        assert!(
            text.as_ref().map_or(true, |text| text.is_empty() || text.contains("too_many_headers")),
            "{text:?}"
        );
    }
    assert_eq!(asked(&world).1, 0);

    world.slow();
    let mut peer = Peer::to(world.proxy.addr).await;
    for stream in [1, 3] {
        peer.ask(stream, 0, &turn(&[])).await;
        peer.send(DATA, END_STREAM, stream, BODY.as_bytes()).await;
    }
    world.in_flight(2).await;
    peer.ask(5, 0, &turn(&[])).await;
    peer.send(DATA, END_STREAM, 5, BODY.as_bytes()).await;
    const REFUSED_STREAM: u32 = 7;
    assert_eq!(peer.outcome(5).await, Err(REFUSED_STREAM), "which says that it was not processed");
    world.fast();
    assert!(peer.outcome(1).await.is_ok());
}

#[tokio::test]
async fn a_flood_of_resets_ends_its_connection_alone() {
    let world = World::plain().await;
    let mut bystander = Caller::saying(world.proxy.addr, get("/v1/models")).await;
    assert_eq!(bystander.hear().await.status, 200);
    let mut peer = Peer::to(world.proxy.addr).await;
    let mut sent = 0;
    const CANCEL: [u8; 4] = [0, 0, 0, 8];
    while sent < 200_000
        && peer.ask(1 + 2 * sent, 0, &turn(&[])).await
        && peer.send(RST_STREAM, 0, 1 + 2 * sent, &CANCEL).await
    {
        sent += 1;
    }
    assert!(sent < 200_000, "it is let flood for ever");
    bystander.say(get("/v1/models")).await;
    assert_eq!(bystander.hear().await.status, 200);
    assert_answered(
        "/v1/responses",
        &Caller::saying(world.proxy.addr, crate::support::post("/v1/responses", "")).await.hear().await,
    );
    assert_eq!(asked(&world).1, 1);
}

#[tokio::test]
async fn an_idle_connection_is_told_to_go() {
    let world = World::start(|settings| settings.timeouts.header = Duration::from_millis(300), |_| ()).await;
    let mut peer = Peer::to(world.proxy.addr).await;
    peer.ask(1, 0, &turn(&[])).await;
    peer.send(DATA, END_STREAM, 1, BODY.as_bytes()).await;
    assert!(peer.outcome(1).await.is_ok());
    // It answers every ping, so only its idleness ends it.
    let frame = peer.hear().await.expect("a last word");
    assert_eq!((frame.kind, code(&frame.payload[4..])), (GOAWAY, 0));
    while peer.hear().await.is_some() {}
}

/// Its window is shut, so no word on the stream itself would be heard; but nothing else keeps the connection.
#[tokio::test]
async fn a_connection_whose_only_stream_is_not_read_is_let_go() {
    let large =
        [b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n".to_vec(), vec![b'x'; 1_000_000]].concat();
    let upstream = Recorder::answering(large).await;
    let proxy = proxy(&upstream, |settings| {
        settings.timeouts.stalled_client = Duration::from_millis(300);
        settings.timeouts.header = Duration::from_millis(300);
    })
    .await;
    let mut peer = Peer::to(proxy.addr).await;
    let headers: [(&str, &[u8]); 4] =
        [(":method", b"GET"), (":scheme", b"http"), (":path", b"/v1/files/f/content"), (":authority", b"t")];
    peer.ask(1, END_STREAM, &headers).await;
    upstream.wait(|heard| heard.ends_with("<end>")).await;
    assert_eq!(peer.outcome(1).await, Err(u32::MAX), "the connection ended, and the answer had not");
}

#[tokio::test]
async fn a_drain_says_goaway_and_lets_streams_end() {
    let world = World::plain().await;
    world.slow();
    let mut peer = Peer::to(world.proxy.addr).await;
    peer.ask(1, 0, &turn(&[])).await;
    peer.send(DATA, END_STREAM, 1, BODY.as_bytes()).await;
    world.in_flight(1).await;
    let World { sim, proxy } = world;
    let stopping = tokio::spawn(proxy.stop());
    let frame = peer.hear().await.unwrap();
    assert_eq!((frame.kind, code(&frame.payload[4..])), (GOAWAY, 0));
    sim.provider.script(|script| script.speed = 0.0);
    let body: serde_json::Value = serde_json::from_slice(&peer.outcome(1).await.unwrap()).unwrap();
    assert_eq!(body["status"], "completed");
    while peer.hear().await.is_some() {}
    soon(stopping).await.unwrap();
}
