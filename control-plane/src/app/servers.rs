//! Servers as their owners see them, and their end.

use phlix_protocol::ids::{ServerId, UserId};
use phlix_protocol::uplink::{Change, Selector};

use super::App;
use super::enrollments::roll_in;
use super::grants::{self, GrantError};
use super::revocations::revoke;
use crate::domain::heartbeat::Library;
use crate::domain::name::Name;
use crate::domain::server::{Server, Status};
use crate::store::heartbeats::{self, Beat};
use crate::store::{StoreError, Tx, bulletin, names, presence, servers};
use crate::timestamp::Timestamp;

/// A server and what is said about it.
#[derive(Clone, Debug)]
pub(crate) struct Overview {
    pub(crate) server: Server,
    pub(crate) status: Status,
    pub(crate) has_tunnel: bool,
    /// The one of its URL first.
    pub(crate) names: Vec<Name>,
}

impl Overview {
    fn of(app: &App, server: Server, has_tunnel: bool, names: Vec<Name>) -> Self {
        let status = server.status(has_tunnel, app.clock.now(), app.config.lives.server_silence);
        Self { server, status, has_tunnel, names }
    }

    /// Where a browser finds it.
    pub(crate) fn url(&self, port: u16) -> Option<String> {
        self.names.first().map(|name| name.url(port))
    }

    /// Its label under the public domain.
    pub(crate) fn label(&self) -> Option<&str> {
        self.names.first().and_then(|name| name.host.as_str().split('.').next())
    }
}

/// A user's servers, newest first.
pub(crate) async fn list(app: &App, user: UserId) -> Result<Vec<Overview>, StoreError> {
    let mut conn = app.db.read().await?;
    let present = presence::present_of_user(&mut conn, user, app.clock.now()).await?;
    let mut names = names::of_user(&mut conn, user).await?;
    let servers = servers::of_user(&mut conn, user).await?;
    let overview = |server: Server| {
        let (own, others) = std::mem::take(&mut names).into_iter().partition(|name| name.server == server.id);
        names = others;
        let has_tunnel = present.contains(&server.id);
        Overview::of(app, server, has_tunnel, own)
    };
    Ok(servers.into_iter().map(overview).collect())
}

/// A server by itself, for itself or for whoever may see it.
pub(crate) async fn overview(app: &App, server: Server) -> Result<Overview, StoreError> {
    let mut conn = app.db.read().await?;
    let has_tunnel = presence::has_tunnel(&mut conn, server.id, app.clock.now()).await?;
    let names = names::of_server(&mut conn, server.id).await?;
    Ok(Overview::of(app, server, has_tunnel, names))
}

/// The owner's view of a server.
pub(crate) async fn find(app: &App, user: UserId, server: ServerId) -> Result<Overview, GrantError> {
    let mut conn = app.db.read().await?;
    let server = grants::owned(&mut conn, user, server).await?;
    drop(conn);
    Ok(overview(app, server).await?)
}

/// The same with its last heartbeats.
pub(crate) async fn detail(app: &App, user: UserId, server: ServerId) -> Result<(Overview, Vec<Beat>), GrantError> {
    let overview = find(app, user, server).await?;
    let mut conn = app.db.read().await?;
    let beats = heartbeats::latest(&mut conn, server).await?;
    Ok((overview, beats))
}

/// The libraries of an owner's server, by name.
pub(crate) async fn libraries(app: &App, user: UserId, server: ServerId) -> Result<Vec<Library>, GrantError> {
    let mut conn = app.db.read().await?;
    grants::owned(&mut conn, user, server).await?;
    Ok(heartbeats::libraries(&mut conn, server).await?)
}

/// The owner gives a server up.
pub(crate) async fn unclaim(app: &App, user: UserId, server: ServerId) -> Result<(), GrantError> {
    let now = app.clock.now();
    app.db
        .transact(|mut tx| async move {
            grants::owned(&mut tx, user, server).await?;
            remove_in(app, &mut tx, server, now).await?;
            tx.commit().await?;
            Ok::<_, GrantError>(())
        })
        .await?;
    app.bulletin.poke();
    tracing::info!(target: "audit", { server.id = %server, user.id = %user }, "a server was given up by its owner");
    Ok(())
}

/// A server gives itself up.
pub(crate) async fn deregister(app: &App, server: ServerId) -> Result<(), StoreError> {
    let now = app.clock.now();
    app.db
        .transact(|mut tx| async move {
            remove_in(app, &mut tx, server, now).await?;
            tx.commit().await?;
            Ok::<_, StoreError>(())
        })
        .await?;
    app.bulletin.poke();
    tracing::info!(target: "audit", { server.id = %server }, "a server deregistered itself");
    Ok(())
}

/// Takes a server away: its row, its names (into quarantine), and everything that edges still hold of it. For a user's end, once
/// for each of their servers.
pub(crate) async fn remove_in(app: &App, tx: &mut Tx, server: ServerId, now: Timestamp) -> Result<(), StoreError> {
    // Locked, so that no name is added between the look and the end.
    if !servers::lock(tx, server).await? {
        return Ok(());
    }
    let Some(Server { owner, .. }) = servers::find(tx, server).await? else { return Ok(()) };
    let hosts: Vec<_> = names::of_server(tx, server).await?.into_iter().map(|name| name.host).collect();
    if !servers::delete(tx, server).await? {
        return Ok(());
    }
    names::release_of_server(tx, server, owner, now, now.plus(app.config.lives.name_quarantine)).await?;
    revoke(tx, Selector::Server(server), &app.config.lives, now).await?;
    bulletin::publish(tx, &Change::Route { server_id: server, hosts }, now).await?;
    Ok(())
}

/// The owner ends all credentials of a server at once. It must be claimed again.
pub(crate) async fn roll_credentials(app: &App, user: UserId, server: ServerId) -> Result<(), GrantError> {
    let now = app.clock.now();
    app.db
        .transact(|mut tx| async move {
            grants::owned(&mut tx, user, server).await?;
            roll_in(&mut tx, server, now).await?.ok_or(GrantError::NotFound)?;
            tx.commit().await?;
            Ok::<_, GrantError>(())
        })
        .await?;
    app.bulletin.poke();
    tracing::info!(target: "audit", { server.id = %server, user.id = %user }, "a server's credentials were ended by its owner");
    Ok(())
}

/// The owner turns the guard of local callers' paths on or off; edges ask again.
pub(crate) async fn set_guard(app: &App, user: UserId, server: ServerId, on: bool) -> Result<Server, GrantError> {
    let now = app.clock.now();
    let server = app
        .db
        .transact(|mut tx| async move {
            let known = grants::owned(&mut tx, user, server).await?;
            if !servers::set_guard(&mut tx, server, on, now).await? {
                return Err(GrantError::NotFound);
            }
            let hosts = names::of_server(&mut tx, server).await?.into_iter().map(|name| name.host).collect();
            bulletin::publish(&mut tx, &Change::Route { server_id: server, hosts }, now).await?;
            tx.commit().await?;
            Ok::<_, GrantError>(Server { guard_local_paths: on, ..known })
        })
        .await?;
    app.bulletin.poke();
    tracing::info!(target: "audit", { server.id = %server.id, user.id = %user, on }, "the guard of local callers' paths was set");
    Ok(server)
}
