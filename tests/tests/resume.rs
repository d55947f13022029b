//! A download outlives the agent: killed in the middle and started again, it goes on where it was, in
//! one exchange of the viewer's.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use http::Method;
use http_body_util::BodyExt;
use phlix_tests::database::Database;
use phlix_tests::hub::Hub;
use phlix_tests::origin::nginx::Nginx;
use phlix_tests::viewer::{Body, Protocol, empty};
use phlix_tests::{Engine, World, story, until};

const TICKET: &str = "x-phlix-ticket";
const LENGTH: usize = 48 << 20;

/// A folder with a film that is nowhere like itself, before nginx, whose entity tags are strong.
struct House {
    world: World,
    ticket: String,
    film: Vec<u8>,
    folder: tempfile::TempDir,
    _nginx: Nginx,
}

impl House {
    /// With an agent that comes by this transport alone.
    async fn start(transport: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let film = film(1);
        write(folder.path(), &film);
        let nginx = Nginx::serve(folder.path()).await;
        let hub = Hub::start(Database::fresh(Engine::Sqlite), &[]).await;
        let world = World::with_agent(hub, &nginx.url(), &["--transport", transport]).await;
        let ticket = world.ticket().await;
        Self { world, ticket, film, folder, _nginx: nginx }
    }

    async fn begin(&self, protocol: Protocol, range: Option<&str>) -> Reading {
        let mut viewer = self.world.viewer(protocol).await;
        let mut request = viewer.request(Method::GET, "/film.mp4").header(TICKET, &self.ticket);
        if let Some(range) = range {
            request = request.header("range", range);
        }
        let answer = viewer.send(request.body(empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), if range.is_some() { 206 } else { 200 });
        let etag = answer.headers()["etag"].to_str().unwrap();
        assert!(etag.starts_with('"'), "{etag} is strong");
        Reading { body: answer.into_body(), read: Vec::new(), _viewer: viewer }
    }

    /// Power cut and back: nothing is said to anybody.
    async fn cut_the_agents_power(&mut self) {
        self.world.agent.kill();
        self.world.agent.start_again();
        self.world.agent.connected().await;
    }

    async fn resumed(&mut self) -> usize {
        self.world.hub.process().output().matches("an answer is resumed").count()
    }
}

fn film(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut film = Vec::with_capacity(LENGTH);
    while film.len() < LENGTH {
        film.extend_from_slice(&next().to_le_bytes());
    }
    film
}

/// In one step, so that nginx never sees half of it.
fn write(folder: &Path, film: &[u8]) {
    let fresh = folder.join("fresh");
    std::fs::write(&fresh, film).unwrap();
    std::fs::rename(fresh, folder.join("film.mp4")).unwrap();
}

/// An answer as it is read.
struct Reading {
    body: Body,
    read: Vec<u8>,
    _viewer: phlix_tests::viewer::Client,
}

impl Reading {
    async fn to(&mut self, length: usize) {
        while self.read.len() < length {
            let frame = self.body.frame().await.expect("there is more").expect("it goes on");
            self.read.extend_from_slice(frame.data_ref().unwrap());
        }
    }

    /// All of it; `None` where it is aborted.
    async fn end(mut self) -> Option<Vec<u8>> {
        let reading = async {
            while let Some(frame) = self.body.frame().await {
                if let Some(data) = frame.ok()?.data_ref() {
                    self.read.extend_from_slice(data);
                }
            }
            Some(self.read)
        };
        tokio::time::timeout(Duration::from_secs(60), reading).await.expect("it ends")
    }
}

#[test]
fn a_download_outlives_three_killed_agents_on_quic() {
    a_download_outlives_three_killed_agents("quic");
}

#[test]
fn a_download_outlives_three_killed_agents_on_websocket() {
    a_download_outlives_three_killed_agents("websocket");
}

fn a_download_outlives_three_killed_agents(transport: &str) {
    story(async {
        let mut house = House::start(transport).await;
        for (round, protocol) in Protocol::ALL.into_iter().enumerate() {
            let begun = Instant::now();
            let mut reading = house.begin(protocol, None).await;
            for death in 1..=3 {
                reading.to(death * LENGTH / 4).await;
                house.cut_the_agents_power().await;
            }
            let got = reading.end().await.expect("it comes whole");
            assert!(got == house.film, "{protocol:?}");
            let resumed = house.resumed().await;
            assert_eq!(resumed, 3 * (round + 1), "{protocol:?}");
            println!("{protocol:?} over {transport}: three deaths in {:?}", begun.elapsed());
        }
    });
}

#[test]
fn a_download_outlives_an_agent_that_is_asked_to_stop() {
    story(async {
        for transport in ["quic", "websocket"] {
            let mut house = House::start(transport).await;
            let mut reading = house.begin(Protocol::H2, None).await;
            reading.to(1_000_000).await;
            let ended = house.world.agent.process().terminate(Duration::from_secs(30)).await;
            assert!(ended.success(), "{ended}");
            house.world.agent.start_again();
            assert!(reading.end().await.expect("it comes whole") == house.film, "{transport}");
            assert_eq!(house.resumed().await, 1, "{transport}");
        }
    });
}

#[test]
fn a_part_of_a_film_goes_on_at_its_place() {
    story(async {
        let mut house = House::start("quic").await;
        let mut reading = house.begin(Protocol::H2, Some("bytes=1000000-")).await;
        reading.to(1_000_000).await;
        house.cut_the_agents_power().await;
        let got = reading.end().await.expect("it comes whole");
        assert!(got == house.film[1_000_000..]);
        assert_eq!(house.resumed().await, 1);
    });
}

#[test]
fn a_film_that_changed_meanwhile_is_aborted() {
    story(async {
        let mut house = House::start("quic").await;
        for (seed, protocol) in Protocol::ALL.into_iter().enumerate() {
            let mut reading = house.begin(protocol, None).await;
            reading.to(1_000_000).await;
            house.world.agent.kill();
            // Of the same length, at another time: the tag of nginx is made of both.
            write(house.folder.path(), &film(2 + seed as u64));
            let file = std::fs::File::options().write(true).open(house.folder.path().join("film.mp4")).unwrap();
            let moment = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + seed as u64);
            file.set_modified(moment).unwrap();
            house.world.agent.start_again();
            assert_eq!(reading.end().await, None, "{protocol:?}");
        }
        assert_eq!(house.resumed().await, 0);
    });
}

#[test]
fn curl_notices_nothing_of_an_agent_that_is_started_again() {
    story(async {
        let mut house = House::start("quic").await;
        for version in ["--http1.1", "--http2"] {
            let before = house.resumed().await;
            let file = house.folder.path().join("got");
            let _ = std::fs::remove_file(&file);
            let (ready, server) = (house.world.hub.ready().clone(), house.world.server.clone());
            let mut curl = tokio::process::Command::new("curl")
                .args(["--silent", "--show-error", "--disable", "--fail", "--max-time", "120", version])
                // 8 MiB/s: six seconds, of which buffers on the way hold two at most.
                .args(["--limit-rate", "8M"])
                .args(["--resolve", &format!("{}:{}:127.0.0.1", server.host, ready.tls.port())])
                .args(["--header", &format!("{TICKET}: {}", house.ticket)])
                .arg("--cacert")
                .arg(&ready.ca_file)
                .arg("--output")
                .arg(&file)
                .arg(format!("{}/film.mp4", server.url))
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            until("the film is on its way", Duration::from_secs(20), || {
                std::future::ready(std::fs::metadata(&file).is_ok_and(|file| file.len() > 0).then_some(()))
            })
            .await;
            house.cut_the_agents_power().await;
            assert!(curl.wait().await.unwrap().success(), "{version}");
            assert!(std::fs::read(&file).unwrap() == house.film, "{version}");
            assert_eq!(house.resumed().await, before + 1, "{version}");
        }
    });
}
