//! The control plane: accounts, claims, servers, keys, edges; the directory of the hub.
//!
//! `http, edges, jobs -> app -> store -> domain`: a request comes in at `http/` (or `edges/`), asks a deed of `app/`, which
//! speaks to the database through `store/` in the words of `domain/`. A plain read may go from `http` to `store`.

mod app;
mod clock;
mod config;
mod domain;
mod edges;
mod http;
mod jobs;
pub mod operator;
mod random;
mod replica;
mod store;
mod timestamp;

#[cfg(test)]
mod tests;

pub use clock::Clock;
pub use config::{Config, ConfigError, DatabaseUrl, Engine, Hashing, JwtSecret, Limits, Lives, Rate, SealKey};
pub use replica::{ApproveError, ControlPlane, RevokeError, StartError};

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
