//! How long to wait before the next try: full jitter, so that a thousand agents don't come back in step.

use std::time::Duration;

/// Doubling waits, each chosen between nothing and its bound.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    tries: u32,
}

impl Backoff {
    /// The first wait lies between 0 and `base`; none is longer than `cap`.
    pub(crate) fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, tries: 0 }
    }

    /// The next wait; `fraction` is a random number from 0 up to and without 1.
    pub(crate) fn next(&mut self, fraction: f64) -> Duration {
        let bound = self.base.saturating_mul(1u32.checked_shl(self.tries).unwrap_or(u32::MAX)).min(self.cap);
        self.tries = self.tries.saturating_add(1);
        bound.mul_f64(fraction)
    }

    /// It worked: start anew.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(backoff: &mut Backoff, count: usize) -> Vec<f64> {
        (0..count).map(|_| backoff.next(1.0).as_secs_f64()).collect()
    }

    #[test]
    fn the_first_retry_comes_within_a_second_and_none_waits_longer_than_the_cap() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        assert_eq!(bounds(&mut backoff, 8), [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]);
        for _ in 0..200 {
            assert!(backoff.next(1.0) <= Duration::from_secs(30));
        }
    }

    #[test]
    fn a_wait_may_be_nothing_at_all() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        assert_eq!(backoff.next(0.0), Duration::ZERO);
        assert_eq!(backoff.next(0.5), Duration::from_secs(1));
    }

    #[test]
    fn success_starts_anew() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        bounds(&mut backoff, 5);
        backoff.reset();
        assert_eq!(bounds(&mut backoff, 1), [1.0]);
    }
}
