//! Whether a tunnel's path moves bytes. Pings prove nothing: what counts is that what we sent is acknowledged.

use std::time::{Duration, Instant};

/// What QUIC counts, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    /// Frames sent that the peer must acknowledge.
    pub(super) eliciting: u64,
    /// ACK frames received.
    pub(super) acks: u64,
}

/// How the path does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    Moving,
    /// Gets no new streams.
    Stalled,
    /// Is closed.
    Dead,
}

/// Judges by samples that are taken every half second or so.
#[derive(Debug)]
pub(super) struct PathHealth {
    stalled_after: Duration,
    dead_after: Duration,
    acks: u64,
    /// What had been sent when the last ACK was seen.
    acknowledged: u64,
    outstanding_since: Option<Instant>,
}

impl PathHealth {
    pub(super) fn new(stalled_after: Duration, dead_after: Duration) -> Self {
        Self { stalled_after, dead_after, acks: 0, acknowledged: 0, outstanding_since: None }
    }

    /// Takes a sample.
    pub(super) fn observe(&mut self, sample: Sample, now: Instant) -> Health {
        if sample.acks != self.acks {
            self.acks = sample.acks;
            self.acknowledged = sample.eliciting;
            self.outstanding_since = None;
            return Health::Moving;
        }
        if sample.eliciting == self.acknowledged {
            return Health::Moving;
        }
        let waiting = now.saturating_duration_since(*self.outstanding_since.get_or_insert(now));
        if waiting >= self.dead_after {
            Health::Dead
        } else if waiting >= self.stalled_after {
            Health::Stalled
        } else {
            Health::Moving
        }
    }
}

impl From<&quinn::ConnectionStats> for Sample {
    fn from(stats: &quinn::ConnectionStats) -> Self {
        let sent = &stats.frame_tx;
        // RFC 9002 s.2: all but ACK, PADDING and CONNECTION_CLOSE.
        let eliciting = sent.stream
            + sent.ping
            + sent.crypto
            + sent.max_data
            + sent.max_stream_data
            + sent.max_streams_bidi
            + sent.reset_stream
            + sent.stop_sending
            + sent.data_blocked
            + sent.stream_data_blocked;
        Self { eliciting, acks: stats.frame_rx.acks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(eliciting: u64, acks: u64) -> Sample {
        Sample { eliciting, acks }
    }

    #[test]
    fn a_path_that_acknowledges_nothing_stalls_and_then_dies() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut health = PathHealth::new(Duration::from_secs(2), Duration::from_secs(10));
        assert_eq!(health.observe(sample(10, 5), at(0)), Health::Moving);
        assert_eq!(health.observe(sample(11, 5), at(1)), Health::Moving);
        assert_eq!(health.observe(sample(12, 5), at(3)), Health::Stalled);
        assert_eq!(health.observe(sample(12, 5), at(10)), Health::Stalled);
        assert_eq!(health.observe(sample(12, 5), at(11)), Health::Dead);
    }

    #[test]
    fn one_acknowledgement_starts_the_wait_anew_and_an_idle_path_is_well() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut health = PathHealth::new(Duration::from_secs(2), Duration::from_secs(10));
        health.observe(sample(10, 5), at(0));
        assert_eq!(health.observe(sample(10, 5), at(60)), Health::Moving);
        health.observe(sample(11, 5), at(61));
        assert_eq!(health.observe(sample(11, 5), at(64)), Health::Stalled);
        assert_eq!(health.observe(sample(11, 6), at(65)), Health::Moving);
        assert_eq!(health.observe(sample(11, 6), at(99)), Health::Moving);
    }
}
