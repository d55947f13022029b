//! What servers answer, and what they should not.

use super::*;
use crate::legacy::http::HeadError;

/// How an answer ends: what was read, and then.
fn ends(frames: &[(u8, &[u8])]) -> (usize, Result<(), Failure>) {
    ends_of("GET", frames)
}

fn ends_of(method: &str, frames: &[(u8, &[u8])]) -> (usize, Result<(), Failure>) {
    let mut bench = Bench::open();
    let id = bench.ask(method);
    for (tag, rest) in frames {
        bench.hears(tagged(id, *tag, rest));
    }
    let head = bench.tunnel.head(id);
    let (read, end) = bench.read(id);
    let result = match (head, end) {
        (Some(Err(failure)), Read::Failed(also)) if failure == also && read.is_empty() => Err(failure),
        (Some(Ok(_)), Read::Failed(failure)) => Err(failure),
        (Some(Ok(_)), Read::End) => Ok(()),
        other => panic!("{other:?}"),
    };
    let told = bench.said();
    let expected =
        if result.is_ok() || result == Err(Failure::Short) || result == Err(Failure::NoHead) { 0..=1 } else { 1..=1 };
    assert!(expected.contains(&told.len()), "a server that errs is told to stop: {result:?}");
    bench.release(id);
    assert_eq!(bench.said().len(), 0, "it is told once");
    bench.assert_idle();
    (read.len(), result)
}

const OK: &[u8] = br#"{"status":200,"headers":{},"bodyLength":null}"#;
const TEN: &[u8] = br#"{"status":200,"headers":{"Content-Length":"10"},"bodyLength":10}"#;
const SAID_TEN: &[u8] = br#"{"status":200,"headers":[],"bodyLength":10}"#;

#[test]
fn an_answer_is_head_body_and_end() {
    let mut bench = Bench::open();
    let id = bench.get();
    assert_eq!(bench.tunnel.head(id), None);
    bench.hears(tagged(id, HEAD, TEN));
    assert_eq!(bench.events(), [Event::Readable(id)]);
    let head = bench.tunnel.head(id).expect("it came").expect("a head");
    assert_eq!((head.status, head.content_length, head.body_length), (200, Some(10), Some(10)));
    assert_eq!(bench.tunnel.read(id, bench.now), Read::Blocked);
    bench.hears(tagged(id, BODY, b"0123456"));
    bench.hears(tagged(id, BODY, b"789"));
    assert_eq!(bench.events(), [Event::Readable(id)], "told once");
    assert_eq!(bench.read(id), (b"0123456789".to_vec(), Read::Blocked));
    bench.hears(tagged(id, END, b""));
    assert_eq!(bench.events(), [Event::Readable(id)]);
    assert_eq!(bench.read(id), (Vec::new(), Read::End));
    //= legacy-relay-wire s.2.3: treat it as "finished", never as an error
    bench.hears(wire(id.get(), Kind::HttpCancel, b""));
    assert_eq!(bench.read(id), (Vec::new(), Read::End));
    bench.release(id);
    bench.hears(wire(id.get(), Kind::HttpCancel, b""));
    assert_eq!(bench.said(), []);
    bench.assert_idle();
}

#[test]
fn a_long_payload_is_not_copied() {
    let mut bench = Bench::open();
    let id = bench.answered(r#"{"status":200}"#);
    let frame = Bytes::from(tagged(id, BODY, &[7; 60 * KIB]));
    bench.tunnel.receive(frame.slice(..10), false, bench.now).expect("fine");
    bench.tunnel.receive(frame.slice(10..30_000), false, bench.now).expect("fine");
    bench.tunnel.receive(frame.slice(30_000..), true, bench.now).expect("fine");
    let places: Vec<_> = std::iter::from_fn(|| match bench.tunnel.read(id, bench.now) {
        Read::Data(bytes) => Some((bytes.as_ptr(), bytes.len())),
        _ => None,
    })
    .collect();
    // The first two bytes are fewer than a slice is worth.
    assert_eq!(places[1..], [(frame[10..].as_ptr(), 29_990), (frame[30_000..].as_ptr(), frame.len() - 30_000)]);
}

#[test]
fn the_lengths_must_agree() {
    for (frames, read, result) in [
        (&[(HEAD, TEN), (BODY, &b"0123456789"[..]), (END, b"")][..], 10, Ok(())),
        (&[(HEAD, TEN), (BODY, b"012345678"), (END, b"")], 9, Err(Failure::Short)),
        (&[(HEAD, TEN), (END, b"")], 0, Err(Failure::Short)),
        (&[(HEAD, TEN), (BODY, b"0123456789"), (BODY, b"x"), (END, b"")], 10, Err(Failure::TooLong)),
        (&[(HEAD, TEN), (BODY, b"0123456789x"), (END, b"")], 0, Err(Failure::TooLong)),
        (&[(HEAD, SAID_TEN), (BODY, b"0123456789"), (END, b"")], 10, Ok(())),
        (&[(HEAD, SAID_TEN), (BODY, b"012"), (END, b"")], 3, Err(Failure::Short)),
        // That is no promise to the viewer: END is the only true completion signal.
        (&[(HEAD, SAID_TEN), (BODY, b"0123456789x"), (END, b"")], 11, Ok(())),
        (&[(HEAD, OK), (BODY, b"012"), (END, b"")], 3, Ok(())),
        (&[(HEAD, OK), (END, b"")], 0, Ok(())),
    ] {
        assert_eq!(ends(frames), (read, result), "{frames:?}");
    }
}

#[test]
fn an_answer_without_a_body_may_promise_one() {
    let ends = |method, head| ends_of(method, &[(HEAD, head), (BODY, b"not the viewer's"), (END, b"")]);
    assert_eq!(ends("HEAD", TEN), (0, Ok(())));
    assert_eq!(ends("head", TEN), (0, Ok(())));
    assert_eq!(ends("GET", br#"{"status":304,"headers":{"Content-Length":"10"}}"#), (0, Ok(())));
    assert_eq!(ends("GET", br#"{"status":204,"bodyLength":10}"#), (0, Ok(())));
    assert_eq!(ends("GET", br#"{"status":205,"bodyLength":17}"#), (16, Err(Failure::Short)));
}

#[test]
fn frames_in_the_wrong_order_fail_their_answer_alone() {
    for (frames, read, failure) in [
        (&[(END, &b""[..])][..], 0, Failure::NoHead),
        (&[(BODY, b"x")], 0, Failure::BadFrame),
        (&[(HEAD, OK), (HEAD, OK)], 0, Failure::SecondHead),
        (&[(HEAD, OK), (BODY, b"abc"), (HEAD, OK)], 3, Failure::SecondHead),
        (&[(0, b"")], 0, Failure::BadFrame),
        (&[(4, b"")], 0, Failure::BadFrame),
        (&[(b'{', b"}")], 0, Failure::BadFrame),
        (&[(HEAD, OK), (END, b"x")], 0, Failure::BadFrame),
        (&[(HEAD, b"")], 0, Failure::BadHead(HeadError::Malformed)),
        (&[(HEAD, b"{\"status\":101}")], 0, Failure::BadHead(HeadError::Status)),
        (&[(HEAD, b"{\"status\":200,\"headers\":{\"content-length\":\"x\"}}")], 0, Failure::BadHead(HeadError::Length)),
    ] {
        assert_eq!(ends(frames), (read, Err(failure)), "{frames:?}");
    }
    let mut bench = Bench::open();
    let (bad, good) = (bench.get(), bench.answered(r#"{"status":200}"#));
    bench.hears(wire(bad.get(), Kind::HttpResponse, b""));
    assert_eq!(bench.tunnel.head(bad), Some(Err(Failure::BadFrame)));
    bench.hears([tagged(bad, HEAD, OK), tagged(good, BODY, b"fine")].concat());
    assert_eq!(bench.read(good), (b"fine".to_vec(), Read::Blocked));
}

#[test]
fn a_cancel_before_the_end_fails_the_answer() {
    let mut bench = Bench::open();
    let (early, late) = (bench.get(), bench.answered(r#"{"status":200}"#));
    bench.body(late, 2000);
    bench.hears([wire(early.get(), Kind::HttpCancel, b""), wire(late.get(), Kind::HttpCancel, b"")].concat());
    assert_eq!(bench.tunnel.head(early), Some(Err(Failure::Cancelled)));
    assert_eq!(bench.read(late), (vec![7; 2000], Read::Failed(Failure::Cancelled)));
    bench.release(early);
    bench.release(late);
    assert_eq!(bench.said(), [], "it knows");
    bench.assert_idle();
}

#[test]
fn after_a_viewer_left_gigabytes_may_still_come_and_cost_nothing() {
    let mut bench = Bench::open();
    let id = bench.answered(r#"{"status":200,"headers":{"Content-Length":"99999999999"}}"#);
    bench.body(id, 100 * KIB);
    bench.release(id);
    assert_eq!(kinds(&bench.said()), [(id.get(), Kind::HttpCancel)]);
    let frame = Bytes::from(tagged(id, BODY, &[7; 60 * KIB]));
    for _ in 0..20_000 {
        bench.hears(frame.clone());
    }
    bench.hears([tagged(id, END, b""), wire(id.get(), Kind::HttpCancel, b"")].concat());
    assert_eq!(bench.tunnel.counts().dropped_frames, 20_002);
    assert_eq!(bench.tunnel.counts().dropped_bytes, 20_000 * (60 * 1024 + 1) + 1);
    assert_eq!((bench.said(), bench.events()), (vec![], vec![]));
    bench.assert_idle();
}

#[test]
fn an_answer_is_dropped_also_in_the_middle_of_a_frame() {
    let mut bench = Bench::open();
    for cut in [3, 8, 20, 50] {
        for frame in [HEAD, BODY] {
            let id = bench.get();
            if frame == BODY {
                bench.hears(tagged(id, HEAD, OK));
            }
            let wire = tagged(id, frame, &[OK, OK].concat());
            bench.tunnel.receive(wire[..cut].to_vec(), false, bench.now).expect("fine");
            bench.release(id);
            bench.tunnel.receive(wire[cut..].to_vec(), true, bench.now).expect("fine");
            bench.said();
            bench.assert_idle();
            assert_eq!(bench.tunnel.head.capacity(), 0);
        }
    }
    let id = bench.answered(r#"{"status":200}"#);
    bench.body(id, 7);
    assert_eq!(bench.read(id).0.len(), 7, "frames are still told apart");
}

#[test]
fn a_head_may_come_in_any_pieces() {
    let mut bench = Bench::open();
    let id = bench.get();
    for byte in tagged(id, HEAD, TEN) {
        assert_eq!(bench.tunnel.head(id), None);
        bench.tunnel.receive(vec![byte], true, bench.now).expect("fine");
    }
    assert_eq!(bench.tunnel.head(id).expect("it came").expect("a head").content_length, Some(10));
    assert_eq!(bench.tunnel.head(id), None, "given once");
}

#[test]
fn an_answer_to_what_was_not_asked_yet_is_nobodys() {
    let mut bench = Bench::open();
    let id = bench.tunnel.request(&head("GET"), RequestBody::Whole(Bytes::new()), bench.now).expect("open");
    bench.hears([tagged(id, HEAD, OK), tagged(id, END, b"")].concat());
    assert_eq!((bench.tunnel.head(id), bench.tunnel.counts().dropped_frames), (None, 2));
}

#[test]
fn skipped_fields_are_counted() {
    let mut bench = Bench::open();
    bench.answered(r#"{"status":200,"headers":{"A":"x\r\n","Set-Cookie":"a","set-cookie":"b","B":["c"]}}"#);
    assert_eq!(bench.tunnel.counts().skipped_fields, 3);
}
