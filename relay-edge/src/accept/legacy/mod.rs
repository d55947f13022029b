//! The door of existing media servers, port 8802: a bare WebSocket at `/`, plain or over TLS on the same port
//! (legacy-relay-wire s.1).
//!
//! Whoever gets the 101 is a stranger until its first message has proved otherwise; what follows is the tunnel's own task
//! (`tunnels::legacy`), which nothing here outlives.

mod handshake;
mod knocks;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use phlix_protocol::ws::{self, CloseCode};
use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use self::handshake::Shaken;
use self::knocks::Knocks;
use super::tls::{self, TlsError};
use super::{Stage, Stages, reached};
use crate::config::Config;
use crate::limits::{Gauge, Place};
use crate::metrics::Metrics;
use crate::tunnels::legacy::{Newcomer, Socket};
use crate::tunnels::native::Tunnels;

/// First byte of a TLS record that holds a handshake (RFC 8446 s.5.1). No HTTP request begins with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// Try again later (IANA's registry of close codes): too many connections, or an edge that can't judge yet.
//= legacy-relay-wire s.1.3
const TRY_LATER: u16 = 1013;

/// For a refusal to leave the machine.
const FAREWELL: Duration = Duration::from_secs(1);

/// The door.
pub(crate) struct Servers {
    tunnels: Arc<Tunnels>,
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    tls: Arc<ServerConfig>,
    knocks: Knocks,
    /// Connections that have not proved who they are: the same count as agents'.
    unproven: Gauge,
    tracker: TaskTracker,
    stages: Stages,
}

impl Servers {
    pub(crate) fn new(
        tunnels: Arc<Tunnels>,
        config: Arc<Config>,
        metrics: Arc<Metrics>,
        unproven: Gauge,
        tracker: TaskTracker,
        stages: Stages,
    ) -> Result<Self, TlsError> {
        let certs = config.legacy.certs.as_ref().unwrap_or(&config.server_certs);
        let tls = of_servers(certs)?;
        for (of, bytes) in [("stream", config.legacy.stream_queue), ("tunnel", config.legacy.tunnel_queue)] {
            let gauge = metrics.legacy.budgets.with_label_values(&[of]);
            gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        let knocks = Knocks::new(config.legacy.connects, config.legacy.connects_window);
        Ok(Self { tunnels, config, metrics, tls, knocks, unproven, tracker, stages })
    }

    /// Takes connections until the edge finishes.
    pub(crate) async fn listen(self: Arc<Self>, listener: TcpListener) {
        let mut stages = self.stages.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                () = reached(&mut stages, Stage::Finishing) => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "can't accept media servers' connections");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(place) = self.unproven.enter(peer.ip()) else {
                self.metrics.connections_refused.inc();
                continue;
            };
            let door = Arc::clone(&self);
            self.tracker.spawn(async move {
                let mut stages = door.stages.clone();
                tokio::select! {
                    biased;
                    () = reached(&mut stages, Stage::Finishing) => {}
                    () = door.welcome(stream, peer, place) => {}
                }
            });
        }
    }

    /// Tells TLS from plain HTTP by the first byte.
    async fn welcome(&self, stream: TcpStream, peer: SocketAddr, place: Place) {
        phlix_link::tune(&stream);
        let patience = self.config.timeouts.handshake;
        let mut first = [0];
        match tokio::time::timeout(patience, stream.peek(&mut first)).await {
            Ok(Ok(1..)) => {}
            // It left, or said nothing.
            Ok(_) | Err(_) => return,
        }
        if first[0] != TLS_HANDSHAKE {
            if self.config.legacy.tls_only {
                // A line that a browser shows; a media server sees a connection that closes, as with upstream's wss.
                let _ = tokio::time::timeout(FAREWELL, handshake::refuse_plain(stream)).await;
                return;
            }
            return self.shake(stream, peer, false, place).await;
        }
        let acceptor = TlsAcceptor::from(Arc::clone(&self.tls));
        match tokio::time::timeout(patience, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => self.shake(stream, peer, true, place).await,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a media server's TLS handshake failed");
                self.metrics.handshakes_failed.inc();
            }
            Err(_) => self.metrics.handshakes_failed.inc(),
        }
    }

    /// The WebSocket's handshake; then the tunnel goes on in a task of its own.
    async fn shake<S>(&self, mut stream: S, peer: SocketAddr, tls: bool, place: Place)
    where
        S: Socket + AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shaken = match tokio::time::timeout(self.config.timeouts.head, handshake::shake(&mut stream)).await {
            Ok(Ok(shaken)) => shaken,
            Ok(Err(error)) => return tracing::debug!(%error, "a media server's connection broke off"),
            Err(_) => return,
        };
        let leftover = match shaken {
            Shaken::WebSocket { leftover } => leftover,
            Shaken::Refused => return,
        };
        //= legacy-relay-wire s.1.3
        // Checked before HELLO.
        let Some(knock) = self.knocks.count(peer.ip(), Instant::now()) else {
            self.metrics.tunnels_refused.with_label_values(&["rate_limited"]).inc();
            let _ = tokio::time::timeout(FAREWELL, turn_away(&mut stream)).await;
            return;
        };
        let newcomer = Newcomer {
            address: peer.ip().to_canonical(),
            tls,
            proved: Box::new(move || {
                knock.proved();
                drop(place);
            }),
        };
        let tunnel = Arc::clone(&self.tunnels).serve_legacy(stream, leftover, newcomer);
        let mut stages = self.stages.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                biased;
                () = tunnel => {}
                () = reached(&mut stages, Stage::Dropping) => {}
            }
        });
    }
}

/// Closes a WebSocket that was granted a moment ago.
async fn turn_away<S: AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    let mut out = BytesMut::new();
    ws::close(&mut out, CloseCode::from_wire(TRY_LATER), "", None);
    stream.write_all(&out).await?;
    stream.shutdown().await
}

/// TLS for existing media servers: 1.2 and 1.3, no ALPN, of which PHP's streams know nothing.
fn of_servers(certs: &Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::clone(&*tls::viewers(certs)?);
    config.alpn_protocols.clear();
    // They never resume.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
