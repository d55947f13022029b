//! What the rooms of one running agent share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use phlix_protocol::ids::{InstanceId, ServerId};
use phlix_protocol::keys::SigningKey;
use phlix_protocol::token::{EdgeEntry, TunnelTicket};
use rustls::RootCertStore;
use tokio::sync::{Notify, watch};

use crate::clock::HubClock;
use crate::config::Config;
use crate::event::Event;
use crate::health::OriginHealth;
use crate::hub::{HubClient, HubKeys};
use crate::serve::Admission;
use crate::serve::origin::OriginConnector;
use crate::state::{State, Status};

/// Where events go.
pub(crate) type Tell = Arc<dyn Fn(Event) + Send + Sync>;

/// A tunnel ticket that the hub signed for this server's key, and the edges that may be dialled with it.
pub(crate) struct Credentials {
    /// As the hub signed it.
    pub(crate) ticket: String,
    pub(crate) claims: TunnelTicket,
    pub(crate) edges: Vec<EdgeEntry>,
}

/// One agent, enrolled.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) server_id: ServerId,
    pub(crate) instance: InstanceId,
    pub(crate) key: SigningKey,
    pub(crate) clock: Arc<HubClock>,
    pub(crate) hub: Arc<HubClient>,
    pub(crate) keys: HubKeys,
    pub(crate) state: Arc<State>,
    /// Roots for edges that have a public certificate.
    pub(crate) edge_roots: RootCertStore,
    pub(crate) origin: OriginHealth,
    pub(crate) origin_connector: OriginConnector,
    pub(crate) admission: Admission,
    pub(crate) board: Arc<StatusBoard>,
    pub(crate) credentials: watch::Sender<Option<Arc<Credentials>>>,
    /// Wakes the keeper: somebody needs a fresh ticket now.
    pub(crate) want_ticket: Notify,
    /// Streams that are open.
    pub(crate) streams: std::sync::atomic::AtomicUsize,
    pub(crate) tell: Tell,
}

impl Shared {
    /// The credentials now in force.
    pub(crate) fn credentials(&self) -> Option<Arc<Credentials>> {
        self.credentials.borrow().clone()
    }

    pub(crate) fn tell(&self, event: Event) {
        (self.tell)(event);
    }
}

/// The status that `phlix agent status` reads, changed in place and written by a task of its own.
pub(crate) struct StatusBoard {
    status: Mutex<Status>,
    writing: Mutex<()>,
    changed: Notify,
}

impl StatusBoard {
    pub(crate) fn new(status: Status) -> Self {
        Self { status: Mutex::new(status), writing: Mutex::default(), changed: Notify::new() }
    }

    /// Changes something and has it written.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Status)) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let before = status.clone();
        change(&mut status);
        if *status != before {
            self.changed.notify_one();
        }
    }

    /// Held while the file is written.
    pub(crate) fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The status as it is.
    pub(crate) fn current(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Completes after a change.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}
