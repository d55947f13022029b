//! What the operator's commands do: on the database, beside or without a running hub.

use crate::app::keys;
use crate::app::seal::Sealer;
use crate::config::{Config, SealKey};
use crate::domain::key::Purpose;
use crate::replica::{Cause, StartError, open};
use crate::store;

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

/// For `doctor`: can the signing keys be opened with the configured seal key?
pub async fn check_keys(config: &Config) -> Result<(), StartError> {
    let db = open(config).await?;
    let sealer = Sealer::new(&config.seal_key);
    let result = keys::Keys::open(&db, &sealer, &config.lives, config.clock.now()).await;
    db.close().await;
    result.map(drop).map_err(|error| Cause::from(error).into())
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
pub async fn list_keys(config: &Config) -> Result<Vec<KeyInfo>, StartError> {
    let db = open(config).await?;
    let result = async {
        let mut conn = db.read().await?;
        store::keys::list(&mut conn, config.clock.now()).await
    };
    let rows = result.await.map_err(|error| Cause::from(keys::KeysError::from(error)));
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
pub async fn rotate_keys(config: &Config) -> Result<(), StartError> {
    let db = open(config).await?;
    let sealer = Sealer::new(&config.seal_key);
    let rotate = async {
        for purpose in Purpose::ALL {
            keys::rotate(&db, &sealer, &config.lives, purpose, config.clock.now()).await?;
        }
        Ok::<_, keys::KeysError>(())
    };
    let result = rotate.await.map_err(Cause::from);
    db.close().await;
    Ok(result?)
}

/// Seals every secret anew, from `old` to the configured seal key. Stop the hub first: it holds the old one. Returns how many
/// were changed; done again it does nothing.
pub async fn reseal(config: &Config, old: &SealKey) -> Result<usize, StartError> {
    let db = open(config).await?;
    let (old, new) = (Sealer::new(old), Sealer::new(&config.seal_key));
    let result = keys::reseal(&db, &old, &new, config.clock.now()).await.map_err(Cause::from);
    db.close().await;
    Ok(result?)
}

/// The OpenAPI document, as JSON.
pub fn openapi() -> String {
    crate::http::document()
}
