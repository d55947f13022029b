//! Whose certificates are believed: the system's roots, a CA file, or one confirmed key.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use phlix_certs::pin::{PinnedServer, SpkiPin};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Certificates can't be had.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("can't read certificates (PEM) from {path}: {source}")]
    CaFile { path: PathBuf, source: rustls_pki_types::pem::Error },
    #[error("{path} holds no certificate that can be used as a root")]
    EmptyCaFile { path: PathBuf },
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// The one provider, AES-128-GCM first: the cheapest on CPUs that have AES (relay-design s.4.2).
pub(crate) fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::cipher_suite as suite;
    let mut provider = aws_lc_rs::default_provider();
    let first = [suite::TLS13_AES_128_GCM_SHA256];
    provider.cipher_suites.retain(|other| !first.contains(other));
    provider.cipher_suites.splice(0..0, first);
    Arc::new(provider)
}

/// Roots of a file, or the system's where none is given.
pub(crate) fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => add_file(&mut roots, path)?,
        // What can't be parsed is no root; if nothing is left, every certificate is refused, which is said then.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(roots)
}

/// Adds the certificates of a PEM file.
pub(crate) fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), TrustError> {
    let wrong = |source| TrustError::CaFile { path: path.to_owned(), source };
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 { Err(TrustError::EmptyCaFile { path: path.to_owned() }) } else { Ok(()) }
}

/// A client that believes one key alone, and remembers which other it was shown.
pub(crate) fn pinned(pin: SpkiPin, refused: RefusedKey) -> Result<ClientConfig, TrustError> {
    let provider = provider();
    let inner: Arc<dyn ServerCertVerifier> = PinnedServer::new(pin, Arc::clone(&provider));
    client(&provider, Remembering { inner: Some(inner), refused, provider: Arc::clone(&provider) })
}

/// A client that believes certificates below these roots, and remembers which key it refused.
pub(crate) fn rooted(roots: RootCertStore, refused: RefusedKey) -> Result<ClientConfig, TrustError> {
    let provider = provider();
    let inner: Option<Arc<dyn ServerCertVerifier>> = if roots.is_empty() {
        None
    } else {
        let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
        Some(built.map_err(|error| rustls::Error::General(error.to_string()))?)
    };
    client(&provider, Remembering { inner, refused, provider: Arc::clone(&provider) })
}

/// A client that believes anybody: only for an origin beside the agent, by its owner's choice.
pub(crate) fn unverified() -> Result<ClientConfig, TrustError> {
    let provider = provider();
    client(&provider, Anybody(Arc::clone(&provider)))
}

fn client(
    provider: &Arc<CryptoProvider>,
    verifier: impl ServerCertVerifier + 'static,
) -> Result<ClientConfig, TrustError> {
    Ok(ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// The key of the last certificate that was refused: what a person may compare and confirm.
#[derive(Debug, Clone, Default)]
pub(crate) struct RefusedKey(Arc<Mutex<Option<SpkiPin>>>);

impl RefusedKey {
    /// Takes it out.
    pub(crate) fn take(&self) -> Option<SpkiPin> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, pin: Option<SpkiPin>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pin;
    }
}

/// Another verifier's verdict, with a memory.
#[derive(Debug)]
struct Remembering {
    /// `None` where there is no root at all: then nobody is believed.
    inner: Option<Arc<dyn ServerCertVerifier>>,
    refused: RefusedKey,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Remembering {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict = match &self.inner {
            Some(inner) => inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        self.refused.put(match verdict {
            Ok(_) => None,
            Err(_) => SpkiPin::of_certificate(end_entity).ok(),
        });
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// No verification of the name or the issuer; who shows a certificate must still hold its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
