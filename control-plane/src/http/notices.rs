//! `/api/v1/me/notices`: what an owner should know of their servers (trust s.2.3, s.9.6).

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ErrorBody};
use super::user::User;
use crate::app::{App, notices};
use crate::domain::notice::Notice;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(my_notices)).routes(routes!(dismiss))
}

/// Something that happened to a server, once or more.
#[derive(Serialize, ToSchema)]
pub(super) struct ServerNotice {
    id: String,
    server_id: String,
    server_name: String,
    /// `tunnel.plain`, `tunnel.new_address` or `credentials.old`.
    kind: &'static str,
    /// For people.
    message: &'static str,
    /// Addresses, for example; may be empty.
    detail: String,
    /// How often.
    times: i64,
    /// Unix seconds.
    first_at: i64,
    /// Unix seconds.
    last_at: i64,
}

impl From<Notice> for ServerNotice {
    fn from(notice: Notice) -> Self {
        Self {
            id: notice.id.to_string(),
            server_id: notice.server.to_string(),
            server_name: notice.server_name,
            kind: notice.kind.word(),
            message: notice.kind.message(),
            detail: notice.detail,
            times: notice.times,
            first_at: notice.first_at.seconds(),
            last_at: notice.last_at.seconds(),
        }
    }
}

/// Newest first.
#[derive(Serialize, ToSchema)]
struct NoticeList {
    notices: Vec<ServerNotice>,
}

/// What the user was told of their servers and has not dismissed.
#[utoipa::path(get, path = "/api/v1/me/notices", tag = "my servers", security(("bearer" = []), ("session" = [])),
    responses((status = 200, body = NoticeList), (status = 401, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn my_notices(State(app): State<App>, User(who): User) -> Result<Json<NoticeList>, ApiError> {
    let notices = notices::list(&app, who.user).await?.into_iter().map(ServerNotice::from).collect();
    Ok(Json(NoticeList { notices }))
}

/// The user has read a notice. Some kinds come again when it happens again.
#[utoipa::path(delete, path = "/api/v1/me/notices/{id}", tag = "my servers", params(("id" = String, Path)),
    security(("bearer" = []), ("session" = [])), responses(
    (status = 204), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn dismiss(State(app): State<App>, User(who): User, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    let is_theirs = match id.parse() {
        Ok(id) => notices::dismiss(&app, who.user, id).await?,
        Err(_) => false,
    };
    if is_theirs {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::new(StatusCode::NOT_FOUND, "Notice not found", "notice.not_found")
        .message("There is no such notice."))
}
