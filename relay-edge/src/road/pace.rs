//! A ticket's rate: how fast answers go to one user from one server, all of that user's together.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What may go out at once before the rate counts: a player's start is not slowed down.
const BURST: Duration = Duration::from_secs(2);

/// When what was given is paid for.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes_per_second: f64,
    paid: Mutex<Instant>,
}

impl Pace {
    /// For a rate in bits per second; `None` for 0, which is no limit.
    pub(crate) fn new(rate: u64, now: Instant) -> Option<Self> {
        #[expect(clippy::cast_precision_loss, reason = "a rate beyond 2^53 bits per second is no limit either")]
        let bytes_per_second = rate as f64 / 8.0;
        (rate > 0).then(|| Self { bytes_per_second, paid: Mutex::new(now) })
    }

    /// So many bytes were given.
    pub(crate) fn spend(&self, bytes: usize, now: Instant) {
        #[expect(clippy::cast_precision_loss, reason = "a frame is far smaller than 2^53 bytes")]
        let cost = Duration::try_from_secs_f64(bytes as f64 / self.bytes_per_second).unwrap_or(Duration::MAX);
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        // A day at most: what is slower than that has other troubles, and time must not overflow.
        *paid = (*paid).max(now) + cost.min(Duration::from_secs(86_400));
    }

    /// Until when to wait before more is given.
    pub(crate) fn wait(&self, now: Instant) -> Option<Instant> {
        let paid = *self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        (paid > now + BURST).then(|| paid - BURST)
    }
}

/// How fast a viewer sends what it is waited for. Time in which nobody wanted it does not count: an upload that the
/// origin holds up is not the viewer's doing.
#[derive(Debug, Clone)]
pub(crate) struct Tempo {
    /// Bytes per second, at least.
    rate: usize,
    /// So much waiting is looked at in one go.
    over: Duration,
    since: Option<Instant>,
    waited: Duration,
    bytes: usize,
}

impl Tempo {
    pub(crate) fn new(rate: usize, over: Duration) -> Self {
        Self { rate, over, since: None, waited: Duration::ZERO, bytes: 0 }
    }

    /// Somebody waits from now on.
    pub(crate) fn wait(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Bytes came; whether they came fast enough.
    pub(crate) fn came(&mut self, bytes: usize, now: Instant) -> bool {
        if let Some(since) = self.since.take() {
            self.waited += now.saturating_duration_since(since);
        }
        self.bytes = self.bytes.saturating_add(bytes);
        if self.waited < self.over {
            return true;
        }
        #[expect(clippy::cast_precision_loss, reason = "bytes of half a minute")]
        let enough = self.bytes as f64 >= self.rate as f64 * self.waited.as_secs_f64();
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_burst_bytes_come_at_the_rate() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let pace = Pace::new(8_000, start).unwrap();
        pace.spend(2_000, start);
        assert_eq!(pace.wait(start), None);
        pace.spend(1_000, start);
        assert_eq!(pace.wait(start), Some(at(1)));
        assert_eq!(pace.wait(at(1)), None);
        // Nothing is saved up in a pause beyond the burst.
        pace.spend(3_000, at(100));
        assert_eq!(pace.wait(at(100)), Some(at(101)));
        assert!(Pace::new(0, start).is_none());
        Pace::new(1, start).unwrap().spend(usize::MAX, start);
    }

    #[test]
    fn a_sender_may_be_slow_only_while_nobody_waits() {
        let over = Duration::from_secs(30);
        let second = Duration::from_secs(1);
        let start = Instant::now();
        // One byte per second, waited for.
        let mut tempo = Tempo::new(1024, over);
        let slow = (0..100_u32).find(|n| {
            tempo.wait(start + second * *n);
            !tempo.came(1, start + second * (n + 1))
        });
        assert_eq!(slow, Some(29));
        // The same, while the origin takes nothing.
        let mut tempo = Tempo::new(1024, over);
        assert!((0..100_u32).all(|n| tempo.came(1, start + second * n)));
        // Just as fast as it must be, in bursts.
        let mut tempo = Tempo::new(1024, over);
        assert!((0..100_u32).all(|n| {
            tempo.wait(start + second * 10 * n);
            tempo.came(10 * 1024, start + second * 10 * (n + 1))
        }));
    }
}
