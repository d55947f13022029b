//! One question asked once, however many wait for its answer.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{BoxFuture, FutureExt as _, Shared};

/// Questions under way.
pub(super) struct SingleFlight<K, V: Clone> {
    flights: Arc<Mutex<HashMap<K, Shared<BoxFuture<'static, V>>>>>,
}

impl<K, V> SingleFlight<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new() -> Self {
        Self { flights: Arc::default() }
    }

    /// Joins the flight for this key, or starts it. A started flight lands even when everybody who waited has gone, so
    /// that its answer is cached for whoever asks again.
    pub(super) fn join(&self, key: K, start: impl FnOnce() -> BoxFuture<'static, V>) -> Shared<BoxFuture<'static, V>> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&key) {
            return flight.clone();
        }
        let landed = Landed { flights: Arc::clone(&self.flights), key: key.clone() };
        let question = start();
        let flight = async move {
            let _landed = landed;
            question.await
        }
        .boxed()
        .shared();
        flights.insert(key, flight.clone());
        drop(flights);
        tokio::spawn(flight.clone());
        flight
    }
}

/// Takes the flight off the board, however it ended.
struct Landed<K: Hash + Eq, V: Clone> {
    flights: Arc<Mutex<HashMap<K, Shared<BoxFuture<'static, V>>>>>,
    key: K,
}

impl<K: Hash + Eq, V: Clone> Drop for Landed<K, V> {
    fn drop(&mut self) {
        let flight = self.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        // Dropped outside of the lock: it is the last handle but the one that runs us.
        drop(flight);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn many_askers_cause_one_question_and_a_later_one_asks_anew() {
        let asked = Arc::new(AtomicUsize::new(0));
        let flights = SingleFlight::<u8, usize>::new();
        let ask = || {
            let asked = Arc::clone(&asked);
            flights.join(1, move || {
                async move {
                    tokio::task::yield_now().await;
                    asked.fetch_add(1, Ordering::SeqCst) + 1
                }
                .boxed()
            })
        };
        let answers = futures_util::future::join_all([ask(), ask(), ask()]).await;
        assert_eq!(answers, [1, 1, 1]);
        assert_eq!(ask().await, 2);
    }
}
