//! A WebSocket to a media server behind a legacy tunnel.
//!
//! The wire has no upgrade; it has raw channels to the server's own port. Until one is opened here for the owner, the
//! answer is a reasoned no.
//= legacy-relay-wire s.2

use http::StatusCode;

use super::super::refusal::Refusal;

/// What a viewer who asks for a WebSocket gets.
pub(super) fn unsupported() -> Refusal {
    Refusal::new(
        StatusCode::NOT_IMPLEMENTED,
        "upgrade.unsupported",
        "This server's tunnel carries requests and answers, not WebSockets.",
    )
}
