//! The sign-in at a protected name: hub, browser and edge (trust s.6.2).

use futures_util::future::join_all;
use phlix_protocol::b64;
use phlix_protocol::token::{self, Scope, ViewerTicket};
use phlix_protocol::uplink::{NameCode, RenewRequest, paths};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use url::Url;

use super::actors::{HomeServer, RelayEdge, later};
use super::world::{Client, ORIGIN, PASSWORD, Person, Reply, World, both_engines};
use crate::domain::key::Purpose;

const STATE: &str = "a-state-of-the-edge_0123";
const VERIFIER: &str = "a verifier that the browser keeps";

fn challenge(verifier: &str) -> String {
    b64::encode(Sha256::digest(verifier.as_bytes()))
}

fn page(host: &str) -> String {
    format!("/authorize-name?host={host}&state={STATE}&challenge={}", challenge(VERIFIER))
}

/// A browser that is signed in.
async fn browser(world: &World, name: &str) -> Client {
    let form = json!({"username": name, "password": PASSWORD});
    let reply = world.client().header("origin", ORIGIN).post("/api/v1/auth/login", form).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let cookie = reply.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    world.client().header("cookie", &cookie)
}

async fn host_of(world: &World, owner: &Person) -> String {
    let mine = world.client().bearer(&owner.access).get("/api/v1/me/servers").await.json();
    mine["servers"][0]["relay_hostname"].as_str().unwrap().to_owned()
}

/// Where the browser is sent, and the code in it.
fn code(reply: &Reply, host: &str) -> String {
    assert_eq!(reply.status, 302, "{reply:?}");
    let to = Url::parse(reply.header("location").unwrap()).unwrap();
    assert_eq!((to.host_str(), to.path()), (Some(host), "/.phlix/finish"));
    let pairs: Vec<_> = to.query_pairs().into_owned().collect();
    assert_eq!(pairs[1], ("state".into(), STATE.into()));
    assert_eq!((pairs.len(), pairs[0].0.as_str()), (2, "code"));
    pairs[0].1.clone()
}

async fn redeem(edge: &RelayEdge, code: &str, host: &str, verifier: &str) -> Reply {
    let body = NameCode { code: code.into(), host: host.parse().unwrap(), verifier: verifier.into() };
    edge.post(paths::NAME_CODES, &body).await
}

both_engines! {
    async fn a_signed_in_owner_gets_in_without_a_second_password(world: World) {
        let ann = world.sign_up("ann").await;
        let edge = RelayEdge::core(&world, 7).await;
        let server = HomeServer::native(&world, 1).claimed_by(&ann).await;
        let host = host_of(&world, &ann).await;
        let browser = browser(&world, "ann").await;

        let reply = browser.get(&page(&host)).await;
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
        let given = redeem(&edge, &code(&reply, &host), &host, VERIFIER).await;

        assert_eq!(given.status, 200, "{given:?}");
        let jwt = given.json()["ticket"].as_str().unwrap().to_owned();
        let now = world.app().clock.now();
        let keys = world.app().keys.set(Purpose::Relay, now);
        let ticket: ViewerTicket = token::verify(&jwt, &keys, now.seconds()).unwrap();
        assert_eq!((ticket.host.unwrap().as_str(), ticket.server_id), (host.as_str(), server.id()));
        assert_eq!((ticket.edge, ticket.usage, ticket.scope), (None, None, Scope::Name));
        assert_eq!((ticket.exp - ticket.iat, given.json()["expires_at"].as_i64()), (7200, Some(ticket.exp)));
        // Past half its life the edge renews it.
        let renewed = edge.post(paths::RENEW_VIEWER_TICKET, &RenewRequest { ticket: jwt.clone() }).await;
        assert_eq!(renewed.status, 200, "{renewed:?}");
        assert_eq!(world.client().bearer(&ann.access).delete(&format!("/api/v1/me/servers/{}", server.id())).await.status, 204);
        let gone = edge.post(paths::RENEW_VIEWER_TICKET, &RenewRequest { ticket: jwt }).await;
        assert_eq!(gone.status, 404, "{gone:?}");
    }

    async fn who_is_signed_out_signs_in_first_and_comes_back(world: World) {
        let ann = world.sign_up("ann").await;
        HomeServer::native(&world, 1).claimed_by(&ann).await;
        let host = host_of(&world, &ann).await;
        for client in [world.client(), world.client().header("cookie", "__Host-phlix-s=phs_nonsense"), world.client().bearer(&ann.access)] {
            let reply = client.get(&page(&host)).await;
            assert_eq!(reply.status, 302);
            let to = Url::parse("https://hub.test").unwrap().join(reply.header("location").unwrap()).unwrap();
            assert_eq!((to.host_str(), to.path()), (Some("hub.test"), "/app/login"));
            let next: Vec<_> = to.query_pairs().into_owned().collect();
            assert_eq!(next, [("next".to_owned(), page(&host))]);
        }
    }

    async fn a_stranger_is_told_so(world: World) {
        let ann = world.sign_up("ann").await;
        world.sign_up("bob").await;
        HomeServer::native(&world, 1).claimed_by(&ann).await;
        let host = host_of(&world, &ann).await;
        let browser = browser(&world, "bob").await;
        for (path, status) in [
            (page(&host), 403),
            (page("nobody.hub.localhost"), 404),
            (page("evil.example"), 404),
            (page("hub.test"), 404),
            (format!("/authorize-name?host={host}&state={STATE}"), 400),
            (format!("/authorize-name?host=https%3A%2F%2Fevil.example&state={STATE}&challenge={}", challenge(VERIFIER)), 400),
            (format!("{}&redirect_uri=https://evil.example/", page("nobody.hub.localhost")), 404),
        ] {
            let reply = browser.get(&path).await;
            assert_eq!(reply.status, status, "{path}");
            assert!(reply.header("location").is_none(), "{path} leads nowhere");
            assert!(reply.header("content-type").unwrap().starts_with("text/html"));
            let policy = reply.header("content-security-policy").unwrap();
            assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
            assert_eq!((reply.header("x-frame-options"), reply.header("x-content-type-options")), (Some("DENY"), Some("nosniff")));
            assert!(!reply.text().contains("evil"), "nothing of the request is shown");
        }
    }

    //= promises T3
    async fn a_code_is_good_once_for_its_host_browser_and_half_a_minute(world: World) {
        let ann = world.sign_up("ann").await;
        let edge = RelayEdge::core(&world, 7).await;
        HomeServer::native(&world, 1).claimed_by(&ann).await;
        let host = host_of(&world, &ann).await;
        let browser = browser(&world, "ann").await;
        let fresh = async || code(&browser.get(&page(&host)).await, &host);
        let invalid = (401, "auth.invalid_ticket".to_owned());

        let once = fresh().await;
        let replies = join_all((0..5).map(|_| redeem(&edge, &once, &host, VERIFIER))).await;
        assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1, "{replies:?}");
        assert_eq!(redeem(&edge, &once, &host, VERIFIER).await.refusal(), invalid);

        for (host_given, verifier) in [("other.hub.localhost", VERIFIER), (host.as_str(), "another verifier"), (host.as_str(), "")] {
            let code = fresh().await;
            assert_eq!(redeem(&edge, &code, host_given, verifier).await.refusal(), invalid);
            assert_eq!(redeem(&edge, &code, &host, VERIFIER).await.refusal(), invalid, "used up by the wrong attempt");
        }
        assert_eq!(redeem(&edge, "made up", &host, VERIFIER).await.refusal(), invalid);

        let late = fresh().await;
        later(&world, 30).await;
        assert_eq!(redeem(&edge, &late, &host, VERIFIER).await.refusal(), invalid);
        let good = fresh().await;
        later(&world, 29).await;
        assert_eq!(redeem(&edge, &good, &host, VERIFIER).await.status, 200);
    }

    async fn a_code_is_worth_nothing_after_the_sign_in_or_the_right_ended(world: World) {
        let ann = world.sign_up("ann").await;
        let edge = RelayEdge::core(&world, 7).await;
        let server = HomeServer::native(&world, 1).claimed_by(&ann).await;
        let host = host_of(&world, &ann).await;
        let first = browser(&world, "ann").await;
        let code_of_first = code(&first.get(&page(&host)).await, &host);
        let out = first.clone().header("origin", ORIGIN).post("/api/v1/auth/logout", json!({})).await;
        assert_eq!(out.status, 204);
        assert_eq!(redeem(&edge, &code_of_first, &host, VERIFIER).await.refusal(), (401, "auth.invalid_token".into()));

        let second = browser(&world, "ann").await;
        let code_of_second = code(&second.get(&page(&host)).await, &host);
        let path = format!("/api/v1/me/servers/{}", server.id());
        assert_eq!(world.client().bearer(&ann.access).delete(&path).await.status, 204);
        assert_eq!(redeem(&edge, &code_of_second, &host, VERIFIER).await.refusal(), (404, "server.not_found".into()));
    }
}
