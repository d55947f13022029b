//! Names under which servers are reached.

use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::ServerId;
use phlix_protocol::token::{Access, Tls};
use sha2::{Digest as _, Sha256};

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
    fn the_usual_port_is_not_shown() {
        let host: Hostname = "a.hub.localhost".parse().unwrap();
        assert_eq!(url(&host, 443), "https://a.hub.localhost/");
        assert_eq!(url(&host, 8443), "https://a.hub.localhost:8443/");
    }
}
