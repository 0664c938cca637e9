//! Opens a WebSocket (RFC 6455 4.1) and keeps what a refusal said: status, headers, body.
//! It reads no frame, keeps no socket, and retries nothing but an upgrade that fails for our compression offer.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper::{Request, Response, StatusCode};
use sha1::{Digest, Sha1};
use tokio::time::Instant;

use crate::upstream::connector::Connector;
use crate::upstream::dial::{self, ConnectError, Phase};
use crate::upstream::extension::Compression;
use crate::upstream::origin::Target;
use crate::upstream::socket::{DeflatePool, MESSAGE_BYTES, Socket};
use crate::upstream::tls::Tls;

/// Opens sockets; cheap to clone.
#[derive(Clone, Debug)]
pub struct Dialer {
    connector: Connector,
    message_bytes: usize,
    pool: DeflatePool,
}

/// A fresh socket.
#[derive(Debug)]
pub struct Opened {
    /// Ready for frames.
    pub socket: Socket,
    /// The headers of the 101.
    pub headers: HeaderMap,
}

impl Dialer {
    /// A dialer with the default bounds: 10 s for a whole dial, 64 MiB for a received message.
    #[must_use]
    pub fn new(tls: Tls) -> Self {
        Self::over(Connector::new(tls))
    }

    /// A dialer that connects this way; the connector's bound is that of a whole dial.
    #[must_use]
    pub fn over(connector: Connector) -> Self {
        Self { connector, message_bytes: MESSAGE_BYTES, pool: DeflatePool::default() }
    }

    /// Another budget for one dial, from DNS to the 101, a refusal's body and a second try included.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { connector: self.connector.with_timeout(timeout), ..self }
    }

    /// Another bound, in bytes, on a received message, decompressed; a longer one ends its socket.
    #[must_use]
    pub fn with_message_bytes(self, message_bytes: usize) -> Self {
        Self { message_bytes, ..self }
    }

    /// Opens a socket with these request headers and this offer. A server that cannot take the offer (it answers
    /// 400 or 501, breaks off, or accepts what was not offered) is asked once more without it.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn open(
        &self,
        target: &Target,
        headers: &HeaderMap,
        offer: Compression,
    ) -> Result<Opened, ConnectError> {
        let deadline = Instant::now() + self.connector.timeout;
        match self.attempt(target, headers, offer, deadline).await {
            Err(error) if offer != Compression::Off && blames_offer(&error) => {
                self.attempt(target, headers, Compression::Off, deadline).await
            }
            done => done,
        }
    }

    /// Sends somebody else's upgrade request as it is (their key, their extensions); the answer, 101 or not, is
    /// theirs to judge.
    ///
    /// # Errors
    /// Every kind of [`ConnectError`] but a refusal.
    pub async fn relay(
        &self,
        target: &Target,
        request: Request<Empty<Bytes>>,
    ) -> Result<Response<Incoming>, ConnectError> {
        dial::exchange(&self.connector, target, request, Instant::now() + self.connector.timeout).await
    }

    /// Whether it can be reached: name, TCP and TLS. Says nothing to it.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn reach(&self, target: &Target) -> Result<(), ConnectError> {
        self.connector.connect(target, Instant::now() + self.connector.timeout).await.map(drop)
    }

    async fn attempt(
        &self,
        target: &Target,
        headers: &HeaderMap,
        offer: Compression,
        deadline: Instant,
    ) -> Result<Opened, ConnectError> {
        let key = key()?;
        let mut request = Request::new(Empty::new());
        *request.headers_mut() = headers.clone();
        let added = [
            (CONNECTION, Some(HeaderValue::from_static("upgrade"))),
            (UPGRADE, Some(HeaderValue::from_static("websocket"))),
            (SEC_WEBSOCKET_VERSION, Some(HeaderValue::from_static("13"))),
            (SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).ok()),
            (SEC_WEBSOCKET_EXTENSIONS, offer.offer()),
        ];
        for (name, value) in added {
            if let Some(value) = value {
                request.headers_mut().insert(name, value);
            }
        }

        let response = dial::exchange(&self.connector, target, request, deadline).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(ConnectError::Refused(Box::new(dial::refusal(response, deadline).await)));
        }
        let headers = response.headers().clone();
        verify(&headers, &key).map_err(|reason| ConnectError::Upgrade(reason.to_owned()))?;
        let extension = offer.agreed(&headers).map_err(ConnectError::Upgrade)?;
        let upgraded = upgraded(response, deadline).await?;
        let socket = Socket::new(upgraded, extension, &self.pool, self.message_bytes);
        Ok(Opened { socket, headers })
    }
}

async fn upgraded(response: Response<Incoming>, deadline: Instant) -> Result<Upgraded, ConnectError> {
    dial::within(deadline, Phase::Upgrade, hyper::upgrade::on(response))
        .await?
        .map_err(|error| ConnectError::Upgrade(error.to_string()))
}

/// The failures a server shows that cannot take an extension. A plain tungstenite server breaks off (reported by
/// clients of the Responses socket, 2026).
fn blames_offer(error: &ConnectError) -> bool {
    match error {
        ConnectError::Upgrade(_) => true,
        ConnectError::Refused(refusal) => {
            matches!(refusal.status, StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED)
        }
        _ => false,
    }
}

/// RFC 6455 4.1: what a client must check in a 101.
fn verify(headers: &HeaderMap, key: &str) -> Result<(), &'static str> {
    if !lists(headers, &UPGRADE, "websocket") {
        return Err("the answer does not upgrade to websocket");
    }
    if !lists(headers, &CONNECTION, "upgrade") {
        return Err("the answer does not switch the connection");
    }
    if headers.get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes) != Some(accept(key).as_bytes()) {
        return Err("the answer does not belong to our key");
    }
    if headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        return Err("a subprotocol was chosen that was not asked for");
    }
    Ok(())
}

fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|listed| listed.trim().eq_ignore_ascii_case(token))
}

fn key() -> Result<String, ConnectError> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| ConnectError::Upgrade(error.to_string()))?;
    Ok(STANDARD.encode(nonce))
}

/// The proof that the other side read our key as a WebSocket server does (RFC 6455 4.2.2).
fn accept(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rfc_example_holds() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn each_required_header_is_required() {
        let good: HeaderMap = [
            (UPGRADE, "WebSocket"),
            (CONNECTION, "keep-alive, Upgrade"),
            (SEC_WEBSOCKET_ACCEPT, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ]
        .into_iter()
        .map(|(name, value)| (name, HeaderValue::from_static(value)))
        .collect();
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        assert_eq!(verify(&good, key), Ok(()));
        assert!(verify(&good, "another key").is_err());
        for name in [UPGRADE, CONNECTION, SEC_WEBSOCKET_ACCEPT] {
            let mut bad = good.clone();
            bad.remove(&name);
            assert!(verify(&bad, key).is_err(), "{name}");
        }
        let mut chosen = good;
        chosen.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("chat"));
        assert!(verify(&chosen, key).is_err());
    }
}
