//! TLS for tests: an edge with a certificate of its own, and an agent that believes it.

use std::sync::Arc;

/// The name in the certificate.
pub(crate) const NAME: &str = "edge.test";

/// The edge's configuration and the agent's.
pub(crate) fn pair(alpn: &[&[u8]]) -> (rustls::ServerConfig, rustls::ClientConfig) {
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("a name");
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let certificate = made.cert.der().clone();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .expect("a certificate");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    server.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    client.alpn_protocols.clone_from(&server.alpn_protocols);
    (server, client)
}
