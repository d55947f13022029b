//! All that the edge knows of the world beyond its sockets: the only room that talks to the control plane.
//!
//! The *directory* answers questions from a cache, the *bulletin* tells what changed, *reports* say what tunnels there
//! are. When the control plane is away, what is known goes on being used until the tickets behind it end.

pub(crate) mod bulletin;
pub(crate) mod client;
pub(crate) mod directory;
pub(crate) mod reports;
mod single_flight;

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use phlix_protocol::ids::InstanceId;
use phlix_protocol::uplink::{EdgeStatus, Register, Registered, paths};
use tokio::sync::watch;

use self::bulletin::Bulletin;
use self::client::Client;
use self::directory::Directory;
use self::reports::Reports;
use crate::config::Config;

/// The edge's view of the hub.
pub(crate) struct Uplink {
    pub(crate) client: Client,
    pub(crate) bulletin: Bulletin,
    pub(crate) directory: Directory,
    pub(crate) reports: Reports,
    admission: watch::Sender<Option<EdgeStatus>>,
}

impl Uplink {
    /// Makes the room; `run` brings it to life.
    pub(crate) fn new(config: &Config, instance: InstanceId) -> Arc<Self> {
        let client = Client::new(config);
        let bulletin = Bulletin::new();
        let directory = Directory::new(config, client.clone(), bulletin.clone());
        Arc::new(Self {
            directory,
            reports: Reports::new(instance, config.timeouts.presence),
            admission: watch::channel(None).0,
            client,
            bulletin,
        })
    }

    /// Whether the hub has admitted this edge: without it, no tunnel is served.
    pub(crate) fn approved(&self) -> bool {
        *self.admission.borrow() == Some(EdgeStatus::Approved)
    }

    /// Whether requests can be judged: admitted, and keys are known.
    pub(crate) fn ready(&self) -> bool {
        self.approved() && self.bulletin.has_snapshot()
    }

    /// Registers, follows the bulletin and reports, until dropped.
    pub(crate) async fn run(self: Arc<Self>, register: Register) {
        self.register(&register).await;
        tokio::join!(
            bulletin::follow(&self.bulletin, &self.client, &self.directory),
            self.reports.run(&self.client),
            self.stay_admitted(&register),
        );
    }

    /// Asks until the control plane answers.
    async fn register(&self, register: &Register) {
        let mut backoff = Backoff::new();
        loop {
            match self.client.call::<_, Registered>(Method::POST, paths::REGISTER, Some(register)).await {
                Ok(registered) => {
                    if self.admission.send_replace(Some(registered.status)) != Some(registered.status) {
                        tracing::info!(edge.id = %registered.edge_id, role = ?registered.role, status = ?registered.status,
                            fingerprint = registered.fingerprint, "edge is registered");
                    }
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "control plane doesn't register this edge yet; trying again");
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    }

    /// Asks again for what may change: a pending edge often, an approved one now and then.
    async fn stay_admitted(&self, register: &Register) {
        loop {
            let pause = if self.approved() { Duration::from_secs(30) } else { Duration::from_secs(1) };
            tokio::time::sleep(pause).await;
            self.register(register).await;
        }
    }
}

/// Waits that grow from 100 ms to 5 s, each anywhere between half and whole, so that edges don't come back in step.
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self(Duration::from_millis(100))
    }

    pub(crate) fn next(&mut self) -> Duration {
        let whole = self.0;
        self.0 = (whole * 2).min(Duration::from_secs(5));
        whole.mul_f64(0.5 + f64::from(crate::random::byte()) / 512.0)
    }
}
