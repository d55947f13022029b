//! Uploads that the origin does not take.
//!
//! Each holds up to a stream's window of the connection's credit. A few may wait as long as they like; where there are
//! so many that other streams would run out of credit, the next ones are reset (native-tunnel s.1).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// As many stalled uploads as hold half of the connection's window: 16 times 2 MiB of 64.
const MOST: usize = 16;

/// The stalled uploads of one tunnel.
#[derive(Debug, Default)]
pub(crate) struct Stalled(AtomicUsize);

/// Watches one upload. Costs nothing while bytes move, and a timer while they don't.
pub(super) struct StallWatch {
    tunnel: Arc<Stalled>,
    patience: Duration,
    taken: u64,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    counted: bool,
}

impl StallWatch {
    pub(super) fn new(tunnel: Arc<Stalled>, patience: Duration) -> Self {
        Self { tunnel, patience, taken: 0, since: None, timer: None, counted: false }
    }

    /// Whether the upload must make room. `waiting`: bytes are there that the origin does not take; `taken`: all that
    /// it ever took.
    pub(super) fn poll(&mut self, waiting: bool, taken: u64, cx: &mut Context<'_>) -> bool {
        if !waiting || taken != self.taken {
            self.taken = taken;
            self.since = None;
            self.uncount();
        }
        if !waiting {
            return false;
        }
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(self.patience)));
        while let Poll::Ready(()) = timer.as_mut().poll(cx) {
            // An old timer may ring for a wait that has begun since.
            let left = self.patience.saturating_sub(now.saturating_duration_since(since));
            if left.is_zero() && is_one_too_many(&self.tunnel, &mut self.counted) {
                return true;
            }
            timer.as_mut().reset(now + if left.is_zero() { self.patience } else { left });
        }
        false
    }

    fn uncount(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.tunnel.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for StallWatch {
    fn drop(&mut self) {
        self.uncount();
    }
}

/// Counts an upload as stalled, once, and tells whether there are too many with it.
fn is_one_too_many(tunnel: &Stalled, counted: &mut bool) -> bool {
    let others = if std::mem::replace(counted, true) {
        tunnel.0.load(Ordering::Relaxed).saturating_sub(1)
    } else {
        tunnel.0.fetch_add(1, Ordering::Relaxed)
    };
    others >= MOST
}
