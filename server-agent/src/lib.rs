//! The agent beside a media server: claims it once, then holds a tunnel to an edge and splices what comes down it to
//! the one origin that its configuration names.
//!
//! Rooms: `enroll` gets the server claimed, `hub` is the door to the hub's API, `keeper` keeps ticket and enrollment
//! fresh, `dial` keeps a tunnel open, `serve` admits streams and carries their bytes, `health` watches the origin,
//! `state` is the folder, `trust` says whose certificates are believed. [`run`] puts them together.
//!
//! Everything runs on the runtime that polls [`run`]; files and names are looked up on its blocking pool.

mod backoff;
mod clock;
mod config;
mod dial;
mod enroll;
mod event;
mod health;
mod hub;
mod keeper;
mod proxy;
mod random;
mod run;
mod serve;
mod shared;
mod state;
mod trust;

pub use config::{Config, InvalidOrigin, Limits, Origin, OriginTls, Timings, Transport, UnknownTransport};
pub use event::Event;
pub use hub::{HubError, HubUrlError};
pub use phlix_certs::pin::{NotAPin, SpkiPin};
pub use phlix_link::Transport as TunnelTransport;
pub use proxy::{InvalidProxy, Proxies};
pub use run::{AgentError, run};
pub use state::{Stage, StateError, Status, status};
pub use tokio_util::sync::CancellationToken;
pub use trust::TrustError;

#[cfg(test)]
mod tests;
