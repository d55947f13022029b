//! One open tunnel: its control channel, its timers, its pulse.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use phlix_link::{End as LinkEnd, Health, Link, PathHealth};
use phlix_protocol::ids::EdgeId;
use phlix_protocol::native::close;
use phlix_protocol::native::control::{Bye, Message, Presence, Report, Ticket, Welcome};
use phlix_protocol::token;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Connected;
use super::handshake::Control;
use crate::serve;
use crate::shared::{Credentials, Shared};

/// Between two looks at the pulse.
const PULSE: Duration = Duration::from_millis(500);

/// Between two reports, however often the origin changes.
const BETWEEN_REPORTS: Duration = Duration::from_secs(2);

/// Longest that a drained tunnel is kept for what still runs in it, whatever the edge says.
const LONGEST_DRAIN: Duration = Duration::from_secs(3600);

/// A drained tunnel without streams is kept this long.
const DRAIN_SETTLES: Duration = Duration::from_secs(2);

/// What the dialler must know of a tunnel.
pub(super) enum Left {
    /// Still open, but the next one is wanted at once.
    Draining { reason: String },
    /// `dead`: bytes did not arrive.
    Closed { reason: String, dead: bool },
}

/// An open tunnel.
pub(super) struct Tunnel {
    shared: Arc<Shared>,
    edge: EdgeId,
    /// Whose ticket the edge has.
    credentials: Arc<Credentials>,
    link: Link,
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
    Lost(LinkEnd),
}

impl Tunnel {
    pub(super) fn new(
        shared: Arc<Shared>,
        edge: EdgeId,
        credentials: Arc<Credentials>,
        connected: Connected,
    ) -> (Self, oneshot::Receiver<Left>) {
        let (left, receiver) = oneshot::channel();
        let Connected { link, control, welcome } = connected;
        let open = Arc::default();
        (Self { shared, edge, credentials, link, control, welcome, open, left: Some(left) }, receiver)
    }

    /// Runs until it ends; says goodbye.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let streams = self.welcome.limits.streams.min(self.shared.config.limits.streams);
        self.link.set_max_streams(streams);
        let open = Arc::clone(&self.open);
        let accepting = tokio::spawn(serve::accept(Arc::clone(&self.shared), self.link.clone(), open));
        let accepting = AbortOnDrop(accepting);

        let end = self.live(&stop).await;
        let dead = match &end {
            End::DeadPath => true,
            End::Lost(LinkEnd::TimedOut) => true,
            End::Lost(end) => end.code() == Some(close::DEAD_PATH),
            _ => false,
        };
        let (code, reason) = match end {
            End::Stopped => {
                let _ = self.control.send(&Message::Bye(Bye { reason: "the agent stops".into() })).await;
                self.control.finish();
                // An edge that has heard it closes the connection.
                let _ = tokio::time::timeout(self.shared.config.timings.goodbye / 2, self.link.closed()).await;
                (close::BYE, "the agent stops".to_owned())
            }
            End::Bye(reason) => (close::BYE, format!("the edge said goodbye: {reason}")),
            End::Drained => (close::DRAINED, "drained".to_owned()),
            End::DeadPath => (close::DEAD_PATH, "the path is dead: what was sent is not acknowledged".to_owned()),
            End::Protocol(reason) => (close::PROTOCOL, reason),
            End::Lost(end) => (close::BYE, closed(&end)),
        };
        self.link.close(code, "");
        // After the close, so that the edge takes none of them for a stream that failed by itself.
        drop(accepting);
        tracing::info!(edge.id = %self.edge, tunnel.id = %self.welcome.tunnel_id, reason, "tunnel has ended");
        self.tell(Left::Closed { reason, dead });
        // The close must get out.
        let _ = tokio::time::timeout(self.shared.config.timings.goodbye / 2, self.link.flushed()).await;
    }

    async fn live(&mut self, stop: &CancellationToken) -> End {
        let timings = self.shared.config.timings.clone();
        let mut presence = every(timings.presence);
        let mut report = every(timings.report);
        let mut pulse = every(PULSE.min(timings.dead_path / 4));
        let mut health = PathHealth::new(timings.dead_path / 4, timings.dead_path);
        let mut fresh = self.shared.credentials.subscribe();
        let mut origin = self.shared.origin.watch();
        let link = self.link.clone();
        let mut drain = None;
        let mut reported = Instant::now();
        // Fresh credentials may have come while the handshake ran.
        fresh.mark_changed();
        loop {
            // What ends the tunnel comes first, then what the edge says, then our own duties.
            let sent = tokio::select! {
                biased;
                end = link.closed() => return End::Lost(end),
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
                _ = pulse.tick() => {
                    if health.observe(link.sample(), Instant::now()) == Health::Dead {
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
                return match link.close_reason() {
                    Some(end) => End::Lost(end),
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
                    self.link.set_max_streams(streams);
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
            rtt_us: u64::try_from(self.link.rtt().as_micros()).ok(),
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

fn closed(end: &LinkEnd) -> String {
    match end {
        LinkEnd::Peer { code, .. } => match *code {
            close::BYE => "the edge closed the tunnel".into(),
            close::PROTOCOL => "the edge says that we broke the protocol".into(),
            close::REPLACED => "a newer tunnel of this agent took over".into(),
            close::REVOKED => "the hub withdrew this server's right to a tunnel".into(),
            close::DRAINED => "the edge goes away".into(),
            close::DEAD_PATH => "the edge found the path dead".into(),
            other => format!("the edge closed the tunnel with code {other}"),
        },
        LinkEnd::TimedOut => "the edge was not heard for 15 s".into(),
        LinkEnd::Reset => "the edge has restarted".into(),
        other => other.to_string(),
    }
}
