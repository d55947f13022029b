//! The hub's public keys: pinned at claiming, kept on disk, fetched again when a token names one that is not known.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use phlix_protocol::keys::{Jwks, KeySet};
use phlix_protocol::token::{self, HubClaims, TokenError};

use super::{HubClient, HubError};
use crate::clock::HubClock;
use crate::state::State;

/// How soon after a fetch the next may come, whoever asks (trust s.4.2): an edge that sends garbage must not make
/// agents flood the hub.
const BETWEEN_FETCHES: Duration = Duration::from_secs(30);

/// Verifies what the hub has signed.
pub(crate) struct HubKeys {
    hub: Arc<HubClient>,
    path: String,
    clock: Arc<HubClock>,
    state: Arc<State>,
    current: Mutex<Arc<KeySet>>,
    /// When the last fetch began; held while one is under way, so that those who wait share it.
    fetched: tokio::sync::Mutex<Option<Instant>>,
}

impl HubKeys {
    /// Starts with the keys that the folder has.
    pub(crate) fn new(hub: Arc<HubClient>, path: String, clock: Arc<HubClock>, state: Arc<State>) -> Self {
        let kept = state.keys().unwrap_or_default();
        Self { hub, path, clock, state, current: Mutex::new(Arc::new(kept.key_set())), fetched: Default::default() }
    }

    /// The keys now known.
    pub(crate) fn current(&self) -> Arc<KeySet> {
        Arc::clone(&self.lock())
    }

    /// Verifies a token by the hub's time; where its key is not known, after asking for the keys anew.
    pub(crate) async fn verify<C: HubClaims>(&self, token: &str) -> Result<C, TokenError> {
        match token::verify(token, &self.current(), self.clock.now()) {
            Err(TokenError::UnknownKey) => {
                if let Err(error) = self.fetch(Instant::now()).await {
                    tracing::warn!(%error, "the hub's keys can't be fetched");
                }
                token::verify(token, &self.current(), self.clock.now())
            }
            verdict => verdict,
        }
    }

    /// Fetches the keys, unless that was done a moment ago.
    async fn fetch(&self, now: Instant) -> Result<(), HubError> {
        let mut fetched = self.fetched.lock().await;
        if fetched.is_some_and(|then| now.saturating_duration_since(then) < BETWEEN_FETCHES) {
            return Ok(());
        }
        *fetched = Some(now);
        let keys = self.hub.key_set(&self.path).await?;
        let set = keys.key_set();
        if set.is_empty() {
            return Err(HubError::Nonsense("its key set has no usable key"));
        }
        *self.lock() = Arc::new(set);
        self.keep(keys);
        Ok(())
    }

    /// Writes the keys down, away from the data path; a disk that is full costs only what a restart would have had.
    fn keep(&self, keys: Jwks) {
        let state = Arc::clone(&self.state);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = state.save_keys(&keys) {
                tracing::warn!(%error, "the hub's keys can't be kept");
            }
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<KeySet>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
