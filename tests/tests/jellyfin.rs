//! A media server with its own login, cookies, uploads and WebSocket works at its name in Chromium, over
//! HTTP/2 and HTTP/3, and what it opens to local callers stays shut.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use http::Method;
use http::header::{AUTHORIZATION, COOKIE};
use phlix_tests::database::Database;
use phlix_tests::hub::Hub;
use phlix_tests::origin::jellyfin::{self, Jellyfin};
use phlix_tests::viewer::{Protocol, empty};
use phlix_tests::{Engine, World, api, browser, hash, on_both_databases, story};

#[test]
fn it_works_at_an_open_name_over_http2() {
    story(works(Engine::Sqlite, "open", "h2"));
}

on_both_databases!(it_works_at_a_protected_name_over_forced_http3);

async fn it_works_at_a_protected_name_over_forced_http3(engine: Engine) {
    works(engine, "protected", "h3").await;
}

#[test]
fn chromium_finds_http3_by_itself() {
    story(works(Engine::Sqlite, "protected", "alt-svc"));
}

async fn works(engine: Engine, access: &str, http: &str) {
    let home = Jellyfin::start();
    // A browser asks at ::1 first.
    let hub = Hub::start(Database::fresh(engine), &[("HUB_HOST", "::")]).await;
    let world = World::on(hub, &home.url()).await;
    if access == "open" {
        world.open().await;
    }
    let folder = tempfile::tempdir().unwrap();
    let poster = folder.path().join("new.png");
    std::fs::write(&poster, jellyfin::picture()).unwrap();
    let password = api::password("owner");
    let told = browser::run(
        &world.hub,
        &browser::of_tests("jellyfin.mjs"),
        &[
            ("SERVER_URL", &world.server.url),
            ("ACCESS", access),
            ("HTTP", http),
            ("USER", "owner"),
            ("PASSWORD", &password),
            ("ORIGIN_USER", jellyfin::USER),
            ("ORIGIN_PASSWORD", jellyfin::PASSWORD),
            ("POSTER", poster.to_str().unwrap()),
            ("POSTER_SHA256", &hash::of_file(&poster)),
        ],
        Duration::from_secs(120),
    )
    .await;
    println!("{told}");
    for seen in home.seen() {
        assert_ne!(seen.path, "/System/Restart", "a stranger reached it");
        let cookies = seen.headers.get_all(COOKIE).iter().map(|value| value.to_str().unwrap());
        assert!(!cookies.collect::<String>().to_lowercase().contains("phlix"), "{}: our cookie came home", seen.path);
        let bearer = seen.headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap());
        assert!(bearer.is_none_or(|value| value.starts_with("MediaBrowser ")), "{}: {bearer:?}", seen.path);
    }
}

/// By any spelling that a server may take for it.
#[test]
fn what_it_opens_to_local_callers_is_refused_over_every_protocol() {
    story(async {
        let home = Jellyfin::start();
        let world = World::start(Engine::Sqlite, &home.url()).await;
        let ticket = world.ticket().await;
        for protocol in Protocol::ALL {
            for path in
                ["/System/Restart", "/system/restart", "/System/Restart/", "//System//Restart", "/%53ystem/Restart"]
            {
                let mut viewer = world.viewer(protocol).await;
                let request =
                    viewer.request(Method::POST, path).header("x-phlix-ticket", &ticket).body(empty()).unwrap();
                let answer = viewer.send(request).await.unwrap();
                assert_eq!(answer.status(), 403, "{protocol:?} {path}");
            }
        }
        assert!(home.seen().is_empty(), "{:?}", home.seen());
    });
}
