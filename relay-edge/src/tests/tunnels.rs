//! Tunnels: whom the edge lets in, and when it lets go.

use phlix_link::Link;
use phlix_protocol::ids::{InstanceId, ServerId, TunnelId};
use phlix_protocol::keys::SigningKey;
use phlix_protocol::native::close;
pub(super) use phlix_protocol::native::control::Message;
use phlix_protocol::native::control::{Bye, MAX_HELLO, Proof, RefusedCode, Ticket};
use phlix_protocol::token::{self, Access, TunnelTicket};
use phlix_protocol::uplink::{Change, EdgeStatus, Generation, Selector};

use super::agent::{Introduction, Serve, control, dial};
use super::world::{NAME, OPEN, World, bare, until};
use crate::random;

async fn refused(world: &World, introduction: Introduction) -> Option<RefusedCode> {
    world.introduce(introduction, Serve::Status(1)).await.err().expect("refused")
}

fn with_ticket(world: &World, change: impl FnOnce(&mut TunnelTicket)) -> Introduction {
    let mut ticket = world.hub.tunnel_ticket(world.server, &world.server_key, &[]);
    change(&mut ticket);
    let mut introduction = Introduction::new(&world.hub, &ticket, &world.server_key);
    introduction.hello.server_id = world.server;
    introduction
}

#[tokio::test]
async fn a_tunnel_is_welcomed_with_the_names_of_its_ticket_and_its_presence_is_reported() {
    let world = World::start().await;
    let mut agent = world.tunnel().await;
    assert_eq!(agent.welcome.names.len(), 2);
    assert_eq!(agent.welcome.edge_id, world.edge_id);
    let statement = agent.statement(world.server, agent.welcome.tunnel_id);
    agent.say(&statement).await;
    let tunnel = agent.welcome.tunnel_id;
    until(async || {
        let reports = world.hub.presence();
        let mut opened = reports.iter().flat_map(|report| &report.opened);
        opened.any(|opened| opened.tunnel_id == tunnel && opened.statement.is_some())
    })
    .await;
    agent.say(&Message::Bye(Bye { reason: "done".into() })).await;
    until(async || world.hub.presence().iter().any(|report| report.closed.contains(&tunnel))).await;
}

#[tokio::test]
async fn a_presence_of_another_tunnel_closes_this_one() {
    let world = World::start().await;
    let mut agent = world.tunnel().await;
    let statement = agent.statement(world.server, TunnelId::new(random::uuid()));
    agent.say(&statement).await;
    assert_eq!(agent.closed().await, Some(close::PROTOCOL));
    assert!(world.hub.presence().iter().all(|report| report.opened.is_empty()));
}

#[tokio::test]
async fn only_the_servers_own_key_opens_its_tunnel() {
    let world = World::start().await;
    let unauthorized = Some(RefusedCode::Unauthorized);

    let spoilt = Introduction { spoil: true, ..world.introduction() };
    assert_eq!(refused(&world, spoilt).await, unauthorized);
    let stolen = Introduction { key: SigningKey::from_seed(&random::bytes()), ..world.introduction() };
    assert_eq!(refused(&world, stolen).await, unauthorized);
    let mut other = world.introduction();
    other.hello.server_id = ServerId::new(random::uuid());
    assert_eq!(refused(&world, other).await, unauthorized);
}

#[tokio::test]
async fn only_the_hubs_own_ticket_opens_a_tunnel() {
    let world = World::start().await;
    let unauthorized = Some(RefusedCode::Unauthorized);
    assert_eq!(refused(&world, with_ticket(&world, |ticket| ticket.aud = "server".into())).await, unauthorized);
    assert_eq!(refused(&world, with_ticket(&world, |ticket| ticket.iss = "evil".into())).await, unauthorized);
    assert_eq!(
        refused(&world, with_ticket(&world, |ticket| ticket.sub = ServerId::new(random::uuid()))).await,
        unauthorized
    );
    assert_eq!(
        refused(&world, with_ticket(&world, |ticket| ticket.exp = ticket.iat - 60)).await,
        Some(RefusedCode::Expired)
    );
    assert_eq!(refused(&world, with_ticket(&world, |ticket| ticket.iat += 3600)).await, unauthorized);

    // Another hub's key, a viewer's ticket, no ticket.
    let stranger = SigningKey::from_seed(&random::bytes());
    let ticket = world.hub.tunnel_ticket(world.server, &world.server_key, &[]);
    for text in [token::sign(&ticket, &stranger), world.hub.sign(&world.ticket()), "a.b.c".into(), String::new()] {
        let mut introduction = world.introduction();
        introduction.hello.ticket = text;
        assert_eq!(refused(&world, introduction).await, unauthorized);
    }
}

#[tokio::test]
async fn an_agent_that_means_another_edge_or_version_is_told() {
    let world = World::start().await;
    let mut introduction = world.introduction();
    introduction.hello.edge = "other.example".into();
    assert_eq!(refused(&world, introduction).await, Some(RefusedCode::WrongEdge));
    let mut introduction = world.introduction();
    introduction.hello.versions = vec![2, 3];
    assert_eq!(refused(&world, introduction).await, Some(RefusedCode::Version));
    let mut introduction = world.introduction();
    introduction.hello.index = 2;
    assert_eq!(refused(&world, introduction).await, Some(RefusedCode::OverLimit));
}

#[tokio::test]
async fn an_edge_that_is_not_admitted_serves_no_tunnel() {
    let world = World::admitted(EdgeStatus::Pending, |_| {}).await;
    assert_eq!(refused(&world, world.introduction()).await, Some(RefusedCode::Internal));
    world.hub.set_status(EdgeStatus::Approved);
    until(async || world.introduce(world.introduction(), Serve::Status(1)).await.is_ok()).await;
}

#[tokio::test]
async fn a_newer_tunnel_takes_over_and_a_third_installation_is_refused() {
    let world = World::start().await;
    let instance = InstanceId::new(random::uuid());
    let of = |instance, index| {
        let mut introduction = world.introduction();
        introduction.hello.instance = instance;
        introduction.hello.index = index;
        introduction
    };
    let serve = Serve::Origin(world.origin.address);
    let first = world.introduce(of(instance, 0), serve).await.unwrap();
    let beside = world.introduce(of(instance, 1), serve).await.unwrap();
    let newer = world.introduce(of(instance, 0), serve).await.unwrap();
    assert_eq!(first.closed().await, Some(close::REPLACED));

    let other = world.introduce(of(InstanceId::new(random::uuid()), 0), serve).await.unwrap();
    let third = world.introduce(of(InstanceId::new(random::uuid()), 0), serve).await;
    assert_eq!(third.err(), Some(Some(RefusedCode::OverLimit)));
    for agent in [&beside, &newer, &other] {
        assert_eq!(agent.link.close_reason(), None);
    }
    // The newest one gets what comes.
    assert_eq!(world.h1(NAME).await.fetch(bare(world.get("/hello"))).await.status, 200);
    assert_eq!((newer.headers().len(), other.headers().len()), (0, 1));
}

#[tokio::test]
async fn a_flood_before_welcome_is_not_read() {
    let world = World::start().await;
    let over_long = u32::try_from(MAX_HELLO + 1).unwrap().to_be_bytes().to_vec();
    let nonsense = [&20_u32.to_be_bytes()[..], b"{\"type\":\"hello\",    }"].concat();
    let early = phlix_protocol::native::control::encode(&Message::Proof(Proof { signature: "x".into() }));
    for says in [over_long, nonsense, early] {
        let (endpoint, connection) = dial(world.udp(), &world.trust, &[phlix_protocol::native::ALPN]).await.unwrap();
        let mut control = control(&Link::quic_dialled(endpoint, connection.clone(), 1 << 20)).await;
        control.send.write_all(&says).await.unwrap();
        match connection.closed().await {
            quinn::ConnectionError::ApplicationClosed(closed) => assert_eq!(closed.error_code, close::PROTOCOL.into()),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn silence_instead_of_hello_ends_by_the_clock() {
    let world = World::with(|config| config.timeouts.hello = std::time::Duration::from_millis(50)).await;
    let (_endpoint, connection) = dial(world.udp(), &world.trust, &[phlix_protocol::native::ALPN]).await.unwrap();
    match connection.closed().await {
        quinn::ConnectionError::ApplicationClosed(closed) => {
            assert_eq!(closed.error_code, close::HANDSHAKE_TIMEOUT.into())
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_flood_after_welcome_closes_the_tunnel() {
    let world = World::start().await;
    let mut agent = world.tunnel().await;
    let report = Message::Report(phlix_protocol::native::control::Report::default());
    let wire = phlix_protocol::native::control::encode(&report).repeat(500);
    agent.say_raw(&wire).await;
    assert_eq!(agent.closed().await, Some(close::PROTOCOL));
}

#[tokio::test]
async fn foreign_protocols_are_refused_and_do_no_harm() {
    let world = World::start().await;
    for alpn in [&[&b"nope"[..]][..], &[]] {
        assert!(dial(world.udp(), &world.trust, alpn).await.is_err());
    }
    // No QUIC at all.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for packet in [&[0xff; 1200][..], &[0x40; 1200], &[0xc0, 0, 0, 0, 1, 8], &[0; 1]] {
        socket.send_to(packet, world.udp()).unwrap();
    }
    assert_eq!(world.tunnel().await.welcome.version, 1);
}

#[tokio::test]
async fn unproven_connections_of_one_address_are_bounded() {
    let world = World::with(|config| config.limits.unproven_per_address = 2).await;
    let alpn = [phlix_protocol::native::ALPN];
    let one = dial(world.udp(), &world.trust, &alpn).await.unwrap();
    let _two = dial(world.udp(), &world.trust, &alpn).await.unwrap();
    assert!(dial(world.udp(), &world.trust, &alpn).await.is_err());
    one.1.close(0_u32.into(), b"");
    until(async || dial(world.udp(), &world.trust, &alpn).await.is_ok()).await;
}

#[tokio::test]
async fn addresses_are_confirmed_when_many_knock() {
    let world = World::with(|config| config.limits.unproven_before_retry = 0).await;
    assert_eq!(world.tunnel().await.welcome.version, 1);
}

#[tokio::test]
async fn a_withdrawn_server_or_generation_loses_its_tunnel_at_once() {
    let world = World::start().await;
    let agent = world.tunnel().await;
    world.hub.announce(Change::Generation { generation: Generation { server_id: world.server, least: 2 } });
    assert_eq!(agent.closed().await, Some(close::REVOKED));
    assert_eq!(refused(&world, world.introduction()).await, Some(RefusedCode::Unauthorized));

    let world = World::start().await;
    let agent = world.tunnel().await;
    world.hub.revoke(Selector::Server(world.server));
    assert_eq!(agent.closed().await, Some(close::REVOKED));
    assert_eq!(refused(&world, world.introduction()).await, Some(RefusedCode::Unauthorized));
}

#[tokio::test]
async fn a_changed_name_is_told_and_counts_once_the_agent_brings_its_ticket() {
    let world = World::start().await;
    let mut agent = world.tunnel().await;
    let mut viewer = world.h1(NAME).await;
    let anonymous = || bare(http::Request::builder().uri("/hello").header("host", NAME));
    assert_eq!(viewer.fetch(anonymous()).await.status, 401);

    world.hub.route(NAME, world.server, Access::Open);
    match agent.hear().await {
        Some(Message::Update(update)) => assert_eq!(update.names.unwrap()[0].as_str(), NAME),
        other => panic!("{other:?}"),
    }
    // The directory alone does not open it.
    assert_eq!(viewer.fetch(anonymous()).await.status, 401);

    let ticket =
        world.hub.tunnel_ticket(world.server, &world.server_key, &[(NAME, Access::Open), (OPEN, Access::Open)]);
    let fresh = Ticket { ticket: token::sign(&ticket, &world.hub.key) };
    agent.say(&Message::Ticket(fresh)).await;
    until(async || viewer.fetch(anonymous()).await.status == 200).await;
}

#[tokio::test]
async fn another_servers_ticket_closes_the_tunnel() {
    let world = World::start().await;
    let mut agent = world.tunnel().await;
    let other = world.hub.tunnel_ticket(ServerId::new(random::uuid()), &world.server_key, &[]);
    agent.say(&Message::Ticket(Ticket { ticket: token::sign(&other, &world.hub.key) })).await;
    assert_eq!(agent.closed().await, Some(close::PROTOCOL));
}
