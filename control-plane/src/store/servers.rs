//! Claimed servers: `servers`.

use phlix_protocol::ids::{ServerId, UserId};
use phlix_protocol::keys::PublicKey;
use phlix_protocol::uplink::{Generation, ServerKind};

use super::error::is_duplicate;
use super::{Conn, StoreError, statements};
use crate::domain::server::{Credentials, Server, key_of, key_text, kind_of, kind_word};
use crate::timestamp::Timestamp;

statements! {
    INSERT = "INSERT INTO servers (id, user_id, server_name, kind, public_key, version, hostname_candidates, \
              guard_local_paths, generation, generation_at, least_generation, last_seen_at, created_at, updated_at) \
              VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    FIND = "SELECT id, user_id, server_name, kind, public_key, version, hostname_candidates, guard_local_paths, generation, \
            generation_at, least_generation, last_seen_at, library_count, tls_since FROM servers WHERE id = ?";
    FIND_TWIN = "SELECT id, user_id, server_name, kind, public_key, version, hostname_candidates, guard_local_paths, \
                 generation, generation_at, least_generation, last_seen_at, library_count, tls_since FROM servers \
                 WHERE user_id = ? AND public_key = ? AND kind = ?";
    OF_USER = "SELECT id, user_id, server_name, kind, public_key, version, hostname_candidates, guard_local_paths, generation, \
               generation_at, least_generation, last_seen_at, library_count, tls_since FROM servers WHERE user_id = ? \
               ORDER BY created_at DESC, id LIMIT 1000";
    COUNT_OF_USER = "SELECT COUNT(*) FROM servers WHERE user_id = ?";
    LOCK_OWNER = "UPDATE users SET updated_at = updated_at WHERE id = ?";
    PAIR_AGAIN = "UPDATE servers SET server_name = ?, version = ?, hostname_candidates = ?, last_seen_at = ?, updated_at = ? \
                  WHERE id = ?";
    ROLL = "UPDATE servers SET generation = generation + 1, generation_at = ?, updated_at = ? WHERE id = ?";
    END_OLDER = "UPDATE servers SET least_generation = generation WHERE id = ?";
    CREDENTIALS = "SELECT generation, generation_at, least_generation FROM servers WHERE id = ?";
    NEXT_GENERATION = "UPDATE servers SET generation = generation + 1, generation_at = ? WHERE id = ? AND generation = ?";
    SEEN = "UPDATE servers SET version = ?, hostname_candidates = ?, last_seen_at = ?, updated_at = ? WHERE id = ?";
    LOCK = "UPDATE servers SET updated_at = updated_at WHERE id = ?";
    SET_GUARD = "UPDATE servers SET guard_local_paths = ?, updated_at = ? WHERE id = ?";
    LEAST_GENERATIONS = "SELECT id, least_generation FROM servers WHERE least_generation > 0";
    OWNER_NAME = "SELECT u.username FROM users u JOIN servers s ON s.user_id = u.id WHERE s.id = ?";
    DELETE = "DELETE FROM servers WHERE id = ?";
}

type Row =
    (String, String, String, String, String, String, String, i64, i64, i64, i64, Option<i64>, Option<i64>, Option<i64>);

/// Adds a server; `false` when its owner has one with this key and kind already.
pub(crate) async fn insert(conn: &mut Conn, server: &Server, now: Timestamp) -> Result<bool, StoreError> {
    let added = sqlx::query(INSERT)
        .bind(server.id.to_string())
        .bind(server.owner.to_string())
        .bind(&server.name)
        .bind(kind_word(server.kind))
        .bind(key_text(&server.key))
        .bind(&server.version)
        .bind(super::json(&server.hostname_candidates))
        .bind(i64::from(server.guard_local_paths))
        .bind(signed(server.credentials.newest))
        .bind(server.credentials.since.millis())
        .bind(signed(server.credentials.least))
        .bind(server.last_seen_at.map(Timestamp::millis))
        .bind(now.millis())
        .bind(now.millis())
        .execute(conn)
        .await;
    match added {
        Ok(_) => Ok(true),
        Err(error) if is_duplicate(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The server with this id.
pub(crate) async fn find(conn: &mut Conn, id: ServerId) -> Result<Option<Server>, StoreError> {
    let row: Option<Row> = sqlx::query_as(FIND).bind(id.to_string()).fetch_optional(conn).await?;
    row.map(server).transpose()
}

/// The owner's server with this key and kind: the row that a new pairing uses again.
pub(crate) async fn find_twin(
    conn: &mut Conn,
    owner: UserId,
    key: &PublicKey,
    kind: ServerKind,
) -> Result<Option<Server>, StoreError> {
    let query = sqlx::query_as(FIND_TWIN).bind(owner.to_string()).bind(key_text(key)).bind(kind_word(kind));
    let row: Option<Row> = query.fetch_optional(conn).await?;
    row.map(server).transpose()
}

/// A user's servers, newest first.
pub(crate) async fn of_user(conn: &mut Conn, owner: UserId) -> Result<Vec<Server>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(OF_USER).bind(owner.to_string()).fetch_all(conn).await?;
    rows.into_iter().map(server).collect()
}

/// How many servers a user has.
pub(crate) async fn count_of_user(conn: &mut Conn, owner: UserId) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar(COUNT_OF_USER).bind(owner.to_string()).fetch_one(conn).await?)
}

/// Makes other transactions that do the same wait for the end of this one; `false` when there is no such user.
pub(crate) async fn lock_owner(conn: &mut Conn, owner: UserId) -> Result<bool, StoreError> {
    Ok(sqlx::query(LOCK_OWNER).bind(owner.to_string()).execute(conn).await?.rows_affected() == 1)
}

/// Takes over what a server says of itself when it pairs again.
pub(crate) async fn pair_again(
    conn: &mut Conn,
    id: ServerId,
    name: &str,
    version: &str,
    hostname_candidates: &[String],
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(PAIR_AGAIN)
        .bind(name)
        .bind(version)
        .bind(super::json(hostname_candidates))
        .bind(now.millis())
        .bind(now.millis())
        .bind(id.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

/// Begins a new generation and ends all older ones. `None` when the server is gone.
pub(crate) async fn roll(conn: &mut Conn, id: ServerId, now: Timestamp) -> Result<Option<Credentials>, StoreError> {
    let rolled = sqlx::query(ROLL).bind(now.millis()).bind(now.millis()).bind(id.to_string());
    if rolled.execute(&mut *conn).await?.rows_affected() == 0 {
        return Ok(None);
    }
    // Apart, because in one statement MySQL would see the raised number and SQLite the old one.
    sqlx::query(END_OLDER).bind(id.to_string()).execute(&mut *conn).await?;
    credentials(conn, id).await
}

/// The state of a server's credentials.
pub(crate) async fn credentials(conn: &mut Conn, id: ServerId) -> Result<Option<Credentials>, StoreError> {
    let row: Option<(i64, i64, i64)> = sqlx::query_as(CREDENTIALS).bind(id.to_string()).fetch_optional(conn).await?;
    Ok(row.map(|(newest, since, least)| Credentials {
        newest: unsigned(newest),
        since: Timestamp::from_millis(since),
        least: unsigned(least),
    }))
}

/// Counts one generation on from `from`; `false` when another renewal did so before.
pub(crate) async fn next_generation(
    conn: &mut Conn,
    id: ServerId,
    from: u64,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let query = sqlx::query(NEXT_GENERATION).bind(now.millis()).bind(id.to_string()).bind(signed(from));
    Ok(query.execute(conn).await?.rows_affected() == 1)
}

/// A heartbeat came. `false` when the server is gone.
pub(crate) async fn seen(
    conn: &mut Conn,
    id: ServerId,
    version: &str,
    hostname_candidates: &[String],
    now: Timestamp,
) -> Result<bool, StoreError> {
    let seen = sqlx::query(SEEN)
        .bind(version)
        .bind(super::json(hostname_candidates))
        .bind(now.millis())
        .bind(now.millis())
        .bind(id.to_string())
        .execute(conn)
        .await?;
    Ok(seen.rows_affected() == 1)
}

/// Makes other transactions that do the same wait for the end of this one; `false` when the server is gone.
pub(crate) async fn lock(conn: &mut Conn, id: ServerId) -> Result<bool, StoreError> {
    Ok(sqlx::query(LOCK).bind(id.to_string()).execute(conn).await?.rows_affected() == 1)
}

/// Turns the guard of local callers' paths on or off. `false` when the server is gone.
pub(crate) async fn set_guard(conn: &mut Conn, id: ServerId, on: bool, now: Timestamp) -> Result<bool, StoreError> {
    let query = sqlx::query(SET_GUARD).bind(i64::from(on)).bind(now.millis()).bind(id.to_string());
    Ok(query.execute(conn).await?.rows_affected() == 1)
}

/// The least generations, of all servers that have one.
pub(crate) async fn least_generations(conn: &mut Conn) -> Result<Vec<Generation>, StoreError> {
    let rows: Vec<(String, i64)> = sqlx::query_as(LEAST_GENERATIONS).fetch_all(conn).await?;
    let generation = |(id, least): (String, i64)| {
        Ok(Generation { server_id: super::id(&id, "servers", "id")?, least: unsigned(least) })
    };
    rows.into_iter().map(generation).collect()
}

/// The account's name, for the server that it claimed.
pub(crate) async fn owner_name(conn: &mut Conn, id: ServerId) -> Result<Option<String>, StoreError> {
    Ok(sqlx::query_scalar(OWNER_NAME).bind(id.to_string()).fetch_optional(conn).await?)
}

/// Takes a server away, with its heartbeats, libraries and tunnels; `false` when another request did so before.
pub(crate) async fn delete(conn: &mut Conn, id: ServerId) -> Result<bool, StoreError> {
    Ok(sqlx::query(DELETE).bind(id.to_string()).execute(conn).await?.rows_affected() == 1)
}

fn server(row: Row) -> Result<Server, StoreError> {
    let corrupt = |column| StoreError::Corrupt { table: "servers", column };
    let (id, owner, name, kind, key, version, candidates, guard, newest, since, least, seen, libraries, tls) = row;
    Ok(Server {
        id: super::id(&id, "servers", "id")?,
        owner: super::id(&owner, "servers", "user_id")?,
        name,
        kind: kind_of(&kind).ok_or(corrupt("kind"))?,
        key: key_of(&key).ok_or(corrupt("public_key"))?,
        version,
        hostname_candidates: super::list(&candidates, "servers", "hostname_candidates")?,
        guard_local_paths: guard != 0,
        credentials: Credentials {
            newest: unsigned(newest),
            since: Timestamp::from_millis(since),
            least: unsigned(least),
        },
        last_seen_at: seen.map(Timestamp::from_millis),
        library_count: libraries,
        tls_since: tls.map(Timestamp::from_millis),
    })
}

/// Counters never go below zero nor near the end of an i64.
fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
