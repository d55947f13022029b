//! Paths that people know from upstream, and where they lead now (upstream-api s.1.5). The UI asks for a sign-in itself.

use axum::Router;
use axum::extract::{Path, RawQuery};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::LOCATION;

use crate::app::App;

/// From, to. The query is kept: `/claim-server?code=` is what the agents print.
const PAGES: &[(&str, &str)] = &[
    ("/", "/app/servers"),
    ("/login", "/app/login"),
    ("/signup", "/app/signup"),
    ("/my-servers", "/app/servers"),
    ("/claim-server", "/app/claim"),
    ("/invite-links", "/app/invite-links"),
    ("/requests", "/app/requests"),
    ("/federation", "/app/federation"),
    ("/federation/shares", "/app/federation/shares"),
    ("/manage-shares", "/app/shares"),
    ("/shared-with-me", "/app/shares"),
    ("/hub-settings", "/app/admin/settings"),
    ("/logs", "/app/admin/logs"),
    ("/audit-logs", "/app/admin/audit-logs"),
    ("/admin/requests", "/app/admin/requests"),
];

pub(super) fn routes() -> Router<App> {
    let mut router = Router::new();
    for (from, to) in PAGES.iter().copied() {
        router = router.route(from, get(async move |RawQuery(query): RawQuery| lead(to, query)));
    }
    router.route("/servers/{id}", get(server)).route("/invite/{token}", get(invite))
}

async fn server(Path(id): Path<String>, RawQuery(query): RawQuery) -> Response {
    lead(&format!("/app/servers/{}", segment(&id)), query)
}

async fn invite(Path(token): Path<String>, RawQuery(query): RawQuery) -> Response {
    lead(&format!("/app/invite/{}", segment(&token)), query)
}

/// One path segment, spelled so that it stays one.
fn segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

fn lead(to: &str, query: Option<String>) -> Response {
    let target = match query {
        Some(query) if !query.is_empty() => format!("{to}?{query}"),
        _ => to.to_owned(),
    };
    match http::HeaderValue::from_str(&target) {
        Ok(target) => (StatusCode::FOUND, [(LOCATION, target)]).into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}
