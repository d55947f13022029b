//! The bulletin: nothing is skipped, whoever writes and whenever an edge comes back (architecture s.5, trust s.9.4).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use ::http::Method;
use axum::extract::ConnectInfo;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::BoxStream;
use phlix_protocol::ids::{ServerId, UserId};
use phlix_protocol::token::{self, EdgeIdentity};
use phlix_protocol::uplink::{BulletinLine, Change, Selector, Snapshot, paths};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower::ServiceExt as _;
use uuid::Uuid;

use super::actors::{HomeServer, RelayEdge, later};
use super::world::{TestDatabase, World, both_engines};
use crate::app::App;
use crate::app::revocations::revoke;
use crate::config::Engine;
use crate::replica::ControlPlane;
use crate::store::{self, StoreError};

/// How long a line may take on a busy machine before a test calls it lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open stream.
struct Stream {
    lines: BoxStream<'static, BulletinLine>,
}

impl Stream {
    async fn open(edge: &RelayEdge, since: Option<u64>) -> Self {
        let target = match since {
            Some(since) => format!("{}?since={since}", paths::BULLETIN),
            None => paths::BULLETIN.to_owned(),
        };
        let identity = token::sign_self(&edge.identity("GET", &target, b""), &edge.key);
        let mut request = RelayEdge::request(Method::GET, &target, vec![], Some(&identity));
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 40_000))));
        let response = edge.world.router().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        let lines = response.into_body().into_data_stream().map(|chunk| {
            let chunk = chunk.unwrap();
            assert_eq!(chunk.last(), Some(&b'\n'), "a line a chunk");
            serde_json::from_slice(&chunk).unwrap()
        });
        Self { lines: lines.boxed() }
    }

    async fn next(&mut self) -> Option<BulletinLine> {
        tokio::time::timeout(PATIENCE, self.lines.next()).await.expect("a line within its time")
    }

    /// The next line that is no tick.
    async fn news(&mut self) -> BulletinLine {
        loop {
            match self.next().await.expect("the stream goes on") {
                BulletinLine::Tick { .. } => {}
                line => return line,
            }
        }
    }

    async fn change(&mut self) -> (u64, Change) {
        match self.news().await {
            BulletinLine::Change { revision, change } => (revision, change),
            line => panic!("no change: {line:?}"),
        }
    }

    async fn snapshot(&mut self) -> Snapshot {
        match self.news().await {
            BulletinLine::Snapshot(snapshot) => snapshot,
            line => panic!("no snapshot: {line:?}"),
        }
    }
}

/// A change that is told apart by its subject.
async fn publish(app: &App, subject: u128) -> u64 {
    let change = Change::Route { server_id: ServerId::new(Uuid::from_u128(subject)), hosts: Vec::new() };
    let (change, now) = (&change, app.clock.now());
    let revision = app
        .db
        .transact(|mut tx| async move {
            let revision = store::bulletin::publish(&mut tx, change, now).await?;
            tx.commit().await?;
            Ok::<_, StoreError>(revision)
        })
        .await
        .unwrap();
    app.bulletin.poke();
    revision
}

both_engines! {
    async fn a_stream_begins_with_everything(world: World) {
        let ann = world.sign_up("ann").await;
        let edge = RelayEdge::core(&world, 7).await;
        edge.register().await;
        HomeServer::native(&world, 1).claimed_by(&ann).await;
        let server = HomeServer::native(&world, 1).claimed_by(&ann).await;

        let mut stream = Stream::open(&edge, None).await;
        let snapshot = stream.snapshot().await;

        let now = world.app().clock.now();
        assert_eq!((snapshot.now, snapshot.jwks.clone()), (now.seconds(), world.app().keys.jwks(now)));
        assert_eq!((snapshot.edges.len(), snapshot.edges[0].id), (1, edge.id));
        assert_eq!((snapshot.generations.len(), snapshot.generations[0].server_id, snapshot.generations[0].least), (1, server.id(), 1));
        assert!(snapshot.revision > 0 && snapshot.revocations.is_empty());
    }

    async fn a_change_arrives_in_order_and_a_revocation_with_it(world: World) {
        let ann = world.sign_up("ann").await;
        let edge = RelayEdge::core(&world, 7).await;
        let server = HomeServer::native(&world, 1).claimed_by(&ann).await;
        let mut stream = Stream::open(&edge, None).await;
        let start = stream.snapshot().await.revision;

        let path = format!("/api/v1/me/servers/{}", server.id());
        assert_eq!(world.client().bearer(&ann.access).delete(&path).await.status, 204);

        let (first, revoked) = stream.change().await;
        let Change::Revoked { revocation } = revoked else { panic!("{revoked:?}") };
        assert_eq!((first, revocation.selector), (start + 1, Selector::Server(server.id())));
        let (second, route) = stream.change().await;
        let Change::Route { server_id, hosts } = route else { panic!("{route:?}") };
        assert_eq!((second, server_id, hosts.len()), (start + 2, server.id(), 1));
    }

    /// A log-out on one replica is told by another, without anything but the database between them.
    async fn another_replicas_change_is_seen(world: World) {
        let ann = world.sign_up("ann").await;
        let edge = RelayEdge::core(&world, 7).await;
        let replica = world.second_replica().await;
        let mut stream = Stream::open(&edge, None).await;
        stream.snapshot().await;
        let user: UserId = ann.id.parse().unwrap();
        let (lives, now) = (&replica.config.lives, replica.clock.now());
        let sent = std::time::Instant::now();
        replica.db.transact(|mut tx| async move {
            revoke(&mut tx, Selector::Sub(user), lives, now).await?;
            tx.commit().await
        }).await.unwrap();
        let (_, change) = stream.change().await;
        assert!(matches!(change, Change::Revoked { revocation } if revocation.selector == Selector::Sub(user)), "{change:?}");
        assert!(sent.elapsed() < Duration::from_secs(2), "the bound that the docs state: {:?}", sent.elapsed());
        replica.db.close().await;
    }

    async fn an_edge_that_comes_back_misses_nothing_while_many_write(world: World) {
        let edge = RelayEdge::core(&world, 7).await;
        let replica = world.second_replica().await;
        let mut since = store::bulletin::revision(&mut world.db().read().await.unwrap()).await.unwrap();
        let start = since;
        let writer = |writer: u128| {
            let app = if writer.is_multiple_of(2) { world.app().clone() } else { replica.clone() };
            tokio::spawn(async move {
                for round in 0..15 {
                    publish(&app, writer * 1000 + round).await;
                }
            })
        };
        let writers: Vec<_> = (0..8).map(writer).collect();
        let mut seen = BTreeSet::new();
        // Each connection is cut off after a few lines, wherever it was.
        while seen.len() < 8 * 15 {
            let mut stream = Stream::open(&edge, Some(since)).await;
            for _ in 0..9 {
                match stream.next().await.unwrap() {
                    BulletinLine::Change { revision, change: Change::Route { server_id, .. } } => {
                        assert_eq!(revision, since + 1, "no gap and no repetition");
                        since = revision;
                        assert!(seen.insert(server_id), "told once");
                    }
                    BulletinLine::Snapshot(snapshot) => assert_eq!(snapshot.revision, since, "covers what was told"),
                    BulletinLine::Tick { revision } => assert_eq!(revision, since),
                    line => panic!("{line:?}"),
                }
                if seen.len() == 8 * 15 {
                    break;
                }
            }
        }
        for done in join_all(writers).await {
            done.unwrap();
        }
        assert_eq!(since, start + 8 * 15);
        replica.db.close().await;
    }

    async fn who_was_away_too_long_gets_everything(world: World) {
        let edge = RelayEdge::core(&world, 7).await;
        let start = publish(world.app(), 1).await;
        publish(world.app(), 2).await;
        later(&world, 3601).await;
        publish(world.app(), 3).await;
        crate::app::maintenance::sweep(world.app()).await.unwrap();
        let last = publish(world.app(), 4).await;

        let mut stream = Stream::open(&edge, Some(start)).await;
        assert_eq!(stream.snapshot().await.revision, last);
        let mut stream = Stream::open(&edge, Some(last - 1)).await;
        assert_eq!(stream.change().await.0, last);
        assert_eq!(stream.snapshot().await.revision, last);
        // The database was put back to an older state: the edge knows more than the hub.
        let mut stream = Stream::open(&edge, Some(last + 100)).await;
        assert_eq!(stream.snapshot().await.revision, last);
        assert_eq!(publish(world.app(), 5).await, last + 1);
        assert_eq!(stream.change().await.0, last + 1);
    }

    async fn a_quiet_stream_gives_signs_of_life(world: World) {
        let edge = RelayEdge::core(&world, 7).await;
        let mut stream = Stream::open(&edge, None).await;
        let revision = stream.snapshot().await.revision;
        assert_eq!(stream.next().await.unwrap(), BulletinLine::Tick { revision });
    }

    async fn nothing_is_told_of_what_was_rolled_back(world: World) {
        let edge = RelayEdge::core(&world, 7).await;
        let mut stream = Stream::open(&edge, None).await;
        let start = stream.snapshot().await.revision;
        let mut tx = world.db().begin().await.unwrap();
        let change = Change::Route { server_id: ServerId::new(Uuid::from_u128(1)), hosts: Vec::new() };
        store::bulletin::publish(&mut tx, &change, world.app().clock.now()).await.unwrap();
        drop(tx);
        assert_eq!(publish(world.app(), 2).await, start + 1);
        let (revision, change) = stream.change().await;
        assert_eq!((revision, change), (start + 1, Change::Route { server_id: ServerId::new(Uuid::from_u128(2)), hosts: Vec::new() }));
    }
}

/// Through a port of its own: an edge is known by its key for people's requests too, and a stream does not hold up the end.
async fn a_replica_serves_its_edge_and_stops(engine: Engine) {
    let database = TestDatabase::new(engine).await;
    let replica = ControlPlane::start(World::config(database.url.clone())).await.unwrap();
    let world = World::new(engine).await;
    let edge = RelayEdge::unknown(&world, 7);
    replica.approve_builtin_edge(edge.id, &edge.key.public()).await.unwrap();
    let identity = |target: &str, bh: Option<&[u8]>| {
        let identity = edge.identity("GET", target, bh.unwrap_or_default());
        let identity = EdgeIdentity { bh: identity.bh.filter(|_| bh.is_some()), ..identity };
        token::sign_self(&identity, &edge.key)
    };
    let send = async |target: &str, identity: &str, more: &str| {
        let mut stream = TcpStream::connect(replica.local_addr()).await.unwrap();
        let head = format!("GET {target} HTTP/1.1\r\nHost: hub.test\r\nX-Phlix-Edge: {identity}\r\n{more}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    };
    let passed_on =
        "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: hub.test\r\nConnection: close\r\n";
    let mut page = send("/.well-known/jwks.json", &identity("/.well-known/jwks.json", None), passed_on).await;
    let mut text = String::new();
    page.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    // The same, but with the identity of a question of its own.
    let mut refused = send("/.well-known/jwks.json", &identity("/.well-known/jwks.json", Some(b"")), passed_on).await;
    text.clear();
    refused.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 401"), "{text}");
    // A viewer asks what only edges may, through the edge.
    let mut through = send(paths::BULLETIN, &identity(paths::BULLETIN, None), passed_on).await;
    text.clear();
    tokio::time::timeout(PATIENCE, through.read_to_string(&mut text)).await.expect("a refusal, no stream").unwrap();
    assert!(text.starts_with("HTTP/1.1 401"), "{text}");

    let mut stream = send(paths::BULLETIN, &identity(paths::BULLETIN, Some(b"")), "").await;
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(r#""type":"snapshot""#) {
        let mut part = [0; 4096];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut part)).await.unwrap().unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&part[..read]);
    }
    let start = std::time::Instant::now();
    let (rest, ()) = tokio::join!(
        async {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.map(|_| rest)
        },
        replica.shutdown()
    );
    assert!(rest.unwrap().ends_with(b"0\r\n\r\n"), "an orderly end");
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "not the 10 s after which requests are cut off: {:?}",
        start.elapsed()
    );
    world.end().await;
    database.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_serves_its_edge_and_stops_sqlite() {
    a_replica_serves_its_edge_and_stops(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_serves_its_edge_and_stops_mariadb() {
    a_replica_serves_its_edge_and_stops(Engine::Mysql).await;
}
