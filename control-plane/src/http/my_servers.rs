//! `/api/v1/me/servers`: a user's servers (upstream-api s.2.4), and programs' tickets for them (trust s.2.1).

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header::USER_AGENT;
use http::{HeaderMap, StatusCode};
use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::{ServerId, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::Body;
use super::error::{ApiError, ErrorBody};
use super::notices::ServerNotice;
use super::user::User;
use crate::app::App;
use crate::app::grants::GrantError;
use crate::app::names::{self, AccessError};
use crate::app::servers::{self, Overview};
use crate::app::tickets::{self, Signed, TicketError};
use crate::app::{legacy_tunnels, notices};
use crate::domain::name::{Name, access_of, access_word, tls_word};
use crate::domain::server::kind_word;
use crate::timestamp::Timestamp;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(detail, unclaim, change))
        .routes(routes!(access_info))
        .routes(routes!(set_name))
        .routes(routes!(viewer_ticket))
        .routes(routes!(roll_credentials))
}

/// A server in a list. The mobile and Roku clients look for the `snake_case` names.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServerInfo {
    server_id: String,
    user_id: String,
    server_name: String,
    version: String,
    /// Unix seconds.
    last_seen_at: Option<i64>,
    /// `online` or `offline`.
    status: &'static str,
    hostname_candidates: Vec<String>,
    /// Has it a tunnel now?
    relay_active: bool,
    library_count: Option<i64>,
    /// The label of its name.
    subdomain: Option<String>,
    /// `generic` (behind our agent) or `phlix`.
    kind: &'static str,
    /// Of its name, with or without a tunnel.
    url: Option<String>,
    #[serde(flatten)]
    aliases: Aliases,
}

/// The same again, for clients that want it so.
#[derive(Serialize, ToSchema)]
struct Aliases {
    #[serde(rename = "server_id")]
    id: String,
    #[serde(rename = "server_name")]
    name: String,
    #[serde(rename = "last_seen_at")]
    seen: Option<i64>,
    #[serde(rename = "relay_active")]
    active: bool,
    /// The first address that the server gave.
    hostname: Option<String>,
    relay_hostname: Option<String>,
    capabilities: Vec<String>,
}

impl ServerInfo {
    pub(super) fn of(overview: Overview, app: &App) -> Self {
        let url = overview.url(app.config.names_port);
        let subdomain = overview.label().map(str::to_owned);
        let relay_hostname = overview.names.first().map(|name| name.host.to_string());
        let Overview { server, status, has_tunnel, .. } = overview;
        let seen = server.last_seen_at.map(Timestamp::seconds);
        Self {
            aliases: Aliases {
                id: server.id.to_string(),
                name: server.name.clone(),
                seen,
                active: has_tunnel,
                hostname: server.hostname_candidates.first().cloned(),
                relay_hostname,
                capabilities: Vec::new(),
            },
            server_id: server.id.to_string(),
            user_id: server.owner.to_string(),
            server_name: server.name,
            version: server.version,
            last_seen_at: seen,
            status: status.as_str(),
            hostname_candidates: server.hostname_candidates,
            relay_active: has_tunnel,
            library_count: server.library_count,
            subdomain,
            kind: kind_word(server.kind),
            url,
        }
    }
}

/// A user's servers, as `/api/v1/me` shows them too.
pub(super) async fn infos(app: &App, user: UserId) -> Result<Vec<ServerInfo>, ApiError> {
    Ok(servers::list(app, user).await?.into_iter().map(|overview| ServerInfo::of(overview, app)).collect())
}

/// Newest first.
#[derive(Serialize, ToSchema)]
struct ServerList {
    servers: Vec<ServerInfo>,
}

/// The user's servers.
#[utoipa::path(get, path = "/api/v1/me/servers", tag = "my servers", security(("bearer" = []), ("session" = [])),
    responses((status = 200, body = ServerList), (status = 401, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn list(State(app): State<App>, User(who): User, headers: HeaderMap) -> Result<Response, ApiError> {
    let list = ServerList { servers: infos(&app, who.user).await? };
    if !is_roku(&headers) {
        return Ok(Json(list).into_response());
    }
    // The Roku client reads the list below `body` alone (upstream-api s.7.4).
    #[derive(Serialize)]
    struct ForRoku<'a> {
        servers: &'a [ServerInfo],
        body: &'a ServerList,
    }
    Ok(Json(ForRoku { servers: &list.servers, body: &list }).into_response())
}

/// Roku's own HTTP client names itself `Roku/DVP-..`.
fn is_roku(headers: &HeaderMap) -> bool {
    headers.get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"Roku/"))
}

/// A server's page.
#[derive(Serialize, ToSchema)]
struct ServerDetail {
    server: ServerRecord,
    /// Counters of a legacy tunnel; native ones have none here.
    #[schema(value_type = Option<Object>)]
    relay_session: Option<()>,
    /// The last 20, newest first.
    heartbeat_history: Vec<HeartbeatRecord>,
    #[schema(value_type = Option<Object>)]
    tls_status: Option<()>,
    /// The one of its URL first.
    names: Vec<ServerName>,
    /// How many of them its owner may pick, beside the one that the hub made.
    most_names: usize,
    /// What its owner should know, newest first.
    notices: Vec<ServerNotice>,
}

/// A server, with upstream's names of its fields.
#[derive(Serialize, ToSchema)]
struct ServerRecord {
    id: String,
    server_name: String,
    /// `generic` or `phlix`.
    kind: &'static str,
    version: String,
    /// `online` or `offline`.
    status: &'static str,
    /// Unix seconds.
    last_seen_at: Option<i64>,
    hostname_candidates: Vec<String>,
    relay_active: bool,
    subdomain: Option<String>,
    fqdn: Option<String>,
    url: Option<String>,
    /// Are the paths refused that media servers open to local callers?
    guard_local_paths: bool,
    /// Are tunnels without TLS refused? Set by the first tunnel with TLS. For Phlix servers; our agent's are always encrypted.
    tls_only: bool,
}

/// A heartbeat of the past.
#[derive(Serialize, ToSchema)]
struct HeartbeatRecord {
    id: String,
    version: String,
    uptime_seconds: i64,
    active_sessions: i64,
    active_transcodes: i64,
    /// Unix seconds.
    received_at: i64,
}

/// A name of a server.
#[derive(Serialize, ToSchema)]
pub(super) struct ServerName {
    host: String,
    url: String,
    /// `protected` (viewers sign in at the hub) or `open` (the server's own login guards it).
    access: &'static str,
    /// `terminated` or `passthrough`.
    tls: &'static str,
    /// The hub made it when the server was claimed; the others were picked.
    generated: bool,
}

impl ServerName {
    pub(super) fn of(name: &Name, app: &App) -> Self {
        Self {
            host: name.host.to_string(),
            url: name.url(app.config.names_port),
            access: access_word(name.access),
            tls: tls_word(name.tls),
            generated: name.is_generated(),
        }
    }
}

pub(super) fn server_id(text: &str) -> Result<ServerId, ApiError> {
    text.parse().map_err(|_| GrantError::NotFound.into())
}

/// One of the user's servers.
#[utoipa::path(get, path = "/api/v1/me/servers/{id}", tag = "my servers", params(("id" = String, Path)),
    security(("bearer" = []), ("session" = [])), responses(
    (status = 200, body = ServerDetail), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn detail(
    State(app): State<App>,
    User(who): User,
    Path(id): Path<String>,
) -> Result<Json<ServerDetail>, ApiError> {
    let (overview, beats) = servers::detail(&app, who.user, server_id(&id)?).await?;
    let notices = notices::of_server(&app, overview.server.id).await?.into_iter().map(ServerNotice::from).collect();
    let url = overview.url(app.config.names_port);
    let subdomain = overview.label().map(str::to_owned);
    let Overview { server, status, has_tunnel, names } = overview;
    let beat = |beat: crate::store::heartbeats::Beat| HeartbeatRecord {
        id: beat.id,
        version: beat.version,
        uptime_seconds: beat.uptime_seconds,
        active_sessions: beat.active_sessions,
        active_transcodes: beat.active_transcodes,
        received_at: beat.received_at.seconds(),
    };
    Ok(Json(ServerDetail {
        server: ServerRecord {
            id: server.id.to_string(),
            server_name: server.name,
            kind: kind_word(server.kind),
            version: server.version,
            status: status.as_str(),
            last_seen_at: server.last_seen_at.map(Timestamp::seconds),
            hostname_candidates: server.hostname_candidates,
            relay_active: has_tunnel,
            subdomain,
            fqdn: names.first().map(|name| name.host.to_string()),
            url,
            guard_local_paths: server.guard_local_paths,
            tls_only: server.tls_since.is_some(),
        },
        relay_session: None,
        heartbeat_history: beats.into_iter().map(beat).collect(),
        tls_status: None,
        names: names.iter().map(|name| ServerName::of(name, &app)).collect(),
        most_names: app.config.limits.names_per_server,
        notices,
    }))
}

/// What an owner may set.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
struct SettingsBody {
    /// Refuse the paths that media servers open to local callers, such as Jellyfin's restart, shutdown and start-up wizard.
    guard_local_paths: Option<bool>,
    /// Refuse tunnels of this Phlix server without TLS. `false` forgets that it ever used TLS; the next tunnel with TLS sets it
    /// again.
    tls_only: Option<bool>,
}

/// What is set.
#[derive(Serialize, ToSchema)]
struct ServerSettings {
    guard_local_paths: bool,
    tls_only: bool,
}

/// Changes a server's settings. Edges go by it within two seconds. Another's server is not found.
#[utoipa::path(put, path = "/api/v1/me/servers/{id}", tag = "my servers", params(("id" = String, Path)),
    request_body = SettingsBody, security(("bearer" = []), ("session" = [])), responses(
    (status = 200, body = ServerSettings), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn change(
    State(app): State<App>,
    User(who): User,
    Path(id): Path<String>,
    Body(form): Body<SettingsBody>,
) -> Result<Json<ServerSettings>, ApiError> {
    let id = server_id(&id)?;
    if form.guard_local_paths.is_none() && form.tls_only.is_none() {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "Bad Request", "invalid_request")
            .message("guard_local_paths or tls_only must be true or false"));
    }
    if let Some(on) = form.guard_local_paths {
        servers::set_guard(&app, who.user, id, on).await.map_err(secret)?;
    }
    if let Some(required) = form.tls_only {
        legacy_tunnels::set_tls_only(&app, who.user, id, required).await.map_err(secret)?;
    }
    let server = servers::find(&app, who.user, id).await.map_err(secret)?.server;
    Ok(Json(ServerSettings { guard_local_paths: server.guard_local_paths, tls_only: server.tls_since.is_some() }))
}

/// For routes that upstream does not have: whether another's server exists is nobody's business.
//= promises T14
pub(super) fn secret(error: GrantError) -> GrantError {
    match error {
        GrantError::Denied => GrantError::NotFound,
        error => error,
    }
}

/// Gives a server up: its names, tickets and tunnels end.
#[utoipa::path(delete, path = "/api/v1/me/servers/{id}", tag = "my servers", params(("id" = String, Path)),
    security(("bearer" = []), ("session" = [])), responses(
    (status = 204), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn unclaim(State(app): State<App>, User(who): User, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    servers::unclaim(&app, who.user, server_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The best way to a server.
#[derive(Serialize, ToSchema)]
struct AccessInfo {
    server_id: String,
    /// The first address that the server gave of itself; nobody has tried it.
    direct_url: Option<String>,
    /// Its name, while it has a tunnel.
    relay_url: Option<String>,
    relay_active: bool,
}

/// How to reach a server now.
#[utoipa::path(get, path = "/api/v1/me/servers/{id}/access-info", tag = "my servers", params(("id" = String, Path)),
    security(("bearer" = []), ("session" = [])), responses(
    (status = 200, body = AccessInfo), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn access_info(
    State(app): State<App>,
    User(who): User,
    Path(id): Path<String>,
) -> Result<Json<AccessInfo>, ApiError> {
    let overview = servers::find(&app, who.user, server_id(&id)?).await?;
    Ok(Json(AccessInfo {
        server_id: overview.server.id.to_string(),
        direct_url: overview.server.direct_url().map(str::to_owned),
        // Without the slash at its end: clients join paths to it.
        relay_url: overview
            .url(app.config.names_port)
            .filter(|_| overview.has_tunnel)
            .map(|url| url.trim_end_matches('/').to_owned()),
        relay_active: overview.has_tunnel,
    }))
}

/// Who gets in.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
struct NameBody {
    /// `protected` or `open`.
    access: Option<String>,
}

/// Opens or closes a name of a server.
#[utoipa::path(put, path = "/api/v1/me/servers/{id}/names/{host}", tag = "my servers",
    params(("id" = String, Path), ("host" = String, Path)), request_body = NameBody,
    security(("bearer" = []), ("session" = [])), responses(
    (status = 200, body = ServerName), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
    (status = 503, body = ErrorBody)))]
async fn set_name(
    State(app): State<App>,
    User(who): User,
    Path((id, host)): Path<(String, String)>,
    Body(form): Body<NameBody>,
) -> Result<Json<ServerName>, ApiError> {
    let access = form.access.as_deref().and_then(access_of).ok_or_else(|| {
        ApiError::new(StatusCode::BAD_REQUEST, "Bad Request", "invalid_request")
            .message("access must be protected or open")
    })?;
    let id = server_id(&id)?;
    let host: Hostname = host.parse().map_err(|_| AccessError::NoSuchName)?;
    let name = names::set_access(&app, who.user, id, &host, access).await?;
    Ok(Json(ServerName::of(&name, &app)))
}

/// A ticket that a program shows as `X-Phlix-Ticket`.
#[derive(Serialize, ToSchema)]
struct ViewerTicketReply {
    ticket: String,
    /// Unix seconds.
    expires_at: i64,
    /// Where it is good.
    url: String,
}

/// For which name.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
struct ViewerTicketBody {
    /// One of the server's names; the first of them where none is said.
    host: Option<String>,
}

/// A ticket for a program, good for ten minutes at one of the server's names.
#[utoipa::path(post, path = "/api/v1/me/servers/{id}/viewer-ticket", tag = "my servers", params(("id" = String, Path)),
    request_body(content = Option<ViewerTicketBody>, content_type = "application/json"), security(("bearer" = []), ("session" = [])), responses(
    (status = 201, body = ViewerTicketReply), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn viewer_ticket(
    State(app): State<App>,
    User(who): User,
    Path(id): Path<String>,
    Body(form): Body<ViewerTicketBody>,
) -> Result<(StatusCode, Json<ViewerTicketReply>), ApiError> {
    let id = server_id(&id)?;
    let host = form.host.map(|host| host.parse::<Hostname>()).transpose().map_err(|_| TicketError::NoName)?;
    let (Signed { ticket, expires_at }, name) = tickets::client(&app, &who, id, host.as_ref()).await?;
    let url = name.url(app.config.names_port);
    Ok((StatusCode::CREATED, Json(ViewerTicketReply { ticket, expires_at: expires_at.seconds(), url })))
}

/// Ends all credentials of a server, where they may have been copied. The server must be paired again.
#[utoipa::path(post, path = "/api/v1/me/servers/{id}/roll-credentials", tag = "my servers",
    params(("id" = String, Path)), security(("bearer" = []), ("session" = [])), responses(
    (status = 204), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn roll_credentials(
    State(app): State<App>,
    User(who): User,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    servers::roll_credentials(&app, who.user, server_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<GrantError> for ApiError {
    fn from(error: GrantError) -> Self {
        match error {
            GrantError::NotFound => {
                Self::new(StatusCode::NOT_FOUND, "Server not found", "server.not_found").message("Server not found")
            }
            GrantError::Denied => {
                Self::new(StatusCode::FORBIDDEN, "Forbidden", "server.not_owned").message("This server is not yours.")
            }
            GrantError::Store(error) => error.into(),
        }
    }
}

impl From<AccessError> for ApiError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Grant(error) => error.into(),
            AccessError::NoSuchName => Self::new(StatusCode::NOT_FOUND, "Name not found", "server.name_not_found")
                .message("The server has no such name."),
            AccessError::NeverOpen => Self::new(StatusCode::CONFLICT, "Conflict", "server.name_never_open")
                .message("A Phlix server relies on the hub to know who its viewers are: its name can't be open."),
            AccessError::Store(error) => error.into(),
        }
    }
}

impl From<TicketError> for ApiError {
    fn from(error: TicketError) -> Self {
        match error {
            TicketError::SignedOut => Self::unauthorized("auth.invalid_token"),
            TicketError::Invalid => Self::unauthorized("auth.invalid_ticket"),
            TicketError::NotThisEdge => Self::new(StatusCode::FORBIDDEN, "Forbidden", "edge.not_trusted")
                .message("This edge is not trusted with that."),
            TicketError::NoName => Self::new(StatusCode::NOT_FOUND, "Name not found", "server.name_not_found")
                .message("The server has no such name."),
            TicketError::Grant(error) => error.into(),
            TicketError::Keys(error) => error.into(),
        }
    }
}
