//! From HELLO to the end.

use super::*;
use crate::legacy::handshake::HelloError;

fn fresh() -> (Tunnel, Instant) {
    let now = Instant::now();
    (Tunnel::new(Config::default(), now), now)
}

#[test]
fn a_hello_may_come_in_pieces_and_nothing_is_said_before_it_is_accepted() {
    let (mut tunnel, now) = fresh();
    for (at, byte) in HELLO.iter().enumerate() {
        assert!(tunnel.wants_input());
        assert_eq!(tunnel.next_event(), None);
        tunnel.receive(vec![*byte], at + 1 == HELLO.len(), now).expect("a hello");
    }
    let Some(Event::Hello(hello)) = tunnel.next_event() else { panic!("it is whole") };
    assert_eq!(hello.enrollment_jwt, "J");
    assert!(!tunnel.wants_input() && !tunnel.wants_transmit() && !tunnel.is_open());
    assert_eq!(tunnel.request(&head("GET"), RequestBody::Whole(Bytes::new()), now), Err(OpenError::NotOpen));
    assert_eq!(tunnel.connect(Uuid::nil(), "", now), Err(OpenError::NotOpen));
    ack(&mut tunnel, now);
    assert!(tunnel.wants_input() && tunnel.is_open());
    let mut batch = Batch::new();
    tunnel.request(&head("GET"), RequestBody::Whole(Bytes::new()), now).expect("open");
    tunnel.transmit(1, now, &mut batch);
    assert_eq!(batch.pieces().next().map(|piece| piece[0]), Some(0x81), "text, as upstream's hub says it");
    assert!(messages(&batch)[0].starts_with(b"{\"type\":\"hello_ack\""), "the ack is first");
}

#[test]
fn an_accept_without_a_hello_does_nothing() {
    let (mut tunnel, now) = fresh();
    ack(&mut tunnel, now);
    assert!(!tunnel.is_open() && !tunnel.wants_transmit());
}

#[test]
fn bad_hellos_are_refused_by_upstreams_words() {
    for (message, error, word) in [
        (&b"hello"[..], HelloError::NotAnObject, "invalid_hello"),
        (b"{}", HelloError::NoServerId, "missing_server_id"),
        (b"{\"server_id\":\"S\"}", HelloError::NotHello, "invalid_hello"),
        (b"{\"server_id\":\"S\",\"type\":\"hello\"}", HelloError::NoToken, "invalid_hello_payload"),
        (&[b'x'; 16 * KIB + 1], HelloError::TooLong, "invalid_hello"),
    ] {
        let (mut tunnel, now) = fresh();
        let violation = tunnel.receive(Bytes::copy_from_slice(message), true, now).expect_err("bad");
        assert_eq!((violation, violation.word()), (Violation::Hello(error), word));
        assert_eq!(violation.close_code().get(), 1002);
    }
    // Also before its end.
    let (mut tunnel, now) = fresh();
    tunnel.receive(vec![b' '; 16 * KIB], false, now).expect("it may still be one");
    assert_eq!(tunnel.receive(vec![b' '; 1], false, now), Err(Violation::Hello(HelloError::TooLong)));
}

#[test]
fn who_says_no_hello_has_ten_seconds() {
    let (tunnel, now) = fresh();
    let mut bench = Bench { tunnel, now };
    bench.pass(ms(9_999)).expect("there is time");
    assert_eq!(bench.pass(ms(1)), Err(Violation::NoHello));
    // Bytes that are no whole HELLO don't prolong it.
    let (tunnel, now) = fresh();
    let mut bench = Bench { tunnel, now };
    for _ in 0..9 {
        bench.tunnel.receive(&b" "[..], false, bench.now).expect("white space");
        bench.pass(secs(1)).expect("there is time");
    }
    assert_eq!(bench.pass(secs(1)), Err(Violation::NoHello));
}

#[test]
fn a_frame_before_the_ack_closes_the_tunnel() {
    let (mut tunnel, now) = fresh();
    tunnel.receive(HELLO, true, now).expect("a hello");
    let violation = tunnel.receive(wire(0, Kind::Heartbeat, b""), true, now).expect_err("early");
    assert_eq!((violation, violation.word()), (Violation::Early, "protocol_error"));
}

#[test]
fn a_second_hello_closes_the_tunnel() {
    let mut bench = Bench::open();
    assert_eq!(bench.refuses(HELLO).word(), "invalid_frame");
}

#[test]
fn heartbeats_go_out_every_30_s_and_are_never_echoed() {
    let mut bench = Bench::open();
    let mut beats = 0;
    for second in 1..=300 {
        bench.hears(wire(0, Kind::Heartbeat, b""));
        bench.pass(secs(1)).expect("alive");
        let said = bench.said();
        beats += said.len();
        assert!(said.iter().all(|frame| *frame == Frame { id: 0, kind: Kind::Heartbeat, payload: Vec::new() }));
        assert_eq!(beats, second / 30);
    }
}

#[test]
fn a_websocket_ping_goes_out_when_nothing_else_did_for_5_s() {
    let mut bench = Bench::open();
    bench.pass(ms(4_999)).expect("alive");
    assert!(!bench.tunnel.wants_transmit());
    bench.pass(ms(1)).expect("alive");
    let mut batch = Batch::new();
    bench.tunnel.transmit(usize::MAX, bench.now, &mut batch);
    assert_eq!(batch.pieces().next(), Some(&[0x89, 0][..]));
    bench.pass(secs(3)).expect("alive");
    bench.get();
    bench.pass(ms(4_999)).expect("alive");
    assert!(!bench.tunnel.wants_transmit(), "something else did");
}

#[test]
fn a_silent_server_is_given_up_after_90_s() {
    let mut bench = Bench::open();
    bench.pass(secs(80)).expect("alive");
    bench.hears(wire(0, Kind::Heartbeat, b""));
    bench.pass(ms(89_999)).expect("alive");
    let violation = bench.pass(ms(1)).expect_err("silent");
    assert_eq!((violation, violation.word()), (Violation::Silent, "timeout"));
}

#[test]
fn a_paused_tunnel_is_not_silent() {
    let mut bench = Bench::open();
    let id = bench.answered(r#"{"status":200}"#);
    bench.body(id, 256 * KIB);
    assert!(bench.tunnel.paused());
    bench.pass(secs(1000)).expect("we don't read");
    bench.said();
    bench.read(id);
    assert!(!bench.tunnel.paused());
    bench.pass(ms(89_999)).expect("it has 90 s again");
    assert_eq!(bench.pass(ms(1)), Err(Violation::Silent));
}

#[test]
fn types_that_no_server_sends_close_the_tunnel() {
    for kind in [Kind::ClientConnect, Kind::ClientDisconnect, Kind::Disconnected, Kind::Error, Kind::HttpRequest] {
        let mut bench = Bench::open();
        assert_eq!(bench.refuses(wire(0, kind, b"{}")), Violation::UnexpectedType, "{kind:?}");
    }
    for kind in (0..3).chain(9..0x10).chain(0x13..=0xff) {
        let violation = Bench::open().refuses(vec![0, 0, 0, 0, kind]);
        assert_eq!(violation.word(), "invalid_frame", "{kind:#x}");
    }
}

#[test]
fn a_drain_ends_with_the_last_stream() {
    let mut bench = Bench::open();
    let (one, other) = (bench.answered(r#"{"status":200}"#), bench.get());
    bench.tunnel.drain(secs(5), bench.now);
    assert!(!bench.tunnel.is_open());
    assert_eq!(
        bench.tunnel.request(&head("GET"), RequestBody::Whole(Bytes::new()), bench.now),
        Err(OpenError::Draining)
    );
    assert_eq!(bench.tunnel.connect(Uuid::nil(), "", bench.now), Err(OpenError::Draining));
    bench.body(one, 10);
    bench.hears(tagged(one, END, b""));
    assert!(!bench.events().contains(&Event::Drained));
    assert_eq!(bench.read(one), (vec![7; 10], Read::End), "both directions keep flowing");
    bench.release(other);
    assert_eq!(bench.events(), [Event::Drained]);
    assert_eq!(kinds(&bench.said()), [(other.get(), Kind::HttpCancel)]);
    bench.release(one);
    bench.pass(secs(10)).expect("alive");
    assert_eq!(bench.events(), [], "it is said once");
    bench.assert_idle();
}

#[test]
fn a_drain_ends_after_its_grace() {
    let mut bench = Bench::open();
    let id = bench.get();
    bench.tunnel.drain(secs(5), bench.now);
    bench.pass(ms(4_999)).expect("alive");
    assert_eq!(bench.events(), []);
    bench.pass(ms(1)).expect("alive");
    assert_eq!(bench.events(), [Event::Drained]);
    bench.tunnel.close(bench.now);
    assert_eq!(bench.tunnel.head(id), Some(Err(Failure::Lost)));
    let mut bench = Bench::open();
    bench.get();
    bench.tunnel.drain(Duration::ZERO, bench.now);
    assert_eq!(bench.events(), [Event::Drained], "no grace is at once");
    let mut bench = Bench::open();
    bench.tunnel.drain(secs(5), bench.now);
    assert_eq!(bench.events(), [Event::Drained], "nothing is under way");
}

#[test]
fn when_the_socket_is_gone_what_came_can_still_be_read() {
    let mut bench = Bench::open();
    let (whole, cut) = (bench.answered(r#"{"status":200}"#), bench.answered(r#"{"status":200}"#));
    let (waiting, channel) = (bench.get(), bench.tunnel.connect(Uuid::nil(), "", bench.now).expect("open"));
    bench.body(whole, 5000);
    bench.hears(tagged(whole, END, b""));
    bench.body(cut, 3000);
    assert_eq!(bench.tunnel.head(waiting), None);
    bench.events();
    bench.tunnel.close(bench.now);
    assert_eq!(bench.events(), [Event::Readable(waiting)]);
    assert!(!bench.tunnel.wants_input() && !bench.tunnel.wants_transmit());
    assert_eq!(bench.tunnel.deadline(), None);
    assert_eq!(bench.read(whole), (vec![7; 5000], Read::End));
    assert_eq!(bench.read(cut), (vec![7; 3000], Read::Failed(Failure::Lost)));
    assert_eq!(bench.tunnel.head(waiting), Some(Err(Failure::Lost)));
    assert_eq!(bench.read(channel).1, Read::Failed(Failure::Lost));
    for id in [whole, cut, waiting, channel] {
        bench.release(id);
    }
    bench.assert_idle();
}
