//! The QUIC endpoint: one UDP socket, several protocols told apart by ALPN: agents' tunnels, viewers' HTTP/3.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use phlix_link::{Link, Measured};
use phlix_protocol::keys::SigningKey;
use phlix_protocol::native;
use quinn::crypto::rustls::HandshakeData;
use quinn::{
    ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout, Runtime as _, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
};
use rustls::server::ResolvesServerCert;
use tokio_util::task::TaskTracker;

use super::http::Viewers;
use super::tls::{self, TlsError};
use super::{Stage, Stages, h3, reached};
use crate::config::{Limits, Timeouts, Windows};
use crate::limits::{Gauge, Place};
use crate::metrics::Metrics;
use crate::random;
use crate::tunnels::native::Tunnels;

/// Pings of an idle connection (native-tunnel s.1).
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Silence after which a connection is gone.
const IDLE: Duration = Duration::from_secs(15);

/// Unidirectional streams towards us: HTTP/3 needs three (RFC 9114 s.6.2), and viewers open some to see whether we mind.
/// A tunnel has none.
const UNI_STREAMS: u32 = 8;

/// The endpoint could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuicError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Socket(#[from] io::Error),
}

/// Makes the endpoint on a bound socket.
pub(crate) fn endpoint(
    socket: std::net::UdpSocket,
    certs: &Arc<dyn ResolvesServerCert>,
    key: &SigningKey,
    windows: &Windows,
) -> Result<Endpoint, QuicError> {
    let mut server = ServerConfig::with_crypto(Arc::new(tls::quic(certs, &[native::ALPN, h3::ALPN])?));
    server.transport_config(Arc::new(transport(windows)));
    // An agent whose address changes (NAT, another network) keeps its tunnel.
    server.migration(true);
    let runtime = Arc::new(TokioRuntime);
    let socket = runtime.wrap_udp_socket(socket)?;
    match socket.max_transmit_segments() {
        0 | 1 => tracing::warn!("UDP segmentation offload (GSO) is not available: tunnels will cost twice the CPU"),
        segments => tracing::info!(segments, "UDP segmentation offload (GSO) is on"),
    }
    let endpoint = Endpoint::new_with_abstract_socket(endpoint_config(key), Some(server), socket, runtime)?;
    Ok(endpoint)
}

/// Keys that follow from the edge's identity: after a restart, agents of the one before are told at once that their
/// connection is gone.
fn endpoint_config(key: &SigningKey) -> EndpointConfig {
    let derive = |purpose: &[u8]| {
        let seed = hmac::Key::new(hmac::HMAC_SHA256, &key.seed());
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&seed, purpose).as_ref())
    };
    let mut config = EndpointConfig::new(Arc::new(derive(b"phlix-edge quic stateless reset")));
    let ids = Arc::new(derive(b"phlix-edge quic connection id"));
    config.cid_generator(move || Box::new(Ids(Arc::clone(&ids))));
    config
}

fn transport(windows: &Windows) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(windows.stream_receive.into())
        .receive_window(windows.receive_unproven.into())
        .send_window(windows.send)
        .congestion_controller_factory(Arc::new(Measured))
        // An agent's control channel, a viewer's first request: the protocol is not known yet, and a bound that was
        // offered can't be taken back. HTTP/3 raises it.
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS))
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok());
    transport
}

/// Connection ids that this edge knows for its own, also after a restart.
struct Ids(Arc<hmac::Key>);

const NONCE: usize = 4;
const ID: usize = 8;

impl Ids {
    fn tag(&self, nonce: &[u8]) -> [u8; ID - NONCE] {
        let tag = hmac::sign(&self.0, nonce);
        let mut out = [0; ID - NONCE];
        out.copy_from_slice(&tag.as_ref()[..ID - NONCE]);
        out
    }
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID];
        let nonce = random::bytes::<NONCE>();
        id[..NONCE].copy_from_slice(&nonce);
        id[NONCE..].copy_from_slice(&self.tag(&nonce));
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The door on UDP.
pub(crate) struct Quic {
    pub(crate) viewers: Arc<Viewers>,
    pub(crate) tunnels: Arc<Tunnels>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Limits,
    pub(crate) stream_window: u32,
    pub(crate) timeouts: Timeouts,
    /// Connections that have not proved who they are.
    pub(crate) unproven: Gauge,
    pub(crate) tracker: TaskTracker,
    pub(crate) stages: Stages,
}

impl Quic {
    /// Takes connections until the edge finishes.
    pub(crate) async fn listen(self: Arc<Self>, endpoint: Endpoint) {
        let mut stages = self.stages.clone();
        loop {
            let incoming = tokio::select! {
                biased;
                () = reached(&mut stages, Stage::Finishing) => {
                    // New ones are refused by the endpoint itself.
                    endpoint.set_server_config(None);
                    return;
                }
                incoming = endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { return };
            if self.unproven.len() >= self.limits.unproven_before_retry && incoming.may_retry() {
                // Whoever can't be reached at its address costs us one packet and nothing else.
                let _ = incoming.retry();
                continue;
            }
            let Some(place) = self.unproven.enter(incoming.remote_address().ip()) else {
                self.metrics.connections_refused.inc();
                incoming.refuse();
                continue;
            };
            let connecting = match incoming.accept() {
                Ok(connecting) => connecting,
                // A foreign ALPN, a broken hello: a stranger's doing.
                Err(error) => {
                    tracing::debug!(%error, "QUIC handshake failed");
                    self.metrics.handshakes_failed.inc();
                    continue;
                }
            };
            let door = Arc::clone(&self);
            self.tracker.spawn(async move { door.welcome(connecting, place).await });
        }
    }

    async fn welcome(&self, connecting: quinn::Connecting, place: Place) {
        let connection = match tokio::time::timeout(self.timeouts.handshake, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                tracing::debug!(%error, "QUIC handshake failed");
                self.metrics.handshakes_failed.inc();
                return;
            }
            Err(_) => {
                self.metrics.handshakes_failed.inc();
                return;
            }
        };
        let Some(HandshakeData { protocol, server_name, .. }) = handshake(&connection) else { return };
        match protocol.as_deref() {
            Some(native::ALPN) => self.serve_tunnel(connection, place).await,
            Some(h3::ALPN) => {
                drop(place);
                // What it carries is finished with the viewers, before tunnels are closed.
                let viewers = Arc::clone(&self.viewers);
                self.viewers.tracker.spawn(async move {
                    h3::welcome(&viewers, connection, server_name.as_deref()).await;
                });
            }
            // Here `phlix-edge/1`, between edges, will have its place.
            _ => connection.close(native::close::PROTOCOL.into(), b"no such protocol"),
        }
    }

    async fn serve_tunnel(&self, connection: quinn::Connection, place: Place) {
        let mut stages = self.stages.clone();
        let tunnel =
            Arc::clone(&self.tunnels).serve(Link::quic(connection.clone(), self.stream_window), move || drop(place));
        tokio::select! {
            biased;
            () = tunnel => {}
            // An agent opens its control channel and nothing else.
            Ok(_) = connection.accept_uni() => connection.close(native::close::PROTOCOL.into(), b"protocol"),
            () = reached(&mut stages, Stage::Dropping) => {
                connection.close(native::close::DRAINED.into(), b"drained");
            }
        }
    }
}

fn handshake(connection: &quinn::Connection) -> Option<HandshakeData> {
    connection.handshake_data()?.downcast().ok().map(|data| *data)
}
