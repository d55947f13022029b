//! `/api/v1/me/libraries`: the libraries of one of the user's servers, as its last heartbeat named them (upstream-api s.2.4).

use axum::Json;
use axum::extract::{Query, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::{ApiError, ErrorBody};
use super::my_servers::server_id;
use super::user::User;
use crate::app::grants::GrantError;
use crate::app::{App, servers};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(my_libraries))
}

/// Of which server.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct LibrariesQuery {
    #[serde(default)]
    server_id: String,
}

/// A library of a server.
#[derive(Serialize, ToSchema)]
struct ServerLibrary {
    id: String,
    name: String,
}

/// By name.
#[derive(Serialize, ToSchema)]
struct LibraryList {
    libraries: Vec<ServerLibrary>,
}

/// The libraries of one of the user's own servers. A server that is not theirs and one that is not there look the same.
#[utoipa::path(get, path = "/api/v1/me/libraries", tag = "my servers", params(LibrariesQuery),
    security(("bearer" = []), ("session" = [])), responses(
    (status = 200, body = LibraryList), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn my_libraries(
    State(app): State<App>,
    User(who): User,
    Query(query): Query<LibrariesQuery>,
) -> Result<Json<LibraryList>, ApiError> {
    if query.server_id.is_empty() {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "server_id is required", "missing_server_id")
            .message("server_id is required"));
    }
    let not_owner = || {
        ApiError::new(StatusCode::FORBIDDEN, "You do not own this server", "not_server_owner")
            .message("You do not own this server")
    };
    let server = server_id(&query.server_id).map_err(|_| not_owner())?;
    let libraries = servers::libraries(&app, who.user, server).await.map_err(|error| match error {
        GrantError::NotFound | GrantError::Denied => not_owner(),
        GrantError::Store(error) => error.into(),
    })?;
    let libraries = libraries.into_iter().map(|library| ServerLibrary { id: library.id, name: library.name });
    Ok(Json(LibraryList { libraries: libraries.collect() }))
}
