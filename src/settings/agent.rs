//! Settings of `phlix agent`.

use std::path::PathBuf;

use phlix_server_agent::{Origin, Proxies, SpkiPin, Transport};
use url::Url;

use super::{SettingError, SettingErrors, Sources, keep};

/// What the agent needs to know.
#[derive(Debug, Clone)]
pub(crate) struct AgentSettings {
    pub hub: Url,
    pub origin: Origin,
    pub state_dir: PathBuf,
    pub name: String,
    pub transport: Transport,
    pub proxies: Proxies,
    pub ca_file: Option<PathBuf>,
    pub hub_key: Option<SpkiPin>,
    pub origin_ca_file: Option<PathBuf>,
    pub log: String,
}

impl AgentSettings {
    /// Reads and checks all of them.
    pub(crate) fn load(sources: &Sources) -> Result<Self, SettingErrors> {
        let mut errors = Vec::new();
        let no_hub = matches!(sources.find("PHLIX_HUB_URL"), Ok(None));
        let hub: Option<Url> = keep(&mut errors, sources.parse_given("PHLIX_HUB_URL")).flatten();
        if no_hub {
            errors.push(SettingError::Missing { name: "PHLIX_HUB_URL", hint: "give --hub https://hub.example" });
        }
        let missing = matches!(sources.find("PHLIX_ORIGIN"), Ok(None));
        let origin: Option<Origin> = keep(&mut errors, sources.parse_given("PHLIX_ORIGIN")).flatten();
        if missing {
            let hint = "give --to http://127.0.0.1:8096, the address of your media server";
            errors.push(SettingError::Missing { name: "PHLIX_ORIGIN", hint });
        }
        let path = |errors: &mut Vec<SettingError>, name| {
            keep(errors, sources.find(name)).flatten().map(|found| PathBuf::from(found.value))
        };
        let state_dir = keep(&mut errors, state_dir(sources));
        let name = keep(&mut errors, sources.find("PHLIX_NAME")).flatten().map_or_else(host_name, |found| found.value);
        let transport = keep(&mut errors, sources.parse::<Transport>("PHLIX_TRANSPORT")).unwrap_or_default();
        // As curl does it: small letters first.
        let proxy = sources.environment(&["https_proxy", "HTTPS_PROXY"]);
        let proxies = Proxies::parse(proxy, sources.environment(&["no_proxy", "NO_PROXY"]));
        let proxies = proxies.unwrap_or_else(|error| {
            errors.push(SettingError::Invalid {
                name: "HTTPS_PROXY",
                from: "environment".into(),
                why: error.to_string(),
            });
            Proxies::default()
        });
        let ca_file = path(&mut errors, "PHLIX_CA_FILE");
        let origin_ca_file = path(&mut errors, "PHLIX_ORIGIN_CA_FILE");
        let hub_key: Option<SpkiPin> = keep(&mut errors, sources.parse_given("PHLIX_HUB_KEY")).flatten();
        let log = keep(&mut errors, sources.text("HUB_LOG")).unwrap_or_default();
        match (hub, origin, state_dir) {
            (Some(hub), Some(origin), Some(state_dir)) if errors.is_empty() => {
                Ok(Self { hub, origin, state_dir, name, transport, proxies, ca_file, hub_key, origin_ca_file, log })
            }
            _ => Err(SettingErrors(errors)),
        }
    }
}

/// The state folder alone: all that `agent status` needs.
pub(crate) fn state_dir(sources: &Sources) -> Result<PathBuf, SettingError> {
    if let Some(found) = sources.find("PHLIX_STATE_DIR")? {
        return Ok(PathBuf::from(found.value));
    }
    if let Some(state) = std::env::var_os("XDG_STATE_HOME").filter(|value| !value.is_empty()) {
        return Ok(PathBuf::from(state).join("phlix-agent"));
    }
    let home = std::env::var_os("HOME").filter(|value| !value.is_empty());
    home.map(|home| PathBuf::from(home).join(".local/state/phlix-agent")).ok_or(SettingError::Missing {
        name: "PHLIX_STATE_DIR",
        hint: "there is no HOME to keep the agent's key in: give --state FOLDER",
    })
}

/// This machine's name, for people.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|name| name.trim().chars().filter(|c| !c.is_control()).take(64).collect::<String>())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "media server".to_owned())
}
