//! Who asks: the extractor of handlers that are for signed-in people (upstream-api s.0, trust s.6.1).
//!
//! A bearer is looked at first, and alone where there is one. Else the session cookie, where cookies may be used at all; with it a
//! method that changes something needs `Origin` to be the hub, since a browser sends the cookie for whoever asks.

use axum::extract::FromRequestParts;
use http::header::{AUTHORIZATION, COOKIE, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};

use super::caller::Caller;
use super::error::ApiError;
use crate::app::App;
use crate::app::sessions::{self, AuthError, SignedIn};

/// The session cookie's name. `__Host-`: set by this host alone, over TLS, for all of it.
pub(crate) const COOKIE_NAME: &str = "__Host-phlix-s";

/// A signed-in person.
pub(crate) struct User(pub(crate) SignedIn);

impl FromRequestParts<App> for User {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, app).await?;
        if let Some(token) = bearer(&parts.headers)? {
            return Ok(Self(sessions::authenticate_bearer(app, token).await?));
        }
        let cookie = session_cookie(&parts.headers).filter(|_| caller.may_use_cookies());
        let Some(cookie) = cookie else { return Err(ApiError::unauthorized("auth.required")) };
        let changes_nothing = matches!(parts.method, Method::GET | Method::HEAD);
        if !changes_nothing && !is_from_hub(&parts.headers, app) {
            return Err(ApiError::new(StatusCode::FORBIDDEN, "Forbidden", "auth.origin_mismatch")
                .message("A request that is authenticated by the cookie must come from the hub's own pages."));
        }
        Ok(Self(sessions::authenticate_cookie(app, cookie).await?))
    }
}

/// A page's visitor who may or may not be signed in by the cookie.
pub(crate) struct Visitor(pub(crate) Option<SignedIn>);

impl FromRequestParts<App> for Visitor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let Some(cookie) = session_cookie(&parts.headers).filter(|_| caller.may_use_cookies()) else {
            return Ok(Self(None));
        };
        match sessions::authenticate_cookie(app, cookie).await {
            Ok(signed_in) => Ok(Self(Some(signed_in))),
            Err(AuthError::Invalid | AuthError::NoUser) => Ok(Self(None)),
            Err(AuthError::Store(error)) => Err(error.into()),
        }
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Invalid => Self::unauthorized("auth.invalid_token"),
            AuthError::NoUser => Self::unauthorized("auth.user_not_found"),
            AuthError::Store(error) => error.into(),
        }
    }
}

/// The token of `Authorization: Bearer`; the word in any case. Another scheme is not ours to read.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let invalid = || ApiError::unauthorized("auth.invalid_token");
    if values.next().is_some() {
        return Err(invalid());
    }
    let value = value.to_str().map_err(|_| invalid())?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(token.trim())),
        _ => Ok(None),
    }
}

/// The session cookie's value. Two of them are none: one was planted.
pub(super) fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    let mut found = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE_NAME)
        .map(|(_, value)| value);
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// Was it sent by one of the hub's own pages?
pub(super) fn is_from_hub(headers: &HeaderMap, app: &App) -> bool {
    let mut values = headers.get_all(ORIGIN).iter();
    let first = values.next().map(http::HeaderValue::as_bytes);
    first == Some(app.config.origin().as_bytes()) && values.next().is_none()
}
