//! How much of something a peer may do.

use std::time::{Duration, Instant};

/// How much of something a peer may do: `burst` at once, refilled by `rate` a second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    burst: u32,
    rate: u32,
    left: u32,
    at: Instant,
}

impl Bucket {
    pub(crate) fn new(burst: u32, rate: u32, now: Instant) -> Self {
        Self { burst, rate, left: burst, at: now }
    }

    /// Takes `amount`; `false` when there is not so much.
    pub(crate) fn take(&mut self, amount: u32, now: Instant) -> bool {
        let waited = now.saturating_duration_since(self.at);
        let refill = waited.as_nanos() * u128::from(self.rate) / 1_000_000_000;
        if refill > 0 {
            self.left = u32::try_from(refill).unwrap_or(u32::MAX).saturating_add(self.left).min(self.burst);
            // What was not enough for a whole one is kept for the next time.
            let spent = Duration::from_nanos((refill * 1_000_000_000 / u128::from(self.rate)) as u64);
            self.at = self.at.checked_add(spent).unwrap_or(now);
        }
        let enough = self.left >= amount;
        if enough {
            self.left -= amount;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(3, 2, start);
        assert!((0..3).all(|_| bucket.take(1, start)));
        assert!(!bucket.take(1, start));
        let later = start + Duration::from_millis(700);
        assert!(bucket.take(1, later));
        assert!(!bucket.take(1, later));
        // The 200 ms beyond the first half second were not lost.
        assert!(bucket.take(1, start + Duration::from_millis(1000)));
        assert!(!bucket.take(4, start + Duration::from_secs(60)));
        assert!(bucket.take(3, start + Duration::from_secs(60)));
    }
}
