//! Heads that are too large, and how large they may be.

use crate::raw::Recorder;
use crate::raw::{Caller, header};
use crate::support::{WAYS, WHO, asked, assert_answered, get, post, proxy};
use crate::world::World;

#[tokio::test]
async fn heads_beyond_the_limits_are_refused() {
    let world = World::start(
        |settings| {
            settings.limits.head = 100 << 10;
            settings.limits.headers = 40;
        },
        |_| (),
    )
    .await;
    let huge = format!("x-huge: {}\r\n", "x".repeat(101 << 10));
    let several: String = (0..11).map(|n| format!("x-{n}: {}\r\n", "x".repeat(10 << 10))).collect();
    let many = "x-many: 1\r\n".repeat(40);
    for path in WAYS {
        for (lines, status) in [(&huge, 431), (&several, 431), (&many, 431)] {
            let mut caller = Caller::saying(world.proxy.addr, post(path, lines) + &get("/v1/models")).await;
            assert_eq!(caller.hear().await.status, status, "{path} {}", &lines[..20]);
            assert_eq!(caller.rest().await, b"", "{path} {}", &lines[..20]);
        }
        let long = post(&format!("{path}?{}", "x".repeat(70_000)), "");
        assert_eq!(Caller::saying(world.proxy.addr, long).await.hear().await.status, 414);
    }
    assert_eq!(asked(&world), (0, 0), "nothing of it went up");
}

#[tokio::test]
async fn heads_within_the_limits_are_taken() {
    let world = World::start(|settings| settings.limits.headers = 40, |_| ()).await;
    for path in WAYS {
        for lines in [
            // Four of the forty are the request's own.
            "x-many: 1\r\n".repeat(36),
            format!("x-long: {}\r\n", "x".repeat(200 << 10)),
            "x-empty:\r\nx-blank: \t \r\n".to_owned(),
        ] {
            let answer = Caller::saying(world.proxy.addr, post(path, &lines)).await.hear().await;
            assert_answered(path, &answer);
        }
    }
}

#[tokio::test]
async fn values_arrive_to_the_letter() {
    let upstream = Recorder::start().await;
    let proxy = proxy(&upstream, |_| ()).await;
    let long = "v".repeat(200 << 10);
    for path in ["/v1/files", "/v1/responses"] {
        let lines = format!("x-tailwire-mode: http\r\nx-long: {long}\r\nX-Spaced:  a  b \t\r\n");
        let answer = Caller::saying(proxy.addr, post(path, &lines)).await.hear().await;
        assert_eq!(answer.status, 200, "{path}");
        let heard = upstream.take();
        assert_eq!(header(&heard, "x-long"), Some(long.as_str()), "{path}");
        assert_eq!(header(&heard, "x-spaced"), Some("a  b"), "{path}");
    }
    // Values need not be text, only printable (RFC 9110 5.5).
    let mut said = format!("GET /v1/files HTTP/1.1\r\n{WHO}x-latin: caf").into_bytes();
    said.extend(b"\xe9\r\n\r\n");
    assert_eq!(Caller::saying(proxy.addr, said).await.hear().await.status, 200);
    assert!(upstream.take().contains("x-latin: caf\u{fffd}\r\n"));
}
