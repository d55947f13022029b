//! A certificate's life: made by the development CA, pinned, handed to rustls.
//!
//! [`dev`] makes a local CA and a leaf for machines without a public name. [`resolver`] picks the
//! certificate of a handshake by its SNI from a table that is swapped live. [`pin`] names a TLS key
//! by the SHA-256 of its public half, and verifies a server by nothing but that.
//!
//! Nothing here knows the hub: no database, no HTTP, no clock (`now` is an argument).

pub mod dev;
pub mod pin;
pub mod resolver;

mod files;
