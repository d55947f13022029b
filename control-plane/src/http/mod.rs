//! The routes: one file a noun. A handler extracts, asks `app/` (or reads from `store/`), and answers.

mod accounts;
mod authorize_name;
mod body;
mod caller;
mod claims;
mod enrolled;
mod error;
mod health;
mod jwks;
mod libraries;
mod me;
mod my_servers;
mod names;
mod notices;
mod openapi;
mod pages;
mod protocol;
mod relay_token;
mod servers;
mod signposts;
mod subdomain;
mod ui;
mod user;

use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderValue;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;

use error::ApiError;
pub(crate) use openapi::document;

/// Everything that is described in the OpenAPI document.
fn described() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(jwks::jwks))
        .merge(accounts::routes())
        .merge(claims::routes())
        .merge(my_servers::routes())
        .merge(libraries::routes())
        .merge(names::routes())
        .merge(notices::routes())
        .merge(relay_token::routes())
        .merge(servers::routes())
        .merge(subdomain::routes())
        .merge(me::routes())
}

/// The whole of the hub's own domain.
pub(crate) fn router(app: App) -> Router {
    let (described, _) = described().split_for_parts();
    Router::new()
        .merge(described)
        .merge(pages::routes())
        .merge(authorize_name::routes())
        .merge(signposts::routes())
        .merge(subdomain::alias())
        .merge(ui::routes())
        .fallback(no_route)
        .method_not_allowed_fallback(no_route)
        .layer(from_fn(headers))
        .layer(from_fn_with_state(app.clone(), caller::establish))
        .layer(from_fn_with_state(app.clone(), measure))
        .with_state(app)
}

async fn no_route() -> ApiError {
    ApiError::no_route()
}

/// What every answer says about itself.
async fn headers(request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.entry(X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    headers.entry(REFERRER_POLICY).or_insert(HeaderValue::from_static("no-referrer"));
    if is_api {
        // Nothing between us and the client keeps an answer that was made for one person.
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
    let is_page = headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/html"));
    if is_page {
        headers.entry(X_FRAME_OPTIONS).or_insert(HeaderValue::from_static("DENY"));
    }
    headers
        .entry(CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    response
}

/// Counts by route template: a path may hold a secret.
async fn measure(State(app): State<App>, request: Request, next: Next) -> Response {
    let method = request.method().as_str().to_owned();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = if route == "none" { "any".to_owned() } else { method };
    let start = Instant::now();
    let response = next.run(request).await;
    app.metrics.requests.with_label_values(&[&route, &method, response.status().as_str()]).inc();
    app.metrics.duration.with_label_values(&[&route]).observe(start.elapsed().as_secs_f64());
    response
}
