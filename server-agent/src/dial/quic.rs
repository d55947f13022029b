//! One connection to an edge over QUIC: sockets, TLS, transport settings (native-tunnel s.1, relay-design s.4.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use phlix_link::{Link, Measured};
use phlix_protocol::native;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Endpoint, EndpointConfig, TokioRuntime, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};

use super::DialError;

/// Dead after this long without a packet of the edge.
const IDLE: Duration = Duration::from_secs(15);
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// What one stream may have in flight towards us: uploads.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
/// All streams together: small until the edge has shown who it is.
const STRANGERS_WINDOW: u32 = 256 * 1024;
/// Queued for sending in all; more than this has left the CPU's cache before it is encrypted.
const SEND_WINDOW: u64 = 1024 * 1024;
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// Connects to one address of an edge.
pub(super) async fn dial(
    config: quinn::ClientConfig,
    address: SocketAddr,
    name: String,
    limit: Duration,
) -> Result<Link, DialError> {
    let socket = socket_for(address).map_err(DialError::Socket)?;
    let endpoint =
        Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime)).map_err(DialError::Socket)?;
    let connecting =
        endpoint.connect_with(config, address, &name).map_err(|error| DialError::Setup(error.to_string()))?;
    match tokio::time::timeout(limit, connecting).await {
        Ok(Ok(connection)) => Ok(Link::quic_dialled(endpoint, connection, STREAM_WINDOW)),
        Ok(Err(error)) => Err(DialError::Connect(error)),
        Err(_) => Err(DialError::TimedOut(limit)),
    }
}

/// ALPN of the tunnel, no 0-RTT (trust s.9.6).
pub(super) fn config(tls: rustls::ClientConfig) -> Result<quinn::ClientConfig, DialError> {
    let mut tls = tls;
    tls.alpn_protocols = vec![native::ALPN.to_vec()];
    tls.enable_early_data = false;
    let quic = QuicClientConfig::try_from(tls).map_err(|error| DialError::Setup(error.to_string()))?;
    let mut config = quinn::ClientConfig::new(Arc::new(quic));
    config.transport_config(Arc::new(transport()));
    Ok(config)
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IDLE.try_into().expect("15 s are below QUIC's limit")))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(STRANGERS_WINDOW))
        .send_window(SEND_WINDOW)
        .congestion_controller_factory(Arc::new(Measured))
        // Streams are let in after `welcome`, as many as its limits say.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    transport
}

fn socket_for(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // The kernel may grant less; that costs speed on fast lines and nothing else.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&SocketAddr::new(any, 0).into())?;
    Ok(socket.into())
}
