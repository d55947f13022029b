//! Host names: what a viewer asks for, what a ticket is bound to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// A DNS host name in lower case, without port and without the root's dot (RFC 1123 s.2.1, RFC 1035 s.2.3.4).
///
/// Names of servers have at least two labels, `localhost` has one; IP addresses are refused, since nothing that is
/// named here is reached by address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Hostname(String);

/// The text is no host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a host name: letters, digits, hyphens and dots, labels of 1 to 63, at most 253 characters")]
pub struct InvalidHostname;

impl Hostname {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses the host part of a `Host` header or an `:authority`: a port and one trailing dot are taken off.
    pub fn from_authority(authority: &str) -> Result<Self, InvalidHostname> {
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()) => host,
            Some(_) => return Err(InvalidHostname),
            None => authority,
        };
        host.strip_suffix('.').unwrap_or(host).parse()
    }

    /// The label in front when `self` is exactly one label below `parent`.
    pub fn label_under(&self, parent: &Hostname) -> Option<&str> {
        let label = self.0.strip_suffix(parent.as_str())?.strip_suffix('.')?;
        (!label.is_empty() && !label.contains('.')).then_some(label)
    }
}

impl FromStr for Hostname {
    type Err = InvalidHostname;

    fn from_str(text: &str) -> Result<Self, InvalidHostname> {
        if text.is_empty() || text.len() > 253 {
            return Err(InvalidHostname);
        }
        let label_ok = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if !text.split('.').all(label_ok) {
            return Err(InvalidHostname);
        }
        // A last label of digits alone is an IPv4 address in one of its spellings.
        if text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
            return Err(InvalidHostname);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hostname({})", self.0)
    }
}

impl<'de> Deserialize<'de> for Hostname {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_dot_and_case_are_folded() {
        for spelling in
            ["Ab12.Hub.Localhost", "ab12.hub.localhost:8443", "ab12.hub.localhost.", "ab12.hub.localhost.:1"]
        {
            let host = Hostname::from_authority(spelling).expect(spelling);
            assert_eq!(host.as_str(), "ab12.hub.localhost");
        }
    }

    #[test]
    fn what_is_no_host_name_is_refused() {
        let long_label = format!("{}.example", "a".repeat(64));
        let long_name = format!("{}example", "a.".repeat(130));
        for bad in [
            "",
            ".",
            "a..b",
            "-a.b",
            "a-.b",
            "a_b.c",
            "a b.c",
            "127.0.0.1",
            "[::1]",
            "a.b:x",
            "a.b:123456",
            "a.b:1:2",
            "ü.example",
            "a.b/c",
            "a.b\0",
            "a%2eb.c",
            long_label.as_str(),
            long_name.as_str(),
        ] {
            assert!(Hostname::from_authority(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_label_is_found_only_directly_under_its_parent() {
        let parent: Hostname = "hub.localhost".parse().expect("name");
        let label = |text: &str| text.parse::<Hostname>().expect("name").label_under(&parent).map(str::to_owned);
        assert_eq!(label("abc.hub.localhost").as_deref(), Some("abc"));
        assert_eq!(label("hub.localhost"), None);
        assert_eq!(label("a.b.hub.localhost"), None);
        assert_eq!(label("evilhub.localhost"), None);
    }
}
