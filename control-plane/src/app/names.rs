//! Names: who is behind one, opening and closing it, and the sign-in at a protected one (trust s.6.2).

use phlix_protocol::b64;
use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::{ServerId, UserId};
use phlix_protocol::token::Access;
use phlix_protocol::uplink::{Change, EdgeRole, Route, ServerKind};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::App;
use super::grants::{self, GrantError};
use super::sessions::SignedIn;
use super::tickets::{self, Signed, TicketError};
use crate::domain::edge::Edge;
use crate::domain::name::{Name, access_word};
use crate::random;
use crate::store::name_codes::{self, NameCode};
use crate::store::{AsStoreError, StoreError, bulletin, names, servers};

/// Who is behind a host, for edges.
pub(crate) async fn route(app: &App, host: &Hostname) -> Result<Option<Route>, StoreError> {
    let mut conn = app.db.read().await?;
    // Before the row: a change that comes in between has a later revision, and the edge asks again.
    let rev = bulletin::revision(&mut conn).await?;
    let Some(name) = names::find(&mut conn, host).await? else { return Ok(None) };
    let Some(server) = servers::find(&mut conn, name.server).await? else { return Ok(None) };
    Ok(Some(Route {
        host: name.host,
        server_id: server.id,
        kind: server.kind,
        access: name.access,
        tls: name.tls,
        guard_local_paths: server.guard_local_paths,
        names_port: app.config.names_port,
        rev,
    }))
}

/// Why a name was not opened or closed.
#[derive(Debug, Error)]
pub(crate) enum AccessError {
    #[error(transparent)]
    Grant(#[from] GrantError),
    #[error("the server has no such name")]
    NoSuchName,
    #[error("a Phlix server's name can't be open")]
    NeverOpen,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AsStoreError for AccessError {
    fn as_store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            Self::Grant(error) => error.as_store_error(),
            Self::NoSuchName | Self::NeverOpen => None,
        }
    }
}

/// The owner opens or closes a name.
pub(crate) async fn set_access(
    app: &App,
    user: UserId,
    server: ServerId,
    host: &Hostname,
    access: Access,
) -> Result<Name, AccessError> {
    let now = app.clock.now();
    let name = app
        .db
        .transact(|mut tx| async move {
            let server = grants::owned(&mut tx, user, server).await?;
            //= trust s.4.1
            if access == Access::Open && server.kind == ServerKind::Phlix {
                return Err(AccessError::NeverOpen);
            }
            if !names::set_access(&mut tx, server.id, host, access).await? {
                return Err(AccessError::NoSuchName);
            }
            let name = names::find(&mut tx, host).await?.ok_or(AccessError::NoSuchName)?;
            let change = Change::Route { server_id: server.id, hosts: vec![host.clone()] };
            bulletin::publish(&mut tx, &change, now).await?;
            tx.commit().await?;
            Ok(name)
        })
        .await?;
    app.bulletin.poke();
    let access = access_word(access);
    tracing::info!(target: "audit", { server.id = %server, user.id = %user, host = %host, access }, "a name was opened or closed");
    Ok(name)
}

/// What came of a request to sign in at a name.
#[derive(Debug)]
pub(crate) enum Authorized {
    /// Nobody has that name.
    NoSuchName,
    /// The user may not.
    Denied,
    /// Back there with this code.
    Code { name: Name, code: String },
}

/// Gives a signed-in user a one-use code for a name. Where it leads is our own table's word.
pub(crate) async fn authorize(
    app: &App,
    who: &SignedIn,
    host: &Hostname,
    challenge: &str,
) -> Result<Authorized, StoreError> {
    let now = app.clock.now();
    let mut conn = app.db.read().await?;
    let Some(name) = names::find(&mut conn, host).await? else { return Ok(Authorized::NoSuchName) };
    let server = match grants::find(&mut conn, who.user, name.server).await {
        Ok((_, server)) => server,
        Err(GrantError::NotFound) => return Ok(Authorized::NoSuchName),
        Err(GrantError::Denied) => return Ok(Authorized::Denied),
        Err(GrantError::Store(error)) => return Err(error),
    };
    drop(conn);
    let code = b64::encode(random::bytes::<32>());
    let bound = NameCode {
        host: name.host.clone(),
        server: server.id,
        user: who.user,
        session: who.session,
        challenge: challenge.to_owned(),
    };
    let mut conn = app.db.write().await?;
    name_codes::insert(&mut conn, &code, &bound, now.plus(app.config.lives.name_code)).await?;
    Ok(Authorized::Code { name, code })
}

/// An edge redeems the code that a browser brought. A code is used up by the first attempt, a wrong one too.
pub(crate) async fn redeem(
    app: &App,
    edge: &Edge,
    code: &str,
    host: &Hostname,
    verifier: &str,
) -> Result<Signed, TicketError> {
    if edge.role != EdgeRole::Core {
        // Names at outer edges come with grants of names to edges.
        return Err(TicketError::NotThisEdge);
    }
    let mut conn = app.db.write().await?;
    let code = name_codes::take(&mut conn, code, app.clock.now()).await?.ok_or(TicketError::Invalid)?;
    drop(conn);
    let challenge = b64::encode(Sha256::digest(verifier.as_bytes()));
    if code.host != *host || code.challenge != challenge {
        return Err(TicketError::Invalid);
    }
    tickets::at_name(app, &code).await
}
