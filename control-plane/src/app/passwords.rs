//! Password hashing that can't be used against us: Argon2id on blocking threads, so many at once, so many waiting, the next one
//! told to come back (T21); and the same work for a user who does not exist (T20).

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::metrics::Metrics;
use crate::config::Hashing;
use crate::domain::user::Password;
use crate::random;

/// A hash of more memory than this is not ours and not PHP's; computing it would be an attack on ourselves.
const MAX_MEMORY_KIB: u32 = 256 * 1024;

/// Why no hash was made.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum HashError {
    /// Come back after this long.
    #[error("too many passwords are being checked")]
    Busy { retry_after: Duration },
    /// Our settings are impossible, or the machine has no memory for it.
    #[error("password hashing failed")]
    Failed,
}

/// Makes and checks hashes.
#[derive(Debug)]
pub(crate) struct Hasher {
    argon: Argon2<'static>,
    /// One for each that runs or waits.
    places: Arc<Semaphore>,
    /// One for each that runs.
    cores: Arc<Semaphore>,
    /// The hash of a password that nobody knows.
    nobody: String,
}

impl Hasher {
    pub(crate) fn new(cost: Hashing) -> Result<Self, HashError> {
        let params = Params::new(cost.memory_kib, cost.passes, 1, None).map_err(|_| HashError::Failed)?;
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let unknown: [u8; 32] = random::bytes();
        let nobody = argon.hash_password(&unknown).map_err(|_| HashError::Failed)?.to_string();
        let cores = cost.concurrency.max(1);
        Ok(Self {
            argon,
            places: Arc::new(Semaphore::new(cores + cost.queue)),
            cores: Arc::new(Semaphore::new(cores)),
            nobody,
        })
    }

    /// The hash of a new password, as PHC text.
    pub(crate) async fn hash(&self, password: Password, metrics: &Metrics) -> Result<String, HashError> {
        let argon = self.argon.clone();
        let work = move || argon.hash_password(password.bytes()).map(|hash| hash.to_string());
        self.run(metrics, work).await?.map_err(|_| HashError::Failed)
    }

    /// Is it the password of this hash? Where there is none (no such user) the same work is done for nobody.
    pub(crate) async fn verify(
        &self,
        password: Password,
        hash: Option<String>,
        metrics: &Metrics,
    ) -> Result<bool, HashError> {
        let argon = self.argon.clone();
        let exists = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.nobody.clone());
        let work = move || matches(&argon, &password, &hash);
        Ok(self.run(metrics, work).await? & exists)
    }

    async fn run<T: Send + 'static>(
        &self,
        metrics: &Metrics,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HashError> {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            metrics.hashes.with_label_values(&["refused"]).inc();
            return Err(HashError::Busy { retry_after: Duration::from_secs(2) });
        };
        let core = self.cores.clone().acquire_owned().await.map_err(|_| HashError::Failed)?;
        metrics.hashes.with_label_values(&["done"]).inc();
        // The permits go with the work: when the request is given up, its hash still runs and still counts.
        let held: (OwnedSemaphorePermit, OwnedSemaphorePermit) = (place, core);
        let task = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(held);
            result
        });
        task.await.map_err(|_| HashError::Failed)
    }
}

fn matches(argon: &Argon2<'_>, password: &Password, hash: &str) -> bool {
    let Ok(hash) = PasswordHash::new(hash) else { return false };
    let memory = hash.params.get_decimal("m").unwrap_or(u32::MAX);
    memory <= MAX_MEMORY_KIB && argon.verify_password(password.bytes(), &hash).is_ok()
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;

    use super::*;

    fn hasher(concurrency: usize, queue: usize) -> (Arc<Hasher>, Arc<Metrics>) {
        let cost = Hashing { memory_kib: 64, passes: 1, concurrency, queue };
        (Arc::new(Hasher::new(cost).unwrap()), Arc::new(Metrics::new(Registry::new())))
    }

    #[tokio::test]
    async fn right_wrong_and_nobody() {
        let (hasher, metrics) = hasher(1, 8);
        let hash = hasher.hash(Password::tried("right"), &metrics).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{hash}");
        assert!(hasher.verify(Password::tried("right"), Some(hash.clone()), &metrics).await.unwrap());
        assert!(!hasher.verify(Password::tried("wrong"), Some(hash), &metrics).await.unwrap());
        assert!(!hasher.verify(Password::tried("right"), None, &metrics).await.unwrap());
        for damaged in ["", "!", "$argon2id$v=19$m=4294967295,t=1,p=1$c29tZXNhbHQ$aGFzaA"] {
            assert!(!hasher.verify(Password::tried("right"), Some(damaged.to_owned()), &metrics).await.unwrap());
        }
    }

    /// Made by PHP's `password_hash("correct horse", PASSWORD_ARGON2ID)`-shaped parameters: another cost than ours.
    #[tokio::test]
    async fn a_hash_of_another_cost_is_understood() {
        let php = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(65_536, 4, 1, None).unwrap());
        let hash = php.hash_password(b"correct horse").unwrap().to_string();
        let (hasher, metrics) = hasher(1, 8);
        assert!(hasher.verify(Password::tried("correct horse"), Some(hash), &metrics).await.unwrap());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_more_than_fit_is_told_to_come_back() {
        let (hasher, metrics) = hasher(1, 2);
        let core = hasher.cores.clone().acquire_owned().await.unwrap();
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let (hasher, metrics) = (hasher.clone(), metrics.clone());
                tokio::spawn(async move { hasher.verify(Password::tried("x"), None, &metrics).await })
            })
            .collect();
        while hasher.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let refused = hasher.verify(Password::tried("x"), None, &metrics).await;
        assert_eq!(refused, Err(HashError::Busy { retry_after: Duration::from_secs(2) }));
        drop(core);
        for task in waiting {
            assert_eq!(task.await.unwrap(), Ok(false));
        }
        assert_eq!(hasher.places.available_permits(), 3);
    }
}
