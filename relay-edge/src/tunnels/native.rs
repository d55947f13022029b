//! Native tunnels, whatever transport carries them: one connection each, one actor each.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::{Duration, Instant};

use phlix_link::{End, Health, Link, PathHealth};
use phlix_protocol::ids::TunnelId;
use phlix_protocol::native::control::{Bye, Drain, Message, RefusedCode, Update, Welcome};
use phlix_protocol::native::{VERSION, close};
use phlix_protocol::token::{self, Presence};
use phlix_protocol::uplink::OpenedTunnel;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, broadcast, watch};

use super::flows::Flows;
use super::handshake::{Control, ControlFailure, NotProved, Proved, check_ticket, prove, refusal};
use super::legacy::LegacyRegistry;
use super::pool::Pool;
use super::registry::Registry;
use super::{Patience, Slot, Tunnel};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::uplink::Uplink;
use crate::uplink::bulletin::Event;
use crate::{clock, random};

/// How often the path is looked at.
const TICK: Duration = Duration::from_millis(500);

/// Messages per minute after `welcome`: an agent says about three.
const MESSAGES_PER_MINUTE: u32 = 120;

/// The room's own state.
pub(crate) struct Tunnels {
    pub(super) config: Arc<Config>,
    pub(crate) uplink: Arc<Uplink>,
    pub(crate) registry: Registry,
    pub(crate) legacy: LegacyRegistry,
    pub(super) metrics: Arc<Metrics>,
    names: HashSet<String>,
}

impl Tunnels {
    pub(crate) fn new(config: Arc<Config>, uplink: Arc<Uplink>, metrics: Arc<Metrics>) -> Arc<Self> {
        let names = config.names.iter().chain(&config.addresses).map(|name| name.to_ascii_lowercase()).collect();
        let (registry, legacy) = (Registry::new(config.limits.tunnels), LegacyRegistry::new(config.limits.tunnels));
        Arc::new(Self { registry, legacy, names, config, uplink, metrics })
    }

    /// Whether an agent that dialled this means us.
    pub(crate) fn is_ours(&self, dialled: &str) -> bool {
        let dialled = dialled.to_ascii_lowercase();
        self.names.contains(&dialled)
            || self
                .uplink
                .bulletin
                .world()
                .edges
                .iter()
                .filter(|edge| edge.id == self.config.id)
                .any(|edge| edge.names.iter().chain(&edge.addresses).any(|name| name.eq_ignore_ascii_case(&dialled)))
    }

    /// Serves one connection from its first stream to its end. `proved` is called once the agent is known: until then it
    /// counts as a stranger.
    pub(crate) async fn serve(self: Arc<Self>, link: Link, proved: impl FnOnce()) {
        let opened = tokio::time::timeout(self.config.timeouts.hello, self.open(&link)).await;
        let (open, control) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(())) => return,
            Err(_) => {
                self.refused("handshake_timeout");
                link.close(close::HANDSHAKE_TIMEOUT, "no welcome in time");
                return;
            }
        };
        proved();
        let tunnel = &open.tunnel;
        let end = self.run(tunnel, control).await;
        tracing::info!(server.id = %tunnel.slot.server, tunnel.id = %tunnel.id, reason = end, "tunnel ended");
    }

    /// Up to and including `welcome`.
    async fn open(self: &Arc<Self>, link: &Link) -> Result<(OpenTunnel, Control), ()> {
        let Ok((send, recv)) = link.accept_control().await else { return Err(()) };
        let mut control = Control::new(send, recv);
        let entered = match prove(self, link, &mut control).await {
            Ok(proved) => self.enter(link, proved),
            Err(error) => Err(error),
        };
        let open = match entered {
            Ok(open) => open,
            Err(NotProved::Refused { code, reason, retry_after }) => {
                tracing::info!(?code, reason, "tunnel refused");
                self.refused(word(code));
                if control.say(&refusal(code, reason, retry_after)).await.is_ok() {
                    control.finish().await;
                }
                link.close(close::REFUSED, "refused");
                return Err(());
            }
            Err(NotProved::Broken(error)) => {
                tracing::info!(%error, "tunnel's handshake broke off");
                self.refused("protocol");
                link.close(close::PROTOCOL, "protocol");
                return Err(());
            }
        };
        let ticket = open.tunnel.ticket();
        let welcome = Welcome {
            version: VERSION,
            tunnel_id: open.tunnel.id,
            edge_id: self.config.id,
            region: self.config.region.clone(),
            names: ticket.names.clone(),
            limits: ticket.limits,
            now: clock::unix_now(),
        };
        if control.say(&Message::Welcome(welcome)).await.is_err() {
            return Err(());
        }
        control.established();
        link.set_receive_window(self.config.windows.receive);
        Ok((open, control))
    }

    fn enter(self: &Arc<Self>, link: &Link, proved: Proved) -> Result<OpenTunnel, NotProved> {
        let Proved { hello, ticket } = proved;
        let limits = &self.config.limits;
        let timeouts = &self.config.timeouts;
        // 0 would be a tunnel for nothing.
        let streams = (ticket.limits.streams.max(1) as usize).min(Semaphore::MAX_PERMITS);
        let head_bytes = (ticket.limits.header_bytes as usize).clamp(8 * 1024, limits.head_bytes);
        let tunnel = Arc::new(Tunnel {
            id: TunnelId::new(random::uuid()),
            slot: Slot { server: ticket.server_id, instance: hello.instance, index: hello.index },
            number: self.registry.next_number(),
            link: link.clone(),
            ticket: RwLock::new(Arc::new(ticket)),
            stalled: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            ended: OnceLock::new(),
            streams: Arc::new(Semaphore::new(streams)),
            most_streams: streams,
            flows: Flows::new(link.unread_borne(self.config.windows.receive)),
            pool: Pool::new(limits.idle_legs, timeouts.idle_leg),
            patience: Patience {
                first_byte: timeouts.first_byte,
                request_body: timeouts.request_body,
                origin_silence: timeouts.origin_silence,
            },
            head_bytes,
        });
        self.registry.enter(&tunnel)?;
        self.retire_legacy(tunnel.slot.server);
        tracing::info!(server.id = %tunnel.slot.server, tunnel.id = %tunnel.id, instance = %tunnel.slot.instance,
            index = tunnel.slot.index, agent.version = hello.agent.version, "tunnel opened over {}", link.transport());
        Ok(OpenTunnel::new(Arc::clone(self), tunnel))
    }

    /// The tunnel's life after `welcome`. Returns why it ended.
    async fn run(&self, tunnel: &Arc<Tunnel>, mut control: Control) -> &'static str {
        let mut events = self.uplink.bulletin.events();
        // What was withdrawn between the ticket's check and the subscription.
        if self.is_revoked(tunnel) {
            tunnel.close(close::REVOKED, "withdrawn");
            return "revoked";
        }
        let mut draining = self.registry.draining();
        let mut budget = Budget::new();
        let mut health = PathHealth::new(self.config.timeouts.path_stalled, self.config.timeouts.path_dead);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // In this order: the end first, then what must be stopped, then what the agent says.
            tokio::select! {
                biased;
                end = tunnel.link.closed() => return ended(&end),
                event = events.recv() => {
                    if let Some(end) = self.on_event(tunnel, &mut control, event).await {
                        return end;
                    }
                }
                () = draining_begun(&mut draining), if !tunnel.draining.load(Ordering::Relaxed) => {
                    tunnel.draining.store(true, Ordering::Relaxed);
                    let deadline_ms = u64::try_from(self.config.timeouts.drain.as_millis()).unwrap_or(u64::MAX);
                    let drain = Drain { deadline_ms, reason: "this edge is going away".into() };
                    if control.say(&Message::Drain(drain)).await.is_err() {
                        tunnel.close(close::DRAINED, "drained");
                        return "control channel ended";
                    }
                }
                received = control.next() => {
                    let handled = match received {
                        Ok(_) if !budget.take(Instant::now()) => Err(ControlFailure::Flood),
                        Ok(received) => self.on_message(tunnel, received.message).await,
                        Err(error) => Err(error),
                    };
                    match handled {
                        Ok(None) => {}
                        Ok(Some(end)) => return end,
                        Err(error) => {
                            tracing::warn!(server.id = %tunnel.slot.server, tunnel.id = %tunnel.id, %error, "tunnel closed");
                            tunnel.close(close::PROTOCOL, "protocol");
                            return "protocol";
                        }
                    }
                }
                _ = tick.tick() => {
                    let now = Instant::now();
                    tunnel.prune_idle(now);
                    let relieved = tunnel.flows.relieve(now);
                    if relieved > 0 {
                        self.metrics.relieved.inc_by(relieved as u64);
                        tracing::info!(server.id = %tunnel.slot.server, tunnel.id = %tunnel.id, streams = relieved,
                            "viewers who don't read gave way to those who do");
                    }
                    match health.observe(tunnel.link.sample(), now) {
                        Health::Moving => {
                            if tunnel.stalled.swap(false, Ordering::Relaxed) {
                                self.registry.tell_of_change();
                            }
                        }
                        Health::Stalled => {
                            if !tunnel.stalled.swap(true, Ordering::Relaxed) {
                                tracing::warn!(server.id = %tunnel.slot.server, tunnel.id = %tunnel.id,
                                    "tunnel has stalled: no new streams");
                            }
                        }
                        Health::Dead => {
                            self.metrics.tunnels_lost.on(tunnel.link.transport()).inc();
                            tunnel.close(close::DEAD_PATH, "no byte was acknowledged");
                            return "dead path";
                        }
                    }
                }
            }
        }
    }

    async fn on_event(
        &self,
        tunnel: &Tunnel,
        control: &mut Control,
        event: Result<Event, broadcast::error::RecvError>,
    ) -> Option<&'static str> {
        let names = match event {
            Ok(Event::Names(server, hosts)) if server == tunnel.slot.server => Some(hosts.to_vec()),
            Ok(Event::Names(..)) => None,
            // Missed something: judge anew, and let the agent fetch what may have changed.
            Ok(Event::All) | Err(RecvError::Lagged(_)) => {
                if self.is_revoked(tunnel) {
                    tunnel.close(close::REVOKED, "withdrawn");
                    return Some("revoked");
                }
                Some(tunnel.ticket().names.iter().map(|name| name.host.clone()).collect())
            }
            Ok(Event::Rights) => {
                if self.is_revoked(tunnel) {
                    tunnel.close(close::REVOKED, "withdrawn");
                    return Some("revoked");
                }
                tunnel.forget_idle();
                None
            }
            Err(RecvError::Closed) => None,
        };
        let names = names?;
        let update = Message::Update(Update { names: Some(names), limits: None });
        if control.say(&update).await.is_err() {
            tunnel.close(close::PROTOCOL, "control channel is not read");
            return Some("control channel ended");
        }
        None
    }

    async fn on_message(&self, tunnel: &Tunnel, message: Message) -> Result<Option<&'static str>, ControlFailure> {
        match message {
            Message::Presence(presence) => {
                let key = tunnel.ticket().cnf.jwk;
                let claims: Presence = token::verify_self(&presence.statement, &key, clock::unix_now())
                    .map_err(|_| ControlFailure::OutOfTurn)?;
                let ours = claims.server_id == tunnel.slot.server
                    && claims.edge_id == self.config.id
                    && claims.tunnel_id == tunnel.id;
                if !ours {
                    return Err(ControlFailure::OutOfTurn);
                }
                self.uplink.reports.opened(OpenedTunnel {
                    server_id: tunnel.slot.server,
                    tunnel_id: tunnel.id,
                    statement: Some(presence.statement),
                    legacy: None,
                });
                Ok(None)
            }
            Message::Ticket(fresh) => {
                match check_ticket(self, &fresh.ticket).await {
                    Ok(ticket) => {
                        let known = tunnel.ticket();
                        let same = ticket.server_id == known.server_id && ticket.cnf == known.cnf;
                        if !same {
                            return Err(ControlFailure::OutOfTurn);
                        }
                        // Two tickets may cross on their way: the later one stays.
                        if (ticket.generation, ticket.rev, ticket.iat) >= (known.generation, known.rev, known.iat) {
                            tunnel.set_ticket(Arc::new(ticket));
                        }
                    }
                    // The tunnel does not end with a ticket: it goes on with the one it has.
                    Err(error) => {
                        tracing::warn!(server.id = %tunnel.slot.server, %error, "a tunnel's fresh ticket was refused");
                    }
                }
                Ok(None)
            }
            Message::Report(report) => {
                tracing::debug!(server.id = %tunnel.slot.server, tunnel.id = %tunnel.id, origin.up = report.origin_up,
                    rtt_us = report.rtt_us, upload_bps = report.upload_bps, "agent reports");
                Ok(None)
            }
            Message::Bye(Bye { reason }) => {
                tracing::debug!(server.id = %tunnel.slot.server, tunnel.id = %tunnel.id, reason, "agent leaves");
                tunnel.close(close::BYE, "bye");
                Ok(Some("bye"))
            }
            Message::Hello(_)
            | Message::Challenge(_)
            | Message::Proof(_)
            | Message::Welcome(_)
            | Message::Refused(_)
            | Message::Update(_)
            | Message::Drain(_) => Err(ControlFailure::OutOfTurn),
        }
    }

    fn is_revoked(&self, tunnel: &Tunnel) -> bool {
        self.uplink.bulletin.world().revokes_tunnel(&tunnel.ticket())
    }

    fn refused(&self, code: &str) {
        self.metrics.tunnels_refused.with_label_values(&[code]).inc();
    }
}

/// A tunnel that is counted, listed and reported, until it is dropped.
struct OpenTunnel {
    tunnels: Arc<Tunnels>,
    tunnel: Arc<Tunnel>,
}

impl OpenTunnel {
    fn new(tunnels: Arc<Tunnels>, tunnel: Arc<Tunnel>) -> Self {
        let transport = tunnel.link.transport();
        tunnels.metrics.tunnels_opened.on(transport).inc();
        tunnels.metrics.tunnels.on(transport).inc();
        Self { tunnels, tunnel }
    }
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.tunnel.close(close::BYE, "bye");
        self.tunnels.registry.leave(&self.tunnel);
        self.tunnels.uplink.reports.closed(self.tunnel.id);
        self.tunnels.metrics.tunnels.on(self.tunnel.link.transport()).dec();
    }
}

/// Waits until the edge drains.
async fn draining_begun(draining: &mut watch::Receiver<bool>) {
    if draining.wait_for(|draining| *draining).await.is_err() {
        // The registry is gone, and this tunnel with it.
        std::future::pending().await
    }
}

/// How many messages an agent may still say: so many per minute, so many at once.
struct Budget {
    left: f64,
    since: Option<Instant>,
}

impl Budget {
    fn new() -> Self {
        Self { left: f64::from(MESSAGES_PER_MINUTE), since: None }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = self.since.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64());
        self.since = Some(now);
        let whole = f64::from(MESSAGES_PER_MINUTE);
        self.left = (self.left + passed * whole / 60.0).min(whole) - 1.0;
        self.left >= 0.0
    }
}

fn ended(end: &End) -> &'static str {
    match end {
        End::Peer { .. } => "closed by the agent",
        End::Local => "closed by this edge",
        End::TimedOut => "idle time-out",
        End::Reset => "reset",
        End::Broken(_) => "protocol",
        End::Lost(_) => "lost",
    }
}

/// The code as metrics label it.
fn word(code: RefusedCode) -> &'static str {
    match code {
        RefusedCode::Unauthorized => "unauthorized",
        RefusedCode::Expired => "expired",
        RefusedCode::WrongEdge => "wrong_edge",
        RefusedCode::Version => "version",
        RefusedCode::RateLimited => "rate_limited",
        RefusedCode::Draining => "draining",
        RefusedCode::OverLimit => "over_limit",
        RefusedCode::Internal => "internal",
        RefusedCode::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_may_say_so_much_a_minute() {
        let start = Instant::now();
        let mut budget = Budget::new();
        assert!((0..MESSAGES_PER_MINUTE).all(|_| budget.take(start)));
        assert!(!budget.take(start));
        assert!(budget.take(start + Duration::from_secs(2)));
    }
}
