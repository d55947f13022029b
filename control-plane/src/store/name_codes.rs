//! One-use codes of the sign-in at a protected name: `name_codes`.

use phlix_protocol::b64;
use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::{ServerId, SessionId, UserId};
use sha2::{Digest as _, Sha256};

use super::{Conn, StoreError, statements};
use crate::timestamp::Timestamp;

statements! {
    INSERT = "INSERT INTO name_codes (code_hash, host, server_id, user_id, session_id, challenge, expires_at) \
              VALUES (?, ?, ?, ?, ?, ?, ?)";
    USE = "UPDATE name_codes SET used_at = ? WHERE code_hash = ? AND used_at IS NULL AND expires_at > ?";
    FIND = "SELECT host, server_id, user_id, session_id, challenge FROM name_codes WHERE code_hash = ?";
    SWEEP = "DELETE FROM name_codes WHERE expires_at <= ?";
}

/// What a code is bound to.
#[derive(Clone, Debug)]
pub(crate) struct NameCode {
    pub(crate) host: Hostname,
    pub(crate) server: ServerId,
    pub(crate) user: UserId,
    pub(crate) session: SessionId,
    /// base64url of SHA-256 over the verifier that the browser keeps.
    pub(crate) challenge: String,
}

/// Keeps a code by its hash.
pub(crate) async fn insert(
    conn: &mut Conn,
    code: &str,
    bound: &NameCode,
    expires_at: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(INSERT)
        .bind(hash(code))
        .bind(bound.host.as_str())
        .bind(bound.server.to_string())
        .bind(bound.user.to_string())
        .bind(bound.session.to_string())
        .bind(&bound.challenge)
        .bind(expires_at.millis())
        .execute(conn)
        .await?;
    Ok(())
}

/// Uses a code up, whatever comes of it then. Of any number of attempts one gets it.
pub(crate) async fn take(conn: &mut Conn, code: &str, now: Timestamp) -> Result<Option<NameCode>, StoreError> {
    let hash = hash(code);
    let used = sqlx::query(USE).bind(now.millis()).bind(&hash).bind(now.millis()).execute(&mut *conn).await?;
    if used.rows_affected() == 0 {
        return Ok(None);
    }
    let row: Option<(String, String, String, String, String)> =
        sqlx::query_as(FIND).bind(&hash).fetch_optional(conn).await?;
    let Some((host, server, user, session, challenge)) = row else { return Ok(None) };
    Ok(Some(NameCode {
        host: host.parse().map_err(|_| StoreError::Corrupt { table: "name_codes", column: "host" })?,
        server: super::id(&server, "name_codes", "server_id")?,
        user: super::id(&user, "name_codes", "user_id")?,
        session: super::id(&session, "name_codes", "session_id")?,
        challenge,
    }))
}

/// Drops the codes whose time is over.
pub(crate) async fn sweep(conn: &mut Conn, now: Timestamp) -> Result<u64, StoreError> {
    Ok(sqlx::query(SWEEP).bind(now.millis()).execute(conn).await?.rows_affected())
}

fn hash(code: &str) -> String {
    b64::encode(Sha256::digest(code.as_bytes()))
}
