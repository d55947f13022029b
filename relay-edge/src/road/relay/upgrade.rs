//! A WebSocket to a media server behind a legacy tunnel.
//!
//! The wire has no upgrade; it has raw channels to the server's own port, which know no users and no libraries. So it is
//! for the owner alone, and the edge writes the head: its method is GET, its path in scope as any other's, and nothing
//! of the viewer's goes on before the server has said 101 with the right accept key.
//= legacy-relay-wire s.2; trust s.4.1, s.4.4

use http::header::ORIGIN;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request as HttpRequest, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use phlix_protocol::token::ViewerTicket;

use super::super::account::Account;
use super::super::headers::Viewer;
use super::super::paced::Paced;
use super::super::refusal::Refusal;
use super::super::splice::Splice;
use super::super::upgrade::{self, Handshake, Way};
use super::super::{Road, headers};
use super::{Errand, Request, answers, heads, sandbox};
use crate::body::{self, Body, ViewerBody};
use crate::tunnels::legacy::LegacyAnswered;

/// Where a viewer asked for a WebSocket.
pub(super) struct Asked<'a> {
    pub(super) way: Way,
    /// What the server hears of it.
    pub(super) said: Viewer<'a>,
}

/// Carries an upgrade. Granted, the answer has the [`Splice`] with it.
pub(super) async fn carry(
    road: &Road,
    errand: Errand<'_>,
    request: Request,
    asked: Asked<'_>,
    mut head: Parts,
    incoming: ViewerBody,
    account: &Account,
) -> Result<Response<Body>, Refusal> {
    let Errand { tunnel, ticket, place, listed, activity, .. } = errand;
    let handshake = Handshake::begin(asked.way, &head.headers, &incoming)?;
    let from_here = match place {
        Some(place) => is_the_hubs(&head.headers, place.hub),
        None => upgrade::is_from_here(&head, asked.said.host),
    };
    if !from_here {
        return Err(upgrade::cross_site());
    }
    heads::upgrade(&mut head.headers, &asked.said);
    head.uri = target(&request)?;
    handshake.ask(&mut head);
    activity.set_request_sent();
    let request = HttpRequest::from_parts(head, body::empty());
    let answered = tunnel.upgrade(request, road.config.proxy.silence, &activity).await;
    match answered.map_err(|error| answers::explain(&error))? {
        LegacyAnswered::Switched(head, socket) => {
            let mut answer = handshake.grant(head.headers).ok_or_else(answers::no_answer)?;
            if place.is_some() {
                confine(answer.headers_mut());
            }
            Splice::new(Box::new(socket), listed, activity, account.taken()).put(&mut answer);
            Ok(answer)
        }
        LegacyAnswered::Not(response) => {
            let (mut answer, body) = response.into_parts();
            let odd = answer.status < StatusCode::OK || answer.status.as_u16() > 599;
            // What a viewer takes for a grant must be one.
            if odd || handshake.is_misled_by(answer.status) {
                return Err(answers::no_answer());
            }
            heads::answer(&mut answer, &Method::GET, body.size_hint().exact());
            if let Some(place) = place {
                sandbox::confine(&mut answer, place).map_err(|error| {
                    tracing::debug!(server.id = %ticket.server_id, %error, "an answer is not passed on");
                    answers::leads_elsewhere()
                })?;
            }
            Ok(Response::from_parts(answer, Paced::new(body, listed).boxed_unsync()))
        }
    }
}

/// Whether a raw channel may be opened in this viewer's name.
pub(super) fn is_owner(ticket: &ViewerTicket) -> bool {
    ticket.share_id.is_none() && ticket.libs.is_all()
}

/// What everybody else gets who asks for a WebSocket.
pub(super) fn unsupported() -> Refusal {
    Refusal::new(
        StatusCode::NOT_IMPLEMENTED,
        "upgrade.unsupported",
        "This server's tunnel carries WebSockets for its owner alone: others get requests and answers.",
    )
}

/// Whether the page that asks, if it is one, is the hub's own. A program says no origin.
fn is_the_hubs(headers: &HeaderMap, hub: &str) -> bool {
    let mut origins = headers.get_all(ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => true,
        (Some(origin), None) => origin.as_bytes() == hub.as_bytes(),
        (Some(_), Some(_)) => false,
    }
}

/// Path and query, byte for byte.
fn target(request: &Request) -> Result<Uri, Refusal> {
    let asked = &request.head;
    let target = if asked.query.is_empty() { asked.path.clone() } else { format!("{}?{}", asked.path, asked.query) };
    target.parse::<PathAndQuery>().map(Uri::from).map_err(|_| answers::scope_denied())
}

/// On the hub's own origin, a grant says what the handshake needs and nothing else: no cookie of the server's is set there.
//= trust s.5
fn confine(granted: &mut HeaderMap) {
    let kept = |name: &str| matches!(name, "connection" | "upgrade") || name.starts_with("sec-websocket-");
    headers::retain(granted, kept);
}
