//! An edge says where it is, at each of its starts.

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use phlix_protocol::b64;
use phlix_protocol::hostname::Hostname;
use phlix_protocol::uplink::{Register, Registered};

use super::asking::Applying;
use super::refusal::Refusal;
use crate::app::{App, edges};
use crate::domain::edge::Place;

/// Names and addresses of one edge: all of them go to every agent.
const MOST_NAMES: usize = 16;

pub(super) async fn register(State(app): State<App>, Applying(asking): Applying) -> Result<Json<Registered>, Refusal> {
    let said: Register = asking.body()?;
    let edge = &asking.edge;
    if said.edge_id != edge.id || said.key != edge.key {
        return Err(Refusal::malformed("The edge's id and key are not those that it signs with."));
    }
    let place = place(said)?;
    Ok(Json(edges::register(&app, edge, &place).await?))
}

fn place(mut said: Register) -> Result<Place, Refusal> {
    // `[::1]`, as it stands in a URL, is the address too.
    for text in said.names.iter_mut().chain(&mut said.addresses) {
        *text = text.trim_matches(['[', ']']).to_owned();
    }
    if said.names.len() > MOST_NAMES || said.addresses.len() > MOST_NAMES {
        return Err(Refusal::malformed("An edge has at most 16 names and 16 addresses."));
    }
    let is_host = |text: &String| text.parse::<Hostname>().is_ok() || text.parse::<IpAddr>().is_ok();
    if !said.names.iter().all(is_host) || !said.addresses.iter().all(is_host) {
        return Err(Refusal::malformed("Names and addresses are host names or IP addresses."));
    }
    let is_word = |text: &str, most: usize| text.len() <= most && text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if !is_word(&said.region, 64) || !is_word(&said.version, 64) {
        return Err(Refusal::malformed("Region and version are at most 64 plain characters."));
    }
    if said.spki.as_deref().is_some_and(|pin| b64::decode_array::<32>(pin).is_none()) {
        return Err(Refusal::malformed("The pin is a SHA-256 in base64url."));
    }
    if said.port == 0 || said.addresses.is_empty() {
        return Err(Refusal::malformed("An edge needs an address and a port to be dialled at."));
    }
    Ok(Place {
        region: said.region,
        names: said.names,
        addresses: said.addresses,
        port: said.port,
        spki: said.spki,
        behind_proxy: said.behind_proxy,
        version: said.version,
    })
}
