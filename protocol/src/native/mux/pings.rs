//! PINGs: whether the peer is there, how long the round trip takes, and whether our data arrives.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Violation;

/// Between PINGs on a connection where nothing is under way.
pub const PING_IDLE: Duration = Duration::from_secs(5);

/// Between PINGs while bytes are not acknowledged yet.
pub const PING_BUSY: Duration = Duration::from_millis(500);

/// Without a byte for so long, the peer is gone.
pub const SILENCE: Duration = Duration::from_secs(15);

/// PINGs that may be unanswered: more than 15 s of them.
const MAX_UNANSWERED: usize = 40;

/// The least round trip of this long counts: a longer one mostly says how full a queue was.
const LEAST_OVER: Duration = Duration::from_secs(30);

/// PINGs of one side.
#[derive(Debug)]
pub(super) struct Pings {
    next: u64,
    sent: VecDeque<(u64, Instant)>,
    last_sent: Option<Instant>,
    heard: Instant,
    latest: Option<Duration>,
    /// The least of the present period, since when, and the least of the one before.
    least: Option<Duration>,
    since: Instant,
    before: Option<Duration>,
}

impl Pings {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            next: 0,
            sent: VecDeque::new(),
            last_sent: None,
            heard: now,
            latest: None,
            least: None,
            since: now,
            before: None,
        }
    }

    /// When the next PING is due. The first one at once: without a round trip no window grows.
    pub(super) fn due(&self, outstanding: bool) -> Option<Instant> {
        let every = if outstanding { PING_BUSY } else { PING_IDLE };
        (self.sent.len() < MAX_UNANSWERED).then(|| self.last_sent.map_or(self.since, |sent| sent + every))
    }

    /// When the peer counts as gone.
    pub(super) fn dead_at(&self) -> Instant {
        self.heard + SILENCE
    }

    /// Bytes came.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// The number of the next PING.
    pub(super) fn next_number(&self) -> u64 {
        self.next
    }

    /// Sends a PING; what it says.
    pub(super) fn send(&mut self, now: Instant) -> u64 {
        let number = self.next;
        self.next += 1;
        self.sent.push_back((number, now));
        self.last_sent = Some(now);
        number
    }

    /// A PONG came. `false` when it answers nothing.
    pub(super) fn answered(&mut self, number: u64, now: Instant) -> bool {
        let Some(at) = self.sent.iter().position(|(sent, _)| *sent == number) else { return false };
        let (_, sent) = self.sent[at];
        // Answers come in order; one that was dropped for a newer one is answered by it.
        self.sent.drain(..=at);
        if self.sent.is_empty() {
            self.sent = VecDeque::new();
        }
        let trip = now.saturating_duration_since(sent);
        self.latest = Some(trip);
        if now.saturating_duration_since(self.since) > LEAST_OVER {
            self.before = self.least.take();
            self.since = now;
        }
        self.least = Some(self.least.map_or(trip, |least| least.min(trip)));
        true
    }

    /// The round trip without queues, where known.
    pub(super) fn least(&self) -> Option<Duration> {
        match (self.least, self.before) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The last round trip.
    pub(super) fn latest(&self) -> Option<Duration> {
        self.latest
    }
}

/// What the peer has of what we sent: bytes of payloads of OPEN and DATA.
#[derive(Debug, Default)]
pub(super) struct Progress {
    sent: u64,
    acknowledged: u64,
}

impl Progress {
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    pub(super) fn acknowledge(&mut self, total: u64) -> Result<(), Violation> {
        if total < self.acknowledged || total > self.sent {
            return Err(Violation::BadAck);
        }
        self.acknowledged = total;
        Ok(())
    }

    pub(super) fn outstanding(&self) -> u64 {
        self.sent - self.acknowledged
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_round_trip_is_forgotten_after_a_while() {
        let start = Instant::now();
        let mut pings = Pings::new(start);
        let mut trip = |at: u64, ms: u64| {
            let sent = start + Duration::from_secs(at);
            let number = pings.send(sent);
            assert!(pings.answered(number, sent + Duration::from_millis(ms)));
            pings.least().expect("one was answered").as_millis() as u64
        };
        assert_eq!(trip(0, 20), 20);
        assert_eq!(trip(1, 300), 20);
        assert_eq!(trip(40, 100), 20);
        assert_eq!(trip(80, 120), 100);
    }

    #[test]
    fn only_what_was_sent_can_be_acknowledged_and_never_less_than_before() {
        let mut progress = Progress::default();
        progress.sent(10);
        assert_eq!(progress.acknowledge(11), Err(Violation::BadAck));
        assert_eq!(progress.acknowledge(6), Ok(()));
        assert_eq!(progress.outstanding(), 4);
        assert_eq!(progress.acknowledge(5), Err(Violation::BadAck));
    }
}
