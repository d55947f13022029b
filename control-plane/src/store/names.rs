//! Names of servers: `names`.

use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::{ServerId, UserId};
use phlix_protocol::token::Access;

use super::error::is_duplicate;
use super::{Conn, StoreError, statements};
use crate::domain::label::skeleton_of;
use crate::domain::name::{Holder, Name, access_of, access_word, tls_of, tls_word};
use crate::timestamp::Timestamp;

statements! {
    INSERT = "INSERT INTO names (host, server_id, access, tls, position, skeleton, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)";
    FIND = "SELECT host, server_id, access, tls FROM names WHERE host = ? AND released_at IS NULL";
    OF_SERVER = "SELECT host, server_id, access, tls FROM names WHERE server_id = ? AND released_at IS NULL \
                 ORDER BY position, created_at, host";
    OF_USER = "SELECT n.host, n.server_id, n.access, n.tls FROM names n JOIN servers s ON s.id = n.server_id \
               WHERE s.user_id = ? AND n.released_at IS NULL ORDER BY n.position, n.created_at, n.host";
    SET_ACCESS = "UPDATE names SET access = ? WHERE host = ? AND server_id = ? AND released_at IS NULL";
    HOLDERS = "SELECT n.host, n.released_at, n.released_by, s.user_id FROM names n LEFT JOIN servers s ON s.id = n.server_id \
               WHERE (n.host = ? OR n.skeleton = ?) AND (n.quarantined_until IS NULL OR n.quarantined_until > ?)";
    EXPIRE = "DELETE FROM names WHERE (host = ? OR skeleton = ?) AND quarantined_until <= ?";
    TAKE_BACK = "UPDATE names SET server_id = ?, access = ?, tls = ?, position = ?, skeleton = ?, created_at = ?, \
                 released_at = NULL, quarantined_until = NULL, released_by = NULL \
                 WHERE host = ? AND released_at IS NOT NULL AND released_by = ?";
    GIVE_UP_LOOK = "UPDATE names SET skeleton = NULL WHERE skeleton = ? AND released_at IS NOT NULL AND released_by = ? \
                    AND host <> ?";
    RELEASE = "UPDATE names SET released_at = ?, quarantined_until = ?, released_by = ? \
               WHERE host = ? AND server_id = ? AND released_at IS NULL";
    RELEASE_OF_SERVER = "UPDATE names SET released_at = ?, quarantined_until = ?, released_by = ? \
                         WHERE server_id = ? AND released_at IS NULL";
    WITHOUT_SKELETON = "SELECT host FROM names WHERE skeleton IS NULL AND released_at IS NULL LIMIT 500";
    SET_SKELETON = "UPDATE names SET skeleton = ? WHERE host = ? AND skeleton IS NULL AND released_at IS NULL";
    SWEEP = "DELETE FROM names WHERE quarantined_until <= ?";
}

type Row = (String, String, String, String);
/// Host, released when, by whom, and whose server has it.
type HolderRow = (String, Option<i64>, Option<String>, Option<String>);

/// Adds a name; `false` when somebody has it or one that looks like it, or had it until lately.
pub(crate) async fn insert(conn: &mut Conn, name: &Name, position: i64, now: Timestamp) -> Result<bool, StoreError> {
    let added = sqlx::query(INSERT)
        .bind(name.host.as_str())
        .bind(name.server.to_string())
        .bind(access_word(name.access))
        .bind(tls_word(name.tls))
        .bind(position)
        .bind(skeleton_of(&name.host))
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

/// Who has a name or one that looks like it, or had it until lately.
pub(crate) async fn holders(conn: &mut Conn, host: &Hostname, now: Timestamp) -> Result<Vec<Holder>, StoreError> {
    let query = sqlx::query_as(HOLDERS).bind(host.as_str()).bind(skeleton_of(host)).bind(now.millis());
    let rows: Vec<HolderRow> = query.fetch_all(conn).await?;
    let holder = |(host, released_at, released_by, owner): HolderRow| {
        let is_released = released_at.is_some();
        let user = if is_released { released_by } else { owner };
        Ok(Holder {
            host: host.parse().map_err(|_| StoreError::Corrupt { table: "names", column: "host" })?,
            is_released,
            user: user.map(|user| super::id(&user, "names", "released_by")).transpose()?,
        })
    };
    rows.into_iter().map(holder).collect()
}

/// Frees a name, and what looks like it, where the quarantine is over and no sweep has come by yet.
pub(crate) async fn expire(conn: &mut Conn, host: &Hostname, now: Timestamp) -> Result<(), StoreError> {
    let query = sqlx::query(EXPIRE).bind(host.as_str()).bind(skeleton_of(host)).bind(now.millis());
    query.execute(conn).await?;
    Ok(())
}

/// Gives a released name back to the account that had it; `false` when it had not, or took another that looks like it.
pub(crate) async fn take_back(
    conn: &mut Conn,
    name: &Name,
    owner: UserId,
    position: i64,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let taken = sqlx::query(TAKE_BACK)
        .bind(name.server.to_string())
        .bind(access_word(name.access))
        .bind(tls_word(name.tls))
        .bind(position)
        .bind(skeleton_of(&name.host))
        .bind(now.millis())
        .bind(name.host.as_str())
        .bind(owner.to_string())
        .execute(conn)
        .await;
    match taken {
        Ok(done) => Ok(done.rows_affected() == 1),
        Err(error) if is_duplicate(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The account's own released names leave their look to this one. They stay in quarantine themselves.
pub(crate) async fn give_up_look(conn: &mut Conn, host: &Hostname, owner: UserId) -> Result<(), StoreError> {
    let query = sqlx::query(GIVE_UP_LOOK).bind(skeleton_of(host)).bind(owner.to_string()).bind(host.as_str());
    query.execute(conn).await?;
    Ok(())
}

/// Takes a name from a server and keeps it from everybody but its owner until then; `false` when the server has no such name.
pub(crate) async fn release(
    conn: &mut Conn,
    server: ServerId,
    host: &Hostname,
    owner: UserId,
    now: Timestamp,
    quarantined_until: Timestamp,
) -> Result<bool, StoreError> {
    let query = sqlx::query(RELEASE).bind(now.millis()).bind(quarantined_until.millis()).bind(owner.to_string());
    let released = query.bind(host.as_str()).bind(server.to_string()).execute(conn).await?;
    Ok(released.rows_affected() == 1)
}

/// Takes all names from a server and keeps them from everybody but its owner until then.
pub(crate) async fn release_of_server(
    conn: &mut Conn,
    server: ServerId,
    owner: UserId,
    now: Timestamp,
    quarantined_until: Timestamp,
) -> Result<(), StoreError> {
    let query = sqlx::query(RELEASE_OF_SERVER).bind(now.millis()).bind(quarantined_until.millis());
    query.bind(owner.to_string()).bind(server.to_string()).execute(conn).await?;
    Ok(())
}

/// Gives their look to names of older code, some hundreds at a time. One whose look another has by now stays without.
pub(crate) async fn fill_skeletons(conn: &mut Conn) -> Result<(), StoreError> {
    let hosts: Vec<String> = sqlx::query_scalar(WITHOUT_SKELETON).fetch_all(&mut *conn).await?;
    for host in hosts {
        let host: Hostname = host.parse().map_err(|_| StoreError::Corrupt { table: "names", column: "host" })?;
        match sqlx::query(SET_SKELETON).bind(skeleton_of(&host)).bind(host.as_str()).execute(&mut *conn).await {
            Ok(_) => {}
            Err(error) if is_duplicate(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
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
