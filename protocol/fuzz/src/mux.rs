//! The multiplexer: two ends that do anything, and one end that hears anything.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use phlix_protocol::native::mux::frame::{FrameType, Header};
use phlix_protocol::native::mux::{
    Batch, Config, INITIAL_CREDIT, MAX_CONTROL, MAX_WINDOW, Mux, PING_BUSY, Priority, Read, Role, StreamId,
};

use crate::input::Input;

/// Deeds of one run, and streams of one end: enough for every state, few enough to be fast.
const DEEDS: usize = 300;
const STREAMS: usize = 8;

/// One end, and what is known of it.
struct End {
    mux: Mux,
    /// Under way to it.
    pipe: BytesMut,
    held: Vec<StreamId>,
    wrote: HashMap<StreamId, u64>,
    read: HashMap<StreamId, u64>,
    ended: HashMap<StreamId, bool>,
    cut: Vec<StreamId>,
}

/// The byte of a stream at a place, one end's own.
fn byte(role: u8, id: StreamId, at: u64) -> u8 {
    (at ^ (at >> 8) ^ u64::from(id.get()) ^ u64::from(role)) as u8
}

impl End {
    fn new(role: Role, cap: u64, now: Instant) -> Self {
        Self {
            mux: Mux::new(Config { role, receive_cap: cap, max_streams: 1 + STREAMS as u32 }, now),
            pipe: BytesMut::new(),
            held: Vec::new(),
            wrote: HashMap::new(),
            read: HashMap::new(),
            ended: HashMap::new(),
            cut: Vec::new(),
        }
    }

    fn pick(&self, at: u8) -> Option<StreamId> {
        (!self.held.is_empty()).then(|| self.held[usize::from(at) % self.held.len()])
    }

    fn hear(&mut self, length: usize, now: Instant) {
        let some = self.pipe.split_to(length.min(self.pipe.len()));
        self.mux.handle(some, now).expect("the peer keeps the rules");
        self.held.extend(std::iter::from_fn(|| self.mux.accept()));
        while self.mux.poll().is_some() {}
    }

    fn write(&mut self, role: u8, id: StreamId, length: usize) {
        let at = self.wrote.get(&id).copied().unwrap_or(0);
        let mut bytes: Bytes = (at..at + length as u64).map(|at| byte(role, id, at)).collect::<Vec<_>>().into();
        if let Ok(taken) = self.mux.write(id, &mut bytes) {
            assert_eq!(taken + bytes.len(), length);
            *self.wrote.entry(id).or_default() += taken as u64;
        }
    }

    fn read(&mut self, role: u8, id: StreamId, most: usize, now: Instant) -> bool {
        match self.mux.read(id, most, now) {
            Ok(Read::Data(bytes)) => {
                assert!((1..=most).contains(&bytes.len()));
                let at = self.read.entry(id).or_default();
                for got in bytes {
                    assert_eq!(got, byte(role, id, *at), "in order");
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

    fn release(&mut self, id: StreamId) {
        self.mux.release_send(id);
        self.mux.release_recv(id);
        self.held.retain(|held| *held != id);
    }

    fn transmit(&mut self, now: Instant, budget: usize, to: &mut BytesMut) {
        let mut batch = Batch::new();
        let said = self.mux.poll_transmit(now, budget, &mut batch);
        assert_eq!(said, !batch.is_empty());
        batch.pieces().for_each(|piece| to.extend_from_slice(piece));
    }
}

/// All that is under way arrives, and what that makes each say.
fn settle(ends: &mut [End; 2], now: Instant) -> bool {
    let mut moved = false;
    for _ in 0..2 {
        let [one, other] = ends;
        one.transmit(now, usize::MAX, &mut other.pipe);
        moved |= !other.pipe.is_empty();
        other.hear(usize::MAX, now);
        other.mux.end_of_message().expect("frames are whole");
        ends.swap(0, 1);
    }
    moved
}

/// A list of deeds on a pair of ends, decoded from the bytes.
pub(crate) fn operations(data: &[u8]) {
    let mut input = Input::new(data);
    let start = Instant::now();
    let mut now = start;
    let cap = if input.flag() { 4 * INITIAL_CREDIT } else { 64 << 20 };
    let mut ends = [End::new(Role::Agent, cap, now), End::new(Role::Edge, cap, now)];
    for _ in 0..DEEDS {
        if input.is_empty() {
            break;
        }
        let (deed, at) = (input.byte(), input.byte());
        let me = usize::from(deed >> 7);
        let role = me as u8;
        let [a, b] = &mut ends;
        let (one, other) = if me == 0 { (a, b) } else { (b, a) };
        let id = one.pick(at);
        match (deed & 0x1f, id) {
            (0 | 1, _) if one.held.len() < STREAMS => one.held.extend(one.mux.open(now)),
            (2..=6, Some(id)) => one.write(role, id, input.amount()),
            (7..=11, Some(id)) => {
                let most = input.amount();
                one.read(1 - role, id, most, now);
            }
            (12, Some(id)) => drop(one.mux.finish(id)),
            (13, Some(id)) => {
                one.cut.push(id);
                one.mux.reset(id, at.into());
            }
            (14, Some(id)) => {
                one.cut.push(id);
                one.mux.stop(id, at.into());
            }
            (15, Some(id)) => {
                one.cut.push(id);
                one.release(id);
            }
            (16, Some(id)) => {
                one.mux.set_priority(id, [Priority::Control, Priority::Fresh, Priority::Bulk][usize::from(at) % 3]);
            }
            (17..=20, _) => one.hear(input.amount(), now),
            (21..=25, _) => one.transmit(now, input.amount(), &mut other.pipe),
            (26, _) => now += Duration::from_millis(u64::from(at)),
            (27, _) => {
                now += PING_BUSY;
                for end in &mut ends {
                    end.mux.handle_timeout(now).expect("less than 15 s have passed since all was heard");
                }
                settle(&mut ends, now);
            }
            (28, _) => {
                settle(&mut ends, now);
            }
            // Few: control bytes have a budget.
            (29, _) if now.duration_since(start) < Duration::from_secs(1) => {
                let taken = one.mux.write_control(&[at; 100]);
                assert!(taken <= MAX_CONTROL);
            }
            (30, _) => drop(one.mux.read_control(input.amount())),
            (31, _) => one.mux.set_receive_cap(u64::from(at) << 18),
            _ => {}
        }
        if now.duration_since(start).as_secs() % 4 == 3 {
            // Neither may fall silent.
            settle(&mut ends, now);
        }
        assert!(ends[0].mux.outstanding() <= 2 * MAX_WINDOW * (2 * STREAMS as u64 + DEEDS as u64));
    }
    finish(&mut ends, now);
}

/// All that is held comes to a good end: nothing hangs, nothing is lost, nothing is left.
fn finish(ends: &mut [End; 2], now: Instant) {
    loop {
        let mut moved = settle(ends, now);
        for (role, end) in ends.iter_mut().enumerate() {
            for id in end.held.clone() {
                let _ = end.mux.finish(id);
                while end.read(1 - role as u8, id, 1 << 20, now) {
                    moved = true;
                }
            }
        }
        if !moved && !ends.iter().any(|end| end.mux.wants_transmit()) {
            break;
        }
    }
    for (one, other) in [(&ends[0], &ends[1]), (&ends[1], &ends[0])] {
        for id in one.held.iter().filter(|id| other.held.contains(id)) {
            if !one.cut.contains(id) && !other.cut.contains(id) {
                assert_eq!(one.wrote.get(id), other.read.get(id), "all that was written was read");
                assert_eq!(other.ended.get(id), Some(&true));
            }
        }
    }
    for end in &mut *ends {
        for id in end.held.clone() {
            end.release(id);
        }
    }
    while settle(ends, now) {}
    assert_eq!((ends[0].mux.streams(), ends[1].mux.streams()), (0, 0));
}

/// Any bytes at an end that has a few streams of its own and of the peer's: never more than it can hold.
pub(crate) fn bytes(data: &[u8]) {
    let mut input = Input::new(data);
    let mut now = Instant::now();
    let (role, theirs) = if input.flag() { (Role::Agent, 2) } else { (Role::Edge, 1) };
    let mut mux = Mux::new(Config { role, receive_cap: 1 << 20, max_streams: 8 }, now);
    let own = mux.open(now).expect("ids are left");
    let _ = mux.write(own, &mut Bytes::from_static(b"header and more"));
    let mut batch = Batch::new();
    mux.poll_transmit(now, usize::MAX, &mut batch);
    let mut held = 0;
    if mux.handle(Header::encode(theirs, FrameType::Open, 0, 0).to_vec(), now).is_err() {
        panic!("it may open one");
    }
    while !input.is_empty() {
        let step = input.byte();
        let some = input.some();
        let done = mux.handle(some.to_vec(), now);
        held += some.len();
        if done.is_err() {
            return;
        }
        if step & 1 != 0 && mux.end_of_message().is_err() {
            return;
        }
        if step & 2 != 0 {
            now += Duration::from_millis(u64::from(step) * 8);
            if mux.handle_timeout(now).is_err() {
                return;
            }
        }
        while let Some(id) = mux.accept() {
            if step & 4 != 0 {
                mux.release_send(id);
                mux.release_recv(id);
            }
        }
        if step & 8 != 0
            && let Ok(Read::Data(bytes)) = mux.read(own, 1 << 20, now)
        {
            assert!(bytes.len() <= held);
        }
        if step & 16 != 0 {
            let _ = mux.read_control(1 << 20);
        }
        if step & 32 != 0 {
            batch.clear();
            mux.poll_transmit(now, 1 << 16, &mut batch);
            // All that can be said of so few streams.
            assert!(batch.len() < 1 << 17);
        }
        while mux.poll().is_some() {}
        assert!(mux.streams() <= 1 + 26);
    }
}
