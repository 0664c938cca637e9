//! TLS towards clients: one certificate and its key from PEM files, replaceable while connections live.
//!
//! Watches no file and asks no client for a certificate: who a client is, its key says.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
#[cfg(feature = "tls-aws-lc")]
use rustls::crypto::aws_lc_rs as provider;
#[cfg(all(feature = "tls-ring", not(feature = "tls-aws-lc")))]
use rustls::crypto::ring as provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::downstream::listener::BoxStream;

/// TLS to clients. Clones share their certificate.
#[derive(Clone, Debug)]
pub struct Tls {
    pem: Arc<Pem>,
    /// What the next handshake uses.
    config: Arc<RwLock<Arc<ServerConfig>>>,
    handshake: Duration,
}

/// The two files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pem {
    /// The certificate, and after it the chain up to its authority.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
}

/// Why a pair of files cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", .path.display())]
pub struct TlsError {
    /// The file at fault.
    pub path: PathBuf,
    /// What is wrong with it; never its content.
    pub reason: String,
}

impl Tls {
    /// TLS with the certificate as it is in the files now. `handshake` bounds each client's handshake.
    ///
    /// # Errors
    /// A file that is no PEM of its kind, a key that does not belong to the certificate, a certificate that is not valid
    /// now.
    pub fn new(pem: Pem, handshake: Duration) -> Result<Self, TlsError> {
        let config = Arc::new(RwLock::new(Arc::new(pem.read()?)));
        Ok(Self { pem: Arc::new(pem), config, handshake })
    }

    /// Takes the files as they are now for the handshakes to come. Connections that are there stay as they are.
    ///
    /// # Errors
    /// As [`Self::new`]; the old certificate goes on.
    pub fn reload(&self) -> Result<(), TlsError> {
        // A new configuration, so that no session of the old certificate is resumed.
        let config = Arc::new(self.pem.read()?);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// The files.
    #[must_use]
    pub fn pem(&self) -> &Pem {
        &self.pem
    }

    /// Shakes hands with a client; none if it does not come to it.
    pub(super) async fn accept(&self, stream: BoxStream) -> Option<TlsStream<BoxStream>> {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner).clone();
        let accepting = TlsAcceptor::from(config).accept(stream).into_fallible();
        match timeout(self.handshake, accepting).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err((error, stream))) => {
                tracing::debug!(kind = %error.kind(), "a client did not come to TLS");
                let _ = timeout(GOODBYE, part(stream)).await;
                None
            }
            Err(_) => {
                tracing::debug!("a client's TLS handshake took too long");
                None
            }
        }
    }
}

impl Pem {
    fn read(&self) -> Result<ServerConfig, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect)
            .map_err(|error| fault(&self.certificate, format!("not a PEM file of certificates: {error}")))?;
        let Some(first) = chain.first() else {
            return Err(fault(&self.certificate, "it holds no certificate"));
        };
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| fault(&self.key, format!("not a PEM file of a private key: {error}")))?;
        in_force(first, &chain[1..]).map_err(|reason| fault(&self.certificate, reason))?;
        let foreign = |error: rustls::Error| match error {
            rustls::Error::InconsistentKeys(_) => {
                fault(&self.key, format!("it is not the key of {}", self.certificate.display()))
            }
            error => fault(&self.certificate, format!("cannot be used: {error}")),
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(foreign)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(foreign)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn fault(path: &Path, reason: impl Into<String>) -> TlsError {
    TlsError { path: path.to_owned(), reason: reason.into() }
}

/// Whether a certificate is valid by the clock; who vouches for it is the clients' to judge. A verifier looks at the dates
/// before it looks for the authority, so the complaint about that one is expected.
fn in_force(certificate: &CertificateDer<'_>, chain: &[CertificateDer<'_>]) -> Result<(), String> {
    let unfit = |error: rustls::Error| format!("not a certificate: {error}");
    let mut anchors = RootCertStore::empty();
    anchors.add(certificate.clone().into_owned()).map_err(unfit)?;
    let provider = Arc::new(provider::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(anchors), provider)
        .build()
        .map_err(|error| format!("not a certificate: {error}"))?;
    let name = ServerName::try_from("localhost").map_err(|error| error.to_string())?;
    match verifier.verify_server_cert(certificate, chain, &name, &[], UnixTime::now()) {
        Err(rustls::Error::InvalidCertificate(
            CertificateError::ExpiredContext { .. } | CertificateError::Expired,
        )) => Err(String::from("the certificate has expired")),
        Err(rustls::Error::InvalidCertificate(
            CertificateError::NotValidYetContext { .. } | CertificateError::NotValidYet,
        )) => Err(String::from("the certificate is not valid yet")),
        _ => Ok(()),
    }
}

/// Ends a connection so that the client can read the alert: what it still sends is taken, or the system would answer it
/// with a reset.
async fn part(mut stream: BoxStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = [0; 4096];
    let mut taken = 0;
    while taken < MOST_REST {
        match stream.read(&mut rest).await? {
            0 => break,
            count => taken += count,
        }
    }
    Ok(())
}

/// For the client to close its side after a failed handshake.
const GOODBYE: Duration = Duration::from_secs(1);
/// Bytes that are read and dropped meanwhile.
const MOST_REST: usize = 256 << 10;
