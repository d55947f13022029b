//! Tunnels to home servers, behind one handle.
//!
//! The road knows `Tunnel::request` and nothing of what carries it: a native tunnel is a `Link`, over QUIC or WebSocket.
//! Tunnels of existing media servers are another kind, in `legacy`.

pub(crate) mod activity;
mod flows;
mod handshake;
mod leg;
pub(crate) mod legacy;
pub(crate) mod native;
mod pool;
pub(crate) mod registry;
mod stream;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use phlix_link::Link;
use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::{InstanceId, ServerId, TunnelId};
use phlix_protocol::native::stream::StreamHeader;
use phlix_protocol::token::{Access, TunnelTicket};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

use self::activity::Activity;
use self::flows::Flows;
pub(crate) use self::leg::{Answered, Flow, LegBody, LegError, is_idempotent};
use self::pool::Pool;
pub(crate) use self::pool::{PoolKey, Who};
use self::stream::TunnelStream;
use crate::body::Body;

/// An origin's end of a connection after an upgrade.
pub(crate) trait Upgraded: AsyncRead + AsyncWrite + Send + Unpin {
    /// Both sides ended what they say: it may end cleanly.
    fn release(&self);
}

/// How long an agent may take to grant a stream.
const OPEN: Duration = Duration::from_secs(2);

/// Which of a server's tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    pub(crate) server: ServerId,
    pub(crate) instance: InstanceId,
    pub(crate) index: u8,
}

/// One open tunnel.
pub(crate) struct Tunnel {
    pub(crate) id: TunnelId,
    pub(crate) slot: Slot,
    /// Rises with each tunnel of this edge: the newest is the highest.
    pub(crate) number: u64,
    link: Link,
    ticket: RwLock<Arc<TunnelTicket>>,
    stalled: AtomicBool,
    draining: AtomicBool,
    ended: OnceLock<Instant>,
    streams: Arc<Semaphore>,
    /// Of these in all.
    most_streams: usize,
    pool: Pool,
    flows: Flows,
    patience: Patience,
    head_bytes: usize,
}

/// How long an exchange waits for whom.
#[derive(Debug, Clone, Copy)]
struct Patience {
    first_byte: Duration,
    request_body: Duration,
    origin_silence: Duration,
}

impl Tunnel {
    /// Carries one request to the origin behind `header.host` and brings the answer's head; its body goes on in
    /// `LegBody`. `activity` is told of each byte that moves, and says when to give up.
    pub(crate) async fn request(
        self: &Arc<Self>,
        key: PoolKey,
        header: StreamHeader,
        request: Request<Body>,
        activity: &Arc<Activity>,
    ) -> Result<Response<LegBody>, LegError> {
        leg::request(self, key, header, request, activity).await
    }

    /// Asks the origin behind `header.host` for an upgrade.
    pub(crate) async fn upgrade(
        self: &Arc<Self>,
        key: PoolKey,
        header: StreamHeader,
        request: Request<Body>,
        activity: &Arc<Activity>,
    ) -> Result<Answered, LegError> {
        leg::upgrade(self, key, header, request, activity).await
    }

    /// Opens a stream and says its header; what comes back after the agent's first byte is the origin's.
    async fn open(&self, header: &StreamHeader, activity: &Arc<Activity>) -> Result<TunnelStream, LegError> {
        let permit = match Arc::clone(&self.streams).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                // Idle connections take places too, and give way to somebody who waits.
                self.pool.evict_one();
                Arc::clone(&self.streams).try_acquire_owned().map_err(|_| LegError::TooMany)?
            }
        };
        let header = header.encode().map_err(|_| LegError::TooMany)?;
        let opening = async {
            let (send, recv) = self.link.open().await.map_err(|_| LegError::TunnelLost)?;
            let mut stream = TunnelStream::new(send, recv, permit, Arc::clone(activity));
            stream.say(Bytes::from(header)).await.map_err(|_| LegError::TunnelLost)?;
            Ok(stream)
        };
        // An agent that grants fewer streams or bytes than its ticket says is as busy as one that has no place left.
        tokio::time::timeout(OPEN, opening).await.unwrap_or(Err(LegError::TooMany))
    }

    /// What the hub says of this server, as its agent last brought it.
    pub(crate) fn ticket(&self) -> Arc<TunnelTicket> {
        Arc::clone(&self.ticket.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the ticket, too, says that this name is open. The directory alone is not enough.
    pub(crate) fn says_open(&self, host: &Hostname) -> bool {
        self.ticket().names.iter().any(|name| name.host == *host && name.access == Access::Open)
    }

    /// How many streams it carries at once.
    pub(crate) fn streams(&self) -> usize {
        self.most_streams
    }

    /// Whether new streams may come here.
    pub(crate) fn usable(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && self.link.close_reason().is_none()
    }

    /// Whether bytes are outstanding and nobody acknowledged any for 2 s.
    pub(crate) fn stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Whether the tunnel is gone.
    pub(crate) fn closed(&self) -> bool {
        self.link.close_reason().is_some()
    }

    /// When its end was noticed.
    pub(crate) fn ended_at(&self) -> Option<Instant> {
        self.ended.get().copied()
    }

    /// Ends the tunnel, with a reason that the agent can tell apart.
    pub(crate) fn close(&self, code: u32, reason: &str) {
        // The first end counts.
        let _ = self.ended.set(Instant::now());
        self.link.close(code, reason);
        self.pool.clear();
    }

    /// Idle connections of a sign-in that ended are not kept.
    pub(crate) fn forget_idle(&self) {
        self.pool.clear();
    }

    fn set_ticket(&self, ticket: Arc<TunnelTicket>) {
        *self.ticket.write().unwrap_or_else(PoisonError::into_inner) = ticket;
    }

    fn prune_idle(&self, now: Instant) {
        self.pool.prune(now);
    }
}
