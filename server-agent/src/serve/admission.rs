//! May this stream reach the origin? Judged by what the hub has signed, never by the edge's word (trust s.2.1, s.4.2).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::ServerId;
use phlix_protocol::native::stream::{StreamHeader, StreamKind};
use phlix_protocol::token::{Access, SKEW, Scope, TokenError, TunnelTicket, ViewerTicket};
use sha2::{Digest as _, Sha256};

use crate::hub::HubKeys;

/// Why not. Says nothing of the ticket's content, so that it can be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("only HTTP is relayed")]
    Kind,
    #[error("the name is none of this server's")]
    Name,
    #[error("no viewer ticket, and the name is protected")]
    NoTicket,
    #[error("viewer ticket: {0}")]
    Ticket(TokenError),
    #[error("viewer ticket is for another server")]
    OtherServer,
    #[error("viewer ticket is for another name")]
    OtherHost,
    #[error("viewer ticket is for the proxy path")]
    OtherScope,
    #[error("viewer ticket is for single libraries")]
    Libraries,
}

/// Who verifies a ticket: the hub's keys.
pub(crate) trait VerifiesTickets {
    /// Signature, type, issuer, audience and times.
    fn verify_ticket(&self, ticket: &str) -> impl Future<Output = Result<ViewerTicket, TokenError>> + Send;
}

impl VerifiesTickets for HubKeys {
    async fn verify_ticket(&self, ticket: &str) -> Result<ViewerTicket, TokenError> {
        self.verify(ticket).await
    }
}

/// Admits streams; remembers tickets that it has verified, by hash, until they end.
pub(crate) struct Admission {
    remembered: Mutex<HashMap<[u8; 32], Remembered>>,
    most: usize,
}

/// What is left to check of a ticket whose signature was found good.
#[derive(Clone)]
struct Remembered {
    good_until: i64,
    server: ServerId,
    host: Hostname,
}

impl Admission {
    /// Remembers at most so many tickets.
    pub(crate) fn new(most: usize) -> Self {
        Self { remembered: Mutex::default(), most }
    }

    /// Judges a header by our own tunnel ticket and the viewer's.
    pub(crate) async fn admit(
        &self,
        keys: &impl VerifiesTickets,
        now: i64,
        ours: &TunnelTicket,
        header: &StreamHeader,
    ) -> Result<(), Refusal> {
        if header.kind != StreamKind::Http {
            return Err(Refusal::Kind);
        }
        let name = ours.names.iter().find(|name| name.host == header.host).ok_or(Refusal::Name)?;
        if name.access == Access::Open {
            return Ok(());
        }
        let ticket = header.ticket.as_deref().ok_or(Refusal::NoTicket)?;
        let hash = <[u8; 32]>::from(Sha256::digest(ticket));
        let known = match self.recall(&hash, now) {
            Some(known) => known,
            None => {
                let verified = judged(keys.verify_ticket(ticket).await.map_err(Refusal::Ticket)?)?;
                self.remember(hash, verified.clone(), now);
                verified
            }
        };
        if known.server != ours.server_id {
            Err(Refusal::OtherServer)
        } else if known.host != header.host {
            Err(Refusal::OtherHost)
        } else {
            Ok(())
        }
    }

    fn recall(&self, hash: &[u8; 32], now: i64) -> Option<Remembered> {
        self.lock().get(hash).filter(|known| now < known.good_until).cloned()
    }

    fn remember(&self, hash: [u8; 32], verified: Remembered, now: i64) {
        let mut remembered = self.lock();
        if remembered.len() >= self.most {
            remembered.retain(|_, known| now < known.good_until);
            if remembered.len() >= self.most {
                // Verifying anew costs an eighth of a millisecond each: cheaper than keeping an order.
                remembered.clear();
            }
        }
        remembered.insert(hash, verified);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Remembered>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a verified ticket opens, as far as that does not depend on the stream.
fn judged(ticket: ViewerTicket) -> Result<Remembered, Refusal> {
    if ticket.scope != Scope::Name {
        return Err(Refusal::OtherScope);
    }
    // What stands behind this agent knows nothing of the hub's libraries: part of it can't be told from the whole.
    if !ticket.libs.is_all() {
        return Err(Refusal::Libraries);
    }
    let host = ticket.host.ok_or(Refusal::OtherHost)?;
    Ok(Remembered { good_until: ticket.exp.saturating_add(SKEW), server: ticket.server_id, host })
}

#[cfg(test)]
mod tests;
