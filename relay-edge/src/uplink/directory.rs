//! Questions to the control plane, answered from a cache where possible.
//!
//! A route is kept until the bulletin says that it changed; while the control plane is away it is served as it was. A
//! credential that was refused is remembered by its hash for 30 s, so that a flood of bad ones stays here.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Method, StatusCode};
use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::ServerId;
use phlix_protocol::token::{self, Scope, ViewerTicket};
use phlix_protocol::uplink::{
    Credential, ExchangeReply, ExchangeRequest, NameCode, RelayToken, RenewRequest, Route, ServerState, TicketReply,
    paths,
};
use sha2::{Digest as _, Sha256};

use super::bulletin::Bulletin;
use super::client::{CallError, Client};
use super::single_flight::SingleFlight;
use crate::clock;
use crate::config::Config;

/// SHA-256 of a secret: what caches are keyed by, so that no cache holds a credential.
pub(crate) type Digest = [u8; 32];

/// The hash of a secret.
pub(crate) fn digest(secret: &str) -> Digest {
    Sha256::digest(secret.as_bytes()).into()
}

/// The control plane is away and nothing usable is known.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the control plane is away")]
pub(crate) struct Away;

/// What became of an exchange.
#[derive(Debug, Clone)]
pub(crate) enum Exchange {
    Ticket(Arc<Exchanged>),
    /// The status and the body that the viewer gets.
    Refused(StatusCode, Bytes),
}

/// A verified ticket for the proxy path, and what stands behind it.
#[derive(Debug)]
pub(crate) struct Exchanged {
    pub(crate) claims: ViewerTicket,
    pub(crate) reply: ExchangeReply,
}

/// What became of a relay token.
#[derive(Debug, Clone)]
pub(crate) enum Mount {
    /// A ticket of scope `Tunnel` for this edge.
    Ticket(Arc<ViewerTicket>),
    /// 401: unknown, late or withdrawn; 403: the server is not its user's (any more); 404: the server is gone.
    Refused(StatusCode),
}

/// How long what was heard of a server's signs of life is used again.
const STATE_KEPT: Duration = Duration::from_secs(5);

/// The cache and the questions under way.
pub(crate) struct Directory {
    client: Client,
    bulletin: Bulletin,
    patience: Duration,
    negative: Duration,
    cache: Arc<Cache>,
    routes: SingleFlight<Hostname, Result<Option<Arc<Route>>, Away>>,
    exchanges: SingleFlight<(Digest, ServerId), Result<Exchange, Away>>,
    mounts: SingleFlight<(Digest, ServerId), Result<Mount, Away>>,
    states: SingleFlight<ServerId, Result<bool, Away>>,
}

#[derive(Default)]
struct Cache {
    state: Mutex<CacheState>,
}

#[derive(Default)]
struct CacheState {
    routes: Bounded<Hostname, CachedRoute>,
    exchanges: Bounded<(Digest, ServerId), Arc<Exchanged>>,
    refused: Bounded<Digest, (Instant, StatusCode, Bytes)>,
    renewals: Bounded<Digest, Renewal>,
    /// By relay token and server.
    mounts: Bounded<(Digest, ServerId), Arc<ViewerTicket>>,
    /// Relay tokens that were refused a moment ago. Apart from `refused`: a viewer's flood must not push them out.
    refused_mounts: Bounded<(Digest, ServerId), (Instant, StatusCode)>,
    /// Whether a server gave signs of life, and until when that is used.
    states: Bounded<ServerId, (Instant, bool)>,
    /// Revision of the last change to any route: an answer that was read before it may be old.
    last_change: u64,
}

#[derive(Clone)]
struct CachedRoute {
    /// `None`: nobody has that name.
    route: Option<Arc<Route>>,
    /// Ask before using it; but use it when nobody answers.
    doubted: bool,
    /// When an unknown name may be asked for again.
    until: Option<Instant>,
}

struct Renewal {
    /// Not asked for before.
    again: Instant,
    reply: Option<TicketReply>,
}

impl Directory {
    pub(super) fn new(config: &Config, client: Client, bulletin: Bulletin) -> Self {
        let cache = Arc::new(Cache::default());
        {
            let mut state = cache.state();
            let entries = config.limits.cache_entries;
            state.routes.capacity = entries;
            state.exchanges.capacity = entries;
            state.refused.capacity = entries;
            state.renewals.capacity = entries;
            state.mounts.capacity = entries;
            state.refused_mounts.capacity = entries;
            state.states.capacity = entries;
        }
        Self {
            client,
            bulletin,
            patience: config.timeouts.uplink,
            negative: config.timeouts.negative,
            cache,
            routes: SingleFlight::new(),
            exchanges: SingleFlight::new(),
            mounts: SingleFlight::new(),
            states: SingleFlight::new(),
        }
    }

    /// Whose name this is.
    pub(crate) async fn route(&self, host: &Hostname) -> Result<Option<Arc<Route>>, Away> {
        let known = self.cache.state().routes.get(host).cloned();
        let now = Instant::now();
        if let Some(known) = &known
            && !known.doubted
            && known.until.is_none_or(|until| now < until)
        {
            return Ok(known.route.clone());
        }
        let flight = self.routes.join(host.clone(), || {
            let (client, cache, host, negative) =
                (self.client.clone(), Arc::clone(&self.cache), host.clone(), self.negative);
            async move { ask_route(&client, &cache, host, negative).await }.boxed()
        });
        match tokio::time::timeout(self.patience, flight).await {
            Ok(Ok(route)) => Ok(route),
            Ok(Err(Away)) | Err(_) => match known {
                Some(CachedRoute { route: Some(route), .. }) => Ok(Some(route)),
                _ => Err(Away),
            },
        }
    }

    /// The bulletin says that these names changed at a revision: what was known of them is void.
    pub(super) fn forget(&self, hosts: &[Hostname], revision: u64) {
        let mut state = self.cache.state();
        state.last_change = revision.max(state.last_change);
        for host in hosts {
            state.routes.remove(host);
        }
    }

    /// Changes were missed: everything is asked again before it is used, unless nobody answers.
    pub(super) fn doubt_all(&self) {
        let mut state = self.cache.state();
        for known in state.routes.entries.values_mut() {
            known.doubted = true;
        }
    }

    /// Whether this credential was refused a moment ago, and how.
    pub(crate) fn refused(&self, credential: Digest) -> Option<(StatusCode, Bytes)> {
        let state = self.cache.state();
        let (until, status, body) = state.refused.get(&credential)?;
        (Instant::now() < *until).then(|| (*status, body.clone()))
    }

    /// Exchanges what a viewer showed on the hub's own domain for a ticket to one server.
    pub(crate) async fn exchange(&self, credential: Credential, server: ServerId) -> Result<Exchange, Away> {
        let (Credential::Bearer(secret) | Credential::Session(secret)) = &credential;
        let key = (digest(secret), server);
        let known = self.cache.state().exchanges.get(&key).cloned();
        if let Some(known) = known
            && clock::unix_now() < known.reply.expires_at
            && !self.bulletin.world().revokes_viewer(&known.claims)
        {
            return Ok(Exchange::Ticket(known));
        }
        let flight = self.exchanges.join(key, || {
            let (client, bulletin, cache, negative, patience) =
                (self.client.clone(), self.bulletin.clone(), Arc::clone(&self.cache), self.negative, self.patience);
            let request = ExchangeRequest { credential, server_id: server };
            async move { ask_exchange(&client, &bulletin, &cache, key, request, negative, patience).await }.boxed()
        });
        tokio::time::timeout(self.patience, flight).await.unwrap_or(Err(Away))
    }

    /// Exchanges a relay token for a ticket to raw channels of one legacy server. The caller has checked its shape.
    pub(crate) async fn mount(&self, token: &str, server: ServerId) -> Result<Mount, Away> {
        let key = (digest(token), server);
        {
            let state = self.cache.state();
            if let Some(ticket) = state.mounts.get(&key)
                && clock::unix_now() < ticket.exp
                && !self.bulletin.world().revokes_viewer(ticket)
            {
                return Ok(Mount::Ticket(Arc::clone(ticket)));
            }
            if let Some((until, status)) = state.refused_mounts.get(&key)
                && Instant::now() < *until
            {
                return Ok(Mount::Refused(*status));
            }
        }
        let flight = self.mounts.join(key, || {
            let (client, bulletin, cache, negative, patience) =
                (self.client.clone(), self.bulletin.clone(), Arc::clone(&self.cache), self.negative, self.patience);
            let request = RelayToken { token: token.to_owned(), server_id: server };
            async move { ask_mount(&client, &bulletin, &cache, key, request, negative, patience).await }.boxed()
        });
        tokio::time::timeout(self.patience, flight).await.unwrap_or(Err(Away))
    }

    /// Whether a server without a tunnel here gives signs of life (a recent heartbeat, or a tunnel elsewhere).
    pub(crate) async fn online(&self, server: ServerId) -> Result<bool, Away> {
        let known = self.cache.state().states.get(&server).copied();
        if let Some((until, online)) = known
            && Instant::now() < until
        {
            return Ok(online);
        }
        let flight = self.states.join(server, || {
            let (client, cache) = (self.client.clone(), Arc::clone(&self.cache));
            async move { ask_state(&client, &cache, server).await }.boxed()
        });
        tokio::time::timeout(self.patience, flight).await.unwrap_or(Err(Away))
    }

    /// Redeems a sign-in's code. Not cached: a code is good once.
    pub(crate) async fn redeem(&self, code: NameCode) -> Result<TicketReply, CallError> {
        self.client.call(Method::POST, paths::NAME_CODES, Some(&code)).await
    }

    /// Asks for a fresh ticket for one past half its life, and does not wait for it.
    pub(crate) fn renew(&self, ticket: &str) {
        let key = digest(ticket);
        let mut state = self.cache.state();
        let now = Instant::now();
        if state.renewals.get(&key).is_some_and(|renewal| now < renewal.again) {
            return;
        }
        // The answer is kept as long as a refusal would be: requests that still show the old cookie get it, too.
        state.renewals.insert(key, Renewal { again: now + self.negative, reply: None });
        drop(state);
        let (client, cache) = (self.client.clone(), Arc::clone(&self.cache));
        let request = RenewRequest { ticket: ticket.to_owned() };
        tokio::spawn(async move {
            match client.call::<_, TicketReply>(Method::POST, paths::RENEW_VIEWER_TICKET, Some(&request)).await {
                Ok(reply) => {
                    if let Some(renewal) = cache.state().renewals.get_mut(&key) {
                        renewal.reply = Some(reply);
                    }
                }
                Err(error) => tracing::debug!(%error, "a viewer's ticket was not renewed"),
            }
        });
    }

    /// The fresh ticket, once it came.
    pub(crate) fn renewed(&self, ticket: &str) -> Option<TicketReply> {
        self.cache.state().renewals.get(&digest(ticket))?.reply.clone()
    }
}

async fn ask_route(
    client: &Client,
    cache: &Cache,
    host: Hostname,
    negative: Duration,
) -> Result<Option<Arc<Route>>, Away> {
    let path = format!("{}/{host}", paths::HOSTS);
    let (route, revision) = match client.call::<(), Route>(Method::GET, &path, None).await {
        Ok(route) if route.host == host => {
            let revision = route.rev;
            (Some(Arc::new(route)), Some(revision))
        }
        Err(CallError::Refused(StatusCode::NOT_FOUND, _)) => (None, None),
        Ok(_) => {
            tracing::error!("the directory answered for another name than was asked for");
            return Err(Away);
        }
        Err(error) => {
            tracing::warn!(%error, "the directory did not answer for a name");
            return Err(Away);
        }
    };
    let mut state = cache.state();
    let doubted = revision.is_some_and(|revision| revision < state.last_change);
    let until = route.is_none().then(|| Instant::now() + negative);
    state.routes.insert(host, CachedRoute { route: route.clone(), doubted, until });
    Ok(route)
}

async fn ask_exchange(
    client: &Client,
    bulletin: &Bulletin,
    cache: &Cache,
    key: (Digest, ServerId),
    request: ExchangeRequest,
    negative: Duration,
    patience: Duration,
) -> Result<Exchange, Away> {
    let server = request.server_id;
    match client.call::<_, ExchangeReply>(Method::POST, paths::VIEWER_TICKETS, Some(&request)).await {
        Ok(reply) => {
            let rev = token::peek::<ViewerTicket>(&reply.ticket).map_or(0, |claims| claims.rev);
            let world = bulletin.reached(rev, patience).await.ok_or(Away)?;
            let claims: ViewerTicket =
                token::verify(&reply.ticket, &world.keys, clock::unix_now()).map_err(|error| {
                    tracing::error!(%error, "the control plane's viewer ticket does not verify");
                    Away
                })?;
            if claims.server_id != server || world.revokes_viewer(&claims) {
                return Err(Away);
            }
            let exchanged = Arc::new(Exchanged { claims, reply });
            cache.state().exchanges.insert(key, Arc::clone(&exchanged));
            Ok(Exchange::Ticket(exchanged))
        }
        Err(CallError::Refused(status, body)) => {
            // 401 says that the credential is worth nothing anywhere. 403 and 404 may change with the next share.
            if status == StatusCode::UNAUTHORIZED {
                cache.state().refused.insert(key.0, (Instant::now() + negative, status, body.clone()));
            }
            Ok(Exchange::Refused(status, body))
        }
        Err(error) => {
            tracing::warn!(%error, "the control plane exchanges no credentials");
            Err(Away)
        }
    }
}

async fn ask_mount(
    client: &Client,
    bulletin: &Bulletin,
    cache: &Cache,
    key: (Digest, ServerId),
    request: RelayToken,
    negative: Duration,
    patience: Duration,
) -> Result<Mount, Away> {
    let server = request.server_id;
    match client.call::<_, TicketReply>(Method::POST, paths::RELAY_TOKENS, Some(&request)).await {
        Ok(reply) => {
            let rev = token::peek::<ViewerTicket>(&reply.ticket).map_or(0, |claims| claims.rev);
            let world = bulletin.reached(rev, patience).await.ok_or(Away)?;
            let claims: ViewerTicket =
                token::verify(&reply.ticket, &world.keys, clock::unix_now()).map_err(|error| {
                    tracing::error!(%error, "the control plane's ticket for a relay token does not verify");
                    Away
                })?;
            if claims.server_id != server || claims.scope != Scope::Tunnel {
                return Err(Away);
            }
            if world.revokes_viewer(&claims) {
                return Ok(Mount::Refused(StatusCode::UNAUTHORIZED));
            }
            let claims = Arc::new(claims);
            cache.state().mounts.insert(key, Arc::clone(&claims));
            Ok(Mount::Ticket(claims))
        }
        Err(CallError::Refused(status, _)) => {
            cache.state().refused_mounts.insert(key, (Instant::now() + negative, status));
            Ok(Mount::Refused(status))
        }
        Err(error) => {
            tracing::warn!(%error, "the control plane exchanges no relay tokens");
            Err(Away)
        }
    }
}

async fn ask_state(client: &Client, cache: &Cache, server: ServerId) -> Result<bool, Away> {
    let path = format!("{}/{server}/state", paths::SERVERS);
    let online = match client.call::<(), ServerState>(Method::GET, &path, None).await {
        Ok(state) => state.online,
        Err(CallError::Refused(StatusCode::NOT_FOUND, _)) => false,
        Err(error) => {
            tracing::debug!(%error, "the control plane does not say how a server is");
            return Err(Away);
        }
    };
    cache.state().states.insert(server, (Instant::now() + STATE_KEPT, online));
    Ok(online)
}

impl Cache {
    fn state(&self) -> MutexGuard<'_, CacheState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A map that holds so much and no more: when it is full, something has to go, and a cache may forget anything.
pub(crate) struct Bounded<K, V> {
    entries: HashMap<K, V>,
    capacity: usize,
}

impl<K, V> Default for Bounded<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), capacity: 10_000 }
    }
}

impl<K: Hash + Eq + Clone, V> Bounded<K, V> {
    /// At most so many entries.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), capacity: capacity.max(1) }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.entries.remove(key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.entries.len() >= self.capacity
            && !self.entries.contains_key(&key)
            && let Some(victim) = self.entries.keys().next().cloned()
        {
            self.entries.remove(&victim);
        }
        self.entries.insert(key, value);
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_map_forgets_one_entry_for_each_new_one() {
        let mut map = Bounded::new(2);
        for key in 0..10 {
            map.insert(key, ());
            assert!(map.get(&key).is_some());
            assert!(map.entries.len() <= 2);
        }
    }
}
