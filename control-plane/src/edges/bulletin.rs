//! The bulletin: a stream of lines that tells an edge what changed, for ever.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::try_unfold;
use http::header::CONTENT_TYPE;
use phlix_protocol::uplink::BulletinLine;
use tokio::sync::watch;
use tokio::time::Instant;

use super::asking::Asking;
use super::refusal::Refusal;
use crate::app::bulletin::{Seen, changes_after, snapshot};
use crate::app::{App, StoreError};
use crate::domain::edge::Edge;

/// Between two snapshots.
//= architecture s.5
const SNAPSHOT_EVERY: Duration = Duration::from_secs(30);
/// Between two signs of life; edges expect one within 5 s.
const TICK_EVERY: Duration = Duration::from_secs(3);

/// Who missed more gets a snapshot and forgets its routes.
const MOST_CHANGES: u64 = 5000;

/// Who follows, and from where.
pub(super) struct Following {
    edge: Edge,
    since: Option<u64>,
}

impl FromRequest<App> for Following {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &App) -> Result<Self, Refusal> {
        let query = request.uri().query().unwrap_or_default().as_bytes();
        let since = url::form_urlencoded::parse(query).find(|(key, _)| key == "since");
        let since = since.and_then(|(_, value)| value.parse().ok());
        let asking = Asking::from_request(request, app).await?;
        Ok(Self { edge: asking.edge, since })
    }
}

/// First what was missed since `?since=`, where it is still kept, and a snapshot; then changes as they come.
pub(super) async fn follow(State(app): State<App>, following: Following) -> Result<Response, Refusal> {
    let lines = Lines::start(app, following).await?;
    let body = Body::from_stream(lines.stream());
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// One edge's place in the bulletin.
struct Lines {
    app: App,
    edge: Edge,
    seen: watch::Receiver<Option<Seen>>,
    /// Everything until here was sent or stands in `ready`; `None` before the first snapshot.
    revision: Option<u64>,
    looks: u64,
    ready: VecDeque<BulletinLine>,
    next_tick: Instant,
    next_snapshot: Instant,
}

impl Lines {
    async fn start(app: App, following: Following) -> Result<Self, StoreError> {
        let seen = app.bulletin.follow();
        let now = Instant::now();
        let mut lines = Self {
            app,
            edge: following.edge,
            seen,
            revision: following.since,
            looks: 0,
            ready: VecDeque::new(),
            next_tick: now + TICK_EVERY,
            next_snapshot: now,
        };
        lines.snapshot().await?;
        Ok(lines)
    }

    fn stream(self) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
        try_unfold(self, |mut lines| async move {
            let line = match lines.next().await {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(None),
                // The edge comes back with its revision and misses nothing.
                Err(error) => {
                    tracing::warn!(edge.id = %lines.edge.id, error = &error as &dyn std::error::Error, "a bulletin stream was cut off");
                    return Err(std::io::Error::other("the bulletin can't be read"));
                }
            };
            let mut text = serde_json::to_vec(&line).map_err(std::io::Error::other)?;
            text.push(b'\n');
            Ok(Some((Bytes::from(text), lines)))
        })
    }

    /// The next line; `None` when the replica stops or the edge was revoked.
    async fn next(&mut self) -> Result<Option<BulletinLine>, StoreError> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                self.next_tick = Instant::now() + TICK_EVERY;
                return Ok(Some(line));
            }
            let Some(seen) = *self.seen.borrow_and_update() else { return Ok(None) };
            if self.revision.is_none_or(|revision| seen.revision > revision) {
                if !self.changes(seen.revision).await? {
                    self.snapshot().await?;
                }
                continue;
            }
            let now = Instant::now();
            if now >= self.next_snapshot {
                if !self.app.edges.is_approved(self.edge.id).await? {
                    return Ok(None);
                }
                self.snapshot().await?;
                continue;
            }
            if now >= self.next_tick {
                self.next_tick = now + TICK_EVERY;
                // While the counter can't be read we know nothing, and "nothing new" would be a lie.
                if seen.looks != std::mem::replace(&mut self.looks, seen.looks) {
                    return Ok(Some(BulletinLine::Tick { revision: self.revision.unwrap_or(seen.revision) }));
                }
                continue;
            }
            let timer = pin!(tokio::time::sleep_until(self.next_tick.min(self.next_snapshot)));
            tokio::select! {
                changed = self.seen.changed() => if changed.is_err() { return Ok(None) },
                () = timer => {}
            }
        }
    }

    /// Gets the changes until `end` ready; `false` where a part of them is not kept any more, or too much.
    async fn changes(&mut self, end: u64) -> Result<bool, StoreError> {
        let Some(mut revision) = self.revision else { return Ok(false) };
        if end.saturating_sub(revision) > MOST_CHANGES {
            return Ok(false);
        }
        while revision < end {
            let Some(changes) = changes_after(&self.app, revision).await? else { return Ok(false) };
            for (next, change) in changes.into_iter().filter(|(next, _)| *next <= end) {
                revision = next;
                self.revision = Some(revision);
                self.ready.push_back(BulletinLine::Change { revision, change });
            }
        }
        Ok(revision == end)
    }

    /// Everything, after the changes that it covers: routes to forget stand in those alone. None that it may not cover comes
    /// before it, or the edge would take the snapshot's older word for the later one.
    async fn snapshot(&mut self) -> Result<(), StoreError> {
        let snapshot = snapshot(&self.app).await?;
        self.next_snapshot = Instant::now() + SNAPSHOT_EVERY;
        if !self.changes(snapshot.revision).await? {
            self.revision = Some(snapshot.revision);
        }
        self.ready.push_back(BulletinLine::Snapshot(snapshot));
        Ok(())
    }
}
