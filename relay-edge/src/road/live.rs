//! What is running now, by whose right: so that a withdrawn right ends it within 2 s.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::{ServerId, SessionId, UserId};
use phlix_protocol::native::stream::ResetCode;
use phlix_protocol::token::{Access, ViewerTicket};
use tokio::sync::broadcast::error::RecvError;

use super::pace::Pace;
use crate::limits::bucket;
use crate::metrics::Metrics;
use crate::tunnels::Flow;
use crate::tunnels::activity::Activity;
use crate::uplink::Uplink;
use crate::uplink::bulletin::Event;

/// How often viewers who don't read are looked for.
const SWEEP: Duration = Duration::from_secs(10);

/// Exchanges under way.
pub(crate) struct Live {
    entries: Mutex<HashMap<u64, Arc<Entry>>>,
    /// How many of a server's each holder has; what is over is not in it.
    held: Mutex<HashMap<(ServerId, Holder), usize>>,
    next: AtomicU64,
    metrics: Arc<Metrics>,
}

/// Who holds a server's streams, as far as they are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Holder {
    /// A sign-in of a user.
    SignedIn(UserId, SessionId),
    /// An address, at an open name.
    Address(IpAddr),
}

/// Why an exchange may not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// The ticket's limit on requests at once.
    Ticket,
    /// One viewer's share of the server's streams.
    Share,
}

/// Stops an answer's body where it comes from.
type Stop = Box<dyn Fn() + Send + Sync>;

/// One exchange with an origin.
pub(crate) struct Entry {
    server: ServerId,
    holder: Holder,
    /// The name it was asked at; `None` on the hub's proxy path.
    host: Option<Hostname>,
    /// The ticket it rests on; `None` at an open name.
    right: Option<Arc<ViewerTicket>>,
    activity: Arc<Activity>,
    source: Mutex<Option<Stop>>,
    /// The rate of the ticket, shared by all that its user does at this server.
    pub(crate) pace: Option<Arc<Pace>>,
}

impl Entry {
    /// Whether the right to it was withdrawn; the body fails when it is polled next.
    pub(crate) fn is_cut(&self) -> bool {
        self.activity.is_cut()
    }

    /// The task that must notice.
    pub(crate) fn register(&self, waker: &Waker) {
        self.activity.register(waker);
    }

    fn is_of(&self, ticket: &ViewerTicket) -> bool {
        self.server == ticket.server_id && self.right.as_ref().is_some_and(|right| right.sub == ticket.sub)
    }

    /// Where the answer's body comes from, once there is one.
    pub(crate) fn set_flow(&self, flow: Flow) {
        self.set_stop(move || flow.stop());
    }

    /// How to stop the answer's body where it comes from, once there is one.
    pub(crate) fn set_stop(&self, stop: impl Fn() + Send + Sync + 'static) {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(stop));
    }

    fn cut(&self, code: ResetCode) {
        self.activity.cut(code);
        // Also where nobody polls: a viewer who doesn't read must not hold the origin.
        if let Some(stop) = &*self.source.lock().unwrap_or_else(PoisonError::into_inner) {
            stop();
        }
    }
}

/// An exchange that is listed until this is dropped.
pub(crate) struct Listed {
    live: Arc<Live>,
    number: u64,
    pub(crate) entry: Arc<Entry>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.live.entries().remove(&self.number);
        self.live.give_back((self.entry.server, self.entry.holder));
    }
}

impl Live {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { entries: Mutex::default(), held: Mutex::default(), next: AtomicU64::new(0), metrics })
    }

    /// Lists an exchange with a server that has so many `streams`; of these one viewer holds half at most, so that there
    /// is always something for the others.
    pub(crate) fn list(
        self: &Arc<Self>,
        server: ServerId,
        host: Option<Hostname>,
        right: Option<Arc<ViewerTicket>>,
        from: IpAddr,
        streams: usize,
        activity: Arc<Activity>,
    ) -> Result<Listed, Full> {
        let holder = match &right {
            Some(ticket) => Holder::SignedIn(ticket.sub, ticket.sid),
            None => Holder::Address(bucket(from)),
        };
        let mut entries = self.entries();
        let mut pace = None;
        if let Some(ticket) = &right {
            let mut same = entries.values().filter(|other| other.is_of(ticket));
            if ticket.streams > 0 && same.clone().count() >= ticket.streams as usize {
                return Err(Full::Ticket);
            }
            pace = same
                .find_map(|other| other.pace.clone())
                .or_else(|| Pace::new(ticket.rate, Instant::now()).map(Arc::new));
        }
        {
            let mut held = self.held();
            let held = held.entry((server, holder)).or_default();
            if *held >= streams.div_ceil(2) {
                return Err(Full::Share);
            }
            *held += 1;
        }
        let entry = Arc::new(Entry { server, holder, host, right, activity, source: Mutex::default(), pace });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        entries.insert(number, Arc::clone(&entry));
        drop(entries);
        Ok(Listed { live: Arc::clone(self), number, entry })
    }

    /// Judges everything anew whenever the bulletin says that rights changed, for ever.
    pub(crate) async fn watch(self: Arc<Self>, uplink: Arc<Uplink>, viewer_stall: Duration) {
        let mut events = uplink.bulletin.events();
        let mut sweep = tokio::time::interval(SWEEP.min(viewer_stall));
        loop {
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Ok(Event::Rights) => self.judge_tickets(&uplink),
                    Ok(Event::Names(_, hosts)) => self.judge_names(&uplink, hosts.iter().cloned().collect()).await,
                    Ok(Event::All) | Err(RecvError::Lagged(_)) => {
                        self.judge_tickets(&uplink);
                        let hosts = self.entries().values().filter_map(|entry| entry.host.clone()).collect();
                        self.judge_names(&uplink, hosts).await;
                    }
                    Err(RecvError::Closed) => return,
                },
                _ = sweep.tick() => self.sweep(viewer_stall),
            }
        }
    }

    fn judge_tickets(&self, uplink: &Uplink) {
        let world = uplink.bulletin.world();
        self.cut(|entry| entry.right.as_ref().is_some_and(|ticket| world.revokes_viewer(ticket)));
    }

    /// Names may have changed hands, or be open no longer. What the directory can't say now goes on: the change will be
    /// seen by the next request.
    async fn judge_names(&self, uplink: &Uplink, hosts: HashSet<Hostname>) {
        for host in hosts {
            if !self.entries().values().any(|entry| entry.host.as_ref() == Some(&host)) {
                continue;
            }
            let Ok(route) = uplink.directory.route(&host).await else { continue };
            self.cut(|entry| {
                entry.host.as_ref() == Some(&host)
                    && match &route {
                        None => true,
                        Some(route) => {
                            route.server_id != entry.server || (entry.right.is_none() && route.access != Access::Open)
                        }
                    }
            });
        }
    }

    /// Viewers who have not read for too long. Everybody else's time is measured where they wait.
    fn sweep(&self, viewer_stall: Duration) {
        let now = Instant::now();
        let stalled: Vec<Arc<Entry>> = self
            .entries()
            .values()
            .filter(|entry| now.saturating_duration_since(entry.activity.last()) > viewer_stall)
            .cloned()
            .collect();
        for entry in stalled {
            entry.cut(ResetCode::Stalled);
        }
    }

    fn cut(&self, doomed: impl Fn(&Entry) -> bool) {
        // Cut outside of the lock: a body that ends takes itself off the list.
        let entries: Vec<Arc<Entry>> = self.entries().values().filter(|entry| doomed(entry)).cloned().collect();
        for entry in entries {
            self.metrics.cuts.inc();
            tracing::info!(server.id = %entry.server, "a running exchange is cut: its right was withdrawn");
            entry.cut(ResetCode::CancelledByViewer);
        }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<u64, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<(ServerId, Holder), usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, holder: (ServerId, Holder)) {
        let mut held = self.held();
        if let Some(count) = held.get_mut(&holder) {
            *count -= 1;
            if *count == 0 {
                held.remove(&holder);
            }
        }
    }
}
