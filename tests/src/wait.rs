//! Waiting for a condition, with a limit.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Asks again and again until the probe has an answer; panics with `what` when the limit is over.
pub async fn until<T, F, P>(what: &str, limit: Duration, mut probe: P) -> T
where
    P: FnMut() -> F,
    F: Future<Output = Option<T>>,
{
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = probe().await {
            return answer;
        }
        assert!(Instant::now() < end, "waited {limit:?} in vain: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}
