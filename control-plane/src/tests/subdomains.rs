//! A server takes and gives up the name that the hub makes for it (upstream-api s.2.3).

use ::http::{Method, Request};
use axum::body::Body;
use phlix_protocol::token;
use serde_json::{Value, json};

use super::actors::{HomeServer, RelayEdge, later, tunnel};
use super::world::{Person, Reply, World, both_engines};
use crate::app::maintenance;

/// As upstream's server sends it: no protocol named.
async fn call(
    world: &World,
    method: Method,
    target: &str,
    body: &str,
    enrollment: Option<&str>,
    proof: Option<&str>,
) -> Reply {
    let mut request = Request::builder().method(method).uri(target).header("content-type", "application/json");
    if let Some(enrollment) = enrollment {
        request = request.header("authorization", format!("Bearer {enrollment}"));
    }
    if let Some(proof) = proof {
        request = request.header("x-phlix-proof", proof);
    }
    world.client().send(request.body(Body::from(body.to_owned())).unwrap()).await
}

fn paths(server: &HomeServer) -> [String; 2] {
    [server.path("/subdomain"), format!("/servers/{}/subdomain", server.id())]
}

async fn ask(world: &World, server: &HomeServer, method: Method, target: &str, body: &str) -> Reply {
    let proof = token::sign_self(&server.signature(method.as_str(), target, body.as_bytes()), &server.key);
    call(world, method, target, body, Some(&server.enrollment), server.is_native.then_some(proof.as_str())).await
}

/// Its record as its owner's list has it.
async fn info(world: &World, owner: &Person, server: &HomeServer) -> Value {
    let servers = world.client().bearer(&owner.access).get("/api/v1/me/servers").await.json();
    let is_it = |info: &&Value| info["serverId"] == server.id().to_string();
    servers["servers"].as_array().unwrap().iter().find(is_it).unwrap().clone()
}

both_engines! {
    async fn a_server_gives_its_name_up_and_takes_it_back(world: World) {
        let ann = world.sign_up("ann").await;
        let edge = RelayEdge::core(&world, 7).await;
        for server in [HomeServer::legacy(&world, 1).claimed_by(&ann).await, HomeServer::native(&world, 2).claimed_by(&ann).await] {
            let host = info(&world, &ann, &server).await["relay_hostname"].as_str().unwrap().to_owned();
            let label = host.split('.').next().unwrap().to_owned();
            let given = json!({"subdomain": label, "fqdn": host, "tls_cert_path": "", "tls_key_path": ""});
            for target in paths(&server) {
                // It has it from the start; again is no change.
                for body in ["[]", "", "{}"] {
                    let reply = ask(&world, &server, Method::POST, &target, body).await;
                    assert_eq!((reply.status, reply.json()), (200, given.clone()), "{target} {reply:?}");
                }
                let route = format!("/edge/v1/hosts/{host}");
                let before = edge.get(&route).await.json()["rev"].as_u64();
                for _ in 0..2 {
                    let reply = ask(&world, &server, Method::DELETE, &target, "").await;
                    assert_eq!((reply.status, reply.text().as_str()), (204, ""), "{reply:?}");
                }
                assert_eq!(edge.get(&route).await.status, 404);
                let now = info(&world, &ann, &server).await;
                for gone in ["subdomain", "url", "relay_hostname"] {
                    assert_eq!(now[gone], Value::Null, "{gone}");
                }
                let detail = world.client().bearer(&ann.access).get(&format!("/api/v1/me/servers/{}", server.id())).await.json();
                assert_eq!((&detail["server"]["subdomain"], &detail["server"]["fqdn"], &detail["names"]), (&Value::Null, &Value::Null, &json!([])));
                let reply = ask(&world, &server, Method::POST, &target, "[]").await;
                assert_eq!((reply.status, reply.json()), (200, given.clone()), "the same again");
                let after = edge.get(&route).await.json();
                assert_eq!((after["access"].as_str(), after["rev"].as_u64() > before), (Some("protected"), true));
            }
        }
    }

    async fn a_server_without_names_is_honest_about_it(world: World) {
        let ann = world.sign_up("ann").await;
        let edge = RelayEdge::core(&world, 7).await;
        let server = HomeServer::native(&world, 1).claimed_by(&ann).await;
        edge.report(true, vec![server.opened(edge.id, tunnel(1))], vec![]).await;
        let client = world.client().bearer(&ann.access);
        let target = server.path("/subdomain");
        assert_eq!(ask(&world, &server, Method::DELETE, &target, "").await.status, 204);

        let path = format!("/api/v1/me/servers/{}", server.id());
        let access = client.get(&format!("{path}/access-info")).await.json();
        assert_eq!((&access["relay_active"], &access["relay_url"]), (&json!(true), &Value::Null));
        let ticket = client.post(&format!("{path}/viewer-ticket"), json!({})).await;
        assert_eq!(ticket.refusal(), (404, "server.name_not_found".into()));
        // Its owner picks another, which the server's own calls leave alone.
        let picked = client.post(&format!("{path}/names"), json!({"label": "ann-tv"})).await;
        assert_eq!(picked.status, 201, "{picked:?}");
        let access = client.get(&format!("{path}/access-info")).await.json();
        assert_eq!(access["relay_url"], "https://ann-tv.hub.localhost");
        let again = ask(&world, &server, Method::POST, &target, "[]").await;
        assert_eq!(again.status, 200);
        assert_ne!(again.json()["subdomain"], "ann-tv");
        assert_eq!(ask(&world, &server, Method::DELETE, &target, "").await.status, 204);
        assert_eq!(info(&world, &ann, &server).await["subdomain"], "ann-tv");
        assert_eq!(ask(&world, &server, Method::DELETE, &target, "").await.status, 204);
        assert_eq!(client.get(&path).await.json()["names"].as_array().unwrap().len(), 1);
        // Its own name waits for it.
        later(&world, 60).await;
        maintenance::sweep(world.app()).await.unwrap();
        assert_eq!(ask(&world, &server, Method::POST, &target, "[]").await.json(), again.json());
    }

    async fn who_is_not_believed_is_told_in_upstreams_words(world: World) {
        let ann = world.sign_up("ann").await;
        let server = HomeServer::legacy(&world, 1).claimed_by(&ann).await;
        let other = HomeServer::legacy(&world, 2).claimed_by(&ann).await;
        let native = HomeServer::native(&world, 3).claimed_by(&ann).await;
        let proof = |method: &str, target: &str| token::sign_self(&native.signature(method, target, b"[]"), &native.key);
        for target in paths(&server) {
            for method in [Method::POST, Method::DELETE] {
                for (enrollment, code) in [
                    (None, "auth.required"),
                    (Some("garbage"), "auth.invalid_token"),
                    (Some(ann.access.as_str()), "auth.invalid_token"),
                    (Some(other.enrollment.as_str()), "auth.server_mismatch"),
                    (Some(native.enrollment.as_str()), "auth.server_mismatch"),
                ] {
                    let reply = call(&world, method.clone(), &target, "[]", enrollment, None).await;
                    assert_eq!((reply.status, reply.json()), (401, json!({"error": "UNAUTHORIZED", "code": code, "message": code})), "{method} {target}");
                }
            }
        }
        let [target, alias] = paths(&native);
        for (shown, code) in [
            (None, "auth.proof_required"),
            (Some("x".to_owned()), "auth.proof_invalid"),
            (Some(proof("DELETE", &target)), "auth.proof_invalid"),
            (Some(proof("POST", &alias)), "auth.proof_invalid"),
        ] {
            let reply = call(&world, Method::POST, &target, "[]", Some(&native.enrollment), shown.as_deref()).await;
            assert_eq!((reply.refusal(), &reply.json()["error"]), ((401, code.into()), &json!("UNAUTHORIZED")));
        }
        let once = proof("POST", &target);
        assert_eq!(call(&world, Method::POST, &target, "[]", Some(&native.enrollment), Some(&once)).await.status, 200);
        let replay = call(&world, Method::POST, &target, "[]", Some(&native.enrollment), Some(&once)).await;
        assert_eq!(replay.refusal(), (401, "auth.proof_replayed".into()));

        let [target, alias] = paths(&server);
        assert_eq!(server.call(Method::DELETE, &server.path(""), "").await.status, 204);
        for target in [&target, &alias] {
            let gone = ask(&world, &server, Method::POST, target, "[]").await;
            assert_eq!((gone.status, &gone.json()["error"], &gone.json()["code"]), (404, &json!("SERVER_NOT_FOUND"), &json!("server.not_found")));
        }
        later(&world, 8 * 86_400).await;
        let late = ask(&world, &other, Method::POST, &paths(&other)[0], "[]").await;
        assert_eq!((late.status, late.json()), (401, json!({"error": "UNAUTHORIZED", "code": "auth.enrollment_expired", "message": "auth.enrollment_expired"})));
    }

    async fn a_server_cant_keep_the_edges_busy_with_its_name(world: World) {
        let ann = world.sign_up("ann").await;
        let server = HomeServer::legacy(&world, 1).claimed_by(&ann).await;
        let target = server.path("/subdomain");
        for _ in 0..15 {
            assert_eq!(ask(&world, &server, Method::DELETE, &target, "").await.status, 204);
            assert_eq!(ask(&world, &server, Method::POST, &target, "[]").await.status, 200);
        }
        assert_eq!(ask(&world, &server, Method::POST, &target, "[]").await.status, 200, "what changes nothing is not counted");
        let refused = ask(&world, &server, Method::DELETE, &target, "").await;
        assert_eq!((refused.refusal(), refused.header("retry-after")), ((429, "rate_limited".into()), Some("3600")));
    }
}
