//! An authority of a test's own, what it vouches for, and TLS before a plain server. Files go into a folder that is removed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
#[cfg(feature = "tls-aws-lc")]
use rustls::crypto::aws_lc_rs as provider;
#[cfg(all(feature = "tls-ring", not(feature = "tls-aws-lc")))]
use rustls::crypto::ring as provider;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A folder of this test's own.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // Short: the path of a unix socket has room for a hundred bytes.
        let path = std::env::temp_dir().join(format!("tailwire-net-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub(crate) folder: Folder,
    /// Its own certificate, as PEM.
    pub(crate) file: PathBuf,
}

/// How a server treats clients' certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    Never,
    /// And takes clients without one.
    Politely,
    /// Of everybody.
    Firmly,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = Folder::new();
        let file = folder.write("authority.pem", &issuer.pem());
        Self { issuer, folder, file }
    }

    /// The files of a certificate for `name`, and of its key.
    pub(crate) fn files(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let leaf =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let write = |kind: &str, text: &str| self.folder.write(&format!("{name}.{kind}"), text);
        (write("pem", &leaf.pem()), write("key", &key.serialize_pem()))
    }

    /// TLS of a server called `name`.
    pub(crate) fn server(&self, name: &str, asks: Asks) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let leaf =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(provider::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let builder =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = match asks {
            Asks::Never => builder.with_no_client_auth(),
            Asks::Politely => {
                builder.with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
            }
            Asks::Firmly => builder.with_client_cert_verifier(verifier.build().unwrap()),
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        TlsAcceptor::from(Arc::new(builder.with_single_cert(vec![leaf.der().clone()], key).unwrap()))
    }
}

/// Whether each client that came to TLS had a certificate, in their order.
pub(crate) type Shown = Arc<Mutex<Vec<bool>>>;

pub(crate) async fn shaken(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    shown: Shown,
) -> Option<TlsStream<TcpStream>> {
    let stream = acceptor.accept(stream).await.ok()?;
    shown.lock().unwrap().push(stream.get_ref().1.peer_certificates().is_some());
    Some(stream)
}

/// TLS before the plain server at `behind`.
pub(crate) async fn front(acceptor: TlsAcceptor, behind: SocketAddr) -> (SocketAddr, Shown) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let shown = Shown::default();
    let book = shown.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, book) = (acceptor.clone(), book.clone());
            tokio::spawn(async move {
                let Some(mut stream) = shaken(acceptor, stream, book).await else { return };
                let mut onward = TcpStream::connect(behind).await.unwrap();
                // Either side may end as it likes.
                let _ = copy_bidirectional(&mut stream, &mut onward).await;
            });
        }
    });
    (addr, shown)
}

/// The files of `path` that a program can be given by a variable.
pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}
