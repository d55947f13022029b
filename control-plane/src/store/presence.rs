//! Which edge holds which server's tunnels: `edge_leases`, `tunnels`.

use std::collections::HashSet;

use phlix_protocol::ids::{EdgeId, InstanceId, ServerId, TunnelId, UserId};

use super::error::is_duplicate;
use super::{Conn, StoreError, statements};
use crate::timestamp::Timestamp;

statements! {
    RENEW = "UPDATE edge_leases SET expires_at = ? WHERE edge_id = ? AND instance = ? AND expires_at > ?";
    TAKE_OVER = "UPDATE edge_leases SET instance = ?, expires_at = ? WHERE edge_id = ?";
    LEASE = "INSERT INTO edge_leases (edge_id, instance, expires_at) VALUES (?, ?, ?)";
    END_LEASE = "DELETE FROM edge_leases WHERE edge_id = ?";
    FORGET_ALL = "DELETE FROM tunnels WHERE edge_id = ?";
    STATE = "UPDATE tunnels SET stated_until = ? WHERE edge_id = ? AND tunnel_id = ? AND server_id = ?";
    OPEN = "INSERT INTO tunnels (edge_id, tunnel_id, server_id, stated_until) VALUES (?, ?, ?, ?)";
    OF_EDGE = "SELECT tunnel_id FROM tunnels WHERE edge_id = ?";
    CLOSE = "DELETE FROM tunnels WHERE edge_id = ? AND tunnel_id = ?";
    HAS_TUNNEL = "SELECT COUNT(*) FROM tunnels t JOIN edge_leases l ON l.edge_id = t.edge_id \
                  JOIN edges e ON e.id = t.edge_id \
                  WHERE t.server_id = ? AND t.stated_until > ? AND l.expires_at > ? AND e.status = 'approved'";
    PRESENT_OF_USER = "SELECT DISTINCT t.server_id FROM tunnels t JOIN edge_leases l ON l.edge_id = t.edge_id \
                       JOIN edges e ON e.id = t.edge_id JOIN servers s ON s.id = t.server_id \
                       WHERE s.user_id = ? AND t.stated_until > ? AND l.expires_at > ? AND e.status = 'approved'";
    SWEEP_TUNNELS = "DELETE FROM tunnels WHERE stated_until <= ?";
    SWEEP_LEASES = "DELETE FROM edge_leases WHERE expires_at <= ?";
    SWEEP_ORPHANS = "DELETE FROM tunnels WHERE edge_id NOT IN (SELECT edge_id FROM edge_leases)";
}

/// Prolongs the lease of this life of an edge; `false` when it has run out or is another life's.
pub(crate) async fn renew(
    conn: &mut Conn,
    edge: EdgeId,
    instance: InstanceId,
    until: Timestamp,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let query = sqlx::query(RENEW).bind(until.millis()).bind(edge.to_string()).bind(instance.to_string());
    Ok(query.bind(now.millis()).execute(conn).await?.rows_affected() == 1)
}

/// Begins a lease: whatever the edge held before is forgotten.
pub(crate) async fn begin(
    conn: &mut Conn,
    edge: EdgeId,
    instance: InstanceId,
    until: Timestamp,
) -> Result<(), StoreError> {
    let (edge, instance, until) = (edge.to_string(), instance.to_string(), until.millis());
    let taken = sqlx::query(TAKE_OVER).bind(&instance).bind(until).bind(&edge).execute(&mut *conn).await?;
    if taken.rows_affected() == 0 {
        match sqlx::query(LEASE).bind(&edge).bind(&instance).bind(until).execute(&mut *conn).await {
            Ok(_) => {}
            Err(error) if is_duplicate(&error) => {
                sqlx::query(TAKE_OVER).bind(&instance).bind(until).bind(&edge).execute(&mut *conn).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    sqlx::query(FORGET_ALL).bind(&edge).execute(conn).await?;
    Ok(())
}

/// An edge holds nothing any more.
pub(crate) async fn end(conn: &mut Conn, edge: EdgeId) -> Result<(), StoreError> {
    sqlx::query(END_LEASE).bind(edge.to_string()).execute(&mut *conn).await?;
    sqlx::query(FORGET_ALL).bind(edge.to_string()).execute(conn).await?;
    Ok(())
}

/// The tunnels that an edge is known to hold.
pub(crate) async fn of_edge(conn: &mut Conn, edge: EdgeId) -> Result<HashSet<TunnelId>, StoreError> {
    let rows: Vec<(String,)> = sqlx::query_as(OF_EDGE).bind(edge.to_string()).fetch_all(conn).await?;
    rows.into_iter().map(|(id,)| super::id(&id, "tunnels", "tunnel_id")).collect()
}

/// A tunnel is there, by its agent's word, until then; `true` when it was not known before. The server must exist.
pub(crate) async fn open(
    conn: &mut Conn,
    edge: EdgeId,
    tunnel: TunnelId,
    server: ServerId,
    stated_until: Timestamp,
) -> Result<bool, StoreError> {
    let (edge, tunnel, server, until) =
        (edge.to_string(), tunnel.to_string(), server.to_string(), stated_until.millis());
    let state = sqlx::query(STATE).bind(until).bind(&edge).bind(&tunnel).bind(&server).execute(&mut *conn).await?;
    if state.rows_affected() == 1 {
        return Ok(false);
    }
    match sqlx::query(OPEN).bind(&edge).bind(&tunnel).bind(&server).bind(until).execute(conn).await {
        Ok(_) => Ok(true),
        // The same edge reports twice at once, or gives one tunnel to two servers: the first stands.
        Err(error) if is_duplicate(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A tunnel is gone.
pub(crate) async fn close(conn: &mut Conn, edge: EdgeId, tunnel: TunnelId) -> Result<(), StoreError> {
    sqlx::query(CLOSE).bind(edge.to_string()).bind(tunnel.to_string()).execute(conn).await?;
    Ok(())
}

/// Has this server a tunnel now?
pub(crate) async fn has_tunnel(conn: &mut Conn, server: ServerId, now: Timestamp) -> Result<bool, StoreError> {
    let query = sqlx::query_scalar(HAS_TUNNEL).bind(server.to_string()).bind(now.millis()).bind(now.millis());
    let count: i64 = query.fetch_one(conn).await?;
    Ok(count > 0)
}

/// Those of a user's servers that have a tunnel now.
pub(crate) async fn present_of_user(
    conn: &mut Conn,
    owner: UserId,
    now: Timestamp,
) -> Result<Vec<ServerId>, StoreError> {
    let query = sqlx::query_as(PRESENT_OF_USER).bind(owner.to_string()).bind(now.millis()).bind(now.millis());
    let rows: Vec<(String,)> = query.fetch_all(conn).await?;
    rows.into_iter().map(|(id,)| super::id(&id, "tunnels", "server_id")).collect()
}

/// Drops what is believed no more.
pub(crate) async fn sweep(conn: &mut Conn, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query(SWEEP_TUNNELS).bind(now.millis()).execute(&mut *conn).await?;
    sqlx::query(SWEEP_LEASES).bind(now.millis()).execute(&mut *conn).await?;
    sqlx::query(SWEEP_ORPHANS).execute(conn).await?;
    Ok(())
}
