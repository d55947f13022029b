//! An agent far from a hub that no public authority vouches for: it trusts nothing on sight, and
//! everything once the key that `serve` printed was confirmed, or the CA was given.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use phlix_tests::agent::Agent;
use phlix_tests::api::Api;
use phlix_tests::database::Database;
use phlix_tests::hub::Hub;
use phlix_tests::origin::home::Home;
use phlix_tests::viewer::{Client, Protocol};
use phlix_tests::world::{self, claim};
use phlix_tests::{Engine, story, until};

/// A hub whose public address is its TLS port, as behind no proxy; and that address.
async fn https_hub() -> (Hub, String) {
    let mut hub = Hub::start(Database::fresh(Engine::Sqlite), &[]).await;
    let url = format!("https://localhost:{}", hub.ready().tls.port());
    hub.stop().await;
    hub.set("HUB_PUBLIC_URL", &url);
    hub.start_again().await;
    (hub, url)
}

async fn plays(hub: &Hub, owner: &Api, agent: &mut Agent) {
    let server = claim(owner, agent).await;
    let ticket = world::ticket(owner, &server.id).await;
    let mut viewer = Client::connect(hub, &server.host, Protocol::H2).await;
    assert_eq!(viewer.get("/echo", &[("x-phlix-ticket", &ticket)]).await.status(), 200);
}

#[test]
fn an_unknown_key_is_named_and_refused() {
    story(async {
        let home = Home::start();
        let (hub, url) = https_hub().await;
        let pin = hub.ready().spki_sha256.clone();
        let wrong = "0".repeat(64);
        for extra in [&[][..], &["--hub-key", wrong.as_str()]] {
            let mut agent = Agent::start_with(&url, &home.url(), extra);
            let ended =
                until("the agent gives up", Duration::from_secs(20), || std::future::ready(agent.process().exited()))
                    .await;
            assert!(!ended.success());
            let told = agent.process().output();
            assert!(!told.contains("claim code"), "{told}");
            // A person can compare it with what `serve` printed.
            assert!(told.to_lowercase().contains(&pin), "{extra:?}: {told}");
        }
    });
}

#[test]
fn the_confirmed_key_is_enough() {
    story(async {
        let home = Home::start();
        let (hub, url) = https_hub().await;
        let owner = hub.api().register("owner").await;
        let pin = hub.ready().spki_sha256.clone();
        let mut agent = Agent::start_with(&url, &home.url(), &["--hub-key", &pin]);
        plays(&hub, &owner, &mut agent).await;
    });
}

#[test]
fn the_ca_file_is_enough() {
    story(async {
        let home = Home::start();
        let (hub, url) = https_hub().await;
        let owner = hub.api().register("owner").await;
        let ca = hub.ready().ca_file.to_str().unwrap().to_owned();
        let mut agent = Agent::start_with(&url, &home.url(), &["--ca-file", &ca]);
        plays(&hub, &owner, &mut agent).await;
    });
}

#[test]
fn plain_http_off_loopback_is_refused() {
    story(async {
        let mut agent = Agent::start("http://hub.example:8800", "http://127.0.0.1:8096");
        let ended =
            until("the agent gives up", Duration::from_secs(20), || std::future::ready(agent.process().exited())).await;
        assert!(!ended.success());
        assert!(agent.process().output().contains("--insecure"), "{}", agent.process().output());
    });
}
