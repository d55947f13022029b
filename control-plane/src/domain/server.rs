//! A claimed server.

use phlix_protocol::b64;
use phlix_protocol::ids::{ServerId, UserId};
use phlix_protocol::keys::PublicKey;
use phlix_protocol::uplink::ServerKind;
use url::Url;

use crate::timestamp::Timestamp;

/// A claimed server.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) id: ServerId,
    pub(crate) owner: UserId,
    pub(crate) name: String,
    pub(crate) kind: ServerKind,
    pub(crate) key: PublicKey,
    pub(crate) version: String,
    pub(crate) hostname_candidates: Vec<String>,
    /// Refuse the paths that media servers open to local callers (native-tunnel s.5).
    pub(crate) guard_local_paths: bool,
    pub(crate) credentials: Credentials,
    pub(crate) last_seen_at: Option<Timestamp>,
    /// `None` until its first heartbeat.
    pub(crate) library_count: Option<i64>,
    /// Its plain tunnels are refused since then: it has used TLS.
    pub(crate) tls_since: Option<Timestamp>,
}

/// How new a server's credentials are (trust s.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// The newest generation that was issued.
    pub(crate) newest: u64,
    /// Since when.
    pub(crate) since: Timestamp,
    /// The least that is still believed.
    pub(crate) least: u64,
}

/// How a server is, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Online,
    Offline,
}

impl Status {
    /// Upstream's word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
        }
    }
}

impl Server {
    /// Online while it has a tunnel or its last heartbeat is younger than `silence`, by the hub's clock alone.
    //= promises T32
    pub(crate) fn status(&self, has_tunnel: bool, now: Timestamp, silence: std::time::Duration) -> Status {
        let heard = self.last_seen_at.is_some_and(|seen| now.since(seen) < silence);
        if has_tunnel || heard { Status::Online } else { Status::Offline }
    }

    /// The first address that the server gave of itself and that a browser may be sent to; never probed.
    pub(crate) fn direct_url(&self) -> Option<&str> {
        self.hostname_candidates.iter().map(String::as_str).find(|candidate| is_browsable(candidate))
    }
}

/// `http(s)://..` or a plain `host[:port]`; a server must not put `javascript:` behind a link of ours.
fn is_browsable(candidate: &str) -> bool {
    if candidate.contains("://") {
        return Url::parse(candidate).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    }
    let (host, port) = match candidate.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.starts_with('[') => (host, port),
        _ => (candidate, "0"),
    };
    let digits = !port.is_empty() && port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    let plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
    digits && plain && !host.is_empty()
}

/// The word for a kind in the database and in replies.
pub(crate) fn kind_word(kind: ServerKind) -> &'static str {
    match kind {
        ServerKind::Phlix => "phlix",
        ServerKind::Generic => "generic",
    }
}

/// The kind of a word of the database.
pub(crate) fn kind_of(word: &str) -> Option<ServerKind> {
    match word {
        "phlix" => Some(ServerKind::Phlix),
        "generic" => Some(ServerKind::Generic),
        _ => None,
    }
}

/// A public key as the database keeps it.
pub(crate) fn key_text(key: &PublicKey) -> String {
    b64::encode(key.as_bytes())
}

/// The key of a text of the database.
pub(crate) fn key_of(text: &str) -> Option<PublicKey> {
    PublicKey::from_bytes(&b64::decode_array(text)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_browser_may_open_is_a_direct_url() {
        for good in ["http://10.0.0.2:8096", "https://tv.example/jelly", "10.0.0.2:8096", "nas.local", "[fd00::1]:80"] {
            assert!(is_browsable(good), "{good}");
        }
        for bad in [
            "",
            "javascript:alert(1)",
            "javascript://%0aalert(1)",
            "data:text/html,x",
            "ftp://a/",
            "a b",
            "a/<b>",
            "x:y",
        ] {
            assert!(!is_browsable(bad), "{bad}");
        }
    }
}
