//! How long small requests through a tunnel take: for stories that say that nobody is slowed down.

use std::time::{Duration, Instant};

use crate::viewer::{self, Client};

/// A small request, by somebody who may ask it.
#[derive(Debug, Clone, Copy)]
pub struct Small<'a> {
    pub path: &'a str,
    pub header: (&'a str, &'a str),
}

impl Small<'_> {
    /// The times of `count` of them, one after the other.
    pub async fn times(&self, viewer: &mut Client, count: usize) -> Vec<Duration> {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let begun = Instant::now();
            let answer = viewer.get(self.path, &[self.header]).await;
            assert_eq!(answer.status(), 200);
            viewer::read(answer).await.unwrap();
            times.push(begun.elapsed());
        }
        times
    }

    /// The 99th of a hundred, of `count`.
    pub async fn p99(&self, viewer: &mut Client, count: usize) -> Duration {
        let mut times = self.times(viewer, count).await;
        times.sort();
        times[times.len() * 99 / 100]
    }

    /// The median of the p99s of rounds of `count`: for at least `time`, and five rounds. One round may be hit by
    /// something else on the machine.
    pub async fn rounds(&self, viewer: &mut Client, count: usize, time: Duration) -> Duration {
        let begun = Instant::now();
        let mut rounds = Vec::new();
        while begun.elapsed() < time || rounds.len() < 5 {
            rounds.push(self.p99(viewer, count).await);
        }
        rounds.sort();
        rounds[rounds.len() / 2]
    }
}

/// To a [`crate::origin::home::Home`].
fn at_home(ticket: &str) -> Small<'_> {
    Small { path: "/login", header: ("x-phlix-ticket", ticket) }
}

/// The times of `count` small requests to a [`crate::origin::home::Home`].
pub async fn requests(viewer: &mut Client, ticket: &str, count: usize) -> Vec<Duration> {
    at_home(ticket).times(viewer, count).await
}

/// As [`Small::p99`].
pub async fn p99(viewer: &mut Client, ticket: &str, count: usize) -> Duration {
    at_home(ticket).p99(viewer, count).await
}

/// As [`Small::rounds`].
pub async fn rounds(viewer: &mut Client, ticket: &str, count: usize, time: Duration) -> Duration {
    at_home(ticket).rounds(viewer, count, time).await
}
