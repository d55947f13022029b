//! Where an edge is, and whom it must show itself as.

use std::net::SocketAddr;

use phlix_certs::pin::SpkiPin;
use phlix_protocol::token::EdgeEntry;

use super::DialError;
use crate::shared::Shared;
use crate::trust::{self, RefusedKey};

/// Addresses of one edge that are tried.
const MOST_ADDRESSES: usize = 8;

/// What an edge is called when we dial it.
pub(super) fn name_of(edge: &EdgeEntry) -> &str {
    edge.names.first().or(edge.addresses.first()).map_or("", String::as_str)
}

/// The edge's addresses, in the list's order.
pub(super) async fn addresses(edge: &EdgeEntry) -> Result<Vec<SocketAddr>, DialError> {
    let mut found = Vec::new();
    let mut unknown = None;
    for address in hosts(edge) {
        match tokio::net::lookup_host((address, edge.port)).await {
            Ok(resolved) => found.extend(resolved.take(MOST_ADDRESSES)),
            Err(_) => unknown = Some(address.to_owned()),
        }
    }
    match unknown {
        Some(address) if found.is_empty() => Err(DialError::Resolve(address)),
        _ => Ok(found),
    }
}

/// Names and addresses as the list has them, IPv6 without brackets.
pub(super) fn hosts(edge: &EdgeEntry) -> impl Iterator<Item = &str> {
    edge.addresses.iter().take(MOST_ADDRESSES).map(|address| address.trim_start_matches('[').trim_end_matches(']'))
}

/// TLS towards an edge: by the pin of the hub's list where it has one, else by the roots.
pub(super) fn tls(shared: &Shared, edge: &EdgeEntry) -> Result<rustls::ClientConfig, DialError> {
    Ok(match &edge.spki {
        Some(pin) => {
            let pin: SpkiPin = pin.parse().map_err(|_| DialError::Setup("the hub's pin of it is none".into()))?;
            trust::pinned(pin, RefusedKey::default())?
        }
        None => trust::rooted(shared.edge_roots.clone(), RefusedKey::default())?,
    })
}
