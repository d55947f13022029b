//! `/api/v1/servers/{id}`: what a server does for itself with its enrollment (upstream-api s.2.3).

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use phlix_protocol::uplink::ServerKind;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::Fields;
use super::claims::{candidates, line, malformed};
use super::enrolled::EnrolledServer;
use super::error::{ApiError, ErrorBody};
use super::my_servers::ServerInfo;
use crate::app::{App, enrollments, servers, tickets};
use crate::domain::heartbeat::{Heartbeat, Library};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(heartbeat))
        .routes(routes!(renew))
        .routes(routes!(info))
        .routes(routes!(deregister))
        .routes(routes!(tunnel_ticket))
}

/// Where a server finds the hub's public keys.
pub(super) fn jwks_url(app: &App) -> String {
    format!("{}/.well-known/jwks.json", app.config.base_url())
}

/// Libraries of one server.
const MAX_LIBRARIES: usize = 1000;

/// What a server says every minute. Older servers' `snake_case` is understood too.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes the body, which is read field by field")]
struct HeartbeatBody {
    server_id: String,
    version: String,
    /// Unix seconds by the server's clock; the hub goes by its own.
    timestamp: i64,
    uptime_seconds: i64,
    active_sessions: i64,
    active_transcodes: i64,
    hostname_candidates: Vec<String>,
    libraries: Vec<HeartbeatLibrary>,
}

/// A library; the keys are snake_case.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes a part of the body")]
struct HeartbeatLibrary {
    library_id: String,
    library_name: String,
}

/// `{"status": "ok"}`.
#[derive(Serialize, ToSchema)]
struct HeartbeatReply {
    status: &'static str,
}

/// A sign of life.
#[utoipa::path(post, path = "/api/v1/servers/{id}/heartbeat", tag = "servers", params(("id" = String, Path)),
    request_body = HeartbeatBody, security(("enrollment" = [])), responses(
    (status = 200, body = HeartbeatReply), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 429, body = ErrorBody),
    (status = 503, body = ErrorBody)))]
async fn heartbeat(State(app): State<App>, asking: EnrolledServer) -> Result<Json<HeartbeatReply>, ApiError> {
    let Fields(fields) = Fields::parse(&asking.headers, &asking.body);
    let server = &asking.enrolled.server;
    let beat = read_heartbeat(&fields, &server.version)?;
    enrollments::heartbeat(&app, server.id, &beat).await?;
    Ok(Json(HeartbeatReply { status: "ok" }))
}

fn read_heartbeat(fields: &Map<String, Value>, known_version: &str) -> Result<Heartbeat, ApiError> {
    let invalid = || malformed("HeartbeatRequest is malformed");
    // Servers from before the rename; what they don't say is as it was, or zero.
    let is_old = fields.contains_key("uptime_seconds") && !fields.contains_key("uptimeSeconds");
    let number = |new: &str, old: &str| match (fields.get(if is_old { old } else { new }), is_old) {
        (Some(value), _) => value.as_i64().filter(|number| *number >= 0).ok_or_else(invalid),
        (None, true) => Ok(0),
        (None, false) => Err(invalid()),
    };
    if !is_old {
        // Required, and neither is believed: the path names the server, and the hub's clock is the time.
        //= promises T32
        line(fields.get("serverId"), 64).ok_or_else(invalid)?;
        fields.get("timestamp").and_then(Value::as_i64).ok_or_else(invalid)?;
    }
    let version = match fields.get("version") {
        None if is_old => known_version.to_owned(),
        version => line(version, 32).ok_or_else(invalid)?,
    };
    let listed = fields.get(if is_old { "hostname_candidates" } else { "hostnameCandidates" });
    Ok(Heartbeat {
        version,
        uptime_seconds: number("uptimeSeconds", "uptime_seconds")?,
        active_sessions: number("activeSessions", "active_sessions")?,
        active_transcodes: number("activeTranscodes", "active_transcodes")?,
        hostname_candidates: candidates(listed).ok_or_else(invalid)?,
        libraries: match fields.get("libraries") {
            None | Some(Value::Null) => None,
            Some(libraries) => Some(read_libraries(libraries).ok_or_else(invalid)?),
        },
    })
}

fn read_libraries(value: &Value) -> Option<Vec<Library>> {
    let list = value.as_array().filter(|list| list.len() <= MAX_LIBRARIES)?;
    let library = |value: &Value| {
        Some(Library { id: line(value.get("library_id"), 255)?, name: line(value.get("library_name"), 255)? })
    };
    let mut libraries = list.iter().map(library).collect::<Option<Vec<_>>>()?;
    libraries.sort();
    libraries.dedup_by(|a, b| a.id == b.id);
    Some(libraries)
}

/// A new enrollment.
#[derive(Serialize, ToSchema)]
struct Renewed {
    enrollment_jwt: String,
    /// Seconds.
    expires_in: u64,
}

/// A new enrollment; the old one is good until it expires. The body is `{}` or `[]`.
#[utoipa::path(post, path = "/api/v1/servers/{id}/renew", tag = "servers", params(("id" = String, Path)),
    security(("enrollment" = [])), responses(
    (status = 200, body = Renewed), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn renew(State(app): State<App>, asking: EnrolledServer) -> Result<Json<Renewed>, ApiError> {
    let minted = enrollments::renew(&app, &asking.enrolled).await?;
    Ok(Json(Renewed { enrollment_jwt: minted.jwt, expires_in: minted.expires_in.as_secs() }))
}

/// A server's own record.
#[utoipa::path(get, path = "/api/v1/servers/{id}/info", tag = "servers", params(("id" = String, Path)),
    security(("enrollment" = [])), responses(
    (status = 200, body = ServerInfo), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn info(State(app): State<App>, asking: EnrolledServer) -> Result<Json<ServerInfo>, ApiError> {
    let overview = servers::overview(&app, asking.enrolled.server).await?;
    Ok(Json(ServerInfo::of(overview, &app)))
}

/// A server gives itself up.
#[utoipa::path(delete, path = "/api/v1/servers/{id}", tag = "servers", params(("id" = String, Path)),
    security(("enrollment" = [])), responses(
    (status = 204), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn deregister(State(app): State<App>, asking: EnrolledServer) -> Result<StatusCode, ApiError> {
    servers::deregister(&app, asking.enrolled.server.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What an agent needs to open tunnels.
#[derive(Serialize, ToSchema)]
struct TunnelTicketReply {
    /// Shown to edges; worthless without the server's key.
    ticket: String,
    /// The edges that may be dialled, signed by the hub.
    edges: String,
    /// Of the ticket, unix seconds.
    expires_at: i64,
}

/// A ticket for tunnels, and the edges where. Native servers only.
#[utoipa::path(post, path = "/api/v1/servers/{id}/tunnel-ticket", tag = "servers", params(("id" = String, Path)),
    security(("enrollment" = [])), responses(
    (status = 200, body = TunnelTicketReply), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn tunnel_ticket(State(app): State<App>, asking: EnrolledServer) -> Result<Json<TunnelTicketReply>, ApiError> {
    if asking.enrolled.server.kind != ServerKind::Generic {
        return Err(ApiError::new(StatusCode::FORBIDDEN, "Forbidden", "server.not_native")
            .message("Only servers that proved their key open tunnels of this kind."));
    }
    let pass = tickets::tunnel(&app, &asking.enrolled).await?;
    let tickets::Signed { ticket, expires_at } = pass.ticket;
    Ok(Json(TunnelTicketReply { ticket, edges: pass.edges, expires_at: expires_at.seconds() }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Option<Heartbeat> {
        let Value::Object(fields) = value else { panic!("an object") };
        read_heartbeat(&fields, "9.9").ok()
    }

    #[test]
    fn both_spellings_of_a_heartbeat_are_understood() {
        let new = json!({"serverId": "s", "version": "1.2", "timestamp": 7, "uptimeSeconds": 60, "activeSessions": 1,
            "activeTranscodes": 2, "hostnameCandidates": ["a:1"],
            "libraries": [{"library_id": "b", "library_name": "B"}, {"library_id": "a", "library_name": "A"}]});
        let beat = read(new.clone()).unwrap();
        assert_eq!((beat.uptime_seconds, beat.active_sessions, beat.active_transcodes), (60, 1, 2));
        assert_eq!(beat.libraries.unwrap()[0].id, "a");
        let old = json!({"server_id": "s", "uptime_seconds": 60, "active_sessions": 1, "capabilities": [], "library_count": 3});
        let beat = read(old).unwrap();
        assert_eq!((beat.version.as_str(), beat.uptime_seconds, beat.active_transcodes), ("9.9", 60, 0));
        for (key, value) in [
            ("uptimeSeconds", json!("60")),
            ("uptimeSeconds", json!(1.5)),
            ("activeSessions", json!(null)),
            ("timestamp", json!("now")),
            ("version", json!("")),
            ("version", json!("v".repeat(33))),
            ("hostnameCandidates", json!("a")),
            ("hostnameCandidates", json!([1])),
            ("libraries", json!([{"library_id": "", "library_name": "A"}])),
            ("libraries", json!([{"library_id": "a"}])),
        ] {
            let mut broken = new.clone();
            broken[key] = value;
            assert_eq!(read(broken.clone()), None, "{broken}");
        }
    }
}
