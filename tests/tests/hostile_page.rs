//! The page of a hostile home server, in the owner's browser.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use phlix_tests::agent::Agent;
use phlix_tests::database::Database;
use phlix_tests::hub::Hub;
use phlix_tests::origin::home::Home;
use phlix_tests::{Engine, browser, story};

#[test]
fn it_reaches_no_neighbour() {
    story(async {
        let (hostile, neighbour) = (Home::start(), Home::start());
        let hub = Hub::start(Database::fresh(Engine::Sqlite), &[]).await;
        let mut hostile_agent = Agent::start(&hub.ready().public_url, &hostile.url());
        let mut neighbour_agent = Agent::start(&hub.ready().public_url, &neighbour.url());
        let told = browser::run(
            &hub,
            &browser::of_tests("hostile.mjs"),
            &[
                ("CLAIM_LINK", &hostile_agent.claim_url().await),
                ("NEIGHBOUR_LINK", &neighbour_agent.claim_url().await),
                ("USER", "owner"),
                ("PASSWORD", "a password for the hub"),
            ],
            Duration::from_secs(180),
        )
        .await;
        println!("{told}");
        let seen = hostile.seen();
        assert!(seen.iter().any(|seen| seen.target.starts_with("/script")), "the page was never shown");
        // What the hostile page asked of its neighbour came without the neighbour's session, or not at all.
        assert!(!neighbour.seen().iter().any(|seen| seen.target == "/echo"), "{:?}", neighbour.seen());
    });
}

#[test]
fn it_reaches_nothing_of_the_hub() {
    story(async {
        let home = Home::start();
        let hub = Hub::start(Database::fresh(Engine::Sqlite), &[]).await;
        let mut agent = Agent::start(&hub.ready().public_url, &home.url());
        let told = browser::run(
            &hub,
            &browser::of_web_ui("story-hostile.mjs"),
            &[("CLAIM_LINK", &agent.claim_url().await), ("USER", "owner"), ("PASSWORD", "a password for the hub")],
            Duration::from_secs(180),
        )
        .await;
        println!("{told}");
        assert!(!home.seen().is_empty(), "the page was never shown");
    });
}
