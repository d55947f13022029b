//! `signing_keys`: the hub's Ed25519 keys, their seeds sealed by the caller.

use std::time::Duration;

use super::error::is_duplicate;
use super::{Conn, StoreError, statements};
use crate::domain::key::{Purpose, published_until};
use crate::timestamp::Timestamp;

statements! {
    LIST = "SELECT kid, purpose, current_for, public_key, sealed_seed, seal_key_id, longest_life, created_at, retired_at, \
            published_until FROM signing_keys WHERE published_until IS NULL OR published_until > ? \
            ORDER BY purpose, created_at DESC, kid";
    INSERT = "INSERT INTO signing_keys (kid, purpose, current_for, public_key, sealed_seed, seal_key_id, longest_life, \
              created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    RETIRE = "UPDATE signing_keys SET current_for = NULL, retired_at = ?, published_until = ? WHERE kid = ? \
              AND current_for = ? AND longest_life = ?";
    RAISE_LIFE = "UPDATE signing_keys SET longest_life = ? WHERE current_for = ? AND longest_life < ?";
    RESEAL = "UPDATE signing_keys SET sealed_seed = ?, seal_key_id = ? WHERE kid = ? AND seal_key_id = ?";
    SWEEP = "DELETE FROM signing_keys WHERE published_until <= ?";
}

/// A row of `signing_keys`.
#[derive(Clone, Debug)]
pub(crate) struct KeyRow {
    pub(crate) kid: String,
    pub(crate) purpose: Purpose,
    pub(crate) is_current: bool,
    /// base64url of 32 bytes.
    pub(crate) public_key: String,
    pub(crate) sealed_seed: Vec<u8>,
    pub(crate) seal_key_id: String,
    pub(crate) longest_life: Duration,
    pub(crate) created_at: Timestamp,
    pub(crate) retired_at: Option<Timestamp>,
    pub(crate) published_until: Option<Timestamp>,
}

type Columns = (String, String, Option<String>, String, Vec<u8>, String, i64, i64, Option<i64>, Option<i64>);

/// All keys that are published at `now`, newest first within each purpose.
pub(crate) async fn list(conn: &mut Conn, now: Timestamp) -> Result<Vec<KeyRow>, StoreError> {
    let rows: Vec<Columns> = sqlx::query_as(LIST).bind(now.millis()).fetch_all(conn).await?;
    rows.into_iter().map(read).collect()
}

fn read(row: Columns) -> Result<KeyRow, StoreError> {
    let (kid, purpose, current_for, public_key, sealed_seed, seal_key_id, life, created, retired, published) = row;
    let corrupt = |column| StoreError::Corrupt { table: "signing_keys", column };
    Ok(KeyRow {
        kid,
        purpose: Purpose::parse(&purpose).ok_or(corrupt("purpose"))?,
        is_current: current_for.is_some(),
        public_key,
        sealed_seed,
        seal_key_id,
        longest_life: Duration::from_millis(u64::try_from(life).map_err(|_| corrupt("longest_life"))?),
        created_at: Timestamp::from_millis(created),
        retired_at: retired.map(Timestamp::from_millis),
        published_until: published.map(Timestamp::from_millis),
    })
}

/// A key that is about to sign.
pub(crate) struct NewKey<'a> {
    pub(crate) kid: &'a str,
    pub(crate) purpose: Purpose,
    pub(crate) public_key: &'a str,
    pub(crate) sealed_seed: &'a [u8],
    pub(crate) seal_key_id: &'a str,
    pub(crate) longest_life: Duration,
}

/// Makes `key` the one that signs for its purpose; false when there is one already.
pub(crate) async fn insert_current(conn: &mut Conn, key: NewKey<'_>, now: Timestamp) -> Result<bool, StoreError> {
    let inserted = sqlx::query(INSERT)
        .bind(key.kid)
        .bind(key.purpose.as_str())
        .bind(key.purpose.as_str())
        .bind(key.public_key)
        .bind(key.sealed_seed)
        .bind(key.seal_key_id)
        .bind(millis(key.longest_life))
        .bind(now.millis())
        .execute(conn)
        .await;
    match inserted {
        Ok(_) => Ok(true),
        Err(error) if is_duplicate(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Ends the signing of `key`; false when another rotation was faster.
pub(crate) async fn retire(conn: &mut Conn, key: &KeyRow, now: Timestamp) -> Result<bool, StoreError> {
    let retired = sqlx::query(RETIRE)
        .bind(now.millis())
        .bind(published_until(now, key.longest_life).millis())
        .bind(&key.kid)
        .bind(key.purpose.as_str())
        .bind(millis(key.longest_life))
        .execute(conn)
        .await?;
    Ok(retired.rows_affected() == 1)
}

/// Notes that the current key signs tokens that live so long.
pub(crate) async fn raise_life(conn: &mut Conn, purpose: Purpose, life: Duration) -> Result<(), StoreError> {
    sqlx::query(RAISE_LIFE).bind(millis(life)).bind(purpose.as_str()).bind(millis(life)).execute(conn).await?;
    Ok(())
}

/// Replaces a sealed seed; false when it is no longer sealed under `old_id`.
pub(crate) async fn reseal(
    conn: &mut Conn,
    kid: &str,
    old_id: &str,
    sealed: &[u8],
    new_id: &str,
) -> Result<bool, StoreError> {
    let done = sqlx::query(RESEAL).bind(sealed).bind(new_id).bind(kid).bind(old_id).execute(conn).await?;
    Ok(done.rows_affected() == 1)
}

/// Drops the keys whose last token has expired.
pub(crate) async fn sweep(conn: &mut Conn, now: Timestamp) -> Result<u64, StoreError> {
    Ok(sqlx::query(SWEEP).bind(now.millis()).execute(conn).await?.rows_affected())
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
