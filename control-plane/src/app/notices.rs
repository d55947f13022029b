//! What owners are told of their servers, and what they have read.

use phlix_protocol::ids::{ServerId, UserId};
use uuid::Uuid;

use super::App;
use crate::domain::notice::{Notice, NoticeKind};
use crate::random;
use crate::store::{Conn, StoreError, notices};
use crate::timestamp::Timestamp;

/// It happened: the owner is told, and the audit log.
pub(crate) async fn raise(
    conn: &mut Conn,
    server: ServerId,
    kind: NoticeKind,
    detail: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    tracing::warn!(target: "audit", { server.id = %server, notice = kind.word(), detail }, "a server's owner is told");
    notices::raise(conn, random::uuid(), server, kind, detail, now).await
}

/// Of all of a user's servers, newest first.
pub(crate) async fn list(app: &App, owner: UserId) -> Result<Vec<Notice>, StoreError> {
    let mut conn = app.db.read().await?;
    notices::of_user(&mut conn, owner).await
}

/// Of one server.
pub(crate) async fn of_server(app: &App, server: ServerId) -> Result<Vec<Notice>, StoreError> {
    let mut conn = app.db.read().await?;
    notices::of_server(&mut conn, server).await
}

/// The owner has read it; `false` where there is none of theirs.
pub(crate) async fn dismiss(app: &App, owner: UserId, id: Uuid) -> Result<bool, StoreError> {
    let mut conn = app.db.write().await?;
    notices::dismiss(&mut conn, owner, id, app.clock.now()).await
}
