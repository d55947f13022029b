//! WebSockets to an existing media server, by each protocol of viewers, at its name and on the hub's proxy path.

use std::time::{Duration, Instant};

use phlix_protocol::ids::ShareId;
use phlix_protocol::token::{Libraries, ViewerTicket};
use phlix_protocol::uplink::{Selector, ServerKind};
use phlix_protocol::ws::handshake;

use super::home::Home;
use super::port::Port;
use super::proxy::{BEARER, HUB, admit, world_with};
use super::tunnel;
use crate::random;
use crate::tests::upgrades::{ALL, By, KEY, Socket, field, open_at};
use crate::tests::world::{NAME, World, until};

/// Grants it, sets a cookie, and says `hello` at once.
fn grants(head: &str) -> Vec<u8> {
    let key = field(head, "sec-websocket-key").unwrap_or_default();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {}\r\n\
         sec-websocket-protocol: chat\r\nset-cookie: sid=1; Path=/\r\nx-own: 1\r\n\r\nhello",
        handshake::accept_key(&key)
    )
    .into_bytes()
}

async fn world_of(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> (World, Port) {
    let world = world_with(|_| {}, |_| {}).await;
    let home = Home::of(&world).await;
    tunnel(&world).await;
    (world, Port::open(home, answer))
}

/// Where a WebSocket is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Name,
    Proxy,
}

/// Asks as its owner.
async fn open(world: &World, by: By, at: At, path: &str, more: &[(&str, &str)]) -> (u16, Option<Socket>) {
    open_as(world, by, at, path, &world.ticket(), BEARER, more).await
}

async fn open_as(
    world: &World,
    by: By,
    at: At,
    path: &str,
    ticket: &ViewerTicket,
    bearer: &str,
    more: &[(&str, &str)],
) -> (u16, Option<Socket>) {
    let (ticket, bearer) = (world.hub.sign(ticket), format!("Bearer {bearer}"));
    let (host, target, field) = match at {
        At::Name => (NAME, path.to_owned(), ("x-phlix-ticket", ticket.as_str())),
        At::Proxy => (HUB, format!("/api/v1/servers/{}/proxy{path}", world.server), ("authorization", bearer.as_str())),
    };
    let mut fields = vec![field];
    fields.extend(more);
    open_at(world, by, host, &target, &fields).await
}

const PATH: &str = "/hls/socket?a=b";

#[tokio::test]
async fn the_owners_websocket_passes_both_ways_by_a_head_of_our_own() {
    let (world, port) = world_of(grants).await;
    let mut opened = 0;
    for (by, at) in ALL.into_iter().flat_map(|by| [(by, At::Name), (by, At::Proxy)]) {
        let own = [
            ("cookie", "__Host-phlix-s=t; own=1"),
            ("x-phlix-relay-user", "admin"),
            ("x_phlix_relay_user", "admin"),
            ("x-forwarded-for", "192.0.2.1"),
            ("accept-language", "de"),
        ];
        let (status, socket) = open(&world, by, at, PATH, &own).await;
        assert_eq!(status, if by == By::H1 { 101 } else { 200 }, "{by:?} {at:?}");
        let mut socket = socket.unwrap();
        assert_eq!(socket.hear(5).await.unwrap(), b"hello", "{by:?} {at:?}: what came right behind the head");
        let large: Vec<u8> = (0..1_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
        for piece in large.chunks(100_000) {
            socket.say(piece).await;
            assert!(socket.hear(piece.len()).await.unwrap() == piece, "{by:?} {at:?}");
        }
        // The wire has no half-close: who ends what it says has left.
        let before = port.left();
        socket.finish().await;
        until(async || port.left() == before + 1).await;
        assert_eq!(socket.hear(1).await.unwrap_or_default(), b"", "{by:?} {at:?}");

        opened += 1;
        let seen = port.seen.lock().unwrap();
        assert_eq!(seen.heads.len(), opened);
        let last = *seen.heads.keys().max().unwrap();
        let head = &seen.heads[&last];
        assert!(seen.early[&last].is_empty(), "{by:?} {at:?}");
        assert!(head.starts_with("GET /hls/socket?a=b HTTP/1.1\r\n"), "{head}");
        for (name, value) in [
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat, other"),
            ("x-forwarded-for", "127.0.0.1"),
            ("accept-language", "de"),
        ] {
            assert_eq!(field(head, name).as_deref(), Some(value), "{name} in {head}");
        }
        assert_eq!(field(head, "sec-websocket-key").as_deref() == Some(KEY), by == By::H1);
        let host = field(head, "host").unwrap();
        assert!(host.starts_with(if at == At::Name { NAME } else { HUB }), "{host}");
        for gone in ["phlix", "authorization", "cookie"] {
            assert!(!head.contains(gone), "{gone} in {head}");
        }
    }
}

#[tokio::test]
async fn everybody_elses_websocket_is_refused_with_a_reason() {
    let (world, port) = world_of(grants).await;
    let share = |libs: Libraries| ViewerTicket { share_id: Some(ShareId::new(random::uuid())), libs, ..world.ticket() };
    let shared = share(Libraries::All);
    admit(&world, "the-bearer-of-a-grantee", ServerKind::Phlix, |ticket| ticket.share_id = shared.share_id);
    for by in ALL {
        for at in [At::Name, At::Proxy] {
            assert_eq!(
                open_as(&world, by, at, PATH, &shared, "the-bearer-of-a-grantee", &[]).await.0,
                501,
                "{by:?} {at:?}"
            );
            let (status, _) =
                open_as(&world, by, at, PATH, &shared, "the-bearer-of-nobody", &[("x-phlix-ticket", "x")]).await;
            assert!(matches!(status, 401 | 501), "{by:?} {at:?}: {status}");
            for elsewhere in ["https://evil.example", "null"] {
                let status = open(&world, by, at, PATH, &[("origin", elsewhere)]).await.0;
                assert_eq!(status, 403, "{by:?} {at:?} {elsewhere}");
            }
            for path in ["/", "/api/v1/users/me", "/api/v1/libraries/1/scan", "/hls/%2e%2e/x"] {
                assert_eq!(open(&world, by, at, path, &[]).await.0, 403, "{by:?} {at:?} {path}");
            }
        }
    }
    assert!(port.seen.lock().unwrap().connected.is_empty(), "nothing of it went down the tunnel");
}

#[tokio::test]
async fn nothing_passes_without_the_right_101() {
    for (answer, h1, h2) in [
        ("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", 502, 502),
        (
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOp=\r\n\r\n",
            502,
            502,
        ),
        ("SSH-2.0-x\r\n\r\n", 502, 502),
        // What it says instead is its answer; a 2xx would be a grant to who has no 101.
        ("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno", 403, 403),
        ("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok", 200, 502),
    ] {
        let (world, port) = world_of(move |_| answer.as_bytes().to_vec()).await;
        for at in [At::Name, At::Proxy] {
            for (by, status) in [(By::H1, h1), (By::H2, h2), (By::H3, h2)] {
                assert_eq!(open(&world, by, at, PATH, &[]).await.0, status, "{by:?} {at:?} {answer}");
            }
        }
        until(async || port.left() == 6).await;
        assert!(port.seen.lock().unwrap().early.values().all(Vec::is_empty));
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_an_upgrade_is_not_waited_for_for_ever() {
    let world = world_with(|config| config.proxy.silence = Duration::from_millis(50), |_| {}).await;
    let home = Home::of(&world).await;
    tunnel(&world).await;
    let port = Port::open(home, |_| Vec::new());
    assert_eq!(open(&world, By::H1, At::Name, PATH, &[]).await.0, 504);
    until(async || port.left() == 1).await;
}

#[tokio::test]
async fn a_withdrawn_right_and_a_lost_tunnel_end_a_websocket() {
    let (world, port) = world_of(grants).await;
    let mut sockets = Vec::new();
    for by in ALL {
        let ticket = world.ticket();
        let mut socket = open_as(&world, by, At::Name, PATH, &ticket, BEARER, &[]).await.1.unwrap();
        assert_eq!(socket.hear(5).await.unwrap(), b"hello");
        let before = port.left();
        let begun = Instant::now();
        world.hub.revoke(Selector::Sid(ticket.sid));
        let cut = socket.hear(1).await;
        assert!(begun.elapsed() < Duration::from_secs(2), "{by:?}: {:?}", begun.elapsed());
        assert!(cut.is_err() || cut.unwrap().is_empty(), "{by:?}");
        until(async || port.left() == before + 1).await;
        sockets.push(open(&world, by, At::Name, PATH, &[]).await.1.unwrap());
    }
    for socket in &mut sockets {
        assert_eq!(socket.hear(5).await.unwrap(), b"hello");
    }
    port.cut().await;
    for socket in &mut sockets {
        assert_eq!(socket.hear(1).await.unwrap_or_default(), b"");
    }
}
