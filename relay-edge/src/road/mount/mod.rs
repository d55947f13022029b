//! The raw mount: a client's own channel to an existing media server's port, frame by frame (legacy-relay-wire s.3.2).
//!
//! The same phases as for a request, for a connection: who comes shows a relay token, which the control plane knows and
//! binds to user and server; the channel runs as long as the token and the tunnel do.

mod inbox;
mod outbox;
mod session;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use phlix_protocol::ids::ServerId;
use phlix_protocol::token::{Scope, ViewerTicket};
use phlix_protocol::ws::CloseCode;

pub(crate) use self::session::Session;
use super::Road;
use crate::clock;
use crate::random;
use crate::tunnels::activity::Activity;
use crate::uplink::directory::Mount;

/// Characters of a relay token, all of them hexadecimal digits.
const TOKEN: usize = 64;

/// Why a client gets no channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotMounted {
    /// No token, not a good one, or another's server.
    Unauthorized,
    /// Too often, too many, or the hub can't tell now.
    Later,
    /// The server has no tunnel here.
    Offline,
}

impl NotMounted {
    /// The code of the close frame that says so.
    //= legacy-relay-wire s.3.2: 4401 (auth), 1013 (rate), 1011 (offline)
    pub(crate) fn close_code(self) -> CloseCode {
        let code = match self {
            Self::Unauthorized => 4401,
            Self::Later => 1013,
            Self::Offline => 1011,
        };
        CloseCode::from_wire(code).unwrap_or(CloseCode::INTERNAL)
    }

    /// The word in metrics.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Unauthorized => "mount.unauthorized",
            Self::Later => "mount.later",
            Self::Offline => "mount.offline",
        }
    }
}

impl Road {
    /// Opens a channel for who shows this token at this server; `None` where a client said none, or what can be none.
    pub(crate) async fn mount(
        &self,
        token: Option<&str>,
        server: Option<ServerId>,
        address: IpAddr,
    ) -> Result<Session, NotMounted> {
        let is_token = |token: &&str| token.len() == TOKEN && token.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (Some(token), Some(server)) = (token.filter(is_token), server) else {
            return Err(NotMounted::Unauthorized);
        };
        let ticket = match self.uplink.directory.mount(token, server).await {
            Ok(Mount::Ticket(ticket)) => ticket,
            Ok(Mount::Refused(status)) => {
                tracing::debug!(server.id = %server, %status, "a relay token opens nothing");
                return Err(NotMounted::Unauthorized);
            }
            Err(_) => return Err(NotMounted::Later),
        };
        if !is_whole(&ticket) {
            return Err(NotMounted::Unauthorized);
        }
        let tunnel = self.tunnels.legacy.pick(server).ok_or(NotMounted::Offline)?;
        let activity = Arc::new(Activity::new(Instant::now()));
        let life = Duration::from_secs(u64::try_from(ticket.exp - clock::unix_now()).unwrap_or_default());
        let listed = self
            .live
            .list(server, None, Some(ticket), address, self.config.legacy.requests, Arc::clone(&activity))
            .map_err(|_| NotMounted::Later)?;
        let channel = tunnel.connect(random::uuid(), &activity).map_err(|error| {
            tracing::debug!(server.id = %server, %error, "no raw channel");
            if tunnel.usable() { NotMounted::Later } else { NotMounted::Offline }
        })?;
        tracing::debug!(server.id = %server, channel = channel.number(), "a raw client is connected");
        Ok(Session::new(channel, listed, activity, life, Arc::clone(&self.metrics)))
    }
}

/// What goes over a channel is judged by nobody: it is for who has the whole server, and by a ticket for just this.
fn is_whole(ticket: &ViewerTicket) -> bool {
    ticket.scope == Scope::Tunnel && ticket.share_id.is_none() && ticket.libs.is_all()
}
