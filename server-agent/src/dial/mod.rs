//! Keeps a tunnel open: picks an edge, connects, comes back when it ends, moves when it is told to.
//!
//! One tunnel at a time; `race` picks its transport. A tunnel to a second edge belongs here.

mod handshake;
mod quic;
mod race;
mod reach;
mod tunnel;
mod websocket;

use std::sync::Arc;
use std::time::{Duration, Instant};

use phlix_link::Link;
use phlix_protocol::ids::EdgeId;
use phlix_protocol::native::control::{RefusedCode, Welcome};
use phlix_protocol::token::EdgeEntry;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::clock::{SystemClock, WallClock};
use crate::event::Event;
use crate::proxy::ProxyError;
use crate::random;
use crate::shared::{Credentials, Shared};
use crate::state::Stage;
use handshake::{Control, HandshakeError};
use race::Form;
use tunnel::{Left, Tunnel};

/// Why an edge could not be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("its address {0} is not known")]
    Resolve(String),
    #[error("it has no address")]
    NoAddress,
    #[error("no socket: {0}")]
    Socket(std::io::Error),
    #[error("TLS can't be set up: {0}")]
    Trust(#[from] crate::trust::TrustError),
    #[error("it can't be dialled: {0}")]
    Setup(String),
    #[error("{0}")]
    Connect(quinn::ConnectionError),
    #[error("no connection: {0}")]
    Tcp(std::io::Error),
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error("TLS failed: {0}")]
    Tls(std::io::Error),
    #[error("it took no WebSocket: {0}")]
    WebSocket(#[from] phlix_protocol::ws::handshake::HandshakeError),
    /// On every transport, each with its reason.
    #[error("{0}")]
    Nowhere(String),
    #[error("it did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

impl DialError {
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Handshake(HandshakeError::Refused { retry_after, .. }) => *retry_after,
            _ => None,
        }
    }

    /// Whether a fresh ticket may help.
    fn wants_ticket(&self) -> bool {
        matches!(
            self,
            Self::Handshake(HandshakeError::Refused {
                code: RefusedCode::Unauthorized | RefusedCode::Expired | RefusedCode::WrongEdge,
                ..
            })
        )
    }
}

/// What all streams of a tunnel may have in flight towards us, uploads mostly, once the edge has shown who it is.
const WINDOW: u32 = 64 * 1024 * 1024;

/// For a close to leave the machine.
const FAREWELL: Duration = Duration::from_millis(50);

/// A connection with its control channel, past `welcome`.
struct Connected {
    link: Link,
    control: Control,
    welcome: Welcome,
}

/// Connects to an edge and proves who we are.
async fn connect(
    shared: &Shared,
    credentials: &Credentials,
    edge: &EdgeEntry,
    form: &mut Form,
) -> Result<Connected, DialError> {
    let link = race::connect(shared, edge, form).await?;
    let limit = shared.config.timings.handshake;
    let proving = handshake::prove(shared, credentials, edge, reach::name_of(edge), &link);
    let outcome = tokio::time::timeout(limit, proving).await.unwrap_or(Err(HandshakeError::TimedOut(limit)));
    match outcome {
        Ok((control, welcome)) => {
            link.set_receive_window(WINDOW);
            Ok(Connected { link, control, welcome })
        }
        Err(error) => {
            // Who refuses does so on any transport.
            if !matches!(error, HandshakeError::Refused { .. }) {
                form.failed(link.transport(), tokio::time::Instant::now());
            }
            link.close(error.close_code(), "");
            // The edge should hear it, but is not waited for.
            let _ = tokio::time::timeout(FAREWELL, link.flushed()).await;
            Err(error.into())
        }
    }
}

/// Longest that an edge may tell us to stay away.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Dials as long as the agent runs; after `stop`, says goodbye and ends.
pub(crate) async fn keep_connected(shared: Arc<Shared>, stop: CancellationToken) {
    let mut credentials = shared.credentials.subscribe();
    let mut backoff = Backoff::new(shared.config.timings.backoff_base, shared.config.timings.backoff_cap);
    // The tunnel in use and those that are draining: all end with this.
    let mut tunnels = JoinSet::new();
    let mut order = Order::default();
    let mut form = Form::default();
    loop {
        // Those that have ended are forgotten.
        while tunnels.try_join_next().is_some() {}
        let ready = tokio::select! {
            () = stop.cancelled() => break,
            ready = credentials.wait_for(Option::is_some) => ready.ok().and_then(|found| found.clone()),
        };
        let Some(current) = ready else { break };
        shared.board.change(|status| status.stage = Stage::Connecting);
        let outcome = tokio::select! {
            () = stop.cancelled() => break,
            outcome = one_tunnel(&shared, &current, (&mut order, &mut form), &mut tunnels, &stop) => outcome,
        };
        let wait = match outcome {
            Outcome::Moving => continue,
            Outcome::Stopped => break,
            Outcome::Down { reason, lived, wait } => {
                if lived.is_some_and(|lived| lived >= shared.config.timings.settled) {
                    backoff.reset();
                }
                let wait = match wait {
                    Wait::NotAtAll => Duration::ZERO,
                    Wait::Backoff => backoff.next(random::fraction()),
                    Wait::AtLeast(after) => after.min(LONGEST_RETRY_AFTER).max(backoff.next(random::fraction())),
                };
                shared.board.change(|status| {
                    status.stage = Stage::Connecting;
                    status.trouble = Some(reason.clone());
                });
                shared.tell(Event::Disconnected { reason, retry_in: wait });
                wait
            }
        };
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(wait) => {}
            () = other_edges(&mut credentials, &current) => backoff.reset(),
        }
    }
    // Those that are left have heard `stop` and say goodbye.
    let goodbye = async { while tunnels.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(shared.config.timings.goodbye, goodbye).await;
}

/// Completes when the hub names other edges than those that were tried.
async fn other_edges(credentials: &mut watch::Receiver<Option<Arc<Credentials>>>, tried: &Credentials) {
    let differ = |found: &Option<Arc<Credentials>>| found.as_ref().is_some_and(|found| found.edges != tried.edges);
    if credentials.wait_for(differ).await.is_err() {
        std::future::pending::<()>().await;
    }
}

enum Outcome {
    /// The edge drains: the next tunnel is wanted at once.
    Moving,
    /// The agent is being stopped.
    Stopped,
    /// `lived` is how long there was a tunnel.
    Down { reason: String, lived: Option<Duration>, wait: Wait },
}

/// Before the next tunnel is tried.
enum Wait {
    NotAtAll,
    Backoff,
    AtLeast(Duration),
}

/// Opens a tunnel and stays with it until it ends or drains.
async fn one_tunnel(
    shared: &Arc<Shared>,
    credentials: &Arc<Credentials>,
    (order, form): (&mut Order, &mut Form),
    tunnels: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Outcome {
    let Some(edge) = order.next(&credentials.edges) else {
        let reason = "the hub has no edge for this server".to_owned();
        return Outcome::Down { reason, lived: None, wait: Wait::Backoff };
    };
    let label = reach::name_of(edge).to_owned();
    let connected = match connect(shared, credentials, edge, form).await {
        Ok(connected) => connected,
        Err(error) => {
            if error.wants_ticket() {
                shared.want_ticket.notify_one();
            }
            tracing::debug!(edge.id = %edge.id, %error, "no tunnel");
            order.failed();
            let reason = format!("edge {label}: {error}");
            let wait = error.retry_after().map_or(Wait::Backoff, Wait::AtLeast);
            return Outcome::Down { reason, lived: None, wait };
        }
    };
    let since = Instant::now();
    let transport = connected.link.transport();
    let names = credentials.claims.names.iter().map(|name| name.host.clone()).collect();
    shared.board.change(|status| {
        status.trouble = None;
        status.stage = Stage::Connected {
            edge: label.clone(),
            edge_id: edge.id,
            region: connected.welcome.region.clone(),
            tunnel_id: connected.welcome.tunnel_id,
            transport: transport.as_str().into(),
            since: SystemClock.now(),
        };
    });
    tracing::info!(edge.id = %edge.id, tunnel.id = %connected.welcome.tunnel_id, %transport, "tunnel is open");
    let tunnel_id = connected.welcome.tunnel_id;
    let (tunnel, left) = Tunnel::new(Arc::clone(shared), edge.id, Arc::clone(credentials), connected);
    tunnels.spawn(tunnel.run(stop.clone()));
    shared.tell(Event::Connected {
        server: shared.server_id,
        edge: label.clone(),
        tunnel: tunnel_id,
        transport,
        names,
    });
    match left.await {
        Ok(Left::Draining { reason }) => {
            order.avoid(edge.id);
            shared.tell(Event::Draining { edge: label, reason });
            Outcome::Moving
        }
        Ok(Left::Closed { reason, dead }) => {
            let reason = format!("edge {label}: {reason}");
            let lived = since.elapsed();
            if dead {
                form.failed(transport, tokio::time::Instant::now());
            }
            // A viewer waits, and the other transport may do. But a path takes its time to die: an edge that says so at
            // once is not dialled in a tight loop.
            let took_its_time = lived >= shared.config.timings.dead_path;
            let wait = if dead && took_its_time { Wait::NotAtAll } else { Wait::Backoff };
            Outcome::Down { reason, lived: Some(lived), wait }
        }
        // The task ended without a word: only where everything ends.
        Err(_) => Outcome::Stopped,
    }
}

/// Which edge is next: the list's order; past those that failed; not the one that drains, if there is another.
#[derive(Debug, Default)]
struct Order {
    failures: usize,
    avoid: Option<EdgeId>,
}

impl Order {
    fn next<'a>(&mut self, edges: &'a [EdgeEntry]) -> Option<&'a EdgeEntry> {
        let avoided = self.avoid.take();
        let mut wanted: Vec<_> = edges.iter().filter(|edge| Some(edge.id) != avoided).collect();
        if wanted.is_empty() {
            wanted = edges.iter().collect();
        }
        let index = self.failures.checked_rem(wanted.len())?;
        wanted.get(index).copied()
    }

    fn failed(&mut self) {
        self.failures = self.failures.wrapping_add(1);
    }

    fn avoid(&mut self, edge: EdgeId) {
        self.failures = 0;
        self.avoid = Some(edge);
    }
}
