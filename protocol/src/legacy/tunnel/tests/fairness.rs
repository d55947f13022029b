//! Slow viewers: what they hold, whom they keep waiting, and for how long.

use super::*;

const OK: &str = r#"{"status":200}"#;

#[test]
fn a_stream_at_its_budget_pauses_reading_until_half_of_it_is_taken() {
    let mut bench = Bench::open();
    let id = bench.answered(OK);
    bench.body(id, 255 * KIB);
    assert!(bench.tunnel.wants_input());
    bench.body(id, KIB);
    assert!(!bench.tunnel.wants_input() && bench.tunnel.paused());
    assert_eq!((bench.tunnel.queued(), bench.tunnel.counts().pauses), (256 * KIB, 1));
    let mut taken = 0;
    while taken <= 128 * KIB {
        assert!(!bench.tunnel.wants_input());
        let Read::Data(bytes) = bench.tunnel.read(id, bench.now) else { panic!("there is more") };
        taken += bytes.len();
    }
    assert!(bench.tunnel.wants_input());
}

#[test]
fn what_was_read_when_the_pause_began_is_still_taken() {
    let mut bench = Bench::open();
    let (id, other) = (bench.answered(OK), bench.answered(OK));
    bench.body(id, 256 * KIB);
    bench.body(id, 256 * KIB);
    bench.body(other, 1000);
    assert_eq!(bench.tunnel.queued(), 512 * KIB + 1000);
    assert_eq!(bench.read(id).0.len(), 512 * KIB);
    assert_eq!(bench.read(other).0.len(), 1000);
}

#[test]
fn alone_a_slow_viewer_may_hold_the_tunnel() {
    let mut bench = Bench::open();
    let id = bench.answered(OK);
    bench.body(id, 256 * KIB);
    bench.pass(secs(600)).expect("we don't read");
    assert_eq!(bench.tunnel.counts().stalled, 0);
    assert_eq!(bench.read(id), (vec![7; 256 * KIB], Read::Blocked));
}

#[test]
fn when_others_wait_a_stalled_viewer_fails_after_a_second_and_alone() {
    let mut bench = Bench::open();
    let (slow, other) = (bench.answered(OK), bench.answered(OK));
    bench.body(slow, 256 * KIB);
    bench.body(other, 100);
    bench.pass(ms(999)).expect("alive");
    assert!(bench.tunnel.paused());
    bench.events();
    bench.pass(ms(1)).expect("alive");
    assert!(bench.tunnel.wants_input());
    assert_eq!(bench.tunnel.read(slow, bench.now), Read::Failed(Failure::Stalled), "its queue is void");
    assert_eq!(kinds(&bench.said()), [(slow.get(), Kind::HttpCancel)]);
    assert_eq!((bench.tunnel.counts().stalled, bench.tunnel.queued()), (1, 100));
    bench.body(slow, 256 * KIB);
    bench.body(other, 100);
    assert!(bench.tunnel.wants_input());
    assert_eq!(bench.read(other).0.len(), 200);
}

#[test]
fn the_second_counts_from_when_somebody_waits() {
    let mut bench = Bench::open();
    let slow = bench.answered(OK);
    bench.body(slow, 256 * KIB);
    bench.pass(secs(60)).expect("we don't read");
    bench.messages();
    let other = bench.tunnel.request(&head("GET"), RequestBody::Whole(Bytes::new()), bench.now).expect("open");
    bench.messages();
    bench.pass(ms(999)).expect("alive");
    assert_eq!(bench.tunnel.counts().stalled, 0);
    bench.pass(ms(1)).expect("alive");
    assert_eq!(bench.tunnel.counts().stalled, 1);
    assert_eq!(bench.tunnel.head(other), None);
}

#[test]
fn a_viewer_who_drains_in_time_fails_never() {
    let mut bench = Bench::open();
    let (slow, _other) = (bench.answered(OK), bench.answered(OK));
    for _ in 0..20 {
        let missing = (256 * KIB).saturating_sub(bench.tunnel.queued());
        bench.body(slow, missing);
        // 3 Mbit/s, in drops: 19 KiB each 50 ms.
        while bench.tunnel.paused() {
            let mut left = 19 * KIB;
            while left > 0
                && let Read::Data(bytes) = bench.tunnel.read(slow, bench.now)
            {
                left = left.saturating_sub(bytes.len());
            }
            bench.pass(ms(50)).expect("alive");
        }
    }
    assert_eq!(bench.tunnel.counts().stalled, 0);
}

#[test]
fn a_crowd_of_stalled_viewers_is_not_waited_for_one_by_one() {
    let mut bench = Bench::open();
    let start = bench.now;
    let (quick, slow): (_, Vec<_>) = (bench.answered(OK), (0..20).map(|_| bench.answered(OK)).collect());
    for id in &slow {
        bench.body(*id, 256 * KIB);
        let deadline = bench.tunnel.deadline().expect("somebody waits");
        bench.pass(deadline - bench.now).expect("alive");
        assert!(bench.tunnel.wants_input());
        bench.body(quick, 10);
    }
    assert_eq!(bench.now - start, ms(1000 + 19 * 100));
    assert_eq!(bench.read(quick).0.len(), 200);
}

#[test]
fn after_a_stall_a_viewer_who_moves_still_has_its_second() {
    let mut bench = Bench::open();
    let (stalled, slow, _other) = (bench.answered(OK), bench.answered(OK), bench.answered(OK));
    bench.body(stalled, 256 * KIB);
    bench.pass(secs(1)).expect("alive");
    assert_eq!(bench.tunnel.counts().stalled, 1);
    bench.body(slow, 256 * KIB);
    for _ in 0..9 {
        let Read::Data(bytes) = bench.tunnel.read(slow, bench.now) else { panic!("there is some") };
        if bytes.len() < 32 * KIB {
            bench.tunnel.read(slow, bench.now);
        }
        bench.pass(ms(100)).expect("alive");
        if !bench.tunnel.paused() {
            break;
        }
    }
    assert_eq!((bench.tunnel.counts().stalled, bench.tunnel.paused()), (1, false));
}

#[test]
fn two_stalled_viewers_alone_wait_for_nobody() {
    let mut bench = Bench::open();
    let (one, other) = (bench.answered(OK), bench.answered(OK));
    bench.body(one, 256 * KIB);
    bench.body(other, 256 * KIB);
    bench.pass(secs(60)).expect("we don't read");
    assert_eq!(bench.tunnel.counts().stalled, 0);
    // One of them goes on, and waits for the other.
    bench.read(one);
    bench.pass(ms(999)).expect("alive");
    assert_eq!(bench.tunnel.counts().stalled, 0);
    bench.pass(ms(1)).expect("alive");
    assert_eq!(bench.tunnel.read(other, bench.now), Read::Failed(Failure::Stalled));
}

#[test]
fn an_answer_that_has_ended_pauses_nobody() {
    let mut bench = Bench::open();
    let (slow, other) = (bench.answered(OK), bench.answered(OK));
    bench.body(slow, 300 * KIB);
    assert!(bench.tunnel.paused());
    bench.hears(tagged(slow, END, b""));
    assert!(!bench.tunnel.paused());
    bench.body(other, 10);
    bench.pass(secs(60)).expect("alive");
    assert_eq!(bench.read(slow), (vec![7; 300 * KIB], Read::End));
}

#[test]
fn a_viewer_who_leaves_ends_the_pause() {
    let mut bench = Bench::open();
    let (slow, _other) = (bench.answered(OK), bench.answered(OK));
    bench.body(slow, 300 * KIB);
    bench.release(slow);
    assert!(bench.tunnel.wants_input());
    assert_eq!(bench.tunnel.queued(), 0);
}

#[test]
fn all_queues_together_have_a_budget_and_the_largest_fail() {
    let config = Config { tunnel_queue: 1024 * KIB, ..Config::default() };
    let mut bench = Bench::with(config);
    let ids: Vec<_> = (0..10).map(|_| bench.answered(OK)).collect();
    for (at, id) in ids.iter().enumerate() {
        // The first ones have ended: they count as well.
        bench.body(*id, (60 + 10 * at) * KIB);
        if at < 3 {
            bench.hears(tagged(*id, END, b""));
        }
    }
    assert_eq!((bench.tunnel.queued(), bench.tunnel.paused()), (1050 * KIB, true));
    bench.pass(secs(1)).expect("alive");
    assert!(!bench.tunnel.paused());
    assert_eq!(bench.tunnel.counts().stalled, 2, "150 and 140 KiB: three quarters are left");
    assert_eq!(bench.tunnel.queued(), 760 * KIB);
    assert_eq!(bench.read(ids[0]), (vec![7; 60 * KIB], Read::End));
    assert_eq!(bench.tunnel.read(ids[9], bench.now), Read::Failed(Failure::Stalled));
}

#[test]
fn a_stalled_answer_that_had_ended_does_not_look_whole() {
    let mut bench = Bench::with(Config { tunnel_queue: 200 * KIB, ..Config::default() });
    let (ended, _other) = (bench.answered(OK), bench.answered(OK));
    bench.body(ended, 210 * KIB);
    bench.hears(tagged(ended, END, b""));
    bench.pass(secs(1)).expect("alive");
    assert_eq!(bench.tunnel.read(ended, bench.now), Read::Failed(Failure::Stalled));
    bench.release(ended);
    assert_eq!(bench.tunnel.queued(), 0);
}

#[test]
fn a_stalled_raw_channel_fails_alone_too() {
    let mut bench = Bench::open();
    let channel = bench.tunnel.connect(Uuid::nil(), "", bench.now).expect("open");
    bench.said();
    let other = bench.answered(OK);
    for _ in 0..8 {
        bench.hears(wire(channel.get(), Kind::Data, &[7; 32 * KIB]));
    }
    assert!(bench.tunnel.paused());
    bench.pass(secs(1)).expect("alive");
    assert_eq!(bench.tunnel.read(channel, bench.now), Read::Failed(Failure::Stalled));
    assert_eq!(kinds(&bench.said()), [(channel.get(), Kind::ClientDisconnect)]);
    bench.body(other, 1);
}
