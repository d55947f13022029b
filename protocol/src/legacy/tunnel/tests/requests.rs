//! What goes to the server: requests, raw channels, and in which order.

use super::*;
use crate::legacy::http::MAX_REQUEST_BODY;

fn stream(bench: &mut Bench) -> StreamId {
    bench.tunnel.request(&head("PUT"), RequestBody::Stream { length: None }, bench.now).expect("open")
}

/// Writes what fits of so many bytes.
fn write(bench: &mut Bench, id: StreamId, length: usize) -> usize {
    bench.tunnel.write(id, &mut vec![7; length].into(), bench.now).expect("open")
}

#[test]
fn ids_go_around_and_pass_over_those_in_flight() {
    let mut bench = Bench::open();
    assert_eq!((bench.get().get(), bench.get().get()), (0x8000_0001, 0x8000_0002));
    bench.tunnel.next_request = u32::MAX;
    assert_eq!((bench.get().get(), bench.get().get()), (u32::MAX, 0x8000_0003));
    // Every id was in use once, as far as we know.
    bench.hears(tagged(StreamId(0xf000_0000), END, b""));
    assert_eq!(bench.tunnel.counts().dropped_frames, 1);
}

#[test]
fn channels_are_counted_from_1_and_never_reused() {
    let mut bench = Bench::open();
    for id in 1..=3 {
        let channel = bench.tunnel.connect(Uuid::nil(), "", bench.now).expect("open");
        assert_eq!((channel.get(), channel.is_request()), (id, false));
        bench.said();
        bench.release(channel);
    }
    bench.tunnel.next_channel = 0x8000_0000;
    assert_eq!(bench.tunnel.connect(Uuid::nil(), "", bench.now), Err(OpenError::TooMany));
}

#[test]
fn there_are_limits_of_requests_and_of_channels() {
    let mut bench = Bench::with(Config { max_requests: 2, max_channels: 1, ..Config::default() });
    let ids = [bench.get(), bench.get()];
    let none = RequestBody::Whole(Bytes::new());
    assert_eq!(bench.tunnel.request(&head("GET"), none.clone(), bench.now), Err(OpenError::TooMany));
    bench.release(ids[0]);
    assert!(bench.tunnel.request(&head("GET"), none, bench.now).is_ok());
    let channel = bench.tunnel.connect(Uuid::nil(), "", bench.now).expect("open");
    assert_eq!(bench.tunnel.connect(Uuid::nil(), "", bench.now), Err(OpenError::TooMany));
    bench.release(channel);
    assert!(bench.tunnel.connect(Uuid::nil(), "", bench.now).is_ok());
}

#[test]
fn a_body_that_fits_is_in_the_envelope_and_a_longer_one_in_chunks() {
    let mut bench = Bench::open();
    let room = head("PUT").room();
    for (length, frames) in [(0, 1), (room, 1), (room + 1, 3), (65_534 * 2, 4), (65_534 * 2 + 1, 5)] {
        let body = RequestBody::Whole(vec![7; length].into());
        let id = bench.tunnel.request(&head("PUT"), body, bench.now).expect("open");
        let said = bench.said();
        assert_eq!(said.len(), frames, "{length}");
        assert!(said.iter().all(|frame| frame.id == id.get() && frame.kind == Kind::HttpRequest));
        assert_eq!(said[0].payload[0], if frames == 1 { b'{' } else { HEAD });
        if frames > 1 {
            assert_eq!(said[frames - 1].payload, [END]);
            assert_eq!(said[1..frames - 1].iter().map(|frame| frame.payload.len() - 1).sum::<usize>(), length);
        }
        bench.release(id);
        bench.said();
    }
    bench.assert_idle();
}

#[test]
fn more_than_25_mib_is_not_sent() {
    let mut bench = Bench::open();
    let long = RequestBody::Stream { length: Some(MAX_REQUEST_BODY + 1) };
    assert_eq!(bench.tunnel.request(&head("PUT"), long, bench.now), Err(OpenError::TooLong));
    let most = RequestBody::Stream { length: Some(MAX_REQUEST_BODY) };
    bench.tunnel.request(&head("PUT"), most, bench.now).expect("a server takes that");
    let id = stream(&mut bench);
    let mut left = MAX_REQUEST_BODY as usize;
    while left > 0 {
        let took = write(&mut bench, id, left.min(64 * KIB));
        left -= took;
        bench.said();
    }
    let more = bench.tunnel.write(id, &mut Bytes::from_static(b"x"), bench.now);
    assert_eq!(more, Err(WriteError::TooLong));
    bench.release(id);
    assert_eq!(kinds(&bench.said()), [(id.get(), Kind::HttpCancel)]);
}

#[test]
fn an_upload_is_queued_up_to_its_budget_and_its_writer_is_woken() {
    let mut bench = Bench::open();
    let id = stream(&mut bench);
    assert_eq!(write(&mut bench, id, 1000 * KIB), 256 * KIB);
    assert_eq!(write(&mut bench, id, 1), 0);
    assert_eq!(bench.events(), []);
    let mut batch = Batch::new();
    bench.tunnel.transmit(1, bench.now, &mut batch);
    assert_eq!((batch.len() < KIB, bench.events()), (true, vec![]), "the head alone");
    bench.tunnel.transmit(batch.len() + 1, bench.now, &mut batch);
    assert_eq!(bench.events(), [Event::Writable(id)]);
    assert_eq!(write(&mut bench, id, 1000 * KIB), 65_534);
    bench.tunnel.finish(id).expect("open");
    assert_eq!(bench.tunnel.write(id, &mut Bytes::from_static(b"x"), bench.now), Err(WriteError::Closed));
    assert_eq!(bench.tunnel.finish(id), Err(WriteError::Closed));
    let said = bench.said();
    assert_eq!(said.last().map(|frame| &frame.payload[..]), Some(&[END][..]));
    assert_eq!(said.iter().map(|frame| frame.payload.len() - 1).sum::<usize>() + 65_534, 256 * KIB + 65_534);
    assert_eq!((bench.tunnel.uploading(), bench.tunnel.writers), (0, 0));
}

#[test]
fn many_uploads_share_their_budget() {
    let mut bench = Bench::open();
    let taken: Vec<_> = (0..100)
        .map(|_| {
            let id = stream(&mut bench);
            write(&mut bench, id, 1000 * KIB)
        })
        .collect();
    assert_eq!((taken[0], taken[99]), (256 * KIB, 64 * KIB));
    assert_eq!(bench.tunnel.uploading(), taken.iter().sum::<usize>());
    assert!(bench.tunnel.uploading() < 12 * 1024 * KIB);
}

#[test]
fn control_frames_go_first_and_streams_take_turns() {
    let mut bench = Bench::open();
    let channel = bench.tunnel.connect(Uuid::nil(), "", bench.now).expect("open");
    bench.said();
    let gone = bench.get();
    let uploads = [stream(&mut bench), stream(&mut bench), stream(&mut bench)];
    for id in uploads {
        write(&mut bench, id, 150_000);
        bench.tunnel.finish(id).expect("open");
    }
    write(&mut bench, channel, 70_000);
    bench.release(gone);
    let late = bench.tunnel.connect(Uuid::nil(), "", bench.now).expect("open");
    bench.tunnel.heartbeat_due = true;
    let said = kinds(&bench.said());
    assert_eq!(said[..3], [(0, Kind::Heartbeat), (gone.get(), Kind::HttpCancel), (late.get(), Kind::ClientConnect)]);
    let order: Vec<_> = said[3..].iter().map(|(id, _)| *id).collect();
    let [a, b, c] = uploads.map(StreamId::get);
    let d = channel.get();
    assert_eq!(order, [a, b, c, d, a, b, c, d, a, b, c, a, b, c, a, b, c], "heads, three bodies, ends");
}

#[test]
fn a_small_request_waits_for_one_frame_of_each_upload_at_most() {
    let mut bench = Bench::open();
    let upload = stream(&mut bench);
    write(&mut bench, upload, 256 * KIB);
    let mut batch = Batch::new();
    bench.tunnel.transmit(1000, bench.now, &mut batch);
    let small = bench.tunnel.request(&head("GET"), RequestBody::Whole(Bytes::new()), bench.now).expect("open");
    let said = kinds(&bench.said());
    assert!(said.iter().position(|(id, _)| *id == small.get()).expect("it is sent") <= 1);
}

#[test]
fn a_request_that_was_not_sent_is_never_told_of() {
    let mut bench = Bench::open();
    for _ in 0..1000 {
        let id = stream(&mut bench);
        write(&mut bench, id, 100 * KIB);
        bench.release(id);
        let channel = bench.tunnel.connect(Uuid::nil(), "", bench.now).expect("open");
        write(&mut bench, channel, 100 * KIB);
        bench.release(channel);
    }
    assert!(bench.tunnel.ready.is_empty() && bench.tunnel.control.is_empty());
    assert_eq!(bench.said(), []);
    bench.assert_idle();
}

#[test]
fn a_viewer_who_leaves_voids_what_was_not_sent() {
    let mut bench = Bench::open();
    let id = stream(&mut bench);
    write(&mut bench, id, 200 * KIB);
    bench.tunnel.transmit(100_000, bench.now, &mut Batch::new());
    bench.release(id);
    assert_eq!(kinds(&bench.said()), [(id.get(), Kind::HttpCancel)]);
    bench.assert_idle();
}

#[test]
fn an_answer_ends_an_upload_that_nobody_wants() {
    let mut bench = Bench::open();
    let id = stream(&mut bench);
    write(&mut bench, id, 1000 * KIB);
    assert_eq!(write(&mut bench, id, 1), 0);
    bench.tunnel.transmit(1, bench.now, &mut Batch::new());
    bench.hears(tagged(id, HEAD, br#"{"status":413}"#));
    assert_eq!(bench.events(), [], "the head alone ends nothing");
    bench.hears([tagged(id, END, b""), wire(id.get(), Kind::HttpCancel, b"")].concat());
    assert_eq!(bench.events(), [Event::Writable(id)]);
    assert_eq!(bench.tunnel.write(id, &mut Bytes::from_static(b"x"), bench.now), Err(WriteError::Answered));
    assert_eq!(bench.tunnel.finish(id), Err(WriteError::Answered));
    assert_eq!(bench.tunnel.uploading(), 0);
    assert_eq!(kinds(&bench.said()), [(id.get(), Kind::HttpCancel)], "what it had is void");
    // Each chunk that was under way is answered by three frames more.
    for _ in 0..400 {
        bench.hears(
            [tagged(id, HEAD, br#"{"status":400}"#), tagged(id, END, b""), wire(id.get(), Kind::HttpCancel, b"")]
                .concat(),
        );
    }
    assert_eq!(bench.tunnel.head(id).expect("it came").expect("a head").status, 413);
    assert_eq!(bench.read(id), (Vec::new(), Read::End));
    bench.release(id);
    assert_eq!(bench.said(), []);
    bench.assert_idle();
}

#[test]
fn a_raw_channel_carries_bytes_both_ways() {
    let mut bench = Bench::open();
    let client = Uuid::from_u128(9);
    let id = bench.tunnel.connect(client, "s", bench.now).expect("open");
    write(&mut bench, id, 5);
    let said = bench.said();
    assert_eq!(kinds(&said), [(1, Kind::ClientConnect), (1, Kind::Data)]);
    assert_eq!(said[1].payload, [7; 5]);
    assert_eq!(bench.tunnel.read(id, bench.now), Read::Blocked);
    bench.hears(wire(1, Kind::Data, b"\xff\x80"));
    assert_eq!(bench.events(), [Event::Readable(id)]);
    assert_eq!(bench.read(id), (b"\xff\x80".to_vec(), Read::Blocked));
    bench.tunnel.finish(id).expect("a channel has no half close");
    assert_eq!(bench.said(), []);
    bench.release(id);
    let said = bench.said();
    assert_eq!(kinds(&said), [(1, Kind::ClientDisconnect)]);
    assert!(String::from_utf8_lossy(&said[0].payload).contains(&client.to_string()));
    bench.hears(wire(1, Kind::Data, b"late"));
    bench.assert_idle();
}

#[test]
fn what_a_client_wrote_goes_before_its_leaving() {
    let mut bench = Bench::open();
    let id = bench.tunnel.connect(Uuid::nil(), "", bench.now).expect("open");
    bench.said();
    write(&mut bench, id, 100_000);
    bench.body(id, 0);
    bench.hears(wire(1, Kind::Data, &[7; 3000]));
    bench.release(id);
    bench.release(id);
    assert_eq!((bench.tunnel.queued(), bench.tunnel.channels()), (0, 1));
    assert_eq!(kinds(&bench.said()), [(1, Kind::Data), (1, Kind::Data), (1, Kind::ClientDisconnect)]);
    bench.assert_idle();
}

#[test]
fn an_idle_channel_ends_after_five_minutes() {
    let mut bench = Bench::open();
    let (idle, written, heard) = (
        bench.tunnel.connect(Uuid::nil(), "", bench.now).expect("open"),
        bench.tunnel.connect(Uuid::nil(), "", bench.now).expect("open"),
        bench.tunnel.connect(Uuid::nil(), "", bench.now).expect("open"),
    );
    bench.said();
    let alive = |bench: &mut Bench, time: u64| {
        for _ in 0..time / 10 {
            bench.pass(secs(10)).expect("alive");
            bench.hears(wire(0, Kind::Heartbeat, b""));
        }
    };
    alive(&mut bench, 200);
    write(&mut bench, written, 5);
    bench.hears(wire(heard.get(), Kind::Data, b"x"));
    bench.said();
    assert_eq!(bench.tunnel.read(idle, bench.now), Read::Blocked);
    alive(&mut bench, 90);
    bench.events();
    assert_eq!(bench.tunnel.read(idle, bench.now), Read::Blocked);
    alive(&mut bench, 10);
    assert_eq!(bench.events(), [Event::Readable(idle)]);
    assert_eq!(bench.tunnel.read(idle, bench.now), Read::Failed(Failure::Idle));
    assert!(bench.said().iter().any(|frame| frame.id == idle.get() && frame.kind == Kind::ClientDisconnect));
    assert_eq!(bench.tunnel.read(written, bench.now), Read::Blocked);
    alive(&mut bench, 200);
    assert_eq!(bench.tunnel.read(written, bench.now), Read::Failed(Failure::Idle));
    assert_eq!(bench.read(heard), (b"x".to_vec(), Read::Failed(Failure::Idle)));
    for id in [idle, written, heard] {
        bench.release(id);
    }
    bench.said();
    bench.assert_idle();
}
