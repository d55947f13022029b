//! The page of a hostile media server, under the hub's own address, in the owner's browser.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use phlix_tests::api::password;
use phlix_tests::legacy::LegacyWorld;
use phlix_tests::viewer::{self, Protocol};
use phlix_tests::{Engine, browser, story};

/// What a server could say to reach beyond its own answer.
const SAID: &str = "h-Set-Cookie=planted%3D1%3B%20Path%3D%2F&h-Refresh=0%3B%20url%3D%2Fapp%2Fservers\
    &h-Link=%3C%2Fapp%2Fx.js%3E%3B%20rel%3Dpreload&h-Clear-Site-Data=%22*%22&h-Service-Worker-Allowed=%2F\
    &h-Strict-Transport-Security=max-age%3D1&h-Alt-Svc=h3%3D%22evil.example%3A443%22\
    &h-Content-Security-Policy=default-src%20*&h-Access-Control-Allow-Origin=*&h-X-Kept=yes";

#[test]
fn it_runs_no_script_on_the_hubs_origin() {
    story(async {
        let world = LegacyWorld::start(Engine::Sqlite).await;
        let told = browser::run(
            &world.hub,
            &browser::of_tests("hostile_proxy.mjs"),
            &[("USER", "owner"), ("PASSWORD", &password("owner")), ("SERVER", &world.server)],
            Duration::from_secs(120),
        )
        .await;
        println!("{told}");
        let seen = world.legacy.records().await;
        assert!(!seen.requests("/api/v1/media").is_empty(), "the hostile page was never asked for");
    });
}

#[test]
fn what_it_says_is_confined() {
    story(async {
        let world = LegacyWorld::start(Engine::Sqlite).await;
        let bearer = world.bearer();
        let mut viewer = world.viewer(Protocol::H2).await;
        let path = |query: &str| world.path(&format!("/api/v1/media?behave=answer&{query}"));
        let headers = [("authorization", bearer.as_str())];

        let answer = viewer.get(&path(SAID), &headers).await;
        assert_eq!(answer.status(), 200);
        let told = answer.headers().clone();
        assert_eq!(viewer::read(answer).await.unwrap(), "as asked");
        assert_eq!(told["content-security-policy"], "sandbox; default-src 'none'", "{told:?}");
        assert_eq!(told["x-content-type-options"], "nosniff");
        assert_eq!(told["x-kept"], "yes");
        for gone in
            ["set-cookie", "refresh", "link", "clear-site-data", "service-worker-allowed", "strict-transport-security"]
        {
            assert!(!told.contains_key(gone), "{gone}: {told:?}");
        }
        assert!(told.get("alt-svc").is_none_or(|ours| !ours.to_str().unwrap().contains("evil")), "{told:?}");

        // Data stays what it is, what a browser could run becomes a download.
        for (kind, attached) in [
            ("application/json", false),
            ("image/png", false),
            ("video/mp4", false),
            ("text/vtt", false),
            ("application/vnd.apple.mpegurl", false),
            ("text/html", true),
            ("TEXT/HTML; charset=utf-8", true),
            ("image/svg+xml", true),
            ("application/xhtml+xml", true),
            ("text/javascript", true),
            ("text/xml", true),
            ("application/pdf", true),
            ("multipart/x-mixed-replace", true),
        ] {
            let query = format!("type={}", kind.replace('+', "%2B").replace('/', "%2F").replace(' ', "%20"));
            let answer = viewer.get(&path(&query), &headers).await;
            let told = answer.headers().clone();
            viewer::read(answer).await.unwrap();
            let is_attached =
                told.get("content-disposition").is_some_and(|told| told.as_bytes().starts_with(b"attachment"));
            assert_eq!(is_attached, attached, "{kind}: {told:?}");
            assert_eq!(told["content-security-policy"], "sandbox; default-src 'none'", "{kind}");
        }

        // Redirects stay under the server's own path, or are none.
        let base = world.path("");
        for (location, to) in [
            ("%2Fmedia%2Fx%2Fstream", Some(format!("{base}/media/x/stream"))),
            ("https%3A%2F%2Fevil.example%2F", None),
            ("%2F%2Fevil.example%2F", None),
            ("javascript%3Aalert(1)", None),
        ] {
            let answer = viewer.get(&path(&format!("status=302&h-Location={location}")), &headers).await;
            let (status, told) = (answer.status(), answer.headers().get("location").cloned());
            viewer::read(answer).await.unwrap();
            match to {
                Some(to) => {
                    let told = told.unwrap();
                    assert!(status == 302 && told.to_str().unwrap().ends_with(&to), "{location}: {told:?}");
                }
                None => assert!(status == 502 && told.is_none(), "{location}: {status} {told:?}"),
            }
        }

        // Whoever asks for something that could act gets nothing, and home hears nothing.
        let asked = world.legacy.records().await.requests("/api/v1/media").len();
        for dest in ["document", "iframe", "frame", "object", "embed", "script", "style", "worker", "serviceworker"] {
            let answer = viewer.get(&path("type=text%2Fhtml"), &[headers[0], ("sec-fetch-dest", dest)]).await;
            assert_eq!(answer.status(), 403, "{dest}");
            viewer::read(answer).await.unwrap();
        }
        // Pages of other origins ride on nobody's cookie.
        let cookie = world.hub.api().login_as_browser("owner").await.header("cookie").unwrap().to_owned();
        for site in ["cross-site", "same-site"] {
            let answer = viewer.get(&path(""), &[("cookie", &cookie), ("sec-fetch-site", site)]).await;
            assert_eq!(answer.status(), 403, "{site}");
            viewer::read(answer).await.unwrap();
        }
        assert_eq!(world.legacy.records().await.requests("/api/v1/media").len(), asked);
    });
}
