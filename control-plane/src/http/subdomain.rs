//! `/api/v1/servers/{id}/subdomain`: a server takes the name that the hub makes for it, or gives it up (upstream-api s.2.3).
//!
//! Unlike the rest of a server's calls these name no protocol, and say 401 also to a server that asks for another.

use axum::Json;
use axum::Router;
use axum::extract::{FromRequest, Request, State};
use axum::routing::post;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::enrolled::{EnrolledServer, not_found};
use super::error::{ApiError, ErrorBody};
use crate::app::App;
use crate::app::enrollments::EnrollmentError;
use crate::app::subdomains::{self, SubdomainError};
use crate::domain::server::Server;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(allocate, release))
}

/// The older path of the same.
pub(super) fn alias() -> Router<App> {
    Router::new().route("/servers/{id}/subdomain", post(allocate).delete(release))
}

/// The server that asks. Whatever body it sends says nothing: `[]`, `{}` or none.
struct Asking(Server);

impl FromRequest<App> for Asking {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let asking = match EnrolledServer::read(request, app).await? {
            Ok(asking) => asking,
            Err(error) => return Err(refuse(error)),
        };
        Ok(Self(asking.enrolled.server))
    }
}

/// Upstream's words: the key is the code and the message.
fn refuse(error: EnrollmentError) -> ApiError {
    let unauthorized = |key: &'static str| ApiError::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", key).message(key);
    match error {
        EnrollmentError::Missing => unauthorized("auth.required"),
        EnrollmentError::Invalid => unauthorized("auth.invalid_token"),
        EnrollmentError::Expired => unauthorized("auth.enrollment_expired"),
        EnrollmentError::OtherServer => unauthorized("auth.server_mismatch"),
        EnrollmentError::Revoked => unauthorized("auth.enrollment_revoked"),
        EnrollmentError::NoProof => unauthorized("auth.proof_required"),
        EnrollmentError::BadProof => unauthorized("auth.proof_invalid"),
        EnrollmentError::Replayed => unauthorized("auth.proof_replayed"),
        EnrollmentError::Gone | EnrollmentError::TooMany(_) | EnrollmentError::Keys(_) => error.into(),
    }
}

/// The server's name. The paths are empty: edges keep the certificates.
#[derive(Serialize, ToSchema)]
struct Subdomain {
    subdomain: String,
    fqdn: String,
    tls_cert_path: &'static str,
    tls_key_path: &'static str,
}

/// The name that the hub makes for the server: the one that it has, else the one that it gave up. The body is `[]`, `{}` or none.
#[utoipa::path(post, path = "/api/v1/servers/{id}/subdomain", tag = "servers", params(("id" = String, Path)),
    security(("enrollment" = [])), responses(
    (status = 200, body = Subdomain), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn allocate(State(app): State<App>, Asking(server): Asking) -> Result<Json<Subdomain>, ApiError> {
    let name = subdomains::allocate(&app, &server).await?;
    let subdomain = name.host.as_str().split('.').next().unwrap_or_default().to_owned();
    Ok(Json(Subdomain { subdomain, fqdn: name.host.to_string(), tls_cert_path: "", tls_key_path: "" }))
}

/// Gives that name up. Those that the owner picked stay.
#[utoipa::path(delete, path = "/api/v1/servers/{id}/subdomain", tag = "servers", params(("id" = String, Path)),
    security(("enrollment" = [])), responses(
    (status = 204), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn release(State(app): State<App>, Asking(server): Asking) -> Result<StatusCode, ApiError> {
    subdomains::give_up(&app, &server).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<SubdomainError> for ApiError {
    fn from(error: SubdomainError) -> Self {
        match error {
            SubdomainError::Gone => not_found(),
            SubdomainError::NoName => {
                tracing::error!("none of a server's labels is free");
                Self::internal()
            }
            SubdomainError::TooMany(wait) => Self::rate_limited(wait),
            SubdomainError::Store(error) => error.into(),
        }
    }
}
