//! The one TLS configuration: the platform's trust store, extra authorities and a client certificate from files, one crypto
//! provider. There is no way to switch verification off.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
#[cfg(feature = "tls-aws-lc")]
use rustls::crypto::aws_lc_rs as provider;
#[cfg(all(feature = "tls-ring", not(feature = "tls-aws-lc")))]
use rustls::crypto::ring as provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls_platform_verifier::Verifier;

#[cfg(not(any(feature = "tls-aws-lc", feature = "tls-ring")))]
compile_error!("choose a TLS provider: feature `tls-aws-lc` or `tls-ring`");

/// TLS to the provider, cheap to clone.
#[derive(Clone, Debug)]
pub struct Tls {
    upstream: Arc<ClientConfig>,
    proxy: Arc<ClientConfig>,
}

/// The files of what is presented to an upstream that asks for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, and after it the chain up to its authority.
    pub certificate: PathBuf,
    /// Its private key, not encrypted.
    pub key: PathBuf,
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
    /// The client certificate or its key cannot be used.
    #[error("cannot present {}: {reason}", .path.display())]
    Identity {
        /// The file at fault.
        path: PathBuf,
        /// What is wrong with it; never its content.
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
        Self::presenting(authorities, None)
    }

    /// The same, with a certificate for upstreams that ask for one. A proxy is never shown it.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn presenting(authorities: &[PathBuf], identity: Option<&Identity>) -> Result<Self, TlsError> {
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
        let builder = match verifier {
            Some(verifier) => builder.dangerous().with_custom_certificate_verifier(verifier),
            None => builder.with_root_certificates(rustls::RootCertStore::empty()),
        };
        // RFC 6455 upgrades HTTP/1.1 only, and the pooled client wants no other.
        let only_http_1 = |mut config: ClientConfig| {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            Arc::new(config)
        };
        let proxy = only_http_1(builder.clone().with_no_client_auth());
        let upstream = match identity {
            Some(identity) => {
                let (chain, key) = identity.read()?;
                let unfit = |error| identity.unfit(&error);
                only_http_1(builder.with_client_auth_cert(chain, key).map_err(unfit)?)
            }
            None => proxy.clone(),
        };
        Ok(Self { upstream, proxy })
    }

    /// Towards the provider.
    pub(super) fn upstream(&self) -> Arc<ClientConfig> {
        self.upstream.clone()
    }

    /// Towards a proxy on the way.
    pub(super) fn proxy(&self) -> Arc<ClientConfig> {
        self.proxy.clone()
    }
}

impl Identity {
    fn read(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let fault = |path: &Path, reason: String| TlsError::Identity { path: path.to_owned(), reason };
        let chain: Vec<_> = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect)
            .map_err(|error| fault(&self.certificate, format!("not a PEM file of certificates: {error}")))?;
        if chain.is_empty() {
            return Err(fault(&self.certificate, String::from("it holds no certificate")));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| {
            fault(&self.key, format!("not a PEM file of an unencrypted private key: {error}"))
        })?;
        Ok((chain, key))
    }

    fn unfit(&self, error: &rustls::Error) -> TlsError {
        let (path, reason) = match error {
            rustls::Error::InconsistentKeys(_) => {
                (&self.key, format!("it is not the key of {}", self.certificate.display()))
            }
            error => (&self.certificate, format!("cannot be used: {error}")),
        };
        TlsError::Identity { path: path.clone(), reason }
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
    fn both_ways_are_bound_to_http_1() {
        let tls = Tls::new(&[]).unwrap();
        assert_eq!(tls.upstream().alpn_protocols, [b"http/1.1"]);
        assert_eq!(tls.proxy().alpn_protocols, [b"http/1.1"]);
    }
}
