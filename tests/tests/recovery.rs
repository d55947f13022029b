//! Agent, hub and database are killed in turn and come back: what is down is said at once, what was
//! acknowledged is there afterwards, nobody has to claim or sign in again.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use phlix_tests::api::{Api, password};
use phlix_tests::database::Server;
use phlix_tests::hub::Hub;
use phlix_tests::origin::home::Home;
use phlix_tests::viewer::{self, Protocol};
use phlix_tests::{Engine, World, on_both_databases, story, until};
use serde_json::{Value, json};

const TICKET: &str = "x-phlix-ticket";

/// A server that is gone without a word is noticed within 15 s, and no request hangs longer (promises R11): its path stalls
/// within 3.5 s, and a request that was under way then waits 5 s for another tunnel.
const NOTICED: Duration = Duration::from_secs(15);
/// An agent's first retry comes within 1 s; a hub must start in between.
const BACK: Duration = Duration::from_secs(45);

on_both_databases!(
    a_killed_agent_is_offline_and_comes_back_unclaimed,
    a_killed_hub_comes_back_with_everything_it_acknowledged,
    a_hub_that_is_asked_to_stop_stops_cleanly,
);

async fn a_killed_agent_is_offline_and_comes_back_unclaimed(engine: Engine) {
    let home = Home::start();
    let mut world = World::start(engine, &home.url()).await;
    let ticket = world.ticket().await;
    assert_eq!(status(&world, &ticket).await, 200);

    world.agent.kill();
    let killed = Instant::now();
    until("the server is offline", NOTICED, || async {
        let begun = Instant::now();
        let (status, body) = ask(&world, &ticket).await;
        assert!(begun.elapsed() < NOTICED, "a request hung for {:?}", begun.elapsed());
        assert!(matches!(status, 200 | 502 | 503 | 504), "{status} {body}");
        (status == 503 && body["code"] == "server.offline").then_some(())
    })
    .await;
    println!("offline after {:?}", killed.elapsed());

    world.agent.start_again();
    until("the server is back", BACK, || async { (status(&world, &ticket).await == 200).then_some(()) }).await;
}

async fn a_killed_hub_comes_back_with_everything_it_acknowledged(engine: Engine) {
    let home = Home::start();
    let mut world = World::start(engine, &home.url()).await;
    let ticket = world.ticket().await;
    let keys = world.hub.api().get("/.well-known/jwks.json").await.expect(200);

    // People sign in while the hub is killed; each answer that came is kept.
    let journal = Journal::begin(&world.hub, 4);
    until("some have signed in", BACK, || async { (journal.len().await >= 8).then_some(()) }).await;
    world.hub.kill();
    let acknowledged = journal.end().await;
    assert!(status_or_none(&world, &ticket).await.is_none(), "the hub is dead");

    world.hub.start_again().await;
    // The agent comes back by itself, the ticket made before is good, the name is the same.
    until("the server is back", BACK, || async { (status(&world, &ticket).await == 200).then_some(()) }).await;
    assert_eq!(world.hub.api().get("/.well-known/jwks.json").await.expect(200), keys);
    let me = world.owner.get("/api/v1/me/servers").await.expect(200);
    assert_eq!(me["servers"].as_array().unwrap().len(), 1);
    every_session_is_there(&world.hub.api(), acknowledged).await;
}

async fn a_hub_that_is_asked_to_stop_stops_cleanly(engine: Engine) {
    let home = Home::start();
    let mut world = World::start(engine, &home.url()).await;
    let ticket = world.ticket().await;
    assert_eq!(status(&world, &ticket).await, 200);
    let ended = world.hub.stop().await;
    assert!(ended.success(), "{ended}");
    world.hub.start_again().await;
    until("the server is back", BACK, || async { (status(&world, &ticket).await == 200).then_some(()) }).await;
}

#[test]
fn mariadb_a_killed_database_is_said_and_nothing_acknowledged_is_lost() {
    story(async {
        let home = Home::start();
        let mut server = Server::start().await;
        let world = World::on(Hub::start(server.database(), &[]).await, &home.url()).await;
        let ticket = world.ticket().await;
        let api = world.hub.api();
        assert_eq!(api.get("/ready").await.status, 200);
        assert_eq!(status(&world, &ticket).await, 200);

        let journal = Journal::begin(&world.hub, 4);
        until("some have signed in", BACK, || async { (journal.len().await >= 8).then_some(()) }).await;
        server.kill();
        let acknowledged = journal.end().await;

        // The process lives and says so; it is not ready and says that, too.
        until("the hub is not ready", Duration::from_secs(20), || async {
            (api.get("/ready").await.status == 503).then_some(())
        })
        .await;
        assert_eq!(api.get("/health").await.status, 200);
        let begun = Instant::now();
        let answer = api.post("/api/v1/auth/login", &credentials()).await;
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert!(answer.headers.contains_key("retry-after"), "{:?}", answer.headers);
        assert!(begun.elapsed() < Duration::from_secs(15), "answered after {:?}", begun.elapsed());
        // No media byte needs the database.
        assert_eq!(status(&world, &ticket).await, 200);

        server.start_again().await;
        let up = Instant::now();
        until("the hub is ready again", Duration::from_secs(20), || async {
            (api.get("/ready").await.status == 200).then_some(())
        })
        .await;
        // "p99 recovery of /api <= 5 s after the DB is back"; twice that on a busy test machine.
        assert!(up.elapsed() < Duration::from_secs(10), "ready after {:?}", up.elapsed());
        every_session_is_there(&api, acknowledged).await;
        assert_eq!(status(&world, &ticket).await, 200);
    });
}

#[test]
fn an_origin_that_is_down_is_said_at_once_and_comes_back() {
    story(async {
        let home = Home::start();
        let address = home.address();
        let world = World::start(Engine::Sqlite, &home.url()).await;
        let ticket = world.ticket().await;
        assert_eq!(status(&world, &ticket).await, 200);
        drop(home);
        for _ in 0..3 {
            let begun = Instant::now();
            let (status, body) = ask(&world, &ticket).await;
            assert_eq!((status, &body["code"]), (503, &json!("server.origin_down")), "{body}");
            assert!(begun.elapsed() < Duration::from_secs(2), "said after {:?}", begun.elapsed());
        }
        let _home = Home::start_at(address);
        until("the origin is back", Duration::from_secs(10), || async {
            (status(&world, &ticket).await == 200).then_some(())
        })
        .await;
    });
}

#[test]
fn an_agent_waits_for_a_hub_that_is_not_there_yet() {
    story(async {
        let home = Home::start();
        let mut world = World::start(Engine::Sqlite, &home.url()).await;
        let ticket = world.ticket().await;
        world.agent.kill();
        world.hub.kill();
        world.agent.start_again();
        // Nothing to wait for but that it does not give up: the hub starts meanwhile.
        world.hub.start_again().await;
        world.agent.process().must_run();
        until("the server is back", BACK, || async { (status(&world, &ticket).await == 200).then_some(()) }).await;
    });
}

/// Status and body of a small request, over a connection of its own.
async fn ask(world: &World, ticket: &str) -> (u16, Value) {
    let mut viewer = world.viewer(Protocol::H1).await;
    let answer = viewer.get("/echo", &[(TICKET, ticket), ("accept", "application/json")]).await;
    let status = answer.status().as_u16();
    let body = viewer::read(answer).await.unwrap_or_default();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn status(world: &World, ticket: &str) -> u16 {
    ask(world, ticket).await.0
}

/// `None` where nobody listens.
async fn status_or_none(world: &World, ticket: &str) -> Option<u16> {
    tokio::net::TcpStream::connect(world.hub.ready().tls).await.ok()?;
    Some(status(world, ticket).await)
}

fn credentials() -> Value {
    json!({ "username": "owner", "password": password("owner") })
}

/// Refresh tokens that the hub has acknowledged, gathered by people who sign in over and over.
struct Journal {
    tokens: Arc<tokio::sync::Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    writers: Vec<tokio::task::JoinHandle<()>>,
}

impl Journal {
    fn begin(hub: &Hub, writers: usize) -> Self {
        let tokens = Arc::new(tokio::sync::Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let writers = (0..writers)
            .map(|_| {
                let (api, tokens, stop) = (hub.api(), Arc::clone(&tokens), Arc::clone(&stop));
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        // Errors and refusals are fine: nothing was acknowledged.
                        let Ok(answer) = api.try_call(Method::POST, "/api/v1/auth/login", Some(&credentials())).await
                        else {
                            return;
                        };
                        if answer.status == 200 {
                            let token = answer.body["refresh_token"].as_str().unwrap().to_owned();
                            tokens.lock().await.push(token);
                        }
                    }
                })
            })
            .collect();
        Self { tokens, stop, writers }
    }

    async fn len(&self) -> usize {
        self.tokens.lock().await.len()
    }

    async fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            tokio::time::timeout(Duration::from_secs(60), writer).await.expect("a sign-in hangs").unwrap();
        }
        std::mem::take(&mut *self.tokens.lock().await)
    }
}

async fn every_session_is_there(api: &Api, tokens: Vec<String>) {
    assert!(tokens.len() >= 8);
    for (n, token) in tokens.iter().enumerate() {
        let answer = api.post("/api/v1/auth/refresh", &json!({ "refresh_token": token })).await;
        assert_eq!(answer.status, 200, "session {n} of {} was acknowledged and is lost: {}", tokens.len(), answer.body);
    }
}
