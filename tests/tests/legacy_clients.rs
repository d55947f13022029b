//! The calls of Phlix clients that exist: the browser's and Windows' UI, the mobile app, Roku's. End to end: hub, tunnel,
//! media server.

#![allow(clippy::unwrap_used)]

use http::Method;
use phlix_tests::api::{Api, password};
use phlix_tests::legacy::{EXAMPLE, FILMS, LegacyWorld, header};
use phlix_tests::{Engine, on_both_databases, story};
use serde_json::{Value, json};

on_both_databases!(
    the_mobile_app_signs_in_and_browses,
    roku_signs_in_and_lists,
    the_browser_browses_and_keeps_its_state
);

/// `phlix-mobile-client`: `user_id` at the top, servers in snake_case, media under `/api/v1/relay/{id}`.
async fn the_mobile_app_signs_in_and_browses(engine: Engine) {
    let world = LegacyWorld::start(engine).await;
    let app = world.hub.api();
    let session = signed_in(&app).await;
    let me = session["user"]["id"].clone();
    assert_eq!(session["user_id"], me, "{session}");
    assert!(session["expires_in"].is_u64(), "{session}");
    let app = app.with_bearer(session["access_token"].as_str().unwrap());

    let listed = app.get("/api/v1/me/servers").await.expect(200);
    let server = &listed["servers"][0];
    assert_eq!(server["server_id"], world.server, "{listed}");
    for field in ["server_name", "version", "status", "hostname"] {
        assert!(server[field].is_string(), "{field}: {server}");
    }
    assert!(server["capabilities"].is_array(), "{server}");
    // Beside what the browser reads.
    assert_eq!(server["serverId"], server["server_id"]);
    assert_eq!(server["serverName"], server["server_name"]);

    let app = app.with_header("x-server-id", &world.server);
    let relay = |path: &str| format!("/api/v1/relay/{}{path}", world.server);
    let libraries = app.get(&relay("/api/v1/libraries")).await.expect(200);
    assert_eq!(libraries["libraries"][0]["id"], FILMS, "{libraries}");
    let listed = app.get(&relay(&format!("/api/v1/media?libraryId={FILMS}&limit=1"))).await.expect(200);
    assert_eq!((&listed["total"], listed["items"].as_array().unwrap().len()), (&json!(2), 1), "{listed}");
    let detail = app.get(&relay(&format!("/api/v1/media/{EXAMPLE}"))).await.expect(200);
    assert_eq!(detail["item"]["library_id"], FILMS);
    app.post(&relay(&format!("/api/v1/media/{EXAMPLE}/favorite")), &json!({})).await.expect(200);
    let records = world.legacy.records().await;
    assert_eq!(records.last(&format!("/api/v1/media/{EXAMPLE}/favorite"))["user"], me);
    records.unharmed();

    // Refresh, and once more with what came.
    let refresh = json!({ "refresh_token": session["refresh_token"] });
    let refreshed = world.hub.api().post("/api/v1/auth/refresh", &refresh).await.expect(200);
    assert_eq!(refreshed["user_id"], me, "{refreshed}");
    let app = world.hub.api().with_bearer(refreshed["access_token"].as_str().unwrap());
    app.get(&relay("/api/v1/libraries")).await.expect(200);
}

/// `HubAuth.brs`: tokens at the top or under `body`, servers under `body` alone.
async fn roku_signs_in_and_lists(engine: Engine) {
    let world = LegacyWorld::start(engine).await;
    let roku = world.hub.api().with_header("user-agent", "Roku/DVP-14.5 (14.5.0.2090-AQ)");
    let session = signed_in(&roku).await;
    let read = |name: &str| if session[name].is_null() { session["body"][name].clone() } else { session[name].clone() };
    assert_eq!(read("user_id"), session["user"]["id"], "{session}");
    for field in ["access_token", "refresh_token", "expires_in"] {
        assert!(!read(field).is_null(), "{field}: {session}");
    }
    let roku = roku.with_bearer(read("access_token").as_str().unwrap());
    let listed = roku.get("/api/v1/me/servers").await.expect(200);
    assert_eq!(listed["body"]["servers"][0]["server_id"], world.server, "{listed}");
    // Others get no second list.
    let others = world.owner.get("/api/v1/me/servers").await.expect(200);
    assert!(others["body"].is_null(), "{others}");
}

/// `@phlix/ui`: base `/api/v1/servers/{id}/proxy`, posters by the cookie alone, device headers.
async fn the_browser_browses_and_keeps_its_state(engine: Engine) {
    let world = LegacyWorld::start(engine).await;
    let page = world.hub.api().login_as_browser("owner").await.with_header("sec-fetch-site", "same-origin");
    let me = page.get("/api/v1/auth/me").await.expect(200);
    assert!(me["user"]["id"].is_string(), "{me}");
    let page = page.with_header("x-phlix-device-id", "a browser").with_header("x-phlix-device-name", "Firefox");

    let query = format!("libraryId={FILMS}&sort=date_added&order=desc&topLevel=1&genres[]=Drama&search=example");
    let listed = page.get(&world.path(&format!("/api/v1/media?{query}"))).await.expect(200);
    assert_eq!(listed["total"], 1, "{listed}");
    let records = world.legacy.records().await;
    let seen = records.last("/api/v1/media");
    assert_eq!(seen["query"], query, "the query is forwarded byte for byte");
    assert_eq!(header(seen, "x-phlix-device-id"), Some("a browser"));
    assert_eq!(header(seen, "cookie"), None);

    for path in [
        "/api/v1/libraries".to_owned(),
        format!("/api/v1/libraries/{FILMS}"),
        format!("/api/v1/libraries/{FILMS}/items?type=movie&limit=20&offset=0"),
        format!("/api/v1/libraries/{FILMS}/collections"),
        "/api/v1/media/letter-index".to_owned(),
        "/api/v1/media/facets".to_owned(),
        "/api/v1/media/index?field=name".to_owned(),
        "/api/v1/media/search?q=big%20file".to_owned(),
        format!("/api/v1/media/{EXAMPLE}"),
        format!("/api/v1/media/{EXAMPLE}/playback"),
        format!("/api/v1/media/{EXAMPLE}/playback-info"),
        format!("/api/v1/media/{EXAMPLE}/chapters"),
        format!("/api/v1/media/{EXAMPLE}/trickplay"),
        "/api/v1/collections".to_owned(),
        "/api/v1/music/artists".to_owned(),
        "/api/v1/music/tracks".to_owned(),
        format!("/trickplay/{EXAMPLE}/timeline.json"),
        "/api/v1/cast/devices".to_owned(),
    ] {
        let answer = page.get(&world.path(&path)).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert_eq!(answer.headers["content-type"], "application/json", "{path}");
    }

    let poster = page.with_header("sec-fetch-dest", "image");
    let url = listed["items"][0]["poster_url"].as_str().unwrap();
    let image = poster.get(&world.path(url)).await;
    assert_eq!((image.status.as_u16(), image.headers["content-type"].as_bytes()), (200, &b"image/png"[..]));

    // State is the user's own; writes by cookie come from the hub's own pages alone.
    let write = |method, path: String, body: Value| {
        let page = page.with_header("origin", &page.origin());
        async move { page.call(method, &path, Some(&body)).await }
    };
    let item = |act: &str| world.path(&format!("/api/v1/media/{EXAMPLE}/{act}"));
    write(Method::POST, item("watched"), json!({})).await.expect(200);
    write(Method::PUT, item("rating"), json!({ "rating": 4 })).await.expect(200);
    write(Method::PUT, item("like"), json!({ "level": 2 })).await.expect(200);
    let made = write(Method::POST, world.path("/api/v1/playlists"), json!({ "name": "Später" })).await.expect(201);
    assert_eq!(made["collection"]["name"], "Später", "a body's bytes changed");
    let detail = page.get(&world.path(&format!("/api/v1/media/{EXAMPLE}"))).await.expect(200);
    let state = json!({ "favorite": false, "rating": 4, "like_level": 2, "watched": true });
    assert_eq!(detail["item"]["user_data"], state);
    let forged = page.with_header("origin", "https://elsewhere.example").post(&item("unwatched"), &json!({})).await;
    assert_eq!(forged.status, 403, "{}", forged.body);

    let job = write(Method::POST, format!("{}?profile=mobile", item("transcode")), json!({})).await.expect(200);
    let master = page.get(&world.path(job["master_url"].as_str().unwrap())).await;
    assert_eq!(master.headers["content-type"], "application/vnd.apple.mpegurl");
    let status = format!("/api/v1/transcode/{}/status", job["job_id"].as_str().unwrap());
    assert_eq!(page.get(&world.path(&status)).await.expect(200)["playlist_ready"], true);
    let manifest = page.get(&world.path(job["dash_url"].as_str().unwrap())).await;
    assert_eq!(
        (manifest.status.as_u16(), &manifest.headers["content-type"]),
        (200, &"application/dash+xml".parse().unwrap())
    );
    world.legacy.records().await.unharmed();
}

/// Pages and signposts that servers, mails and bookmarks lead to.
#[test]
fn old_addresses_lead_on() {
    story(async {
        let world = LegacyWorld::start(Engine::Sqlite).await;
        let nobody = world.hub.api();
        for (from, to) in [
            ("/", "/app/servers"),
            ("/login", "/app/login"),
            ("/signup", "/app/signup"),
            ("/my-servers", "/app/servers"),
            ("/manage-shares", "/app/shares"),
            ("/hub-settings", "/app/admin/settings"),
            ("/invite/abc", "/app/invite/abc"),
        ] {
            let answer = nobody.get(from).await;
            assert!(answer.status.is_redirection(), "{from}: {}", answer.status);
            let location = answer.headers["location"].to_str().unwrap();
            // Pages of signed-in people may lead to the sign-in first.
            assert!(location == to || location.starts_with("/app/login"), "{from} leads to {location}");
        }
        // "Enter this code at {hubUrl}/claim-server".
        let claim = nobody.get("/claim-server?code=ABCD-EFGH").await;
        assert!(claim.status.is_redirection(), "{}", claim.status);
        let location = claim.headers["location"].to_str().unwrap();
        assert!(location.contains("ABCD-EFGH"), "the code is lost: {location}");

        let mount = format!("/client/{}", world.server);
        let signpost = nobody.get(&mount).await;
        assert_eq!(signpost.status, 426, "{}", signpost.body);
        assert!(signpost.headers.contains_key("x-ws-endpoint"));
        assert_eq!(signpost.body["code"], "relay.client_ws_endpoint", "{}", signpost.body);
        assert!(signpost.body["ws_endpoint"].as_str().unwrap().contains(&mount), "{}", signpost.body);
        let relay = nobody.post(&format!("/api/v1/servers/{}/relay", world.server), &json!({})).await;
        assert_eq!(relay.status, 501, "{}", relay.body);
        assert!(relay.headers.contains_key("x-ws-endpoint"));
        for listed in ["/api/v1/me/shares/", "/api/v1/me/invite-links/"] {
            let answer = world.owner.get(listed).await;
            let without = world.owner.get(listed.trim_end_matches('/')).await;
            assert_eq!((answer.status, answer.body), (without.status, without.body), "{listed}");
        }
    });
}

async fn signed_in(app: &Api) -> Value {
    let credentials = json!({ "username": "owner", "password": password("owner") });
    app.post("/api/v1/auth/login", &credentials).await.expect(200)
}
