//! `phlix agent`: beside the media server. Claims once, then holds a tunnel.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use clap::{Arg, ArgAction, ArgMatches, Command};
use phlix_server_agent::{AgentError, CancellationToken, Config, Event, OriginTls, Stage};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

use super::{Failure, Subcommand, fail};
use crate::ready::{self, AgentReady};
use crate::settings::{self, AgentSettings, Concern, Sources, add_flags};
use crate::signals::Stop;

pub(crate) const SUBCOMMAND: Subcommand = Subcommand { name: "agent", define, run };

fn define() -> Command {
    let command = Command::new("agent")
        .about("Beside the media server: claim it once, then hold a tunnel to the hub")
        .arg(
            Arg::new("insecure")
                .long("insecure")
                .action(ArgAction::SetTrue)
                .help("Allow an http:// hub that is not this machine: everything can be read on the way"),
        )
        .arg(
            Arg::new("origin-insecure")
                .long("origin-insecure")
                .action(ArgAction::SetTrue)
                .help("Accept any certificate of an https:// media server"),
        )
        .arg(
            Arg::new("claim-again")
                .long("claim-again")
                .action(ArgAction::SetTrue)
                .help("Forget the enrollment and ask for a new claim"),
        )
        .arg(
            Arg::new("ready-file").long("ready-file").value_name("FILE").help("Write the agent's state there, as JSON"),
        )
        .subcommand(add_flags(
            Command::new("status").about("Say how the agent that runs on this state folder does"),
            &[Concern::Agent],
        ));
    add_flags(command, &[Concern::Agent, Concern::Logs])
}

fn run(matches: &ArgMatches) -> Result<(), Failure> {
    if let Some(("status", matches)) = matches.subcommand() {
        return status(matches);
    }
    let settings = AgentSettings::load(&Sources::read(matches)?)?;
    crate::logs::for_agent(&settings.log)?;
    let mut config = Config::new(settings.hub, settings.origin, settings.state_dir);
    config.server_name = settings.name;
    config.transport = settings.transport;
    config.proxies = settings.proxies;
    config.ca_file = settings.ca_file;
    config.hub_key = settings.hub_key;
    config.origin_tls = match (matches.get_flag("origin-insecure"), settings.origin_ca_file) {
        (true, _) => OriginTls::Unverified,
        (false, Some(file)) => OriginTls::CaFile(file),
        (false, None) => OriginTls::System,
    };
    config.insecure = matches.get_flag("insecure");
    config.claim_again = matches.get_flag("claim-again");
    let console = Arc::new(Console::new(matches.get_one::<String>("ready-file").map(PathBuf::from)));

    // The data path is one current-thread runtime (architecture s.5).
    let runtime = super::tool_runtime()?;
    loop {
        match runtime.block_on(until_stopped(config.clone(), &console))? {
            Ok(()) => return Ok(()),
            Err(AgentError::HubNotTrusted { seen }) if config.hub_key.is_none() && std::io::stdin().is_terminal() => {
                if !confirm(&config.hub, &seen.hex())? {
                    return fail("the hub's key was not confirmed");
                }
                config.hub_key = Some(seen);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Runs the agent until it can't go on or a signal asks for its end; a second signal does not wait.
async fn until_stopped(config: Config, console: &Arc<Console>) -> std::io::Result<Result<(), AgentError>> {
    let mut stop = Stop::new()?;
    let asked = CancellationToken::new();
    let console = Arc::clone(console);
    let mut agent = pin!(phlix_server_agent::run(config, move |event| console.show(&event), asked.clone()));
    tokio::select! {
        ended = &mut agent => return Ok(ended),
        signal = stop.requested() => tracing::info!(signal, "stopping"),
    }
    asked.cancel();
    tokio::select! {
        ended = agent => Ok(ended),
        _ = stop.requested() => Ok(Ok(())),
    }
}

/// First trust without a public CA: a person compares the key once (native-tunnel s.5, issue of first trust).
fn confirm(hub: &url::Url, key: &str) -> std::io::Result<bool> {
    say!("No certificate authority vouches for {hub}.\nSHA-256 of its TLS key:\n\n  {key}\n");
    write!(
        std::io::stdout(),
        "`phlix serve` printed the same key when it started? Type yes to trust it from now on: "
    )?;
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("yes"))
}

fn status(matches: &ArgMatches) -> Result<(), Failure> {
    let folder = settings::agent_state_dir(&Sources::read(matches)?)?;
    let Some(status) = phlix_server_agent::status(&folder)? else {
        return fail(format!("no agent ever ran on {}", folder.display()));
    };
    say!("agent      {} ({})", if status.running { "running" } else { "not running" }, status.version);
    say!("hub        {}", status.hub);
    say!("origin     {} ({})", status.origin, if status.origin_up { "up" } else { "down" });
    if let Some(server) = status.server_id {
        say!("server     {server}{}", status.owner_name.map(|name| format!(", owned by {name}")).unwrap_or_default());
    }
    for name in &status.names {
        say!("name       {name}");
    }
    match &status.stage {
        Stage::Starting => say!("stage      starting"),
        Stage::Claiming { code, url, .. } => say!("stage      waits to be claimed: {code} at {url}"),
        Stage::Connecting => say!("stage      connecting"),
        Stage::Connected { edge, region, tunnel_id, transport, .. } => {
            say!("stage      connected to {edge} ({region}) over {transport}, tunnel {tunnel_id}");
        }
        Stage::Stopped => say!("stage      stopped"),
    }
    if let Some(trouble) = &status.trouble {
        say!("trouble    {trouble}");
    }
    match (status.running, &status.stage) {
        (true, Stage::Connected { .. }) => Ok(()),
        _ => fail("no tunnel"),
    }
}

/// What a person at the terminal and a script at the ready file see.
struct Console {
    ready_file: Option<PathBuf>,
    ready: Mutex<AgentReady>,
}

impl Console {
    fn new(ready_file: Option<PathBuf>) -> Self {
        Self { ready_file, ready: Mutex::new(AgentReady { pid: std::process::id(), ..AgentReady::default() }) }
    }

    fn show(&self, event: &Event) {
        let mut ready = self.ready.lock().expect("no panic while it is held");
        match event {
            Event::ClaimPending { code, url, expires_in } => {
                say!("claim code: {code}");
                say!("claim url: {url}");
                if let Ok(code) = QrCode::new(url.as_str()) {
                    say!("\n{}", code.render::<Dense1x2>().quiet_zone(true).build());
                }
                say!(
                    "Open the URL, sign in and confirm, within {} minutes. Waiting...",
                    expires_in.as_secs().div_ceil(60)
                );
                ready.claim_code = Some(code.clone());
                ready.claim_url = Some(url.to_string());
            }
            Event::Claimed { owner_name, server } => {
                say!("claimed by: {}", owner_name.as_deref().unwrap_or("an account of this hub"));
                ready.claim_code = None;
                ready.claim_url = None;
                ready.server_id = Some(server.to_string());
            }
            Event::Connected { server, edge, tunnel, transport, names } => {
                say!("connected: edge={edge} tunnel={tunnel} transport={transport}");
                for name in names {
                    say!("served at: {name}");
                }
                ready.server_id = Some(server.to_string());
                ready.connected = true;
            }
            Event::Disconnected { reason, retry_in } => {
                say!("disconnected: {reason}; next try in {:.1} s", retry_in.as_secs_f64());
                ready.connected = false;
            }
            Event::HubAway { reason } => say!("the hub can't be asked: {reason}; what is open stays open"),
            Event::HubBack => say!("the hub answers again"),
            Event::Draining { edge, reason } => say!("moving: {edge} asked to ({reason})"),
            Event::OriginDown { reason } => say!("the media server takes no connection: {reason}"),
            Event::OriginUp => say!("the media server answers"),
            Event::NotSaved { reason } => say!("not saved, will try again: {reason}"),
        }
        if let Some(path) = &self.ready_file
            && let Err(error) = ready::write(path, &*ready)
        {
            tracing::warn!(%error, "the ready file can't be written");
        }
    }
}
