//! The outside of the house: pages, headers, sizes, health, the contract.

use axum::body::Body;
use http::Request;

use super::world::both_engines;
use crate::http::document;

both_engines! {
    async fn a_path_or_method_that_is_not_there_answers_as_upstream(world: World) {
        let client = world.client();
        for (method, path) in [("GET", "/api/v1/nothing"), ("POST", "/health"), ("DELETE", "/"), ("GET", "/health/")] {
            let reply = client.call(method.parse().unwrap(), path, None).await;
            assert_eq!(reply.status, 404, "{method} {path}");
            assert_eq!(reply.text(), r#"{"error":"Not Found","message":"The requested resource was not found"}"#);
        }
        assert_eq!(client.get("/api/v1/nothing").await.header("cache-control"), Some("no-store"));
    }

    async fn health_has_upstreams_fields_and_ready_asks_the_database(world: World) {
        let health = world.client().get("/health").await;
        assert_eq!(health.status, 200);
        let body = health.json();
        assert_eq!((&body["status"], &body["service"]), (&"ok".into(), &"phlix-hub".into()));
        assert!(body["timestamp"].is_i64() && body["maintenance"]["stale_after_seconds"].is_i64());
        assert!(body.as_object().unwrap().contains_key("phlixShared"));
        assert_eq!(world.client().get("/ready").await.status, 200);

        world.db().close().await;

        assert_eq!(world.client().get("/health").await.status, 200, "a dead database is not a dead process");
        let ready = world.client().get("/ready").await;
        assert_eq!(ready.status, 503);
        assert_ne!(ready.json()["database"], "ok");
        let jwks = world.client().get("/.well-known/jwks.json").await;
        assert_eq!(jwks.status, 200, "keys are told without it");
    }

    async fn only_a_core_edge_is_believed_about_the_viewer(world: World) {
        let direct = |name: &'static str, value: &'static str| {
            let request = Request::get("/health").header(name, value).body(Body::empty()).unwrap();
            let client = world.client();
            async move { client.send_direct(request).await }
        };
        assert_eq!(direct("x-forwarded-for", "203.0.113.9").await.status, 200, "ignored");
        assert_eq!(direct("x-phlix-edge", "nonsense").await.refusal(), (401, "edge.invalid_identity".to_owned()));
        let silent = direct("x-phlix-edge", "the core edge").await;
        assert_eq!(silent.refusal(), (400, "edge.invalid_forwarding".to_owned()));
    }

    async fn old_paths_lead_to_the_pages(world: World) {
        for (from, to) in [
            ("/", "/app/servers"),
            ("/claim-server?code=ABCD-EFGH", "/app/claim?code=ABCD-EFGH"),
            ("/login?next=/x", "/app/login?next=/x"),
            ("/servers/%2F%2Fevil", "/app/servers/%2F%2Fevil"),
            ("/invite/a%0d%0ab", "/app/invite/a%0D%0Ab"),
            ("/hub-settings", "/app/admin/settings"),
        ] {
            let reply = world.client().get(from).await;
            assert_eq!((reply.status, reply.header("location")), (302, Some(to)), "{from}");
        }
    }

    async fn the_pages_are_locked_down(world: World) {
        for path in ["/app", "/app/", "/app/servers/x"] {
            let reply = world.client().get(path).await;
            assert_eq!(reply.status, 200);
            let policy = reply.header("content-security-policy").unwrap();
            assert!(policy.starts_with("default-src 'none'; script-src https://hub.test/app/assets/; "), "{policy}");
            assert!(!policy.contains("unsafe") && !policy.contains("data:") && policy.contains("frame-ancestors 'none'"), "{policy}");
            assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
            assert_eq!(reply.header("x-frame-options"), Some("DENY"));
            assert_eq!(reply.header("cache-control"), Some("no-cache"));
            assert!(reply.header("content-type").unwrap().starts_with("text/html"));
        }
        assert_eq!(world.client().get("/app/assets/nothing.js").await.status, 404, "never the shell");
        assert_eq!(world.client().get("/app/assets/../../../etc/passwd").await.status, 404);
        let elsewhere = world.client().plain().get("/app/servers?x=1").await;
        assert_eq!((elsewhere.status, elsewhere.header("location")), (307, Some("https://hub.test/app/servers?x=1")));
    }
}

/// The contract is in the repository: whoever changes a route sees what changes for others.
#[test]
fn the_openapi_document_is_the_pinned_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let made = document();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let pinned = std::fs::read_to_string(path).unwrap_or_default();
    assert!(made == pinned, "the API changed: look at the difference after UPDATE_OPENAPI=1 and commit it");
}
