//! The one TLS configuration: the platform's trust store, extra authorities from files, one crypto provider.
//! There is no way to switch verification off.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
#[cfg(feature = "tls-aws-lc")]
use rustls::crypto::aws_lc_rs as provider;
#[cfg(all(feature = "tls-ring", not(feature = "tls-aws-lc")))]
use rustls::crypto::ring as provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_platform_verifier::Verifier;

#[cfg(not(any(feature = "tls-aws-lc", feature = "tls-ring")))]
compile_error!("choose a TLS provider: feature `tls-aws-lc` or `tls-ring`");

/// TLS to the provider, cheap to clone.
#[derive(Clone, Debug)]
pub struct Tls {
    socket: Arc<ClientConfig>,
}

/// Why the configuration cannot be built. All of it is the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of extra authorities cannot be read as PEM certificates.
    #[error("cannot read certificates from {}: {reason}", .path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The TLS library refuses the result.
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

impl Tls {
    /// Trusts what the platform trusts, and every certificate of the PEM files `authorities`.
    ///
    /// A machine without a trust store is no error here (an upstream on `http://` needs none): connections over TLS
    /// then fail one by one, unless an extra authority vouches for them.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn new(authorities: &[PathBuf]) -> Result<Self, TlsError> {
        let mut extra = Vec::new();
        for path in authorities {
            extra.extend(certificates(path)?);
        }
        let provider = Arc::new(provider::default_provider());
        let verifier = match Verifier::new_with_extra_roots(extra.iter().cloned(), provider.clone()) {
            Ok(verifier) => Some(Arc::new(verifier)),
            Err(rustls::Error::General(reason)) if extra.is_empty() => {
                tracing::warn!(reason, "no trust store; TLS connections will be refused");
                None
            }
            Err(error) => return Err(error.into()),
        };
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = match verifier {
            Some(verifier) => {
                builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
            }
            None => builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { socket: Arc::new(config) })
    }

    /// For a WebSocket: HTTP/1.1 is the only protocol offered, since RFC 6455 upgrades nothing else.
    pub(super) fn socket(&self) -> Arc<ClientConfig> {
        self.socket.clone()
    }

    /// For the pooled client, which sets the protocols it can speak itself.
    pub(super) fn pooled(&self) -> ClientConfig {
        let mut config = ClientConfig::clone(&self.socket);
        config.alpn_protocols.clear();
        config
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |reason: String| TlsError::Authority { path: path.to_owned(), reason };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unreadable("it holds no certificate".to_owned()));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_authority_is_named() {
        let missing = PathBuf::from("/nonexistent/authority.pem");
        let error = Tls::new(&[missing]).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/authority.pem"), "{error}");
    }

    #[test]
    fn only_the_socket_is_bound_to_http_1() {
        let tls = Tls::new(&[]).unwrap();
        assert_eq!(tls.socket().alpn_protocols, [b"http/1.1"]);
        assert!(tls.pooled().alpn_protocols.is_empty());
    }
}
