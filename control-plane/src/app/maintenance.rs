//! Throws away what is over, and remembers when that was last done.

use std::sync::Mutex;
use std::time::Duration;

use super::App;
use super::keys::KeysError;
use crate::store::{self, StoreError};
use crate::timestamp::Timestamp;

/// Between two sweeps.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Between two looks at the signing keys.
pub(crate) const KEYS_EVERY: Duration = Duration::from_secs(10);
/// An ended session's row is kept this long, to say why.
const ENDED_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// The page of a server shows 20 heartbeats of a minute each.
const HEARTBEATS_KEPT: Duration = Duration::from_secs(24 * 3600);
/// An edge that was away for longer gets a snapshot instead.
const CHANGES_KEPT: Duration = Duration::from_secs(3600);
/// Five sweeps missed: the timers are dead.
const STALE_AFTER: Duration = Duration::from_secs(300);

/// When the timed jobs last ran, for `/health`.
#[derive(Debug)]
pub(crate) struct Pulse(Mutex<Beat>);

#[derive(Debug)]
struct Beat {
    ran_at: Timestamp,
    has_run: bool,
    consecutive_failures: u32,
    last_error: Option<String>,
}

/// What `/health` says of the timed jobs.
pub(crate) struct Report {
    pub(crate) stale: bool,
    pub(crate) stale_after: Duration,
    pub(crate) age: Option<Duration>,
    pub(crate) consecutive_failures: u32,
    pub(crate) last_error: Option<String>,
}

impl Pulse {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self(Mutex::new(Beat { ran_at: now, has_run: false, consecutive_failures: 0, last_error: None }))
    }

    /// A sweep ran. That it failed (the database is away) does not make it dead.
    pub(crate) fn beat(&self, now: Timestamp, failure: Option<&'static str>) {
        let mut beat = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        beat.ran_at = now;
        beat.has_run = true;
        beat.consecutive_failures = if failure.is_some() { beat.consecutive_failures.saturating_add(1) } else { 0 };
        beat.last_error = failure.map(str::to_owned);
    }

    pub(crate) fn report(&self, now: Timestamp) -> Report {
        let beat = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let age = now.since(beat.ran_at);
        Report {
            stale: age > STALE_AFTER,
            stale_after: STALE_AFTER,
            age: beat.has_run.then_some(age),
            consecutive_failures: beat.consecutive_failures,
            last_error: beat.last_error.clone(),
        }
    }
}

/// Throws away what is over. May run on several replicas at once: each row is deleted by one of them.
pub(crate) async fn sweep(app: &App) -> Result<(), StoreError> {
    let now = app.clock.now();
    let mut conn = app.db.write().await?;
    store::rates::sweep(&mut conn, now).await?;
    let lives = &app.config.lives;
    store::claims::sweep(&mut conn, now.minus(lives.claim + lives.claim_delivery)).await?;
    store::heartbeats::sweep(&mut conn, now.minus(HEARTBEATS_KEPT)).await?;
    store::proofs::sweep(&mut conn, now).await?;
    store::name_codes::sweep(&mut conn, now).await?;
    store::relay_tokens::sweep(&mut conn, now).await?;
    store::names::sweep(&mut conn, now).await?;
    store::names::fill_skeletons(&mut conn).await?;
    store::presence::sweep(&mut conn, now).await?;
    store::bulletin::sweep(&mut conn, now.minus(CHANGES_KEPT)).await?;
    store::revocations::sweep(&mut conn, now).await?;
    store::keys::sweep(&mut conn, now).await?;
    let keep = |duration| now.minus(duration);
    store::sessions::sweep(&mut conn, now, keep(ENDED_KEPT), keep(super::accounts::PLACE_KNOWN)).await?;
    Ok(())
}

/// Reads the signing keys again.
pub(crate) async fn refresh_keys(app: &App) -> Result<(), KeysError> {
    app.keys.refresh(&app.db, &app.sealer, app.clock.now()).await
}
