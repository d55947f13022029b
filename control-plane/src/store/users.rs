//! `users` and `auth_signup_guard`.

use phlix_protocol::ids::UserId;

use super::error::is_duplicate;
use super::{Conn, StoreError, statements};
use crate::domain::user::{Email, User, Username};
use crate::timestamp::Timestamp;

statements! {
    INSERT = "INSERT INTO users (id, username, username_key, email, email_key, password_hash, display_name, is_admin, \
              created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?)";
    FIND = "SELECT id, username, email, display_name, is_admin, created_at, updated_at FROM users WHERE id = ?";
    FIND_LOGIN = "SELECT id, password_hash FROM users WHERE username_key = ? OR email_key = ? \
                  ORDER BY CASE WHEN username_key = ? THEN 0 ELSE 1 END LIMIT 1";
    LIST = "SELECT id, username, email, display_name, is_admin, created_at, updated_at FROM users \
            ORDER BY created_at, id LIMIT ? OFFSET ?";
    COUNT_USERNAME = "SELECT COUNT(*) FROM users WHERE username_key = ?";
    ELECT = "INSERT INTO auth_signup_guard (guard_key, user_id, elected_at) SELECT ?, id, ? FROM users WHERE id = ? \
             AND (SELECT COUNT(*) FROM users) = 1";
    CLOSE_ELECTION = "INSERT INTO auth_signup_guard (guard_key, user_id, elected_at) VALUES (?, ?, ?)";
    SET_ADMIN = "UPDATE users SET is_admin = ?, updated_at = ? WHERE id = ?";
    DEMOTE = "UPDATE users SET is_admin = 0, updated_at = ? WHERE id = ? AND is_admin = 1 \
              AND (SELECT others FROM (SELECT COUNT(*) AS others FROM users WHERE is_admin = 1) AS admins) > 1";
    SET_PASSWORD = "UPDATE users SET password_hash = ?, updated_at = ? WHERE id = ?";
}

/// The one row of `auth_signup_guard`, named as upstream names it.
const FIRST_ADMIN: &str = "first-admin-election";

type Columns = (String, String, String, String, i16, i64, i64);

fn read(row: Columns) -> Result<User, StoreError> {
    let (id, username, email, display_name, is_admin, created_at, updated_at) = row;
    Ok(User {
        id: id.parse().map_err(|_| StoreError::Corrupt { table: "users", column: "id" })?,
        username,
        email,
        display_name,
        is_admin: is_admin != 0,
        created_at: Timestamp::from_millis(created_at),
        updated_at: Timestamp::from_millis(updated_at),
    })
}

/// What became of a new account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Inserted {
    Yes,
    UsernameTaken,
    EmailTaken,
}

/// Makes an account; the unique keys decide between two that ask for the same name.
pub(crate) async fn insert(
    conn: &mut Conn,
    id: UserId,
    username: &Username,
    email: &Email,
    password_hash: &str,
    now: Timestamp,
) -> Result<Inserted, StoreError> {
    let inserted = sqlx::query(INSERT)
        .bind(id.to_string())
        .bind(username.as_str())
        .bind(username.key())
        .bind(email.as_str())
        .bind(email.key())
        .bind(password_hash)
        .bind(username.as_str())
        .bind(now.millis())
        .bind(now.millis())
        .execute(&mut *conn)
        .await;
    match inserted {
        Ok(_) => Ok(Inserted::Yes),
        Err(error) if is_duplicate(&error) => {
            let same: i64 = sqlx::query_scalar(COUNT_USERNAME).bind(username.key()).fetch_one(conn).await?;
            Ok(if same > 0 { Inserted::UsernameTaken } else { Inserted::EmailTaken })
        }
        Err(error) => Err(error.into()),
    }
}

/// Makes `id` an administrator if it is the only account and nobody was elected before. One insert decides; whoever comes
/// second is turned away by the primary key.
pub(crate) async fn elect_first_admin(conn: &mut Conn, id: UserId, now: Timestamp) -> Result<bool, StoreError> {
    let elected =
        sqlx::query(ELECT).bind(FIRST_ADMIN).bind(now.millis()).bind(id.to_string()).execute(&mut *conn).await;
    match elected {
        Ok(done) if done.rows_affected() == 1 => {
            set_admin(conn, id, now).await?;
            Ok(true)
        }
        Ok(_) => Ok(false),
        Err(error) if is_duplicate(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// No later sign-up becomes administrator: the operator made one.
pub(crate) async fn close_election(conn: &mut Conn, id: UserId, now: Timestamp) -> Result<(), StoreError> {
    match sqlx::query(CLOSE_ELECTION).bind(FIRST_ADMIN).bind(id.to_string()).bind(now.millis()).execute(conn).await {
        Ok(_) => Ok(()),
        Err(error) if is_duplicate(&error) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Gives the rights of an administrator.
pub(crate) async fn set_admin(conn: &mut Conn, id: UserId, now: Timestamp) -> Result<bool, StoreError> {
    let done = sqlx::query(SET_ADMIN).bind(1_i16).bind(now.millis()).bind(id.to_string()).execute(conn).await?;
    Ok(done.rows_affected() == 1)
}

/// Takes them away, unless it is the last administrator (or none at all): then false.
pub(crate) async fn demote(conn: &mut Conn, id: UserId, now: Timestamp) -> Result<bool, StoreError> {
    let done = sqlx::query(DEMOTE).bind(now.millis()).bind(id.to_string()).execute(conn).await?;
    Ok(done.rows_affected() == 1)
}

/// Replaces the password's hash.
pub(crate) async fn set_password(conn: &mut Conn, id: UserId, hash: &str, now: Timestamp) -> Result<bool, StoreError> {
    let done = sqlx::query(SET_PASSWORD).bind(hash).bind(now.millis()).bind(id.to_string()).execute(conn).await?;
    Ok(done.rows_affected() == 1)
}

/// The account with this id.
pub(crate) async fn find(conn: &mut Conn, id: UserId) -> Result<Option<User>, StoreError> {
    let row: Option<Columns> = sqlx::query_as(FIND).bind(id.to_string()).fetch_optional(conn).await?;
    row.map(read).transpose()
}

/// Whom a log-in means and the hash to check: the identifier, folded, is a user name first, else an e-mail address.
pub(crate) async fn find_login(conn: &mut Conn, key: &str) -> Result<Option<(UserId, String)>, StoreError> {
    let row: Option<(String, String)> =
        sqlx::query_as(FIND_LOGIN).bind(key).bind(key).bind(key).fetch_optional(conn).await?;
    row.map(|(id, hash)| {
        let id = id.parse().map_err(|_| StoreError::Corrupt { table: "users", column: "id" })?;
        Ok((id, hash))
    })
    .transpose()
}

/// Accounts, oldest first.
pub(crate) async fn list(conn: &mut Conn, limit: u32, offset: u32) -> Result<Vec<User>, StoreError> {
    let rows: Vec<Columns> =
        sqlx::query_as(LIST).bind(i64::from(limit)).bind(i64::from(offset)).fetch_all(conn).await?;
    rows.into_iter().map(read).collect()
}
