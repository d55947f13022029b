//! How long small requests through a tunnel take: for stories that say that nobody is slowed down.

use std::time::{Duration, Instant};

use crate::viewer::{self, Client};

/// The times of `count` small requests to a [`crate::origin::home::Home`], one after the other.
pub async fn requests(viewer: &mut Client, ticket: &str, count: usize) -> Vec<Duration> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        let answer = viewer.get("/login", &[("x-phlix-ticket", ticket)]).await;
        assert_eq!(answer.status(), 200);
        viewer::read(answer).await.unwrap();
        times.push(begun.elapsed());
    }
    times
}

/// The 99th of a hundred, of `count` requests.
pub async fn p99(viewer: &mut Client, ticket: &str, count: usize) -> Duration {
    let mut times = requests(viewer, ticket, count).await;
    times.sort();
    times[times.len() * 99 / 100]
}

/// The median of the p99s of rounds of `count` requests: for at least `time`, and five rounds. One
/// round may be hit by something else on the machine.
pub async fn rounds(viewer: &mut Client, ticket: &str, count: usize, time: Duration) -> Duration {
    let begun = Instant::now();
    let mut rounds = Vec::new();
    while begun.elapsed() < time || rounds.len() < 5 {
        rounds.push(p99(viewer, ticket, count).await);
    }
    rounds.sort();
    rounds[rounds.len() / 2]
}
