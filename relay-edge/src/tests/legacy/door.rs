//! Who is let in at port 8802, and what everybody else sees.

use std::time::Duration;

use phlix_protocol::ids::ServerId;
use phlix_protocol::token::{self, Cnf};
use phlix_protocol::uplink::{Change, EdgeRole, EdgeStatus, Selector};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::home::{HEARTBEAT, Heard, Home, code, enrollment, frame, hello, message};
use super::{get, tunnel};
use crate::random;
use crate::tests::agent::Serve;
use crate::tests::viewer::Viewer;
use crate::tests::world::{World, bare, until};

#[tokio::test]
async fn a_server_is_acknowledged_first_and_its_tunnel_is_reported() {
    let world = World::start().await;
    let _home = Home::of(&world).await;
    let tunnel = tunnel(&world).await;
    until(async || {
        let reports = world.hub.presence();
        let mut opened = reports.iter().flat_map(|report| &report.opened);
        opened.any(|opened| {
            opened.tunnel_id == tunnel.id
                && opened.statement.is_none()
                && opened.legacy.is_some_and(|legacy| !legacy.tls && legacy.address.is_loopback())
        })
    })
    .await;
    let page = http::Request::builder().uri("/metrics").header("host", "x");
    let page = Viewer::plain(world.at.metrics.unwrap()).await.fetch(bare(page)).await;
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(page.contains("phlix_edge_tunnels_open{transport=\"legacy\"} 1"), "{page}");
    assert!(page.contains("phlix_edge_legacy_queue_limit_bytes{of=\"stream\"} 262144"), "{page}");
}

#[tokio::test]
async fn tls_and_plain_are_told_apart_on_one_port() {
    let world = World::start().await;
    let at = world.at.relay_server.unwrap();
    let mut home = Home::dial_tls(at, &world.trust).await;
    home.introduce(&world.hub, &enrollment(&world.hub, world.server)).await;
    let tunnel = tunnel(&world).await;
    let (answer, ()) = tokio::join!(get(&tunnel, "/hls/a"), async {
        let (id, _) = home.asked().await;
        home.head(id, 204, "[]").await;
        home.end(id).await;
    });
    assert_eq!(answer.unwrap().status(), 204);
    until(async || {
        let reports = world.hub.presence();
        let mut opened = reports.iter().flat_map(|report| &report.opened);
        opened.any(|opened| opened.legacy.is_some_and(|legacy| legacy.tls))
    })
    .await;
    let other = enrollment(&world.hub, ServerId::new(random::uuid()));
    Home::with(&world, &other).await;
}

/// legacy-relay-wire s.1.3: what is sent first, and what is seen until the connection ends.
#[tokio::test]
async fn each_refusal_is_what_servers_know() {
    let world = World::with(|config| config.legacy.connects = 100).await;
    let good = enrollment(&world.hub, world.server);
    let with = |change: fn(&mut token::Enrollment)| {
        let mut enrollment = good.clone();
        change(&mut enrollment);
        hello(&world.hub, &enrollment)
    };
    let key = world.server_key.public();
    let mut bound = good.clone();
    bound.cnf = Some(Cnf { jwk: key });
    let mut other = good.clone();
    other.server_id = ServerId::new(random::uuid());
    other.sub = other.server_id;
    let stolen = hello(&world.hub, &other).replace(&other.server_id.to_string(), &good.server_id.to_string());
    let jwt = token::sign(&good, &world.hub.key);
    let forged = token::sign(&good, &world.server_key);
    let id = good.server_id;
    let text = |text: &str| vec![Heard::Text(text.into())];
    let close = |number| vec![Heard::Close(code(number))];
    let table: Vec<(&str, Vec<u8>, Vec<Heard>)> = vec![
        ("no JSON", b"hello?".to_vec(), text("invalid_hello")),
        ("no object", b"[1]".to_vec(), text("invalid_hello")),
        (
            "not flat",
            format!(r#"{{"type":"hello","enrollment_jwt":"{jwt}","server_id":"{id}","x":[]}}"#).into(),
            text("invalid_hello"),
        ),
        ("no bytes but those of a frame", frame(0, HEARTBEAT, b""), text("invalid_hello")),
        ("no server_id", format!(r#"{{"type":"hello","enrollment_jwt":"{jwt}"}}"#).into(), text("missing_server_id")),
        (
            "empty server_id",
            format!(r#"{{"type":"hello","enrollment_jwt":"{jwt}","server_id":""}}"#).into(),
            text("missing_server_id"),
        ),
        ("another type", format!(r#"{{"type":"hi","enrollment_jwt":"{jwt}","server_id":"{id}"}}"#).into(), close(1002)),
        ("no token", format!(r#"{{"type":"hello","server_id":"{id}"}}"#).into(), close(1002)),
        ("no JWT", format!(r#"{{"type":"hello","enrollment_jwt":"x","server_id":"{id}"}}"#).into(), close(4401)),
        (
            "another key",
            format!(r#"{{"type":"hello","enrollment_jwt":"{forged}","server_id":"{id}"}}"#).into(),
            close(4401),
        ),
        ("another server's", stolen.into(), close(4401)),
        ("expired", with(|it| it.exp = it.iat - 60).into(), close(4401)),
        ("another audience", with(|it| it.aud = "relay-edge".into()).into(), close(4401)),
        ("another issuer", with(|it| it.iss = "evil".into()).into(), close(4401)),
        ("bound to a key", hello(&world.hub, &bound).into(), close(4401)),
    ];
    let mut incumbent = Home::of(&world).await;
    let before = tunnel(&world).await;
    for (what, sent, seen) in table {
        let mut home = Home::dial(world.at.relay_server.unwrap()).await;
        home.say(&sent).await;
        assert_eq!(home.rest().await, seen, "{what}");
    }
    // A bad newcomer has changed nothing.
    let after = tunnel(&world).await;
    assert_eq!((after.id, after.usable()), (before.id, true));
    let (answer, ()) = tokio::join!(get(&after, "/hls/a"), async {
        let (id, _) = incumbent.asked().await;
        incumbent.head(id, 200, "{}").await;
        incumbent.end(id).await;
    });
    assert_eq!(answer.unwrap().status(), 200);
}

#[tokio::test]
async fn what_is_no_tunnel_is_answered_as_http() {
    let world = World::start().await;
    for (request, status) in [
        ("GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 "),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 426 "),
        ("\x05\x01\x00 \r\n\r\n", "HTTP/1.1 400 "),
    ] {
        let mut stream = TcpStream::connect(world.at.relay_server.unwrap()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(status), "{answer}");
    }
}

#[tokio::test]
async fn an_address_that_proves_nothing_is_turned_away_and_one_that_does_is_not() {
    let world = World::with(|config| config.legacy.connects = 3).await;
    let at = world.at.relay_server.unwrap();
    // A fleet behind one address.
    for _ in 0..6 {
        Home::with(&world, &enrollment(&world.hub, ServerId::new(random::uuid()))).await;
    }
    let _silent = Home::dial(at).await;
    for _ in 0..2 {
        let mut bad = Home::dial(at).await;
        bad.say(b"nonsense").await;
        assert_eq!(bad.rest().await, [Heard::Text(b"invalid_hello".to_vec())]);
    }
    // 101, then `88 02 03 f5`, before it said anything.
    assert_eq!(Home::dial(at).await.rest().await, [Heard::Close(vec![0x03, 0xf5])]);
}

#[tokio::test]
async fn who_says_no_hello_is_let_go() {
    let world = World::with(|config| config.timeouts.hello = Duration::from_millis(50)).await;
    let mut home = Home::dial(world.at.relay_server.unwrap()).await;
    assert_eq!(home.rest().await, [Heard::Close(code(1002))]);
}

#[tokio::test]
async fn an_edge_that_knows_nothing_yet_sends_servers_away_for_now() {
    let world = World::admitted(EdgeStatus::Pending, |_| {}).await;
    let mut home = Home::dial(world.at.relay_server.unwrap()).await;
    home.say(hello(&world.hub, &enrollment(&world.hub, world.server)).as_bytes()).await;
    assert_eq!(home.rest().await, [Heard::Close(code(1013))]);
}

#[tokio::test]
async fn an_outer_edge_has_no_such_port() {
    let world = World::with(|config| config.role = EdgeRole::Outer).await;
    assert_eq!(world.at.relay_server, None);
}

#[tokio::test]
async fn an_edge_that_wants_tls_refuses_plain() {
    let world = World::with(|config| config.legacy.tls_only = true).await;
    let at = world.at.relay_server.unwrap();
    let mut plain = TcpStream::connect(at).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    let mut home = Home::dial_tls(at, &world.trust).await;
    home.introduce(&world.hub, &enrollment(&world.hub, world.server)).await;
}

#[tokio::test]
async fn a_server_that_has_used_tls_does_not_come_without_it() {
    let world = World::start().await;
    let mut plain = Home::of(&world).await;
    world.hub.announce(Change::TlsOnly { server_id: world.server, required: true });
    assert_eq!(plain.closed().await, code(4401));
    let mut again = Home::dial(world.at.relay_server.unwrap()).await;
    again.say(hello(&world.hub, &enrollment(&world.hub, world.server)).as_bytes()).await;
    assert_eq!(again.rest().await, [Heard::Close(code(4401))]);
    let mut home = Home::dial_tls(world.at.relay_server.unwrap(), &world.trust).await;
    home.introduce(&world.hub, &enrollment(&world.hub, world.server)).await;
    world.hub.announce(Change::TlsOnly { server_id: world.server, required: false });
    until(async || {
        let mut home = Home::dial(world.at.relay_server.unwrap()).await;
        home.say(hello(&world.hub, &enrollment(&world.hub, world.server)).as_bytes()).await;
        matches!(home.hear().await, Heard::Text(_))
    })
    .await;
}

#[tokio::test]
async fn a_withdrawn_right_ends_the_tunnel() {
    let world = World::start().await;
    // One that was issued later would be good.
    let withdrawn = enrollment(&world.hub, world.server);
    let mut home = Home::with(&world, &withdrawn).await;
    world.hub.revoke(Selector::Server(world.server));
    assert_eq!(home.closed().await, code(4401));
    let mut again = Home::dial(world.at.relay_server.unwrap()).await;
    again.say(hello(&world.hub, &withdrawn).as_bytes()).await;
    assert_eq!(again.rest().await, [Heard::Close(code(4401))]);
}

#[tokio::test]
async fn a_native_tunnel_is_never_replaced_and_takes_over() {
    let world = World::start().await;
    let mut legacy = Home::of(&world).await;
    let _native = world.tunnel_to(Serve::Status(1)).await;
    assert_eq!(legacy.closed().await, code(1000));
    let mut again = Home::dial(world.at.relay_server.unwrap()).await;
    again.say(hello(&world.hub, &enrollment(&world.hub, world.server)).as_bytes()).await;
    assert_eq!(again.rest().await, [Heard::Close(code(4401))]);
    assert!(world.edge.tunnels.registry.pick(world.server).is_some());
}

#[tokio::test]
async fn a_hello_in_pieces_and_with_another_opcode_is_a_hello() {
    let world = World::start().await;
    let mut home = Home::dial(world.at.relay_server.unwrap()).await;
    let hello = hello(&world.hub, &enrollment(&world.hub, world.server));
    let (one, two) = hello.as_bytes().split_at(100);
    let mut wire = message(0x02, one);
    wire.extend(message(0x80, two));
    for byte in wire {
        home.say_raw(&[byte]).await;
    }
    assert!(matches!(home.hear().await, Heard::Text(_)));
}
