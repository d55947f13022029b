//! Relay edges: who they are, where they are, what they carry.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use phlix_protocol::ids::EdgeId;
use phlix_protocol::keys::{PublicKey, length_prefixed};
use phlix_protocol::token::{self, EdgeIdentity, Presence, SelfClaims as _};
use phlix_protocol::uplink::{
    Change, EdgeRole, EdgeStatus, OpenedTunnel, PresenceReply, PresenceReport, Registered, Selector, ServerKind,
};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::App;
use super::legacy_tunnels::came_in;
use super::revocations::revoke;
use crate::clock::Clock;
use crate::domain::edge::{Edge, Place};
use crate::store::{AsStoreError, Conn, Db, StoreError, Tx, bulletin, edges, presence, servers};
use crate::timestamp::Timestamp;

/// How long what was read of an edge is used again: its identity is asked for with every request that it passes on.
const FRESH: Duration = Duration::from_secs(2);
/// More than any hub has; beyond it the memory starts anew.
const REMEMBERED: usize = 10_000;

/// Longest `jti` of an identity, in bytes.
const MAX_JTI: usize = 128;
/// How long an identity can be believed in all: from 30 s before its `iat` (skew) to 90 s after it.
const BELIEVED: Duration = Duration::from_secs(120);
/// Identities remembered at once, 16 bytes each. An edge that needs more in two minutes is out of order.
const MOST_SEEN: usize = 1_000_000;

/// What this replica remembers of edges: their rows for two seconds, and which of their identities were used.
#[derive(Debug)]
pub(crate) struct Edges {
    db: Db,
    clock: Clock,
    known: Mutex<HashMap<EdgeId, (Timestamp, Option<Edge>)>>,
    seen: Mutex<Seen>,
}

/// The identities of this span of time and of the one before.
#[derive(Debug, Default)]
struct Seen {
    since: Option<Timestamp>,
    now: HashSet<[u8; 16]>,
    before: HashSet<[u8; 16]>,
}

impl Seen {
    /// `false` when it was seen before, or there is no room to remember it.
    fn first(&mut self, edge: EdgeId, jti: &str, now: Timestamp) -> bool {
        if self.since.is_none_or(|since| now.since(since) >= BELIEVED) {
            self.before = std::mem::take(&mut self.now);
            self.since = Some(now);
        }
        let digest = Sha256::digest(length_prefixed(&[edge.to_string().as_bytes(), jti.as_bytes()]));
        let mut short = [0; 16];
        short.copy_from_slice(&digest[..16]);
        self.now.len() < MOST_SEEN && !self.before.contains(&short) && self.now.insert(short)
    }
}

/// An identity that is this edge's and fits the head of the request; its body hash is still to be compared, and then
/// [`Edges::accept`] counts it as used.
#[derive(Debug)]
pub(crate) struct Identified {
    pub(crate) edge: Edge,
    pub(crate) body_hash: Option<String>,
    jti: String,
}

impl Edges {
    pub(crate) fn new(db: Db, clock: Clock) -> Self {
        Self { db, clock, known: Mutex::default(), seen: Mutex::default() }
    }

    /// The edge with this id, as it was at most two seconds ago. While the database is away, as it was last seen: what an edge
    /// passes on then is answered from memory (the pages, the keys) or fails by itself.
    //= architecture s.10
    async fn find(&self, id: EdgeId) -> Result<Option<Edge>, StoreError> {
        let now = self.clock.now();
        let remembered = locked(&self.known).get(&id).cloned();
        if let Some((read_at, edge)) = &remembered
            && *read_at <= now
            && now.since(*read_at) < FRESH
        {
            return Ok(edge.clone());
        }
        let edge = match (self.read(id).await, remembered) {
            (Ok(edge), _) => edge,
            // Asked again after two seconds, not for every request: each would wait for the database in vain.
            (Err(StoreError::Unavailable(_)), Some((_, edge @ Some(_)))) => edge,
            (Err(error), _) => return Err(error),
        };
        let mut known = locked(&self.known);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(id, (now, edge.clone()));
        Ok(edge)
    }

    async fn read(&self, id: EdgeId) -> Result<Option<Edge>, StoreError> {
        let mut conn = self.db.read().await?;
        edges::find(&mut conn, id).await
    }

    /// Is it still believed?
    pub(crate) async fn is_approved(&self, id: EdgeId) -> Result<bool, StoreError> {
        Ok(self.find(id).await?.is_some_and(|edge| edge.status == EdgeStatus::Approved))
    }

    /// This replica changed an edge: read it again.
    fn forget(&self, id: EdgeId) {
        locked(&self.known).remove(&id);
    }

    /// Whose identity is this, and is it for this method and target (path and query, as sent)?
    pub(crate) async fn identify(
        &self,
        token: &str,
        method: &str,
        target: &str,
    ) -> Result<Option<Identified>, StoreError> {
        if token.len() > token::MAX_TOKEN {
            return Ok(None);
        }
        let Some(claimed) = token::peek::<EdgeIdentity>(token) else { return Ok(None) };
        let Some(edge) = self.find(claimed.sub).await? else { return Ok(None) };
        let Ok(identity) = token::verify_self::<EdgeIdentity>(token, &edge.key, self.clock.now().seconds()) else {
            return Ok(None);
        };
        let fits = identity.sub == edge.id && identity.htm == method && identity.htu == target;
        if !fits || identity.jti.len() > MAX_JTI || edge.status == EdgeStatus::Revoked {
            return Ok(None);
        }
        Ok(Some(Identified { edge, body_hash: identity.bh, jti: identity.jti }))
    }

    /// Uses an identity up; `None` when it was used before.
    pub(crate) fn accept(&self, identified: Identified) -> Option<Edge> {
        let Identified { edge, jti, .. } = identified;
        locked(&self.seen).first(edge.id, &jti, self.clock.now()).then_some(edge)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why an edge was not admitted.
#[derive(Debug, Error)]
pub(crate) enum AdmitError {
    #[error("the key is another edge's")]
    KeyTaken,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AsStoreError for AdmitError {
    fn as_store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            Self::KeyTaken => None,
        }
    }
}

/// The edge inside `phlix serve`: core, and approved by the process that runs both.
pub(crate) async fn approve_builtin(app: &App, id: EdgeId, key: &PublicKey) -> Result<(), AdmitError> {
    let now = app.clock.now();
    app.db
        .transact(|mut tx| async move {
            if !edges::admit(&mut tx, id, key, EdgeRole::Core, EdgeStatus::Approved, now).await? {
                return Err(AdmitError::KeyTaken);
            }
            announce(&mut tx, now).await?;
            tx.commit().await?;
            Ok(())
        })
        .await?;
    app.edges.forget(id);
    app.bulletin.poke();
    tracing::info!(target: "audit", { edge.id = %id, edge.key = key.kid() }, "the built-in edge was approved");
    Ok(())
}

/// An admin ends an edge: it is believed nothing any more, and what was made for it is no longer good.
pub(crate) async fn revoke_edge(app: &App, id: EdgeId) -> Result<bool, StoreError> {
    let now = app.clock.now();
    let done = app
        .db
        .transact(|mut tx| async move {
            if !edges::set_status(&mut tx, id, EdgeStatus::Revoked).await? {
                return Ok(false);
            }
            presence::end(&mut tx, id).await?;
            revoke(&mut tx, Selector::Edge(id), &app.config.lives, now).await?;
            announce(&mut tx, now).await?;
            tx.commit().await?;
            Ok::<_, StoreError>(true)
        })
        .await?;
    app.edges.forget(id);
    app.bulletin.poke();
    tracing::info!(target: "audit", { edge.id = %id }, "an edge was revoked");
    Ok(done)
}

/// Takes over where an edge says that it is. What has not changed is not announced.
pub(crate) async fn register(app: &App, edge: &Edge, place: &Place) -> Result<Registered, StoreError> {
    let now = app.clock.now();
    let id = edge.id;
    app.db
        .transact(|mut tx| async move {
            edges::register(&mut tx, id, place, now).await?;
            if edge.place.as_ref() != Some(place) && edge.status == EdgeStatus::Approved {
                announce(&mut tx, now).await?;
            }
            tx.commit().await?;
            Ok::<_, StoreError>(())
        })
        .await?;
    app.edges.forget(id);
    app.bulletin.poke();
    Ok(Registered { edge_id: id, role: edge.role, status: edge.status, fingerprint: edge.key.kid() })
}

async fn announce(tx: &mut Tx, now: Timestamp) -> Result<(), StoreError> {
    let edges = edges::approved(tx).await?.iter().filter_map(Edge::entry).collect();
    bulletin::publish(tx, &Change::Edges { edges }, now).await?;
    Ok(())
}

/// What an edge carries. It is believed for each tunnel on the word of the tunnel's agent, not on its own.
//= trust s.3
pub(crate) async fn report(app: &App, edge: &Edge, report: &PresenceReport) -> Result<PresenceReply, StoreError> {
    let now = app.clock.now();
    let mut conn = app.db.read().await?;
    let mut believed = Vec::with_capacity(report.opened.len());
    for opened in &report.opened {
        match stated_until(&mut conn, edge, opened, now).await? {
            Some(until) => believed.push((opened, until)),
            None => tracing::warn!(
                target: "audit",
                { edge.id = %edge.id, server.id = %opened.server_id },
                "an edge reports a tunnel without its agent's valid word; it is not believed"
            ),
        }
    }
    drop(conn);
    let believed = &believed;
    let lease = now.plus(app.config.lives.edge_lease);
    let (reply, told) = app
        .db
        .transact(|mut tx| async move {
            let goes_on = presence::renew(&mut tx, edge.id, report.instance, lease, now).await?;
            let mut known = HashSet::new();
            if report.full {
                known = presence::of_edge(&mut tx, edge.id).await?;
                presence::begin(&mut tx, edge.id, report.instance, lease).await?;
            } else if !goes_on {
                return Ok((PresenceReply { full: true }, false));
            }
            let mut told = false;
            for (opened, until) in believed {
                let OpenedTunnel { server_id: server, tunnel_id: tunnel, legacy, .. } = **opened;
                // How it came is believed of core edges alone, as the tunnel itself was.
                let legacy = legacy.filter(|_| opened.statement.is_none() && !known.contains(&tunnel));
                let replaces = legacy.is_some() && presence::has_tunnel(&mut tx, server, now).await?;
                let is_new = presence::open(&mut tx, edge.id, tunnel, server, *until).await?;
                if let Some(how) = legacy.filter(|_| is_new) {
                    told |= came_in(&mut tx, server, how, replaces, now).await?;
                }
            }
            for tunnel in &report.closed {
                presence::close(&mut tx, edge.id, *tunnel).await?;
            }
            tx.commit().await?;
            Ok::<_, StoreError>((PresenceReply { full: false }, told))
        })
        .await?;
    if told {
        app.bulletin.poke();
    }
    Ok(reply)
}

/// Until when a reported tunnel is believed; `None` for not at all.
async fn stated_until(
    conn: &mut Conn,
    edge: &Edge,
    opened: &OpenedTunnel,
    now: Timestamp,
) -> Result<Option<Timestamp>, StoreError> {
    let Some(server) = servers::find(conn, opened.server_id).await? else { return Ok(None) };
    let Some(statement) = &opened.statement else {
        // Legacy servers have no key to sign with: a core edge is trusted like the hub.
        let believed = server.kind == ServerKind::Phlix && edge.is_core();
        return Ok(believed.then(|| now.plus(LEGACY_PRESENCE)));
    };
    let Ok(stated) = token::verify_self::<Presence>(statement, &server.key, now.seconds()) else { return Ok(None) };
    let is_this = stated.server_id == server.id && stated.edge_id == edge.id && stated.tunnel_id == opened.tunnel_id;
    let until = Timestamp::from_seconds(stated.iat.saturating_add(Presence::MAX_AGE + token::SKEW));
    Ok((is_this && server.kind == ServerKind::Generic).then_some(until))
}

/// Nobody renews a legacy tunnel's statement, for there is none: the edge's lease alone ends it.
const LEGACY_PRESENCE: Duration = Duration::from_secs(400 * 24 * 3600);
