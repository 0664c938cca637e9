//! Clients that take their time: every wait for one has an end, and what hangs on it is let go.

use std::time::Duration;

use crate::raw::{Caller, Recorder, soon};
use crate::support::{WHO, asked, get, post, proxy};
use crate::world::World;

/// Says a byte every now and then until the other side has had enough; returns what that said.
async fn trickle(caller: &mut Caller, bytes: impl Iterator<Item = u8>) -> Vec<u8> {
    soon(async {
        for byte in bytes {
            caller.say([byte]).await;
            if caller.hears_within(Duration::from_millis(5)).await {
                break;
            }
            // An end is heard as nothing at once; a reset on the next byte.
            if tokio::io::AsyncWriteExt::write_all(&mut caller.stream, b"").await.is_err() {
                break;
            }
        }
        caller.rest().await
    })
    .await
}

fn endless(start: &str, repeat: &'static str) -> impl Iterator<Item = u8> {
    // Far more than fits between now and any deadline here, and still finite.
    start.as_bytes().to_vec().into_iter().chain(repeat.bytes().cycle().take(3000))
}

#[tokio::test]
async fn a_head_in_drops_has_one_deadline() {
    let world = World::start(|settings| settings.timeouts.header = Duration::from_millis(300), |_| ()).await;
    for (start, repeat) in [
        ("", "\r\n"),
        ("GET /", "x"),
        ("GET /v1/models HTTP/1.1\r\n", "x-drop: 1\r\n"),
        ("POST /v1/responses HTTP/1.1\r\nhost: t\r\nx-drop: ", "x"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\0"),
    ] {
        let mut caller = Caller::to(world.proxy.addr).await;
        let said = trickle(&mut caller, endless(start, repeat)).await;
        assert!(!String::from_utf8_lossy(&said).contains("200"), "{start:?}");
    }
    // The next head on a kept connection has the same.
    let mut caller = Caller::saying(world.proxy.addr, get("/v1/models")).await;
    assert_eq!(caller.hear().await.status, 200);
    assert_eq!(trickle(&mut caller, endless("GET /", "x")).await, b"");
    assert_eq!(asked(&world).0, 1);
}

#[tokio::test]
async fn a_body_in_drops_has_one_deadline() {
    let world = World::start(|settings| settings.timeouts.body = Duration::from_millis(300), |_| ()).await;
    for head in ["content-length: 100000\r\n\r\n", "transfer-encoding: chunked\r\n\r\nfffff\r\n"] {
        let mut caller =
            Caller::saying(world.proxy.addr, format!("POST /v1/responses HTTP/1.1\r\n{WHO}{head}")).await;
        let said = String::from_utf8(trickle(&mut caller, endless("", " ")).await).unwrap();
        assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("tailwire_upload_timeout"), "{said}");
    }
    assert_eq!(asked(&world), (0, 0));
}

#[tokio::test]
async fn a_body_that_stops_is_given_up_on_every_way() {
    let world =
        World::start(|settings| settings.timeouts.body_idle = Duration::from_millis(200), |_| ()).await;
    for path in ["/v1/responses", "/v1/echo", "/v1/files"] {
        for rest in ["content-length: 1000\r\n\r\n{", "transfer-encoding: chunked\r\n\r\n3e8\r\n{"] {
            let head = format!("POST {path} HTTP/1.1\r\n{WHO}{rest}");
            let multipart = head.replace("application/json", "multipart/form-data; boundary=b");
            let said = if path == "/v1/files" { multipart } else { head };
            let mut caller = Caller::saying(world.proxy.addr, said).await;
            let answer = caller.hear().await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (408, "tailwire_upload_stalled"),
                "{path} {rest:?}"
            );
            assert_eq!(caller.rest().await, b"");
        }
    }
    assert_eq!(asked(&world).1, 0);
}

/// The upload that breaks off must not look whole to the provider.
#[tokio::test]
async fn an_upload_that_breaks_off_breaks_off_upstream() {
    let upstream = Recorder::answering("").await;
    let proxy = proxy(&upstream, |settings| settings.timeouts.body_idle = Duration::from_millis(200)).await;
    let said = format!("POST /v1/files HTTP/1.1\r\n{WHO}transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n");
    let answer = Caller::saying(proxy.addr, said).await.hear().await;
    assert_eq!(answer.status, 408);
    let heard = upstream.wait(|heard| heard.ends_with("<end>")).await;
    assert!(heard.contains("half") && !heard.contains("0\r\n\r\n"), "{heard}");
}

/// Uploads that merely take long are no one's fault: only silence is.
#[tokio::test]
async fn a_long_upload_passes_through() {
    let world = World::start(|settings| settings.timeouts.body = Duration::from_millis(1), |_| ()).await;
    let mut caller = Caller::saying(
        world.proxy.addr,
        format!("POST /v1/echo HTTP/1.1\r\n{WHO}content-length: 30\r\n\r\n"),
    )
    .await;
    for _ in 0..30 {
        caller.say("x").await;
        assert!(!caller.hears_within(Duration::from_millis(1)).await || asked(&world).0 == 1);
    }
    assert_eq!(caller.hear().await.json()["bytes"], 30);
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut() {
    // More than the kernel and the proxy hold on the way.
    let large =
        [b"HTTP/1.1 200 OK\r\ncontent-length: 67108864\r\n\r\n".to_vec(), vec![b'x'; 64 << 20]].concat();
    let upstream = Recorder::answering(large).await;
    let proxy =
        proxy(&upstream, |settings| settings.timeouts.stalled_client = Duration::from_millis(300)).await;
    for said in [get("/v1/files/f/content"), post("/v1/responses", "x-tailwire-mode: http\r\n")] {
        let mut caller = Caller::saying(proxy.addr, said).await;
        // The provider's connection ends, too: nothing is held for a client that is cut.
        upstream.wait(|heard| heard.ends_with("<end>")).await;
        let heard = caller.rest().await;
        assert!(heard.starts_with(b"HTTP/1.1 200 ") && heard.len() < 64 << 20, "{}", heard.len());
        upstream.take();
    }
}

/// One that reads late, but reads, gets all of it.
#[tokio::test]
async fn a_client_that_reads_late_gets_everything() {
    let large =
        [b"HTTP/1.1 200 OK\r\ncontent-length: 16777216\r\n\r\n".to_vec(), vec![b'x'; 16 << 20]].concat();
    let upstream = Recorder::answering(large).await;
    let proxy = proxy(&upstream, |_| ()).await;
    let mut caller = Caller::saying(proxy.addr, get("/v1/files/f/content")).await;
    upstream.wait(|heard| heard.contains("/v1/files/f/content")).await;
    assert_eq!(caller.hear().await.body.len(), 16 << 20);
}
