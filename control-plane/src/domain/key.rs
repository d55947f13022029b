//! A signing key's life: it signs for one purpose, is retired, and stays published until the last token that it signed has
//! expired.

use std::time::Duration;

use phlix_protocol::token::SKEW;

use crate::timestamp::Timestamp;

/// What a key signs. Key sets of different purposes are never mixed when a token is verified (trust s.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// Enrollments: `aud: server`, verified by the hub itself.
    Enrollment,
    /// Tunnel tickets, viewer tickets, lists of edges: verified by edges and agents.
    Relay,
}

impl Purpose {
    pub(crate) const ALL: [Purpose; 2] = [Purpose::Enrollment, Purpose::Relay];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Enrollment => "enrollment",
            Self::Relay => "relay",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == text)
    }
}

/// How long a replica may go on signing with what it last read of the keys. Longer than a restart of the database takes.
pub(crate) const STALE_AFTER: Duration = Duration::from_secs(600);

/// Until when a key that is retired now must be published: its longest token, the skew that verifiers allow, and the time for
/// which another replica may still sign with it.
pub(crate) fn published_until(retired_at: Timestamp, longest_life: Duration) -> Timestamp {
    retired_at.plus(longest_life).plus(Duration::from_secs(SKEW.unsigned_abs())).plus(STALE_AFTER)
}
