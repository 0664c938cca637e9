//! The upstream socket: handshake, refusals, compression, bounds, and reading while writing.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderValue};
use tailwire::upstream::dial::{ConnectError, Phase};
use tailwire::upstream::extension::Compression;
use tailwire::upstream::handshake::{Dialer, Opened};
use tailwire::upstream::origin::{Target, Upstream};
use tailwire::upstream::socket::{Outgoing, Received};
use tailwire::upstream::tls::Tls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::support::{bind, drive};
use crate::wire;

fn dialer() -> Dialer {
    Dialer::new(Tls::new(&[]).unwrap())
}

fn target(address: SocketAddr) -> Target {
    Upstream::parse(&format!("http://{address}/v1")).unwrap().target("/v1/responses?x=1")
}

async fn open(dialer: &Dialer, address: SocketAddr, offer: Compression) -> Result<Opened, ConnectError> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer sk-test"));
    dialer.open(&target(address), &headers, offer).await
}

async fn connected(listener: &TcpListener) -> TcpStream {
    listener.accept().await.unwrap().0
}

fn text(text: &str) -> Outgoing {
    Outgoing::Text(Bytes::copy_from_slice(text.as_bytes()))
}

#[tokio::test]
async fn an_independent_server_understands_us() {
    let (listener, address) = bind().await;
    let server = tokio::spawn(async move {
        let mut peer = tokio_tungstenite::accept_async(connected(&listener).await).await.unwrap();
        let message = peer.next().await.unwrap().unwrap();
        peer.send(Message::Ping("are you there".into())).await.unwrap();
        peer.send(message).await.unwrap();
        assert_eq!(peer.next().await.unwrap().unwrap(), Message::Pong("are you there".into()));
        assert!(peer.next().await.unwrap().unwrap().is_ping());
        let reason = CloseFrame { code: 4001.into(), reason: "enough".into() };
        peer.close(Some(reason)).await.unwrap();
        // Our reply to the close comes before the end.
        assert!(peer.next().await.unwrap().unwrap().is_close());
    });
    let Opened { mut socket, headers } = open(&dialer(), address, Compression::Takeover).await.unwrap();
    assert!(headers.contains_key("sec-websocket-accept"));
    assert_eq!(socket.compression(), None);
    let mut outbox = VecDeque::from([text("héllo")]);
    let mut seen = Vec::new();
    drive(&mut socket, &mut outbox, |received| {
        seen.push(received);
        (seen.len() == 2).then_some(())
    })
    .await;
    assert_eq!(seen, [Received::Ping, Received::Text("héllo".into())]);
    // Two bytes of header, four of mask, six of text; one pong of 13 bytes.
    assert_eq!(socket.bytes_written(), 12 + 19);
    assert_eq!(socket.bytes_read(), 8 + 15);
    outbox.push_back(Outgoing::Ping);
    let end =
        drive(&mut socket, &mut outbox, |received| (received != Received::Pong).then_some(received)).await;
    assert_eq!(end, Received::Closed { code: Some(4001), reason: "enough".into() });
    server.await.unwrap();
    assert!(matches!(drive(&mut socket, &mut outbox, Some).await, Received::Lost(_)));
}

#[tokio::test]
async fn our_goodbye_is_answered() {
    let (listener, address) = bind().await;
    tokio::spawn(async move {
        let mut peer = tokio_tungstenite::accept_async(connected(&listener).await).await.unwrap();
        while peer.next().await.is_some() {}
    });
    let mut socket = open(&dialer(), address, Compression::Off).await.unwrap().socket;
    let mut outbox = VecDeque::from([Outgoing::Close(1000, "rotated")]);
    let end = drive(&mut socket, &mut outbox, Some).await;
    assert_eq!(end, Received::Closed { code: Some(1000), reason: "rotated".into() });
}

#[tokio::test]
async fn f52_a_refusal_keeps_status_headers_and_body() {
    let (listener, address) = bind().await;
    tokio::spawn(async move {
        for body in [r#"{"error":{"code":"invalid_api_key"}}"#.to_owned(), "x".repeat(100_000)] {
            let mut stream = connected(&listener).await;
            let head = wire::head(&mut stream).await;
            assert_eq!(head[0], "GET /v1/responses?x=1 HTTP/1.1");
            assert_eq!(wire::value(&head, "authorization"), Some("Bearer sk-test"));
            assert_eq!(wire::value(&head, "host"), Some(address.to_string().as_str()));
            let length = body.len();
            let answer =
                format!("HTTP/1.1 401 No\r\nretry-after: 7\r\ncontent-length: {length}\r\n\r\n{body}");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        // A body that never ends is cut by the clock.
        let mut stream = connected(&listener).await;
        wire::head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 503 No\r\ncontent-length: 9\r\n\r\nhalf").await.unwrap();
        let _ = stream.read_u8().await;
    });
    let mut refusals = Vec::new();
    for dialer in [dialer(), dialer(), dialer().with_timeout(Duration::from_millis(500))] {
        match open(&dialer, address, Compression::Takeover).await {
            Err(ConnectError::Refused(refusal)) => refusals.push(refusal),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(refusals[0].status, 401);
    assert_eq!(refusals[0].headers["retry-after"], "7");
    assert_eq!(refusals[0].body, r#"{"error":{"code":"invalid_api_key"}}"#);
    assert_eq!(refusals[1].body.len(), 64 << 10);
    assert_eq!((refusals[2].status.as_u16(), &refusals[2].body[..]), (503, &b"half"[..]));
}

#[tokio::test]
async fn a_server_that_cannot_take_the_offer_is_asked_without() {
    let (listener, address) = bind().await;
    let server = tokio::spawn(async move {
        for trouble in ["400", "501", "break", "unoffered"] {
            let mut stream = connected(&listener).await;
            match trouble {
                "break" => drop(wire::head(&mut stream).await),
                "unoffered" => {
                    wire::accept(&mut stream, Some("permessage-deflate; client_max_window_bits=9")).await;
                }
                status => {
                    let head = wire::head(&mut stream).await;
                    assert_eq!(wire::value(&head, "sec-websocket-extensions"), Some("permessage-deflate"));
                    let answer = format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
            drop(stream);
            let head = wire::accept(&mut connected(&listener).await, None).await;
            assert_eq!(wire::value(&head, "sec-websocket-extensions"), None);
        }
    });
    for _ in 0..4 {
        let opened = open(&dialer(), address, Compression::Takeover).await.unwrap();
        assert_eq!(opened.socket.compression(), None);
    }
    server.await.unwrap();
}

#[tokio::test]
async fn every_failure_has_its_kind() {
    let (listener, address) = bind().await;
    drop(listener);
    let refused = open(&dialer(), address, Compression::Off).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Connect(_)), "{refused}");

    let (listener, address) = bind().await;
    let silent = open(&dialer().with_timeout(Duration::from_millis(300)), address, Compression::Off).await;
    assert!(matches!(silent, Err(ConnectError::Timeout(Phase::Upgrade))));
    let mut tls = target(address);
    tls.tls = true;
    let stuck = dialer().with_timeout(Duration::from_millis(300));
    let stuck = stuck.open(&tls, &HeaderMap::new(), Compression::Off).await;
    assert!(matches!(stuck, Err(ConnectError::Timeout(Phase::Tls))));

    for _ in 0..2 {
        connected(&listener).await;
    }
    tokio::spawn(async move {
        let mut stream = connected(&listener).await;
        wire::head(&mut stream).await;
        let answer = "HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                      sec-websocket-accept: AAAA\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    let foreign = open(&dialer(), address, Compression::Off).await;
    assert!(matches!(foreign, Err(ConnectError::Upgrade(_))));
}

#[tokio::test]
async fn takeover_shrinks_what_repeats_in_both_directions() {
    const AGREED: &str = "permessage-deflate; server_no_context_takeover; server_max_window_bits=15";
    let message = format!("{{\"instructions\":{:?}}}", (0..2000).map(|n| n.to_string()).collect::<String>());
    for (offer, agreed) in [
        (Compression::Takeover, "permessage-deflate"),
        (Compression::Takeover, AGREED),
        (Compression::Pooled, "permessage-deflate"),
    ] {
        let (listener, address) = bind().await;
        let sent = message.clone();
        let server = tokio::spawn(async move {
            let mut stream = connected(&listener).await;
            wire::accept(&mut stream, Some(agreed)).await;
            let (mut inflater, mut deflater) = (wire::decompressor(), wire::compressor());
            let mut sizes = Vec::new();
            for _ in 0..3 {
                let frame = wire::read(&mut stream).await;
                assert!(frame.compressed && frame.opcode == 1);
                if offer == Compression::Pooled {
                    inflater.reset(false);
                }
                let text = wire::inflate(&mut inflater, &frame.payload, sent.len() + 1);
                assert!(text == sent.as_bytes());
                if agreed == AGREED {
                    deflater.reset();
                }
                let echo = wire::deflate(&mut deflater, &text);
                stream.write_all(&wire::frame(0xc1, &echo)).await.unwrap();
                sizes.push(frame.wire);
            }
            let short = wire::read(&mut stream).await;
            assert!(!short.compressed && short.payload == b"{}");
            sizes.push(short.wire);
            sizes
        });
        let mut socket = open(&dialer(), address, offer).await.unwrap().socket;
        assert!(socket.compression().unwrap().starts_with("permessage-deflate"));
        let mut outbox = VecDeque::new();
        for _ in 0..3 {
            outbox.push_back(text(&message));
            let echo = drive(&mut socket, &mut outbox, Some).await;
            assert!(echo == Received::Text(message.clone().into()));
        }
        outbox.push_back(text("{}"));
        std::future::poll_fn(|cx| socket.poll_send(cx, &mut outbox)).await.unwrap();
        let sizes = server.await.unwrap();
        assert!(sizes[0] < message.len() * 2 / 3, "{sizes:?}");
        if offer == Compression::Takeover {
            assert!(sizes[1] < 100 && sizes[2] < 100, "{sizes:?}");
        } else {
            assert_eq!(sizes[0], sizes[1]);
        }
        assert_eq!(socket.bytes_written(), sizes.iter().sum::<usize>() as u64);
    }
}

#[tokio::test]
async fn what_breaks_the_rules_ends_the_socket() {
    let bomb = wire::deflate(&mut wire::compressor(), &vec![b'0'; 100_000]);
    let exact = wire::deflate(&mut wire::compressor(), &vec![b'0'; 1000]);
    let fragments = [wire::frame(0x01, &[b'0'; 600]), wire::frame(0x80, &[b'0'; 600])].concat();
    let lost = |received: &Received| matches!(received, Received::Lost(_));
    let large = |received: &Received| *received == Received::TooLarge;
    type Check<'a> = &'a dyn Fn(&Received) -> bool;
    let cases: [(Vec<u8>, Check<'_>); 8] = [
        (wire::frame(0xc1, &bomb), &large),
        (
            wire::frame(0xc1, &exact),
            &|received| matches!(received, Received::Text(text) if text.len() == 1000),
        ),
        (wire::frame(0x81, &[b'0'; 1001]), &large),
        (fragments, &large),
        (wire::frame(0x81, b"\xff\xfe"), &lost),
        (wire::frame(0xc1, b"\xff\xff\xff\xff"), &lost),
        (wire::frame(0xb1, b"?"), &lost),
        (wire::frame(0x88, &[]), &|received| {
            *received == Received::Closed { code: None, reason: String::new() }
        }),
    ];
    for (number, (bytes, expected)) in cases.into_iter().enumerate() {
        let (listener, address) = bind().await;
        tokio::spawn(async move {
            let mut stream = connected(&listener).await;
            wire::accept(&mut stream, Some("permessage-deflate")).await;
            stream.write_all(&bytes).await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        let dialer = dialer().with_message_bytes(1000);
        let mut socket = open(&dialer, address, Compression::Takeover).await.unwrap().socket;
        let received = drive(&mut socket, &mut VecDeque::new(), Some).await;
        assert!(expected(&received), "case {number}: {received:?}");
    }
}

#[tokio::test]
async fn a_peer_that_pings_but_does_not_read_is_cut_off() {
    let (listener, address) = bind().await;
    tokio::spawn(async move {
        let mut stream = connected(&listener).await;
        wire::accept(&mut stream, None).await;
        let pings = wire::frame(0x89, &[b'p'; 125]).repeat(1000);
        while stream.write_all(&pings).await.is_ok() {}
    });
    let mut socket = open(&dialer(), address, Compression::Off).await.unwrap().socket;
    let end = drive(&mut socket, &mut VecDeque::new(), |received| match received {
        Received::Ping => None,
        end => Some(end),
    })
    .await;
    assert_eq!(end, Received::Lost("the peer pings but does not read".to_owned()));
}

#[tokio::test]
async fn a_peer_that_goes_without_goodbye_is_lost() {
    let (listener, address) = bind().await;
    tokio::spawn(async move { wire::accept(&mut connected(&listener).await, None).await });
    let mut socket = open(&dialer(), address, Compression::Off).await.unwrap().socket;
    assert!(matches!(drive(&mut socket, &mut VecDeque::new(), Some).await, Received::Lost(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_goes_on_while_a_large_frame_is_written() {
    const EVENTS: usize = 3000;
    // Random hexadecimal digits: deflate leaves half of it, far more than the kernel buffers.
    let mut noise = vec![0; 8 << 20];
    getrandom::fill(&mut noise).unwrap();
    let large: String = noise[..(15 << 20) / 2].iter().map(|byte| format!("{byte:02x}")).collect();
    for agreed in [None, Some("permessage-deflate")] {
        let (listener, address) = bind().await;
        let length = large.len();
        let server = tokio::spawn(async move {
            let mut stream = connected(&listener).await;
            wire::accept(&mut stream, agreed).await;
            // Write first, everything; only then read the large frame.
            let event = wire::frame(0x81, &[b'e'; 1000]);
            for _ in 0..EVENTS {
                stream.write_all(&event).await.unwrap();
            }
            let frame = wire::read(&mut stream).await;
            assert!(agreed.is_some() || frame.payload.len() == length);
            stream.write_all(&wire::frame(0x81, b"got it")).await.unwrap();
        });
        let mut socket = open(&dialer(), address, Compression::Takeover).await.unwrap().socket;
        let mut outbox = VecDeque::from([Outgoing::Text(large.clone().into())]);
        let mut events = 0;
        let started = Instant::now();
        drive(&mut socket, &mut outbox, |received| match received {
            Received::Text(text) if text == "got it" => Some(()),
            Received::Text(_) => {
                events += 1;
                None
            }
            other => panic!("{other:?}"),
        })
        .await;
        assert_eq!(events, EVENTS);
        assert!(started.elapsed() < Duration::from_secs(60));
        server.await.unwrap();
    }
}
