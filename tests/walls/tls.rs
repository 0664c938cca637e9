//! TLS against a private authority: trusted by file, refused without it, refused under a wrong name.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
#[cfg(feature = "tls-aws-lc")]
use rustls::crypto::aws_lc_rs as provider;
#[cfg(all(feature = "tls-ring", not(feature = "tls-aws-lc")))]
use rustls::crypto::ring as provider;
use rustls::pki_types::PrivateKeyDer;
use tailwire::upstream::dial::ConnectError;
use tailwire::upstream::extension::Compression;
use tailwire::upstream::handshake::Dialer;
use tailwire::upstream::http::{Client, SendError};
use tailwire::upstream::origin::Upstream;
use tailwire::upstream::tls::Tls;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::handshake::server::create_response;

use crate::support::{Folder, bind};

/// Bytes of a download, more than any buffer on the way.
const LARGE: usize = 2 << 20;

/// A server whose certificate names `name`; its authority is written to `folder`. It serves HTTP, or takes a
/// WebSocket if it is asked for one.
async fn server(name: &str, folder: &Folder) -> SocketAddr {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.0.join("authority.pem"), issuer.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, address) = bind().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]), "no other is offered");
                let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
                    if request.headers().contains_key("upgrade") {
                        let answer = create_response(&request.map(drop)).unwrap();
                        return Ok(answer.map(|()| Full::default()));
                    }
                    let body = match request.uri().path() {
                        "/v1/large" => vec![b'x'; LARGE],
                        _ => format!("{:?}", request.version()).into_bytes(),
                    };
                    Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(body))))
                });
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

async fn ask(tls: &Tls, address: SocketAddr) -> (Result<(), ConnectError>, Result<String, SendError>) {
    let upstream = Upstream::parse(&format!("https://localhost:{}/v1", address.port())).unwrap();
    let opened = Dialer::new(tls.clone())
        .open(&upstream.target("/v1/responses"), &HeaderMap::new(), Compression::Off)
        .await
        .map(drop);
    let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
    let request = Request::get(upstream.map("/v1/models")).body(body).unwrap();
    let sent = match Client::new(tls).send(request).await {
        Ok(response) => {
            let body = response.into_body().collect().await.unwrap().to_bytes();
            Ok(String::from_utf8(body.to_vec()).unwrap())
        }
        Err(error) => Err(error),
    };
    (opened, sent)
}

#[tokio::test]
async fn f45_a_private_authority_is_trusted_by_file() {
    let folder = Folder::new("trusted");
    let address = server("localhost", &folder).await;
    let tls = Tls::new(&[folder.0.join("authority.pem")]).unwrap();
    let (opened, sent) = ask(&tls, address).await;
    opened.unwrap();
    assert_eq!(sent.unwrap(), "HTTP/1.1", "though the server has HTTP/2");
}

/// With HTTP/2 they would have one window between them.
#[tokio::test]
async fn downloads_that_nobody_reads_hold_up_nobody_else() {
    let folder = Folder::new("downloads");
    let address = server("localhost", &folder).await;
    let client = Client::new(&Tls::new(&[folder.0.join("authority.pem")]).unwrap());
    let ask = async |path: &str| {
        let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
        let uri = format!("https://localhost:{}{path}", address.port());
        client.send(Request::get(uri).body(body).unwrap()).await.unwrap()
    };
    let mut stalled = Vec::new();
    for _ in 0..8 {
        stalled.push(ask("/v1/large").await);
    }
    let answer = async { ask("/v1/models").await.into_body().collect().await.unwrap().to_bytes() };
    let answer = tokio::time::timeout(Duration::from_secs(20), answer).await.expect("it is held up");
    assert_eq!(answer, "HTTP/1.1");
    for response in stalled {
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), LARGE);
    }
}

#[tokio::test]
async fn strangers_and_wrong_names_are_refused() {
    let folder = Folder::new("refused");
    let stranger = (server("localhost", &folder).await, Tls::new(&[]).unwrap());
    let misnamed = server("elsewhere.test", &folder).await;
    let misnamed = (misnamed, Tls::new(&[folder.0.join("authority.pem")]).unwrap());
    for (address, tls) in [stranger, misnamed] {
        let (opened, sent) = ask(&tls, address).await;
        assert!(matches!(opened, Err(ConnectError::Tls(_))), "{opened:?}");
        match sent {
            Err(SendError::Connect(reason)) => assert!(reason.contains("certificate"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_handshake_that_stalls_is_timed() {
    let (_listener, address) = bind().await;
    let client = Client::within(&Tls::new(&[]).unwrap(), Duration::from_millis(50));
    let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
    let request = Request::get(format!("https://{address}/v1/models")).body(body).unwrap();
    assert!(matches!(client.send(request).await, Err(SendError::Timeout(_))));
}
