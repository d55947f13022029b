//! Peers who don't read: an origin that stops in the middle of an upload costs no memory, viewers who
//! read nothing don't slow down the one who does.
//!
//! One test after the other: what is measured is the machine, too.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http::Method;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use phlix_tests::database::Database;
use phlix_tests::hub::Hub;
use phlix_tests::origin::home::Home;
use phlix_tests::viewer::{self, Protocol};
use phlix_tests::{Engine, World, full_size, latency, story};

const TICKET: &str = "x-phlix-ticket";

/// "Hub and agent grow by at most 16 MiB."
const GROWTH_KIB: u64 = 16 * 1024;
const UPLOAD: u64 = 10 << 30;

#[test]
fn the_pressure_of_peers_who_do_not_read_is_bounded() {
    story(async {
        uploads_to_an_origin_that_stops_reading().await;
        viewers_who_read_nothing().await;
    });
}

async fn uploads_to_an_origin_that_stops_reading() {
    let home = Home::start();
    for protocol in Protocol::BOTH {
        let mut world = World::start(Engine::Sqlite, &home.url()).await;
        let ticket = world.ticket().await;
        // Warm: what any first transfer allocates is there.
        let mut viewer = world.viewer(protocol).await;
        let request = viewer
            .request(Method::POST, "/upload")
            .header(TICKET, &ticket)
            .body(viewer::full(vec![0; 8 << 20]))
            .unwrap();
        assert_eq!(viewer.send(request).await.unwrap().status(), 200);
        let before = [world.hub.process().resident_kib(), world.agent.process().resident_kib()];

        // Ten GiB, as fast as they are taken, until none has been taken for 3 s.
        let sent = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&sent);
        let piece = Bytes::from(vec![0x5a; 64 * 1024]);
        let pieces = stream::iter((0..UPLOAD / piece.len() as u64).map(move |_| {
            counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
            Ok(Frame::data(piece.clone()))
        }));
        let request = viewer
            .request(Method::POST, "/upload/stalls")
            .header(TICKET, &ticket)
            .header("content-length", UPLOAD)
            .body(StreamBody::new(pieces).boxed())
            .unwrap();
        let sending = tokio::spawn(async move { viewer.send(request).await.map(|answer| answer.status()) });
        let mut last = (0, Instant::now());
        while last.1.elapsed() < Duration::from_secs(3) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = sent.load(Ordering::Relaxed);
            if now != last.0 {
                last = (now, Instant::now());
            }
        }
        assert!(!sending.is_finished(), "{protocol:?}: answered: {:?}", sending.await);
        let after = [world.hub.process().resident_kib(), world.agent.process().resident_kib()];
        println!("{protocol:?}: {} KiB taken; hub and agent, KiB: {before:?} -> {after:?}", last.0 / 1024);
        assert!(last.0 < UPLOAD / 10, "{protocol:?}: {} bytes were taken, where to?", last.0);
        for (who, (before, after)) in ["hub", "agent"].iter().zip(before.into_iter().zip(after)) {
            let grown = after.saturating_sub(before);
            assert!(grown <= GROWTH_KIB, "{protocol:?}: the {who} grew by {grown} KiB");
        }
        sending.abort();
    }
}

/// How many viewers read nothing.
const STALLED: usize = 64;

/// "512 KiB each over WebSocket and 2 MiB over QUIC", the former with an eighth for what the allocator keeps: measured in
/// debug builds are 440 to 490 and 1540 to 1740. That is the stream's window (256 and 1280), the datagrams that it came in
/// (7 %), 64 in rustls, 64 to 128 in hyper, 40 to 50 for the connection itself.
const UNREAD_KIB: [(&str, u64); 2] = [("quic", 2048), ("websocket", 512 + 512 / 8)];

async fn viewers_who_read_nothing() {
    let stalled_for = if full_size() { Duration::from_secs(30) } else { Duration::from_secs(5) };
    let home = Home::start();
    for (transport, cap) in UNREAD_KIB {
        for protocol in Protocol::ALL {
            let hub = Hub::start(Database::fresh(Engine::Sqlite), &[]).await;
            let mut world = World::with_agent(hub, &home.url(), &["--transport", transport]).await;
            world.hub.logged(&format!("tunnel opened over {transport}")).await;
            beside_those_who_read_nothing(&mut world, transport, protocol, cap, stalled_for).await;
        }
    }
}

async fn beside_those_who_read_nothing(
    world: &mut World,
    transport: &str,
    protocol: Protocol,
    cap: u64,
    stalled_for: Duration,
) {
    let ticket = world.ticket().await;
    let mut viewer = world.viewer(protocol).await;
    latency::requests(&mut viewer, &ticket, 100).await;
    let alone = latency::rounds(&mut viewer, &ticket, 300, stalled_for / 2).await;
    let before = [world.hub.process().resident_kib(), world.agent.process().resident_kib()];

    let mut stalled = Vec::new();
    for n in 0..STALLED {
        let mut client = world.viewer(protocol).await;
        let answer = client.get(&format!("/bytes/{}", 1 << 30), &[(TICKET, &ticket)]).await;
        assert_eq!(answer.status(), 200, "viewer {n}");
        stalled.push((client, answer));
    }
    let beside = latency::rounds(&mut viewer, &ticket, 300, stalled_for).await;
    let after = [world.hub.process().resident_kib(), world.agent.process().resident_kib()];
    drop(stalled);
    // Again alone: what else the machine does changes from one second to the next.
    let alone = alone.max(latency::rounds(&mut viewer, &ticket, 300, stalled_for / 2).await);
    println!(
        "{protocol:?} over {transport}: p99 alone {alone:?}, beside {STALLED} stalled viewers {beside:?}; \
         hub and agent, KiB: {before:?} -> {after:?}"
    );
    // Two cores carry hub, agent, origin and 65 viewers: below a few of the scheduler's slices, their order would decide.
    // A viewer who waits for credit that others hold waits for seconds.
    let limit = (alone * 2).max(Duration::from_millis(5));
    assert!(beside <= limit, "{protocol:?} over {transport}: p99 rose from {alone:?} to {beside:?}");
    for (who, (before, after)) in ["hub", "agent"].iter().zip(before.into_iter().zip(after)) {
        let grown = after.saturating_sub(before);
        assert!(grown <= cap * STALLED as u64, "{protocol:?} over {transport}: the {who} grew by {grown} KiB");
    }
}
