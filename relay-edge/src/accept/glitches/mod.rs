//! How much of what carries nothing a viewer's connection may send: HTTP/2's and QUIC's control frames are cheap to send
//! and make us work, so each kind has a budget, and who exceeds it is cut off (T11).
//!
//! What hyper, h2 and quinn bound themselves stays bounded there.

mod http2;
mod http3;

use std::time::{Duration, Instant};

pub(super) use self::http2::Http2;
pub(super) use self::http3::watch;
use crate::metrics::Metrics;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Glitch {
    /// `RST_STREAM`, `RESET_STREAM`, `STOP_SENDING`: requests that were begun for nothing.
    Reset,
    /// Streams that we reset: by frames that are wrong, a viewer makes us do what it may not do often itself.
    MadeReset,
    Settings,
    Ping,
    Priority,
    /// `WINDOW_UPDATE`, `MAX_DATA`, `MAX_STREAM_DATA` beyond what we sent.
    Window,
    /// DATA that has no byte and ends nothing.
    EmptyData,
    /// DATA of a few bytes.
    SmallData,
    Continuation,
    HeaderBytes,
    Unknown,
    /// Connection ids and paths.
    Path,
    /// `DATA_BLOCKED`, `STREAMS_BLOCKED`, `MAX_STREAMS` and the like.
    Blocked,
    /// Acknowledgements beyond what we sent.
    Ack,
}

/// How many there are.
const KINDS: usize = 14;

impl Glitch {
    const ALL: [Self; KINDS] = [
        Self::Reset,
        Self::MadeReset,
        Self::Settings,
        Self::Ping,
        Self::Priority,
        Self::Window,
        Self::EmptyData,
        Self::SmallData,
        Self::Continuation,
        Self::HeaderBytes,
        Self::Unknown,
        Self::Path,
        Self::Blocked,
        Self::Ack,
    ];

    /// The word in metrics and logs.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::MadeReset => "made_reset",
            Self::Settings => "settings",
            Self::Ping => "ping",
            Self::Priority => "priority",
            Self::Window => "window",
            Self::EmptyData => "empty_data",
            Self::SmallData => "small_data",
            Self::Continuation => "continuation",
            Self::HeaderBytes => "header_bytes",
            Self::Unknown => "unknown",
            Self::Path => "path",
            Self::Blocked => "blocked",
            Self::Ack => "ack",
        }
    }

    /// Sustained rate per second, and burst.
    fn allowance(self) -> (f64, f64) {
        match self {
            // A page that is left cancels all that runs, at most 100 streams; twice that is a hasty visitor. QUIC says
            // each with one frame per direction.
            Self::Reset | Self::MadeReset => (100.0, 400.0),
            // Said once, and once more in answer to ours.
            Self::Settings => (10.0, 50.0),
            // Go's client sends one with each reset. Beyond those that are earned by what we send.
            Self::Ping => (100.0, 400.0),
            // Browsers send one or two per request.
            Self::Priority => (500.0, 2000.0),
            // Beyond two for each KiB that we sent, see `sent`: clients enlarge their streams' windows one by one.
            Self::Window => (200.0, 2000.0),
            Self::EmptyData => (10.0, 50.0),
            // Messages of a chatty WebSocket, several streams of them.
            Self::SmallData => (2000.0, 8000.0),
            // A head of 64 KiB has three.
            Self::Continuation => (20.0, 60.0),
            // Some thousand ordinary heads a second. What is in them may be large only once: HPACK repeats it in a byte.
            Self::HeaderBytes => (1024.0 * 1024.0, 4096.0 * 1024.0),
            // Extensions, and GREASE (RFC 8701).
            Self::Unknown => (10.0, 100.0),
            // A client that changes its network tries some paths and ids.
            Self::Path => (10.0, 100.0),
            Self::Blocked => (100.0, 1000.0),
            // Beyond two for each datagram that we sent.
            Self::Ack => (100.0, 1000.0),
        }
    }
}

/// DATA up to here is small: there is more around it than in it.
const SMALL: u32 = 64;

/// Token buckets, one per kind.
#[derive(Debug)]
struct Budget {
    left: [f64; KINDS],
    at: Instant,
}

/// What earned credit may amount to.
const MAX_CREDIT: f64 = 1e6;

impl Budget {
    fn new(now: Instant) -> Self {
        Self { left: Glitch::ALL.map(|kind| kind.allowance().1), at: now }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        // Often enough for a budget per second.
        if passed < Duration::from_millis(10) {
            return;
        }
        self.at = now;
        for (left, kind) in self.left.iter_mut().zip(Glitch::ALL) {
            let (rate, burst) = kind.allowance();
            // Credit that was earned otherwise stays.
            *left = left.max((*left + rate * passed.as_secs_f64()).min(burst));
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of frames and bytes in half a second")]
    fn take(&mut self, kind: Glitch, count: u64) -> Result<(), Glitch> {
        let left = &mut self.left[kind as usize];
        *left -= count as f64;
        if *left < 0.0 { Err(kind) } else { Ok(()) }
    }

    #[expect(clippy::cast_precision_loss, reason = "bytes of one connection")]
    fn earn(&mut self, kind: Glitch, count: u64) {
        let left = &mut self.left[kind as usize];
        *left = left.max((*left + count as f64).min(MAX_CREDIT));
    }
}

/// Says once that a connection was cut off.
pub(super) fn report(kind: &'static str, metrics: &Metrics) {
    metrics.glitches.with_label_values(&[kind]).inc();
    tracing::info!(kind, "a viewer's connection is closed: its budget for this is used up");
}
