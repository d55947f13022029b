//! `/api/v1/server-claims`: a server asks for a code, a user redeems it, the server fetches its enrollment (upstream-api s.2.2,
//! s.7.1; trust s.7).

use axum::Json;
use axum::extract::{Path, Query, State};
use http::StatusCode;
use phlix_protocol::b64;
use phlix_protocol::ids::ClaimId;
use phlix_protocol::keys::Jwk;
use phlix_protocol::uplink::ServerKind;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::{Body, Fields};
use super::caller::Caller;
use super::error::{ApiError, ErrorBody};
use super::protocol::Protocol;
use super::servers::jwks_url;
use super::user::User;
use crate::app::App;
use crate::app::claims::{self, ClaimProof, OpenError, Polled, RedeemError};
use crate::domain::claim::Applicant;
use crate::domain::server::kind_word;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(new)).routes(routes!(preview)).routes(routes!(claim)).routes(routes!(poll))
}

/// Bounds of what a server says of itself: upstream's, and ours where it has none.
const MAX_NAME: usize = 255;
const MAX_VERSION: usize = 32;
const MAX_CANDIDATES: usize = 64;
const MAX_CANDIDATE: usize = 512;

/// What a server that wants to be claimed says of itself.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes the body, which is read field by field for upstream's messages")]
struct ClaimRequest {
    /// 1 to 255 characters.
    server_name: String,
    /// 1 to 32 characters.
    version: String,
    /// One Ed25519 key as a JWK, despite the name.
    #[schema(value_type = Object)]
    public_keys_jwk: Value,
    hostname_candidates: Vec<String>,
    /// `v1`.
    protocol_version: String,
    /// A signature by that key: makes the server native.
    proof: Option<ClaimRequestProof>,
}

/// Ed25519 over `"phlix-claim/1"`, the hub's origin and the time, each preceded by its length.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes a part of the body")]
struct ClaimRequestProof {
    /// Unix seconds, at most five minutes from the hub's.
    time: i64,
    /// base64url.
    signature: String,
}

/// A pending claim.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ClaimOpened {
    /// `XXXX-XXXX`, for people.
    claim_code: String,
    /// Seconds.
    expires_in: u64,
    /// A secret: by it the enrollment is fetched.
    claim_id: String,
    hub_base_url: String,
}

/// A server asks for a claim code.
#[utoipa::path(post, path = "/api/v1/server-claims/new", tag = "claims", request_body = ClaimRequest, responses(
    (status = 200, body = ClaimOpened), (status = 400, body = ErrorBody), (status = 429, body = ErrorBody),
    (status = 503, body = ErrorBody)))]
async fn new(
    State(app): State<App>,
    _: Protocol,
    caller: Caller,
    Fields(fields): Fields,
) -> Result<Json<ClaimOpened>, ApiError> {
    let (applicant, proof) = application(&fields)?;
    let address = caller.address.to_string();
    let opened = claims::open(&app, applicant, proof, &address, &caller.place()).await;
    let opened = opened.map_err(|error| refuse_open(error, &app))?;
    Ok(Json(ClaimOpened {
        claim_code: opened.code.to_string(),
        expires_in: opened.expires_in.as_secs(),
        claim_id: opened.id.to_string(),
        hub_base_url: app.config.base_url().to_owned(),
    }))
}

fn application(fields: &Map<String, Value>) -> Result<(Applicant, Option<ClaimProof>), ApiError> {
    let name = line(fields.get("serverName"), MAX_NAME)
        .ok_or_else(|| malformed("ClaimRequest serverName must be 1 to 255 characters"))?;
    let version = line(fields.get("version"), MAX_VERSION)
        .ok_or_else(|| malformed("ClaimRequest version must be 1 to 32 characters"))?;
    if fields.get("protocolVersion").is_some_and(|version| version != "v1") {
        return Err(malformed("ClaimRequest protocolVersion must be v1"));
    }
    let hostname_candidates = candidates(fields.get("hostnameCandidates"))
        .ok_or_else(|| malformed("ClaimRequest hostnameCandidates must be a list of strings"))?;
    let jwk = fields.get("publicKeysJwk").cloned().unwrap_or_default();
    let key = serde_json::from_value::<Jwk>(jwk).ok().and_then(|jwk| jwk.public_key().ok());
    let key = key.ok_or_else(|| {
        ApiError::new(StatusCode::BAD_REQUEST, "SERVER_KEY_INVALID", "server.key_invalid")
            .message("publicKeysJwk must be an Ed25519 public key (kty OKP, crv Ed25519, x)")
    })?;
    let proof = match fields.get("proof") {
        None | Some(Value::Null) => None,
        Some(proof) => {
            Some(claim_proof(proof).ok_or_else(|| malformed("ClaimRequest proof must have a time and a signature"))?)
        }
    };
    Ok((Applicant { name, version, key, hostname_candidates, kind: ServerKind::Phlix }, proof))
}

fn claim_proof(proof: &Value) -> Option<ClaimProof> {
    let signature = b64::decode_array::<64>(proof.get("signature")?.as_str()?)?;
    Some(ClaimProof { time: proof.get("time")?.as_i64()?, signature: signature.to_vec() })
}

/// One line of text of 1 to `most` characters.
pub(super) fn line(value: Option<&Value>, most: usize) -> Option<String> {
    let text = value?.as_str()?.trim();
    let fits = (1..=most).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
}

/// A list of addresses; absent is empty.
pub(super) fn candidates(value: Option<&Value>) -> Option<Vec<String>> {
    let list = match value {
        None | Some(Value::Null) => return Some(Vec::new()),
        Some(value) => value.as_array().filter(|list| list.len() <= MAX_CANDIDATES)?,
    };
    let candidate = |value: &Value| {
        let text = value.as_str()?;
        (text.len() <= MAX_CANDIDATE && !text.chars().any(char::is_control)).then(|| text.to_owned())
    };
    list.iter().map(candidate).collect()
}

pub(super) fn malformed(message: &'static str) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "Bad Request", "invalid_payload").message(message)
}

fn refuse_open(error: OpenError, app: &App) -> ApiError {
    match error {
        OpenError::TooMany(wait) => ApiError::rate_limited(wait),
        OpenError::StaleProof => ApiError::new(StatusCode::BAD_REQUEST, "Bad Request", "claim.proof_stale").message(
            format!("The server's clock is more than five minutes off: the hub's time is {} UTC.", app.clock.now()),
        ),
        OpenError::BadProof => {
            ApiError::new(StatusCode::BAD_REQUEST, "Bad Request", "claim.proof_invalid").message(format!(
                "The proof of the server's key is not valid here. This hub's URL is {}: use exactly this one.",
                app.config.base_url()
            ))
        }
        OpenError::NoCode => {
            tracing::error!("no free claim code was found");
            ApiError::internal()
        }
        OpenError::Store(error) => error.into(),
    }
}

/// How a claim is.
#[derive(Serialize, ToSchema)]
struct ClaimStatus {
    /// `pending`, `claimed` or `expired`; unknown claims are `expired` too.
    status: &'static str,
    /// The server's credential, once it was claimed: for 60 s from the first reply that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    enrollment_jwt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hub_jwks_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_id: Option<String>,
    /// The account that claimed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_name: Option<String>,
}

impl ClaimStatus {
    fn only(status: &'static str) -> Self {
        Self { status, enrollment_jwt: None, hub_jwks_url: None, server_id: None, owner_name: None }
    }
}

/// The waiting server asks how its claim is. Always 200.
#[utoipa::path(get, path = "/api/v1/server-claims/{claimId}", tag = "claims", params(("claimId" = String, Path)),
    responses((status = 200, body = ClaimStatus), (status = 400, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn poll(State(app): State<App>, _: Protocol, Path(id): Path<String>) -> Result<Json<ClaimStatus>, ApiError> {
    let Ok(id) = id.parse::<ClaimId>() else { return Ok(Json(ClaimStatus::only("expired"))) };
    Ok(Json(match claims::poll(&app, id).await? {
        Polled::Pending => ClaimStatus::only("pending"),
        Polled::Expired => ClaimStatus::only("expired"),
        Polled::Claimed { server, enrollment, owner_name } => ClaimStatus {
            status: "claimed",
            enrollment_jwt: Some(enrollment.jwt),
            hub_jwks_url: Some(jwks_url(&app)),
            server_id: Some(server.to_string()),
            owner_name: Some(owner_name),
        },
    }))
}

/// The code.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PreviewQuery {
    #[serde(default)]
    code: String,
}

/// Whose server waits behind a code: shown before the user confirms.
#[derive(Serialize, ToSchema)]
struct ClaimPreview {
    server_name: String,
    version: String,
    /// `generic` (our agent, proved its key) or `phlix`.
    kind: &'static str,
    /// From where the server asked.
    requester_address: String,
    /// Unix seconds.
    requested_at: i64,
    /// Unix seconds.
    expires_at: i64,
}

/// Shows a signed-in user what a code stands for. Counted like a guess.
#[utoipa::path(get, path = "/api/v1/server-claims/preview", tag = "claims", params(PreviewQuery),
    security(("bearer" = []), ("session" = [])), responses(
    (status = 200, body = ClaimPreview), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 404, body = ErrorBody), (status = 409, body = ErrorBody), (status = 410, body = ErrorBody),
    (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn preview(
    State(app): State<App>,
    _: Protocol,
    caller: Caller,
    User(who): User,
    Query(PreviewQuery { code }): Query<PreviewQuery>,
) -> Result<Json<ClaimPreview>, ApiError> {
    if code.is_empty() {
        return Err(missing_code());
    }
    let claim = claims::preview(&app, who.user, &caller.place(), &code).await?;
    Ok(Json(ClaimPreview {
        server_name: claim.applicant.name,
        version: claim.applicant.version,
        kind: kind_word(claim.applicant.kind),
        requester_address: claim.requester_address,
        requested_at: claim.created_at.seconds(),
        expires_at: claim.expires_at.seconds(),
    }))
}

/// The code that the server shows.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
struct RedeemBody {
    /// Any case, with or without the hyphen.
    claim_code: Option<String>,
}

/// The user's new server. The server's credential goes to the server alone.
//= trust s.7
#[derive(Serialize, ToSchema)]
struct ClaimRedeemed {
    server_id: String,
    server_name: String,
    hub_jwks_url: String,
}

/// A user redeems a code: the server is theirs.
#[utoipa::path(post, path = "/api/v1/server-claims/claim", tag = "claims", request_body = RedeemBody,
    security(("bearer" = []), ("session" = [])), responses(
    (status = 200, body = ClaimRedeemed), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 404, body = ErrorBody), (status = 409, body = ErrorBody), (status = 410, body = ErrorBody),
    (status = 429, body = ErrorBody), (status = 503, body = ErrorBody)))]
async fn claim(
    State(app): State<App>,
    _: Protocol,
    caller: Caller,
    User(who): User,
    Body(form): Body<RedeemBody>,
) -> Result<Json<ClaimRedeemed>, ApiError> {
    let code = form.claim_code.filter(|code| !code.is_empty()).ok_or_else(missing_code)?;
    let server = claims::redeem(&app, who.user, &caller.place(), &code).await?;
    Ok(Json(ClaimRedeemed { server_id: server.id.to_string(), server_name: server.name, hub_jwks_url: jwks_url(&app) }))
}

fn missing_code() -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "Bad Request", "invalid_request").message("claim_code is required")
}

impl From<RedeemError> for ApiError {
    fn from(error: RedeemError) -> Self {
        match error {
            RedeemError::NotFound => Self::new(StatusCode::NOT_FOUND, "CLAIM_CODE_NOT_FOUND", "claim.code_not_found")
                .message("No server waits with this code."),
            RedeemError::Expired => Self::new(StatusCode::GONE, "CLAIM_CODE_EXPIRED", "claim.code_expired")
                .message("This code has expired; the server can show a new one."),
            RedeemError::AlreadyClaimed => {
                Self::new(StatusCode::CONFLICT, "CLAIM_CODE_ALREADY_CLAIMED", "claim.code_already_claimed")
                    .message("This code was used already.")
            }
            RedeemError::TooManyServers => Self::new(StatusCode::CONFLICT, "SERVER_CAP_REACHED", "quota.exceeded")
                .message("You have as many servers as this hub allows."),
            RedeemError::NoUser => Self::unauthorized("auth.unauthenticated"),
            RedeemError::NoName => {
                tracing::error!("no free name was found for a server");
                Self::internal()
            }
            RedeemError::TooManyGuesses(wait) => Self::rate_limited(wait),
            RedeemError::Store(error) => error.into(),
        }
    }
}
