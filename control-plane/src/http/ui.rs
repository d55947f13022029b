//! The built UI, inside the program: its shell at `/app` and below, its files at `/app/assets/`.
//!
//! `make check` needs no Node: without a built UI the shell is a page that says how to build it.

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, StatusCode};
use rust_embed::RustEmbed;

use super::caller::{Caller, Scheme};
use super::error::ApiError;
use crate::app::App;

#[derive(RustEmbed)]
#[folder = "../web-ui/dist"]
#[allow_missing = true]
struct Dist;

const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Phlix Hub</title></head><body>\
<h1>Phlix Hub is running, without its pages</h1>\
<p>This program was built without the web UI. Build it with <code>make build</code> (needs Node 20 or newer) and start it again.</p>\
<p>The API under <code>/api/v1</code> and the relay work as they are.</p></body></html>";

const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/app", get(shell))
        .route("/app/", get(shell))
        .route("/app/{*path}", get(shell))
        .route("/app/assets/{*path}", get(asset))
}

/// Every page of the UI: the router inside it reads the path.
async fn shell(State(app): State<App>, caller: Caller, uri: http::Uri) -> Response {
    if let Some(elsewhere) = canonical(&app, &caller, &uri) {
        return elsewhere;
    }
    let page = match Dist::get("index.html") {
        Some(file) => file.data.into_owned(),
        None => NOT_BUILT.as_bytes().to_vec(),
    };
    let mut response = page.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(policy) = HeaderValue::from_str(&policy(&app.config.origin())) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(OPENER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(PERMISSIONS_POLICY, HeaderValue::from_static("camera=(), geolocation=(), microphone=()"));
    response
}

/// The pages work at the hub's own origin only (its cookies, the `Origin` of its writes, its CSP): leads there.
fn canonical(app: &App, caller: &Caller, uri: &http::Uri) -> Option<Response> {
    let host = caller.host.as_deref()?;
    let secure = app.config.public_url.scheme() == "https";
    let same = host.eq_ignore_ascii_case(&app.config.authority()) && (caller.scheme == Scheme::Https) == secure;
    if same {
        return None;
    }
    let path = uri.path_and_query().map_or("/app", |path| path.as_str());
    let target = HeaderValue::from_str(&format!("{}{path}", app.config.origin())).ok()?;
    Some((StatusCode::TEMPORARY_REDIRECT, [(http::header::LOCATION, target)]).into_response())
}

/// Scripts and styles come from the UI's own files alone, so that no answer of the API can ever be run as one.
fn policy(origin: &str) -> String {
    format!(
        "default-src 'none'; script-src {origin}/app/assets/; style-src {origin}/app/assets/; img-src 'self'; \
         font-src 'self'; media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types vue"
    )
}

/// A file of the UI. Their names carry a hash, so that they may be kept for ever.
async fn asset(Path(path): Path<String>) -> Response {
    let Some(file) = Dist::get(&format!("assets/{path}")) else { return ApiError::no_route().into_response() };
    let mut response = file.data.into_owned().into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(&path)));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or_default() {
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "webp" => "image/webp",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
