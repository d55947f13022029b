//! `/api/v1/me`: who am I?

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::accounts::UserBody;
use super::error::{ApiError, ErrorBody};
use super::my_servers::{self, ServerInfo};
use super::user::User;
use crate::app::App;
use crate::domain::user_token::UserClaims;
use crate::store::users;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(me)).routes(routes!(auth_me))
}

/// The caller.
#[derive(Serialize, ToSchema)]
struct Me {
    user: UserBody,
    claims: UserClaims,
    servers: Vec<ServerInfo>,
}

/// The caller's account, claims and servers.
#[utoipa::path(get, path = "/api/v1/me", tag = "accounts", security(("bearer" = []), ("session" = [])),
    responses((status = 200, body = Me), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn me(State(app): State<App>, User(caller): User) -> Result<Json<Me>, ApiError> {
    let mut conn = app.db.read().await?;
    let user = users::find(&mut conn, caller.user).await?;
    drop(conn);
    let user = user.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "User not found", "user.not_found"))?;
    let servers = my_servers::infos(&app, caller.user).await?;
    Ok(Json(Me { user: user.into(), claims: caller.claims, servers }))
}

/// The same as `/api/v1/me`.
#[utoipa::path(get, path = "/api/v1/auth/me", tag = "accounts", security(("bearer" = []), ("session" = [])),
    responses((status = 200, body = Me), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
async fn auth_me(app: State<App>, user: User) -> Result<Json<Me>, ApiError> {
    me(app, user).await
}
