//! What a server says of itself every minute.

use phlix_protocol::b64;
use sha2::{Digest as _, Sha256};

/// A heartbeat, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    pub(crate) version: String,
    pub(crate) uptime_seconds: i64,
    pub(crate) active_sessions: i64,
    pub(crate) active_transcodes: i64,
    pub(crate) hostname_candidates: Vec<String>,
    /// Each id once, by id. `None`: it said nothing about them.
    pub(crate) libraries: Option<Vec<Library>>,
}

/// A library of a server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Library {
    pub(crate) id: String,
    pub(crate) name: String,
}

/// Tells two lists of libraries apart.
pub(crate) fn libraries_hash(libraries: &[Library]) -> String {
    let mut hasher = Sha256::new();
    for Library { id, name } in libraries {
        for text in [id, name] {
            hasher.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            hasher.update(text.as_bytes());
        }
    }
    b64::encode(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_only_look_alike_differ() {
        let library = |id: &str, name: &str| Library { id: id.into(), name: name.into() };
        assert_ne!(libraries_hash(&[library("ab", "c")]), libraries_hash(&[library("a", "bc")]));
        assert_eq!(libraries_hash(&[library("a", "b")]), libraries_hash(&[library("a", "b")]));
    }
}
