//! Signed calls of native servers, each good once: `seen_proofs`.

use super::error::is_duplicate;
use super::{Conn, StoreError, statements};
use crate::timestamp::Timestamp;

statements! {
    INSERT = "INSERT INTO seen_proofs (proof, expires_at) VALUES (?, ?)";
    SWEEP = "DELETE FROM seen_proofs WHERE expires_at <= ?";
}

/// Remembers a proof until it is stale anyhow; `false` when it was seen before.
pub(crate) async fn remember(conn: &mut Conn, proof: &str, until: Timestamp) -> Result<bool, StoreError> {
    match sqlx::query(INSERT).bind(proof).bind(until.millis()).execute(conn).await {
        Ok(_) => Ok(true),
        Err(error) if is_duplicate(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Forgets what is stale.
pub(crate) async fn sweep(conn: &mut Conn, now: Timestamp) -> Result<u64, StoreError> {
    Ok(sqlx::query(SWEEP).bind(now.millis()).execute(conn).await?.rows_affected())
}
