//! From a stranger's HELLO to a tunnel that is listed, counted and reported, until it is dropped.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use phlix_protocol::ids::TunnelId;
use phlix_protocol::legacy::handshake::{Hello, HelloAck};
use phlix_protocol::legacy::tunnel::Counts;
use phlix_protocol::uplink::{LegacyOpening, OpenedTunnel};
use tokio::time::Instant;

use super::shared::{End, Farewell, Shared};
use super::verify::{NotAdmitted, verify};
use super::{LegacyTunnel, Limits};
use crate::random;
use crate::tunnels::native::Tunnels;

/// Who knocked, before it has said who it is.
pub(crate) struct Newcomer {
    pub(crate) address: IpAddr,
    /// Whether it came over TLS.
    pub(crate) tls: bool,
    /// Called once it is known: until then it counts as a stranger.
    pub(crate) proved: Box<dyn FnOnce() + Send>,
}

/// A server's tunnel.
pub(super) struct OpenTunnel {
    tunnels: Arc<Tunnels>,
    tunnel: Arc<LegacyTunnel>,
    /// What of the machine's counts is in the metrics.
    counted: Counts,
    queued: usize,
}

impl OpenTunnel {
    /// Lets the newcomer in, in the place of its own former tunnel, or says as what it ends. A refused one has changed
    /// nothing.
    //= legacy-relay-wire s.4
    pub(super) fn admit(
        tunnels: &Arc<Tunnels>,
        shared: &Arc<Shared>,
        hello: &Hello,
        newcomer: Newcomer,
    ) -> Result<Self, End> {
        let Newcomer { address, tls, proved } = newcomer;
        let refused = |why: NotAdmitted| {
            tracing::info!(reason = %why, "a media server's tunnel was refused");
            tunnels.metrics.tunnels_refused.with_label_values(&[why.word()]).inc();
            End { why: why.word(), farewell: farewell(why) }
        };
        let enrollment = verify(tunnels, hello, tls).map_err(refused)?;
        let tunnel = Arc::new(LegacyTunnel {
            id: TunnelId::new(random::uuid()),
            server: enrollment.server_id,
            enrollment,
            tls,
            draining: AtomicBool::new(false),
            shared: Arc::clone(shared),
            limits: Limits {
                requests: tunnels.config.legacy.requests,
                request_body: tunnels.config.legacy.request_body,
                request_body_wait: tunnels.config.timeouts.request_body,
            },
            metrics: Arc::clone(&tunnels.metrics),
        });
        let incumbents = tunnels.legacy.enter(&tunnel).map_err(|error| {
            tracing::warn!(%error, "a media server's tunnel was not let in");
            refused(NotAdmitted::Later("this edge takes no more tunnels"))
        })?;
        proved();
        let ack = HelloAck { relay_session_id: random::uuid(), tunnel_id: tunnel.id, caps: &[] };
        shared.drive(|state| state.machine.accept(&ack, Instant::now().into_std()));
        for incumbent in &incumbents {
            incumbent.give_way(tunnels.config.legacy.drain_grace);
        }
        tunnels.uplink.reports.opened(OpenedTunnel {
            server_id: tunnel.server,
            tunnel_id: tunnel.id,
            statement: None,
            legacy: Some(LegacyOpening { tls, address }),
        });
        tunnels.metrics.legacy.open.inc();
        tunnels.metrics.legacy.opened.inc();
        tracing::info!(server.id = %tunnel.server, tunnel.id = %tunnel.id, tls, replaces = incumbents.len(),
            "media server's tunnel opened");
        Ok(Self { tunnels: Arc::clone(tunnels), tunnel, counted: Counts::default(), queued: 0 })
    }

    /// Brings the metrics up to date.
    pub(super) fn count(&mut self) {
        let (counts, queued) = self.tunnel.shared.see(|state| (state.machine.counts(), state.machine.queued()));
        let metrics = &self.tunnels.metrics.legacy;
        metrics.pauses.inc_by(counts.pauses - self.counted.pauses);
        metrics.stalled.inc_by(counts.stalled - self.counted.stalled);
        metrics.dropped.inc_by(counts.dropped_frames - self.counted.dropped_frames);
        metrics.queued.add(delta(self.queued, queued));
        self.counted = counts;
        self.queued = queued;
    }

    /// It has ended; nothing of it is left when this returns.
    pub(super) fn ended(self, why: &'static str) {
        self.tunnels.metrics.legacy.ended.with_label_values(&[why]).inc();
        tracing::info!(server.id = %self.tunnel.server, tunnel.id = %self.tunnel.id, reason = why,
            "media server's tunnel ended");
    }
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.tunnels.legacy.leave(&self.tunnel);
        self.tunnels.uplink.reports.closed(self.tunnel.id);
        self.tunnels.metrics.legacy.open.dec();
        self.tunnels.metrics.legacy.queued.add(delta(self.queued, 0));
    }
}

fn delta(before: usize, after: usize) -> i64 {
    i64::try_from(after).unwrap_or(i64::MAX) - i64::try_from(before).unwrap_or(i64::MAX)
}

//= legacy-relay-wire s.1.3
fn farewell(why: NotAdmitted) -> Farewell {
    match why {
        NotAdmitted::Unauthorized(_) => Farewell::by_number(4401),
        NotAdmitted::Later(_) => Farewell::by_number(1013),
    }
}
