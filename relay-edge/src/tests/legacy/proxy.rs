//! Existing media servers as viewers get them: the hub's proxy path, and names.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use phlix_protocol::b64;
use phlix_protocol::token::{Access, Libraries, Permission, Scope, ViewerTicket};
use phlix_protocol::uplink::{ExchangeReply, Selector, ServerKind};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::home::{CANCEL, Heard, Home, REQUEST, Relay};
use super::tunnel;
use crate::config::Config;
use crate::tests::viewer::{self, Fetched, Viewer, nothing};
use crate::tests::world::{NAME, World, bare, until};

pub(super) const BEARER: &str = "an-owners-access-token";
pub(super) const HUB: &str = "localhost";

/// A world whose server is an existing media server, and its owner's bearer.
pub(super) async fn world_with(change: impl FnOnce(&mut Config), ticket: impl FnOnce(&mut ViewerTicket)) -> World {
    let world = World::with(change).await;
    world.hub.route_to(NAME, world.server, ServerKind::Phlix, Access::Protected);
    admit(&world, BEARER, ServerKind::Phlix, ticket);
    world
}

pub(super) async fn world() -> World {
    world_with(|_| {}, |_| {}).await
}

/// Whoever shows this bearer gets a ticket to the proxy path.
pub(super) fn admit(
    world: &World,
    bearer: &str,
    kind: ServerKind,
    change: impl FnOnce(&mut ViewerTicket),
) -> ViewerTicket {
    let mut ticket = ViewerTicket { host: None, edge: Some(world.edge_id), scope: Scope::Proxy, ..world.ticket() };
    change(&mut ticket);
    let reply = ExchangeReply {
        ticket: world.hub.sign(&ticket),
        expires_at: ticket.exp,
        kind,
        url: Some("https://ab.hub.localhost/".into()),
        online: true,
    };
    world.hub.exchange(bearer, Ok(reply));
    ticket
}

/// A request on the proxy path by its owner.
fn ask(world: &World, path: &str) -> http::request::Builder {
    by(world, BEARER, path)
}

fn by(world: &World, bearer: &str, path: &str) -> http::request::Builder {
    Request::builder()
        .uri(format!("/api/v1/servers/{}/proxy{path}", world.server))
        .header("host", HUB)
        .header("authorization", format!("Bearer {bearer}"))
}

/// What a server answers, sent in one go.
struct Reply {
    status: u16,
    headers: Value,
    body: Vec<u8>,
}

fn reply(status: u16, headers: Value, body: impl Into<Vec<u8>>) -> Reply {
    Reply { status, headers, body: body.into() }
}

/// Requests as they came, with the bodies that envelopes and chunks carried.
type Seen = Arc<Mutex<Vec<(Value, Vec<u8>)>>>;

/// A server that answers all that it is asked.
fn serve(mut home: Home, answer: impl Fn(&Value) -> Reply + Send + 'static) -> Seen {
    let seen = Seen::default();
    let kept = Arc::clone(&seen);
    tokio::spawn(async move {
        let mut chunked = std::collections::HashMap::<u32, (Value, Vec<u8>)>::new();
        loop {
            let Relay { id, kind, payload } = match home.hear().await {
                Heard::Binary(bytes) => Relay {
                    id: u32::from_be_bytes(bytes[..4].try_into().unwrap()),
                    kind: bytes[4],
                    payload: bytes[7..].to_vec(),
                },
                Heard::Ping => continue,
                _ => return,
            };
            if kind != REQUEST {
                continue;
            }
            let asked = match payload[0] {
                b'{' => {
                    let head: Value = serde_json::from_slice(&payload).unwrap();
                    let body = head["body"].as_str().unwrap_or_default().replace('+', "-").replace('/', "_");
                    let body = b64::decode(body.trim_end_matches('=')).unwrap();
                    (head, body)
                }
                1 => {
                    chunked.insert(id, (serde_json::from_slice(&payload[1..]).unwrap(), Vec::new()));
                    continue;
                }
                2 => {
                    chunked.get_mut(&id).unwrap().1.extend_from_slice(&payload[1..]);
                    continue;
                }
                _ => chunked.remove(&id).unwrap(),
            };
            let Reply { status, headers, body } = answer(&asked.0);
            kept.lock().unwrap().push(asked);
            home.head(id, status, &headers.to_string().replace('/', "\\/")).await;
            for piece in body.chunks(65_534) {
                home.body(id, piece).await;
            }
            home.end(id).await;
        }
    });
    seen
}

fn text(body: &str) -> Reply {
    reply(200, json!({ "Content-Type": "text/plain", "Content-Length": body.len().to_string() }), body)
}

/// The next request; what was cancelled before it is passed over.
async fn asked(home: &mut Home) -> (u32, Value) {
    loop {
        let Relay { id, kind, payload } = home.hear_relay().await;
        if kind == REQUEST {
            return (id, serde_json::from_slice(&payload).unwrap());
        }
    }
}

async fn every(world: &World, host: &str) -> [Viewer; 3] {
    [world.h1(host).await, world.h2(host).await, world.h3(host).await]
}

fn field<'a>(head: &'a Value, name: &str) -> Option<&'a str> {
    let fields = head["headers"].as_object().unwrap();
    let found = fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name))?;
    found.1.as_str()
}

/// The code of an answer whose `error` is an object.
fn nested(answer: &Fetched) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    body["error"]["code"].as_str().unwrap_or_default().to_owned()
}

/// legacy-relay-wire s.3.3, row by row.
#[tokio::test]
async fn each_refusal_has_the_status_and_code_that_clients_know() {
    let world = world().await;
    let mut viewer = world.h1(HUB).await;
    let code = |answer: &Fetched| (answer.status, answer.code());
    let plain = |status: u16, code: &str| (status, code.to_owned());
    let path = "/api/v1/libraries";

    let anonymous = Request::builder().uri(format!("/api/v1/servers/{}/proxy{path}", world.server));
    let anonymous = viewer.fetch(bare(anonymous.header("host", HUB))).await;
    assert_eq!(code(&anonymous), plain(401, "auth.required"));
    world.hub.exchange("asks-for-another-server", Err(StatusCode::NOT_FOUND));
    assert_eq!(viewer.fetch(bare(by(&world, "asks-for-another-server", path))).await.status, 404);
    let nobody = Request::builder().uri("/api/v1/servers/nobody/proxy/hls/x").header("host", HUB);
    let nobody = viewer.fetch(bare(nobody.header("authorization", format!("Bearer {BEARER}")))).await;
    assert_eq!(code(&nobody), plain(404, "server.not_found"));
    world.hub.exchange("a-stranger-to-the-server", Err(StatusCode::FORBIDDEN));
    assert_eq!(viewer.fetch(bare(by(&world, "a-stranger-to-the-server", path))).await.status, 403);
    admit(&world, "owner-of-a-generic-one", ServerKind::Generic, |_| {});
    let generic = viewer.fetch(bare(by(&world, "owner-of-a-generic-one", path))).await;
    assert_eq!(code(&generic), plain(409, "server.use_name"));
    admit(&world, "grantee-of-a-library", ServerKind::Phlix, |ticket| {
        ticket.libs = Libraries::Only(vec!["1".into()]);
    });
    let grantee = viewer.fetch(bare(by(&world, "grantee-of-a-library", path))).await;
    assert_eq!(code(&grantee), plain(403, "proxy.scope_denied"));

    // Whatever is asked: no tunnel is no tunnel.
    for path in [path, "/nonsense"] {
        let offline = viewer.fetch(bare(ask(&world, path))).await;
        assert_eq!(code(&offline), plain(503, "server.offline"));
        assert!(!offline.header("retry-after").is_empty());
    }
    let world = self::world().await;
    world.hub.set_online(world.server, true);
    let mut viewer = world.h1(HUB).await;
    let at_home = viewer.fetch(bare(ask(&world, path))).await;
    assert_eq!(code(&at_home), plain(503, "server.relay_unavailable"));

    let mut home = Home::of(&world).await;
    tunnel(&world).await;
    for path in
        ["/nonsense", "/api/v1/media/%2e%2e", "/api/v1/libraries/1/scan", "", "//api/v1/media", "/api/v1/media/a%2fb"]
    {
        let denied = viewer.fetch(bare(ask(&world, path))).await;
        assert_eq!(code(&denied), plain(403, "proxy.scope_denied"), "{path}");
    }
    let patch = ask(&world, "/api/v1/media/1").method("PATCH").body(viewer::bytes("x")).unwrap();
    assert_eq!(code(&viewer.fetch(patch).await), plain(403, "proxy.scope_denied"));

    let (headless, ()) = tokio::join!(viewer.fetch(bare(ask(&world, path))), async {
        let (id, _) = asked(&mut home).await;
        home.end(id).await;
    });
    assert_eq!(code(&headless), plain(502, "origin.failed"));
    let (cancelled, ()) = tokio::join!(viewer.fetch(bare(ask(&world, path))), async {
        let (id, _) = asked(&mut home).await;
        home.relay(id, CANCEL, b"").await;
    });
    assert_eq!(code(&cancelled), plain(502, "origin.failed"));

    let (lost, ()) = tokio::join!(viewer.fetch(bare(ask(&world, path))), async {
        asked(&mut home).await;
        drop(home);
    });
    assert_eq!(code(&lost), plain(503, "server.offline"));
}

#[tokio::test]
async fn a_server_that_says_nothing_is_504_and_is_told_to_stop() {
    let world = world_with(|config| config.proxy.silence = Duration::from_millis(200), |_| {}).await;
    let mut home = Home::of(&world).await;
    tunnel(&world).await;
    let silent = world.h1(HUB).await.fetch(bare(ask(&world, "/api/v1/libraries"))).await;
    assert_eq!((silent.status, silent.code().as_str()), (504, "gateway.timeout"));
    let (id, _) = asked(&mut home).await;
    assert_eq!(home.hear_relay().await, Relay { id, kind: CANCEL, payload: Vec::new() });
    // What has begun may not fall silent either.
    let mut viewer = world.h1(HUB).await;
    let (begun, _) = tokio::join!(viewer.send(bare(ask(&world, "/media/1/stream"))), async {
        let (id, _) = asked(&mut home).await;
        home.head(id, 200, "{}").await;
        home.body(id, b"x").await;
    });
    if let Ok(begun) = begun
        && begun.status() == 200
    {
        assert!(begun.into_body().collect().await.is_err());
    }
}

#[tokio::test]
async fn a_server_between_two_tunnels_has_none_for_a_moment() {
    let world = world().await;
    let mut old = Home::of(&world).await;
    let first = tunnel(&world).await;
    let mut viewer = world.h2(HUB).await;
    let (running, id) = tokio::join!(viewer.send(bare(ask(&world, "/hls/1/a.ts"))), async {
        let (id, _) = asked(&mut old).await;
        old.head(id, 200, "{}").await;
        id
    });
    let new = Home::of(&world).await;
    until(async || world.edge.tunnels.legacy.pick(world.server).is_some_and(|tunnel| tunnel.id != first.id)).await;
    drop(new);
    until(async || world.edge.tunnels.legacy.pick(world.server).is_none()).await;
    let between = viewer.fetch(bare(ask(&world, "/hls/1/b.ts"))).await;
    assert_eq!((between.status, between.code().as_str()), (503, "server.no_tunnel"));
    assert_eq!(between.header("retry-after"), "1");
    // What ran goes on.
    old.body(id, b"whole").await;
    old.end(id).await;
    assert_eq!(running.unwrap().into_body().collect().await.unwrap().to_bytes(), "whole");
}

#[tokio::test]
async fn a_user_asks_so_often_and_media_and_artwork_do_not_count() {
    let world = world_with(|config| config.proxy.requests = 3, |_| {}).await;
    serve(Home::of(&world).await, |_| text("x"));
    tunnel(&world).await;
    let mut viewer = world.h1(HUB).await;
    for path in ["/media/1/stream", "/hls/1/a.ts", "/dash/1/a.m4s", "/trickplay/1/sprite.jpg", "/api/v1/artwork/1"] {
        for _ in 0..3 {
            assert_eq!(viewer.fetch(bare(ask(&world, path))).await.status, 200, "{path}");
        }
    }
    let statuses = async |viewer: &mut Viewer| {
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(viewer.fetch(bare(ask(&world, "/api/v1/media"))).await);
        }
        statuses
    };
    let answers = statuses(&mut viewer).await;
    let codes: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(codes, [200, 200, 200, 429]);
    assert_eq!(answers[3].code(), "rate_limited");
    let wait: u64 = answers[3].header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    // By another credential of the same user, too; and media still don't count.
    let known = world.hub.exchanged(BEARER);
    world.hub.exchange("the-same-users-television", Ok(known));
    let television = viewer.fetch(bare(by(&world, "the-same-users-television", "/api/v1/media"))).await;
    assert_eq!(television.status, 429);
    assert_eq!(viewer.fetch(bare(ask(&world, "/media/1/stream"))).await.status, 200);
    // Somebody else asks in peace.
    admit(&world, "somebody-else-who-may", ServerKind::Phlix, |_| {});
    assert_eq!(viewer.fetch(bare(by(&world, "somebody-else-who-may", "/api/v1/media"))).await.status, 200);
}

#[tokio::test]
async fn a_ticket_for_so_many_streams_carries_no_more_and_says_so_in_an_object() {
    let world = world_with(|_| {}, |ticket| ticket.streams = 1).await;
    let mut home = Home::of(&world).await;
    tunnel(&world).await;
    let mut viewer = world.h2(HUB).await;
    let (running, _) = tokio::join!(viewer.send(bare(ask(&world, "/media/1/stream"))), async {
        let (id, _) = asked(&mut home).await;
        home.head(id, 200, "{}").await;
    });
    let second = viewer.fetch(bare(ask(&world, "/api/v1/media"))).await;
    assert_eq!((second.status, nested(&second).as_str()), (503, "stream.limit"));
    assert_eq!(second.header("content-type"), "application/json");
    drop(running);
    assert_eq!(home.hear_relay().await.kind, CANCEL);
    serve(home, |_| text("x"));
    until(async || viewer.fetch(bare(ask(&world, "/api/v1/media"))).await.status == 200).await;
}

#[tokio::test]
async fn the_server_hears_who_asks_from_us_alone() {
    let world = world().await;
    let ticket = admit(&world, "the-user-who-asks-here", ServerKind::Phlix, |_| {});
    let seen = serve(Home::of(&world).await, |_| text("x"));
    tunnel(&world).await;
    for mut viewer in every(&world, HUB).await {
        let request = by(&world, "the-user-who-asks-here", "/api/v1/media/search?q=a%20b&exp=1&sig=%2B/zz&&x")
            .header("x-phlix-relay-user", "admin")
            .header("X_Phlix_Relay_User", "admin")
            .header("x-phlix-relay", "9")
            .header("x-forwarded-for", "10.0.0.1")
            .header("x_forwarded_for", "10.0.0.1")
            .header("x-real-ip", "10.0.0.1")
            .header("forwarded", "for=10.0.0.1")
            .header("cookie", "__Host-phlix-s=secret-of-the-session; other=1")
            .header("x-phlix-ticket", "t")
            .header("123", "digits")
            .header("x-latin", http::HeaderValue::from_bytes(b"K\xfcche").unwrap())
            .header("x-phlix-device-id", "tv")
            .header("range", "bytes=0-0,-1")
            .header("accept", "a")
            .header("accept", "b");
        assert_eq!(viewer.fetch(bare(request)).await.status, 200);
        let (head, body) = seen.lock().unwrap().pop().unwrap();
        assert_eq!((&head["method"], &head["path"]), (&json!("GET"), &json!("/api/v1/media/search")));
        assert_eq!(head["query"], "q=a%20b&exp=1&sig=%2B/zz&&x");
        assert!(body.is_empty());
        let mut fields: Vec<(String, String)> = head["headers"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str().unwrap().to_owned()))
            .collect();
        fields.sort();
        let user = ticket.sub.to_string();
        let wanted: Vec<(String, String)> = [
            ("accept", "a, b"),
            ("range", "bytes=0-0,-1"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-phlix-device-id", "tv"),
            ("x-phlix-relay", "1"),
            ("x-phlix-relay-user", user.as_str()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        assert_eq!(fields, wanted);
    }
    let page = Request::builder().uri("/metrics").header("host", "x");
    let page = Viewer::plain(world.at.metrics.unwrap()).await.fetch(bare(page)).await;
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(page.contains("phlix_edge_legacy_fields_dropped_total{what=\"unspeakable\"} 6"), "{page}");
}

#[tokio::test]
async fn the_alias_is_the_same_path() {
    let world = world().await;
    let seen = serve(Home::of(&world).await, |_| reply(302, json!({ "Location": "/hls/2" }), ""));
    tunnel(&world).await;
    let alias = Request::builder()
        .uri(format!("/api/v1/relay/{}/hls/1?a=b", world.server))
        .header("host", HUB)
        .header("x-server-id", world.server.to_string())
        .header("authorization", format!("Bearer {BEARER}"));
    let answer = world.h1(HUB).await.fetch(bare(alias)).await;
    assert_eq!(answer.status, 302);
    assert_eq!(answer.header("location"), format!("/api/v1/relay/{}/hls/2", world.server));
    let (head, _) = seen.lock().unwrap().pop().unwrap();
    assert_eq!((&head["path"], &head["query"]), (&json!("/hls/1"), &json!("a=b")));
}

#[tokio::test]
async fn answers_pass_as_they_are_over_h1_h2_and_h3() {
    let world = world().await;
    serve(Home::of(&world).await, |head| match (head["method"].as_str().unwrap(), field(head, "range")) {
        ("HEAD", _) => reply(200, json!({ "Content-Type": "video/mp4", "Content-Length": "1000000" }), ""),
        (_, Some("bytes=2-4")) => reply(
            206,
            json!({ "Content-Type": "video/mp4", "Content-Length": "3", "Content-Range": "bytes 2-4/9", "ETag": "\"v\"" }),
            "cde",
        ),
        (_, Some(_)) => reply(416, json!({ "Content-Range": "bytes */9", "Content-Length": "0" }), ""),
        _ if field(head, "if-none-match").is_some() => reply(304, json!({ "ETag": "\"v\"" }), ""),
        _ if head["path"] == "/hls/unknown" => reply(200, json!({ "Content-Type": "video/mp2t" }), "no length"),
        _ => reply(200, json!([]), vec![7; 300_000]),
    });
    tunnel(&world).await;
    for mut viewer in every(&world, HUB).await {
        let head = viewer.fetch(bare(ask(&world, "/media/1/stream").method("HEAD"))).await;
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "1000000", 0));
        let range = viewer.fetch(bare(ask(&world, "/media/1/stream").header("range", "bytes=2-4"))).await;
        assert_eq!((range.status, range.header("content-range"), &range.body[..]), (206, "bytes 2-4/9", &b"cde"[..]));
        assert_eq!((range.header("etag"), range.header("content-length")), ("\"v\"", "3"));
        let beyond = viewer.fetch(bare(ask(&world, "/media/1/stream").header("range", "bytes=99-"))).await;
        assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */9"));
        let known = viewer.fetch(bare(ask(&world, "/media/1/stream").header("if-none-match", "\"v\""))).await;
        assert_eq!((known.status, known.header("etag"), known.body.len()), (304, "\"v\"", 0));
        let unknown = viewer.fetch(bare(ask(&world, "/hls/unknown"))).await;
        assert_eq!((unknown.status, &unknown.body[..]), (200, &b"no length"[..]));
        let many = viewer.fetch(bare(ask(&world, "/hls/many"))).await;
        assert_eq!((many.status, many.body.len()), (200, 300_000));
    }
}

#[tokio::test]
async fn bodies_reach_the_server_small_and_large_with_and_without_a_length() {
    let world = world().await;
    let seen = serve(Home::of(&world).await, |_| text("ok"));
    tunnel(&world).await;
    let large = vec![9; 300_000];
    for mut viewer in every(&world, HUB).await {
        for body in [&b"{\"name\":\"x\"}"[..], &large] {
            let sized = ask(&world, "/api/v1/playlists").method("POST").header("content-type", "application/json");
            let sized = sized.body(viewer::bytes(body.to_vec())).unwrap();
            assert_eq!(viewer.fetch(sized).await.body, "ok");
            let pieces: Vec<_> =
                body.chunks(50_000).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
            let stream = StreamBody::new(futures_util::stream::iter(pieces)).boxed_unsync();
            let streamed = ask(&world, "/api/v1/playlists").method("POST").body(stream).unwrap();
            assert_eq!(viewer.fetch(streamed).await.body, "ok");
            for (head, got) in seen.lock().unwrap().drain(..) {
                assert_eq!(head["method"], "POST");
                assert!(got == body, "{} of {}", got.len(), body.len());
                let declared = field(&head, "content-length");
                assert!(declared.is_none_or(|declared| declared == body.len().to_string()), "{declared:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_body_over_the_servers_limit_is_413_before_it_is_sent_and_while() {
    let world = world_with(|config| config.legacy.request_body = 100_000, |_| {}).await;
    let mut home = Home::of(&world).await;
    tunnel(&world).await;
    let at = world.at.tls;
    let mut tls = viewer::tls(at, &world.trust, HUB, &[b"http/1.1"]).await;
    let head = format!(
        "POST /api/v1/servers/{}/proxy/api/v1/playlists HTTP/1.1\r\nHost: {HUB}\r\nAuthorization: Bearer {BEARER}\r\n\
         Expect: 100-continue\r\nContent-Length: 100001\r\n\r\n",
        world.server
    );
    tls.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tls.read_to_string(&mut answer).await.unwrap();
    // No 100 before it, nothing of the body was sent.
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("request.too_large"), "{answer}");

    // Who sends without asking reads the answer, too.
    for mut viewer in every(&world, HUB).await {
        let sized = ask(&world, "/api/v1/playlists").method("POST").body(viewer::bytes(vec![1; 3_000_000])).unwrap();
        let refused = viewer.fetch(sized).await;
        assert_eq!((refused.status, refused.code().as_str()), (413, "request.too_large"));
        if matches!(viewer, Viewer::H1(_)) {
            continue;
        }
        let expecting = ask(&world, "/api/v1/playlists").method("POST").header("expect", "100-continue");
        let refused = viewer.fetch(expecting.body(viewer::bytes(vec![1; 3_000_000])).unwrap()).await;
        assert_eq!((refused.status, refused.code().as_str()), (413, "request.too_large"));
    }

    let (send, recv) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
    let pieces = futures_util::stream::unfold(recv, |mut recv| async {
        let bytes = recv.recv().await?;
        Some((Ok(Frame::data(bytes)), recv))
    });
    let piece = || send.send(vec![1; 40_000].into()).unwrap();
    piece();
    piece();
    let request = ask(&world, "/api/v1/playlists").method("POST");
    let request = request.body(StreamBody::new(pieces).boxed_unsync()).unwrap();
    let mut viewer = world.h2(HUB).await;
    let (over, ()) = tokio::join!(viewer.fetch(request), async {
        assert_eq!(home.hear_relay().await.kind, REQUEST);
        piece();
    });
    assert_eq!((over.status, over.code().as_str()), (413, "request.too_large"));
    until(async || home.hear_relay().await.kind == CANCEL).await;
}

#[tokio::test]
async fn who_expects_to_be_told_to_go_on_is_told() {
    let world = world().await;
    let seen = serve(Home::of(&world).await, |_| text("ok"));
    tunnel(&world).await;
    let mut tls = viewer::tls(world.at.tls, &world.trust, HUB, &[b"http/1.1"]).await;
    let head = |expect: &str| {
        format!(
            "POST /api/v1/servers/{}/proxy/api/v1/playlists HTTP/1.1\r\nHost: {HUB}\r\nAuthorization: Bearer {BEARER}\r\n\
             Expect: {expect}\r\nContent-Length: 5\r\n\r\n",
            world.server
        )
    };
    tls.write_all(head("100-continue").as_bytes()).await.unwrap();
    let mut first = [0; 25];
    tls.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    tls.write_all(b"hello").await.unwrap();
    let mut status = [0; 15];
    tls.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200 OK");
    let (head_seen, body) = seen.lock().unwrap().pop().unwrap();
    assert_eq!((field(&head_seen, "expect"), &body[..]), (None, &b"hello"[..]));

    let mut tls = viewer::tls(world.at.tls, &world.trust, HUB, &[b"http/1.1"]).await;
    tls.write_all(head("a-miracle").as_bytes()).await.unwrap();
    tls.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 417 Ex");
}

#[tokio::test]
async fn what_a_server_says_on_the_hubs_origin_is_data() {
    let world = world().await;
    let page = json!({
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": "default-src *",
        "Set-Cookie": "__Host-phlix-s=evil; Path=/; Secure",
        "Clear-Site-Data": "\"*\"",
        "Service-Worker-Allowed": "/",
        "Refresh": "0; url=https://evil.example/",
        "Link": "</app/>; rel=preload",
        "Strict-Transport-Security": "max-age=0",
        "Alt-Svc": "h3=\":1\"",
        "Cache-Control": "public, max-age=60",
        "Connection": "keep-alive, x-hop",
        "X-Hop": "1",
        "Bad:Name": "x",
        "X-Split": "a\r\nSet-Cookie: b=1",
    });
    serve(Home::of(&world).await, move |head| match head["path"].as_str().unwrap() {
        "/hls/away" => reply(302, json!({ "Location": "https://evil.example/" }), ""),
        "/hls/on" => reply(302, json!({ "Location": "../api/v1/media?x=y" }), ""),
        "/hls/switch" => reply(101, json!({ "Upgrade": "websocket" }), ""),
        _ => reply(200, page.clone(), "<script>alert(1)</script>"),
    });
    tunnel(&world).await;
    for mut viewer in every(&world, HUB).await {
        let answer = viewer.fetch(bare(ask(&world, "/api/v1/media/1"))).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-security-policy"), "sandbox; default-src 'none'");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("content-disposition"), "attachment");
        assert_eq!(answer.header("cache-control"), "private, max-age=60");
        for gone in [
            "set-cookie",
            "clear-site-data",
            "service-worker-allowed",
            "refresh",
            "link",
            "strict-transport-security",
            "x-hop",
            "x-split",
        ] {
            assert!(!answer.headers.contains_key(gone), "{gone}");
        }
        let away = viewer.fetch(bare(ask(&world, "/hls/away"))).await;
        assert_eq!((away.status, away.code().as_str()), (502, "origin.redirect"));
        let on = viewer.fetch(bare(ask(&world, "/hls/on"))).await;
        let inside = format!("/api/v1/servers/{}/proxy/api/v1/media?x=y", world.server);
        assert_eq!((on.status, on.header("location")), (302, inside.as_str()));
        assert_eq!(viewer.fetch(bare(ask(&world, "/hls/switch"))).await.status, 502);
    }
    let mut viewer = world.h1(HUB).await;
    for destination in ["document", "iframe", "object", "embed", "script", "style", "worker", "serviceworker"] {
        let acting = ask(&world, "/api/v1/media/1").header("sec-fetch-dest", destination);
        let acting = viewer.fetch(bare(acting)).await;
        assert_eq!((acting.status, acting.code().as_str()), (403, "proxy.destination_denied"), "{destination}");
    }
    for destination in ["image", "video", "audio", "track", "empty"] {
        let data = ask(&world, "/api/v1/media/1").header("sec-fetch-dest", destination);
        assert_eq!(viewer.fetch(bare(data)).await.status, 200, "{destination}");
    }
}

#[tokio::test]
async fn a_browsers_session_opens_posters_by_their_address_and_no_other_sites_do() {
    let world = world().await;
    let seen = serve(Home::of(&world).await, |_| text("x"));
    tunnel(&world).await;
    let mut viewer = world.h1(HUB).await;
    let poster = |site: &str| {
        bare(
            Request::builder()
                .uri(format!("/api/v1/servers/{}/proxy/api/v1/artwork/1?size=w342&exp=1&sig=zz", world.server))
                .header("host", HUB)
                .header("cookie", format!("__Host-phlix-s={BEARER}"))
                .header("sec-fetch-dest", "image")
                .header("sec-fetch-site", site),
        )
    };
    assert_eq!(viewer.fetch(poster("same-origin")).await.status, 200);
    let (head, _) = seen.lock().unwrap().pop().unwrap();
    assert_eq!((field(&head, "cookie"), &head["query"]), (None, &json!("size=w342&exp=1&sig=zz")));
    for site in ["same-site", "cross-site"] {
        assert_eq!(viewer.fetch(poster(site)).await.status, 403, "{site}");
    }
}

#[tokio::test]
async fn a_reader_looks_and_plays_and_changes_nothing() {
    let world = world_with(|_| {}, |ticket| ticket.perm = Permission::Read).await;
    serve(Home::of(&world).await, |_| text("x"));
    tunnel(&world).await;
    let mut viewer = world.h1(HUB).await;
    for (method, path, status) in [
        ("GET", "/api/v1/media/1", 200),
        ("POST", "/api/v1/media/1/transcode", 200),
        ("POST", "/api/v1/media/1/watched", 403),
        ("PUT", "/api/v1/media/1/rating", 403),
        ("DELETE", "/api/v1/media/1/favorite", 403),
    ] {
        let request = ask(&world, path).method(method).body(nothing()).unwrap();
        assert_eq!(viewer.fetch(request).await.status, status, "{method} {path}");
    }
}

#[tokio::test]
async fn a_short_body_is_never_a_clean_end() {
    let world = world().await;
    let mut home = Home::of(&world).await;
    tunnel(&world).await;
    for mut viewer in every(&world, HUB).await {
        let (answer, ()) = tokio::join!(viewer.send(bare(ask(&world, "/media/1/stream"))), async {
            let (id, _) = asked(&mut home).await;
            home.head(id, 200, r#"{"Content-Length":"100000","Content-Type":"video\/mp4"}"#).await;
            home.body(id, &[1; 60_000]).await;
            home.end(id).await;
        });
        let answer = answer.unwrap();
        assert_eq!(answer.headers()["content-length"], "100000");
        assert!(answer.into_body().collect().await.is_err());
    }
}

/// Until the server hears that nobody wants the answer any more.
async fn cancelled(home: &mut Home, wanted: u32) {
    loop {
        let Relay { id, kind, .. } = home.hear_relay().await;
        if (id, kind) == (wanted, CANCEL) {
            return;
        }
    }
}

#[tokio::test]
async fn a_viewer_who_leaves_is_told_to_the_server_within_100_ms() {
    let world = world().await;
    let mut home = Home::of(&world).await;
    tunnel(&world).await;
    let mut took = [Duration::MAX; 3];
    // A machine that is busy with other tests may be late once.
    for _ in 0..5 {
        for (mut viewer, took) in every(&world, HUB).await.into_iter().zip(&mut took) {
            let (answer, id) = tokio::join!(viewer.send(bare(ask(&world, "/media/1/stream"))), async {
                let (id, _) = asked(&mut home).await;
                home.head(id, 200, r#"{"Content-Length":"100000"}"#).await;
                home.body(id, b"x").await;
                id
            });
            let mut body = answer.unwrap().into_body();
            body.frame().await.unwrap().unwrap();
            let left = Instant::now();
            drop(body);
            drop(viewer);
            cancelled(&mut home, id).await;
            *took = left.elapsed().min(*took);
        }
    }
    assert!(took.iter().all(|took| *took < Duration::from_millis(100)), "{took:?}");
}

#[tokio::test]
async fn a_withdrawn_right_cuts_a_running_stream() {
    let world = world().await;
    let ticket = admit(&world, "one-who-will-be-put-out", ServerKind::Phlix, |_| {});
    let mut home = Home::of(&world).await;
    tunnel(&world).await;
    let mut viewer = world.h2(HUB).await;
    let (answer, id) =
        tokio::join!(viewer.send(bare(by(&world, "one-who-will-be-put-out", "/media/1/stream"))), async {
            let (id, _) = asked(&mut home).await;
            home.head(id, 200, "{}").await;
            home.body(id, b"x").await;
            id
        });
    let mut body = answer.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    world.hub.revoke(Selector::Sid(ticket.sid));
    let cut = tokio::time::timeout(Duration::from_secs(2), body.frame()).await.expect("cut within 2 s");
    assert!(cut.unwrap().is_err());
    cancelled(&mut home, id).await;
}

#[tokio::test]
async fn an_answer_comes_at_the_tickets_rate() {
    // 800 000 bit/s: 100 000 bytes a second, after 2 s worth at once.
    let world = world_with(|_| {}, |ticket| ticket.rate = 800_000).await;
    serve(Home::of(&world).await, |_| reply(200, json!({ "Content-Length": "400000" }), vec![1; 400_000]));
    tunnel(&world).await;
    let start = Instant::now();
    let answer = world.h1(HUB).await.fetch(bare(ask(&world, "/media/1/stream"))).await;
    assert_eq!(answer.body.len(), 400_000);
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn a_name_of_an_existing_server_is_as_protected_as_the_path() {
    let world = world().await;
    // Whatever the directory says.
    world.hub.route_to("shown.hub.localhost", world.server, ServerKind::Phlix, Access::Open);
    let seen = serve(Home::of(&world).await, |head| match head["path"].as_str().unwrap() {
        "/hls/page" => {
            reply(200, json!({ "Content-Type": "text/html", "Set-Cookie": "sid=1; Domain=hub.localhost" }), "x")
        }
        _ => text("x"),
    });
    tunnel(&world).await;
    let open = bare(Request::builder().uri("/api/v1/media").header("host", "shown.hub.localhost"));
    assert_eq!(world.h1("shown.hub.localhost").await.fetch(open).await.status, 401);
    let ticket = world.ticket();
    let signed = world.hub.sign(&ticket);
    let get = |path: &str| Request::builder().uri(path).header("host", NAME).header("x-phlix-ticket", &signed);
    for mut viewer in every(&world, NAME).await {
        let page = bare(Request::builder().uri("/").header("host", NAME).header("accept", "text/html"));
        let page = viewer.fetch(page).await;
        assert_eq!((page.status, page.header("location")), (302, "/.phlix/start?return=%2F"));
        let request = get("/api/v1/media?libraryId=1")
            .header("cookie", "__Host-phlix-v=t; own=1")
            .header("authorization", "Bearer of-the-origin")
            .header("x-phlix-relay-user", "admin");
        let answer = viewer.fetch(bare(request)).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"x"[..]));
        let (head, _) = seen.lock().unwrap().pop().unwrap();
        assert_eq!(field(&head, "x-phlix-relay-user"), Some(ticket.sub.to_string().as_str()));
        assert_eq!(field(&head, "x-phlix-relay"), Some("1"));
        assert_eq!(field(&head, "x-forwarded-for"), Some("127.0.0.1"));
        for gone in ["cookie", "authorization", "x-phlix-ticket", "host", "x-forwarded-proto"] {
            assert_eq!(field(&head, gone), None, "{gone}");
        }
        for path in ["/", "/api/v1/users/me", "/api/v1/libraries/1/scan", "/hls/%2e%2e/x"] {
            let denied = viewer.fetch(bare(get(path))).await;
            assert_eq!((denied.status, denied.code().as_str()), (403, "proxy.scope_denied"), "{path}");
        }
        // The name is an origin of its own: its pages are pages, its cookies its own.
        let own = viewer.fetch(bare(get("/hls/page"))).await;
        assert_eq!((own.status, own.header("content-security-policy")), (200, ""));
        assert_eq!((own.header("set-cookie"), own.header("content-disposition")), ("sid=1", ""));
    }
}
