//! Requests that can be read in two ways: refused, their connection closed, and the origin sees exactly the requests that
//! were meant. Over HTTP/1.1 by a table of bytes, `data/smuggling.txt`; over HTTP/3 by fields that aioquic doesn't look at
//! (over HTTP/2: `headers.rs`).

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use phlix_tests::origin::home::Home;
use phlix_tests::viewer::{self, Door};
use phlix_tests::{Engine, World, python, story};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TICKET: &str = "x-phlix-ticket";
const TABLE: &str = include_str!("../data/smuggling.txt");

/// One row of the table.
struct Case {
    name: &'static str,
    /// Of the answers, in order; `None`: at most one, and none that took the request.
    statuses: Option<Vec<&'static str>>,
    /// The connection goes on.
    stays: bool,
    bytes: Vec<u8>,
}

fn table(start: &str, get: &str, hidden: &str, host: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in TABLE.lines().skip_while(|line| !line.starts_with("== ")) {
        if let Some(head) = line.strip_prefix("== ") {
            if let Some(last) = cases.last_mut() {
                // The empty line before the next case is none of this one's.
                let length = last.bytes.len() - 2;
                last.bytes.truncate(length);
            }
            let (name, expected) = head.split_once(" | ").expect("name | statuses");
            let stays = expected.ends_with('+');
            let expected = expected.trim_end_matches(['+', '.']);
            let statuses = (expected != "*").then(|| expected.split_whitespace().collect());
            cases.push(Case { name, statuses, stays, bytes: Vec::new() });
            continue;
        }
        let bytes = &mut cases.last_mut().unwrap().bytes;
        let (line, end) = line.strip_suffix('\\').map_or((line, "\r\n"), |line| (line, ""));
        let line =
            line.replace("{start}", start).replace("{get}", get).replace("{hidden}", hidden).replace("{host}", host);
        let mut rest = line.chars();
        while let Some(char) = rest.next() {
            if char != '\\' {
                bytes.extend(char.to_string().bytes());
                continue;
            }
            bytes.push(match rest.next().expect("an escape") {
                'n' => b'\n',
                'r' => b'\r',
                't' => b'\t',
                '0' => 0,
                'x' => {
                    let digits: String = rest.by_ref().take(2).collect();
                    u8::from_str_radix(&digits, 16).unwrap()
                }
                other => panic!("no such escape: {other}"),
            });
        }
        bytes.extend(end.bytes());
    }
    cases
}

#[test]
fn the_origin_counts_exactly_the_requests_that_were_meant() {
    story(async {
        let home = Home::start();
        let world = World::start(Engine::Sqlite, &home.url()).await;
        let ticket = world.ticket().await;
        let host = format!("{}:{}", world.server.host, world.hub.ready().tls.port());
        let fields = format!("Host: {host}\r\n{TICKET}: {ticket}\r\n");
        let start = format!("POST /echo HTTP/1.1\r\n{fields}");
        let get = format!("GET /echo?meant HTTP/1.1\r\n{fields}\r\n");
        let hidden = format!("GET /hidden HTTP/1.1\r\n{fields}\r\n");
        let cases = table(&start, &get, &hidden, &host);
        assert!(cases.len() > 50, "the table has {} cases", cases.len());
        for case in cases {
            let name = case.name;
            let before = home.seen().len();
            let (answer, closed) = converse(&world, &case.bytes, case.stays).await;
            let statuses: Vec<&str> = answer
                .split("HTTP/1.1 ")
                .skip(1)
                .map(|answer| answer.get(..3).unwrap_or_default())
                .filter(|status| *status != "100")
                .collect();
            assert_eq!(closed, !case.stays, "{name}: {answer}");
            let seen = home.seen().split_off(before);
            assert!(!seen.iter().any(|seen| seen.target == "/hidden"), "{name}: what was hidden reached the origin");
            if let Some(expected) = case.statuses {
                assert_eq!(statuses, expected, "{name}: {answer}");
                let served = expected.iter().filter(|status| **status == "200").count();
                assert_eq!(seen.len(), served, "{name}: {seen:?}");
            } else {
                assert!(statuses.len() <= 1, "{name}: {answer}");
                assert!(!statuses.iter().any(|status| status.starts_with('2')), "{name}: {answer}");
            }
        }
    });
}

/// Sends bytes to the server's name; what comes back until it is closed or, where it is to stay, silent, and whether it was
/// closed.
async fn converse(world: &World, bytes: &[u8], stays: bool) -> (String, bool) {
    let stream = viewer::tls(&world.hub, &world.server.host, &[b"http/1.1"]).await;
    let (mut stream, mut sink) = tokio::io::split(stream);
    let bytes = bytes.to_vec();
    let writing = tokio::spawn(async move {
        // The edge may close before it has all of it.
        let _ = sink.write_all(&bytes).await;
        let _ = sink.flush().await;
        std::future::pending::<()>().await;
    });
    let mut answer = Vec::new();
    let mut block = [0; 16 * 1024];
    let closed = loop {
        let silence = if stays && !answer.is_empty() { Duration::from_millis(500) } else { Duration::from_secs(15) };
        match tokio::time::timeout(silence, stream.read(&mut block)).await {
            Ok(Ok(n)) if n > 0 => answer.extend_from_slice(&block[..n]),
            Ok(_) => break true,
            Err(_) => break false,
        }
    };
    writing.abort();
    (String::from_utf8_lossy(&answer).into_owned(), closed)
}

#[test]
fn over_http3_forged_heads_are_refused() {
    story(async {
        let home = Home::start();
        let world = World::start(Engine::Sqlite, &home.url()).await;
        let ticket = world.ticket().await;
        let authority = format!("{}:{}", world.server.host, world.hub.ready().tls.port());
        let good = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", authority.as_str()),
            (":path", "/echo"),
            (TICKET, ticket.as_str()),
        ];
        let case = |fields: &[(&str, &str)], body: &str| {
            let fields: Vec<Value> = fields.iter().map(|(name, value)| json!([name, value])).collect();
            json!({"fields": fields, "body": body})
        };
        let mut cases = vec![case(&good, "")];
        // Another value, or one more field.
        for (name, value) in [
            (":path", "https://other.example/echo"),
            (":path", "/echo HTTP/1.1\r\nX-Phlix-Relay-User: 1\r\n\r\nGET /echo"),
            (":path", "/echo /x"),
            (":path", ""),
            (":path", "echo"),
            (":method", "GET /hidden HTTP/1.1\r\n"),
            (":method", "CONNECT"),
            (":scheme", "http"),
            (":authority", "other.example"),
            (":authority", "user@other.example"),
            ("host", "other.example"),
            ("x-a", "b\r\nx-phlix-relay-user: 1"),
            ("x-a", "b\nx-phlix-relay-user: 1"),
            ("x-a", "b\0c"),
            ("x-a\r\nx-phlix-relay-user", "1"),
            ("x-a: b", "1"),
            ("X-Upper", "1"),
            ("transfer-encoding", "chunked"),
            ("connection", "x-forwarded-for"),
            ("keep-alive", "1"),
            ("upgrade", "websocket"),
            ("te", "gzip"),
            ("content-length", "5"),
            ("content-length", "+0"),
        ] {
            let mut fields = good.to_vec();
            match fields.iter_mut().find(|(known, _)| *known == name) {
                Some(field) => field.1 = value,
                None => fields.push((name, value)),
            }
            cases.push(case(&fields, ""));
        }
        // Pseudo fields twice, unknown, and after others.
        for (at, name, value) in
            [(4, ":path", "/echo"), (4, ":authority", "other.example"), (4, ":unknown", "1"), (5, ":path", "/echo")]
        {
            let mut fields = good.to_vec();
            fields.insert(at, (name, value));
            cases.push(case(&fields, ""));
        }
        let mut late = good.to_vec();
        late.swap(3, 4);
        cases.push(case(&late, ""));
        // A body that is not as long as it says.
        let mut post = good.to_vec();
        post[0].1 = "POST";
        for length in ["1", "100"] {
            let mut fields = post.clone();
            fields.push(("content-length", length));
            cases.push(case(&fields, "hello"));
        }
        let sent = cases.clone();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("heads.json");
        std::fs::write(&file, serde_json::to_vec(&cases).unwrap()).unwrap();
        let door = Door::of(&world.hub, &world.server.host);
        let mut command = python::script("forge_h3.py");
        command.args(["--connect", &door.address.to_string(), "--host", &door.host, "--ca"]);
        command.arg(&world.hub.ready().ca_file).arg("heads").arg(&file);
        let out = tokio::process::Command::from(command).kill_on_drop(true).output().await.unwrap();
        let told = String::from_utf8_lossy(&out.stdout);
        let outcomes: Vec<Value> = serde_json::from_str(&told)
            .unwrap_or_else(|_| panic!("forge_h3: {told}\n{}", String::from_utf8_lossy(&out.stderr)));
        assert_eq!(outcomes.len(), sent.len());
        assert_eq!(outcomes[0], 200, "the honest one is served");
        for (case, outcome) in sent.iter().zip(&outcomes).skip(1) {
            let refused = outcome.as_str().is_some_and(|what| what != "nothing")
                || outcome.as_u64().is_some_and(|status| (400..600).contains(&status));
            assert!(refused, "{case}: {outcome}");
        }
        let targets: Vec<String> = home.seen().into_iter().map(|seen| seen.target).collect();
        // The honest one, and what was begun of a body that turned out too long or too short.
        assert!(targets.len() <= 3 && targets.iter().all(|target| target == "/echo"), "{targets:?}");
        let mut viewer = world.viewer(viewer::Protocol::H3).await;
        assert_eq!(viewer.get("/echo", &[(TICKET, &ticket)]).await.status(), 200, "the edge is none the worse");
    });
}
