//! Existing media servers, on the hub's proxy path and at their names.
//!
//! The same phases as for any name: admit, locate, carry. What is their own stands here: only what is in `scope` is asked,
//! the head is the wire's (`heads`) with the viewer's identity on it, and on the hub's own origin the answer is in a
//! `sandbox`.
//= legacy-relay-wire s.3.3; trust s.4.1, s.5

mod allowance;
mod answers;
mod heads;
mod sandbox;
mod scope;
mod upgrade;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, SET_COOKIE};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::ServerId;
use phlix_protocol::legacy::http::RequestHead;
use phlix_protocol::token::{Permission, Scope, ViewerTicket};
use phlix_protocol::uplink::{Route, ServerKind};

pub(super) use self::allowance::{Allowance, Asker};
use self::sandbox::Place;
use self::scope::Kind;
use super::account::Account;
use super::caller::Caller;
use super::headers::Viewer;
use super::live::Listed;
use super::pace::Tempo;
use super::paced::Paced;
use super::refusal::Refusal;
use super::resolve::Proxied;
use super::upgrade::Way;
use super::{Road, admit, authority, carry, cookies, locate, too_many};
use crate::body::{Body, ViewerBody};
use crate::clock;
use crate::tunnels::activity::Activity;
use crate::tunnels::legacy::LegacyTunnel;

/// A request on the hub's proxy path, in the order of decisions that clients know.
pub(super) async fn at_proxy(
    road: &Road,
    head: Parts,
    incoming: ViewerBody,
    asked: Proxied,
    from: &Caller,
    account: &mut Account,
) -> Result<Response<Body>, Refusal> {
    let (prefix, path) = split(head.uri.path(), asked.prefix);
    let kind = scope::kind(path);
    if sandbox::is_for_acting(&head) {
        return Err(answers::acts());
    }
    let (credential, digest) = admit::shown_to_hub(&road.uplink, &road.misses, &head, &road.hub_origin, from.address)?;
    let asker = road.allowance.asker(digest);
    if kind.counts() {
        road.allowance.ask(asker, Instant::now()).map_err(answers::rate_limited)?;
    }
    let exchanged = admit::at_proxy(&road.uplink, &road.misses, credential, from.address, asked.server).await?;
    if matches!(asker, Asker::Stranger(_)) {
        let counted = road.allowance.introduce(digest, exchanged.claims.sub, kind.counts(), Instant::now());
        counted.map_err(answers::rate_limited)?;
    }
    let ticket = &exchanged.claims;
    account.set_server(ticket.server_id);
    if exchanged.reply.kind == ServerKind::Generic {
        return Err(admit::use_name(&exchanged));
    }
    if ticket.scope != Scope::Proxy || !ticket.libs.is_all() {
        return Err(answers::libraries_only());
    }
    let tunnel = tunnel(road, ticket.server_id).await?;
    if asked.way.is_some() && !upgrade::is_owner(ticket) {
        return Err(upgrade::unsupported());
    }
    let activity = Arc::new(Activity::new(Instant::now()));
    let right = Arc::new(ticket.clone());
    let listed = list(road, &tunnel, &right, None, from, &activity).map_err(answers::full)?;
    let request = in_scope(&head, path, &right)?;
    let place = Place { hub: &road.hub_origin, prefix, path };
    let errand = Errand { tunnel: &tunnel, ticket: &right, from, place: Some(&place), listed, activity };
    let Some(way) = asked.way else {
        return carry(road, errand, request, &head, incoming, account).await;
    };
    let (proto, host) = road.hub_origin.split_once("://").unwrap_or(("http", &road.hub_origin));
    let proto = if proto == "https" || from.https { "https" } else { "http" };
    let asked = upgrade::Asked { way, said: Viewer { address: from.address, proto, host } };
    // The errand knows where on the hub it is; the head goes on.
    upgrade::carry(road, errand, request, asked, head.clone(), incoming, account).await
}

/// A request at the name of an existing media server.
pub(super) async fn at_name(
    road: &Road,
    head: Parts,
    incoming: ViewerBody,
    (host, way): (Hostname, Option<Way>),
    route: &Route,
    from: &Caller,
    account: &Account,
) -> Result<Response<Body>, Refusal> {
    //= trust s.4.1: never open, whatever the directory says.
    let viewer = admit::at_name(&road.tickets, &road.uplink, road.config.id, &head, &host, route).await?;
    let path = head.uri.path();
    let kind = scope::kind(path);
    if kind.counts() {
        road.allowance.ask(Asker::User(viewer.claims.sub), Instant::now()).map_err(answers::rate_limited)?;
    }
    let renewing = admit::wants_renewal(&viewer, clock::unix_now());
    if renewing {
        road.uplink.directory.renew(&viewer.ticket);
    }
    let tunnel = tunnel(road, route.server_id).await?;
    if way.is_some() && !upgrade::is_owner(&viewer.claims) {
        return Err(upgrade::unsupported());
    }
    let authority = authority(&host, road.names_port);
    let activity = Arc::new(Activity::new(Instant::now()));
    let listed = list(road, &tunnel, &viewer.claims, Some(host), from, &activity).map_err(too_many)?;
    let request = in_scope(&head, path, &viewer.claims)?;
    let errand = Errand { tunnel: &tunnel, ticket: &viewer.claims, from, place: None, listed, activity };
    let mut response = match way {
        None => carry(road, errand, request, &head, incoming, account).await?,
        Some(way) => {
            let said = Viewer { address: from.address, proto: "https", host: &authority };
            upgrade::carry(road, errand, request, upgrade::Asked { way, said }, head, incoming, account).await?
        }
    };
    if renewing
        && let Some(reply) = road.uplink.directory.renewed(&viewer.ticket)
        && let Some(cookie) = cookies::set(cookies::VIEWER, &reply.ticket, reply.expires_at - clock::unix_now())
    {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    Ok(response)
}

/// The hub's part of a path, and the server's.
fn split(path: &str, prefix: usize) -> (&str, &str) {
    let (prefix, path) = path.split_at_checked(prefix).unwrap_or((path, ""));
    (prefix, if path.is_empty() { "/" } else { path })
}

/// The server's tunnel, at once; else why there is none.
async fn tunnel(road: &Road, server: ServerId) -> Result<Arc<LegacyTunnel>, Refusal> {
    let legacy = &road.tunnels.legacy;
    if let Some(tunnel) = legacy.pick(server) {
        return Ok(tunnel);
    }
    if legacy.all().iter().any(|tunnel| tunnel.server == server && !tunnel.closed()) {
        return Err(answers::no_tunnel());
    }
    match road.uplink.directory.online(server).await {
        Ok(true) => Err(answers::relay_unavailable()),
        Ok(false) | Err(_) => Err(locate::offline()),
    }
}

/// Puts an exchange on the list of what runs.
fn list(
    road: &Road,
    tunnel: &LegacyTunnel,
    ticket: &Arc<ViewerTicket>,
    host: Option<Hostname>,
    from: &Caller,
    activity: &Arc<Activity>,
) -> Result<Listed, super::live::Full> {
    let right = Some(Arc::clone(ticket));
    road.live.list(ticket.server_id, host, right, from.address, tunnel.streams(), Arc::clone(activity))
}

/// What is asked, if it may be.
struct Request {
    head: RequestHead,
    kind: Kind,
}

fn in_scope(head: &Parts, path: &str, ticket: &ViewerTicket) -> Result<Request, Refusal> {
    // An Extended CONNECT asks for what an upgrade asks for by GET.
    let method = if head.method == Method::CONNECT { &Method::GET } else { &head.method };
    let kind = scope::judge(method, path).map_err(|why| {
        tracing::debug!(server.id = %ticket.server_id, %why, "a request is out of scope");
        answers::scope_denied()
    })?;
    if ticket.perm == Permission::Read && !scope::reads(method, path) {
        return Err(answers::scope_denied());
    }
    // Path and query byte for byte as they were sent: the server's own signature is over them.
    let head = RequestHead {
        method: method.as_str().to_owned(),
        path: path.to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: Vec::new(),
    };
    Ok(Request { head, kind })
}

/// For whom a request goes where.
struct Errand<'a> {
    tunnel: &'a Arc<LegacyTunnel>,
    ticket: &'a ViewerTicket,
    from: &'a Caller,
    /// On the hub's own origin.
    place: Option<&'a Place<'a>>,
    listed: Listed,
    activity: Arc<Activity>,
}

/// Carries one exchange, both ways streamed.
async fn carry(
    road: &Road,
    errand: Errand<'_>,
    request: Request,
    head: &Parts,
    incoming: ViewerBody,
    account: &Account,
) -> Result<Response<Body>, Refusal> {
    // Taking the body is what tells the viewer to send it.
    // Over HTTP/2 and later, clients that expect a word send at once all the same.
    let waits_for_word = carry::expects_to_continue(head)? && head.version < Version::HTTP_2;
    if announced(head, &incoming) > road.config.legacy.request_body {
        let refusal = answers::too_large().and_close();
        return Err(if waits_for_word { refusal } else { refusal.and_hear_out(incoming) });
    }
    let Errand { tunnel, ticket, from, place, listed, activity } = errand;
    let Request { head: mut asked, kind } = request;
    let fields = heads::request(&head.headers, ticket.sub, from.address);
    road.metrics.legacy.fields.with_label_values(&["unspeakable"]).inc_by(fields.unspeakable);
    asked.headers = fields.fields;
    let tempo = Tempo::new(road.config.limits.body_rate, road.config.timeouts.body_rate);
    let body = carry::upload(incoming, &activity, account.taken(), tempo);
    let answered = tunnel.request(asked, body, patience(road, kind), &activity).await;
    let (mut answer, body) = answered.map_err(|error| answers::explain(&error))?.into_parts();
    if answer.status < StatusCode::OK || answer.status.as_u16() > 599 {
        return Err(answers::no_answer());
    }
    let cookies = heads::answer(&mut answer, &head.method, body.size_hint().exact());
    road.metrics.legacy.fields.with_label_values(&["cookie"]).inc_by(cookies);
    if let Some(place) = place {
        sandbox::confine(&mut answer, place).map_err(|error| {
            tracing::debug!(server.id = %ticket.server_id, %error, "an answer is not passed on");
            answers::leads_elsewhere()
        })?;
    }
    let stop = body.stopper();
    listed.entry.set_stop(move || stop.stop());
    let mut response = Response::new(Paced::new(body, listed).boxed_unsync());
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    Ok(response)
}

/// How long a request's body says it is, at least.
fn announced(head: &Parts, incoming: &ViewerBody) -> u64 {
    let declared = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    incoming.size_hint().lower().max(declared.unwrap_or_default())
}

/// How long a server may take.
fn patience(road: &Road, kind: Kind) -> Duration {
    match kind {
        Kind::Encoded => road.config.proxy.encoding,
        Kind::Api | Kind::Artwork | Kind::Media => road.config.proxy.silence,
    }
}
