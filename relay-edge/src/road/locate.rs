//! Phase 3: where is the server? Here, or nowhere; other edges come with the issue on many edges.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::ServerId;

use super::refusal::Refusal;
use crate::tunnels::Tunnel;
use crate::tunnels::registry::Registry;

/// Picks the tunnel, at once: an offline server is not waited for.
pub(crate) fn locate(registry: &Registry, server: ServerId) -> Result<Arc<Tunnel>, Refusal> {
    registry.pick(server).ok_or_else(offline)
}

/// Whether the server itself, by the ticket that its agent brought, says that this name is open. Where no tunnel is, the
/// directory's word is enough to say that the server is offline.
pub(crate) fn agent_agrees_open(registry: &Registry, server: ServerId, host: &Hostname) -> bool {
    registry.pick(server).is_none_or(|tunnel| tunnel.says_open(host))
}

/// No tunnel of this server is here.
pub(crate) fn offline() -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "server.offline",
        "The server is not connected at the moment. It is switched off, or its line is down.",
    )
    .retry_after(Duration::from_secs(5))
}
