//! Bodies in both directions: uploads of any size, `Expect`, trailers; what breaks off is seen to
//! break off.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use phlix_tests::curl::Curl;
use phlix_tests::origin::home::Home;
use phlix_tests::viewer::{self, Body, Protocol, full};
use phlix_tests::{Engine, World, story, until};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TICKET: &str = "x-phlix-ticket";

fn with_home(tell: impl AsyncFnOnce(Home, World, String)) {
    story(async {
        let home = Home::start();
        let world = World::start(Engine::Sqlite, &home.url()).await;
        let ticket = world.ticket().await;
        tell(home, world, ticket).await;
    });
}

#[test]
fn uploads_of_every_size_arrive_whole() {
    with_home(async |_home, world, ticket| {
        for protocol in Protocol::ALL {
            for size in [0, 1, 16_383, 65_536, 1_000_003, 20_000_000] {
                let body: Vec<u8> = (0..size).map(|n: u32| (n ^ (n >> 8)) as u8).collect();
                let expected = hex(&Sha256::digest(&body));
                // Length told, and not told (chunked over HTTP/1.1).
                for told in [true, false] {
                    let bytes = Bytes::from(body.clone());
                    let body = if told { full(bytes) } else { in_pieces(bytes) };
                    let mut viewer = world.viewer(protocol).await;
                    let request = viewer.request(Method::POST, "/upload").header(TICKET, &ticket).body(body).unwrap();
                    let answer = viewer.send(request).await.unwrap();
                    assert_eq!(answer.status(), 200, "{protocol:?} {size} told {told}");
                    let answer = viewer::json(answer).await;
                    assert_eq!(answer["length"], size, "{protocol:?} told {told}");
                    assert_eq!(answer["sha256"], expected, "{protocol:?} {size} told {told}");
                }
            }
        }
    });
}

#[test]
fn curl_waits_for_100_continue_and_gets_it() {
    with_home(async |_home, world, ticket| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![7; 3_000_000]).unwrap();
        for protocol in Protocol::BOTH {
            let begun = Instant::now();
            let answer = Curl::new(&world.hub, &world.server, protocol, "/upload")
                .header("X-Phlix-Ticket", &ticket)
                .header("Expect", "100-continue")
                // Where no 100 comes curl sends after this time all the same, and the test sees it.
                .arg("--expect100-timeout")
                .arg("20")
                .arg("--upload-file")
                .arg(file.path().to_str().unwrap())
                .run()
                .await;
            assert_eq!((answer.exit, answer.status), (0, 200), "{protocol:?}");
            assert!(begun.elapsed() < Duration::from_secs(15), "{protocol:?}: no 100 Continue came");
        }
    });
}

#[test]
fn a_refused_upload_is_answered_before_it_is_sent() {
    with_home(async |home, world, ticket| {
        // Over HTTP/1.1 by hand: head with Expect, then nothing until an answer comes.
        let mut stream = viewer::tls(&world.hub, &world.server.host, &[b"http/1.1"]).await;
        let head = format!(
            "POST /upload/refused HTTP/1.1\r\nHost: {}:{}\r\n{TICKET}: {ticket}\r\nContent-Length: 1000000000\r\nExpect: 100-continue\r\n\r\n",
            world.server.host,
            world.hub.ready().tls.port()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"HTTP/1.1 413");
        assert_eq!(home.came("/upload/refused").await.read, 0);
    });
}

#[test]
fn trailers_pass_both_ways() {
    with_home(async |_home, world, ticket| {
        for protocol in Protocol::ALL {
            let mut viewer = world.viewer(protocol).await;
            let mut trailers = HeaderMap::new();
            trailers.insert("x-checksum", HeaderValue::from_static("17"));
            let frames = [Ok(Frame::data(Bytes::from_static(b"body"))), Ok(Frame::trailers(trailers))];
            let request = viewer
                .request(Method::POST, "/echo")
                .header(TICKET, &ticket)
                .header("trailer", "x-checksum")
                .body(StreamBody::new(stream::iter(frames)).boxed())
                .unwrap();
            let seen = viewer::json(viewer.send(request).await.unwrap()).await;
            assert_eq!(seen["trailers"], serde_json::json!([["x-checksum", "17"]]), "{protocol:?}");

            // A chunked request was the last of its connection over HTTP/1.1.
            let mut viewer = world.viewer(protocol).await;
            let answer = viewer.get("/trailers", &[(TICKET, &ticket), ("te", "trailers")]).await;
            let body = answer.into_body().collect().await.unwrap();
            assert_eq!(body.trailers().unwrap()["x-checksum"], "42", "{protocol:?}");
            assert_eq!(body.to_bytes(), "with a trailer");
        }
    });
}

#[test]
fn a_body_that_breaks_off_is_seen_to_break_off() {
    with_home(async |_home, world, ticket| {
        for path in ["/short", "/short-chunked"] {
            // In our client, where the connection or stream must end with an error ...
            for protocol in Protocol::ALL {
                let mut viewer = world.viewer(protocol).await;
                let answer = viewer.get(path, &[(TICKET, &ticket)]).await;
                assert_eq!(answer.status(), 200);
                let body = tokio::time::timeout(Duration::from_secs(10), viewer::read(answer)).await;
                assert!(body.unwrap().is_err(), "{protocol:?} {path}: a short body looks complete");
            }
            // ... and in curl: 18 (partial file), 56 (receive), 92 (HTTP/2 stream).
            for protocol in Protocol::BOTH {
                let answer =
                    Curl::new(&world.hub, &world.server, protocol, path).header("X-Phlix-Ticket", &ticket).run().await;
                assert!(matches!(answer.exit, 18 | 56 | 92), "{protocol:?} {path}: curl says {}", answer.exit);
            }
        }
        // The tunnel itself is none the worse.
        let mut viewer = world.viewer(Protocol::H2).await;
        assert_eq!(viewer.get("/echo", &[(TICKET, &ticket)]).await.status(), 200);
    });
}

#[test]
fn who_leaves_in_the_middle_of_an_upload_is_noticed_at_home() {
    with_home(async |home, world, ticket| {
        for protocol in Protocol::ALL {
            let path = format!("/upload?{protocol:?}");
            let mut viewer = world.viewer(protocol).await;
            let pieces = stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(5)).await;
                Some((Ok(Frame::data(Bytes::from_static(&[1; 1000]))), ()))
            });
            let body = sync_body(pieces);
            let request = viewer.request(Method::POST, &path).header(TICKET, &ticket).body(body).unwrap();
            let sending = tokio::spawn(async move { viewer.send(request).await.map(drop) });
            until("bytes arrive at the origin", Duration::from_secs(10), || async {
                home.seen().into_iter().find(|seen| seen.target == path && seen.read > 5000)
            })
            .await;
            sending.abort();
            // The origin reads an error and answers it: no complete upload may be reported.
            until("the origin sees the upload end", Duration::from_secs(10), || async {
                let first = home.seen().into_iter().find(|seen| seen.target == path)?.read;
                tokio::time::sleep(Duration::from_millis(100)).await;
                let then = home.seen().into_iter().find(|seen| seen.target == path)?.read;
                (first == then).then_some(())
            })
            .await;
        }
    });
}

/// A body whose length is not told.
fn in_pieces(bytes: Bytes) -> Body {
    let pieces: Vec<_> = bytes.chunks(60_000).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
    StreamBody::new(stream::iter(pieces)).boxed()
}

fn sync_body(pieces: impl futures_util::Stream<Item = std::io::Result<Frame<Bytes>>> + Send + 'static) -> Body {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    tokio::spawn(async move {
        let mut pieces = std::pin::pin!(pieces);
        while let Some(piece) = futures_util::StreamExt::next(&mut pieces).await {
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    let pieces =
        stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|piece| (piece, receiver)) });
    StreamBody::new(phlix_tests::origin::home::SyncStream::from(Box::pin(pieces))).boxed()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
