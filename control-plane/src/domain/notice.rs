//! What an owner should know of a server (trust s.2.3, s.9.6).

use std::net::IpAddr;

use phlix_protocol::ids::ServerId;
use uuid::Uuid;

use crate::timestamp::Timestamp;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoticeKind {
    /// A legacy tunnel came without TLS: its bearer crossed the network in clear.
    PlainTunnel,
    /// A legacy tunnel was replaced from another address: the home has a new one, or somebody else has the bearer.
    NewAddress,
    /// An old enrollment was renewed long after a newer one existed: somebody may have a copy.
    OldCredentials,
}

impl NoticeKind {
    /// The word for programs and the database.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::PlainTunnel => "tunnel.plain",
            Self::NewAddress => "tunnel.new_address",
            Self::OldCredentials => "credentials.old",
        }
    }

    /// The kind of a word.
    pub(crate) fn of(word: &str) -> Option<Self> {
        [Self::PlainTunnel, Self::NewAddress, Self::OldCredentials].into_iter().find(|kind| kind.word() == word)
    }

    /// Shows itself again after it was dismissed: each time may be another attack. A plain tunnel is a state that its owner
    /// knows of by then.
    pub(crate) fn returns(self) -> bool {
        !matches!(self, Self::PlainTunnel)
    }

    /// The sentence for people.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::PlainTunnel => {
                "This server's connection to the hub is not encrypted. Set PHLIX_RELAY_TLS=1 on the server; afterwards the hub \
                 accepts encrypted connections only."
            }
            Self::NewAddress => {
                "This server's connection was replaced from another address. If your home's address did not change, somebody may \
                 have a copy of the server's credentials: end them and pair the server again."
            }
            Self::OldCredentials => {
                "Old credentials of this server were renewed although newer ones exist. Somebody may have a copy of the server's \
                 data: end its credentials and pair the server again."
            }
        }
    }
}

/// Something that happened, once or more.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    pub(crate) id: Uuid,
    pub(crate) server: ServerId,
    pub(crate) server_name: String,
    pub(crate) kind: NoticeKind,
    /// Addresses, for example.
    pub(crate) detail: String,
    pub(crate) times: i64,
    pub(crate) first_at: Timestamp,
    pub(crate) last_at: Timestamp,
}

/// May both be the same home? An IPv4 address is one, an IPv6 /64, in which addresses change by themselves, and the hub's own
/// machine.
pub(crate) fn same_home(a: IpAddr, b: IpAddr) -> bool {
    match (a.to_canonical(), b.to_canonical()) {
        (a, b) if a.is_loopback() && b.is_loopback() => true,
        (IpAddr::V6(a), IpAddr::V6(b)) => a.segments()[..4] == b.segments()[..4],
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_prefix_is_one_home() {
        let same = |a: &str, b: &str| same_home(a.parse().unwrap(), b.parse().unwrap());
        assert!(same("192.0.2.7", "::ffff:192.0.2.7"));
        assert!(!same("192.0.2.7", "192.0.2.8"));
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(!same("192.0.2.7", "2001:db8::1"));
        assert!(same("127.0.0.1", "::1"));
    }

    #[test]
    fn each_kind_is_found_by_its_word() {
        for kind in [NoticeKind::PlainTunnel, NoticeKind::NewAddress, NoticeKind::OldCredentials] {
            assert_eq!(NoticeKind::of(kind.word()), Some(kind));
        }
        assert_eq!(NoticeKind::of("weather"), None);
    }
}
