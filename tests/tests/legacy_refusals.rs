//! Every refusal of the wire page's s.1.3 (the tunnel port) and s.3.3 (the proxy), as a table: what is sent, what is seen.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use phlix_protocol::keys::SigningKey;
use phlix_tests::api::Api;
use phlix_tests::curl::Curl;
use phlix_tests::database::Database;
use phlix_tests::hub::Hub;
use phlix_tests::legacy::{EXAMPLE, FILMS, Legacy, LegacyWorld, proxied};
use phlix_tests::relay_peer::{Came, Peer, frame, hello};
use phlix_tests::viewer::{self, Protocol};
use phlix_tests::{Engine, story, until};
use serde_json::{Value, json};

/// Many connections of one address fail here.
const MANY: (&str, &str) = ("PHLIX_HUB_RATELIMIT_RELAY_CONNECT_MAX", "1000");

/// A server that was claimed, of which there is nothing but its enrollment.
struct Enrolled {
    jwt: String,
    id: String,
}

async fn enrol(hub: &Hub, owner: &Api) -> Enrolled {
    let nobody = hub.api();
    let seed = [uuid::Uuid::new_v4().into_bytes(), uuid::Uuid::new_v4().into_bytes()].concat();
    let key = SigningKey::from_seed(&seed.try_into().unwrap()).public();
    let claim = json!({
        "serverName": "Bare",
        "version": "0.97.3",
        "publicKeysJwk": { "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(key.as_bytes()) },
        "hostnameCandidates": [],
        "protocolVersion": "v1",
    });
    let claim = nobody.post("/api/v1/server-claims/new", &claim).await.expect(200);
    let id = owner.claim(claim["claimCode"].as_str().unwrap()).await;
    let told = nobody.get(&format!("/api/v1/server-claims/{}", claim["claimId"].as_str().unwrap())).await.expect(200);
    assert_eq!((&told["status"], &told["server_id"]), (&json!("claimed"), &json!(id)));
    Enrolled { jwt: told["enrollment_jwt"].as_str().unwrap().to_owned(), id }
}

/// A tunnel port with a server that may use it.
async fn port(settings: &[(&str, &str)]) -> (Hub, Api, Enrolled) {
    let hub = Hub::start(Database::fresh(Engine::Sqlite), settings).await;
    let owner = hub.api().register("owner").await;
    let server = enrol(&hub, &owner).await;
    (hub, owner, server)
}

const PROTOCOL_ERROR: u16 = 1002;
const TRY_AGAIN_LATER: u16 = 1013;
const UNAUTHORIZED: u16 = 4401;

/// How a first message that opens no tunnel is answered: by upstream's word, or by a close code where upstream has none.
#[derive(Debug, Clone, Copy)]
enum Seen {
    Said(&'static str),
    Closed(u16),
}

#[test]
fn first_messages_that_open_no_tunnel() {
    story(async {
        let (hub, owner, server) = port(&[MANY]).await;
        let other = enrol(&hub, &owner).await;
        let (jwt, id) = (&server.jwt, &server.id);
        let tampered = {
            let mut parts: Vec<String> = jwt.split('.').map(str::to_owned).collect();
            parts[1] = URL_SAFE_NO_PAD.encode(
                String::from_utf8(URL_SAFE_NO_PAD.decode(&parts[1]).unwrap())
                    .unwrap()
                    .replace("phlix-hub", "phlix-hut"),
            );
            parts.join(".")
        };
        let access = owner.bearer().unwrap();
        for (what, sent, seen) in [
            ("no JSON", "hello".to_owned(), Seen::Said("invalid_hello")),
            ("no object", json!(["hello", jwt, id]).to_string(), Seen::Said("invalid_hello")),
            ("half an object", r#"{"type":"hello""#.to_owned(), Seen::Said("invalid_hello")),
            ("nothing", String::new(), Seen::Said("invalid_hello")),
            (
                "another type",
                json!({ "type": "hi", "enrollment_jwt": jwt, "server_id": id }).to_string(),
                Seen::Closed(PROTOCOL_ERROR),
            ),
            ("no type", json!({ "enrollment_jwt": jwt, "server_id": id }).to_string(), Seen::Closed(PROTOCOL_ERROR)),
            (
                "no server",
                json!({ "type": "hello", "enrollment_jwt": jwt }).to_string(),
                Seen::Said("missing_server_id"),
            ),
            ("an empty server", hello(jwt, ""), Seen::Said("missing_server_id")),
            ("no token", json!({ "type": "hello", "server_id": id }).to_string(), Seen::Closed(PROTOCOL_ERROR)),
            (
                "a nested value",
                json!({ "type": "hello", "enrollment_jwt": jwt, "server_id": id, "x": {} }).to_string(),
                Seen::Said("invalid_hello"),
            ),
            ("a frame instead", String::from_utf8(frame(0, 6, b"")).unwrap(), Seen::Said("invalid_hello")),
            ("no token at all", hello("x", id), Seen::Closed(UNAUTHORIZED)),
            ("a changed token", hello(&tampered, id), Seen::Closed(UNAUTHORIZED)),
            ("a user's token", hello(access, id), Seen::Closed(UNAUTHORIZED)),
            ("another server's token", hello(&other.jwt, id), Seen::Closed(UNAUTHORIZED)),
            ("another server's id", hello(jwt, &other.id), Seen::Closed(UNAUTHORIZED)),
        ] {
            let mut peer = Peer::server(hub.ready().relay_server()).await;
            peer.send(sent.as_bytes()).await;
            let came = peer.rest().await;
            let expected = match seen {
                Seen::Said(word) => Came::Message(word.into()),
                Seen::Closed(code) => Came::Close(code),
            };
            // No frame, no ack, and the end of TCP.
            assert_eq!(came, [expected, Came::End], "{what}");
        }
        // More scalars are passed over, and the server is let in all the same.
        let mut peer = Peer::server(hub.ready().relay_server()).await;
        let more = json!({ "type": "hello", "enrollment_jwt": jwt, "server_id": id, "version": 2, "x": null });
        peer.send(more.to_string().as_bytes()).await;
        let Came::Message(ack) = peer.next().await else { panic!("no ack") };
        let ack: Value = serde_json::from_slice(&ack).unwrap();
        assert_eq!(ack["type"], "hello_ack");
        for id in ["relay_session_id", "tunnel_id"] {
            ack[id].as_str().unwrap().parse::<uuid::Uuid>().unwrap();
        }

        // Who says nothing has 10 s.
        let mut silent = Peer::server(hub.ready().relay_server()).await;
        let begun = std::time::Instant::now();
        let came = silent.rest().await;
        let took = begun.elapsed();
        assert!((9..14).contains(&took.as_secs()), "{took:?}");
        assert!(matches!(came[..], [Came::Close(_), Came::End]), "{came:?}");
    });
}

#[test]
fn messages_that_end_a_tunnel() {
    story(async {
        let (hub, _, server) = port(&[MANY]).await;
        let address = hub.ready().relay_server();
        let hello_again = hello(&server.jwt, &server.id).into_bytes();
        let mut table = vec![("a second HELLO", hello_again)];
        //= legacy-relay-wire s.2: any inbound type other than DATA, HTTP_RESPONSE, HTTP_CANCEL, HEARTBEAT
        for kind in [0x00, 0x01, 0x02, 0x03, 0x04, 0x07, 0x08, 0x09, 0x0c, 0x0f, 0x10, 0x13, 0x7f, 0xff] {
            table.push(("a type that servers don't send", frame(0, kind, b"")));
        }
        table.push(("more than 4096 frames in a message", frame(0, 6, b"").repeat(4097)));
        for (what, sent) in table {
            let mut peer = Peer::server(address).await;
            peer.hello(&server.jwt, &server.id).await;
            peer.send(&sent).await;
            let came = peer.rest().await;
            assert_eq!(came, [Came::Close(PROTOCOL_ERROR), Came::End], "{what} ({:02x})", sent.get(4).unwrap_or(&0));
        }
        let mut unmasked = Peer::server(address).await;
        unmasked.hello(&server.jwt, &server.id).await;
        unmasked.send_raw(&[0x82, 7, 0, 0, 0, 0, 6, 0, 0]).await;
        assert_eq!(unmasked.rest().await, [Came::Close(PROTOCOL_ERROR), Came::End]);

        // And what does not: frames split over messages, several in one, for nobody, empty, cancels of all kinds.
        let mut peer = Peer::server(address).await;
        peer.hello(&server.jwt, &server.id).await;
        let many: Vec<u8> = [frame(0, 6, b""), frame(9, 5, b"nobody"), frame(0x8000_0001, 0x12, b"")].concat();
        peer.send(&many).await;
        for byte in &many {
            peer.send(&[*byte]).await;
        }
        peer.send(b"").await;
        peer.send(&frame(0xffff_ffff, 0x11, b"\x02bytes for nobody")).await;
        peer.send(&frame(0, 6, b"").repeat(4096)).await;
        assert!(peer.quiet(Duration::from_secs(1)).await, "it was answered or ended");
    });
}

#[test]
fn the_door_is_for_websockets_at_its_root() {
    story(async {
        let (hub, _, _) = port(&[]).await;
        let address = hub.ready().relay_server();
        for (target, headers, status) in [
            ("/elsewhere", &[][..], "404"),
            ("/client/x", &[], "404"),
            // Sent twice, or another version.
            ("/", &[("Sec-WebSocket-Version", "8")], "4"),
        ] {
            let refused = Peer::connect(address, target, headers).await.unwrap_err();
            assert!(refused.starts_with(&format!("HTTP/1.1 {status}")), "{target}: {refused}");
        }
        let page = Api::new(address).get("/").await;
        assert_eq!(page.status, 426);
    });
}

#[test]
fn connections_that_prove_nothing_are_counted() {
    story(async {
        let (hub, _, server) = port(&[]).await;
        let address = hub.ready().relay_server();
        // A fleet behind one address comes back after a restart: none of them counts.
        for _ in 0..30 {
            Peer::server(address).await.hello(&server.jwt, &server.id).await;
        }
        for _ in 0..10 {
            let mut peer = Peer::server(address).await;
            peer.send(b"no hello").await;
            assert_eq!(peer.rest().await.last(), Some(&Came::End));
        }
        let mut refused = Peer::server(address).await;
        assert_eq!(refused.rest().await, [Came::Close(TRY_AGAIN_LATER), Came::End]);
        assert_eq!(refused.bytes, [0x88, 0x02, 0x03, 0xf5]);
    });
}

#[test]
fn the_newest_valid_tunnel_wins() {
    story(async {
        let hub = Hub::start(Database::fresh(Engine::Sqlite), &[MANY, ("HUB_RELAY_RECONNECT_DRAIN_GRACE", "3")]).await;
        let owner = hub.api().register("owner").await;
        let legacy = Legacy::start(&hub);
        let world = LegacyWorld::of(hub, owner, legacy).await;
        let address = world.hub.ready().relay_server();
        let jwt = world.legacy.jwt();
        let libraries = world.path("/api/v1/libraries");

        // A newcomer that is not believed changes nothing, nor does one that has not spoken yet.
        let parked = Peer::server(address).await;
        let mut bad = Peer::server(address).await;
        bad.send(hello("x", &world.server).as_bytes()).await;
        assert_eq!(bad.rest().await, [Came::Close(UNAUTHORIZED), Came::End]);
        world.owner.get(&libraries).await.expect(200);
        assert_eq!(world.legacy.records().await.tunnels().len(), 1);
        drop(parked);

        // The old tunnel ends what it has begun, within its grace; new requests go to the new one.
        let mut viewer = world.viewer(Protocol::H1).await;
        let slow = world.path("/api/v1/media?behave=drip&size=10&piece=1&every=0.2");
        let running = viewer.get(&slow, &[("authorization", &world.bearer())]).await;
        assert_eq!(running.status(), 200);
        let mut newcomer = Peer::server(address).await;
        newcomer.hello(&jwt, &world.server).await;
        let asking = tokio::spawn({
            let (owner, libraries) = (world.owner.clone(), libraries.clone());
            async move { owner.get(&libraries).await }
        });
        let Came::Message(asked) = newcomer.next().await else { panic!("the newcomer is not asked") };
        assert_eq!(asked[4], 0x10, "an HTTP_REQUEST");
        assert_eq!(viewer::read(running).await.unwrap().len(), 10, "the old tunnel's request was cut");
        // Nothing runs on the old one, or its grace is over: it is closed, and comes back as the newest itself.
        let ended = world
            .legacy
            .shows("the old tunnel is replaced", Duration::from_secs(10), |seen| {
                seen.tunnels()[0]["ended"].is_number().then(|| seen.tunnels()[0].clone())
            })
            .await;
        println!("replaced: {ended}");
        asking.abort();
        // Which in turn replaces the other.
        assert!(newcomer.rest().await.contains(&Came::End));
        until("the double's tunnel is the newest", Duration::from_secs(20), || async {
            (world.owner.get(&libraries).await.status == 200).then_some(())
        })
        .await;
    });
}

#[test]
fn who_has_used_tls_is_not_let_in_without() {
    story(async {
        let hub = Hub::start(Database::fresh(Engine::Sqlite), &[MANY]).await;
        let owner = hub.api().register("owner").await;
        let ca = hub.ready().ca_file.display().to_string();
        let http = format!("http://localhost:{}", hub.ready().http.port());
        let wss = format!("wss://localhost:{}", hub.ready().relay_server().port());
        let mut world = LegacyWorld::of(hub, owner, Legacy::start_at(&http, &wss, &["--ca", &ca])).await;
        let jwt = world.legacy.jwt();
        world.legacy.kill();
        let address = world.hub.ready().relay_server();
        // The control plane hears of it, and tells the edges: a moment.
        until("plain is refused", Duration::from_secs(20), || async {
            let mut peer = Peer::server(address).await;
            peer.send(hello(&jwt, &world.server).as_bytes()).await;
            (peer.next().await == Came::Close(UNAUTHORIZED)).then_some(())
        })
        .await;
        world.legacy.start_again();
        world.legacy.connected().await;
    });
}

#[test]
fn a_hub_may_want_tls_of_all() {
    story(async {
        let (hub, _, _) = port(&[("HUB_RELAY_TLS", "on")]).await;
        let refused = Peer::connect(hub.ready().relay_server(), "/", &[]).await.unwrap_err();
        assert!(!refused.starts_with("HTTP/1.1 101"), "{refused}");
    });
}

#[test]
fn a_server_that_was_removed_is_out_at_once() {
    story(async {
        let (hub, owner, server) = port(&[MANY]).await;
        let address = hub.ready().relay_server();
        let mut peer = Peer::server(address).await;
        peer.hello(&server.jwt, &server.id).await;
        owner.call(Method::DELETE, &format!("/api/v1/me/servers/{}", server.id), None).await;
        let begun = std::time::Instant::now();
        let came = peer.rest().await;
        assert!(begun.elapsed() < Duration::from_secs(3), "it was out after {:?}", begun.elapsed());
        assert_eq!(came, [Came::Close(UNAUTHORIZED), Came::End]);
        let mut again = Peer::server(address).await;
        again.send(hello(&server.jwt, &server.id).as_bytes()).await;
        assert_eq!(again.rest().await, [Came::Close(UNAUTHORIZED), Came::End]);
    });
}

/// Steps of s.3.3 before a request goes down a tunnel. Nothing of it reaches home.
#[test]
fn what_the_proxy_refuses() {
    story(async {
        let world = LegacyWorld::start(Engine::Sqlite).await;
        let stranger = world.hub.api().register("stranger").await;
        let bare = enrol(&world.hub, &world.owner).await;
        let nobody = world.hub.api();
        let libraries = world.path("/api/v1/libraries");
        let unknown = proxied("99999999-9999-4999-8999-999999999999", "/api/v1/libraries");

        nobody.get(&libraries).await.expect_code(401, "auth.required");
        nobody.with_bearer("x.y.z").get(&libraries).await.expect_code(401, "auth.required");
        world.owner.get(&unknown).await.expect_code(404, "server.not_found");
        stranger.get(&libraries).await.expect_code(403, "server.not_owned");
        // At home by its heartbeats, and no tunnel. Then none of both.
        let beat = json!({
            "serverId": bare.id, "version": "0.97.3", "timestamp": 1_795_000_000, "uptimeSeconds": 1,
            "activeSessions": 0, "activeTranscodes": 0, "hostnameCandidates": [], "libraries": [],
        });
        let as_server = nobody.with_bearer(&bare.jwt);
        as_server.post(&format!("/api/v1/servers/{}/heartbeat", bare.id), &beat).await.expect(200);
        let at_bare = proxied(&bare.id, "/api/v1/libraries");
        world.owner.get(&at_bare).await.expect_code(503, "server.relay_unavailable");

        for path in [
            // Out of scope, in every spelling of what is in it.
            "/api/v1/users",
            "/api/v1/admin/settings",
            "/api/v1/sessions",
            "/api/v1/librariesx",
            "/api/v1/Libraries",
            "/",
            "/app/",
            "/trickplay/x/other.png",
            &format!("/media/{EXAMPLE}/stream/more"),
            &format!("/media/{EXAMPLE}/download"),
            "/api/v1/artwork/a/b/c",
            "/api/v1/libraries/%2e%2e/users",
            "/api/v1/libraries/../users",
            "/api/v1/libraries/.%2e/users",
            "/api/v1/libraries/%252e%252e/users",
            "/api/v1/libraries%2f1",
            "/api/v1/libraries%5c..%5cusers",
            "/api/v1/libraries/%00",
            "/api/v1/libraries/%0d%0ax",
            "/api/v1/libraries/%2525252525252e",
            "/api/v1/./libraries",
            // Denied although a prefix allows them.
            "/api/v1/music/scan",
            "/api/v1/music//scan",
            "/api/v1/music/scan;x",
            "/api/v1/music/sc%61n",
            "/api/v1/music/scan.",
            "/api/v1/music/scan%20",
            &format!("/api/v1/libraries/{FILMS}/scan"),
            &format!("/api/v1/libraries/{FILMS}/delete-all"),
            &format!("/api/v1/libraries/{FILMS}/theme-media/scan"),
            "/api/v1/collections/c1/refresh",
            &format!("/api/v1/media/{EXAMPLE}/match/apply"),
            &format!("/api/v1/media/{EXAMPLE}/subtitles/download"),
        ] {
            let answer = world.owner.get(&world.path(path)).await;
            // What is no address at all may also be told so.
            assert!(
                answer.status == 403 && answer.body["code"] == "proxy.scope_denied",
                "{path}: {} {}",
                answer.status,
                answer.body
            );
        }
        let item = |act: &str| format!("/api/v1/media/{EXAMPLE}{act}");
        for (method, path) in [
            (Method::HEAD, "/api/v1/libraries".to_owned()),
            (Method::POST, "/api/v1/libraries".to_owned()),
            (Method::DELETE, format!("/api/v1/libraries/{FILMS}")),
            (Method::PATCH, item("/metadata")),
            (Method::PATCH, item("/rating")),
            (Method::POST, item("/markers")),
            (Method::POST, item("/match/apply")),
            (Method::POST, format!("/media/{EXAMPLE}/stream")),
            (Method::PUT, item("/watched")),
            (Method::DELETE, item("")),
            (Method::DELETE, item("/watched")),
            (Method::POST, "/api/v1/collections/c1/bulk-add".to_owned()),
            (Method::OPTIONS, "/api/v1/libraries".to_owned()),
        ] {
            let body = (method != Method::HEAD).then(|| json!({}));
            let answer = world.owner.call(method.clone(), &world.path(&path), body.as_ref()).await;
            // Of methods that the proxy has not there is no route, as upstream says.
            let refused = answer.status == 403 || (method == Method::OPTIONS && answer.status.is_client_error());
            assert!(refused, "{method} {path}: {} {}", answer.status, answer.body);
        }
        let records = world.legacy.records().await;
        assert!(records.list("requests").is_empty(), "reached home: {}", records.0["requests"]);
        records.unharmed();
    });
}

#[test]
fn who_asks_too_often_waits_and_media_do_not_count() {
    story(async {
        let world = LegacyWorld::with(Engine::Sqlite, &[("PHLIX_HUB_RATELIMIT_PROXY_MAX", "5")], &[]).await;
        let libraries = world.path("/api/v1/libraries");
        let mut viewer = world.viewer(Protocol::H2).await;
        let bearer = world.bearer();
        let headers = [("authorization", bearer.as_str()), ("range", "bytes=0-9")];
        let media = |n: usize| {
            if n.is_multiple_of(2) { format!("/media/{EXAMPLE}/stream") } else { format!("/api/v1/artwork/{EXAMPLE}") }
        };
        for n in 0..20 {
            let answer = viewer.get(&world.path(&media(n)), &headers).await;
            assert!(answer.status().is_success(), "{}: {}", media(n), answer.status());
            viewer::read(answer).await.unwrap();
        }
        for n in 0..5 {
            assert_eq!(world.owner.get(&libraries).await.status, 200, "question {n}");
        }
        let answer = world.owner.get(&libraries).await;
        let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
        answer.expect_code(429, "rate_limited");
        assert!(viewer.get(&world.path(&media(0)), &headers).await.status().is_success());
        assert_eq!(world.legacy.records().await.requests("/api/v1/libraries").len(), 5);
    });
}

/// What a viewer sees where the server fails before its head, or after it.
#[test]
fn what_becomes_of_servers_that_fail() {
    story(async {
        let world = LegacyWorld::start(Engine::Sqlite).await;
        let ask = |behaviour: &str| world.path(&format!("/api/v1/media?behave={behaviour}"));
        // 30 s, beside all else.
        let silent = tokio::spawn({
            let (owner, path) = (world.owner.clone(), ask("hang"));
            async move {
                let begun = std::time::Instant::now();
                (owner.get(&path).await, begun.elapsed())
            }
        });
        for (behaviour, code) in [
            ("nohead", "origin.failed"),
            ("early", "origin.failed"),
            ("badhead&head=%5B%5D", "origin.failed"),
            ("badhead&head=%7B%22status%22%3A99%7D", "origin.failed"),
            ("badhead&head=no%20JSON", "origin.failed"),
        ] {
            world.owner.get(&ask(behaviour)).await.expect_code(502, code);
        }
        // The request of a tunnel that dies; the next one finds another.
        let died = world.owner.get(&ask("answer&text=before")).await;
        assert_eq!(died.status, 200);
        let bearer = world.bearer();
        for protocol in Protocol::ALL {
            for behaviour in ["short&size=200000", "twoheads&size=200000", "cancelled&size=200000", "long&size=200000"]
            {
                let mut viewer = world.viewer(protocol).await;
                let request = viewer.request(Method::GET, &ask(behaviour)).header("authorization", &bearer);
                // Over HTTP/2 and HTTP/3 the reset may overtake the head.
                let read = match viewer.send(request.body(viewer::empty()).unwrap()).await {
                    Ok(answer) => viewer::read(answer).await,
                    Err(reset) => Err(reset),
                };
                // What came is no more than was promised, and no less is taken for the whole.
                match (behaviour.starts_with("long"), read) {
                    (false, Ok(body)) => panic!("{protocol:?} {behaviour}: {} bytes as if they were all", body.len()),
                    (true, Ok(body)) => assert_eq!(body.len(), 200_000, "{protocol:?} {behaviour}"),
                    (_, Err(_)) => {}
                }
            }
        }
        uploads_have_a_limit(&world).await;

        let (answer, took) = silent.await.unwrap();
        answer.expect_code(504, "gateway.timeout");
        assert!((29..35).contains(&took.as_secs()), "{took:?}");
        let records = world.legacy.records().await;
        assert_eq!(records.tunnels().len(), 1, "one bad answer cost the whole tunnel");
        let hung = records.requests("/api/v1/media").into_iter().find(|seen| seen["query"] == "behave=hang").unwrap();
        assert!(hung["cancelled"].is_number(), "nobody told the server: {hung}");

        // The tunnel breaks before the head, and in the middle of a body.
        world.owner.get(&ask("vanish")).await.expect_code(503, "server.offline");
        let serves = || async {
            until("the server is back", Duration::from_secs(20), || async {
                (world.owner.get(&world.path("/api/v1/libraries")).await.status == 200).then_some(())
            })
            .await;
        };
        serves().await;
        let mut viewer = world.viewer(Protocol::H2).await;
        let answer = viewer.get(&ask("vanish&after=head&size=200000"), &[("authorization", &bearer)]).await;
        assert_eq!(answer.status(), 200);
        viewer::read(answer).await.unwrap_err();
        serves().await;
        // A type that no server sends ends its tunnel; the viewer's request with it.
        world.owner.get(&ask("type&type=19")).await.expect_code(503, "server.offline");
        serves().await;
    });
}

/// 25 MiB is what a server takes: told beforehand or found out, it is 413; at 25 MiB it goes through.
async fn uploads_have_a_limit(world: &LegacyWorld) {
    const MOST: usize = 26_214_400;
    let folder = tempfile::tempdir().unwrap();
    let (most, more) = (folder.path().join("most"), folder.path().join("more"));
    std::fs::write(&most, vec![b'x'; MOST]).unwrap();
    std::fs::write(&more, vec![b'x'; MOST + 1]).unwrap();
    let server = world.proxy();
    for protocol in Protocol::BOTH {
        for (file, headers, status) in [
            (&most, &[("Expect", "")][..], 201),
            (&more, &[], 413),
            (&more, &[("Expect", "")], 413),
            (&more, &[("Expect", ""), ("Transfer-Encoding", "chunked")], 413),
        ] {
            let mut curl = Curl::new(&world.hub, &server, protocol, "/api/v1/playlists")
                .header("Authorization", &world.bearer())
                .arg("--request")
                .arg("POST")
                .arg("--upload-file")
                .arg(file.to_str().unwrap());
            for (name, value) in headers {
                curl = curl.header(name, value);
            }
            let answer = curl.run().await;
            let what = format!("{protocol:?} {headers:?}");
            assert_eq!(answer.status, status, "{what}: {}", String::from_utf8_lossy(&answer.body()));
            if status == 413 {
                let body: Value = serde_json::from_slice(&answer.body()).unwrap();
                assert_eq!(body["code"], "request.too_large", "{what}: {body}");
            }
        }
    }
    let records = world.legacy.records().await;
    assert!(records.list("refusals").is_empty(), "the server had to refuse: {}", records.0["refusals"]);
    let sizes: Vec<_> = records.requests("/api/v1/playlists").iter().map(|seen| seen["body_length"].clone()).collect();
    assert_eq!(sizes, [json!(MOST), json!(MOST)], "half an upload was taken for one");
}
