//! Servers that flood, lie and never end: each costs its own tunnel only, and a bounded amount.

use super::*;

const OK: &str = r#"{"status":200}"#;

/// How many times this can be said at one time before it is refused.
fn borne(bench: &mut Bench, frame: &[u8], most: usize) -> (usize, Option<Violation>) {
    let frame = Bytes::copy_from_slice(frame);
    for times in 0..most {
        if let Err(violation) = bench.tunnel.receive(frame.clone(), true, bench.now) {
            return (times, Some(violation));
        }
    }
    (most, None)
}

#[test]
fn a_flood_of_heartbeats_is_refused() {
    let mut bench = Bench::open();
    let (times, violation) = borne(&mut bench, &wire(0, Kind::Heartbeat, b""), 100_000);
    assert_eq!((times, violation), (65_536, Some(Violation::SmallFlood)));
    // In time it is fine.
    let mut bench = Bench::open();
    for _ in 0..100 {
        assert_eq!(borne(&mut bench, &wire(0, Kind::Heartbeat, b""), 10_000).1, None);
        bench.now += secs(1);
    }
}

#[test]
fn a_flood_of_empty_and_of_tiny_bodies_is_refused() {
    for body in [&b""[..], b"x"] {
        let mut bench = Bench::open();
        let id = bench.answered(OK);
        let mut read = 0;
        let frame = tagged(id, BODY, body);
        let mut times = 0;
        while bench.tunnel.receive(frame.clone(), true, bench.now).is_ok() {
            times += 1;
            read += bench.read(id).0.len();
        }
        assert!((60_000..66_000).contains(&times));
        assert_eq!(read, times * body.len());
    }
    let mut bench = Bench::open();
    let channel = bench.tunnel.connect(Uuid::nil(), "", bench.now).expect("open");
    bench.said();
    let (_, violation) = borne(&mut bench, &wire(channel.get(), Kind::Data, b""), 100_000);
    assert_eq!(violation, Some(Violation::SmallFlood));
}

#[test]
fn a_flood_of_empty_messages_is_refused() {
    let mut bench = Bench::open();
    assert_eq!(borne(&mut bench, b"", 100_000).1, Some(Violation::SmallFlood));
}

#[test]
fn tiny_bodies_of_a_slow_viewer_cost_their_bytes() {
    let mut bench = Bench::open();
    let id = bench.answered(OK);
    let (times, _) = borne(&mut bench, &tagged(id, BODY, b"x"), 60_000);
    assert_eq!(bench.tunnel.queued(), times);
    let mut pieces = 0;
    while let Read::Data(_) = bench.tunnel.read(id, bench.now) {
        pieces += 1;
    }
    assert!(pieces <= 2, "they were put together");
}

#[test]
fn frames_for_streams_that_never_were_are_few() {
    for frame in [
        wire(0x8000_0000, Kind::HttpCancel, b""),
        wire(0x9000_0000, Kind::HttpResponse, &[7; 60_000]),
        wire(77, Kind::Data, &[7; 60_000]),
        wire(0, Kind::Data, b"x"),
        wire(1, Kind::HttpResponse, b"x"),
    ] {
        let mut bench = Bench::open();
        bench.get();
        assert_eq!(borne(&mut bench, &frame, 1000), (256, Some(Violation::StrayFlood)));
        assert_eq!(bench.tunnel.counts().dropped_frames, 257);
    }
}

#[test]
fn small_frames_for_streams_that_ended_are_many_but_not_endless() {
    let mut bench = Bench::open();
    let id = bench.get();
    bench.release(id);
    let (times, violation) = borne(&mut bench, &wire(id.get(), Kind::HttpCancel, b""), 100_000);
    assert_eq!((times, violation), (20_000, Some(Violation::SmallFlood)));
}

#[test]
fn a_message_has_4096_frames_at_most() {
    let mut bench = Bench::open();
    bench.hears(wire(0, Kind::Heartbeat, b"").repeat(4096));
    bench.hears(wire(0, Kind::Heartbeat, b"").repeat(4096));
    let violation = bench.refuses(wire(0, Kind::Heartbeat, b"").repeat(4097));
    assert_eq!((violation, violation.word()), (Violation::TooManyFrames, "frame_buffer_overflow"));
}

#[test]
fn an_answer_that_never_ends_holds_its_budget_and_no_more() {
    let mut bench = Bench::open();
    let id = bench.answered(OK);
    let mut total = 0_u64;
    for round in 0..2000 {
        while bench.tunnel.wants_input() {
            bench.hears(tagged(id, BODY, &[7; 60 * KIB]));
            total += 60 * 1024;
        }
        assert!(bench.tunnel.queued() < (256 + 60) * KIB);
        if round % 2 == 0 {
            bench.tunnel.read(id, bench.now);
            bench.tunnel.read(id, bench.now);
            bench.tunnel.read(id, bench.now);
        }
    }
    assert!(total > 60_000_000);
}

#[test]
fn heads_are_bounded_and_cost_their_stream_alone() {
    let mut bench = Bench::open();
    let good = bench.answered(OK);
    let fields = |count: usize| {
        let all: Vec<_> = (0..count).map(|at| format!("\"{at:x}\":\"\"")).collect();
        format!("{{\"status\":200,\"headers\":{{{}}}}}", all.join(","))
    };
    let deep = format!("{{\"status\":200,\"headers\":{}", "[".repeat(60_000));
    for head in [fields(257), fields(5000), deep, "{".repeat(65_000), "x".repeat(65_534), "\u{feff}{}".into()] {
        let id = bench.get();
        let wire = tagged(id, HEAD, head.as_bytes());
        // Whole, and in pieces.
        for piece in wire.chunks(20_000) {
            bench.tunnel.receive(piece.to_vec(), false, bench.now).expect("the tunnel bears it");
        }
        assert!(matches!(bench.tunnel.head(id), Some(Err(Failure::BadHead(_)))));
        assert_eq!(bench.tunnel.head.capacity(), 0);
        bench.release(id);
    }
    let id = bench.get();
    bench.hears(tagged(id, HEAD, fields(256).as_bytes()));
    assert_eq!(bench.tunnel.head(id).expect("it came").expect("a head").headers.len(), 256);
    bench.body(good, 5);
    assert_eq!(bench.read(good).0.len(), 5);
}

#[test]
fn slices_of_few_blocks_are_kept_alive() {
    // The server mixes a little for each of many slow viewers with much that nobody waits for.
    let mut bench = Bench::open();
    let gone = bench.get();
    bench.release(gone);
    let slow: Vec<_> = (0..40).map(|_| bench.answered(OK)).collect();
    let mut blocks = Vec::new();
    for at in 0..200 {
        let mut block = Vec::new();
        block.extend_from_slice(&tagged(slow[at % slow.len()], BODY, &[7; 2 * KIB]));
        for _ in 0..4 {
            block.extend_from_slice(&tagged(gone, BODY, &[7; 63 * KIB]));
        }
        let block = Bytes::from(block);
        bench.hears(block.clone());
        blocks.push(block);
    }
    let alive = blocks.into_iter().filter(|block| !block.is_unique()).count();
    assert!((1..=16 * 4).contains(&alive), "{alive} of 200");
    for id in slow {
        bench.release(id);
    }
    bench.said();
    bench.assert_idle();
}
