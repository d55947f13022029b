//! The nouns and what may be decided without asking anybody: no async, no I/O, no clock of its own.

pub(crate) mod claim;
pub(crate) mod edge;
pub(crate) mod heartbeat;
pub(crate) mod key;
pub(crate) mod label;
pub(crate) mod name;
pub(crate) mod notice;
pub(crate) mod server;
pub(crate) mod user;
pub(crate) mod user_token;
