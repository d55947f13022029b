//! What an agent is told: its hub, its origin, its folder, and numbers with their reasons.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use phlix_certs::pin::SpkiPin;
use url::Url;

use crate::proxy::Proxies;

/// Everything that an agent is told. Fields without a choice are arguments of [`Config::new`].
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the hub is, as the operator reaches it.
    pub hub: Url,
    /// What stands behind this agent. It connects to nothing else, whatever an edge asks.
    pub origin: Origin,
    /// How an `https` origin is verified.
    pub origin_tls: OriginTls,
    /// Folder of key, enrollment and status.
    pub state_dir: PathBuf,
    /// The name that the claiming user sees.
    pub server_name: String,
    /// Certificates (PEM) that the hub and edges without a pin are verified with, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// The key of the hub's TLS certificate, as a person confirmed it. Kept in the folder once it has worked.
    pub hub_key: Option<SpkiPin>,
    /// Speak plain HTTP to a hub that is not on this machine.
    pub insecure: bool,
    /// Forget the enrollment in the folder and ask for a new claim.
    pub claim_again: bool,
    /// By which transport edges are dialled.
    pub transport: Transport,
    /// Through whom the hub and, over WebSocket, edges are reached.
    pub proxies: Proxies,
    pub timings: Timings,
    pub limits: Limits,
}

impl Config {
    /// The settings that nobody has to think about.
    pub fn new(hub: Url, origin: Origin, state_dir: PathBuf) -> Self {
        Self {
            hub,
            origin,
            origin_tls: OriginTls::default(),
            state_dir,
            server_name: "Media server".into(),
            ca_file: None,
            hub_key: None,
            insecure: false,
            claim_again: false,
            transport: Transport::Auto,
            proxies: Proxies::default(),
            timings: Timings::default(),
            limits: Limits::default(),
        }
    }
}

/// Which transports may be tried. `Auto` takes the one that connects first, and QUIC where both do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transport {
    #[default]
    Auto,
    Quic,
    WebSocket,
}

/// The text names no transport of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown transport: expected auto, quic or websocket")]
pub struct UnknownTransport;

impl FromStr for Transport {
    type Err = UnknownTransport;

    fn from_str(text: &str) -> Result<Self, UnknownTransport> {
        match text {
            "auto" => Ok(Self::Auto),
            "quic" => Ok(Self::Quic),
            "websocket" => Ok(Self::WebSocket),
            _ => Err(UnknownTransport),
        }
    }
}

/// The media server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Http { host: String, port: u16 },
    Https { host: String, port: u16 },
    Unix(PathBuf),
}

/// The text is no origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an origin: expected http://host:port, https://host:port or unix:///path/to/socket, without a path behind the port"
)]
pub struct InvalidOrigin;

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        if let Some(path) = text.strip_prefix("unix://") {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(Self::Unix(path)) } else { Err(InvalidOrigin) };
        }
        let url = Url::parse(text).map_err(|_| InvalidOrigin)?;
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
            && url.path() == "/";
        let host = url.host_str().filter(|_| plain).ok_or(InvalidOrigin)?;
        // Connecting and TLS want an IPv6 address without its brackets.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port_or_known_default().ok_or(InvalidOrigin)?;
        match url.scheme() {
            "http" => Ok(Self::Http { host, port }),
            "https" => Ok(Self::Https { host, port }),
            _ => Err(InvalidOrigin),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bracketed = |host: &str| if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        match self {
            Self::Http { host, port } => write!(f, "http://{}:{port}", bracketed(host)),
            Self::Https { host, port } => write!(f, "https://{}:{port}", bracketed(host)),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// How an `https` origin is verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum OriginTls {
    /// With the system's certificates, and with those of the file if one is given.
    #[default]
    System,
    CaFile(PathBuf),
    /// Not at all: for a self-signed origin beside the agent, by the owner's explicit choice.
    Unverified,
}

/// How long things may take.
#[derive(Debug, Clone)]
pub struct Timings {
    /// Between two looks at a pending claim (upstream-api s.7.1).
    pub claim_poll: Duration,
    /// One call to the hub.
    pub hub_call: Duration,
    pub heartbeat: Duration,
    /// One address of an edge, until TLS is done and, over WebSocket, its upgrade. QUIC sends its first packet again after 1, 3 and 7 s.
    pub dial: Duration,
    /// From `hello` to `welcome` (native-tunnel s.2).
    pub handshake: Duration,
    pub presence: Duration,
    pub report: Duration,
    /// Bytes are outstanding and nothing was acknowledged: the path is dead (native-tunnel s.1).
    pub dead_path: Duration,
    /// An edge opens a stream and does not say what it wants.
    pub stream_header: Duration,
    /// A connection to the origin, its TLS included.
    pub origin_connect: Duration,
    /// An upload of which the origin takes nothing for so long makes room where many do so.
    pub stalled_upload: Duration,
    /// The first wait of the back-off lies between 0 and this, the second between 0 and twice this.
    pub backoff_base: Duration,
    pub backoff_cap: Duration,
    /// A tunnel that lived this long starts the back-off anew.
    pub settled: Duration,
    /// What is left for goodbyes when the agent is stopped.
    pub goodbye: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self {
            claim_poll: s(2),
            hub_call: s(30),
            heartbeat: s(60),
            dial: s(5),
            handshake: s(10),
            presence: s(300),
            report: s(30),
            dead_path: s(10),
            stream_header: s(10),
            origin_connect: s(5),
            stalled_upload: s(2),
            backoff_base: s(1),
            backoff_cap: s(30),
            settled: s(10),
            goodbye: s(1),
        }
    }
}

/// How much may be held.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Streams at once in one tunnel, whatever the hub's ticket allows beyond it.
    pub streams: u32,
    /// Verified viewer tickets that are remembered, about 150 bytes each.
    pub remembered_tickets: usize,
    /// Bytes of a reply of the hub. The edge list (64 KiB) is the largest.
    pub hub_reply: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { streams: 4096, remembered_tickets: 4096, hub_reply: 256 * 1024 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_read_and_shown() {
        for (text, shown) in [
            ("http://127.0.0.1:8096", "http://127.0.0.1:8096"),
            ("http://jellyfin/", "http://jellyfin:80"),
            ("https://[::1]:920", "https://[::1]:920"),
            ("unix:///run/origin.sock", "unix:///run/origin.sock"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_could_hide_something_is_no_origin() {
        for text in
            ["", "127.0.0.1:80", "ftp://a", "http://a/base", "http://u:p@a", "http://a/?q", "unix://rel", "unix:/x"]
        {
            assert_eq!(text.parse::<Origin>(), Err(InvalidOrigin), "{text}");
        }
    }
}
