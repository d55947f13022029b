//! Sign-ins: a family of tokens, and for browsers a cookie. Opened by a log-in, moved on by refresh, ended by log-out, by reuse of
//! an old refresh token, by a new password, with the account.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use phlix_protocol::b64;
use phlix_protocol::ids::{SessionId, UserId};
use phlix_protocol::uplink::Selector;
use thiserror::Error;

use super::App;
use super::revocations::revoke;
use crate::domain::user_token::{self, Kind, UserClaims};
use crate::random;
use crate::store::sessions::{self as rows, CookieRow, Ending, LiveSession, TokenUse};
use crate::store::{self, AsStoreError, StoreError, Tx};
use crate::timestamp::Timestamp;

/// A person who showed that they are signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SignedIn {
    pub(crate) user: UserId,
    pub(crate) session: SessionId,
    pub(crate) is_admin: bool,
    /// When what they showed ends.
    pub(crate) expires_at: Timestamp,
    /// Of the access token; those of a cookie say the same.
    pub(crate) claims: UserClaims,
}

/// Why somebody is not signed in.
#[derive(Debug, Error)]
pub(crate) enum AuthError {
    /// Not ours, expired, or its session has ended.
    #[error("the token or cookie is not valid")]
    Invalid,
    /// The account is gone.
    #[error("the account is gone")]
    NoUser,
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AsStoreError for AuthError {
    fn as_store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

/// What a log-in or a refresh hands out.
pub(crate) struct Tokens {
    pub(crate) access: String,
    pub(crate) claims: UserClaims,
    pub(crate) refresh: String,
    pub(crate) expires_in: Duration,
    /// For a browser.
    pub(crate) cookie: Option<String>,
}

/// Does the one who signs in get a cookie?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Keeps the tokens itself.
    Program,
    /// Keeps a cookie.
    Browser,
}

/// The cookie's value: a prefix that tells what it is, 32 random bytes.
const COOKIE_PREFIX: &str = "phs_";
const COOKIE_LENGTH: usize = COOKIE_PREFIX.len() + 43;

/// Opens a session in the caller's transaction.
pub(crate) async fn open(tx: &mut Tx, app: &App, user: UserId, holder: Holder) -> Result<Tokens, StoreError> {
    let now = app.clock.now();
    let session = SessionId::new(random::uuid());
    let cookie = (holder == Holder::Browser).then(|| {
        let secret: [u8; 32] = random::bytes();
        format!("{COOKIE_PREFIX}{}", b64::encode(secret))
    });
    let hash = cookie.as_deref().map(hash);
    let row = hash.as_deref().map(|hash| CookieRow { hash, expires_at: now.plus(app.config.lives.session_cookie) });
    rows::insert(tx, session, user, row, now, now.plus(app.config.lives.refresh)).await?;
    let tokens = issue(tx, app, user, session, now).await?;
    Ok(Tokens { cookie, ..tokens })
}

/// A pair of tokens of one session.
async fn issue(tx: &mut Tx, app: &App, user: UserId, session: SessionId, now: Timestamp) -> Result<Tokens, StoreError> {
    let (lives, secret) = (&app.config.lives, app.config.jwt_secret.bytes());
    let claims = UserClaims::new(Kind::Access, user, session, now, now.plus(lives.access));
    let until = now.plus(lives.refresh);
    let jti = crate::hex(&random::bytes::<16>());
    rows::insert_token(tx, &jti, session, until).await?;
    let refresh = UserClaims { jti: Some(jti), ..UserClaims::new(Kind::Refresh, user, session, now, until) };
    Ok(Tokens {
        access: user_token::sign(&claims, secret),
        refresh: user_token::sign(&refresh, secret),
        claims,
        expires_in: lives.access,
        cookie: None,
    })
}

/// A new pair for a refresh token. The old one is used up; when it comes again somebody has a copy, and the whole session
/// ends.
pub(crate) async fn refresh(app: &App, token: &str) -> Result<(UserId, Tokens), AuthError> {
    let now = app.clock.now();
    let claims =
        user_token::verify(token, Kind::Refresh, app.config.jwt_secret.bytes(), now).map_err(|_| AuthError::Invalid)?;
    let (user, session) = (claims.sub, claims.sid);
    let jti = claims.jti.as_deref().ok_or(AuthError::Invalid)?;
    let outcome = app
        .db
        .transact(|mut tx| async move {
            match rows::use_token(&mut tx, jti, session, now).await? {
                TokenUse::First => {}
                TokenUse::Unknown => return Err(AuthError::Invalid),
                TokenUse::Again => {
                    if rows::end(&mut tx, session, Ending::RefreshReuse, now).await? {
                        revoke(&mut tx, Selector::Sid(session), &app.config.lives, now).await?;
                    }
                    tx.commit().await?;
                    return Ok(None);
                }
            }
            if !rows::extend(&mut tx, session, user, now, now.plus(app.config.lives.refresh)).await? {
                return Err(AuthError::Invalid);
            }
            let tokens = issue(&mut tx, app, user, session, now).await?;
            tx.commit().await?;
            Ok(Some(tokens))
        })
        .await?;
    match outcome {
        Some(tokens) => Ok((user, tokens)),
        None => {
            app.sign_ins.forget(session);
            app.bulletin.poke();
            tracing::warn!(session.id = %session, user.id = %user, "an old refresh token was used again: its session was ended");
            Err(AuthError::Invalid)
        }
    }
}

/// Ends the session of a refresh token; one that is not good ends nothing.
pub(crate) async fn log_out_by_token(app: &App, token: &str) -> Result<(), StoreError> {
    let now = app.clock.now();
    match user_token::verify(token, Kind::Refresh, app.config.jwt_secret.bytes(), now) {
        Ok(claims) => end(app, claims.sid, Ending::Logout).await,
        Err(_) => Ok(()),
    }
}

/// Ends a session everywhere: its tokens, its cookie, the tickets that were made for it.
pub(crate) async fn end(app: &App, session: SessionId, why: Ending) -> Result<(), StoreError> {
    let now = app.clock.now();
    app.db
        .transact(|mut tx| async move {
            if rows::end(&mut tx, session, why, now).await? {
                revoke(&mut tx, Selector::Sid(session), &app.config.lives, now).await?;
            }
            tx.commit().await
        })
        .await?;
    app.sign_ins.forget(session);
    app.bulletin.poke();
    Ok(())
}

/// Who holds this access token?
pub(crate) async fn authenticate_bearer(app: &App, token: &str) -> Result<SignedIn, AuthError> {
    let now = app.clock.now();
    let claims =
        user_token::verify(token, Kind::Access, app.config.jwt_secret.bytes(), now).map_err(|_| AuthError::Invalid)?;
    let key = Shown::Session(claims.sid);
    let live = match app.sign_ins.recall(&key, now, app.config.limits.session_cache) {
        Some(live) => live,
        None => {
            let mut conn = app.db.read().await?;
            match rows::find(&mut conn, claims.sid, now).await? {
                Some(live) => app.sign_ins.remember(key, live, now),
                None if store::users::find(&mut conn, claims.sub).await?.is_none() => return Err(AuthError::NoUser),
                None => return Err(AuthError::Invalid),
            }
        }
    };
    if live.user != claims.sub {
        return Err(AuthError::Invalid);
    }
    let expires_at = Timestamp::from_seconds(claims.exp);
    Ok(SignedIn { user: live.user, session: live.id, is_admin: live.is_admin, expires_at, claims })
}

/// Whose browser holds this session cookie?
pub(crate) async fn authenticate_cookie(app: &App, value: &str) -> Result<SignedIn, AuthError> {
    // Its shape is checked first, so that made-up ones cost nothing.
    let shaped = value.len() == COOKIE_LENGTH && value.strip_prefix(COOKIE_PREFIX).and_then(b64::decode).is_some();
    if !shaped {
        return Err(AuthError::Invalid);
    }
    let now = app.clock.now();
    let hash = hash(value);
    let key = Shown::Cookie(hash.clone());
    let live = match app.sign_ins.recall(&key, now, app.config.limits.session_cache) {
        Some(live) => live,
        None => {
            let mut conn = app.db.read().await?;
            let live = rows::find_cookie(&mut conn, &hash, now).await?.ok_or(AuthError::Invalid)?;
            app.sign_ins.remember(key, live, now)
        }
    };
    if now >= live.expires_at {
        return Err(AuthError::Invalid);
    }
    let claims = UserClaims::new(Kind::Access, live.user, live.id, now, live.expires_at);
    let (user, session, is_admin) = (live.user, live.id, live.is_admin);
    Ok(SignedIn { user, session, is_admin, expires_at: live.expires_at, claims })
}

fn hash(value: &str) -> String {
    crate::hex(digest(&SHA256, value.as_bytes()).as_ref())
}

/// Answers about sessions that may be reused for a moment: a page asks for many things at once. Only good ones are kept, so
/// a log-out elsewhere takes effect within the cache's time.
#[derive(Debug, Default)]
pub(crate) struct SignIns(Mutex<HashMap<Shown, (LiveSession, Timestamp)>>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Shown {
    Session(SessionId),
    Cookie(String),
}

/// More people than this at one moment: then all are asked again.
const MOST: usize = 10_000;

impl SignIns {
    fn recall(&self, key: &Shown, now: Timestamp, keep: Duration) -> Option<LiveSession> {
        let known = self.lock();
        let (live, at) = known.get(key)?;
        (now.since(*at) < keep && *at <= now).then_some(*live)
    }

    fn remember(&self, key: Shown, live: LiveSession, now: Timestamp) -> LiveSession {
        let mut known = self.lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key, (live, now));
        live
    }

    /// This replica knows at once.
    pub(crate) fn forget(&self, session: SessionId) {
        self.lock().retain(|_, (live, _)| live.id != session);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Shown, (LiveSession, Timestamp)>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
