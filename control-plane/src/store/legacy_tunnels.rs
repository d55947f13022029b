//! How legacy tunnels came: the columns `tls_since` and `tunnel_address` of `servers`.

use std::net::IpAddr;

use phlix_protocol::ids::ServerId;

use super::{Conn, StoreError, statements};
use crate::timestamp::Timestamp;

statements! {
    HOLD = "UPDATE servers SET tls_since = ? WHERE id = ? AND tls_since IS NULL";
    RELEASE = "UPDATE servers SET tls_since = NULL WHERE id = ? AND tls_since IS NOT NULL";
    HELD = "SELECT id FROM servers WHERE tls_since IS NOT NULL";
    ADDRESS = "SELECT tunnel_address FROM servers WHERE id = ?";
    SET_ADDRESS = "UPDATE servers SET tunnel_address = ? WHERE id = ?";
}

/// From now on TLS only; `false` where that was so already.
pub(crate) async fn hold_to_tls(conn: &mut Conn, server: ServerId, now: Timestamp) -> Result<bool, StoreError> {
    let query = sqlx::query(HOLD).bind(now.millis()).bind(server.to_string());
    Ok(query.execute(conn).await?.rows_affected() == 1)
}

/// Plain tunnels are good again; `false` where they were.
pub(crate) async fn release_from_tls(conn: &mut Conn, server: ServerId) -> Result<bool, StoreError> {
    Ok(sqlx::query(RELEASE).bind(server.to_string()).execute(conn).await?.rows_affected() == 1)
}

/// All servers whose plain tunnels are refused.
pub(crate) async fn tls_only(conn: &mut Conn) -> Result<Vec<ServerId>, StoreError> {
    let rows: Vec<(String,)> = sqlx::query_as(HELD).fetch_all(conn).await?;
    rows.into_iter().map(|(id,)| super::id(&id, "servers", "id")).collect()
}

/// From where the newest tunnel came.
pub(crate) async fn address(conn: &mut Conn, server: ServerId) -> Result<Option<IpAddr>, StoreError> {
    let row: Option<Option<String>> = sqlx::query_scalar(ADDRESS).bind(server.to_string()).fetch_optional(conn).await?;
    row.flatten().map(|text| super::id(&text, "servers", "tunnel_address")).transpose()
}

/// A tunnel came from there.
pub(crate) async fn set_address(conn: &mut Conn, server: ServerId, address: IpAddr) -> Result<(), StoreError> {
    sqlx::query(SET_ADDRESS).bind(address.to_string()).bind(server.to_string()).execute(conn).await?;
    Ok(())
}
