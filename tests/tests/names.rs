//! Owners pick their servers' names: a new one plays at once, a removed one is over within the bulletin's two seconds, and
//! nobody else gets it.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use http::Method;
use http_body_util::BodyExt;
use phlix_tests::agent::Agent;
use phlix_tests::origin::home::Home;
use phlix_tests::viewer::{self, Client, Protocol, empty};
use phlix_tests::world::{Server, claim};
use phlix_tests::{Engine, World, on_both_databases, until};
use serde_json::json;

const TICKET: &str = "x-phlix-ticket";

/// What was changed at the hub holds at every connected edge within this (trust s.9.4).
const TOLD_WITHIN: Duration = Duration::from_secs(2);
/// From the edge's `update` to the agent's fresh ticket: a call to the hub, on busy cores.
const TICKET_WITHIN: Duration = Duration::from_secs(5);

on_both_databases!(
    a_picked_name_plays_and_a_removed_one_is_over,
    a_removed_name_is_kept_for_its_owner,
    the_paths_of_local_callers_are_guarded_until_the_owner_says_otherwise,
);

/// Picks a name and gives it whole.
async fn pick(world: &World, label: &str) -> String {
    let path = format!("/api/v1/me/servers/{}/names", world.server.id);
    let name = world.owner.post(&path, &json!({"label": label})).await.expect(201);
    assert_eq!(name["url"], format!("https://{label}.hub.localhost:{}/", world.hub.ready().tls.port()));
    name["host"].as_str().unwrap().to_owned()
}

async fn remove(world: &World, host: &str) {
    let path = format!("/api/v1/me/servers/{}/names/{host}", world.server.id);
    world.owner.call(Method::DELETE, &path, None).await.expect(204);
}

/// A program's ticket for one of the names.
async fn ticket_for(world: &World, host: &str) -> String {
    let path = format!("/api/v1/me/servers/{}/viewer-ticket", world.server.id);
    let made = world.owner.post(&path, &json!({"host": host})).await.expect(201);
    made["ticket"].as_str().unwrap().to_owned()
}

/// The status of a GET at a name, over a connection of its own.
async fn status(world: &World, host: &str, path: &str, ticket: Option<&str>) -> u16 {
    let mut client = Client::connect(&world.hub, host, Protocol::H2).await;
    let headers: Vec<_> = ticket.iter().map(|ticket| (TICKET, *ticket)).collect();
    client.get(path, &headers).await.status().as_u16()
}

/// Waits until a GET at a name is answered so; how long it took.
async fn answers(world: &World, host: &str, ticket: Option<&str>, wanted: u16, within: Duration) -> Duration {
    let begun = Instant::now();
    let what = format!("{host} answers {wanted}");
    until(&what, within, || async { (status(world, host, "/echo", ticket).await == wanted).then_some(()) }).await;
    begun.elapsed()
}

async fn a_picked_name_plays_and_a_removed_one_is_over(engine: Engine) {
    let home = Home::start();
    let world = World::start(engine, &home.url()).await;
    let given = world.server.host.clone();
    let old_ticket = ticket_for(&world, &given).await;
    // Edges remember that nobody is there, too.
    assert_eq!(status(&world, "living-room.hub.localhost", "/echo", None).await, 421);

    let host = pick(&world, "living-room").await;
    let ticket = ticket_for(&world, &host).await;
    let took = answers(&world, &host, Some(&ticket), 200, TOLD_WITHIN).await;
    println!("{engine:?}: the new name played after {took:?}");
    assert_eq!(status(&world, &given, "/echo", Some(&ticket)).await, 401, "a ticket is good at its own name");
    assert_eq!(status(&world, &given, "/echo", Some(&old_ticket)).await, 200);

    // Open to everybody: the edge goes by the word of the agent's ticket, which must name it by then.
    let path = format!("/api/v1/me/servers/{}/names/{host}", world.server.id);
    world.owner.call(Method::PUT, &path, Some(&json!({"access": "open"}))).await.expect(200);
    let took = answers(&world, &host, None, 200, TICKET_WITHIN).await;
    println!("{engine:?}: the agent's ticket named it after {took:?}");

    let mut at_host = Client::connect(&world.hub, &host, Protocol::H2).await;
    let mut at_given = Client::connect(&world.hub, &given, Protocol::H2).await;
    let mut doomed = at_host.get("/endless?doomed", &[(TICKET, &ticket)]).await.into_body();
    let mut kept = at_given.get("/endless?kept", &[(TICKET, &old_ticket)]).await.into_body();
    doomed.frame().await.unwrap().unwrap();
    kept.frame().await.unwrap().unwrap();

    remove(&world, &host).await;
    let removed = Instant::now();
    let watching = tokio::spawn(async move {
        // To its end, whatever that is, but not for ever.
        let watch = async { while let Some(Ok(_)) = doomed.frame().await {} };
        tokio::time::timeout(Duration::from_secs(20), watch).await.map(|()| Instant::now())
    });
    let took = answers(&world, &host, Some(&ticket), 421, TOLD_WITHIN).await;
    let cut = watching.await.unwrap().expect("the running stream is never cut") - removed;
    println!("{engine:?}: removed, 421 after {took:?}, the stream cut after {cut:?}");
    assert!(cut <= TOLD_WITHIN, "the running stream was cut after {cut:?}");
    // On the connection that was open already, too.
    assert_eq!(at_host.get("/echo", &[(TICKET, &ticket)]).await.status(), 421);

    assert_eq!(status(&world, &given, "/echo", Some(&old_ticket)).await, 200, "the other name plays on");
    for _ in 0..200 {
        kept.frame().await.expect("the other name's stream ended").expect("the other name's stream broke");
    }
}

async fn a_removed_name_is_kept_for_its_owner(engine: Engine) {
    let home = Home::start();
    let world = World::start(engine, &home.url()).await;
    let stranger = world.hub.api().register("stranger").await;
    let other_home = Home::start();
    let mut agent = Agent::start(&world.hub.ready().public_url, &other_home.url());
    let Server { id, .. } = claim(&stranger, &mut agent).await;
    let theirs = format!("/api/v1/me/servers/{id}/names");

    let host = pick(&world, "living-room").await;
    stranger.post(&theirs, &json!({"label": "living-room"})).await.expect_code(409, "name.taken");
    remove(&world, &host).await;
    stranger.post(&theirs, &json!({"label": "living-room"})).await.expect_code(409, "name.quarantined");
    stranger.post(&theirs, &json!({"label": "1iving-r00m"})).await.expect_code(409, "name.confusing");
    let mine = format!("/api/v1/me/servers/{}/names", world.server.id);
    stranger.post(&mine, &json!({"label": "a-foothold"})).await.expect_code(404, "server.not_found");

    assert_eq!(pick(&world, "living-room").await, host);
    let ticket = ticket_for(&world, &host).await;
    answers(&world, &host, Some(&ticket), 200, TOLD_WITHIN).await;
    assert!(other_home.seen().is_empty(), "nothing of it reached somebody else's home");
}

async fn the_paths_of_local_callers_are_guarded_until_the_owner_says_otherwise(engine: Engine) {
    let home = Home::start();
    let world = World::start(engine, &home.url()).await;
    let ticket = world.ticket().await;
    let post = async |path: &str| {
        let mut client = world.viewer(Protocol::H1).await;
        let request = client.request(Method::POST, path).header(TICKET, &ticket).body(empty()).unwrap();
        let answer = client.send(request).await.unwrap();
        let status = answer.status().as_u16();
        (status, String::from_utf8_lossy(&viewer::read(answer).await.unwrap()).into_owned())
    };
    let paths = ["/System/Restart", "/jellyfin/system//shutdown", "/%53tartup/User", "/emby/Startup/Complete"];
    for path in paths {
        let (status, body) = post(path).await;
        assert!(status == 403 && body.contains("path.guarded"), "{path}: {status} {body}");
    }
    assert!(home.seen().is_empty());

    let setting = format!("/api/v1/me/servers/{}", world.server.id);
    for (on, wanted) in [(false, false), (true, true)] {
        world.owner.call(Method::PUT, &setting, Some(&json!({"guard_local_paths": on}))).await.expect(200);
        until("the edge goes by the setting", TOLD_WITHIN, || async {
            (post(paths[0]).await.1.contains("path.guarded") == wanted).then_some(())
        })
        .await;
        // The origin of the story has no such pages: whatever it says, it was asked.
        for path in paths {
            assert_eq!(post(path).await.1.contains("path.guarded"), wanted, "{path}");
        }
    }
    assert!(home.seen().iter().any(|seen| seen.target == "/emby/Startup/Complete"));
}
