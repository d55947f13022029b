//! What the rest stands on: one shape over two engines.

use std::time::Duration;

use futures_util::future::join_all;
use sqlx::Executor as _;

use super::world::{TestDatabase, both_engines};
use crate::config::{Engine, Rate};
use crate::store::{self, Db, MigrateError, StoreError, rates};
use crate::timestamp::Timestamp;

const WRITERS: i64 = 8;
const ROUNDS: i64 = 40;

both_engines! {
    /// The proof of the shape: eight writers take from one pot by a conditional update, each in a transaction with a second
    /// write. Nothing is lost, nothing is taken twice, nobody sees an error.
    async fn eight_writers_lose_nothing(world: World) {
        let db = world.db();
        let mut conn = db.write().await.unwrap();
        conn.execute("CREATE TABLE pot (id BIGINT PRIMARY KEY, coins BIGINT NOT NULL)").await.unwrap();
        conn.execute("CREATE TABLE taken (id VARCHAR(64) PRIMARY KEY, writer BIGINT NOT NULL)").await.unwrap();
        conn.execute("INSERT INTO pot (id, coins) VALUES (1, 200), (2, 0)").await.unwrap();
        drop(conn);

        let writer = |writer: i64| {
            let db = db.clone();
            tokio::spawn(async move {
                let mut won = 0;
                for round in 0..ROUNDS {
                    // Half of the writers take the rows in the other order, so that MySQL has deadlocks to find.
                    let took = db.transact(|tx| take(tx, writer, round)).await.unwrap();
                    won += i64::from(took);
                }
                won
            })
        };
        let won: i64 = join_all((0..WRITERS).map(writer)).await.into_iter().map(Result::unwrap).sum();

        let mut conn = db.read().await.unwrap();
        let left: i64 = sqlx::query_scalar("SELECT coins FROM pot WHERE id = 1").fetch_one(&mut *conn).await.unwrap();
        let moved: i64 = sqlx::query_scalar("SELECT coins FROM pot WHERE id = 2").fetch_one(&mut *conn).await.unwrap();
        let rows: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM taken").fetch_one(&mut *conn).await.unwrap();
        assert_eq!((won, left, moved, rows), (200, 0, 200, 200));
    }

    async fn readers_are_not_stopped_by_a_writer(world: World) {
        let db = world.db();
        let mut tx = db.begin().await.unwrap();
        let now = Timestamp::from_millis(0);
        assert_eq!(rates::hit(&mut tx, "held", Rate::new(1, 60), now).await.unwrap(), rates::Attempt::Allowed);
        tokio::time::timeout(Duration::from_secs(2), db.check_schema()).await.unwrap().unwrap();
        let mut conn = db.read().await.unwrap();
        let seen: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM rate_limits").fetch_one(&mut *conn).await.unwrap();
        assert_eq!(seen, 0, "what is not committed is not read");
    }

    async fn a_dropped_transaction_leaves_nothing(world: World) {
        let db = world.db();
        let mut tx = db.begin().await.unwrap();
        let _ = rates::hit(&mut tx, "dropped", Rate::new(1, 60), Timestamp::from_millis(0)).await.unwrap();
        drop(tx);
        let mut conn = db.write().await.unwrap();
        let again = rates::hit(&mut conn, "dropped", Rate::new(1, 60), Timestamp::from_millis(0)).await.unwrap();
        assert_eq!(again, rates::Attempt::Allowed);
    }

    async fn every_statement_is_understood(world: World) {
        let db = world.db();
        let mut conn = db.read().await.unwrap();
        let mut count = 0;
        for statement in store::ALL.iter().copied().flatten() {
            let text = statement.text(db.engine());
            conn.prepare(sqlx::SqlStr::from_static(text)).await.unwrap_or_else(|error| {
                panic!("{}: {error}\n{text}", statement.name)
            });
            count += 1;
        }
        assert!(count >= 8, "the list is there");
    }

    async fn migrating_twice_changes_nothing(world: World) {
        world.db().migrate().await.unwrap();
        world.db().check_schema().await.unwrap();
    }

    async fn racing_attempts_never_exceed_the_rate(world: World) {
        let now = Timestamp::from_millis(1_000_000);
        let attempt = |_| {
            let db = world.db().clone();
            tokio::spawn(async move {
                let mut conn = db.write().await.unwrap();
                rates::hit(&mut conn, "key", Rate::new(5, 60), now).await.unwrap() == rates::Attempt::Allowed
            })
        };
        let allowed = join_all((0..40).map(attempt)).await.into_iter().filter(|r| *r.as_ref().unwrap()).count();
        assert_eq!(allowed, 5);

        let mut conn = world.db().write().await.unwrap();
        let later = now.plus(Duration::from_secs(20));
        let refused = rates::hit(&mut conn, "key", Rate::new(5, 60), later).await.unwrap();
        assert_eq!(refused, rates::Attempt::Refused { retry_after: Duration::from_secs(40) });
        let next_window = now.plus(Duration::from_secs(60));
        assert_eq!(rates::hit(&mut conn, "key", Rate::new(5, 60), next_window).await.unwrap(), rates::Attempt::Allowed);
    }
}

async fn take(mut tx: store::Tx, writer: i64, round: i64) -> Result<bool, StoreError> {
    let get = "UPDATE pot SET coins = coins - 1 WHERE id = 1 AND coins > 0";
    let put = "UPDATE pot SET coins = coins + 1 WHERE id = 2";
    let took = if writer % 2 == 0 {
        sqlx::query(get).execute(&mut *tx).await?.rows_affected() == 1
    } else {
        sqlx::query(put).execute(&mut *tx).await?;
        let took = sqlx::query(get).execute(&mut *tx).await?.rows_affected() == 1;
        if !took {
            sqlx::query("UPDATE pot SET coins = coins - 1 WHERE id = 2").execute(&mut *tx).await?;
        }
        took
    };
    if took {
        if writer % 2 == 0 {
            sqlx::query(put).execute(&mut *tx).await?;
        }
        let id = format!("{writer}-{round}");
        sqlx::query("INSERT INTO taken (id, writer) VALUES (?, ?)").bind(id).bind(writer).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(took)
}

/// The PHP hub's database is named as such and left alone.
#[tokio::test]
async fn upstreams_database_is_refused() {
    let database = TestDatabase::new(Engine::Mysql).await;
    let db = Db::connect(&database.url).await.unwrap();
    let mut conn = db.write().await.unwrap();
    conn.execute("CREATE TABLE migrations (filename VARCHAR(191) PRIMARY KEY, applied_at TIMESTAMP)").await.unwrap();
    conn.execute("CREATE TABLE users (id CHAR(36) PRIMARY KEY, username VARCHAR(64))").await.unwrap();
    drop(conn);

    let refused = db.migrate().await.unwrap_err();

    assert!(matches!(refused, MigrateError::Upstream));
    assert!(refused.to_string().contains("phlix import"), "{refused}");
    let mut conn = db.write().await.unwrap();
    conn.execute("DROP TABLE migrations").await.unwrap();
    drop(conn);
    assert!(matches!(db.migrate().await.unwrap_err(), MigrateError::Foreign));
    assert!(matches!(db.check_schema().await.unwrap_err(), MigrateError::Foreign));
    db.close().await;
    database.end().await;
}

/// A statement that is not in the list is not prepared by the test above: so none may stand elsewhere.
#[test]
fn sql_is_only_in_named_statements() {
    let store = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    for file in std::fs::read_dir(store).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for call in ["query(\"", "query_as(\"", "query_scalar(\"", "query(&", "AssertSqlSafe", "query(r#"] {
            assert!(!text.contains(call), "{} has {call}", path.display());
        }
        let stem = path.file_stem().unwrap().to_str().unwrap();
        if text.contains("\nstatements! {") {
            let list = format!("{stem}::ALL");
            let rooms = std::fs::read_to_string(path.with_file_name("mod.rs")).unwrap();
            assert!(rooms.contains(&list), "store/mod.rs does not list {list}");
        }
    }
}
