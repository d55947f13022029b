//! Where the WebSockets of servers and client apps are: for whoever asks on the hub's HTTP port instead (legacy-relay-wire s.3.2,
//! upstream-api s.1.1).

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::header::UPGRADE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use phlix_protocol::ids::ServerId;
use serde::Serialize;

use super::enrolled::not_found;
use crate::app::App;

const WS_ENDPOINT: HeaderName = HeaderName::from_static("x-ws-endpoint");

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/client/{id}", get(mount))
        .route("/client/{id}/", get(mount))
        .route("/api/v1/servers/{id}/relay", post(tunnel))
}

#[derive(Serialize)]
struct Signpost {
    error: &'static str,
    code: &'static str,
    message: &'static str,
    ws_endpoint: String,
}

/// The mount for client apps is on a port of its own: 426, or 501 to who tried to upgrade here.
async fn mount(State(app): State<App>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let status = if headers.contains_key(UPGRADE) { StatusCode::NOT_IMPLEMENTED } else { StatusCode::UPGRADE_REQUIRED };
    let message = "Open a WebSocket at ws_endpoint, with a relay token.";
    let port = app.config.relay_client_port;
    point(&app, &id, port, "/client/", status, ("UPGRADE_REQUIRED", "relay.client_ws_endpoint", message))
}

/// Tunnels of servers come to a port of their own.
async fn tunnel(State(app): State<App>, Path(id): Path<String>) -> Response {
    let message = "Open a WebSocket at ws_endpoint and say HELLO with the enrollment.";
    let port = app.config.relay_server_port;
    let words = ("NOT_IMPLEMENTED", "relay.server_ws_endpoint", message);
    match id.parse::<ServerId>() {
        Ok(_) => answer(StatusCode::NOT_IMPLEMENTED, app.config.websocket_url(port, "/"), words),
        Err(_) => not_found().into_response(),
    }
}

type Words = (&'static str, &'static str, &'static str);

fn point(app: &App, id: &str, port: u16, path: &str, status: StatusCode, words: Words) -> Response {
    match id.parse::<ServerId>() {
        Ok(id) => answer(status, app.config.websocket_url(port, &format!("{path}{id}")), words),
        Err(_) => not_found().into_response(),
    }
}

fn answer(status: StatusCode, ws_endpoint: String, (error, code, message): Words) -> Response {
    let header = HeaderValue::from_str(&ws_endpoint);
    let mut response = (status, Json(Signpost { error, code, message, ws_endpoint })).into_response();
    if let Ok(header) = header {
        response.headers_mut().insert(WS_ENDPOINT, header);
    }
    if status == StatusCode::UPGRADE_REQUIRED {
        // RFC 9110 s.15.5.22: such an answer says to what.
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    response
}
