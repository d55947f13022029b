//! Edges: who they are, what they may ask, what they are believed (trust s.1, s.9; architecture s.5, s.7).

use ::http::Method;
use phlix_protocol::b64;
use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::InstanceId;
use phlix_protocol::keys::SigningKey;
use phlix_protocol::token::{self, EdgeIdentity, Presence, Scope, ViewerTicket};
use phlix_protocol::uplink::{
    Credential, EdgeRole, EdgeStatus, ExchangeRequest, OpenedTunnel, Register, RenewRequest, Route, ServerKind, paths,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::actors::{HomeServer, RelayEdge, later, tunnel};
use super::world::{PASSWORD, Person, Reply, World, both_engines};
use crate::app::edge_identity::{ByKey, EdgeAuth as _, IdentityError};
use crate::app::{edges, keys};
use crate::domain::key::Purpose;
use crate::store;

/// What `GET /api/v1/me/servers` says of the tunnel.
async fn is_present(world: &World, owner: &Person) -> bool {
    let mine = world.client().bearer(&owner.access).get("/api/v1/me/servers").await.json();
    let info = &mine["servers"][0];
    assert_eq!(info["relayActive"], info["relay_active"]);
    info["relayActive"] == true
}

async fn host_of(world: &World, owner: &Person) -> String {
    let mine = world.client().bearer(&owner.access).get("/api/v1/me/servers").await.json();
    mine["servers"][0]["relay_hostname"].as_str().unwrap().to_owned()
}

/// An outer edge: there is no way to get one yet but by hand.
pub(super) async fn outer(world: &World, seed: u8, status: EdgeStatus) -> RelayEdge {
    let edge = RelayEdge::unknown(world, seed);
    let mut conn = world.db().write().await.unwrap();
    let now = world.app().clock.now();
    assert!(store::edges::admit(&mut conn, edge.id, &edge.key.public(), EdgeRole::Outer, status, now).await.unwrap());
    edge
}

fn ticket(world: &World, jwt: &str) -> ViewerTicket {
    let now = world.app().clock.now();
    token::verify(jwt, &world.app().keys.set(Purpose::Relay, now), now.seconds()).unwrap()
}

async fn exchange(edge: &RelayEdge, server: &HomeServer, credential: Credential) -> Reply {
    edge.post(paths::VIEWER_TICKETS, &ExchangeRequest { credential, server_id: server.id() }).await
}

fn bearer(person: &Person) -> Credential {
    Credential::Bearer(person.access.clone())
}

both_engines! {
    async fn the_builtin_edge_registers_at_each_start(world: World) {
        let edge = RelayEdge::core(&world, 7).await;
        for _ in 0..2 {
            let reply = edge.register().await;
            assert_eq!(reply.status, 200, "{reply:?}");
            assert_eq!(reply.json(), json!({"edge_id": edge.id, "role": "core", "status": "approved", "fingerprint": edge.key.kid()}));
        }
        // A new key after the data folder was lost: the process that runs both says so.
        let renewed = RelayEdge { key: SigningKey::from_seed(&[77; 32]), ..edge.clone() };
        assert_eq!(renewed.register().await.status, 401);
        edges::approve_builtin(world.app(), renewed.id, &renewed.key.public()).await.unwrap();
        assert_eq!(renewed.register().await.status, 200);
        assert_eq!(edge.register().await.status, 401, "the old key is over");
        let other = RelayEdge::unknown(&world, 8);
        let taken = edges::approve_builtin(world.app(), other.id, &renewed.key.public()).await;
        assert!(matches!(taken, Err(edges::AdmitError::KeyTaken)));
    }

    async fn what_an_edge_says_of_itself_is_bounded(world: World) {
        let edge = RelayEdge::core(&world, 7).await;
        let good = edge.place();
        let bad = [
            Register { key: SigningKey::from_seed(&[9; 32]).public(), ..good.clone() },
            Register { edge_id: RelayEdge::unknown(&world, 9).id, ..good.clone() },
            Register { names: vec!["a.test".into(); 17], ..good.clone() },
            Register { names: vec!["no host".into()], ..good.clone() },
            Register { addresses: vec![], ..good.clone() },
            Register { addresses: vec!["127.0.0.1:1".into()], ..good.clone() },
            Register { port: 0, ..good.clone() },
            Register { region: "r".repeat(65), ..good.clone() },
            Register { version: "two\nlines".into(), ..good.clone() },
            Register { spki: Some("short".into()), ..good.clone() },
        ];
        for register in bad {
            let reply = edge.post(paths::REGISTER, &register).await;
            assert_eq!(reply.refusal(), (400, "invalid_payload".into()), "{register:?}");
        }
        assert_eq!(edge.post(paths::REGISTER, &json!({})).await.refusal(), (400, "invalid_payload".into()));
    }

    /// The token table at this verifier (promises T1, T3, T24).
    async fn forged_identities_are_refused(world: World) {
        let edge = RelayEdge::core(&world, 7).await;
        let body = serde_json::to_vec(&edge.place()).unwrap();
        let target = paths::REGISTER;
        let good = || edge.identity("POST", target, &body);
        let hmac = {
            let header = json!({"alg": "HS256", "typ": "phlix-edge+jwt"}).to_string();
            let input = format!("{}.{}", b64::encode(header), b64::encode(serde_json::to_vec(&good()).unwrap()));
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, edge.key.public().as_bytes());
            format!("{input}.{}", b64::encode(aws_lc_rs::hmac::sign(&key, input.as_bytes())))
        };
        let unsigned = {
            let header = json!({"alg": "none", "typ": "phlix-edge+jwt"}).to_string();
            format!("{}.{}.", b64::encode(header), b64::encode(serde_json::to_vec(&good()).unwrap()))
        };
        let stranger = RelayEdge::unknown(&world, 9);
        let sign = |identity: &EdgeIdentity| token::sign_self(identity, &edge.key);
        let now = good().iat;
        let table = [
            ("none", unsigned),
            ("HS256 with the public key", hmac),
            ("another key", token::sign_self(&good(), &stranger.key)),
            ("an unknown edge", token::sign_self(&EdgeIdentity { sub: stranger.id, ..good() }, &stranger.key)),
            ("another audience", sign(&EdgeIdentity { aud: "relay-edge".into(), ..good() })),
            ("another method", sign(&EdgeIdentity { htm: "PUT".into(), ..good() })),
            ("another path", sign(&EdgeIdentity { htu: paths::PRESENCE.into(), ..good() })),
            ("another query", sign(&EdgeIdentity { htu: format!("{target}?a=b"), ..good() })),
            ("another body", sign(&EdgeIdentity { bh: Some(b64::encode(Sha256::digest(b"x"))), ..good() })),
            ("no body hash: a viewer's request that the edge passed on", sign(&EdgeIdentity { bh: None, ..good() })),
            ("stale", sign(&EdgeIdentity { iat: now - 91, ..good() })),
            ("of the future", sign(&EdgeIdentity { iat: now + 31, ..good() })),
            ("a long jti", sign(&EdgeIdentity { jti: "j".repeat(129), ..good() })),
            ("another typ", token::sign_self(&Presence { server_id: "00000000-0000-4000-8000-000000000001".parse().unwrap(),
                edge_id: edge.id, tunnel_id: tunnel(1), iat: now }, &edge.key)),
            ("garbage", "a.b.c".to_owned()),
            ("a word", "the core edge".to_owned()),
            ("a megabyte", "x".repeat(1 << 20)),
        ];
        for (name, identity) in table {
            let request = RelayEdge::request(Method::POST, target, body.clone(), Some(&identity));
            let reply = world.client().send_direct(request).await;
            assert_eq!(reply.refusal(), (401, "edge.invalid_identity".into()), "{name}");
        }
        let request = RelayEdge::request(Method::POST, target, body.clone(), None);
        assert_eq!(world.client().send_direct(request).await.status, 401);
        let once = sign(&good());
        let first = RelayEdge::request(Method::POST, target, body.clone(), Some(&once));
        assert_eq!(world.client().send_direct(first).await.status, 200);
        let again = RelayEdge::request(Method::POST, target, body.clone(), Some(&once));
        assert_eq!(world.client().send_direct(again).await.refusal(), (401, "edge.invalid_identity".into()), "replayed");
        let mut twice = RelayEdge::request(Method::POST, target, body.clone(), Some(&sign(&good())));
        twice.headers_mut().append("x-phlix-edge", sign(&good()).parse().unwrap());
        assert_eq!(world.client().send_direct(twice).await.status, 401, "two of them");
    }

    async fn an_identity_is_remembered_for_as_long_as_it_is_believed(world: World) {
        let edge = RelayEdge::core(&world, 7).await;
        let target = "/edge/v1/hosts/a.hub.localhost";
        // Late in a span of the memory, which begins with the first identity.
        edge.get(target).await;
        later(&world, 110).await;
        let identity = EdgeIdentity { iat: edge.identity("GET", target, b"").iat + 30, ..edge.identity("GET", target, b"") };
        let identity = token::sign_self(&identity, &edge.key);
        let send = async || world.client().send_direct(RelayEdge::request(Method::GET, target, vec![], Some(&identity))).await.status;
        assert_eq!(send().await, 404, "believed, and nobody has that name");
        for _ in 0..12 {
            assert_eq!(send().await, 401);
            // Others ask meanwhile, so that the memory moves on.
            edge.get(target).await;
            later(&world, 10).await;
        }
    }

    /// Each question of the directory, asked by who may not.
    async fn edges_get_what_their_role_allows(world: World) {
        let ann = world.sign_up("ann").await;
        let server = HomeServer::native(&world, 1).claimed_by(&ann).await;
        let host = host_of(&world, &ann).await;
        let core = RelayEdge::core(&world, 7).await;
        let outer_edge = outer(&world, 8, EdgeStatus::Approved).await;
        let pending = outer(&world, 9, EdgeStatus::Pending).await;
        let given = exchange(&core, &server, bearer(&ann)).await.json()["ticket"].as_str().unwrap().to_owned();
        let code = json!({"code": "c", "host": host, "verifier": "v"});
        let lookup = format!("/edge/v1/hosts/{host}");

        assert_eq!(pending.register().await.json()["status"], "pending");
        assert_eq!(pending.get(&lookup).await.refusal(), (403, "edge.not_approved".into()));
        assert_eq!(exchange(&pending, &server, bearer(&ann)).await.refusal(), (403, "edge.not_approved".into()));
        assert_eq!(pending.get(paths::BULLETIN).await.refusal(), (403, "edge.not_approved".into()));

        assert_eq!(outer_edge.register().await.json()["role"], "outer");
        assert_eq!(outer_edge.get(&lookup).await.status, 200);
        let refused = (403, "edge.not_trusted".to_owned());
        assert_eq!(exchange(&outer_edge, &server, bearer(&ann)).await.refusal(), refused);
        assert_eq!(exchange(&outer_edge, &server, Credential::Bearer("x".into())).await.refusal(), refused, "and learns nothing of it");
        assert_eq!(outer_edge.post(paths::NAME_CODES, &code).await.refusal(), refused);
        let renewal = outer_edge.post(paths::RENEW_VIEWER_TICKET, &RenewRequest { ticket: given }).await;
        assert_eq!(renewal.refusal(), (401, "auth.invalid_ticket".into()), "another edge's ticket");
        // For people's requests the outer edge's word is not believed either.
        let by_key = ByKey(world.app().edges.clone());
        for (edge, core) in [(&core, true), (&outer_edge, false)] {
            let (head, ()) = ::http::Request::get("/api/v1/me?x=1").body(()).unwrap().into_parts();
            let with_hash = token::sign_self(&edge.identity("GET", "/api/v1/me?x=1", b""), &edge.key);
            assert!(matches!(by_key.identify(&head, &with_hash).await, Err(IdentityError::Invalid)), "its own question's identity");
            let identity = EdgeIdentity { bh: None, ..edge.identity("GET", "/api/v1/me?x=1", b"") };
            let identity = token::sign_self(&identity, &edge.key);
            match by_key.identify(&head, &identity).await {
                Ok(found) => assert!(core && found.0 == edge.id),
                Err(error) => assert!(!core && matches!(error, IdentityError::NotCore), "{error}"),
            }
            assert!(matches!(by_key.identify(&head, &identity).await, Err(IdentityError::Invalid)), "replayed");
        }
    }

    async fn a_revoked_edge_is_believed_nothing(world: World) {
        let ann = world.sign_up("ann").await;
        let edge = RelayEdge::core(&world, 7).await;
        let server = HomeServer::native(&world, 1).claimed_by(&ann).await;
        edge.report(true, vec![server.opened(edge.id, tunnel(1))], vec![]).await;
        assert!(is_present(&world, &ann).await);
        let replica = world.second_replica().await;

        assert!(edges::revoke_edge(&replica, edge.id).await.unwrap());

        assert!(!is_present(&world, &ann).await);
        later(&world, 2).await;
        assert_eq!(edge.register().await.refusal(), (401, "edge.invalid_identity".into()), "at the other replica too");
        let snapshot = crate::app::bulletin::snapshot(world.app()).await.unwrap();
        assert!(snapshot.edges.is_empty());
        assert!(snapshot.revocations.iter().any(|revocation| revocation.selector == phlix_protocol::uplink::Selector::Edge(edge.id)));
        replica.db.close().await;
    }

    async fn a_host_leads_to_its_server(world: World) {
        let ann = world.sign_up("ann").await;
        let edge = RelayEdge::core(&world, 7).await;
        let server = HomeServer::native(&world, 1).claimed_by(&ann).await;
        let host: Hostname = host_of(&world, &ann).await.parse().unwrap();
        let reply = edge.get(&format!("/edge/v1/hosts/{host}")).await;
        let route: Route = serde_json::from_slice(&reply.bytes).unwrap();
        assert_eq!((route.host, route.server_id, route.kind, route.names_port), (host, server.id(), ServerKind::Generic, 443));
        assert!(route.guard_local_paths);
        for unknown in ["nobody.hub.localhost", "127.0.0.1", "a%20b", "%2e%2e"] {
            assert_eq!(edge.get(&format!("/edge/v1/hosts/{unknown}")).await.refusal(), (404, "name.not_found".into()));
        }
    }

    async fn a_core_edge_exchanges_what_a_viewer_shows(world: World) {
        let (ann, bob) = (world.sign_up("ann").await, world.sign_up("bob").await);
        let edge = RelayEdge::core(&world, 7).await;
        let server = HomeServer::native(&world, 1).claimed_by(&ann).await;

        let reply = exchange(&edge, &server, bearer(&ann)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let body = reply.json();
        let given = ticket(&world, body["ticket"].as_str().unwrap());
        assert_eq!((given.edge, given.host, given.scope), (Some(edge.id), None, Scope::Proxy));
        assert_eq!((given.exp - given.iat, body["expires_at"].as_i64()), (7200, Some(given.exp)));
        assert_eq!((&body["kind"], &body["url"]), (&json!("generic"), &json!(format!("https://{}/", host_of(&world, &ann).await))));

        assert_eq!(exchange(&edge, &server, bearer(&bob)).await.refusal(), (403, "server.not_owned".into()));
        let unknown = ExchangeRequest { credential: bearer(&ann), server_id: "00000000-0000-4000-8000-000000000000".parse().unwrap() };
        assert_eq!(edge.post(paths::VIEWER_TICKETS, &unknown).await.refusal(), (404, "server.not_found".into()));
        for credential in [
            Credential::Bearer("nonsense".into()),
            Credential::Bearer(ann.refresh.clone()),
            Credential::Bearer(server.enrollment.clone()),
            Credential::Bearer(body["ticket"].as_str().unwrap().into()),
            Credential::Session("phs_nonsense".into()),
            Credential::Session(ann.access.clone()),
        ] {
            assert_eq!(exchange(&edge, &server, credential).await.refusal(), (401, "auth.invalid_token".into()));
        }
    }

    //= trust s.2.1
    async fn renewing_asks_for_sign_in_and_right_again(world: World) {
        let ann = world.sign_up("ann").await;
        let edge = RelayEdge::core(&world, 7).await;
        let server = HomeServer::native(&world, 1).claimed_by(&ann).await;
        let first = exchange(&edge, &server, bearer(&ann)).await.json()["ticket"].as_str().unwrap().to_owned();
        let renew = async |ticket: &str| edge.post(paths::RENEW_VIEWER_TICKET, &RenewRequest { ticket: ticket.to_owned() }).await;

        later(&world, 3700).await;
        let second = renew(&first).await;
        assert_eq!(second.status, 200, "past the access token's end, within the session: {second:?}");
        let second = ticket(&world, second.json()["ticket"].as_str().unwrap());
        let old = ticket(&world, &first);
        assert_eq!((second.sub, second.sid, second.edge, second.scope), (old.sub, old.sid, old.edge, old.scope));
        assert_eq!(second.exp - second.iat, 7200);

        let program = {
            let login = world.client().post("/api/v1/auth/login", json!({"username": "ann", "password": PASSWORD})).await;
            let access = Person::of(&login).access;
            let path = format!("/api/v1/me/servers/{}/viewer-ticket", server.id());
            world.client().bearer(&access).post(&path, json!({})).await.json()["ticket"].as_str().unwrap().to_owned()
        };
        let invalid = (401, "auth.invalid_ticket".to_owned());
        assert_eq!(renew(&program).await.refusal(), invalid, "a program asks the hub itself");
        assert_eq!(renew(&server.enrollment).await.refusal(), invalid);
        assert_eq!(renew("x").await.refusal(), invalid);

        world.client().post("/api/v1/auth/logout", json!({"refresh_token": ann.refresh})).await;
        assert_eq!(renew(&first).await.refusal(), (401, "auth.invalid_token".into()), "signed out");
        later(&world, 7200).await;
        assert_eq!(renew(&first).await.refusal(), invalid, "expired");
    }

    async fn a_ticket_never_outlives_its_session(world: World) {
        let ann = world.sign_up("ann").await;
        let edge = RelayEdge::core(&world, 7).await;
        let server = HomeServer::native(&world, 1).claimed_by(&ann).await;
        let mut held = exchange(&edge, &server, bearer(&ann)).await.json()["ticket"].as_str().unwrap().to_owned();
        let session_end = ticket(&world, &held).iat + 604_800;
        // Renewed each hour and a half, a browser's ticket comes to its session's last day.
        for _ in 0..((604_800 / 5400) - 1) {
            later(&world, 5400).await;
            let renewed = edge.post(paths::RENEW_VIEWER_TICKET, &RenewRequest { ticket: held }).await;
            assert_eq!(renewed.status, 200, "{renewed:?}");
            held = renewed.json()["ticket"].as_str().unwrap().to_owned();
            assert!(ticket(&world, &held).exp <= session_end);
        }
        assert_eq!(ticket(&world, &held).exp, session_end.min(ticket(&world, &held).iat + 7200));
        later(&world, 5400).await;
        let over = edge.post(paths::RENEW_VIEWER_TICKET, &RenewRequest { ticket: held }).await;
        assert_eq!(over.status, 401);
    }

    //= trust s.3
    async fn presence_needs_the_agents_word(world: World) {
        let ann = world.sign_up("ann").await;
        let edge = RelayEdge::core(&world, 7).await;
        let other_edge = RelayEdge::core(&world, 8).await;
        let server = HomeServer::native(&world, 1).claimed_by(&ann).await;
        let stranger = HomeServer { key: SigningKey::from_seed(&[9; 32]), ..server.clone() };
        let state = |statement: Option<String>| vec![OpenedTunnel { server_id: server.id(), tunnel_id: tunnel(1), statement, legacy: None }];
        let signed = |presence: &Presence| state(Some(token::sign_self(presence, &server.key)));
        let word = server.states(edge.id, tunnel(1));
        let lies = [
            ("no word", state(None)),
            ("garbage", state(Some("x".into()))),
            ("another key", state(Some(token::sign_self(&word, &stranger.key)))),
            ("another edge's tunnel", signed(&server.states(other_edge.id, tunnel(1)))),
            ("another tunnel", signed(&server.states(edge.id, tunnel(2)))),
            ("another server", signed(&Presence { server_id: "00000000-0000-4000-8000-000000000000".parse().unwrap(), ..word.clone() })),
            ("an old word", signed(&Presence { iat: word.iat - 631, ..word.clone() })),
            ("a word of the future", signed(&Presence { iat: word.iat + 31, ..word.clone() })),
            ("a call's signature", state(Some(token::sign_self(&server.signature("POST", "/", b""), &server.key)))),
        ];
        for (name, opened) in lies {
            assert_eq!(edge.report(true, opened, vec![]).await, json!({"full": false}));
            assert!(!is_present(&world, &ann).await, "{name}");
        }
        edge.report(false, signed(&word), vec![]).await;
        assert!(is_present(&world, &ann).await);
        let outer_edge = outer(&world, 9, EdgeStatus::Approved).await;
        let legacy = HomeServer::legacy(&world, 2).claimed_by(&ann).await;
        let legacy_tunnel = || vec![OpenedTunnel { server_id: legacy.id(), tunnel_id: tunnel(3), statement: None, legacy: None }];
        outer_edge.report(true, legacy_tunnel(), vec![]).await;
        let mut conn = world.db().read().await.unwrap();
        let now = world.app().clock.now();
        assert!(!store::presence::has_tunnel(&mut conn, legacy.id(), now).await.unwrap(), "legacy presence only from core edges");
        edge.report(false, legacy_tunnel(), vec![]).await;
        assert!(store::presence::has_tunnel(&mut conn, legacy.id(), now).await.unwrap());
    }

    async fn presence_is_a_lease(world: World) {
        let ann = world.sign_up("ann").await;
        let edge = RelayEdge::core(&world, 7).await;
        let server = HomeServer::native(&world, 1).claimed_by(&ann).await;
        let opened = |number| vec![server.opened(edge.id, tunnel(number))];

        assert_eq!(edge.report(false, opened(1), vec![]).await, json!({"full": true}), "no lease yet: nothing was taken");
        assert!(!is_present(&world, &ann).await);
        assert_eq!(edge.report(true, opened(1), vec![]).await, json!({"full": false}));
        assert!(is_present(&world, &ann).await);
        edge.report(false, opened(2), vec![tunnel(1)]).await;
        assert!(is_present(&world, &ann).await, "the second one is there");
        edge.report(false, vec![], vec![tunnel(2)]).await;
        assert!(!is_present(&world, &ann).await);

        edge.report(false, opened(3), vec![]).await;
        later(&world, 29).await;
        assert!(is_present(&world, &ann).await);
        assert_eq!(edge.report(false, vec![], vec![]).await, json!({"full": false}));
        later(&world, 30).await;
        assert!(!is_present(&world, &ann).await, "silent for 30 s");
        assert_eq!(edge.report(false, vec![], vec![]).await, json!({"full": true}));
        edge.report(true, opened(3), vec![]).await;
        assert!(is_present(&world, &ann).await);
        assert_eq!(edge.report(true, vec![], vec![]).await, json!({"full": false}));
        assert!(!is_present(&world, &ann).await, "a full report is everything");

        edge.report(true, opened(4), vec![]).await;
        let restarted = RelayEdge { instance: InstanceId::new(Uuid::from_bytes([70; 16])), ..edge.clone() };
        assert_eq!(restarted.report(false, vec![], vec![]).await, json!({"full": true}));
        restarted.report(true, vec![], vec![]).await;
        assert!(!is_present(&world, &ann).await, "a new life of the edge ends what the old one had");
    }

    async fn an_agents_word_is_believed_for_ten_minutes(world: World) {
        let ann = world.sign_up("ann").await;
        let edge = RelayEdge::core(&world, 7).await;
        let server = HomeServer::native(&world, 1).claimed_by(&ann).await;
        edge.report(true, vec![server.opened(edge.id, tunnel(1))], vec![]).await;
        for _ in 0..31 {
            later(&world, 20).await;
            edge.report(false, vec![], vec![]).await;
        }
        assert!(is_present(&world, &ann).await, "620 s: ten minutes and the skew");
        edge.report(false, vec![server.opened(edge.id, tunnel(1))], vec![]).await;
        later(&world, 20).await;
        edge.report(false, vec![], vec![]).await;
        assert!(is_present(&world, &ann).await, "said again");
        for _ in 0..31 {
            later(&world, 20).await;
            edge.report(false, vec![], vec![]).await;
        }
        assert!(!is_present(&world, &ann).await, "an edge alone can't keep it alive");
    }

    async fn rotated_keys_are_announced_at_once(world: World) {
        let app = world.app();
        let before = crate::app::bulletin::snapshot(app).await.unwrap();
        keys::rotate(&app.db, &app.sealer, &app.config.lives, Purpose::Relay, app.clock.now()).await.unwrap();
        let mut conn = world.db().read().await.unwrap();
        let changes = store::bulletin::after(&mut conn, before.revision).await.unwrap().unwrap();
        let phlix_protocol::uplink::Change::Keys { jwks } = &changes[0].1 else { panic!("{changes:?}") };
        drop(conn);
        app.keys.refresh(&app.db, &app.sealer, app.clock.now()).await.unwrap();
        let kids = |jwks: &phlix_protocol::keys::Jwks| {
            let mut kids: Vec<_> = jwks.keys.iter().map(|jwk| jwk.kid.clone().unwrap()).collect();
            kids.sort();
            kids
        };
        assert_eq!(kids(jwks), kids(&app.keys.jwks(app.clock.now())));
        assert_eq!(jwks.keys.len(), before.jwks.keys.len() + 1);
    }

    //= architecture s.10
    async fn an_edge_is_still_known_while_the_database_is_away(world: World) {
        let edge = RelayEdge::core(&world, 7).await;
        let identify = async |edge: &RelayEdge| {
            let (head, ()) = ::http::Request::get("/app").body(()).unwrap().into_parts();
            let identity = token::sign_self(&EdgeIdentity { bh: None, ..edge.identity("GET", "/app", b"") }, &edge.key);
            ByKey(world.app().edges.clone()).identify(&head, &identity).await
        };
        assert!(identify(&edge).await.is_ok());
        world.db().close().await;
        world.advance(std::time::Duration::from_secs(3600));
        assert!(identify(&edge).await.is_ok(), "its word about the viewer, for what is answered from memory");
        let unknown = identify(&RelayEdge::unknown(&world, 8)).await;
        assert!(matches!(unknown, Err(IdentityError::Store(_))), "{unknown:?}");
        let question = edge.get("/edge/v1/hosts/a.hub.localhost").await;
        assert_eq!((question.status, question.header("retry-after")), (503, Some("5")));
    }
}
