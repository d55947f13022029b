//! The name that the hub makes for a server: given when it is claimed, given up and taken back by the server itself
//! (upstream-api s.2.3).

use std::time::Duration;

use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::{ServerId, UserId};
use phlix_protocol::token::{Access, Tls};
use thiserror::Error;

use super::App;
use super::picks::{release, take, tell};
use crate::domain::name::{self, Name};
use crate::domain::server::Server;
use crate::store::rates::{self, Attempt};
use crate::store::{AsStoreError, StoreError, Tx, names, servers};
use crate::timestamp::Timestamp;

/// Why the server has not got its name, or still has it.
#[derive(Debug, Error)]
pub(crate) enum SubdomainError {
    #[error("the server is not claimed")]
    Gone,
    #[error("no free name was found")]
    NoName,
    #[error("too many changes")]
    TooMany(Duration),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AsStoreError for SubdomainError {
    fn as_store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

/// Gives a server its label, or the next one where somebody has that. `None` where a hundred are taken.
pub(super) async fn give(
    app: &App,
    tx: &mut Tx,
    server: ServerId,
    owner: UserId,
    now: Timestamp,
) -> Result<Option<Name>, StoreError> {
    for attempt in 0..name::LABELS {
        let host = format!("{}.{}", name::label(server, attempt), app.config.public_domain);
        let Ok(host) = host.parse::<Hostname>() else { return Ok(None) };
        let name = Name { host, server, access: Access::Protected, tls: Tls::Terminated };
        if take(tx, &name, owner, name::GENERATED, now).await?.is_ok() {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// The server wants its name: the one that it has, else the one that it gave up.
pub(crate) async fn allocate(app: &App, server: &Server) -> Result<Name, SubdomainError> {
    let now = app.clock.now();
    let (name, is_new) = app
        .db
        .transact(|mut tx| async move {
            if let Some(name) = own(&mut tx, server.id).await? {
                return Ok((name, false));
            }
            count(app, &mut tx, server.id, now).await?;
            let name = give(app, &mut tx, server.id, server.owner, now).await?.ok_or(SubdomainError::NoName)?;
            tell(&mut tx, &name, now).await?;
            tx.commit().await?;
            Ok::<_, SubdomainError>((name, true))
        })
        .await?;
    if is_new {
        app.bulletin.poke();
        tracing::info!(target: "audit", { server.id = %server.id, host = %name.host }, "a server took its name");
    }
    Ok(name)
}

/// The server gives its name up; those that its owner picked stay. Without one nothing happens.
pub(crate) async fn give_up(app: &App, server: &Server) -> Result<(), SubdomainError> {
    let now = app.clock.now();
    let released = app
        .db
        .transact(|mut tx| async move {
            let Some(name) = own(&mut tx, server.id).await? else { return Ok(None) };
            count(app, &mut tx, server.id, now).await?;
            release(app, &mut tx, &name, server.owner, now).await?;
            tx.commit().await?;
            Ok::<_, SubdomainError>(Some(name))
        })
        .await?;
    if let Some(name) = released {
        app.bulletin.poke();
        tracing::info!(target: "audit", { server.id = %server.id, host = %name.host }, "a server gave its name up");
    }
    Ok(())
}

/// The name that the hub made for it. Its other changes of names wait until this transaction ends.
async fn own(tx: &mut Tx, server: ServerId) -> Result<Option<Name>, SubdomainError> {
    if !servers::lock(tx, server).await? {
        return Err(SubdomainError::Gone);
    }
    Ok(names::of_server(tx, server).await?.into_iter().find(Name::is_generated))
}

async fn count(app: &App, tx: &mut Tx, server: ServerId, now: Timestamp) -> Result<(), SubdomainError> {
    match rates::hit(tx, &format!("subdomain:{server}"), app.config.limits.subdomain, now).await? {
        Attempt::Allowed => Ok(()),
        Attempt::Refused { retry_after } => Err(SubdomainError::TooMany(retry_after)),
    }
}
