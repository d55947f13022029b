//! A tunnel's life after HELLO_ACK.

use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use phlix_protocol::ids::ServerId;

use super::home::{CONNECT, HEARTBEAT, Heard, Home, RESPONSE, code, enrollment, frame, hello, message};
use super::{get, tunnel};
use crate::random;
use crate::tests::world::{World, until};

/// Text with arbitrary bytes, zero masks, frames batched in a message and split over messages.
#[tokio::test]
async fn frames_come_as_servers_send_them() {
    let world = World::start().await;
    let mut home = Home::of(&world).await;
    let tunnel = tunnel(&world).await;
    let served = async {
        let (id, _) = home.asked().await;
        let head = b"\x01{\"status\":200,\"headers\":{\"Content-Type\":\"video\\/mp4\"},\"bodyLength\":6}";
        let mut all = frame(id, RESPONSE, head);
        all.extend(frame(id, RESPONSE, b"\x02\xff\x00\xfe"));
        all.extend(frame(0, HEARTBEAT, b""));
        all.extend(frame(id, RESPONSE, b"\x02\x80\x81\x82"));
        all.extend(frame(id, RESPONSE, b"\x03"));
        let (batch, split) = all.split_at(head.len() + 20);
        home.say(batch).await;
        for byte in split {
            home.say(&[*byte]).await;
        }
    };
    let (answer, ()) = tokio::join!(get(&tunnel, "/media/1/stream"), served);
    let answer = answer.unwrap();
    assert_eq!(answer.headers()["content-type"], "video/mp4");
    assert_eq!(&answer.into_body().collect().await.unwrap().to_bytes()[..], b"\xff\x00\xfe\x80\x81\x82");
}

#[tokio::test]
async fn heartbeats_go_out_and_are_never_echoed() {
    let world = World::with(|config| config.legacy.heartbeat = Duration::from_millis(300)).await;
    let mut home = Home::of(&world).await;
    let beat = frame(0, HEARTBEAT, b"");
    let started = Instant::now();
    // Twenty echoes would come at once.
    for _ in 0..20 {
        home.say(&beat).await;
    }
    for _ in 0..2 {
        assert_eq!(home.hear().await, Heard::Binary(beat.clone()));
    }
    assert!(started.elapsed() >= Duration::from_millis(500), "two of ours, no echo");
}

#[tokio::test]
async fn a_ping_is_answered_and_a_quiet_server_is_pinged() {
    let world = World::with(|config| config.legacy.ping = Duration::from_millis(50)).await;
    let mut home = Home::of(&world).await;
    assert_eq!(home.hear().await, Heard::Ping);
}

#[tokio::test]
async fn a_server_that_falls_silent_is_let_go() {
    let world = World::with(|config| config.legacy.silence = Duration::from_millis(100)).await;
    let mut home = Home::of(&world).await;
    assert_eq!(home.closed().await, code(1002));
    until(async || world.edge.tunnels.legacy.all().is_empty()).await;
}

#[tokio::test]
async fn what_servers_never_send_closes_the_tunnel() {
    let world = World::start().await;
    for bad in [frame(0, 0x00, b""), frame(0, 0x13, b""), frame(1, CONNECT, b"{}"), b"{\"type\":\"hello\"}".to_vec()] {
        let mut home = Home::of(&world).await;
        home.say(&bad).await;
        assert_eq!(home.closed().await, code(1002), "{bad:?}");
    }
    // The WebSocket's own rules.
    let mut home = Home::of(&world).await;
    home.say_raw(b"\x81\x01a").await;
    assert_eq!(home.closed().await, code(1002));
    // And a good-bye is answered.
    let mut home = Home::of(&world).await;
    home.say_raw(&message(0x88, &code(1000))).await;
    assert_eq!(home.closed().await, code(1000));
}

#[tokio::test]
async fn the_newest_valid_tunnel_is_the_route_and_the_old_one_finishes() {
    let world = World::with(|config| config.legacy.drain_grace = Duration::from_secs(60)).await;
    let mut old = Home::of(&world).await;
    let first = tunnel(&world).await;
    let (answer, id) = tokio::join!(get(&first, "/media/1/stream"), async {
        let (id, _) = old.asked().await;
        old.head(id, 200, r#"{"Content-Length":"4"}"#).await;
        old.body(id, b"ab").await;
        id
    });
    let body = answer.unwrap().into_body();

    let mut new = Home::of(&world).await;
    until(async || !first.usable()).await;
    let second = tunnel(&world).await;
    assert_ne!(first.id, second.id);
    assert!(!first.closed());
    let (answer, ()) = tokio::join!(get(&second, "/hls/a"), async {
        let (id, _) = new.asked().await;
        new.head(id, 200, "{}").await;
        new.end(id).await;
    });
    assert_eq!(answer.unwrap().status(), 200);

    old.body(id, b"cd").await;
    old.end(id).await;
    assert_eq!(&body.collect().await.unwrap().to_bytes()[..], b"abcd");
    // Nothing is left on it: it need not wait for its grace.
    assert_eq!(old.closed().await, code(1000));
    until(async || world.edge.tunnels.legacy.all().len() == 1).await;
    assert!(second.usable());
}

#[tokio::test]
async fn the_grace_of_an_old_tunnel_is_over_when_it_is_over() {
    for grace in [Duration::ZERO, Duration::from_millis(50)] {
        let world = World::with(|config| config.legacy.drain_grace = grace).await;
        let mut old = Home::of(&world).await;
        let first = tunnel(&world).await;
        let (answer, ()) = tokio::join!(get(&first, "/media/1/stream"), async {
            let (id, _) = old.asked().await;
            old.head(id, 200, r#"{"Content-Length":"4"}"#).await;
        });
        let _new = Home::of(&world).await;
        assert!(answer.unwrap().into_body().collect().await.is_err());
        assert_eq!(old.closed().await, code(1000));
    }
}

#[tokio::test]
async fn a_bad_newcomer_is_dropped_and_the_incumbent_untouched() {
    let world = World::start().await;
    let _home = Home::of(&world).await;
    let before = tunnel(&world).await;
    let mut stranger = enrollment(&world.hub, world.server);
    stranger.exp = stranger.iat - 60;
    let mut bad = Home::dial(world.at.relay_server.unwrap()).await;
    bad.say(hello(&world.hub, &stranger).as_bytes()).await;
    assert_eq!(bad.rest().await, [Heard::Close(code(4401))]);
    let after = tunnel(&world).await;
    assert_eq!((before.id, true), (after.id, after.usable()));
}

#[tokio::test]
async fn an_edge_that_goes_away_says_so() {
    let world = World::start().await;
    let mut home = Home::of(&world).await;
    let other = enrollment(&world.hub, ServerId::new(random::uuid()));
    let mut busy = Home::with(&world, &other).await;
    let tunnel = world.edge.tunnels.legacy.pick(other.server_id).unwrap();
    let asking = tokio::spawn(async move { get(&tunnel, "/hls/a").await.map(|answer| answer.status().as_u16()) });
    let (id, _) = busy.asked().await;
    world.edge.tunnels.drain_legacy();
    assert_eq!(home.closed().await, code(1012));
    let mut late = Home::dial(world.at.relay_server.unwrap()).await;
    late.say(hello(&world.hub, &enrollment(&world.hub, world.server)).as_bytes()).await;
    assert_eq!(late.rest().await, [Heard::Close(code(1013))]);
    // What runs may end.
    busy.head(id, 200, "{}").await;
    busy.end(id).await;
    assert_eq!(asking.await.unwrap().unwrap(), 200);
    assert_eq!(busy.closed().await, code(1012));
}
