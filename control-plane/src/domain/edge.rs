//! A relay edge.

use phlix_protocol::ids::EdgeId;
use phlix_protocol::keys::PublicKey;
use phlix_protocol::token::EdgeEntry;
use phlix_protocol::uplink::{EdgeRole, EdgeStatus};

/// A relay edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) id: EdgeId,
    pub(crate) key: PublicKey,
    pub(crate) role: EdgeRole,
    pub(crate) status: EdgeStatus,
    /// What it said about where it is; `None` until it has registered.
    pub(crate) place: Option<Place>,
}

/// Where an edge is and how it is dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) region: String,
    pub(crate) names: Vec<String>,
    pub(crate) addresses: Vec<String>,
    pub(crate) port: u16,
    pub(crate) spki: Option<String>,
    pub(crate) behind_proxy: bool,
    pub(crate) version: String,
}

impl Edge {
    /// Trusted like the hub, and now.
    //= trust s.1
    pub(crate) fn is_core(&self) -> bool {
        self.status == EdgeStatus::Approved && self.role == EdgeRole::Core
    }

    /// As agents and other edges need to know it; `None` while it may not be dialled.
    pub(crate) fn entry(&self) -> Option<EdgeEntry> {
        let place = self.place.as_ref().filter(|_| self.status == EdgeStatus::Approved)?;
        Some(EdgeEntry {
            id: self.id,
            key: self.key,
            addresses: place.addresses.clone(),
            port: place.port,
            region: place.region.clone(),
            names: place.names.clone(),
            spki: place.spki.clone(),
            behind_proxy: place.behind_proxy,
        })
    }
}

/// The word for a role in the database.
pub(crate) fn role_word(role: EdgeRole) -> &'static str {
    match role {
        EdgeRole::Core => "core",
        EdgeRole::Outer => "outer",
    }
}

/// The role of a word.
pub(crate) fn role_of(word: &str) -> Option<EdgeRole> {
    match word {
        "core" => Some(EdgeRole::Core),
        "outer" => Some(EdgeRole::Outer),
        _ => None,
    }
}

/// The word for a status in the database.
pub(crate) fn status_word(status: EdgeStatus) -> &'static str {
    match status {
        EdgeStatus::Pending => "pending",
        EdgeStatus::Approved => "approved",
        EdgeStatus::Revoked => "revoked",
    }
}

/// The status of a word.
pub(crate) fn status_of(word: &str) -> Option<EdgeStatus> {
    match word {
        "pending" => Some(EdgeStatus::Pending),
        "approved" => Some(EdgeStatus::Approved),
        "revoked" => Some(EdgeStatus::Revoked),
        _ => None,
    }
}
