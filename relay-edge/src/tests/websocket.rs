//! Tunnels over WebSocket: the same life by another door.

use std::time::Duration;

use phlix_protocol::ids::InstanceId;
use phlix_protocol::native::close;
use phlix_protocol::native::control::{Message, RefusedCode, Report};
use phlix_protocol::uplink::Selector;
use tokio::net::TcpStream;

use super::agent::{Agent, By, Introduction, Serve, control, dial_websocket, upgrade};
use super::world::{NAME, World, bare, until};
use crate::{Config, random};

fn introduction(world: &World, by: By) -> Introduction {
    Introduction { by, ..world.introduction() }
}

async fn opened(world: &World) -> Agent {
    let serve = Serve::Origin(world.origin.address);
    world.introduce(introduction(world, By::WebSocket), serve).await.unwrap()
}

#[tokio::test]
async fn a_viewer_is_answered_through_it() {
    let world = World::start().await;
    let agent = opened(&world).await;
    for _ in 0..3 {
        assert_eq!(world.h1(NAME).await.fetch(bare(world.get("/hello"))).await.status, 200);
        assert_eq!(world.h2(NAME).await.fetch(bare(world.get("/hello"))).await.status, 200);
    }
    assert!(!agent.headers().is_empty());
    let ready = http::Request::builder().uri("/metrics").header("host", "x");
    let metrics = super::viewer::Viewer::plain(world.at.metrics.unwrap()).await.fetch(bare(ready)).await;
    let page = String::from_utf8(metrics.body.to_vec()).unwrap();
    assert!(page.contains("phlix_edge_tunnels_open{transport=\"websocket\"} 1"), "{page}");
}

#[tokio::test]
async fn its_end_is_told_by_code() {
    let world = World::start().await;
    let instance = InstanceId::new(random::uuid());
    let of = |by| {
        let mut introduction = introduction(&world, by);
        introduction.hello.instance = instance;
        introduction
    };
    let first = world.introduce(of(By::WebSocket), Serve::Status(1)).await.unwrap();
    // A tunnel of either transport takes over from one of the other.
    let second = world.introduce(of(By::Quic), Serve::Status(1)).await.unwrap();
    assert_eq!(first.closed().await, Some(close::REPLACED));
    let third = world.introduce(of(By::WebSocket), Serve::Status(1)).await.unwrap();
    assert_eq!(second.closed().await, Some(close::REPLACED));
    world.hub.revoke(Selector::Server(world.server));
    assert_eq!(third.closed().await, Some(close::REVOKED));
    let refused = world.introduce(of(By::WebSocket), Serve::Status(1)).await.err();
    assert_eq!(refused, Some(Some(RefusedCode::Unauthorized)));
}

#[tokio::test]
async fn an_edge_that_goes_away_drains_it() {
    let world = World::start().await;
    let mut agent = opened(&world).await;
    let told = async {
        loop {
            match agent.hear().await {
                Some(Message::Drain(_)) => return agent.closed().await,
                Some(_) => {}
                None => panic!("it is told to go before it is closed"),
            }
        }
    };
    let ((), code) = tokio::join!(world.edge.shutdown(), told);
    assert_eq!(code, Some(close::DRAINED));
}

#[tokio::test]
async fn a_proof_that_is_bound_to_nothing_is_none_over_our_own_tls() {
    let world = World::start().await;
    let unbound = Introduction { unbound: true, ..introduction(&world, By::WebSocket) };
    let refused = world.introduce(unbound, Serve::Status(1)).await.err();
    assert_eq!(refused, Some(Some(RefusedCode::Unauthorized)));
}

fn behind_proxy(config: &mut Config) {
    config.behind_proxy = true;
    config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
}

#[tokio::test]
async fn behind_a_proxy_an_agent_comes_by_the_plain_port() {
    let world = World::with(behind_proxy).await;
    let agent = world.introduce(introduction(&world, By::Proxy), Serve::Status(1)).await.unwrap();
    assert_eq!(agent.welcome.edge_id, world.edge_id);
    // What comes without a word of TLS comes without TLS.
    let bare = TcpStream::connect(world.at.http.unwrap()).await.unwrap();
    assert_eq!(upgrade(bare, "hub.localhost", &[], None).await.err(), Some(403));
}

#[tokio::test]
async fn the_plain_port_takes_no_agent_where_no_proxy_is_known() {
    for change in [
        (|config: &mut Config| config.behind_proxy = true) as fn(&mut Config),
        |config| config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()],
        |_| {},
    ] {
        let world = World::with(change).await;
        let stream = TcpStream::connect(world.at.http.unwrap()).await.unwrap();
        let fields = [("X-Forwarded-Proto", "https")];
        assert_eq!(upgrade(stream, "hub.localhost", &fields, None).await.err(), Some(403));
    }
}

#[tokio::test]
async fn strangers_are_counted_with_those_of_quic() {
    let world = World::with(|config| config.limits.unproven_per_address = 2).await;
    let one = dial_websocket(world.at.tls, &world.trust, "hub.localhost").await.unwrap();
    let _two = dial_websocket(world.at.tls, &world.trust, "hub.localhost").await.unwrap();
    assert_eq!(dial_websocket(world.at.tls, &world.trust, "hub.localhost").await.err(), Some(503));
    assert!(super::agent::dial(world.udp(), &world.trust, &[phlix_protocol::native::ALPN]).await.is_err());
    one.close(0, "");
    until(async || dial_websocket(world.at.tls, &world.trust, "hub.localhost").await.is_ok()).await;
}

#[tokio::test]
async fn silence_instead_of_hello_ends_by_the_clock() {
    let world = World::with(|config| config.timeouts.hello = Duration::from_millis(50)).await;
    let link = dial_websocket(world.at.tls, &world.trust, "hub.localhost").await.unwrap();
    assert_eq!(link.closed().await.code(), Some(close::HANDSHAKE_TIMEOUT));
}

#[tokio::test]
async fn nonsense_and_floods_on_the_control_channel_close_it() {
    let world = World::start().await;
    let link = dial_websocket(world.at.tls, &world.trust, "hub.localhost").await.unwrap();
    let mut control = control(&link).await;
    control.send.write_all(&[0xff; 64]).await.unwrap();
    assert_eq!(link.closed().await.code(), Some(close::PROTOCOL));

    let mut agent = opened(&world).await;
    let report = phlix_protocol::native::control::encode(&Message::Report(Report::default()));
    agent.say_raw(&report.repeat(500)).await;
    assert_eq!(agent.closed().await, Some(close::PROTOCOL));
}

#[tokio::test]
async fn only_the_edges_own_names_have_the_door() {
    let world = World::start().await;
    // At a server's name the path is the server's, and this viewer has no right to it.
    let answer = dial_websocket(world.at.tls, &world.trust, NAME).await.err();
    assert!(matches!(answer, Some(400..=499)), "{answer:?}");
}
