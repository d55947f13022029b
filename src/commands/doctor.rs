//! `phlix doctor`: look at settings, data folder, database, keys, ports and clock, and name what to fix.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{ArgMatches, Command};
use phlix_control_plane::operator;

use super::{Failure, Subcommand, fail, hub, tool_runtime};
use crate::settings::{Concern, DatabaseChoice, HubSettings, Sources, add_flags};
use crate::sockets::{Sockets, is_free};

pub(crate) const SUBCOMMAND: Subcommand = Subcommand { name: "doctor", define, run };

fn define() -> Command {
    let command = Command::new("doctor")
        .about("Look at settings, database, keys, ports and clock, and name what to fix")
        .after_help("Exit code 0: nothing must be fixed. Run it with the settings that the hub runs with.");
    add_flags(command, &Concern::HUB)
}

/// What a look found.
enum Finding {
    Good(String),
    /// Works, and a user may still be surprised.
    Note(String),
    /// Must be fixed.
    Bad(String),
}

use Finding::{Bad, Good, Note};

fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let settings = match Sources::read(matches).and_then(|sources| HubSettings::load(&sources)) {
        Ok(settings) => settings,
        Err(errors) => {
            for error in &errors.0 {
                print("settings", &Bad(error.to_string()));
            }
            return fail("fix the settings first");
        }
    };
    crate::logs::for_tool("error")?;
    let runtime = tool_runtime()?;
    let mut looks = vec![("settings", Good("can all be read".into()))];
    looks.extend(public_names(&settings));
    looks.push(("data folder", data_folder(&settings)));
    match hub::config(&settings, settings.port) {
        Err(failure) => looks.push(("secrets", Bad(failure.0))),
        Ok(config) => {
            looks.push(("secrets", Good("are there, and readable by their owner alone".into())));
            let database = runtime.block_on(operator::check_database(&config));
            let reachable = database.is_ok();
            looks.push((
                "database",
                database.map_or_else(
                    |error| Bad(Failure::from(error).0),
                    |()| Good("answers and has this version's shape".into()),
                ),
            ));
            if reachable {
                let keys = runtime.block_on(operator::check_keys(&config));
                looks.push((
                    "keys",
                    keys.map_or_else(|error| Bad(Failure::from(error).0), |()| Good("open under HUB_SEAL_KEY".into())),
                ));
            }
        }
    }
    looks.push(("ports", ports(&settings)));
    looks.push(("clock", clock(&settings)));
    let bad = looks.iter().filter(|(_, finding)| matches!(finding, Bad(_))).count();
    for (what, finding) in &looks {
        print(what, finding);
    }
    if bad > 0 { fail(format!("{bad} to fix")) } else { Ok(()) }
}

fn print(what: &str, finding: &Finding) {
    let (mark, text) = match finding {
        Good(text) => ("ok  ", text),
        Note(text) => ("note", text),
        Bad(text) => ("FIX ", text),
    };
    say!("{mark}  {what:<12} {text}");
}

fn public_names(settings: &HubSettings) -> Vec<(&'static str, Finding)> {
    let url = settings.public_url(settings.port);
    let host = url.host_str().unwrap_or_default();
    let local = is_local(host);
    let mut looks = Vec::new();
    let domain = &settings.public_domain;
    if !local && domain.ends_with("localhost") {
        looks.push(("names", Note(format!(
            "HUB_PUBLIC_DOMAIN is {domain}, which only this machine resolves: set a domain whose wildcard points here"
        ))));
    }
    if !local && (host == domain || host.ends_with(&format!(".{domain}")) || domain.ends_with(&format!(".{host}"))) {
        looks.push(("names", Note(format!(
            "the hub ({host}) and its servers' names (*.{domain}) share a domain: use another registrable domain for \
             names, so that a home server's page is never same-site with the hub"
        ))));
    }
    if !local && url.scheme() == "http" {
        looks.push((
            "public URL",
            Note("HUB_PUBLIC_URL is http:// off this machine: browsers can't sign in there; use https://".into()),
        ));
    }
    if looks.is_empty() {
        looks.push(("names", Good(format!("hub at {url}, servers at *.{domain}"))));
    }
    looks
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost") || host == "[::1]" || host.starts_with("127.")
}

fn data_folder(settings: &HubSettings) -> Finding {
    let path = &settings.data_dir;
    let metadata = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Note(format!("{} is not there yet; the first start makes it", path.display()));
        }
        Err(error) => return Bad(format!("{}: {error}", path.display())),
        Ok(metadata) => metadata,
    };
    if !metadata.is_dir() {
        return Bad(format!("{} is no folder", path.display()));
    }
    let probe = path.join(format!(".doctor-{}", std::process::id()));
    if let Err(error) = std::fs::write(&probe, b"x").and_then(|()| std::fs::remove_file(&probe)) {
        return Bad(format!("{} can't be written: {error}", path.display()));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Note(format!("{} is open to others: run chmod 700 on it", path.display()));
    }
    Good(format!("{} can be written", path.display()))
}

fn ports(settings: &HubSettings) -> Finding {
    let ports = settings.ports();
    let free = Sockets::bind(&ports).and_then(|_| is_free("the control plane's port", settings.control_port));
    match free {
        Ok(()) => Good(format!(
            "{} (HTTP), {} (TLS, TCP and UDP), {} and {} (media servers and their raw clients) are free",
            settings.port, settings.tls_port, settings.relay_server_port, settings.relay_client_port
        )),
        Err(error) => Bad(format!("{error} (a hub that runs already has them)")),
    }
}

/// Hub time is the only time, and there is nobody to ask: what can be seen is a clock that stands before files that it
/// wrote, or before this program was released.
fn clock(settings: &HubSettings) -> Finding {
    /// 2026-01-01: older clocks were never set.
    const RELEASED: u64 = 1_767_225_600;
    let now = SystemTime::now();
    let Ok(since_epoch) = now.duration_since(UNIX_EPOCH) else {
        return Bad("stands before 1970: set it, tokens depend on it".into());
    };
    if since_epoch.as_secs() < RELEASED {
        return Bad("stands before this program was made: set it, tokens depend on it".into());
    }
    let newest = match &settings.database {
        DatabaseChoice::Embedded => {
            std::fs::metadata(settings.data_dir.join("hub.db")).and_then(|file| file.modified())
        }
        DatabaseChoice::Url(_) => return Good("is plausible".into()),
    };
    match newest.map(|written| written.duration_since(now)) {
        Ok(Ok(ahead)) if ahead.as_secs() > 60 => Bad(format!(
            "stands {} s before the database's last write: it was set back, and tokens issued since are not valid yet",
            ahead.as_secs()
        )),
        _ => Good("is plausible".into()),
    }
}
