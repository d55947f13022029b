//! Media servers of every address: http (elsewhere), https, a Unix socket.

#![allow(clippy::unwrap_used)]

use phlix_tests::database::Database;
use phlix_tests::hub::Hub;
use phlix_tests::origin::nginx::Nginx;
use phlix_tests::viewer::{self, Protocol};
use phlix_tests::{Engine, World, media, story};

const TICKET: &str = "x-phlix-ticket";

async fn world(origin: &str, extra: &[&str]) -> World {
    World::with_agent(Hub::start(Database::fresh(Engine::Sqlite), &[]).await, origin, extra).await
}

async fn plays(world: &World) {
    let mut viewer = world.viewer(Protocol::H2).await;
    let answer = viewer.get("/video.mp4", &[(TICKET, &world.ticket().await)]).await;
    assert_eq!(answer.status(), 200);
    assert!(viewer::read(answer).await.unwrap() == media::video(), "other bytes");
}

#[test]
fn a_unix_socket() {
    story(async {
        let nginx = Nginx::serve_unix(media::folder()).await;
        plays(&world(&nginx.url(), &[]).await).await;
    });
}

#[test]
fn https_with_its_own_authority() {
    story(async {
        let nginx = Nginx::serve_tls(media::folder()).await;
        let ca = nginx.ca_file();
        plays(&world(&nginx.url(), &["--origin-ca-file", ca.to_str().unwrap()]).await).await;
    });
}

#[test]
fn https_that_nobody_vouches_for_is_refused_unless_told_otherwise() {
    story(async {
        let nginx = Nginx::serve_tls(media::folder()).await;
        let unknown = world(&nginx.url(), &[]).await;
        let mut viewer = unknown.viewer(Protocol::H1).await;
        let answer = viewer.get("/video.mp4", &[(TICKET, &unknown.ticket().await)]).await;
        assert!(answer.status().is_server_error(), "{}", answer.status());
        plays(&world(&nginx.url(), &["--origin-insecure"]).await).await;
    });
}
