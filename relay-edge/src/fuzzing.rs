//! A door for fuzzers to the road's pure parts; not in the program (feature `fuzzing`).

use http::request::Parts;
use phlix_protocol::hostname::Hostname;

use crate::config::Limits;
use crate::road::paths;
use crate::road::resolve::{Asked, Door, Hosts, resolve as decide};

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Refused,
    /// The hub, a sign-in, a redirect: answered by ourselves.
    Ours,
    /// A server, by this name.
    Name(String),
}

/// Resolves at an edge of `hub.example`, by a TLS door that asked for `sni`, or by a proxy's.
pub fn resolve(head: &Parts, proxied: bool, sni: Option<&str>) -> Place {
    let name = |text: &str| text.parse::<Hostname>().ok();
    let Some(hub) = name("hub.example") else { return Place::Refused };
    let hosts = Hosts { hub: vec![hub.clone()], public_domain: hub };
    let door = if proxied { Door::Proxied } else { Door::Tls(sni.and_then(name)) };
    match decide(head, &door, &hosts, &Limits::default()) {
        Ok(Asked::Name(host) | Asked::Socket(host, _)) => Place::Name(host.as_str().to_owned()),
        Ok(_) => Place::Ours,
        Err(_) => Place::Refused,
    }
}

/// A path's segments as the most lenient origin reads them.
pub fn segments(path: &str) -> Vec<String> {
    paths::segments(path)
}

/// Whether a path is only for local callers.
pub fn is_local_admin(path: &str) -> bool {
    paths::is_local_admin(path)
}
