//! What a refused call of an edge answers: a status and the flat body `{"error", "code", "message"}` that viewers get too, since
//! an edge hands them on where a viewer asked.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::app::StoreError;
use crate::app::grants::GrantError;
use crate::app::keys::KeysError;
use crate::app::sessions::AuthError;
use crate::app::tickets::TicketError;

/// A refused call.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    body: Body,
    retry_after: Option<Duration>,
}

#[derive(Debug, Serialize)]
struct Body {
    error: &'static str,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, error: &'static str, code: &'static str) -> Self {
        Self { status, body: Body { error, code, message: None }, retry_after: None }
    }

    pub(super) fn message(mut self, message: &'static str) -> Self {
        self.body.message = Some(message);
        self
    }

    pub(super) fn unauthorized(code: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", code)
    }

    pub(super) fn malformed(message: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Bad Request", "invalid_payload").message(message)
    }

    /// Not now: what the edge knows stays good meanwhile.
    fn unavailable() -> Self {
        let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable", "provider_unavailable");
        Self { retry_after: Some(Duration::from_secs(5)), ..refusal }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
        }
        response
    }
}

/// The boundary for edges: logged here, once.
impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "an edge's call failed in the database");
        match error {
            StoreError::Unavailable(_) | StoreError::Contention(_) => Self::unavailable(),
            StoreError::Corrupt { .. } | StoreError::Refused(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error", "hub.internal_error")
            }
        }
    }
}

impl From<KeysError> for Refusal {
    fn from(error: KeysError) -> Self {
        match error {
            KeysError::Store(error) => error.into(),
            error => {
                tracing::error!(error = &error as &dyn std::error::Error, "nothing can be signed");
                Self::unavailable()
            }
        }
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Invalid => Self::unauthorized("auth.invalid_token"),
            AuthError::NoUser => Self::unauthorized("auth.user_not_found"),
            AuthError::Store(error) => error.into(),
        }
    }
}

impl From<TicketError> for Refusal {
    fn from(error: TicketError) -> Self {
        match error {
            TicketError::SignedOut => Self::unauthorized("auth.invalid_token"),
            TicketError::Invalid => Self::unauthorized("auth.invalid_ticket"),
            TicketError::NotThisEdge => Self::new(StatusCode::FORBIDDEN, "Forbidden", "edge.not_trusted")
                .message("This edge is not trusted with that."),
            TicketError::NoName => Self::new(StatusCode::NOT_FOUND, "Name not found", "server.name_not_found"),
            TicketError::Grant(GrantError::NotFound) => {
                Self::new(StatusCode::NOT_FOUND, "Server not found", "server.not_found").message("Server not found")
            }
            TicketError::Grant(GrantError::Denied) => {
                Self::new(StatusCode::FORBIDDEN, "Forbidden", "server.not_owned").message("This server is not yours.")
            }
            TicketError::Grant(GrantError::Store(error)) => error.into(),
            TicketError::Keys(error) => error.into(),
        }
    }
}
