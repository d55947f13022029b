//! Two ends over a pipe in memory, in virtual time.

use std::collections::HashMap;

use proptest::prelude::*;

use super::frame::{ABORT, FIN, FrameType, HEADER, Header, MAX_PAYLOAD, STOP};
use super::*;

const MIB: u64 = 1024 * 1024;
const KIB: usize = 1024;

fn mux(role: Role, now: Instant) -> Mux {
    Mux::new(Config { role, receive_cap: 64 * MIB, max_streams: 64 }, now)
}

fn bytes(batch: &Batch) -> BytesMut {
    let mut all = BytesMut::new();
    batch.pieces().for_each(|piece| all.extend_from_slice(piece));
    assert_eq!(all.len(), batch.len());
    all
}

/// One batch's bytes.
fn sent(mux: &mut Mux, now: Instant, budget: usize) -> BytesMut {
    let mut batch = Batch::new();
    mux.poll_transmit(now, budget, &mut batch);
    bytes(&batch)
}

fn frames(mut wire: &[u8]) -> Vec<(Header, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = wire.split_first_chunk::<HEADER>() {
        let header = Header::decode(*head).expect("ours are well formed");
        let (payload, rest) = rest.split_at(header.length);
        frames.push((header, payload.to_vec()));
        wire = rest;
    }
    assert!(wire.is_empty(), "a batch ends with a frame");
    frames
}

fn kinds(wire: &[u8]) -> Vec<FrameType> {
    frames(wire).into_iter().filter_map(|(header, _)| header.kind).collect()
}

/// Both ends, at one time, with a pipe that takes no time.
struct Pair {
    now: Instant,
    edge: Mux,
    agent: Mux,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        let mut agent = mux(Role::Agent, now);
        let edge = Mux::new(Config { role: Role::Edge, receive_cap: 256 * MIB, max_streams: 0 }, now);
        agent.set_receive_cap(64 * MIB);
        Self { now, edge, agent }
    }

    /// Moves all that is ready, both ways; how many bytes moved.
    fn run(&mut self) -> usize {
        let mut moved = 0;
        loop {
            let to_agent = sent(&mut self.edge, self.now, 256 * KIB);
            let to_edge = sent(&mut self.agent, self.now, 256 * KIB);
            if to_agent.is_empty() && to_edge.is_empty() {
                return moved;
            }
            moved += to_agent.len() + to_edge.len();
            self.agent.handle(to_agent, self.now).expect("edge keeps the rules");
            self.agent.end_of_message().expect("frames are whole");
            self.edge.handle(to_edge, self.now).expect("agent keeps the rules");
            self.edge.end_of_message().expect("frames are whole");
        }
    }

    /// One way over the pipe, which takes `delay`.
    fn run_after(&mut self, delay: Duration) {
        let to_agent = sent(&mut self.edge, self.now, 1 << 30);
        let to_edge = sent(&mut self.agent, self.now, 1 << 30);
        self.now += delay;
        self.agent.handle(to_agent, self.now).expect("edge keeps the rules");
        self.edge.handle(to_edge, self.now).expect("agent keeps the rules");
    }

    /// A stream from the edge that both know.
    fn stream(&mut self) -> StreamId {
        let id = self.edge.open(self.now).expect("ids are left");
        write_all(&mut self.edge, id, b"header");
        self.run();
        assert_eq!(self.agent.accept(), Some(id));
        assert_eq!(read_all(&mut self.agent, id, self.now).0, b"header");
        id
    }
}

/// Writes what must fit.
fn write_all(mux: &mut Mux, id: StreamId, data: &[u8]) {
    let mut rest = Bytes::copy_from_slice(data);
    assert_eq!(mux.write(id, &mut rest), Ok(data.len()));
}

/// Writes what fits of endless zeros.
fn fill(mux: &mut Mux, id: StreamId) -> usize {
    let mut all = 0;
    loop {
        match mux.write(id, &mut Bytes::from_static(&[0; 64 * KIB])) {
            Ok(0) | Err(_) => return all,
            Ok(taken) => all += taken,
        }
    }
}

fn read_all(mux: &mut Mux, id: StreamId, now: Instant) -> (Vec<u8>, Result<Read, ReadError>) {
    let mut all = Vec::new();
    loop {
        match mux.read(id, usize::MAX, now) {
            Ok(Read::Data(bytes)) => all.extend_from_slice(&bytes),
            end => return (all, end),
        }
    }
}

fn drain(mux: &mut Mux, id: StreamId, now: Instant) {
    read_all(mux, id, now).1.expect("not reset");
}

#[test]
fn bytes_go_both_ways_and_each_direction_ends_by_itself() {
    let mut pair = Pair::new();
    let id = pair.stream();
    assert_eq!(id.get(), 2);
    write_all(&mut pair.edge, id, b"GET");
    pair.edge.finish(id).expect("open");
    pair.run();
    assert_eq!(read_all(&mut pair.agent, id, pair.now), (b"GET".to_vec(), Ok(Read::End)));
    write_all(&mut pair.agent, id, b"200");
    pair.run();
    assert_eq!(read_all(&mut pair.edge, id, pair.now), (b"200".to_vec(), Ok(Read::Blocked)));
    assert_eq!(pair.agent.sent(id), None);
    pair.agent.finish(id).expect("open");
    pair.run();
    assert_eq!(pair.agent.sent(id), Some(Sent::Whole));
    assert_eq!([pair.edge.poll(), pair.edge.poll()], [Some(Event::Sent(id)), Some(Event::Readable(id))]);
    assert_eq!(read_all(&mut pair.edge, id, pair.now), (Vec::new(), Ok(Read::End)));
    for end in [&mut pair.edge, &mut pair.agent] {
        end.release_send(id);
        end.release_recv(id);
        assert_eq!(end.streams(), 0);
    }
    assert_eq!(pair.run(), 0, "nothing is left to say");
}

#[test]
fn open_carries_the_first_slice_and_comes_first() {
    let now = Instant::now();
    let mut edge = mux(Role::Edge, now);
    let first = edge.open(now).expect("ids are left");
    write_all(&mut edge, first, b"header");
    write_all(&mut edge, first, b"request");
    edge.write_control(b"control");
    let all = frames(&sent(&mut edge, now, 256 * KIB));
    let kinds: Vec<_> = all.iter().filter_map(|(header, _)| header.kind).collect();
    assert_eq!(kinds, [FrameType::Control, FrameType::Ping, FrameType::Open, FrameType::Data]);
    assert_eq!((&all[2].1[..], &all[3].1[..]), (&b"header"[..], &b"request"[..]));
}

#[test]
fn a_stream_that_was_cancelled_before_it_was_told_of_is_never_told_of() {
    let mut pair = Pair::new();
    pair.run();
    let id = pair.edge.open(pair.now).expect("ids are left");
    write_all(&mut pair.edge, id, b"header");
    pair.edge.reset(id, 1);
    pair.edge.stop(id, 1);
    pair.edge.release_send(id);
    pair.edge.release_recv(id);
    assert_eq!(pair.run(), 0);
    assert_eq!(pair.edge.streams(), 0);
    // The next id may skip one.
    pair.stream();
}

#[test]
fn a_small_answer_overtakes_eight_bulk_streams_within_a_batch() {
    let mut pair = Pair::new();
    let bulk: Vec<_> = (0..8).map(|_| pair.stream()).collect();
    let small = pair.stream();
    for id in &bulk {
        pair.agent.set_priority(*id, Priority::Bulk);
        assert!(fill(&mut pair.agent, *id) >= 64 * KIB);
    }
    let first = frames(&sent(&mut pair.agent, pair.now, 32 * KIB));
    assert_eq!(first.len(), 3, "three quanta of three streams");
    assert_eq!(first.iter().map(|(header, _)| header.stream).collect::<std::collections::HashSet<_>>().len(), 3);
    write_all(&mut pair.agent, small, &[7; 20 * KIB]);
    let next = frames(&sent(&mut pair.agent, pair.now, 32 * KIB));
    assert_eq!(next[0].0.stream, small.get());
    assert_eq!(next[1].0.stream, small.get());
    assert_eq!(next[0].1.len() + next[1].1.len(), 20 * KIB);
    assert!(bulk.iter().any(|id| id.get() == next[2].0.stream));
}

#[test]
fn an_answer_is_bulk_after_32_kib_until_the_next_one_begins() {
    let mut pair = Pair::new();
    let (long, short) = (pair.stream(), pair.stream());
    fill(&mut pair.agent, long);
    let all = frames(&sent(&mut pair.agent, pair.now, 40 * KIB));
    assert!(all.iter().all(|(header, _)| header.stream == long.get()));
    write_all(&mut pair.agent, short, b"short");
    assert_eq!(frames(&sent(&mut pair.agent, pair.now, 1))[0].0.stream, short.get());
    write_all(&mut pair.agent, short, &[0; 40 * KIB]);
    pair.agent.set_priority(long, Priority::Fresh);
    let all = frames(&sent(&mut pair.agent, pair.now, 40 * KIB));
    let streams: Vec<_> = all.iter().map(|(header, _)| header.stream).collect();
    assert_eq!(streams, [short.get(), long.get(), short.get()], "both are fresh and take turns");
}

#[test]
fn bulk_streams_share_evenly_whatever_the_batch() {
    let mut pair = Pair::new();
    let ids: Vec<_> = (0..5).map(|_| pair.stream()).collect();
    for id in &ids {
        pair.agent.set_priority(*id, Priority::Bulk);
        fill(&mut pair.agent, *id);
    }
    let mut got: HashMap<u32, usize> = HashMap::new();
    for _ in 0..10 {
        for (header, payload) in frames(&sent(&mut pair.agent, pair.now, 16 * KIB)) {
            *got.entry(header.stream).or_default() += payload.len();
        }
    }
    let (least, most) = (got.values().min().expect("five"), got.values().max().expect("five"));
    assert!(most - least <= MAX_PAYLOAD, "{got:?}");
}

#[test]
fn credit_comes_last_and_in_steps_of_half_a_window() {
    let mut pair = Pair::new();
    let id = pair.stream();
    fill(&mut pair.agent, id);
    pair.run();
    let read = |pair: &mut Pair, most: usize| match pair.edge.read(id, most, pair.now) {
        Ok(Read::Data(bytes)) => bytes.len(),
        other => panic!("{other:?}"),
    };
    let mut all = 0;
    while all + 16 * KIB < 128 * KIB {
        all += read(&mut pair, 8 * KIB);
    }
    assert!(!kinds(&sent(&mut pair.edge, pair.now, 1 << 20)).contains(&FrameType::Credit));
    while all < 128 * KIB {
        all += read(&mut pair, 8 * KIB);
    }
    write_all(&mut pair.edge, id, b"more");
    let out = frames(&sent(&mut pair.edge, pair.now, 1 << 20));
    let (last, payload) = out.last().expect("data and credit");
    assert_eq!(last.kind, Some(FrameType::Credit));
    assert_eq!(payload[..], (all as u32).to_be_bytes());
}

#[test]
fn a_reader_that_does_not_read_costs_its_window_and_stalls_nobody() {
    let mut pair = Pair::new();
    let (stuck, well) = (pair.stream(), pair.stream());
    let mut written = 0;
    for _ in 0..10 {
        written += fill(&mut pair.agent, stuck);
        pair.run();
    }
    assert_eq!(written as u64, INITIAL_CREDIT);
    assert_eq!(pair.agent.write(stuck, &mut Bytes::from_static(b"x")), Ok(0));
    assert_eq!(pair.agent.streams[&stuck].send.queued, 0, "what can't go stays with the writer");
    write_all(&mut pair.agent, well, b"hello");
    pair.run();
    assert_eq!(read_all(&mut pair.edge, well, pair.now).0, b"hello");
    // It reads at last, and the writer hears of it.
    while pair.agent.poll().is_some() {}
    assert_eq!(read_all(&mut pair.edge, stuck, pair.now).0.len(), written);
    pair.run();
    assert_eq!(pair.agent.poll(), Some(Event::Writable(stuck)));
}

/// One fast download over a line of 50 ms: the window follows.
fn window_after(trips: usize, cap: u64) -> (u64, u64) {
    let mut pair = Pair::new();
    pair.edge.set_receive_cap(cap);
    for _ in 0..4 {
        pair.run_after(Duration::from_millis(25));
    }
    let id = pair.stream();
    for _ in 0..trips * 2 {
        while fill(&mut pair.agent, id) > 0 {
            let some = sent(&mut pair.agent, pair.now, 1 << 30);
            pair.edge.handle(some, pair.now).expect("agent keeps the rules");
        }
        drain(&mut pair.edge, id, pair.now);
        pair.run_after(Duration::from_millis(25));
    }
    (pair.edge.streams[&id].recv.window, pair.edge.windows)
}

#[test]
fn a_window_grows_while_half_of_it_is_read_within_a_round_trip() {
    assert!((INITIAL_CREDIT + 1..=MIB).contains(&window_after(1, 256 * MIB).0));
    assert_eq!(window_after(40, 256 * MIB).0, MAX_WINDOW);
    assert_eq!(window_after(40, MIB), (MIB, MIB));
}

#[test]
fn a_slow_reader_s_window_does_not_grow() {
    let mut pair = Pair::new();
    for _ in 0..4 {
        pair.run_after(Duration::from_millis(5));
    }
    let id = pair.stream();
    for _ in 0..200 {
        fill(&mut pair.agent, id);
        pair.run();
        let _ = pair.edge.read(id, 16 * KIB, pair.now);
        pair.now += Duration::from_millis(50);
    }
    assert_eq!(pair.edge.streams[&id].recv.window, INITIAL_CREDIT);
}

/// A stream whose window at the edge is 4 MiB, as both know.
fn widened(pair: &mut Pair) -> StreamId {
    let id = pair.stream();
    let recv = &mut pair.edge.streams.get_mut(&id).expect("open").recv;
    recv.granted += 4 * MIB - recv.window;
    pair.edge.windows += 4 * MIB - recv.window;
    recv.window = 4 * MIB;
    pair.agent.streams.get_mut(&id).expect("open").send.credit = 4 * MIB;
    id
}

#[test]
fn a_wide_window_is_taken_back_from_a_reader_that_has_become_slow_and_left_to_one_that_waits() {
    for (reads, window) in [(64 * KIB, INITIAL_CREDIT), (usize::MAX, 4 * MIB)] {
        let mut pair = Pair::new();
        for _ in 0..4 {
            pair.run_after(Duration::from_millis(5));
        }
        let id = widened(&mut pair);
        for _ in 0..400 {
            fill(&mut pair.agent, id);
            pair.run();
            let mut left = reads;
            while let Ok(Read::Data(bytes)) = pair.edge.read(id, left, pair.now) {
                left -= bytes.len();
                if left == 0 {
                    break;
                }
            }
            pair.now += Duration::from_millis(200);
        }
        assert_eq!(pair.edge.streams[&id].recv.window, window, "reads {reads}");
        assert_eq!(pair.edge.windows, window);
    }
}

#[test]
fn a_wide_window_shrinks_when_others_want_their_share() {
    let mut pair = Pair::new();
    pair.edge.set_receive_cap(4 * MIB);
    let id = widened(&mut pair);
    for _ in 0..7 {
        pair.stream();
    }
    for _ in 0..40 {
        fill(&mut pair.agent, id);
        pair.run();
        drain(&mut pair.edge, id, pair.now);
        pair.now += Duration::from_secs(1);
    }
    assert_eq!(pair.edge.streams[&id].recv.window, MIB / 2);
    assert_eq!(pair.edge.windows, MIB / 2 + 7 * INITIAL_CREDIT);
    assert!(pair.agent.streams[&id].send.credit <= MIB / 2);
}

#[test]
fn reset_and_stop_cut_one_direction_each() {
    let mut pair = Pair::new();
    let id = pair.stream();
    write_all(&mut pair.agent, id, b"answer");
    pair.edge.reset(id, 1);
    pair.run();
    assert_eq!(pair.agent.read(id, 9, pair.now), Err(ReadError::Reset(1)));
    assert_eq!(read_all(&mut pair.edge, id, pair.now).0, b"answer");
    while pair.agent.poll().is_some() {}
    pair.edge.stop(id, 4);
    pair.run();
    assert_eq!(pair.agent.poll(), Some(Event::Sent(id)));
    assert_eq!(pair.agent.sent(id), Some(Sent::Stopped(4)));
    assert_eq!(pair.agent.write(id, &mut Bytes::from_static(b"x")), Err(WriteError::Stopped(4)));
    assert_eq!(pair.edge.read(id, 9, pair.now), Err(ReadError::Closed));
}

#[test]
fn both_directions_go_in_one_frame_when_the_code_is_one() {
    let mut pair = Pair::new();
    let id = pair.stream();
    pair.edge.reset(id, 1);
    pair.edge.stop(id, 1);
    let out = frames(&sent(&mut pair.edge, pair.now, 1024));
    assert_eq!(out.len(), 1);
    assert_eq!((out[0].0.kind, out[0].0.flags), (Some(FrameType::Reset), ABORT | STOP));
}

/// An edge that has cancelled a download of which a whole window is still under way; and the RESET for it.
fn cancelled() -> (Pair, StreamId, BytesMut) {
    let mut pair = Pair::new();
    let id = pair.stream();
    fill(&mut pair.agent, id);
    let under_way = sent(&mut pair.agent, pair.now, 1 << 20);
    pair.edge.reset(id, 1);
    pair.edge.stop(id, 1);
    pair.edge.release_send(id);
    pair.edge.release_recv(id);
    let reset = sent(&mut pair.edge, pair.now, 1 << 20);
    assert_eq!(pair.edge.streams(), 0);
    pair.edge.handle(under_way, pair.now).expect("it was within its credit");
    (pair, id, reset)
}

#[test]
fn data_under_way_to_a_stopped_stream_is_borne_up_to_its_credit() {
    let (mut pair, id, _) = cancelled();
    assert_eq!(pair.edge.handle(data(id, 1, 0), pair.now), Err(Violation::CreditOverrun));
}

#[test]
fn a_stopped_stream_is_forgotten_once_the_peer_must_have_heard() {
    let (mut pair, _, reset) = cancelled();
    assert_eq!(pair.edge.closed.len(), 1);
    pair.agent.handle(reset, pair.now).expect("edge keeps the rules");
    pair.now += PING_IDLE;
    pair.edge.handle_timeout(pair.now).expect("alive");
    pair.run();
    assert!(pair.edge.closed.is_empty());
}

#[test]
fn pings_go_every_5_s_and_twice_a_second_while_data_is_not_acknowledged() {
    let start = Instant::now();
    let mut edge = mux(Role::Edge, start);
    assert_eq!(edge.next_timeout(), start);
    assert_eq!(kinds(&sent(&mut edge, start, 1024)), [FrameType::Ping]);
    assert_eq!(edge.next_timeout(), start + PING_IDLE);
    let id = edge.open(start).expect("ids are left");
    write_all(&mut edge, id, b"header");
    sent(&mut edge, start, 1024);
    assert_eq!(edge.outstanding(), 6);
    assert_eq!(edge.next_timeout(), start + PING_BUSY);
    edge.handle_timeout(start + PING_BUSY).expect("alive");
    assert_eq!(kinds(&sent(&mut edge, start + PING_BUSY, 1024)), [FrameType::Ping]);
}

#[test]
fn data_is_acknowledged_with_each_pong_and_after_half_a_second() {
    let mut pair = Pair::new();
    pair.run();
    let id = pair.stream();
    pair.now += PING_BUSY;
    write_all(&mut pair.agent, id, &[0; 5000]);
    pair.run();
    assert_eq!((pair.agent.outstanding(), pair.agent.acknowledged()), (0, 5000));
    write_all(&mut pair.agent, id, &[0; 100]);
    pair.run();
    assert_eq!(pair.agent.outstanding(), 100, "not again within half a second");
    pair.now += PING_BUSY;
    pair.agent.handle_timeout(pair.now).expect("alive");
    pair.run();
    assert_eq!(pair.agent.outstanding(), 0);
}

#[test]
fn a_path_that_passes_pings_and_loses_data_shows_in_the_counters() {
    let mut pair = Pair::new();
    let id = pair.stream();
    write_all(&mut pair.agent, id, &[0; 5000]);
    sent(&mut pair.agent, pair.now, 1024);
    for _ in 0..20 {
        pair.now += PING_BUSY;
        pair.agent.handle_timeout(pair.now).expect("alive: it hears PONGs");
        pair.run();
        assert_eq!((pair.agent.outstanding(), pair.agent.acknowledged()), (5000, 0));
    }
}

#[test]
fn a_peer_that_says_nothing_for_15_s_is_gone() {
    let start = Instant::now();
    let mut edge = mux(Role::Edge, start);
    let mut now = start;
    while now < start + SILENCE {
        edge.handle_timeout(now).expect("not yet");
        sent(&mut edge, now, 1024);
        assert!(edge.next_timeout() > now);
        now = edge.next_timeout();
    }
    assert_eq!(edge.handle_timeout(now), Err(Violation::Silent));
}

#[test]
fn control_bytes_come_in_order_and_wait_in_a_bounded_queue() {
    let mut pair = Pair::new();
    assert_eq!(pair.agent.read_control(100), None);
    assert_eq!(pair.edge.write_control(&[1; MAX_CONTROL]), MAX_CONTROL);
    assert_eq!(pair.edge.write_control(&[2]), 0);
    pair.run();
    assert_eq!(pair.edge.poll(), Some(Event::ControlWritable));
    assert_eq!(pair.agent.poll(), Some(Event::ControlReadable));
    assert_eq!(pair.agent.read_control(usize::MAX).map(|bytes| bytes.len()), Some(MAX_CONTROL));
}

#[test]
fn an_idle_connection_holds_next_to_nothing() {
    let mut pair = Pair::new();
    for _ in 0..3 {
        let ids: Vec<_> = (0..60).map(|_| pair.stream()).collect();
        for id in &ids {
            fill(&mut pair.agent, *id);
        }
        pair.run();
        for id in &ids {
            drain(&mut pair.edge, *id, pair.now);
            for end in [&mut pair.edge, &mut pair.agent] {
                end.release_send(*id);
                end.release_recv(*id);
            }
        }
        pair.now += PING_IDLE;
        pair.run();
        for end in [&mut pair.edge, &mut pair.agent] {
            while end.poll().is_some() {}
        }
    }
    for end in [&pair.edge, &pair.agent] {
        assert_eq!((end.streams.len(), end.closed.len(), end.windows, end.receiving), (0, 0, 0, 0));
        assert_eq!((end.remote_open, end.writing), (0, 0));
        assert!(end.streams.capacity() <= 64);
        assert_eq!(end.partial.capacity() + end.control_in.capacity() + end.control_out.capacity(), 0);
        assert!(end.lanes.iter().map(VecDeque::capacity).sum::<usize>() <= 256);
    }
}

fn raw(stream: u32, kind: FrameType, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut wire = Header::encode(stream, kind, flags, payload.len()).to_vec();
    wire.extend_from_slice(payload);
    wire
}

fn data(id: StreamId, length: usize, flags: u8) -> Vec<u8> {
    raw(id.get(), FrameType::Data, flags, &vec![0; length])
}

/// The agent hears these bytes so many times, at one moment, having one stream open.
fn heard(wire: &[u8], times: usize) -> Result<(), Violation> {
    let mut pair = Pair::new();
    pair.stream();
    (0..times).try_for_each(|_| pair.agent.handle(wire.to_vec(), pair.now))
}

#[test]
fn each_broken_rule_has_its_name_and_its_budget() {
    let stream = StreamId(2);
    for (wire, borne, broken) in [
        (data(stream, MAX_PAYLOAD, 0), 16, Violation::CreditOverrun),
        (data(StreamId(4), 1, 0), 0, Violation::UnknownStream),
        (data(StreamId(3), 1, 0), 0, Violation::UnknownStream),
        (data(StreamId(0), 1, 0), 0, Violation::BadStreamId),
        (data(stream, 1, FIN), 1, Violation::AfterEnd),
        (data(stream, 0, 0), 200, Violation::EmptyFrames),
        (raw(0, FrameType::Control, 0, b""), 200, Violation::EmptyFrames),
        (raw(2, FrameType::Credit, 0, &[0; 4]), 200, Violation::EmptyFrames),
        (raw(0, FrameType::Pong, 0, &[9; 8]), 200, Violation::EmptyFrames),
        (vec![0, 0, 0, 2, 200, 0, 0, 0], 200, Violation::EmptyFrames),
        (vec![0, 0, 0, 2, 9, 0, 0, 0], 0, Violation::UnknownType),
        (vec![0, 0, 0, 2, 2, 0, 0xff, 0xff], 0, Violation::BadLength),
        (vec![0, 0, 0, 0, 5, 0, 0, 7], 0, Violation::BadLength),
        (raw(2, FrameType::Open, 0, b""), 0, Violation::BadStreamId),
        (raw(5, FrameType::Open, 0, b""), 0, Violation::BadStreamId),
        (raw(0, FrameType::Open, 0, b""), 0, Violation::BadStreamId),
        (raw(4, FrameType::Credit, 0, &[1; 4]), 0, Violation::BadStreamId),
        (raw(4, FrameType::Reset, 0, &[0, 1]), 0, Violation::BadStreamId),
        (raw(2, FrameType::Ping, 0, &[0; 8]), 0, Violation::BadStreamId),
        (raw(0, FrameType::Ping, 0, &[0; 8]), 63, Violation::PingFlood),
        (raw(2, FrameType::Reset, 0, &[0, 1]), 2000, Violation::ResetFlood),
        (raw(0, FrameType::Control, 0, &[0; MAX_PAYLOAD]), 8, Violation::ControlFlood),
        (raw(0, FrameType::Ack, 0, &[0, 0, 0, 0, 0, 0, 0, 1]), 0, Violation::BadAck),
    ] {
        assert_eq!(heard(&wire, borne), Ok(()), "{broken:?} {:?}", &wire[..8]);
        assert_eq!(heard(&wire, borne + 1), Err(broken), "{:?}", &wire[..8]);
    }
}

#[test]
fn an_edge_lets_no_agent_open_streams_and_an_agent_only_so_many() {
    let now = Instant::now();
    let mut edge = Mux::new(Config { role: Role::Edge, receive_cap: MIB, max_streams: 0 }, now);
    assert_eq!(edge.handle(raw(1, FrameType::Open, 0, b""), now), Err(Violation::TooManyStreams));
    let mut agent = Mux::new(Config { role: Role::Agent, receive_cap: MIB, max_streams: 8 }, now);
    let mut open = |n: u32| agent.handle(raw(2 * n, FrameType::Open, 0, b""), now);
    // 8, a quarter more, and 16 for OPENs that overtook the end of older streams.
    assert!((1..=26).all(|n| open(n).is_ok()));
    assert_eq!(open(27), Err(Violation::TooManyStreams));
}

#[test]
fn data_of_streams_that_are_long_forgotten_has_a_budget() {
    let mut pair = Pair::new();
    let id = pair.stream();
    for end in [&mut pair.edge, &mut pair.agent] {
        end.release_send(id);
        end.release_recv(id);
    }
    pair.run();
    pair.now += PING_IDLE;
    pair.run();
    assert!(pair.agent.closed.is_empty());
    for _ in 0..16 {
        assert_eq!(pair.agent.handle(data(id, 1, 0), pair.now), Ok(()));
    }
    assert_eq!(pair.agent.handle(data(id, 1, 0), pair.now), Err(Violation::UnknownStream));
}

#[test]
fn a_message_may_not_end_within_a_frame() {
    let mut pair = Pair::new();
    let wire = raw(0, FrameType::Ping, 0, &[0; 8]);
    pair.agent.handle(wire[..9].to_vec(), pair.now).expect("more may come");
    assert_eq!(pair.agent.end_of_message(), Err(Violation::CutFrame));
    pair.agent.handle(wire[9..].to_vec(), pair.now).expect("whole");
    assert_eq!(pair.agent.end_of_message(), Ok(()));
}

/// A random deed at one end.
#[derive(Debug, Clone)]
enum Deed {
    Open,
    Write(usize, usize),
    Read(usize, usize),
    Finish(usize),
    Reset(usize),
    Stop(usize),
    Release(usize),
    Priority(usize, u8),
    /// So many bytes of what is under way arrive.
    Deliver(usize),
    /// A batch is sent.
    Transmit(usize),
    Wait(u64),
}

fn deeds() -> impl Strategy<Value = Vec<(bool, Deed)>> {
    let which = 0..6usize;
    let deed = prop_oneof![
        2 => Just(Deed::Open),
        8 => (which.clone(), 1..300_000usize).prop_map(|(at, n)| Deed::Write(at, n)),
        8 => (which.clone(), 1..200_000usize).prop_map(|(at, n)| Deed::Read(at, n)),
        1 => which.clone().prop_map(Deed::Finish),
        1 => which.clone().prop_map(Deed::Reset),
        1 => which.clone().prop_map(Deed::Stop),
        1 => which.clone().prop_map(Deed::Release),
        1 => (which, 0..3u8).prop_map(|(at, p)| Deed::Priority(at, p)),
        8 => (1..100_000usize).prop_map(Deed::Deliver),
        6 => (1..300_000usize).prop_map(Deed::Transmit),
        2 => (1..2_000u64).prop_map(Deed::Wait),
    ];
    proptest::collection::vec((any::<bool>(), deed), 1..200)
}

/// What the test knows of one end: its mux, the bytes on their way to it, and what it wrote and read of each stream.
struct Known {
    mux: Mux,
    pipe: BytesMut,
    ids: Vec<StreamId>,
    wrote: HashMap<StreamId, u64>,
    read: HashMap<StreamId, u64>,
    ended: HashMap<StreamId, bool>,
}

/// The `n`th byte of a stream.
fn byte(id: StreamId, at: u64) -> u8 {
    (at ^ (at >> 8) ^ u64::from(id.get())) as u8
}

impl Known {
    fn new(role: Role, now: Instant) -> Self {
        Self {
            mux: mux(role, now),
            pipe: BytesMut::new(),
            ids: Vec::new(),
            wrote: HashMap::new(),
            read: HashMap::new(),
            ended: HashMap::new(),
        }
    }

    fn accept(&mut self) {
        while let Some(id) = self.mux.accept() {
            self.ids.push(id);
        }
        let mut events = 0;
        while self.mux.poll().is_some() {
            events += 1;
        }
        assert!(events < 1000);
    }

    /// Reads once; `false` when nothing came.
    fn read(&mut self, id: StreamId, most: usize, now: Instant) -> bool {
        match self.mux.read(id, most, now) {
            Ok(Read::Data(bytes)) => {
                assert!(bytes.len() <= most);
                let at = self.read.entry(id).or_default();
                for got in &bytes {
                    assert_eq!(*got, byte(id, *at), "stream {id:?} at {at}");
                    *at += 1;
                }
                true
            }
            Ok(Read::End) => {
                self.ended.insert(id, true);
                false
            }
            _ => false,
        }
    }

    fn write(&mut self, id: StreamId, length: usize) {
        let at = self.wrote.get(&id).copied().unwrap_or(0);
        let mut bytes: Bytes = (at..at + length as u64).map(|at| byte(id, at)).collect::<Vec<_>>().into();
        if let Ok(taken) = self.mux.write(id, &mut bytes) {
            *self.wrote.entry(id).or_default() += taken as u64;
        }
        let queued: usize = self.mux.streams.values().map(|stream| stream.send.queued).sum();
        assert!(queued <= ALL_QUEUED + LEAST_QUEUED * self.mux.streams.len() + MOST_QUEUED);
    }
}

fn take_back(known: &mut Known, other: &mut Known, now: Instant) -> usize {
    let wire = sent(&mut known.mux, now, 256 * KIB);
    other.pipe.extend_from_slice(&wire);
    let all = std::mem::take(&mut other.pipe);
    let length = all.len();
    other.mux.handle(all, now).expect("the peer keeps the rules");
    other.accept();
    length
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whatever_two_ends_do_bytes_arrive_in_order_and_no_rule_is_broken(deeds in deeds()) {
        let mut now = Instant::now();
        let mut ends = [Known::new(Role::Agent, now), Known::new(Role::Edge, now)];
        let mut cut = std::collections::HashSet::new();
        for (who, deed) in deeds {
            let [a, b] = &mut ends;
            let (me, other) = if who { (a, b) } else { (b, a) };
            let pick = |at: usize| (!me.ids.is_empty()).then(|| me.ids[at % me.ids.len()]);
            match deed {
                Deed::Open => me.ids.extend(if me.ids.len() < 6 { me.mux.open(now) } else { None }),
                Deed::Write(at, n) => if let Some(id) = pick(at) { me.write(id, n) },
                Deed::Read(at, n) => if let Some(id) = pick(at) { me.read(id, n, now); },
                Deed::Finish(at) => if let Some(id) = pick(at) { let _ = me.mux.finish(id); },
                Deed::Reset(at) => if let Some(id) = pick(at) { cut.insert(id); me.mux.reset(id, 1) },
                Deed::Stop(at) => if let Some(id) = pick(at) { cut.insert(id); me.mux.stop(id, 1) },
                Deed::Release(at) => if let Some(id) = pick(at) {
                    cut.insert(id);
                    me.mux.release_send(id);
                    me.mux.release_recv(id);
                    me.ids.retain(|other| *other != id);
                },
                Deed::Priority(at, p) => if let Some(id) = pick(at) {
                    me.mux.set_priority(id, [Priority::Control, Priority::Fresh, Priority::Bulk][usize::from(p)]);
                },
                Deed::Deliver(n) => {
                    let n = n.min(me.pipe.len());
                    let some = me.pipe.split_to(n);
                    me.mux.handle(some, now).expect("the peer keeps the rules");
                    me.accept();
                }
                Deed::Transmit(budget) => other.pipe.extend_from_slice(&sent(&mut me.mux, now, budget)),
                Deed::Wait(ms) => {
                    now += Duration::from_millis(ms);
                    // Neither may go silent for 15 s.
                    for _ in 0..2 {
                        let [a, b] = &mut ends;
                        let _ = a.mux.handle_timeout(now);
                        let _ = b.mux.handle_timeout(now);
                        take_back(a, b, now);
                        take_back(b, a, now);
                    }
                }
            }
        }
        // All who still write finish, all read to the end: nothing is stuck.
        let [a, b] = &mut ends;
        loop {
            let moved = take_back(a, b, now) + take_back(b, a, now);
            let mut read = false;
            for end in [&mut *a, &mut *b] {
                for id in end.ids.clone() {
                    let _ = end.mux.finish(id);
                    while end.read(id, 100_000, now) { read = true }
                }
            }
            if moved == 0 && !read && a.mux.lanes.iter().chain(&b.mux.lanes).all(VecDeque::is_empty) {
                break;
            }
        }
        for (me, other) in [(&*a, &*b), (&*b, &*a)] {
            for id in me.ids.iter().filter(|id| !cut.contains(id) && other.ids.contains(id)) {
                prop_assert_eq!(me.wrote.get(id), other.read.get(id));
                prop_assert_eq!(other.ended.get(id), Some(&true));
            }
        }
        // Once all let go, both are empty.
        for end in [&mut *a, &mut *b] {
            for id in end.ids.clone() {
                end.mux.release_send(id);
                end.mux.release_recv(id);
            }
        }
        while take_back(a, b, now) + take_back(b, a, now) > 0 {}
        for end in [&*a, &*b] {
            let mux = &end.mux;
            prop_assert_eq!((mux.streams.len(), mux.windows, mux.receiving, mux.writing, mux.remote_open), (0, 0, 0, 0, 0));
        }
    }

    #[test]
    fn damaged_bytes_never_panic(wire in proptest::collection::vec(prop_oneof![4 => 0..9u8, 1 => any::<u8>()], 0..400), cut in 0..400usize) {
        let mut pair = Pair::new();
        pair.stream();
        let cut = cut.min(wire.len());
        let _ = pair.agent.handle(wire[..cut].to_vec(), pair.now).and_then(|()| pair.agent.handle(wire[cut..].to_vec(), pair.now));
        sent(&mut pair.agent, pair.now, 1 << 20);
    }
}
