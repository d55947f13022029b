//! The hub's signing keys as a replica holds them: made at the first start, sealed in the database, read again every few
//! seconds, so that a rotation by one replica or by the operator reaches all.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use phlix_protocol::b64;
use phlix_protocol::keys::{Jwk, Jwks, KeySet, PublicKey, SigningKey};
use phlix_protocol::uplink::Change;
use thiserror::Error;

use super::seal::{Place, Sealer};
use crate::config::Lives;
use crate::domain::key::{Purpose, STALE_AFTER};
use crate::random;
use crate::store::bulletin;
use crate::store::keys::{self as rows, KeyRow, NewKey};
use crate::store::{AsStoreError, Db, StoreError};
use crate::timestamp::Timestamp;

/// Why there is no key to sign with.
#[derive(Debug, Error)]
pub(crate) enum KeysError {
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The seal key is not the one that sealed the keys.
    #[error(
        "signing key {kid} is sealed under the seal key {sealed_under}, but the configured one is {configured}: \
         configure the old one, or run `phlix key reseal` with both"
    )]
    OtherSealKey { kid: String, sealed_under: String, configured: String },
    /// The row was damaged or moved.
    #[error("signing key {kid} can't be opened: its row was damaged")]
    Damaged { kid: String },
    /// The hub has never been started on this database.
    #[error("there is no signing key for {purpose}: it is made when the hub starts for the first time")]
    Missing { purpose: &'static str },
    /// The database has been away for so long that another replica may have rotated the keys.
    #[error("the signing keys were last read too long ago")]
    Stale,
}

impl AsStoreError for KeysError {
    fn as_store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

/// The keys in memory.
#[derive(Debug)]
pub(crate) struct Keys(RwLock<Arc<Ring>>);

#[derive(Debug)]
struct Ring {
    read_at: Timestamp,
    signers: BTreeMap<Purpose, Arc<SigningKey>>,
    /// The current one first, then the retired ones, newest first.
    published: Vec<Published>,
}

#[derive(Debug)]
struct Published {
    purpose: Purpose,
    key: PublicKey,
    until: Option<Timestamp>,
}

impl Keys {
    /// Makes the keys that are missing and reads all.
    pub(crate) async fn open(db: &Db, sealer: &Sealer, lives: &Lives, now: Timestamp) -> Result<Self, KeysError> {
        let mut conn = db.write().await?;
        for purpose in Purpose::ALL {
            let existing = rows::list(&mut conn, now).await?;
            let life = longest_life(purpose, lives);
            if !existing.iter().any(|row| row.purpose == purpose && row.is_current) {
                // A replica that starts at the same time may be faster: then its key is the one.
                if generate(&mut conn, sealer, purpose, life, now).await? {
                    tracing::info!(purpose = purpose.as_str(), "made a signing key");
                }
            }
            rows::raise_life(&mut conn, purpose, life).await?;
        }
        let ring = read(&mut conn, sealer, now).await?;
        Ok(Self(RwLock::new(Arc::new(ring))))
    }

    /// Reads the keys again.
    pub(crate) async fn refresh(&self, db: &Db, sealer: &Sealer, now: Timestamp) -> Result<(), KeysError> {
        let mut conn = db.read().await?;
        let ring = read(&mut conn, sealer, now).await?;
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(ring);
        Ok(())
    }

    /// The key that signs for `purpose` now.
    pub(crate) fn signer(&self, purpose: Purpose, now: Timestamp) -> Result<Arc<SigningKey>, KeysError> {
        let ring = self.ring();
        if now.since(ring.read_at) >= STALE_AFTER {
            return Err(KeysError::Stale);
        }
        ring.signers.get(&purpose).cloned().ok_or(KeysError::Stale)
    }

    /// The keys whose signature on a token of this purpose is believed.
    pub(crate) fn set(&self, purpose: Purpose, now: Timestamp) -> KeySet {
        let ring = self.ring();
        KeySet::new(ring.at(now).filter(|published| published.purpose == purpose).map(|published| published.key))
    }

    /// All of them, as they are published: those that sign first.
    pub(crate) fn jwks(&self, now: Timestamp) -> Jwks {
        let ring = self.ring();
        let (current, retired): (Vec<_>, Vec<_>) = ring.at(now).partition(|published| published.until.is_none());
        Jwks { keys: current.iter().chain(&retired).map(|published| published.key.published_jwk()).collect() }
    }

    fn ring(&self) -> Arc<Ring> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Ring {
    fn at(&self, now: Timestamp) -> impl Iterator<Item = &Published> {
        self.published.iter().filter(move |published| published.until.is_none_or(|until| now < until))
    }
}

/// The longest life of a token that a key of this purpose signs.
fn longest_life(purpose: Purpose, lives: &Lives) -> Duration {
    match purpose {
        Purpose::Enrollment => lives.enrollment,
        Purpose::Relay => [lives.tunnel_ticket, lives.viewer_ticket, lives.client_ticket, lives.edge_list]
            .into_iter()
            .max()
            .unwrap_or_default(),
    }
}

async fn generate(
    conn: &mut crate::store::Conn,
    sealer: &Sealer,
    purpose: Purpose,
    life: Duration,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let seed: [u8; 32] = random::bytes();
    let key = SigningKey::from_seed(&seed);
    let kid = key.kid();
    let new = NewKey {
        kid: &kid,
        purpose,
        public_key: &b64::encode(key.public().as_bytes()),
        sealed_seed: &sealer.seal(place(&kid), &seed),
        seal_key_id: sealer.id(),
        longest_life: life,
    };
    rows::insert_current(conn, new, now).await
}

/// The public half of a row, as it is published.
fn published_key(row: &KeyRow) -> Option<Jwk> {
    let bytes = b64::decode_array(&row.public_key)?;
    PublicKey::from_bytes(&bytes).ok().map(|key| key.published_jwk())
}

fn place(kid: &str) -> Place<'_> {
    Place { table: "signing_keys", row: kid, column: "sealed_seed" }
}

async fn read(conn: &mut crate::store::Conn, sealer: &Sealer, now: Timestamp) -> Result<Ring, KeysError> {
    let mut ring = Ring { read_at: now, signers: BTreeMap::new(), published: Vec::new() };
    for row in rows::list(conn, now).await? {
        let key = open_row(&row, sealer)?;
        let published = Published { purpose: row.purpose, key: key.public(), until: row.published_until };
        if row.is_current {
            ring.signers.insert(row.purpose, Arc::new(key));
        }
        ring.published.push(published);
    }
    Ok(ring)
}

fn open_row(row: &KeyRow, sealer: &Sealer) -> Result<SigningKey, KeysError> {
    let kid = row.kid.clone();
    if row.seal_key_id != sealer.id() {
        let (sealed_under, configured) = (row.seal_key_id.clone(), sealer.id().to_owned());
        return Err(KeysError::OtherSealKey { kid, sealed_under, configured });
    }
    let seed = sealer.open(place(&kid), &row.sealed_seed).ok().and_then(|seed| <[u8; 32]>::try_from(seed).ok());
    let key = seed.map(|seed| SigningKey::from_seed(&seed));
    // The public half in the row is what JWKS readers saw: it must be this key's.
    match key {
        Some(key) if key.kid() == kid && b64::encode(key.public().as_bytes()) == row.public_key => Ok(key),
        _ => Err(KeysError::Damaged { kid }),
    }
}

/// Can all keys be opened, and is there one for each purpose? Changes nothing.
pub(crate) async fn check(db: &Db, sealer: &Sealer, now: Timestamp) -> Result<(), KeysError> {
    let mut conn = db.read().await?;
    let ring = read(&mut conn, sealer, now).await?;
    match Purpose::ALL.into_iter().find(|purpose| !ring.signers.contains_key(purpose)) {
        Some(purpose) => Err(KeysError::Missing { purpose: purpose.as_str() }),
        None => Ok(()),
    }
}

/// Replaces the signing key of `purpose`. The old one stays published until its last token has expired.
pub(crate) async fn rotate(
    db: &Db,
    sealer: &Sealer,
    lives: &Lives,
    purpose: Purpose,
    now: Timestamp,
) -> Result<(), KeysError> {
    db.transact(|mut tx| async move {
        let old = rows::list(&mut tx, now).await?.into_iter().find(|row| row.purpose == purpose && row.is_current);
        if let Some(old) = old
            && !rows::retire(&mut tx, &old, now).await?
        {
            // Somebody rotated between our read and our write: there is a new key already.
            return Ok(());
        }
        generate(&mut tx, sealer, purpose, longest_life(purpose, lives), now).await?;
        // Edges learn the new key before they see its first signature.
        let keys = rows::list(&mut tx, now).await?.iter().filter_map(published_key).collect();
        bulletin::publish(&mut tx, &Change::Keys { jwks: Jwks { keys } }, now).await?;
        tx.commit().await?;
        Ok(())
    })
    .await
}

/// Seals every key anew: from `old` to `new`. Done again it does nothing. Returns how many were changed.
pub(crate) async fn reseal(db: &Db, old: &Sealer, new: &Sealer, now: Timestamp) -> Result<usize, KeysError> {
    db.transact(|mut tx| async move {
        let mut changed = 0;
        for row in rows::list(&mut tx, now).await? {
            if row.seal_key_id == new.id() {
                continue;
            }
            let key = open_row(&row, old)?;
            let sealed = new.seal(place(&row.kid), &key.seed());
            changed += usize::from(rows::reseal(&mut tx, &row.kid, old.id(), &sealed, new.id()).await?);
        }
        tx.commit().await?;
        Ok(changed)
    })
    .await
}
