//! Where a request ends: what two readers could read in two ways is refused and goes nowhere, and chunked bodies
//! arrive however they are cut.

use crate::raw::{Caller, Recorder};
use crate::support::{BODY, WAYS, WHO, asked, assert_answered, chunks, get, post, proxy};
use crate::world::World;

/// Lines of a head and the bytes after it; `LEN` stands for the body's length.
const SMUGGLED: &[(&str, &str)] = &[
    ("content-length: LEN\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
    ("transfer-encoding: chunked\r\ncontent-length: LEN\r\n", "0\r\n\r\n"),
    ("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
    ("transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
    ("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n", "0\r\n\r\n"),
    ("transfer-encoding: chunked, chunked\r\n", "0\r\n\r\n"),
    ("transfer-encoding: gzip, chunked\r\n", "0\r\n\r\n"),
    ("transfer-encoding: chunked, identity\r\n", "0\r\n\r\n"),
    ("transfer-encoding: xchunked\r\n", "0\r\n\r\n"),
    ("transfer-encoding: \x0bchunked\r\n", "0\r\n\r\n"),
    ("transfer-encoding: \"chunked\"\r\n", "0\r\n\r\n"),
    ("transfer-encoding : chunked\r\n", "0\r\n\r\n"),
    ("transfer-encoding:\r\n chunked\r\n", "0\r\n\r\n"),
    ("transfer-encoding\0: chunked\r\n", "0\r\n\r\n"),
    ("content-length: 0\r\ncontent-length: LEN\r\n", ""),
    ("content-length: LEN, LEN\r\n", ""),
    ("content-length: +LEN\r\n", ""),
    ("content-length: -LEN\r\n", ""),
    ("content-length: 4 LEN\r\n", ""),
    ("content-length: 0x1\r\n", ""),
    ("content-length: 1e1\r\n", ""),
    ("content-length:\r\n", ""),
    ("content-length: 99999999999999999999\r\n", ""),
    ("content-length : LEN\r\n", ""),
    ("x-folded: a\r\n b\r\ncontent-length: LEN\r\n", ""),
    ("x-bare: a\ncontent-length: LEN\r\n", ""),
    ("x-bare: a\rcontent-length: LEN\r\n", ""),
    ("x-nul: a\0b\r\ncontent-length: LEN\r\n", ""),
    ("x nonsense\r\ncontent-length: LEN\r\n", ""),
    ("(x): 1\r\ncontent-length: LEN\r\n", ""),
    (": 1\r\ncontent-length: LEN\r\n", ""),
    ("connection: content-length\r\ncontent-length: LEN\r\n", ""),
    ("connection: close, Authorization\r\ncontent-length: LEN\r\n", ""),
];

#[tokio::test]
async fn smuggling_shapes_are_refused_and_go_nowhere() {
    let world = World::plain().await;
    let length = BODY.len().to_string();
    for path in WAYS {
        for (lines, body) in SMUGGLED {
            let lines = lines.replace("LEN", &length);
            let said = format!("POST {path} HTTP/1.1\r\n{WHO}{lines}\r\n{body}{BODY}{}", get("/v1/models"));
            let mut caller = Caller::saying(world.proxy.addr, said).await;
            assert_eq!(caller.hear().await.status, 400, "{path} {lines:?}");
            assert_eq!(caller.rest().await, b"", "{path} {lines:?}: it is not read on");
        }
    }
    assert_eq!(asked(&world), (0, 0), "nothing of it went up");
}

#[tokio::test]
async fn request_lines_that_are_none_are_refused() {
    let world = World::plain().await;
    for line in [
        "GET /v1/models HTTP/1.1\n",
        "GET /v1/models\r\n",
        "GET  /v1/models HTTP/1.1\r\n",
        "GET /v1/models HTTP/1.1 \r\n",
        "GET /v1/models HTTP/1.1\r\r\n",
        "GET /v1/mo dels HTTP/1.1\r\n",
        "GET\t/v1/models\tHTTP/1.1\r\n",
        "GET /v1/models HTTP/2.0\r\n",
        "GET /v1/models http/1.1\r\n",
        "G\0T /v1/models HTTP/1.1\r\n",
        " GET /v1/models HTTP/1.1\r\n",
        "\n\nGET /v1/models HTTP/1.1\r\n",
    ] {
        let mut caller =
            Caller::saying(world.proxy.addr, format!("{line}{WHO}\r\n{}", get("/v1/models"))).await;
        assert_eq!(caller.hear().await.status, 400, "{line:?}");
        assert_eq!(caller.rest().await, b"", "{line:?}");
    }
    // A version that has no transfer codings.
    let old = format!("POST /v1/echo HTTP/1.0\r\n{WHO}transfer-encoding: chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(Caller::saying(world.proxy.addr, old).await.hear().await.status, 400);
    assert_eq!(asked(&world), (0, 0));
    // Empty lines before a request are nobody's mistake (RFC 9112 2.2).
    let mut caller = Caller::saying(world.proxy.addr, format!("\r\n\r\n{}", get("/v1/models"))).await;
    assert_eq!(caller.hear().await.status, 200);
}

#[tokio::test]
async fn lengths_that_agree_are_one() {
    let world = World::plain().await;
    for path in WAYS {
        for line in ["content-length: LEN\r\nContent-Length: LEN\r\n", "content-length: \t 00LEN \t\r\n"] {
            let line = line.replace("LEN", &BODY.len().to_string());
            let said = format!("POST {path} HTTP/1.1\r\n{WHO}{line}\r\n{BODY}");
            assert_answered(path, &Caller::saying(world.proxy.addr, said).await.hear().await);
        }
    }
}

#[tokio::test]
async fn chunked_uploads_arrive_however_they_are_cut() {
    let world = World::plain().await;
    let length = BODY.len();
    let bodies = [
        format!("{}0\r\n\r\n", chunks(1)),
        format!("{}0\r\n\r\n", chunks(7)),
        format!("{length:X}\r\n{BODY}\r\n000\r\n\r\n"),
        format!("00000{length:x}\r\n{BODY}\r\n0\r\n\r\n"),
        format!("{length:x} \t\r\n{BODY}\r\n0 \r\n\r\n"),
        format!("{length:x};a=b;c=\"d e\"\r\n{BODY}\r\n0;last\r\n\r\n"),
        format!("{length:x}\r\n{BODY}\r\n0\r\nx-sum: 1\r\nx-other: 2\r\n\r\n"),
        format!(
            "{length:x}\r\n{BODY}\r\n0\r\ncontent-length: 5\r\nauthorization: Bearer sk-planted-b\r\n\r\n"
        ),
    ];
    for path in WAYS {
        for body in &bodies {
            let said = format!("POST {path} HTTP/1.1\r\n{WHO}transfer-encoding: Chunked\r\n\r\n{body}");
            let mut caller = Caller::saying(world.proxy.addr, said + &get("/v1/models")).await;
            assert_answered(path, &caller.hear().await);
            assert_eq!(caller.hear().await.json()["object"], "list", "{body}: the next request is whole");
        }
    }
    let key = world.ledger().read(|book| {
        book.turns.iter().map(|turn| turn.credential.clone()).collect::<std::collections::HashSet<_>>()
    });
    assert_eq!(key.len(), 1, "a trailer is no credential");
    world.assert_lawful();
}

#[tokio::test]
async fn chunked_uploads_gone_wrong_are_refused() {
    let world = World::plain().await;
    let length = BODY.len();
    let long = "e".repeat(20 << 10);
    for path in WAYS {
        for body in [
            format!("{length:x}\n{BODY}\r\n0\r\n\r\n"),
            format!("g\r\n{BODY}\r\n0\r\n\r\n"),
            format!("+{length:x}\r\n{BODY}\r\n0\r\n\r\n"),
            format!("-{length:x}\r\n{BODY}\r\n0\r\n\r\n"),
            format!("0x{length:x}\r\n{BODY}\r\n0\r\n\r\n"),
            format!("{length:x} 1\r\n{BODY}\r\n0\r\n\r\n"),
            format!("\r\n{length:x}\r\n{BODY}\r\n0\r\n\r\n"),
            format!("1{:016x}\r\n{BODY}\r\n0\r\n\r\n", length),
            format!("ffffffffffffffffffff\r\n{BODY}\r\n0\r\n\r\n"),
            format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", length - 1),
            format!("{length:x}\r\n{BODY}\n0\r\n\r\n"),
            format!("{length:x};a\n0\r\n{BODY}\r\n0\r\n\r\n"),
            format!("{length:x};{long}\r\n{BODY}\r\n0\r\n\r\n"),
            format!("{length:x}\r\n{BODY}\r\n0\r\nx: 1\ny: 2\r\n\r\n"),
            format!("{length:x}\r\n{BODY}\r\n0\r\nx : 1\r\n\r\n"),
        ] {
            let said = format!("POST {path} HTTP/1.1\r\n{WHO}transfer-encoding: chunked\r\n\r\n{body}");
            let models = get("/v1/models/smuggled");
            let mut caller = Caller::saying(world.proxy.addr, said + &models).await;
            let answer = caller.hear().await;
            let about = &body[..body.len().min(90)];
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (400, "tailwire_truncated_body"),
                "{path} {about:?}"
            );
            assert_eq!(caller.rest().await, b"", "{path} {about:?}");
        }
    }
    assert_eq!(asked(&world).1, 0, "no turn was made of it");
}

/// What a passed-through chunked request looks like on the other side: framed anew, once.
#[tokio::test]
async fn what_goes_up_is_framed_anew() {
    let upstream = Recorder::start().await;
    let proxy = proxy(&upstream, |_| ()).await;
    for (lines, body, expected) in [
        (
            format!("content-length: {}\r\n", BODY.len()),
            BODY.to_owned(),
            format!("content-length: {}", BODY.len()),
        ),
        (
            "transfer-encoding: chunked\r\n".to_owned(),
            chunks(9) + "0\r\n\r\n",
            "transfer-encoding: chunked".into(),
        ),
    ] {
        let said = format!("POST /v1/files HTTP/1.1\r\n{WHO}{lines}\r\n{body}");
        assert_eq!(Caller::saying(proxy.addr, said).await.hear().await.status, 200);
        let heard = upstream.take();
        let framing: Vec<&str> = heard
            .split("\r\n")
            .filter(|line| line.starts_with("content-length") || line.starts_with("transfer-encoding"))
            .collect();
        assert_eq!(framing, [expected.as_str()], "{heard}");
    }
    // Whichever way a turn over HTTP came, its length is known when it goes up.
    let said = format!(
        "POST /v1/responses HTTP/1.1\r\n{WHO}x-tailwire-mode: http\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunks(5)
    );
    assert_eq!(Caller::saying(proxy.addr, said).await.hear().await.status, 200);
    let heard = upstream.wait(|heard| heard.contains(BODY)).await;
    assert!(
        heard.contains(&format!("content-length: {}", BODY.len())) && !heard.contains("chunked"),
        "{heard}"
    );
}

/// Bytes after an upgrade must not be a body for one side and a tunnel for the other.
#[tokio::test]
async fn a_websocket_request_with_a_body_is_no_tunnel() {
    let upstream = Recorder::start().await;
    let proxy = proxy(&upstream, |_| ()).await;
    let lines = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let said = post("/v1/realtime", lines).replacen("POST", "GET", 1);
    assert_eq!(Caller::saying(proxy.addr, said).await.hear().await.status, 200);
    let heard = upstream.wait(|heard| heard.contains(BODY)).await;
    assert!(!heard.contains("upgrade"), "{heard}");
}

/// A coding of ours that is broken is refused, one we do not know is the provider's to judge, and layers are undone.
#[tokio::test]
async fn content_codings_are_undone_or_left_alone() {
    let world = World::start(|settings| settings.limits.body = 1 << 20, |_| ()).await;
    let packed = zstd::stream::encode_all(BODY.as_bytes(), 3).unwrap();
    let twice = zstd::stream::encode_all(&*packed, 3).unwrap();
    let bomb =
        zstd::stream::encode_all(&*zstd::stream::encode_all(&*vec![b' '; 64 << 20], 3).unwrap(), 3).unwrap();
    assert!(bomb.len() < 10_000);
    for (coding, body, status, told) in [
        ("zstd", &*packed, 200, "plan=full"),
        ("zstd, zstd", &*twice, 200, "plan=full"),
        ("identity", BODY.as_bytes(), 200, "plan=full"),
        ("zstd, zstd", &*bomb, 413, ""),
        ("zstd", &packed[..packed.len() - 3], 400, ""),
        ("gzip", BODY.as_bytes(), 400, ""),
        ("snappy", BODY.as_bytes(), 415, "plan=http; reason=not-understood"),
        ("zstd, snappy", &*packed, 415, "plan=http; reason=not-understood"),
        ("zstd,zstd,zstd,zstd,zstd", BODY.as_bytes(), 415, "plan=http; reason=not-understood"),
    ] {
        let length = body.len();
        let head = format!(
            "POST /v1/responses HTTP/1.1\r\n{WHO}content-encoding: {coding}\r\ncontent-length: {length}\r\n\r\n"
        );
        let mut caller = Caller::saying(world.proxy.addr, [head.as_bytes(), body].concat()).await;
        let answer = caller.hear().await;
        assert_eq!(answer.status, status, "{coding}: {answer:?}");
        assert!(answer.header("x-tailwire").unwrap_or_default().starts_with(told), "{coding}: {answer:?}");
    }
}
