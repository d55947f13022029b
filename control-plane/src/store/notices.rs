//! What owners should know: `notices`.

use phlix_protocol::ids::{ServerId, UserId};
use uuid::Uuid;

use super::error::is_duplicate;
use super::{Conn, StoreError, statements};
use crate::domain::notice::{Notice, NoticeKind};
use crate::timestamp::Timestamp;

statements! {
    AGAIN = "UPDATE notices SET times = times + 1, detail = ?, last_at = ? WHERE server_id = ? AND kind = ?";
    SHOW_AGAIN = "UPDATE notices SET times = times + 1, detail = ?, last_at = ?, dismissed_at = NULL \
                  WHERE server_id = ? AND kind = ?";
    INSERT = "INSERT INTO notices (id, server_id, kind, detail, times, first_at, last_at) VALUES (?, ?, ?, ?, 1, ?, ?)";
    OF_USER = "SELECT n.id, n.server_id, s.server_name, n.kind, n.detail, n.times, n.first_at, n.last_at FROM notices n \
               JOIN servers s ON s.id = n.server_id WHERE s.user_id = ? AND n.dismissed_at IS NULL \
               ORDER BY n.last_at DESC, n.id LIMIT 1000";
    OF_SERVER = "SELECT n.id, n.server_id, s.server_name, n.kind, n.detail, n.times, n.first_at, n.last_at FROM notices n \
                 JOIN servers s ON s.id = n.server_id WHERE n.server_id = ? AND n.dismissed_at IS NULL \
                 ORDER BY n.last_at DESC, n.id";
    DISMISS = "UPDATE notices SET dismissed_at = ? \
               WHERE id = ? AND server_id IN (SELECT id FROM servers WHERE user_id = ?)";
    SETTLE = "DELETE FROM notices WHERE server_id = ? AND kind = ?";
}

type Row = (String, String, String, String, String, i64, i64, i64);

/// It happened: the first time, or once more. The server must exist.
pub(crate) async fn raise(
    conn: &mut Conn,
    id: Uuid,
    server: ServerId,
    kind: NoticeKind,
    detail: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let again = if kind.returns() { SHOW_AGAIN } else { AGAIN };
    let server = server.to_string();
    for _ in 0..2 {
        let more = sqlx::query(again).bind(detail).bind(now.millis()).bind(&server).bind(kind.word());
        if more.execute(&mut *conn).await?.rows_affected() > 0 {
            return Ok(());
        }
        let first = sqlx::query(INSERT).bind(id.to_string()).bind(&server).bind(kind.word()).bind(detail);
        match first.bind(now.millis()).bind(now.millis()).execute(&mut *conn).await {
            Ok(_) => return Ok(()),
            // Another replica was first: count there.
            Err(error) if is_duplicate(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What a user was told and has not dismissed, newest first.
pub(crate) async fn of_user(conn: &mut Conn, owner: UserId) -> Result<Vec<Notice>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(OF_USER).bind(owner.to_string()).fetch_all(conn).await?;
    rows.into_iter().map(notice).collect()
}

/// The same of one server.
pub(crate) async fn of_server(conn: &mut Conn, server: ServerId) -> Result<Vec<Notice>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(OF_SERVER).bind(server.to_string()).fetch_all(conn).await?;
    rows.into_iter().map(notice).collect()
}

/// The owner has read it; `false` where there is none of theirs.
pub(crate) async fn dismiss(conn: &mut Conn, owner: UserId, id: Uuid, now: Timestamp) -> Result<bool, StoreError> {
    let query = sqlx::query(DISMISS).bind(now.millis()).bind(id.to_string()).bind(owner.to_string());
    Ok(query.execute(conn).await?.rows_affected() == 1)
}

/// It is so no more.
pub(crate) async fn settle(conn: &mut Conn, server: ServerId, kind: NoticeKind) -> Result<(), StoreError> {
    sqlx::query(SETTLE).bind(server.to_string()).bind(kind.word()).execute(conn).await?;
    Ok(())
}

fn notice(row: Row) -> Result<Notice, StoreError> {
    let (id, server, server_name, kind, detail, times, first_at, last_at) = row;
    Ok(Notice {
        id: super::id(&id, "notices", "id")?,
        server: super::id(&server, "notices", "server_id")?,
        server_name,
        kind: NoticeKind::of(&kind).ok_or(StoreError::Corrupt { table: "notices", column: "kind" })?,
        detail,
        times,
        first_at: Timestamp::from_millis(first_at),
        last_at: Timestamp::from_millis(last_at),
    })
}
