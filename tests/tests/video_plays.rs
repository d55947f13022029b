//! A real video comes through the relay unharmed: whole, in ranges, as HLS, in ffprobe and in a
//! browser.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use phlix_tests::agent::Agent;
use phlix_tests::curl::Curl;
use phlix_tests::database::Database;
use phlix_tests::hub::Hub;
use phlix_tests::origin::home::{self, Home};
use phlix_tests::origin::nginx::Nginx;
use phlix_tests::viewer::Protocol;
use phlix_tests::{Engine, World, browser, media, on_both_databases, proxy};
use sha2::{Digest, Sha256};

const TICKET: &str = "X-Phlix-Ticket";

on_both_databases!(
    the_whole_file_arrives_over_both_http_versions,
    seeks_and_conditions_are_answered_as_by_the_origin,
    hls_and_ffprobe_play,
    a_browser_signs_up_claims_opens_and_plays,
);

async fn the_whole_file_arrives_over_both_http_versions(engine: Engine) {
    let nginx = Nginx::serve(media::folder()).await;
    let world = World::start(engine, &nginx.url()).await;
    let ticket = world.ticket().await;
    let expected: [u8; 32] = Sha256::digest(media::video()).into();
    for (protocol, version) in [(Protocol::H1, "1.1"), (Protocol::H2, "2")] {
        let answer = Curl::new(&world.hub, &world.server, protocol, "/video.mp4").header(TICKET, &ticket).run().await;
        assert_eq!((answer.exit, answer.status), (0, 200), "{protocol:?}: {}", String::from_utf8_lossy(&answer.body()));
        assert_eq!(answer.version, version);
        assert_eq!(answer.header("content-type"), Some("video/mp4"));
        assert_eq!(answer.sha256(), expected, "{protocol:?}");
    }
}

async fn seeks_and_conditions_are_answered_as_by_the_origin(engine: Engine) {
    let nginx = Nginx::serve(media::folder()).await;
    let world = World::start(engine, &nginx.url()).await;
    let ticket = world.ticket().await;
    let video = media::video();
    let size = video.len();
    for protocol in Protocol::BOTH {
        let curl = |headers: &[(&str, &str)]| {
            let curl = Curl::new(&world.hub, &world.server, protocol, "/video.mp4").header(TICKET, &ticket);
            headers.iter().fold(curl, |curl, (name, value)| curl.header(name, value))
        };

        // Seeks: at the front, in the middle, over the end, from the end, one byte.
        for (range, first, last) in [
            ("bytes=0-99".to_owned(), 0, 99),
            (format!("bytes={}-{}", size / 2, size / 2 + 70_000), size / 2, size / 2 + 70_000),
            (format!("bytes={}-{}", size - 10, size + 10), size - 10, size - 1),
            ("bytes=-1000".to_owned(), size - 1000, size - 1),
            (format!("bytes={}-", size - 1), size - 1, size - 1),
        ] {
            let part = curl(&[("Range", &range)]).run().await;
            assert_eq!(part.status, 206, "{protocol:?} {range}");
            let told = format!("bytes {first}-{last}/{size}");
            assert_eq!(part.header("content-range"), Some(told.as_str()), "{protocol:?} {range}");
            assert!(part.body() == video[first..=last], "{protocol:?} {range}: other bytes");
        }
        let beyond = curl(&[("Range", &format!("bytes={size}-"))]).run().await;
        assert_eq!(beyond.status, 416);
        assert_eq!(beyond.header("content-range"), Some(format!("bytes */{size}").as_str()));

        let head = curl(&[]).arg("--head").run().await;
        assert_eq!((head.exit, head.status), (0, 200), "{protocol:?} HEAD");
        assert_eq!(head.header("content-length"), Some(size.to_string().as_str()));
        let etag = head.header("etag").unwrap();
        let modified = head.header("last-modified").unwrap();

        let same = curl(&[("If-None-Match", etag)]).run().await;
        assert_eq!((same.exit, same.status, same.body().len()), (0, 304, 0), "{protocol:?}");
        let unchanged = curl(&[("If-Modified-Since", modified)]).run().await;
        assert_eq!((unchanged.exit, unchanged.status), (0, 304), "{protocol:?}");
        let fresh = curl(&[("Range", "bytes=5-9"), ("If-Range", etag)]).run().await;
        assert_eq!((fresh.status, fresh.body()), (206, video[5..=9].to_vec()), "{protocol:?}");
        let stale = curl(&[("Range", "bytes=5-9"), ("If-Range", "\"another\"")]).run().await;
        assert_eq!(stale.status, 200, "{protocol:?}");
        assert_eq!(stale.body().len(), size, "{protocol:?}");
        let changed = curl(&[("If-Match", "\"another\"")]).run().await;
        assert_eq!(changed.status, 412, "{protocol:?}");
    }
}

async fn hls_and_ffprobe_play(engine: Engine) {
    let nginx = Nginx::serve(media::folder()).await;
    let world = World::start(engine, &nginx.url()).await;
    let ticket = world.ticket().await;
    let proxy = proxy::to(world.hub.ready().tls);
    for path in ["/video.mp4", "/hls/index.m3u8"] {
        let out = tokio::process::Command::new("ffprobe")
            .args(["-v", "error", "-show_entries", "stream=codec_name:format=duration", "-of", "csv=p=0"])
            .args(["-headers", &format!("{TICKET}: {ticket}\r\n"), "-ca_file"])
            .arg(&world.hub.ready().ca_file)
            .args(["-tls_verify", "1"])
            .arg(format!("{}{path}", world.server.url))
            .env("http_proxy", &proxy)
            .env_remove("no_proxy")
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let told = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{path}: {}", String::from_utf8_lossy(&out.stderr));
        assert!(told.contains("h264") && told.contains("aac"), "{path}: {told}");
        let seconds: f64 = told.lines().filter_map(|line| line.parse().ok()).next_back().unwrap();
        assert!((seconds - f64::from(media::SECONDS)).abs() < 1.0, "{path}: {told}");
    }
}

async fn a_browser_signs_up_claims_opens_and_plays(engine: Engine) {
    let home = Home::start();
    let hub = Hub::start(Database::fresh(engine), &[]).await;
    let mut agent = Agent::start(&hub.ready().public_url, &home.url());
    let link = agent.claim_url().await;
    let told = browser::run(
        &hub,
        &browser::of_web_ui("story-play.mjs"),
        &[
            ("CLAIM_LINK", &link),
            ("USER", "owner"),
            ("PASSWORD", "a password for the hub"),
            ("ORIGIN_USER", home::USER),
            ("ORIGIN_PASSWORD", home::PASSWORD),
        ],
        Duration::from_secs(180),
    )
    .await;
    println!("{told}");
    assert!(home.seen().iter().any(|seen| seen.target == "/video.mp4"), "the browser never asked for the video");
}
