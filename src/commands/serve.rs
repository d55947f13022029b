//! `phlix serve`: everything on one machine. Control plane on a private loopback port with a runtime of its own, the core
//! edge on its own thread; they share nothing but that loopback connection (architecture s.5).

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Arg, ArgMatches, Command};
use phlix_certs::dev::DevCerts;
use phlix_certs::resolver::{Resolver, Table};
use phlix_control_plane::ControlPlane;
use phlix_protocol::hostname::Hostname;
use phlix_protocol::uplink::EdgeRole;

use super::{Failure, Subcommand, hub};
use crate::ready::{self, HubReady};
use crate::secrets;
use crate::settings::{Concern, HubSettings, Sources, add_flags};
use crate::signals::Stop;
use crate::sockets::Sockets;

pub(crate) const SUBCOMMAND: Subcommand = Subcommand { name: "serve", define, run };

fn define() -> Command {
    let command = Command::new("serve")
        .about("Run the whole hub on this machine: control plane and relay edge, embedded SQLite in ./data")
        .arg(
            Arg::new("ready-file")
                .long("ready-file")
                .value_name("FILE")
                .help("Write the bound addresses there, as JSON, when everything listens"),
        );
    add_flags(command, &Concern::HUB)
}

fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let settings = HubSettings::load(&Sources::read(matches)?)?;
    secrets::make_folder(&settings.data_dir)?;
    let _logs = crate::logs::for_service(
        &settings.log,
        settings.log_format,
        &settings.data_dir,
        settings.relay_log.as_deref(),
    )?;
    let ready_file = matches.get_one::<String>("ready-file").map(PathBuf::from);
    // The control plane uses the cores there are; the edge has its own thread and runtime.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("control plane").build()?;
    runtime.block_on(serve(settings, ready_file))
}

async fn serve(settings: HubSettings, ready_file: Option<PathBuf>) -> Result<(), Failure> {
    let mut stop = Stop::new()?;
    // What settings and secrets say is refused before a port is bound.
    let mut config = hub::config(&settings, settings.port)?;
    let (edge_id, edge_key) = secrets::edge_identity(&settings.data_dir)?;
    let relay_certs =
        settings.relay.certificate.as_ref().map(|(chain, key)| secrets::certificate(chain, key)).transpose()?;
    let sockets = Sockets::bind(&settings.ports())?;
    let (http, tls) = (sockets.http.local_addr()?, sockets.tls.local_addr()?);
    let metrics = sockets.metrics.local_addr()?;
    let (relay_server, relay_client) = (sockets.relay_server.local_addr()?, sockets.relay_client.local_addr()?);
    let public_url = settings.public_url(http.port());
    let names_port = settings.names_port.unwrap_or(tls.port());

    config.public_url = public_url.clone();
    config.names_port = names_port;
    config.relay_server_port = relay_server.port();
    config.relay_client_port = relay_client.port();
    config.listen = (Ipv4Addr::LOCALHOST, settings.control_port).into();
    let control_plane = ControlPlane::start(config).await?;
    control_plane.approve_builtin_edge(edge_id, &edge_key.public()).await?;

    let hub_host = public_url.host_str().unwrap_or("localhost").to_owned();
    let certs = DevCerts::load_or_issue(
        &settings.data_dir.join("tls"),
        &settings.public_domain,
        std::slice::from_ref(&hub_host),
        SystemTime::now(),
    )?;
    let addresses = if settings.addresses.is_empty() { vec![hub_host] } else { settings.addresses.clone() };
    let mut edge = edge(&settings, &control_plane, (edge_id, edge_key), &certs, names_port, &public_url, addresses)?;
    edge.legacy.certs =
        relay_certs.map(|key| Resolver::new(Table::new().without_sni(key.clone()).for_unknown(key)) as _);
    let edge_sockets = phlix_relay_edge::Sockets {
        http: Some(sockets.http),
        tls: sockets.tls,
        quic: sockets.quic,
        metrics: Some(sockets.metrics),
        relay_server: Some(sockets.relay_server),
        relay_client: Some(sockets.relay_client),
    };
    let edge = phlix_relay_edge::spawn_thread(edge, edge_sockets)?;

    let ready = HubReady {
        http: http.to_string(),
        tls: tls.to_string(),
        metrics: metrics.to_string(),
        relay_server: relay_server.to_string(),
        relay_client: relay_client.to_string(),
        public_url: public_url.as_str().trim_end_matches('/').to_owned(),
        public_domain: settings.public_domain.clone(),
        ca_file: certs.ca_file().display().to_string(),
        spki_sha256: certs.pin().hex(),
        pid: std::process::id(),
    };
    if let Some(path) = &ready_file {
        ready::write(path, &ready).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    }
    greet(&ready, tls);

    let signal = stop.requested().await;
    tracing::info!(signal, "stopping: what runs may finish; a second signal stops at once");
    tokio::select! {
        () = async {
            edge.shutdown().await;
            control_plane.shutdown().await;
        } => tracing::info!("stopped"),
        _ = stop.requested() => tracing::warn!("stopped at once"),
    }
    Ok(())
}

fn edge(
    settings: &HubSettings,
    control_plane: &ControlPlane,
    (id, key): (phlix_protocol::ids::EdgeId, phlix_protocol::keys::SigningKey),
    certs: &DevCerts,
    names_port: u16,
    public_url: &url::Url,
    addresses: Vec<String>,
) -> Result<phlix_relay_edge::Config, Failure> {
    let public_domain: Hostname = settings.public_domain.parse()?;
    let leaf = certs.key();
    let table = Table::new()
        .with(&settings.public_domain, leaf.clone())
        .with(&format!("*.{}", settings.public_domain), leaf.clone())
        .without_sni(leaf.clone())
        .for_unknown(leaf);
    let registry = control_plane.registry();
    Ok(phlix_relay_edge::Config {
        names: vec![settings.public_domain.clone()],
        addresses,
        hub_url: Some(public_url.as_str().parse()?),
        names_port,
        spki: Some(certs.pin().to_string()),
        trusted_proxies: settings.trusted_proxies.0.clone(),
        behind_proxy: settings.behind_proxy,
        plain_http_api: settings.plain_http,
        region: settings.region.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        timeouts: phlix_relay_edge::Timeouts { drain: settings.drain, ..Default::default() },
        more_metrics: vec![registry],
        legacy: phlix_relay_edge::Legacy {
            tls_only: settings.relay.tls_only,
            drain_grace: settings.relay.drain_grace,
            connects: settings.relay.connects,
            connects_window: settings.relay.connects_window,
            mounts: settings.relay.mounts,
            mounts_window: settings.relay.mounts_window,
            ..Default::default()
        },
        proxy: phlix_relay_edge::Proxy {
            requests: settings.relay.proxy,
            window: settings.relay.proxy_window,
            ..Default::default()
        },
        ..phlix_relay_edge::Config::new(
            id,
            key,
            EdgeRole::Core,
            format!("http://{}", control_plane.local_addr()).parse()?,
            public_domain,
            Resolver::new(table),
        )
    })
}

/// What a person sees who just typed `phlix serve`.
fn greet(ready: &HubReady, tls: SocketAddr) {
    let HubReady { public_url, public_domain, ca_file, spki_sha256, .. } = ready;
    say!(
        "\nPhlix Hub is ready: {public_url}\n\n\
         Next: open it, create the first account (it becomes the admin), and beside your media server run\n\n    \
         phlix agent --hub {public_url} --to http://127.0.0.1:8096\n\n\
         Servers are reached at https://<name>.{public_domain}:{port}/\n\
         with certificates of a development CA. To trust it, import this file into your browser:\n    {ca_file}\n\
         SHA-256 of the hub's TLS key (an agent asks for it once when it dials https without a public CA):\n    \
         {spki_sha256}\n",
        port = tls.port(),
    );
}
