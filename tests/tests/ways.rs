//! Ways to the edge that are not straight: an agent behind an HTTP proxy, an edge behind nginx that
//! terminates TLS, viewers and agents over IPv6.

#![allow(clippy::unwrap_used)]

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::Method;
use phlix_tests::agent::Agent;
use phlix_tests::aioquic::Aioquic;
use phlix_tests::database::Database;
use phlix_tests::hub::Hub;
use phlix_tests::origin::home::{Home, sha256_of_bytes};
use phlix_tests::origin::nginx::{Nginx, free_port};
use phlix_tests::proxy::Proxy;
use phlix_tests::viewer::{self, Client, Door, Protocol, full};
use phlix_tests::{Engine, World, hash, story};
use tokio_tungstenite::tungstenite::Message;

const TICKET: &str = "x-phlix-ticket";
const SIZE: u64 = 8 << 20;

#[test]
fn an_agent_comes_through_a_plain_http_proxy() {
    story(async {
        let home = Home::start();
        let hub = Hub::start(Database::fresh(Engine::Sqlite), &[]).await;
        let proxy = Proxy::start(hub.ready().tls);
        let agent = Agent::start_in(
            &hub.ready().public_url,
            &home.url(),
            &["--transport", "websocket"],
            &[("HTTPS_PROXY", &proxy.url())],
        );
        let mut world = World::of(hub, agent).await;
        world.hub.logged("tunnel opened over websocket").await;
        let asked = proxy.asked();
        let port = world.hub.ready().tls.port().to_string();
        assert!(asked.iter().any(|authority| authority.ends_with(&port)), "the tunnel went past the proxy: {asked:?}");
        let door = Door::of(&world.hub, &world.server.host);
        for protocol in [Protocol::H1, Protocol::H2] {
            transfers(&door, protocol, &world.ticket().await).await;
            converses(&door, protocol, &world.ticket().await).await;
        }
        transfers(&door, Protocol::H3, &world.ticket().await).await;
    });
}

#[test]
fn agents_and_viewers_come_through_nginx_that_terminates_tls() {
    story(async {
        let home = Home::start();
        // The edge must know nginx's port before nginx knows the edge's; somebody may take it meanwhile.
        let mut found = None;
        for _ in 0..5 {
            let port = free_port();
            let settings = [
                ("HUB_NAMES_PORT", port.to_string()),
                ("HUB_BEHIND_PROXY", "on".to_owned()),
                ("TRUSTED_PROXIES", "127.0.0.1".to_owned()),
            ];
            let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let hub = Hub::start(Database::fresh(Engine::Sqlite), &settings).await;
            if let Some(nginx) = Nginx::before(&hub, port).await {
                found = Some((hub, nginx, port));
                break;
            }
        }
        let (hub, _nginx, port) = found.expect("nginx starts");
        let ca = hub.ready().ca_file.display().to_string();
        let mut world = World::with_agent(hub, &home.url(), &["--ca-file", &ca]).await;
        world.hub.logged("tunnel opened over websocket").await;
        assert!(world.server.url.ends_with(&format!(":{port}")), "{}", world.server.url);
        let ticket = world.ticket().await;
        let door = Door {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            host: world.server.host.clone(),
            roots: world.hub.roots(),
        };
        for protocol in [Protocol::H1, Protocol::H2] {
            transfers(&door, protocol, &ticket).await;
        }
        // nginx has no Extended CONNECT.
        converses(&door, Protocol::H1, &ticket).await;
        let mut viewer = Client::at(&door, Protocol::H1).await;
        let seen = viewer::json(viewer.get("/echo", &[(TICKET, &ticket), ("x-forwarded-for", "6.6.6.6")]).await).await;
        let told = |name: &str| {
            let headers = seen["headers"].as_array().unwrap();
            headers.iter().find(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap().to_owned())
        };
        assert_eq!(told("x-forwarded-for").as_deref(), Some("127.0.0.1"), "{seen}");
        assert_eq!(told("x-forwarded-proto").as_deref(), Some("https"), "{seen}");
    });
}

#[test]
fn viewers_and_agents_come_over_ipv6() {
    story(async {
        if std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
            panic!("this machine has no ::1");
        }
        let home = Home::start();
        for transport in ["quic", "websocket"] {
            let settings = [("HUB_HOST", "::"), ("HUB_ADDRESSES", "::1")];
            let hub = Hub::start(Database::fresh(Engine::Sqlite), &settings).await;
            let mut world = World::with_agent(hub, &home.url(), &["--transport", transport]).await;
            world.hub.logged(&format!("tunnel opened over {transport}")).await;
            let ticket = world.ticket().await;
            let door = Door::of(&world.hub, &world.server.host).at(Ipv6Addr::LOCALHOST);
            for protocol in Protocol::ALL {
                transfers(&door, protocol, &ticket).await;
            }
            let got = Aioquic::at(&door, &world.hub).header(TICKET, &ticket).run("get", "/bytes/100000").await;
            assert_eq!(got["sha256"], sha256_of_bytes(100_000), "{got}");
            // And by IPv4 at the same port.
            let door = Door::of(&world.hub, &world.server.host);
            for protocol in Protocol::ALL {
                transfers(&door, protocol, &ticket).await;
            }
        }
    });
}

/// A download and an upload.
async fn transfers(door: &Door, protocol: Protocol, ticket: &str) {
    let mut viewer = Client::at(door, protocol).await;
    let answer = viewer.get(&format!("/bytes/{SIZE}"), &[(TICKET, ticket)]).await;
    assert_eq!(answer.status(), 200, "{protocol:?}");
    assert_eq!(hash::of(viewer::read(answer).await.unwrap()), sha256_of_bytes(SIZE), "{protocol:?}");
    let body = vec![0x5a; 3_000_000];
    let expected = hash::of(&body);
    let request = viewer.request(Method::POST, "/upload").header(TICKET, ticket).body(full(body)).unwrap();
    let told = viewer::json(viewer.send(request).await.unwrap()).await;
    assert_eq!(told["sha256"], expected, "{protocol:?}");
}

/// A WebSocket.
async fn converses(door: &Door, protocol: Protocol, ticket: &str) {
    let opened = viewer::socket(door, protocol, "/socket", &[(TICKET, ticket)]).await;
    let mut socket = opened.unwrap_or_else(|refused| panic!("{protocol:?}: refused: {}", refused.status()));
    let message = Message::text("through all of them");
    socket.send(message.clone()).await.unwrap();
    let back = tokio::time::timeout(Duration::from_secs(10), socket.next()).await.unwrap();
    assert!(back.unwrap().unwrap() == message, "{protocol:?}");
}
