//! Making an account and signing in to it.

use std::time::Duration;

use aws_lc_rs::hmac;
use phlix_protocol::ids::UserId;
use phlix_protocol::uplink::Selector;
use thiserror::Error;

use super::App;
use super::passwords::HashError;
use super::revocations::revoke;
use super::sessions::{self, Holder, Tokens};
use crate::domain::user::{Email, FieldError, Password, User, Username, fold};
use crate::random;
use crate::store::rates::{self, Attempt};
use crate::store::sessions::Ending;
use crate::store::users::{self, Inserted};
use crate::store::{AsStoreError, StoreError, Tx};
use crate::timestamp::Timestamp;

/// How long a place from which somebody logged in stays known.
pub(super) const PLACE_KNOWN: Duration = Duration::from_secs(90 * 24 * 3600);

/// Why no account was made.
#[derive(Debug, Error)]
pub(crate) enum RegisterError {
    #[error("Signups are disabled")]
    Closed,
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("Username already taken")]
    UsernameTaken,
    #[error("Email already registered")]
    EmailTaken,
    #[error("too many accounts were made from this address")]
    TooMany { retry_after: Duration },
    #[error(transparent)]
    Hash(#[from] HashError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AsStoreError for RegisterError {
    fn as_store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

/// What somebody typed into the sign-up form.
pub(crate) struct NewAccount {
    pub(crate) username: Username,
    pub(crate) email: Email,
    pub(crate) password: Password,
}

impl NewAccount {
    /// Checks the form.
    pub(crate) fn parse(username: &str, email: &str, password: &str) -> Result<Self, FieldError> {
        Ok(Self {
            username: Username::parse(username)?,
            email: Email::parse(email)?,
            password: Password::parse(password)?,
        })
    }
}

/// Makes an account and signs it in. The first account of a hub becomes its administrator.
pub(crate) async fn register(
    app: &App,
    form: NewAccount,
    place: &str,
    holder: Holder,
) -> Result<(User, Tokens), RegisterError> {
    let now = app.clock.now();
    let attempt = {
        let mut conn = app.db.write().await?;
        rates::hit(&mut conn, &format!("signup:{place}"), app.config.limits.signup, now).await?
    };
    if let Attempt::Refused { retry_after } = attempt {
        return Err(RegisterError::TooMany { retry_after });
    }
    // Before it is known whether the name is taken, so that both take their time.
    let hash = app.hasher.hash(form.password, &app.metrics).await?;
    let (username, email, hash) = (&form.username, &form.email, hash.as_str());
    app.db
        .transact(|mut tx| async move {
            let id = insert_in(&mut tx, username, email, hash, now).await?;
            let elected = users::elect_first_admin(&mut tx, id, now).await?;
            let tokens = sessions::open(&mut tx, app, id, holder).await?;
            let user = made(&mut tx, id).await?;
            tx.commit().await?;
            tracing::info!(user.id = %id, user.is_admin = elected, "an account was made");
            Ok((user, tokens))
        })
        .await
}

/// The rights of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Like everybody.
    User,
    /// May change the hub and its accounts.
    Administrator,
}

/// Makes an account for the operator, who has chosen its rights: nobody is elected by it, and after an administrator nobody will
/// be.
pub(crate) async fn create(app: &App, form: NewAccount, role: Role) -> Result<User, RegisterError> {
    let now = app.clock.now();
    let hash = app.hasher.hash(form.password, &app.metrics).await?;
    let (username, email, hash) = (&form.username, &form.email, hash.as_str());
    app.db
        .transact(|mut tx| async move {
            let id = insert_in(&mut tx, username, email, hash, now).await?;
            if role == Role::Administrator {
                users::set_admin(&mut tx, id, now).await?;
                users::close_election(&mut tx, id, now).await?;
            }
            let user = made(&mut tx, id).await?;
            tx.commit().await?;
            Ok(user)
        })
        .await
}

async fn insert_in(
    tx: &mut Tx,
    username: &Username,
    email: &Email,
    hash: &str,
    now: Timestamp,
) -> Result<UserId, RegisterError> {
    let id = UserId::new(random::uuid());
    match users::insert(tx, id, username, email, hash, now).await? {
        Inserted::Yes => Ok(id),
        Inserted::UsernameTaken => Err(RegisterError::UsernameTaken),
        Inserted::EmailTaken => Err(RegisterError::EmailTaken),
    }
}

/// The account that was made a moment ago in the same transaction.
async fn made(tx: &mut Tx, id: UserId) -> Result<User, StoreError> {
    users::find(tx, id).await?.ok_or(StoreError::Corrupt { table: "users", column: "id" })
}

/// Why nobody was signed in.
#[derive(Debug, Error)]
pub(crate) enum LoginError {
    /// Wrong password or no such user: nobody is told which.
    #[error("Invalid credentials")]
    Invalid,
    #[error("too many failed attempts")]
    TooMany { retry_after: Duration },
    #[error(transparent)]
    Hash(#[from] HashError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AsStoreError for LoginError {
    fn as_store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

/// Signs in by user name or e-mail address.
///
/// Attempts are counted before the password is looked at and taken back when it was right, so that a burst of guesses can't slip
/// through together. They count per place, and per account for places that the account never logged in from: strangers can
/// shut each other out, not the owner.
pub(crate) async fn log_in(
    app: &App,
    identifier: &str,
    password: Password,
    place: &str,
    holder: Holder,
) -> Result<(User, Tokens), LoginError> {
    let now = app.clock.now();
    let key = fold(identifier);
    let by_place = format!("login:place:{place}");
    let keyed_place = keyed(app, "place", place);

    let mut conn = app.db.write().await?;
    let found = users::find_login(&mut conn, &key).await?;
    // A user who does not exist is asked after as thoroughly as one who does.
    let id = found.as_ref().map_or_else(|| UserId::new(uuid::Uuid::nil()), |(id, _)| *id);
    let is_known_place =
        crate::store::sessions::knows_place(&mut conn, id, &keyed_place, now.minus(PLACE_KNOWN)).await?;
    let account = found.as_ref().map_or_else(|| key.clone(), |(id, _)| id.to_string());
    let by_account = (!is_known_place).then(|| format!("login:account:{}", keyed(app, "account", &account)));
    let limits = &app.config.limits;
    if let Attempt::Refused { retry_after } = rates::hit(&mut conn, &by_place, limits.login_address, now).await? {
        return Err(LoginError::TooMany { retry_after });
    }
    if let Some(by_account) = &by_account
        && let Attempt::Refused { retry_after } = rates::hit(&mut conn, by_account, limits.login_account, now).await?
    {
        return Err(LoginError::TooMany { retry_after });
    }
    drop(conn);

    let hash = found.map(|(_, hash)| hash);
    let is_right = match app.hasher.verify(password, hash, &app.metrics).await {
        Ok(is_right) => is_right,
        Err(error) => {
            // It was never looked at, so it was no attempt.
            let mut conn = app.db.write().await?;
            rates::give_back(&mut conn, &by_place).await?;
            if let Some(by_account) = &by_account {
                rates::give_back(&mut conn, by_account).await?;
            }
            return Err(error.into());
        }
    };
    if !is_right {
        return Err(LoginError::Invalid);
    }
    let (by_place, by_account, keyed_place) = (by_place.as_str(), by_account.as_deref(), keyed_place.as_str());
    app.db
        .transact(|mut tx| async move {
            // Only this attempt: somebody who knows one password could otherwise guess at others for ever.
            rates::give_back(&mut tx, by_place).await?;
            if let Some(by_account) = by_account {
                rates::give_back(&mut tx, by_account).await?;
            }
            // Deleted while its password was being checked.
            let Some(user) = users::find(&mut tx, id).await? else { return Err(LoginError::Invalid) };
            crate::store::sessions::remember_place(&mut tx, id, keyed_place, now).await?;
            let tokens = sessions::open(&mut tx, app, id, holder).await?;
            tx.commit().await?;
            Ok((user, tokens))
        })
        .await
}

/// A name for what must not be readable in the database: a keyed hash.
fn keyed(app: &App, kind: &str, value: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &app.sealer.subkey("login attempts"));
    crate::hex(hmac::sign(&key, format!("{kind}\0{value}").as_bytes()).as_ref())
}

/// Why an account was not changed.
#[derive(Debug, Error)]
pub(crate) enum ChangeError {
    #[error("there is no such account")]
    NoUser,
    #[error("this is the last administrator")]
    LastAdmin,
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error(transparent)]
    Hash(#[from] HashError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AsStoreError for ChangeError {
    fn as_store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

/// Replaces a password, ends every session of the account and revokes what was made for them.
pub(crate) async fn reset_password(app: &App, id: UserId, password: Password) -> Result<(), ChangeError> {
    let now = app.clock.now();
    let hash = app.hasher.hash(password, &app.metrics).await?;
    let hash = hash.as_str();
    app.db
        .transact(|mut tx| async move {
            if !users::set_password(&mut tx, id, hash, now).await? {
                return Err(ChangeError::NoUser);
            }
            crate::store::sessions::end_all(&mut tx, id, Ending::PasswordReset, now).await?;
            revoke(&mut tx, Selector::Sub(id), &app.config.lives, now).await?;
            tx.commit().await?;
            Ok::<_, ChangeError>(())
        })
        .await?;
    app.bulletin.poke();
    Ok(())
}

/// Makes somebody an administrator.
pub(crate) async fn promote(app: &App, id: UserId) -> Result<(), ChangeError> {
    let now = app.clock.now();
    app.db
        .transact(|mut tx| async move {
            if !users::set_admin(&mut tx, id, now).await? {
                return Err(ChangeError::NoUser);
            }
            users::close_election(&mut tx, id, now).await?;
            tx.commit().await?;
            Ok(())
        })
        .await
}

/// Makes an administrator a user like others; the last one stays.
pub(crate) async fn demote(app: &App, id: UserId) -> Result<(), ChangeError> {
    let now = app.clock.now();
    app.db
        .transact(|mut tx| async move {
            let Some(user) = users::find(&mut tx, id).await? else { return Err(ChangeError::NoUser) };
            if user.is_admin && !users::demote(&mut tx, id, now).await? {
                return Err(ChangeError::LastAdmin);
            }
            tx.commit().await?;
            Ok(())
        })
        .await
}
