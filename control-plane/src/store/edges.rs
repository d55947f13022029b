//! Relay edges: `edges`.

use phlix_protocol::ids::EdgeId;
use phlix_protocol::keys::PublicKey;
use phlix_protocol::uplink::{EdgeRole, EdgeStatus};

use super::error::is_duplicate;
use super::{Conn, StoreError, statements};
use crate::domain::edge::{Edge, Place, role_of, role_word, status_of, status_word};
use crate::domain::server::{key_of, key_text};
use crate::timestamp::Timestamp;

statements! {
    INSERT = "INSERT INTO edges (id, public_key, role, status, region, names, addresses, port, behind_proxy, version, \
              created_at) VALUES (?, ?, ?, ?, '', '[]', '[]', 0, 0, '', ?)";
    ADMIT = "UPDATE edges SET public_key = ?, role = ?, status = ? WHERE id = ?";
    FIND = "SELECT id, public_key, role, status, region, names, addresses, port, spki, behind_proxy, version, registered_at \
            FROM edges WHERE id = ?";
    APPROVED = "SELECT id, public_key, role, status, region, names, addresses, port, spki, behind_proxy, version, \
                registered_at FROM edges WHERE status = 'approved' ORDER BY id LIMIT 1000";
    REGISTER = "UPDATE edges SET region = ?, names = ?, addresses = ?, port = ?, spki = ?, behind_proxy = ?, version = ?, \
                registered_at = ? WHERE id = ?";
    SET_STATUS = "UPDATE edges SET status = ? WHERE id = ?";
}

type Row = (String, String, String, String, String, String, String, i64, Option<String>, i64, String, Option<i64>);

/// Makes an edge known, or sets its key, role and status anew. `false` when the key is another edge's.
pub(crate) async fn admit(
    conn: &mut Conn,
    id: EdgeId,
    key: &PublicKey,
    role: EdgeRole,
    status: EdgeStatus,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let (key, role, status) = (key_text(key), role_word(role), status_word(status));
    let done = |result: Result<sqlx::any::AnyQueryResult, sqlx::Error>| match result {
        Ok(done) => Ok(Some(done.rows_affected() == 1)),
        Err(error) if is_duplicate(&error) => Ok(None),
        Err(error) => Err(StoreError::from(error)),
    };
    let update = sqlx::query(ADMIT).bind(&key).bind(role).bind(status).bind(id.to_string());
    match done(update.execute(&mut *conn).await)? {
        Some(true) => return Ok(true),
        None => return Ok(false),
        Some(false) => {}
    }
    let insert = sqlx::query(INSERT).bind(id.to_string()).bind(&key).bind(role).bind(status).bind(now.millis());
    Ok(done(insert.execute(conn).await)?.is_some())
}

/// The edge with this id.
pub(crate) async fn find(conn: &mut Conn, id: EdgeId) -> Result<Option<Edge>, StoreError> {
    let row: Option<Row> = sqlx::query_as(FIND).bind(id.to_string()).fetch_optional(conn).await?;
    row.map(edge).transpose()
}

/// The approved ones.
pub(crate) async fn approved(conn: &mut Conn) -> Result<Vec<Edge>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(APPROVED).fetch_all(conn).await?;
    rows.into_iter().map(edge).collect()
}

/// Takes over where an edge says that it is.
pub(crate) async fn register(conn: &mut Conn, id: EdgeId, place: &Place, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query(REGISTER)
        .bind(&place.region)
        .bind(super::json(&place.names))
        .bind(super::json(&place.addresses))
        .bind(i64::from(place.port))
        .bind(place.spki.as_deref())
        .bind(i64::from(place.behind_proxy))
        .bind(&place.version)
        .bind(now.millis())
        .bind(id.to_string())
        .execute(conn)
        .await?;
    Ok(())
}

/// Approves or revokes; `false` when there is no such edge.
pub(crate) async fn set_status(conn: &mut Conn, id: EdgeId, status: EdgeStatus) -> Result<bool, StoreError> {
    let set = sqlx::query(SET_STATUS).bind(status_word(status)).bind(id.to_string()).execute(conn).await?;
    Ok(set.rows_affected() == 1)
}

fn edge(row: Row) -> Result<Edge, StoreError> {
    let corrupt = |column| StoreError::Corrupt { table: "edges", column };
    let (id, key, role, status, region, names, addresses, port, spki, behind_proxy, version, registered_at) = row;
    let place = match registered_at {
        None => None,
        Some(_) => Some(Place {
            region,
            names: super::list(&names, "edges", "names")?,
            addresses: super::list(&addresses, "edges", "addresses")?,
            port: u16::try_from(port).map_err(|_| corrupt("port"))?,
            spki,
            behind_proxy: behind_proxy != 0,
            version,
        }),
    };
    Ok(Edge {
        id: super::id(&id, "edges", "id")?,
        key: key_of(&key).ok_or(corrupt("public_key"))?,
        role: role_of(&role).ok_or(corrupt("role"))?,
        status: status_of(&status).ok_or(corrupt("status"))?,
        place,
    })
}
