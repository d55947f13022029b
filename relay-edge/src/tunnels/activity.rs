//! When something last moved on an exchange, and who is waited for.
//!
//! Shared by the two bodies and the stream of one exchange; all three touch it on the data path, so it is two atomics
//! and a waker, no lock.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use phlix_protocol::native::stream::ResetCode;

/// The clock, and the switch, of one exchange.
#[derive(Debug)]
pub(crate) struct Activity {
    start: Instant,
    /// Milliseconds after `start`.
    last: AtomicU64,
    /// The origin would take more of the request's body, and the viewer has not sent it.
    awaiting_viewer: AtomicBool,
    /// The viewer would take more of the answer, and the origin has not sent it.
    awaiting_origin: AtomicBool,
    /// The request is all written (or has no body).
    request_sent: AtomicBool,
    cut: AtomicBool,
    /// The agent's first byte; 255 before it came.
    status: AtomicU8,
    /// With what the stream is reset when it is dropped before its end.
    reset: AtomicU8,
    task: AtomicWaker,
}

impl Activity {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            start: now,
            last: AtomicU64::new(0),
            awaiting_viewer: AtomicBool::new(false),
            awaiting_origin: AtomicBool::new(false),
            request_sent: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            status: AtomicU8::new(u8::MAX),
            reset: AtomicU8::new(ResetCode::CancelledByViewer as u8),
            task: AtomicWaker::new(),
        }
    }

    /// Something moved.
    pub(crate) fn touch(&self, now: Instant) {
        let millis = u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX);
        self.last.fetch_max(millis, Ordering::Relaxed);
    }

    /// When something last moved.
    pub(crate) fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    pub(crate) fn set_awaiting_viewer(&self, waiting: bool) {
        self.awaiting_viewer.store(waiting, Ordering::Relaxed);
    }

    pub(crate) fn awaiting_viewer(&self) -> bool {
        self.awaiting_viewer.load(Ordering::Relaxed)
    }

    pub(super) fn set_awaiting_origin(&self, waiting: bool) {
        self.awaiting_origin.store(waiting, Ordering::Relaxed);
    }

    /// Since when the viewer has taken nothing of an answer that is there for it.
    pub(super) fn unread_since(&self) -> Option<Instant> {
        (!self.awaiting_origin.load(Ordering::Relaxed)).then(|| self.last())
    }

    pub(crate) fn set_request_sent(&self) {
        self.request_sent.store(true, Ordering::Relaxed);
    }

    pub(crate) fn request_sent(&self) -> bool {
        self.request_sent.load(Ordering::Relaxed)
    }

    /// Withdraws the right to go on; whoever polls sees it at once.
    pub(crate) fn cut(&self, code: ResetCode) {
        self.set_reset(code);
        self.cut.store(true, Ordering::Release);
        self.task.wake();
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    /// The task that must notice a cut.
    pub(crate) fn register(&self, waker: &Waker) {
        self.task.register(waker);
    }

    pub(super) fn set_status(&self, byte: u8) {
        self.status.store(byte, Ordering::Relaxed);
    }

    /// The agent's first byte, once it came.
    pub(super) fn status(&self) -> Option<u8> {
        match self.status.load(Ordering::Relaxed) {
            u8::MAX => None,
            byte => Some(byte),
        }
    }

    pub(crate) fn set_reset(&self, code: ResetCode) {
        self.reset.store(code as u8, Ordering::Relaxed);
    }

    pub(super) fn reset(&self) -> ResetCode {
        ResetCode::from_code(self.reset.load(Ordering::Relaxed).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_movement_never_goes_back() {
        let start = Instant::now();
        let activity = Activity::new(start);
        activity.touch(start + Duration::from_secs(5));
        activity.touch(start + Duration::from_secs(3));
        assert_eq!(activity.last(), start + Duration::from_secs(5));
    }
}
