//! Ends what was handed out: tickets live on at edges and agents until the bulletin says otherwise (trust s.9.4).

use std::time::Duration;

use phlix_protocol::token::SKEW;
use phlix_protocol::uplink::{Change, Revocation, Selector};

use crate::config::Lives;
use crate::store::{self, StoreError, Tx};
use crate::timestamp::Timestamp;

/// Revokes the tickets of `selector` that were issued until now, in the transaction of the deed that makes them wrong: either
/// both are seen or neither.
pub(crate) async fn revoke(tx: &mut Tx, selector: Selector, lives: &Lives, now: Timestamp) -> Result<(), StoreError> {
    let longest = lives.viewer_ticket.max(lives.client_ticket).max(lives.tunnel_ticket).max(lives.relay_token);
    let revocation = Revocation {
        selector,
        issued_until: now.seconds(),
        keep_until: now.plus(longest).plus(Duration::from_secs(SKEW.unsigned_abs())).seconds() + 1,
    };
    store::revocations::insert(tx, &revocation).await?;
    store::bulletin::publish(tx, &Change::Revoked { revocation }, now).await?;
    Ok(())
}
