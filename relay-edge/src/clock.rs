//! Wall time, read in one place. Everything that decides takes `now` as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

/// UTC in unix seconds.
pub(crate) fn unix_now() -> i64 {
    // A clock before 1970 is a clock that is not set: nothing verifies then, which is the right answer.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}
