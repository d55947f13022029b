//! Requests down a legacy tunnel, and their answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http_body::Body as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use phlix_protocol::native::stream::ResetCode;
use tokio::sync::mpsc;

use super::home::{CANCEL, Home, REQUEST, Relay};
use super::{ask, get, head, tunnel};
use crate::body::{self, Body, BodyError};
use crate::tests::world::{World, until};
use crate::tunnels::activity::Activity;
use crate::tunnels::legacy::LegacyError;

/// A body that a test sends piece by piece.
fn piecewise() -> (mpsc::UnboundedSender<Bytes>, Body) {
    let (send, recv) = mpsc::unbounded_channel::<Bytes>();
    let frames = stream::unfold(recv, |mut recv| async {
        let bytes = recv.recv().await?;
        Some((Ok::<_, BodyError>(Frame::data(bytes)), recv))
    });
    (send, StreamBody::new(frames).boxed_unsync())
}

#[tokio::test]
async fn a_small_request_is_an_envelope_and_its_answer_is_streamed() {
    let world = World::start().await;
    let mut home = Home::of(&world).await;
    let tunnel = tunnel(&world).await;
    let mut post = head("POST", "/api/v1/playlists");
    post.query = "a=b%20c".into();
    let (answer, id) = tokio::join!(ask(&tunnel, post, body::full("{\"name\":1}")), async {
        let (id, envelope) = home.asked().await;
        assert!(id > 0x8000_0000);
        assert_eq!(envelope["method"], "POST");
        assert_eq!(envelope["path"], "/api/v1/playlists");
        assert_eq!(envelope["query"], "a=b%20c");
        assert_eq!(envelope["headers"]["X-Phlix-Relay-User"], "someone");
        // {"name":1}
        assert_eq!(envelope["body"], "eyJuYW1lIjoxfQ==");
        home.head(id, 201, r#"{"Location":"\/x","Content-Type":"text/plain"}"#).await;
        id
    });
    let answer = answer.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["location"].to_str().unwrap()), (201, "/x"));
    let mut body = answer.into_body();
    for piece in [&b"one"[..], b"two"] {
        home.body(id, piece).await;
        assert_eq!(&body.frame().await.unwrap().unwrap().into_data().unwrap()[..], piece);
    }
    home.end(id).await;
    assert!(body.frame().await.is_none());
    // The server's CANCEL behind its END is no failure, and the tunnel goes on.
    let (answer, ()) = tokio::join!(get(&tunnel, "/hls/a"), async {
        let (next, _) = home.asked().await;
        assert_eq!(next, id + 1);
        home.head(next, 200, r#"{"Content-Length":"0"}"#).await;
        home.end(next).await;
    });
    assert!(answer.unwrap().into_body().collect().await.unwrap().to_bytes().is_empty());
}

#[tokio::test]
async fn a_long_body_goes_in_chunks_while_it_comes() {
    let world = World::start().await;
    let mut home = Home::of(&world).await;
    let tunnel = tunnel(&world).await;
    let (send, body) = piecewise();
    let sending = async {
        for _ in 0..3 {
            send.send(vec![7; 60_000].into()).unwrap();
        }
        let Relay { id, payload, .. } = home.hear_relay().await;
        assert_eq!(payload[0], 1);
        let head: serde_json::Value = serde_json::from_slice(&payload[1..]).unwrap();
        assert_eq!(head["method"], "PUT");
        let mut got = 0;
        while got < 180_000 {
            let chunk = home.hear_relay().await;
            assert_eq!((chunk.id, chunk.kind, chunk.payload[0]), (id, REQUEST, 2));
            got += chunk.payload.len() - 1;
        }
        drop(send);
        assert_eq!(home.hear_relay().await, Relay { id, kind: REQUEST, payload: vec![3] });
        home.head(id, 200, "{}").await;
        home.end(id).await;
    };
    let (answer, ()) = tokio::join!(ask(&tunnel, head("PUT", "/api/v1/media/1/poster"), body), sending);
    assert_eq!(answer.unwrap().status(), 200);
}

#[tokio::test]
async fn a_body_that_servers_would_not_take_is_refused_before_and_on_its_way() {
    let world = World::with(|config| config.legacy.request_body = 100_000).await;
    let mut home = Home::of(&world).await;
    let tunnel = tunnel(&world).await;
    let known = ask(&tunnel, head("PUT", "/x"), body::full(vec![0; 100_001])).await;
    assert!(matches!(known.err(), Some(LegacyError::TooLong)));
    let (send, body) = piecewise();
    let piece = || send.send(vec![7; 40_000].into()).unwrap();
    piece();
    piece();
    let (answer, ()) = tokio::join!(ask(&tunnel, head("PUT", "/x"), body), async {
        assert_eq!(home.hear_relay().await.kind, REQUEST);
        piece();
    });
    assert!(matches!(answer.err(), Some(LegacyError::TooLong)));
    until(async || home.hear_relay().await.kind == CANCEL).await;
}

#[tokio::test]
async fn what_servers_would_refuse_is_not_asked() {
    let world = World::start().await;
    let _home = Home::of(&world).await;
    let tunnel = tunnel(&world).await;
    for (method, path) in [("TRACE", "/x"), ("GET", "/a/../b"), ("GET", "/a%2e%2e"), ("GET", "//x"), ("GET", "x")] {
        let answer = ask(&tunnel, head(method, path), body::empty()).await;
        assert!(matches!(answer.err(), Some(LegacyError::Unspeakable)), "{method} {path}");
    }
}

#[tokio::test]
async fn a_viewer_who_leaves_is_told_to_the_server_at_once() {
    let world = World::start().await;
    let mut home = Home::of(&world).await;
    let tunnel = tunnel(&world).await;
    // While the answer is awaited.
    let asking = {
        let tunnel = Arc::clone(&tunnel);
        tokio::spawn(async move { get(&tunnel, "/hls/a").await.map(drop) })
    };
    let (id, _) = home.asked().await;
    let left = Instant::now();
    asking.abort();
    assert_eq!(home.hear_relay().await, Relay { id, kind: CANCEL, payload: Vec::new() });
    // While it runs.
    let (answer, id) = tokio::join!(get(&tunnel, "/hls/a"), async {
        let (id, _) = home.asked().await;
        home.head(id, 200, "{}").await;
        home.body(id, b"x").await;
        id
    });
    drop(answer.unwrap());
    assert_eq!(home.hear_relay().await, Relay { id, kind: CANCEL, payload: Vec::new() });
    assert!(left.elapsed() < Duration::from_millis(100), "{:?}", left.elapsed());
    // What was under way is dropped.
    home.body(id, &[1; 60_000]).await;
    home.end(id).await;
    let (answer, ()) = tokio::join!(get(&tunnel, "/hls/a"), async {
        let (id, _) = home.asked().await;
        home.head(id, 200, "{}").await;
        home.end(id).await;
    });
    assert_eq!(answer.unwrap().status(), 200);
}

#[tokio::test]
async fn an_answer_that_is_not_whole_is_aborted() {
    let world = World::start().await;
    let mut home = Home::of(&world).await;
    let tunnel = tunnel(&world).await;
    let (answer, ()) = tokio::join!(get(&tunnel, "/media/1/stream"), async {
        let (id, _) = home.asked().await;
        home.head(id, 200, r#"{"Content-Length":"10"}"#).await;
        home.body(id, b"abc").await;
        home.end(id).await;
    });
    let mut body = answer.unwrap().into_body();
    assert_eq!(body.size_hint().exact(), Some(10));
    assert_eq!(&body.frame().await.unwrap().unwrap().into_data().unwrap()[..], b"abc");
    assert!(matches!(body.frame().await.unwrap(), Err(BodyError::Short)));
    // END without HEAD, and CANCEL before END.
    for cancelled in [false, true] {
        let (answer, ()) = tokio::join!(get(&tunnel, "/media/1/stream"), async {
            let (id, _) = home.asked().await;
            if cancelled {
                home.relay(id, CANCEL, b"").await;
            } else {
                home.end(id).await;
            }
        });
        assert!(matches!(answer.err(), Some(LegacyError::NoHead)));
    }
}

#[tokio::test]
async fn a_lost_tunnel_ends_what_runs_on_it() {
    let world = World::start().await;
    let mut home = Home::of(&world).await;
    let tunnel = tunnel(&world).await;
    let (answer, ()) = tokio::join!(get(&tunnel, "/media/1/stream"), async {
        let (id, _) = home.asked().await;
        home.head(id, 200, "{}").await;
        home.body(id, b"abc").await;
    });
    let mut body = answer.unwrap().into_body();
    let (waiting, ()) = tokio::join!(get(&tunnel, "/hls/a"), async {
        home.asked().await;
        drop(home);
    });
    assert!(matches!(waiting.err(), Some(LegacyError::TunnelLost)));
    // What came before is still read.
    assert_eq!(&body.frame().await.unwrap().unwrap().into_data().unwrap()[..], b"abc");
    assert!(matches!(body.frame().await.unwrap(), Err(BodyError::TunnelLost)));
    assert!(matches!(get(&tunnel, "/hls/a").await.err(), Some(LegacyError::TunnelLost)));
    assert!(world.edge.tunnels.legacy.pick(world.server).is_none());
}

#[tokio::test]
async fn a_head_that_does_not_come_and_a_body_that_stops_are_given_up() {
    let world = World::start().await;
    let mut home = Home::of(&world).await;
    let tunnel = tunnel(&world).await;
    let patience = Duration::from_millis(80);
    let activity = Arc::new(Activity::new(Instant::now()));
    let (answer, ()) = tokio::join!(tunnel.request(head("GET", "/x"), body::empty(), patience, &activity), async {
        home.asked().await;
    });
    assert!(matches!(answer.err(), Some(LegacyError::Silent)));
    assert_eq!(home.hear_relay().await.kind, CANCEL);
    let activity = Arc::new(Activity::new(Instant::now()));
    let (answer, ()) = tokio::join!(tunnel.request(head("GET", "/x"), body::empty(), patience, &activity), async {
        let (id, _) = home.asked().await;
        home.head(id, 200, "{}").await;
    });
    let mut body = answer.unwrap().into_body();
    assert!(matches!(body.frame().await.unwrap(), Err(BodyError::Stalled)));
    assert_eq!(home.hear_relay().await.kind, CANCEL);
}

#[tokio::test]
async fn a_cut_right_ends_an_exchange_also_while_nobody_reads() {
    let world = World::start().await;
    let mut home = Home::of(&world).await;
    let tunnel = tunnel(&world).await;
    let activity = Arc::new(Activity::new(Instant::now()));
    let patience = Duration::from_secs(10);
    let asked = tunnel.request(head("GET", "/x"), body::empty(), patience, &activity);
    let (answer, ()) = tokio::join!(asked, async {
        home.asked().await;
        activity.cut(ResetCode::CancelledByViewer);
    });
    assert!(matches!(answer.err(), Some(LegacyError::Cut)));
    assert_eq!(home.hear_relay().await.kind, CANCEL);
    let (answer, ()) = tokio::join!(get(&tunnel, "/x"), async {
        let (id, _) = home.asked().await;
        home.head(id, 200, "{}").await;
    });
    let mut body = answer.unwrap().into_body();
    body.stopper().stop();
    assert_eq!(home.hear_relay().await.kind, CANCEL);
    assert!(matches!(body.frame().await.unwrap(), Err(BodyError::Cut)));
}

#[tokio::test]
async fn answers_without_a_body_are_over_at_once() {
    let world = World::start().await;
    let mut home = Home::of(&world).await;
    let tunnel = tunnel(&world).await;
    let (answer, ()) = tokio::join!(ask(&tunnel, head("HEAD", "/media/1/stream"), body::empty()), async {
        let (id, _) = home.asked().await;
        home.head(id, 200, r#"{"Content-Length":"12345"}"#).await;
        home.end(id).await;
    });
    let answer = answer.unwrap();
    assert_eq!(answer.headers()["content-length"], "12345");
    assert!(answer.body().is_end_stream());
}

/// Who has counted the promised bytes does not wait for END, and that is no reason to cancel.
#[tokio::test]
async fn an_answer_of_which_all_came_is_whole_before_its_end() {
    let world = World::start().await;
    let mut home = Home::of(&world).await;
    let tunnel = tunnel(&world).await;
    for late in [false, true] {
        let (answer, id) = tokio::join!(get(&tunnel, "/api/v1/media"), async {
            let (id, _) = home.asked().await;
            home.head(id, 200, r#"{"Content-Length":"3"}"#).await;
            home.body(id, b"abc").await;
            if !late {
                home.end(id).await;
            }
            id
        });
        let mut body = answer.unwrap().into_body();
        assert_eq!(&body.frame().await.unwrap().unwrap().into_data().unwrap()[..], b"abc");
        assert!(body.is_end_stream());
        drop(body);
        if late {
            home.end(id).await;
        }
    }
    // Nothing came in between.
    let (answer, ()) = tokio::join!(get(&tunnel, "/x"), async {
        let relay = home.hear_relay().await;
        assert_eq!(relay.kind, REQUEST);
        home.head(relay.id, 204, "{}").await;
        home.end(relay.id).await;
    });
    assert_eq!(answer.unwrap().status(), 204);
}

/// A server that never says END is told that nobody waits, and goes on being asked.
#[tokio::test]
async fn answers_without_an_end_are_cancelled_in_time() {
    let world = World::start().await;
    let mut home = Home::of(&world).await;
    let tunnel = tunnel(&world).await;
    let asking = async {
        for _ in 0..200 {
            let answer = get(&tunnel, "/x").await.unwrap();
            assert_eq!(&answer.into_body().collect().await.unwrap().to_bytes()[..], b"abc");
        }
    };
    let serving = async {
        let (mut asked, mut cancelled) = (0, 0);
        while asked < 200 {
            let relay = home.hear_relay().await;
            if relay.kind == CANCEL {
                cancelled += 1;
                continue;
            }
            asked += 1;
            home.head(relay.id, 200, r#"{"Content-Length":"3"}"#).await;
            home.body(relay.id, b"abc").await;
        }
        cancelled
    };
    let ((), cancelled) = tokio::join!(asking, serving);
    assert!((100..200).contains(&cancelled), "{cancelled}");
}

/// Half a GiB to a viewer that reads nothing: the tunnel is paused, and what waits here is bounded.
#[tokio::test]
async fn a_viewer_who_does_not_read_holds_the_server_back() {
    let world = World::start().await;
    let mut home = Home::of(&world).await;
    let tunnel = tunnel(&world).await;
    let (answer, id) = tokio::join!(get(&tunnel, "/media/1/stream"), async {
        let (id, _) = home.asked().await;
        home.head(id, 200, "{}").await;
        id
    });
    let mut body = answer.unwrap().into_body();
    let piece = vec![9; 65_534];
    let sending = async {
        let mut sent = 0;
        // Until the kernel's buffers are full, too.
        while tokio::time::timeout(Duration::from_millis(300), home.body(id, &piece)).await.is_ok() {
            sent += piece.len();
            assert!(sent < 512 << 20, "nothing holds it back");
        }
        sent
    };
    let sent = sending.await;
    let mut got = 0;
    while got < sent {
        got += body.frame().await.unwrap().unwrap().into_data().unwrap().len();
    }
    assert_eq!(got, sent);
}
