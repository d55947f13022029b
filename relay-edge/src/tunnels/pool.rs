//! Idle connections to origins, kept for the next request of the same viewer.
//!
//! Never shared between users or sessions: what one user's request may have confused on a connection can reach nobody
//! else (trust s.4.3). For open names a viewer is a connection to us.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::{SessionId, ShareId, UserId};

use super::leg::Leg;

/// Idle connections of one key.
const PER_KEY: usize = 8;

/// Who may use a connection again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    pub(crate) host: Hostname,
    pub(crate) who: Who,
}

/// One viewer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    /// A sign-in of a user, by the same right.
    SignedIn(UserId, SessionId, Option<ShareId>),
    /// A viewer's connection to this edge, by number.
    Connection(u64),
}

/// The idle connections of one tunnel.
pub(super) struct Pool {
    idle: Mutex<HashMap<PoolKey, Vec<(Leg, Instant)>>>,
    limit: usize,
    ttl: Duration,
}

impl Pool {
    pub(super) fn new(limit: usize, ttl: Duration) -> Self {
        Self { idle: Mutex::default(), limit, ttl }
    }

    /// The connection that was used last, if it is still good.
    pub(super) fn take(&self, key: &PoolKey, now: Instant) -> Option<Leg> {
        loop {
            // Looked at outside of the lock: dropping a bad one resets its stream.
            let (mut leg, since) = {
                let mut idle = self.idle();
                let stack = idle.get_mut(key)?;
                let last = stack.pop();
                if stack.is_empty() {
                    idle.remove(key);
                }
                last?
            };
            if now.saturating_duration_since(since) < self.ttl && leg.is_reusable() {
                return Some(leg);
            }
        }
    }

    /// Keeps a connection whose exchange ended whole.
    pub(super) fn put(&self, key: PoolKey, leg: Leg, now: Instant) {
        let mut idle = self.idle();
        let total: usize = idle.values().map(Vec::len).sum();
        let stack = idle.entry(key).or_default();
        if total < self.limit && stack.len() < PER_KEY {
            stack.push((leg, now));
        } else {
            drop(idle);
            drop(leg);
        }
    }

    /// Drops the one that has been idle longest.
    pub(super) fn evict_one(&self) {
        let mut idle = self.idle();
        let oldest = idle
            .iter()
            .filter_map(|(key, stack)| stack.first().map(|(_, since)| (*since, key.clone())))
            .min_by_key(|(since, _)| *since);
        let Some((_, key)) = oldest else { return };
        let leg = idle.get_mut(&key).map(|stack| stack.remove(0));
        if idle.get(&key).is_some_and(Vec::is_empty) {
            idle.remove(&key);
        }
        drop(idle);
        drop(leg);
    }

    /// Drops what has been idle too long, or has ended.
    pub(super) fn prune(&self, now: Instant) {
        let mut old = Vec::new();
        self.idle().retain(|_, stack| {
            let fresh = |since: Instant| now.saturating_duration_since(since) < self.ttl;
            let kept = std::mem::take(stack);
            for (mut leg, since) in kept {
                if fresh(since) && leg.is_reusable() { stack.push((leg, since)) } else { old.push(leg) }
            }
            !stack.is_empty()
        });
        drop(old);
    }

    /// Drops all.
    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.idle());
        drop(all);
    }

    fn idle(&self) -> MutexGuard<'_, HashMap<PoolKey, Vec<(Leg, Instant)>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
