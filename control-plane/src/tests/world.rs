//! A hub of its own for each test: a fresh database, a clock that is moved by hand, the router called without a port.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ::http::request::Parts;
use ::http::{HeaderMap, Method, Request};
use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use phlix_protocol::ids::EdgeId;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt as _;
use url::Url;
use uuid::Uuid;

use super::mariadb;
use crate::app::bulletin;
use crate::app::edge_identity::{CoreEdge, EdgeAuth, Identifying, IdentityError};
use crate::app::{App, Hub};
use crate::clock::Clock;
use crate::config::{Config, DatabaseUrl, Engine, Hashing, JwtSecret, SealKey};
use crate::http;
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

/// Start of the hand-moved clock: 2026-11-24 13:05:00 UTC.
pub(super) const START_MS: i64 = 1_795_525_500_000;
/// The hub's origin in the tests.
pub(super) const ORIGIN: &str = "https://hub.test";

/// What a test has in its hands. Clones are the same world.
#[derive(Clone)]
pub(super) struct World(Arc<Inner>);

struct Inner {
    database: TestDatabase,
    app: App,
    router: axum::Router,
    people: AtomicU32,
    /// Ends the watch of the bulletin with the world.
    _watch: DropGuard,
}

impl World {
    pub(super) async fn new(engine: Engine) -> Self {
        Self::with(engine, |_| {}).await
    }

    /// A world with other settings.
    pub(super) async fn with(engine: Engine, set: impl FnOnce(&mut Config)) -> Self {
        let database = TestDatabase::new(engine).await;
        let mut config = Self::config(database.url.clone());
        set(&mut config);
        let db = Db::connect(&database.url).await.unwrap();
        db.migrate().await.unwrap();
        let app = Hub::assemble(config, db, Some(Box::new(TrustedEdge))).await.unwrap();
        let router = http::router(app.clone()).merge(crate::edges::router(app.clone()));
        let stop = CancellationToken::new();
        tokio::spawn(bulletin::watch(app.clone(), stop.clone()));
        Self(Arc::new(Inner { database, app, router, people: AtomicU32::new(0), _watch: stop.drop_guard() }))
    }

    /// Settings of a test: cheap hashes, a clock that stands.
    pub(super) fn config(database: DatabaseUrl) -> Config {
        let secret = JwtSecret::new(*b"a secret of the tests, 32 bytes+").unwrap();
        let mut config = Config::new(database, Url::parse(ORIGIN).unwrap(), secret, SealKey::new([7; 32]));
        config.clock = Clock::manual(START_MS);
        config.hashing = Hashing { memory_kib: 64, passes: 1, concurrency: 2, queue: 64 };
        config
    }

    pub(super) fn app(&self) -> &App {
        &self.0.app
    }

    /// For what does not end: streams.
    pub(super) fn router(&self) -> axum::Router {
        self.0.router.clone()
    }

    pub(super) fn db(&self) -> &Db {
        &self.0.app.db
    }

    /// Moves the world's clock.
    pub(super) fn advance(&self, by: Duration) {
        self.0.app.clock.advance(by);
    }

    /// A second replica on the same database, with the same clock.
    pub(super) async fn second_replica(&self) -> App {
        let config = self.0.app.config.clone();
        let db = Db::connect(&self.0.database.url).await.unwrap();
        Hub::assemble(config, db, Some(Box::new(TrustedEdge))).await.unwrap()
    }

    /// The database's URL, for what opens it by itself.
    pub(super) fn database_url(&self) -> &DatabaseUrl {
        &self.0.database.url
    }

    /// A program at 192.0.2.1 that speaks to the hub over TLS, through a core edge.
    pub(super) fn client(&self) -> Client {
        self.client_at("192.0.2.1")
    }

    pub(super) fn client_at(&self, address: &str) -> Client {
        let headers = HeaderMap::new();
        Client {
            world: self.clone(),
            address: address.to_owned(),
            scheme: "https",
            headers,
            peer: [127, 0, 0, 1].into(),
        }
    }

    /// Makes an account by the API, each from an address of its own. The first is the administrator.
    pub(super) async fn sign_up(&self, username: &str) -> Person {
        let number = self.0.people.fetch_add(1, Ordering::SeqCst);
        let address = format!("198.51.{}.{}", number / 250, number % 250 + 1);
        let form = json!({"username": username, "email": format!("{username}@mail.example"), "password": PASSWORD});
        let reply = self.client_at(&address).post("/api/v1/auth/register", form).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        Person::of(&reply)
    }

    pub(super) async fn end(self) {
        self.0.app.db.close().await;
        self.0.database.end().await;
    }
}

/// The password of everybody in the tests.
pub(super) const PASSWORD: &str = "correct horse battery staple";

/// Somebody who is signed in.
#[derive(Clone, Debug)]
pub(super) struct Person {
    pub(super) id: String,
    pub(super) access: String,
    pub(super) refresh: String,
    pub(super) is_admin: bool,
}

impl Person {
    /// From the reply to a sign-up, a log-in or a refresh.
    pub(super) fn of(reply: &Reply) -> Self {
        let body = reply.json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Self {
            id: text(&body["user"]["id"]),
            access: text(&body["access_token"]),
            refresh: text(&body["refresh_token"]),
            is_admin: body["user"]["is_admin"] == 1,
        }
    }
}

/// The core edge in front of the tests' hub: known by a word instead of a key.
#[derive(Debug)]
struct TrustedEdge;

impl EdgeAuth for TrustedEdge {
    fn identify<'a>(&'a self, _head: &'a Parts, token: &'a str) -> Identifying<'a> {
        let known = token == "the core edge";
        Box::pin(std::future::ready(if known {
            Ok(CoreEdge(EdgeId::new(Uuid::nil())))
        } else {
            Err(IdentityError::Invalid)
        }))
    }
}

/// Somebody outside, as the edge passes them on.
#[derive(Clone)]
pub(super) struct Client {
    world: World,
    address: String,
    scheme: &'static str,
    headers: HeaderMap,
    peer: IpAddr,
}

impl Client {
    /// Adds a header to each request.
    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().unwrap());
        self
    }

    /// Speaks plain HTTP.
    pub(super) fn plain(mut self) -> Self {
        self.scheme = "http";
        self
    }

    /// Signed in by an access token.
    pub(super) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// A browser that has the hub's cookie and sends its origin with each request.
    pub(super) fn cookie(self, cookie: &str) -> Self {
        self.header("cookie", cookie).header("origin", ORIGIN)
    }

    pub(super) async fn get(&self, path: &str) -> Reply {
        self.call(Method::GET, path, None).await
    }

    pub(super) async fn delete(&self, path: &str) -> Reply {
        self.call(Method::DELETE, path, None).await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Reply {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Any request with a JSON body or none.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        self.send(request.body(body).unwrap()).await
    }

    /// A request that was built by hand; the edge's headers and this client's are added.
    pub(super) async fn send(&self, mut request: Request<Body>) -> Reply {
        let headers = request.headers_mut();
        headers.insert("x-phlix-edge", "the core edge".parse().unwrap());
        headers.insert("x-forwarded-for", self.address.parse().unwrap());
        headers.insert("x-forwarded-proto", self.scheme.parse().unwrap());
        headers.insert("x-forwarded-host", "hub.test".parse().unwrap());
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        self.send_direct(request).await
    }

    /// The same without the edge: straight to the control plane's port.
    pub(super) async fn send_direct(&self, mut request: Request<Body>) -> Reply {
        request.extensions_mut().insert(ConnectInfo(SocketAddr::new(self.peer, 40_000)));
        let response = self.world.0.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Reply { status: head.status.as_u16(), headers: head.headers, bytes }
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) bytes: Bytes,
}

impl Reply {
    /// The body as JSON; null where it is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or(Value::Null)
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The value of the session cookie that the answer sets, with all that is said about it.
    pub(super) fn session_cookie(&self) -> Option<&str> {
        self.header("set-cookie").filter(|cookie| cookie.starts_with("__Host-phlix-s="))
    }

    /// Status and machine code together, as most refusals are asked for.
    pub(super) fn refusal(&self) -> (u16, String) {
        (self.status, self.json()["code"].as_str().unwrap_or_default().to_owned())
    }
}
