//! What `serve` and the operator's tools share: the control plane's configuration, made of settings and secrets.

use std::path::Path;

use clap::{ArgMatches, Command};
use phlix_control_plane::{Config, ConfigError, DatabaseUrl, JwtSecret, SealKey};

use super::Failure;
use crate::secrets::{self, HubSecrets};
use crate::settings::{Concern, DatabaseChoice, HubSettings, Sources, add_flags};

/// Flags of a tool that opens the hub's database.
pub(crate) fn tool_flags(command: Command) -> Command {
    add_flags(command, &[Concern::Public, Concern::Database])
}

/// Settings and configuration for a tool that opens the hub's database; its secrets must exist already or are made as
/// `serve` would make them.
pub(crate) fn for_tool(matches: &ArgMatches) -> Result<(HubSettings, Config), Failure> {
    let settings = HubSettings::load(&Sources::read(matches)?)?;
    crate::logs::for_tool("warn")?;
    secrets::make_folder(&settings.data_dir)?;
    let config = config(&settings, settings.port)?;
    Ok((settings, config))
}

/// The control plane's configuration, given the HTTP port that is or will be bound.
pub(crate) fn config(settings: &HubSettings, http_port: u16) -> Result<Config, Failure> {
    let secrets = secrets(settings)?;
    let database = database_url(&settings.database, &settings.data_dir)?;
    let mut config = Config::new(
        database,
        settings.public_url(http_port),
        JwtSecret::new(secrets.jwt_secret)?,
        SealKey::new(secrets.seal_key),
    );
    config.public_domain = settings.public_domain.clone();
    config.names_port = settings.names_port.unwrap_or(settings.tls_port);
    config.relay_server_port = settings.relay_server_port;
    config.relay_client_port = settings.relay_client_port;
    config.version = env!("CARGO_PKG_VERSION").to_owned();
    config.signups_enabled = settings.signups_enabled;
    config.data_dir = settings.data_dir.clone();
    config.lives.access = settings.access_ttl;
    config.lives.refresh = settings.refresh_ttl;
    config.limits.servers_per_user = settings.max_servers_per_user;
    Ok(config)
}

fn secrets(settings: &HubSettings) -> Result<HubSecrets, Failure> {
    let (jwt, seal) = (settings.jwt_secret.as_deref(), settings.seal_key.as_deref());
    Ok(secrets::hub_secrets(&settings.data_dir, jwt, seal)?)
}

/// The URL as the database layer takes it.
pub(crate) fn database_url(choice: &DatabaseChoice, data_dir: &Path) -> Result<DatabaseUrl, Failure> {
    let text = match choice {
        DatabaseChoice::Embedded => format!("sqlite://{}", data_dir.join("hub.db").display()),
        DatabaseChoice::Url(url) => url.clone(),
    };
    text.parse().map_err(|error: ConfigError| Failure(format!("HUB_DATABASE_URL: {error}")))
}
