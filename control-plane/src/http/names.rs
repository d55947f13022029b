//! `/api/v1/me/servers/{id}/names` and `/api/v1/me/names`: owners pick their servers' names.

use axum::Json;
use axum::extract::{Path, State};
use http::{StatusCode, Uri};
use phlix_protocol::hostname::Hostname;
use serde::{Deserialize, Serialize};
use url::form_urlencoded;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::Body;
use super::error::{ApiError, ErrorBody};
use super::my_servers::{ServerName, secret, server_id};
use super::user::User;
use crate::app::App;
use crate::app::picks::{self, Availability, PickError, Unavailable};
use crate::domain::label::{Kept, Malformed};
use crate::domain::name::Obstacle;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(add)).routes(routes!(remove)).routes(routes!(availability))
}

/// A label to have.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
struct PickBody {
    /// What stands in front of the hub's domain: 3 to 63 letters, digits and hyphens.
    label: Option<String>,
}

/// Adds a name to a server. It is protected until its owner opens it. Another's server is not found.
#[utoipa::path(post, path = "/api/v1/me/servers/{id}/names", tag = "my servers", params(("id" = String, Path)),
    request_body = PickBody, security(("bearer" = []), ("session" = [])), responses(
    (status = 201, body = ServerName), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
    (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn add(
    State(app): State<App>,
    User(who): User,
    Path(id): Path<String>,
    Body(form): Body<PickBody>,
) -> Result<(StatusCode, Json<ServerName>), ApiError> {
    let id = server_id(&id)?;
    let label = form.label.unwrap_or_default();
    let name = picks::add(&app, who.user, id, &label).await?;
    Ok((StatusCode::CREATED, Json(ServerName::of(&name, &app))))
}

/// Gives a name up: its links break at once, and for 120 days nobody but its owner can have it. The last one stays.
#[utoipa::path(delete, path = "/api/v1/me/servers/{id}/names/{host}", tag = "my servers",
    params(("id" = String, Path), ("host" = String, Path)), security(("bearer" = []), ("session" = [])), responses(
    (status = 204), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody), (status = 409, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn remove(
    State(app): State<App>,
    User(who): User,
    Path((id, host)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let id = server_id(&id)?;
    let host: Hostname = host.parse().map_err(|_| PickError::NoSuchName)?;
    picks::remove(&app, who.user, id, &host).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether a label can be had.
#[derive(Serialize, ToSchema)]
struct AvailabilityReply {
    /// As it was asked.
    label: String,
    /// The whole name that it would be; null where it is no label, or is kept from everybody.
    host: Option<String>,
    available: bool,
    /// `malformed`, `reserved`, `confusing`, `taken` or `quarantined`; null where it is available.
    reason: Option<&'static str>,
    /// The same for people.
    message: String,
}

/// Could the user have this label now? A hint for somebody who types: adding it decides.
#[utoipa::path(get, path = "/api/v1/me/names/availability", tag = "my servers", params(("label" = String, Query)),
    security(("bearer" = []), ("session" = [])), responses(
    (status = 200, body = AvailabilityReply), (status = 401, body = ErrorBody), (status = 429, body = ErrorBody),
    (status = 503, body = ErrorBody)))]
async fn availability(State(app): State<App>, User(who): User, uri: Uri) -> Result<Json<AvailabilityReply>, ApiError> {
    let query = uri.query().unwrap_or_default();
    let label = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "label");
    let label = label.map(|(_, label)| label.into_owned()).unwrap_or_default();
    let Availability { host, obstacle, was_own } = picks::availability(&app, who.user, &label).await?;
    let (reason, message) = match obstacle {
        Some(obstacle) => (Some(reason(&obstacle)), sentence(&obstacle)),
        None if was_own => (None, "It was yours before: you can have it back.".to_owned()),
        None => (None, "It is free.".to_owned()),
    };
    let host = host.map(|host| host.to_string());
    Ok(Json(AvailabilityReply { label, host, available: reason.is_none(), reason, message }))
}

/// For programs.
fn reason(unavailable: &Unavailable) -> &'static str {
    match unavailable {
        Unavailable::Malformed(_) => "malformed",
        Unavailable::Kept(Kept::Reserved) => "reserved",
        Unavailable::Kept(Kept::LooksReserved) | Unavailable::Held(Obstacle::LikeOwn(_) | Obstacle::LikeTaken) => {
            "confusing"
        }
        Unavailable::Held(Obstacle::Own | Obstacle::Taken) => "taken",
        Unavailable::Held(Obstacle::Quarantined) => "quarantined",
    }
}

/// For people. Which other name it looks like is told only to its owner.
fn sentence(unavailable: &Unavailable) -> String {
    match unavailable {
        Unavailable::Malformed(malformed) => Malformed::sentence(*malformed).to_owned(),
        Unavailable::Kept(Kept::Reserved) => "This name is reserved for the hub itself.".to_owned(),
        Unavailable::Kept(Kept::LooksReserved) => {
            "This looks too much like a name that is reserved for the hub.".to_owned()
        }
        Unavailable::Held(Obstacle::Own) => "You have this name already.".to_owned(),
        Unavailable::Held(Obstacle::Taken) => "Somebody else has this name.".to_owned(),
        Unavailable::Held(Obstacle::Quarantined) => {
            "Somebody else had this name until lately. It is kept for them for a while.".to_owned()
        }
        Unavailable::Held(Obstacle::LikeOwn(own)) => {
            format!("This looks too much like your own name {own}. Remove that one first.")
        }
        Unavailable::Held(Obstacle::LikeTaken) => "This looks too much like a name of somebody else.".to_owned(),
    }
}

impl From<PickError> for ApiError {
    fn from(error: PickError) -> Self {
        let conflict = |code, message: String| Self::new(StatusCode::CONFLICT, "Conflict", code).message(message);
        match error {
            PickError::Grant(error) => secret(error).into(),
            PickError::Unavailable(unavailable) => {
                let message = sentence(&unavailable);
                match reason(&unavailable) {
                    "malformed" => Self::new(StatusCode::BAD_REQUEST, "Bad Request", "name.malformed").message(message),
                    "reserved" => conflict("name.reserved", message),
                    "confusing" => conflict("name.confusing", message),
                    "quarantined" => conflict("name.quarantined", message),
                    _ => conflict("name.taken", message),
                }
            }
            PickError::TooMany(most) => {
                conflict("name.too_many", format!("A server can have {most} names of your choice. Remove one first."))
            }
            PickError::TooOften(wait) => Self::rate_limited(wait).message("Too many tries. Take a break."),
            PickError::TooManyNew(wait) => {
                Self::rate_limited(wait).message("You have taken many new names today. Come back later.")
            }
            PickError::NoSuchName => Self::new(StatusCode::NOT_FOUND, "Name not found", "server.name_not_found")
                .message("The server has no such name."),
            PickError::LastName => conflict(
                "server.last_name",
                "This is the server's only name: without it nobody could reach it. Add another one first.".to_owned(),
            ),
        }
    }
}
