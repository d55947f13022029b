//! What is remembered of legacy tunnels, which show a bearer and no key: TLS once used is held to, and what looks odd is told to
//! the owner (trust s.9.6).

use phlix_protocol::ids::{ServerId, UserId};
use phlix_protocol::uplink::{Change, LegacyOpening};

use super::App;
use super::grants::{self, GrantError};
use super::notices::raise;
use crate::domain::notice::{NoticeKind, same_home};
use crate::store::{StoreError, Tx, bulletin, legacy_tunnels, notices};
use crate::timestamp::Timestamp;

/// A tunnel that was not there before came. `replaces`: the server had one already. `true` when edges were told something.
//= trust s.9.6
pub(super) async fn came_in(
    tx: &mut Tx,
    server: ServerId,
    how: LegacyOpening,
    replaces: bool,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let address = how.address.to_canonical();
    let before = legacy_tunnels::address(tx, server).await?;
    if before != Some(address) {
        legacy_tunnels::set_address(tx, server, address).await?;
    }
    if let Some(before) = before.filter(|before| replaces && !same_home(*before, address)) {
        raise(tx, server, NoticeKind::NewAddress, &format!("{before} -> {address}"), now).await?;
    }
    if !how.tls {
        // On the hub's own machine nobody listens in between.
        if !address.is_loopback() {
            raise(tx, server, NoticeKind::PlainTunnel, &address.to_string(), now).await?;
        }
        return Ok(false);
    }
    if !legacy_tunnels::hold_to_tls(tx, server, now).await? {
        return Ok(false);
    }
    notices::settle(tx, server, NoticeKind::PlainTunnel).await?;
    bulletin::publish(tx, &Change::TlsOnly { server_id: server, required: true }, now).await?;
    Ok(true)
}

/// The owner holds a server to TLS, or lets it go, where the home has lost its TLS. The next tunnel with TLS holds it again.
pub(super) async fn set_tls_only_in(
    tx: &mut Tx,
    server: ServerId,
    required: bool,
    now: Timestamp,
) -> Result<(), StoreError> {
    let changed = match required {
        true => legacy_tunnels::hold_to_tls(tx, server, now).await?,
        false => legacy_tunnels::release_from_tls(tx, server).await?,
    };
    if changed {
        bulletin::publish(tx, &Change::TlsOnly { server_id: server, required }, now).await?;
    }
    Ok(())
}

/// The same as a deed of its own.
pub(crate) async fn set_tls_only(app: &App, user: UserId, server: ServerId, required: bool) -> Result<(), GrantError> {
    let now = app.clock.now();
    app.db
        .transact(|mut tx| async move {
            grants::owned(&mut tx, user, server).await?;
            set_tls_only_in(&mut tx, server, required, now).await?;
            tx.commit().await?;
            Ok::<_, GrantError>(())
        })
        .await?;
    app.bulletin.poke();
    tracing::info!(target: "audit", { server.id = %server, user.id = %user, required }, "whether a server's tunnels need TLS was set");
    Ok(())
}
