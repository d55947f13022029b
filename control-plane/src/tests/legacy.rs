//! What the hub does for servers that show a bearer and no key, and for client apps that mount their tunnels: relay tokens, the
//! hold on TLS, notices for owners, signs of life, signposts (trust s.2.3, s.9.6; upstream-api s.2.4; legacy-relay-wire s.3).

use std::net::IpAddr;

use ::http::Method;
use phlix_protocol::ids::{ServerId, TunnelId};
use phlix_protocol::token::{self, Scope, ViewerTicket};
use phlix_protocol::uplink::{
    Change, EdgeStatus, LegacyOpening, OpenedTunnel, RelayToken, RenewRequest, Selector, paths,
};
use serde_json::{Value, json};

use super::actors::{HomeServer, RelayEdge, later, tunnel};
use super::edges::outer;
use super::world::{PASSWORD, Person, Reply, World, both_engines};
use crate::app::bulletin::snapshot;
use crate::config::{Engine, Rate};
use crate::domain::key::Purpose;
use crate::store;

fn came(server: &HomeServer, tunnel: TunnelId, address: &str, tls: bool) -> Vec<OpenedTunnel> {
    let address: IpAddr = address.parse().unwrap();
    let legacy = Some(LegacyOpening { tls, address });
    vec![OpenedTunnel { server_id: server.id(), tunnel_id: tunnel, statement: None, legacy }]
}

async fn notices(world: &World, who: &Person) -> Vec<Value> {
    let reply = world.client().bearer(&who.access).get("/api/v1/me/notices").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["notices"].as_array().unwrap().clone()
}

async fn kinds(world: &World, who: &Person) -> Vec<(String, String, i64)> {
    let read = |notice: Value| {
        let text = |key: &str| notice[key].as_str().unwrap().to_owned();
        (text("kind"), text("detail"), notice["times"].as_i64().unwrap())
    };
    let mut kinds: Vec<_> = notices(world, who).await.into_iter().map(read).collect();
    kinds.sort();
    kinds
}

fn notice(kind: &str, detail: &str, times: i64) -> (String, String, i64) {
    (kind.into(), detail.into(), times)
}

async fn token_for(world: &World, who: &Person, server: &HomeServer) -> Reply {
    let path = format!("/api/v1/me/servers/{}/relay-token", server.id());
    world.client().bearer(&who.access).post(&path, json!({})).await
}

async fn mount(edge: &RelayEdge, token: &str, server: ServerId) -> Reply {
    edge.post(paths::RELAY_TOKENS, &RelayToken { token: token.to_owned(), server_id: server }).await
}

fn ticket(world: &World, reply: &Reply) -> ViewerTicket {
    assert_eq!(reply.status, 200, "{reply:?}");
    let now = world.app().clock.now();
    let jwt = reply.json()["ticket"].as_str().unwrap().to_owned();
    token::verify(&jwt, &world.app().keys.set(Purpose::Relay, now), now.seconds()).unwrap()
}

async fn withdraw(world: &World, who: &Person, server: &HomeServer, body: Option<Value>) -> u16 {
    let path = format!("/api/v1/me/servers/{}/relay-token", server.id());
    world.client().bearer(&who.access).call(Method::DELETE, &path, body).await.status
}

/// What the bulletin says after a revision.
async fn changes(world: &World, since: u64) -> Vec<Change> {
    let mut conn = world.db().read().await.unwrap();
    let changes = store::bulletin::after(&mut conn, since).await.unwrap().unwrap();
    changes.into_iter().map(|(_, change)| change).collect()
}

both_engines! {
    async fn a_relay_token_becomes_a_ticket_for_one_edge_and_server(world: World) {
        let (ann, bob) = (world.sign_up("ann").await, world.sign_up("bob").await);
        let server = HomeServer::legacy(&world, 1).claimed_by(&ann).await;
        let other = HomeServer::legacy(&world, 2).claimed_by(&ann).await;
        let edge = RelayEdge::core(&world, 7).await;

        let issued = token_for(&world, &ann, &server).await;
        assert_eq!(issued.status, 201, "{issued:?}");
        let body = issued.json();
        assert_eq!((&body["server_id"], &body["expires_at"]), (&json!(server.id()), &json!(server.now() + 3600)));
        let secret = body["token"].as_str().unwrap();
        assert!(secret.len() == 64 && secret.bytes().all(|byte| byte.is_ascii_hexdigit()), "256 bits: {secret}");
        let mut conn = world.db().read().await.unwrap();
        let kept: Vec<(String,)> = sqlx::query_as("SELECT token_hash FROM client_relay_tokens").fetch_all(&mut *conn).await.unwrap();
        drop(conn);
        assert!(kept.len() == 1 && kept[0].0 != secret, "only its hash");

        let given = ticket(&world, &mount(&edge, secret, server.id()).await);
        assert_eq!((given.scope, given.edge, &given.host, given.server_id), (Scope::Tunnel, Some(edge.id), &None, server.id()));
        assert_eq!((given.sub.to_string(), given.exp), (ann.id.clone(), server.now() + 3600));
        let again = ticket(&world, &mount(&edge, secret, server.id()).await);
        assert_eq!(again.jti, given.jti, "the token's own id, so that withdrawing it withdraws each ticket");
        let jwt = mount(&edge, secret, server.id()).await.json()["ticket"].as_str().unwrap().to_owned();
        let renewed = edge.post(paths::RENEW_VIEWER_TICKET, &RenewRequest { ticket: jwt }).await;
        assert_eq!(renewed.status, 401, "no life beyond the token's");

        for (name, shown, target) in [
            ("another server's", secret.to_owned(), other.id()),
            ("changed", format!("{}{}", &secret[1..], &secret[..1]), server.id()),
            ("empty", String::new(), server.id()),
            ("long", "0".repeat(100_000), server.id()),
            ("an access token", ann.access.clone(), server.id()),
            ("the server's own credential", server.enrollment.clone(), server.id()),
        ] {
            assert_eq!(mount(&edge, &shown, target).await.refusal(), (401, "auth.invalid_token".into()), "{name}");
        }
        let outer = outer(&world, 9, EdgeStatus::Approved).await;
        assert_eq!(mount(&outer, secret, server.id()).await.refusal(), (403, "edge.not_trusted".into()));
        assert_eq!(token_for(&world, &bob, &server).await.refusal(), (403, "server.not_owned".into()));

        later(&world, 3599).await;
        assert_eq!(mount(&edge, secret, server.id()).await.status, 200);
        later(&world, 1).await;
        assert_eq!(mount(&edge, secret, server.id()).await.status, 401, "an hour is over");
    }

    async fn relay_tokens_are_withdrawn_one_or_all_and_edges_hear_of_it(world: World) {
        let (ann, bob) = (world.sign_up("ann").await, world.sign_up("bob").await);
        let server = HomeServer::legacy(&world, 1).claimed_by(&ann).await;
        let edge = RelayEdge::core(&world, 7).await;
        let mut secrets = Vec::new();
        for _ in 0..3 {
            secrets.push(token_for(&world, &ann, &server).await.json()["token"].as_str().unwrap().to_owned());
        }
        let first = ticket(&world, &mount(&edge, &secrets[0], server.id()).await);

        let before = snapshot(world.app()).await.unwrap().revision;
        assert_eq!(withdraw(&world, &bob, &server, Some(json!({"token": secrets[0]}))).await, 403);
        assert_eq!(withdraw(&world, &ann, &server, Some(json!({"token": "unknown"}))).await, 204);
        assert_eq!(changes(&world, before).await.len(), 0, "nothing happened");
        assert_eq!(withdraw(&world, &ann, &server, Some(json!({"token": secrets[0]}))).await, 204);
        let told = changes(&world, before).await;
        let [Change::Revoked { revocation }] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!(revocation.selector, Selector::Jti(first.jti));
        assert!(revocation.issued_until >= first.iat && revocation.keep_until > first.exp);
        assert_eq!(mount(&edge, &secrets[0], server.id()).await.status, 401);
        assert_eq!(mount(&edge, &secrets[1], server.id()).await.status, 200);

        assert_eq!(withdraw(&world, &ann, &server, None).await, 204);
        for secret in &secrets {
            assert_eq!(mount(&edge, secret, server.id()).await.status, 401);
        }
        assert_eq!(changes(&world, before).await.len(), 3, "each of the three once");
    }

    async fn a_relay_token_ends_with_its_sign_in_and_with_the_server(world: World) {
        let ann = world.sign_up("ann").await;
        let server = HomeServer::legacy(&world, 1).claimed_by(&ann).await;
        let edge = RelayEdge::core(&world, 7).await;
        let log_in = json!({"username": "ann", "password": PASSWORD});
        let second = Person::of(&world.client().post("/api/v1/auth/login", log_in).await);
        let secret = async |who: &Person| token_for(&world, who, &server).await.json()["token"].as_str().unwrap().to_owned();
        let (one, other) = (secret(&ann).await, secret(&second).await);
        world.client().post("/api/v1/auth/logout", json!({"refresh_token": second.refresh})).await;
        assert_eq!(mount(&edge, &other, server.id()).await.status, 401);
        assert_eq!(mount(&edge, &one, server.id()).await.status, 200);
        let path = format!("/api/v1/me/servers/{}", server.id());
        assert_eq!(world.client().bearer(&ann.access).delete(&path).await.status, 204);
        assert_eq!(mount(&edge, &one, server.id()).await.status, 401);
    }

    //= trust s.9.6
    async fn a_server_that_used_tls_is_held_to_it_until_its_owner_lets_it_go(world: World) {
        let ann = world.sign_up("ann").await;
        let server = HomeServer::legacy(&world, 1).claimed_by(&ann).await;
        let edge = RelayEdge::core(&world, 7).await;
        let path = format!("/api/v1/me/servers/{}", server.id());
        let client = world.client().bearer(&ann.access);
        let held = async || snapshot(world.app()).await.unwrap().tls_only == [server.id()];

        edge.report(true, came(&server, tunnel(1), "203.0.113.7", false), vec![]).await;
        assert!(!held().await);
        assert_eq!(kinds(&world, &ann).await, [notice("tunnel.plain", "203.0.113.7", 1)]);
        let detail = client.get(&path).await.json();
        assert_eq!((&detail["server"]["tls_only"], &detail["notices"][0]["kind"]), (&json!(false), &json!("tunnel.plain")));

        let before = snapshot(world.app()).await.unwrap().revision;
        edge.report(false, came(&server, tunnel(2), "203.0.113.7", true), vec![tunnel(1)]).await;
        assert!(held().await);
        assert_eq!(changes(&world, before).await, [Change::TlsOnly { server_id: server.id(), required: true }]);
        assert_eq!(kinds(&world, &ann).await, [], "and the warning is settled");
        assert_eq!(client.get(&path).await.json()["server"]["tls_only"], true);
        edge.report(false, came(&server, tunnel(3), "203.0.113.7", true), vec![tunnel(2)]).await;
        assert_eq!(changes(&world, before).await.len(), 1, "said once");

        let reset = client.call(Method::PUT, &path, Some(json!({"tls_only": false}))).await;
        assert_eq!((reset.status, reset.json()), (200, json!({"guard_local_paths": true, "tls_only": false})));
        assert!(!held().await);
        assert_eq!(changes(&world, before).await[1], Change::TlsOnly { server_id: server.id(), required: false });
        // The same tunnel, told once more, is no new use of TLS; the next one is.
        edge.report(true, came(&server, tunnel(3), "203.0.113.7", true), vec![]).await;
        assert!(!held().await);
        edge.report(false, came(&server, tunnel(4), "203.0.113.7", true), vec![]).await;
        assert!(held().await);

        client.call(Method::PUT, &path, Some(json!({"tls_only": false}))).await;
        client.call(Method::PUT, &path, Some(json!({"tls_only": true}))).await;
        assert!(held().await, "or by the owner's own will");
        let bob = world.sign_up("bob").await;
        let stranger = world.client().bearer(&bob.access).call(Method::PUT, &path, Some(json!({"tls_only": false}))).await;
        assert_eq!(stranger.refusal(), (404, "server.not_found".into()));
        assert!(held().await);
    }

    async fn an_owner_is_told_of_a_replacement_from_another_address(world: World) {
        let (ann, bob) = (world.sign_up("ann").await, world.sign_up("bob").await);
        let server = HomeServer::legacy(&world, 1).claimed_by(&ann).await;
        let edge = RelayEdge::core(&world, 7).await;
        edge.report(true, came(&server, tunnel(1), "2001:db8:1:2::5", true), vec![]).await;
        edge.report(false, came(&server, tunnel(2), "2001:db8:1:2::77", true), vec![]).await;
        edge.report(false, vec![], vec![tunnel(1), tunnel(2)]).await;
        edge.report(false, came(&server, tunnel(3), "198.51.100.4", true), vec![]).await;
        assert_eq!(kinds(&world, &ann).await, [], "the same home; and a new address after the old tunnel had ended");

        edge.report(false, came(&server, tunnel(4), "203.0.113.9", true), vec![tunnel(3)]).await;
        assert_eq!(kinds(&world, &ann).await, [notice("tunnel.new_address", "198.51.100.4 -> 203.0.113.9", 1)]);
        edge.report(false, came(&server, tunnel(4), "203.0.113.9", true), vec![]).await;
        edge.report(true, came(&server, tunnel(4), "203.0.113.9", true), vec![]).await;
        assert_eq!(kinds(&world, &ann).await.len(), 1, "the same tunnel told again is nothing new");

        // Its owner has read it; it comes back when it happens again.
        let told = notices(&world, &ann).await;
        assert_eq!(told[0]["server_id"], json!(server.id()));
        assert!(told[0]["message"].as_str().unwrap().len() > 20 && told[0]["server_name"] == "Living room");
        let path = format!("/api/v1/me/notices/{}", told[0]["id"].as_str().unwrap());
        assert_eq!(world.client().bearer(&bob.access).delete(&path).await.refusal(), (404, "notice.not_found".into()));
        assert_eq!(world.client().bearer(&ann.access).delete("/api/v1/me/notices/nonsense").await.status, 404);
        assert_eq!(world.client().delete(&path).await.status, 401);
        assert_eq!(world.client().bearer(&ann.access).delete(&path).await.status, 204);
        assert_eq!(kinds(&world, &ann).await, []);
        edge.report(false, came(&server, tunnel(5), "198.51.100.4", true), vec![tunnel(4)]).await;
        assert_eq!(kinds(&world, &ann).await, [notice("tunnel.new_address", "203.0.113.9 -> 198.51.100.4", 2)]);
        assert_eq!(notices(&world, &bob).await, [] as [Value; 0]);
    }

    async fn a_plain_tunnel_is_told_once_and_never_of_the_hubs_own_machine(world: World) {
        let ann = world.sign_up("ann").await;
        let server = HomeServer::legacy(&world, 1).claimed_by(&ann).await;
        let edge = RelayEdge::core(&world, 7).await;
        edge.report(true, came(&server, tunnel(1), "127.0.0.1", false), vec![]).await;
        edge.report(false, came(&server, tunnel(2), "::1", false), vec![tunnel(1)]).await;
        edge.report(false, vec![], vec![tunnel(2)]).await;
        assert_eq!(kinds(&world, &ann).await, []);
        edge.report(false, came(&server, tunnel(3), "203.0.113.7", false), vec![]).await;
        let id = notices(&world, &ann).await[0]["id"].as_str().unwrap().to_owned();
        assert_eq!(world.client().bearer(&ann.access).delete(&format!("/api/v1/me/notices/{id}")).await.status, 204);
        edge.report(false, came(&server, tunnel(4), "203.0.113.7", false), vec![tunnel(3)]).await;
        assert_eq!(kinds(&world, &ann).await, [], "its owner knows");
    }

    async fn how_a_tunnel_came_is_believed_of_core_edges_and_legacy_servers_alone(world: World) {
        let ann = world.sign_up("ann").await;
        let legacy = HomeServer::legacy(&world, 1).claimed_by(&ann).await;
        let native = HomeServer::native(&world, 2).claimed_by(&ann).await;
        let core = RelayEdge::core(&world, 7).await;
        let outer = outer(&world, 9, EdgeStatus::Approved).await;
        outer.report(true, came(&legacy, tunnel(1), "203.0.113.7", true), vec![]).await;
        let how = LegacyOpening { tls: true, address: "203.0.113.7".parse().unwrap() };
        let signed = OpenedTunnel { legacy: Some(how), ..native.opened(core.id, tunnel(2)) };
        core.report(true, vec![signed], vec![]).await;
        core.report(false, came(&native, tunnel(3), "203.0.113.7", true), vec![]).await;
        assert_eq!(snapshot(world.app()).await.unwrap().tls_only, []);
        assert_eq!(kinds(&world, &ann).await, []);
    }

    //= trust s.2.3
    async fn an_owner_is_told_of_old_credentials_that_are_renewed(world: World) {
        let ann = world.sign_up("ann").await;
        let server = HomeServer::native(&world, 1).claimed_by(&ann).await;
        let renew = async || server.call(Method::POST, &server.path("/renew"), "[]").await.status;
        assert_eq!(renew().await, 200);
        later(&world, 600).await;
        assert_eq!(renew().await, 200);
        assert_eq!(kinds(&world, &ann).await, [], "a lost reply within ten minutes");
        later(&world, 1).await;
        assert_eq!(renew().await, 200);
        assert_eq!(kinds(&world, &ann).await, [notice("credentials.old", "", 1)]);
    }

    async fn edges_are_told_whether_a_server_gives_signs_of_life(world: World) {
        let ann = world.sign_up("ann").await;
        let server = HomeServer::legacy(&world, 1).claimed_by(&ann).await;
        let edge = RelayEdge::core(&world, 7).await;
        let path = format!("{}/{}/state", paths::SERVERS, server.id());
        let state = async || edge.get(&path).await.json();
        assert_eq!(state().await, json!({"online": true}));
        later(&world, 180).await;
        assert_eq!(state().await, json!({"online": false}));
        server.heartbeat().await;
        assert_eq!(state().await, json!({"online": true}));
        for unknown in ["00000000-0000-4000-8000-000000000000", "nonsense"] {
            let reply = edge.get(&format!("{}/{unknown}/state", paths::SERVERS)).await;
            assert_eq!(reply.refusal(), (404, "server.not_found".into()));
        }
        assert_eq!(world.client().get(&path).await.status, 401, "no edge");
    }

    async fn signposts_name_the_ports_of_the_websockets(world: World) {
        let id = "11111111-2222-4333-8444-555555555555";
        let mount = format!("wss://hub.test:8803/client/{id}");
        for path in [format!("/client/{id}"), format!("/client/{id}/?x=1")] {
            let reply = world.client().get(&path).await;
            assert_eq!((reply.status, reply.header("x-ws-endpoint")), (426, Some(mount.as_str())));
            let body = reply.json();
            assert_eq!((&body["error"], &body["code"]), (&json!("UPGRADE_REQUIRED"), &json!("relay.client_ws_endpoint")));
            assert_eq!(body["ws_endpoint"], mount);
            assert!(body["message"].is_string());
        }
        let upgrading = world.client().header("upgrade", "websocket").get(&format!("/client/{id}")).await;
        assert_eq!((upgrading.status, upgrading.header("x-ws-endpoint")), (501, Some(mount.as_str())));
        let tunnel = world.client().post(&format!("/api/v1/servers/{id}/relay"), json!([])).await;
        assert_eq!((tunnel.status, tunnel.header("x-ws-endpoint")), (501, Some("wss://hub.test:8802/")));
        assert_eq!(tunnel.json()["ws_endpoint"], "wss://hub.test:8802/");
        for nonsense in ["/client/x", "/client/%2e%2e", "/client/a%0d%0ab"] {
            assert_eq!(world.client().get(nonsense).await.status, 404, "{nonsense}");
        }
    }

    async fn libraries_are_for_the_owner(world: World) {
        let (ann, bob) = (world.sign_up("ann").await, world.sign_up("bob").await);
        let server = HomeServer::legacy(&world, 1).claimed_by(&ann).await;
        let path = format!("/api/v1/me/libraries?server_id={}", server.id());
        let client = world.client().bearer(&ann.access);
        assert_eq!(client.get(&path).await.json(), json!({"libraries": []}));
        server.heartbeat().await;
        assert_eq!(client.get(&path).await.json(), json!({"libraries": [{"id": "a", "name": "Films"}, {"id": "b", "name": "Songs"}]}));
        assert_eq!(world.client().bearer(&bob.access).get(&path).await.refusal(), (403, "not_server_owner".into()));
        assert_eq!(client.get("/api/v1/me/libraries?server_id=x").await.refusal(), (403, "not_server_owner".into()));
        assert_eq!(client.get("/api/v1/me/libraries").await.refusal(), (400, "missing_server_id".into()));
        assert_eq!(world.client().get(&path).await.status, 401);
    }
}

#[tokio::test]
async fn a_user_asks_for_so_many_relay_tokens_and_no_more() {
    let set = |config: &mut crate::config::Config| config.limits.relay_token = Rate::new(2, 600);
    let world = World::with(Engine::Sqlite, set).await;
    let ann = world.sign_up("ann").await;
    let server = HomeServer::legacy(&world, 1).claimed_by(&ann).await;
    for status in [201, 201, 429] {
        assert_eq!(token_for(&world, &ann, &server).await.status, status);
    }
}
