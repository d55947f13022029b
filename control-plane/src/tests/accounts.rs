//! Accounts and sign-ins.

use std::time::{Duration, Instant};

use ::http::Request;
use axum::body::Body;
use futures_util::future::join_all;
use phlix_protocol::uplink::Selector;
use serde_json::{Value, json};

use super::world::{Client, ORIGIN, PASSWORD, Person, Reply, World, both_engines};
use crate::config::{Engine, Hashing, Rate};
use crate::domain::user_token::{self, Kind};
use crate::store;

const LOGIN: &str = "/api/v1/auth/login";
const REGISTER: &str = "/api/v1/auth/register";
const REFRESH: &str = "/api/v1/auth/refresh";
const LOGOUT: &str = "/api/v1/auth/logout";
const ME: &str = "/api/v1/me";

fn form(name: &str) -> Value {
    json!({"username": name, "email": format!("{name}@mail.example"), "password": PASSWORD})
}

async fn log_in(client: &Client, name: &str, password: &str) -> Reply {
    client.post(LOGIN, json!({"username": name, "password": password})).await
}

async fn refresh(world: &World, token: &str) -> Reply {
    world.client().post(REFRESH, json!({"refresh_token": token})).await
}

async fn me(world: &World, access: &str) -> Reply {
    world.client().bearer(access).get(ME).await
}

/// What a browser keeps of a `Set-Cookie`.
fn kept(reply: &Reply) -> String {
    reply.session_cookie().unwrap().split(';').next().unwrap().to_owned()
}

both_engines! {
    async fn signing_up_answers_as_upstream(world: World) {
        let reply = world.client().post(REGISTER, form("ann")).await;

        assert_eq!(reply.status, 201, "{reply:?}");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert!(reply.header("set-cookie").is_none(), "a program gets no cookie");
        let body = reply.json();
        assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("Bearer"), &json!(3600)));
        let user = &body["user"];
        assert_eq!(user["id"], body["user_id"]);
        assert_eq!((&user["username"], &user["email"]), (&json!("ann"), &json!("ann@mail.example")));
        assert_eq!((&user["display_name"], &user["is_admin"]), (&json!("ann"), &json!(1)));
        assert_eq!((&user["created_at"], &user["updated_at"]), (&json!("2026-11-24 13:05:00"), &json!("2026-11-24 13:05:00")));
        assert_eq!(user.as_object().unwrap().len(), 7, "and no hash: {user}");
        let claims = &body["claims"];
        assert_eq!((&claims["iss"], &claims["aud"], &claims["type"]), (&json!("phlix-hub"), &json!("hub"), &json!("access")));
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
        let secret = world.app().config.jwt_secret.bytes();
        let refresh = user_token::verify(body["refresh_token"].as_str().unwrap(), Kind::Refresh, secret, world.app().clock.now());
        assert_eq!(refresh.unwrap().jti.unwrap().len(), 32);
    }

    async fn of_many_first_accounts_one_is_administrator(world: World) {
        let register = |number: usize| {
            let client = world.client_at(&format!("192.0.2.{number}"));
            tokio::spawn(async move { client.post(REGISTER, form(&format!("user{number}"))).await })
        };
        let replies = join_all((1..=12).map(register)).await;
        let admins = replies.into_iter().map(|reply| Person::of(&reply.unwrap())).filter(|person| person.is_admin).count();
        assert_eq!(admins, 1);

        assert!(!world.sign_up("later").await.is_admin);
        let mut conn = world.db().read().await.unwrap();
        let users = store::users::list(&mut conn, 100, 0).await.unwrap();
        assert_eq!((users.len(), users.iter().filter(|user| user.is_admin).count()), (13, 1));
    }

    async fn of_many_with_the_same_name_one_gets_it(world: World) {
        let register = |number: usize| {
            let client = world.client_at(&format!("192.0.2.{number}"));
            tokio::spawn(async move { client.post(REGISTER, form(["same", "SAME", "Same"][number % 3])).await.status })
        };
        let statuses = join_all((0..9).map(register)).await;
        assert_eq!(statuses.into_iter().filter(|status| *status.as_ref().unwrap() == 201).count(), 1);
    }

    async fn what_is_wrong_with_the_form_is_said(world: World) {
        world.sign_up("taken").await;
        let client = world.client();
        for (body, refusal, text) in [
            (json!({}), "auth.missing_credentials", "Username, email and password are required"),
            (json!({"username": "x", "email": 7, "password": []}), "auth.missing_credentials", "Username, email and password are required"),
            (json!({"username": "ab", "email": "a@b.cd", "password": PASSWORD}), "validation_failed", "Username must have 3 to 50 characters"),
            (json!({"username": "abc", "email": "a@b", "password": PASSWORD}), "validation_failed", "Email address is not valid"),
            (json!({"username": "abc", "email": "a@b.cd", "password": "1234567"}), "validation_failed", "Password must have at least 8 characters"),
        ] {
            let reply = client.post(REGISTER, body).await;
            assert_eq!(reply.refusal(), (400, refusal.to_owned()), "{text}");
            assert_eq!((&reply.json()["error"], &reply.json()["message"]), (&json!(text), &json!(text)));
        }
        // None of these counted as an attempt; those from here on do, the successful one too.
        let mut taken = form("other");
        taken["username"] = "TAKEN".into();
        assert_eq!(client.post(REGISTER, taken).await.json()["error"], "Username already taken");
        let mut registered = form("other");
        registered["email"] = "Taken@Mail.Example".into();
        assert_eq!(client.post(REGISTER, registered).await.json()["error"], "Email already registered");
        assert_eq!(client.post("/api/v1/auth/signup", form("other")).await.status, 201);
        let refused = client.post(REGISTER, form("another")).await;
        assert_eq!(refused.refusal(), (429, "rate_limited".to_owned()));
        assert_eq!((refused.json()["error"].as_str(), refused.header("retry-after")), (Some("Too Many Requests"), Some("3600")));
        world.advance(Duration::from_secs(3600));
        assert_eq!(client.post(REGISTER, form("another")).await.status, 201);
    }

    async fn forms_are_read_as_fields_too_and_malformed_json_as_nothing(world: World) {
        world.sign_up("ann").await;
        let send = |content_type: &'static str, body: String| {
            let client = world.client();
            let request = Request::post(LOGIN).header("content-type", content_type).body(Body::from(body)).unwrap();
            async move { client.send(request).await }
        };
        let fields = format!("email=ann%40mail.example&password={}", PASSWORD.replace(' ', "+"));
        assert_eq!(send("application/x-www-form-urlencoded", fields).await.status, 200);
        let refused = send("application/json; charset=utf-8", "{\"username\":".to_owned()).await;
        assert_eq!(refused.refusal(), (400, "auth.missing_credentials".to_owned()));
        let large = send("application/json", " ".repeat(64 * 1024 + 1)).await;
        assert_eq!(large.refusal(), (413, "payload_too_large".to_owned()));
    }

    async fn signing_in_by_name_or_address_in_any_case(world: World) {
        let ann = world.sign_up("ann").await;
        for body in [
            json!({"username": "ann", "password": PASSWORD}),
            json!({"username": "ANN", "password": PASSWORD, "device_id": "tv"}),
            json!({"username": "ann@mail.example", "password": PASSWORD}),
            json!({"email": "Ann@Mail.Example", "password": PASSWORD}),
        ] {
            let reply = world.client().post(LOGIN, body).await;
            assert_eq!(reply.status, 200, "{reply:?}");
            assert_eq!(Person::of(&reply).id, ann.id);
        }
        assert_eq!(world.client().post(LOGIN, json!({"username": "ann"})).await.refusal(), (400, "auth.missing_credentials".to_owned()));
    }

    /// T20: nobody learns from text or status whether an account exists.
    async fn a_wrong_password_and_nobody_look_the_same(world: World) {
        world.sign_up("ann").await;
        let wrong = log_in(&world.client(), "ann", "wrong password").await;
        let nobody = log_in(&world.client(), "nobody", "wrong password").await;
        assert_eq!(wrong.refusal(), (401, "auth.invalid_credentials".to_owned()));
        assert_eq!((wrong.status, wrong.text()), (nobody.status, nobody.text()));
        assert_eq!(wrong.headers, nobody.headers);

        // And both are counted alike.
        for name in ["ann", "nobody"] {
            let client = world.client_at(if name == "ann" { "192.0.2.10" } else { "192.0.2.11" });
            for _ in 0..5 {
                assert_eq!(log_in(&client, name, "wrong password").await.status, 401);
            }
            let refused = log_in(&client, name, "wrong password").await;
            assert_eq!(refused.refusal(), (429, "rate_limited".to_owned()), "{name}");
            assert_eq!(refused.header("retry-after"), Some("900"));
        }
    }

    async fn five_failures_shut_an_address_out_for_a_while(world: World) {
        world.sign_up("ann").await;
        let client = world.client();
        for _ in 0..4 {
            assert_eq!(log_in(&client, "ann", "wrong password").await.status, 401);
        }
        assert_eq!(log_in(&client, "ann", PASSWORD).await.status, 200, "a right one does not count");
        assert_eq!(log_in(&client, "ann", "wrong password").await.status, 401);
        assert_eq!(log_in(&client, "ann", PASSWORD).await.status, 429, "now even the right one");
        assert_eq!(log_in(&world.client_at("192.0.2.2"), "ann", PASSWORD).await.status, 200, "elsewhere it works");
        world.advance(Duration::from_secs(900));
        assert_eq!(log_in(&client, "ann", PASSWORD).await.status, 200);
    }

    /// T21: a burst is counted before any password is looked at.
    async fn guesses_that_come_together_are_counted_together(world: World) {
        world.sign_up("ann").await;
        let guess = |_| {
            let client = world.client();
            tokio::spawn(async move { log_in(&client, "ann", "wrong password").await.status })
        };
        let statuses: Vec<u16> = join_all((0..30).map(guess)).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 5, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 25);
    }

    /// T21: credential stuffing from many addresses is stopped at the account, and the owner's own place stays open.
    async fn strangers_shut_each_other_out_and_not_the_owner(world: World) {
        world.sign_up("ann").await;
        let home = world.client_at("203.0.113.1");
        assert_eq!(log_in(&home, "ann", PASSWORD).await.status, 200, "from now on a known place");
        for number in 0..20 {
            let stranger = world.client_at(&format!("192.0.2.{number}"));
            assert_eq!(log_in(&stranger, "ann", "wrong password").await.status, 401);
        }
        let stranger = world.client_at("192.0.2.200");
        assert_eq!(log_in(&stranger, "ann", PASSWORD).await.refusal(), (429, "rate_limited".to_owned()));
        assert_eq!(log_in(&home, "ann", PASSWORD).await.status, 200, "the owner is not shut out");
        let mut conn = world.db().read().await.unwrap();
        let keys: Vec<(String,)> = sqlx::query_as("SELECT rate_key FROM rate_limits").fetch_all(&mut *conn).await.unwrap();
        assert!(keys.iter().all(|(key,)| !key.contains("ann")), "no name is kept in clear: {keys:?}");
    }

    /// T19.
    async fn a_refresh_token_is_good_once_and_its_reuse_ends_the_session(world: World) {
        let ann = world.sign_up("ann").await;
        let other = Person::of(&log_in(&world.client(), "ann", PASSWORD).await);
        world.advance(Duration::from_secs(10));

        let second = refresh(&world, &ann.refresh).await;
        assert_eq!(second.status, 200, "{second:?}");
        assert_eq!(second.json().as_object().unwrap().len(), 7, "the shape of a log-in");
        let second = Person::of(&second);
        assert_ne!(second.refresh, ann.refresh);
        assert_eq!(me(&world, &ann.access).await.status, 200, "the old access token lives out its time");

        let reused = refresh(&world, &ann.refresh).await;
        assert_eq!(reused.refusal(), (401, "auth.invalid_token".to_owned()));
        assert_eq!(refresh(&world, &second.refresh).await.status, 401, "the whole family is gone");
        for access in [&ann.access, &second.access] {
            assert_eq!(me(&world, access).await.refusal(), (401, "auth.invalid_token".to_owned()));
        }
        assert_eq!(me(&world, &other.access).await.status, 200, "another session goes on");
        assert_eq!(refresh(&world, &other.refresh).await.status, 200);
    }

    async fn of_many_refreshes_with_one_token_one_comes_first(world: World) {
        let ann = world.sign_up("ann").await;
        let attempt = |_| {
            let (world, token) = (world.clone(), ann.refresh.clone());
            tokio::spawn(async move { refresh(&world, &token).await.status })
        };
        let statuses: Vec<u16> = join_all((0..8).map(attempt)).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 7, "{statuses:?}");
        assert_eq!(me(&world, &ann.access).await.status, 401, "somebody had a copy: the session ended");
    }

    async fn refresh_tokens_end_with_their_time(world: World) {
        let ann = world.sign_up("ann").await;
        assert_eq!(world.client().post(REFRESH, json!({})).await.refusal(), (400, "auth.missing_credentials".to_owned()));
        world.advance(Duration::from_secs(604_799));
        let second = Person::of(&refresh(&world, &ann.refresh).await);
        world.advance(Duration::from_secs(604_800));
        assert_eq!(refresh(&world, &second.refresh).await.refusal(), (401, "auth.invalid_token".to_owned()));
    }

    /// T1, T2 at the door: what the verifier's own table refuses is a 401 with upstream's body here.
    async fn forged_and_foreign_tokens_are_refused(world: World) {
        let ann = world.sign_up("ann").await;
        let signer = world.app().keys.signer(crate::domain::key::Purpose::Relay, world.app().clock.now()).unwrap();
        let public = signer.public();
        let claims = user_token::verify(&ann.access, Kind::Access, world.app().config.jwt_secret.bytes(), world.app().clock.now()).unwrap();
        let by_public_key = user_token::sign(&claims, public.as_bytes());
        let unsigned = {
            let payload = ann.access.split('.').nth(1).unwrap();
            format!("{}.{payload}.", phlix_protocol::b64::encode(r#"{"alg":"none","typ":"JWT"}"#))
        };
        for (what, token) in [
            ("none", unsigned.as_str()),
            ("HS256 by the public key", &by_public_key),
            ("refresh as access", &ann.refresh),
            ("nothing", ""),
            ("a word", "phs_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        ] {
            let reply = me(&world, token).await;
            assert_eq!(reply.text(), r#"{"error":"Unauthorized","code":"auth.invalid_token"}"#, "{what}");
            assert_eq!(reply.status, 401);
        }
        assert_eq!(refresh(&world, &ann.access).await.refusal(), (401, "auth.invalid_token".to_owned()), "access as refresh");
        assert_eq!(world.client().get(ME).await.text(), r#"{"error":"Unauthorized","code":"auth.required"}"#);
        assert_eq!(world.client().header("authorization", &format!("bEARER {}", ann.access)).get(ME).await.status, 200);
        world.advance(Duration::from_secs(3600));
        assert_eq!(me(&world, &ann.access).await.status, 401, "expired to the second");
    }

    /// T19.
    async fn logging_out_ends_everything_of_the_session(world: World) {
        let ann = world.sign_up("ann").await;
        assert_eq!(me(&world, &ann.access).await.status, 200);

        let reply = world.client().post(LOGOUT, json!({"refresh_token": ann.refresh})).await;

        assert_eq!((reply.status, reply.text().as_str()), (204, ""));
        assert_eq!(me(&world, &ann.access).await.status, 401);
        assert_eq!(refresh(&world, &ann.refresh).await.status, 401);
        let mut conn = world.db().read().await.unwrap();
        let revoked = store::revocations::kept(&mut conn, world.app().clock.now()).await.unwrap();
        assert!(matches!(revoked[..], [only] if matches!(only.selector, Selector::Sid(_))), "edges are told: {revoked:?}");
        drop(conn);
        for body in [json!({}), json!({"refresh_token": "nonsense"}), json!({"refresh_token": ann.refresh})] {
            assert_eq!(world.client().post(LOGOUT, body).await.status, 204, "always");
        }
        // By the bearer alone, without a body.
        let other = Person::of(&log_in(&world.client(), "ann", PASSWORD).await);
        assert_eq!(world.client().bearer(&other.access).call(::http::Method::POST, LOGOUT, None).await.status, 204);
        assert_eq!(me(&world, &other.access).await.status, 401);
    }

    async fn another_replica_notices_a_log_out_within_the_caches_time(world: World) {
        let ann = world.sign_up("ann").await;
        let replica = world.second_replica().await;
        assert!(crate::app::sessions::authenticate_bearer(&replica, &ann.access).await.is_ok());
        world.client().post(LOGOUT, json!({"refresh_token": ann.refresh})).await;
        world.advance(Duration::from_secs(2));
        assert!(crate::app::sessions::authenticate_bearer(&replica, &ann.access).await.is_err());
        replica.db.close().await;
    }

    async fn a_new_password_ends_all_sessions(world: World) {
        let ann = world.sign_up("ann").await;
        let id = ann.id.parse().unwrap();
        let new = crate::domain::user::Password::parse("another password").unwrap();
        crate::app::accounts::reset_password(world.app(), id, new).await.unwrap();
        world.advance(Duration::from_secs(2));
        assert_eq!(me(&world, &ann.access).await.status, 401);
        assert_eq!(refresh(&world, &ann.refresh).await.status, 401);
        assert_eq!(log_in(&world.client(), "ann", PASSWORD).await.status, 401);
        assert_eq!(log_in(&world.client(), "ann", "another password").await.status, 200);
    }

    async fn a_browser_of_the_hub_gets_a_cookie_and_nobody_else(world: World) {
        world.sign_up("ann").await;
        let body = json!({"username": "ann", "password": PASSWORD});
        let reply = world.client().header("origin", ORIGIN).post(LOGIN, body.clone()).await;
        let cookie = reply.session_cookie().unwrap();
        let (pair, attributes) = cookie.split_once("; ").unwrap();
        assert_eq!(pair.len(), "__Host-phlix-s=phs_".len() + 43);
        assert_eq!(attributes, "Path=/; Max-Age=604800; Secure; HttpOnly; SameSite=Lax");
        let mut conn = world.db().read().await.unwrap();
        let hashes: Vec<(Option<String>,)> =
            sqlx::query_as("SELECT cookie_hash FROM sessions").fetch_all(&mut *conn).await.unwrap();
        drop(conn);
        let value = pair.split_once('=').unwrap().1;
        assert!(hashes.iter().flat_map(|(hash,)| hash).all(|hash| hash.len() == 64 && hash != value));

        for client in [
            world.client(),
            world.client().header("origin", "https://evil.test"),
            world.client().header("origin", "null"),
            world.client().header("origin", "https://hub.test:444"),
            world.client().header("origin", ORIGIN).plain(),
        ] {
            let reply = client.post(LOGIN, body.clone()).await;
            assert_eq!(reply.status, 200, "{reply:?}");
            assert!(reply.header("set-cookie").is_none());
        }
        let loopback = world.client_at("127.0.0.1").header("origin", ORIGIN).plain();
        assert!(loopback.post(LOGIN, body).await.session_cookie().is_some(), "on loopback plain HTTP is enough");
    }

    async fn the_cookie_signs_in_and_needs_the_hubs_origin_to_write(world: World) {
        let reply = world.client().header("origin", ORIGIN).post(REGISTER, form("ann")).await;
        let cookie = kept(&reply);
        let with = |cookie: &str| world.client().header("cookie", cookie);
        assert_eq!(with(&cookie).get(ME).await.status, 200, "reading needs no Origin: <img> sends none");
        assert_eq!(with(&format!("a=b; {cookie}; c=d")).get(ME).await.status, 200);
        assert_eq!(with(&cookie).plain().get(ME).await.refusal(), (401, "auth.required".to_owned()), "off loopback on plain HTTP");
        assert_eq!(with(&format!("{cookie}; {cookie}")).get(ME).await.status, 401, "two of them: one was planted");
        for bad in ["__Host-phlix-s=", "__Host-phlix-s=phs_short", "phlix-s=x"] {
            assert_eq!(with(bad).get(ME).await.status, 401, "{bad}");
        }
        assert_eq!(with(&cookie).bearer("nonsense").get(ME).await.status, 401, "a bearer is looked at alone");

        // T18: the claim is a write by a signed-in user.
        let claim = |client: Client| async move {
            client.header("accept-phlix-protocol", "v1").post("/api/v1/server-claims/claim", json!({})).await.refusal()
        };
        for origin in ["https://evil.test", "null", "http://hub.test"] {
            let refused = claim(with(&cookie).header("origin", origin)).await;
            assert_eq!(refused, (403, "auth.origin_mismatch".to_owned()), "{origin}");
        }
        assert_eq!(claim(with(&cookie)).await, (403, "auth.origin_mismatch".to_owned()));
        assert_eq!(claim(with(&cookie).header("origin", ORIGIN)).await.0, 400, "it gets as far as the missing code");

        // T18: another site can't log the visitor out.
        with(&cookie).header("origin", "https://evil.test").post(LOGOUT, json!({})).await;
        assert_eq!(with(&cookie).get(ME).await.status, 200);
        let out = with(&cookie).header("origin", ORIGIN).call(::http::Method::POST, LOGOUT, None).await;
        assert_eq!(out.status, 204);
        assert_eq!(out.session_cookie(), Some("__Host-phlix-s=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax"));
        assert_eq!(with(&cookie).get(ME).await.status, 401);
    }

    /// T19: session fixation.
    async fn signing_in_leaves_the_former_cookie_worthless(world: World) {
        let planted = kept(&world.client().header("origin", ORIGIN).post(REGISTER, form("mallory")).await);
        world.sign_up("ann").await;
        let body = json!({"username": "ann", "password": PASSWORD});
        let fresh = kept(&world.client().cookie(&planted).post(LOGIN, body).await);
        assert_ne!(planted, fresh);
        assert_eq!(world.client().header("cookie", &planted).get(ME).await.status, 401);
        assert_eq!(world.client().header("cookie", &fresh).get(ME).await.json()["user"]["username"], "ann");
    }

    async fn the_cookie_ends_after_seven_days(world: World) {
        let cookie = kept(&world.client().header("origin", ORIGIN).post(REGISTER, form("ann")).await);
        world.advance(Duration::from_secs(604_799));
        assert_eq!(world.client().header("cookie", &cookie).get(ME).await.status, 200);
        world.advance(Duration::from_secs(1));
        assert_eq!(world.client().header("cookie", &cookie).get(ME).await.status, 401);
    }

    async fn me_shows_the_user_the_claims_and_the_servers(world: World) {
        let ann = world.sign_up("ann").await;
        for path in [ME, "/api/v1/auth/me"] {
            let reply = world.client().bearer(&ann.access).get(path).await;
            let body = reply.json();
            assert_eq!((reply.status, &body["user"]["id"]), (200, &json!(ann.id)), "{path}");
            assert_eq!((&body["claims"]["type"], &body["servers"]), (&json!("access"), &json!([])));
        }
    }

    async fn a_deleted_user_is_out_at_once(world: World) {
        let ann = world.sign_up("ann").await;
        let mut conn = world.db().write().await.unwrap();
        sqlx::query("DELETE FROM users WHERE id = ?").bind(&ann.id).execute(&mut *conn).await.unwrap();
        drop(conn);
        assert_eq!(me(&world, &ann.access).await.refusal(), (401, "auth.user_not_found".to_owned()));
        assert_eq!(refresh(&world, &ann.refresh).await.status, 401);
        assert_eq!(log_in(&world.client(), "ann", PASSWORD).await.status, 401);
    }

    async fn a_database_that_is_away_is_a_503_that_says_when_to_come_back(world: World) {
        let ann = world.sign_up("ann").await;
        world.db().close().await;
        for reply in [log_in(&world.client(), "ann", PASSWORD).await, refresh(&world, &ann.refresh).await, me(&world, &ann.access).await] {
            assert_eq!(reply.refusal(), (503, "provider_unavailable".to_owned()), "{reply:?}");
            assert_eq!(reply.header("retry-after"), Some("5"));
        }
    }

    async fn what_is_over_is_swept(world: World) {
        let ann = world.sign_up("ann").await;
        world.client().post(LOGOUT, json!({"refresh_token": ann.refresh})).await;
        log_in(&world.client(), "ann", PASSWORD).await;
        world.advance(Duration::from_secs(8 * 24 * 3600));
        crate::app::maintenance::sweep(world.app()).await.unwrap();
        let mut conn = world.db().read().await.unwrap();
        for table in ["SELECT COUNT(*) FROM sessions", "SELECT COUNT(*) FROM refresh_tokens", "SELECT COUNT(*) FROM rate_limits"] {
            let rows: i64 = sqlx::query_scalar(table).fetch_one(&mut *conn).await.unwrap();
            assert_eq!(rows, 0, "{table}");
        }
    }
}

/// The hub that takes no strangers.
#[tokio::test]
async fn closed_signups_say_so() {
    let world = World::with(Engine::Sqlite, |config| config.signups_enabled = false).await;
    let reply = world.client().post(REGISTER, form("ann")).await;
    assert_eq!(reply.refusal(), (403, "auth.signups_disabled".to_owned()));
    world.end().await;
}

/// T20: the same time for nobody as for somebody. Measured in turn, so that a busy machine slows both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_takes_as_long_as_somebody() {
    let world = World::with(Engine::Sqlite, |config| {
        config.hashing = Hashing { memory_kib: 8192, passes: 2, concurrency: 1, queue: 8 };
        config.limits.login_address = Rate::new(1000, 900);
        config.limits.login_account = Rate::new(1000, 900);
    })
    .await;
    world.sign_up("ann").await;
    let (mut somebody, mut nobody) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        for (name, times) in [("ann", &mut somebody), ("nobody", &mut nobody)] {
            let start = Instant::now();
            assert_eq!(log_in(&world.client(), name, "wrong password").await.status, 401);
            times.push(start.elapsed());
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64()
    };
    let (somebody, nobody) = (median(&mut somebody), median(&mut nobody));
    let ratio = somebody / nobody;
    // Without the hash for nobody the ratio is above 50; a busy machine moves medians by a tenth.
    assert!((0.6..1.66).contains(&ratio), "somebody {somebody:.4} s, nobody {nobody:.4} s");
    world.end().await;
}

/// T21: Argon2 is no bomb: with 100 log-ins at once most are told to come back, and `/health` answers at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_log_ins_leaves_the_rest_alive() {
    let world = World::with(Engine::Sqlite, |config| {
        config.hashing = Hashing { memory_kib: 19_456, passes: 2, concurrency: 1, queue: 8 };
        config.limits.login_address = Rate::new(1000, 900);
        config.limits.login_account = Rate::new(1000, 900);
    })
    .await;
    let flood: Vec<_> = (0..100)
        .map(|_| {
            let client = world.client();
            tokio::spawn(async move { log_in(&client, "nobody", "wrong password").await })
        })
        .collect();
    let mut waits = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        assert_eq!(world.client().get("/health").await.status, 200);
        waits.push(start.elapsed());
        tokio::task::yield_now().await;
    }
    // The tenth at the end is the machine's own: other tests run beside this one.
    waits.sort_unstable();
    let slow = waits[44];
    let replies: Vec<Reply> = join_all(flood).await.into_iter().map(Result::unwrap).collect();
    let busy = replies.iter().filter(|reply| reply.status == 503).count();
    assert!(replies.iter().all(|reply| matches!(reply.status, 401 | 503)));
    assert!(replies.iter().filter(|reply| reply.status == 503).all(|reply| reply.header("retry-after") == Some("2")));
    assert!(busy >= 50, "{busy} of 100 were told to come back");
    assert!(slow < Duration::from_millis(100), "nine of ten /health took up to {slow:?}");
    world.end().await;
}
