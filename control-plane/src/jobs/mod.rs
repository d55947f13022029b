//! Timers. What they do is idempotent and lives in `app/`: two replicas may do it at once.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::app::{App, bulletin, maintenance};

/// Starts the timers; they end with `stop`.
pub(crate) fn start(app: &App, stop: &CancellationToken) -> JoinSet<()> {
    let mut timers = JoinSet::new();
    let mut timer = |job: BoxFuture<'static, ()>| {
        let stop = stop.clone();
        timers.spawn(async move {
            stop.run_until_cancelled(job).await;
        });
    };
    timer(sweep(app.clone()).boxed());
    timer(keys(app.clone()).boxed());
    // Not cut off by `stop` but told of it: it ends the streams of the edges, for which the listener waits.
    timers.spawn(bulletin::watch(app.clone(), stop.clone()));
    timers
}

async fn sweep(app: App) {
    let mut timer = interval(maintenance::SWEEP_EVERY);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let result = maintenance::sweep(&app).await;
        if let Err(error) = &result {
            tracing::warn!(error = error as &dyn std::error::Error, "sweeping the database failed; it is tried again");
        }
        app.jobs.beat(app.clock.now(), result.is_err().then_some("the database is not available"));
    }
}

async fn keys(app: App) {
    let mut timer = interval(maintenance::KEYS_EVERY);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once, and the keys were read at the start.
    timer.tick().await;
    loop {
        timer.tick().await;
        if let Err(error) = maintenance::refresh_keys(&app).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "reading the signing keys failed; the old ones are kept"
            );
        }
    }
}
