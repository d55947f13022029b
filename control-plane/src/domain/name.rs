//! Names under which servers are reached.

use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::{ServerId, UserId};
use phlix_protocol::token::{Access, Tls};
use sha2::{Digest as _, Sha256};

use super::label::is_generated;

/// A name of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) host: Hostname,
    pub(crate) server: ServerId,
    pub(crate) access: Access,
    pub(crate) tls: Tls,
}

impl Name {
    /// Where a browser finds it; 443 is left out.
    pub(crate) fn url(&self, port: u16) -> String {
        url(&self.host, port)
    }

    /// Did the hub make it, and not its owner?
    pub(crate) fn is_generated(&self) -> bool {
        self.host.as_str().split('.').next().is_some_and(is_generated)
    }
}

/// Where names stand among a server's: those that its owner picked before the one that the hub made, so that they are in its URL.
pub(crate) const PICKED: i64 = -1;
/// See [`PICKED`].
pub(crate) const GENERATED: i64 = 0;

/// Who has a name, or had it until lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) host: Hostname,
    /// In quarantine.
    pub(crate) is_released: bool,
    /// The account; `None` where nobody remembers.
    pub(crate) user: Option<UserId>,
}

/// Why a name can't be had now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// A server of the same account has it.
    Own,
    /// Somebody else's server has it.
    Taken,
    /// Somebody else had it until lately.
    Quarantined,
    /// It looks like another name of the same account.
    LikeOwn(Hostname),
    /// It looks like a name that somebody else has, or had until lately.
    LikeTaken,
}

/// What stands between `user` and a name, going by those who hold it or what looks like it. What the account itself released is
/// no obstacle.
pub(crate) fn obstacle(holders: &[Holder], host: &Hostname, user: UserId) -> Option<Obstacle> {
    let is_own = |holder: &Holder| holder.user == Some(user);
    if let Some(same) = holders.iter().find(|holder| holder.host == *host) {
        match (same.is_released, is_own(same)) {
            (false, true) => return Some(Obstacle::Own),
            (false, false) => return Some(Obstacle::Taken),
            (true, false) => return Some(Obstacle::Quarantined),
            (true, true) => {}
        }
    }
    let others = holders.iter().filter(|holder| holder.host != *host);
    others.into_iter().find_map(|other| match (other.is_released, is_own(other)) {
        (true, true) => None,
        (false, true) => Some(Obstacle::LikeOwn(other.host.clone())),
        (_, false) => Some(Obstacle::LikeTaken),
    })
}

/// Where a browser finds a host; 443 is left out.
pub(crate) fn url(host: &Hostname, port: u16) -> String {
    if port == 443 { format!("https://{host}/") } else { format!("https://{host}:{port}/") }
}

/// How many labels are tried before we give up: as upstream.
pub(crate) const LABELS: u32 = 100;

/// The label of a server, as upstream makes it: the first 8 hex digits of SHA-256 over its id, on collision over id and counter.
//= upstream-api s.2.3
pub(crate) fn label(server: ServerId, attempt: u32) -> String {
    let text = if attempt == 0 { server.to_string() } else { format!("{server}{attempt}") };
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// The word for an access in the database and in replies.
pub(crate) fn access_word(access: Access) -> &'static str {
    match access {
        Access::Protected => "protected",
        Access::Open => "open",
    }
}

/// The access of a word.
pub(crate) fn access_of(word: &str) -> Option<Access> {
    match word {
        "protected" => Some(Access::Protected),
        "open" => Some(Access::Open),
        _ => None,
    }
}

/// The word for where TLS ends.
pub(crate) fn tls_word(tls: Tls) -> &'static str {
    match tls {
        Tls::Terminated => "terminated",
        Tls::Passthrough => "passthrough",
    }
}

/// Where TLS ends, by its word.
pub(crate) fn tls_of(word: &str) -> Option<Tls> {
    match word {
        "terminated" => Some(Tls::Terminated),
        "passthrough" => Some(Tls::Passthrough),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_upstreams() {
        // printf '%s' 6f1d2c3a-0b4e-4c7d-9a8f-1e2d3c4b5a69 | sha256sum; the same with a 1 at its end.
        let server: ServerId = "6f1d2c3a-0b4e-4c7d-9a8f-1e2d3c4b5a69".parse().unwrap();
        assert_eq!(label(server, 0), "10cacae0");
        assert_eq!(label(server, 1), "8bfea00f");
    }

    #[test]
    fn only_what_the_account_itself_released_is_no_obstacle() {
        let host: Hostname = "ann-tv.hub.localhost".parse().unwrap();
        let alike: Hostname = "anntv.hub.localhost".parse().unwrap();
        let (me, other) = (UserId::new(uuid::Uuid::from_u128(1)), UserId::new(uuid::Uuid::from_u128(2)));
        let holder = |host: &Hostname, is_released, user| Holder { host: host.clone(), is_released, user };
        for (holders, expected) in [
            (vec![], None),
            (vec![holder(&host, true, Some(me))], None),
            (vec![holder(&alike, true, Some(me))], None),
            (vec![holder(&host, false, Some(me))], Some(Obstacle::Own)),
            (vec![holder(&host, false, Some(other))], Some(Obstacle::Taken)),
            (vec![holder(&host, true, Some(other))], Some(Obstacle::Quarantined)),
            (vec![holder(&host, true, None)], Some(Obstacle::Quarantined)),
            (vec![holder(&alike, false, Some(me))], Some(Obstacle::LikeOwn(alike.clone()))),
            (vec![holder(&alike, false, Some(other))], Some(Obstacle::LikeTaken)),
            (vec![holder(&alike, true, Some(other))], Some(Obstacle::LikeTaken)),
            (
                vec![holder(&host, true, Some(me)), holder(&alike, false, Some(me))],
                Some(Obstacle::LikeOwn(alike.clone())),
            ),
        ] {
            assert_eq!(obstacle(&holders, &host, me), expected, "{holders:?}");
        }
    }

    #[test]
    fn the_usual_port_is_not_shown() {
        let host: Hostname = "a.hub.localhost".parse().unwrap();
        assert_eq!(url(&host, 443), "https://a.hub.localhost/");
        assert_eq!(url(&host, 8443), "https://a.hub.localhost:8443/");
    }
}
