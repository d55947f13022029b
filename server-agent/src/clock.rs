//! The hub's time, as far as this machine knows it.
//!
//! A home server's clock may be hours off. Tickets are judged by the hub's time: this machine's clock plus an offset
//! that the hub's `Date` header tells with each reply. An edge's `welcome.now` counts only until the hub was heard,
//! since an edge must not be able to stretch a ticket's life.

use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

/// This machine's wall clock; tests put their own in its place.
pub(crate) trait WallClock: Send + Sync {
    /// Seconds since 1970, UTC.
    fn now(&self) -> i64;
}

/// The system's.
#[derive(Debug)]
pub(crate) struct SystemClock;

impl WallClock for SystemClock {
    fn now(&self) -> i64 {
        unix(SystemTime::now())
    }
}

/// Seconds since 1970.
pub(crate) fn unix(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
    }
}

#[derive(Debug, Clone, Copy)]
enum Offset {
    Unknown,
    FromEdge(i64),
    FromHub(i64),
}

/// Tells the hub's time.
pub(crate) struct HubClock {
    wall: Box<dyn WallClock>,
    offset: Mutex<Offset>,
}

impl HubClock {
    pub(crate) fn new(wall: Box<dyn WallClock>) -> Self {
        Self { wall, offset: Mutex::new(Offset::Unknown) }
    }

    /// Now, in seconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        self.wall.now().saturating_add(self.offset())
    }

    /// What to add to this machine's clock.
    pub(crate) fn offset(&self) -> i64 {
        match *self.lock() {
            Offset::Unknown => 0,
            Offset::FromEdge(offset) | Offset::FromHub(offset) => offset,
        }
    }

    /// The hub said what time it is.
    pub(crate) fn heard_hub(&self, now: i64) {
        *self.lock() = Offset::FromHub(now.saturating_sub(self.wall.now()));
    }

    /// An edge said what time it is.
    pub(crate) fn heard_edge(&self, now: i64) {
        let mut offset = self.lock();
        if !matches!(*offset, Offset::FromHub(_)) {
            *offset = Offset::FromEdge(now.saturating_sub(self.wall.now()));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Offset> {
        // One word: no panic can leave it half written.
        self.offset.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The time of a `Date` header (RFC 9110 s.5.6.7, the one form that is still sent: IMF-fixdate).
pub(crate) fn parse_http_date(text: &str) -> Option<i64> {
    // Sun, 06 Nov 1994 08:49:37 GMT
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, rest) = text.strip_suffix(" GMT")?.split_once(", ")?;
    let mut parts = rest.split([' ', ':']);
    let (day, month) = (parts.next()?, parts.next()?);
    let day = day.parse().ok().filter(|day| (1..=31).contains(day))?;
    let month = 1 + i64::try_from(MONTHS.iter().position(|name| *name == month)?).ok()?;
    let mut number = |max: i64| parts.next()?.parse::<i64>().ok().filter(|n| (0..=max).contains(n));
    let (year, hour, minute, second) = (number(9999)?, number(23)?, number(59)?, number(60)?);
    Some(days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar: years are counted from March, so that the leap day is
/// the last of its year, in eras of 400 years.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(i64);
    impl WallClock for Fixed {
        fn now(&self) -> i64 {
            self.0
        }
    }

    #[test]
    fn a_date_header_is_read() {
        assert_eq!(parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(parse_http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(parse_http_date("Thu, 29 Feb 2024 23:59:60 GMT"), Some(1_709_251_200));
        for bad in [
            "",
            "now",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 25:49:37 GMT",
            "Sun, 06 Nxv 1994 08:49:37 GMT",
            "ééééééééé GMT",
        ] {
            assert_eq!(parse_http_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_edge_can_not_turn_back_a_clock_that_the_hub_has_set() {
        let clock = HubClock::new(Box::new(Fixed(1_000)));
        clock.heard_edge(5_000);
        assert_eq!(clock.now(), 5_000);
        clock.heard_hub(9_000);
        clock.heard_edge(10);
        assert_eq!(clock.now(), 9_000);
    }
}
