//! Owners pick their servers' names (architecture s.8, promises T14 and T22).

use std::collections::HashSet;

use ::http::Method;
use futures_util::future::join_all;
use phlix_protocol::token::{self, Access, TunnelTicket, ViewerTicket};
use phlix_protocol::uplink::{Change, Route};
use serde_json::{Value, json};

use super::actors::{HomeServer, RelayEdge, later, tunnel};
use super::world::{Client, PASSWORD, Person, Reply, World, both_engines};
use crate::app::maintenance;
use crate::config::{Engine, Rate};
use crate::domain::key::Purpose;
use crate::store::bulletin;

const QUARANTINE: u64 = 120 * 86_400;

fn opened<C: token::HubClaims>(world: &World, jwt: &Value) -> C {
    let now = world.app().clock.now();
    token::verify(jwt.as_str().unwrap(), &world.app().keys.set(Purpose::Relay, now), now.seconds()).unwrap()
}

/// An owner with a server.
struct Owner {
    world: World,
    person: Person,
    server: HomeServer,
    name: String,
}

impl Owner {
    async fn new(world: &World, name: &str, seed: u8) -> Self {
        let person = world.sign_up(name).await;
        let server = HomeServer::native(world, seed).claimed_by(&person).await;
        Self { world: world.clone(), person, server, name: name.to_owned() }
    }

    fn client(&self) -> Client {
        self.world.client().bearer(&self.person.access)
    }

    /// Signs in again, after a long time.
    async fn returns(&mut self) {
        let form = json!({"username": self.name, "password": PASSWORD});
        let reply = self.world.client().post("/api/v1/auth/login", form).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        self.person = Person::of(&reply);
    }

    fn path(&self, below: &str) -> String {
        format!("/api/v1/me/servers/{}{below}", self.server.id())
    }

    async fn pick(&self, label: &str) -> Reply {
        self.client().post(&self.path("/names"), json!({"label": label})).await
    }

    async fn picks(&self, label: &str) -> String {
        let reply = self.pick(label).await;
        assert_eq!(reply.status, 201, "{label}: {reply:?}");
        reply.json()["host"].as_str().unwrap().to_owned()
    }

    async fn remove(&self, host: &str) -> Reply {
        self.client().delete(&self.path(&format!("/names/{host}"))).await
    }

    async fn removes(&self, host: &str) {
        let reply = self.remove(host).await;
        assert_eq!(reply.status, 204, "{host}: {reply:?}");
    }

    async fn detail(&self) -> Value {
        self.client().get(&self.path("")).await.json()
    }

    async fn hosts(&self) -> Vec<String> {
        let detail = self.detail().await;
        let names = detail["names"].as_array().unwrap();
        names.iter().map(|name| name["host"].as_str().unwrap().to_owned()).collect()
    }

    /// Reason and sentence; no reason where it is free.
    async fn ask(&self, label: &str) -> (Option<String>, String) {
        let query: String = url::form_urlencoded::byte_serialize(label.as_bytes()).collect();
        let reply = self.client().get(&format!("/api/v1/me/names/availability?label={query}")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let body = reply.json();
        assert_eq!(body["available"].as_bool().unwrap(), body["reason"].is_null());
        let text = |value: &Value| value.as_str().map(str::to_owned);
        (text(&body["reason"]), text(&body["message"]).unwrap())
    }
}

fn refused(code: &str) -> (u16, String) {
    (if code == "name.malformed" { 400 } else { 409 }, code.to_owned())
}

async fn revision(world: &World) -> u64 {
    bulletin::revision(&mut world.db().read().await.unwrap()).await.unwrap()
}

both_engines! {
    async fn a_picked_name_leads_to_the_server_beside_the_one_it_had(world: World) {
        let ann = Owner::new(&world, "ann", 1).await;
        let edge = RelayEdge::core(&world, 7).await;
        edge.report(true, vec![ann.server.opened(edge.id, tunnel(1))], vec![]).await;
        let given = ann.hosts().await.remove(0);
        let before = revision(&world).await;

        let reply = ann.pick(" Ann-TV ").await;

        let host = "ann-tv.hub.localhost";
        let view = json!({"host": host, "url": format!("https://{host}/"), "access": "protected", "tls": "terminated", "generated": false});
        assert_eq!((reply.status, reply.json()), (201, view.clone()), "{reply:?}");
        // Told to the edges with the change itself.
        let mut conn = world.db().read().await.unwrap();
        let told = bulletin::after(&mut conn, before).await.unwrap().unwrap();
        drop(conn);
        let change = Change::Route { server_id: ann.server.id(), hosts: vec![host.parse().unwrap()] };
        assert_eq!(told, [(before + 1, change)]);
        for known in [host, given.as_str()] {
            let route: Route = serde_json::from_slice(&edge.get(&format!("/edge/v1/hosts/{known}")).await.bytes).unwrap();
            assert_eq!((route.server_id, route.access), (ann.server.id(), Access::Protected));
        }
        let ticket = ann.server.call(Method::POST, &ann.server.path("/tunnel-ticket"), "{}").await.json();
        let named: Vec<_> = opened::<TunnelTicket>(&world, &ticket["ticket"]).names.into_iter().map(|name| name.host.to_string()).collect();
        assert_eq!(named, [host, &given]);

        // The first picked one is the URL, everywhere.
        later(&world, 1).await;
        ann.picks("ann-films").await;
        assert_eq!(ann.hosts().await, [host, "ann-films.hub.localhost", given.as_str()]);
        let detail = ann.detail().await;
        assert_eq!(detail["names"][0], view);
        assert_eq!((&detail["names"][2]["generated"], &detail["most_names"]), (&json!(true), &json!(5)));
        assert_eq!((&detail["server"]["subdomain"], &detail["server"]["fqdn"]), (&json!("ann-tv"), &json!(host)));
        let info = ann.client().get("/api/v1/me/servers").await.json()["servers"][0].clone();
        assert_eq!((&info["subdomain"], &info["relay_hostname"], &info["url"]), (&json!("ann-tv"), &json!(host), &json!(format!("https://{host}/"))));
        let access = ann.client().get(&ann.path("/access-info")).await.json();
        assert_eq!((&access["relay_active"], &access["relay_url"]), (&json!(true), &json!(format!("https://{host}"))));

        // A program's ticket for each of them, and for nobody else's.
        for wanted in [None, Some(host), Some("ann-films.hub.localhost"), Some(given.as_str())] {
            let body = wanted.map_or(json!({}), |host| json!({"host": host}));
            let reply = ann.client().post(&ann.path("/viewer-ticket"), body).await;
            let ticket: ViewerTicket = opened(&world, &reply.json()["ticket"]);
            assert_eq!(ticket.host.unwrap().as_str(), wanted.unwrap_or(host));
            assert_eq!(reply.json()["url"], format!("https://{}/", wanted.unwrap_or(host)));
        }
        for other in ["bob.hub.localhost", "no host"] {
            let reply = ann.client().post(&ann.path("/viewer-ticket"), json!({"host": other})).await;
            assert_eq!(reply.refusal(), (404, "server.name_not_found".into()));
        }
    }

    async fn a_removed_name_is_over_for_edges_agents_and_viewers(world: World) {
        let ann = Owner::new(&world, "ann", 1).await;
        let edge = RelayEdge::core(&world, 7).await;
        let host = ann.picks("ann-tv").await;
        let before = revision(&world).await;
        ann.removes(&host).await;

        assert_eq!(edge.get(&format!("/edge/v1/hosts/{host}")).await.status, 404);
        assert_eq!(revision(&world).await, before + 1);
        let ticket = ann.server.call(Method::POST, &ann.server.path("/tunnel-ticket"), "{}").await.json();
        assert_eq!(opened::<TunnelTicket>(&world, &ticket["ticket"]).names.len(), 1);
        assert!(!ann.hosts().await.contains(&host));
        let path = ann.path(&format!("/names/{host}"));
        let missing = (404, "server.name_not_found".to_owned());
        assert_eq!(ann.client().call(Method::PUT, &path, Some(json!({"access": "open"}))).await.refusal(), missing);
        assert_eq!(ann.remove(&host).await.refusal(), missing, "again");
        assert_eq!(ann.remove("nonsense%20host").await.refusal(), missing);
    }

    async fn labels_that_cant_be_had_are_refused_with_their_reason(world: World) {
        let ann = Owner::new(&world, "ann", 1).await;
        let edge = RelayEdge::core(&world, 7).await;
        let mut place = edge.place();
        place.names = vec!["oslo.hub.localhost".into()];
        assert_eq!(edge.post(phlix_protocol::uplink::paths::REGISTER, &place).await.status, 200);
        let long = "a".repeat(64);
        for (label, reason) in [
            ("", "malformed"),
            ("tv", "malformed"),
            (&long, "malformed"),
            ("xn--nn-vja", "malformed"),
            ("-ann", "malformed"),
            ("ann-", "malformed"),
            ("a.b", "malformed"),
            ("änn", "malformed"),
            ("_acme-challenge", "malformed"),
            ("deadbeef", "malformed"),
            ("www", "reserved"),
            ("ADMIN", "reserved"),
            ("ns2", "reserved"),
            ("phlix-login", "reserved"),
            ("oslo", "reserved"),
            ("adrnin", "confusing"),
            ("ph1ix", "confusing"),
            ("0sl0", "confusing"),
        ] {
            assert_eq!(ann.pick(label).await.refusal(), refused(&format!("name.{reason}")), "{label:?}");
            let (told, sentence) = ann.ask(label).await;
            assert_eq!(told.as_deref(), Some(reason), "{label:?}");
            assert!(sentence.len() > 20 && sentence.ends_with('.'), "{sentence}");
        }
        for body in [json!({}), json!([]), json!({"label": 7}), json!({"label": null}), json!({"label": ["ann"]})] {
            assert_eq!(ann.client().post(&ann.path("/names"), body).await.refusal(), refused("name.malformed"));
        }
        assert_eq!(ann.hosts().await.len(), 1);
        assert_eq!(ann.ask("ann-tv").await, (None, "It is free.".into()));
        let whole = ann.client().get("/api/v1/me/names/availability?label=%20Ann-TV").await.json();
        assert_eq!(whole, json!({"label": " Ann-TV", "host": "ann-tv.hub.localhost", "available": true, "reason": null, "message": "It is free."}));
    }

    async fn what_looks_like_anothers_name_is_refused(world: World) {
        let (ann, bob) = (Owner::new(&world, "ann", 1).await, Owner::new(&world, "bob", 2).await);
        ann.picks("modern-films").await;
        for alike in ["modernfilms", "modem-films", "m0dern-f1lms", "modern-fi1m5"] {
            assert_eq!(bob.pick(alike).await.refusal(), refused("name.confusing"), "{alike}");
            let (reason, sentence) = bob.ask(alike).await;
            assert_eq!(reason.as_deref(), Some("confusing"));
            assert!(!sentence.contains("modern"), "which one is nobody's business: {sentence}");
            // Its own owner is told which.
            assert_eq!(ann.pick(alike).await.refusal(), refused("name.confusing"), "{alike}");
            assert!(ann.ask(alike).await.1.contains("modern-films.hub.localhost"));
        }
        assert_eq!(bob.pick("modern-films").await.refusal(), refused("name.taken"));
        assert_eq!(bob.ask("modern-films").await.0.as_deref(), Some("taken"));
        assert_eq!(ann.pick("modern-films").await.refusal(), refused("name.taken"));
        assert_eq!(ann.ask("modern-films").await.1, "You have this name already.");
        bob.picks("modern-music").await;
    }

    /// Of eight who want one label, or eight spellings that look alike, one gets it.
    async fn a_race_for_a_name_has_one_winner(world: World) {
        let owners = join_all((1..=8).map(|seed| {
            let world = world.clone();
            async move { Owner::new(&world, &format!("owner{seed}"), seed).await }
        })).await;
        let alike = ["solo-films", "s0lo-films", "5olo-films", "so1o-films", "solofilms", "sol0-f1lms", "solo-fi1ms", "5010f1lm5"];
        for round in 0..2 {
            let same: Vec<_> = (0..8).map(|_| format!("round-{round}")).collect();
            let lookalikes = alike.iter().map(|label| format!("{label}-{}", ["aa", "bb"][round])).collect();
            for labels in [same, lookalikes] {
                let tries = owners.iter().zip(&labels).map(|(owner, label)| {
                    let (client, path, body) = (owner.client(), owner.path("/names"), json!({"label": label}));
                    tokio::spawn(async move { client.post(&path, body).await })
                });
                let replies: Vec<_> = join_all(tries).await.into_iter().map(Result::unwrap).collect();
                let won = replies.iter().filter(|reply| reply.status == 201).count();
                assert_eq!(won, 1, "{labels:?}: {replies:?}");
                for reply in replies.iter().filter(|reply| reply.status != 201) {
                    let (status, code) = reply.refusal();
                    assert!(status == 409 && matches!(code.as_str(), "name.taken" | "name.confusing"), "{reply:?}");
                }
            }
        }
        let mut hosts = HashSet::new();
        for owner in &owners {
            hosts.extend(owner.hosts().await);
        }
        assert_eq!(hosts.len(), 8 + 4, "{hosts:?}");
    }

    async fn a_released_name_is_kept_for_who_had_it(world: World) {
        let (mut ann, mut bob) = (Owner::new(&world, "ann", 1).await, Owner::new(&world, "bob", 2).await);
        let second = HomeServer::native(&world, 3).claimed_by(&ann.person).await;
        let host = ann.picks("ann-tv").await;
        ann.client().call(Method::PUT, &ann.path(&format!("/names/{host}")), Some(json!({"access": "open"}))).await;
        ann.removes(&host).await;

        assert_eq!(bob.pick("ann-tv").await.refusal(), refused("name.quarantined"));
        assert_eq!(bob.ask("ann-tv").await.0.as_deref(), Some("quarantined"));
        assert_eq!(bob.pick("anntv").await.refusal(), refused("name.confusing"), "nor what looks like it");
        assert_eq!(ann.ask("ann-tv").await, (None, "It was yours before: you can have it back.".into()));

        // Its owner has it back at once, on another server too, and protected again.
        let path = format!("/api/v1/me/servers/{}/names", second.id());
        let back = ann.client().post(&path, json!({"label": "ann-tv"})).await;
        assert_eq!((back.status, &back.json()["access"]), (201, &json!("protected")), "{back:?}");
        assert_eq!(bob.pick("ann-tv").await.refusal(), refused("name.taken"));

        // Also after the server was given up.
        assert_eq!(ann.client().delete(&format!("/api/v1/me/servers/{}", second.id())).await.status, 204);
        assert_eq!(bob.pick("ann-tv").await.refusal(), refused("name.quarantined"));
        ann.picks("ann-tv").await;
        ann.removes(&host).await;

        later(&world, QUARANTINE - 1).await;
        bob.returns().await;
        ann.returns().await;
        assert_eq!(bob.pick("ann-tv").await.refusal(), refused("name.quarantined"));
        assert_eq!(ann.ask("ann-tv").await.0, None);
        later(&world, 1).await;
        // Over, also before any sweep; and then it is anybody's.
        assert_eq!(bob.ask("anntv").await.0, None);
        bob.picks("anntv").await;
        assert_eq!(ann.pick("ann-tv").await.refusal(), refused("name.confusing"));
        maintenance::sweep(world.app()).await.unwrap();
        assert_eq!(bob.hosts().await[0], "anntv.hub.localhost");
    }

    async fn an_owner_may_respell_a_name(world: World) {
        let (ann, bob) = (Owner::new(&world, "ann", 1).await, Owner::new(&world, "bob", 2).await);
        let first = ann.picks("ann-tv").await;
        ann.removes(&first).await;
        let second = ann.picks("anntv").await;
        assert_eq!(bob.pick("ann-tv").await.refusal(), refused("name.quarantined"));
        assert_eq!(bob.pick("a-nn-tv").await.refusal(), refused("name.confusing"));
        assert_eq!(ann.pick("ann-tv").await.refusal(), refused("name.confusing"), "not both");
        ann.removes(&second).await;
        assert_eq!(bob.pick("a-nn-tv").await.refusal(), refused("name.confusing"));
        ann.picks("ann-tv").await;
        assert_eq!(bob.pick("anntv").await.refusal(), refused("name.quarantined"));
    }

    async fn a_server_has_a_few_names_and_always_one(world: World) {
        let ann = Owner::new(&world, "ann", 1).await;
        let given = ann.hosts().await.remove(0);
        assert_eq!(ann.remove(&given).await.refusal(), (409, "server.last_name".into()));
        for label in ["one-a", "two-b", "three-c", "four-d", "five-e"] {
            ann.picks(label).await;
        }
        let full = ann.pick("six-f").await;
        assert_eq!(full.refusal(), (409, "name.too_many".into()));
        assert!(full.json()["message"].as_str().unwrap().contains('5'));
        // The one that came with it may go now, and gives no room for another.
        ann.removes(&given).await;
        assert_eq!(ann.pick("six-f").await.refusal(), (409, "name.too_many".into()));
        // All at once: one stays.
        let hosts = ann.hosts().await;
        let ends = hosts.iter().map(|host| {
            let (client, path) = (ann.client(), ann.path(&format!("/names/{host}")));
            tokio::spawn(async move { client.delete(&path).await.status })
        });
        let mut ends: Vec<_> = join_all(ends).await.into_iter().map(Result::unwrap).collect();
        ends.sort_unstable();
        assert_eq!(ends, [204, 204, 204, 204, 409]);
        assert_eq!(ann.hosts().await.len(), 1);
    }

    //= promises T14
    async fn other_peoples_names_stay_theirs(world: World) {
        let (ann, bob) = (Owner::new(&world, "ann", 1).await, Owner::new(&world, "bob", 2).await);
        let host = ann.picks("ann-tv").await;
        let unknown = format!("/api/v1/me/servers/{}", uuid::Uuid::from_u128(9));
        let calls = [
            (Method::POST, "/names".to_owned(), Some(json!({"label": "bob-was-here"}))),
            (Method::DELETE, format!("/names/{host}"), None),
            (Method::PUT, String::new(), Some(json!({"guard_local_paths": false}))),
        ];
        for (method, below, body) in calls {
            let call = async |client: Client, path: String| client.call(method.clone(), &path, body.clone()).await.refusal();
            let hidden = (404, "server.not_found".to_owned());
            assert_eq!(call(bob.client(), ann.path(&below)).await, hidden, "{method} {below}");
            assert_eq!(call(bob.client(), format!("{unknown}{below}")).await, hidden, "nothing tells them apart");
            assert_eq!(call(bob.client(), format!("/api/v1/me/servers/nonsense{below}")).await, hidden);
            assert_eq!(call(world.client(), ann.path(&below)).await, (401, "auth.required".into()));
            assert_eq!(call(world.client().bearer(&ann.server.enrollment), ann.path(&below)).await.0, 401);
            assert_eq!(call(world.client().bearer(&ann.person.refresh), ann.path(&below)).await.0, 401);
        }
        // By way of one's own server.
        assert_eq!(bob.remove(&host).await.refusal(), (404, "server.name_not_found".into()));
        assert_eq!(world.client().get("/api/v1/me/names/availability?label=ann").await.refusal(), (401, "auth.required".into()));
        assert_eq!(ann.hosts().await[0], host, "nothing happened");
        assert_eq!(ann.detail().await["server"]["guard_local_paths"], true);
    }

    async fn the_owner_turns_the_guard_of_local_paths_off_and_on(world: World) {
        let ann = Owner::new(&world, "ann", 1).await;
        ann.picks("ann-tv").await;
        let edge = RelayEdge::core(&world, 7).await;
        for (on, below) in [(true, None), (false, Some(false)), (true, Some(true))] {
            if let Some(on) = below {
                let before = revision(&world).await;
                let reply = ann.client().call(Method::PUT, &ann.path(""), Some(json!({"guard_local_paths": on}))).await;
                assert_eq!((reply.status, reply.json()), (200, json!({"guard_local_paths": on, "tls_only": false})));
                assert_eq!(revision(&world).await, before + 1);
            }
            assert_eq!(ann.detail().await["server"]["guard_local_paths"], on);
            for host in ann.hosts().await {
                assert_eq!(edge.get(&format!("/edge/v1/hosts/{host}")).await.json()["guard_local_paths"], on);
            }
        }
        for nonsense in [json!({}), json!([]), json!({"guard_local_paths": "off"}), json!({"guard_local_paths": null})] {
            let reply = ann.client().call(Method::PUT, &ann.path(""), Some(nonsense)).await;
            assert_eq!(reply.refusal(), (400, "invalid_request".into()));
        }
    }

    /// Rows of the version before have no skeleton: they are given one before long, and get in nobody's way until then.
    async fn names_of_older_code_are_looked_after_too(world: World) {
        let (ann, bob) = (Owner::new(&world, "ann", 1).await, Owner::new(&world, "bob", 2).await);
        ann.picks("ann-tv").await;
        let mut conn = world.db().write().await.unwrap();
        sqlx::query("UPDATE names SET skeleton = NULL").execute(&mut *conn).await.unwrap();
        drop(conn);
        assert_eq!(bob.pick("ann-tv").await.refusal(), refused("name.taken"));
        maintenance::sweep(world.app()).await.unwrap();
        assert_eq!(bob.pick("anntv").await.refusal(), refused("name.confusing"));
        let mut conn = world.db().read().await.unwrap();
        let bare: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM names WHERE skeleton IS NULL").fetch_one(&mut *conn).await.unwrap();
        assert_eq!(bare, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trying_and_taking_are_limited() {
    for engine in [Engine::Sqlite, Engine::Mysql] {
        let world = World::with(engine, |config| {
            config.limits.name_try = Rate::new(6, 600);
            config.limits.name_new = Rate::new(2, 86_400);
            config.limits.name_check = Rate::new(3, 600);
        })
        .await;
        let (mut ann, bob) = (Owner::new(&world, "ann", 1).await, Owner::new(&world, "bob", 2).await);
        let host = ann.picks("one-a").await;
        ann.picks("two-b").await;
        let refusal = ann.pick("three-c").await;
        assert_eq!((refusal.refusal(), refusal.header("retry-after")), ((429, "rate_limited".into()), Some("86400")));
        assert_eq!(ann.ask("three-c").await.0, None, "the refused one was not kept");
        // To have one's own back costs nothing but a try.
        ann.removes(&host).await;
        ann.picks("one-a").await;
        for _ in 0..2 {
            assert_eq!(ann.pick("www").await.refusal(), refused("name.reserved"));
        }
        let refusal = ann.pick("www").await;
        assert_eq!((refusal.refusal(), refusal.header("retry-after")), ((429, "rate_limited".into()), Some("600")));
        assert_eq!(bob.pick("www").await.refusal(), refused("name.reserved"), "one user's tries are not another's");

        for _ in 0..2 {
            ann.ask("x").await;
        }
        let refusal = ann.client().get("/api/v1/me/names/availability?label=x").await;
        assert_eq!(refusal.refusal(), (429, "rate_limited".into()));
        later(&world, 86_400).await;
        ann.returns().await;
        ann.picks("three-c").await;
        world.end().await;
    }
}
