//! Wall time as an argument: the system's in production, one that is moved by hand in tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::timestamp::Timestamp;

/// Where "now" comes from. Clones share one hand.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands at `start` (unix milliseconds) until [`Clock::advance`] moves it.
    pub fn manual(start_ms: i64) -> Self {
        Self(Some(Arc::new(AtomicI64::new(start_ms))))
    }

    /// The present moment.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Some(hand) => Timestamp::from_millis(hand.load(Ordering::SeqCst)),
            None => {
                // A clock before 1970 or after year 292 million is no clock; zero makes every token expired, which is safe.
                let since = SystemTime::now().duration_since(UNIX_EPOCH);
                let ms = since.ok().and_then(|d| i64::try_from(d.as_millis()).ok());
                Timestamp::from_millis(ms.unwrap_or(0))
            }
        }
    }

    /// Moves a manual clock forward. The system's clock can't be moved: then nothing happens.
    pub fn advance(&self, by: std::time::Duration) {
        if let Some(hand) = &self.0 {
            let ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
            hand.fetch_add(ms, Ordering::SeqCst);
        }
    }
}
