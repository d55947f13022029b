//! Presence: which tunnels end here. Also the edge's sign of life, whose silence ends its lease.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::Method;
use phlix_protocol::ids::{InstanceId, TunnelId};
use phlix_protocol::uplink::{OpenedTunnel, PresenceReply, PresenceReport, paths};
use tokio::sync::Notify;

use super::Backoff;
use super::client::Client;

/// What there is, and what the hub has not heard of yet.
pub(crate) struct Reports {
    instance: InstanceId,
    interval: Duration,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    tunnels: HashMap<TunnelId, OpenedTunnel>,
    opened: HashSet<TunnelId>,
    closed: HashSet<TunnelId>,
    /// The next report lists everything.
    full: bool,
}

impl State {
    fn take(&mut self, instance: InstanceId) -> PresenceReport {
        let full = self.full;
        let opened = if full {
            self.tunnels.values().cloned().collect()
        } else {
            self.opened.iter().filter_map(|id| self.tunnels.get(id).cloned()).collect()
        };
        self.full = false;
        self.opened.clear();
        PresenceReport { instance, full, opened, closed: self.closed.drain().collect() }
    }
}

impl Reports {
    pub(super) fn new(instance: InstanceId, interval: Duration) -> Self {
        Self { instance, interval, state: Mutex::new(State { full: true, ..State::default() }), changed: Notify::new() }
    }

    /// An agent said that its tunnel ends here; again when it renews its word.
    pub(crate) fn opened(&self, tunnel: OpenedTunnel) {
        let mut state = self.state();
        state.opened.insert(tunnel.tunnel_id);
        state.tunnels.insert(tunnel.tunnel_id, tunnel);
        drop(state);
        self.changed.notify_one();
    }

    /// A tunnel ended. One that was never reported is not taken back.
    pub(crate) fn closed(&self, tunnel: TunnelId) {
        let mut state = self.state();
        state.opened.remove(&tunnel);
        if state.tunnels.remove(&tunnel).is_some() {
            state.closed.insert(tunnel);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Reports on change and every `interval`, for ever.
    pub(super) async fn run(&self, client: &Client) {
        let mut backoff = Backoff::new();
        loop {
            let report = self.state().take(self.instance);
            match client.call::<_, PresenceReply>(Method::POST, paths::PRESENCE, Some(&report)).await {
                Ok(reply) => {
                    backoff = Backoff::new();
                    if reply.full && !report.full {
                        self.state().full = true;
                        continue;
                    }
                    // Elapsed or changed: both mean "report".
                    let _ = tokio::time::timeout(self.interval, self.changed.notified()).await;
                }
                Err(error) => {
                    // What it held may not have arrived: the next one says it all.
                    self.state().full = true;
                    tracing::debug!(%error, "presence report did not arrive");
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    fn tunnel() -> OpenedTunnel {
        OpenedTunnel {
            server_id: phlix_protocol::ids::ServerId::new(random::uuid()),
            tunnel_id: TunnelId::new(random::uuid()),
            statement: Some("s".into()),
            legacy: None,
        }
    }

    #[test]
    fn the_first_report_is_full_and_the_next_ones_tell_what_changed() {
        let reports = Reports::new(InstanceId::new(random::uuid()), Duration::from_secs(1));
        let (first, second) = (tunnel(), tunnel());
        reports.opened(first.clone());
        let report = reports.state().take(reports.instance);
        assert!(report.full);
        assert_eq!(report.opened, std::slice::from_ref(&first));

        reports.opened(second.clone());
        reports.closed(first.tunnel_id);
        reports.closed(TunnelId::new(random::uuid()));
        let report = reports.state().take(reports.instance);
        assert!(!report.full);
        assert_eq!((report.opened, report.closed), (vec![second], vec![first.tunnel_id]));
    }
}
