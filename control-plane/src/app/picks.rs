//! Owners pick their servers' names, and give them up (architecture s.8, promises T22).
//!
//! Of all who want a name, or one that looks like it, at the same moment the unique keys of `names` let one have it. Whatever is
//! asked before only finds the words for a refusal.

use std::time::Duration;

use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::{ServerId, UserId};
use phlix_protocol::token::{Access, Tls};
use phlix_protocol::uplink::Change;
use thiserror::Error;
use url::Url;

use super::App;
use super::grants::{self, GrantError};
use crate::domain::edge::Edge;
use crate::domain::label::{Kept, Label, Malformed};
use crate::domain::name::{self, Holder, Name, Obstacle};
use crate::store::rates::{self, Attempt};
use crate::store::{AsStoreError, Conn, StoreError, Tx, bulletin, edges, names, servers};
use crate::timestamp::Timestamp;

/// Why a label can't be had.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Unavailable {
    #[error("the label has not the right form")]
    Malformed(Malformed),
    #[error("the label is kept from everybody")]
    Kept(Kept),
    #[error("the name is held, or one that looks like it")]
    Held(Obstacle),
}

impl From<Malformed> for Unavailable {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// Why a name was not picked or given up.
#[derive(Debug, Error)]
pub(crate) enum PickError {
    #[error(transparent)]
    Grant(#[from] GrantError),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    #[error("the server has as many names as allowed")]
    TooMany(usize),
    #[error("too many tries")]
    TooOften(Duration),
    #[error("the user took too many new names")]
    TooManyNew(Duration),
    #[error("the server has no such name")]
    NoSuchName,
    #[error("it is the server's only name")]
    LastName,
}

impl From<StoreError> for PickError {
    fn from(error: StoreError) -> Self {
        Self::Grant(error.into())
    }
}

impl AsStoreError for PickError {
    fn as_store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Grant(error) => error.as_store_error(),
            _ => None,
        }
    }
}

/// What is said about a label before anybody picks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Availability {
    /// As it would be taken; `None` where it is no label.
    pub(crate) host: Option<Hostname>,
    pub(crate) obstacle: Option<Unavailable>,
    /// It was the asker's own, who gets it back.
    pub(crate) was_own: bool,
}

/// Could this user have the label now? A hint: picking decides.
pub(crate) async fn availability(app: &App, user: UserId, text: &str) -> Result<Availability, PickError> {
    let now = app.clock.now();
    let mut conn = app.db.write().await?;
    let key = format!("name-check:{user}");
    if let Attempt::Refused { retry_after } = rates::hit(&mut conn, &key, app.config.limits.name_check, now).await? {
        return Err(PickError::TooOften(retry_after));
    }
    drop(conn);
    let refused = |host, obstacle| Ok(Availability { host, obstacle: Some(obstacle), was_own: false });
    let mut conn = app.db.read().await?;
    let host = match choose(app, &mut conn, text).await? {
        Ok(host) => host,
        Err(obstacle) => return refused(None, obstacle),
    };
    let holders = names::holders(&mut conn, &host, now).await?;
    if let Some(obstacle) = name::obstacle(&holders, &host, user) {
        return refused(Some(host), Unavailable::Held(obstacle));
    }
    let was_own = holders.iter().any(|holder: &Holder| holder.host == host);
    Ok(Availability { host: Some(host), obstacle: None, was_own })
}

/// The name that a text asks for, where its form and its words are nobody else's business.
async fn choose(app: &App, conn: &mut Conn, text: &str) -> Result<Result<Hostname, Unavailable>, StoreError> {
    let label = match Label::parse(text) {
        Ok(label) => label,
        Err(malformed) => return Ok(Err(malformed.into())),
    };
    let edges = edges::approved(conn).await?;
    let own = own_labels(&app.config.public_url, &app.config.public_domain, &edges);
    if let Some(kept) = label.kept(&own) {
        return Ok(Err(Unavailable::Kept(kept)));
    }
    Ok(label.under(&app.config.public_domain).ok_or(Unavailable::Malformed(Malformed::Long)))
}

/// The labels under the public domain that lead to the hub itself or to an edge.
//= trust s.8.3
fn own_labels(public_url: &Url, public_domain: &str, edges: &[Edge]) -> Vec<String> {
    let hub = public_url.host_str().map(str::to_owned);
    let edges = edges.iter().filter_map(|edge| edge.place.as_ref()).flat_map(|place| place.names.iter().cloned());
    let below = |host: String| {
        let host = host.to_ascii_lowercase();
        let labels = host.strip_suffix(public_domain)?.strip_suffix('.')?;
        // The one directly under the domain, also of a deeper name.
        labels.rsplit('.').next().map(str::to_owned)
    };
    hub.into_iter().chain(edges).filter_map(below).collect()
}

/// How a name was come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Took {
    New,
    /// It was the same account's before.
    Back,
}

/// Takes a name for a server: the owner's own released one, or one that nobody has nor had lately nor has the like of.
pub(super) async fn take(
    tx: &mut Tx,
    name: &Name,
    owner: UserId,
    position: i64,
    now: Timestamp,
) -> Result<Result<Took, Obstacle>, StoreError> {
    names::expire(tx, &name.host, now).await?;
    names::give_up_look(tx, &name.host, owner).await?;
    if names::take_back(tx, name, owner, position, now).await? {
        return Ok(Ok(Took::Back));
    }
    if names::insert(tx, name, position, now).await? {
        return Ok(Ok(Took::New));
    }
    let holders = names::holders(tx, &name.host, now).await?;
    Ok(Err(name::obstacle(&holders, &name.host, owner).unwrap_or(Obstacle::Taken)))
}

/// The owner picks a name. It is protected until they open it.
pub(crate) async fn add(app: &App, user: UserId, server: ServerId, text: &str) -> Result<Name, PickError> {
    let now = app.clock.now();
    let limits = &app.config.limits;
    let mut conn = app.db.write().await?;
    if let Attempt::Refused { retry_after } =
        rates::hit(&mut conn, &format!("name-try:{user}"), limits.name_try, now).await?
    {
        return Err(PickError::TooOften(retry_after));
    }
    drop(conn);
    let name = app
        .db
        .transact(|mut tx| async move {
            let server = grants::owned(&mut tx, user, server).await?;
            // Others that add to this server or take from it wait: what is counted stays so.
            if !servers::lock(&mut tx, server.id).await? {
                return Err(GrantError::NotFound.into());
            }
            let host = choose(app, &mut tx, text).await??;
            let picked = names::of_server(&mut tx, server.id).await?;
            if picked.iter().filter(|name| !name.is_generated()).count() >= limits.names_per_server {
                return Err(PickError::TooMany(limits.names_per_server));
            }
            let name = Name { host, server: server.id, access: Access::Protected, tls: Tls::Terminated };
            let took = take(&mut tx, &name, user, name::PICKED, now).await?.map_err(Unavailable::Held)?;
            if took == Took::New {
                let attempt = rates::hit(&mut tx, &format!("name-new:{user}"), limits.name_new, now).await?;
                if let Attempt::Refused { retry_after } = attempt {
                    return Err(PickError::TooManyNew(retry_after));
                }
            }
            tell(&mut tx, &name, now).await?;
            tx.commit().await?;
            Ok::<_, PickError>(name)
        })
        .await?;
    app.bulletin.poke();
    tracing::info!(target: "audit", { server.id = %server, user.id = %user, host = %name.host }, "a name was picked");
    Ok(name)
}

/// The owner gives a name up. It is nobody's but theirs until the quarantine ends. The last one stays: without any the server
/// could not be reached.
pub(crate) async fn remove(app: &App, user: UserId, server: ServerId, host: &Hostname) -> Result<(), PickError> {
    let now = app.clock.now();
    app.db
        .transact(|mut tx| async move {
            let server = grants::owned(&mut tx, user, server).await?;
            if !servers::lock(&mut tx, server.id).await? {
                return Err(GrantError::NotFound.into());
            }
            let names = names::of_server(&mut tx, server.id).await?;
            let name = names.iter().find(|name| name.host == *host).ok_or(PickError::NoSuchName)?;
            if names.len() == 1 {
                return Err(PickError::LastName);
            }
            if !release(app, &mut tx, name, user, now).await? {
                return Err(PickError::NoSuchName);
            }
            tx.commit().await?;
            Ok::<_, PickError>(())
        })
        .await?;
    app.bulletin.poke();
    tracing::info!(target: "audit", { server.id = %server, user.id = %user, host = %host }, "a name was given up");
    Ok(())
}

/// Gives a name up and tells the edges. `false` when another request did so before.
pub(super) async fn release(
    app: &App,
    tx: &mut Tx,
    name: &Name,
    owner: UserId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let until = now.plus(app.config.lives.name_quarantine);
    if !names::release(tx, name.server, &name.host, owner, now, until).await? {
        return Ok(false);
    }
    tell(tx, name, now).await?;
    Ok(true)
}

/// Edges ask anew who is behind the name, and tell the server's agent to fetch a ticket that names it or no longer does.
pub(super) async fn tell(tx: &mut Tx, name: &Name, now: Timestamp) -> Result<(), StoreError> {
    let change = Change::Route { server_id: name.server, hosts: vec![name.host.clone()] };
    bulletin::publish(tx, &change, now).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_the_hub_and_its_edges_are_its_own() {
        use phlix_protocol::ids::EdgeId;
        use phlix_protocol::keys::SigningKey;
        use phlix_protocol::uplink::{EdgeRole, EdgeStatus};

        use crate::domain::edge::Place;

        let place = Place {
            region: "home".into(),
            names: vec!["Oslo.tv.example".into(), "a.paris.tv.example".into(), "edge.elsewhere.example".into()],
            addresses: Vec::new(),
            port: 443,
            spki: None,
            behind_proxy: false,
            version: "1".into(),
        };
        let edge = Edge {
            id: EdgeId::new(uuid::Uuid::nil()),
            key: SigningKey::from_seed(&[7; 32]).public(),
            role: EdgeRole::Core,
            status: EdgeStatus::Approved,
            place: Some(place),
        };
        let url = Url::parse("https://front.tv.example/").unwrap();
        assert_eq!(own_labels(&url, "tv.example", &[edge]), ["front", "oslo", "paris"]);
        assert!(own_labels(&Url::parse("https://tv.example").unwrap(), "tv.example", &[]).is_empty());
        assert!(own_labels(&Url::parse("https://eviltv.example").unwrap(), "tv.example", &[]).is_empty());
    }
}
