//! TLS for clients, with certificates of a private authority: both protocols, new certificates, bad ones, bad clients.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::ClientConfig;
use rustls::RootCertStore;
#[cfg(feature = "tls-aws-lc")]
use rustls::crypto::aws_lc_rs as provider;
#[cfg(all(feature = "tls-ring", not(feature = "tls-aws-lc")))]
use rustls::crypto::ring as provider;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tailwire::app;
use tailwire::config::Settings;
use tailwire::sim::{self, Script};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;

use crate::http::{CREDENTIAL, raw};
use crate::support::{Folder, PATIENCE, until};
use crate::world::settings_for;

/// Who vouches for the certificates of a test.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate and its key, as PEM; valid until the year `until`.
    fn issue(&self, until: i32) -> (String, String) {
        self.issue_from(date_time_ymd(2020, 1, 1).into(), until)
    }

    /// The same, valid from then.
    fn issue_from(&self, from: SystemTime, until: i32) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = from.into();
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.0).unwrap();
        (leaf.pem(), key.serialize_pem())
    }

    /// A client's TLS that trusts it and asks for this protocol.
    fn client(&self, protocol: &str) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

struct World {
    sim: sim::Running,
    proxy: app::Running,
    authority: Authority,
    folder: Folder,
}

impl World {
    async fn start(tune: impl FnOnce(&mut Settings)) -> Self {
        let sim = sim::Running::start(Script::default()).await.unwrap();
        let (authority, folder) = (Authority::new(), Folder::new());
        let mut settings = settings_for(&sim.base_url());
        let (certificate, key) = write(&folder, authority.issue(FAR));
        settings.tls_certificate = Some(certificate);
        settings.tls_key = Some(key);
        tune(&mut settings);
        let proxy = app::Running::start(settings).await.unwrap();
        Self { sim, proxy, authority, folder }
    }

    /// A session that speaks `protocol`.
    async fn session(&self, protocol: &str) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.proxy.addr).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let session = self.authority.client(protocol).connect(name, stream).await.unwrap();
        assert_eq!(session.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        session
    }

    /// The certificate that a new client is shown, as DER.
    async fn shown(&self) -> Vec<u8> {
        let session = self.session("h2").await;
        session.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let body = json!({"model": "gpt-sim", "input": "hi [sim text=40]"}).to_string();
        Request::post(format!("https://localhost:{}/v1/responses", self.proxy.addr.port()))
            .header("host", format!("localhost:{}", self.proxy.addr.port()))
            .header("authorization", CREDENTIAL)
            .header("content-type", "application/json")
            .body(Full::new(body.into()))
            .unwrap()
    }
}

const FAR: i32 = 2099;

fn write(folder: &Folder, (certificate, key): (String, String)) -> (PathBuf, PathBuf) {
    (folder.write("certificate.pem", &certificate), folder.write("key.pem", &key))
}

fn der(certificate: &str) -> Vec<u8> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap().to_vec()
}

async fn assert_answered(response: Response<hyper::body::Incoming>) {
    assert_eq!(response.status(), 200);
    let told = response.headers()["x-tailwire"].to_str().unwrap().to_owned();
    assert!(told.starts_with("plan=full"), "{told}");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let response: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(response["status"], "completed");
}

#[tokio::test]
async fn turns_travel_over_tls_in_both_protocols() {
    let world = World::start(|_| ()).await;
    assert_eq!(world.proxy.base_url(), format!("https://{}/v1", world.proxy.addr));
    let io = TokioIo::new(world.session("http/1.1").await);
    let (mut sender, connection) = http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    assert_answered(sender.send_request(world.request()).await.unwrap()).await;

    let io = TokioIo::new(world.session("h2").await);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    assert_answered(sender.send_request(world.request()).await.unwrap()).await;
    world.sim.provider.ledger().read(|book| assert_eq!(book.violations, []));
    // And it all ends in order.
    world.proxy.stop().await;
}

#[tokio::test]
async fn a_client_s_own_websocket_goes_through_tls() {
    let world = World::start(|_| ()).await;
    let request = Request::get("wss://localhost/v1/realtime?model=m")
        .header("host", "localhost")
        .header("authorization", CREDENTIAL)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", generate_key());
    let session = world.session("http/1.1").await;
    let (mut socket, _) = client_async(request.body(()).unwrap(), session).await.unwrap();
    let text = "x".repeat(100_000);
    socket.send(Message::text(text.as_str())).await.unwrap();
    let back = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
    assert_eq!(back.unwrap().unwrap(), Message::text(text));
}

#[tokio::test]
async fn a_new_certificate_is_for_new_clients() {
    let world = World::start(|settings| settings.timeouts.file_check = Duration::from_millis(5)).await;
    let io = TokioIo::new(world.session("http/1.1").await);
    let (mut old, connection) = http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    assert_answered(old.send_request(world.request()).await.unwrap()).await;

    // One file at a time, as renewals do it: between the two, the pair does not fit.
    let next = world.authority.issue(FAR);
    let expected = der(&next.0);
    assert_ne!(world.shown().await, expected);
    write(&world.folder, next);
    until("the new certificate", || async { world.shown().await == expected }).await;
    assert_answered(old.send_request(world.request()).await.unwrap()).await;
}

/// Renewed ahead of its time: it is looked at again without another change of its file.
#[tokio::test]
async fn a_certificate_whose_time_has_not_come_is_taken_when_it_has() {
    let world = World::start(|settings| settings.timeouts.file_check = Duration::from_millis(5)).await;
    let before = world.shown().await;
    // In whole seconds: between one and two from now.
    let next = world.authority.issue_from(SystemTime::now() + Duration::from_secs(2), FAR);
    let expected = der(&next.0);
    write(&world.folder, next);
    assert_eq!(world.shown().await, before);
    until("its time", || async { world.shown().await == expected }).await;
}

#[tokio::test]
async fn a_pair_that_cannot_be_used_leaves_the_old_one() {
    let world = World::start(|_| ()).await;
    let before = world.shown().await;
    let (good, other) = (world.authority.issue(FAR), world.authority.issue(FAR));
    for (certificate, key) in [
        (good.0.clone(), other.1.clone()),
        world.authority.issue(2021),
        (String::new(), good.1.clone()),
        (good.0.clone(), String::from("no key")),
        (good.1.clone(), good.1.clone()),
    ] {
        write(&world.folder, (certificate, key));
        world.proxy.reload();
        assert_eq!(world.shown().await, before);
    }
    write(&world.folder, good.clone());
    world.proxy.reload();
    assert_eq!(world.shown().await, der(&good.0));
}

#[tokio::test]
async fn a_pair_that_cannot_be_used_is_refused_at_start() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let (good, other) = (authority.issue(FAR), authority.issue(FAR));
    for (certificate, key, expected) in [
        (&good.0, &other.1, "key.pem: it is not the key of "),
        (&authority.issue(2021).0, &good.1, "certificate.pem: the certificate has expired"),
        (&good.1, &good.1, "certificate.pem: it holds no certificate"),
        (&good.0, &good.0, "key.pem: not a PEM file of a private key"),
    ] {
        let (certificate, key) = write(&folder, (certificate.clone(), key.clone()));
        let mut settings = settings_for("http://127.0.0.1:1/v1");
        settings.tls_certificate = Some(certificate);
        settings.tls_key = Some(key);
        let error = app::check_files(&settings).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("PRIVATE"), "{error}");
        assert!(app::Running::start(settings).await.unwrap_err().to_string().contains(expected));
    }
}

#[tokio::test]
async fn a_client_that_speaks_no_tls_is_let_go() {
    let world = World::start(|_| ()).await;
    let request = "POST /v1/responses HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-planted-a\r\n\
                   content-length: 9\r\n\r\n{\"a\": 1}\n";
    let stream = TcpStream::connect(world.proxy.addr).await.unwrap();
    let mut stream = stream;
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // An alert and an end, not a reset.
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer.first(), Some(&21), "{answer:?}");
    assert_answered_still(&world).await;
}

#[tokio::test]
async fn a_handshake_that_stalls_is_ended_and_holds_nobody_up() {
    let world = World::start(|settings| {
        settings.timeouts.tls_handshake = Duration::from_secs(3);
        settings.limits.connections = 2;
    })
    .await;
    // It says nothing, and has a place of two; others have the other one.
    let mut silent = TcpStream::connect(world.proxy.addr).await.unwrap();
    assert_answered_still(&world).await;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, silent.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty() && ended.is_ok());
    // Its place is free again: both at once are served.
    let (one, other) = tokio::join!(world.session("h2"), world.session("h2"));
    drop((one, other));
    // Handshakes under way do not hold up the end.
    let _silent = TcpStream::connect(world.proxy.addr).await.unwrap();
    tokio::time::timeout(PATIENCE, world.proxy.stop()).await.unwrap();
}

#[tokio::test]
async fn without_a_certificate_the_port_speaks_no_tls() {
    let world = crate::world::World::plain().await;
    let hello = raw(world.proxy.addr, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", true).await;
    assert!(hello.is_empty() || hello.starts_with("HTTP/1.1 400"), "{hello}");
}

async fn assert_answered_still(world: &World) {
    let io = TokioIo::new(world.session("http/1.1").await);
    let (mut sender, connection) = http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    assert_answered(sender.send_request(world.request()).await.unwrap()).await;
}
