//! How changes reach the edges: written in the transaction of the deed, seen by a poll of the counter, streamed from there.

use std::time::Duration;

use phlix_protocol::uplink::{Change, Snapshot};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::App;
use crate::domain::edge::Edge;
use crate::store::{StoreError, bulletin, edges, legacy_tunnels, revocations, servers};

/// Between two looks at the counter: other replicas' changes are seen within it.
const POLL: Duration = Duration::from_millis(200);

/// How far the bulletin is, as this replica last saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) revision: u64,
    /// Successful looks at the counter: while it stands still we know nothing, not "nothing new".
    pub(crate) looks: u64,
}

/// One replica's view of the counter. `None` after the replica was told to stop: then streams end.
#[derive(Debug)]
pub(crate) struct Bulletin {
    seen: watch::Sender<Option<Seen>>,
    poke: Notify,
}

impl Bulletin {
    pub(crate) fn new() -> Self {
        Self { seen: watch::Sender::new(Some(Seen::default())), poke: Notify::new() }
    }

    /// Something was committed here: look now.
    pub(crate) fn poke(&self) {
        self.poke.notify_one();
    }

    /// Follows the counter.
    pub(crate) fn follow(&self) -> watch::Receiver<Option<Seen>> {
        self.seen.subscribe()
    }
}

/// Looks at the counter until told to stop. Runs once in each replica.
pub(crate) async fn watch(app: App, stop: CancellationToken) {
    let mut looks = 0_u64;
    let mut failing = false;
    while !stop.is_cancelled() {
        match look(&app).await {
            Ok(revision) => {
                looks += 1;
                failing = false;
                app.bulletin.seen.send_replace(Some(Seen { revision, looks }));
            }
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the bulletin can't be read; edges are told nothing"
                );
            }
            Err(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = app.bulletin.poke.notified() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
    app.bulletin.seen.send_replace(None);
}

async fn look(app: &App) -> Result<u64, StoreError> {
    let mut conn = app.db.read().await?;
    bulletin::revision(&mut conn).await
}

/// The world at one revision. The revision is read first: what changes meanwhile comes once more as a change.
pub(crate) async fn snapshot(app: &App) -> Result<Snapshot, StoreError> {
    let now = app.clock.now();
    let mut conn = app.db.read().await?;
    let revision = bulletin::revision(&mut conn).await?;
    Ok(Snapshot {
        revision,
        now: now.seconds(),
        jwks: app.keys.jwks(now),
        edges: edges::approved(&mut conn).await?.iter().filter_map(Edge::entry).collect(),
        revocations: revocations::kept(&mut conn, now).await?,
        generations: servers::least_generations(&mut conn).await?,
        tls_only: legacy_tunnels::tls_only(&mut conn).await?,
    })
}

/// The next changes after a revision, some hundreds at a time; `None` where the first of them is not kept any more.
pub(crate) async fn changes_after(app: &App, revision: u64) -> Result<Option<Vec<(u64, Change)>>, StoreError> {
    let mut conn = app.db.read().await?;
    bulletin::after(&mut conn, revision).await
}
