//! Tunnels of existing media servers, who speak the legacy wire (legacy-relay-wire).
//!
//! Beside native tunnels, not among them: heads, identity and scope differ, so the road picks by the server's kind. What a
//! tunnel may say and when is `phlix_protocol::legacy`'s, which knows no socket; here one task owns the socket, and whoever
//! carries a request shares the state with it.

mod channel;
mod driver;
mod exchange;
mod open;
pub(crate) mod registry;
mod shared;
mod socket;
mod upgrade;
mod verify;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use http::{Request, Response};
use phlix_protocol::ids::{ServerId, TunnelId};
use phlix_protocol::legacy::http::RequestHead;
use phlix_protocol::legacy::tunnel::{Config as MachineConfig, Tunnel as Machine};
use phlix_protocol::token::Enrollment;
use phlix_protocol::ws::CloseCode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use uuid::Uuid;

pub(crate) use self::channel::{Broken, Channel};
use self::driver::Driver;
pub(crate) use self::exchange::{LegacyBody, LegacyError};
pub(crate) use self::open::Newcomer;
pub(crate) use self::registry::LegacyRegistry;
use self::shared::{End, Farewell, Shared};
pub(crate) use self::socket::Socket;
pub(crate) use self::upgrade::LegacyAnswered;
use super::activity::Activity;
use super::native::Tunnels;
use crate::body::Body;
use crate::config::{Legacy, Timeouts};
use crate::metrics::Metrics;
use crate::uplink::bulletin::Event;

/// One open tunnel of an existing media server.
pub(crate) struct LegacyTunnel {
    pub(crate) id: TunnelId,
    pub(crate) server: ServerId,
    enrollment: Enrollment,
    tls: bool,
    draining: AtomicBool,
    shared: Arc<Shared>,
    limits: Limits,
    metrics: Arc<Metrics>,
}

/// What an exchange needs to know of the settings.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// At once.
    requests: usize,
    /// Bytes of a request's body.
    request_body: u64,
    /// Nothing of it from the viewer.
    request_body_wait: Duration,
}

impl LegacyTunnel {
    /// Carries one request and brings the answer's head; its body goes on in `LegacyBody`. `patience` is how long the home
    /// may take to its first byte, and how long it may be silent afterwards while the viewer waits. `activity` is told of
    /// each byte that moves.
    pub(crate) async fn request(
        self: &Arc<Self>,
        head: RequestHead,
        body: Body,
        patience: Duration,
        activity: &Arc<Activity>,
    ) -> Result<Response<LegacyBody>, LegacyError> {
        exchange::request(self, head, body, patience, activity).await
    }

    /// Opens a raw channel for a client. `activity` is told of each byte that moves.
    pub(crate) fn connect(self: &Arc<Self>, client: Uuid, activity: &Arc<Activity>) -> Result<Channel, LegacyError> {
        Channel::open(self, client, activity)
    }

    /// Asks the server's own port for an upgrade, over a raw channel. `patience` is how long it may take to answer.
    pub(crate) async fn upgrade(
        self: &Arc<Self>,
        request: Request<Body>,
        patience: Duration,
        activity: &Arc<Activity>,
    ) -> Result<LegacyAnswered, LegacyError> {
        upgrade::upgrade(self, request, patience, activity).await
    }

    /// How many requests it carries at once.
    pub(crate) fn streams(&self) -> usize {
        self.limits.requests
    }

    /// Whether new requests may come here.
    pub(crate) fn usable(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && !self.closed()
    }

    /// Whether the tunnel is gone.
    pub(crate) fn closed(&self) -> bool {
        self.shared.see(|state| state.end.is_some())
    }

    /// A newer tunnel of the same server took over.
    //= legacy-relay-wire s.4
    fn give_way(&self, grace: Duration) {
        self.drain(grace, End { why: "server_replaced", farewell: Farewell::Code(CloseCode::NORMAL) });
    }

    /// This edge goes away.
    fn send_elsewhere(&self, grace: Duration) {
        self.drain(grace, End { why: "draining", farewell: Farewell::by_number(1012) });
    }

    fn drain(&self, grace: Duration, end: End) {
        self.draining.store(true, Ordering::Relaxed);
        if grace.is_zero() {
            self.shared.close(end);
        } else {
            self.shared.drain(grace, end);
        }
    }

    fn revoke(&self) {
        self.shared.close(End { why: "revoked", farewell: Farewell::by_number(4401) });
    }
}

impl Tunnels {
    /// Serves a WebSocket of an existing media server to its end. `leftover` was read behind its handshake.
    pub(crate) async fn serve_legacy<S>(self: Arc<Self>, io: S, leftover: BytesMut, newcomer: Newcomer)
    where
        S: Socket + AsyncRead + AsyncWrite + Unpin,
    {
        let machine = Machine::new(machine(&self.config.legacy, &self.config.timeouts), Instant::now().into_std());
        let shared = Arc::new(Shared::new(machine));
        Driver::new(io, leftover, self, shared, newcomer).await;
    }

    /// Withdraws tunnels as the bulletin withdraws their rights, for ever.
    pub(crate) async fn watch_legacy(self: Arc<Self>) {
        let mut events = self.uplink.bulletin.events();
        loop {
            match events.recv().await {
                Ok(Event::Rights | Event::All) | Err(RecvError::Lagged(_)) => {
                    let world = self.uplink.bulletin.world();
                    for tunnel in self.legacy.all() {
                        let gone = world.revokes_enrollment(&tunnel.enrollment)
                            || (!tunnel.tls && world.is_tls_only(tunnel.server));
                        if gone {
                            tunnel.revoke();
                        }
                    }
                }
                Ok(Event::Names(..)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// A native tunnel of this server came: its legacy ones are no longer needed.
    pub(super) fn retire_legacy(&self, server: ServerId) {
        for tunnel in self.legacy.of(server) {
            tunnel.give_way(self.config.legacy.drain_grace);
        }
    }

    /// The edge goes away: no tunnel is let in any more, and those that are there end as soon as nothing runs on them.
    pub(crate) fn drain_legacy(&self) {
        self.legacy.close_door();
        for tunnel in self.legacy.all() {
            tunnel.send_elsewhere(self.config.timeouts.drain);
        }
    }

    /// Whatever still runs is over.
    pub(crate) fn close_legacy(&self) {
        for tunnel in self.legacy.all() {
            tunnel.send_elsewhere(Duration::ZERO);
        }
    }
}

fn machine(legacy: &Legacy, timeouts: &Timeouts) -> MachineConfig {
    MachineConfig {
        hello: timeouts.hello,
        heartbeat: legacy.heartbeat,
        ping: legacy.ping,
        silence: legacy.silence,
        stream_queue: legacy.stream_queue,
        tunnel_queue: legacy.tunnel_queue,
        pause: legacy.pause,
        max_requests: legacy.requests,
        channel_idle: legacy.idle_channel,
        ..MachineConfig::default()
    }
}
