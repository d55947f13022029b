//! The relay edge: viewers' requests come in, go down a tunnel to a home server, and the answers come back.
//!
//! `accept` has the sockets, `road` decides and carries, `tunnels` reaches home servers, `uplink` knows what the hub
//! knows. One way: accept -> road, tunnels; road -> tunnels, uplink; tunnels -> uplink.
//!
//! An edge runs on one current-thread runtime, and all its state belongs to it: `spawn_thread` gives it a thread of its
//! own. It holds nothing that it can't lose.

mod accept;
mod body;
mod clock;
mod config;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod limits;
mod metrics;
mod random;
mod road;
#[cfg(test)]
mod tests;
mod thread;
mod tunnels;
mod uplink;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use phlix_protocol::ids::InstanceId;
use phlix_protocol::native::close;
use phlix_protocol::uplink::{EdgeRole, Register};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::accept::admin::Admin;
use crate::accept::http::{Kind, Viewers};
use crate::accept::legacy::{Behind, Door};
use crate::accept::quic::Quic;
use crate::accept::websocket::Agents;
use crate::accept::{Stage, quic, sockets, tls};
pub use crate::config::{Config, Legacy, Limits, Proxy, Sockets, Timeouts, Windows};
use crate::limits::Gauge;
use crate::metrics::Metrics;
use crate::road::{Ports, Road};
pub use crate::thread::{EdgeHandle, spawn_thread};
use crate::tunnels::native::Tunnels;
use crate::uplink::Uplink;

/// The edge did not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket is not what it should be.
    #[error("can't listen for {what}")]
    Socket {
        /// What the socket is for.
        what: &'static str,
        #[source]
        source: io::Error,
    },
    /// TLS or QUIC can't be set up.
    #[error("can't set up TLS: {0}")]
    Tls(String),
    /// Two metrics of one name: a fault of ours.
    #[error("can't set up metrics: {0}")]
    Metrics(String),
    /// The thread or its runtime can't be made.
    #[error("can't start the edge's thread")]
    Thread(#[source] io::Error),
    /// The thread ended before it listened: a fault of ours.
    #[error("the edge's thread ended before it listened")]
    ThreadEnded,
}

/// Where an edge listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Plain HTTP.
    pub http: Option<SocketAddr>,
    /// TLS over TCP, and QUIC on the UDP port of the same number.
    pub tls: SocketAddr,
    /// Metrics and health.
    pub metrics: Option<SocketAddr>,
    /// Existing media servers.
    pub relay_server: Option<SocketAddr>,
    /// Raw clients of theirs.
    pub relay_client: Option<SocketAddr>,
}

/// A running edge. Dropping it drops everything at once; `shutdown` lets it finish first.
pub struct Edge {
    addresses: Addresses,
    stages: watch::Sender<Stage>,
    viewers: TaskTracker,
    agents: TaskTracker,
    tunnels: Arc<Tunnels>,
    endpoint: quinn::Endpoint,
    background: Vec<JoinHandle<()>>,
    drain: Duration,
}

impl Edge {
    /// Begins to serve on sockets that are bound. Registration with the control plane goes on in the background until it
    /// answers.
    ///
    /// Must be called on a current-thread runtime that is driven until `shutdown` has ended; `spawn_thread` does both.
    pub async fn start(config: Config, sockets: Sockets) -> Result<Self, StartError> {
        let listen = |what, listener| -> Result<_, StartError> {
            let taken = |source| StartError::Socket { what, source };
            let listener = sockets::tcp(listener).map_err(taken)?;
            let bound = listener.local_addr().map_err(taken)?;
            Ok((listener, bound))
        };
        let http = sockets.http.map(|listener| listen("HTTP", listener)).transpose()?;
        let admin = sockets.metrics.map(|listener| listen("metrics", listener)).transpose()?;
        // An outer edge can't be trusted with servers that verify nothing (trust s.1).
        let relay_server = sockets.relay_server.filter(|_| config.role == EdgeRole::Core);
        let relay_server = relay_server.map(|listener| listen("media servers", listener)).transpose()?;
        let relay_client = sockets.relay_client.filter(|_| config.role == EdgeRole::Core);
        let relay_client = relay_client.map(|listener| listen("raw clients", listener)).transpose()?;
        let (tls_listener, bound) = listen("TLS", sockets.tls)?;
        sockets::udp(&sockets.quic, config.windows.socket)
            .map_err(|source| StartError::Socket { what: "QUIC", source })?;
        let addresses = Addresses {
            http: http.as_ref().map(|(_, bound)| *bound),
            tls: bound,
            metrics: admin.as_ref().map(|(_, bound)| *bound),
            relay_server: relay_server.as_ref().map(|(_, bound)| *bound),
            relay_client: relay_client.as_ref().map(|(_, bound)| *bound),
        };
        let tls = tls::viewers(&config.server_certs).map_err(|error| StartError::Tls(error.to_string()))?;
        let endpoint = quic::endpoint(sockets.quic, &config.server_certs, &config.key, &config.windows)
            .map_err(|error| StartError::Tls(error.to_string()))?;

        let config = Arc::new(config);
        let metrics = Arc::new(Metrics::new().map_err(|error| StartError::Metrics(error.to_string()))?);
        let uplink = Uplink::new(&config, InstanceId::new(random::uuid()));
        let tunnels = Tunnels::new(Arc::clone(&config), Arc::clone(&uplink), Arc::clone(&metrics));
        let ports = Ports { http: addresses.http.map(|address| address.port()), tls: bound.port() };
        let road = Road::new(&config, ports, &uplink, &tunnels, &metrics);
        let live = Arc::clone(&road.live);

        let (stages, stage) = watch::channel(Stage::Running);
        let (viewer_tasks, agent_tasks) = (TaskTracker::new(), TaskTracker::new());
        let unproven = Gauge::new(config.limits.unproven, config.limits.unproven_per_address);
        let agents = Arc::new(Agents {
            tunnels: Arc::clone(&tunnels),
            config: Arc::clone(&config),
            metrics: Arc::clone(&metrics),
            unproven: unproven.clone(),
            tracker: agent_tasks.clone(),
            stages: stage.clone(),
        });
        let viewers = Arc::new(Viewers {
            road: Arc::clone(&road),
            metrics: Arc::clone(&metrics),
            gauge: Gauge::new(config.limits.connections, config.limits.connections_per_address),
            tracker: viewer_tasks.clone(),
            stages: stage.clone(),
            tls,
            next: AtomicU64::new(1),
            agents,
        });
        let quic = Arc::new(Quic {
            viewers: Arc::clone(&viewers),
            tunnels: Arc::clone(&tunnels),
            metrics: Arc::clone(&metrics),
            limits: config.limits.clone(),
            stream_window: config.windows.stream_receive,
            timeouts: config.timeouts.clone(),
            unproven: unproven.clone(),
            tracker: agent_tasks.clone(),
            stages: stage.clone(),
        });
        for (listener, behind) in
            [(relay_server, Behind::Servers(Arc::clone(&tunnels))), (relay_client, Behind::Clients(Arc::clone(&road)))]
        {
            let Some((listener, _)) = listener else { continue };
            let (config, metrics) = (Arc::clone(&config), Arc::clone(&metrics));
            let door = Door::new(behind, config, metrics, unproven.clone(), agent_tasks.clone(), stage.clone())
                .map_err(|error| StartError::Tls(error.to_string()))?;
            agent_tasks.spawn(Arc::new(door).listen(listener));
        }
        if let Some((listener, _)) = http {
            viewer_tasks.spawn(Arc::clone(&viewers).listen(listener, Kind::Plain));
        }
        viewer_tasks.spawn(viewers.listen(tls_listener, Kind::Tls));
        agent_tasks.spawn(quic.listen(endpoint.clone()));
        let mut background = Vec::new();
        if let Some((listener, _)) = admin {
            let more = config.more_metrics.clone();
            let admin = Admin { metrics, road, more, stages: stage };
            background.push(tokio::spawn(Arc::new(admin).listen(listener)));
        }
        background.extend([
            tokio::spawn(Arc::clone(&tunnels).watch_legacy()),
            tokio::spawn(Arc::clone(&live).watch(Arc::clone(&uplink), config.timeouts.viewer_stall)),
            tokio::spawn(uplink.run(registration(&config, bound.port()))),
        ]);
        tracing::info!(edge.id = %config.id, http = addresses.http.map(tracing::field::display),
            tls = %addresses.tls, relay_server = addresses.relay_server.map(tracing::field::display),
            relay_client = addresses.relay_client.map(tracing::field::display), metrics = addresses.metrics.map(tracing::field::display),
            "edge listens");
        Ok(Self {
            addresses,
            stages,
            viewers: viewer_tasks,
            agents: agent_tasks,
            tunnels,
            endpoint,
            background,
            drain: config.timeouts.drain,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Ends: first finish, then drop. Agents are told to go elsewhere, nothing new is taken, what runs may end within
    /// `Timeouts::drain`; then everything is closed.
    pub async fn shutdown(self) {
        self.tunnels.registry.drain();
        self.tunnels.drain_legacy();
        self.stages.send_replace(Stage::Finishing);
        // A viewer's connection ends with what it carries, its last byte included.
        self.viewers.close();
        if tokio::time::timeout(self.drain, self.viewers.wait()).await.is_err() {
            tracing::warn!(connections = self.viewers.len(), "viewers were still connected at the deadline");
        }
        for tunnel in self.tunnels.registry.all() {
            tunnel.close(close::DRAINED, "drained");
        }
        self.tunnels.close_legacy();
        self.stages.send_replace(Stage::Dropping);
        self.agents.close();
        let _ = tokio::time::timeout(Duration::from_secs(1), self.viewers.wait()).await;
        let _ = tokio::time::timeout(Duration::from_secs(1), self.agents.wait()).await;
        self.endpoint.close(close::DRAINED.into(), b"drained");
        let _ = tokio::time::timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
        tracing::info!("edge has ended");
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.stages.send_replace(Stage::Dropping);
        for task in &self.background {
            task.abort();
        }
    }
}

/// What the control plane is told of this edge.
fn registration(config: &Config, port: u16) -> Register {
    // Behind a proxy, agents see its port and its certificate.
    let port = if config.behind_proxy && config.names_port != 0 { config.names_port } else { port };
    Register {
        edge_id: config.id,
        key: config.key.public(),
        region: config.region.clone(),
        names: config.names.clone(),
        addresses: config.addresses.clone(),
        port,
        spki: config.spki.clone().filter(|_| !config.behind_proxy),
        behind_proxy: config.behind_proxy,
        version: config.version.clone(),
        join_token: config.join_token.clone(),
    }
}
