//! What the hub says itself on the proxy path, with the codes that clients know.
//!
//! Flat bodies, `{error, code, message}`, but for the two limits, whose `error` is an object.
//= legacy-relay-wire s.3.3

use std::time::Duration;

use http::StatusCode;

use super::super::live::Full;
use super::super::locate::offline;
use super::super::refusal::{Refusal, malformed};
use crate::tunnels::legacy::LegacyError;

/// How soon to come back to a server that will have a tunnel in a moment.
const SOON: Duration = Duration::from_secs(1);

/// How soon to come back to a server that has lost its tunnel: it dials again after 5 s and more.
const LATER: Duration = Duration::from_secs(5);

/// The user asks too often.
pub(crate) fn rate_limited(wait: Duration) -> Refusal {
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "Too many requests at once. Please wait a moment.")
        .retry_after(wait)
}

/// A program that can't act must not be given what acts.
pub(crate) fn acts() -> Refusal {
    Refusal::new(
        StatusCode::FORBIDDEN,
        "proxy.destination_denied",
        "What a server says can't be opened as a page or run on the hub's own address. Use the server's own name.",
    )
}

/// Off the list of what may be asked.
pub(crate) fn scope_denied() -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "proxy.scope_denied", "That can't be asked of a server through the hub.")
}

/// A share of some libraries does not open the server as a whole.
pub(crate) fn libraries_only() -> Refusal {
    Refusal::new(
        StatusCode::FORBIDDEN,
        "proxy.scope_denied",
        "What was shared with you are libraries of this server, not the server.",
    )
}

/// No tunnel of the server is here, and by its heartbeats it is at home.
pub(crate) fn relay_unavailable() -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "server.relay_unavailable",
        "The server is switched on, but has no tunnel to this hub. Its relay may be off, or a firewall in between.",
    )
    .retry_after(LATER)
}

/// There was a tunnel a moment ago, and there is none that takes new requests.
pub(crate) fn no_tunnel() -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "server.no_tunnel", "The server's tunnel is just being replaced.")
        .retry_after(SOON)
}

/// Too much runs already.
pub(crate) fn full(full: Full) -> Refusal {
    let message = match full {
        Full::Ticket => "Too many streams at once for this account.",
        Full::Share => "Too many streams at once for one viewer.",
    };
    Refusal::nested(StatusCode::SERVICE_UNAVAILABLE, "stream.limit", message).retry_after(SOON)
}

/// A request's body is longer than the server takes.
pub(crate) fn too_large() -> Refusal {
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "request.too_large", "A request to a server may have 25 MiB at most.")
}

/// The answer would lead a browser out of the server's path.
pub(crate) fn leads_elsewhere() -> Refusal {
    Refusal::new(StatusCode::BAD_GATEWAY, "origin.redirect", "The server's answer leads to another place.")
}

/// The answer is none.
pub(crate) fn no_answer() -> Refusal {
    Refusal::new(StatusCode::BAD_GATEWAY, "origin.failed", "The server broke the exchange off before it answered.")
}

/// Whose fault it was, as a status.
pub(crate) fn explain(error: &LegacyError) -> Refusal {
    match error {
        LegacyError::TunnelLost => offline(),
        LegacyError::TooMany | LegacyError::Stalled => Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "server.over_limit",
            "The server is busy with other requests.",
        )
        .retry_after(SOON),
        LegacyError::TooLong => too_large(),
        LegacyError::HeadTooLong => Refusal::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "request.head_too_large",
            "The request's head is too large for the server's tunnel.",
        ),
        LegacyError::Unspeakable => scope_denied(),
        LegacyError::NoHead => no_answer(),
        LegacyError::Silent => {
            Refusal::new(StatusCode::GATEWAY_TIMEOUT, "gateway.timeout", "The server did not answer in time.")
        }
        LegacyError::ViewerStalled => {
            Refusal::new(StatusCode::REQUEST_TIMEOUT, "request.timeout", "The rest of the request did not come.")
        }
        LegacyError::Viewer(_) => malformed("The request's body broke off."),
        LegacyError::Cut => Refusal::new(StatusCode::UNAUTHORIZED, "auth.revoked", "The right to this was withdrawn."),
    }
}
