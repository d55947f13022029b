//! Who came to the door of existing media servers and did not prove to be one.
//!
//! Upstream counts every connection of an address, so that a fleet behind one NAT locks itself out when it comes back
//! after a restart (legacy-relay-wire s.4). Here a connection counts while it is unproven and when it has failed; one whose
//! server proved itself is taken off again.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::bucket;

/// Addresses that are remembered at once. Beyond, those whose window is over are forgotten, else all.
const MAX_ADDRESSES: usize = 10_000;

/// Connections per address within a sliding window.
#[derive(Debug, Clone)]
pub(super) struct Knocks {
    most: usize,
    window: Duration,
    seen: Arc<Mutex<HashMap<IpAddr, VecDeque<Instant>>>>,
}

/// One connection that was counted, until it is proven.
#[derive(Debug)]
pub(super) struct Knock {
    knocks: Knocks,
    address: IpAddr,
    at: Instant,
}

impl Knocks {
    /// At most so many per address (an IPv6 /64 is one) and window.
    pub(super) fn new(most: u32, window: Duration) -> Self {
        Self { most: most.max(1) as usize, window, seen: Arc::default() }
    }

    /// Counts one; `None` when that address has had its share. A refused one does not count.
    pub(super) fn count(&self, address: IpAddr, now: Instant) -> Option<Knock> {
        let address = bucket(address);
        let mut seen = self.seen();
        if seen.len() >= MAX_ADDRESSES {
            seen.retain(|_, times| times.back().is_some_and(|last| self.counts(*last, now)));
            if seen.len() >= MAX_ADDRESSES {
                seen.clear();
            }
        }
        let times = seen.entry(address).or_default();
        while times.front().is_some_and(|first| !self.counts(*first, now)) {
            times.pop_front();
        }
        if times.len() >= self.most {
            return None;
        }
        times.push_back(now);
        drop(seen);
        Some(Knock { knocks: self.clone(), address, at: now })
    }

    fn counts(&self, at: Instant, now: Instant) -> bool {
        now.saturating_duration_since(at) < self.window
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<IpAddr, VecDeque<Instant>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Knock {
    /// It was a server of ours.
    pub(super) fn proved(self) {
        let mut seen = self.knocks.seen();
        if let Some(times) = seen.get_mut(&self.address) {
            if let Some(index) = times.iter().position(|time| *time == self.at) {
                times.remove(index);
            }
            if times.is_empty() {
                seen.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn an_address_has_so_many_in_a_window_and_others_have_their_own() {
        let knocks = Knocks::new(3, MINUTE);
        let start = Instant::now();
        let kept: Vec<_> = (0..3).map(|second| knocks.count(HERE, start + Duration::from_secs(second))).collect();
        assert!(kept.iter().all(Option::is_some));
        assert!(knocks.count(HERE, start + Duration::from_secs(59)).is_none());
        assert!(knocks.count("192.0.2.2".parse().unwrap(), start).is_some());
        // The first is out of the window, the second is not yet.
        assert!(knocks.count(HERE, start + MINUTE).is_some());
        assert!(knocks.count(HERE, start + MINUTE).is_none());
    }

    #[test]
    fn who_proves_itself_does_not_count_and_who_fails_does() {
        let knocks = Knocks::new(2, MINUTE);
        let now = Instant::now();
        for _ in 0..100 {
            knocks.count(HERE, now).expect("those before were proven").proved();
        }
        assert!(knocks.seen().is_empty());
        drop(knocks.count(HERE, now));
        drop(knocks.count(HERE, now));
        assert!(knocks.count(HERE, now).is_none());
    }
}
