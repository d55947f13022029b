//! The watch over an HTTP/3 connection: what quinn counts, looked at now and then.

use std::time::{Duration, Instant};

use quinn::{ConnectionStats, VarInt};

use super::{Budget, Glitch, SMALL, report};
use crate::metrics::Metrics;

/// How often QUIC's counters are read.
const SAMPLE: Duration = Duration::from_millis(500);

/// RFC 9114 s.8.1.
const H3_EXCESSIVE_LOAD: VarInt = VarInt::from_u32(0x107);

/// The watch over one HTTP/3 connection: what quinn counted since the last look.
#[derive(Debug)]
struct Http3 {
    budget: Budget,
    last: Counts,
}

/// What of quinn's numbers matters.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    resets: u64,
    pings: u64,
    windows: u64,
    paths: u64,
    blocked: u64,
    acks: u64,
    streams: u64,
    crypto: u64,
    bytes_in: u64,
    bytes_out: u64,
    datagrams_out: u64,
}

impl Counts {
    fn of(stats: &ConnectionStats) -> Self {
        let frames = &stats.frame_rx;
        Self {
            resets: frames.reset_stream + frames.stop_sending,
            pings: frames.ping + frames.immediate_ack + frames.ack_frequency,
            windows: frames.max_data + frames.max_stream_data,
            paths: frames.path_challenge
                + frames.path_response
                + frames.new_connection_id
                + frames.retire_connection_id,
            blocked: frames.data_blocked
                + frames.stream_data_blocked
                + frames.streams_blocked_bidi
                + frames.streams_blocked_uni
                + frames.max_streams_bidi
                + frames.max_streams_uni,
            acks: frames.acks,
            streams: frames.stream,
            crypto: frames.crypto + frames.new_token + frames.datagram,
            bytes_in: stats.udp_rx.bytes,
            bytes_out: stats.udp_tx.bytes,
            datagrams_out: stats.udp_tx.datagrams,
        }
    }
}

impl Http3 {
    fn new(now: Instant) -> Self {
        Self { budget: Budget::new(now), last: Counts::default() }
    }

    /// Looks at the numbers.
    fn sample(&mut self, stats: &ConnectionStats, now: Instant) -> Result<(), Glitch> {
        let counts = Counts::of(stats);
        self.judge(counts, now)
    }

    fn judge(&mut self, now: Counts, at: Instant) -> Result<(), Glitch> {
        let before = std::mem::replace(&mut self.last, now);
        let since = |of: fn(&Counts) -> u64| of(&now).saturating_sub(of(&before));
        let budget = &mut self.budget;
        budget.refill(at);
        budget.earn(Glitch::Window, since(|counts| counts.bytes_out) / 512);
        budget.earn(Glitch::Ack, 2 * since(|counts| counts.datagrams_out));
        // Whoever receives much has its acknowledgements acknowledged by PING (RFC 9000 s.13.2.4).
        budget.earn(Glitch::Ping, since(|counts| counts.datagrams_out));
        // A frame with as many bytes as `SMALL` is paid for by its bytes.
        budget.earn(Glitch::SmallData, since(|counts| counts.bytes_in) / u64::from(SMALL));
        budget.take(Glitch::Reset, since(|counts| counts.resets))?;
        budget.take(Glitch::Ping, since(|counts| counts.pings))?;
        budget.take(Glitch::Window, since(|counts| counts.windows))?;
        budget.take(Glitch::Path, since(|counts| counts.paths))?;
        budget.take(Glitch::Blocked, since(|counts| counts.blocked))?;
        budget.take(Glitch::Ack, since(|counts| counts.acks))?;
        budget.take(Glitch::SmallData, since(|counts| counts.streams))?;
        budget.take(Glitch::Unknown, since(|counts| counts.crypto))
    }
}

/// Watches an HTTP/3 connection to its end, or ends it. Runs beside what serves the connection.
pub(in crate::accept) async fn watch(connection: &quinn::Connection, metrics: &Metrics) {
    let mut watch = Http3::new(Instant::now());
    let mut tick = tokio::time::interval(SAMPLE);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = connection.closed() => return,
            _ = tick.tick() => {}
        }
        if let Err(kind) = watch.sample(&connection.stats(), Instant::now()) {
            report(kind.as_str(), metrics);
            connection.close(H3_EXCESSIVE_LOAD, b"calm down");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_quic_each_flood_ends_at_its_budget_and_a_download_does_not() {
        let start = Instant::now();
        let honest = |n: u64| Counts {
            // Half a second of a download at 1 Gbit/s, and of an upload at 100 Mbit/s.
            resets: 20 * n,
            pings: 25_000 * n,
            windows: 4000 * n,
            paths: 2 * n,
            blocked: 30 * n,
            acks: 50_000 * n,
            streams: 12_000 * n,
            crypto: n,
            bytes_in: 6_250_000 * n,
            bytes_out: 62_500_000 * n,
            datagrams_out: 50_000 * n,
        };
        let run = |counts: &dyn Fn(u64) -> Counts| {
            let mut watch = Http3::new(start);
            (1..=20_u32).find_map(|n| watch.judge(counts(n.into()), start + SAMPLE * n).err())
        };
        assert_eq!(run(&honest), None);
        assert_eq!(run(&|n| Counts { resets: 300 * n, ..honest(n) }), Some(Glitch::Reset));
        assert_eq!(run(&|n| Counts { pings: 5000 * n, ..Counts::default() }), Some(Glitch::Ping));
        assert_eq!(run(&|n| Counts { paths: 100 * n, ..honest(n) }), Some(Glitch::Path));
        assert_eq!(run(&|n| Counts { acks: 5000 * n, ..Counts::default() }), Some(Glitch::Ack));
        assert_eq!(run(&|n| Counts { windows: 5000 * n, ..Counts::default() }), Some(Glitch::Window));
        let empty = |n| Counts { streams: 50_000 * n, bytes_in: 200_000 * n, ..Counts::default() };
        assert_eq!(run(&empty), Some(Glitch::SmallData));
    }
}
