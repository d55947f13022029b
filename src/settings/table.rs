//! Every setting, once: its names, its default, and the sentence that explains it. Flags, `--help`, the reading of
//! environment and file, `doctor` and the README's table all come from here.

/// Which part of the program a setting is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Concern {
    /// Where the hub listens.
    Listen,
    /// How the world sees it.
    Public,
    /// Where its data is.
    Database,
    /// Keys and secrets.
    Secrets,
    /// Accounts and tokens.
    Accounts,
    /// What the relay edge does.
    Relay,
    /// The agent at home.
    Agent,
    /// Logs.
    Logs,
}

impl Concern {
    /// All that concern the hub; what is left is the agent's.
    pub(crate) const HUB: [Self; 7] =
        [Self::Listen, Self::Public, Self::Database, Self::Secrets, Self::Accounts, Self::Relay, Self::Logs];

    /// Heading in documents.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Listen => "Listening",
            Self::Public => "Names and addresses",
            Self::Database => "Database",
            Self::Secrets => "Secrets",
            Self::Accounts => "Accounts and tokens",
            Self::Relay => "Relay",
            Self::Agent => "Agent",
            Self::Logs => "Logs",
        }
    }
}

/// One setting.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Environment variable.
    pub env: &'static str,
    /// Long flag, without the hyphens. Secrets have none (a process list would show them); their `*_FILE` has.
    pub flag: Option<&'static str>,
    /// Key in `phlix.toml`.
    pub key: &'static str,
    /// What holds when nothing is said; text for people, and the value itself where `load` parses it.
    pub default: &'static str,
    /// A secret: also readable from the file that `<env>_FILE` names.
    pub secret: bool,
    /// What it is for.
    pub concern: Concern,
    /// One sentence, with unit.
    pub help: &'static str,
}

const fn plain(
    env: &'static str,
    flag: &'static str,
    key: &'static str,
    default: &'static str,
    concern: Concern,
    help: &'static str,
) -> Setting {
    Setting { env, flag: Some(flag), key, default, secret: false, concern, help }
}

const fn secret(
    env: &'static str,
    key: &'static str,
    default: &'static str,
    concern: Concern,
    help: &'static str,
) -> Setting {
    Setting { env, flag: None, key, default, secret: true, concern, help }
}

use Concern::{Accounts, Agent, Database, Listen, Logs, Public, Relay, Secrets};

/// All settings, in the order in which documents show them.
pub(crate) static SETTINGS: &[Setting] = &[
    plain(
        "HUB_HOST",
        "host",
        "host",
        "::",
        Listen,
        "Address that every public port listens on; `::` is IPv4 and IPv6.",
    ),
    plain("HUB_PORT", "port", "port", "8800", Listen, "HTTP port; 0 lets the kernel pick, here and below."),
    plain(
        "HUB_TLS_PORT",
        "tls-port",
        "tls_port",
        "8443",
        Listen,
        "TLS port, TCP and UDP: viewers by name, and agents over QUIC.",
    ),
    plain(
        "HUB_CONTROL_PORT",
        "control-port",
        "control_port",
        "the kernel picks",
        Listen,
        "Loopback port on which `serve` keeps its control plane.",
    ),
    plain(
        "HUB_METRICS_PORT",
        "metrics-port",
        "metrics_port",
        "9809",
        Listen,
        "Loopback port of Prometheus metrics, `/health` and `/ready`.",
    ),
    plain(
        "HUB_RELAY_SERVER_PORT",
        "relay-server-port",
        "relay_server_port",
        "8802",
        Listen,
        "Port to which existing media servers open their tunnels, plain or over TLS.",
    ),
    plain(
        "HUB_RELAY_CLIENT_PORT",
        "relay-client-port",
        "relay_client_port",
        "8803",
        Listen,
        "Port at which clients open raw channels to existing media servers (`/client/<server id>`), plain or over TLS.",
    ),
    plain(
        "TRUSTED_PROXIES",
        "trusted-proxies",
        "trusted_proxies",
        "",
        Listen,
        "Addresses or networks (CIDR, by comma) of proxies in front of the hub whose `X-Forwarded-*` is believed; nobody's by default.",
    ),
    plain(
        "HUB_BEHIND_PROXY",
        "behind-proxy",
        "behind_proxy",
        "off",
        Listen,
        "`on`: a proxy of TRUSTED_PROXIES terminates TLS for agents and names too, and speaks plain HTTP to HUB_PORT; agents then come over WebSocket, to HUB_NAMES_PORT.",
    ),
    plain(
        "HUB_PUBLIC_URL",
        "public-url",
        "public_url",
        "http://localhost:<HUB_PORT>",
        Public,
        "The hub's own address as browsers see it; cookies and sign-in hold for this origin.",
    ),
    plain(
        "HUB_PUBLIC_DOMAIN",
        "public-domain",
        "public_domain",
        "hub.localhost",
        Public,
        "Servers are reached at `<name>.<this domain>`.",
    ),
    plain(
        "HUB_NAMES_PORT",
        "names-port",
        "names_port",
        "<HUB_TLS_PORT>",
        Public,
        "Port in every URL of a server's name (behind a port forward it differs from the TLS port).",
    ),
    plain(
        "HUB_ADDRESSES",
        "addresses",
        "addresses",
        "",
        Public,
        "Addresses or host names, by comma, at which agents reach this edge; by default the host of the public URL.",
    ),
    plain(
        "HUB_DATA_DIR",
        "data-dir",
        "data_dir",
        "./data",
        Database,
        "Folder of the embedded database, generated secrets, development CA and logs.",
    ),
    secret(
        "HUB_DATABASE_URL",
        "database_url",
        "sqlite://<HUB_DATA_DIR>/hub.db",
        Database,
        "`sqlite://path` or `mysql://user:password@host:port/name`.",
    ),
    plain(
        "HUB_DB_HOST",
        "db-host",
        "db_host",
        "127.0.0.1",
        Database,
        "MySQL by its parts instead of a URL; any `HUB_DB_*` selects MySQL.",
    ),
    plain("HUB_DB_PORT", "db-port", "db_port", "3306", Database, "MySQL's port."),
    plain("HUB_DB_USER", "db-user", "db_user", "phlix_hub", Database, "MySQL's user."),
    secret("HUB_DB_PASSWORD", "db_password", "", Database, "MySQL's password."),
    plain("HUB_DB_NAME", "db-name", "db_name", "phlix_hub", Database, "MySQL's database."),
    secret(
        "HUB_JWT_SECRET",
        "jwt_secret",
        "generated into HUB_DATA_DIR",
        Secrets,
        "Signs users' access and refresh tokens; 32 bytes or more.",
    ),
    secret(
        "HUB_SEAL_KEY",
        "seal_key",
        "generated into HUB_DATA_DIR",
        Secrets,
        "Seals signing keys at rest: 32 bytes as 64 hex digits or 43 characters of base64url.",
    ),
    plain(
        "HUB_JWT_ACCESS_TTL",
        "jwt-access-ttl",
        "jwt_access_ttl",
        "3600",
        Accounts,
        "Life of an access token, seconds (300 to 86400).",
    ),
    plain(
        "HUB_JWT_REFRESH_TTL",
        "jwt-refresh-ttl",
        "jwt_refresh_ttl",
        "604800",
        Accounts,
        "Life of a refresh token, seconds (3600 to 2592000).",
    ),
    plain(
        "HUB_SIGNUPS_ENABLED",
        "signups-enabled",
        "signups_enabled",
        "true",
        Accounts,
        "Whether strangers may create accounts; the first account is always possible and is the admin.",
    ),
    plain(
        "HUB_MAX_SERVERS_PER_USER",
        "max-servers-per-user",
        "max_servers_per_user",
        "0",
        Accounts,
        "Servers that one account may claim; 0 is unlimited.",
    ),
    plain("HUB_REGION", "region", "region", "home", Relay, "Name of the place where this edge stands."),
    plain("HUB_WORKERS", "workers", "workers", "1", Relay, "Data-path shards of the edge; 1 is what there is."),
    plain(
        "HUB_DRAIN_SECONDS",
        "drain-seconds",
        "drain_seconds",
        "10",
        Relay,
        "How long a stop waits for transfers that run, seconds.",
    ),
    plain(
        "HUB_PLAIN_HTTP",
        "plain-http",
        "plain_http",
        "on",
        Relay,
        "`off` closes the HTTP port for everybody but loopback and trusted proxies.",
    ),
    plain(
        "HUB_RELAY_TLS",
        "relay-tls",
        "relay_tls",
        "off",
        Relay,
        "`on`: existing media servers, and raw clients, must come over TLS. `off`: both are served, and plain is refused to a server that has used TLS.",
    ),
    plain(
        "HUB_RELAY_TLS_CERT",
        "relay-tls-cert",
        "relay_tls_cert",
        "the TLS port's certificate",
        Relay,
        "PEM file of the certificate chain that existing media servers are shown.",
    ),
    plain(
        "HUB_RELAY_TLS_KEY",
        "relay-tls-key",
        "relay_tls_key",
        "the TLS port's key",
        Relay,
        "PEM file of that certificate's private key.",
    ),
    plain(
        "HUB_RELAY_RECONNECT_DRAIN_GRACE",
        "relay-reconnect-drain-grace",
        "relay_reconnect_drain_grace",
        "5",
        Relay,
        "How long the old tunnel of a media server that came again may finish what it carries, seconds; 0 or less: it ends at once.",
    ),
    plain(
        "PHLIX_HUB_RATELIMIT_RELAY_CONNECT_MAX",
        "relay-connect-max",
        "relay_connect_max",
        "10",
        Relay,
        "Connections of one address to HUB_RELAY_SERVER_PORT, per window, that have not proved to be a media server's.",
    ),
    plain(
        "PHLIX_HUB_RATELIMIT_RELAY_CONNECT_WINDOW",
        "relay-connect-window",
        "relay_connect_window",
        "60",
        Relay,
        "That window, seconds.",
    ),
    plain(
        "PHLIX_HUB_RATELIMIT_RELAY_CLIENT_MAX",
        "relay-client-max",
        "relay_client_max",
        "30",
        Relay,
        "Connections of one address to HUB_RELAY_CLIENT_PORT, per window.",
    ),
    plain(
        "PHLIX_HUB_RATELIMIT_RELAY_CLIENT_WINDOW",
        "relay-client-window",
        "relay_client_window",
        "60",
        Relay,
        "That window, seconds.",
    ),
    plain(
        "PHLIX_HUB_RATELIMIT_PROXY_MAX",
        "proxy-max",
        "proxy_max",
        "600",
        Relay,
        "Requests of one user to existing media servers, per window; media and artwork do not count. 0: no limit.",
    ),
    plain("PHLIX_HUB_RATELIMIT_PROXY_WINDOW", "proxy-window", "proxy_window", "60", Relay, "That window, seconds."),
    plain(
        "HUB_LOG_FORMAT",
        "log-format",
        "log_format",
        "auto",
        Logs,
        "`json`, `pretty`, or `auto`: pretty on a terminal.",
    ),
    plain(
        "HUB_LOG",
        "log",
        "log",
        "info",
        Logs,
        "What is logged: a level, or directives such as `info,phlix_relay_edge=debug`.",
    ),
    plain(
        "HUB_WORKERMAN_LOG",
        "relay-log",
        "relay_log",
        "<HUB_DATA_DIR>/logs/relay.log",
        Logs,
        "Path of the relay's log.",
    ),
    plain("PHLIX_HUB_URL", "hub", "hub_url", "", Agent, "The hub's address, such as https://hub.example."),
    plain(
        "PHLIX_ORIGIN",
        "to",
        "origin",
        "",
        Agent,
        "The media server: http://127.0.0.1:8096, https://…, or unix:///path/to/socket.",
    ),
    plain(
        "PHLIX_STATE_DIR",
        "state",
        "state_dir",
        "~/.local/state/phlix-agent",
        Agent,
        "Folder of the agent's key and enrollment.",
    ),
    plain("PHLIX_NAME", "name", "name", "this machine's host name", Agent, "The server's name in the hub."),
    plain(
        "PHLIX_TRANSPORT",
        "transport",
        "transport",
        "auto",
        Agent,
        "`quic` or `websocket` alone, or `auto`: whichever connects first, QUIC 300 ms before WebSocket. `HTTPS_PROXY` and `NO_PROXY` are heeded.",
    ),
    plain(
        "PHLIX_CA_FILE",
        "ca-file",
        "ca_file",
        "the system's roots",
        Agent,
        "PEM file of the CA that signed the hub's certificate.",
    ),
    plain(
        "PHLIX_HUB_KEY",
        "hub-key",
        "hub_key",
        "",
        Agent,
        "SHA-256 of the hub's TLS key, as `phlix serve` prints it, where no CA vouches for the hub.",
    ),
    plain(
        "PHLIX_ORIGIN_CA_FILE",
        "origin-ca-file",
        "origin_ca_file",
        "the system's roots",
        Agent,
        "PEM file of the CA that signed the media server's certificate (https origins).",
    ),
];

/// The setting of this environment name.
pub(crate) fn setting(env: &str) -> &'static Setting {
    SETTINGS
        .iter()
        .find(|setting| setting.env == env)
        .expect("settings are asked for by names of the table, which a test walks through")
}
