//! What the operator's commands do: on the database, beside or without a running hub.

use phlix_protocol::ids::UserId;
use thiserror::Error;

use crate::app::accounts::{self, ChangeError, NewAccount, RegisterError};
use crate::app::keys::{self, KeysError};
use crate::app::seal::Sealer;
use crate::app::smoke::{self, SmokeError};
use crate::app::{App, AssembleError, Hub};
use crate::config::{Config, SealKey};
use crate::domain::key::Purpose;
use crate::domain::user::{self, FieldError, Password};
use crate::replica::{Cause, StartError, open};
use crate::store::{self, Db, StoreError};

pub use crate::app::accounts::Role;

/// Why a command did nothing.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct OperatorError(#[source] Trouble);

#[derive(Debug, Error)]
enum Trouble {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error(transparent)]
    Register(#[from] RegisterError),
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error(transparent)]
    Smoke(#[from] SmokeError),
}

impl<E: Into<Trouble>> From<E> for OperatorError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// Brings the database to this version's shape.
pub async fn migrate(config: &Config) -> Result<(), StartError> {
    let db = open(config).await?;
    let result = db.migrate().await.map_err(Cause::from);
    db.close().await;
    Ok(result?)
}

/// For `doctor`: is the database there, ours and up to date? Changes nothing.
pub async fn check_database(config: &Config) -> Result<(), StartError> {
    let db = open(config).await?;
    let result = db.check_schema().await.map_err(Cause::from);
    db.close().await;
    Ok(result?)
}

/// For `doctor`: can the signing keys be opened with the configured seal key? Changes nothing.
pub async fn check_keys(config: &Config) -> Result<(), OperatorError> {
    let db = opened(config).await?;
    let sealer = Sealer::new(&config.seal_key);
    let result = keys::check(&db, &sealer, config.clock.now()).await;
    db.close().await;
    Ok(result?)
}

/// For `smoke jwt`: signs and verifies one token of each kind with the configured keys. Answers what was tried.
pub async fn smoke_tokens(config: &Config) -> Result<Vec<&'static str>, OperatorError> {
    let app = hub(config).await?;
    let result = smoke::tokens(&app);
    app.db.close().await;
    Ok(result?)
}

/// A signing key, as `key list` shows it.
#[derive(Clone, Debug)]
pub struct KeyInfo {
    /// Its id in tokens and in the JWKS.
    pub kid: String,
    /// `enrollment` or `relay`.
    pub purpose: &'static str,
    /// Does it sign?
    pub is_current: bool,
    /// UTC.
    pub created_at: String,
    /// UTC; when it stopped signing.
    pub retired_at: Option<String>,
    /// UTC; when its last token will have expired.
    pub published_until: Option<String>,
    /// Which seal key it is sealed under.
    pub seal_key_id: String,
}

/// All published signing keys.
pub async fn list_keys(config: &Config) -> Result<Vec<KeyInfo>, OperatorError> {
    let db = opened(config).await?;
    let result = async {
        let mut conn = db.read().await?;
        store::keys::list(&mut conn, config.clock.now()).await
    };
    let rows = result.await;
    db.close().await;
    let info = |row: store::keys::KeyRow| KeyInfo {
        kid: row.kid,
        purpose: row.purpose.as_str(),
        is_current: row.is_current,
        created_at: row.created_at.to_string(),
        retired_at: row.retired_at.map(|at| at.to_string()),
        published_until: row.published_until.map(|at| at.to_string()),
        seal_key_id: row.seal_key_id,
    };
    Ok(rows?.into_iter().map(info).collect())
}

/// New signing keys for every purpose. Running replicas take them up within 10 s; the old ones stay published until their
/// last token has expired.
pub async fn rotate_keys(config: &Config) -> Result<(), OperatorError> {
    let db = opened(config).await?;
    let sealer = Sealer::new(&config.seal_key);
    let rotate = async {
        for purpose in Purpose::ALL {
            keys::rotate(&db, &sealer, &config.lives, purpose, config.clock.now()).await?;
        }
        Ok::<_, KeysError>(())
    };
    let result = rotate.await;
    db.close().await;
    Ok(result?)
}

/// Seals every secret anew, from `old` to the configured seal key. Stop the hub first: it holds the old one. Returns how many
/// were changed; done again it does nothing.
pub async fn reseal(config: &Config, old: &SealKey) -> Result<usize, OperatorError> {
    let db = opened(config).await?;
    let (old, new) = (Sealer::new(old), Sealer::new(&config.seal_key));
    let result = keys::reseal(&db, &old, &new, config.clock.now()).await;
    db.close().await;
    Ok(result?)
}

/// An account, as `user list` shows it.
#[derive(Clone, Debug)]
pub struct UserInfo {
    /// Its id.
    pub id: UserId,
    /// What it logs in with.
    pub username: String,
    /// Or with this.
    pub email: String,
    /// Its rights.
    pub role: Role,
    /// UTC.
    pub created_at: String,
}

impl From<user::User> for UserInfo {
    fn from(user: user::User) -> Self {
        let role = if user.is_admin { Role::Administrator } else { Role::User };
        let created_at = user.created_at.to_string();
        Self { id: user.id, username: user.username, email: user.email, role, created_at }
    }
}

/// Makes an account, also where sign-ups are closed.
pub async fn create_user(
    config: &Config,
    username: &str,
    email: &str,
    password: &str,
    role: Role,
) -> Result<UserInfo, OperatorError> {
    let form = NewAccount::parse(username, email, password)?;
    let app = hub(config).await?;
    let result = accounts::create(&app, form, role).await;
    app.db.close().await;
    Ok(result?.into())
}

/// All accounts, oldest first.
pub async fn list_users(config: &Config) -> Result<Vec<UserInfo>, OperatorError> {
    const PAGE: u32 = 500;
    let db = opened(config).await?;
    let read = async {
        let mut conn = db.read().await?;
        let mut all = Vec::new();
        for page in 0.. {
            let users = store::users::list(&mut conn, PAGE, page * PAGE).await?;
            let is_last = users.is_empty();
            all.extend(users.into_iter().map(UserInfo::from));
            if is_last {
                break;
            }
        }
        Ok::<_, StoreError>(all)
    };
    let result = read.await;
    db.close().await;
    Ok(result?)
}

/// Replaces a password and ends all sessions of the account. `who` is its user name or e-mail address.
pub async fn reset_password(config: &Config, who: &str, password: &str) -> Result<(), OperatorError> {
    let password = Password::parse(password)?;
    let app = hub(config).await?;
    let result = async {
        let id = find(&app, who).await?;
        accounts::reset_password(&app, id, password).await
    };
    let result = result.await;
    app.db.close().await;
    Ok(result?)
}

/// Gives or takes the rights of an administrator; the last one keeps them. `who` is a user name or e-mail address.
pub async fn set_role(config: &Config, who: &str, role: Role) -> Result<(), OperatorError> {
    let app = hub(config).await?;
    let result = async {
        let id = find(&app, who).await?;
        match role {
            Role::Administrator => accounts::promote(&app, id).await,
            Role::User => accounts::demote(&app, id).await,
        }
    };
    let result = result.await;
    app.db.close().await;
    Ok(result?)
}

async fn find(app: &App, who: &str) -> Result<UserId, ChangeError> {
    let mut conn = app.db.read().await?;
    let found = store::users::find_login(&mut conn, &user::fold(who)).await?;
    found.map(|(id, _)| id).ok_or(ChangeError::NoUser)
}

/// The OpenAPI document, as JSON.
pub fn openapi() -> String {
    crate::http::document()
}

/// The database of an existing hub.
async fn opened(config: &Config) -> Result<Db, OperatorError> {
    let db = open(config).await?;
    match db.check_schema().await {
        Ok(()) => Ok(db),
        Err(error) => {
            db.close().await;
            Err(StartError::from(Cause::from(error)).into())
        }
    }
}

/// An existing hub, without its listener and timers.
async fn hub(config: &Config) -> Result<App, OperatorError> {
    let db = opened(config).await?;
    match Hub::assemble(config.clone(), db.clone(), None).await {
        Ok(app) => Ok(app),
        Err(error) => {
            db.close().await;
            Err(error.into())
        }
    }
}
