//! TLS as an edge speaks it: to viewers over TCP, to viewers and agents over QUIC.

use std::sync::Arc;

use quinn::crypto::rustls::QuicServerConfig;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::ResolvesServerCert;

/// TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("no crypto provider is installed")]
    NoProvider,
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    #[error("the crypto provider has no cipher suite for QUIC")]
    NoQuic,
}

fn provider() -> Result<Arc<CryptoProvider>, TlsError> {
    CryptoProvider::get_default().cloned().ok_or(TlsError::NoProvider)
}

/// For viewers: TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1.
pub(crate) fn viewers(certs: &Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider()?)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(certs));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// For QUIC: TLS 1.3, no early data, these ALPNs, one for each protocol that the endpoint serves.
pub(crate) fn quic(certs: &Arc<dyn ResolvesServerCert>, alpn: &[&[u8]]) -> Result<QuicServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider()?)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(certs));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    //= trust s.9.6
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    QuicServerConfig::try_from(config).map_err(|_| TlsError::NoQuic)
}
