//! How much a stranger gets: connections, wrong credentials, unfinished handshakes. Each in all and per address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An address as limits count it: an IPv6 customer has a whole /64.
pub(crate) fn bucket(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// Counts what is open, in all and per address.
#[derive(Debug, Clone)]
pub(crate) struct Gauge {
    total: usize,
    each: usize,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    each: HashMap<IpAddr, usize>,
}

/// A place that was taken; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    open: Arc<Mutex<Open>>,
    address: IpAddr,
}

impl Gauge {
    pub(crate) fn new(total: usize, each: usize) -> Self {
        Self { total, each, open: Arc::default() }
    }

    /// Takes a place; `None` when there is none.
    pub(crate) fn enter(&self, address: IpAddr) -> Option<Place> {
        let address = bucket(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let here = open.each.get(&address).copied().unwrap_or_default();
        if open.total >= self.total || here >= self.each {
            return None;
        }
        open.total += 1;
        open.each.insert(address, here + 1);
        drop(open);
        Some(Place { open: Arc::clone(&self.open), address })
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        if let Some(here) = open.each.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                open.each.remove(&self.address);
            }
        }
    }
}

/// A budget of misses per address: a bucket that fills with each miss and drains over a minute.
#[derive(Debug)]
pub(crate) struct Misses {
    per_minute: f64,
    buckets: Mutex<HashMap<IpAddr, (Instant, f64)>>,
}

/// Addresses whose misses are counted at once. Beyond, the ones that have drained are forgotten, else all.
const MAX_BUCKETS: usize = 10_000;

impl Misses {
    pub(crate) fn new(per_minute: u32) -> Self {
        Self { per_minute: f64::from(per_minute.max(1)), buckets: Mutex::default() }
    }

    /// How long this address has to wait before it may ask again; `None`: it may.
    pub(crate) fn exhausted(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let level = self.level(*buckets.get(&bucket(address))?, now);
        let over = level - self.per_minute + 1.0;
        (over > 0.0).then(|| Duration::from_secs_f64(over / self.per_minute * 60.0))
    }

    /// One more.
    pub(crate) fn count(&self, address: IpAddr, now: Instant) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_BUCKETS {
            buckets.retain(|_, at| self.level(*at, now) > 0.0);
            if buckets.len() >= MAX_BUCKETS {
                buckets.clear();
            }
        }
        let at = buckets.entry(bucket(address)).or_insert((now, 0.0));
        *at = (now, self.level(*at, now) + 1.0);
    }

    fn level(&self, (since, level): (Instant, f64), now: Instant) -> f64 {
        (level - now.saturating_duration_since(since).as_secs_f64() / 60.0 * self.per_minute).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn places_are_counted_in_all_and_per_address_and_come_back() {
        let gauge = Gauge::new(3, 2);
        let first = gauge.enter(HERE).unwrap();
        let _second = gauge.enter(HERE).unwrap();
        assert!(gauge.enter(HERE).is_none());
        let _other = gauge.enter("192.0.2.2".parse().unwrap()).unwrap();
        assert!(gauge.enter("192.0.2.3".parse().unwrap()).is_none());
        drop(first);
        assert!(gauge.enter(HERE).is_some());
    }

    #[test]
    fn a_64_and_a_mapped_address_are_one_visitor() {
        let of = |text: &str| bucket(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:192.0.2.1"), HERE);
    }

    #[test]
    fn misses_drain_over_a_minute() {
        let misses = Misses::new(30);
        let start = Instant::now();
        for _ in 0..30 {
            assert_eq!(misses.exhausted(HERE, start), None);
            misses.count(HERE, start);
        }
        assert!(misses.exhausted(HERE, start).is_some());
        assert_eq!(misses.exhausted(HERE, start + Duration::from_secs(3)), None);
        assert_eq!(misses.exhausted("192.0.2.2".parse().unwrap(), start), None);
    }
}
