//! Which tunnels there are: enter, leave, pick, all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::{InstanceId, ServerId};
use phlix_protocol::native::close;
use tokio::sync::watch;

use super::Tunnel;

/// Installations of one server whose tunnels may live side by side.
const INSTANCES: usize = 2;

/// The tunnels of this edge.
pub(crate) struct Registry {
    servers: Mutex<HashMap<ServerId, Vec<Arc<Tunnel>>>>,
    next: AtomicU64,
    limit: usize,
    draining: watch::Sender<bool>,
    /// Rises whenever who waits for a tunnel should look again.
    changes: watch::Sender<u64>,
}

/// Why a tunnel was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotEntered {
    #[error("two installations of this server are connected already")]
    TooManyInstances,
    #[error("this edge holds as many tunnels as it may")]
    Full,
    #[error("this edge is going away")]
    Draining,
}

impl Registry {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            servers: Mutex::default(),
            next: AtomicU64::new(1),
            limit,
            draining: watch::channel(false).0,
            changes: watch::channel(0).0,
        }
    }

    /// Number of the next tunnel.
    pub(crate) fn next_number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether a tunnel of this installation would be let in now.
    pub(super) fn admits(&self, server: ServerId, instance: InstanceId) -> Result<(), NotEntered> {
        if *self.draining.borrow() {
            return Err(NotEntered::Draining);
        }
        let servers = self.servers();
        if servers.values().map(Vec::len).sum::<usize>() >= self.limit {
            return Err(NotEntered::Full);
        }
        let mut others: Vec<InstanceId> = servers
            .get(&server)
            .into_iter()
            .flatten()
            .filter(|tunnel| !tunnel.closed())
            .map(|tunnel| tunnel.slot.instance)
            .filter(|other| *other != instance)
            .collect();
        others.sort_unstable();
        others.dedup();
        if others.len() >= INSTANCES { Err(NotEntered::TooManyInstances) } else { Ok(()) }
    }

    /// Lets a tunnel in. One of the same server, installation and index gives way to it.
    pub(super) fn enter(&self, tunnel: &Arc<Tunnel>) -> Result<(), NotEntered> {
        self.admits(tunnel.slot.server, tunnel.slot.instance)?;
        let mut replaced = Vec::new();
        let mut servers = self.servers();
        let tunnels = servers.entry(tunnel.slot.server).or_default();
        tunnels.retain(|other| {
            let gives_way = other.slot == tunnel.slot;
            if gives_way {
                replaced.push(Arc::clone(other));
            }
            !gives_way
        });
        tunnels.push(Arc::clone(tunnel));
        drop(servers);
        for other in replaced {
            other.close(close::REPLACED, "a newer tunnel took over");
        }
        self.tell_of_change();
        Ok(())
    }

    /// A tunnel came, one that had stalled moves again, or none will come any more: who waits for one looks again.
    pub(super) fn tell_of_change(&self) {
        self.changes.send_modify(|number| *number = number.wrapping_add(1));
    }

    /// Changes whenever `pick` may find what it did not find before, and when the edge drains.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// A tunnel ended.
    pub(super) fn leave(&self, tunnel: &Tunnel) {
        let mut servers = self.servers();
        if let Some(tunnels) = servers.get_mut(&tunnel.slot.server) {
            tunnels.retain(|other| other.id != tunnel.id);
            if tunnels.is_empty() {
                servers.remove(&tunnel.slot.server);
            }
        }
    }

    /// The tunnel that new streams to this server go to: one that moves before one that has stalled is not asked at
    /// all, and the newest of those.
    pub(crate) fn pick(&self, server: ServerId) -> Option<Arc<Tunnel>> {
        let servers = self.servers();
        let candidates = servers.get(&server)?.iter();
        candidates.filter(|tunnel| tunnel.usable() && !tunnel.stalled()).max_by_key(|tunnel| tunnel.number).cloned()
    }

    /// The server that has this name by its own tunnel's ticket, which the hub signed.
    pub(crate) fn named(&self, host: &Hostname) -> Option<ServerId> {
        let servers = self.servers();
        let mut tunnels = servers.values().flatten().filter(|tunnel| tunnel.usable());
        tunnels
            .find(|tunnel| tunnel.ticket().names.iter().any(|name| name.host == *host))
            .map(|tunnel| tunnel.slot.server)
    }

    /// Whether a server has a tunnel, whatever its state.
    pub(super) fn has(&self, server: ServerId) -> bool {
        self.servers().get(&server).is_some_and(|tunnels| tunnels.iter().any(|tunnel| !tunnel.closed()))
    }

    /// Every tunnel.
    pub(crate) fn all(&self) -> Vec<Arc<Tunnel>> {
        self.servers().values().flatten().cloned().collect()
    }

    /// No tunnel is let in any more, and those that are there tell their agents to go elsewhere.
    pub(crate) fn drain(&self) {
        self.draining.send_replace(true);
        self.tell_of_change();
    }

    /// Whether no tunnel is let in any more.
    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Turns true when the edge drains.
    pub(super) fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    fn servers(&self) -> MutexGuard<'_, HashMap<ServerId, Vec<Arc<Tunnel>>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
