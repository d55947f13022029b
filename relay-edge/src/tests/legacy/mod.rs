//! Existing media servers: their door, their tunnel's life, and requests down it.

mod door;
mod exchanges;
mod home;
mod life;
mod mount;
mod port;
mod proxy;
mod upgrades;

use std::sync::Arc;
use std::time::{Duration, Instant};

use phlix_protocol::legacy::http::RequestHead;

use super::world::{World, until};
use crate::body::{self, Body};
use crate::tunnels::activity::Activity;
use crate::tunnels::legacy::{LegacyBody, LegacyError, LegacyTunnel};

/// The tunnel that new requests go to.
async fn tunnel(world: &World) -> Arc<LegacyTunnel> {
    until(async || world.edge.tunnels.legacy.pick(world.server).is_some()).await;
    world.edge.tunnels.legacy.pick(world.server).unwrap()
}

fn head(method: &str, path: &str) -> RequestHead {
    let headers = vec![("X-Phlix-Relay-User".into(), "someone".into())];
    RequestHead { method: method.into(), path: path.into(), query: String::new(), headers }
}

/// Asks as the road does.
async fn ask(
    tunnel: &Arc<LegacyTunnel>,
    head: RequestHead,
    body: Body,
) -> Result<http::Response<LegacyBody>, LegacyError> {
    let activity = Arc::new(Activity::new(Instant::now()));
    tunnel.request(head, body, Duration::from_secs(10), &activity).await
}

async fn get(tunnel: &Arc<LegacyTunnel>, path: &str) -> Result<http::Response<LegacyBody>, LegacyError> {
    ask(tunnel, head("GET", path), body::empty()).await
}
