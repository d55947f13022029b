//! The doors of the legacy wire, bare WebSockets, plain or over TLS on the same port: 8802 for existing media servers, at
//! `/` (legacy-relay-wire s.1), and 8803 for raw clients of theirs, at `/client/{server_id}` (s.3.2).
//!
//! A server that gets the 101 is a stranger until its first message has proved otherwise; what follows is the tunnel's own
//! task (`tunnels::legacy`), which nothing here outlives. A client has said in its handshake all that there is to judge,
//! and is answered by the 101 and, where it is refused, a close code.

mod clients;
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
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use self::clients::Client;
use self::handshake::{Asked, No, Shaken, Welcome};
use self::knocks::{Knock, Knocks};
use super::tls::{self, TlsError};
use super::{Stage, Stages, reached};
use crate::config::Config;
use crate::limits::{Gauge, Place};
use crate::metrics::Metrics;
use crate::road::Road;
use crate::tunnels::legacy::{Newcomer, Socket};
use crate::tunnels::native::Tunnels;

/// First byte of a TLS record that holds a handshake (RFC 8446 s.5.1). No HTTP request begins with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// Try again later (IANA's registry of close codes): too many connections, or an edge that can't judge yet.
//= legacy-relay-wire s.1.3
const TRY_LATER: u16 = 1013;

/// What somebody is told who looks for another path at the servers' door.
const NOT_THE_ROOT: &str = "Media servers connect to the root of this port.\n";

/// For a refusal to leave the machine.
const FAREWELL: Duration = Duration::from_secs(1);

/// Who comes by a door.
pub(crate) enum Behind {
    /// Existing media servers.
    Servers(Arc<Tunnels>),
    /// Raw clients.
    Clients(Arc<Road>),
}

/// A door.
pub(crate) struct Door {
    behind: Behind,
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    tls: Arc<ServerConfig>,
    knocks: Knocks,
    /// Connections that have not proved who they are: the same count as agents'.
    unproven: Gauge,
    tracker: TaskTracker,
    stages: Stages,
}

impl Door {
    pub(crate) fn new(
        behind: Behind,
        config: Arc<Config>,
        metrics: Arc<Metrics>,
        unproven: Gauge,
        tracker: TaskTracker,
        stages: Stages,
    ) -> Result<Self, TlsError> {
        let certs = config.legacy.certs.as_ref().unwrap_or(&config.server_certs);
        let tls = of_bare(certs)?;
        for (of, bytes) in [("stream", config.legacy.stream_queue), ("tunnel", config.legacy.tunnel_queue)] {
            let gauge = metrics.legacy.budgets.with_label_values(&[of]);
            gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        let (most, window) = match &behind {
            Behind::Servers(_) => (config.legacy.connects, config.legacy.connects_window),
            Behind::Clients(_) => (config.legacy.mounts, config.legacy.mounts_window),
        };
        let knocks = Knocks::new(most, window);
        Ok(Self { behind, config, metrics, tls, knocks, unproven, tracker, stages })
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
                    tracing::warn!(%error, "can't accept connections of the legacy wire");
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
                // A line that a browser shows; a peer sees a connection that closes, as with upstream's wss.
                let _ = tokio::time::timeout(FAREWELL, handshake::refuse_plain(stream)).await;
                return;
            }
            return self.shake(stream, peer, false, place).await;
        }
        let acceptor = TlsAcceptor::from(Arc::clone(&self.tls));
        match tokio::time::timeout(patience, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => self.shake(stream, peer, true, place).await,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake of the legacy wire failed");
                self.metrics.handshakes_failed.inc();
            }
            Err(_) => self.metrics.handshakes_failed.inc(),
        }
    }

    /// The WebSocket's handshake; what follows goes on in a task of its own.
    async fn shake<S>(&self, mut stream: S, peer: SocketAddr, tls: bool, place: Place)
    where
        S: Socket + AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match &self.behind {
            Behind::Servers(tunnels) => {
                let Some(((), leftover)) = self.upgrade(&mut stream, servers_path).await else { return };
                //= legacy-relay-wire s.1.3
                // Checked before HELLO.
                let Some(knock) = self.knock(&mut stream, peer).await else { return };
                let newcomer = Newcomer {
                    address: peer.ip().to_canonical(),
                    tls,
                    proved: Box::new(move || {
                        knock.proved();
                        drop(place);
                    }),
                };
                self.serve_server(tunnels, stream, leftover, newcomer);
            }
            Behind::Clients(road) => {
                let Some((client, leftover)) = self.upgrade(&mut stream, clients::client).await else { return };
                //= legacy-relay-wire s.3.2
                // The order: path, rate limit, token, ownership, tunnel.
                if self.knock(&mut stream, peer).await.is_some() {
                    self.serve_client(road, stream, leftover, client, peer, place).await;
                }
            }
        }
    }

    /// Answers the one request; `None` where that was all.
    async fn upgrade<S, T>(
        &self,
        stream: &mut S,
        path: impl Fn(&Asked<'_, '_>) -> Result<Welcome<T>, No>,
    ) -> Option<(T, BytesMut)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match tokio::time::timeout(self.config.timeouts.head, handshake::shake(stream, path)).await {
            Ok(Ok(Shaken::WebSocket { asked, leftover })) => Some((asked, leftover)),
            Ok(Ok(Shaken::Refused)) | Err(_) => None,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a connection of the legacy wire broke off");
                None
            }
        }
    }

    /// Counts who comes; `None` where an address has had its share and was told so.
    async fn knock<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut S, peer: SocketAddr) -> Option<Knock> {
        let knock = self.knocks.count(peer.ip(), Instant::now());
        if knock.is_none() {
            match &self.behind {
                Behind::Servers(_) => self.metrics.tunnels_refused.with_label_values(&["rate_limited"]).inc(),
                Behind::Clients(_) => self.metrics.refusals.with_label_values(&["mount.rate_limited"]).inc(),
            }
            turn_away(stream, CloseCode::from_wire(TRY_LATER)).await;
        }
        knock
    }

    fn serve_server<S>(&self, tunnels: &Arc<Tunnels>, stream: S, leftover: BytesMut, newcomer: Newcomer)
    where
        S: Socket + AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let tunnel = Arc::clone(tunnels).serve_legacy(stream, leftover, newcomer);
        let mut stages = self.stages.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                biased;
                () = tunnel => {}
                () = reached(&mut stages, Stage::Dropping) => {}
            }
        });
    }

    async fn serve_client<S>(
        &self,
        road: &Road,
        mut stream: S,
        leftover: BytesMut,
        client: Client,
        peer: SocketAddr,
        place: Place,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let session = match road.mount(client.token.as_deref(), client.server, peer.ip()).await {
            Ok(session) => session,
            Err(why) => {
                self.metrics.refusals.with_label_values(&[why.word()]).inc();
                return turn_away(&mut stream, Some(why.close_code())).await;
            }
        };
        drop(place);
        let mut stages = self.stages.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                biased;
                () = session.serve(stream, leftover) => {}
                // Its tunnel has ended, which it is told.
                () = async {
                    reached(&mut stages, Stage::Dropping).await;
                    tokio::time::sleep(FAREWELL).await;
                } => {}
            }
        });
    }
}

/// Existing media servers connect to the bare root; a query does no harm.
//= legacy-relay-wire s.1
fn servers_path(request: &Asked<'_, '_>) -> Result<Welcome<()>, No> {
    match request.path.unwrap_or_default().split('?').next() {
        Some("/") => Ok(Welcome { asked: (), subprotocol: None }),
        _ => Err(No::NotHere(NOT_THE_ROOT)),
    }
}

/// Closes a WebSocket that was granted a moment ago, and waits for the other end to have heard it: a socket that is closed
/// with bytes unread resets, and the code would be lost.
async fn turn_away<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, code: Option<CloseCode>) {
    let telling = async {
        let mut out = BytesMut::new();
        ws::close(&mut out, code, "", None);
        stream.write_all(&out).await?;
        stream.shutdown().await?;
        let mut said = [0; 1024];
        while stream.read(&mut said).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    let _ = tokio::time::timeout(FAREWELL, telling).await;
}

/// TLS for bare WebSockets: 1.2 and 1.3, no ALPN, of which PHP's streams know nothing.
fn of_bare(certs: &Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::clone(&*tls::viewers(certs)?);
    config.alpn_protocols.clear();
    // Media servers never resume.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
