//! `Accept-Phlix-Protocol: v1`: the version that hub and servers speak (upstream-api s.0).

use axum::extract::FromRequestParts;
use http::StatusCode;
use http::request::Parts;

use super::error::ApiError;

/// The request names our version of the protocol.
pub(super) struct Protocol;

impl<S: Sync> FromRequestParts<S> for Protocol {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let said = parts.headers.get("accept-phlix-protocol").map(http::HeaderValue::as_bytes);
        if said == Some(b"v1") {
            return Ok(Self);
        }
        Err(ApiError::new(StatusCode::BAD_REQUEST, "HUB_PROTOCOL_UNSUPPORTED", "hub.protocol_unsupported")
            .message("Accept-Phlix-Protocol: v1 required"))
    }
}
