//! One connection to an edge over QUIC: sockets, TLS, transport settings (native-tunnel s.1, relay-design s.4.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use phlix_certs::pin::SpkiPin;
use phlix_protocol::native;
use phlix_protocol::native::control::Welcome;
use phlix_protocol::token::EdgeEntry;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, EndpointConfig, TokioRuntime, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::JoinSet;

use super::DialError;
use super::handshake::{self, Control, HandshakeError};
use crate::shared::{Credentials, Shared};
use crate::trust::{self, RefusedKey};

/// Dead after this long without a packet of the edge.
const IDLE: Duration = Duration::from_secs(15);
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// What one stream may have in flight towards us: uploads.
const STREAM_WINDOW: u32 = 2 * 1024 * 1024;
/// All streams together: small until the edge has shown who it is.
const STRANGERS_WINDOW: u32 = 256 * 1024;
const WINDOW: u32 = 64 * 1024 * 1024;
/// Queued for sending in all; more than this has left the CPU's cache before it is encrypted.
const SEND_WINDOW: u64 = 1024 * 1024;
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;
/// Between two addresses of one edge.
const STAGGER: Duration = Duration::from_millis(300);
/// For a close to leave the machine.
const FAREWELL: Duration = Duration::from_millis(50);
/// Addresses of one edge that are tried.
const MOST_ADDRESSES: usize = 8;

/// A connection with its control channel, past `welcome`.
pub(super) struct Connected {
    /// Kept as long as the connection: it owns the socket.
    pub(super) endpoint: Endpoint,
    pub(super) connection: Connection,
    pub(super) control: Control,
    pub(super) welcome: Welcome,
}

/// What an edge is called when we dial it.
pub(super) fn name_of(edge: &EdgeEntry) -> &str {
    edge.names.first().or(edge.addresses.first()).map_or("", String::as_str)
}

/// Connects to an edge and proves who we are.
pub(super) async fn connect(
    shared: &Shared,
    credentials: &Credentials,
    edge: &EdgeEntry,
) -> Result<Connected, DialError> {
    let config = client_config(shared, edge)?;
    let name = name_of(edge);
    let (endpoint, connection) = first_of(addresses(edge).await?, &config, name, shared.config.timings.dial).await?;
    let limit = shared.config.timings.handshake;
    let proving = handshake::prove(shared, credentials, edge, name, &connection);
    let outcome = tokio::time::timeout(limit, proving).await.unwrap_or(Err(HandshakeError::TimedOut(limit)));
    match outcome {
        Ok((control, welcome)) => {
            connection.set_receive_window(VarInt::from_u32(WINDOW));
            Ok(Connected { endpoint, connection, control, welcome })
        }
        Err(error) => {
            connection.close(VarInt::from_u32(error.close_code()), b"");
            // The edge should hear it, but is not waited for.
            let _ = tokio::time::timeout(FAREWELL, endpoint.wait_idle()).await;
            Err(error.into())
        }
    }
}

/// Dials the addresses, each a moment after the one before: one that swallows packets must not hold up the next.
async fn first_of(
    addresses: Vec<SocketAddr>,
    config: &quinn::ClientConfig,
    name: &str,
    limit: Duration,
) -> Result<(Endpoint, Connection), DialError> {
    let mut attempts = JoinSet::new();
    let mut untried = addresses.into_iter();
    let mut last = DialError::NoAddress;
    loop {
        match untried.next() {
            Some(address) => drop(attempts.spawn(dial_address(config.clone(), address, name.to_owned(), limit))),
            None if attempts.is_empty() => return Err(last),
            None => {}
        }
        tokio::select! {
            Some(ended) = attempts.join_next() => match ended {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => last = error,
                Err(_) => {}
            },
            () = tokio::time::sleep(STAGGER), if untried.len() > 0 => {}
        }
    }
}

async fn dial_address(
    config: quinn::ClientConfig,
    address: SocketAddr,
    name: String,
    limit: Duration,
) -> Result<(Endpoint, Connection), DialError> {
    let socket = socket_for(address).map_err(DialError::Socket)?;
    let endpoint =
        Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime)).map_err(DialError::Socket)?;
    let connecting =
        endpoint.connect_with(config, address, &name).map_err(|error| DialError::Setup(error.to_string()))?;
    match tokio::time::timeout(limit, connecting).await {
        Ok(Ok(connection)) => Ok((endpoint, connection)),
        Ok(Err(error)) => Err(DialError::Connect(error)),
        Err(_) => Err(DialError::TimedOut(limit)),
    }
}

/// TLS as the hub's list says, ALPN of the tunnel, no 0-RTT (trust s.9.6).
fn client_config(shared: &Shared, edge: &EdgeEntry) -> Result<quinn::ClientConfig, DialError> {
    let mut tls = match &edge.spki {
        Some(pin) => {
            let pin: SpkiPin = pin.parse().map_err(|_| DialError::Setup("the hub's pin of it is none".into()))?;
            trust::pinned(pin, RefusedKey::default())?
        }
        None => trust::rooted(shared.edge_roots.clone(), RefusedKey::default())?,
    };
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

/// The edge's addresses, in the list's order.
async fn addresses(edge: &EdgeEntry) -> Result<Vec<SocketAddr>, DialError> {
    let mut found = Vec::new();
    let mut unknown = None;
    for address in edge.addresses.iter().take(MOST_ADDRESSES) {
        let host = address.trim_start_matches('[').trim_end_matches(']');
        match tokio::net::lookup_host((host, edge.port)).await {
            Ok(resolved) => found.extend(resolved.take(MOST_ADDRESSES)),
            Err(_) => unknown = Some(address.clone()),
        }
    }
    match unknown {
        Some(address) if found.is_empty() => Err(DialError::Resolve(address)),
        _ => Ok(found),
    }
}
