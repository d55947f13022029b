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

pub(crate) mod keys;
pub(crate) mod rates;

pub(crate) use db::{AsStoreError, Conn, Db, Tx};
pub(crate) use error::StoreError;
pub(crate) use migrate::MigrateError;
pub(crate) use statement::{Statement, statements};

/// Every statement of this room. A new file adds its list here; a test fails for the file that is forgotten.
#[cfg_attr(not(test), expect(dead_code, reason = "read by the test that prepares every statement"))]
pub(crate) const ALL: &[&[Statement]] = &[db::ALL, keys::ALL, migrate::ALL, rates::ALL];
