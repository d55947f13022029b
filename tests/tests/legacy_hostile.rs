//! Media servers and viewers that mean harm, on a wire without windows: viewers who read nothing, a server that floods,
//! one that lies about lengths, one that never ends. Each costs its own stream or its own tunnel: memory stays within its
//! budget, others keep their pace.
//!
//! One after the other: what is measured is the machine, too.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use http_body_util::BodyExt;
use phlix_tests::database::Database;
use phlix_tests::hub::Hub;
use phlix_tests::latency::Small;
use phlix_tests::legacy::{BIG, EXAMPLE, Legacy, LegacyWorld, proxied};
use phlix_tests::viewer::{Client, Protocol};
use phlix_tests::{Engine, full_size, story, until};
use tokio::task::JoinHandle;

/// What all streams of a tunnel may have queued, and what the hub may keep beside it (TLS, buffers of what came and went).
const BUDGET_KIB: u64 = 16 * 1024;
const BESIDE_KIB: u64 = 12 * 1024;

/// Viewers who read nothing.
const STALLED: usize = 8;

/// Two cores carry the hub, both servers, their viewers and the one who measures: below this, the order in which they are
/// scheduled decides.
const SLICES: Duration = Duration::from_millis(5);

/// The server that means harm, and a neighbour of it at the same hub.
struct Street {
    hostile: LegacyWorld,
    _neighbour: Legacy,
    bearer: String,
    /// A small request to each.
    of_hostile: String,
    of_neighbour: String,
}

#[test]
fn each_costs_its_own_stream_or_tunnel() {
    story(async {
        let mut street = Street::build().await;
        viewers_who_read_nothing(&mut street).await;
        a_server_that_floods(&mut street).await;
        a_server_that_lies_about_lengths(&mut street).await;
        a_server_that_never_ends(&mut street).await;
    });
}

impl Street {
    async fn build() -> Self {
        let settings = [("PHLIX_HUB_RATELIMIT_PROXY_MAX", "0")];
        let hub = Hub::start(Database::fresh(Engine::Sqlite), &settings).await;
        let owner = hub.api().register("owner").await;
        let mut neighbour = Legacy::start(&hub);
        let id = owner.claim(&neighbour.claim_code().await).await;
        neighbour.connected().await;
        let hostile = Legacy::start(&hub);
        // It has a machine of its own in life, and must not take the time of those who are measured here.
        hostile.step_back();
        let hostile = LegacyWorld::of(hub, owner, hostile).await;
        let poster = format!("/api/v1/artwork/{EXAMPLE}");
        let mut street = Self {
            bearer: hostile.bearer(),
            of_hostile: hostile.path(&poster),
            of_neighbour: proxied(&id, &poster),
            hostile,
            _neighbour: neighbour,
        };
        // Warm: what a first transfer allocates is there.
        let mut viewer = street.viewer().await;
        let whole = street.hostile.path(&format!("/media/{BIG}/stream?size={}", 64 << 20));
        let answer = viewer.get(&whole, &[("authorization", &street.bearer)]).await;
        assert_eq!(phlix_tests::viewer::read(answer).await.unwrap().len(), 64 << 20);
        for path in [street.of_hostile.clone(), street.of_neighbour.clone()] {
            street.rounds(&path, Duration::from_secs(1)).await;
        }
        street
    }

    async fn viewer(&self) -> Client {
        self.hostile.viewer(Protocol::H1).await
    }

    async fn rounds(&mut self, path: &str, time: Duration) -> Duration {
        let mut viewer = self.viewer().await;
        Small { path, header: ("authorization", &self.bearer) }.rounds(&mut viewer, 200, time).await
    }

    fn resident(&mut self) -> u64 {
        self.hostile.hub.process().resident_kib()
    }

    /// The neighbour's p99 and the hub's growth while `harm` is done again and again.
    async fn beside(&mut self, what: &str, harm: JoinHandle<()>, before: u64, alone: Duration) {
        let path = self.of_neighbour.clone();
        let beside = self.rounds(&path, time()).await;
        let grown = self.resident().saturating_sub(before);
        harm.abort();
        let _ = harm.await;
        let alone = alone.max(self.rounds(&path, time() / 2).await);
        println!("{what}: another tunnel's p99 {alone:?}, meanwhile {beside:?}; the hub grew by {grown} KiB");
        assert!(beside <= (alone.mul_f64(1.1)).max(alone + SLICES), "{what}: p99 rose from {alone:?} to {beside:?}");
        assert!(grown <= BUDGET_KIB + BESIDE_KIB, "{what}: the hub grew by {grown} KiB");
        self.calm().await;
    }

    /// Starts the hostile server anew, so that nothing of it still runs.
    async fn calm(&mut self) {
        self.hostile.legacy.kill();
        self.hostile.legacy.start_again();
        self.hostile.legacy.step_back();
        self.hostile.legacy.connected().await;
        let path = self.of_hostile.clone();
        until("the server is back", Duration::from_secs(20), || async {
            (self.hostile.owner.get(&path).await.status == 200).then_some(())
        })
        .await;
    }

    async fn alone(&mut self) -> (u64, Duration) {
        let path = self.of_neighbour.clone();
        let alone = self.rounds(&path, time() / 2).await;
        (self.resident(), alone)
    }
}

fn time() -> Duration {
    if full_size() { Duration::from_secs(20) } else { Duration::from_secs(4) }
}

/// Their streams are reset, each alone; the others of the same tunnel hardly notice.
async fn viewers_who_read_nothing(street: &mut Street) {
    let same = street.of_hostile.clone();
    let alone = street.rounds(&same, time() / 2).await;
    let (before, other_alone) = street.alone().await;
    let big = street.hostile.path(&format!("/media/{BIG}/stream?size={}", 32 << 20));
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let mut viewer = street.viewer().await;
        let answer = viewer.get(&big, &[("authorization", &street.bearer)]).await;
        assert_eq!(answer.status(), 200);
        stalled.push((viewer, answer));
    }
    let beside = street.rounds(&same, time()).await;
    let grown = street.resident().saturating_sub(before);
    let alone = alone.max(street.rounds(&same, time() / 2).await);
    println!("{STALLED} who read nothing: p99 of the same tunnel {alone:?}, beside them {beside:?}; {grown} KiB");
    assert!(beside <= (alone * 2).max(alone + SLICES), "p99 rose from {alone:?} to {beside:?}");
    assert!(grown <= BUDGET_KIB + BESIDE_KIB, "the hub grew by {grown} KiB");
    // The tunnel held, and each of those who stalled hears that it did not get all.
    assert_eq!(street.hostile.legacy.records().await.tunnels().len(), 1);
    for (_, answer) in stalled {
        let outcome = tokio::time::timeout(Duration::from_secs(20), answer.into_body().collect()).await.unwrap();
        assert!(outcome.is_err(), "a stalled viewer got the whole of its file");
    }
    let path = street.of_neighbour.clone();
    let other_beside = street.rounds(&path, time() / 2).await;
    assert!(other_beside <= other_alone.mul_f64(1.1).max(other_alone + SLICES), "{other_alone:?} to {other_beside:?}");
    street.calm().await;
}

/// Frames for requests that nobody made: dropped, and beyond a budget the tunnel with them.
async fn a_server_that_floods(street: &mut Street) {
    let (before, alone) = street.alone().await;
    let harm = street.again("/api/v1/media?behave=flood&frames=100000000&piece=20");
    street.beside("a flood of small frames", harm, before, alone).await;
    let (before, alone) = street.alone().await;
    let harm = street.again("/api/v1/media?behave=flood&frames=100000000&piece=65000");
    street.beside("a flood of large frames", harm, before, alone).await;
}

/// More than was promised: for the viewer an error or an end, for the rest of it nobody is left.
async fn a_server_that_lies_about_lengths(street: &mut Street) {
    let (before, alone) = street.alone().await;
    let harm = street.again("/api/v1/media?behave=pile&size=1000");
    street.beside("a body beyond its length", harm, before, alone).await;
}

/// A viewer who takes it slowly is served as long as both are there.
async fn a_server_that_never_ends(street: &mut Street) {
    let (before, alone) = street.alone().await;
    let mut viewer = street.viewer().await;
    let path = street.hostile.path("/api/v1/media?behave=endless");
    let bearer = street.bearer.clone();
    let harm = tokio::spawn(async move {
        let mut answer = viewer.get(&path, &[("authorization", &bearer)]).await;
        assert_eq!(answer.status(), 200);
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        loop {
            pace.tick().await;
            answer.body_mut().frame().await.unwrap().unwrap();
        }
    });
    street.beside("a body without an end", harm, before, alone).await;
}

impl Street {
    /// Asks for the same again and again, whatever comes.
    fn again(&self, path: &str) -> JoinHandle<()> {
        let (owner, path) = (self.hostile.owner.clone(), self.hostile.path(path));
        tokio::spawn(async move {
            loop {
                let _ = owner.try_call(http::Method::GET, &path, None).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
    }
}
