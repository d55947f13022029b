//! The harness itself: what stories stand on does what its words say.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use phlix_tests::database::{self, Engine};
use phlix_tests::origin::home::{self, Home};
use phlix_tests::origin::nginx::Nginx;
use phlix_tests::{media, story, until};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;

type Sender = http1::SendRequest<Empty<bytes::Bytes>>;

/// A plain connection to an origin; aborting the handle closes it.
async fn connect(url: &str) -> (Sender, tokio::task::JoinHandle<()>) {
    let stream = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(async move {
        let _ = connection.await;
    });
    (sender, driver)
}

fn get(path: &str) -> http::Request<Empty<bytes::Bytes>> {
    http::Request::get(path).header("host", "home").body(Empty::new()).unwrap()
}

#[test]
fn nginx_and_our_origin_serve_the_same_video() {
    story(async {
        let nginx = Nginx::serve(media::folder()).await;
        let home = Home::start();
        let expected = Sha256::digest(media::video());
        for (url, path) in [(nginx.url(), "/video.mp4"), (home.url(), "/open/video.mp4")] {
            let (mut sender, _driver) = connect(&url).await;
            let response = sender.send_request(get(path)).await.unwrap();
            assert_eq!(response.status(), 200, "{url}");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(Sha256::digest(&body), expected, "{url}");
        }
    });
}

#[test]
fn our_origin_has_a_login_of_its_own() {
    story(async {
        let home = Home::start();
        let (mut sender, _driver) = connect(&home.url()).await;
        let response = sender.send_request(get("/player")).await.unwrap();
        assert_eq!(response.status(), 302);
        assert_eq!(response.headers()["location"], "/login");
        let (mut sender, _driver) = connect(&home.url()).await;
        let response = sender.send_request(get("/video.mp4")).await.unwrap();
        assert_eq!(response.status(), 401);
    });
}

#[test]
fn our_origin_notes_who_left() {
    story(async {
        let home = Home::start();
        for path in ["/hangs", "/endless"] {
            let (mut sender, driver) = connect(&home.url()).await;
            let pending = tokio::spawn(async move {
                let _response = sender.send_request(get(path)).await;
                std::future::pending::<()>().await;
            });
            home.came(path).await;
            pending.abort();
            driver.abort();
            home.cancelled(path).await;
        }
    });
}

#[test]
fn our_origin_breaks_off_where_it_is_asked_to() {
    story(async {
        let home = Home::start();
        for path in ["/short", "/short-chunked"] {
            let (mut sender, _driver) = connect(&home.url()).await;
            let response = sender.send_request(get(path)).await.unwrap();
            assert_eq!(response.status(), 200);
            assert!(response.into_body().collect().await.is_err(), "{path}");
        }
    });
}

#[test]
fn an_origin_can_come_back_at_its_address() {
    story(async {
        let home = Home::start();
        let address = home.address();
        drop(home);
        let again = until("the address is free", Duration::from_secs(10), || async {
            std::net::TcpListener::bind(address).ok()
        })
        .await;
        drop(again);
        let home = Home::start_at(address);
        let (mut sender, _driver) = connect(&home.url()).await;
        assert_eq!(sender.send_request(get("/login")).await.unwrap().status(), 200);
        assert_ne!(home::USER, home::PASSWORD);
    });
}

#[test]
fn a_killed_database_server_comes_back_with_what_it_had() {
    story(async {
        let mut server = database::Server::start().await;
        let database = server.database();
        let database::Database::MariaDb { socket, name } = &database else {
            panic!("{database:?}");
        };
        database::sql(socket, &format!("CREATE TABLE {name}.t (n BIGINT); INSERT INTO {name}.t VALUES (7)"));
        server.kill();
        server.start_again().await;
        assert_eq!(database::sql(socket, &format!("SELECT n FROM {name}.t")), ["7"]);
    });
}

#[test]
fn each_test_has_a_database_of_its_own() {
    let first = database::Database::fresh(Engine::MariaDb);
    let second = database::Database::fresh(Engine::MariaDb);
    assert_ne!(first.url(), second.url());
    assert_eq!(database::Database::fresh(Engine::Sqlite).url(), None);
}
