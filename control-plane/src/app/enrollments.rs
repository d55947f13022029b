//! What a claimed server shows, and what it does with it: heartbeat, renewal, deregistration (upstream-api s.2.3, trust s.2.3).

use std::time::Duration;

use phlix_protocol::b64;
use phlix_protocol::ids::ServerId;
use phlix_protocol::keys::length_prefixed;
use phlix_protocol::token::{self, Cnf, Enrollment, HubClaims as _, RequestProof, SKEW, SelfClaims as _, TokenError};
use phlix_protocol::uplink::{Change, Generation, ServerKind};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::App;
use super::keys::KeysError;
use super::notices;
use crate::domain::heartbeat::{Heartbeat, libraries_hash};
use crate::domain::key::Purpose;
use crate::domain::notice::NoticeKind;
use crate::domain::server::{Credentials, Server};
use crate::random;
use crate::store::rates::{self, Attempt};
use crate::store::{AsStoreError, StoreError, Tx, bulletin, heartbeats, proofs, servers};
use crate::timestamp::Timestamp;

/// Renewing an older generation this long after a newer one exists: somebody has a copy.
//= trust s.2.3
const COPY_SUSPECTED: Duration = Duration::from_secs(600);
/// Longest `jti` of a proof that is looked at, in bytes.
const MAX_JTI: usize = 128;

/// A fresh enrollment. Its `Debug` is silent.
pub(crate) struct Minted {
    pub(crate) jwt: String,
    pub(crate) expires_in: Duration,
}

impl std::fmt::Debug for Minted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Minted(..)")
    }
}

/// Signs "this is server S". Native ones are bound to the server's key and have a generation. An unmodified server's has
/// upstream's claims and no other, unless its owner has ended its credentials once: then what is older must be told apart.
pub(crate) fn mint(app: &App, server: &Server, generation: u64, now: Timestamp) -> Result<Minted, KeysError> {
    let key = app.keys.signer(Purpose::Enrollment, now)?;
    let life = app.config.lives.enrollment;
    let is_native = server.kind == ServerKind::Generic;
    let claims = Enrollment {
        iss: token::ISSUER.to_owned(),
        sub: server.id,
        aud: Enrollment::AUD.to_owned(),
        exp: now.plus(life).seconds(),
        iat: now.seconds(),
        kid: key.kid(),
        hub_base_url: app.config.base_url().to_owned(),
        server_id: server.id,
        cnf: is_native.then_some(Cnf { jwk: server.key }),
        generation: (is_native || server.credentials.least > 0).then_some(generation),
    };
    Ok(Minted { jwt: token::sign(&claims, &key), expires_in: life })
}

/// A call of a server, as far as its signature goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: &'a str,
    /// Path and query, as sent.
    pub(crate) target: &'a str,
    pub(crate) body: &'a [u8],
    /// The bearer token.
    pub(crate) enrollment: Option<&'a str>,
    /// `X-Phlix-Proof`.
    pub(crate) proof: Option<&'a str>,
    /// The server of the path.
    pub(crate) server: ServerId,
}

/// A server that showed who it is.
#[derive(Clone, Debug)]
pub(crate) struct Enrolled {
    pub(crate) server: Server,
    /// Of the enrollment that it showed.
    pub(crate) generation: u64,
}

/// Why a server is not believed.
#[derive(Debug, Error)]
pub(crate) enum EnrollmentError {
    #[error("no enrollment was shown")]
    Missing,
    #[error("the enrollment is not valid")]
    Invalid,
    #[error("the enrollment has expired")]
    Expired,
    #[error("the enrollment is another server's")]
    OtherServer,
    #[error("the server is not claimed")]
    Gone,
    #[error("newer credentials ended this enrollment")]
    Revoked,
    #[error("the call is not signed")]
    NoProof,
    #[error("the call's signature is not valid")]
    BadProof,
    #[error("the call's signature was used before")]
    Replayed,
    #[error("too many calls")]
    TooMany(Duration),
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl From<StoreError> for EnrollmentError {
    fn from(error: StoreError) -> Self {
        Self::Keys(error.into())
    }
}

impl AsStoreError for EnrollmentError {
    fn as_store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Keys(error) => error.as_store_error(),
            _ => None,
        }
    }
}

/// Believes a call: a valid enrollment of the path's server, which is still claimed, and for native servers a signature of their
/// key over this very call, once.
pub(crate) async fn authenticate(app: &App, call: Call<'_>) -> Result<Enrolled, EnrollmentError> {
    let now = app.clock.now();
    let shown = call.enrollment.ok_or(EnrollmentError::Missing)?;
    let keys = app.keys.set(Purpose::Enrollment, now);
    let enrollment: Enrollment = token::verify(shown, &keys, now.seconds()).map_err(|error| match error {
        TokenError::Expired => EnrollmentError::Expired,
        _ => EnrollmentError::Invalid,
    })?;
    if enrollment.server_id != call.server {
        return Err(EnrollmentError::OtherServer);
    }
    let mut conn = app.db.read().await?;
    let server = servers::find(&mut conn, call.server).await?.ok_or(EnrollmentError::Gone)?;
    drop(conn);
    let generation = enrollment.generation.unwrap_or(0);
    if generation < server.credentials.least {
        return Err(EnrollmentError::Revoked);
    }
    match (server.kind, enrollment.cnf) {
        (ServerKind::Phlix, None) => {}
        (ServerKind::Generic, Some(cnf)) if cnf.jwk == server.key => check_proof(app, &server, call, now).await?,
        _ => return Err(EnrollmentError::Invalid),
    }
    Ok(Enrolled { server, generation })
}

//= trust s.2.5
async fn check_proof(app: &App, server: &Server, call: Call<'_>, now: Timestamp) -> Result<(), EnrollmentError> {
    let shown = call.proof.ok_or(EnrollmentError::NoProof)?;
    let proof: RequestProof =
        token::verify_self(shown, &server.key, now.seconds()).map_err(|_| EnrollmentError::BadProof)?;
    let body = b64::encode(Sha256::digest(call.body));
    if proof.htm != call.method || proof.htu != call.target || proof.bh != body || proof.jti.len() > MAX_JTI {
        return Err(EnrollmentError::BadProof);
    }
    // Of the key too, so that one server can't use up another's.
    let id = b64::encode(Sha256::digest(length_prefixed(&[server.key.as_bytes(), proof.jti.as_bytes()])));
    // A second longer than the signature is believed.
    let until = Timestamp::from_seconds(proof.iat.saturating_add(RequestProof::MAX_AGE + SKEW + 1));
    let mut conn = app.db.write().await?;
    if proofs::remember(&mut conn, &id, until).await? { Ok(()) } else { Err(EnrollmentError::Replayed) }
}

/// A heartbeat: the server is there, by the hub's clock.
pub(crate) async fn heartbeat(app: &App, server: ServerId, beat: &Heartbeat) -> Result<(), EnrollmentError> {
    let now = app.clock.now();
    let key = &format!("heartbeat:{server}");
    let id = random::uuid();
    // One commit: thousands of servers do this every minute.
    let attempt = app
        .db
        .transact(|mut tx| async move {
            let attempt = rates::hit(&mut tx, key, app.config.limits.heartbeat, now).await?;
            if attempt == Attempt::Allowed {
                if !servers::seen(&mut tx, server, &beat.version, &beat.hostname_candidates, now).await? {
                    return Err(EnrollmentError::Gone);
                }
                heartbeats::insert(&mut tx, id, server, beat, now).await?;
                if let Some(libraries) = &beat.libraries {
                    heartbeats::replace_libraries(&mut tx, server, libraries, &libraries_hash(libraries)).await?;
                }
            }
            tx.commit().await?;
            Ok(attempt)
        })
        .await?;
    match attempt {
        Attempt::Allowed => Ok(()),
        Attempt::Refused { retry_after } => Err(EnrollmentError::TooMany(retry_after)),
    }
}

/// A new enrollment, of the next generation; the old one is good until it expires.
pub(crate) async fn renew(app: &App, enrolled: &Enrolled) -> Result<Minted, EnrollmentError> {
    let now = app.clock.now();
    let server = &enrolled.server;
    if server.kind == ServerKind::Phlix {
        return Ok(mint(app, server, enrolled.generation, now)?);
    }
    let newest = server.credentials.newest;
    if enrolled.generation < newest {
        if now.since(server.credentials.since) > COPY_SUSPECTED {
            let mut conn = app.db.write().await?;
            notices::raise(&mut conn, server.id, NoticeKind::OldCredentials, "", now).await?;
        }
        return Ok(mint(app, server, newest, now)?);
    }
    // Two renewals at once: one counts on, and both get what it made.
    let mut conn = app.db.write().await?;
    servers::next_generation(&mut conn, server.id, newest, now).await?;
    let now_newest = servers::credentials(&mut conn, server.id).await?.ok_or(EnrollmentError::Gone)?.newest;
    drop(conn);
    Ok(mint(app, server, now_newest, now)?)
}

/// Ends all credentials that a server has: they are below the least generation, everywhere within the bulletin's time. It must be
/// claimed again. `None` when the server is gone.
pub(crate) async fn roll_in(tx: &mut Tx, server: ServerId, now: Timestamp) -> Result<Option<Credentials>, StoreError> {
    let Some(credentials) = servers::roll(tx, server, now).await? else { return Ok(None) };
    let generation = Generation { server_id: server, least: credentials.least };
    bulletin::publish(tx, &Change::Generation { generation }, now).await?;
    Ok(Some(credentials))
}
