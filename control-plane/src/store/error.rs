//! What can go wrong with the database, sorted by what the caller can do about it.

use sqlx::error::DatabaseError;
use sqlx::mysql::MySqlDatabaseError;
use thiserror::Error;

/// A failed conversation with the database.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    /// It can't be reached, or can't write: nothing happened, try later.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// Another transaction was in the way and ours was rolled back: it may be run again from its start.
    #[error("the database rolled the transaction back in favour of another")]
    Contention(#[source] sqlx::Error),
    /// A row of ours says something that it never should.
    #[error("the row in {table} holds an impossible {column}")]
    Corrupt { table: &'static str, column: &'static str },
    /// Our mistake: a statement that the engine refused.
    #[error("the database refused a statement")]
    Refused(#[source] sqlx::Error),
}

impl StoreError {
    /// May the whole transaction be tried again?
    pub(crate) fn is_contention(&self) -> bool {
        matches!(self, Self::Contention(_))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) if is_contention(database.as_ref()) => Self::Contention(error),
            sqlx::Error::Database(database) if is_outage(database.as_ref()) => Self::Unavailable(error),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            _ => Self::Refused(error),
        }
    }
}

/// MySQL's error number; `None` on SQLite.
fn mysql_number(error: &dyn DatabaseError) -> Option<u16> {
    error.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number)
}

/// SQLite's primary result code (the low byte of the extended one); `None` on MySQL.
fn sqlite_code(error: &dyn DatabaseError) -> Option<u8> {
    if mysql_number(error).is_some() {
        return None;
    }
    let extended: u32 = error.code()?.parse().ok()?;
    u8::try_from(extended & 0xff).ok()
}

fn is_contention(error: &dyn DatabaseError) -> bool {
    // 1213 deadlock, 1205 lock wait timeout, 1020 a snapshot that another transaction overtook.
    if let Some(number) = mysql_number(error) {
        return matches!(number, 1213 | 1205 | 1020);
    }
    // SQLITE_BUSY, SQLITE_LOCKED.
    matches!(sqlite_code(error), Some(5 | 6))
}

fn is_outage(error: &dyn DatabaseError) -> bool {
    // 1040 too many connections, 1044/1045/1049 access denied or database gone, 1053 shutdown, 1290/1836 read-only,
    // 1021 disk full, 1927 connection killed.
    if let Some(number) = mysql_number(error) {
        return matches!(number, 1021 | 1040 | 1044 | 1045 | 1049 | 1053 | 1290 | 1836 | 1927);
    }
    // SQLITE_READONLY, SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN.
    matches!(sqlite_code(error), Some(8 | 10 | 13 | 14))
}

/// The row of a racing twin is already there.
pub(crate) fn is_duplicate(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(DatabaseError::is_unique_violation)
}
