//! `/.well-known/jwks.json`: the public halves of the keys that sign enrollments and tickets.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use serde::Serialize;
use utoipa::ToSchema;

use super::caller::Caller;
use super::error::{ApiError, ErrorBody};
use crate::app::App;
use crate::store::rates::{self, Attempt};

/// A public Ed25519 key (RFC 8037).
#[derive(Serialize, ToSchema)]
struct Key {
    kty: String,
    crv: String,
    x: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
}

/// Those that sign first, then those whose tokens are still about.
#[derive(Serialize, ToSchema)]
pub(super) struct Keys {
    keys: Vec<Key>,
}

/// The keys by which the hub's signatures are checked.
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "keys",
    responses((status = 200, body = Keys), (status = 429, body = ErrorBody)))]
pub(super) async fn jwks(State(app): State<App>, caller: Caller) -> Result<Response, ApiError> {
    let now = app.clock.now();
    // The answer is in memory: where the database is away nobody counts, and the keys are still told.
    if let Ok(mut conn) = app.db.write().await {
        let key = format!("jwks:{}", caller.place());
        if let Ok(Attempt::Refused { retry_after }) = rates::hit(&mut conn, &key, app.config.limits.jwks, now).await {
            return Err(ApiError::rate_limited(retry_after));
        }
    }
    let keys = app.keys.jwks(now).keys.into_iter();
    let keys = keys
        .map(|jwk| Key { kty: jwk.kty, crv: jwk.crv, x: jwk.x, kid: jwk.kid, usage: jwk.usage, alg: jwk.alg })
        .collect();
    Ok(([(CACHE_CONTROL, "public, max-age=3600")], Json(Keys { keys })).into_response())
}
