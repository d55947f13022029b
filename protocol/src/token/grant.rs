//! What somebody may do: the one shape behind ownership, shares and tickets.

use serde::{Deserialize, Serialize};

use crate::ids::{ServerId, ShareId, UserId};

/// "May user U reach library L of server S, and how." The owner has one too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub user: UserId,
    pub server: ServerId,
    /// The share it rests on; `None` for the owner.
    pub share: Option<ShareId>,
    pub libraries: Libraries,
    pub permission: Permission,
}

impl Grant {
    /// The owner's: everything on the server.
    pub fn owner(user: UserId, server: ServerId) -> Self {
        Self { user, server, share: None, libraries: Libraries::All, permission: Permission::ReadWrite }
    }
}

/// Which libraries of a server. In JSON: `null` (or absent) for all, else a list of library ids; an empty list is
/// nothing at all, never "all".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<Vec<String>>", into = "Option<Vec<String>>")]
pub enum Libraries {
    #[default]
    All,
    Only(Vec<String>),
}

impl Libraries {
    /// Whether the whole server is meant.
    pub fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }

    /// Whether this library is among them.
    pub fn contains(&self, library: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(ids) => ids.iter().any(|id| id == library),
        }
    }
}

impl From<Option<Vec<String>>> for Libraries {
    fn from(list: Option<Vec<String>>) -> Self {
        list.map_or(Self::All, Self::Only)
    }
}

impl From<Libraries> for Option<Vec<String>> {
    fn from(libraries: Libraries) -> Self {
        match libraries {
            Libraries::All => None,
            Libraries::Only(ids) => Some(ids),
        }
    }
}

/// Read, or read and write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    Read,
    ReadWrite,
}

/// By which door a ticket lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// A server's own name: whatever its origin serves.
    Name,
    /// The hub's proxy path: the paths of legacy-relay-wire s.3.3.
    Proxy,
    /// Raw channels of a legacy server's tunnel: the mount on port 8803 and upgrades (legacy-relay-wire s.4).
    Tunnel,
}
