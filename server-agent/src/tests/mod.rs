//! Rooms together: an agent between a stand-in hub, a stand-in edge and a real socket as origin.

#![allow(clippy::unwrap_used)]

mod claiming;
mod dialling;
mod edge;
pub(crate) mod hub;
mod racing;
mod splicing;

use std::sync::Arc;
use std::time::Duration;

use phlix_link::Transport;
use phlix_protocol::ids::TunnelId;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Transport as Pinned;
use crate::{AgentError, Config, Event, Origin};
use edge::{EdgeTunnel, FakeEdge, Manner};
use hub::FakeHub;

/// Nothing here takes longer, but a busy machine may.
const PATIENCE: Duration = Duration::from_secs(20);

/// Fails a test that would hang.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("this should not take so long")
}

/// A running agent.
struct Agent {
    events: mpsc::UnboundedReceiver<Event>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), AgentError>>,
}

impl Agent {
    fn start(config: Config) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let task = tokio::spawn(crate::run(config, move |event| drop(sender.send(event)), stop.clone()));
        Self { events, stop, task }
    }

    async fn event<T>(&mut self, wanted: impl Fn(&Event) -> Option<T>) -> T {
        soon(async {
            loop {
                let event = self.events.recv().await.expect("the agent runs");
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
        })
        .await
    }

    async fn connected(&mut self) -> TunnelId {
        self.event(|event| match event {
            Event::Connected { tunnel, .. } => Some(*tunnel),
            _ => None,
        })
        .await
    }

    async fn disconnected(&mut self) -> String {
        self.event(|event| match event {
            Event::Disconnected { reason, .. } => Some(reason.clone()),
            _ => None,
        })
        .await
    }

    /// How it ended by itself.
    async fn ended(self) -> Result<(), AgentError> {
        soon(self.task).await.unwrap()
    }

    async fn stopped(self) -> Result<(), AgentError> {
        self.stop.cancel();
        self.ended().await
    }
}

/// The same tests over each transport.
macro_rules! over_both {
    ($($name:ident),+ $(,)?) => {
        mod quic {
            $(#[tokio::test]
            async fn $name() {
                super::$name(phlix_link::Transport::Quic).await;
            })+
        }
        mod websocket {
            $(#[tokio::test]
            async fn $name() {
                super::$name(phlix_link::Transport::WebSocket).await;
            })+
        }
    };
}
use over_both;

fn pinned(transport: Transport) -> Pinned {
    match transport {
        Transport::Quic => Pinned::Quic,
        Transport::WebSocket => Pinned::WebSocket,
    }
}

/// Quick, but otherwise as it comes.
fn config(hub: &FakeHub, origin: Origin, folder: &std::path::Path) -> Config {
    let mut config = Config::new(hub.url.parse().unwrap(), origin, folder.to_owned());
    let ms = Duration::from_millis;
    config.timings.claim_poll = ms(20);
    config.timings.backoff_base = ms(20);
    config.timings.backoff_cap = ms(100);
    config.timings.heartbeat = ms(300);
    config.timings.handshake = ms(700);
    config.timings.goodbye = ms(200);
    config
}

/// An agent that is connected to an edge.
struct World {
    hub: Arc<FakeHub>,
    edge: FakeEdge,
    agent: Agent,
    tunnel: EdgeTunnel,
    _folder: tempfile::TempDir,
}

impl World {
    async fn start(transport: Transport, origin: &str) -> Self {
        Self::start_with(transport, origin, |_| ()).await
    }

    async fn start_with(transport: Transport, origin: &str, adjust: impl FnOnce(&mut Config)) -> Self {
        let hub = FakeHub::start().await;
        let edge = FakeEdge::start(Manner::Honest);
        hub.bend().edges = vec![edge.entry()];
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&hub, origin.parse().unwrap(), folder.path());
        config.transport = pinned(transport);
        adjust(&mut config);
        let mut agent = Agent::start(config);
        let tunnel = soon(edge.tunnel()).await;
        agent.connected().await;
        assert_eq!(tunnel.link.transport(), transport);
        Self { hub, edge, agent, tunnel, _folder: folder }
    }
}
