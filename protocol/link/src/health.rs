//! Whether a path moves bytes. Pings prove nothing: what counts is that data arrives (native-tunnel s.1).

use std::time::{Duration, Instant};

/// A path at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Whether something was sent of which the peer has not said that it came.
    pub outstanding: bool,
    /// Moves whenever the peer says that data came.
    pub progress: u64,
}

/// How a path does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Moving,
    /// Gets no new streams.
    Stalled,
    /// Is closed.
    Dead,
}

/// Judges by samples that are taken every half second or so.
#[derive(Debug)]
pub struct PathHealth {
    stalled_after: Duration,
    dead_after: Duration,
    progress: u64,
    outstanding_since: Option<Instant>,
}

impl PathHealth {
    pub fn new(stalled_after: Duration, dead_after: Duration) -> Self {
        Self { stalled_after, dead_after, progress: 0, outstanding_since: None }
    }

    /// Takes a sample.
    pub fn observe(&mut self, sample: Sample, now: Instant) -> Health {
        let moved = sample.progress != self.progress;
        self.progress = sample.progress;
        if moved || !sample.outstanding {
            self.outstanding_since = None;
        }
        if !sample.outstanding {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(progress: u64) -> Sample {
        Sample { outstanding: true, progress }
    }

    fn idle(progress: u64) -> Sample {
        Sample { outstanding: false, progress }
    }

    #[test]
    fn a_path_on_which_nothing_arrives_stalls_and_then_dies() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut health = PathHealth::new(Duration::from_secs(2), Duration::from_secs(10));
        assert_eq!(health.observe(waiting(5), at(0)), Health::Moving);
        assert_eq!(health.observe(waiting(5), at(1)), Health::Moving);
        assert_eq!(health.observe(waiting(5), at(2)), Health::Stalled);
        assert_eq!(health.observe(waiting(5), at(9)), Health::Stalled);
        assert_eq!(health.observe(waiting(5), at(10)), Health::Dead);
    }

    #[test]
    fn what_arrives_starts_the_wait_anew_and_an_idle_path_is_well() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut health = PathHealth::new(Duration::from_secs(2), Duration::from_secs(10));
        health.observe(idle(5), at(0));
        assert_eq!(health.observe(idle(5), at(60)), Health::Moving);
        health.observe(waiting(5), at(61));
        assert_eq!(health.observe(waiting(5), at(64)), Health::Stalled);
        // Something came, and more waits: the wait begins now.
        assert_eq!(health.observe(waiting(6), at(65)), Health::Moving);
        assert_eq!(health.observe(waiting(6), at(66)), Health::Moving);
        assert_eq!(health.observe(waiting(6), at(67)), Health::Stalled);
        assert_eq!(health.observe(idle(7), at(68)), Health::Moving);
        assert_eq!(health.observe(waiting(7), at(99)), Health::Moving);
    }
}
