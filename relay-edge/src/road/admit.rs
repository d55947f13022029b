//! Phase 2: who is it, and may they?
//!
//! At a server's name: a viewer's ticket, from the header of a program or the name's own cookie, unless the name is open
//! by directory *and* tunnel ticket. On the hub's proxy path: a bearer or the session cookie, exchanged for a ticket.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, HeaderName, ORIGIN};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::{EdgeId, ServerId};
use phlix_protocol::token::{self, Scope, ViewerTicket};
use phlix_protocol::uplink::{Credential, Route};

use super::cookies;
use super::refusal::Refusal;
use crate::clock;
use crate::limits::Misses;
use crate::uplink::Uplink;
use crate::uplink::directory::{Bounded, Digest, Exchange, Exchanged, digest};

/// Header in which a program shows its ticket.
pub(crate) const TICKET_HEADER: HeaderName = HeaderName::from_static("x-phlix-ticket");

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A viewer who may pass.
#[derive(Debug, Clone)]
pub(crate) struct Viewer {
    pub(crate) claims: Arc<ViewerTicket>,
    /// The ticket as it was shown: goes on to the agent, which checks it itself.
    pub(crate) ticket: String,
    pub(crate) shown: Shown,
}

/// Where a ticket was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    Header,
    Cookie,
}

/// Verified tickets by hash.
pub(crate) struct Tickets {
    verified: Mutex<Bounded<Digest, Arc<ViewerTicket>>>,
    patience: Duration,
}

impl Tickets {
    pub(crate) fn new(entries: usize, patience: Duration) -> Self {
        Self { verified: Mutex::new(Bounded::new(entries)), patience }
    }

    /// The claims of a ticket that the hub signed, that has not ended and was not revoked.
    //= trust s.9.4: remembered only once the bulletin has reached its revision; revocations are checked every time.
    pub(crate) async fn verify(&self, uplink: &Uplink, ticket: &str, now: i64) -> Option<Arc<ViewerTicket>> {
        let key = digest(ticket);
        let known = self.verified.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(claims) = known {
            let good = now < claims.exp && !uplink.bulletin.world().revokes_viewer(&claims);
            return good.then_some(claims);
        }
        // By what is known already, before a made-up revision makes anybody wait.
        let early: ViewerTicket = match token::verify(ticket, &uplink.bulletin.world().keys, now) {
            Ok(claims) => claims,
            Err(token::TokenError::UnknownKey) => token::peek(ticket)?,
            Err(error) => {
                tracing::debug!(%error, "viewer's ticket refused");
                return None;
            }
        };
        let world = uplink.bulletin.reached(early.rev, self.patience).await?;
        let claims: ViewerTicket = match token::verify(ticket, &world.keys, now) {
            Ok(claims) => claims,
            Err(error) => {
                tracing::debug!(%error, "viewer's ticket refused");
                return None;
            }
        };
        if now >= claims.exp || world.revokes_viewer(&claims) {
            return None;
        }
        let claims = Arc::new(claims);
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&claims));
        Some(claims)
    }
}

/// Whether a verified ticket opens this name of this server at this edge.
//= trust s.2.1
pub(crate) fn opens(claims: &ViewerTicket, host: &Hostname, server: ServerId, edge: EdgeId) -> bool {
    claims.server_id == server
        && claims.host.as_ref() == Some(host)
        && claims.edge.is_none_or(|bound| bound == edge)
        && claims.scope == Scope::Name
        // A grantee of some libraries can't be held to them by an origin that knows no libraries.
        && claims.libs.is_all()
}

/// Judges a request to a protected name.
pub(crate) async fn at_name(
    tickets: &Tickets,
    uplink: &Uplink,
    edge: EdgeId,
    head: &Parts,
    host: &Hostname,
    route: &Route,
) -> Result<Viewer, Refusal> {
    let now = clock::unix_now();
    let mut from_header = head.headers.get_all(TICKET_HEADER).iter();
    let (shown, ticket) = match (from_header.next(), from_header.next()) {
        // Of two, an origin's and our idea of which one counts could differ.
        (Some(_), Some(_)) => (Shown::Header, None),
        (Some(value), None) => (Shown::Header, value.to_str().ok()),
        (None, _) => (Shown::Cookie, cookies::get(&head.headers, cookies::VIEWER)),
    };
    let Some(ticket) = ticket else { return Err(sign_in_first(head, false)) };
    let claims = tickets.verify(uplink, ticket, now).await.filter(|claims| opens(claims, host, route.server_id, edge));
    let Some(claims) = claims else { return Err(sign_in_first(head, shown == Shown::Cookie)) };
    if shown == Shown::Cookie && is_from_elsewhere(head, host) {
        return Err(cross_site());
    }
    Ok(Viewer { claims, ticket: ticket.to_owned(), shown })
}

/// Whether a page that is not this name's own caused the request, and it is more than following a link.
///
/// Sibling names are the same site to a browser: `SameSite=Lax` does not keep a hostile server's page from asking here
/// with the viewer's cookie.
//= trust s.6.1
fn is_from_elsewhere(head: &Parts, host: &Hostname) -> bool {
    let field = |name: &str| head.headers.get(name).map(HeaderValue::as_bytes);
    match field("sec-fetch-site") {
        Some(b"same-origin" | b"none") => false,
        Some(_) => {
            let follows_a_link = head.method.is_safe()
                && field("sec-fetch-mode") == Some(b"navigate")
                && field("sec-fetch-dest") == Some(b"document");
            !follows_a_link
        }
        // No browser, or an old one: those say `Origin` with what writes.
        None => head.headers.get(ORIGIN).is_some_and(|origin| {
            let ours = origin.to_str().ok().and_then(|origin| origin.strip_prefix("https://"));
            !ours.is_some_and(|authority| Hostname::from_authority(authority).as_ref() == Ok(host))
        }),
    }
}

fn cross_site() -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "request.cross_site", "Another site may not do this in your name.")
}

/// A navigation goes to the sign-in and comes back; a program is told what is missing.
fn sign_in_first(head: &Parts, clear_cookie: bool) -> Refusal {
    let refusal = if is_navigation(head) {
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let target: String = url::form_urlencoded::byte_serialize(path.as_bytes()).collect();
        Refusal::redirect(StatusCode::FOUND, &format!("/.phlix/start?return={target}"))
    } else {
        Refusal::new(
            StatusCode::UNAUTHORIZED,
            "auth.required",
            "Sign in at this name in a browser, or show a viewer ticket in X-Phlix-Ticket.",
        )
        .with(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Phlix-Ticket"))
    };
    if clear_cookie { refusal.with(http::header::SET_COOKIE, cookies::clear(cookies::VIEWER)) } else { refusal }
}

/// Whether a person's browser goes to a page.
pub(crate) fn is_navigation(head: &Parts) -> bool {
    let mode = head.headers.get("sec-fetch-mode").map(HeaderValue::as_bytes);
    matches!(head.method, Method::GET)
        && matches!(mode, None | Some(b"navigate"))
        && head
            .headers
            .get_all(http::header::ACCEPT)
            .iter()
            .any(|accept| accept.as_bytes().windows(9).any(|window| window.eq_ignore_ascii_case(b"text/html")))
}

/// Whether a ticket is past half its life, so that its cookie should be set anew.
pub(crate) fn wants_renewal(viewer: &Viewer, now: i64) -> bool {
    viewer.shown == Shown::Cookie && now.saturating_sub(viewer.claims.iat) > (viewer.claims.exp - viewer.claims.iat) / 2
}

/// What a request to the hub's proxy path shows, before anybody is asked about it.
pub(crate) fn shown_to_hub(
    uplink: &Uplink,
    misses: &Misses,
    head: &Parts,
    hub_origin: &str,
    address: IpAddr,
) -> Result<(Credential, Digest), Refusal> {
    let credential = credential(head, hub_origin)?;
    let (Credential::Bearer(secret) | Credential::Session(secret)) = &credential;
    let digest = digest(secret);
    if let Some((status, body)) = uplink.directory.refused(digest) {
        return Err(Refusal::passed_on(status, "auth.required", body));
    }
    if let Some(wait) = misses.exhausted(address, Instant::now()) {
        return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "Too many wrong credentials.")
            .retry_after(wait));
    }
    Ok((credential, digest))
}

/// Judges a request to the hub's proxy path, in the order that clients know (legacy-relay-wire s.3.3): 401, 404, 403.
pub(crate) async fn at_proxy(
    uplink: &Uplink,
    misses: &Misses,
    credential: Credential,
    address: IpAddr,
    server: Option<ServerId>,
) -> Result<Arc<Exchanged>, Refusal> {
    let Some(server) = server else { return Err(not_found()) };
    match uplink.directory.exchange(credential, server).await {
        Ok(Exchange::Ticket(exchanged)) => Ok(exchanged),
        Ok(Exchange::Refused(status, body)) => {
            let code = match status {
                StatusCode::UNAUTHORIZED => {
                    misses.count(address, Instant::now());
                    "auth.required"
                }
                StatusCode::FORBIDDEN => "server.not_owned",
                StatusCode::NOT_FOUND => "server.not_found",
                _ => "hub.refused",
            };
            Err(Refusal::passed_on(status, code, body))
        }
        Err(_) => Err(super::refusal::hub_away()),
    }
}

fn not_found() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "server.not_found", "There is no such server.")
}

/// What a viewer shows on the hub's own domain.
fn credential(head: &Parts, hub_origin: &str) -> Result<Credential, Refusal> {
    let required = || Refusal::new(StatusCode::UNAUTHORIZED, "auth.required", "Sign in to the hub first.");
    if let Some(value) = head.headers.get(AUTHORIZATION) {
        let bearer = value.to_str().ok().and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        return bearer
            .filter(|token| is_token(token))
            .map(|token| Credential::Bearer(token.to_owned()))
            .ok_or_else(required);
    }
    let session = cookies::get(&head.headers, cookies::SESSION).filter(|token| is_token(token)).ok_or_else(required)?;
    //= trust s.6.1
    let site = head.headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
    let from_elsewhere = matches!(site, Some(b"cross-site" | b"same-site"));
    let by_the_hub = head.headers.get(ORIGIN).is_some_and(|origin| origin.as_bytes() == hub_origin.as_bytes());
    if from_elsewhere || (!head.method.is_safe() && !by_the_hub) {
        return Err(cross_site());
    }
    Ok(Credential::Session(session.to_owned()))
}

/// Whether a text can be a credential at all, before anybody is asked (trust s.9.5).
fn is_token(text: &str) -> bool {
    (16..=4096).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte))
}

/// What the proxy path says to somebody who may reach a server that is no Phlix server.
//= architecture s.5.3
pub(crate) fn use_name(exchanged: &Exchanged) -> Refusal {
    Refusal::new(
        StatusCode::CONFLICT,
        "server.use_name",
        "This server is reached by its own name, not by the hub's proxy path.",
    )
    .with_url(exchanged.reply.url.clone())
}

#[cfg(test)]
mod tests {
    use http::Request;
    use phlix_protocol::token::{Libraries, Permission};

    use super::*;

    fn head(method: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri("/a?b=c&d");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn ticket() -> ViewerTicket {
        let id = |n: u128| uuid::Uuid::from_u128(n);
        ViewerTicket {
            iss: token::ISSUER.into(),
            sub: phlix_protocol::ids::UserId::new(id(1)),
            aud: "relay-edge".into(),
            iat: 1000,
            exp: 2000,
            jti: phlix_protocol::ids::TokenId::new(id(2)),
            sid: phlix_protocol::ids::SessionId::new(id(3)),
            server_id: ServerId::new(id(4)),
            share_id: None,
            libs: Libraries::All,
            perm: Permission::ReadWrite,
            scope: Scope::Name,
            host: Some("ab.names.example".parse().unwrap()),
            edge: None,
            usage: None,
            rate: 0,
            streams: 0,
            rev: 1,
        }
    }

    #[test]
    fn a_ticket_opens_its_own_door_alone() {
        let here = EdgeId::new(uuid::Uuid::from_u128(9));
        let elsewhere = EdgeId::new(uuid::Uuid::from_u128(8));
        let host: Hostname = "ab.names.example".parse().unwrap();
        let good = |claims: &ViewerTicket| opens(claims, &host, ticket().server_id, here);
        assert!(good(&ticket()));
        assert!(good(&ViewerTicket { edge: Some(here), ..ticket() }));
        assert!(!good(&ViewerTicket { edge: Some(elsewhere), ..ticket() }));
        assert!(!good(&ViewerTicket { server_id: ServerId::new(uuid::Uuid::from_u128(5)), ..ticket() }));
        assert!(!good(&ViewerTicket { host: None, edge: Some(here), ..ticket() }));
        assert!(!good(&ViewerTicket { host: Some("cd.names.example".parse().unwrap()), ..ticket() }));
        assert!(!good(&ViewerTicket { scope: Scope::Proxy, ..ticket() }));
        assert!(!good(&ViewerTicket { libs: Libraries::Only(vec!["1".into()]), ..ticket() }));
        assert!(!good(&ViewerTicket { libs: Libraries::Only(vec![]), ..ticket() }));
    }

    #[test]
    fn a_navigation_is_sent_to_sign_in_and_a_program_is_told() {
        let html = ("accept", "text/html,application/xhtml+xml");
        let refusal = sign_in_first(&head("GET", &[html]), true);
        let response = refusal.into_response(true);
        assert_eq!(response.status(), 302);
        assert_eq!(response.headers()["location"], "/.phlix/start?return=%2Fa%3Fb%3Dc%26d");
        assert!(response.headers()["set-cookie"].to_str().unwrap().starts_with("__Host-phlix-v=; "));

        for fields in [&[("accept", "*/*")][..], &[html, ("sec-fetch-mode", "no-cors")][..]] {
            assert_eq!(sign_in_first(&head("GET", fields), false).status, StatusCode::UNAUTHORIZED);
        }
        assert_eq!(sign_in_first(&head("POST", &[html]), false).status, StatusCode::UNAUTHORIZED);
    }

    #[test]
    fn a_sibling_name_does_nothing_in_a_viewers_name() {
        let host: Hostname = "ab.names.example".parse().unwrap();
        let elsewhere = |method: &str, fields: &[(&str, &str)]| is_from_elsewhere(&head(method, fields), &host);
        let (sibling, stranger) = (("sec-fetch-site", "same-site"), ("sec-fetch-site", "cross-site"));
        for method in ["GET", "POST"] {
            assert!(!elsewhere(method, &[("sec-fetch-site", "same-origin")]));
            assert!(!elsewhere(method, &[("sec-fetch-site", "none")]));
            assert!(!elsewhere(method, &[]));
            assert!(!elsewhere(method, &[("origin", "https://ab.names.example:8443")]));
            assert!(elsewhere(method, &[sibling]));
            assert!(elsewhere(method, &[stranger]));
            assert!(elsewhere(method, &[sibling, ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")]));
            assert!(elsewhere(method, &[stranger, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")]));
            assert!(elsewhere(method, &[("origin", "https://cd.names.example")]));
            assert!(elsewhere(method, &[("origin", "null")]));
        }
        let link = [stranger, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        assert!(!elsewhere("GET", &link));
        assert!(elsewhere("POST", &link));
    }

    #[test]
    fn the_proxy_path_takes_bearers_and_sessions_of_the_right_shape() {
        let hub = "https://hub.example";
        let of = |method: &str, fields: &[(&str, &str)]| {
            credential(&head(method, fields), hub).map_err(|refusal| refusal.status)
        };
        let token = "abcdefghijklmnop.qrs";
        let bearer = format!("bearer {token}");
        let session = format!("x=1; __Host-phlix-s={token}");
        assert_eq!(of("GET", &[("authorization", &bearer)]), Ok(Credential::Bearer(token.into())));
        assert_eq!(of("GET", &[("cookie", &session)]), Ok(Credential::Session(token.into())));
        assert_eq!(of("POST", &[("cookie", &session), ("origin", hub)]), Ok(Credential::Session(token.into())));
        for fields in
            [&[][..], &[("authorization", "Basic abcdefghijklmnopqrst")], &[("authorization", "Bearer short")]]
        {
            assert_eq!(of("GET", fields), Err(StatusCode::UNAUTHORIZED));
        }
        for site in ["cross-site", "same-site"] {
            assert_eq!(of("GET", &[("cookie", &session), ("sec-fetch-site", site)]), Err(StatusCode::FORBIDDEN));
        }
        assert_eq!(of("POST", &[("cookie", &session)]), Err(StatusCode::FORBIDDEN));
        let evil = ("origin", "https://hub.example.evil");
        assert_eq!(of("POST", &[("cookie", &session), evil]), Err(StatusCode::FORBIDDEN));
    }
}
