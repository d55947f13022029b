//! What servers say of themselves every minute: `server_heartbeats`, `server_libraries`.

use phlix_protocol::ids::ServerId;
use uuid::Uuid;

use super::{Conn, StoreError, statements};
use crate::domain::heartbeat::{Heartbeat, Library};
use crate::timestamp::Timestamp;

statements! {
    INSERT = "INSERT INTO server_heartbeats (id, server_id, version, uptime_seconds, active_sessions, active_transcodes, \
              received_at) VALUES (?, ?, ?, ?, ?, ?, ?)";
    LATEST = "SELECT id, version, uptime_seconds, active_sessions, active_transcodes, received_at FROM server_heartbeats \
              WHERE server_id = ? ORDER BY received_at DESC, id LIMIT 20";
    LIBRARIES_HASH = "SELECT libraries_hash FROM servers WHERE id = ?";
    SET_LIBRARIES_HASH = "UPDATE servers SET libraries_hash = ?, library_count = ? WHERE id = ?";
    FORGET_LIBRARIES = "DELETE FROM server_libraries WHERE server_id = ?";
    ADD_LIBRARY = "INSERT INTO server_libraries (server_id, library_id, library_name) VALUES (?, ?, ?)";
    LIBRARIES = "SELECT library_id, library_name FROM server_libraries WHERE server_id = ? \
                 ORDER BY library_name, library_id LIMIT 1000";
    SWEEP = "DELETE FROM server_heartbeats WHERE received_at <= ?";
}

/// A heartbeat of the past.
#[derive(Clone, Debug)]
pub(crate) struct Beat {
    pub(crate) id: String,
    pub(crate) version: String,
    pub(crate) uptime_seconds: i64,
    pub(crate) active_sessions: i64,
    pub(crate) active_transcodes: i64,
    pub(crate) received_at: Timestamp,
}

/// Adds a heartbeat.
pub(crate) async fn insert(
    conn: &mut Conn,
    id: Uuid,
    server: ServerId,
    beat: &Heartbeat,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(INSERT)
        .bind(id.to_string())
        .bind(server.to_string())
        .bind(&beat.version)
        .bind(beat.uptime_seconds)
        .bind(beat.active_sessions)
        .bind(beat.active_transcodes)
        .bind(now.millis())
        .execute(conn)
        .await?;
    Ok(())
}

/// The last 20, newest first.
pub(crate) async fn latest(conn: &mut Conn, server: ServerId) -> Result<Vec<Beat>, StoreError> {
    let rows: Vec<(String, String, i64, i64, i64, i64)> =
        sqlx::query_as(LATEST).bind(server.to_string()).fetch_all(conn).await?;
    let beat = |(id, version, uptime_seconds, active_sessions, active_transcodes, received_at)| Beat {
        id,
        version,
        uptime_seconds,
        active_sessions,
        active_transcodes,
        received_at: Timestamp::from_millis(received_at),
    };
    Ok(rows.into_iter().map(beat).collect())
}

/// Takes the list over where it differs from the last one, which `hash` tells.
pub(crate) async fn replace_libraries(
    conn: &mut Conn,
    server: ServerId,
    libraries: &[Library],
    hash: &str,
) -> Result<(), StoreError> {
    let known: Option<Option<String>> =
        sqlx::query_scalar(LIBRARIES_HASH).bind(server.to_string()).fetch_optional(&mut *conn).await?;
    if known.flatten().as_deref() == Some(hash) {
        return Ok(());
    }
    let count = i64::try_from(libraries.len()).unwrap_or(i64::MAX);
    sqlx::query(SET_LIBRARIES_HASH).bind(hash).bind(count).bind(server.to_string()).execute(&mut *conn).await?;
    sqlx::query(FORGET_LIBRARIES).bind(server.to_string()).execute(&mut *conn).await?;
    for library in libraries {
        let add = sqlx::query(ADD_LIBRARY).bind(server.to_string()).bind(&library.id).bind(&library.name);
        add.execute(&mut *conn).await?;
    }
    Ok(())
}

/// The libraries that the last heartbeat named.
pub(crate) async fn libraries(conn: &mut Conn, server: ServerId) -> Result<Vec<Library>, StoreError> {
    let rows: Vec<(String, String)> = sqlx::query_as(LIBRARIES).bind(server.to_string()).fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(id, name)| Library { id, name }).collect())
}

/// Drops what came before `before`.
pub(crate) async fn sweep(conn: &mut Conn, before: Timestamp) -> Result<u64, StoreError> {
    Ok(sqlx::query(SWEEP).bind(before.millis()).execute(conn).await?.rows_affected())
}
