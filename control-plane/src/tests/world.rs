//! A hub of its own for each test: a fresh database, a clock that is moved by hand, the router called without a port.

use std::sync::Arc;

use sqlx::{Connection as _, Executor as _};
use tempfile::TempDir;
use url::Url;
use uuid::Uuid;

use super::mariadb;
use crate::config::{DatabaseUrl, Engine};
use crate::store::Db;

/// Each story runs on both engines: `name::sqlite` and `name::mariadb`.
macro_rules! both_engines {
    ($($(#[$attribute:meta])* async fn $name:ident($world:ident: World) $body:block)*) => {$(
        $(#[$attribute])*
        mod $name {
            #[allow(unused_imports, reason = "a story may need nothing of its file")]
            use super::*;

            async fn story($world: $crate::tests::world::World) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                let world = $crate::tests::world::World::new($crate::config::Engine::Sqlite).await;
                story(world.clone()).await;
                world.end().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn mariadb() {
                let world = $crate::tests::world::World::new($crate::config::Engine::Mysql).await;
                story(world.clone()).await;
                world.end().await;
            }
        }
    )*};
}
pub(super) use both_engines;

/// An empty database, dropped at the end.
pub(super) struct TestDatabase {
    pub(super) url: DatabaseUrl,
    folder: Option<TempDir>,
}

impl TestDatabase {
    pub(super) async fn new(engine: Engine) -> Self {
        sqlx::any::install_default_drivers();
        match engine {
            Engine::Sqlite => {
                let folder = TempDir::new().unwrap();
                let url = format!("sqlite://{}/hub.db", folder.path().display()).parse().unwrap();
                Self { url, folder: Some(folder) }
            }
            Engine::Mysql => {
                let server = mariadb::server_url();
                let name = format!("phlix_{}", Uuid::new_v4().simple());
                let mut conn = sqlx::AnyConnection::connect(server.as_str()).await.unwrap();
                let create = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
                conn.execute(sqlx::raw_sql(create)).await.unwrap();
                conn.close().await.unwrap();
                let mut url = server;
                url.set_path(&name);
                Self { url: url.as_str().parse().unwrap(), folder: None }
            }
        }
    }

    pub(super) async fn end(&self) {
        if self.folder.is_some() {
            return;
        }
        let url = Url::parse(self.url.as_str()).unwrap();
        let name = url.path().trim_start_matches('/').to_owned();
        let mut conn = sqlx::AnyConnection::connect(mariadb::server_url().as_str()).await.unwrap();
        let drop = sqlx::AssertSqlSafe(format!("DROP DATABASE {name}"));
        conn.execute(sqlx::raw_sql(drop)).await.unwrap();
    }
}

/// What a test has in its hands. Clones are the same world.
#[derive(Clone)]
pub(super) struct World(Arc<Inner>);

struct Inner {
    database: TestDatabase,
    db: Db,
}

impl World {
    pub(super) async fn new(engine: Engine) -> Self {
        let database = TestDatabase::new(engine).await;
        let db = Db::connect(&database.url).await.unwrap();
        db.migrate().await.unwrap();
        Self(Arc::new(Inner { database, db }))
    }

    pub(super) fn db(&self) -> &Db {
        &self.0.db
    }

    pub(super) async fn end(self) {
        self.0.db.close().await;
        self.0.database.end().await;
    }
}
