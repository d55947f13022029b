//! What the control plane needs to be told. The program reads settings; here they arrive checked, with a default for all but
//! the secrets and the addresses.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;
use url::Url;

use crate::clock::Clock;

/// Everything that [`crate::ControlPlane::start`] needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the data lives.
    pub database: DatabaseUrl,
    /// Where this replica listens; edges front it. Port 0 lets the kernel pick.
    pub listen: SocketAddr,
    /// The hub's own origin as browsers see it; the `Origin` of cookie-authenticated writes.
    pub public_url: Url,
    /// Servers' names live under it: `<label>.<public-domain>`.
    pub public_domain: String,
    /// The port in every URL of a name; 443 is left out.
    pub names_port: u16,
    /// Where legacy servers open their tunnels, as the signpost at `/api/v1/servers/{id}/relay` says it.
    pub relay_server_port: u16,
    /// Where client apps mount legacy tunnels, as the signpost at `/client/{id}` says it.
    pub relay_client_port: u16,
    /// Signs users' access and refresh tokens (HS256).
    pub jwt_secret: JwtSecret,
    /// Seals what must be readable again: signing keys, third parties' secrets.
    pub seal_key: SealKey,
    /// What `/health` reports.
    pub version: String,
    /// May strangers make accounts?
    pub signups_enabled: bool,
    /// Logs and generated secrets.
    pub data_dir: PathBuf,
    /// How long each token lives.
    pub lives: Lives,
    /// How often, how much.
    pub limits: Limits,
    /// The cost and the concurrency of password hashing.
    pub hashing: Hashing,
    /// Wall time.
    pub clock: Clock,
}

impl Config {
    /// The settings that have no default, and defaults for the rest.
    pub fn new(database: DatabaseUrl, public_url: Url, jwt_secret: JwtSecret, seal_key: SealKey) -> Self {
        Self {
            database,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            public_url,
            public_domain: "hub.localhost".to_owned(),
            names_port: 443,
            relay_server_port: 8802,
            relay_client_port: 8803,
            jwt_secret,
            seal_key,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            signups_enabled: true,
            data_dir: PathBuf::from("data"),
            lives: Lives::default(),
            limits: Limits::default(),
            hashing: Hashing::default(),
            clock: Clock::system(),
        }
    }

    /// The hub's origin, written as browsers write it in `Origin`.
    pub fn origin(&self) -> String {
        self.public_url.origin().ascii_serialization()
    }

    /// `public_url` without a slash at its end, for building links.
    pub fn base_url(&self) -> &str {
        self.public_url.as_str().trim_end_matches('/')
    }

    /// A WebSocket's URL on another port of the hub; encrypted where the hub's own is.
    pub fn websocket_url(&self, port: u16, path: &str) -> String {
        let scheme = if self.public_url.scheme() == "https" { "wss" } else { "ws" };
        format!("{scheme}://{}:{port}{path}", self.public_url.host_str().unwrap_or_default())
    }

    /// The host and the port of the hub's origin, as in a `Host` header; the scheme's own port is left out.
    pub fn authority(&self) -> String {
        let host = self.public_url.host_str().unwrap_or_default();
        match self.public_url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}

/// How long each token lives.
#[derive(Clone, Debug)]
pub struct Lives {
    /// Access token. Upstream: 3600 s.
    pub access: Duration,
    /// Refresh token. Upstream: 604800 s.
    pub refresh: Duration,
    /// The browser's session cookie.
    pub session_cookie: Duration,
    /// Enrollment. Existing servers renew on their own 6-day clock: not below 7 days.
    pub enrollment: Duration,
    /// Tunnel ticket; worthless without the server's key.
    pub tunnel_ticket: Duration,
    /// Viewer ticket that an edge holds.
    pub viewer_ticket: Duration,
    /// Viewer ticket that a client holds itself.
    pub client_ticket: Duration,
    /// What a client app shows at the mount of a Phlix server's tunnel. Upstream: 3600 s.
    pub relay_token: Duration,
    /// The one-use code of the sign-in at a protected name.
    pub name_code: Duration,
    /// A claim code and its claim.
    pub claim: Duration,
    /// How long a delivered enrollment may be read again, after a lost reply.
    pub claim_delivery: Duration,
    /// The hub-signed list of edges that an agent holds.
    pub edge_list: Duration,
    /// An edge that is silent for this long holds no routes.
    pub edge_lease: Duration,
    /// A released name is nobody's for this long: longer than any certificate for it.
    pub name_quarantine: Duration,
    /// A server without a heartbeat for this long is offline. Heartbeats come every 60 s.
    pub server_silence: Duration,
}

impl Default for Lives {
    fn default() -> Self {
        const HOUR: u64 = 3600;
        const DAY: u64 = 24 * HOUR;
        Self {
            access: Duration::from_secs(HOUR),
            refresh: Duration::from_secs(7 * DAY),
            session_cookie: Duration::from_secs(7 * DAY),
            enrollment: Duration::from_secs(7 * DAY),
            tunnel_ticket: Duration::from_secs(DAY),
            viewer_ticket: Duration::from_secs(2 * HOUR),
            client_ticket: Duration::from_secs(600),
            relay_token: Duration::from_secs(HOUR),
            name_code: Duration::from_secs(30),
            claim: Duration::from_secs(600),
            claim_delivery: Duration::from_secs(60),
            edge_list: Duration::from_secs(DAY),
            edge_lease: Duration::from_secs(30),
            name_quarantine: Duration::from_secs(120 * DAY),
            server_silence: Duration::from_secs(180),
        }
    }
}

/// So many within such a time.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// The allowed number; one more is refused.
    pub hits: u32,
    /// Counted from the first.
    pub window: Duration,
}

impl Rate {
    /// `hits` within `seconds`.
    pub const fn new(hits: u32, seconds: u64) -> Self {
        Self { hits, window: Duration::from_secs(seconds) }
    }
}

/// How often, how much.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Failed log-ins from one address. Upstream: 5 in 900 s.
    pub login_address: Rate,
    /// Failed log-ins at one account from places it never logged in from.
    pub login_account: Rate,
    /// Sign-ups from one address. Upstream: 3 in 3600 s.
    pub signup: Rate,
    /// JWKS reads from one address. Upstream: 120 in 60 s.
    pub jwks: Rate,
    /// Claims opened from one address.
    pub claim_new: Rate,
    /// Claims opened by everybody together.
    pub claim_new_total: Rate,
    /// Wrong claim codes from one user.
    pub claim_guess_user: Rate,
    /// Wrong claim codes from one address.
    pub claim_guess_address: Rate,
    /// Wrong claim codes from everybody together.
    pub claim_guess_total: Rate,
    /// Heartbeats of one server. Upstream: 30 in 60 s.
    pub heartbeat: Rate,
    /// Relay tokens that one user asks for: an app wants one each time that it starts.
    pub relay_token: Rate,
    /// Servers of one user; 0 is unlimited.
    pub servers_per_user: u32,
    /// Names that an owner picks for one server, beside the one that the hub made: a few for family and friends, not a land
    /// grab. Each costs every edge a certificate's name.
    pub names_per_server: usize,
    /// Questions whether a label is free, from one user: the page asks while somebody types.
    pub name_check: Rate,
    /// Tries to pick or take back a name, from one user.
    pub name_try: Rate,
    /// Names that one user takes anew. Each is kept for the quarantine's time after its release, so this bounds what one
    /// account can keep from others.
    pub name_new: Rate,
    /// Times that one server takes or gives up the name that the hub makes for it: each is told to all edges.
    pub subdomain: Rate,
    /// The body of a request, in bytes.
    pub body: usize,
    /// How long an answer about a session may be reused.
    pub session_cache: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            login_address: Rate::new(5, 900),
            login_account: Rate::new(20, 900),
            signup: Rate::new(3, 3600),
            jwks: Rate::new(120, 60),
            claim_new: Rate::new(20, 600),
            claim_new_total: Rate::new(1000, 600),
            claim_guess_user: Rate::new(10, 600),
            claim_guess_address: Rate::new(20, 600),
            claim_guess_total: Rate::new(1000, 3600),
            heartbeat: Rate::new(30, 60),
            relay_token: Rate::new(120, 600),
            servers_per_user: 0,
            names_per_server: 5,
            name_check: Rate::new(240, 600),
            name_try: Rate::new(60, 600),
            name_new: Rate::new(20, 86_400),
            subdomain: Rate::new(30, 3600),
            body: 64 * 1024,
            session_cache: Duration::from_secs(2),
        }
    }
}

/// The cost and the concurrency of password hashing.
#[derive(Clone, Copy, Debug)]
pub struct Hashing {
    /// Memory per hash, in KiB.
    pub memory_kib: u32,
    /// Passes over that memory.
    pub passes: u32,
    /// Hashes at once. One costs about 0.1 s of a core: half of the cores stay free for everything else.
    pub concurrency: usize,
    /// Requests that may wait for their turn; the next is told to come back.
    pub queue: usize,
}

impl Default for Hashing {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // 19 MiB and two passes: the first of the parameter sets that OWASP recommends for Argon2id.
        Self { memory_kib: 19_456, passes: 2, concurrency: (cores / 2).max(1), queue: 32 }
    }
}

/// Signs users' tokens. Silent in logs.
#[derive(Clone)]
pub struct JwtSecret(Vec<u8>);

impl JwtSecret {
    /// At least 32 bytes, as HS256 wants.
    pub fn new(secret: impl Into<Vec<u8>>) -> Result<Self, ConfigError> {
        let secret = secret.into();
        if secret.len() < 32 {
            return Err(ConfigError::ShortJwtSecret);
        }
        Ok(Self(secret))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for JwtSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JwtSecret(..)")
    }
}

/// The master key under which secrets are sealed at rest. Silent in logs.
#[derive(Clone)]
pub struct SealKey([u8; 32]);

impl SealKey {
    /// 32 random bytes.
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(..)")
    }
}

/// Which of the two databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Embedded; one file.
    Sqlite,
    /// MySQL 8, MariaDB 10.6 or newer, or what speaks their protocol.
    Mysql,
}

/// Where the data lives: `sqlite://path` or `mysql://user:password@host:port/name`. Silent in logs, for its password.
#[derive(Clone)]
pub struct DatabaseUrl {
    engine: Engine,
    text: String,
}

impl DatabaseUrl {
    /// Which engine it names.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The database's file, for SQLite.
    pub fn sqlite_path(&self) -> Option<PathBuf> {
        let path = self.text.strip_prefix("sqlite://")?;
        Some(PathBuf::from(path.split('?').next().unwrap_or(path)))
    }
}

impl FromStr for DatabaseUrl {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let (scheme, rest) = text.split_once("://").ok_or(ConfigError::DatabaseUrl)?;
        match scheme {
            "sqlite" if rest.is_empty() || rest.contains(":memory:") => Err(ConfigError::DatabaseUrl),
            "sqlite" => Ok(Self { engine: Engine::Sqlite, text: text.to_owned() }),
            "mysql" | "mariadb" => {
                let url = Url::parse(text).map_err(|_| ConfigError::DatabaseUrl)?;
                if url.path().trim_start_matches('/').is_empty() {
                    return Err(ConfigError::DatabaseName);
                }
                Ok(Self { engine: Engine::Mysql, text: text.to_owned() })
            }
            _ => Err(ConfigError::DatabaseUrl),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({:?})", self.engine)
    }
}

/// A setting that can't be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// See [`DatabaseUrl`].
    #[error("the database's URL must be sqlite://path or mysql://user:password@host:port/name")]
    DatabaseUrl,
    /// MySQL without a database.
    #[error("the mysql:// URL names no database")]
    DatabaseName,
    /// See [`JwtSecret`].
    #[error("the JWT secret must have 32 bytes or more")]
    ShortJwtSecret,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_silent() {
        let url: DatabaseUrl = "mysql://me:hunter2@db/hub".parse().unwrap();
        let config = Config::new(
            url,
            Url::parse("https://hub.example/").unwrap(),
            JwtSecret::new(*b"0123456789abcdef0123456789abcdef").unwrap(),
            SealKey::new([7; 32]),
        );
        let shown = format!("{config:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("0123456789") && !shown.contains("7, 7"), "{shown}");
    }

    #[test]
    fn urls_that_name_no_database_are_refused() {
        for bad in ["", "hub.db", "postgres://x/y", "mysql://me@db", "mysql://me@db/", "sqlite://", "sqlite://:memory:"]
        {
            assert!(bad.parse::<DatabaseUrl>().is_err(), "{bad}");
        }
    }
}
