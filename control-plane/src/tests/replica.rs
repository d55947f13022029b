//! A replica as `phlix serve` runs it: on a port of its own.

use std::net::SocketAddr;

use sqlx::Executor as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::world::{TestDatabase, World, both_engines};
use crate::config::{Engine, SealKey};
use crate::replica::ControlPlane;
use crate::store::Db;

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: hub.test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply
}

both_engines! {
    async fn it_makes_its_tables_and_keys_answers_and_stops(world: World) {
        let empty = TestDatabase::new(world.db().engine()).await;
        let config = World::config(empty.url.clone());

        let replica = ControlPlane::start(config.clone()).await.unwrap();
        let address = replica.local_addr();
        assert!(address.ip().is_loopback() && address.port() != 0);
        assert!(get(address, "/ready").await.starts_with("HTTP/1.1 200 OK\r\n"));
        let keys = get(address, "/.well-known/jwks.json").await;
        let metrics = replica.metrics();
        assert!(metrics.contains(r#"phlix_control_requests_total{method="GET",route="/ready",status="200"} 1"#), "{metrics}");
        replica.shutdown().await;
        assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");

        let again = ControlPlane::start(config.clone()).await.unwrap();
        let body = |reply: &str| reply.split_once("\r\n\r\n").unwrap().1.to_owned();
        assert_eq!(body(&get(again.local_addr(), "/.well-known/jwks.json").await), body(&keys), "the keys are kept");
        again.shutdown().await;

        let mut other = config;
        other.seal_key = SealKey::new([8; 32]);
        let refused = ControlPlane::start(other).await.unwrap_err().to_string();
        assert!(refused.contains("phlix key reseal"), "{refused}");
        empty.end().await;
    }
}

#[tokio::test]
async fn it_does_not_start_on_upstreams_database() {
    let database = TestDatabase::new(Engine::Mysql).await;
    let db = Db::connect(&database.url).await.unwrap();
    let mut conn = db.write().await.unwrap();
    conn.execute("CREATE TABLE migrations (filename VARCHAR(191) PRIMARY KEY)").await.unwrap();
    drop(conn);
    db.close().await;
    let refused = ControlPlane::start(World::config(database.url.clone())).await.unwrap_err().to_string();
    assert!(refused.contains("phlix import"), "{refused}");
    database.end().await;
}
