//! HTTP/3's own rules: what is malformed, too much, or given up.

use std::time::{Duration, Instant};

use http::Request;
use http_body_util::BodyExt as _;
use phlix_protocol::native;
use tokio::net::UdpSocket;

use super::agent::{Serve, dial};
use super::origin;
use super::raw3::{Raw3, frame, number, section};
use super::viewer::Viewer;
use super::world::{NAME, World, bare};

const MESSAGE_ERROR: u64 = 0x10e;
const FRAME_UNEXPECTED: u64 = 0x105;
const FRAME_ERROR: u64 = 0x106;
const EXCESSIVE_LOAD: u64 = 0x107;

fn get<'a>(ticket: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", NAME),
        (":path", "/hash"),
        ("x-phlix-ticket", ticket),
    ];
    fields.extend(more);
    fields
}

#[tokio::test]
async fn a_malformed_request_is_refused_and_never_forwarded() {
    let world = World::start().await;
    let agent = world.tunnel().await;
    let ticket = world.hub.sign(&world.ticket());
    let raw = Raw3::open(&world, NAME).await;
    let without = |name: &str| get(&ticket, &[]).into_iter().filter(|(field, _)| *field != name).collect::<Vec<_>>();
    let with = |name: &'static str, value: &'static str| get(&ticket, &[(name, value)]);
    let instead = |name: &str, value: &'static str| {
        let fields = get(&ticket, &[]).into_iter();
        fields.map(|(field, old)| (field, if field == name { value } else { old })).collect::<Vec<_>>()
    };
    let wrong = [
        without(":method"),
        without(":scheme"),
        without(":path"),
        without(":authority"),
        with("connection", "close"),
        with("keep-alive", "1"),
        with("proxy-connection", "keep-alive"),
        with("transfer-encoding", "chunked"),
        with("upgrade", "websocket"),
        with("te", "gzip"),
        with("X-Upper", "1"),
        with("x-crlf", "a\r\nx-evil: 1"),
        with("x-lf", "a\nb"),
        with("x-nul", "a\0b"),
        with("x bad", "1"),
        with("x:bad", "1"),
        with("", "1"),
        with("host", "other.example"),
        with(":path", "/other"),
        with(":evil", "1"),
        with(":status", "200"),
        with(":protocol", "websocket"),
        with("content-length", "x"),
        with("content-length", "+1"),
        get(&ticket, &[("content-length", "1"), ("content-length", "1")]),
        instead(":method", "GET /x HTTP/1.1"),
        instead(":path", "/a b"),
        instead(":path", "/a\r\nx: y"),
        instead(":path", "https://ab.hub.localhost/x"),
        instead(":path", ""),
        instead(":scheme", "http"),
        instead(":authority", "u@ab.hub.localhost"),
        instead(":authority", ""),
    ];
    for fields in wrong {
        let mut stream = raw.ask(&fields).await;
        // What it may already have answered to.
        let _ = stream.send.finish();
        let answer = stream.status().await;
        assert!(matches!(answer, Ok(400 | 421) | Err(MESSAGE_ERROR)), "{fields:?}: {answer:?}");
    }
    assert_eq!(agent.headers().len(), 0, "nothing of it went down the tunnel");
    // The connection still serves.
    let mut stream = raw.ask(&get(&ticket, &[])).await;
    stream.finish();
    assert_eq!(stream.status().await, Ok(200));
}

#[tokio::test]
async fn a_body_of_another_length_than_said_is_no_request() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    let ticket = world.hub.sign(&world.ticket());
    let raw = Raw3::open(&world, NAME).await;
    for (said, body) in [("5", &b"four"[..]), ("3", b"four"), ("0", b"x"), ("5", b"")] {
        let mut stream = raw.ask(&get(&ticket, &[("content-length", said)])).await;
        if !body.is_empty() {
            stream.say(body).await;
        }
        let _ = stream.send.finish();
        let answer = stream.status().await;
        assert!(matches!(answer, Ok(400) | Err(MESSAGE_ERROR)), "{said} {body:?}: {answer:?}");
    }
    let mut stream = raw.ask(&get(&ticket, &[("content-length", "4")])).await;
    stream.say(b"fo").await;
    stream.say(b"ur").await;
    stream.finish();
    assert_eq!(stream.status().await, Ok(200));
    assert_eq!(world.origin.last_head().headers["content-length"], "4");
}

#[tokio::test]
async fn a_head_has_bounds_in_bytes_fields_and_time() {
    let world = World::with(|config| config.timeouts.head = Duration::from_millis(300)).await;
    let _agent = world.tunnel().await;
    let ticket = world.hub.sign(&world.ticket());
    let raw = Raw3::open(&world, NAME).await;
    let many: Vec<_> = (0..120).map(|_| ("x-many", "1")).collect();
    let mut stream = raw.ask(&get(&ticket, &many)).await;
    stream.finish();
    assert_eq!(stream.status().await, Ok(431));

    // A length is enough: nobody waits for what it announces.
    let announced = [&[0x01][..], &(0x8000_0000_u32 | 100_000).to_be_bytes()].concat();
    assert_eq!(raw.begin(&announced).await.status().await, Ok(431));
    let announced = [&[0x01][..], &[0xff; 8]].concat();
    assert_eq!(raw.begin(&announced).await.status().await, Ok(431));

    // Half a head.
    let began = Instant::now();
    let half = [&[0x01, 0x20][..], &section(&[(":method", "GET")])].concat();
    assert!(raw.begin(&half).await.status().await.is_err());
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn frames_out_of_place_close_the_connection() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    let ticket = world.hub.sign(&world.ticket());
    let head = frame(0x01, &section(&get(&ticket, &[])));
    for (bytes, code) in [
        (frame(0x00, b"x"), FRAME_UNEXPECTED),
        (frame(0x04, b""), FRAME_UNEXPECTED),
        ([head.clone(), frame(0x06, b"12345678")].concat(), FRAME_UNEXPECTED),
        ([head.clone(), frame(0x01, &section(&[])), frame(0x00, b"x")].concat(), FRAME_UNEXPECTED),
        ([head.clone(), number(0x00), number(10), b"short".to_vec()].concat(), FRAME_ERROR),
        ([head.clone(), frame(0x21, b"").repeat(3_000)].concat(), EXCESSIVE_LOAD),
        ([head, frame(0x00, b"").repeat(3_000)].concat(), EXCESSIVE_LOAD),
    ] {
        let raw = Raw3::open(&world, NAME).await;
        let mut stream = raw.begin(&bytes).await;
        let _ = stream.send.finish();
        let closed = tokio::time::timeout(Duration::from_secs(5), raw.closed()).await.expect("closed");
        assert_eq!(closed, code, "{:x?}", &bytes[bytes.len().saturating_sub(8)..]);
    }
    // The control stream holds no frame of any length, and not any number.
    for bytes in [[&[0x21][..], &[0xbf, 0xff, 0xff, 0xff], &[0; 100]].concat(), frame(0x21, b"").repeat(3_000)] {
        let mut raw = Raw3::open(&world, NAME).await;
        let _ = raw.control.write_all(&bytes).await;
        let closed = tokio::time::timeout(Duration::from_secs(5), raw.closed()).await.expect("closed");
        assert_eq!(closed, EXCESSIVE_LOAD);
    }
}

#[tokio::test]
async fn unknown_frames_and_streams_are_passed_over() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    let ticket = world.hub.sign(&world.ticket());
    let raw = Raw3::open(&world, NAME).await;
    let mut grease = raw.connection.open_uni().await.unwrap();
    grease.write_all(&[0x21, 1, 2, 3]).await.unwrap();
    let head = frame(0x01, &section(&get(&ticket, &[])));
    let mut stream = raw
        .begin(&[frame(0x21, b"grease"), head, frame(0x21, b""), frame(0x00, b"ab"), frame(0x40, b"x")].concat())
        .await;
    stream.say(b"c").await;
    stream.finish();
    assert_eq!(stream.status().await, Ok(200));
    assert!(stream.hear(2).await.unwrap().starts_with(b"3 "));
}

#[tokio::test]
async fn an_answer_is_given_up_by_stop_sending_alone() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    let raw = Raw3::open(&world, NAME).await;
    let ticket = world.hub.sign(&world.ticket());
    let fields = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", NAME),
        (":path", "/endless"),
        ("x-phlix-ticket", &ticket),
    ];
    let mut stream = raw.ask(&fields).await;
    stream.finish();
    assert_eq!(stream.status().await, Ok(200));
    let left = Instant::now();
    stream.recv.stop(0x10c_u32.into()).unwrap();
    world.origin.seen.dropped.notified().await;
    assert!(left.elapsed() < Duration::from_millis(100), "{:?}", left.elapsed());
    // Its neighbours on the connection have not noticed.
    let mut stream = raw.ask(&get(&ticket, &[])).await;
    stream.finish();
    assert_eq!(stream.status().await, Ok(200));
}

#[tokio::test]
async fn an_upload_that_is_reset_is_no_upload() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    let ticket = world.hub.sign(&world.ticket());
    let raw = Raw3::open(&world, NAME).await;
    let mut stream = raw.ask(&get(&ticket, &[])).await;
    stream.say(b"half").await;
    world.origin.seen.uploading.notified().await;
    stream.send.reset(0x10c_u32.into()).unwrap();
    world.origin.seen.upload_broken.notified().await;
}

#[tokio::test]
async fn a_short_answer_is_reset_as_an_internal_error() {
    let world = World::start().await;
    let origin = origin::raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this", true).await;
    let _agent = world.tunnel_to(Serve::Origin(origin)).await;
    let ticket = world.hub.sign(&world.ticket());
    let raw = Raw3::open(&world, NAME).await;
    let mut stream = raw.ask(&get(&ticket, &[])).await;
    stream.finish();
    let heard = match stream.status().await {
        Ok(status) => {
            assert_eq!(status, 200);
            stream.hear(100).await.unwrap_err()
        }
        Err(code) => format!("{code:#x}"),
    };
    assert!(heard.contains("0x102") || heard.contains("258"), "{heard}");
}

#[tokio::test]
async fn an_expectation_is_met_before_the_body_is_sent() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    let ticket = world.hub.sign(&world.ticket());
    let raw = Raw3::open(&world, NAME).await;
    let mut stream = raw.ask(&get(&ticket, &[("expect", "100-continue"), ("content-length", "5")])).await;
    assert_eq!(stream.status().await, Ok(100));
    stream.say(b"hello").await;
    stream.finish();
    assert_eq!(stream.status().await, Ok(200));
}

#[tokio::test]
async fn a_connection_ends_when_it_was_idle_for_too_long() {
    let world = World::with(|config| config.timeouts.keep_alive = Duration::from_millis(200)).await;
    let raw = Raw3::open(&world, NAME).await;
    let closed = tokio::time::timeout(Duration::from_secs(5), raw.closed()).await.expect("closed");
    assert_eq!(closed, 0x100);
}

#[tokio::test]
async fn what_runs_is_finished_when_the_edge_goes() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    let mut viewer = world.h3(NAME).await;
    let response = viewer.send(bare(world.get("/video"))).await.unwrap();
    let World { edge, .. } = world;
    let ending = tokio::spawn(edge.shutdown());
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), origin::video());
    tokio::time::timeout(Duration::from_secs(8), ending).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn a_connection_has_its_place_like_one_over_tcp() {
    let world = World::with(|config| config.limits.connections_per_address = 1).await;
    let first = Raw3::open(&world, NAME).await;
    let second = Raw3::open(&world, NAME).await;
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), second.closed()).await.expect("closed"), EXCESSIVE_LOAD);
    assert!(first.connection.close_reason().is_none());
}

#[tokio::test]
async fn viewers_over_tcp_hear_of_http_3_where_it_is() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    let there = format!("h3=\":{}\"; ma=86400", world.at.tls.port());
    for mut viewer in [world.h1(NAME).await, world.h2(NAME).await] {
        assert_eq!(viewer.fetch(bare(world.get("/hello"))).await.header("alt-svc"), there);
    }
    let hub = || bare(Request::builder().uri("/app/").header("host", "hub.localhost"));
    assert_eq!(world.h2("hub.localhost").await.fetch(hub()).await.header("alt-svc"), there);
    assert_eq!(world.h3(NAME).await.fetch(bare(world.get("/hello"))).await.header("alt-svc"), "");
    let plain = bare(Request::builder().uri("/app/").header("host", "localhost"));
    assert_eq!(Viewer::plain(world.at.http.unwrap()).await.fetch(plain).await.header("alt-svc"), "");

    let behind = World::with(|config| config.behind_proxy = true).await;
    let _agent = behind.tunnel().await;
    assert_eq!(behind.h2(NAME).await.fetch(bare(behind.get("/hello"))).await.header("alt-svc"), "");
}

#[tokio::test]
async fn protocols_share_a_port_and_noise_is_no_protocol() {
    let world = World::start().await;
    let _agent = world.tunnel().await;
    let noise = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    // Long headers of version 1 with nothing behind them, tiny ones, other versions, none.
    for first in 0..=255_u8 {
        for length in [1, 5, 21, 1200] {
            let mut packet = vec![first; length];
            if let Some(version) = packet.get_mut(1..5) {
                version.copy_from_slice(&u32::from(first % 3 != 0).to_be_bytes());
            }
            let _ = noise.send_to(&packet, world.at.tls).await;
        }
    }
    assert!(dial(world.at.tls, &world.trust, &[b"nope"]).await.is_err());
    assert!(dial(world.at.tls, &world.trust, &[]).await.is_err());
    let (_endpoint, tunnel) = dial(world.at.tls, &world.trust, &[native::ALPN]).await.unwrap();
    // A tunnel has no such streams.
    let mut stray = tunnel.open_uni().await.unwrap();
    stray.write_all(b"x").await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), tunnel.closed()).await.expect("closed");
    assert_eq!(world.h3(NAME).await.fetch(bare(world.get("/hello"))).await.status, 200);
}
