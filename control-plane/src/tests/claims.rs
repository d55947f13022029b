//! Claiming: between a waiting server, a person with a code, and whoever guesses (upstream-api s.2.2, trust s.7).

use futures_util::future::join_all;
use phlix_protocol::keys::SigningKey;
use phlix_protocol::token::{self, Enrollment};
use serde_json::{Value, json};

use super::actors::{HomeServer, later, redeem, with_protocol};
use super::world::{World, both_engines};
use crate::config::{Engine, Rate};
use crate::domain::key::Purpose;

const NEW: &str = "/api/v1/server-claims/new";

fn enrollment(world: &World, jwt: &str) -> Enrollment {
    let now = world.app().clock.now();
    token::verify(jwt, &world.app().keys.set(Purpose::Enrollment, now), now.seconds()).unwrap()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

both_engines! {
    /// As an unmodified server does it: no proof, a bearer enrollment.
    async fn a_phlix_server_is_claimed_as_upstream_does_it(world: World) {
        let ann = world.sign_up("ann").await;
        let server = HomeServer::legacy(&world, 1);

        let opened = server.apply().await;
        assert_eq!(opened.status, 200, "{opened:?}");
        let opened = opened.json();
        assert!(opened["expiresIn"].is_i64() && opened["expiresIn"] == 600, "{opened}");
        assert_eq!(text(&opened, "hubBaseUrl"), "https://hub.test");
        assert_eq!(opened.as_object().unwrap().len(), 4, "{opened}");
        let (code, id) = (text(&opened, "claimCode"), text(&opened, "claimId"));
        assert_eq!(server.poll(id).await, json!({"status": "pending"}));

        let typed = code.to_lowercase().replace('-', " ");
        let redeemed = redeem(&world, &ann, &typed).await;
        assert_eq!(redeemed.status, 200, "{redeemed:?}");
        let redeemed = redeemed.json();

        let claimed = server.poll(id).await;
        assert_eq!(text(&claimed, "status"), "claimed");
        assert_eq!(claimed["server_id"], redeemed["server_id"]);
        assert_eq!(text(&claimed, "owner_name"), "ann");
        assert_eq!(text(&claimed, "hub_jwks_url"), "https://hub.test/.well-known/jwks.json");
        let claims = enrollment(&world, text(&claimed, "enrollment_jwt"));
        assert_eq!(claims.server_id.to_string(), text(&claimed, "server_id"));
        assert_eq!((claims.cnf, claims.generation), (None, None), "a bearer enrollment");
        assert_eq!((claims.exp - claims.iat, claims.hub_base_url.as_str()), (604_800, "https://hub.test"));

        let mine = world.client().bearer(&ann.access).get("/api/v1/me/servers").await.json();
        let info = &mine["servers"][0];
        assert_eq!((text(info, "serverName"), text(info, "kind"), text(info, "status")), ("Living room", "phlix", "online"));
        assert_eq!(info["server_id"], info["serverId"], "both spellings: {info}");
        assert_eq!(text(info, "subdomain").len(), 8);
        assert_eq!(text(info, "url"), format!("https://{}.hub.localhost/", text(info, "subdomain")));
    }

    //= trust s.7
    async fn the_claiming_user_never_gets_the_servers_credential(world: World) {
        let ann = world.sign_up("ann").await;
        let server = HomeServer::native(&world, 1);
        let opened = server.apply().await.json();

        let redeemed = redeem(&world, &ann, text(&opened, "claimCode")).await;

        let body = redeemed.json();
        let keys: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["hub_jwks_url", "server_id", "server_name"]);
        assert!(!redeemed.text().contains("eyJ"), "no token at all: {body}");
    }

    async fn a_delivered_enrollment_is_readable_again_for_a_minute_only(world: World) {
        let ann = world.sign_up("ann").await;
        let server = HomeServer::native(&world, 1);
        let opened = server.apply().await.json();
        let id = text(&opened, "claimId");
        redeem(&world, &ann, text(&opened, "claimCode")).await;
        later(&world, 590).await;

        let first = server.poll(id).await;
        later(&world, 59).await;
        let again = server.poll(id).await;
        assert_eq!((&first["status"], &again["status"]), (&json!("claimed"), &json!("claimed")), "a lost reply strands nobody");
        assert_eq!(first["server_id"], again["server_id"]);
        later(&world, 1).await;
        assert_eq!(server.poll(id).await, json!({"status": "expired"}));
        assert_eq!(server.poll("00000000-0000-4000-8000-000000000000").await, json!({"status": "expired"}));
        assert_eq!(server.poll("nonsense").await, json!({"status": "expired"}));
    }

    async fn an_enrollment_that_nobody_fetches_is_gone_after_ten_minutes(world: World) {
        let ann = world.sign_up("ann").await;
        let server = HomeServer::native(&world, 1);
        let opened = server.apply().await.json();
        redeem(&world, &ann, text(&opened, "claimCode")).await;
        later(&world, 600).await;
        assert_eq!(server.poll(text(&opened, "claimId")).await, json!({"status": "expired"}));
    }

    async fn of_two_users_with_one_code_one_gets_the_server(world: World) {
        let (ann, bob) = (world.sign_up("ann").await, world.sign_up("bob").await);
        for seed in 1..6 {
            let opened = HomeServer::native(&world, seed).apply().await.json();
            let code = text(&opened, "claimCode");
            let (first, second) = tokio::join!(redeem(&world, &ann, code), redeem(&world, &bob, code));
            let mut statuses = [first.status, second.status];
            statuses.sort_unstable();
            assert_eq!(statuses, [200, 409], "{first:?} {second:?}");
            let lost = if first.status == 409 { first } else { second };
            assert_eq!(lost.refusal(), (409, "claim.code_already_claimed".into()));
        }
        let mut servers = 0;
        for person in [&ann, &bob] {
            let mine = world.client().bearer(&person.access).get("/api/v1/me/servers").await.json();
            servers += mine["servers"].as_array().unwrap().len();
        }
        assert_eq!(servers, 5);
    }

    async fn codes_that_open_nothing_say_why(world: World) {
        let ann = world.sign_up("ann").await;
        let opened = HomeServer::native(&world, 1).apply().await.json();
        let code = text(&opened, "claimCode");
        assert_eq!(redeem(&world, &ann, "ABCD-EFGH").await.refusal(), (404, "claim.code_not_found".into()));
        assert_eq!(redeem(&world, &ann, "no code").await.refusal(), (404, "claim.code_not_found".into()));
        assert_eq!(redeem(&world, &ann, "").await.refusal(), (400, "invalid_request".into()));
        later(&world, 600).await;
        assert_eq!(redeem(&world, &ann, code).await.refusal(), (410, "claim.code_expired".into()));
        let anonymous = with_protocol(world.client()).post("/api/v1/server-claims/claim", json!({"claim_code": code})).await;
        assert_eq!(anonymous.refusal(), (401, "auth.required".into()));
    }

    async fn the_protocol_must_be_named(world: World) {
        let ann = world.sign_up("ann").await;
        let expected = json!({"error": "HUB_PROTOCOL_UNSUPPORTED", "code": "hub.protocol_unsupported",
            "message": "Accept-Phlix-Protocol: v1 required"});
        let client = world.client().bearer(&ann.access);
        let replies = [
            client.post(NEW, HomeServer::legacy(&world, 1).application()).await,
            client.get("/api/v1/server-claims/00000000-0000-4000-8000-000000000000").await,
            client.post("/api/v1/server-claims/claim", json!({"claim_code": "ABCD-EFGH"})).await,
            client.get("/api/v1/server-claims/preview?code=ABCD-EFGH").await,
            client.clone().header("accept-phlix-protocol", "v2").post(NEW, json!({})).await,
        ];
        for reply in replies {
            assert_eq!((reply.status, reply.json()), (400, expected.clone()), "{reply:?}");
        }
    }

    async fn malformed_applications_are_refused(world: World) {
        let good = HomeServer::legacy(&world, 1).application();
        let client = with_protocol(world.client());
        for (key, value) in [
            ("serverName", json!("")),
            ("serverName", json!("x".repeat(256))),
            ("serverName", json!("two\nlines")),
            ("serverName", json!(7)),
            ("version", json!("v".repeat(33))),
            ("hostnameCandidates", json!("no list")),
            ("hostnameCandidates", json!([1])),
            ("hostnameCandidates", json!(vec!["x"; 65])),
            ("protocolVersion", json!("v2")),
            ("proof", json!({"time": 1})),
            ("proof", json!({"time": 1, "signature": "short"})),
        ] {
            let mut body = good.clone();
            body[key] = value;
            let reply = client.post(NEW, body).await;
            assert_eq!(reply.refusal(), (400, "invalid_payload".into()), "{key}");
            assert!(reply.json()["message"].as_str().unwrap().starts_with("ClaimRequest "), "{reply:?}");
        }
        for key in [json!(null), json!({"kty": "RSA"}), json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}), json!([])] {
            let mut body = good.clone();
            body["publicKeysJwk"] = key;
            assert_eq!(client.post(NEW, body).await.refusal(), (400, "server.key_invalid".into()));
        }
        assert_eq!(client.post(NEW, json!([])).await.refusal(), (400, "invalid_payload".into()));
    }

    //= trust s.7
    async fn only_a_proven_key_makes_a_server_native(world: World) {
        let ann = world.sign_up("ann").await;
        let server = HomeServer::native(&world, 1);
        let client = with_protocol(world.client());
        let now = server.now();
        let stranger = HomeServer { key: SigningKey::from_seed(&[9; 32]), ..server.clone() };
        for (proof, code) in [
            (server.proof_for("https://other.test", now), "claim.proof_invalid"),
            (server.proof_for("http://localhost", now), "claim.proof_invalid"),
            (stranger.proof_for("https://hub.test", now), "claim.proof_invalid"),
            (json!({"time": now + 1, "signature": server.proof_for("https://hub.test", now)["signature"]}), "claim.proof_invalid"),
            (server.proof_for("https://hub.test", now - 301), "claim.proof_stale"),
            (server.proof_for("https://hub.test", now + 301), "claim.proof_stale"),
            (server.proof_for("https://hub.test", i64::MAX), "claim.proof_stale"),
            (server.proof_for("https://hub.test", i64::MIN), "claim.proof_stale"),
        ] {
            let mut body = server.application();
            body["proof"] = proof;
            let reply = client.post(NEW, body).await;
            assert_eq!(reply.refusal(), (400, code.into()), "{reply:?}");
            assert!(code != "claim.proof_invalid" || reply.text().contains("https://hub.test"), "names the URL to use");
        }
        let mut body = server.application();
        body["proof"] = server.proof_for("https://hub.test", now - 300);
        assert_eq!(client.post(NEW, body).await.status, 200);

        let claimed = server.claimed_by(&ann).await;
        let claims = enrollment(&world, &claimed.enrollment);
        assert_eq!(claims.cnf.unwrap().jwk, claimed.key.public());
        assert_eq!(claims.generation, Some(0));
        let mine = world.client().bearer(&ann.access).get("/api/v1/me/servers").await.json();
        assert_eq!(mine["servers"][0]["kind"], "generic");
    }

    /// A public key is no secret: who only knows it gets a claim of its own and learns nothing of the other's.
    async fn a_pending_claim_goes_on_only_for_the_keys_holder(world: World) {
        let server = HomeServer::native(&world, 1);
        let first = server.apply().await.json();
        later(&world, 100).await;
        let again = server.apply().await.json();
        assert_eq!((first["claimCode"].clone(), json!(500)), (again["claimCode"].clone(), again["expiresIn"].clone()));
        assert_ne!(first["claimId"], again["claimId"]);

        let copy = HomeServer { is_native: false, ..server.clone() };
        let other = copy.apply().await.json();
        assert_ne!(other["claimCode"], first["claimCode"]);

        let ann = world.sign_up("ann").await;
        redeem(&world, &ann, text(&again, "claimCode")).await;
        assert_eq!(server.poll(text(&again, "claimId")).await["status"], "claimed");
        assert_eq!(server.poll(text(&other, "claimId")).await["status"], "pending");
        assert_eq!(server.poll(text(&first, "claimId")).await["status"], "expired", "handed over");
    }

    async fn the_same_key_and_owner_pair_again_into_the_same_server(world: World) {
        let (ann, bob) = (world.sign_up("ann").await, world.sign_up("bob").await);
        let first = HomeServer::native(&world, 1).claimed_by(&ann).await;
        let again = HomeServer::native(&world, 1).claimed_by(&ann).await;
        assert_eq!(first.id(), again.id());
        assert_eq!(enrollment(&world, &again.enrollment).generation, Some(1));
        assert_eq!(first.heartbeat().await.refusal(), (401, "auth.enrollment_revoked".into()), "the older one is over");
        assert_eq!(again.heartbeat().await.status, 200);

        let bobs = HomeServer::native(&world, 1).claimed_by(&bob).await;
        assert_ne!(bobs.id(), again.id(), "another owner: another server");
        assert_eq!(again.heartbeat().await.status, 200, "and the first owner's goes on");
        // Without the proof the native row stays as it is.
        let unproven = HomeServer::legacy(&world, 1).claimed_by(&ann).await;
        assert_ne!(unproven.id(), again.id());
        assert_eq!(again.heartbeat().await.status, 200);
        let legacy = HomeServer::legacy(&world, 1).claimed_by(&ann).await;
        assert_eq!(legacy.id(), unproven.id());
    }

    async fn a_claim_delivers_nothing_after_newer_credentials(world: World) {
        let ann = world.sign_up("ann").await;
        let server = HomeServer::native(&world, 1);
        let opened = server.apply().await.json();
        let redeemed = redeem(&world, &ann, text(&opened, "claimCode")).await.json();
        let roll = format!("/api/v1/me/servers/{}/roll-credentials", text(&redeemed, "server_id"));
        assert_eq!(server.poll(text(&opened, "claimId")).await["status"], "claimed");
        assert_eq!(world.client().bearer(&ann.access).post(&roll, json!({})).await.status, 204);
        assert_eq!(server.poll(text(&opened, "claimId")).await, json!({"status": "expired"}));
    }

    async fn a_preview_shows_who_asks(world: World) {
        let ann = world.sign_up("ann").await;
        let opened = HomeServer::native(&world, 1).apply().await.json();
        later(&world, 5).await;
        let client = with_protocol(world.client().bearer(&ann.access));
        let preview = client.get(&format!("/api/v1/server-claims/preview?code={}", text(&opened, "claimCode"))).await;
        let now = HomeServer::native(&world, 1).now();
        assert_eq!(preview.json(), json!({"server_name": "Living room", "version": "1.4.0", "kind": "generic",
            "requester_address": "192.0.2.1", "requested_at": now - 5, "expires_at": now + 595}));
        assert_eq!(client.get("/api/v1/server-claims/preview?code=ABCD-EFGH").await.refusal(), (404, "claim.code_not_found".into()));
        assert_eq!(client.get("/api/v1/server-claims/preview").await.refusal(), (400, "invalid_request".into()));
        let anonymous = with_protocol(world.client()).get("/api/v1/server-claims/preview?code=ABCD-EFGH").await;
        assert_eq!(anonymous.status, 401);
    }

    //= promises T4
    async fn guesses_are_limited_and_right_codes_are_not_counted(world: World) {
        let (ann, bob) = (world.sign_up("ann").await, world.sign_up("bob").await);
        for seed in 1..13 {
            HomeServer::native(&world, seed).claimed_by(&ann).await;
        }
        let mut allowed = 0;
        loop {
            let reply = redeem(&world, &ann, "ABCD-EFGH").await;
            if reply.status == 429 {
                assert_eq!((reply.refusal().1.as_str(), reply.header("retry-after")), ("rate_limited", Some("600")));
                break;
            }
            allowed += 1;
        }
        assert_eq!(allowed, 10, "of one user");
        let client = with_protocol(world.client().bearer(&ann.access));
        assert_eq!(client.get("/api/v1/server-claims/preview?code=ABCD-EFGH").await.status, 429, "counted together");
        // Another account at the same address has what is left of the address.
        let statuses: Vec<_> = join_all((0..15).map(|_| redeem(&world, &bob, "ABCD-EFGH"))).await;
        assert_eq!(statuses.iter().filter(|reply| reply.status == 404).count(), 10);
        later(&world, 600).await;
        assert_eq!(redeem(&world, &ann, "ABCD-EFGH").await.status, 404);
    }

    async fn claims_are_limited_by_address(world: World) {
        let server = HomeServer::native(&world, 1);
        for _ in 0..20 {
            assert_eq!(server.apply().await.status, 200);
        }
        assert_eq!(server.apply().await.refusal(), (429, "rate_limited".into()));
        let elsewhere = with_protocol(world.client_at("192.0.2.2")).post(NEW, server.application()).await;
        assert_eq!(elsewhere.status, 200);
    }
}

/// One that the settings change: not for both engines at once by the macro.
async fn the_cap_holds(engine: Engine) {
    let world = World::with(engine, |config| {
        config.limits.servers_per_user = 2;
        config.limits.claim_new = Rate::new(100, 600);
    })
    .await;
    let ann = world.sign_up("ann").await;
    let mut codes = Vec::new();
    for seed in 1..6 {
        let opened = HomeServer::native(&world, seed).apply().await.json();
        codes.push(text(&opened, "claimCode").to_owned());
    }
    let replies = join_all(codes.iter().map(|code| redeem(&world, &ann, code))).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 2, "{replies:?}");
    let refused = replies.iter().find(|reply| reply.status != 200).unwrap();
    assert_eq!(
        (refused.refusal(), &refused.json()["error"]),
        ((409, "quota.exceeded".into()), &json!("SERVER_CAP_REACHED"))
    );
    // Pairing one of them again is no third one.
    let won = replies.iter().position(|reply| reply.status == 200).unwrap();
    HomeServer::native(&world, u8::try_from(won).unwrap() + 1).claimed_by(&ann).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_claims_stay_within_the_cap_sqlite() {
    the_cap_holds(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_claims_stay_within_the_cap_mariadb() {
    the_cap_holds(Engine::Mysql).await;
}
