//! Settings of `phlix serve` and the operator's tools that work on its data.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use url::Url;

use super::{SettingError, SettingErrors, Sources, keep};
use crate::sockets::Ports;

/// How log lines look on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Json,
    Pretty,
    /// Pretty on a terminal, else JSON.
    Auto,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "pretty" => Ok(Self::Pretty),
            "auto" => Ok(Self::Auto),
            _ => Err("must be json, pretty or auto".into()),
        }
    }
}

/// On or off, in the spellings that people use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Switch(bool);

impl FromStr for Switch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "on" | "yes" => Ok(Self(true)),
            "0" | "false" | "off" | "no" => Ok(Self(false)),
            _ => Err("must be true or false".into()),
        }
    }
}

/// Which database, before it is opened. The URL may hold a password: no `Debug`.
#[derive(Clone)]
pub(crate) enum DatabaseChoice {
    /// The embedded one in the data folder.
    Embedded,
    /// What `HUB_DATABASE_URL` or `HUB_DB_*` say.
    Url(String),
}

/// A comma-separated list of addresses and networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Networks(pub Vec<ipnet::IpNet>);

impl FromStr for Networks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split([',', ' '])
            .filter(|part| !part.is_empty())
            .map(|part| {
                part.parse::<ipnet::IpNet>()
                    .or_else(|_| part.parse::<IpAddr>().map(ipnet::IpNet::from))
                    .map_err(|_| format!("`{part}` is no address and no network such as 10.0.0.0/8"))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// How existing media servers are served.
#[derive(Debug, Clone)]
pub(crate) struct RelaySettings {
    pub tls_only: bool,
    /// Chain and key, PEM files; `None`: those of the TLS port.
    pub certificate: Option<(PathBuf, PathBuf)>,
    pub drain_grace: Duration,
    pub connects: u32,
    pub connects_window: Duration,
    /// Connections of one address to the port of raw clients, per window.
    pub mounts: u32,
    pub mounts_window: Duration,
    /// Requests of one user to media servers, per window; 0: no limit.
    pub proxy: u32,
    pub proxy_window: Duration,
}

impl RelaySettings {
    fn load(sources: &Sources, errors: &mut Vec<SettingError>) -> Option<Self> {
        let e = errors;
        let tls_only = keep(e, sources.parse::<Switch>("HUB_RELAY_TLS")).map(|switch| switch.0);
        let certificate = keep(e, relay_certificate(sources));
        let drain_grace = keep(e, sources.parse::<f64>("HUB_RELAY_RECONNECT_DRAIN_GRACE"));
        if drain_grace.is_some_and(|seconds| seconds.is_nan() || seconds > 3600.0) {
            e.push(sources.invalid("HUB_RELAY_RECONNECT_DRAIN_GRACE", "must be 3600 seconds or less"));
        }
        let connects = keep(e, sources.number("PHLIX_HUB_RATELIMIT_RELAY_CONNECT_MAX", 1..=1_000_000));
        let window = keep(e, sources.number("PHLIX_HUB_RATELIMIT_RELAY_CONNECT_WINDOW", 1..=86_400));
        let mounts = keep(e, sources.number("PHLIX_HUB_RATELIMIT_RELAY_CLIENT_MAX", 1..=1_000_000));
        let mounts_window = keep(e, sources.number("PHLIX_HUB_RATELIMIT_RELAY_CLIENT_WINDOW", 1..=86_400));
        let proxy = keep(e, sources.number("PHLIX_HUB_RATELIMIT_PROXY_MAX", 0..=1_000_000));
        let proxy_window = keep(e, sources.number("PHLIX_HUB_RATELIMIT_PROXY_WINDOW", 1..=86_400));
        Some(Self {
            tls_only: tls_only?,
            certificate: certificate?,
            drain_grace: Duration::try_from_secs_f64(drain_grace?).unwrap_or_default(),
            connects: u32::try_from(connects?).unwrap_or(u32::MAX),
            connects_window: Duration::from_secs(window?),
            mounts: u32::try_from(mounts?).unwrap_or(u32::MAX),
            mounts_window: Duration::from_secs(mounts_window?),
            proxy: u32::try_from(proxy?).unwrap_or(u32::MAX),
            proxy_window: Duration::from_secs(proxy_window?),
        })
    }
}

/// What the hub needs to know.
#[derive(Clone)]
pub(crate) struct HubSettings {
    pub host: IpAddr,
    pub port: u16,
    pub tls_port: u16,
    pub control_port: u16,
    pub metrics_port: u16,
    pub relay_server_port: u16,
    pub relay_client_port: u16,
    pub trusted_proxies: Networks,
    pub behind_proxy: bool,
    /// `None`: made of the bound port.
    pub public_url: Option<Url>,
    pub public_domain: String,
    /// `None`: the bound TLS port.
    pub names_port: Option<u16>,
    pub addresses: Vec<String>,
    pub data_dir: PathBuf,
    pub database: DatabaseChoice,
    /// As given; checked where they are used, and generated by `serve` where absent.
    pub jwt_secret: Option<String>,
    pub seal_key: Option<String>,
    pub access_ttl: Duration,
    pub refresh_ttl: Duration,
    pub signups_enabled: bool,
    pub max_servers_per_user: u32,
    pub region: String,
    pub drain: Duration,
    pub plain_http: bool,
    pub relay: RelaySettings,
    pub log_format: LogFormat,
    pub log: String,
    pub relay_log: Option<PathBuf>,
}

impl HubSettings {
    /// Reads and checks all of them.
    pub(crate) fn load(sources: &Sources) -> Result<Self, SettingErrors> {
        let mut errors = Vec::new();
        let e = &mut errors;
        let host = keep(e, sources.parse::<IpAddr>("HUB_HOST"));
        let port = |e: &mut Vec<SettingError>, name| keep(e, sources.parse::<u16>(name));
        let (http, tls) = (port(e, "HUB_PORT"), port(e, "HUB_TLS_PORT"));
        let control = keep(e, sources.parse_given::<u16>("HUB_CONTROL_PORT")).map(Option::unwrap_or_default);
        let metrics = port(e, "HUB_METRICS_PORT");
        let (relay_server, relay_client) = (port(e, "HUB_RELAY_SERVER_PORT"), port(e, "HUB_RELAY_CLIENT_PORT"));
        let trusted_proxies = keep(e, sources.parse::<Networks>("TRUSTED_PROXIES"));
        let behind_proxy = keep(e, sources.parse::<Switch>("HUB_BEHIND_PROXY")).map(|switch| switch.0);
        if behind_proxy == Some(true) && trusted_proxies.as_ref().is_some_and(|networks| networks.0.is_empty()) {
            e.push(
                sources.invalid("HUB_BEHIND_PROXY", "needs TRUSTED_PROXIES: the proxy must be known to be believed"),
            );
        }
        let public_url = keep(e, public_url(sources));
        let public_domain = keep(e, public_domain(sources));
        let names_port = keep(e, sources.parse_given::<u16>("HUB_NAMES_PORT"));
        let addresses = keep(e, sources.text("HUB_ADDRESSES"))
            .map(|text| text.split([',', ' ']).filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>());
        let data_dir = keep(e, sources.text("HUB_DATA_DIR")).map(PathBuf::from);
        let database = keep(e, database(sources));
        let jwt_secret = keep(e, sources.find("HUB_JWT_SECRET")).map(|found| found.map(|found| found.value));
        let seal_key = keep(e, sources.find("HUB_SEAL_KEY")).map(|found| found.map(|found| found.value));
        let access_ttl = keep(e, sources.number("HUB_JWT_ACCESS_TTL", 300..=86_400)).map(Duration::from_secs);
        let refresh_ttl = keep(e, sources.number("HUB_JWT_REFRESH_TTL", 3600..=2_592_000)).map(Duration::from_secs);
        let signups_enabled = keep(e, sources.parse::<Switch>("HUB_SIGNUPS_ENABLED")).map(|switch| switch.0);
        let max_servers = keep(e, sources.parse::<u32>("HUB_MAX_SERVERS_PER_USER"));
        let region = keep(e, sources.text("HUB_REGION"));
        let drain = keep(e, sources.number("HUB_DRAIN_SECONDS", 0..=3600)).map(Duration::from_secs);
        let plain_http = keep(e, sources.parse::<Switch>("HUB_PLAIN_HTTP")).map(|switch| switch.0);
        let relay = RelaySettings::load(sources, e);
        if keep(e, sources.parse::<u16>("HUB_WORKERS")).is_some_and(|workers| workers != 1) {
            e.push(sources.invalid("HUB_WORKERS", "the edge runs one shard so far: set 1 or leave it out"));
        }
        let log_format = keep(e, sources.parse::<LogFormat>("HUB_LOG_FORMAT"));
        let log = keep(e, sources.text("HUB_LOG"));
        let relay_log = keep(e, sources.find("HUB_WORKERMAN_LOG"));
        (|| {
            Some(Self {
                host: host?,
                port: http?,
                tls_port: tls?,
                control_port: control?,
                metrics_port: metrics?,
                relay_server_port: relay_server?,
                relay_client_port: relay_client?,
                trusted_proxies: trusted_proxies?,
                behind_proxy: behind_proxy?,
                public_url: public_url?,
                public_domain: public_domain?,
                names_port: names_port?,
                addresses: addresses?,
                data_dir: data_dir?,
                database: database?,
                jwt_secret: jwt_secret?,
                seal_key: seal_key?,
                access_ttl: access_ttl?,
                refresh_ttl: refresh_ttl?,
                signups_enabled: signups_enabled?,
                max_servers_per_user: max_servers?,
                region: region?,
                drain: drain?,
                plain_http: plain_http?,
                relay: relay?,
                log_format: log_format?,
                log: log?,
                relay_log: relay_log?.map(|found| PathBuf::from(found.value)),
            })
        })()
        .filter(|_| errors.is_empty())
        .ok_or(SettingErrors(errors))
    }

    /// The ports that are asked for.
    pub(crate) fn ports(&self) -> Ports {
        Ports {
            host: self.host,
            http: self.port,
            tls: self.tls_port,
            metrics: self.metrics_port,
            relay_server: self.relay_server_port,
            relay_client: self.relay_client_port,
        }
    }

    /// The public URL, given the HTTP port that was bound.
    pub(crate) fn public_url(&self, bound_port: u16) -> Url {
        self.public_url.clone().unwrap_or_else(|| {
            Url::parse(&format!("http://localhost:{bound_port}/")).expect("a number makes a well-formed URL")
        })
    }
}

fn public_url(sources: &Sources) -> Result<Option<Url>, SettingError> {
    let Some(url) = sources.parse_given::<Url>("HUB_PUBLIC_URL")? else { return Ok(None) };
    let plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || !plain {
        return Err(
            sources.invalid("HUB_PUBLIC_URL", "must be scheme, host and port alone, such as https://hub.example")
        );
    }
    Ok(Some(url))
}

fn public_domain(sources: &Sources) -> Result<String, SettingError> {
    let text = sources.text("HUB_PUBLIC_DOMAIN")?;
    let domain: phlix_protocol::hostname::Hostname =
        text.parse().map_err(|error| sources.invalid("HUB_PUBLIC_DOMAIN", format!("`{text}`: {error}")))?;
    if !domain.as_str().contains('.') {
        return Err(sources.invalid("HUB_PUBLIC_DOMAIN", "needs two labels or more, such as hub.example"));
    }
    Ok(domain.as_str().to_owned())
}

fn relay_certificate(sources: &Sources) -> Result<Option<(PathBuf, PathBuf)>, SettingError> {
    let path = |name| Ok(sources.find(name)?.map(|found| PathBuf::from(found.value)));
    match (path("HUB_RELAY_TLS_CERT")?, path("HUB_RELAY_TLS_KEY")?) {
        (Some(chain), Some(key)) => Ok(Some((chain, key))),
        (None, None) => Ok(None),
        _ => {
            Err(SettingError::Conflict("HUB_RELAY_TLS_CERT and HUB_RELAY_TLS_KEY go together: set both or none".into()))
        }
    }
}

fn database(sources: &Sources) -> Result<DatabaseChoice, SettingError> {
    const PARTS: [&str; 5] = ["HUB_DB_HOST", "HUB_DB_PORT", "HUB_DB_USER", "HUB_DB_PASSWORD", "HUB_DB_NAME"];
    let url = sources.find("HUB_DATABASE_URL")?;
    let mut given = None;
    for part in PARTS {
        if sources.find(part)?.is_some() {
            given = Some(part);
        }
    }
    match (url, given) {
        (Some(_), Some(part)) => Err(SettingError::Conflict(format!(
            "HUB_DATABASE_URL and {part} are both set: name the database by URL or by parts, not both"
        ))),
        (Some(found), None) => Ok(DatabaseChoice::Url(found.value)),
        (None, None) => Ok(DatabaseChoice::Embedded),
        (None, Some(_)) => {
            let mut url = Url::parse("mysql://localhost/").expect("a well-formed constant");
            let port: u16 = sources.parse("HUB_DB_PORT")?;
            let host = sources.text("HUB_DB_HOST")?;
            url.set_host(Some(&host)).map_err(|error| sources.invalid("HUB_DB_HOST", error.to_string()))?;
            let bad = |_| sources.invalid("HUB_DB_HOST", "takes no user or port");
            url.set_port(Some(port)).map_err(bad)?;
            url.set_username(&sources.text("HUB_DB_USER")?).map_err(bad)?;
            let password = sources.text("HUB_DB_PASSWORD")?;
            url.set_password((!password.is_empty()).then_some(password.as_str())).map_err(bad)?;
            url.set_path(&sources.text("HUB_DB_NAME")?);
            Ok(DatabaseChoice::Url(url.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sources;
    use super::*;

    fn errors(env: &[(&str, &str)]) -> String {
        HubSettings::load(&sources(env, "")).map(|_| ()).expect_err("refused").to_string()
    }

    #[test]
    fn no_settings_at_all_are_enough() {
        let settings = HubSettings::load(&sources(&[], "")).expect("defaults are good");
        assert_eq!((settings.port, settings.tls_port), (8800, 8443));
        assert_eq!(settings.public_url(8800).as_str(), "http://localhost:8800/");
        assert!(matches!(settings.database, DatabaseChoice::Embedded));
    }

    #[test]
    fn any_part_of_mysql_selects_mysql_and_is_escaped() {
        let env = [("HUB_DB_HOST", "db.example"), ("HUB_DB_PASSWORD", "p@ss/w:rd")];
        let settings = HubSettings::load(&sources(&env, "")).expect("good");
        let DatabaseChoice::Url(url) = settings.database else { panic!("MySQL was meant") };
        assert_eq!(url, "mysql://phlix_hub:p%40ss%2Fw%3Ard@db.example:3306/phlix_hub");
    }

    #[test]
    fn a_hub_behind_a_proxy_knows_which() {
        assert!(errors(&[("HUB_BEHIND_PROXY", "on")]).contains("TRUSTED_PROXIES"));
        let env = [("HUB_BEHIND_PROXY", "on"), ("TRUSTED_PROXIES", "10.0.0.1")];
        assert!(HubSettings::load(&sources(&env, "")).expect("good").behind_proxy);
    }

    #[test]
    fn media_servers_are_served_as_upstreams_settings_say() {
        let relay = |env: &[(&str, &str)]| HubSettings::load(&sources(env, "")).expect("good").relay;
        let usual = relay(&[]);
        assert_eq!((usual.tls_only, usual.drain_grace, usual.connects), (false, Duration::from_secs(5), 10));
        assert_eq!(relay(&[("HUB_RELAY_RECONNECT_DRAIN_GRACE", "-1")]).drain_grace, Duration::ZERO);
        assert_eq!(relay(&[("HUB_RELAY_RECONNECT_DRAIN_GRACE", "0.5")]).drain_grace, Duration::from_millis(500));
        assert!(relay(&[("HUB_RELAY_TLS", "true")]).tls_only);
        assert!(errors(&[("HUB_RELAY_TLS_CERT", "a.pem")]).contains("HUB_RELAY_TLS_KEY"));
        assert!(errors(&[("HUB_RELAY_RECONNECT_DRAIN_GRACE", "nan")]).contains("DRAIN_GRACE"));
    }

    #[test]
    fn a_database_by_url_and_by_parts_is_refused() {
        let text = errors(&[("HUB_DATABASE_URL", "sqlite://x.db"), ("HUB_DB_NAME", "hub")]);
        assert!(text.contains("HUB_DATABASE_URL and HUB_DB_NAME"), "{text}");
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let text = errors(&[
            ("HUB_PORT", "99999"),
            ("HUB_PUBLIC_URL", "https://hub.example/path"),
            ("HUB_PUBLIC_DOMAIN", "nodots"),
            ("TRUSTED_PROXIES", "10.0.0.0/8, nonsense"),
            ("HUB_JWT_ACCESS_TTL", "5"),
            ("HUB_WORKERS", "4"),
        ]);
        for name in
            ["HUB_PORT", "HUB_PUBLIC_URL", "HUB_PUBLIC_DOMAIN", "TRUSTED_PROXIES", "HUB_JWT_ACCESS_TTL", "HUB_WORKERS"]
        {
            assert!(text.contains(name), "{name} in {text}");
        }
    }
}
