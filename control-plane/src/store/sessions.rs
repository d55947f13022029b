//! `sessions`, `refresh_tokens` and `login_places`.

use phlix_protocol::ids::{SessionId, UserId};

use super::error::is_duplicate;
use super::{Conn, StoreError, statements};
use crate::timestamp::Timestamp;

statements! {
    INSERT = "INSERT INTO sessions (id, user_id, cookie_hash, cookie_expires_at, created_at, expires_at) \
              VALUES (?, ?, ?, ?, ?, ?)";
    EXTEND = "UPDATE sessions SET expires_at = ? WHERE id = ? AND user_id = ? AND ended_at IS NULL AND expires_at > ?";
    END = "UPDATE sessions SET ended_at = ?, ended_because = ? WHERE id = ? AND ended_at IS NULL";
    END_ALL = "UPDATE sessions SET ended_at = ?, ended_because = ? WHERE user_id = ? AND ended_at IS NULL";
    FIND = "SELECT s.id, s.user_id, s.expires_at, u.is_admin FROM sessions s JOIN users u ON u.id = s.user_id \
            WHERE s.id = ? AND s.ended_at IS NULL AND s.expires_at > ?";
    FIND_COOKIE = "SELECT s.id, s.user_id, s.cookie_expires_at, u.is_admin FROM sessions s \
                   JOIN users u ON u.id = s.user_id \
                   WHERE s.cookie_hash = ? AND s.ended_at IS NULL AND s.cookie_expires_at > ?";
    INSERT_TOKEN = "INSERT INTO refresh_tokens (jti, session_id, expires_at) VALUES (?, ?, ?)";
    USE_TOKEN = "UPDATE refresh_tokens SET used_at = ? WHERE jti = ? AND session_id = ? AND used_at IS NULL \
                 AND expires_at > ?";
    COUNT_TOKEN = "SELECT COUNT(*) FROM refresh_tokens WHERE jti = ? AND session_id = ?";
    SEE_PLACE = "UPDATE login_places SET seen_at = ? WHERE user_id = ? AND place = ?";
    INSERT_PLACE = "INSERT INTO login_places (user_id, place, seen_at) VALUES (?, ?, ?)";
    COUNT_PLACE = "SELECT COUNT(*) FROM login_places WHERE user_id = ? AND place = ? AND seen_at > ?";
    SWEEP_TOKENS = "DELETE FROM refresh_tokens WHERE expires_at <= ?";
    SWEEP_SESSIONS = "DELETE FROM sessions WHERE expires_at <= ? AND (cookie_expires_at IS NULL OR cookie_expires_at <= ?)";
    SWEEP_ENDED = "DELETE FROM sessions WHERE ended_at <= ?";
    SWEEP_PLACES = "DELETE FROM login_places WHERE seen_at <= ?";
}

/// Why a session ended, for the row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    /// Its user logged out.
    Logout,
    /// The same browser signed in anew.
    Replaced,
    /// A refresh token came a second time: somebody has a copy.
    RefreshReuse,
    /// The password was replaced.
    PasswordReset,
}

impl Ending {
    fn as_str(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::Replaced => "replaced",
            Self::RefreshReuse => "refresh_reuse",
            Self::PasswordReset => "password_reset",
        }
    }
}

/// A sign-in that is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LiveSession {
    pub(crate) id: SessionId,
    pub(crate) user: UserId,
    /// The end of what was asked for: of the family of tokens, or of the cookie.
    pub(crate) expires_at: Timestamp,
    pub(crate) is_admin: bool,
}

fn read(row: (String, String, i64, i16)) -> Result<LiveSession, StoreError> {
    let (id, user, expires_at, is_admin) = row;
    let corrupt = |column| StoreError::Corrupt { table: "sessions", column };
    Ok(LiveSession {
        id: id.parse().map_err(|_| corrupt("id"))?,
        user: user.parse().map_err(|_| corrupt("user_id"))?,
        expires_at: Timestamp::from_millis(expires_at),
        is_admin: is_admin != 0,
    })
}

/// A browser's part of a session: the hash of its cookie and the end of it.
pub(crate) struct CookieRow<'a> {
    pub(crate) hash: &'a str,
    pub(crate) expires_at: Timestamp,
}

/// Opens a session.
pub(crate) async fn insert(
    conn: &mut Conn,
    id: SessionId,
    user: UserId,
    cookie: Option<CookieRow<'_>>,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(INSERT)
        .bind(id.to_string())
        .bind(user.to_string())
        .bind(cookie.as_ref().map(|cookie| cookie.hash))
        .bind(cookie.as_ref().map(|cookie| cookie.expires_at.millis()))
        .bind(now.millis())
        .bind(expires_at.millis())
        .execute(conn)
        .await?;
    Ok(())
}

/// Moves the end of a session that is alive and `user`'s; false when it isn't.
pub(crate) async fn extend(
    conn: &mut Conn,
    id: SessionId,
    user: UserId,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<bool, StoreError> {
    let done = sqlx::query(EXTEND)
        .bind(expires_at.millis())
        .bind(id.to_string())
        .bind(user.to_string())
        .bind(now.millis())
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends a session; false when it had ended.
pub(crate) async fn end(conn: &mut Conn, id: SessionId, why: Ending, now: Timestamp) -> Result<bool, StoreError> {
    let done = sqlx::query(END).bind(now.millis()).bind(why.as_str()).bind(id.to_string()).execute(conn).await?;
    Ok(done.rows_affected() == 1)
}

/// Ends all sessions of a user.
pub(crate) async fn end_all(conn: &mut Conn, user: UserId, why: Ending, now: Timestamp) -> Result<u64, StoreError> {
    let done = sqlx::query(END_ALL).bind(now.millis()).bind(why.as_str()).bind(user.to_string()).execute(conn).await?;
    Ok(done.rows_affected())
}

/// The session, if it and its user are alive.
pub(crate) async fn find(conn: &mut Conn, id: SessionId, now: Timestamp) -> Result<Option<LiveSession>, StoreError> {
    let row = sqlx::query_as(FIND).bind(id.to_string()).bind(now.millis()).fetch_optional(conn).await?;
    row.map(read).transpose()
}

/// The session of a cookie, if it and its user are alive.
pub(crate) async fn find_cookie(
    conn: &mut Conn,
    hash: &str,
    now: Timestamp,
) -> Result<Option<LiveSession>, StoreError> {
    let row = sqlx::query_as(FIND_COOKIE).bind(hash).bind(now.millis()).fetch_optional(conn).await?;
    row.map(read).transpose()
}

/// Notes a refresh token that is about to be handed out.
pub(crate) async fn insert_token(
    conn: &mut Conn,
    jti: &str,
    session: SessionId,
    expires_at: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(INSERT_TOKEN).bind(jti).bind(session.to_string()).bind(expires_at.millis()).execute(conn).await?;
    Ok(())
}

/// What a refresh token turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum TokenUse {
    /// It was good and is used up now.
    First,
    /// It was used before.
    Again,
    /// Never issued, or forgotten long ago.
    Unknown,
}

/// Uses a refresh token up. Of any number of requests with the same token one comes first.
pub(crate) async fn use_token(
    conn: &mut Conn,
    jti: &str,
    session: SessionId,
    now: Timestamp,
) -> Result<TokenUse, StoreError> {
    let used = sqlx::query(USE_TOKEN)
        .bind(now.millis())
        .bind(jti)
        .bind(session.to_string())
        .bind(now.millis())
        .execute(&mut *conn)
        .await?;
    if used.rows_affected() == 1 {
        return Ok(TokenUse::First);
    }
    let known: i64 = sqlx::query_scalar(COUNT_TOKEN).bind(jti).bind(session.to_string()).fetch_one(conn).await?;
    Ok(if known > 0 { TokenUse::Again } else { TokenUse::Unknown })
}

/// Has this user logged in from this place since `since`?
pub(crate) async fn knows_place(
    conn: &mut Conn,
    user: UserId,
    place: &str,
    since: Timestamp,
) -> Result<bool, StoreError> {
    let count: i64 =
        sqlx::query_scalar(COUNT_PLACE).bind(user.to_string()).bind(place).bind(since.millis()).fetch_one(conn).await?;
    Ok(count > 0)
}

/// Remembers that a user logged in from a place.
pub(crate) async fn remember_place(
    conn: &mut Conn,
    user: UserId,
    place: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let seen = sqlx::query(SEE_PLACE).bind(now.millis()).bind(user.to_string()).bind(place).execute(&mut *conn).await?;
    if seen.rows_affected() > 0 {
        return Ok(());
    }
    match sqlx::query(INSERT_PLACE).bind(user.to_string()).bind(place).bind(now.millis()).execute(conn).await {
        Ok(_) => Ok(()),
        // The same person, twice at the same moment.
        Err(error) if is_duplicate(&error) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Throws away what is over: ended sessions after `keep_ended_since`, places not seen since `places_since`.
pub(crate) async fn sweep(
    conn: &mut Conn,
    now: Timestamp,
    keep_ended_since: Timestamp,
    places_since: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(SWEEP_TOKENS).bind(now.millis()).execute(&mut *conn).await?;
    sqlx::query(SWEEP_SESSIONS).bind(now.millis()).bind(now.millis()).execute(&mut *conn).await?;
    sqlx::query(SWEEP_ENDED).bind(keep_ended_since.millis()).execute(&mut *conn).await?;
    sqlx::query(SWEEP_PLACES).bind(places_since.millis()).execute(conn).await?;
    Ok(())
}
