//! The bulletin: what the hub tells every edge, in order, with a revision that never skips.
//!
//! `World` is what is known at one revision; `apply` is pure. `follow` keeps it current: a stream of lines, resumed from
//! the revision that was reached. Who must act on a change subscribes to `Event`s and judges by the world as it is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::ServerId;
use phlix_protocol::keys::KeySet;
use phlix_protocol::token::{EdgeEntry, Enrollment, TunnelTicket, ViewerTicket};
use phlix_protocol::uplink::{BulletinLine, Change, Generation, Revocation, Selector, Snapshot, paths};
use tokio::sync::{broadcast, watch};

use super::Backoff;
use super::client::{CallError, Client};
use super::directory::Directory;

/// Longest line: a snapshot with many revocations and edges.
const MAX_LINE: usize = 16 * 1024 * 1024;

/// Silence after which the stream is taken for dead; the hub says something every 5 s.
const SILENCE: Duration = Duration::from_secs(15);

/// What the hub last said.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    /// `None` before the first snapshot: nothing can be judged.
    pub(crate) revision: Option<u64>,
    pub(crate) keys: KeySet,
    pub(crate) edges: Vec<EdgeEntry>,
    /// Tickets issued at or before this are no longer good.
    revoked: HashMap<Selector, i64>,
    generations: HashMap<ServerId, u64>,
    /// Legacy servers that have used TLS: plain tunnels of theirs are refused.
    tls_only: HashSet<ServerId>,
}

/// Something that concerns what is running.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// Tickets or generations were revoked.
    Rights,
    /// These names may have changed hands or access.
    Names(ServerId, Arc<[Hostname]>),
    /// Changes were missed: everything may be different.
    All,
}

/// What a line changed beside the world itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing.
    Quiet,
    /// `Event::Rights`.
    Rights,
    /// `Event::Names`.
    Names(ServerId, Vec<Hostname>),
    /// Everything may have changed, names included.
    All,
    /// The line's revision does not follow on ours: we missed something and must start over.
    Gap,
}

impl World {
    /// Takes one line.
    pub(crate) fn apply(&mut self, line: BulletinLine) -> Outcome {
        match line {
            BulletinLine::Snapshot(snapshot) => self.replace(snapshot),
            BulletinLine::Tick { revision } => {
                if self.revision.is_some_and(|ours| revision > ours) {
                    Outcome::Gap
                } else {
                    Outcome::Quiet
                }
            }
            BulletinLine::Change { revision, change } => {
                let Some(ours) = self.revision else { return Outcome::Gap };
                if revision <= ours {
                    return Outcome::Quiet;
                }
                if revision != ours + 1 {
                    return Outcome::Gap;
                }
                self.revision = Some(revision);
                self.change(change)
            }
        }
    }

    fn replace(&mut self, snapshot: Snapshot) -> Outcome {
        if self.revision.is_some_and(|ours| snapshot.revision < ours) {
            // The regular snapshot, overtaken by changes on its way.
            return Outcome::Quiet;
        }
        let skipped = self.revision != Some(snapshot.revision);
        let mut next = Self {
            revision: Some(snapshot.revision),
            keys: snapshot.jwks.key_set(),
            edges: snapshot.edges,
            ..Self::default()
        };
        for revocation in snapshot.revocations {
            next.revoke(revocation);
        }
        next.generations =
            snapshot.generations.into_iter().map(|generation| (generation.server_id, generation.least)).collect();
        next.tls_only = snapshot.tls_only.into_iter().collect();
        let rights =
            next.revoked != self.revoked || next.generations != self.generations || next.tls_only != self.tls_only;
        *self = next;
        match (skipped, rights) {
            (true, _) => Outcome::All,
            (false, true) => Outcome::Rights,
            (false, false) => Outcome::Quiet,
        }
    }

    fn change(&mut self, change: Change) -> Outcome {
        match change {
            Change::Keys { jwks } => {
                self.keys = jwks.key_set();
                Outcome::Rights
            }
            Change::Edges { edges } => {
                self.edges = edges;
                Outcome::Quiet
            }
            Change::Revoked { revocation } => {
                self.revoke(revocation);
                Outcome::Rights
            }
            Change::Generation { generation: Generation { server_id, least } } => {
                let known = self.generations.entry(server_id).or_default();
                *known = least.max(*known);
                Outcome::Rights
            }
            Change::TlsOnly { server_id, required: true } => {
                self.tls_only.insert(server_id);
                Outcome::Rights
            }
            Change::TlsOnly { server_id, required: false } => {
                self.tls_only.remove(&server_id);
                Outcome::Quiet
            }
            Change::Route { server_id, hosts } => Outcome::Names(server_id, hosts),
            Change::Unknown => Outcome::Quiet,
        }
    }

    fn revoke(&mut self, revocation: Revocation) {
        let until = self.revoked.entry(revocation.selector).or_insert(i64::MIN);
        *until = revocation.issued_until.max(*until);
    }

    fn selected(&self, selector: Selector, issued: i64) -> bool {
        self.revoked.get(&selector).is_some_and(|until| issued <= *until)
    }

    /// Whether this viewer's ticket was withdrawn.
    //= trust s.9.4
    pub(crate) fn revokes_viewer(&self, ticket: &ViewerTicket) -> bool {
        let selected = |selector| self.selected(selector, ticket.iat);
        selected(Selector::Sub(ticket.sub))
            || selected(Selector::Sid(ticket.sid))
            || selected(Selector::Server(ticket.server_id))
            || selected(Selector::Jti(ticket.jti))
            || ticket.share_id.is_some_and(|share| selected(Selector::Share(share)))
            || ticket.edge.is_some_and(|edge| selected(Selector::Edge(edge)))
    }

    /// Whether a legacy server's bearer was withdrawn. One without a generation counts as generation 0.
    pub(crate) fn revokes_enrollment(&self, enrollment: &Enrollment) -> bool {
        self.selected(Selector::Server(enrollment.server_id), enrollment.iat)
            || self
                .generations
                .get(&enrollment.server_id)
                .is_some_and(|least| enrollment.generation.unwrap_or_default() < *least)
    }

    /// Whether plain tunnels of this legacy server are refused.
    //= trust s.9.6
    pub(crate) fn is_tls_only(&self, server: ServerId) -> bool {
        self.tls_only.contains(&server)
    }

    /// Whether this server's right to a tunnel was withdrawn.
    pub(crate) fn revokes_tunnel(&self, ticket: &TunnelTicket) -> bool {
        self.selected(Selector::Server(ticket.server_id), ticket.iat)
            || self.selected(Selector::Jti(ticket.jti), ticket.iat)
            || self.generations.get(&ticket.server_id).is_some_and(|least| ticket.generation < *least)
    }
}

/// The world, shared.
#[derive(Clone)]
pub(crate) struct Bulletin {
    world: watch::Sender<Arc<World>>,
    events: broadcast::Sender<Event>,
}

impl Bulletin {
    pub(super) fn new() -> Self {
        Self { world: watch::channel(Arc::default()).0, events: broadcast::channel(256).0 }
    }

    /// What is known now.
    pub(crate) fn world(&self) -> Arc<World> {
        Arc::clone(&self.world.borrow())
    }

    /// Whether anything can be judged.
    pub(crate) fn has_snapshot(&self) -> bool {
        self.world.borrow().revision.is_some()
    }

    /// What concerns running things. Who lags misses events and must judge everything anew.
    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// The world once it has reached a revision; `None` when it does not within `patience`.
    pub(crate) async fn reached(&self, revision: u64, patience: Duration) -> Option<Arc<World>> {
        let there = |world: &Arc<World>| world.revision.is_some_and(|ours| ours >= revision);
        let now = self.world();
        if there(&now) {
            return Some(now);
        }
        let mut watching = self.world.subscribe();
        let reached = tokio::time::timeout(patience, watching.wait_for(there)).await.ok()?.ok()?;
        Some(Arc::clone(&reached))
    }

    /// Takes a line; `false` when it does not follow on what is known.
    pub(super) fn apply(&self, line: BulletinLine, directory: &Directory) -> bool {
        let mut outcome = Outcome::Quiet;
        self.world.send_modify(|world| outcome = Arc::make_mut(world).apply(line));
        // Nobody may be listening yet: that is no failure.
        let tell = |event| drop(self.events.send(event));
        match outcome {
            Outcome::Quiet => {}
            Outcome::Rights => tell(Event::Rights),
            Outcome::Names(server, hosts) => {
                directory.forget(&hosts, self.world().revision.unwrap_or_default());
                tell(Event::Names(server, hosts.into()));
            }
            Outcome::All => {
                directory.doubt_all();
                tell(Event::All);
            }
            Outcome::Gap => return false,
        }
        true
    }
}

/// Follows the hub's bulletin, for ever.
pub(super) async fn follow(bulletin: &Bulletin, client: &Client, directory: &Directory) {
    let mut backoff = Backoff::new();
    let mut start_over = false;
    loop {
        let since = if start_over { None } else { bulletin.world().revision };
        let before = bulletin.world().revision;
        let end = read_stream(bulletin, client, directory, since).await;
        start_over = matches!(end, StreamEnd::Gap);
        if bulletin.world().revision != before {
            backoff = Backoff::new();
        }
        match end {
            StreamEnd::Gap => tracing::warn!("bulletin has a gap; asking for a snapshot"),
            StreamEnd::Away(error) => tracing::warn!(%error, "bulletin broke off; resuming"),
        }
        tokio::time::sleep(backoff.next()).await;
    }
}

enum StreamEnd {
    Gap,
    Away(CallError),
}

async fn read_stream(bulletin: &Bulletin, client: &Client, directory: &Directory, since: Option<u64>) -> StreamEnd {
    let path = match since {
        Some(revision) => format!("{}?since={revision}", paths::BULLETIN),
        None => paths::BULLETIN.to_owned(),
    };
    let mut stream = match client.stream(&path).await {
        Ok(stream) => stream,
        Err(error) => return StreamEnd::Away(error),
    };
    let mut buffer = Vec::new();
    loop {
        let frame = match tokio::time::timeout(SILENCE, stream.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return StreamEnd::Away(CallError::Away(error.to_string().into())),
            Ok(None) => return StreamEnd::Away(CallError::Away("it ended".into())),
            Err(_) => return StreamEnd::Away(CallError::Away("it fell silent".into())),
        };
        let Some(data) = frame.data_ref() else { continue };
        if buffer.len() + data.len() > MAX_LINE {
            return StreamEnd::Away(CallError::Malformed);
        }
        let searched = buffer.len();
        buffer.extend_from_slice(data);
        let mut start = 0;
        let mut search = searched;
        while let Some(end) = buffer[search..].iter().position(|byte| *byte == b'\n').map(|at| search + at) {
            let line = &buffer[start..end];
            start = end + 1;
            search = start;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let Ok(line) = serde_json::from_slice::<BulletinLine>(line) else {
                return StreamEnd::Away(CallError::Malformed);
            };
            if !bulletin.apply(line, directory) {
                return StreamEnd::Gap;
            }
        }
        buffer.drain(..start);
    }
}

#[cfg(test)]
mod tests {
    use phlix_protocol::keys::Jwks;

    use super::*;

    fn server() -> ServerId {
        "00000000-0000-4000-8000-000000000004".parse().unwrap()
    }

    fn snapshot(revision: u64) -> BulletinLine {
        BulletinLine::Snapshot(Snapshot {
            revision,
            now: 0,
            jwks: Jwks::default(),
            edges: Vec::new(),
            revocations: Vec::new(),
            generations: Vec::new(),
            tls_only: Vec::new(),
        })
    }

    fn revoked(revision: u64, issued_until: i64) -> BulletinLine {
        let revocation = Revocation { selector: Selector::Server(server()), issued_until, keep_until: 99 };
        BulletinLine::Change { revision, change: Change::Revoked { revocation } }
    }

    #[test]
    fn changes_follow_on_a_snapshot_and_a_gap_is_noticed() {
        let mut world = World::default();
        assert_eq!(world.apply(revoked(1, 5)), Outcome::Gap);
        assert_eq!(world.apply(snapshot(7)), Outcome::All);
        assert_eq!(world.apply(revoked(8, 5)), Outcome::Rights);
        assert_eq!(world.apply(revoked(8, 5)), Outcome::Quiet, "said twice");
        assert_eq!(world.apply(BulletinLine::Tick { revision: 8 }), Outcome::Quiet);
        assert_eq!(world.apply(BulletinLine::Tick { revision: 9 }), Outcome::Gap);
        assert_eq!(world.apply(revoked(10, 5)), Outcome::Gap);
    }

    #[test]
    fn a_revocation_covers_what_was_issued_until_then_and_a_late_snapshot_takes_nothing_back() {
        let mut world = World::default();
        world.apply(snapshot(1));
        world.apply(revoked(2, 50));
        assert!(world.selected(Selector::Server(server()), 50));
        assert!(!world.selected(Selector::Server(server()), 51));
        assert_eq!(world.apply(snapshot(1)), Outcome::Quiet);
        assert!(world.selected(Selector::Server(server()), 50));
    }

    #[test]
    fn a_server_that_used_tls_is_held_to_it_until_its_owner_takes_that_back() {
        let mut world = World::default();
        world.apply(snapshot(1));
        let change = |revision, required| BulletinLine::Change {
            revision,
            change: Change::TlsOnly { server_id: server(), required },
        };
        assert_eq!(world.apply(change(2, true)), Outcome::Rights);
        assert!(world.is_tls_only(server()));
        assert_eq!(world.apply(change(3, false)), Outcome::Quiet);
        assert!(!world.is_tls_only(server()));
        let BulletinLine::Snapshot(listed) = snapshot(3) else { unreachable!() };
        let listed = BulletinLine::Snapshot(Snapshot { tls_only: vec![server()], ..listed });
        assert_eq!(world.apply(listed), Outcome::Rights);
        assert!(world.is_tls_only(server()));
    }

    #[test]
    fn a_regular_snapshot_of_the_same_world_is_quiet() {
        let mut world = World::default();
        world.apply(snapshot(3));
        assert_eq!(world.apply(snapshot(3)), Outcome::Quiet);
    }
}
