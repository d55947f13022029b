//! Keeps what the hub gives fresh: enrollment, tunnel ticket and edge list; and says every minute that we live.
//!
//! Whether something is due is judged by the hub's time, never by a timer alone: a timer stands still while a machine
//! sleeps.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use phlix_protocol::token::{self, EdgeList, Enrollment as EnrollmentClaims, TokenError, TunnelTicket};

use crate::backoff::Backoff;
use crate::enroll::{Away, jittered};
use crate::event::Event;
use crate::hub::{HubError, Identity, TicketReply};
use crate::random;
use crate::shared::{Credentials, Shared};
use crate::state::{Enrollment, State, StateError, StoredTicket};

/// Between two fetches of a ticket, however often somebody asks.
const BETWEEN_TICKETS: Duration = Duration::from_secs(1);

/// The hub's answer can't be used.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Hub(#[from] HubError),
    #[error("the hub's {what} is not to be believed: {source}")]
    Token { what: &'static str, source: TokenError },
    #[error("the hub's tunnel ticket is for another server or another key")]
    NotOurs,
}

/// Takes up the ticket that the folder has, so that edges can be dialled while the hub is away.
pub(crate) async fn take_up_stored(shared: &Shared) {
    let Some(stored) = shared.state.ticket() else { return };
    match check(shared, TicketReply { ticket: stored.ticket, edges: stored.edges }).await {
        Ok(credentials) => drop(shared.credentials.send_replace(Some(Arc::new(credentials)))),
        Err(error) => tracing::info!(%error, "the kept tunnel ticket is of no use"),
    }
}

/// Runs as long as the agent; ends only where trying again can't help: the hub no longer knows this server, or
/// is not trusted and there is nothing to go on with.
pub(crate) async fn keep(shared: Arc<Shared>, enrollment: Enrollment, saved: bool) -> HubError {
    let mut keeper = Keeper {
        identity: Identity { enrollment: enrollment.token.clone(), key: shared.key.clone() },
        enrollment,
        unsaved: !saved,
        started: Instant::now(),
        ticket_asked: true,
        heartbeat_due: Instant::now(),
        shared,
    };
    let timings = keeper.shared.config.timings.clone();
    let mut backoff = Backoff::new(timings.backoff_base, timings.heartbeat);
    let mut away = Away::default();
    loop {
        let tell = Arc::clone(&keeper.shared.tell);
        let began = Instant::now();
        let wait = match keeper.round().await {
            Ok(()) => {
                away.ended(&*tell);
                backoff.reset();
                keeper.shared.board.change(|status| status.trouble = None);
                keeper.heartbeat_due.saturating_duration_since(Instant::now())
            }
            Err(KeepError::Hub(error)) if error.is_final() => return error,
            // Somebody should be asked. But where a tunnel can be kept open, whoever stands between us and the hub must
            // not be able to end it.
            Err(KeepError::Hub(error @ HubError::NotTrusted { .. })) if keeper.shared.credentials().is_none() => {
                return error;
            }
            Err(KeepError::Hub(error)) => {
                away.told(&error, &*tell);
                keeper.shared.board.change(|status| status.trouble = Some(error.to_string()));
                let wait = backoff.next(random::fraction());
                error.retry_after().map_or(wait, |after| after.max(wait))
            }
            Err(error) => {
                tracing::warn!(%error, "the hub's answer is of no use");
                keeper.shared.board.change(|status| status.trouble = Some(error.to_string()));
                backoff.next(random::fraction())
            }
        };
        tokio::select! {
            () = keeper.shared.want_ticket.notified() => {
                keeper.ticket_asked = true;
                // Asked once, served at once; asked all the time, served once a second.
                tokio::time::sleep(BETWEEN_TICKETS.saturating_sub(began.elapsed())).await;
            }
            () = tokio::time::sleep(wait) => {}
        }
    }
}

struct Keeper {
    shared: Arc<Shared>,
    identity: Identity,
    enrollment: Enrollment,
    /// The enrollment in memory is newer than the one on disk.
    unsaved: bool,
    started: Instant,
    ticket_asked: bool,
    heartbeat_due: Instant,
}

impl Keeper {
    /// Does what is due.
    async fn round(&mut self) -> Result<(), KeepError> {
        if self.unsaved {
            self.save_enrollment().await;
        }
        if self.ticket_is_due() {
            self.fetch_ticket().await?;
        }
        if Instant::now() >= self.heartbeat_due {
            let open = self.shared.streams.load(Ordering::Relaxed);
            self.shared.hub.heartbeat(&self.identity, self.shared.server_id, self.started.elapsed(), open).await?;
            let next = jittered(self.shared.config.timings.heartbeat, random::fraction());
            self.heartbeat_due = Instant::now() + next;
        }
        if self.enrollment_is_half_spent() {
            let renewed = self.shared.hub.renew(&self.identity, self.shared.server_id).await?;
            self.identity.enrollment.clone_from(&renewed);
            self.enrollment.token = renewed;
            self.unsaved = true;
            self.save_enrollment().await;
        }
        Ok(())
    }

    fn ticket_is_due(&self) -> bool {
        let Some(credentials) = self.shared.credentials() else { return true };
        self.ticket_asked || is_half_spent(credentials.claims.iat, credentials.claims.exp, self.shared.clock.now())
    }

    fn enrollment_is_half_spent(&self) -> bool {
        // Our own token: what it says of its times needs no belief.
        token::peek::<EnrollmentClaims>(&self.identity.enrollment)
            .is_some_and(|claims| is_half_spent(claims.iat, claims.exp, self.shared.clock.now()))
    }

    async fn fetch_ticket(&mut self) -> Result<(), KeepError> {
        let reply = self.shared.hub.tunnel_ticket(&self.identity, self.shared.server_id).await?;
        let kept = StoredTicket { ticket: reply.ticket.clone(), edges: reply.edges.clone() };
        let credentials = check(&self.shared, reply).await?;
        self.ticket_asked = false;
        let names = credentials.claims.names.iter().map(|name| name.host.clone()).collect();
        self.shared.board.change(|status| status.names = names);
        self.shared.credentials.send_replace(Some(Arc::new(credentials)));
        on_disk(&self.shared, move |state| state.save_ticket(&kept)).await;
        Ok(())
    }

    async fn save_enrollment(&mut self) {
        let enrollment = self.enrollment.clone();
        self.unsaved = !on_disk(&self.shared, move |state| state.save_enrollment(&enrollment)).await;
    }
}

/// Whether half of a life is over.
fn is_half_spent(issued: i64, expires: i64, now: i64) -> bool {
    now >= issued.saturating_add(expires.saturating_sub(issued) / 2)
}

/// Believes a ticket and an edge list only as far as the hub's keys go.
async fn check(shared: &Shared, reply: TicketReply) -> Result<Credentials, KeepError> {
    let wrong = |what| move |source| KeepError::Token { what, source };
    let claims: TunnelTicket = shared.keys.verify(&reply.ticket).await.map_err(wrong("tunnel ticket"))?;
    if claims.server_id != shared.server_id || claims.cnf.jwk != shared.key.public() {
        return Err(KeepError::NotOurs);
    }
    let list: EdgeList = shared.keys.verify(&reply.edges).await.map_err(wrong("edge list"))?;
    Ok(Credentials { ticket: reply.ticket, claims, edges: list.edges })
}

/// Writes away from the data path. What can't be written is told, and stays in memory.
async fn on_disk(shared: &Shared, write: impl FnOnce(&State) -> Result<(), StateError> + Send + 'static) -> bool {
    let state = Arc::clone(&shared.state);
    match tokio::task::spawn_blocking(move || write(&state)).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            shared.tell(Event::NotSaved { reason: error.to_string() });
            false
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_life_is_half_a_life() {
        assert!(!is_half_spent(1_000, 3_000, 1_999));
        assert!(is_half_spent(1_000, 3_000, 2_000));
        assert!(is_half_spent(1_000, 1_000, 1_000));
        assert!(!is_half_spent(i64::MAX - 1, i64::MAX, 0));
    }
}
