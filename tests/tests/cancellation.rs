//! Who leaves is noticed at home within 100 ms: no origin works for nobody.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use http::Method;
use http_body_util::BodyExt;
use phlix_tests::origin::home::Home;
use phlix_tests::viewer::{Protocol, empty};
use phlix_tests::{Engine, World, story};

const TICKET: &str = "x-phlix-ticket";

/// "Cancellation reaches the origin within 100 ms."
const CANCELLED_WITHIN: Duration = Duration::from_millis(100);

/// One world at a time: a time of milliseconds is measured.
fn with_home(tell: impl AsyncFnOnce(Home, World, String)) {
    static QUIET: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _quiet = QUIET.lock();
    story(async {
        let home = Home::start();
        let world = World::start(Engine::Sqlite, &home.url()).await;
        let ticket = world.ticket().await;
        tell(home, world, ticket).await;
    });
}

#[test]
fn who_leaves_before_the_answer_is_noticed_at_home() {
    with_home(async |home, world, ticket| {
        for protocol in Protocol::ALL {
            let path = format!("/hangs?{protocol:?}");
            let mut viewer = world.viewer(protocol).await;
            let request = viewer.request(Method::GET, &path).header(TICKET, &ticket).body(empty()).unwrap();
            let asking = tokio::spawn(async move { viewer.send(request).await.map(drop) });
            home.came(&path).await;
            let left = Instant::now();
            asking.abort();
            noticed(&home, &path, left).await;
        }
    });
}

#[test]
fn who_leaves_in_the_middle_of_the_answer_is_noticed_at_home() {
    with_home(async |home, world, ticket| {
        for protocol in Protocol::ALL {
            let path = format!("/endless?{protocol:?}");
            let mut viewer = world.viewer(protocol).await;
            let mut body = viewer.get(&path, &[(TICKET, &ticket)]).await.into_body();
            for _ in 0..10 {
                body.frame().await.unwrap().unwrap();
            }
            let left = Instant::now();
            drop(body);
            drop(viewer);
            noticed(&home, &path, left).await;
        }
    });
}

#[test]
fn one_stream_of_http2_or_http3_can_leave_alone() {
    with_home(async |home, world, ticket| {
        for protocol in [Protocol::H2, Protocol::H3] {
            let path = format!("/endless?{protocol:?}");
            let mut viewer = world.viewer(protocol).await;
            let body = viewer.get(&path, &[(TICKET, &ticket)]).await.into_body();
            home.came(&path).await;
            let left = Instant::now();
            drop(body);
            noticed(&home, &path, left).await;
            assert_eq!(viewer.get("/echo", &[(TICKET, &ticket)]).await.status(), 200);
        }
    });
}

async fn noticed(home: &Home, path: &str, left: Instant) {
    let after = home.cancelled(path).await.saturating_duration_since(left);
    assert!(after <= CANCELLED_WITHIN, "{path}: noticed after {after:?}");
}
