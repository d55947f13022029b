//! What a failed request answers: a status and upstream's flat body `{"error", "code", "message"}`.

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::store::StoreError;

/// The body of every error.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    /// For people, or one of the old literals that existing clients compare with.
    error: Cow<'static, str>,
    /// For programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Cow<'static, str>>,
}

/// A refused or failed request.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: ErrorBody,
    retry_after: Option<Duration>,
}

impl ApiError {
    /// `error` for people or an old literal, `code` for programs.
    pub(crate) fn new(status: StatusCode, error: impl Into<Cow<'static, str>>, code: &'static str) -> Self {
        let body = ErrorBody { error: error.into(), code: Some(code), message: None };
        Self { status, body, retry_after: None }
    }

    /// Adds the sentence for people.
    pub(crate) fn message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.body.message = Some(message.into());
        self
    }

    /// Adds `Retry-After`.
    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// No such route, a wrong method included.
    pub(crate) fn no_route() -> Self {
        let message = Some("The requested resource was not found".into());
        let body = ErrorBody { error: "Not Found".into(), code: None, message };
        Self { status: StatusCode::NOT_FOUND, body, retry_after: None }
    }

    /// 401 in upstream's words; `code` is `auth.required`, `auth.invalid_token` or `auth.user_not_found`.
    pub(crate) fn unauthorized(code: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", code)
    }

    /// Too many attempts.
    pub(crate) fn rate_limited(wait: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "Too Many Requests", "rate_limited").retry_after(wait)
    }

    /// We can't now; nothing happened.
    pub(crate) fn unavailable(wait: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable", "provider_unavailable")
            .message("The hub can't do this right now. Nothing was changed; please try again.")
            .retry_after(wait)
    }

    /// Our fault. The cause is logged where it is turned into this, never shown.
    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error", "hub.internal_error")
            .message("Something went wrong in the hub.")
    }
}

/// This is the boundary: what the database did wrong is logged here, once.
impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Unavailable(cause) => {
                tracing::error!(error = %cause, "the database is not available");
                Self::unavailable(Duration::from_secs(5))
            }
            StoreError::Contention(cause) => {
                tracing::warn!(error = %cause, "a transaction lost every attempt");
                Self::unavailable(Duration::from_secs(1))
            }
            StoreError::Corrupt { .. } | StoreError::Refused(_) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a request failed in the database");
                Self::internal()
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}
