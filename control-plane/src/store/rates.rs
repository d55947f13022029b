//! Counters of attempts, in the database, so that all replicas count together: `rate_limits`.

use std::time::Duration;

use super::error::is_duplicate;
use super::{Conn, StoreError, statements};
use crate::config::Rate;
use crate::timestamp::Timestamp;

statements! {
    HIT = "UPDATE rate_limits SET hits = hits + 1 WHERE rate_key = ? AND reset_at > ? AND hits < ?";
    OPEN = "INSERT INTO rate_limits (rate_key, hits, reset_at) VALUES (?, 1, ?)";
    REOPEN = "UPDATE rate_limits SET hits = 1, reset_at = ? WHERE rate_key = ? AND reset_at <= ?";
    RESET_AT = "SELECT reset_at FROM rate_limits WHERE rate_key = ?";
    GIVE_BACK = "UPDATE rate_limits SET hits = hits - 1 WHERE rate_key = ? AND hits > 0";
    SWEEP = "DELETE FROM rate_limits WHERE reset_at <= ?";
}

/// May this attempt be made?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Attempt {
    /// Yes, and it was counted.
    Allowed,
    /// No; ask again after this long.
    Refused { retry_after: Duration },
}

/// Counts one attempt against `key`, at most 191 bytes. Each statement decides alone, so that of any number of racing
/// attempts no more than the rate allows come through.
pub(crate) async fn hit(conn: &mut Conn, key: &str, rate: Rate, now: Timestamp) -> Result<Attempt, StoreError> {
    if rate.hits == 0 {
        return Ok(Attempt::Refused { retry_after: rate.window });
    }
    if counted(conn, key, rate, now).await? {
        return Ok(Attempt::Allowed);
    }
    let end = now.plus(rate.window).millis();
    match sqlx::query(OPEN).bind(key).bind(end).execute(&mut *conn).await {
        Ok(_) => return Ok(Attempt::Allowed),
        Err(error) if is_duplicate(&error) => {}
        Err(error) => return Err(error.into()),
    }
    let reopened = sqlx::query(REOPEN).bind(end).bind(key).bind(now.millis()).execute(&mut *conn).await?;
    if reopened.rows_affected() == 1 || counted(conn, key, rate, now).await? {
        return Ok(Attempt::Allowed);
    }
    let reset_at: Option<i64> = sqlx::query_scalar(RESET_AT).bind(key).fetch_optional(&mut *conn).await?;
    let wait = Timestamp::from_millis(reset_at.unwrap_or(end)).since(now);
    Ok(Attempt::Refused { retry_after: wait.max(Duration::from_secs(1)) })
}

async fn counted(conn: &mut Conn, key: &str, rate: Rate, now: Timestamp) -> Result<bool, StoreError> {
    let hit = sqlx::query(HIT).bind(key).bind(now.millis()).bind(i64::from(rate.hits)).execute(conn).await?;
    Ok(hit.rows_affected() == 1)
}

/// Takes one counted attempt back: it was no failure.
pub(crate) async fn give_back(conn: &mut Conn, key: &str) -> Result<(), StoreError> {
    sqlx::query(GIVE_BACK).bind(key).execute(conn).await?;
    Ok(())
}

/// Drops the counters whose time is over.
pub(crate) async fn sweep(conn: &mut Conn, now: Timestamp) -> Result<u64, StoreError> {
    Ok(sqlx::query(SWEEP).bind(now.millis()).execute(conn).await?.rows_affected())
}
