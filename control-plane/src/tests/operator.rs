//! The operator's commands, on a hub that has run before.

use serde_json::json;

use super::world::{PASSWORD, TestDatabase, World, both_engines};
use crate::config::{Config, SealKey};
use crate::operator::{self, Role};

/// What the command line would have read from the same settings.
fn config(world: &World) -> Config {
    let mut config = World::config(world.database_url().clone());
    config.clock = world.app().clock.clone();
    config
}

both_engines! {
    async fn accounts_are_made_listed_and_given_rights(world: World) {
        let config = config(&world);
        let operator = operator::create_user(&config, "root", "root@mail.example", PASSWORD, Role::Administrator).await.unwrap();
        assert_eq!(operator.role, Role::Administrator);
        assert!(!world.sign_up("ann").await.is_admin, "the election is over");
        let taken = operator::create_user(&config, "ROOT", "x@mail.example", PASSWORD, Role::User).await.unwrap_err();
        assert_eq!(taken.to_string(), "Username already taken");
        let short = operator::create_user(&config, "bob", "bob@mail.example", "short", Role::User).await.unwrap_err();
        assert_eq!(short.to_string(), "Password must have at least 8 characters");

        let names: Vec<_> = operator::list_users(&config).await.unwrap().into_iter().map(|user| user.username).collect();
        assert_eq!(names.len(), 2);
        assert!(names.contains(&"root".to_owned()) && names.contains(&"ann".to_owned()));

        let last = operator::set_role(&config, "root", Role::User).await.unwrap_err();
        assert_eq!(last.to_string(), "this is the last administrator");
        operator::set_role(&config, "Ann@Mail.Example", Role::Administrator).await.unwrap();
        operator::set_role(&config, "root", Role::User).await.unwrap();
        operator::set_role(&config, "root", Role::User).await.unwrap();
        let nobody = operator::set_role(&config, "nobody", Role::User).await.unwrap_err();
        assert_eq!(nobody.to_string(), "there is no such account");
    }

    async fn a_reset_password_works_at_once_and_the_old_sessions_end(world: World) {
        let ann = world.sign_up("ann").await;
        operator::reset_password(&config(&world), "ann", "another password").await.unwrap();
        let body = json!({"username": "ann", "password": "another password"});
        assert_eq!(world.client().post("/api/v1/auth/login", body).await.status, 200);
        assert_eq!(world.client().bearer(&ann.access).get("/api/v1/me").await.status, 401);
    }

    async fn keys_are_listed_rotated_and_sealed_anew(world: World) {
        let mut config = config(&world);
        operator::check_keys(&config).await.unwrap();
        operator::rotate_keys(&config).await.unwrap();
        let keys = operator::list_keys(&config).await.unwrap();
        assert_eq!(keys.len(), 4);
        let (current, retired): (Vec<_>, Vec<_>) = keys.iter().partition(|key| key.is_current);
        assert_eq!((current.len(), retired.len()), (2, 2));
        assert!(retired.iter().all(|key| key.retired_at.is_some() && key.published_until.is_some()));
        let mut conn = world.db().read().await.unwrap();
        let revision = crate::store::bulletin::revision(&mut conn).await.unwrap();
        assert_eq!(revision, 2, "edges are told of each");
        drop(conn);

        let old = config.seal_key.clone();
        config.seal_key = SealKey::new([9; 32]);
        let refused = operator::check_keys(&config).await.unwrap_err().to_string();
        assert!(refused.contains("phlix key reseal"), "{refused}");
        assert_eq!(operator::reseal(&config, &old).await.unwrap(), 4);
        operator::check_keys(&config).await.unwrap();
    }

    async fn one_token_of_each_kind_is_signed_and_verified(world: World) {
        let tried = operator::smoke_tokens(&config(&world)).await.unwrap();
        assert_eq!(tried, [
            "access token", "refresh token", "enrollment", "native enrollment", "tunnel ticket", "viewer ticket",
            "client ticket", "edge list",
        ]);
    }

    async fn commands_on_an_empty_database_say_what_to_do(world: World) {
        let engine = world.db().engine();
        let empty = TestDatabase::new(engine).await;
        let mut config = config(&world);
        config.database = empty.url.clone();
        for refused in [
            operator::check_database(&config).await.unwrap_err().to_string(),
            operator::list_users(&config).await.unwrap_err().to_string(),
        ] {
            assert!(refused.contains("run `phlix migrate`"), "{refused}");
        }
        operator::migrate(&config).await.unwrap();
        operator::check_database(&config).await.unwrap();
        let refused = operator::check_keys(&config).await.unwrap_err().to_string();
        assert!(refused.contains("starts for the first time"), "{refused}");
        empty.end().await;
    }
}
