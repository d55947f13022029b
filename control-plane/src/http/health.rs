//! `/health` (am I alive? upstream's fields) and `/ready` (can I work? database and keys).

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::{App, readiness};

/// Upstream's body. A dead database does not turn it red: that is what `/ready` is for.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok`, or `unhealthy` with 503 when the timed jobs stopped running.
    status: &'static str,
    service: &'static str,
    version: String,
    #[serde(rename = "phlixShared")]
    phlix_shared: Option<String>,
    /// Unix seconds.
    timestamp: i64,
    maintenance: Maintenance,
}

/// How the timed jobs are.
#[derive(Serialize, ToSchema)]
pub(super) struct Maintenance {
    status: &'static str,
    reason: Option<&'static str>,
    task: &'static str,
    pid: u32,
    incarnations: u32,
    age_seconds: Option<i64>,
    consecutive_failures: u32,
    last_error: Option<String>,
    stale_after_seconds: u64,
}

/// Is the process alive?
#[utoipa::path(get, path = "/health", tag = "operations",
    responses((status = 200, body = Health), (status = 503, body = Health)))]
pub(super) async fn health(State(app): State<App>) -> Response {
    let now = app.clock.now();
    let jobs = app.jobs.report(now);
    let status = if jobs.stale { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let maintenance = Maintenance {
        status: match (jobs.stale, jobs.consecutive_failures) {
            (true, _) => "down",
            (false, 0) => "ok",
            (false, _) => "degraded",
        },
        reason: jobs.stale.then_some("no_sweep"),
        task: "maintenance",
        pid: std::process::id(),
        incarnations: 1,
        age_seconds: jobs.age.map(|age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX)),
        consecutive_failures: jobs.consecutive_failures,
        last_error: jobs.last_error,
        stale_after_seconds: jobs.stale_after.as_secs(),
    };
    let body = Health {
        status: if jobs.stale { "unhealthy" } else { "ok" },
        service: "phlix-hub",
        version: app.config.version.clone(),
        phlix_shared: None,
        timestamp: now.seconds(),
        maintenance,
    };
    (status, Json(body)).into_response()
}

/// What is needed to work, each `ok` or why not.
#[derive(Serialize, ToSchema)]
pub(super) struct Ready {
    status: &'static str,
    database: String,
    keys: String,
}

/// Can it work?
#[utoipa::path(get, path = "/ready", tag = "operations",
    responses((status = 200, body = Ready), (status = 503, body = Ready)))]
pub(super) async fn ready(State(app): State<App>) -> Response {
    let found = readiness::check(&app).await;
    let (status, word) = match found.is_ready() {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    let say = |problem: Option<String>| problem.unwrap_or_else(|| "ok".to_owned());
    (status, Json(Ready { status: word, database: say(found.database), keys: say(found.keys) })).into_response()
}
