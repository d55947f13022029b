//! Where strangers knock: sockets, TLS, HTTP/1.1, HTTP/2 and HTTP/3 for viewers, QUIC for agents, bare
//! WebSockets for existing media servers and their raw clients.

pub(crate) mod admin;
pub(crate) mod glitches;
mod h3;
mod heads;
pub(crate) mod http;
mod io;
pub(crate) mod legacy;
pub(crate) mod quic;
pub(crate) mod sockets;
pub(crate) mod tls;
pub(crate) mod websocket;

use tokio::sync::watch;

/// How an edge ends: finish, then drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Running,
    /// No new connections; those that are there finish what they do.
    Finishing,
    /// Whatever still runs is dropped.
    Dropping,
}

/// The stage, as everybody sees it.
pub(crate) type Stages = watch::Receiver<Stage>;

/// Waits until a stage is reached. An edge that is dropped has reached the last.
pub(crate) async fn reached(stages: &mut Stages, stage: Stage) {
    // An error means that the sender is gone, and with it the edge.
    let _ = stages.wait_for(|now| *now >= stage).await;
}
