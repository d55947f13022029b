//! What a peer may not do, and how much of what it may.

use std::time::{Duration, Instant};

/// A broken rule. Closes the tunnel; the sentence is the reason in the close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("more data than credit")]
    CreditOverrun,
    #[error("data for streams that are not open")]
    UnknownStream,
    #[error("bad frame length")]
    BadLength,
    #[error("unknown frame type")]
    UnknownType,
    #[error("stream id of the wrong side, used before, or of the wrong frame type")]
    BadStreamId,
    #[error("too many streams")]
    TooManyStreams,
    #[error("data after the end of a stream")]
    AfterEnd,
    #[error("flood of empty frames")]
    EmptyFrames,
    #[error("flood of pings")]
    PingFlood,
    #[error("flood of resets")]
    ResetFlood,
    #[error("flood of control messages")]
    ControlFlood,
    #[error("acknowledgement of what was not sent")]
    BadAck,
    #[error("message ends within a frame")]
    CutFrame,
    #[error("no frame for 15 s")]
    Silent,
}

/// How much of something a peer may do: `burst` at once, refilled by `rate` a second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    burst: u32,
    rate: u32,
    left: u32,
    at: Instant,
}

impl Bucket {
    pub(super) fn new(burst: u32, rate: u32, now: Instant) -> Self {
        Self { burst, rate, left: burst, at: now }
    }

    /// Takes `amount`; `false` when there is not so much.
    pub(super) fn take(&mut self, amount: u32, now: Instant) -> bool {
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

/// A connection's budgets. Each bears what a well-behaved peer does in the worst case, several times over.
#[derive(Debug)]
pub(super) struct Budgets {
    /// DATA on streams that were closed so long ago that we have forgotten them: a race of milliseconds. Frames.
    pub(super) strays: Bucket,
    /// Frames that carry nothing: DATA without bytes or end, CREDIT of 0 or for a closed stream, unknown types, stray PONGs.
    pub(super) empty: Bucket,
    /// PING comes twice a second at most, but those of 15 s may arrive at once.
    pub(super) pings: Bucket,
    /// A reset per cancelled request.
    pub(super) resets: Bucket,
    /// Bytes of control messages. The largest has 64 KiB; few are larger than 4 KiB.
    pub(super) control: Bucket,
}

impl Budgets {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            strays: Bucket::new(16, 1, now),
            empty: Bucket::new(200, 20, now),
            pings: Bucket::new(64, 10, now),
            resets: Bucket::new(2000, 500, now),
            control: Bucket::new(256 * 1024, 32 * 1024, now),
        }
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
