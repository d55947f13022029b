//! A TLS key named by the SHA-256 of its public half (SPKI), and a verifier that trusts just that.
//!
//! An agent whose hub has no public certificate gets the pin of the edge's key with its ticket, and
//! confirms the pin of the hub's key once. A certificate may then be issued anew as often as it
//! likes: as long as the key stays, the pin holds.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error as TlsError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};

/// SHA-256 of a certificate's SubjectPublicKeyInfo in DER.
///
/// `Display` is base64url without padding (43 characters), as in JSON and on the wire;
/// [`SpkiPin::hex`] is for people. `FromStr` takes both.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpkiPin([u8; 32]);

/// The text is no pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a pin is 32 bytes as 43 characters of base64url or 64 of hex")]
pub struct NotAPin;

impl SpkiPin {
    /// The pin of the key in a certificate.
    ///
    /// # Errors
    /// Where the bytes are no certificate.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, TlsError> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        Ok(Self::of_spki(&parsed.subject_public_key_info()))
    }

    /// The pin of a SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn of_spki(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// The hash itself.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hex digits, as `openssl` and browsers show it.
    #[must_use]
    pub fn hex(&self) -> String {
        use fmt::Write;
        self.0.iter().fold(String::with_capacity(64), |mut s, b| {
            let _ = write!(s, "{b:02x}");
            s
        })
    }
}

impl fmt::Display for SpkiPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for SpkiPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpkiPin({self})")
    }
}

impl FromStr for SpkiPin {
    type Err = NotAPin;

    fn from_str(text: &str) -> Result<Self, NotAPin> {
        let bytes = match text.len() {
            43 => URL_SAFE_NO_PAD.decode(text).map_err(|_| NotAPin)?,
            64 => from_hex(text.as_bytes()).ok_or(NotAPin)?,
            _ => return Err(NotAPin),
        };
        bytes.try_into().map(Self).map_err(|_| NotAPin)
    }
}

fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    text.chunks_exact(2)
        .map(|pair| {
            let high = char::from(pair[0]).to_digit(16)?;
            let low = char::from(pair[1]).to_digit(16)?;
            u8::try_from(high * 16 + low).ok()
        })
        .collect()
}

/// Accepts a server whose key has one given pin, whatever its certificate says about names, dates
/// and issuers. The handshake's signature is checked as always: who shows the certificate must hold
/// its key.
#[derive(Debug)]
pub struct PinnedServer {
    pin: SpkiPin,
    provider: Arc<CryptoProvider>,
}

impl PinnedServer {
    /// A verifier for `rustls::ClientConfig::builder().dangerous().with_custom_certificate_verifier`.
    #[must_use]
    pub fn new(pin: SpkiPin, provider: Arc<CryptoProvider>) -> Arc<Self> {
        Arc::new(Self { pin, provider })
    }
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if SpkiPin::of_certificate(end_entity)? == self.pin {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::SystemTime;

    use rustls::crypto::aws_lc_rs::default_provider;
    use rustls::sign::{CertifiedKey, SingleCertAndKey};
    use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

    use super::*;
    use crate::dev::DevCerts;

    fn leaf() -> (tempfile::TempDir, DevCerts) {
        let folder = tempfile::tempdir().unwrap();
        let certs = DevCerts::load_or_issue(folder.path(), "hub.localhost", &[], SystemTime::now()).unwrap();
        (folder, certs)
    }

    /// One TLS handshake in memory.
    fn handshake(pin: SpkiPin, key: Arc<CertifiedKey>) -> Result<(), TlsError> {
        let provider = Arc::new(default_provider());
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(PinnedServer::new(pin, Arc::clone(&provider)))
            .with_no_client_auth();
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        let name = ServerName::try_from("any.name").unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name)?;
        let mut server = ServerConnection::new(Arc::new(server))?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                server.read_tls(&mut rest).unwrap();
                server.process_new_packets()?;
            }
            let mut bytes = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                client.read_tls(&mut rest).unwrap();
                client.process_new_packets()?;
            }
        }
        Ok(())
    }

    #[test]
    fn the_pinned_key_is_accepted() {
        let (_folder, certs) = leaf();
        handshake(certs.pin(), certs.key()).unwrap();
    }

    #[test]
    fn another_key_is_refused() {
        let (_folder, certs) = leaf();
        let (_other_folder, other) = leaf();
        let refused = handshake(other.pin(), certs.key()).unwrap_err();
        assert_eq!(refused, CertificateError::ApplicationVerificationFailure.into());
    }

    #[test]
    fn a_stolen_certificate_without_its_key_is_refused() {
        let (_folder, certs) = leaf();
        let (_other_folder, thief) = leaf();
        let forged = CertifiedKey::new(certs.key().cert.clone(), Arc::clone(&thief.key().key));
        let refused = handshake(certs.pin(), Arc::new(forged)).unwrap_err();
        assert_eq!(refused, CertificateError::BadSignature.into());
    }

    #[test]
    fn a_pin_is_read_back_from_both_spellings() {
        let pin = SpkiPin::of_spki(b"a public key");
        assert_eq!(pin.to_string().parse(), Ok(pin));
        assert_eq!(pin.hex().parse(), Ok(pin));
        assert_eq!(pin.hex().to_uppercase().parse(), Ok(pin));
    }

    #[test]
    fn what_is_no_pin_is_refused() {
        for text in ["", "abc", &"g".repeat(64), &"=".repeat(43), &"é".repeat(32)] {
            assert_eq!(text.parse::<SpkiPin>(), Err(NotAPin), "{text}");
        }
    }
}
