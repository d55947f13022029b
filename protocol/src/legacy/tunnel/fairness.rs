//! Whose slowness may cost whom what: when reading is paused, and which stream fails for it.

use std::time::{Duration, Instant};

use super::incoming::{Incoming, MAX_PINNING};
use super::{Config, Failure, StreamId, Tunnel};

/// After a stream failed for its viewer, the next one to stall gets a tenth of the time, for so long: a crowd of stalled
/// viewers must not pause the tunnel one after the other.
const WARY: Duration = Duration::from_secs(10);

/// The queues of all streams together.
#[derive(Debug, Default)]
pub(super) struct Fairness {
    /// Bytes in all queues.
    queued: usize,
    /// Streams that the server has not ended.
    receiving: usize,
    /// Streams that keep read blocks alive.
    pinning: usize,
    /// Those of `receiving` whose queue reached its budget and is not below half of it since. Few: at the first, reading
    /// pauses.
    full: Vec<Full>,
    /// Since when others than the full ones wait.
    contested: Option<Instant>,
    /// Since when all queues together are over their budget; until they are below three quarters of it.
    swollen: Option<Instant>,
    stalled: Option<Instant>,
    paused: bool,
}

#[derive(Debug)]
struct Full {
    id: StreamId,
    since: Instant,
    /// Bytes that its viewer took since.
    took: usize,
    /// It was looked at early, and its viewer moved.
    moved: bool,
}

impl Fairness {
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    pub(super) fn receiving(&self) -> usize {
        self.receiving
    }

    /// Streams that are full, and that keep blocks alive.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        (self.full.len(), self.pinning)
    }

    pub(super) fn may_pin(&self) -> bool {
        self.pinning < MAX_PINNING
    }

    fn patience(&self, pause: Duration, now: Instant) -> Duration {
        let wary = self.stalled.is_some_and(|stalled| now.saturating_duration_since(stalled) < WARY);
        if wary { pause / 10 } else { pause }
    }

    /// When somebody's patience ends.
    pub(super) fn deadline(&self, config: &Config) -> Option<Instant> {
        let swollen = self.swollen.map(|since| since + self.patience(config.pause, since));
        let full = self.contested.and_then(|contested| {
            let ends = self.full.iter().map(|full| {
                let since = full.since.max(contested);
                since + if full.moved { config.pause } else { self.patience(config.pause, since) }
            });
            ends.min()
        });
        swollen.into_iter().chain(full).min()
    }
}

impl Tunnel {
    /// Whether the socket is to be read.
    pub fn wants_input(&self) -> bool {
        match self.stage {
            super::Stage::Hello { .. } => true,
            super::Stage::Verifying { .. } | super::Stage::Closed => false,
            super::Stage::Open | super::Stage::Draining { .. } => !self.fairness.paused,
        }
    }

    /// Whether reading is paused for viewers that are too slow.
    pub fn paused(&self) -> bool {
        self.fairness.paused
    }

    /// One more waits for the server.
    pub(super) fn opened(&mut self, now: Instant) {
        self.fairness.receiving += 1;
        self.weigh(now);
    }

    /// Bytes came into a stream's queue.
    pub(super) fn came(&mut self, id: StreamId, length: usize, pinned: bool, pins: bool, now: Instant) {
        self.fairness.queued += length;
        self.fairness.pinning += usize::from(!pinned && pins);
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.full
            && stream.incoming.unread >= self.config.stream_queue
        {
            stream.full = true;
            self.fairness.full.push(Full { id, since: now, took: 0, moved: false });
        }
        self.weigh(now);
    }

    /// A viewer took bytes.
    pub(super) fn took(&mut self, id: StreamId, length: usize, pinned: bool, now: Instant) {
        self.fairness.queued -= length;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        self.fairness.pinning -= usize::from(pinned && !stream.incoming.pins());
        if stream.full {
            if stream.incoming.unread < self.config.stream_queue / 2 {
                self.not_full(id);
            } else if let Some(full) = self.fairness.full.iter_mut().find(|full| full.id == id) {
                full.took += length;
            }
        }
        self.weigh(now);
    }

    /// The server has ended this stream, or we have.
    pub(super) fn not_receiving(&mut self, id: StreamId, now: Instant) {
        self.fairness.receiving -= 1;
        self.not_full(id);
        self.weigh(now);
    }

    /// What waits to be read is void.
    pub(super) fn forget_incoming(&mut self, id: StreamId, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let incoming = std::mem::take(&mut stream.incoming);
        self.fairness.queued -= incoming.unread;
        self.fairness.pinning -= usize::from(Incoming::pins(&incoming));
        self.weigh(now);
    }

    /// Fails streams that kept others waiting for too long.
    pub(super) fn judge(&mut self, now: Instant) {
        let pause = self.config.pause;
        if let Some(contested) = self.fairness.contested {
            let mut failing = Vec::new();
            for at in 0..self.fairness.full.len() {
                let since = self.fairness.full[at].since.max(contested);
                let patience = self.fairness.patience(pause, since);
                let full = &mut self.fairness.full[at];
                let waited = now.saturating_duration_since(since);
                // Half the budget is to be taken within the pause.
                let due = (self.config.stream_queue / 2) as u128 * waited.as_millis() / pause.as_millis().max(1);
                if waited >= pause || (waited >= patience && !full.moved && (full.took as u128) < due) {
                    failing.push(full.id);
                } else if waited >= patience {
                    full.moved = true;
                }
            }
            for id in failing {
                self.stall(id, now);
            }
        }
        if let Some(since) = self.fairness.swollen
            && now.saturating_duration_since(since) >= self.fairness.patience(pause, since)
        {
            let mut largest: Vec<_> = self.streams.iter().map(|(id, stream)| (stream.incoming.unread, *id)).collect();
            largest.sort_unstable();
            while self.fairness.swollen.is_some()
                && let Some((_, id)) = largest.pop()
            {
                self.stall(id, now);
            }
        }
    }

    /// This viewer is too slow for the others.
    fn stall(&mut self, id: StreamId, now: Instant) {
        self.counts.stalled += 1;
        self.fairness.stalled = Some(now);
        let ended = self.streams.get(&id).is_some_and(|stream| stream.answer.is_some());
        self.end(id, Err(Failure::Stalled), true, now);
        // Its end had come already: that alone would read like a whole answer.
        if ended && let Some(stream) = self.streams.get_mut(&id) {
            stream.answer = Some(Err(Failure::Stalled));
        }
        self.forget_incoming(id, now);
    }

    fn not_full(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id)
            && std::mem::take(&mut stream.full)
        {
            self.fairness.full.retain(|full| full.id != id);
        }
    }

    /// After any change: who waits for whom, and whether reading pauses.
    fn weigh(&mut self, now: Instant) {
        let all = &mut self.fairness;
        let contested = !all.full.is_empty() && all.receiving > all.full.len();
        all.contested = if contested { all.contested.or(Some(now)) } else { None };
        if all.queued >= self.config.tunnel_queue {
            all.swollen = all.swollen.or(Some(now));
        } else if all.queued < self.config.tunnel_queue / 4 * 3 {
            all.swollen = None;
        }
        let paused = !all.full.is_empty() || all.swollen.is_some();
        match (std::mem::replace(&mut all.paused, paused), paused) {
            (false, true) => self.counts.pauses += 1,
            // What the server said meanwhile is still to be read.
            (true, false) => self.heard = now,
            _ => {}
        }
    }
}
