//! Claiming: ask for a code, show it, wait until somebody has entered it (upstream-api s.2.2, trust s.7).

use std::time::{Duration, Instant};

use phlix_protocol::keys::SigningKey;

use crate::backoff::Backoff;
use crate::config::Timings;
use crate::event::Event;
use crate::hub::{ClaimState, HubClient, HubError, PendingClaim};
use crate::random;
use crate::state::Enrollment;

/// Waits until the server is claimed. Asks for a new code when one has expired. A refusal of the claim itself is an
/// error, since asking again would be refused again; a hub that is away is waited for.
pub(crate) async fn enroll(
    hub: &HubClient,
    server_name: &str,
    key: &SigningKey,
    hub_key: Option<String>,
    timings: &Timings,
    tell: &(impl Fn(Event) + ?Sized),
) -> Result<Enrollment, HubError> {
    let mut backoff = Backoff::new(timings.backoff_base, timings.backoff_cap);
    let mut away = Away::default();
    loop {
        let claim = match hub.new_claim(server_name, key).await {
            Ok(claim) => claim,
            Err(error) if is_passing(&error) => {
                away.told(&error, tell);
                let wait = backoff.next(random::fraction());
                tokio::time::sleep(error.retry_after().map_or(wait, |after| after.max(wait))).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        away.ended(tell);
        backoff.reset();
        tell(Event::ClaimPending { code: claim.code.clone(), url: claim.url.clone(), expires_in: claim.expires_in });
        if let Some(enrollment) = wait_for(hub, &claim, hub_key.clone(), timings, tell).await? {
            tell(Event::Claimed { server: enrollment.server_id, owner_name: enrollment.owner_name.clone() });
            return Ok(enrollment);
        }
    }
}

/// Polls one claim until it is claimed, or `None` when it has expired.
async fn wait_for(
    hub: &HubClient,
    claim: &PendingClaim,
    hub_key: Option<String>,
    timings: &Timings,
    tell: &(impl Fn(Event) + ?Sized),
) -> Result<Option<Enrollment>, HubError> {
    // A claim that was made at the last second may still be answered for a little while.
    let give_up = Instant::now() + claim.expires_in + timings.claim_poll * 2;
    let mut away = Away::default();
    loop {
        tokio::time::sleep(jittered(timings.claim_poll, random::fraction())).await;
        let wait = match hub.claim_state(claim.id).await {
            Ok(ClaimState::Pending) => None,
            Ok(ClaimState::Expired) => return Ok(None),
            Ok(ClaimState::Claimed { enrollment, jwks_path, server_id, owner_name }) => {
                away.ended(tell);
                return Ok(Some(Enrollment {
                    hub: hub.origin().to_owned(),
                    hub_key,
                    server_id,
                    jwks_path,
                    owner_name,
                    token: enrollment,
                }));
            }
            Err(error) if is_passing(&error) => {
                away.told(&error, tell);
                Some(error.retry_after().unwrap_or(timings.claim_poll))
            }
            Err(error) => return Err(error),
        };
        match wait {
            None => away.ended(tell),
            Some(wait) => tokio::time::sleep(wait).await,
        }
        if Instant::now() > give_up {
            return Ok(None);
        }
    }
}

/// Whether waiting can help: the hub is away or busy, rather than saying no.
fn is_passing(error: &HubError) -> bool {
    match error {
        HubError::Unreachable(_) | HubError::TimedOut(_) => true,
        HubError::Refused { status, .. } => status.is_server_error() || status.as_u16() == 429,
        HubError::NotTrusted { .. } | HubError::OtherKey { .. } | HubError::Nonsense(_) => false,
    }
}

/// Between nine tenths and eleven tenths of a time: many agents that started together spread out.
pub(crate) fn jittered(time: Duration, fraction: f64) -> Duration {
    time.mul_f64(0.9 + 0.2 * fraction)
}

/// Tells once that the hub is away, and once that it is back.
#[derive(Default)]
pub(crate) struct Away(bool);

impl Away {
    pub(crate) fn told(&mut self, error: &HubError, tell: &(impl Fn(Event) + ?Sized)) {
        if !std::mem::replace(&mut self.0, true) {
            tell(Event::HubAway { reason: error.to_string() });
        }
    }

    pub(crate) fn ended(&mut self, tell: &(impl Fn(Event) + ?Sized)) {
        if std::mem::take(&mut self.0) {
            tell(Event::HubBack);
        }
    }
}
