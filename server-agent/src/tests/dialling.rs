//! Edges that are not to be believed, tunnels that end, moving.

use std::sync::atomic::Ordering;

use phlix_protocol::ids::ServerId;
use phlix_protocol::keys::SigningKey;
use phlix_protocol::native::close;
use phlix_protocol::native::control::{Drain, Message, RefusedCode, Update};
use phlix_protocol::native::stream::StreamStatus;
use phlix_protocol::token::{self, Access, Presence};

use super::edge::{status_of, to_end};
use super::*;
use crate::random;

const NO_ORIGIN: &str = "http://127.0.0.1:9";

/// An agent whose only edge behaves so; why it has no tunnel.
async fn refused_by_agent(transport: Transport, manner: Manner) -> String {
    let hub = FakeHub::start().await;
    let edge = FakeEdge::start(manner);
    hub.bend().edges = vec![edge.entry()];
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&hub, NO_ORIGIN.parse().unwrap(), folder.path());
    config.transport = pinned(transport);
    let mut agent = Agent::start(config);
    let reason = agent.disconnected().await;
    agent.stopped().await.unwrap();
    reason
}

async fn an_edge_that_does_not_prove_itself_gets_no_proof_of_ours(transport: Transport) {
    for (manner, reason) in [
        (Manner::WrongKey, "could not prove"),
        (Manner::OtherId, "not the one that was dialled"),
        (Manner::Unbound, "not bound to the connection"),
        (Manner::Hasty, "welcome where another message was due"),
        (Manner::Mute, "no welcome within"),
        (Manner::Refusing(RefusedCode::Draining), "it refused: test"),
    ] {
        let said = refused_by_agent(transport, manner).await;
        assert!(said.contains(reason), "{manner:?}: {said}");
    }
}

#[tokio::test]
async fn an_edge_with_another_tls_key_is_not_even_greeted() {
    let hub = FakeHub::start().await;
    let edge = FakeEdge::start(Manner::Honest);
    let stranger = FakeEdge::start(Manner::Honest);
    let mut entry = edge.entry();
    entry.port = stranger.entry().port;
    hub.bend().edges = vec![entry];
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(config(&hub, NO_ORIGIN.parse().unwrap(), folder.path()));
    agent.disconnected().await;
    assert_eq!(stranger.hellos.load(Ordering::SeqCst), 0);
    agent.stopped().await.unwrap();
}

#[tokio::test]
async fn lists_and_tickets_of_a_stranger_or_for_another_server_are_not_dialled_with() {
    let hub = FakeHub::start().await;
    let edge = FakeEdge::start(Manner::Honest);
    hub.bend().edges = vec![edge.entry()];
    let good = hub.bend().signer.clone();
    hub.bend().signer = SigningKey::from_seed(&random::bytes());
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(config(&hub, NO_ORIGIN.parse().unwrap(), folder.path()));
    soon(hub.wait_for("/tunnel-ticket", 2)).await;
    {
        let mut bends = hub.bend();
        bends.signer = good;
        bends.ticket_server = Some(ServerId::new(random::uuid()));
    }
    let asked = hub.count("/tunnel-ticket");
    soon(hub.wait_for("/tunnel-ticket", asked + 2)).await;
    assert_eq!(edge.hellos.load(Ordering::SeqCst), 0);
    hub.bend().ticket_server = None;
    agent.connected().await;
    agent.stopped().await.unwrap();
}

#[tokio::test]
async fn an_edge_that_can_not_be_used_is_followed_by_the_next() {
    let hub = FakeHub::start().await;
    let bad = FakeEdge::start(Manner::WrongKey);
    let good = FakeEdge::start(Manner::Honest);
    hub.bend().edges = vec![bad.entry(), good.entry()];
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(config(&hub, NO_ORIGIN.parse().unwrap(), folder.path()));
    agent.connected().await;
    soon(good.tunnel()).await;
    agent.stopped().await.unwrap();
}

#[tokio::test]
async fn an_address_that_swallows_packets_does_not_hold_up_the_next() {
    let hub = FakeHub::start().await;
    let edge = FakeEdge::start(Manner::Honest);
    // Bound, and never answers.
    let silent = std::net::UdpSocket::bind("127.0.0.2:0").unwrap();
    let mut entry = edge.entry();
    let blocked = std::net::UdpSocket::bind(("127.0.0.2", entry.port)).unwrap();
    drop(silent);
    entry.addresses = vec!["127.0.0.2".into(), "127.0.0.1".into()];
    hub.bend().edges = vec![entry];
    let folder = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(config(&hub, NO_ORIGIN.parse().unwrap(), folder.path()));
    let began = std::time::Instant::now();
    agent.connected().await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    drop(blocked);
    agent.stopped().await.unwrap();
}

async fn a_tunnel_that_was_lost_is_opened_again_with_the_same_instance(transport: Transport) {
    let mut world = World::start(transport, NO_ORIGIN).await;
    for code in [close::BYE, close::REPLACED, close::PROTOCOL] {
        world.tunnel.close(code);
        world.agent.disconnected().await;
        let again = soon(world.edge.tunnel()).await;
        assert_eq!(again.hello.instance, world.tunnel.hello.instance);
        assert_eq!(again.hello.server_id, world.hub.server);
        world.tunnel = again;
    }
    world.agent.stopped().await.unwrap();
}

async fn presence_is_stated_for_this_very_tunnel(transport: Transport) {
    let mut world = World::start(transport, NO_ORIGIN).await;
    let statement = soon(world.tunnel.hear_until(|message| match message {
        Message::Presence(presence) => Some(presence.statement),
        _ => None,
    }))
    .await;
    let ticket: token::TunnelTicket = token::peek(&world.tunnel.hello.ticket).unwrap();
    let claims: Presence = token::verify_self(&statement, &ticket.cnf.jwk, hub::now()).unwrap();
    assert_eq!((claims.server_id, claims.edge_id), (world.hub.server, world.edge.id));
    world.agent.stopped().await.unwrap();
}

async fn a_changed_name_brings_a_fresh_ticket_and_its_access_into_force(transport: Transport) {
    let origin = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut world = World::start(transport, &format!("http://{}", origin.local_addr().unwrap())).await;
    let (_send, mut receive) = world.tunnel.open("a.hub.localhost", None).await;
    assert_eq!(soon(status_of(&mut receive)).await, StreamStatus::NotAllowed.byte());
    world.hub.bend().names[0].access = Access::Open;
    world.tunnel.say(Message::Update(Update { names: None, limits: None })).await;
    let fresh = soon(world.tunnel.hear_until(|message| match message {
        Message::Ticket(ticket) => Some(ticket.ticket),
        _ => None,
    }))
    .await;
    let fresh: token::TunnelTicket = token::peek(&fresh).unwrap();
    assert_eq!(fresh.names[0].access, Access::Open);
    let (_send, mut receive) = world.tunnel.open("a.hub.localhost", None).await;
    assert_eq!(soon(status_of(&mut receive)).await, StreamStatus::Connected.byte());
    world.agent.stopped().await.unwrap();
}

async fn a_drained_tunnel_is_replaced_at_once_and_finishes_what_runs(transport: Transport) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let origin = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut world = World::start(transport, &format!("http://{}", origin.local_addr().unwrap())).await;
    let second = FakeEdge::start(Manner::Honest);
    world.hub.bend().edges = vec![world.edge.entry(), second.entry()];
    world.tunnel.say(Message::Update(Update { names: None, limits: None })).await;
    soon(world.tunnel.hear_until(|message| matches!(message, Message::Ticket(_)).then_some(()))).await;

    let ticket = world.hub.viewer_ticket("a.hub.localhost");
    let (mut send, mut receive) = world.tunnel.open("a.hub.localhost", Some(ticket)).await;
    send.write_all(b"half").await.unwrap();
    let mut socket = soon(asked_socket(&origin, b"half")).await;
    assert_eq!(soon(status_of(&mut receive)).await, 0);

    world.tunnel.say(Message::Drain(Drain { deadline_ms: 60_000, reason: "upgrade".into() })).await;
    let elsewhere = soon(second.tunnel()).await;
    assert!(world.tunnel.link.close_reason().is_none());
    socket.write_all(b"the rest").await.unwrap();
    drop(socket);
    send.finish().unwrap();
    assert_eq!(soon(to_end(&mut receive, 100)).await.unwrap(), b"the rest");
    // Nothing runs any more: the old tunnel ends long before its deadline.
    soon(world.tunnel.link.closed()).await;
    assert!(elsewhere.link.close_reason().is_none());
    world.agent.stopped().await.unwrap();

    async fn asked_socket(origin: &tokio::net::TcpListener, wanted: &[u8]) -> tokio::net::TcpStream {
        loop {
            let (mut socket, _) = origin.accept().await.unwrap();
            let mut asked = vec![0; wanted.len()];
            // Looks at the origin's health say nothing.
            if socket.read_exact(&mut asked).await.is_ok() {
                assert_eq!(asked, wanted);
                return socket;
            }
        }
    }
}

async fn a_stopped_agent_says_goodbye(transport: Transport) {
    let world = World::start(transport, NO_ORIGIN).await;
    let link = world.tunnel.link.clone();
    world.agent.stopped().await.unwrap();
    assert_eq!(soon(link.closed()).await.code(), Some(close::BYE));
}

async fn nonsense_on_the_control_channel_ends_the_tunnel(transport: Transport) {
    let mut world = World::start(transport, NO_ORIGIN).await;
    let statement = String::new();
    world.tunnel.say(Message::Presence(phlix_protocol::native::control::Presence { statement })).await;
    assert_eq!(soon(world.tunnel.link.closed()).await.code(), Some(close::PROTOCOL));
    world.agent.stopped().await.unwrap();
}

over_both!(
    an_edge_that_does_not_prove_itself_gets_no_proof_of_ours,
    a_tunnel_that_was_lost_is_opened_again_with_the_same_instance,
    presence_is_stated_for_this_very_tunnel,
    a_changed_name_brings_a_fresh_ticket_and_its_access_into_force,
    a_drained_tunnel_is_replaced_at_once_and_finishes_what_runs,
    a_stopped_agent_says_goodbye,
    nonsense_on_the_control_channel_ends_the_tunnel,
);
