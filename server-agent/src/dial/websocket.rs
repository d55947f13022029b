//! One connection to an edge over WebSocket: TCP or a proxy, TLS, the opening handshake (native-tunnel s.1).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use phlix_link::{Link, Side};
use phlix_protocol::native::{EXPORTER_LABEL, WEBSOCKET_PATH, WEBSOCKET_PROTOCOL};
use phlix_protocol::ws::handshake;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::DialError;
use crate::proxy::Proxy;
use crate::random;

/// What rustls may hold for sending before it asks us to wait: one batch of frames.
const TLS_BUFFER: usize = 256 * 1024;

/// How an edge is reached.
#[derive(Debug, Clone)]
pub(super) enum Way {
    Direct(SocketAddr),
    Through(Proxy, String, u16),
}

/// TLS with the ALPN of HTTP/1.1.
pub(super) fn config(mut tls: rustls::ClientConfig) -> Arc<rustls::ClientConfig> {
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    tls.enable_early_data = false;
    Arc::new(tls)
}

/// Connects to an edge that is called `name`.
pub(super) async fn dial(
    tls: Arc<rustls::ClientConfig>,
    way: Way,
    name: String,
    port: u16,
    limit: Duration,
) -> Result<Link, DialError> {
    tokio::time::timeout(limit, opened(tls, way, &name, port)).await.unwrap_or(Err(DialError::TimedOut(limit)))
}

async fn opened(tls: Arc<rustls::ClientConfig>, way: Way, name: &str, port: u16) -> Result<Link, DialError> {
    let tcp = match way {
        Way::Direct(address) => TcpStream::connect(address).await.map_err(DialError::Tcp)?,
        Way::Through(proxy, host, port) => proxy.connect(&host, port).await?,
    };
    phlix_link::tune(&tcp);
    let server = ServerName::try_from(name.to_owned()).map_err(|_| DialError::Resolve(name.to_owned()))?;
    let mut stream = TlsConnector::from(tls)
        .connect_with(server, tcp, |tls| tls.set_buffer_limit(Some(TLS_BUFFER)))
        .await
        .map_err(DialError::Tls)?;
    let exporter = exporter(&stream);
    let key = handshake::key(random::bytes());
    let bracketed = if name.contains(':') { format!("[{name}]:{port}") } else { format!("{name}:{port}") };
    let ask = handshake::request(WEBSOCKET_PATH, &bracketed, &key, Some(WEBSOCKET_PROTOCOL), &[])?;
    stream.write_all(&ask).await.map_err(DialError::Tls)?;
    stream.flush().await.map_err(DialError::Tls)?;
    let mut answer = BytesMut::with_capacity(4096);
    let head = loop {
        if stream.read_buf(&mut answer).await.map_err(DialError::Tls)? == 0 {
            return Err(DialError::Tls(std::io::ErrorKind::UnexpectedEof.into()));
        }
        if let Some(length) = handshake::check_response(&answer, &key, Some(WEBSOCKET_PROTOCOL))? {
            break length;
        }
    };
    // What follows the head is frames.
    let frames = answer.split_off(head);
    Ok(Link::websocket(stream, Side::Agent, frames, exporter, random::bytes))
}

/// What binds a proof to this very connection. TLS 1.2 has no exporter that can be relied on (RFC 7627 s.6).
fn exporter(stream: &TlsStream<TcpStream>) -> Option<[u8; 32]> {
    let (_, tls) = stream.get_ref();
    if tls.protocol_version() != Some(rustls::ProtocolVersion::TLSv1_3) {
        return None;
    }
    tls.export_keying_material([0; 32], EXPORTER_LABEL, Some(b"")).ok()
}
