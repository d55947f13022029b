//! What a claimed server does for itself, and what its owner sees and does (upstream-api s.2.3, s.2.4; trust s.2).

use ::http::Method;
use futures_util::future::join_all;
use phlix_protocol::b64;
use phlix_protocol::keys::SigningKey;
use phlix_protocol::token::{
    self, Access, EdgeList, Enrollment, Permission, RequestProof, Scope, TunnelTicket, ViewerTicket,
};
use phlix_protocol::uplink::Selector;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::actors::{HomeServer, RelayEdge, later, redeem, tunnel, with_protocol};
use super::world::{Client, Reply, World, both_engines};
use crate::app::keys;
use crate::domain::key::Purpose;
use crate::store;

fn opened<C: token::HubClaims>(world: &World, purpose: Purpose, jwt: &str) -> C {
    let now = world.app().clock.now();
    token::verify(jwt, &world.app().keys.set(purpose, now), now.seconds()).unwrap()
}

async fn renew(server: &HomeServer) -> Reply {
    server.call(Method::POST, &server.path("/renew"), "[]").await
}

async fn detail(world: &World, access: &str, server: &HomeServer) -> Reply {
    world.client().bearer(access).get(&format!("/api/v1/me/servers/{}", server.id())).await
}

fn part(json: &Value) -> String {
    b64::encode(json.to_string())
}

both_engines! {
    async fn a_heartbeat_is_seen_by_the_owner(world: World) {
        let ann = world.sign_up("ann").await;
        for server in [HomeServer::native(&world, 1).claimed_by(&ann).await, HomeServer::legacy(&world, 2).claimed_by(&ann).await] {
            later(&world, 60).await;
            let beat = server.heartbeat().await;
            assert_eq!((beat.status, beat.json()), (200, json!({"status": "ok"})), "{beat:?}");

            let seen = detail(&world, &ann.access, &server).await.json();
            assert_eq!(seen["server"]["version"], "1.5.0");
            assert_eq!(seen["server"]["hostname_candidates"], json!(["http://192.168.1.6:8096"]));
            assert_eq!(seen["server"]["last_seen_at"], server.now(), "the hub's time, whatever the server says");
            assert_eq!(seen["heartbeat_history"][0]["uptime_seconds"], 77);
            assert_eq!(seen["names"][0]["access"], "protected");
            assert_eq!(seen["relay_session"], Value::Null);
            let info = server.call(Method::GET, &server.path("/info"), "").await.json();
            assert_eq!((&info["libraryCount"], &info["status"]), (&json!(2), &json!("online")));
            assert_eq!(info["serverId"], server.id().to_string());
        }
    }

    async fn old_servers_heartbeats_are_understood(world: World) {
        let ann = world.sign_up("ann").await;
        let server = HomeServer::legacy(&world, 1).claimed_by(&ann).await;
        let old = json!({"server_id": server.id(), "uptime_seconds": 5, "active_sessions": 1, "capabilities": [], "library_count": 2});
        assert_eq!(server.call(Method::POST, &server.path("/heartbeat"), &old.to_string()).await.status, 200);
        let malformed = server.call(Method::POST, &server.path("/heartbeat"), "{}").await;
        assert_eq!(malformed.refusal(), (400, "invalid_payload".into()));
    }

    async fn libraries_follow_the_last_heartbeat(world: World) {
        let ann = world.sign_up("ann").await;
        let server = HomeServer::legacy(&world, 1).claimed_by(&ann).await;
        let mut body = server.heartbeat_body();
        for (libraries, count) in [
            (json!([{"library_id": "a", "library_name": "A"}, {"library_id": "a", "library_name": "B"}]), json!(1)),
            (json!([{"library_id": "a", "library_name": "A"}, {"library_id": "c", "library_name": "C"}, {"library_id": "d", "library_name": "D"}]), json!(3)),
            (Value::Null, json!(3)),
            (json!([]), json!(0)),
        ] {
            body["libraries"] = libraries;
            assert_eq!(server.call(Method::POST, &server.path("/heartbeat"), &body.to_string()).await.status, 200);
            let info = server.call(Method::GET, &server.path("/info"), "").await.json();
            assert_eq!(info["libraryCount"], count, "{body}");
        }
    }

    //= promises T32
    async fn a_server_is_online_while_it_beats(world: World) {
        let ann = world.sign_up("ann").await;
        let server = HomeServer::legacy(&world, 1).claimed_by(&ann).await;
        later(&world, 179).await;
        assert_eq!(detail(&world, &ann.access, &server).await.json()["server"]["status"], "online");
        later(&world, 1).await;
        assert_eq!(detail(&world, &ann.access, &server).await.json()["server"]["status"], "offline");
        server.heartbeat().await;
        assert_eq!(detail(&world, &ann.access, &server).await.json()["server"]["status"], "online");
    }

    async fn heartbeats_are_limited_by_server(world: World) {
        let ann = world.sign_up("ann").await;
        let (first, second) = (HomeServer::legacy(&world, 1).claimed_by(&ann).await, HomeServer::legacy(&world, 2).claimed_by(&ann).await);
        for _ in 0..30 {
            assert_eq!(first.heartbeat().await.status, 200);
        }
        let refused = first.heartbeat().await;
        assert_eq!((refused.refusal(), refused.header("retry-after")), ((429, "rate_limited".into()), Some("60")));
        assert_eq!(second.heartbeat().await.status, 200);
    }

    /// The token table at this verifier (promises T1, T3, T5): each is refused, and none is told which key would fit.
    async fn forged_enrollments_are_refused(world: World) {
        let ann = world.sign_up("ann").await;
        let server = HomeServer::legacy(&world, 1).claimed_by(&ann).await;
        let other = HomeServer::legacy(&world, 2).claimed_by(&ann).await;
        let native = HomeServer::native(&world, 3).claimed_by(&ann).await;
        let good: Enrollment = opened(&world, Purpose::Enrollment, &server.enrollment);
        let now = world.app().clock.now();
        let hub = world.app().keys.signer(Purpose::Enrollment, now).unwrap();
        let relay = world.app().keys.signer(Purpose::Relay, now).unwrap();
        let claims = serde_json::to_value(&good).unwrap();
        let signed = |header: Value, claims: &Value, key: &SigningKey| {
            let input = format!("{}.{}", part(&header), part(claims));
            format!("{input}.{}", b64::encode(key.sign(input.as_bytes())))
        };
        let header = |alg: Value, typ: &str| json!({"alg": alg, "typ": typ, "kid": hub.kid()});
        let with = |key: &str, value: Value| {
            let mut claims = claims.clone();
            claims[key] = value;
            signed(header(json!("EdDSA"), "JWT"), &claims, &hub)
        };
        let unsigned = format!("{}.{}.", part(&header(json!("none"), "JWT")), part(&claims));
        let stranger = SigningKey::from_seed(&[99; 32]);
        let hmac = {
            let input = format!("{}.{}", part(&header(json!("HS256"), "JWT")), part(&claims));
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, hub.public().as_bytes());
            format!("{input}.{}", b64::encode(aws_lc_rs::hmac::sign(&key, input.as_bytes())))
        };
        let ticket = native.call(Method::POST, &native.path("/tunnel-ticket"), "{}").await.json();
        let invalid = "auth.invalid_token";
        let table = [
            ("none", unsigned, 401, invalid),
            ("HS256 with the public key", hmac, 401, invalid),
            ("a list of algorithms", signed(header(json!(["EdDSA"]), "JWT"), &claims, &hub), 401, invalid),
            ("another typ", signed(header(json!("EdDSA"), "phlix-tunnel+jwt"), &claims, &hub), 401, invalid),
            ("an unknown key", token::sign(&good, &stranger), 401, invalid),
            ("a key of another purpose", token::sign(&Enrollment { kid: relay.kid(), ..good.clone() }, &relay), 401, invalid),
            ("a kid that is a path", signed(json!({"alg": "EdDSA", "typ": "JWT", "kid": "../../etc/passwd"}), &claims, &hub), 401, invalid),
            ("another audience", with("aud", json!("relay-edge")), 401, invalid),
            ("another issuer", with("iss", json!("phlex-hub")), 401, invalid),
            ("no expiry", with("exp", Value::Null), 401, invalid),
            ("expired", with("exp", json!(now.seconds() - 31)), 401, "auth.enrollment_expired"),
            ("of the future", with("iat", json!(now.seconds() + 31)), 401, invalid),
            ("sub and server_id differ", with("sub", json!(other.id())), 401, invalid),
            ("another server's", other.enrollment.clone(), 403, "auth.server_mismatch"),
            ("bound to a key", with("cnf", json!({"jwk": server.key.public().jwk()})), 401, invalid),
            ("a user's access token", ann.access.clone(), 401, invalid),
            ("a user's refresh token", ann.refresh.clone(), 401, invalid),
            ("a tunnel ticket", ticket["ticket"].as_str().unwrap().to_owned(), 401, invalid),
            ("an edge list", ticket["edges"].as_str().unwrap().to_owned(), 401, invalid),
            ("garbage", "a.b.c".to_owned(), 401, invalid),
            ("a megabyte", "x".repeat(1 << 20), 401, invalid),
        ];
        for (name, token, status, code) in table {
            for (method, below) in [(Method::GET, "/info"), (Method::POST, "/renew"), (Method::POST, "/heartbeat"), (Method::DELETE, "")] {
                let reply = server.call_with(method, &server.path(below), "{}", &token, None).await;
                assert_eq!(reply.refusal(), (status, code.to_owned()), "{name} at {below}");
                assert!(!reply.text().contains(&token), "{name}: the token is not repeated");
            }
        }
        assert_eq!(server.heartbeat().await.status, 200, "the good one still is");
        // Without any, and as a person's route.
        let anonymous = with_protocol(world.client()).get(&server.path("/info")).await;
        assert_eq!(anonymous.refusal(), (401, "auth.required".into()));
        let person = world.client().bearer(&server.enrollment).get("/api/v1/me/servers").await;
        assert_eq!(person.refusal(), (401, invalid.into()));
    }

    //= trust s.2.3
    async fn a_native_server_signs_each_call_once(world: World) {
        let ann = world.sign_up("ann").await;
        let server = HomeServer::native(&world, 1).claimed_by(&ann).await;
        let target = server.path("/heartbeat");
        let body = server.heartbeat_body().to_string();
        let sign = |proof: &RequestProof| token::sign_self(proof, &server.key);
        let good = server.signature("POST", &target, body.as_bytes());
        let fresh = |change: &dyn Fn(&mut RequestProof)| {
            let mut proof = server.signature("POST", &target, body.as_bytes());
            change(&mut proof);
            sign(&proof)
        };
        let send = async |proof: Option<&str>| {
            server.call_with(Method::POST, &target, &body, &server.enrollment, proof).await.refusal()
        };
        let invalid = (401, "auth.proof_invalid".to_owned());

        assert_eq!(send(None).await, (401, "auth.proof_required".into()));
        assert_eq!(send(Some("x")).await, invalid);
        assert_eq!(send(Some(&token::sign_self(&good, &SigningKey::from_seed(&[9; 32])))).await, invalid);
        assert_eq!(send(Some(&fresh(&|proof| proof.htm = "GET".into()))).await, invalid);
        assert_eq!(send(Some(&fresh(&|proof| proof.htu = server.path("/renew")))).await, invalid);
        assert_eq!(send(Some(&fresh(&|proof| proof.htu = format!("{target}?x=1")))).await, invalid);
        assert_eq!(send(Some(&fresh(&|proof| proof.bh = b64::encode(Sha256::digest(b"other"))))).await, invalid);
        assert_eq!(send(Some(&fresh(&|proof| proof.iat -= 91))).await, invalid);
        assert_eq!(send(Some(&fresh(&|proof| proof.iat += 31))).await, invalid);
        assert_eq!(send(Some(&fresh(&|proof| proof.jti = "j".repeat(129)))).await, invalid);
        let presence = token::sign_self(&server.states(RelayEdge::unknown(&world, 1).id, tunnel(1)), &server.key);
        assert_eq!(send(Some(&presence)).await, invalid, "another kind of signature");

        let once = sign(&good);
        let replies = join_all((0..4).map(|_| send(Some(&once)))).await;
        assert_eq!(replies.iter().filter(|reply| reply.0 == 200).count(), 1, "{replies:?}");
        assert_eq!(replies.iter().filter(|reply| reply.1 == "auth.proof_replayed").count(), 3);
        later(&world, 92).await;
        assert_eq!(send(Some(&once)).await, invalid, "stale by the time it would be forgotten");
        // The query is part of what is signed.
        let target = format!("{}?a=b", server.path("/info"));
        assert_eq!(server.call(Method::GET, &target, "").await.status, 200);
    }

    async fn renewing_gives_a_week_more(world: World) {
        let ann = world.sign_up("ann").await;
        let mut legacy = HomeServer::legacy(&world, 1).claimed_by(&ann).await;
        later(&world, 6 * 86_400 + 3600).await;
        for body in ["[]", "{}", ""] {
            let renewed = legacy.call(Method::POST, &legacy.path("/renew"), body).await;
            assert_eq!((renewed.status, &renewed.json()["expires_in"]), (200, &json!(604_800)), "{renewed:?}");
        }
        let renewed = renew(&legacy).await.json();
        later(&world, 86_400).await;
        let late = legacy.heartbeat().await;
        assert_eq!(late.refusal(), (401, "auth.enrollment_expired".into()));
        assert_eq!(late.json()["error"], "ENROLLMENT_TOKEN_EXPIRED");
        legacy.enrollment = renewed["enrollment_jwt"].as_str().unwrap().to_owned();
        assert_eq!(legacy.heartbeat().await.status, 200);
    }

    async fn native_enrollments_count_generations(world: World) {
        let ann = world.sign_up("ann").await;
        let server = HomeServer::native(&world, 1).claimed_by(&ann).await;
        let generation = |reply: Reply| {
            opened::<Enrollment>(&world, Purpose::Enrollment, reply.json()["enrollment_jwt"].as_str().unwrap()).generation
        };
        assert_eq!(generation(renew(&server).await), Some(1));
        // The reply was lost: the same enrollment again gets the generation that exists.
        assert_eq!(generation(renew(&server).await), Some(1));
        assert_eq!(server.heartbeat().await.status, 200, "the old one is good until it expires");
    }

    async fn keys_that_were_rotated_are_believed_until_their_last_token_ends(world: World) {
        let ann = world.sign_up("ann").await;
        let server = HomeServer::legacy(&world, 1).claimed_by(&ann).await;
        let app = world.app();
        keys::rotate(&app.db, &app.sealer, &app.config.lives, Purpose::Enrollment, app.clock.now()).await.unwrap();
        app.keys.refresh(&app.db, &app.sealer, app.clock.now()).await.unwrap();
        assert_eq!(server.heartbeat().await.status, 200);
    }

    async fn a_tunnel_ticket_says_names_key_and_edges(world: World) {
        let ann = world.sign_up("ann").await;
        let edge = RelayEdge::core(&world, 7).await;
        assert_eq!(edge.register().await.status, 200);
        let server = HomeServer::native(&world, 1).claimed_by(&ann).await;

        let reply = server.call(Method::POST, &server.path("/tunnel-ticket"), "{}").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let body = reply.json();
        let ticket: TunnelTicket = opened(&world, Purpose::Relay, body["ticket"].as_str().unwrap());
        assert_eq!((ticket.server_id, ticket.cnf.jwk), (server.id(), server.key.public()));
        assert_eq!((ticket.exp - ticket.iat, body["expires_at"].as_i64()), (86_400, Some(ticket.exp)));
        assert_eq!((ticket.names.len(), ticket.names[0].access), (1, Access::Protected));
        let list: EdgeList = opened(&world, Purpose::Relay, body["edges"].as_str().unwrap());
        assert_eq!((list.edges.len(), list.edges[0].id, list.edges[0].key), (1, edge.id, edge.key.public()));
        assert_eq!((list.edges[0].port, list.edges[0].spki.as_deref()), (8443, edge.place().spki.as_deref()));

        let legacy = HomeServer::legacy(&world, 2).claimed_by(&ann).await;
        let refused = legacy.call(Method::POST, &legacy.path("/tunnel-ticket"), "{}").await;
        assert_eq!(refused.refusal(), (403, "server.not_native".into()));
    }

    async fn a_server_deregisters_itself(world: World) {
        let ann = world.sign_up("ann").await;
        for server in [HomeServer::native(&world, 1).claimed_by(&ann).await, HomeServer::legacy(&world, 2).claimed_by(&ann).await] {
            assert_eq!(server.call(Method::DELETE, &server.path(""), "").await.status, 204);
            let gone = server.heartbeat().await;
            assert_eq!((gone.refusal(), &gone.json()["error"]), ((404, "server.not_found".into()), &json!("SERVER_NOT_FOUND")));
        }
        let mine = world.client().bearer(&ann.access).get("/api/v1/me/servers").await.json();
        assert_eq!(mine, json!({"servers": []}));
    }

    /// Unclaimed: its credentials, tickets, tunnels and names end (promises T3, T5).
    async fn giving_a_server_up_ends_everything(world: World) {
        let ann = world.sign_up("ann").await;
        let edge = RelayEdge::core(&world, 7).await;
        let server = HomeServer::native(&world, 1).claimed_by(&ann).await;
        edge.report(true, vec![server.opened(edge.id, tunnel(1))], vec![]).await;
        let host = detail(&world, &ann.access, &server).await.json()["names"][0]["host"].as_str().unwrap().to_owned();
        let client = world.client().bearer(&ann.access);

        assert_eq!(client.delete(&format!("/api/v1/me/servers/{}", server.id())).await.status, 204);

        assert_eq!(server.heartbeat().await.refusal(), (404, "server.not_found".into()));
        assert_eq!(edge.get(&format!("/edge/v1/hosts/{host}")).await.status, 404);
        let mut conn = world.db().read().await.unwrap();
        let now = world.app().clock.now();
        let kept = store::revocations::kept(&mut conn, now).await.unwrap();
        let revoked = kept.iter().find(|kept| kept.selector == Selector::Server(server.id())).unwrap();
        assert_eq!(revoked.issued_until, now.seconds());
        assert!(revoked.keep_until > now.seconds() + 86_400, "as long as a tunnel ticket lives");
        assert!(!store::presence::has_tunnel(&mut conn, server.id(), now).await.unwrap());
        drop(conn);
        // The name is nobody's for longer than its certificates live.
        let mut conn = world.db().write().await.unwrap();
        let squat = crate::domain::name::Name { host: host.parse().unwrap(), server: server.id(), access: Access::Open, tls: token::Tls::Terminated };
        assert!(!store::names::insert(&mut conn, &squat, 0, now).await.unwrap());
        later(&world, 120 * 86_400).await;
        store::names::sweep(&mut conn, world.app().clock.now()).await.unwrap();
        assert!(store::names::insert(&mut conn, &squat, 0, now).await.unwrap());
    }

    async fn a_claim_of_a_server_that_is_gone_delivers_nothing(world: World) {
        let ann = world.sign_up("ann").await;
        let server = HomeServer::native(&world, 1);
        let opened = server.apply().await.json();
        let redeemed = redeem(&world, &ann, opened["claimCode"].as_str().unwrap()).await.json();
        let path = format!("/api/v1/me/servers/{}", redeemed["server_id"].as_str().unwrap());
        assert_eq!(world.client().bearer(&ann.access).delete(&path).await.status, 204);
        assert_eq!(server.poll(opened["claimId"].as_str().unwrap()).await, json!({"status": "expired"}));
    }

    /// Promise T14 for these routes: 404 for what is not there, 403 for what is another's, 401 for nobody.
    async fn other_peoples_servers_stay_theirs(world: World) {
        let (ann, bob) = (world.sign_up("ann").await, world.sign_up("bob").await);
        let server = HomeServer::native(&world, 1).claimed_by(&ann).await;
        let host = detail(&world, &ann.access, &server).await.json()["names"][0]["host"].as_str().unwrap().to_owned();
        let routes = [
            (Method::GET, String::new(), Value::Null),
            (Method::DELETE, String::new(), Value::Null),
            (Method::GET, "/access-info".into(), Value::Null),
            (Method::PUT, format!("/names/{host}"), json!({"access": "open"})),
            (Method::POST, "/viewer-ticket".into(), json!({})),
            (Method::POST, "/roll-credentials".into(), json!({})),
        ];
        for (method, below, body) in routes {
            let call = async |client: Client, id: &str| {
                let body = (!body.is_null()).then(|| body.clone());
                client.call(method.clone(), &format!("/api/v1/me/servers/{id}{below}"), body).await.refusal()
            };
            let id = server.id().to_string();
            assert_eq!(call(world.client().bearer(&bob.access), &id).await, (403, "server.not_owned".into()), "{method} {below}");
            for unknown in ["00000000-0000-4000-8000-000000000000", "nonsense"] {
                let refusal = call(world.client().bearer(&ann.access), unknown).await;
                assert_eq!(refusal, (404, "server.not_found".into()), "{method} {below}");
            }
            assert_eq!(call(world.client(), &id).await, (401, "auth.required".into()), "{method} {below}");
            assert_eq!(call(world.client().bearer(&ann.refresh), &id).await.0, 401, "refresh as access: {method} {below}");
            assert_eq!(call(world.client().bearer(&server.enrollment), &id).await.0, 401, "{method} {below}");
        }
        assert_eq!(server.heartbeat().await.status, 200, "nothing happened");
    }

    async fn rolled_credentials_are_over_at_once(world: World) {
        let ann = world.sign_up("ann").await;
        let server = HomeServer::native(&world, 1).claimed_by(&ann).await;
        let roll = format!("/api/v1/me/servers/{}/roll-credentials", server.id());
        assert_eq!(world.client().bearer(&ann.access).post(&roll, json!({})).await.status, 204);
        assert_eq!(server.heartbeat().await.refusal(), (401, "auth.enrollment_revoked".into()));
        let again = HomeServer::native(&world, 1).claimed_by(&ann).await;
        assert_eq!((again.id(), again.heartbeat().await.status), (server.id(), 200));
    }

    async fn a_name_is_opened_by_the_owner_of_a_generic_server_only(world: World) {
        let ann = world.sign_up("ann").await;
        let generic = HomeServer::native(&world, 1).claimed_by(&ann).await;
        let legacy = HomeServer::legacy(&world, 2).claimed_by(&ann).await;
        let client = world.client().bearer(&ann.access);
        let edge = RelayEdge::core(&world, 7).await;
        for (server, status) in [(&generic, 200), (&legacy, 409)] {
            let host = detail(&world, &ann.access, server).await.json()["names"][0]["host"].as_str().unwrap().to_owned();
            let path = format!("/api/v1/me/servers/{}/names/{host}", server.id());
            let before = edge.get(&format!("/edge/v1/hosts/{host}")).await.json();
            assert_eq!(before["access"], "protected");
            let reply = client.call(Method::PUT, &path, Some(json!({"access": "open"}))).await;
            assert_eq!(reply.status, status, "{reply:?}");
            let after = edge.get(&format!("/edge/v1/hosts/{host}")).await.json();
            assert_eq!(after["access"], if status == 200 { "open" } else { "protected" });
            assert_eq!(after["rev"].as_u64() > before["rev"].as_u64(), status == 200, "the bulletin says so");
            for nonsense in [json!({}), json!({"access": "ajar"}), json!([])] {
                assert_eq!(client.call(Method::PUT, &path, Some(nonsense)).await.refusal(), (400, "invalid_request".into()));
            }
        }
        let path = format!("/api/v1/me/servers/{}/names/other.hub.localhost", generic.id());
        let reply = client.call(Method::PUT, &path, Some(json!({"access": "open"}))).await;
        assert_eq!(reply.refusal(), (404, "server.name_not_found".into()));
        let ticket = generic.call(Method::POST, &generic.path("/tunnel-ticket"), "{}").await.json();
        let ticket: TunnelTicket = opened(&world, Purpose::Relay, ticket["ticket"].as_str().unwrap());
        assert_eq!(ticket.names[0].access, Access::Open, "the agent learns it from the hub");
    }

    async fn access_info_gives_a_url_that_works(world: World) {
        let ann = world.sign_up("ann").await;
        let edge = RelayEdge::core(&world, 7).await;
        let server = HomeServer::native(&world, 1).claimed_by(&ann).await;
        let path = format!("/api/v1/me/servers/{}/access-info", server.id());
        let client = world.client().bearer(&ann.access);
        let before = client.get(&path).await.json();
        assert_eq!(before, json!({"server_id": server.id(), "direct_url": "http://192.168.1.5:8096", "relay_url": null, "relay_active": false}));
        edge.report(true, vec![server.opened(edge.id, tunnel(1))], vec![]).await;
        let now = client.get(&path).await.json();
        let host = detail(&world, &ann.access, &server).await.json()["names"][0]["host"].as_str().unwrap().to_owned();
        assert_eq!((&now["relay_active"], &now["relay_url"]), (&json!(true), &json!(format!("https://{host}"))));
    }

    async fn a_program_gets_a_ticket_for_one_name(world: World) {
        let ann = world.sign_up("ann").await;
        let server = HomeServer::native(&world, 1).claimed_by(&ann).await;
        let path = format!("/api/v1/me/servers/{}/viewer-ticket", server.id());
        let reply = world.client().bearer(&ann.access).post(&path, json!({})).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        let body = reply.json();
        let ticket: ViewerTicket = opened(&world, Purpose::Relay, body["ticket"].as_str().unwrap());
        assert_eq!((ticket.usage.as_deref(), ticket.scope, ticket.edge), (Some("client"), Scope::Name, None));
        assert_eq!((ticket.sub.to_string(), ticket.server_id), (ann.id.clone(), server.id()));
        assert_eq!((ticket.exp - ticket.iat, body["expires_at"].as_i64()), (600, Some(ticket.exp)));
        assert_eq!(body["url"], format!("https://{}/", ticket.host.unwrap()));
        assert!(ticket.libs.is_all() && ticket.perm == Permission::ReadWrite && ticket.share_id.is_none());

        // Signed out, also where the replica still remembers the session for a moment.
        world.client().post("/api/v1/auth/logout", json!({"refresh_token": ann.refresh})).await;
        assert_eq!(world.client().bearer(&ann.access).post(&path, json!({})).await.status, 401);
    }

    async fn the_claims_secret_is_kept_by_its_hash(world: World) {
        let opened = HomeServer::native(&world, 1).apply().await.json();
        let mut conn = world.db().read().await.unwrap();
        let kept: Vec<(String,)> = sqlx::query_as("SELECT id_hash FROM claims").fetch_all(&mut *conn).await.unwrap();
        assert_eq!(kept, [(b64::encode(Sha256::digest(opened["claimId"].as_str().unwrap())),)]);
    }
}
