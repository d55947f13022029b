//! Which legacy tunnels there are. A server has one that new requests go to, and those that it came from drain.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use phlix_protocol::ids::ServerId;

use super::LegacyTunnel;

/// The legacy tunnels of this edge.
pub(crate) struct LegacyRegistry {
    servers: Mutex<HashMap<ServerId, Vec<Arc<LegacyTunnel>>>>,
    limit: usize,
    draining: AtomicBool,
}

/// Why a tunnel was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotEntered {
    #[error("this edge holds as many tunnels as it may")]
    Full,
    #[error("this edge is going away")]
    Draining,
}

impl LegacyRegistry {
    pub(crate) fn new(limit: usize) -> Self {
        Self { servers: Mutex::default(), limit, draining: AtomicBool::new(false) }
    }

    /// Lets a tunnel in: from now on it is the server's. Those before it are handed back, to be drained.
    pub(super) fn enter(&self, tunnel: &Arc<LegacyTunnel>) -> Result<Vec<Arc<LegacyTunnel>>, NotEntered> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(NotEntered::Draining);
        }
        let mut servers = self.servers();
        if servers.values().map(Vec::len).sum::<usize>() >= self.limit {
            return Err(NotEntered::Full);
        }
        let tunnels = servers.entry(tunnel.server).or_default();
        let incumbents = tunnels.clone();
        tunnels.push(Arc::clone(tunnel));
        Ok(incumbents)
    }

    /// A tunnel ended.
    pub(super) fn leave(&self, tunnel: &LegacyTunnel) {
        let mut servers = self.servers();
        if let Some(tunnels) = servers.get_mut(&tunnel.server) {
            tunnels.retain(|other| other.id != tunnel.id);
            if tunnels.is_empty() {
                servers.remove(&tunnel.server);
            }
        }
    }

    /// The tunnel that new requests to this server go to: the newest.
    pub(crate) fn pick(&self, server: ServerId) -> Option<Arc<LegacyTunnel>> {
        self.servers().get(&server)?.iter().rev().find(|tunnel| tunnel.usable()).cloned()
    }

    /// Every tunnel, those that drain included.
    pub(crate) fn all(&self) -> Vec<Arc<LegacyTunnel>> {
        self.servers().values().flatten().cloned().collect()
    }

    /// Every tunnel of a server.
    pub(super) fn of(&self, server: ServerId) -> Vec<Arc<LegacyTunnel>> {
        self.servers().get(&server).cloned().unwrap_or_default()
    }

    /// No tunnel is let in any more.
    pub(super) fn close_door(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn servers(&self) -> MutexGuard<'_, HashMap<ServerId, Vec<Arc<LegacyTunnel>>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
