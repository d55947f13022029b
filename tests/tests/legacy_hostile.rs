//! Media servers and viewers that mean harm, on a wire without windows: viewers who read nothing, a server that floods,
//! one that lies about lengths, one that never ends. Each costs its own stream or its own tunnel: memory stays within its
//! budget, others keep their pace.
//!
//! One after the other. What is measured is the machine, too: so a like server at a hub of its own is asked in turns with
//! those beside the harm, and theirs is compared with its pace.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use phlix_tests::database::Database;
use phlix_tests::hub::Hub;
use phlix_tests::latency::Small;
use phlix_tests::legacy::{BIG, EXAMPLE, Legacy, LegacyWorld, proxied};
use phlix_tests::viewer::{self, Client, Protocol};
use phlix_tests::{Engine, full_size, story, until};
use tokio::task::JoinHandle;

/// What all streams of a tunnel may have queued, and what the hub may keep beside it (TLS, buffers of what came and went).
const BUDGET_KIB: u64 = 16 * 1024;
const BESIDE_KIB: u64 = 12 * 1024;

/// Viewers who read nothing.
const STALLED: usize = 8;

/// Two cores carry hubs, servers, their viewers and the one who measures: below this, the order in which they are
/// scheduled decides.
const SLICES: Duration = Duration::from_millis(5);

/// Requests of a round, of which one or none may be slower than its p99.
const ROUND: usize = 100;

/// "Other tunnels' p99 within 1.1 x, other streams' of the same tunnel within 2 x."
const OTHER_TUNNELS: f64 = 1.1;
const SAME_TUNNEL: f64 = 2.0;

/// The server that means harm, a neighbour at the same hub, and one far away, at a hub of its own.
struct Street {
    hostile: LegacyWorld,
    far: LegacyWorld,
    _neighbour: Legacy,
    bearer: String,
    /// A small request to each of the first two.
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
        // Nobody is refused for asking often.
        let settings = [("PHLIX_HUB_RATELIMIT_PROXY_MAX", "0")];
        let hub = Hub::start(Database::fresh(Engine::Sqlite), &settings).await;
        let owner = hub.api().register("owner").await;
        let mut neighbour = Legacy::start(&hub);
        let id = owner.claim(&neighbour.claim_code().await).await;
        neighbour.connected().await;
        let hostile = Legacy::start(&hub);
        let hostile = LegacyWorld::of(hub, owner, hostile).await;
        let far = LegacyWorld::with(Engine::Sqlite, &settings, &[]).await;
        let street = Self {
            bearer: hostile.bearer(),
            of_hostile: hostile.path(&poster()),
            of_neighbour: proxied(&id, &poster()),
            hostile,
            far,
            _neighbour: neighbour,
        };
        // Warm: what a first transfer allocates is there.
        let mut viewer = street.viewer().await;
        let whole = street.hostile.path(&format!("/media/{BIG}/stream?size={}", 64 << 20));
        let answer = viewer.get(&whole, &[("authorization", &street.bearer)]).await;
        assert_eq!(viewer::read(answer).await.unwrap().len(), 64 << 20);
        for path in [&street.of_hostile, &street.of_neighbour] {
            let (near, far) = street.paces(path, time() / 4).await;
            println!("nothing happens: p99 {near:?}, far away {far:?}");
        }
        street
    }

    async fn viewer(&self) -> Client {
        self.hostile.viewer(Protocol::H1).await
    }

    /// The p99 of small requests at this hub and far away, in turns: the medians of their rounds.
    async fn paces(&self, path: &str, time: Duration) -> (Duration, Duration) {
        let (mut near, mut far) = (self.viewer().await, self.far.viewer(Protocol::H1).await);
        let (there, bearer) = (self.far.path(&poster()), self.far.bearer());
        let asked = Small { path, header: ("authorization", &self.bearer) };
        let control = Small { path: &there, header: ("authorization", &bearer) };
        let begun = Instant::now();
        let mut rounds = (Vec::new(), Vec::new());
        while begun.elapsed() < time || rounds.0.len() < 5 {
            rounds.0.push(asked.p99(&mut near, ROUND).await);
            rounds.1.push(control.p99(&mut far, ROUND).await);
        }
        (median(rounds.0), median(rounds.1))
    }

    fn resident(&mut self) -> u64 {
        self.hostile.hub.process().resident_kib()
    }

    /// The pace of those at `path`, and the hub's growth since `before`, while harm is done. Where the machine does
    /// something else at the same time, they are asked once more, and a third time.
    async fn judge(&mut self, what: &str, path: &str, before: u64, factor: f64) {
        for attempt in 1.. {
            let (near, far) = self.paces(path, time()).await;
            let grown = self.resident().saturating_sub(before);
            println!("{what}: p99 beside it {near:?}, far away {far:?}; the hub grew by {grown} KiB");
            assert!(grown <= BUDGET_KIB + BESIDE_KIB, "{what}: the hub grew by {grown} KiB");
            if near <= far.mul_f64(factor).max(far + SLICES) {
                return;
            }
            assert!(attempt < 3, "{what}: p99 {near:?}, far away {far:?}");
        }
    }

    /// Asks for the same again and again, whatever comes, and judges how the neighbour fares meanwhile.
    async fn again(&mut self, what: &str, path: &str) {
        // It has a machine of its own in life, and must not take the time of those who are measured here.
        self.hostile.legacy.step_back();
        let before = self.resident();
        let (owner, path) = (self.hostile.owner.clone(), self.hostile.path(path));
        let harm = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(50));
            loop {
                pace.tick().await;
                let _ = owner.try_call(http::Method::GET, &path, None).await;
            }
        });
        self.beside(what, harm, before).await;
    }

    async fn beside(&mut self, what: &str, harm: JoinHandle<()>, before: u64) {
        let path = self.of_neighbour.clone();
        self.judge(what, &path, before, OTHER_TUNNELS).await;
        harm.abort();
        let _ = harm.await;
        self.calm().await;
    }

    /// Starts the hostile server anew, so that nothing of it still runs.
    async fn calm(&mut self) {
        self.hostile.legacy.kill();
        self.hostile.legacy.start_again();
        self.hostile.legacy.connected().await;
        let path = self.of_hostile.clone();
        until("the server is back", Duration::from_secs(20), || async {
            (self.hostile.owner.get(&path).await.status == 200).then_some(())
        })
        .await;
    }
}

fn poster() -> String {
    format!("/api/v1/artwork/{EXAMPLE}")
}

fn median(mut rounds: Vec<Duration>) -> Duration {
    rounds.sort();
    rounds[rounds.len() / 2]
}

fn time() -> Duration {
    if full_size() { Duration::from_secs(20) } else { Duration::from_secs(4) }
}

/// Their streams are reset, each alone; the others of the same tunnel hardly notice.
async fn viewers_who_read_nothing(street: &mut Street) {
    let before = street.resident();
    let big = street.hostile.path(&format!("/media/{BIG}/stream?size={}", 32 << 20));
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let mut viewer = street.viewer().await;
        let answer = viewer.get(&big, &[("authorization", &street.bearer)]).await;
        assert_eq!(answer.status(), 200);
        stalled.push((viewer, answer));
    }
    let (same, other) = (street.of_hostile.clone(), street.of_neighbour.clone());
    street.judge("viewers who read nothing, same tunnel", &same, before, SAME_TUNNEL).await;
    street.judge("viewers who read nothing, another tunnel", &other, before, OTHER_TUNNELS).await;
    // The tunnel held, and each of those who stalled hears that it did not get all.
    assert_eq!(street.hostile.legacy.records().await.tunnels().len(), 1);
    for (_, answer) in stalled {
        let outcome = tokio::time::timeout(Duration::from_secs(20), answer.into_body().collect()).await.unwrap();
        assert!(outcome.is_err(), "a stalled viewer got the whole of its file");
    }
    street.calm().await;
}

/// Frames for requests that nobody made: dropped, and beyond a budget the tunnel with them.
async fn a_server_that_floods(street: &mut Street) {
    street.again("a flood of small frames", "/api/v1/media?behave=flood&frames=100000000&piece=20").await;
    street.again("a flood of large frames", "/api/v1/media?behave=flood&frames=100000000&piece=65000").await;
}

/// More than was promised: for the viewer an error or an end, for the rest of it nobody is left.
async fn a_server_that_lies_about_lengths(street: &mut Street) {
    street.again("a body beyond its length", "/api/v1/media?behave=pile&size=1000").await;
}

/// A viewer who takes it slowly is served as long as both are there.
async fn a_server_that_never_ends(street: &mut Street) {
    let before = street.resident();
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
    street.beside("a body without an end", harm, before).await;
}
