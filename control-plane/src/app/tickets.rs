//! Tickets: what an agent shows an edge, and what a viewer is let in by (architecture s.4, trust s.2).

use std::time::Duration;

use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::{EdgeId, ServerId, SessionId, TokenId, UserId};
use phlix_protocol::token::{
    self, Cnf, EdgeList, Grant, HubClaims as _, Limits, NamedHost, Scope, TunnelTicket, USE_CLIENT, ViewerTicket,
};
use phlix_protocol::uplink::{EdgeRole, ServerKind};
use thiserror::Error;

use super::App;
use super::enrollments::Enrolled;
use super::grants::{self, GrantError};
use super::keys::KeysError;
use super::relay_tokens;
use super::sessions::SignedIn;
use crate::domain::edge::Edge;
use crate::domain::key::Purpose;
use crate::domain::name::Name;
use crate::domain::server::{Server, Status};
use crate::random;
use crate::store::name_codes::NameCode;
use crate::store::{self, Conn, StoreError, bulletin, edges, names, presence, servers, sessions};
use crate::timestamp::Timestamp;

/// What a tunnel may use until somebody wants to set it.
const TUNNEL: Limits = Limits { streams: 1024, header_bytes: 64 * 1024 };

/// A ticket and its end. Its `Debug` is silent.
pub(crate) struct Signed {
    pub(crate) ticket: String,
    pub(crate) expires_at: Timestamp,
}

impl std::fmt::Debug for Signed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signed(..)")
    }
}

/// What an agent needs to open tunnels.
#[derive(Debug)]
pub(crate) struct TunnelPass {
    pub(crate) ticket: Signed,
    /// The edges that it may dial, as a token of its own.
    pub(crate) edges: String,
}

/// "Server S may open tunnels", with its names, and the edges where.
pub(crate) async fn tunnel(app: &App, enrolled: &Enrolled) -> Result<TunnelPass, KeysError> {
    let now = app.clock.now();
    let server = &enrolled.server;
    let mut conn = app.db.read().await?;
    // Before the names are read: a change that comes in between has a later revision.
    let rev = bulletin::revision(&mut conn).await?;
    let names = names::of_server(&mut conn, server.id).await?;
    let edges = edges::approved(&mut conn).await?;
    drop(conn);
    let key = app.keys.signer(Purpose::Relay, now)?;
    let expires_at = now.plus(app.config.lives.tunnel_ticket);
    let claims = TunnelTicket {
        iss: token::ISSUER.to_owned(),
        sub: server.id,
        aud: TunnelTicket::AUD.to_owned(),
        iat: now.seconds(),
        exp: expires_at.seconds(),
        jti: TokenId::new(random::uuid()),
        server_id: server.id,
        cnf: Cnf { jwk: server.key },
        generation: enrolled.generation,
        names: names.into_iter().map(|Name { host, access, tls, .. }| NamedHost { host, access, tls }).collect(),
        limits: TUNNEL,
        rev,
    };
    let list = EdgeList {
        iss: token::ISSUER.to_owned(),
        aud: EdgeList::AUD.to_owned(),
        iat: now.seconds(),
        exp: now.plus(app.config.lives.edge_list).seconds(),
        edges: edges.iter().filter_map(Edge::entry).collect(),
    };
    let ticket = Signed { ticket: token::sign(&claims, &key), expires_at };
    Ok(TunnelPass { ticket, edges: token::sign(&list, &key) })
}

/// What a viewer's ticket is bound to: each to one thing.
#[derive(Clone, Debug)]
pub(crate) enum Bound {
    /// The proxy path, at the core edge that asked.
    Edge(EdgeId),
    /// One name; it travels in the browser's cookie.
    Host(Hostname),
    /// One name; a program holds it.
    Client(Hostname),
    /// Raw channels of a legacy server's tunnel, at the core edge that asked; by a relay token, whose id it has.
    Mount(EdgeId, TokenId),
}

/// Why there is no ticket.
#[derive(Debug, Error)]
pub(crate) enum TicketError {
    #[error("the sign-in is over")]
    SignedOut,
    #[error("the ticket is not valid here")]
    Invalid,
    #[error("this edge may not ask for that")]
    NotThisEdge,
    #[error("the server has no name")]
    NoName,
    #[error(transparent)]
    Grant(#[from] GrantError),
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl From<StoreError> for TicketError {
    fn from(error: StoreError) -> Self {
        Self::Keys(error.into())
    }
}

/// What was found out before a ticket is signed, in the order that leaves no gap: the time and the bulletin's revision first,
/// then whether the sign-in lives, then the right. What ends one of them meanwhile covers this `iat` and has a later revision.
struct Admission {
    now: Timestamp,
    rev: u64,
    until: Timestamp,
    session: SessionId,
    grant: Grant,
    server: Server,
}

async fn admit(
    app: &App,
    conn: &mut Conn,
    session: SessionId,
    user: UserId,
    server: ServerId,
) -> Result<Admission, TicketError> {
    let now = app.clock.now();
    let rev = bulletin::revision(conn).await?;
    // Asked here and not taken from whoever recognised the user: that answer may be a little old.
    let alive = sessions::find(conn, session, now).await?.filter(|session| session.user == user);
    let until = alive.ok_or(TicketError::SignedOut)?.expires_at;
    let (grant, server) = grants::find(conn, user, server).await?;
    Ok(Admission { now, rev, until, session, grant, server })
}

/// "User U may reach server S", for as long as the sign-in lasts and no longer than its kind of ticket does.
fn sign(app: &App, admission: &Admission, bound: Bound) -> Result<Signed, KeysError> {
    let Admission { now, rev, until, session, grant, .. } = admission;
    let lives = &app.config.lives;
    let id = match &bound {
        // Withdrawing the token withdraws the ticket.
        Bound::Mount(_, token) => *token,
        _ => TokenId::new(random::uuid()),
    };
    let (scope, host, edge, usage, life): (_, _, _, _, Duration) = match bound {
        Bound::Edge(edge) => (Scope::Proxy, None, Some(edge), None, lives.viewer_ticket),
        Bound::Host(host) => (Scope::Name, Some(host), None, None, lives.viewer_ticket),
        Bound::Client(host) => (Scope::Name, Some(host), None, Some(USE_CLIENT.to_owned()), lives.client_ticket),
        Bound::Mount(edge, _) => (Scope::Tunnel, None, Some(edge), None, lives.relay_token),
    };
    let expires_at = now.plus(life).min(*until);
    let claims = ViewerTicket {
        iss: token::ISSUER.to_owned(),
        sub: grant.user,
        aud: ViewerTicket::AUD.to_owned(),
        iat: now.seconds(),
        exp: expires_at.seconds(),
        jti: id,
        sid: *session,
        server_id: grant.server,
        share_id: grant.share,
        libs: grant.libraries.clone(),
        perm: grant.permission,
        scope,
        host,
        edge,
        usage,
        rate: 0,
        streams: 0,
        rev: *rev,
    };
    let key = app.keys.signer(Purpose::Relay, *now)?;
    Ok(Signed { ticket: token::sign(&claims, &key), expires_at })
}

/// A ticket that a program holds itself, for the name that it wants, else for the server's first one.
pub(crate) async fn client(
    app: &App,
    who: &SignedIn,
    server: ServerId,
    host: Option<&Hostname>,
) -> Result<(Signed, Name), TicketError> {
    let mut conn = app.db.read().await?;
    let admission = admit(app, &mut conn, who.session, who.user, server).await?;
    let is_wanted = |name: &Name| host.is_none_or(|host| name.host == *host);
    let name = names::of_server(&mut conn, server).await?.into_iter().find(is_wanted).ok_or(TicketError::NoName)?;
    Ok((sign(app, &admission, Bound::Client(name.host.clone()))?, name))
}

/// The ticket of a browser that signed in at a name.
pub(crate) async fn at_name(app: &App, code: &NameCode) -> Result<Signed, TicketError> {
    let mut conn = app.db.read().await?;
    let admission = admit(app, &mut conn, code.session, code.user, code.server).await?;
    // The name may have been given up since the code was made.
    let name = names::find(&mut conn, &code.host).await?;
    if name.is_none_or(|name| name.server != code.server) {
        return Err(TicketError::Invalid);
    }
    Ok(sign(app, &admission, Bound::Host(code.host.clone()))?)
}

/// A ticket of the proxy path, and what an edge needs to know of the server.
#[derive(Debug)]
pub(crate) struct Exchanged {
    pub(crate) ticket: Signed,
    pub(crate) kind: ServerKind,
    pub(crate) name: Option<Name>,
    /// Whether the server gives signs of life.
    pub(crate) online: bool,
}

/// A core edge exchanges what a viewer showed on the hub's own domain.
pub(crate) async fn exchange(
    app: &App,
    edge: &Edge,
    who: &SignedIn,
    server: ServerId,
) -> Result<Exchanged, TicketError> {
    if !edge.is_core() {
        return Err(TicketError::NotThisEdge);
    }
    let mut conn = app.db.read().await?;
    let admission = admit(app, &mut conn, who.session, who.user, server).await?;
    let name = names::of_server(&mut conn, server).await?.into_iter().next();
    let has_tunnel = presence::has_tunnel(&mut conn, server, admission.now).await?;
    drop(conn);
    let status = admission.server.status(has_tunnel, admission.now, app.config.lives.server_silence);
    let ticket = sign(app, &admission, Bound::Edge(edge.id))?;
    Ok(Exchanged { ticket, kind: admission.server.kind, name, online: status == Status::Online })
}

/// A ticket that an edge holds or a browser brought is made anew: sign-in and right are asked again.
pub(crate) async fn renew(app: &App, edge: &Edge, ticket: &str) -> Result<Signed, TicketError> {
    let now = app.clock.now();
    let keys = app.keys.set(Purpose::Relay, now);
    let old: ViewerTicket = token::verify(ticket, &keys, now.seconds()).map_err(|_| TicketError::Invalid)?;
    let bound = match (old.scope, old.host, old.edge, old.usage) {
        (Scope::Proxy, None, Some(bound), None) if bound == edge.id => Bound::Edge(bound),
        (Scope::Name, Some(host), None, None) => Bound::Host(host),
        // A program asks the hub itself for its next one.
        _ => return Err(TicketError::Invalid),
    };
    if edge.role != EdgeRole::Core {
        // Names at outer edges come with grants of names to edges.
        return Err(TicketError::NotThisEdge);
    }
    let mut conn = app.db.read().await?;
    let admission = admit(app, &mut conn, old.sid, old.sub, old.server_id).await?;
    if let Bound::Host(host) = &bound {
        // The name may be another server's by now.
        let name = names::find(&mut conn, host).await?;
        if name.is_none_or(|name| name.server != old.server_id) {
            return Err(TicketError::Invalid);
        }
    }
    Ok(sign(app, &admission, bound)?)
}

/// A core edge exchanges the relay token that a client app showed at a mount. Owners only, as upstream has it.
pub(crate) async fn mount(app: &App, edge: &Edge, shown: &str, server: ServerId) -> Result<Signed, TicketError> {
    if !edge.is_core() {
        return Err(TicketError::NotThisEdge);
    }
    if !relay_tokens::is_shaped(shown) {
        return Err(TicketError::SignedOut);
    }
    let mut conn = app.db.read().await?;
    let token = store::relay_tokens::find(&mut conn, shown, app.clock.now()).await?;
    let token = token.filter(|token| token.server == server).ok_or(TicketError::SignedOut)?;
    let admission = admit(app, &mut conn, token.session, token.user, server).await?;
    // Read again, after the bulletin's revision: one that was withdrawn in between opens nothing.
    let still = store::relay_tokens::find(&mut conn, shown, admission.now).await?;
    if admission.grant.share.is_some() || still.is_none() {
        return Err(TicketError::SignedOut);
    }
    let admission = Admission { until: admission.until.min(token.expires_at), ..admission };
    Ok(sign(app, &admission, Bound::Mount(edge.id, token.id))?)
}

/// Whether a server gives signs of life; `None` where there is none.
pub(crate) async fn is_online(app: &App, server: ServerId) -> Result<Option<bool>, StoreError> {
    let now = app.clock.now();
    let mut conn = app.db.read().await?;
    let Some(server) = servers::find(&mut conn, server).await? else { return Ok(None) };
    let has_tunnel = presence::has_tunnel(&mut conn, server.id, now).await?;
    Ok(Some(server.status(has_tunnel, now, app.config.lives.server_silence) == Status::Online))
}
