//! Raw clients at port 8803, each written by hand like the servers.

use std::time::{Duration, Instant};

use phlix_protocol::ids::{ServerId, ShareId, TokenId};
use phlix_protocol::token::{Libraries, Scope, ViewerTicket};
use phlix_protocol::uplink::{EdgeRole, Selector};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::home::{CONNECT, DATA, DISCONNECT, DISCONNECTED, ERROR, Heard, Home, Relay, code, enrollment};
use super::port::Port;
use super::{get, tunnel};
use crate::config::Config;
use crate::tests::world::{World, until};
use crate::{clock, random};

const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// What `Port` answers with: the first word of the request's target, then echoes.
fn greets(_: &str) -> Vec<u8> {
    b"welcome".to_vec()
}

fn ticket(world: &World) -> ViewerTicket {
    ViewerTicket { host: None, edge: Some(world.edge_id), scope: Scope::Tunnel, ..world.ticket() }
}

/// A world with a server's tunnel and a good relay token of its owner.
async fn world_with(
    change: impl FnOnce(&mut Config),
    right: impl FnOnce(&mut ViewerTicket),
) -> (World, Port, ViewerTicket) {
    let world = World::with(change).await;
    let mut ticket = ticket(&world);
    right(&mut ticket);
    world.hub.relay_token(TOKEN, &ticket);
    let home = Home::of(&world).await;
    tunnel(&world).await;
    (world, Port::open(home, greets), ticket)
}

async fn world() -> (World, Port, ViewerTicket) {
    world_with(|_| {}, |_| {}).await
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

async fn connect(world: &World, server: ServerId, fields: &str) -> (Home, String) {
    Home::client(world.at.relay_client.unwrap(), &format!("/client/{server}"), fields).await
}

/// A mounted client that was greeted, and its channel.
async fn mounted(world: &World) -> (Home, u32) {
    let (mut client, _) = connect(world, world.server, &bearer(TOKEN)).await;
    client.relay(77, DATA, b"GET / HTTP/1.1\r\n\r\n").await;
    let greeting = client.hear_relay().await;
    assert_eq!((greeting.kind, &greeting.payload[..]), (DATA, &b"welcome"[..]));
    (client, greeting.id)
}

/// The close code that is all that comes.
async fn refusal(world: &World, server: ServerId, fields: &str) -> u16 {
    let heard = connect(world, server, fields).await.0.rest().await;
    let [Heard::Close(code)] = &heard[..] else { panic!("{heard:?}") };
    u16::from_be_bytes(code[..].try_into().unwrap())
}

#[tokio::test]
async fn a_token_in_a_field_or_a_subprotocol_opens_a_channel() {
    let (world, port, _) = world().await;
    for (fields, agreed) in [(bearer(TOKEN), false), (format!("Sec-WebSocket-Protocol: bearer, {TOKEN}\r\n"), true)] {
        let (mut client, head) = connect(&world, world.server, &fields).await;
        assert_eq!(head.contains("\r\nSec-WebSocket-Protocol: bearer\r\n"), agreed, "{head}");
        assert!(!head.contains(TOKEN), "{head}");
        client.relay(77, DATA, b"GET / HTTP/1.1\r\n").await;
        client.relay(0, DATA, b"\r\n").await;
        let greeting = client.hear_relay().await;
        assert_eq!((greeting.kind, &greeting.payload[..]), (DATA, &b"welcome"[..]));
        let channel = greeting.id;
        // Whatever is no DATA is told so, and does no harm.
        client.relay(channel, 0x10, b"{}").await;
        let error = br#"{"error":"Unexpected frame type"}"#.to_vec();
        assert_eq!(client.hear_relay().await, Relay { id: 0, kind: ERROR, payload: error });
        let large: Vec<u8> = (0..300_000_u32).map(|number| number.to_le_bytes()[1]).collect();
        for piece in large.chunks(65_535) {
            client.relay(5, DATA, piece).await;
        }
        let mut back = Vec::new();
        while back.len() < large.len() {
            let frame = client.hear_relay().await;
            assert_eq!((frame.id, frame.kind), (channel, DATA));
            back.extend(frame.payload);
        }
        assert!(back == large);
        let told = port.seen.lock().unwrap().connected[&channel].clone();
        assert_eq!(told["session_id"], "");
        assert!(told["client_id"].as_str().unwrap().parse::<uuid::Uuid>().is_ok(), "{told}");
        let before = port.left();
        drop(client);
        until(async || port.left() == before + 1).await;
    }
    assert_eq!(world.edge.tunnels.legacy.all().len(), 1);
}

#[tokio::test]
async fn each_refusal_has_its_close_code_behind_the_101() {
    let (world, _port, good) = world_with(|config| config.legacy.mounts = 100, |_| {}).await;
    let server = world.server;
    let with = |change: fn(&mut ViewerTicket)| {
        let mut ticket = good.clone();
        change(&mut ticket);
        let token = format!("{:064x}", u128::from_be_bytes(random::bytes()));
        world.hub.relay_token(&token, &ticket);
        bearer(&token)
    };
    for (what, server, fields, code) in [
        ("no token", server, String::new(), 4401),
        ("no token's shape", server, bearer("x"), 4401),
        ("an unknown one", server, bearer(&TOKEN.replace('0', "1")), 4401),
        ("a subprotocol alone", server, "Sec-WebSocket-Protocol: bearer\r\n".into(), 4401),
        ("another scheme", server, format!("Authorization: Basic {TOKEN}\r\n"), 4401),
        ("a share of some libraries", server, with(|it| it.libs = Libraries::Only(vec!["1".into()])), 4401),
        ("a share", server, with(|it| it.share_id = Some(ShareId::new(random::uuid()))), 4401),
        // What the control plane says is not understood: nothing is known of the token.
        ("a ticket of another kind", server, with(|it| it.scope = Scope::Proxy), 1013),
        ("another server", ServerId::new(random::uuid()), bearer(TOKEN), 1013),
    ] {
        assert_eq!(refusal(&world, server, &fields).await, code, "{what}");
    }
    let elsewhere = ServerId::new(random::uuid());
    let token = "f".repeat(64);
    world.hub.relay_token(&token, &ViewerTicket { server_id: elsewhere, ..good.clone() });
    assert_eq!(refusal(&world, elsewhere, &bearer(&token)).await, 1011, "no tunnel");
    world.hub.set_down(true);
    assert_eq!(refusal(&world, server, &bearer(&"e".repeat(64))).await, 1013, "the hub can't tell");
    for (target, status) in [("/", "404"), ("/client", "404"), ("/client/a/b", "404"), ("/tunnel", "404")] {
        let mut stream = TcpStream::connect(world.at.relay_client.unwrap()).await.unwrap();
        stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {answer}");
    }
    let segment = world.at.relay_client.unwrap();
    let (mut client, _) = Home::client(segment, "/client/no-server", &bearer(TOKEN)).await;
    assert_eq!(client.rest().await, [Heard::Close(code(4401))]);
}

#[tokio::test]
async fn an_address_that_comes_too_often_is_turned_away_before_its_token_is_looked_at() {
    let (world, _port, _) = world_with(|config| config.legacy.mounts = 3, |_| {}).await;
    let _mounted = mounted(&world).await;
    for _ in 0..2 {
        assert_eq!(refusal(&world, world.server, "").await, 4401);
    }
    let asked = world.hub.asked();
    assert_eq!(refusal(&world, world.server, &bearer(&"d".repeat(64))).await, 1013);
    assert_eq!(world.hub.asked(), asked);
}

#[tokio::test]
async fn a_withdrawn_token_cuts_its_channels_within_2_s() {
    let (world, port, ticket) = world().await;
    let (mut client, _) = mounted(&world).await;
    let (mut other, _) = mounted(&world).await;
    world.hub.revoke(Selector::Jti(TokenId::new(random::uuid())));
    world.hub.revoke(Selector::Jti(ticket.jti));
    let begun = Instant::now();
    for client in [&mut client, &mut other] {
        assert_eq!(client.rest().await, [Heard::Close(code(4401))]);
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    until(async || port.left() == 2).await;
}

#[tokio::test]
async fn a_token_that_ends_ends_its_channel() {
    let (world, port, _) = world_with(|_| {}, |ticket| ticket.exp = clock::unix_now() + 2).await;
    let (mut client, _) = mounted(&world).await;
    assert_eq!(client.rest().await, [Heard::Close(code(4401))]);
    until(async || port.left() == 1).await;
}

#[tokio::test]
async fn a_tunnel_that_goes_is_told_with_its_reason() {
    for (reason, replaced) in [("server_closed", false), ("server_replaced", true)] {
        let (world, port, _) = world_with(|config| config.legacy.drain_grace = Duration::ZERO, |_| {}).await;
        let (mut client, _) = mounted(&world).await;
        let _next = if replaced {
            Some(Home::of(&world).await)
        } else {
            port.cut().await;
            None
        };
        let told = client.hear_relay().await;
        assert_eq!((told.id, told.kind), (0, DISCONNECTED));
        assert_eq!(String::from_utf8(told.payload).unwrap(), format!(r#"{{"reason":"{reason}"}}"#));
        assert_eq!(client.rest().await, [Heard::Close(code(1011))], "{reason}");
    }
}

#[tokio::test]
async fn who_can_not_be_understood_is_out() {
    let (world, port, _) = world().await;
    let (mut client, _) = mounted(&world).await;
    client.relay(1, 0x13, b"").await;
    assert_eq!(client.rest().await, [Heard::Close(code(1002))]);
    until(async || port.left() == 1).await;
    let (mut client, _) = mounted(&world).await;
    client.say_raw(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]).await;
    assert_eq!(client.rest().await, [Heard::Close(code(1001))], "a good-bye is returned");
    until(async || port.left() == 2).await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_costs_its_own_channel_alone() {
    let world = World::with(|config| config.legacy.pause = Duration::from_millis(100)).await;
    world.hub.relay_token(TOKEN, &ticket(&world));
    let mut home = Home::of(&world).await;
    let tunnel = tunnel(&world).await;
    let mut ids = Vec::new();
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(connect(&world, world.server, &bearer(TOKEN)).await.0);
        let begun = home.hear_relay().await;
        assert_eq!(begun.kind, CONNECT);
        ids.push(begun.id);
    }
    let slow = clients.pop();
    let mut fast = clients.remove(0);
    // More than sockets hold.
    let flood = tokio::spawn(async move {
        for _ in 0..800 {
            home.relay(ids[1], DATA, &[7; 65_535]).await;
        }
        home.relay(ids[0], DATA, b"still here").await;
        (home, ids)
    });
    let heard = fast.hear_relay().await;
    assert!(heard.payload == b"still here", "{} bytes on {}", heard.payload.len(), heard.id);
    let (mut home, ids) = flood.await.unwrap();
    let left = loop {
        let frame = home.hear_relay().await;
        if frame.kind == DISCONNECT {
            break frame.id;
        }
    };
    assert_eq!(left, ids[1]);
    // And requests go on.
    let (answer, ()) = tokio::join!(get(&tunnel, "/hls/a"), async {
        let (id, _) = home.asked().await;
        home.head(id, 200, "{}").await;
        home.end(id).await;
    });
    assert_eq!(answer.unwrap().status(), 200);
    drop(slow);
}

#[tokio::test]
async fn what_comes_is_paced_at_the_tickets_rate() {
    // 100 KB/s, of which two seconds' worth may come at once.
    let (world, _port, _) = world_with(|_| {}, |ticket| ticket.rate = 800_000).await;
    let (mut client, _) = mounted(&world).await;
    let begun = Instant::now();
    for _ in 0..5 {
        client.relay(0, DATA, &[7; 50_000]).await;
    }
    let mut came = 0;
    while came < 250_000 {
        came += client.hear_relay().await.payload.len();
    }
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(200), "{took:?}");
}

#[tokio::test]
async fn an_outer_edge_has_no_port_for_raw_clients() {
    let world = World::with(|config| config.role = EdgeRole::Outer).await;
    assert_eq!(world.at.relay_client, None);
}

#[tokio::test]
async fn tls_and_plain_share_the_port_unless_plain_is_off() {
    let world = World::with(|config| config.legacy.tls_only = true).await;
    world.hub.relay_token(TOKEN, &ticket(&world));
    let mut home = Home::dial_tls(world.at.relay_server.unwrap(), &world.trust).await;
    home.introduce(&world.hub, &enrollment(&world.hub, world.server)).await;
    tunnel(&world).await;
    let _port = Port::open(home, greets);
    let at = world.at.relay_client.unwrap();
    let mut plain = TcpStream::connect(at).await.unwrap();
    plain.write_all(b"GET /client/x HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    let (mut client, _) =
        Home::client_tls(at, &world.trust, &format!("/client/{}", world.server), &bearer(TOKEN)).await;
    client.relay(0, DATA, b"\r\n\r\n").await;
    assert_eq!(client.hear_relay().await.payload, b"welcome");
}
