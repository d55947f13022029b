//! Relay tokens, by their hashes: `client_relay_tokens`.

use phlix_protocol::b64;
use phlix_protocol::ids::{ServerId, SessionId, TokenId, UserId};
use sha2::{Digest as _, Sha256};

use super::{Conn, StoreError, statements};
use crate::timestamp::Timestamp;

statements! {
    INSERT = "INSERT INTO client_relay_tokens (id, token_hash, user_id, server_id, session_id, created_at, expires_at) \
              VALUES (?, ?, ?, ?, ?, ?, ?)";
    FIND = "SELECT id, user_id, server_id, session_id, expires_at FROM client_relay_tokens \
            WHERE token_hash = ? AND revoked_at IS NULL AND expires_at > ?";
    GOOD = "SELECT id, user_id, server_id, session_id, expires_at FROM client_relay_tokens \
            WHERE user_id = ? AND server_id = ? AND revoked_at IS NULL AND expires_at > ?";
    REVOKE = "UPDATE client_relay_tokens SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL";
    SWEEP = "DELETE FROM client_relay_tokens WHERE expires_at <= ?";
}

/// A relay token that is good.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RelayToken {
    pub(crate) id: TokenId,
    pub(crate) user: UserId,
    pub(crate) server: ServerId,
    pub(crate) session: SessionId,
    pub(crate) expires_at: Timestamp,
}

type Row = (String, String, String, String, i64);

/// Keeps a token by its hash.
pub(crate) async fn insert(
    conn: &mut Conn,
    secret: &str,
    token: &RelayToken,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(INSERT)
        .bind(token.id.to_string())
        .bind(hash(secret))
        .bind(token.user.to_string())
        .bind(token.server.to_string())
        .bind(token.session.to_string())
        .bind(now.millis())
        .bind(token.expires_at.millis())
        .execute(conn)
        .await?;
    Ok(())
}

/// The token that somebody shows, while it is good.
pub(crate) async fn find(conn: &mut Conn, secret: &str, now: Timestamp) -> Result<Option<RelayToken>, StoreError> {
    let row: Option<Row> = sqlx::query_as(FIND).bind(hash(secret)).bind(now.millis()).fetch_optional(conn).await?;
    row.map(token).transpose()
}

/// All good ones of a user for a server.
pub(crate) async fn good(
    conn: &mut Conn,
    user: UserId,
    server: ServerId,
    now: Timestamp,
) -> Result<Vec<RelayToken>, StoreError> {
    let query = sqlx::query_as(GOOD).bind(user.to_string()).bind(server.to_string()).bind(now.millis());
    let rows: Vec<Row> = query.fetch_all(conn).await?;
    rows.into_iter().map(token).collect()
}

/// Ends one; `false` when it was over.
pub(crate) async fn revoke(conn: &mut Conn, id: TokenId, now: Timestamp) -> Result<bool, StoreError> {
    Ok(sqlx::query(REVOKE).bind(now.millis()).bind(id.to_string()).execute(conn).await?.rows_affected() == 1)
}

/// Drops those whose time is over.
pub(crate) async fn sweep(conn: &mut Conn, now: Timestamp) -> Result<u64, StoreError> {
    Ok(sqlx::query(SWEEP).bind(now.millis()).execute(conn).await?.rows_affected())
}

fn token(row: Row) -> Result<RelayToken, StoreError> {
    const TABLE: &str = "client_relay_tokens";
    let (id, user, server, session, expires_at) = row;
    Ok(RelayToken {
        id: super::id(&id, TABLE, "id")?,
        user: super::id(&user, TABLE, "user_id")?,
        server: super::id(&server, TABLE, "server_id")?,
        session: super::id(&session, TABLE, "session_id")?,
        expires_at: Timestamp::from_millis(expires_at),
    })
}

fn hash(secret: &str) -> String {
    b64::encode(Sha256::digest(secret.as_bytes()))
}
