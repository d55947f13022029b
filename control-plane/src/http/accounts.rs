//! `/api/v1/auth/*` and `/api/v1/me`: accounts and sign-ins as upstream answers them (upstream-api s.2.1), the session cookie of
//! trust s.6.1 beside.

use axum::Json;
use axum::extract::{FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::Body;
use super::caller::Caller;
use super::error::{ApiError, ErrorBody};
use super::user::{self, User};
use crate::app::App;
use crate::app::accounts::{self, LoginError, NewAccount, RegisterError};
use crate::app::passwords::HashError;
use crate::app::sessions::{self, Holder, Tokens};
use crate::domain::user::{self as domain, Password};
use crate::domain::user_token::UserClaims;
use crate::store::{self, sessions::Ending};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(register))
        .routes(routes!(signup))
        .routes(routes!(login))
        .routes(routes!(refresh))
        .routes(routes!(logout))
}

/// An account as its owner sees it.
#[derive(Serialize, ToSchema)]
#[schema(as = User)]
pub(super) struct UserBody {
    id: String,
    username: String,
    email: String,
    display_name: String,
    /// 0 or 1.
    is_admin: u8,
    /// UTC, `2026-11-24 13:05:00`.
    created_at: String,
    /// UTC, `2026-11-24 13:05:00`.
    updated_at: String,
}

impl From<domain::User> for UserBody {
    fn from(user: domain::User) -> Self {
        Self {
            id: user.id.to_string(),
            username: user.username,
            email: user.email,
            display_name: user.display_name,
            is_admin: u8::from(user.is_admin),
            created_at: user.created_at.to_string(),
            updated_at: user.updated_at.to_string(),
        }
    }
}

/// A sign-in.
#[derive(Serialize, ToSchema)]
pub(super) struct Session {
    access_token: String,
    /// Good for one refresh.
    refresh_token: String,
    /// `Bearer`.
    token_type: &'static str,
    /// Of the access token, in seconds.
    expires_in: u64,
    /// The same as `user.id`; the mobile and Roku clients look for it here.
    user_id: String,
    user: UserBody,
    claims: UserClaims,
}

fn session(status: StatusCode, user: domain::User, tokens: Tokens, app: &App) -> Response {
    let cookie = tokens.cookie.as_deref().map(|value| set_cookie(value, app.config.lives.session_cookie.as_secs()));
    let body = Session {
        access_token: tokens.access,
        refresh_token: tokens.refresh,
        token_type: "Bearer",
        expires_in: tokens.expires_in.as_secs(),
        user_id: user.id.to_string(),
        user: user.into(),
        claims: tokens.claims,
    };
    let mut response = (status, Json(body)).into_response();
    if let Some(Ok(cookie)) = cookie.map(|cookie| HeaderValue::from_str(&cookie)) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

fn set_cookie(value: &str, max_age: u64) -> String {
    format!("{}={value}; Path=/; Max-Age={max_age}; Secure; HttpOnly; SameSite=Lax", user::COOKIE_NAME)
}

/// A cookie goes to the hub's own pages only: another site that signs a visitor in as somebody else gets none set.
fn holder(headers: &HeaderMap, caller: &Caller, app: &App) -> Holder {
    if caller.may_use_cookies() && user::is_from_hub(headers, app) { Holder::Browser } else { Holder::Program }
}

/// A browser that signs in anew leaves its former session behind: nobody who planted or saw that cookie rides along.
async fn end_former(headers: &HeaderMap, app: &App) {
    let Some(cookie) = user::session_cookie(headers) else { return };
    if let Ok(former) = sessions::authenticate_cookie(app, cookie).await
        && let Err(error) = sessions::end(app, former.session, Ending::Replaced).await
    {
        tracing::warn!(session.id = %former.session, error = &error as &dyn std::error::Error,
            "a browser's former session could not be ended");
    }
}

fn missing_credentials(message: &'static str) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, message, "auth.missing_credentials").message(message)
}

/// The sign-up form.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct RegisterBody {
    /// 3 to 50 bytes.
    username: Option<String>,
    email: Option<String>,
    /// 8 to 4096 bytes.
    password: Option<String>,
}

/// Makes an account and signs it in. The first one becomes administrator.
#[utoipa::path(post, path = "/api/v1/auth/register", tag = "accounts", request_body = RegisterBody, responses(
    (status = 201, body = Session), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
    (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn register(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Body(form): Body<RegisterBody>,
) -> Result<Response, ApiError> {
    if !app.config.signups_enabled {
        return Err(RegisterError::Closed.into());
    }
    let (Some(username), Some(email), Some(password)) = (form.username, form.email, form.password) else {
        return Err(missing_credentials("Username, email and password are required"));
    };
    let form = NewAccount::parse(&username, &email, &password).map_err(RegisterError::from)?;
    let holder = holder(&headers, &caller, &app);
    let (user, tokens) = accounts::register(&app, form, &caller.place(), holder).await?;
    if holder == Holder::Browser {
        end_former(&headers, &app).await;
    }
    Ok(session(StatusCode::CREATED, user, tokens, &app))
}

/// The same as `register`.
#[utoipa::path(post, path = "/api/v1/auth/signup", tag = "accounts", request_body = RegisterBody, responses(
    (status = 201, body = Session), (status = 400, body = ErrorBody), (status = 403, body = ErrorBody),
    (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn signup(
    app: State<App>,
    caller: Caller,
    headers: HeaderMap,
    form: Body<RegisterBody>,
) -> Result<Response, ApiError> {
    register(app, caller, headers, form).await
}

/// The log-in form: by user name or by e-mail address.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct LoginBody {
    username: Option<String>,
    email: Option<String>,
    password: Option<String>,
    /// Accepted from clients that send it.
    device_id: Option<String>,
}

/// Signs in.
#[utoipa::path(post, path = "/api/v1/auth/login", tag = "accounts", request_body = LoginBody, responses(
    (status = 200, body = Session), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn login(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Body(form): Body<LoginBody>,
) -> Result<Response, ApiError> {
    let given = |field: Option<String>| field.filter(|text| !text.is_empty());
    let identifier = given(form.username).or(given(form.email));
    let (Some(identifier), Some(password)) = (identifier, given(form.password)) else {
        return Err(missing_credentials("Username or email, and password are required"));
    };
    let holder = holder(&headers, &caller, &app);
    let password = Password::tried(&password);
    let (user, tokens) = accounts::log_in(&app, &identifier, password, &caller.place(), holder).await?;
    if holder == Holder::Browser {
        end_former(&headers, &app).await;
    }
    Ok(session(StatusCode::OK, user, tokens, &app))
}

/// The refresh token.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct RefreshBody {
    refresh_token: Option<String>,
}

/// A new pair of tokens. The refresh token is used up; when it comes again, its session ends.
#[utoipa::path(post, path = "/api/v1/auth/refresh", tag = "accounts", request_body = RefreshBody, responses(
    (status = 200, body = Session), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 503, body = ErrorBody)))]
async fn refresh(State(app): State<App>, Body(form): Body<RefreshBody>) -> Result<Response, ApiError> {
    let token = form.refresh_token.filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| missing_credentials("refresh_token is required"))?;
    let (id, tokens) = sessions::refresh(&app, &token).await?;
    let mut conn = app.db.read().await?;
    let user = store::users::find(&mut conn, id).await?.ok_or(ApiError::unauthorized("auth.invalid_token"))?;
    Ok(session(StatusCode::OK, user, tokens, &app))
}

/// Ends the session of the refresh token, of the bearer and of the cookie, whichever are there. Always 204.
#[utoipa::path(post, path = "/api/v1/auth/logout", tag = "accounts", request_body(content = Option<RefreshBody>),
    responses((status = 204), (status = 503, body = ErrorBody)))]
async fn logout(State(app): State<App>, caller: Caller, request: Request) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let signed_in = User::from_request_parts(&mut parts, &app).await.ok();
    let may_clear = caller.may_use_cookies() && user::is_from_hub(&parts.headers, &app);
    let request = Request::from_parts(parts, body);
    let form = <Body<RefreshBody> as axum::extract::FromRequest<App>>::from_request(request, &app).await;
    let token = form.ok().and_then(|Body(form)| form.refresh_token);
    if let Some(User(signed_in)) = signed_in {
        sessions::end(&app, signed_in.session, Ending::Logout).await?;
    }
    if let Some(token) = token {
        sessions::log_out_by_token(&app, &token).await?;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    if may_clear && let Ok(cookie) = HeaderValue::from_str(&set_cookie("", 0)) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    Ok(response)
}

impl From<RegisterError> for ApiError {
    fn from(error: RegisterError) -> Self {
        let text = error.to_string();
        match error {
            RegisterError::Closed => {
                Self::new(StatusCode::FORBIDDEN, text.clone(), "auth.signups_disabled").message(text)
            }
            RegisterError::Field(_) | RegisterError::UsernameTaken | RegisterError::EmailTaken => {
                Self::new(StatusCode::BAD_REQUEST, text.clone(), "validation_failed").message(text)
            }
            RegisterError::TooMany { retry_after } => Self::rate_limited(retry_after),
            RegisterError::Hash(error) => error.into(),
            RegisterError::Store(error) => error.into(),
        }
    }
}

impl From<LoginError> for ApiError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Invalid => {
                let text = "Invalid credentials";
                Self::new(StatusCode::UNAUTHORIZED, text, "auth.invalid_credentials").message(text)
            }
            LoginError::TooMany { retry_after } => Self::rate_limited(retry_after),
            LoginError::Hash(error) => error.into(),
            LoginError::Store(error) => error.into(),
        }
    }
}

impl From<HashError> for ApiError {
    fn from(error: HashError) -> Self {
        match error {
            HashError::Busy { retry_after } => Self::unavailable(retry_after),
            HashError::Failed => {
                tracing::error!("password hashing failed");
                Self::internal()
            }
        }
    }
}
