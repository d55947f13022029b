//! Names of servers: `names`.

use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::{ServerId, UserId};
use phlix_protocol::token::Access;

use super::error::is_duplicate;
use super::{Conn, StoreError, statements};
use crate::domain::name::{Name, access_of, access_word, tls_of, tls_word};
use crate::timestamp::Timestamp;

statements! {
    INSERT = "INSERT INTO names (host, server_id, access, tls, position, created_at) VALUES (?, ?, ?, ?, ?, ?)";
    FIND = "SELECT host, server_id, access, tls FROM names WHERE host = ? AND released_at IS NULL";
    OF_SERVER = "SELECT host, server_id, access, tls FROM names WHERE server_id = ? AND released_at IS NULL \
                 ORDER BY position, host";
    OF_USER = "SELECT n.host, n.server_id, n.access, n.tls FROM names n JOIN servers s ON s.id = n.server_id \
               WHERE s.user_id = ? AND n.released_at IS NULL ORDER BY n.position, n.host";
    SET_ACCESS = "UPDATE names SET access = ? WHERE host = ? AND server_id = ? AND released_at IS NULL";
    RELEASE_OF_SERVER = "UPDATE names SET released_at = ?, quarantined_until = ? \
                         WHERE server_id = ? AND released_at IS NULL";
    SWEEP = "DELETE FROM names WHERE quarantined_until <= ?";
}

type Row = (String, String, String, String);

/// Adds a name; `false` when somebody has it, or had it until lately.
pub(crate) async fn insert(conn: &mut Conn, name: &Name, position: i64, now: Timestamp) -> Result<bool, StoreError> {
    let added = sqlx::query(INSERT)
        .bind(name.host.as_str())
        .bind(name.server.to_string())
        .bind(access_word(name.access))
        .bind(tls_word(name.tls))
        .bind(position)
        .bind(now.millis())
        .execute(conn)
        .await;
    match added {
        Ok(_) => Ok(true),
        Err(error) if is_duplicate(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The name, while it is somebody's.
pub(crate) async fn find(conn: &mut Conn, host: &Hostname) -> Result<Option<Name>, StoreError> {
    let row: Option<Row> = sqlx::query_as(FIND).bind(host.as_str()).fetch_optional(conn).await?;
    row.map(name).transpose()
}

/// A server's names, the one of its URL first.
pub(crate) async fn of_server(conn: &mut Conn, server: ServerId) -> Result<Vec<Name>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(OF_SERVER).bind(server.to_string()).fetch_all(conn).await?;
    rows.into_iter().map(name).collect()
}

/// The names of all servers of a user, each server's first one first.
pub(crate) async fn of_user(conn: &mut Conn, owner: UserId) -> Result<Vec<Name>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(OF_USER).bind(owner.to_string()).fetch_all(conn).await?;
    rows.into_iter().map(name).collect()
}

/// Opens or closes a name; `false` when the server has no such name.
pub(crate) async fn set_access(
    conn: &mut Conn,
    server: ServerId,
    host: &Hostname,
    access: Access,
) -> Result<bool, StoreError> {
    let query = sqlx::query(SET_ACCESS).bind(access_word(access)).bind(host.as_str()).bind(server.to_string());
    Ok(query.execute(conn).await?.rows_affected() == 1)
}

/// Takes all names from a server and keeps them from everybody until then.
pub(crate) async fn release_of_server(
    conn: &mut Conn,
    server: ServerId,
    now: Timestamp,
    quarantined_until: Timestamp,
) -> Result<(), StoreError> {
    let query = sqlx::query(RELEASE_OF_SERVER).bind(now.millis()).bind(quarantined_until.millis());
    query.bind(server.to_string()).execute(conn).await?;
    Ok(())
}

/// Frees the names whose quarantine is over.
pub(crate) async fn sweep(conn: &mut Conn, now: Timestamp) -> Result<u64, StoreError> {
    Ok(sqlx::query(SWEEP).bind(now.millis()).execute(conn).await?.rows_affected())
}

fn name((host, server, access, tls): Row) -> Result<Name, StoreError> {
    let corrupt = |column| StoreError::Corrupt { table: "names", column };
    Ok(Name {
        host: host.parse().map_err(|_| corrupt("host"))?,
        server: super::id(&server, "names", "server_id")?,
        access: access_of(&access).ok_or(corrupt("access"))?,
        tls: tls_of(&tls).ok_or(corrupt("tls"))?,
    })
}
