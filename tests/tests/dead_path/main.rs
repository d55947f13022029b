//! A path that answers pings and moves no data is dead: the tunnel on it ends, the agent comes back by
//! the other transport, and a download goes on where it was.

#![allow(clippy::unwrap_used)]

mod roads;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use http::Method;
use http_body_util::BodyExt;
use phlix_tests::database::Database;
use phlix_tests::hub::Hub;
use phlix_tests::origin::nginx::Nginx;
use phlix_tests::viewer::{Body, Client, Protocol, empty};
use phlix_tests::{Engine, World, full_size, story, until};
use sha2::{Digest, Sha256};

use roads::{Road, Roads};

const TICKET: &str = "x-phlix-ticket";

/// Noticed after 10 s without progress; then the agent dials at once.
//= native-tunnel s.1
const DEAD_WITHIN: Duration = Duration::from_secs(12);

fn length() -> u64 {
    if full_size() { 1 << 30 } else { 64 << 20 }
}

struct House {
    roads: Roads,
    world: World,
    ticket: String,
    folder: tempfile::TempDir,
    sha256: [u8; 32],
    _nginx: Nginx,
}

impl House {
    /// A hub whose agents come by the roads, and a film before nginx.
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sha256 = write_film(folder.path(), 1);
        let nginx = Nginx::serve(folder.path()).await;
        let mut roads = Roads::bind().await;
        let port = roads.port().to_string();
        let settings = [
            ("HUB_BEHIND_PROXY", "on"),
            ("TRUSTED_PROXIES", "127.0.0.1"),
            ("HUB_NAMES_PORT", port.as_str()),
            ("HUB_ADDRESSES", "127.0.0.1"),
        ];
        let hub = Hub::start(Database::fresh(Engine::Sqlite), &settings).await;
        roads.lead_to(&hub);
        // Behind a proxy the hub's list pins no key: its certificate must be trusted.
        let ca = hub.ready().ca_file.to_str().unwrap().to_owned();
        let world = World::with_agent(hub, &nginx.url(), &["--ca-file", &ca]).await;
        let ticket = world.ticket().await;
        let mut house = Self { roads, world, ticket, folder, sha256, _nginx: nginx };
        assert_eq!(house.opened(Road::Quic), 1, "QUIC comes first");
        house
    }

    async fn begin(&self, protocol: Protocol) -> Reading {
        let mut viewer = self.world.viewer(protocol).await;
        let request = viewer.request(Method::GET, "/film.mp4").header(TICKET, &self.ticket);
        let answer = viewer.send(request.body(empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        Reading { body: answer.into_body(), read: 0, hash: Sha256::new(), _viewer: viewer }
    }

    fn opened(&mut self, road: Road) -> usize {
        self.world.hub.process().output().matches(&format!("tunnel opened over {}", road.name())).count()
    }

    fn resumed(&mut self) -> usize {
        self.world.hub.process().output().matches("an answer is resumed").count()
    }

    /// Waits for one more tunnel over this road; how long that took.
    async fn comes_by(&mut self, road: Road, before: usize) -> Duration {
        let since = Instant::now();
        let what = format!("a tunnel over {}", road.name());
        until(&what, Duration::from_secs(30), || std::future::ready((self.opened(road) > before).then_some(()))).await;
        since.elapsed()
    }
}

/// Writes a film that is nowhere like itself; its SHA-256.
fn write_film(folder: &Path, seed: u64) -> [u8; 32] {
    let (fresh, mut hash) = (folder.join("fresh"), Sha256::new());
    let mut file = BufWriter::new(File::create(&fresh).unwrap());
    let mut state = seed;
    let mut block = vec![0; 1 << 20];
    for _ in 0..length() >> 20 {
        for word in block.chunks_exact_mut(8) {
            // splitmix64
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes());
        }
        hash.update(&block);
        file.write_all(&block).unwrap();
    }
    let file = file.into_inner().unwrap();
    // nginx makes its tag of time and length.
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + seed)).unwrap();
    std::fs::rename(fresh, folder.join("film.mp4")).unwrap();
    hash.finalize().into()
}

/// An answer as it is read.
struct Reading {
    body: Body,
    read: u64,
    hash: Sha256,
    _viewer: Client,
}

impl Reading {
    /// Reads on until it has so many bytes in all.
    async fn to(&mut self, length: u64) {
        while self.read < length {
            assert!(self.step().await.expect("it goes on"), "there is more");
        }
    }

    /// Reads on to the end; its SHA-256, `None` where it is aborted.
    async fn end(mut self) -> Option<[u8; 32]> {
        let reading = async {
            while self.step().await? {}
            Some(self.hash.finalize().into())
        };
        tokio::time::timeout(Duration::from_secs(120), reading).await.expect("it ends")
    }

    /// `Some(false)` at the end, `None` where it is aborted.
    async fn step(&mut self) -> Option<bool> {
        let Some(frame) = self.body.frame().await else { return Some(false) };
        let frame = frame.ok()?;
        if let Some(data) = frame.data_ref() {
            self.read += data.len() as u64;
            self.hash.update(data);
        }
        Some(true)
    }
}

#[test]
fn one_download_outlives_three_paths_that_pass_pings_and_lose_data() {
    story(async {
        let mut house = House::start().await;
        let mut reading = house.begin(Protocol::H2).await;
        let quarter = length() / 4;
        for (death, road) in (1..).zip([Road::Quic, Road::WebSocket, Road::Quic]) {
            reading.to(death * quarter).await;
            let other = road.other();
            let before = house.opened(other);
            house.roads.set_swallowing(road, true);
            let (took, ()) = tokio::join!(house.comes_by(other, before), reading.to((death + 1) * quarter - 1));
            println!("{} is dead, and {} there after {took:?}", road.name(), other.name());
            assert!(took <= DEAD_WITHIN, "{} is there after {took:?}", other.name());
            assert_eq!(house.resumed() as u64, death);
            house.roads.set_swallowing(road, false);
        }
        assert_eq!(reading.end().await, Some(house.sha256));
    });
}

#[test]
fn a_film_that_changed_while_the_path_was_dead_is_aborted() {
    story(async {
        let mut house = House::start().await;
        let mut reading = house.begin(Protocol::H2).await;
        reading.to(length() / 4).await;
        let before = house.opened(Road::WebSocket);
        house.roads.set_swallowing(Road::Quic, true);
        let changed = write_film(house.folder.path(), 2);
        assert_ne!(changed, house.sha256);
        let (took, end) = tokio::join!(house.comes_by(Road::WebSocket, before), reading.end());
        assert!(took <= DEAD_WITHIN, "WebSocket is there after {took:?}");
        assert_eq!(end, None);
        assert_eq!(house.resumed(), 0);
        // Who asks now gets the new one.
        assert_eq!(house.begin(Protocol::H2).await.end().await, Some(changed));
    });
}
