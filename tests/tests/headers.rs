//! What passes in the heads: a viewer can't pretend to be somebody or to come from elsewhere, in no
//! spelling; a home server can't reach beyond its own name.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use phlix_tests::h2raw::{self, Outcome};
use phlix_tests::origin::home::Home;
use phlix_tests::origin::raw::Raw;
use phlix_tests::viewer::{self, Protocol, empty};
use phlix_tests::{Engine, World, story};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TICKET: &str = "x-phlix-ticket";

/// Names by which servers are told who is there or where they come from. Each is sent in several
/// spellings; none may reach the origin with what the viewer wrote.
const PRETENCES: &[&str] = &[
    "x-phlix-relay-user",
    "x-phlix-relay",
    "x-phlix-edge",
    "x-phlix-user",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-forwarded-prefix",
    "forwarded",
    "x-real-ip",
];

/// What a viewer writes into them.
const LIE: &str = "6.6.6.6";

fn spellings(name: &str) -> Vec<String> {
    let capital = name.split('-').map(|word| word[..1].to_uppercase() + &word[1..]).collect::<Vec<_>>().join("-");
    let mut all = vec![name.to_owned(), name.to_uppercase(), capital];
    if name.contains('-') {
        all.push(name.replace('-', "_"));
        all.push(name.to_uppercase().replace('-', "_"));
        // Mixed: only some of the dashes.
        all.push(name.replacen('-', "_", 1));
    }
    all
}

/// The values that the origin saw under a name, whatever its spelling.
fn seen<'a>(echo: &'a Value, part: &str, name: &str) -> Vec<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('_', "-");
    echo[part]
        .as_array()
        .unwrap()
        .iter()
        .filter(|pair| plain(pair[0].as_str().unwrap()) == plain(name))
        .map(|pair| pair[1].as_str().unwrap())
        .collect()
}

#[track_caller]
fn no_lie(echo: &Value) {
    let text = echo.to_string();
    assert!(!text.contains(LIE), "a viewer's word reached the origin: {text}");
    for name in ["x-phlix-relay-user", "x-phlix-relay", "x-phlix-edge", TICKET] {
        assert!(seen(echo, "headers", name).is_empty(), "{name} reached the origin: {text}");
    }
    assert_eq!(seen(echo, "headers", "x-forwarded-for"), ["127.0.0.1"], "{text}");
    assert_eq!(seen(echo, "headers", "x-forwarded-proto"), ["https"], "{text}");
}

#[test]
fn over_http1_no_spelling_of_identity_or_address_gets_through() {
    story(async {
        let home = Home::start();
        let world = World::start(Engine::Sqlite, &home.url()).await;
        let ticket = world.ticket().await;
        for name in PRETENCES {
            for spelling in spellings(name) {
                // Once, twice, and beside a hop-by-hop trick that would make a naive edge drop our own.
                for lines in [
                    format!("{spelling}: {LIE}\r\n"),
                    format!("{spelling}: {LIE}\r\n{spelling}: {LIE}\r\n"),
                    format!("{spelling}: {LIE}\r\nConnection: close, {name}\r\n"),
                    format!("Connection: x-forwarded-for, x-forwarded-proto, {name}\r\n{spelling}:{LIE}\r\n"),
                ] {
                    let head = raw_head(&world, "GET", "/echo", &ticket, &lines);
                    let answer = raw(&world, head.as_bytes()).await;
                    // Refusing the request is as good as dropping the line.
                    if answer.starts_with("HTTP/1.1 400") {
                        continue;
                    }
                    assert!(answer.starts_with("HTTP/1.1 200"), "{lines:?}: {answer}");
                    no_lie(&body_of(&answer));
                }
            }
        }
    });
}

#[test]
fn over_http2_no_spelling_of_identity_or_address_gets_through() {
    story(async {
        let home = Home::start();
        let world = World::start(Engine::Sqlite, &home.url()).await;
        let ticket = world.ticket().await;
        let mut viewer = world.viewer(Protocol::H2).await;
        for name in PRETENCES {
            for spelling in spellings(name) {
                let name = HeaderName::from_bytes(spelling.to_ascii_lowercase().as_bytes()).unwrap();
                let request = viewer
                    .request(Method::GET, "/echo")
                    .header(TICKET, &ticket)
                    .header(&name, LIE)
                    .header(&name, LIE)
                    .body(empty())
                    .unwrap();
                let echo = viewer::json(viewer.send(request).await.unwrap()).await;
                no_lie(&echo);
            }
        }
    });
}

#[test]
fn in_trailers_nothing_of_the_kind_gets_through() {
    story(async {
        let home = Home::start();
        let world = World::start(Engine::Sqlite, &home.url()).await;
        let ticket = world.ticket().await;
        let more = ["authorization", "cookie", "host", "content-length", "transfer-encoding", "x_forwarded_for"];
        let names: Vec<&str> = PRETENCES.iter().chain(&more).copied().collect();
        let announced = format!("x-checksum, {}", names.join(", "));

        // Over HTTP/1.1 by hand: hyper's client would not send some of them.
        let trailers: String = names.iter().map(|name| format!("{name}: {LIE}\r\n")).collect();
        for announced in [format!("Trailer: {announced}\r\n"), String::new()] {
            let lines = format!("Transfer-Encoding: chunked\r\n{announced}");
            let head = raw_head(&world, "POST", "/echo", &ticket, &lines);
            let answer =
                raw(&world, format!("{head}4\r\nbody\r\n0\r\nx-checksum: 17\r\n{trailers}\r\n").as_bytes()).await;
            if answer.starts_with("HTTP/1.1 400") {
                continue;
            }
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            no_lie(&body_of(&answer));
        }

        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", HeaderValue::from_static("17"));
        for name in &names {
            trailers.insert(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static(LIE));
        }
        trailers.remove("transfer-encoding");
        let frames = [Ok(Frame::data(Bytes::from_static(b"body"))), Ok(Frame::trailers(trailers))];
        let mut viewer = world.viewer(Protocol::H2).await;
        let request = viewer
            .request(Method::POST, "/echo")
            .header(TICKET, &ticket)
            .header("trailer", announced)
            .body(StreamBody::new(stream::iter(frames)).boxed())
            .unwrap();
        let echo = viewer::json(viewer.send(request).await.unwrap()).await;
        no_lie(&echo);
        assert_eq!(seen(&echo, "trailers", "x-checksum"), ["17"], "{echo}");
    });
}

#[test]
fn the_hubs_own_credentials_stop_at_the_edge_and_the_origins_pass() {
    story(async {
        let home = Home::start();
        let world = World::start(Engine::Sqlite, &home.url()).await;
        let ticket = world.ticket().await;
        for protocol in Protocol::BOTH {
            let mut viewer = world.viewer(protocol).await;
            let cookies = [
                "own=1; __Host-phlix-v=a.b.c; other=2",
                "__Host-phlix-s=opaque; third=3",
                "__Host-phlix-start=x",
                "__host-PHLIX-v=a.b.c; __Host-phlix-later=1",
            ];
            let mut request = viewer.request(Method::GET, "/echo").header(TICKET, &ticket);
            for cookie in cookies {
                request = request.header("cookie", cookie);
            }
            let request = request.header("authorization", "MediaBrowser Token=\"origin\"").body(empty()).unwrap();
            let answer = viewer.send(request).await.unwrap();
            assert_eq!(answer.status(), 200, "{protocol:?}");
            let echo = viewer::json(answer).await;
            no_lie(&echo);
            assert_eq!(seen(&echo, "headers", "authorization"), ["MediaBrowser Token=\"origin\""]);
            let cookies = seen(&echo, "headers", "cookie").join("; ");
            assert!(!cookies.to_lowercase().contains("phlix"), "{protocol:?}: {cookies}");
            for own in ["own=1", "other=2", "third=3"] {
                assert!(cookies.split("; ").any(|cookie| cookie == own), "{protocol:?}: {own} is lost of {cookies}");
            }
        }
    });
}

#[test]
fn the_origin_is_told_where_the_viewer_came_from_and_what_it_asked() {
    story(async {
        let home = Home::start();
        let world = World::start(Engine::Sqlite, &home.url()).await;
        let ticket = world.ticket().await;
        let authority = format!("{}:{}", world.server.host, world.hub.ready().tls.port());
        for protocol in Protocol::BOTH {
            let mut viewer = world.viewer(protocol).await;
            let target = "/echo?a=%2F..%2f&b=%00&c=a+b&d=%C3%A4";
            let echo = viewer::json(viewer.get(target, &[(TICKET, &ticket)]).await).await;
            assert_eq!(echo["target"], target, "{protocol:?}");
            assert_eq!(echo["version"], "HTTP/1.1");
            assert_eq!(seen(&echo, "headers", "x-forwarded-host"), [authority.as_str()], "{protocol:?}");
            assert_eq!(seen(&echo, "headers", "host").len(), 1, "{protocol:?}: {echo}");
            no_lie(&echo);
        }
    });
}

#[test]
fn a_host_that_is_not_the_one_of_the_connection_is_misdirected() {
    story(async {
        let home = Home::start();
        let world = World::start(Engine::Sqlite, &home.url()).await;
        let ticket = world.ticket().await;
        let answer = raw(
            &world,
            format!("GET /echo HTTP/1.1\r\nHost: unknown.example\r\n{TICKET}: {ticket}\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
        assert!(home.seen().is_empty());
    });
}

#[test]
fn smuggled_requests_are_refused_and_the_origin_never_sees_two() {
    story(async {
        let home = Home::start();
        let world = World::start(Engine::Sqlite, &home.url()).await;
        let ticket = world.ticket().await;
        let host = format!("{}:{}", world.server.host, world.hub.ready().tls.port());
        let start = format!("POST /echo HTTP/1.1\r\nHost: {host}\r\n{TICKET}: {ticket}\r\n");
        let hidden = format!("GET /hidden HTTP/1.1\r\nHost: {host}\r\n{TICKET}: {ticket}\r\n\r\n");
        let attempts = [
            // CL.TE, TE.CL, twice CL, TE in disguise.
            format!("{start}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
            format!("{start}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{hidden}"),
            format!("{start}Content-Length: 0\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
            format!("{start}Content-Length: 0, {}\r\n\r\n{hidden}", hidden.len()),
            format!("{start}Content-Length: +0\r\n\r\n{hidden}"),
            format!("{start}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{hidden}"),
            format!("{start}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}"),
            format!("{start}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"),
            format!("{start}Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n{hidden}"),
            // Line ends, folded lines, NUL.
            format!("{start}X: a\r\n folded: b\r\nContent-Length: 0\r\n\r\n{hidden}"),
            format!("{start}X: a\0b\r\nContent-Length: 0\r\n\r\n{hidden}"),
            format!("{start}X: a\rContent-Length: 0\r\n\r\n{hidden}"),
            // Two hosts, no host.
            format!("{start}Host: other.example\r\nContent-Length: 0\r\n\r\n{hidden}"),
            format!("POST /echo HTTP/1.1\r\n{TICKET}: {ticket}\r\nContent-Length: 0\r\n\r\n{hidden}"),
        ];
        for attempt in attempts {
            let before = home.seen().len();
            let answer = raw(&world, attempt.as_bytes()).await;
            let heads = answer.matches("HTTP/1.1 ").count();
            assert!(heads <= 1, "{attempt:?} was answered twice: {answer}");
            let both =
                attempt.contains("Content-Length: 5\r\nTransfer") || attempt.contains("chunked\r\nContent-Length");
            if both && answer.starts_with("HTTP/1.1 200") {
                // RFC 9112 s.6.1 leaves the choice: by the chunks alone, and then the connection must close.
                assert!(answer.to_lowercase().contains("connection: close"), "{attempt:?}: {answer}");
            } else {
                assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{attempt:?} was taken: {answer}");
                assert_eq!(home.seen().len(), before, "{attempt:?} reached the origin");
            }
            assert!(!home.seen().iter().any(|seen| seen.target == "/hidden"), "{attempt:?} reached the origin");
        }
    });
}

#[test]
fn over_http2_forged_heads_are_refused() {
    story(async {
        let home = Home::start();
        let world = World::start(Engine::Sqlite, &home.url()).await;
        let ticket = world.ticket().await;
        let authority = format!("{}:{}", world.server.host, world.hub.ready().tls.port());
        let good: Vec<(&[u8], &[u8])> = vec![
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", authority.as_bytes()),
            (b":path", b"/echo"),
            (TICKET.as_bytes(), ticket.as_bytes()),
        ];
        let send = async |fields: &[(&[u8], &[u8])]| h2raw::request(&world.hub, &world.server.host, fields).await;
        let with = |name: &'static [u8], value: &'static [u8]| {
            let mut fields = good.clone();
            match fields.iter_mut().find(|(known, _)| name.starts_with(b":") && *known == name) {
                Some(field) => field.1 = value,
                None => fields.push((name, value)),
            }
            fields
        };
        let twice = |name: &'static [u8], value: &'static [u8]| {
            let mut fields = good.clone();
            fields.insert(4, (name, value));
            fields
        };
        assert_eq!(send(&good).await, Outcome::Served, "the honest one is served");
        let before = home.seen().len();
        for fields in [
            with(b":path", b"https://other.example/echo"),
            with(b":path", b"/echo HTTP/1.1\r\nX-Phlix-Relay-User: 1\r\n\r\nGET /echo"),
            with(b":path", b"/echo /x"),
            with(b":path", b""),
            with(b":path", b"echo"),
            with(b":method", b"GET /hidden HTTP/1.1\r\n"),
            with(b":method", b"CONNECT"),
            with(b":authority", b"other.example"),
            with(b":authority", b"user@other.example"),
            with(b"host", b"other.example"),
            with(b"x-a", b"b\r\nx-phlix-relay-user: 1"),
            with(b"x-a", b"b\nx-phlix-relay-user: 1"),
            with(b"x-a", b"b\0c"),
            with(b"x-a\r\nx-phlix-relay-user", b"1"),
            with(b"x-a: b", b"1"),
            with(b"X-Upper", b"1"),
            with(b"transfer-encoding", b"chunked"),
            with(b"connection", b"x-forwarded-for"),
            with(b"keep-alive", b"1"),
            with(b"upgrade", b"websocket"),
            with(b"te", b"gzip"),
            with(b"content-length", b"5"),
            twice(b":path", b"/echo"),
            twice(b":authority", b"other.example"),
            twice(b":unknown", b"1"),
        ] {
            let changed = fields.iter().find(|field| !good.contains(field)).copied().unwrap_or(good[3]);
            let what = (String::from_utf8_lossy(changed.0), String::from_utf8_lossy(changed.1));
            assert_ne!(send(&fields).await, Outcome::Served, "{what:?} was served");
            assert_eq!(home.seen().len(), before, "{what:?} reached the origin");
        }
        assert_eq!(send(&good).await, Outcome::Served, "the edge is none the worse");
    });
}

#[test]
fn too_much_has_an_answer_and_a_little_less_is_served() {
    story(async {
        let home = Home::start();
        let world = World::start(Engine::Sqlite, &home.url()).await;
        let ticket = world.ticket().await;
        for protocol in Protocol::BOTH {
            let mut viewer = world.viewer(protocol).await;
            let fine = viewer.get("/echo", &[(TICKET, &ticket), ("x-large", &"a".repeat(8 * 1024))]).await;
            assert_eq!(viewer::json(fine).await["method"], "GET", "{protocol:?}: 8 KiB of header");
            let path = format!("/echo?{}", "a".repeat(6 * 1024));
            let fine = viewer.get(&path, &[(TICKET, &ticket)]).await;
            assert_eq!(viewer::json(fine).await["target"], path, "{protocol:?}: 6 KiB of path");
        }
        // One large header, many small ones, a long path, a line that never ends.
        let many: String = (0..2000).map(|n| format!("x-{n}: {n}\r\n")).collect();
        for (lines, path) in [
            (format!("x-large: {}\r\n", "a".repeat(1 << 20)), "/echo".to_owned()),
            (many, "/echo".to_owned()),
            (String::new(), format!("/echo?{}", "a".repeat(1 << 20))),
        ] {
            let answer = raw(&world, raw_head(&world, "GET", &path, &ticket, &lines).as_bytes()).await;
            let status = answer.get(9..12).unwrap_or_default();
            assert!(matches!(status, "400" | "414" | "431"), "{} bytes: {status:?}", lines.len() + path.len());
        }
        let mut viewer = world.viewer(Protocol::H2).await;
        let request =
            viewer.request(Method::GET, "/echo").header("x-large", "a".repeat(1 << 20)).body(empty()).unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(20), viewer.send(request)).await;
        if let Ok(answer) = answer.expect("1 MiB of header over HTTP/2 is neither answered nor refused") {
            assert_eq!(answer.status(), 431);
        }
        let mut viewer = world.viewer(Protocol::H2).await;
        assert_eq!(viewer.get("/echo", &[(TICKET, &ticket)]).await.status(), 200, "the edge is none the worse");
    });
}

#[test]
fn a_hostile_origin_sets_no_cookie_beyond_its_name() {
    story(async {
        let home = Home::start();
        let world = World::start(Engine::Sqlite, &home.url()).await;
        let ticket = world.ticket().await;
        for protocol in Protocol::BOTH {
            let mut viewer = world.viewer(protocol).await;
            let answer = viewer.get("/hostile", &[(TICKET, &ticket)]).await;
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.headers()["x-kept"], "yes");
            let cookies: Vec<_> =
                answer.headers().get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect();
            assert!(cookies.iter().any(|cookie| cookie.starts_with("own=1")), "{protocol:?}: {cookies:?}");
            for cookie in cookies {
                let lower = cookie.to_lowercase();
                assert!(!lower.contains("phlix"), "{protocol:?}: {cookie}");
                assert!(!lower.contains("domain"), "{protocol:?}: {cookie}");
            }
        }
    });
}

#[test]
fn answers_that_are_no_http_become_502() {
    story(async {
        let large = format!("HTTP/1.1 200 OK\r\nX-Large: {}\r\n\r\n", "a".repeat(1 << 20));
        for bytes in [
            "no http at all\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nSet-Cookie: a\0b\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "",
            large.as_str(),
        ] {
            let origin = Raw::answering(bytes);
            let world = World::start(Engine::Sqlite, &origin.url()).await;
            let ticket = world.ticket().await;
            let mut viewer = world.viewer(Protocol::H1).await;
            let answer = viewer.get("/", &[(TICKET, &ticket)]).await;
            let begin = &bytes[..bytes.len().min(60)];
            assert_eq!(answer.status(), 502, "{begin:?}");
            assert!(!origin.received().is_empty(), "{begin:?}: it was the origin who answered so");
        }
    });
}

/// A request head with `lines` in it, that closes the connection.
fn raw_head(world: &World, method: &str, path: &str, ticket: &str, lines: &str) -> String {
    let close = if lines.to_lowercase().contains("connection:") { "" } else { "Connection: close\r\n" };
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {}:{}\r\n{TICKET}: {ticket}\r\n{close}{lines}\r\n",
        world.server.host,
        world.hub.ready().tls.port()
    )
}

/// Sends bytes to the server's name; everything that comes back until it closes or is silent.
async fn raw(world: &World, bytes: &[u8]) -> String {
    let stream = viewer::tls(&world.hub, &world.server.host, &[b"http/1.1"]).await;
    // The edge may answer and close before it has read all of it.
    let (mut stream, mut sink) = tokio::io::split(stream);
    let bytes = bytes.to_vec();
    let writing = tokio::spawn(async move {
        let _ = sink.write_all(&bytes).await;
        std::future::pending::<()>().await;
    });
    let mut answer = Vec::new();
    let mut block = [0; 16 * 1024];
    loop {
        let silence = if answer.is_empty() { Duration::from_secs(15) } else { Duration::from_millis(300) };
        match tokio::time::timeout(silence, stream.read(&mut block)).await {
            Ok(Ok(n)) if n > 0 => answer.extend_from_slice(&block[..n]),
            _ => break,
        }
    }
    writing.abort();
    String::from_utf8_lossy(&answer).into_owned()
}

/// The JSON in a raw answer, whatever its framing.
fn body_of(answer: &str) -> Value {
    let (first, last) = (answer.find('{'), answer.rfind('}'));
    let (Some(first), Some(last)) = (first, last) else {
        panic!("no JSON: {answer}");
    };
    serde_json::from_str(&answer[first..=last]).unwrap_or_else(|e| panic!("{e}: {answer}"))
}
