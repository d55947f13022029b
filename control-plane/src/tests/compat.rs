//! Existing programs, unmodified: each test makes the calls of one of them, byte for byte where that matters, and reads from the
//! replies what it reads (upstream-api s.7).

use ::http::{Method, Request};
use axum::body::Body;
use phlix_protocol::b64;
use phlix_protocol::keys::{Jwks, SigningKey};
use phlix_protocol::token::{self, Enrollment};
use phlix_protocol::uplink::{LegacyOpening, OpenedTunnel};
use serde_json::{Value, json};

use super::actors::{RelayEdge, later, redeem, tunnel, with_protocol};
use super::world::{Client, PASSWORD, Person, Reply, World, both_engines};

/// `HubClient` of an unmodified media server: its headers, PHP's JSON, the base URL that it stored. It speaks plain HTTP where
/// the operator typed `http://`.
struct MediaServer {
    world: World,
    key: SigningKey,
    plain: bool,
    jwt: Option<String>,
    id: String,
}

impl MediaServer {
    fn new(world: &World, seed: u8, plain: bool) -> Self {
        let key = SigningKey::from_seed(&[seed; 32]);
        Self { world: world.clone(), key, plain, jwt: None, id: String::new() }
    }

    async fn send(&self, method: Method, path: &str, body: &str) -> Reply {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("accept-phlix-protocol", "v1")
            .header("content-type", "application/json");
        if let Some(jwt) = &self.jwt {
            request = request.header("authorization", format!("Bearer {jwt}"));
        }
        let client = self.world.client_at("203.0.113.7");
        let client = if self.plain { client.plain() } else { client };
        client.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    /// As `json_encode` writes it: slashes and what is not ASCII are escaped.
    fn application(&self) -> String {
        format!(
            concat!(
                r#"{{"serverName":"Wohnzimmer K\u00fcche","version":"0.31.2","publicKeysJwk":{{"kty":"OKP","crv":"Ed25519","x":"{}","#,
                r#""kid":"server-key","use":"sig","alg":"EdDSA"}},"hostnameCandidates":["http:\/\/192.168.1.5:8096","nas.local:8096"],"#,
                r#""protocolVersion":"v1"}}"#
            ),
            self.key.public().jwk().x
        )
    }

    /// Pairs: asks, shows the code, polls until it is claimed, stores what it was given.
    async fn pair(&mut self, owner: &Person) {
        self.jwt = None;
        let reply = self.send(Method::POST, "/api/v1/server-claims/new", &self.application()).await;
        assert!((200..300).contains(&reply.status), "{reply:?}");
        let opened = reply.json();
        // `is_int()` in PHP: a float or a text would be refused.
        assert!(opened["expiresIn"].is_i64(), "{opened}");
        let (code, claim) = (text(&opened, "claimCode"), text(&opened, "claimId"));
        assert_eq!(text(&opened, "hubBaseUrl"), "https://hub.test", "no slash at its end: paths are joined to it");
        let poll = format!("/api/v1/server-claims/{claim}");
        let pending = self.send(Method::GET, &poll, "").await;
        assert!(!["claimed", "expired"].contains(&text(&pending.json(), "status").as_str()), "{pending:?}");

        assert_eq!(redeem(&self.world, owner, &code).await.status, 200);

        let claimed = self.send(Method::GET, &poll, "").await.json();
        assert_eq!(text(&claimed, "status"), "claimed");
        let again = self.send(Method::GET, &poll, "").await.json();
        assert_eq!(again["server_id"], claimed["server_id"], "a lost reply can be read once more");
        self.jwt = Some(text(&claimed, "enrollment_jwt"));
        self.id = text(&claimed, "server_id");
        assert_eq!(text(&claimed, "hub_jwks_url"), "https://hub.test/.well-known/jwks.json");
    }

    async fn heartbeat(&self) -> Reply {
        let body = format!(
            concat!(
                r#"{{"serverId":"{}","version":"0.31.2","timestamp":{},"uptimeSeconds":3601,"activeSessions":0,"activeTranscodes":0,"#,
                r#""hostnameCandidates":["http:\/\/192.168.1.5:8096"],"#,
                r#""libraries":[{{"library_id":"7c1d","library_name":"Filme & B\u00fccher"}}]}}"#
            ),
            self.id,
            self.world.app().clock.now().seconds()
        );
        self.send(Method::POST, &format!("/api/v1/servers/{}/heartbeat", self.id), &body).await
    }

    /// PHP encodes an empty body as a list.
    async fn renew(&self) -> Reply {
        self.send(Method::POST, &format!("/api/v1/servers/{}/renew", self.id), "[]").await
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is no text in {value}")).to_owned()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// A part of a token, unverified.
fn part(jwt: &str, index: usize) -> Value {
    serde_json::from_slice(&b64::decode(jwt.split('.').nth(index).unwrap()).unwrap()).unwrap()
}

both_engines! {
    async fn a_media_server_pairs_beats_renews_and_takes_its_name(world: World) {
        for (seed, plain, owner) in [(1, false, "ann"), (2, true, "bob")] {
            let owner = world.sign_up(owner).await;
            let mut server = MediaServer::new(&world, seed, plain);
            server.pair(&owner).await;

            // What is in the credential, exactly.
            let jwt = server.jwt.clone().unwrap();
            let (header, claims) = (part(&jwt, 0), part(&jwt, 1));
            assert_eq!((keys(&header), &header["alg"], &header["typ"]), (vec!["alg", "kid", "typ"], &json!("EdDSA"), &json!("JWT")));
            assert_eq!(keys(&claims), ["aud", "exp", "hub_base_url", "iat", "iss", "kid", "server_id", "sub"]);
            assert_eq!((&claims["iss"], &claims["aud"], &claims["kid"]), (&json!("phlix-hub"), &json!("server"), &header["kid"]));
            assert_eq!((&claims["sub"], &claims["server_id"]), (&json!(server.id), &json!(server.id)));
            assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 604_800);
            // Its key is published where the server was told.
            let published = world.client().get("/.well-known/jwks.json").await;
            assert_eq!(published.header("cache-control"), Some("public, max-age=3600"));
            let jwks: Jwks = serde_json::from_slice(&published.bytes).unwrap();
            let now = world.app().clock.now().seconds();
            assert!(token::verify::<Enrollment>(&jwt, &jwks.key_set(), now).is_ok());

            let beat = server.heartbeat().await;
            assert_eq!((beat.status, beat.text().as_str()), (200, r#"{"status":"ok"}"#));
            // On the sixth day, before the next heartbeat.
            for _ in 0..6 {
                later(&world, 86_400).await;
            }
            let renewed = server.renew().await;
            assert_eq!((renewed.status, keys(&renewed.json())), (200, vec!["enrollment_jwt", "expires_in"]), "{renewed:?}");
            assert!(renewed.json()["expires_in"] == 604_800 && renewed.json()["expires_in"].is_i64());
            assert_eq!(server.heartbeat().await.status, 200, "the old one is good until it expires");
            server.jwt = Some(text(&renewed.json(), "enrollment_jwt"));
            assert_eq!(server.heartbeat().await.status, 200);

            let target = format!("/api/v1/servers/{}/subdomain", server.id);
            let named = server.send(Method::POST, &target, "[]").await;
            assert_eq!(named.status, 200, "exactly: {named:?}");
            assert_eq!(text(&named.json(), "fqdn"), format!("{}.hub.localhost", text(&named.json(), "subdomain")));
            assert_eq!(named.json()["tls_cert_path"], "");
            assert_eq!(server.send(Method::DELETE, &target, "").await.status, 204, "exactly");
        }
        let page = world.client().plain().get("/claim-server").await;
        assert_eq!(page.status, 302, "where its command line sends people");
    }

    async fn a_media_server_whose_week_is_over_pairs_again_into_the_same_server(world: World) {
        let ann = world.sign_up("ann").await;
        let mut server = MediaServer::new(&world, 1, false);
        server.pair(&ann).await;
        let id = server.id.clone();
        for _ in 0..8 {
            later(&world, 86_400).await;
        }
        // Only the status is looked at; older ones look for the literal too.
        let expired = server.heartbeat().await;
        assert_eq!((expired.status, text(&expired.json(), "error")), (401, "ENROLLMENT_TOKEN_EXPIRED".into()));
        assert_eq!(server.renew().await.status, 401);
        let back = world.client().post("/api/v1/auth/login", json!({"username": "ann", "password": PASSWORD})).await;
        let ann = Person::of(&back);
        server.pair(&ann).await;
        assert_eq!(server.id, id);
        assert_eq!(server.heartbeat().await.status, 200);
        let mine = world.client().bearer(&ann.access).get("/api/v1/me/servers").await.json();
        assert_eq!(mine["servers"].as_array().unwrap().len(), 1, "no second row");
    }

    /// Else its owner's "end all credentials" would lock it out for ever.
    async fn a_media_server_pairs_again_after_its_credentials_were_ended(world: World) {
        let ann = world.sign_up("ann").await;
        let mut server = MediaServer::new(&world, 1, false);
        server.pair(&ann).await;
        let old = server.jwt.clone();
        let roll = format!("/api/v1/me/servers/{}/roll-credentials", server.id);
        assert_eq!(world.client().bearer(&ann.access).post(&roll, json!({})).await.status, 204);
        assert_eq!(server.heartbeat().await.status, 401);

        server.pair(&ann).await;
        assert_eq!(server.heartbeat().await.status, 200);
        let renewed = server.renew().await.json();
        let new = server.jwt.replace(text(&renewed, "enrollment_jwt"));
        assert_eq!(server.heartbeat().await.status, 200, "renewed");
        server.jwt = old;
        assert_eq!(server.heartbeat().await.status, 401, "the old one stays ended");
        assert_eq!(part(&new.unwrap(), 1)["gen"], 1);
    }

    async fn the_mobile_app_signs_in_and_lists_servers(world: World) {
        let ann = world.sign_up("ann").await;
        let mut server = MediaServer::new(&world, 1, false);
        server.pair(&ann).await;
        let app = world.client();
        let session = app.post("/api/v1/auth/login", json!({"username": "ann", "password": PASSWORD})).await;
        assert_eq!(session.status, 200);
        let read = |session: &Value| {
            assert!(session["expires_in"].is_i64(), "{session}");
            assert_eq!(session["token_type"], "Bearer");
            assert_eq!(text(session, "user_id"), ann.id);
            (text(session, "access_token"), text(session, "refresh_token"))
        };
        let (_, refresh) = read(&session.json());
        let refreshed = app.post("/api/v1/auth/refresh", json!({"refresh_token": refresh})).await;
        assert_eq!(refreshed.status, 200);
        let (access, _) = read(&refreshed.json());

        let list = app.bearer(&access).get("/api/v1/me/servers").await.json();
        let item = &list["servers"][0];
        assert_eq!(text(item, "server_id"), server.id);
        assert_eq!(text(item, "server_name"), "Wohnzimmer K\u{fc}che");
        assert_eq!((text(item, "version"), text(item, "status")), ("0.31.2".into(), "online".into()));
        assert_eq!(text(item, "hostname"), "http://192.168.1.5:8096");
        assert!(text(item, "relay_hostname").ends_with(".hub.localhost"));
        assert!(item["capabilities"].is_array());
    }

    /// `@phlix/ui`: the browser, Windows and Tizen apps.
    async fn the_ui_package_registers_claims_and_manages(world: World) {
        let devices = |client: Client| {
            client
                .header("x-phlix-device-id", "d1")
                .header("x-phlix-device-name", "Living room TV")
                .header("x-phlix-device-type", "tizen")
                .header("x-phlix-session-id", "s1")
        };
        let form = json!({"email": "eve@mail.example", "username": "eve", "password": PASSWORD});
        let session = devices(world.client()).post("/api/v1/auth/register", form).await;
        assert_eq!(session.status, 201);
        let session = session.json();
        for key in ["id", "username", "email", "display_name", "created_at", "updated_at"] {
            text(&session["user"], key);
        }
        assert_eq!(session["user"]["is_admin"], 1, "an int, and the first one is administrator");
        assert_eq!((&session["claims"]["type"], &session["claims"]["sub"]), (&json!("access"), &session["user"]["id"]));
        let eve = Person {
            id: text(&session["user"], "id"),
            access: text(&session, "access_token"),
            refresh: text(&session, "refresh_token"),
            is_admin: true,
        };
        let client = devices(world.client().bearer(&eve.access));
        assert_eq!(text(&client.get("/api/v1/auth/me").await.json()["user"], "username"), "eve");

        // The form of claiming tells the cases apart by status.
        let mut server = MediaServer::new(&world, 1, false);
        server.pair(&eve).await;
        let claim = with_protocol(client.clone());
        let typed = async |code: &str| claim.post("/api/v1/server-claims/claim", json!({"claim_code": code})).await.status;
        assert_eq!((typed("ABCD-EFGH").await, typed("").await), (404, 400));

        let opening = LegacyOpening { tls: true, address: "203.0.113.7".parse().unwrap() };
        let opened = OpenedTunnel { server_id: server.id.parse().unwrap(), tunnel_id: tunnel(1), statement: None, legacy: Some(opening) };
        RelayEdge::core(&world, 7).await.report(true, vec![opened], vec![]).await;
        server.heartbeat().await;
        let item = client.get("/api/v1/me/servers").await.json()["servers"][0].clone();
        for key in ["serverId", "userId", "serverName", "version", "status", "subdomain"] {
            text(&item, key);
        }
        assert!(item["lastSeenAt"].is_i64() && item["hostnameCandidates"].is_array(), "{item}");
        assert_eq!((&item["relayActive"], &item["libraryCount"]), (&json!(true), &json!(1)));
        let me = client.get("/api/v1/me").await.json();
        assert_eq!((keys(&me), &me["servers"][0]), (vec!["claims", "servers", "user"], &item));

        let path = format!("/api/v1/me/servers/{}", server.id);
        let detail = client.get(&path).await.json();
        for key in ["id", "server_name", "version", "status", "subdomain", "fqdn"] {
            text(&detail["server"], key);
        }
        assert!(detail["server"]["last_seen_at"].is_i64() && detail["server"]["relay_active"] == true);
        let beat = &detail["heartbeat_history"][0];
        for key in ["uptime_seconds", "active_sessions", "active_transcodes", "received_at"] {
            assert!(beat[key].is_i64(), "{key} in {beat}");
        }
        let access = client.get(&format!("{path}/access-info")).await.json();
        assert_eq!(keys(&access), ["direct_url", "relay_active", "relay_url", "server_id"]);
        assert_eq!(access["relay_url"], format!("https://{}.hub.localhost", text(&item, "subdomain")));
        let relay_token = client.post(&format!("{path}/relay-token"), json!([])).await;
        assert_eq!((relay_token.status, keys(&relay_token.json())), (201, vec!["expires_at", "server_id", "token"]));
        let libraries = client.get(&format!("/api/v1/me/libraries?server_id={}", server.id)).await.json();
        assert_eq!(libraries, json!({"libraries": [{"id": "7c1d", "name": "Filme & B\u{fc}cher"}]}));

        // An access token that is over: one refresh, and the same call again.
        later(&world, 3600).await;
        let over = client.get("/api/v1/me/servers").await;
        assert_eq!((over.status, text(&over.json(), "error")), (401, "Unauthorized".into()));
        let fresh = devices(world.client()).post("/api/v1/auth/refresh", json!({"refresh_token": eve.refresh})).await;
        let client = devices(world.client().bearer(&text(&fresh.json(), "access_token")));
        assert_eq!(client.delete(&path).await.status, 204);
        assert_eq!(client.get("/api/v1/me/servers").await.json(), json!({"servers": []}));
        assert_eq!(server.heartbeat().await.refusal(), (404, "server.not_found".into()));
    }

    async fn the_roku_app_finds_its_list_below_body(world: World) {
        let ann = world.sign_up("ann").await;
        let mut server = MediaServer::new(&world, 1, false);
        server.pair(&ann).await;
        let roku = world.client().header("user-agent", "Roku/DVP-12.0 (12.0.0.4182-88)");
        let session = roku.post("/api/v1/auth/login", json!({"username": "ann", "password": PASSWORD})).await.json();
        assert!(session["expires_in"].is_i64());
        assert_eq!(text(&session, "user_id"), ann.id);
        text(&session, "refresh_token");
        let access = text(&session, "access_token");
        let list = roku.bearer(&access).get("/api/v1/me/servers").await.json();
        assert_eq!(text(&list["body"]["servers"][0], "server_id"), server.id);
        assert_eq!(list["body"]["servers"], list["servers"]);
        let others = world.client().header("user-agent", "Mozilla/5.0 Roku/9").bearer(&access);
        assert_eq!(keys(&others.get("/api/v1/me/servers").await.json()), ["servers"]);
    }
}
