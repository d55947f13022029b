//! Brings the tables to this version's shape, and recognises a database that is not ours.

use sqlx::Executor as _;
use thiserror::Error;

use super::{Conn, Db, StoreError, statements};
use crate::config::Engine;

/// All migrations, in the program. See `migrations/README.md`.
static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

statements! {
    COUNT_TABLES = sqlite
        "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?", mysql
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?";
}

/// Why the database can't be used.
#[derive(Debug, Error)]
pub(crate) enum MigrateError {
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It belongs to the PHP hub that this one replaces.
    #[error(
        "this database holds the schema of the PHP hub; it is left untouched. Give this hub an empty database and bring the \
         old one over with `phlix import --from <the old database's URL>`"
    )]
    Upstream,
    /// Tables of somebody else.
    #[error("this database has a table `users` that is not ours; give the hub an empty database")]
    Foreign,
    /// Tables are missing or old.
    #[error("the database is not up to date: run `phlix migrate`")]
    Behind,
    /// A migration failed, or the database is of a newer version.
    #[error("the database could not be brought to this version's shape")]
    Failed(#[source] sqlx::migrate::MigrateError),
}

impl Db {
    /// Runs the migrations that are missing; a second run does nothing. Replicas that start together wait for each other.
    pub(crate) async fn migrate(&self) -> Result<(), MigrateError> {
        let mut conn = self.write().await?;
        refuse_foreign(&mut conn).await?;
        if self.engine() == Engine::Mysql {
            // Text compares byte by byte on both engines. Where the account may not alter the database the tables take its
            // default, which is harmless: what must be unique is folded before it is stored.
            let _ = conn.execute("ALTER DATABASE CHARACTER SET utf8mb4 COLLATE utf8mb4_bin").await;
        }
        MIGRATIONS.run(&mut *conn).await.map_err(MigrateError::Failed)
    }

    /// Are all migrations of this version there? For readiness and the doctor: changes nothing.
    pub(crate) async fn check_schema(&self) -> Result<(), MigrateError> {
        let mut conn = self.read().await?;
        refuse_foreign(&mut conn).await?;
        if count_tables(&mut conn, "_sqlx_migrations").await? == 0 {
            return Err(MigrateError::Behind);
        }
        let applied: i64 = sqlx::query_scalar(APPLIED).fetch_one(&mut *conn).await.map_err(StoreError::from)?;
        let wanted = i64::try_from(MIGRATIONS.iter().filter(|m| !m.migration_type.is_down_migration()).count());
        if Ok(applied) < wanted.map_err(|_| ()) { Err(MigrateError::Behind) } else { Ok(()) }
    }
}

/// Not in [`ALL`]: its table exists only after the first migration, made by the library.
const APPLIED: &str = "SELECT COUNT(*) FROM _sqlx_migrations WHERE success = 1";

async fn refuse_foreign(conn: &mut Conn) -> Result<(), MigrateError> {
    if count_tables(conn, "_sqlx_migrations").await? > 0 {
        return Ok(());
    }
    // Upstream tracks its migrations in `migrations(filename ..)`; its oldest versions only had the tables themselves.
    if count_tables(conn, "migrations").await? > 0 {
        return Err(MigrateError::Upstream);
    }
    match (count_tables(conn, "users").await?, count_tables(conn, "server_claims").await?) {
        (0, _) => Ok(()),
        (_, 0) => Err(MigrateError::Foreign),
        _ => Err(MigrateError::Upstream),
    }
}

async fn count_tables(conn: &mut Conn, name: &str) -> Result<i64, StoreError> {
    let text = COUNT_TABLES.on(conn);
    Ok(sqlx::query_scalar(text).bind(name).fetch_one(conn).await?)
}
