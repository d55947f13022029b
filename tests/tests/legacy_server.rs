//! A media server that runs today, pointed at our hub by configuration alone: it enrols, holds its tunnel, and its
//! video reaches clients that are not ours.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use phlix_tests::curl::Curl;
use phlix_tests::database::Database;
use phlix_tests::hub::Hub;
use phlix_tests::legacy::{BIG, EXAMPLE, HEARTBEAT, Legacy, LegacyWorld, header, moment, proxied};
use phlix_tests::viewer::{self, Client, Protocol};
use phlix_tests::{Engine, browser, media, on_both_databases, proxy, story, until};
use serde_json::json;
use sha2::{Digest, Sha256};

/// "Cancellation within 100 ms of the viewer's leaving."
const CANCELLED_WITHIN: Duration = Duration::from_millis(100);

on_both_databases!(it_enrols_and_keeps_its_place, its_video_reaches_curl_and_ffprobe);

/// Every call that a media server makes, and what it reads of the replies.
async fn it_enrols_and_keeps_its_place(engine: Engine) {
    let world = LegacyWorld::start(engine).await;
    let id = &world.server;
    let enrollment = world.legacy.enrollment();
    assert_eq!(enrollment["server_id"], *id);
    assert!(enrollment["hub_jwks_url"].is_string(), "{enrollment}");

    let (status, reply) = world.legacy.calls("heartbeat").await;
    assert_eq!((status, &reply), (200, &json!({ "status": "ok" })));
    let known = world.owner.get(&format!("/api/v1/me/libraries?server_id={id}")).await.expect(200);
    assert_eq!(known["libraries"].as_array().unwrap().len(), 2, "{known}");
    // As servers before July 2026 sent it.
    let (status, reply) = world.legacy.calls("old_heartbeat").await;
    assert_eq!((status, &reply), (200, &json!({ "status": "ok" })));

    // Signed in another second, it is another token.
    let before = world.legacy.jwt();
    let told = SystemTime::now();
    until("another second", Duration::from_secs(3), || {
        std::future::ready(told.elapsed().is_ok_and(|since| since > Duration::from_secs(1)).then_some(()))
    })
    .await;
    let (status, reply) = world.legacy.calls("renew").await;
    assert_eq!((status, &reply["expires_in"]), (200, &json!(604_800)), "{reply}");
    assert_ne!(world.legacy.jwt(), before);
    // The tunnel outlives it, and the next one is opened by the new token.
    world.legacy.cut().await;
    world
        .legacy
        .shows("a second tunnel", Duration::from_secs(20), |seen| (seen.tunnels().len() == 2).then_some(()))
        .await;

    let (status, reply) = world.legacy.calls("subdomain").await;
    assert_eq!(status, 200, "{reply}");
    for field in ["subdomain", "fqdn", "tls_cert_path", "tls_key_path"] {
        assert!(reply[field].is_string(), "{field}: {reply}");
    }
    assert_eq!(world.legacy.calls("subdomain").await.1, reply, "asking again changes nothing");
    assert_eq!(world.legacy.calls("release").await.0, 204);
    world.legacy.records().await.unharmed();
}

async fn its_video_reaches_curl_and_ffprobe(engine: Engine) {
    let world = LegacyWorld::start(engine).await;
    let video = media::video();
    let size = video.len();
    let expected: [u8; 32] = Sha256::digest(&video).into();
    let path = format!("/media/{EXAMPLE}/stream");
    let session = world.hub.api().login_as_browser("owner").await;
    let cookie = session.header("cookie").unwrap().to_owned();
    let bearer = world.bearer();
    let server = world.proxy();
    for protocol in Protocol::BOTH {
        // Apps send a bearer, elements of a page the cookie.
        for (name, value) in [("Authorization", &bearer), ("Cookie", &cookie)] {
            let curl = |range: Option<&str>| {
                let curl = Curl::new(&world.hub, &server, protocol, &path).header(name, value);
                range.into_iter().fold(curl, |curl, range| curl.header("Range", range))
            };
            let what = format!("{protocol:?} by {name}");
            let whole = curl(None).run().await;
            assert_eq!((whole.exit, whole.status), (0, 200), "{what}: {}", String::from_utf8_lossy(&whole.body()));
            assert_eq!(whole.header("content-type"), Some("video/mp4"), "{what}");
            assert_eq!(whole.header("content-length"), Some(size.to_string().as_str()), "{what}");
            assert_eq!(whole.sha256(), expected, "{what}");
            for (range, first, last) in [
                ("bytes=0-99".to_owned(), 0, 99),
                (format!("bytes={}-{}", size / 2, size / 2 + 70_000), size / 2, size / 2 + 70_000),
                ("bytes=-1000".to_owned(), size - 1000, size - 1),
                (format!("bytes={}-", size - 1), size - 1, size - 1),
            ] {
                let part = curl(Some(&range)).run().await;
                assert_eq!((part.exit, part.status), (0, 206), "{what} {range}");
                let told = format!("bytes {first}-{last}/{size}");
                assert_eq!(part.header("content-range"), Some(told.as_str()), "{what} {range}");
                assert!(part.body() == video[first..=last], "{what} {range}: other bytes");
            }
            let beyond = curl(Some(&format!("bytes={size}-"))).run().await;
            assert_eq!(beyond.status, 416, "{what}");
            let head = curl(None).arg("--head").run().await;
            assert_eq!((head.exit, head.status), (0, 200), "{what} HEAD");
            assert_eq!(head.header("content-length"), Some(size.to_string().as_str()), "{what} HEAD");
        }
    }

    // What reached home: the user whom the hub vouches for, and nothing by which home could act as them.
    let owner = world.owner.get("/api/v1/me").await.expect(200)["user"]["id"].clone();
    let records = world.legacy.records().await;
    records.unharmed();
    for seen in records.requests(&path) {
        assert_eq!(seen["user"], owner, "{seen}");
        assert_eq!(header(seen, "x-phlix-relay"), Some("1"), "{seen}");
        assert!(header(seen, "x-forwarded-for").is_some(), "{seen}");
        for secret in ["authorization", "cookie", "host", "x-phlix-ticket"] {
            assert_eq!(header(seen, secret), None, "{seen}");
        }
        assert!(seen["id"].as_u64().unwrap() >= 0x8000_0001, "{seen}");
    }

    // The server's own signature comes back as it was given out.
    let mut viewer = world.viewer(Protocol::H2).await;
    let headers = [("authorization", bearer.as_str())];
    let detail = viewer.get(&world.path(&format!("/api/v1/media/{EXAMPLE}")), &headers).await;
    let detail = viewer::json(detail).await;
    let url = detail["item"]["stream_url"].as_str().unwrap().to_owned();
    let answer = viewer.get(&world.path(&url), &[headers[0], ("range", "bytes=0-9")]).await;
    assert_eq!(answer.status(), 206);
    viewer::read(answer).await.unwrap();
    let records = world.legacy.records().await;
    assert_eq!(records.last(&path)["query"], url.split_once('?').unwrap().1);

    // ffprobe, the file and the segments of a transcode, which a playlist names by their own names alone.
    let started = viewer.request(http::Method::POST, &world.path(&format!("/api/v1/media/{EXAMPLE}/transcode")));
    let started = started.header("authorization", &bearer).body(viewer::empty()).unwrap();
    let job = viewer::json(viewer.send(started).await.unwrap()).await;
    let through = proxy::to(world.hub.ready().tls);
    for path in [path.as_str(), job["hls_url"].as_str().unwrap()] {
        let out = tokio::process::Command::new("ffprobe")
            .args(["-v", "error", "-show_entries", "stream=codec_name:format=duration", "-of", "csv=p=0"])
            .args(["-headers", &format!("Authorization: {bearer}\r\n"), "-ca_file"])
            .arg(&world.hub.ready().ca_file)
            .args(["-tls_verify", "1"])
            .arg(format!("{}{path}", server.url))
            .env("http_proxy", &through)
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
    world.legacy.records().await.unharmed();
}

#[test]
fn it_has_a_name_of_its_own_which_is_never_open() {
    story(async {
        let world = LegacyWorld::start(Engine::Sqlite).await;
        let (status, named) = world.legacy.calls("subdomain").await;
        assert_eq!(status, 200, "{named}");
        let host = named["fqdn"].as_str().unwrap();
        let ticket = phlix_tests::world::ticket(&world.owner, &world.server).await;
        let ticket = [("x-phlix-ticket", ticket.as_str())];
        let mut viewer = Client::connect(&world.hub, host, Protocol::H2).await;
        let libraries = viewer.get("/api/v1/libraries", &ticket).await;
        assert_eq!(viewer::json(libraries).await["libraries"].as_array().unwrap().len(), 2);
        let part = viewer.get(&format!("/media/{EXAMPLE}/stream"), &[ticket[0], ("range", "bytes=7-99")]).await;
        assert_eq!(part.status(), 206);
        assert!(viewer::read(part).await.unwrap() == media::video()[7..=99]);

        // Nobody comes in without being somebody, and the scope is the proxy's.
        let asked = world.legacy.records().await.list("requests").len();
        assert_eq!(viewer.get("/api/v1/libraries", &[]).await.status(), 401);
        let denied = viewer.get("/api/v1/sessions", &ticket).await;
        assert_eq!(denied.status(), 403);
        viewer::read(denied).await.unwrap();
        let path = format!("/api/v1/me/servers/{}/names/{host}", world.server);
        let opened = world.owner.call(http::Method::PUT, &path, Some(&json!({ "access": "open" }))).await;
        assert!(opened.status.is_client_error(), "a legacy server's name was opened: {}", opened.body);
        assert_eq!(viewer.get("/api/v1/libraries", &[]).await.status(), 401);
        assert_eq!(world.legacy.records().await.list("requests").len(), asked, "something reached home");
    });
}

/// The hub stops in good order, is killed, loses the line; each time the server is back by itself.
#[test]
fn it_holds_its_tunnel_through_restarts_of_the_hub() {
    story(async {
        let mut world = LegacyWorld::start(Engine::Sqlite).await;
        serves(&world).await;

        world.hub.stop().await;
        world.legacy.disconnected().await;
        let records = world.legacy.records().await;
        // 1012: service restart. A media server heeds no code, people who read its log do.
        assert_eq!(records.tunnels()[0]["code"], 1012, "{:?}", records.tunnels());
        world.hub.start_again().await;
        world.legacy.connected().await;
        serves(&world).await;

        world.hub.kill();
        world.legacy.disconnected().await;
        world.hub.start_again().await;
        world.legacy.connected().await;
        serves(&world).await;

        world.legacy.cut().await;
        let tunnels = |count| move |seen: &phlix_tests::legacy::Records| (seen.tunnels().len() >= count).then_some(());
        world.legacy.shows("a tunnel after a cut", Duration::from_secs(20), tunnels(4)).await;
        serves(&world).await;
        world.legacy.records().await.unharmed();

        // And the server's own: the enrollment that it kept is enough.
        world.legacy.kill();
        world.legacy.start_again();
        world.legacy.connected().await;
        serves(&world).await;
    });
}

/// Asks for the libraries until they come: of a new tunnel the edge may hear a moment later than the server.
async fn serves(world: &LegacyWorld) {
    let path = world.path("/api/v1/libraries");
    let libraries = until("the server is served again", Duration::from_secs(20), || async {
        let answer = world.owner.try_call(http::Method::GET, &path, None).await.ok()?;
        (answer.status == 200).then_some(answer.body)
    })
    .await;
    assert_eq!(libraries["libraries"].as_array().unwrap().len(), 2, "{libraries}");
}

/// A media server echoes each heartbeat and has its own; two sides that echo would never end.
#[test]
fn heartbeats_are_sent_every_30_s_and_never_echoed() {
    story(async {
        let world = LegacyWorld::with(Engine::Sqlite, &[], &["--heartbeat", "0.5"]).await;
        let seen = world
            .legacy
            .shows("the hub's heartbeat", Duration::from_secs(40), |seen| {
                (seen.came(HEARTBEAT) >= 1).then(|| (seen.came(HEARTBEAT), moment(&seen.tunnels()[0]["acked"])))
            })
            .await;
        let after = seen.1.elapsed().unwrap();
        assert!(after > Duration::from_secs(25), "the first heartbeat came after {after:?}");
        assert_eq!(seen.0, 1, "heartbeats of the server's were echoed");
        let records = world.legacy.records().await;
        assert!(records.0["frames_out"][HEARTBEAT].as_u64().unwrap() > 40, "{}", records.0["frames_out"]);
        assert_eq!(records.tunnels().len(), 1, "the tunnel did not hold");
        records.unharmed();
    });
}

/// A viewer who leaves costs the server one HTTP_CANCEL; what it goes on sending (a running copy does not stop) harms
/// nobody.
#[test]
fn who_leaves_is_cancelled_and_the_rest_of_the_file_dropped() {
    story(async {
        let mut world = LegacyWorld::start(Engine::Sqlite).await;
        let bearer = world.bearer();
        let big = format!("/media/{BIG}/stream");
        let query = format!("size={}", 256 << 20);
        let before = world.hub.process().resident_kib();
        for protocol in Protocol::ALL {
            let mut viewer = world.viewer(protocol).await;
            let path = world.path(&format!("{big}?{query}"));
            let mut answer = viewer.get(&path, &[("authorization", &bearer)]).await;
            assert_eq!(answer.status(), 200);
            http_body_util::BodyExt::frame(answer.body_mut()).await.unwrap().unwrap();
            let left = SystemTime::now();
            drop((answer, viewer));
            let cancelled = world
                .legacy
                .shows("HTTP_CANCEL", Duration::from_secs(10), |seen| {
                    let last = seen.requests(&big).pop()?;
                    last["cancelled"].is_number().then(|| moment(&last["cancelled"]))
                })
                .await;
            let took = cancelled.duration_since(left).unwrap_or_default();
            println!("{protocol:?}: cancelled after {took:?}");
            assert!(took <= CANCELLED_WITHIN, "{protocol:?}: {took:?}");
            // A quarter of a GiB for nobody: it takes its time, and others are served meanwhile.
            serves(&world).await;
            world
                .legacy
                .shows("the copy ends", Duration::from_secs(60), |seen| {
                    seen.requests(&big).pop().filter(|last| last["ended"].is_number()).map(|_| ())
                })
                .await;
        }
        let records = world.legacy.records().await;
        assert_eq!(records.tunnels().len(), 1, "the tunnel did not hold: {:?}", records.tunnels());
        records.unharmed();
        let grown = world.hub.process().resident_kib().saturating_sub(before);
        assert!(grown < 24 * 1024, "what was dropped left {grown} KiB");
    });
}

#[test]
fn one_port_takes_plain_and_tls() {
    story(async {
        let hub = Hub::start(Database::fresh(Engine::Sqlite), &[]).await;
        let owner = hub.api().register("owner").await;
        let ca = hub.ready().ca_file.display().to_string();
        let http = format!("http://localhost:{}", hub.ready().http.port());
        let port = hub.ready().relay_server().port();
        let plain = Legacy::start(&hub);
        let secure = Legacy::start_at(&http, &format!("wss://localhost:{port}"), &["--ca", &ca]);
        for mut legacy in [plain, secure] {
            let server = owner.claim(&legacy.claim_code().await).await;
            legacy.connected().await;
            let libraries = owner.get(&proxied(&server, "/api/v1/libraries")).await.expect(200);
            assert_eq!(libraries["libraries"].as_array().unwrap().len(), 2);
            legacy.records().await.unharmed();
        }
    });
}

/// Chromium, signed in, claims the server and plays its video on the console's page.
#[test]
fn a_browser_plays_it_in_the_console() {
    story(async {
        let hub = Hub::start(Database::fresh(Engine::Sqlite), &[]).await;
        let mut legacy = Legacy::start(&hub);
        let told = browser::run(
            &hub,
            &browser::of_web_ui("story-legacy.mjs"),
            &[
                ("CLAIM_CODE", &legacy.claim_code().await),
                ("USER", "owner"),
                ("PASSWORD", "a password for the hub"),
                ("ITEM", EXAMPLE),
            ],
            Duration::from_secs(180),
        )
        .await;
        println!("{told}");
        let records = legacy.records().await;
        assert!(!records.requests(&format!("/media/{EXAMPLE}/stream")).is_empty(), "never asked for the video");
        records.unharmed();
    });
}
