//! What existing media servers cost an edge: CPU for each GiB of a download, beside nginx as the TLS reverse proxy of the
//! same file on the same machine, and memory for each tunnel on which nothing runs.
//!
//! The CPU of a debug build says nothing: with `PHLIX_TEST_RELEASE` the hub is the one built for release and has to meet
//! its promise; else the same way is gone with less, and the bytes are looked at.
//!
//! One after the other: what is measured is the machine, too.

#![allow(clippy::unwrap_used)]

mod cpu;
mod server;

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use phlix_protocol::keys::SigningKey;
use phlix_tests::api::Api;
use phlix_tests::database::Database;
use phlix_tests::hub::Hub;
use phlix_tests::legacy::{BIG, proxied};
use phlix_tests::origin::nginx::Nginx;
use phlix_tests::{Engine, full_size, process, story, until};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use cpu::Cpu;
use server::{Enrollment, Tunnel, Way};

const MIB: u64 = 1 << 20;

/// What the smallest transfer brings.
const LOOKED_AT: u64 = 64 * MIB;

/// CPU for each byte, as a share of nginx's.
const PROMISED: f64 = 1.0;

/// Memory for each idle tunnel, KiB, also in a debug build.
const IDLE_KIB: f64 = 40.0;

/// Claims that the hub lets one address begin within 10 minutes.
const CLAIMS: usize = 20;

#[test]
fn a_download_costs_no_more_than_through_nginx_and_an_idle_tunnel_little() {
    story(async {
        a_download_costs_no_more_than_through_nginx().await;
        idle_tunnels_cost_little().await;
    });
}

async fn a_download_costs_no_more_than_through_nginx() {
    let released = process::is_release();
    let (size, rounds) = if full_size() && released { (1024 * MIB, 3) } else { (LOOKED_AT, 1) };
    let mut street = Street::build().await;
    // Of two, since a server that has used TLS can't come without.
    let mut enrollments = street.enroll(2).await.into_iter();
    let plain = enrollments.next().unwrap();
    let tls = enrollments.next().unwrap();
    let plain = street.tunnel(&plain, Way::Plain).await.serve();
    let tls = street.tunnel(&tls, Way::Tls).await.serve();

    let folder = tempfile::tempdir().unwrap();
    File::create(folder.path().join("film")).unwrap().set_len(size).unwrap();
    let origin = Nginx::serve(folder.path()).await;
    let nginx = Nginx::proxy_tls(&origin).await;
    let beside = Download { ca: nginx.ca_file(), url: format!("{}/film", nginx.url()), bearer: None, size };
    let through = |server: &str, size: u64| Download {
        ca: street.hub.ready().ca_file.clone(),
        url: format!(
            "https://localhost:{}{}",
            street.hub.ready().tls.port(),
            proxied(server, &format!("/media/{BIG}/stream?size={size}"))
        ),
        bearer: street.owner.bearer().map(str::to_owned),
        size,
    };
    // What comes is looked at once; and what a first transfer allocates is there.
    for server in [&plain.server, &tls.server] {
        let seen = folder.path().join("seen");
        through(server, LOOKED_AT).to(&seen).await;
        server::assert_whole(&seen, LOOKED_AT);
    }
    let (through_plain, through_tls) = (through(&plain.server, size), through(&tls.server, size));
    // The file is in memory from here on.
    beside.to(Path::new("/dev/null")).await;

    let hub = street.hub.process().id();
    let mut ratios = [Vec::new(), Vec::new()];
    for round in 1..=rounds {
        let before = Cpu::of_thread(nginx.process_id(), "nginx");
        beside.to(Path::new("/dev/null")).await;
        let nginx = Cpu::of_thread(nginx.process_id(), "nginx").since(&before);
        println!("round {round}: nginx {:.3} s/GiB", nginx.seconds_per_gib(size));
        for ((way, download), ratios) in [("plain", &through_plain), ("TLS", &through_tls)].iter().zip(&mut ratios) {
            let before = Cpu::of_thread(hub, "phlix-edge");
            download.to(Path::new("/dev/null")).await;
            let edge = Cpu::of_thread(hub, "phlix-edge").since(&before);
            let ratio = edge.seconds_per_gib(size) / nginx.seconds_per_gib(size);
            println!("round {round}: edge, {way} tunnel {:.3} s/GiB: {ratio:.2} x nginx", edge.seconds_per_gib(size));
            ratios.push(ratio);
        }
    }
    for (way, mut ratios) in ["plain", "TLS"].into_iter().zip(ratios) {
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        println!("a download by a {way} tunnel: {median:.2} x nginx's CPU, median of {rounds}");
        assert!(!released || median <= PROMISED, "{way}: {median:.2} x nginx");
    }
}

async fn idle_tunnels_cost_little() {
    let count = if full_size() { 1000 } else { 100 };
    let mut street = Street::build().await;
    let enrollments = street.enroll(count).await;
    for way in [Way::Plain, Way::Tls] {
        // Nothing is there that an earlier tunnel has left.
        street.hub.kill();
        street.hub.start_again().await;
        street.tunnel(&enrollments[0], way).await;
        let before = street.resident_kib().await;
        let mut tunnels = Vec::with_capacity(count);
        for enrollment in &enrollments {
            tunnels.push(street.tunnel(enrollment, way).await.serve());
        }
        until("all tunnels are open", Duration::from_secs(30), || async {
            (street.open().await >= count as u64).then_some(())
        })
        .await;
        if full_size() {
            // Heartbeats came and went, twice where the first tunnels are concerned.
            tokio::time::sleep(Duration::from_secs(40)).await;
        }
        let open = street.open().await;
        let grown = street.resident_kib().await.saturating_sub(before) as f64 / count as f64;
        println!("{count} idle tunnels, {way:?}: {grown:.1} KiB each");
        assert_eq!(open, count as u64, "{way:?}: tunnels that are open");
        assert!(tunnels.iter().all(|tunnel| !tunnel.is_finished()), "{way:?}: tunnels ended");
        assert!(grown <= IDLE_KIB, "{way:?}: {grown:.1} KiB");
    }
}

struct Street {
    hub: Hub,
    owner: Api,
}

impl Street {
    async fn build() -> Self {
        let settings = [("TRUSTED_PROXIES", "127.0.0.1"), ("PHLIX_HUB_RATELIMIT_PROXY_MAX", "0")];
        let hub = Hub::start(Database::fresh(Engine::Sqlite), &settings).await;
        let owner = hub.api().register("owner").await;
        Self { hub, owner }
    }

    /// Enrolls servers as they do it themselves, from as many homes as it takes.
    async fn enroll(&self, count: usize) -> Vec<Enrollment> {
        let mut all = Vec::with_capacity(count);
        for number in 0..count {
            let home = self.hub.api().with_header("x-forwarded-for", &format!("10.{}.0.1", number / CLAIMS));
            let key = SigningKey::from_seed(&std::array::from_fn(|at| (number >> (8 * (at % 4))) as u8)).public();
            let claim = json!({
                "serverName": format!("server {number}"),
                "version": "1.0.0",
                "publicKeysJwk": key.published_jwk(),
                "hostnameCandidates": [],
                "protocolVersion": "v1",
            });
            let claim = home.post("/api/v1/server-claims/new", &claim).await;
            assert!(claim.status.is_success(), "{}", claim.body);
            self.owner.claim(claim.body["claimCode"].as_str().unwrap()).await;
            let path = format!("/api/v1/server-claims/{}", claim.body["claimId"].as_str().unwrap());
            let claimed = home.get(&path).await.expect(200);
            let text = |name: &str| claimed[name].as_str().unwrap_or_else(|| panic!("{name}: {claimed}")).to_owned();
            all.push(Enrollment { server: text("server_id"), jwt: text("enrollment_jwt") });
        }
        all
    }

    async fn tunnel(&self, enrollment: &Enrollment, way: Way) -> Tunnel {
        Tunnel::open(&self.hub, enrollment, way).await
    }

    /// Resident memory of the hub, once it has stopped growing.
    async fn resident_kib(&mut self) -> u64 {
        let mut last = 0;
        loop {
            let now = self.hub.process().resident_kib();
            if now <= last + 64 {
                return now;
            }
            last = now;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Legacy tunnels that the edge says are open.
    async fn open(&self) -> u64 {
        let mut stream = TcpStream::connect(self.hub.ready().metrics).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut metrics = String::new();
        stream.read_to_string(&mut metrics).await.unwrap();
        let line = metrics.lines().find(|line| line.starts_with(r#"phlix_edge_tunnels_open{transport="legacy"}"#));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no gauge: {metrics}"))
    }
}

/// One file, by curl over HTTP/1.1 and TLS.
struct Download {
    ca: std::path::PathBuf,
    url: String,
    bearer: Option<String>,
    size: u64,
}

impl Download {
    async fn to(&self, file: &Path) {
        let mut command = Command::new("curl");
        command
            .args([
                "--silent",
                "--show-error",
                "--disable",
                "--fail",
                "--http1.1",
                "--max-time",
                "300",
                "--noproxy",
                "*",
            ])
            .arg("--cacert")
            .arg(&self.ca)
            .args(["--write-out", "%{size_download}", "--output"])
            .arg(file)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(bearer) = &self.bearer {
            command.arg("--header").arg(format!("Authorization: Bearer {bearer}"));
        }
        let out = command.arg(&self.url).output().await.unwrap();
        let told = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{}: {told} {}", self.url, String::from_utf8_lossy(&out.stderr));
        assert_eq!(told, self.size.to_string());
    }
}
