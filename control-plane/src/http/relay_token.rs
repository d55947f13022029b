//! `/api/v1/me/servers/{id}/relay-token`: what a client app shows at the mount of a Phlix server's tunnel (upstream-api s.2.4).

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::Body;
use super::error::{ApiError, ErrorBody};
use super::my_servers::server_id;
use super::user::User;
use crate::app::App;
use crate::app::relay_tokens::{self, RelayTokenError};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(issue, withdraw))
}

/// A token, told once.
#[derive(Serialize, ToSchema)]
struct RelayToken {
    /// 64 hexadecimal digits.
    token: String,
    /// Unix seconds.
    expires_at: i64,
    server_id: String,
}

/// A relay token for one of the user's own servers, good for an hour. The body is `{}`, `[]` or none.
#[utoipa::path(post, path = "/api/v1/me/servers/{id}/relay-token", tag = "my servers", params(("id" = String, Path)),
    security(("bearer" = []), ("session" = [])), responses(
    (status = 201, body = RelayToken), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody), (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn issue(
    State(app): State<App>,
    User(who): User,
    Path(id): Path<String>,
) -> Result<(StatusCode, Json<RelayToken>), ApiError> {
    let id = server_id(&id)?;
    let issued = relay_tokens::issue(&app, &who, id).await?;
    let body = RelayToken { token: issued.token, expires_at: issued.expires_at.seconds(), server_id: id.to_string() };
    Ok((StatusCode::CREATED, Json(body)))
}

/// Which one.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
struct WithdrawBody {
    /// All of the user's tokens for this server where none is said.
    token: Option<String>,
}

/// Ends one of the user's relay tokens for a server, or all of them. Mounts that they opened end within two seconds.
#[utoipa::path(delete, path = "/api/v1/me/servers/{id}/relay-token", tag = "my servers", params(("id" = String, Path)),
    request_body(content = Option<WithdrawBody>, content_type = "application/json"),
    security(("bearer" = []), ("session" = [])), responses(
    (status = 204), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn withdraw(
    State(app): State<App>,
    User(who): User,
    Path(id): Path<String>,
    Body(form): Body<WithdrawBody>,
) -> Result<StatusCode, ApiError> {
    relay_tokens::withdraw(&app, who.user, server_id(&id)?, form.token.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<RelayTokenError> for ApiError {
    fn from(error: RelayTokenError) -> Self {
        match error {
            RelayTokenError::TooMany(wait) => Self::rate_limited(wait),
            RelayTokenError::Grant(error) => error.into(),
        }
    }
}
