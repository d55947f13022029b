//! One open tunnel: its control channel, its timers, its pulse.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use phlix_protocol::ids::EdgeId;
use phlix_protocol::native::close;
use phlix_protocol::native::control::{Bye, Message, Presence, Report, Ticket, Welcome};
use phlix_protocol::token;
use quinn::{Connection, ConnectionError, Endpoint, VarInt};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::handshake::Control;
use super::quic::Connected;
use crate::serve;
use crate::shared::{Credentials, Shared};

/// Between two looks at the pulse.
const PULSE: Duration = Duration::from_secs(1);

/// Between two reports, however often the origin changes.
const BETWEEN_REPORTS: Duration = Duration::from_secs(2);

/// Longest that a drained tunnel is kept for what still runs in it, whatever the edge says.
const LONGEST_DRAIN: Duration = Duration::from_secs(3600);

/// A drained tunnel without streams is kept this long.
const DRAIN_SETTLES: Duration = Duration::from_secs(2);

/// What the dialler must know of a tunnel.
pub(super) enum Left {
    /// Still open, but the next one is wanted at once.
    Draining {
        reason: String,
    },
    Closed {
        reason: String,
    },
}

/// An open tunnel.
pub(super) struct Tunnel {
    shared: Arc<Shared>,
    edge: EdgeId,
    /// Whose ticket the edge has.
    credentials: Arc<Credentials>,
    endpoint: Endpoint,
    connection: Connection,
    control: Control,
    welcome: Welcome,
    /// Streams that are open in this tunnel.
    open: Arc<AtomicUsize>,
    /// Told once: when it drains, or when it has ended.
    left: Option<oneshot::Sender<Left>>,
}

/// How a tunnel ends.
enum End {
    /// The agent is being stopped.
    Stopped,
    /// The edge said `bye`.
    Bye(String),
    /// What ran has finished, or the deadline has come.
    Drained,
    DeadPath,
    Protocol(String),
    Lost(String),
}

impl Tunnel {
    pub(super) fn new(
        shared: Arc<Shared>,
        edge: EdgeId,
        credentials: Arc<Credentials>,
        connected: Connected,
    ) -> (Self, oneshot::Receiver<Left>) {
        let (left, receiver) = oneshot::channel();
        let Connected { endpoint, connection, control, welcome } = connected;
        let open = Arc::default();
        (Self { shared, edge, credentials, endpoint, connection, control, welcome, open, left: Some(left) }, receiver)
    }

    /// Runs until it ends; says goodbye.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let streams = self.welcome.limits.streams.min(self.shared.config.limits.streams);
        self.connection.set_max_concurrent_bi_streams(VarInt::from_u32(streams));
        let open = Arc::clone(&self.open);
        let accepting = tokio::spawn(serve::accept(Arc::clone(&self.shared), self.connection.clone(), open));
        let accepting = AbortOnDrop(accepting);

        let end = self.live(&stop).await;
        drop(accepting);
        let (code, reason) = match end {
            End::Stopped => {
                let _ = self.control.send(&Message::Bye(Bye { reason: "the agent stops".into() })).await;
                self.control.finish();
                // An edge that has heard it closes the connection.
                let _ = tokio::time::timeout(self.shared.config.timings.goodbye / 2, self.connection.closed()).await;
                (close::BYE, "the agent stops".to_owned())
            }
            End::Bye(reason) => (close::BYE, format!("the edge said goodbye: {reason}")),
            End::Drained => (close::DRAINED, "drained".to_owned()),
            End::DeadPath => (close::DEAD_PATH, "the path is dead: what was sent is not acknowledged".to_owned()),
            End::Protocol(reason) => (close::PROTOCOL, reason),
            End::Lost(reason) => (close::BYE, reason),
        };
        self.connection.close(VarInt::from_u32(code), b"");
        tracing::info!(edge.id = %self.edge, tunnel.id = %self.welcome.tunnel_id, reason, "tunnel has ended");
        self.tell(Left::Closed { reason });
        // The close must get out; the endpoint sends it again until the edge is silent.
        let _ = tokio::time::timeout(self.shared.config.timings.goodbye / 2, self.endpoint.wait_idle()).await;
    }

    async fn live(&mut self, stop: &CancellationToken) -> End {
        let timings = self.shared.config.timings.clone();
        let mut presence = every(timings.presence);
        let mut report = every(timings.report);
        let mut pulse_timer = every(PULSE.min(timings.dead_path / 2));
        let mut pulse = Pulse::new(timings.dead_path);
        let mut fresh = self.shared.credentials.subscribe();
        let mut origin = self.shared.origin.watch();
        let connection = self.connection.clone();
        let mut drain = None;
        let mut reported = Instant::now();
        // Fresh credentials may have come while the handshake ran.
        fresh.mark_changed();
        loop {
            // What ends the tunnel comes first, then what the edge says, then our own duties.
            let sent = tokio::select! {
                biased;
                error = connection.closed() => return End::Lost(closed(&error)),
                () = stop.cancelled() => return End::Stopped,
                received = self.control.next() => match received {
                    Ok(received) => match self.heard(received.message) {
                        Heard::Nothing => Ok(()),
                        Heard::Draining(deadline) => {
                            drain.get_or_insert(Drain::new(Instant::now(), deadline));
                            Ok(())
                        }
                        Heard::End(end) => return end,
                    },
                    Err(error) => Err(error),
                },
                _ = pulse_timer.tick() => {
                    let stats = connection.stats();
                    if pulse.beat(Instant::now(), stats.frame_tx.stream, stats.frame_rx.acks) {
                        return End::DeadPath;
                    }
                    if drain.as_ref().is_some_and(|drain| drain.is_over(Instant::now(), &self.open)) {
                        return End::Drained;
                    }
                    Ok(())
                }
                Ok(()) = fresh.changed() => self.send_ticket(&mut fresh).await,
                _ = presence.tick() => self.send_presence().await,
                _ = report.tick() => {
                    reported = Instant::now();
                    self.send_report().await
                }
                Ok(()) = origin.changed() => {
                    // At once, but an origin that comes and goes must not flood the edge.
                    report.reset_after(BETWEEN_REPORTS.saturating_sub(reported.elapsed()));
                    Ok(())
                }
            };
            if let Err(error) = sent {
                return match connection.close_reason() {
                    Some(reason) => End::Lost(closed(&reason)),
                    None => End::Protocol(error.to_string()),
                };
            }
        }
    }

    fn heard(&mut self, message: Message) -> Heard {
        match message {
            Message::Update(update) => {
                if let Some(limits) = update.limits {
                    let streams = limits.streams.min(self.shared.config.limits.streams);
                    self.connection.set_max_concurrent_bi_streams(VarInt::from_u32(streams));
                }
                //= native-tunnel s.2: the agent fetches and sends a fresh ticket at once
                self.shared.want_ticket.notify_one();
                Heard::Nothing
            }
            Message::Drain(drain) => {
                self.tell(Left::Draining { reason: short(&drain.reason) });
                Heard::Draining(Duration::from_millis(drain.deadline_ms))
            }
            Message::Bye(bye) => Heard::End(End::Bye(short(&bye.reason))),
            Message::Refused(refused) => Heard::End(End::Bye(short(&refused.reason))),
            _ => Heard::End(End::Protocol("the edge sent a message that is not its to send".into())),
        }
    }

    async fn send_ticket(
        &mut self,
        fresh: &mut tokio::sync::watch::Receiver<Option<Arc<Credentials>>>,
    ) -> Result<(), super::handshake::ControlEnd> {
        let Some(credentials) = fresh.borrow_and_update().clone() else { return Ok(()) };
        if Arc::ptr_eq(&credentials, &self.credentials) {
            return Ok(());
        }
        self.control.send(&Message::Ticket(Ticket { ticket: credentials.ticket.clone() })).await?;
        self.credentials = credentials;
        Ok(())
    }

    async fn send_presence(&mut self) -> Result<(), super::handshake::ControlEnd> {
        let statement = token::Presence {
            server_id: self.shared.server_id,
            edge_id: self.edge,
            tunnel_id: self.welcome.tunnel_id,
            iat: self.shared.clock.now(),
        };
        let statement = token::sign_self(&statement, &self.shared.key);
        self.control.send(&Message::Presence(Presence { statement })).await.map(|_| ())
    }

    async fn send_report(&mut self) -> Result<(), super::handshake::ControlEnd> {
        let report = Report {
            origin_up: self.shared.origin.is_up(),
            upload_bps: None,
            rtt_us: u64::try_from(self.connection.rtt().as_micros()).ok(),
        };
        self.control.send(&Message::Report(report)).await.map(|_| ())
    }

    fn tell(&mut self, left: Left) {
        if let Some(teller) = self.left.take() {
            let _ = teller.send(left);
        }
    }
}

enum Heard {
    Nothing,
    Draining(Duration),
    End(End),
}

/// A tunnel that only finishes what it has.
struct Drain {
    since: Instant,
    deadline: Instant,
}

impl Drain {
    fn new(now: Instant, deadline: Duration) -> Self {
        Self { since: now, deadline: now + deadline.min(LONGEST_DRAIN) }
    }

    fn is_over(&self, now: Instant, open: &AtomicUsize) -> bool {
        // Streams that the edge opened just before it drained are still on their way.
        let settled = now.saturating_duration_since(self.since) >= DRAIN_SETTLES;
        now >= self.deadline || (settled && open.load(Ordering::Relaxed) == 0)
    }
}

/// Notices a path that swallows what is sent: stream bytes went out, and no acknowledgement came for too long.
struct Pulse {
    limit: Duration,
    sent: u64,
    acknowledged: u64,
    /// Since when bytes are outstanding without an acknowledgement.
    waiting_since: Option<Instant>,
}

impl Pulse {
    fn new(limit: Duration) -> Self {
        Self { limit, sent: 0, acknowledged: 0, waiting_since: None }
    }

    /// Takes the counts of stream frames sent and acknowledgements received; whether the path is dead.
    fn beat(&mut self, now: Instant, sent: u64, acknowledged: u64) -> bool {
        if acknowledged != self.acknowledged {
            self.waiting_since = None;
        } else if sent != self.sent {
            self.waiting_since = self.waiting_since.or(Some(now));
        }
        self.sent = sent;
        self.acknowledged = acknowledged;
        self.waiting_since.is_some_and(|since| now.saturating_duration_since(since) >= self.limit)
    }
}

/// A task that ends with its owner.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Ticks at once, then each `period`; what was slept through is not made up for.
fn every(period: Duration) -> tokio::time::Interval {
    let mut timer = interval(period.max(Duration::from_millis(1)));
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer
}

/// Text of the edge, cut to what fits a line.
fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn closed(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let code = u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX);
            match code {
                close::BYE => "the edge closed the tunnel".into(),
                close::PROTOCOL => "the edge says that we broke the protocol".into(),
                close::REPLACED => "a newer tunnel of this agent took over".into(),
                close::REVOKED => "the hub withdrew this server's right to a tunnel".into(),
                close::DRAINED => "the edge goes away".into(),
                close::DEAD_PATH => "the edge found the path dead".into(),
                other => format!("the edge closed the tunnel with code {other}"),
            }
        }
        ConnectionError::TimedOut => "the edge was not heard for 15 s".into(),
        ConnectionError::Reset => "the edge has restarted".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_dead_when_bytes_wait_and_nothing_is_acknowledged() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pulse = Pulse::new(Duration::from_secs(10));
        assert!(!pulse.beat(at(0), 5, 3));
        // Idle for ever is fine.
        assert!(!pulse.beat(at(100), 5, 3));
        assert!(!pulse.beat(at(101), 6, 3));
        assert!(!pulse.beat(at(110), 9, 3));
        // One acknowledgement, and the patience begins anew with the next byte.
        assert!(!pulse.beat(at(110), 9, 4));
        assert!(!pulse.beat(at(111), 10, 4));
        assert!(!pulse.beat(at(120), 10, 4));
        assert!(pulse.beat(at(121), 10, 4));
    }
}
