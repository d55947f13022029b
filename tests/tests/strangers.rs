//! Who is let in at a protected name: the owner by a ticket, nobody by anything else.

#![allow(clippy::unwrap_used)]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use phlix_tests::agent::Agent;
use phlix_tests::origin::home::Home;
use phlix_tests::viewer::Protocol;
use phlix_tests::world::{self, claim};
use phlix_tests::{Engine, World, on_both_databases, story, until};
use serde_json::{Value, json};

const TICKET: &str = "x-phlix-ticket";

on_both_databases!(
    only_the_owner_gets_a_ticket,
    the_proxy_path_tells_to_use_the_name,
    an_open_name_lets_everybody_in_until_it_is_closed,
);

async fn only_the_owner_gets_a_ticket(engine: Engine) {
    let home = Home::start();
    let world = World::start(engine, &home.url()).await;
    let stranger = world.hub.api().register("stranger").await;
    let server = &world.server.id;
    for (method, path) in [
        (http::Method::POST, format!("/api/v1/me/servers/{server}/viewer-ticket")),
        (http::Method::GET, format!("/api/v1/me/servers/{server}/access-info")),
        (http::Method::GET, format!("/api/v1/me/servers/{server}")),
        (http::Method::DELETE, format!("/api/v1/me/servers/{server}")),
    ] {
        let body = json!({});
        let body = (method == http::Method::POST).then_some(&body);
        stranger.call(method.clone(), &path, body).await.expect_code(403, "server.not_owned");
        let nobody = world.hub.api().call(method.clone(), &path, body).await;
        assert_eq!(nobody.status, 401, "{method} {path}: {}", nobody.body);
    }
    assert_eq!(ask(&world, &[(TICKET, &world.ticket().await)]).await, 200);
}

async fn an_open_name_lets_everybody_in_until_it_is_closed(engine: Engine) {
    let home = Home::start();
    let world = World::start(engine, &home.url()).await;
    let stranger = world.hub.api().register("stranger").await;
    let path = format!("/api/v1/me/servers/{}/names/{}", world.server.id, world.server.host);
    let access = async |who: &phlix_tests::api::Api, access: &str| {
        who.call(http::Method::PUT, &path, Some(&json!({ "access": access }))).await
    };
    access(&stranger, "open").await.expect_code(403, "server.not_owned");
    assert_eq!(ask(&world, &[]).await, 401);

    // The agent must hear it from the hub before it believes the edge: a moment.
    access(&world.owner, "open").await.expect(200);
    let limit = std::time::Duration::from_secs(10);
    until("the open name is open", limit, || async { (ask(&world, &[]).await == 200).then_some(()) }).await;
    // The origin's own login guards it now.
    let mut viewer = world.viewer(Protocol::H2).await;
    assert_eq!(viewer.get("/video.mp4", &[("accept", "video/mp4")]).await.status(), 401);
    assert_eq!(viewer.get("/open/video.mp4", &[]).await.status(), 200);

    access(&world.owner, "protected").await.expect(200);
    until("the name is protected again", limit, || async { (ask(&world, &[]).await == 401).then_some(()) }).await;
    assert_eq!(access(&world.owner, "ajar").await.status, 400);
}

async fn the_proxy_path_tells_to_use_the_name(engine: Engine) {
    let home = Home::start();
    let world = World::start(engine, &home.url()).await;
    let stranger = world.hub.api().register("stranger").await;
    let path = format!("/api/v1/servers/{}/proxy/api/v1/media", world.server.id);
    let told = world.owner.get(&path).await;
    assert_eq!(told.status, 409, "{}", told.body);
    assert_eq!(told.body["code"], "server.use_name");
    assert!(told.body.to_string().contains(&world.server.host), "without the URL: {}", told.body);
    assert_eq!(world.hub.api().get(&path).await.status, 401);
    let refused = stranger.get(&path).await;
    assert!(matches!(refused.status.as_u16(), 403 | 404), "{}", refused.body);
    assert!(home.seen().is_empty());
}

#[test]
fn whoever_has_no_ticket_is_sent_to_sign_in_or_refused() {
    story(async {
        let home = Home::start();
        let world = World::start(Engine::Sqlite, &home.url()).await;
        for protocol in Protocol::BOTH {
            let mut viewer = world.viewer(protocol).await;
            assert_eq!(viewer.get("/echo", &[("accept", "application/json")]).await.status(), 401);
            let page = viewer
                .get(
                    "/player?a=b",
                    &[("accept", "text/html,*/*"), ("sec-fetch-dest", "document"), ("sec-fetch-mode", "navigate")],
                )
                .await;
            assert_eq!(page.status(), 302, "{protocol:?}");
            let to = page.headers()["location"].to_str().unwrap().to_owned();
            assert!(to.contains("/.phlix/start") || to.contains("/authorize-name"), "{to}");
        }
        assert!(home.seen().is_empty(), "nothing reaches the origin unasked");
    });
}

#[test]
fn no_other_credential_of_the_hub_opens_a_name() {
    story(async {
        let home = Home::start();
        let world = World::start(Engine::Sqlite, &home.url()).await;
        let session = world
            .hub
            .api()
            .post(
                "/api/v1/auth/login",
                &json!({ "username": "owner", "password": phlix_tests::api::password("owner") }),
            )
            .await
            .expect(200);
        // The owner's second server: a good ticket, for somewhere else.
        let mut other_agent = Agent::start(&world.hub.ready().public_url, &home.url());
        let other = claim(&world.owner, &mut other_agent).await;
        let elsewhere = world::ticket(&world.owner, &other.id).await;
        let access = session["access_token"].as_str().unwrap();
        let refresh = session["refresh_token"].as_str().unwrap();
        let good = world.ticket().await;
        for (name, value) in [
            (TICKET, access.to_owned()),
            (TICKET, refresh.to_owned()),
            (TICKET, elsewhere.clone()),
            (TICKET, format!("Bearer {good}")),
            (TICKET, String::new()),
            (TICKET, "x".repeat(4000)),
            ("authorization", format!("Bearer {access}")),
            ("authorization", format!("Bearer {good}")),
            ("cookie", format!("__Host-phlix-s={access}")),
            ("cookie", format!("__Host-phlix-v={elsewhere}")),
            ("cookie", format!("__Host-phlix-v={access}")),
        ] {
            assert_eq!(ask(&world, &[(name, &value)]).await, 401, "{name}: {}...", &value[..value.len().min(20)]);
        }
        // A good one beside a bad one is not a guess to be made.
        assert_ne!(ask(&world, &[(TICKET, &good), (TICKET, &elsewhere)]).await, 200);
        assert!(home.seen().is_empty());
        assert_eq!(ask(&world, &[(TICKET, &good)]).await, 200);
    });
}

#[test]
fn forged_tickets_are_refused() {
    story(async {
        let home = Home::start();
        let world = World::start(Engine::Sqlite, &home.url()).await;
        let good = world.ticket().await;
        let keys = world.hub.api().get("/.well-known/jwks.json").await.expect(200);
        let public = URL_SAFE_NO_PAD.decode(keys["keys"][0]["x"].as_str().unwrap()).unwrap();
        let kid = keys["keys"][0]["kid"].as_str().unwrap();
        let parts: Vec<&str> = good.split('.').collect();
        let claims: Value = read(parts[1]);
        let header: Value = read(parts[0]);

        let changed = |part: &Value, key: &str, value: Value| {
            let mut part = part.clone();
            part[key] = value;
            part
        };
        let signed_hs256 = |secret: &[u8]| {
            let mut header = Header::new(Algorithm::HS256);
            header.kid = Some(kid.to_owned());
            header.typ = Some("phlix-viewer+jwt".to_owned());
            jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret)).unwrap()
        };
        let with = |header: &Value, claims: &Value, signature: &str| {
            format!("{}.{}.{signature}", write(header), write(claims))
        };
        let unsigned = with(&changed(&header, "alg", json!("none")), &claims, "");
        let mut forged = vec![
            ("alg none", unsigned.clone()),
            ("alg none, old signature", with(&changed(&header, "alg", json!("none")), &claims, parts[2])),
            ("alg a list", with(&changed(&header, "alg", json!(["EdDSA"])), &claims, parts[2])),
            ("HS256 with the public key", signed_hs256(&public)),
            ("HS256 with the public key as text", signed_hs256(keys["keys"][0]["x"].as_str().unwrap().as_bytes())),
            ("kid of nobody", with(&changed(&header, "kid", json!("nobody")), &claims, parts[2])),
            ("kid a path", with(&changed(&header, "kid", json!("../../etc/passwd")), &claims, parts[2])),
            ("kid of 3 KiB", with(&changed(&header, "kid", json!("k".repeat(3000))), &claims, parts[2])),
            ("jku", with(&changed(&header, "jku", json!("http://127.0.0.1:1/")), &claims, parts[2])),
            ("no signature", format!("{}.{}.", parts[0], parts[1])),
            ("no claims", format!("{}..{}", parts[0], parts[2])),
            ("four parts", format!("{good}.x")),
            ("padding", format!("{good}=")),
        ];
        for (name, value) in [("typ", json!("JWT")), ("typ", json!("phlix-tunnel+jwt"))] {
            forged.push(("header changed", with(&changed(&header, name, value), &claims, parts[2])));
        }
        for (name, value) in [
            ("aud", json!("hub")),
            ("iss", json!("someone")),
            ("exp", json!(4_102_444_800_u64)),
            ("server_id", json!("00000000-0000-4000-8000-000000000000")),
            ("sub", json!("00000000-0000-4000-8000-000000000000")),
            ("host", json!("another.hub.localhost")),
            ("perm", json!("readwrite")),
        ] {
            forged.push(("claim changed", with(&header, &changed(&claims, name, value), parts[2])));
        }
        for (what, ticket) in &forged {
            assert_eq!(ask(&world, &[(TICKET, ticket)]).await, 401, "{what}: {ticket}");
            assert_eq!(ask(&world, &[("cookie", &format!("__Host-phlix-v={ticket}"))]).await, 401, "{what}: {ticket}");
        }
        assert!(home.seen().is_empty(), "a forged ticket reached the origin");
        assert_eq!(ask(&world, &[(TICKET, &good)]).await, 200);
    });
}

#[test]
fn an_unclaimed_server_is_closed_within_two_seconds() {
    story(async {
        let home = Home::start();
        let world = World::start(Engine::Sqlite, &home.url()).await;
        let ticket = world.ticket().await;
        let mut viewer = world.viewer(Protocol::H1).await;
        let running = viewer.get("/endless", &[(TICKET, &ticket)]).await;
        assert_eq!(running.status(), 200);

        let path = format!("/api/v1/me/servers/{}", world.server.id);
        let gone = world.owner.call(http::Method::DELETE, &path, None).await;
        assert!(gone.status.is_success(), "{}: {}", gone.status, gone.body);
        let unclaimed = std::time::Instant::now();
        // The transfer that runs is cut, and no new one begins.
        let cut = tokio::time::timeout(std::time::Duration::from_secs(10), phlix_tests::viewer::read(running)).await;
        assert!(cut.expect("the transfer goes on").is_err());
        let after = unclaimed.elapsed();
        assert!(after < std::time::Duration::from_secs(2), "cut after {after:?}");
        assert_ne!(ask(&world, &[(TICKET, &ticket)]).await, 200);
    });
}

/// The status of a small request with these headers.
async fn ask(world: &World, headers: &[(&str, &str)]) -> u16 {
    let mut viewer = world.viewer(Protocol::H1).await;
    let mut all = vec![("accept", "application/json")];
    all.extend_from_slice(headers);
    viewer.get("/echo", &all).await.status().as_u16()
}

fn read(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn write(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}
