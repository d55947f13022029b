//! Requests that are carried.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::agent::Serve;
use super::origin::{self, VIDEO, video};
use super::viewer::{self, Viewer, nothing};
use super::world::{NAME, OPEN, World, bare};

async fn all(world: &World, host: &str) -> [Viewer; 3] {
    [world.h1(host).await, world.h2(host).await, world.h3(host).await]
}

#[tokio::test]
async fn a_video_comes_whole_and_by_ranges_over_h1_h2_and_h3() {
    let world = World::start().await;
    let agent = world.tunnel().await;
    for mut viewer in all(&world, NAME).await {
        let whole = viewer.fetch(bare(world.get("/video"))).await;
        assert_eq!((whole.status, whole.header("content-length")), (200, VIDEO.to_string().as_str()));
        assert!(whole.body == video());

        let range = viewer.fetch(bare(world.get("/video").header("range", "bytes=1000-1999"))).await;
        assert_eq!((range.status, range.header("content-range")), (206, "bytes 1000-1999/1048576"));
        assert!(range.body == video().slice(1000..2000));

        let beyond = viewer.fetch(bare(world.get("/video").header("range", "bytes=9999999-"))).await;
        assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */1048576"));
    }
    let header = &agent.headers()[0];
    assert_eq!(header.host.as_str(), NAME);
    assert!(header.ticket.is_some(), "the agent checks the viewer's ticket itself");
}

#[tokio::test]
async fn answers_without_bodies_are_what_they_are() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    for mut viewer in all(&world, NAME).await {
        let head = viewer.fetch(bare(world.get("/video").method("HEAD"))).await;
        assert_eq!((head.status, head.header("content-length")), (200, VIDEO.to_string().as_str()));
        assert!(head.body.is_empty());
        let empty = viewer.fetch(bare(world.get("/empty"))).await;
        assert_eq!((empty.status, empty.body.len()), (204, 0));
        let not_modified = viewer.fetch(bare(world.get("/not-modified").header("if-none-match", "\"v\""))).await;
        assert_eq!((not_modified.status, not_modified.header("etag")), (304, "\"v\""));
    }
}

#[tokio::test]
async fn an_upload_arrives_byte_for_byte_with_and_without_a_length() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    let wanted = format!("{VIDEO} {}", phlix_protocol::b64::encode(Sha256::digest(video())));
    for mut viewer in all(&world, NAME).await {
        let sized = world.get("/hash").method("PUT").body(viewer::bytes(video())).unwrap();
        assert_eq!(viewer.fetch(sized).await.body, wanted);
        assert_eq!(world.origin.last_head().headers["content-length"], VIDEO.to_string().as_str());

        let chunks =
            video().chunks(10_000).map(|chunk| Ok(Frame::data(Bytes::copy_from_slice(chunk)))).collect::<Vec<_>>();
        let body = StreamBody::new(futures_util::stream::iter(chunks)).boxed_unsync();
        let streamed = world.get("/hash").method("POST").body(body).unwrap();
        assert_eq!(viewer.fetch(streamed).await.body, wanted);
    }
}

#[tokio::test]
async fn heads_reach_the_origin_as_the_edge_wrote_them() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    for mut viewer in all(&world, NAME).await {
        let request = world
            .get("/hello?a=%2F..%2f")
            .header("x-forwarded-for", "6.6.6.6")
            .header("X_Forwarded_For", "6.6.6.6")
            .header("forwarded", "for=6.6.6.6")
            .header("x-real-ip", "6.6.6.6")
            .header("x-phlix-relay-user", "admin")
            .header("authorization", "MediaBrowser Token=\"t\"")
            .header("cookie", "sid=1; __Host-phlix-v=x; other=2");
        assert_eq!(viewer.fetch(bare(request)).await.status, 200);
        let head = world.origin.last_head();
        let authority = format!("{NAME}:{}", world.at.tls.port());
        assert_eq!(head.uri, "/hello?a=%2F..%2f");
        assert_eq!(head.headers["host"], authority.as_str());
        assert_eq!(head.headers["x-forwarded-for"], "127.0.0.1");
        assert_eq!(head.headers["x-forwarded-proto"], "https");
        assert_eq!(head.headers["x-forwarded-host"], authority.as_str());
        assert_eq!(head.headers["authorization"], "MediaBrowser Token=\"t\"");
        assert_eq!(head.headers["cookie"], "sid=1; other=2");
        for (name, value) in &head.headers {
            assert!(!name.as_str().contains("phlix") && !value.to_str().unwrap().contains("6.6.6.6"), "{name}");
        }
    }
}

#[tokio::test]
async fn a_connection_goes_on_after_a_chunked_request_and_ends_with_a_bad_one() {
    let world = World::start().await;
    let agent = world.tunnel().await;
    let ticket = world.hub.sign(&world.ticket());
    let mut stream = viewer::tls(world.at.tls, &world.trust, NAME, &[b"http/1.1"]).await;
    let chunked = format!(
        "POST /hash HTTP/1.1\r\nhost: {NAME}\r\nx-phlix-ticket: {ticket}\r\ntransfer-encoding: chunked\r\n\r\n\
         5;a=b\r\nhello\r\n0\r\nx: y\r\n\r\n"
    );
    let bare_newline = format!("GET /smuggled HTTP/1.1\nhost: {NAME}\nx-phlix-ticket: {ticket}\n\n");
    stream.write_all(format!("{chunked}{chunked}{bare_newline}{chunked}").as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answers)).await.expect("it is closed");
    let answers = String::from_utf8_lossy(&answers);
    let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "200", "400"], "{answers}");
    assert!(!agent.headers().is_empty());
    assert_eq!(world.origin.last_head().uri, "/hash");

    // A body that is not what its chunks say reaches nobody whole, and nothing follows it.
    for wrong in ["5\nhello\r\n0\r\n\r\n", "1\r\nxy\r\n0\r\n\r\n", "5;\nxxxx\r\n4c\r\n", "5 \r\nhello\r\n0\r\n\r\n"] {
        let mut stream = viewer::tls(world.at.tls, &world.trust, NAME, &[b"http/1.1"]).await;
        let head = chunked.split_inclusive("\r\n\r\n").next().unwrap();
        stream.write_all(format!("{head}{wrong}{chunked}").as_bytes()).await.unwrap();
        let mut answers = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answers)).await;
        let _ = read.unwrap_or_else(|_| panic!("{wrong:?}: the connection stays"));
        let answers = String::from_utf8_lossy(&answers);
        assert!(!answers.contains("HTTP/1.1 200"), "{wrong:?}: {answers}");
        assert!(answers.matches("HTTP/1.1 ").count() <= 1, "{wrong:?}: {answers}");
    }
}

#[tokio::test]
async fn a_body_has_one_length_at_both_ends() {
    let world = World::start().await;
    let agent = world.tunnel().await;
    let ticket = world.hub.sign(&world.ticket());
    for lengths in [
        "host: other.example\r\ncontent-length: 0",
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5, 6",
        "content-length: +5",
        "transfer-encoding: gzip",
        "transfer-encoding: chunked, identity",
        "transfer-encoding : chunked",
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
    ] {
        let mut stream = viewer::tls(world.at.tls, &world.trust, NAME, &[b"http/1.1"]).await;
        let head = format!("POST /hash HTTP/1.1\r\nhost: {NAME}\r\nx-phlix-ticket: {ticket}\r\n{lengths}\r\n\r\n");
        stream.write_all(format!("{head}0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        let answers = answer.windows(9).filter(|window| window == b"HTTP/1.1 ").count();
        assert_eq!(answers, 1, "{lengths}: {}", String::from_utf8_lossy(&answer));
        assert!(answer.starts_with(b"HTTP/1.1 400"), "{lengths}: {}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(agent.headers().len(), 0);

    let both = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let _agent = world.tunnel_to(Serve::Origin(origin::raw(both, false).await)).await;
    for mut viewer in self::all(&world, NAME).await {
        let response = viewer.send(bare(world.get("/x"))).await.unwrap();
        assert!(!response.headers().contains_key("content-length"));
        let body = response.into_body().collect().await;
        assert!(body.is_err() || body.unwrap().to_bytes() == "hello");
    }
}

#[tokio::test]
async fn a_named_proxy_says_for_whom_it_speaks() {
    let world = World::with(|config| config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]).await;
    let _agent = world.tunnel().await;
    let request = world.get("/hello").header("x-forwarded-for", "6.6.6.6, 198.51.100.7");
    assert_eq!(world.h2(NAME).await.fetch(bare(request)).await.status, 200);
    assert_eq!(world.origin.last_head().headers["x-forwarded-for"], "198.51.100.7");
}

#[tokio::test]
async fn trailers_pass_both_ways_without_identities() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    for mut viewer in all(&world, NAME).await {
        let answer = viewer.fetch(bare(world.get("/trailers").header("te", "trailers"))).await;
        assert_eq!(answer.body, "body");
        let trailers = answer.trailers.expect("trailers");
        assert_eq!(trailers["digest"], "abc");
        assert!(!trailers.contains_key("x-forwarded-for"));

        let mut trailers = http::HeaderMap::new();
        trailers.insert("digest", "up".parse().unwrap());
        let mut listed = vec!["digest"];
        for name in [
            "x_forwarded_for",
            "x-forwarded-for",
            "forwarded",
            "x-phlix-relay-user",
            "x-real-ip",
            "authorization",
            "cookie",
            "host",
            "content-length",
        ] {
            trailers.insert(name, "6.6.6.6".parse().unwrap());
            listed.push(name);
        }
        let frames = [Ok(Frame::data(Bytes::from_static(b"x"))), Ok(Frame::trailers(trailers))];
        let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
        let upload = world.get("/hash").method("POST").header("trailer", listed.join(", ")).body(body).unwrap();
        assert_eq!(viewer.fetch(upload).await.status, 200);
        let seen = world.origin.seen.trailers.lock().unwrap().pop().expect("trailers arrived");
        assert_eq!(seen["digest"], "up");
        assert_eq!(seen.len(), 1);
    }
}

#[tokio::test]
async fn an_origins_cookies_stay_at_its_name() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    let answer = world.h1(NAME).await.fetch(bare(world.get("/cookies"))).await;
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["sid=1; Path=/"]);
}

#[tokio::test]
async fn a_viewer_who_leaves_is_known_to_the_origin_within_100_ms() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    for mut viewer in all(&world, NAME).await {
        let response = viewer.send(bare(world.get("/endless"))).await.unwrap();
        let mut body = response.into_body();
        body.frame().await.unwrap().unwrap();
        let left = Instant::now();
        drop((body, viewer));
        world.origin.seen.dropped.notified().await;
        assert!(left.elapsed() < Duration::from_millis(100), "{:?}", left.elapsed());
    }
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_no_upload() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    let mut stream = viewer::tls(world.at.tls, &world.trust, NAME, &[b"http/1.1"]).await;
    let ticket = world.hub.sign(&world.ticket());
    let head =
        format!("PUT /hash HTTP/1.1\r\nhost: {NAME}\r\nx-phlix-ticket: {ticket}\r\ncontent-length: 1000\r\n\r\nhalf");
    stream.write_all(head.as_bytes()).await.unwrap();
    world.origin.seen.uploading.notified().await;
    drop(stream);
    world.origin.seen.upload_broken.notified().await;
}

#[tokio::test]
async fn a_short_answer_is_aborted_and_never_ends_cleanly() {
    let world = World::start().await;
    for says in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let origin = origin::raw(says, true).await;
        let _agent = world.tunnel_to(Serve::Origin(origin)).await;
        for mut viewer in all(&world, NAME).await {
            // What had come when it broke off may be lost with it, the head too.
            if let Ok(response) = viewer.send(bare(world.get("/x"))).await {
                assert_eq!(response.status(), 200);
                assert!(response.into_body().collect().await.is_err());
            }
        }
    }
}

#[tokio::test]
async fn what_is_no_http_is_a_502() {
    let world = World::start().await;
    for says in [
        &b"SSH-2.0-x\r\n"[..],
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    ] {
        let _agent = world.tunnel_to(Serve::Origin(origin::raw(says, true).await)).await;
        let answer = world.h1(NAME).await.fetch(bare(world.get("/x"))).await;
        assert_eq!((answer.status, answer.code().as_str()), (502, "origin.failed"), "{says:?}");
    }
}

#[tokio::test]
async fn the_agents_first_byte_says_why_there_is_no_connection() {
    let world = World::start().await;
    for (byte, status, code) in [
        (1, 503, "server.origin_down"),
        (2, 503, "server.origin_down"),
        (3, 503, "server.origin_down"),
        (4, 403, "tunnel.not_allowed"),
        (5, 503, "server.over_limit"),
        (6, 502, "origin.tls"),
        (99, 502, "origin.failed"),
    ] {
        let _agent = world.tunnel_to(Serve::Status(byte)).await;
        let answer = world.h2(NAME).await.fetch(bare(world.get("/x"))).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{byte}");
    }
}

#[tokio::test]
async fn an_offline_server_is_a_503_at_once() {
    // A request that meets a tunnel's death waits so long for the next one.
    let world = World::with(|config| config.timeouts.ask_again = Duration::from_millis(50)).await;
    let mut viewer = world.h1(NAME).await;
    let asked = Instant::now();
    let answer = viewer.fetch(bare(world.get("/x"))).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "server.offline"));
    assert!(answer.headers.contains_key("retry-after"));
    assert!(asked.elapsed() < Duration::from_secs(1));

    let agent = world.tunnel().await;
    assert_eq!(viewer.fetch(bare(world.get("/x"))).await.status, 200);
    agent.link.close(0, "");
    super::world::until(async || viewer.fetch(bare(world.get("/x"))).await.code() == "server.offline").await;
}

#[tokio::test]
async fn connections_to_the_origin_are_used_again_by_the_same_sign_in_alone() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    let connections = || *world.origin.seen.connections.lock().unwrap();
    let ticket = world.hub.sign(&world.ticket());
    let again = || bare(Request::builder().uri("/hello").header("host", NAME).header("x-phlix-ticket", &ticket));
    let mut viewer = world.h1(NAME).await;
    for _ in 0..3 {
        assert_eq!(viewer.fetch(again()).await.body, "hello");
    }
    assert_eq!(connections(), 1);
    // Another user, on the same connection to us.
    assert_eq!(viewer.fetch(bare(world.get("/hello"))).await.body, "hello");
    assert_eq!(connections(), 2);
    // Open names: a connection to us is a viewer.
    let open = || bare(Request::builder().uri("/hello").header("host", OPEN));
    let (mut one, mut other) = (world.h1(OPEN).await, world.h1(OPEN).await);
    for _ in 0..2 {
        assert_eq!(one.fetch(open()).await.status, 200);
        assert_eq!(other.fetch(open()).await.status, 200);
    }
    assert_eq!(connections(), 4);
}

#[tokio::test]
async fn viewers_who_read_nothing_give_way_to_the_one_who_does() {
    let world = World::with(|config| {
        config.windows.stream_receive = 64 << 10;
        // Room for four, of which three are borne.
        config.windows.receive = 256 << 10;
    })
    .await;
    let _agent = world.tunnel().await;
    let mut held = Vec::new();
    for _ in 0..6 {
        let mut viewer = world.h1(NAME).await;
        let response = tokio::time::timeout(Duration::from_secs(10), viewer.send(bare(world.get("/endless")))).await;
        held.push((response.expect("a head comes").unwrap(), viewer));
    }
    let mut viewer = world.h1(NAME).await;
    for _ in 0..3 {
        let answer = tokio::time::timeout(Duration::from_secs(10), viewer.fetch(bare(world.get("/video")))).await;
        assert!(answer.expect("it comes through").body == video());
    }
}

#[tokio::test]
async fn a_surplus_byte_ends_a_connection_for_everybody() {
    let world = World::start().await;
    let says = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let _agent = world.tunnel_to(Serve::Origin(origin::raw(says, false).await)).await;
    let ticket = world.hub.sign(&world.ticket());
    let mut viewer = world.h1(NAME).await;
    for _ in 0..3 {
        let request = Request::builder().uri("/x").header("host", NAME).header("x-phlix-ticket", &ticket);
        assert_eq!(viewer.fetch(bare(request)).await.body, "ok");
    }
}

#[tokio::test]
async fn a_body_is_held_back_until_the_origin_asks_for_it() {
    let world = World::start().await;
    let ticket = world.hub.sign(&world.ticket());
    let head = |path: &str| {
        format!(
            "PUT {path} HTTP/1.1\r\nhost: {NAME}\r\nx-phlix-ticket: {ticket}\r\ncontent-length: 5\r\n\
             expect: 100-continue\r\n\r\n"
        )
    };
    let _agent = world.tunnel().await;
    // The origin asks: so does the edge.
    let mut stream = viewer::tls(world.at.tls, &world.trust, NAME, &[b"http/1.1"]).await;
    stream.write_all(head("/hash").as_bytes()).await.unwrap();
    let mut read = [0; 25];
    stream.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let mut answer = vec![0; 15];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200 OK");

    // The origin refuses without having seen a byte of it.
    let mut stream = viewer::tls(world.at.tls, &world.trust, NAME, &[b"http/1.1"]).await;
    stream.write_all(head("/refuse-early").as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 401");
}

#[tokio::test]
async fn whoever_keeps_us_waiting_is_named() {
    let world = World::with(|config| {
        config.timeouts.first_byte = Duration::from_millis(100);
        config.timeouts.origin_silence = Duration::from_millis(100);
        config.timeouts.request_body = Duration::from_millis(100);
        config.timeouts.body_rate = Duration::from_millis(200);
        config.timeouts.head = Duration::from_millis(100);
    })
    .await;
    let _agent = world.tunnel().await;
    let silent = world.h1(NAME).await.fetch(bare(world.get("/silent"))).await;
    assert_eq!((silent.status, silent.code().as_str()), (504, "gateway.timeout"));

    let body = StreamBody::new(futures_util::stream::pending()).boxed_unsync();
    let upload = world.get("/hash").method("PUT").body(body).unwrap();
    let slow = world.h2(NAME).await.fetch(upload).await;
    assert_eq!((slow.status, slow.code().as_str()), (408, "request.timeout"));

    // One byte at a time, while the origin waits.
    let dribble = futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Some((Ok(http_body::Frame::data(bytes::Bytes::from_static(b"x"))), ()))
    });
    let upload = world.get("/hash").method("PUT").body(StreamBody::new(dribble).boxed_unsync()).unwrap();
    let slow = world.h2(NAME).await.fetch(upload).await;
    assert_eq!((slow.status, slow.code().as_str()), (408, "request.timeout"));

    // Half an answer, then nothing.
    let half = origin::raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", false).await;
    let _agent = world.tunnel_to(Serve::Origin(half)).await;
    let response = world.h1(NAME).await.send(bare(world.get("/x"))).await.unwrap();
    assert!(response.into_body().collect().await.is_err());

    // Half a head.
    let mut stream = viewer::tls(world.at.tls, &world.trust, NAME, &[b"http/1.1"]).await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost").await.unwrap();
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.expect("it is closed");
    assert!(end.is_err() || !rest.starts_with(b"HTTP/1.1 2"));
}

#[tokio::test]
async fn administrative_paths_for_local_callers_are_refused() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    let mut viewer = world.h1(NAME).await;
    for path in ["/System/Restart", "/%73ystem//Shutdown", "/Startup/Complete"] {
        let answer = viewer.fetch(bare(world.get(path).method("POST"))).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "path.guarded"), "{path}");
    }
    assert_eq!(viewer.fetch(bare(world.get("/System/Info").method("POST"))).await.status, 200);
}

#[tokio::test]
async fn the_hubs_own_domain_passes_to_the_control_plane() {
    let world = World::start().await;
    let http = world.at.http.unwrap();
    let request = Request::builder()
        .method("POST")
        .uri("/api/v1/auth/login?x=1")
        .header("host", "localhost")
        .header("x-phlix-edge", "forged")
        .header("x-forwarded-for", "6.6.6.6")
        .header("cookie", "__Host-phlix-s=session")
        .header("authorization", "Bearer t")
        .body(viewer::bytes("12345"))
        .unwrap();
    let answer = Viewer::plain(http).await.fetch(request).await;
    assert_eq!(answer.body, "POST /api/v1/auth/login?x=1 5");
    assert_eq!(answer.header("set-cookie"), "__Host-phlix-s=session");
    let seen = world.hub.last_seen();
    assert_eq!(seen.headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(seen.headers["x-forwarded-proto"], "http");
    assert_eq!(seen.headers["x-forwarded-host"], "localhost");
    assert_eq!(seen.headers["cookie"], "__Host-phlix-s=session");
    assert_eq!(seen.headers["authorization"], "Bearer t");

    let over_tls = Request::builder().uri("/app/").header("host", "hub.localhost").body(nothing()).unwrap();
    assert_eq!(world.h2("hub.localhost").await.fetch(over_tls).await.status, 200);
    assert_eq!(world.hub.last_seen().headers["x-forwarded-proto"], "https");

    let edges = Request::builder().uri("/%65dge/v1/bulletin").header("host", "localhost").body(nothing()).unwrap();
    assert_eq!(Viewer::plain(http).await.fetch(edges).await.status, 404);

    let name = Request::builder().uri("/x?y").header("host", NAME).body(nothing()).unwrap();
    let redirect = Viewer::plain(http).await.fetch(name).await;
    let to = format!("https://{NAME}:{}/x?y", world.at.tls.port());
    assert_eq!((redirect.status, redirect.header("location")), (308, to.as_str()));

    world.hub.set_down(true);
    let away = Request::builder().uri("/").header("host", "localhost").body(nothing()).unwrap();
    assert_eq!(Viewer::plain(http).await.fetch(away).await.status, 503);
}

#[tokio::test]
async fn a_certificate_for_many_names_is_a_connection_for_one() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    for mut viewer in all(&world, OPEN).await {
        let answer = viewer.fetch(bare(world.get("/x"))).await;
        assert_eq!((answer.status, answer.code().as_str()), (421, "host.unknown"));
    }
    let unknown = Request::builder().uri("/").header("host", "nobody.hub.localhost").body(nothing()).unwrap();
    assert_eq!(world.h1("nobody.hub.localhost").await.fetch(unknown).await.status, 421);
}

#[tokio::test]
async fn the_edge_finishes_what_runs_and_then_ends() {
    let world = World::start().await;
    let mut agent = world.tunnel().await;
    let mut viewer = world.h1(NAME).await;
    let response = viewer.send(bare(world.get("/video"))).await.unwrap();
    let World { edge, .. } = world;
    let ending = tokio::spawn(edge.shutdown());
    loop {
        if let super::tunnels::Message::Drain(drain) = agent.hear().await.expect("the edge says drain") {
            assert!(drain.deadline_ms > 0);
            break;
        }
    }
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), video());
    tokio::time::timeout(Duration::from_secs(5), ending).await.expect("it ends").unwrap();
    assert_eq!(agent.closed().await, Some(phlix_protocol::native::close::DRAINED));
}

#[tokio::test]
async fn a_name_behind_a_proxy_that_terminates_tls_is_served_over_plain_http() {
    let world = World::with(|config| config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]).await;
    let _agent = world.tunnel().await;
    let http = world.at.http.unwrap();
    let said = |proto: &str| bare(world.get("/hello").header("x-forwarded-proto", proto));
    let answer = Viewer::plain(http).await.fetch(said("https")).await;
    assert_eq!((answer.status, answer.header("alt-svc")), (200, ""));
    assert_eq!(world.origin.last_head().headers["x-forwarded-proto"], "https");
    for proto in ["http", "https, http"] {
        assert_eq!(Viewer::plain(http).await.fetch(said(proto)).await.status, 308, "{proto}");
    }
    let twice = world.get("/hello").header("x-forwarded-proto", "https").header("x-forwarded-proto", "http");
    assert_eq!(Viewer::plain(http).await.fetch(bare(twice)).await.status, 308);
    // A sign-in's cookie is for TLS there, too.
    let page =
        Request::builder().uri("/.phlix/start?return=/").header("host", NAME).header("x-forwarded-proto", "https");
    let started = Viewer::plain(http).await.fetch(bare(page)).await;
    assert!(started.header("set-cookie").contains("; Secure"), "{}", started.status);
    let nobody =
        Request::builder().uri("/").header("host", "nobody.hub.localhost").header("x-forwarded-proto", "https");
    assert_eq!(Viewer::plain(http).await.fetch(bare(nobody)).await.status, 421);
    let strange = Request::builder().uri("/").header("host", "other.example").header("x-forwarded-proto", "https");
    assert_eq!(Viewer::plain(http).await.fetch(bare(strange)).await.status, 421);

    // Whoever is no named proxy is not believed.
    let alone = World::start().await;
    let answer = Viewer::plain(alone.at.http.unwrap()).await.fetch(said("https")).await;
    assert_eq!(answer.status, 308);
}
