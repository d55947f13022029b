//! What the edge asks the control plane of legacy servers: relay tokens and signs of life.

use http::StatusCode;
use phlix_protocol::ids::ServerId;
use phlix_protocol::token::{Scope, ViewerTicket};
use phlix_protocol::uplink::Selector;

use super::world::{World, until};
use crate::random;
use crate::uplink::directory::{Directory, Mount};

fn ticket(world: &World) -> ViewerTicket {
    ViewerTicket { host: None, edge: Some(world.edge_id), scope: Scope::Tunnel, ..world.ticket() }
}

async fn mount(directory: &Directory, token: &str, server: ServerId) -> Result<ViewerTicket, StatusCode> {
    match directory.mount(token, server).await.expect("the hub answers") {
        Mount::Ticket(ticket) => Ok(ViewerTicket::clone(&ticket)),
        Mount::Refused(status) => Err(status),
    }
}

#[tokio::test]
async fn a_relay_token_is_asked_for_once_until_it_is_withdrawn() {
    let world = World::start().await;
    let directory = &world.edge.tunnels.uplink.directory;
    let ticket = ticket(&world);
    world.hub.relay_token("good", &ticket);
    let all = futures_util::future::join_all((0..8).map(|_| mount(directory, "good", world.server))).await;
    assert!(all.iter().all(|answer| answer.as_ref() == Ok(&ticket)), "{all:?}");
    assert_eq!(mount(directory, "good", world.server).await, Ok(ticket.clone()));
    assert_eq!(world.hub.asked(), 1);

    world.hub.revoke(Selector::Jti(ticket.jti));
    until(async || world.edge.tunnels.uplink.bulletin.world().revokes_viewer(&ticket)).await;
    assert_eq!(mount(directory, "good", world.server).await, Err(StatusCode::UNAUTHORIZED));
}

#[tokio::test]
async fn a_flood_of_one_bad_relay_token_asks_the_hub_once() {
    let world = World::start().await;
    let directory = &world.edge.tunnels.uplink.directory;
    for _ in 0..20 {
        assert_eq!(mount(directory, "bad", world.server).await, Err(StatusCode::UNAUTHORIZED));
    }
    assert_eq!(world.hub.asked(), 1);
}

#[tokio::test]
async fn a_ticket_of_another_scope_or_server_opens_no_mount() {
    let world = World::start().await;
    let directory = &world.edge.tunnels.uplink.directory;
    world.hub.relay_token("proxy", &ViewerTicket { scope: Scope::Proxy, ..ticket(&world) });
    assert!(directory.mount("proxy", world.server).await.is_err());
    world.hub.relay_token("other", &ticket(&world));
    assert!(directory.mount("other", ServerId::new(random::uuid())).await.is_err());
}

#[tokio::test]
async fn a_servers_signs_of_life_are_asked_for_and_kept_for_a_moment() {
    let world = World::start().await;
    let directory = &world.edge.tunnels.uplink.directory;
    world.hub.set_online(world.server, true);
    for _ in 0..3 {
        assert!(directory.online(world.server).await.expect("an answer"));
    }
    assert!(!directory.online(ServerId::new(random::uuid())).await.expect("an answer"));
    assert_eq!(world.hub.asked(), 2);
    world.hub.set_down(true);
    assert!(directory.online(world.server).await.expect("kept"));
}
