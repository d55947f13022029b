//! A moment in UTC, to the millisecond: the database's BIGINT, the tokens' seconds, upstream's text.

use std::fmt;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// A moment, in unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The form in which upstream writes times of users and of audit rows.
const UPSTREAM: &[BorrowedFormatItem<'static>] = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");

impl Timestamp {
    /// From the database's unix milliseconds.
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms)
    }

    /// From a token's unix seconds.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// For the database.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// For tokens and for every JSON field called `expires_at`.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// How long after `earlier` this is; zero when it is not after.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This much later.
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This much earlier.
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// `2026-11-24 13:05:00`, UTC.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text =
            OffsetDateTime::from_unix_timestamp(self.seconds()).ok().and_then(|moment| moment.format(UPSTREAM).ok());
        f.write_str(text.as_deref().unwrap_or("1970-01-01 00:00:00"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_upstreams_form() {
        assert_eq!(Timestamp::from_millis(1_795_525_500_123).to_string(), "2026-11-24 13:05:00");
    }

    #[test]
    fn a_far_future_time_neither_overflows_nor_panics() {
        let end = Timestamp::from_millis(i64::MAX).plus(Duration::from_secs(u64::MAX));
        assert_eq!(end.millis(), i64::MAX);
        assert_eq!(end.to_string(), "1970-01-01 00:00:00");
        assert_eq!(Timestamp::from_millis(0).since(end), Duration::ZERO);
    }
}
