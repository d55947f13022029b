//! What edges are told: `bulletin` (the counter), `bulletin_changes`.

use phlix_protocol::uplink::Change;

use super::{Conn, StoreError, Tx, statements};
use crate::timestamp::Timestamp;

statements! {
    RAISE = "UPDATE bulletin SET revision = revision + 1 WHERE id = 1";
    REVISION = "SELECT revision FROM bulletin WHERE id = 1";
    INSERT = "INSERT INTO bulletin_changes (revision, body, created_at) VALUES (?, ?, ?)";
    AFTER = "SELECT revision, body FROM bulletin_changes WHERE revision > ? ORDER BY revision LIMIT 500";
    SWEEP = "DELETE FROM bulletin_changes WHERE created_at <= ?";
}

/// Tells all edges of a change, at the commit of `tx`.
///
/// The counter's row stays locked until then, so that revisions commit in their order and without gaps. That makes it the
/// bottleneck of all writers that do the same: call this last.
pub(crate) async fn publish(tx: &mut Tx, change: &Change, now: Timestamp) -> Result<u64, StoreError> {
    sqlx::query(RAISE).execute(&mut **tx).await?;
    let revision: i64 = sqlx::query_scalar(REVISION).fetch_one(&mut **tx).await?;
    let body =
        serde_json::to_string(change).map_err(|_| StoreError::Corrupt { table: "bulletin_changes", column: "body" })?;
    sqlx::query(INSERT).bind(revision).bind(body).bind(now.millis()).execute(&mut **tx).await?;
    number(revision)
}

/// How far the bulletin is.
pub(crate) async fn revision(conn: &mut Conn) -> Result<u64, StoreError> {
    let revision: i64 = sqlx::query_scalar(REVISION).fetch_one(conn).await?;
    number(revision)
}

/// The next changes after a revision, at most 500. `None` where the first of them is not kept any more.
pub(crate) async fn after(conn: &mut Conn, since: u64) -> Result<Option<Vec<(u64, Change)>>, StoreError> {
    let since = i64::try_from(since).unwrap_or(i64::MAX);
    let now: i64 = sqlx::query_scalar(REVISION).fetch_one(&mut *conn).await?;
    if since == now {
        return Ok(Some(Vec::new()));
    }
    let rows: Vec<(i64, String)> = sqlx::query_as(AFTER).bind(since).fetch_all(conn).await?;
    // A database that was put back to an older state knows less than the edge: that is a gap too.
    if rows.first().is_none_or(|(revision, _)| *revision != since.saturating_add(1)) {
        return Ok(None);
    }
    let change = |(revision, body): (i64, String)| {
        let change = serde_json::from_str(&body);
        let change = change.map_err(|_| StoreError::Corrupt { table: "bulletin_changes", column: "body" })?;
        Ok((number(revision)?, change))
    };
    rows.into_iter().map(change).collect::<Result<_, _>>().map(Some)
}

/// Drops changes older than `before`: who was away for longer gets a snapshot.
pub(crate) async fn sweep(conn: &mut Conn, before: Timestamp) -> Result<u64, StoreError> {
    Ok(sqlx::query(SWEEP).bind(before.millis()).execute(conn).await?.rows_affected())
}

fn number(revision: i64) -> Result<u64, StoreError> {
    u64::try_from(revision).map_err(|_| StoreError::Corrupt { table: "bulletin", column: "revision" })
}
