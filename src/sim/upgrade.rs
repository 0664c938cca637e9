//! WebSocket upgrades: granted, refused, left hanging, as the script will have it.
//!
//! What is said over an upgraded Responses socket is `socket.rs`'s.

use std::io;

use futures_util::SinkExt;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use yawc::frame::OpCode;
use yawc::{CompressionLevel, Options, UpgradeFut, WebSocket};

use super::answer::{FOREVER, travel};
use super::http::{Body, Caller, Reply, error, json_reply};
use super::script::{Fault, Moment, Occasion, Script, Upgrade};
use super::server::Afterwards;
use super::socket::{Driver, Socket};

/// Answers an upgrade of `/v1/responses` as the script and its mishaps will have it.
pub(super) async fn upgrade(caller: Caller, request: Request<Incoming>, credential: String) -> Reply {
    caller.provider.ledger().write(|book| book.upgrades_asked += 1);
    let script = caller.provider.now();
    tokio::time::sleep(travel(&script, caller.newly_read())).await;
    let connection = caller.traffic.number();
    let occasion =
        Occasion { moment: Moment::Upgrade, http: false, continued: false, lane: None, connection };
    let fault = caller.provider.strike(&occasion);
    if let Some(fault) = &fault {
        caller.provider.ledger().struck(connection, &credential, fault);
    }
    let answer = match fault {
        Some(Fault::Upgrade(answer)) => answer,
        Some(Fault::Reset) => {
            caller.traffic.reset_on_drop();
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Some(Fault::Silence | Fault::IgnorePings) => Upgrade::Hang,
        Some(Fault::Trickle(trickle)) => {
            caller.traffic.trickle(trickle);
            script.upgrade.clone()
        }
        Some(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
        None => script.upgrade.clone(),
    };
    let open = caller.provider.ledger().read(|book| book.sockets_of.get(&credential).copied().unwrap_or(0));
    if script.limits.sockets.is_some_and(|most| open >= most) {
        let message = "Too many concurrent WebSocket connections.";
        return Ok(error(StatusCode::TOO_MANY_REQUESTS, message, Some("rate_limit_exceeded")));
    }
    match answer {
        Upgrade::Accept => {
            let options = options(&script);
            Ok(accept(&caller.clone(), request, options, |socket| {
                Box::pin(Driver::new(caller, socket, credential).run())
            }))
        }
        Upgrade::Refuse { status, body, retry_after } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            let mut reply = json_reply(status, &body);
            if let Some(seconds) = retry_after {
                reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            Ok(reply)
        }
        Upgrade::Hang => {
            tokio::time::sleep(FOREVER).await;
            Err(io::ErrorKind::TimedOut.into())
        }
    }
}

/// Accepts an upgrade of any other path and says back every text frame: a tunnel's other end.
pub(super) fn echo(caller: &Caller, request: Request<Incoming>) -> Response<Body> {
    accept(caller, request, Options::default(), |mut socket| {
        Box::pin(async move {
            while let Ok(frame) = socket.next_frame().await {
                if frame.opcode() == OpCode::Text && socket.send(frame).await.is_err() {
                    return;
                }
            }
        })
    })
}

fn accept(
    caller: &Caller,
    mut request: Request<Incoming>,
    options: Options,
    then: impl FnOnce(Socket) -> Afterwards + Send + 'static,
) -> Response<Body> {
    let upgraded: Result<(Response<_>, UpgradeFut), _> =
        WebSocket::upgrade_with_options(&mut request, options);
    let Ok((reply, socket)) = upgraded else {
        return error(StatusCode::BAD_REQUEST, "Malformed WebSocket upgrade request.", None);
    };
    caller.slot.fill(Box::pin(async move {
        if let Ok(socket) = socket.await {
            then(socket).await;
        }
    }));
    reply.map(|body| body.map_err(|never| match never {}).boxed_unsync())
}

fn options(script: &Script) -> Options {
    // The rule about large frames is applied to whole messages, so that the close frame is not lost in a reset.
    let bound = script.limits.max_frame.saturating_mul(4).max(LARGEST_MESSAGE);
    let options = Options::default().with_limits(bound, bound.saturating_mul(2));
    if script.deflate {
        // A threshold of 0 would let yawc 0.5.0 loop on an empty message.
        options.with_compression_level(CompressionLevel::new(6)).with_compression_threshold(64)
    } else {
        options
    }
}

const LARGEST_MESSAGE: usize = 64 * 1024 * 1024;
