//! What edges ask the control plane, and how it knows that it is them.
//!
//! Under `/edge/v1`; each call carries the edge's identity over method, target and body. A viewer's request that an edge passes
//! on carries one without a body hash: it is believed for `X-Forwarded-*` alone and never here, or a viewer could ask through
//! the edge.

mod asking;
mod bulletin;
mod directory;
mod presence;
mod refusal;
mod register;

use axum::Router;
use axum::routing::{get, post};
use phlix_protocol::uplink::paths;

use crate::app::App;

/// All of them. They stand beside the routes of people: an edge's identity is checked together with its body, and no layer that
/// asks for whom it speaks comes before.
pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route(paths::REGISTER, post(register::register))
        .route(paths::BULLETIN, get(bulletin::follow))
        .route(&format!("{}/{{host}}", paths::HOSTS), get(directory::host))
        .route(paths::VIEWER_TICKETS, post(directory::exchange))
        .route(paths::RENEW_VIEWER_TICKET, post(directory::renew))
        .route(paths::NAME_CODES, post(directory::name_code))
        .route(paths::RELAY_TOKENS, post(directory::relay_token))
        .route(&format!("{}/{{id}}/state", paths::SERVERS), get(directory::state))
        .route(paths::PRESENCE, post(presence::report))
        .with_state(app)
}
