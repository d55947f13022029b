//! Request bodies the way existing clients send them: JSON where `Content-Type` says so, form fields otherwise; what can't be
//! read is an empty body, so that the handler answers with its own "missing ..." (upstream-api s.0).

use axum::extract::{FromRequest, Request};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::ApiError;
use crate::app::App;

/// The body as `T`, whose fields are all optional. A body of another shape counts as empty.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned + Default> FromRequest<App> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let Fields(fields) = Fields::from_request(request, app).await?;
        Ok(Self(serde_json::from_value(Value::Object(fields)).unwrap_or_default()))
    }
}

/// The body's fields as they came.
pub(crate) struct Fields(pub(crate) Map<String, Value>);

impl FromRequest<App> for Fields {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (head, body) = request.into_parts();
        let bytes = read(body, app.config.limits.body).await?;
        Ok(Self::parse(&head.headers, &bytes))
    }
}

impl Fields {
    /// The fields of a body that was read already.
    pub(super) fn parse(headers: &HeaderMap, bytes: &[u8]) -> Self {
        let json = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.to_ascii_lowercase().contains("application/json"));
        Self(if json { from_json(bytes) } else { from_form(bytes) })
    }
}

/// The whole body, at most `limit` bytes.
pub(crate) async fn read(body: axum::body::Body, limit: usize) -> Result<bytes::Bytes, ApiError> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "Payload Too Large", "payload_too_large")
                .message(format!("A request's body may have {limit} bytes.")))
        }
        Err(_) => Err(ApiError::new(StatusCode::BAD_REQUEST, "Bad Request", "invalid_body")
            .message("The request's body broke off.")),
    }
}

fn from_json(bytes: &[u8]) -> Map<String, Value> {
    // serde_json stops at 128 levels of nesting. An array is what PHP makes of an empty object.
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

fn from_form(bytes: &[u8]) -> Map<String, Value> {
    url::form_urlencoded::parse(bytes)
        .map(|(key, value)| (key.into_owned(), Value::String(value.into_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_object_is_empty() {
        let deep = "[".repeat(100_000);
        for text in ["", "[]", "null", "{\"a\":", "7", deep.as_str()] {
            assert!(from_json(text.as_bytes()).is_empty(), "{}", &text[..text.len().min(20)]);
        }
        assert_eq!(from_form(b"a=b+c&d=%C3%BC")["d"], "\u{fc}");
    }
}
