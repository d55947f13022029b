//! The only room with SQL. Every statement is a named constant made by [`statements!`], so that a test can prepare each of
//! them on both engines; every function takes the connection or the transaction of its caller.
//!
//! The portable subset: `?` parameters, ids made by us, unix milliseconds in BIGINT, SMALLINT for yes and no,
//! `CAST(.. AS SIGNED)` around sums. When two may race, the statement decides: a conditional `UPDATE` and its affected rows, or
//! a unique key.

mod db;
mod error;
mod migrate;
mod statement;
mod text;

pub(crate) mod bulletin;
pub(crate) mod claims;
pub(crate) mod edges;
pub(crate) mod heartbeats;
pub(crate) mod keys;
pub(crate) mod legacy_tunnels;
pub(crate) mod name_codes;
pub(crate) mod names;
pub(crate) mod notices;
pub(crate) mod presence;
pub(crate) mod proofs;
pub(crate) mod rates;
pub(crate) mod relay_tokens;
pub(crate) mod revocations;
pub(crate) mod servers;
pub(crate) mod sessions;
pub(crate) mod users;

pub(crate) use db::{AsStoreError, Conn, Db, Tx};
pub(crate) use error::StoreError;
pub(crate) use migrate::MigrateError;
pub(crate) use statement::{Statement, statements};
use text::{id, json, list};

/// Every statement of this room. A new file adds its list here; a test fails for the file that is forgotten.
#[cfg_attr(not(test), expect(dead_code, reason = "read by the test that prepares every statement"))]
pub(crate) const ALL: &[&[Statement]] = &[
    bulletin::ALL,
    claims::ALL,
    edges::ALL,
    heartbeats::ALL,
    keys::ALL,
    legacy_tunnels::ALL,
    migrate::ALL,
    name_codes::ALL,
    names::ALL,
    notices::ALL,
    presence::ALL,
    proofs::ALL,
    rates::ALL,
    relay_tokens::ALL,
    revocations::ALL,
    servers::ALL,
    sessions::ALL,
    users::ALL,
];
