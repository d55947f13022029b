//! Every way in and through: viewers over HTTP/1.1, HTTP/2 and HTTP/3, tunnels over QUIC and WebSocket,
//! and all that a viewer may do.
//!
//! The viewers are not ours: curl, hyper with tungstenite, aioquic, ngtcp2's client. All cells of a
//! tunnel run, one after the other, before the story tells which failed.

#![allow(clippy::unwrap_used)]

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures_util::{FutureExt, SinkExt, StreamExt};
use http::Method;
use http_body_util::BodyExt;
use phlix_tests::aioquic::Aioquic;
use phlix_tests::curl::Curl;
use phlix_tests::database::Database;
use phlix_tests::hub::Hub;
use phlix_tests::origin::home::{self, Home};
use phlix_tests::viewer::{self, Client, Door, Protocol, empty};
use phlix_tests::{Engine, World, full_size, gtlsclient, hash, media, on_both_databases, story};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

const TICKET: &str = "X-Phlix-Ticket";

/// "Cancellation reaches the origin within 100 ms."
const CANCELLED_WITHIN: Duration = Duration::from_millis(100);

const UPLOAD: usize = 3_000_003;

#[derive(Debug, Clone, Copy)]
enum Act {
    Whole,
    Range,
    Head,
    Upload,
    Upgrade,
    Cancel,
    ShortBody,
    Big,
}

impl Act {
    const ALL: [Self; 8] =
        [Self::Whole, Self::Range, Self::Head, Self::Upload, Self::Upgrade, Self::Cancel, Self::ShortBody, Self::Big];
}

on_both_databases!(every_viewer_over_a_quic_tunnel);

async fn every_viewer_over_a_quic_tunnel(engine: Engine) {
    every_viewer(engine, "quic").await;
}

#[test]
fn every_viewer_over_a_websocket_tunnel() {
    story(every_viewer(Engine::Sqlite, "websocket"));
}

async fn every_viewer(engine: Engine, transport: &str) {
    let home = Home::start();
    let hub = Hub::start(Database::fresh(engine), &[]).await;
    let mut world = World::with_agent(hub, &home.url(), &["--transport", transport]).await;
    world.hub.logged(&format!("tunnel opened over {transport}")).await;
    let ticket = world.ticket().await;
    let mut failed = Vec::new();
    for act in Act::ALL {
        for protocol in Protocol::ALL {
            let cell = Cell { home: &home, world: &world, ticket: &ticket, protocol };
            let begun = Instant::now();
            // Where one panics the others still run.
            let outcome = AssertUnwindSafe(cell.run(act)).catch_unwind().await;
            let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
            println!("{verdict:6} {protocol:?} over {transport}, {act:?}: {:?}", begun.elapsed());
            if outcome.is_err() {
                failed.push(format!("{protocol:?} {act:?}"));
            }
        }
    }
    assert!(failed.is_empty(), "over {transport}: {}", failed.join(", "));
}

struct Cell<'a> {
    home: &'a Home,
    world: &'a World,
    ticket: &'a str,
    protocol: Protocol,
}

impl Cell<'_> {
    async fn run(&self, act: Act) {
        match act {
            Act::Whole => self.whole().await,
            Act::Range => self.range().await,
            Act::Head => self.head().await,
            Act::Upload => self.upload().await,
            Act::Upgrade => self.upgrade().await,
            Act::Cancel => self.cancel().await,
            Act::ShortBody => self.short_body().await,
            Act::Big => self.big().await,
        }
    }

    fn door(&self) -> Door {
        Door::of(&self.world.hub, &self.world.server.host)
    }

    fn curl(&self, path: &str) -> Curl {
        Curl::new(&self.world.hub, &self.world.server, self.protocol, path).header(TICKET, self.ticket)
    }

    fn aioquic(&self) -> Aioquic {
        Aioquic::new(&self.world.hub, &self.world.server.host).header(TICKET, self.ticket)
    }

    async fn whole(&self) {
        let expected = hash::of(media::video());
        if self.protocol == Protocol::H3 {
            let got = self.aioquic().run("get", "/open/video.mp4").await;
            assert_eq!((&got["status"], &got["end"]), (&json!(200), &json!("finished")), "{got}");
            assert_eq!(got["sha256"], expected, "{got}");
            assert_eq!(got["headers"]["content-type"], "video/mp4");
            return;
        }
        let got = self.curl("/open/video.mp4").run().await;
        assert_eq!((got.exit, got.status), (0, 200));
        assert_eq!(hash::of_file(got.file()), expected);
        assert_eq!(got.header("content-type"), Some("video/mp4"));
        // RFC 7838: where HTTP/3 is found.
        let service = format!("h3=\":{}\"", self.world.hub.ready().tls.port());
        assert!(got.header("alt-svc").is_some_and(|told| told.contains(&service)), "{:?}", got.header("alt-svc"));
    }

    async fn range(&self) {
        let video = media::video();
        let (first, last) = (video.len() / 3, video.len() / 3 + 100_000);
        let (range, told) = (format!("bytes={first}-{last}"), format!("bytes {first}-{last}/{}", video.len()));
        let expected = hash::of(&video[first..=last]);
        if self.protocol == Protocol::H3 {
            let got = self.aioquic().header("Range", &range).run("get", "/open/video.mp4").await;
            assert_eq!((&got["status"], &got["end"]), (&json!(206), &json!("finished")), "{got}");
            assert_eq!((&got["headers"]["content-range"], &got["sha256"]), (&json!(told), &json!(expected)));
            return;
        }
        let got = self.curl("/open/video.mp4").header("Range", &range).run().await;
        assert_eq!((got.exit, got.status, got.header("content-range")), (0, 206, Some(told.as_str())));
        assert_eq!(hash::of_file(got.file()), expected);
    }

    async fn head(&self) {
        let length = media::video().len().to_string();
        if self.protocol == Protocol::H3 {
            let got = self.aioquic().run("head", "/open/video.mp4").await;
            assert_eq!((&got["status"], &got["end"]), (&json!(200), &json!("finished")), "{got}");
            assert_eq!((&got["headers"]["content-length"], &got["length"]), (&json!(length), &json!(0)), "{got}");
            return;
        }
        let got = self.curl("/open/video.mp4").arg("--head").run().await;
        assert_eq!((got.exit, got.status, got.header("content-length")), (0, 200, Some(length.as_str())));
    }

    async fn upload(&self) {
        let body: Vec<u8> = (0..UPLOAD).map(|i| (i % 251) as u8).collect();
        let expected = json!({ "length": UPLOAD, "sha256": hash::of(&body) });
        let told: serde_json::Value = if self.protocol == Protocol::H3 {
            let size = UPLOAD.to_string();
            // Length told, and not told.
            let untold = self.aioquic().args(&["--size", &size, "--untold"]).run("upload", "/upload").await;
            assert_eq!(untold["status"], 200, "{untold}");
            let got = self.aioquic().args(&["--size", &size]).run("upload", "/upload").await;
            assert_eq!((&got["status"], &got["end"]), (&json!(200), &json!("finished")), "{got}");
            assert_eq!(got["text"], untold["text"]);
            serde_json::from_str(got["text"].as_str().unwrap()).unwrap()
        } else {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &body).unwrap();
            let data = format!("@{}", file.path().display());
            let got = self.curl("/upload").arg("--data-binary").arg(&data).run().await;
            assert_eq!((got.exit, got.status), (0, 200));
            serde_json::from_slice(&got.body()).unwrap()
        };
        assert_eq!(told, expected);
    }

    async fn upgrade(&self) {
        if self.protocol == Protocol::H3 {
            let got = self.aioquic().args(&["--count", "5"]).run("socket", "/socket").await;
            assert_eq!((&got["status"], &got["error"]), (&json!(200), &json!(null)), "{got}");
            assert_eq!((&got["echoed"], &got["close"], &got["end"]), (&json!(6), &json!(1000), &json!("finished")));
            return;
        }
        let opened = viewer::socket(&self.door(), self.protocol, "/socket", &[(TICKET, self.ticket)]).await;
        let mut socket = opened.unwrap_or_else(|refused| panic!("refused: {}", refused.status()));
        for message in [Message::text("first"), Message::binary(vec![7; 100_000]), Message::text("")] {
            socket.send(message.clone()).await.unwrap();
            let back = tokio::time::timeout(Duration::from_secs(10), socket.next()).await.unwrap();
            assert!(back.unwrap().unwrap() == message, "another message came back");
        }
        socket.close(None).await.unwrap();
        let closed = tokio::time::timeout(Duration::from_secs(10), socket.next()).await.unwrap();
        assert!(matches!(closed, None | Some(Ok(Message::Close(_)))), "{closed:?}");
    }

    async fn cancel(&self) {
        // The fastest of three: other programs of the machine are no part of the way.
        let mut fastest = Duration::MAX;
        for n in 0..3 {
            let path = format!("/endless?{:?}-{n}", self.protocol);
            fastest = fastest.min(self.cancelled(&path).await);
            if fastest <= CANCELLED_WITHIN {
                return;
            }
        }
        panic!("noticed after {fastest:?}");
    }

    /// Leaves in the middle of an answer; how long after that the origin noticed.
    async fn cancelled(&self, path: &str) -> Duration {
        if self.protocol == Protocol::H3 {
            let mut viewer = self.aioquic().stay(path).await;
            let left = viewer.leave().await;
            return self.home.cancelled(path).await.saturating_duration_since(left);
        }
        let mut viewer = Client::at(&self.door(), self.protocol).await;
        let request = viewer.request(Method::GET, path).header(TICKET, self.ticket).body(empty()).unwrap();
        let mut body = viewer.send(request).await.unwrap().into_body();
        for _ in 0..10 {
            body.frame().await.unwrap().unwrap();
        }
        let left = Instant::now();
        drop(body);
        drop(viewer);
        self.home.cancelled(path).await.saturating_duration_since(left)
    }

    async fn short_body(&self) {
        for path in ["/short", "/short-chunked"] {
            if self.protocol == Protocol::H3 {
                let got = self.aioquic().run("get", path).await;
                assert_eq!(got["status"], 200, "{got}");
                // Of the stream: the connection is none the worse.
                assert!(got["end"].as_str().is_some_and(|end| end.starts_with("reset")), "{path}: {got}");
            } else {
                // Of curl's codes: 18 partial file, 56 receive, 92 HTTP/2 stream.
                let got = self.curl(path).run().await;
                assert!(matches!(got.exit, 18 | 56 | 92), "{path}: curl says {}", got.exit);
            }
        }
    }

    async fn big(&self) {
        let size: u64 = if full_size() { 1 << 30 } else { 64 << 20 };
        let (path, expected) = (format!("/bytes/{size}"), home::sha256_of_bytes(size));
        let begun = Instant::now();
        if self.protocol == Protocol::H3 {
            self.world.open().await;
            let got = gtlsclient::download(&self.door(), &path, Duration::from_secs(300)).await;
            assert_eq!(hash::of_file(got.file()), expected, "{}", got.printed);
        } else {
            let got = self.curl(&path).run().await;
            assert_eq!((got.exit, got.status), (0, 200));
            assert_eq!(hash::of_file(got.file()), expected);
        }
        println!("       {} MiB in {:?}", size >> 20, begun.elapsed());
    }
}
