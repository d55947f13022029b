//! An exchange that may be asked again: another tunnel is waited for, and admission is run again.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{Method, Request, Response};
use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::ServerId;
use phlix_protocol::native::stream::StreamHeader;
use phlix_protocol::token::TunnelTicket;
use tokio::sync::broadcast::error::RecvError;

use super::super::admit::Viewer;
use super::rules::Differs;
use crate::body;
use crate::clock;
use crate::metrics::Metrics;
use crate::tunnels::activity::Activity;
use crate::tunnels::native::Tunnels;
use crate::tunnels::{LegBody, LegError, PoolKey, Tunnel, is_idempotent};
use crate::uplink::Uplink;

/// How often an exchange is asked again, its head and its rest together.
//= trust s.10
const TIMES: u8 = 3;

/// What asking again takes.
pub(crate) struct Means {
    pub(crate) tunnels: Arc<Tunnels>,
    pub(crate) uplink: Arc<Uplink>,
    pub(crate) metrics: Arc<Metrics>,
    /// How long another tunnel is waited for before there is a head, from the death of the last one.
    pub(crate) ask_again: Duration,
    /// The same where a body runs.
    pub(crate) resume: Duration,
}

/// Why an exchange did not go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("it has been asked again as often as may be")]
    TooOften,
    #[error("no other tunnel came in time")]
    NoTunnel,
    #[error("it would not be admitted any more")]
    Denied,
    #[error("the other tunnel's key or generation is another")]
    AnotherHome,
    #[error("the second answer does not continue the first: {0}")]
    Differs(#[source] Differs),
    #[error("the second answer did not come: {0}")]
    Failed(#[source] LegError),
    #[error("the right to it was withdrawn meanwhile")]
    Cut,
}

impl Lost {
    /// The label in metrics.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::TooOften => "too_often",
            Self::NoTunnel => "no_tunnel",
            Self::Denied => "denied",
            Self::AnotherHome => "another_home",
            Self::Differs(_) => "differs",
            Self::Failed(_) => "failed",
            Self::Cut => "cut",
        }
    }
}

/// One exchange whose request has no body and may be made twice.
pub(crate) struct Exchange {
    pub(super) means: Arc<Means>,
    pub(super) server: ServerId,
    host: Hostname,
    /// `None` at an open name.
    viewer: Option<Viewer>,
    pub(super) head: Parts,
    key: PoolKey,
    pub(super) activity: Arc<Activity>,
    left: u8,
}

impl Exchange {
    /// Whether a request may be made twice at all.
    pub(crate) fn is_repeatable(method: &Method) -> bool {
        is_idempotent(method)
    }

    /// `head` is the origin's, and its request has no body.
    pub(crate) fn new(
        means: &Arc<Means>,
        server: ServerId,
        viewer: Option<&Viewer>,
        head: Parts,
        key: PoolKey,
        activity: &Arc<Activity>,
    ) -> Self {
        Self {
            means: Arc::clone(means),
            server,
            host: key.host.clone(),
            viewer: viewer.cloned(),
            head,
            key,
            activity: Arc::clone(activity),
            left: TIMES,
        }
    }

    /// Asks, and asks again while tunnels die before there is a head. Says which tunnel the answer came by.
    pub(crate) async fn ask(&mut self, tunnel: &Arc<Tunnel>) -> Result<(Response<LegBody>, Arc<Tunnel>), LegError> {
        let mut tunnel = Arc::clone(tunnel);
        loop {
            match self.say(&tunnel, self.head.clone()).await {
                Ok(answer) => return Ok((answer, tunnel)),
                Err(LegError::TunnelLost) => {}
                Err(error) => return Err(error),
            }
            let found = self.elsewhere(&tunnel.ticket(), died(&tunnel) + self.means.ask_again).await;
            let outcome = found.as_ref().map_or_else(Lost::word, |_| "asked");
            self.means.metrics.resumes.with_label_values(&["head", outcome]).inc();
            match found {
                Ok(other) => {
                    tracing::info!(server.id = %self.server, "a request is asked again: its tunnel died");
                    tunnel = other;
                }
                Err(Lost::Cut) => return Err(LegError::Cut),
                Err(error) => {
                    tracing::info!(server.id = %self.server, %error, "a request is not asked again: its tunnel died");
                    return Err(LegError::TunnelLost);
                }
            }
        }
    }

    /// One request.
    pub(super) async fn say(&self, tunnel: &Arc<Tunnel>, head: Parts) -> Result<Response<LegBody>, LegError> {
        let header = StreamHeader::http(self.host.clone(), self.viewer.as_ref().map(|viewer| viewer.ticket.clone()));
        tunnel.request(self.key.clone(), header, Request::from_parts(head, body::empty()), &self.activity).await
    }

    /// Another tunnel to the same server, by the right that there is now. `home` is the ticket of the one that died.
    pub(super) async fn elsewhere(&mut self, home: &TunnelTicket, deadline: Instant) -> Result<Arc<Tunnel>, Lost> {
        self.left = self.left.checked_sub(1).ok_or(Lost::TooOften)?;
        let found = tokio::select! {
            // A right that was withdrawn ends the wait, whatever came with it.
            biased;
            () = cut(&self.activity) => return Err(Lost::Cut),
            found = tokio::time::timeout_at(deadline.into(), self.find(home)) => found.unwrap_or(Err(Lost::NoTunnel))?,
        };
        let admitted = tokio::select! {
            biased;
            () = cut(&self.activity) => return Err(Lost::Cut),
            admitted = self.is_admitted(&found) => admitted,
        };
        // The wait counts as nobody's silence.
        self.activity.touch(Instant::now());
        if admitted { Ok(found) } else { Err(Lost::Denied) }
    }

    async fn find(&self, home: &TunnelTicket) -> Result<Arc<Tunnel>, Lost> {
        let registry = &self.means.tunnels.registry;
        let mut changes = registry.changes();
        let mut events = self.means.uplink.bulletin.events();
        loop {
            changes.borrow_and_update();
            if self.means.uplink.bulletin.world().revokes_tunnel(home) {
                return Err(Lost::Denied);
            }
            if let Some(tunnel) = registry.pick(self.server) {
                return Ok(tunnel);
            }
            if registry.is_draining() {
                return Err(Lost::NoTunnel);
            }
            tokio::select! {
                Ok(()) = changes.changed() => {}
                Ok(_) | Err(RecvError::Lagged(_)) = events.recv() => {}
                else => return Err(Lost::NoTunnel),
            }
        }
    }

    /// Route and right as they are now.
    async fn is_admitted(&self, tunnel: &Tunnel) -> bool {
        let route = self.means.uplink.directory.route(&self.host).await;
        match &self.viewer {
            Some(viewer) => {
                let right = &viewer.claims;
                let good = clock::unix_now() < right.exp && !self.means.uplink.bulletin.world().revokes_viewer(right);
                good && match route {
                    Ok(route) => route.is_some_and(|route| route.server_id == self.server),
                    // As for a new request: while the control plane is away, a name is known by its tunnel's ticket.
                    Err(_) => tunnel.ticket().names.iter().any(|name| name.host == self.host),
                }
            }
            //= trust s.4.1: open needs two words
            None => {
                tunnel.says_open(&self.host)
                    && matches!(route, Ok(Some(route)) if route.server_id == self.server && super::super::is_open(&route))
            }
        }
    }
}

/// When a tunnel that was lost was lost: one that has only stalled is given up now.
pub(super) fn died(tunnel: &Tunnel) -> Instant {
    tunnel.ended_at().unwrap_or_else(Instant::now)
}

/// Completes when the right to an exchange was withdrawn.
async fn cut(activity: &Activity) {
    poll_fn(|cx| {
        activity.register(cx.waker());
        if activity.is_cut() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
