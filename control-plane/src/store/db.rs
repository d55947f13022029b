//! The connections: one shape over both engines.
//!
//! SQLite: write-ahead log, one writer connection (so that writers of this process queue in the pool instead of failing), a
//! pool of readers that can't write. MySQL: one pool, READ COMMITTED, so that a statement that decides a race sees what others
//! committed before it. A transaction that lost a deadlock is run again from its start.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, Executor, Transaction};

use super::StoreError;
use crate::config::{DatabaseUrl, Engine};
use crate::random;

/// What store functions take: a plain connection, a reader's or one inside a transaction.
pub(crate) type Conn = AnyConnection;

/// How long a request waits for a connection before it is told to come back.
const ACQUIRE: Duration = Duration::from_secs(3);
/// Reads are short; more connections than this only queue inside the engine.
const READERS: u32 = 8;
/// For MySQL, of each replica.
const MYSQL_CONNECTIONS: u32 = 16;
/// Two transactions that keep killing each other are both told to come back.
const ATTEMPTS: u32 = 16;

/// The database.
#[derive(Clone, Debug)]
pub(crate) struct Db {
    engine: Engine,
    readers: AnyPool,
    writers: AnyPool,
}

impl Db {
    /// Opens the pools and makes sure that somebody answers. Creates SQLite's file, never its tables.
    pub(crate) async fn connect(url: &DatabaseUrl) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        match url.engine() {
            Engine::Sqlite => Self::connect_sqlite(url).await,
            Engine::Mysql => Self::connect_mysql(url).await,
        }
    }

    async fn connect_sqlite(url: &DatabaseUrl) -> Result<Self, StoreError> {
        let url = url.as_str();
        let create = if url.contains('?') { format!("{url}&mode=rwc") } else { format!("{url}?mode=rwc") };
        let writers = AnyPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE)
            .after_connect(|conn, _| {
                Box::pin(async move {
                    // FULL: what was acknowledged survives a power cut. Other processes (the operator's commands) may write
                    // too: wait for them.
                    conn.execute("PRAGMA busy_timeout = 5000").await?;
                    conn.execute("PRAGMA journal_mode = WAL").await?;
                    conn.execute("PRAGMA synchronous = FULL").await?;
                    Ok(())
                })
            })
            .connect(&create)
            .await?;
        let readers = AnyPoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(ACQUIRE)
            .after_connect(|conn, _| {
                Box::pin(async move {
                    conn.execute("PRAGMA busy_timeout = 5000").await?;
                    conn.execute("PRAGMA query_only = 1").await?;
                    Ok(())
                })
            })
            .connect(&create)
            .await?;
        Ok(Self { engine: Engine::Sqlite, readers, writers })
    }

    async fn connect_mysql(url: &DatabaseUrl) -> Result<Self, StoreError> {
        let pool = AnyPoolOptions::new()
            .max_connections(MYSQL_CONNECTIONS)
            .acquire_timeout(ACQUIRE)
            .after_connect(|conn, _| {
                Box::pin(async move {
                    conn.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
                    // Seconds; the default of 50 would outlive the caller.
                    conn.execute("SET SESSION innodb_lock_wait_timeout = 5").await?;
                    Ok(())
                })
            })
            .connect(url.as_str())
            .await?;
        Ok(Self { engine: Engine::Mysql, readers: pool.clone(), writers: pool })
    }

    /// Which engine this is.
    pub(crate) fn engine(&self) -> Engine {
        self.engine
    }

    /// A connection for reading.
    pub(crate) async fn read(&self) -> Result<PoolConnection<Any>, StoreError> {
        Ok(self.readers.acquire().await?)
    }

    /// A connection for one statement that writes and commits by itself.
    pub(crate) async fn write(&self) -> Result<PoolConnection<Any>, StoreError> {
        Ok(self.writers.acquire().await?)
    }

    /// A transaction, dropped = rolled back. Prefer [`Db::transact`] where it may run into another one.
    pub(crate) async fn begin(&self) -> Result<Tx, StoreError> {
        let begin = match self.engine {
            // Takes the write lock at once: a transaction that reads first and writes later can't be upgraded when another
            // process wrote in between.
            Engine::Sqlite => "BEGIN IMMEDIATE",
            Engine::Mysql => "START TRANSACTION",
        };
        Ok(Tx(self.writers.begin_with(begin).await?))
    }

    /// Runs `deed` in a transaction, again from the start when the database rolled it back in favour of another. `deed` commits
    /// by itself and has no effect but on the transaction; it borrows what it needs: `|mut tx| async move { .. }`.
    pub(crate) async fn transact<T, E, F>(&self, mut deed: impl FnMut(Tx) -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: From<StoreError> + AsStoreError,
    {
        let mut attempt = 1;
        loop {
            let result = match self.begin().await {
                Ok(tx) => deed(tx).await,
                Err(error) => Err(error.into()),
            };
            match result {
                Err(error) if attempt < ATTEMPTS && error.as_store_error().is_some_and(StoreError::is_contention) => {
                    // Of two that kill each other one must come later: up to 2 ms, then 4, 8, .. 256 ms.
                    let most = 1_u64 << attempt.min(8);
                    let jitter = u64::from(u16::from_be_bytes(random::bytes())) * most * 1000 / u64::from(u16::MAX);
                    tokio::time::sleep(Duration::from_micros(jitter)).await;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    /// Waits for what runs, then closes.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writers.close().await;
    }
}

/// Lets [`Db::transact`] look for contention inside the error of a deed.
pub(crate) trait AsStoreError {
    fn as_store_error(&self) -> Option<&StoreError>;
}

impl AsStoreError for StoreError {
    fn as_store_error(&self) -> Option<&StoreError> {
        Some(self)
    }
}

/// An open transaction; dropped without [`Tx::commit`] it is rolled back.
#[derive(Debug)]
pub(crate) struct Tx(Transaction<'static, Any>);

impl Tx {
    /// Makes it last.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        Ok(self.0.commit().await?)
    }
}

impl Deref for Tx {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.0
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.0
    }
}
