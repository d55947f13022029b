//! QUIC's congestion control, watched: what size of packet arrives?
//!
//! A path may swallow large datagrams and pass small ones (a broken tunnel or MTU below 1200 on the way). QUIC's own pings
//! are small and are acknowledged, so that ACK frames prove nothing. Progress here is the acknowledgement of a packet at
//! least half as large as the largest that was sent since the last progress. Probes of path MTU discovery may get lost on a
//! good path; quinn tells a controller when they arrive and not when they leave, so they never count as outstanding.
//!
//! It also picks the controller by the path: BBR where the first round trip took 10 ms or more, else cubic, because on
//! short clean paths BBR costs CPU and gains nothing (native-tunnel s.1).

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{BbrConfig, Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

/// A datagram that is smaller may be an acknowledgement alone, which is itself never acknowledged.
const SMALLEST_DATA: u64 = 256;

/// A first round trip from here on is a line, not a cable.
const LONG_PATH: Duration = Duration::from_millis(10);

/// Makes watched controllers; for [`quinn::TransportConfig::congestion_controller_factory`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Measured;

impl ControllerFactory for Measured {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = Arc::new(CubicConfig::default()).build(now, current_mtu);
        Box::new(Watched { inner, chosen: false, mtu: current_mtu, arrived: Arrived::default() })
    }
}

/// A controller with an eye on sizes.
pub(crate) struct Watched {
    inner: Box<dyn Controller>,
    /// The round trip has been seen.
    chosen: bool,
    mtu: u16,
    arrived: Arrived,
}

impl Watched {
    /// Moves whenever data has arrived.
    pub(crate) fn progress(&self) -> u64 {
        self.arrived.progress
    }
}

impl Controller for Watched {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        // `bytes` may be several datagrams: all as large as the first, but the last.
        self.arrived.sent(bytes.min(self.mtu.into()));
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.arrived.acknowledged(bytes);
        if !self.chosen {
            self.chosen = true;
            if is_long(now, sent) {
                self.inner = Arc::new(BbrConfig::default()).build(now, self.mtu);
            }
        }
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        if in_flight == 0 {
            self.arrived.nothing_in_flight();
        }
        self.inner.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        // Small packets that got lost, such as PINGs, prove nothing about large ones.
        if lost_bytes >= SMALLEST_DATA {
            self.arrived.lost = true;
        }
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu;
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            inner: self.inner.clone_box(),
            chosen: self.chosen,
            mtu: self.mtu,
            arrived: self.arrived.clone(),
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

fn is_long(now: Instant, sent: Instant) -> bool {
    now.saturating_duration_since(sent) >= LONG_PATH
}

/// What came through since when.
#[derive(Debug, Clone, Default)]
struct Arrived {
    progress: u64,
    /// The largest packet sent since the last progress; 0 where none could be data.
    largest: u64,
    /// What may be data got lost since the last progress.
    lost: bool,
}

impl Arrived {
    fn sent(&mut self, size: u64) {
        if size >= SMALLEST_DATA {
            self.largest = self.largest.max(size);
        }
    }

    fn acknowledged(&mut self, size: u64) {
        if size * 2 >= self.largest {
            self.made();
        }
    }

    /// All that was sent has arrived, unless it was given up as lost and is sent again.
    fn nothing_in_flight(&mut self) {
        if !self.lost {
            self.made();
        }
    }

    fn made(&mut self) {
        *self = Self { progress: self.progress + 1, largest: 0, lost: false };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_acknowledgements_are_no_progress_while_large_packets_are_out() {
        let mut arrived = Arrived::default();
        arrived.sent(1400);
        for _ in 0..10 {
            arrived.sent(40);
            arrived.acknowledged(40);
        }
        assert_eq!(arrived.progress, 0);
        // They are given up and sent again: still none has arrived.
        arrived.lost = true;
        arrived.nothing_in_flight();
        arrived.sent(1200);
        assert_eq!(arrived.progress, 0);
        arrived.acknowledged(1200);
        assert_eq!(arrived.progress, 1);
        // Large ones are out no more, and small ones prove what they can.
        arrived.acknowledged(40);
        assert_eq!(arrived.progress, 2);
    }

    #[test]
    fn a_path_that_owes_nothing_has_moved() {
        let mut arrived = Arrived::default();
        // An acknowledgement with many ranges, which is acknowledged by nobody.
        arrived.sent(300);
        arrived.acknowledged(40);
        assert_eq!(arrived.progress, 0);
        arrived.nothing_in_flight();
        assert_eq!(arrived.progress, 1);
    }

    #[test]
    fn a_long_path_is_told_by_its_first_round_trip() {
        let sent = Instant::now();
        assert!(!is_long(sent + Duration::from_millis(1), sent));
        assert!(is_long(sent + Duration::from_millis(10), sent));
    }
}
