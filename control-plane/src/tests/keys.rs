//! Signing keys: sealed, rotated with overlap, published.

use std::time::Duration;

use futures_util::future::join_all;
use phlix_protocol::b64;
use phlix_protocol::keys::Jwks;
use sqlx::Row as _;

use super::world::both_engines;
use crate::app::keys::{self, KeysError};
use crate::app::seal::Sealer;
use crate::config::SealKey;
use crate::domain::key::Purpose;

async fn rotate(world: &super::world::World, purpose: Purpose) {
    let app = world.app();
    keys::rotate(&app.db, &app.sealer, &app.config.lives, purpose, app.clock.now()).await.unwrap();
}

async fn published(world: &super::world::World) -> Vec<String> {
    let reply = world.client().get("/.well-known/jwks.json").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let jwks: Jwks = serde_json::from_slice(&reply.bytes).unwrap();
    jwks.keys.into_iter().map(|jwk| jwk.kid.unwrap()).collect()
}

both_engines! {
    async fn the_jwks_has_upstreams_fields(world: World) {
        let reply = world.client().get("/.well-known/jwks.json").await;
        assert_eq!(reply.header("cache-control"), Some("public, max-age=3600"));
        let keys = reply.json()["keys"].as_array().unwrap().clone();
        assert_eq!(keys.len(), 2, "one for enrollments, one for tickets");
        for key in keys {
            assert_eq!((&key["kty"], &key["crv"], &key["use"], &key["alg"]), (&"OKP".into(), &"Ed25519".into(), &"sig".into(), &"EdDSA".into()));
            assert_eq!(key.as_object().unwrap().len(), 6);
            assert_eq!(b64::decode(key["x"].as_str().unwrap()).unwrap().len(), 32);
        }
    }

    async fn a_retired_key_is_published_until_its_last_token_has_expired(world: World) {
        let app = world.app();
        let old = app.keys.signer(Purpose::Enrollment, app.clock.now()).unwrap().kid();

        rotate(&world, Purpose::Enrollment).await;
        app.keys.refresh(&app.db, &app.sealer, app.clock.now()).await.unwrap();

        let new = app.keys.signer(Purpose::Enrollment, app.clock.now()).unwrap().kid();
        assert_ne!(old, new);
        let kids = published(&world).await;
        assert_eq!(kids.len(), 3);
        assert_eq!(kids.last(), Some(&old), "those that sign come first");
        assert!(app.keys.set(Purpose::Enrollment, app.clock.now()).get(&old).is_some());

        // The last second of the last token that it signed, with the skew that verifiers allow.
        world.advance(app.config.lives.enrollment + Duration::from_secs(30));
        assert!(published(&world).await.contains(&old));
        world.advance(Duration::from_secs(601));
        assert!(!published(&world).await.contains(&old));
        assert!(app.keys.set(Purpose::Enrollment, app.clock.now()).get(&old).is_none());
    }

    async fn the_purposes_have_separate_keys(world: World) {
        let app = world.app();
        let now = app.clock.now();
        let enrollment = app.keys.signer(Purpose::Enrollment, now).unwrap().kid();
        let relay = app.keys.signer(Purpose::Relay, now).unwrap().kid();
        assert_ne!(enrollment, relay);
        assert!(app.keys.set(Purpose::Relay, now).get(&enrollment).is_none());
        assert!(app.keys.set(Purpose::Enrollment, now).get(&relay).is_none());
    }

    async fn replicas_that_start_together_agree_on_the_keys(world: World) {
        let replicas = join_all((0..4).map(|_| world.second_replica())).await;
        let now = world.app().clock.now();
        for replica in &replicas {
            for purpose in Purpose::ALL {
                let (ours, theirs) = (world.app().keys.signer(purpose, now), replica.keys.signer(purpose, now));
                assert_eq!(ours.unwrap().kid(), theirs.unwrap().kid());
            }
        }
        // Four rotations at once are one or a few, never two keys that sign.
        join_all((0..4).map(|_| rotate(&world, Purpose::Relay))).await;
        let mut kids = Vec::new();
        for replica in &replicas {
            replica.keys.refresh(&replica.db, &replica.sealer, now).await.unwrap();
            kids.push(replica.keys.signer(Purpose::Relay, now).unwrap().kid());
        }
        kids.dedup();
        assert_eq!(kids.len(), 1);
        for replica in replicas {
            replica.db.close().await;
        }
    }

    async fn a_replica_that_has_not_read_the_keys_for_long_does_not_sign(world: World) {
        world.advance(Duration::from_secs(600));
        let refused = world.app().keys.signer(Purpose::Relay, world.app().clock.now());
        assert!(matches!(refused, Err(KeysError::Stale)));
        let ready = world.client().get("/ready").await;
        assert_eq!(ready.status, 503);
        assert_eq!(ready.json()["database"], "ok");
    }

    async fn seeds_are_sealed_and_open_under_their_seal_key_only(world: World) {
        let app = world.app();
        let now = app.clock.now();
        let signer = app.keys.signer(Purpose::Relay, now).unwrap();
        let mut conn = app.db.read().await.unwrap();
        let rows = sqlx::query("SELECT sealed_seed FROM signing_keys").fetch_all(&mut *conn).await.unwrap();
        drop(conn);
        for row in &rows {
            let sealed: Vec<u8> = row.get(0);
            assert!(!sealed.windows(16).any(|window| signer.seed().windows(16).any(|seed| seed == window)));
        }

        let other = Sealer::new(&SealKey::new([8; 32]));
        let refused = keys::Keys::open(&app.db, &other, &app.config.lives, now).await.unwrap_err();
        assert!(matches!(refused, KeysError::OtherSealKey { .. }));

        assert_eq!(keys::reseal(&app.db, &app.sealer, &other, now).await.unwrap(), 2);
        assert_eq!(keys::reseal(&app.db, &app.sealer, &other, now).await.unwrap(), 0, "once is enough");
        let opened = keys::Keys::open(&app.db, &other, &app.config.lives, now).await.unwrap();
        assert_eq!(opened.signer(Purpose::Relay, now).unwrap().kid(), signer.kid(), "the same keys under another seal");
    }

    async fn a_seed_that_was_moved_to_another_row_is_refused(world: World) {
        let app = world.app();
        let mut conn = app.db.write().await.unwrap();
        let sealed: Vec<(String, Vec<u8>)> =
            sqlx::query_as("SELECT kid, sealed_seed FROM signing_keys").fetch_all(&mut *conn).await.unwrap();
        sqlx::query("UPDATE signing_keys SET sealed_seed = ? WHERE kid = ?")
            .bind(&sealed[0].1)
            .bind(&sealed[1].0)
            .execute(&mut *conn)
            .await
            .unwrap();
        drop(conn);
        let refused = app.keys.refresh(&app.db, &app.sealer, app.clock.now()).await.unwrap_err();
        assert!(matches!(refused, KeysError::Damaged { .. }));
    }

    async fn the_jwks_is_limited_by_address(world: World) {
        let client = world.client();
        for _ in 0..120 {
            assert_eq!(client.get("/.well-known/jwks.json").await.status, 200);
        }
        let refused = client.get("/.well-known/jwks.json").await;
        assert_eq!(refused.refusal(), (429, "rate_limited".to_owned()));
        assert_eq!(refused.header("retry-after"), Some("60"));
        assert_eq!(world.client_at("192.0.2.2").get("/.well-known/jwks.json").await.status, 200);
    }
}
