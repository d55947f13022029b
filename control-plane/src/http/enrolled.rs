//! Which server asks: the extractor of the routes that servers call with their enrollment (upstream-api s.2.3, trust s.2.3).

use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, StatusCode};

use super::body::read;
use super::error::ApiError;
use super::protocol::Protocol;
use super::user::bearer;
use crate::app::App;
use crate::app::enrollments::{self, Call, Enrolled, EnrollmentError};
use crate::app::keys::KeysError;

/// A server that is the one of the path, and what it sent.
pub(super) struct EnrolledServer {
    pub(super) enrolled: Enrolled,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl FromRequest<App> for EnrolledServer {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (mut head, body) = request.into_parts();
        Protocol::from_request_parts(&mut head, app).await?;
        Self::read(Request::from_parts(head, body), app).await?.map_err(Into::into)
    }
}

impl EnrolledServer {
    /// The same for routes that name no protocol, and that have their own words for who is not believed.
    pub(super) async fn read(request: Request, app: &App) -> Result<Result<Self, EnrollmentError>, ApiError> {
        let (mut head, body) = request.into_parts();
        let path = RawPathParams::from_request_parts(&mut head, app).await.map_err(|_| not_found())?;
        let id = path.iter().find(|(key, _)| *key == "id").map(|(_, id)| id.to_owned()).unwrap_or_default();
        let enrollment = bearer(&head.headers)?;
        if enrollment.is_none() {
            return Ok(Err(EnrollmentError::Missing));
        }
        let Ok(server) = id.parse() else { return Ok(Err(EnrollmentError::OtherServer)) };
        let body = read(body, app.config.limits.body).await?;
        let call = Call {
            method: head.method.as_str(),
            target: head.uri.path_and_query().map_or("/", PathAndQuery::as_str),
            body: &body,
            enrollment,
            proof: head.headers.get("x-phlix-proof").and_then(|value| value.to_str().ok()),
            server,
        };
        let enrolled = enrollments::authenticate(app, call).await;
        Ok(enrolled.map(|enrolled| Self { enrolled, headers: head.headers, body }))
    }
}

pub(super) fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "SERVER_NOT_FOUND", "server.not_found").message("Server not found")
}

impl From<EnrollmentError> for ApiError {
    fn from(error: EnrollmentError) -> Self {
        let unauthorized = |code, message| Self::unauthorized(code).message(message);
        match error {
            EnrollmentError::Missing => Self::unauthorized("auth.required"),
            EnrollmentError::Invalid => Self::unauthorized("auth.invalid_token"),
            EnrollmentError::Expired => {
                Self::new(StatusCode::UNAUTHORIZED, "ENROLLMENT_TOKEN_EXPIRED", "auth.enrollment_expired")
                    .message("The enrollment has expired; pair the server again.")
            }
            EnrollmentError::OtherServer => {
                Self::new(StatusCode::FORBIDDEN, "AUTHORIZATION_FAILED", "auth.server_mismatch")
                    .message("Server ID mismatch")
            }
            EnrollmentError::Gone => not_found(),
            EnrollmentError::Revoked => unauthorized(
                "auth.enrollment_revoked",
                "The server was paired anew or its credentials were ended; pair it again.",
            ),
            EnrollmentError::NoProof => {
                unauthorized("auth.proof_required", "This server signs its calls: X-Phlix-Proof is missing.")
            }
            EnrollmentError::BadProof => {
                unauthorized("auth.proof_invalid", "X-Phlix-Proof is not valid for this call.")
            }
            EnrollmentError::Replayed => unauthorized("auth.proof_replayed", "X-Phlix-Proof was used before."),
            EnrollmentError::TooMany(wait) => Self::rate_limited(wait),
            EnrollmentError::Keys(error) => error.into(),
        }
    }
}

/// Without a key nothing is signed; the reason is logged here, once.
impl From<KeysError> for ApiError {
    fn from(error: KeysError) -> Self {
        match error {
            KeysError::Store(error) => error.into(),
            error => {
                tracing::error!(error = &error as &dyn std::error::Error, "nothing can be signed");
                Self::unavailable(std::time::Duration::from_secs(10))
            }
        }
    }
}
