//! The door for agents that come by TCP: `GET /tunnel` with an upgrade to WebSocket, on the port of viewers.
//!
//! Over our own TLS, the proof is bound to the connection. Behind a proxy that terminates TLS, where the edge is configured
//! so and the hub's list says so, an agent comes to the plain port by that proxy and its proof is bound to nothing
//! (trust s.3).

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use phlix_link::{Link, Side};
use phlix_protocol::native::{self, EXPORTER_LABEL, WEBSOCKET_PATH, WEBSOCKET_PROTOCOL};
use phlix_protocol::ws::handshake;
use rustls::ProtocolVersion;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;

use super::io::Timed;
use super::{Stage, Stages, reached};
use crate::body::{self, Body};
use crate::config::Config;
use crate::limits::{Gauge, Place};
use crate::metrics::Metrics;
use crate::road::Visit;
use crate::road::caller::caller;
use crate::road::resolve::Door;
use crate::tunnels::native::Tunnels;

/// For a close to leave the machine.
const FAREWELL: Duration = Duration::from_secs(1);

/// The door.
pub(crate) struct Agents {
    pub(crate) tunnels: Arc<Tunnels>,
    pub(crate) config: Arc<Config>,
    pub(crate) metrics: Arc<Metrics>,
    /// Connections that have not proved who they are: the same count as QUIC's.
    pub(crate) unproven: Gauge,
    pub(crate) tracker: TaskTracker,
    pub(crate) stages: Stages,
}

/// How an agent's connection is told from others.
enum Bound {
    /// By the TLS that ends here.
    Tls,
    /// Not at all.
    Not,
}

impl Agents {
    /// Whether a request is an agent's: by its path, its upgrade, and a host that is this edge's own.
    pub(super) fn is_asked<B>(&self, request: &Request<B>) -> bool {
        request.uri().path() == WEBSOCKET_PATH
            && request.method() == Method::GET
            && request.headers().contains_key(UPGRADE)
            && host(request).is_some_and(|host| self.tunnels.is_ours(&host))
    }

    /// Answers an agent; the tunnel goes on in a task of its own.
    pub(super) fn answer(self: &Arc<Self>, mut request: Request<Incoming>, visit: &Visit) -> Response<Body> {
        let Some(bound) = self.bound(&request, visit) else {
            return refused(StatusCode::FORBIDDEN, "Tunnels need TLS.\n");
        };
        let fields = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let granted = match handshake::check_request(fields, Some(WEBSOCKET_PROTOCOL)) {
            Ok(granted) => granted,
            Err(error) => {
                tracing::debug!(%error, "no WebSocket handshake");
                return refused(StatusCode::BAD_REQUEST, "Not the handshake of a tunnel.\n");
            }
        };
        let address =
            caller(request.headers(), visit.peer, matches!(visit.door, Door::Tls(_)), &self.config.trusted_proxies);
        let Some(place) = self.unproven.enter(address.address) else {
            self.metrics.connections_refused.inc();
            return refused(StatusCode::SERVICE_UNAVAILABLE, "Too many strangers at this door.\n");
        };
        let Ok(accept) = HeaderValue::try_from(granted.accept) else {
            return refused(StatusCode::INTERNAL_SERVER_ERROR, "");
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let agents = Arc::clone(self);
        self.tracker.spawn(async move { agents.serve(upgrade, bound, place).await });
        let mut answer = Response::new(body::empty());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(WEBSOCKET_PROTOCOL));
        answer
    }

    fn bound<B>(&self, request: &Request<B>, visit: &Visit) -> Option<Bound> {
        match visit.door {
            Door::Tls(_) => Some(Bound::Tls),
            Door::Plain | Door::Proxied => {
                let caller = caller(request.headers(), visit.peer, false, &self.config.trusted_proxies);
                let by_proxy = self.config.trusted_proxies.iter().any(|net| net.contains(&visit.peer.to_canonical()));
                (self.config.behind_proxy && by_proxy && caller.https).then_some(Bound::Not)
            }
        }
    }

    async fn serve(&self, upgrade: OnUpgrade, bound: Bound, place: Place) {
        let mut stages = self.stages.clone();
        // Within the time of a handshake the answer is out, or the agent has gone.
        let upgraded = match tokio::time::timeout(self.config.timeouts.handshake, upgrade).await {
            Ok(Ok(upgraded)) => upgraded,
            Ok(Err(error)) => return tracing::debug!(%error, "an agent's upgrade broke off"),
            Err(_) => return,
        };
        let Some(link) = link(upgraded, &bound) else {
            self.metrics.handshakes_failed.inc();
            return;
        };
        let tunnel = Arc::clone(&self.tunnels).serve(link.clone(), move || drop(place));
        tokio::select! {
            biased;
            () = tunnel => {}
            () = reached(&mut stages, Stage::Dropping) => link.close(native::close::DRAINED, "drained"),
        }
        let _ = tokio::time::timeout(FAREWELL, link.flushed()).await;
    }
}

/// Takes the connection out of hyper's hands.
fn link(upgraded: Upgraded, bound: &Bound) -> Option<Link> {
    match bound {
        Bound::Tls => {
            let parts = upgraded.downcast::<TokioIo<Timed<TlsStream<TcpStream>>>>().ok()?;
            let stream = parts.io.into_inner().into_inner();
            let (socket, tls) = stream.get_ref();
            phlix_link::tune(socket);
            // TLS 1.2 has no exporter that can be relied on (RFC 7627 s.6).
            if tls.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
                tracing::debug!("an agent came by TLS 1.2");
                return None;
            }
            let exporter = tls.export_keying_material([0; 32], EXPORTER_LABEL, Some(b"")).ok()?;
            Some(Link::websocket(stream, Side::Edge, BytesMut::from(&*parts.read_buf), Some(exporter), unmasked))
        }
        Bound::Not => {
            let parts = upgraded.downcast::<TokioIo<Timed<TcpStream>>>().ok()?;
            let stream = parts.io.into_inner().into_inner();
            phlix_link::tune(&stream);
            Some(Link::websocket(stream, Side::Edge, BytesMut::from(&*parts.read_buf), None, unmasked))
        }
    }
}

/// A server's frames have no mask (RFC 6455 s.5.1).
fn unmasked() -> [u8; 4] {
    [0; 4]
}

/// The host that was asked for, without port and brackets.
fn host<B>(request: &Request<B>) -> Option<String> {
    let authority: http::uri::Authority = request.headers().get(HOST)?.to_str().ok()?.parse().ok()?;
    Some(authority.host().trim_matches(['[', ']']).to_owned())
}

fn refused(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut answer = Response::new(body::full(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}
