//! Viewers over TCP: HTTP/1.1 on the plain port, HTTP/1.1 and HTTP/2 over TLS.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::CONNECTION;
use http::{HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use phlix_protocol::hostname::Hostname;
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::glitches::Http2;
use super::heads::{self, Heads};
use super::io::{Timed, UnderWay, Watch};
use super::websocket::Agents;
use super::{Stage, Stages, reached};
use crate::body::ViewerBody;
use crate::config::{Limits, Timeouts};
use crate::limits::{Gauge, Place};
use crate::metrics::Metrics;
use crate::road::resolve::Door;
use crate::road::splice::Splice;
use crate::road::{Road, Visit};

/// What rustls may hold for a viewer before it asks us to wait, in bytes, and what hyper holds of an answer before it asks
/// for more. A viewer who stops reading leaves both full: with 256 KiB in its stream over WebSocket they have to stay
/// within half a MiB. Beyond 64 KiB a write saves no CPU that could be told from noise.
const TLS_BUFFER: usize = 64 * 1024;
const BUFFER: usize = 64 * 1024;

/// What may wait unsent in the kernel, in bytes. Without it, the kernel takes megabytes for a viewer who has stopped
/// reading, and a window that follows the viewer's speed grows meanwhile.
const UNSENT: u32 = 128 * 1024;

/// The doors for viewers.
pub(crate) struct Viewers {
    pub(crate) road: Arc<Road>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) gauge: Gauge,
    pub(crate) tracker: TaskTracker,
    pub(crate) stages: Stages,
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) next: AtomicU64,
    /// Who asks for a tunnel over WebSocket.
    pub(crate) agents: Arc<Agents>,
}

/// Whether a door has TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Tls,
}

impl Viewers {
    /// Takes connections until the edge finishes.
    pub(crate) async fn listen(self: Arc<Self>, listener: TcpListener, kind: Kind) {
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
                    // Out of descriptors, mostly: what is open must end before more can come.
                    tracing::warn!(%error, "can't accept connections");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(place) = self.gauge.enter(peer.ip()) else {
                self.metrics.connections_refused.inc();
                continue;
            };
            let viewers = Arc::clone(&self);
            self.tracker.spawn(async move { viewers.welcome(stream, peer, kind, place).await });
        }
    }

    async fn welcome(&self, stream: TcpStream, peer: SocketAddr, kind: Kind, _place: Place) {
        let _open = self.opened();
        // A socket that can't do without Nagle works all the same.
        let _ = stream.set_nodelay(true);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
        match kind {
            Kind::Plain => {
                self.metrics.connections.http.inc();
                self.serve_h1(stream, self.visit(peer, Door::Plain, "h1")).await;
            }
            Kind::Tls => self.welcome_tls(stream, peer).await,
        }
    }

    async fn welcome_tls(&self, stream: TcpStream, peer: SocketAddr) {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.tls));
        let handshake = acceptor.accept_with(stream, |tls| tls.set_buffer_limit(Some(TLS_BUFFER)));
        let mut stages = self.stages.clone();
        let shaken = tokio::select! {
            biased;
            () = reached(&mut stages, Stage::Finishing) => return,
            shaken = tokio::time::timeout(self.road.config.timeouts.handshake, handshake) => shaken,
        };
        let stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%error, "TLS handshake failed");
                self.metrics.handshakes_failed.inc();
                return;
            }
            Err(_) => {
                self.metrics.handshakes_failed.inc();
                return;
            }
        };
        let (_, tls) = stream.get_ref();
        let sni = match tls.server_name().map(Hostname::from_authority) {
            None => None,
            Some(Ok(sni)) => Some(sni),
            // A name that is none of ours in any case.
            Some(Err(_)) => return,
        };
        let door = Door::Tls(sni);
        if tls.alpn_protocol() == Some(b"h2") {
            self.metrics.connections.h2.inc();
            self.serve_h2(stream, self.visit(peer, door, "h2")).await;
        } else {
            self.metrics.connections.h1.inc();
            self.serve_h1(stream, self.visit(peer, door, "h1")).await;
        }
    }

    /// Counts an open connection until it is dropped.
    pub(super) fn opened(&self) -> Open<'_> {
        self.metrics.connections.open.inc();
        Open(&self.metrics)
    }

    pub(super) fn visit(&self, peer: SocketAddr, door: Door, protocol: &'static str) -> Arc<Visit> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Arc::new(Visit { peer: peer.ip(), door, protocol, number })
    }

    async fn serve_h1<S>(&self, stream: S, visit: Arc<Visit>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Limits { head_bytes, head_fields, .. } = self.road.config.limits;
        let Timeouts { keep_alive, .. } = self.road.config.timeouts;
        let under_way = UnderWay::default();
        let io = self.timed(stream, Watch::Http1(Heads::new(head_bytes)), &under_way);
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            // hyper's clock runs between requests, too; a head's own is `Timed`'s.
            .header_read_timeout(keep_alive)
            .max_headers(head_fields)
            .max_header_size(head_bytes)
            .max_buf_size(BUFFER)
            .half_close(false);
        // The upgrade that ends HTTP on this connection, and what it goes on as.
        let switched = Switched::default();
        let switching = Arc::clone(&switched);
        let service = service_fn(move |mut request: Request<Incoming>| {
            let (road, visit, token) = (Arc::clone(&self.road), Arc::clone(&visit), under_way.begin());
            let (agents, switching) = (Arc::clone(&self.agents), Arc::clone(&switching));
            async move {
                if agents.is_asked(&request) {
                    return Ok::<_, Infallible>(agents.answer(request, &visit));
                }
                // What comes after it was let through for another protocol, and is no request.
                let last = heads::ends_http(&request);
                let upgrade = hyper::upgrade::on(&mut request);
                let mut answer = road.travel(request.map(ViewerBody::Hyper), &visit, Box::new(token)).await;
                road.offer_h3(&visit, &mut answer);
                if last {
                    let splice = Splice::take(&mut answer);
                    *switching.lock().unwrap_or_else(PoisonError::into_inner) = Some((upgrade, splice));
                }
                if last && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service).with_upgrades());
        self.finish(connection.as_mut(), |connection| connection.graceful_shutdown()).await;
        let switched = switched.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((upgrade, splice)) = switched {
            match splice {
                Some(splice) => run(upgrade, splice, self.stages.clone()).await,
                // Refused: hyper hands the connection back all the same, and it is to end as TLS ends.
                None => {
                    let ending =
                        async { TokioIo::new(upgrade.await?).shutdown().await.map_err(Box::<dyn Error>::from) };
                    let _ = tokio::time::timeout(self.road.config.timeouts.handshake, ending).await;
                }
            }
        }
    }

    async fn serve_h2<S>(&self, stream: S, visit: Arc<Visit>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = &self.road.config.limits;
        let timeouts = &self.road.config.timeouts;
        let under_way = UnderWay::default();
        let watch = Watch::Http2(Http2::new(Instant::now()));
        let io = self.timed(stream, watch, &under_way);
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.h2_streams)
            .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
            // Uploads: what one stream, and all of a connection's, may send ahead of the origin.
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .max_send_buf_size(BUFFER)
            .max_frame_size(16 * 1024)
            // WebSockets (RFC 8441).
            .enable_connect_protocol()
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(timeouts.keep_alive)
            // A viewer that opens streams only to reset them is done after so many.
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(100);
        let service = service_fn(move |mut request: Request<Incoming>| {
            let (road, visit, token) = (Arc::clone(&self.road), Arc::clone(&visit), under_way.begin());
            let (tracker, stages) = (self.tracker.clone(), self.stages.clone());
            async move {
                let upgrade = hyper::upgrade::on(&mut request);
                let mut answer = road.travel(request.map(ViewerBody::Hyper), &visit, Box::new(token)).await;
                road.offer_h3(&visit, &mut answer);
                if let Some(splice) = Splice::take(&mut answer) {
                    // One stream of the connection; it ends with it.
                    tracker.spawn(run(upgrade, splice, stages));
                }
                // It would be about the whole connection, which HTTP/2 does not say so.
                answer.headers_mut().remove(CONNECTION);
                Ok::<_, Infallible>(answer)
            }
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
        self.finish(connection.as_mut(), |connection| connection.graceful_shutdown()).await;
    }

    fn timed<S>(&self, stream: S, watch: Watch, under_way: &UnderWay) -> Timed<S> {
        let Timeouts { head, viewer_stall, .. } = self.road.config.timeouts;
        Timed::new(stream, watch, Arc::clone(&self.metrics), under_way.clone(), head, viewer_stall)
    }

    /// Drives a connection to its end: finishes when the edge does, and is dropped when the edge drops.
    async fn finish<C>(&self, mut connection: std::pin::Pin<&mut C>, finish: impl FnOnce(std::pin::Pin<&mut C>))
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut stages = self.stages.clone();
        tokio::select! {
            biased;
            ended = connection.as_mut() => return log(ended),
            () = reached(&mut stages, Stage::Finishing) => finish(connection.as_mut()),
        }
        tokio::select! {
            biased;
            ended = connection => log(ended),
            () = reached(&mut stages, Stage::Dropping) => {}
        }
    }
}

/// The upgrade that was asked for on a connection over HTTP/1.1, and what came of it; `None`: it was refused.
type Switched = Arc<Mutex<Option<(OnUpgrade, Option<Splice>)>>>;

/// Moves an upgraded connection's bytes, once the viewer has its answer.
async fn run(upgrade: OnUpgrade, splice: Splice, mut stages: Stages) {
    let spliced = async {
        match upgrade.await {
            Ok(viewer) => splice.run(TokioIo::new(viewer)).await,
            Err(error) => return tracing::debug!(%error, "a viewer left before its upgrade"),
        }
        .unwrap_or_else(|error| tracing::debug!(%error, "an upgraded connection was aborted"));
    };
    tokio::select! {
        biased;
        () = spliced => {}
        () = reached(&mut stages, Stage::Dropping) => {}
    }
}

fn log(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a viewer's connection ended");
    }
}

/// An open connection.
pub(super) struct Open<'a>(&'a Metrics);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.connections.open.dec();
    }
}
