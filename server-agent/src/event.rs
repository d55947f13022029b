//! What an agent tells the one who runs it.

use std::time::Duration;

use phlix_link::Transport;
use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::{ServerId, TunnelId};

/// Something that a person may want to see. Holds no token and no viewer's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Somebody must enter `code` at `url` (which carries it) within `expires_in`. A new one follows when it ends.
    ClaimPending { code: String, url: String, expires_in: Duration },
    /// The server belongs to somebody now.
    Claimed { server: ServerId, owner_name: Option<String> },
    /// The hub can't be asked; what is open stays open. Told once until it answers again.
    HubAway { reason: String },
    /// The hub answers again.
    HubBack,
    /// A tunnel is open.
    Connected { server: ServerId, edge: String, tunnel: TunnelId, transport: Transport, names: Vec<Hostname> },
    /// An edge asked to move; what runs at it may finish.
    Draining { edge: String, reason: String },
    /// There is no tunnel.
    Disconnected { reason: String, retry_in: Duration },
    /// The media server takes no connection.
    OriginDown { reason: String },
    /// The media server takes connections.
    OriginUp,
    /// A file could not be written; the agent goes on and tries again.
    NotSaved { reason: String },
}
