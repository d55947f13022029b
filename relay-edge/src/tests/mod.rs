//! The whole edge in one process: a real one between a hub, an agent, an origin and viewers that are stood in for here,
//! each speaking its protocol from the specification.

mod agent;
mod directory;
mod exchanges;
mod http3;
mod hub;
mod legacy;
mod origin;
mod raw3;
mod resume;
mod rights;
mod tunnels;
mod upgrades;
mod viewer;
mod websocket;
mod world;
