//! A legacy tunnel whose users, server and clock do anything.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use phlix_protocol::legacy::frame::{self, Decoder, Kind};
use phlix_protocol::legacy::handshake::HelloAck;
use phlix_protocol::legacy::http::{BODY, END, EncodedHead, HEAD, RequestHead};
use phlix_protocol::legacy::tunnel::{Batch, Config, Event, Read, RequestBody, StreamId, Tunnel, Violation};
use phlix_protocol::ws;

use crate::input::Input;

/// Deeds of one run.
const DEEDS: usize = 400;

const HELLO: &[u8] = br#"{"type":"hello","enrollment_jwt":"J","server_id":"11111111-2222-4333-8444-555555555555"}"#;

/// Small, so that every limit is reached.
fn config() -> Config {
    Config {
        stream_queue: 8 * 1024,
        tunnel_queue: 32 * 1024,
        upload_queue: 72 * 1024,
        upload_total: 200 * 1024,
        max_requests: 6,
        max_channels: 3,
        ..Config::default()
    }
}

/// The longest body that the server says at once, bytes.
const STEP: usize = 6 * 1024;

/// The byte of a stream at a place, of one direction.
fn byte(id: StreamId, up: bool, at: usize) -> u8 {
    (at ^ (at >> 8) ^ id.get() as usize ^ usize::from(up)) as u8
}

fn bytes(id: StreamId, up: bool, from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(|at| byte(id, up, at)).collect()
}

/// A tunnel, and what is known of it.
struct World {
    tunnel: Tunnel,
    now: Instant,
    held: Vec<StreamId>,
    /// Bytes written to each stream, of these sent; said by the server, of these read.
    wrote: HashMap<StreamId, usize>,
    sent: HashMap<StreamId, usize>,
    said: HashMap<StreamId, usize>,
    read: HashMap<StreamId, usize>,
    finished: HashSet<StreamId>,
    /// Told to wait, and not told otherwise.
    blocked: HashSet<StreamId>,
    /// The server said what is no conversation: answers are anything.
    wild: bool,
    drained: bool,
    head: EncodedHead,
}

/// A list of deeds on a tunnel, decoded from the bytes.
pub(crate) fn operations(data: &[u8]) {
    let mut input = Input::new(data);
    let now = Instant::now();
    let mut tunnel = Tunnel::new(config(), now);
    if input.flag() {
        // No HELLO, or perhaps one.
        let _ = tunnel.receive(input.rest().to_vec(), true, now);
        return;
    }
    tunnel.receive(HELLO, true, now).expect("a hello");
    assert!(matches!(tunnel.next_event(), Some(Event::Hello(_))));
    tunnel.accept(&HelloAck { relay_session_id: id(1), tunnel_id: id(2), caps: &[] }, now);
    let head = RequestHead { method: "PUT".into(), path: "/x".into(), query: String::new(), headers: Vec::new() };
    let mut world = World {
        tunnel,
        now,
        held: Vec::new(),
        wrote: HashMap::new(),
        sent: HashMap::new(),
        said: HashMap::new(),
        read: HashMap::new(),
        finished: HashSet::new(),
        blocked: HashSet::new(),
        wild: false,
        drained: false,
        head: head.encode().expect("fine"),
    };
    world.transmit(usize::MAX / 2);
    for _ in 0..DEEDS {
        if input.is_empty() {
            break;
        }
        if world.deed(&mut input).is_err() {
            break;
        }
        world.check();
    }
    world.finish(input.flag());
}

/// An id of any kind.
fn id<T: FromStr<Err: std::fmt::Debug>>(number: usize) -> T {
    format!("00000000-0000-4000-8000-{number:012x}").parse().expect("an id")
}

impl World {
    fn deed(&mut self, input: &mut Input<'_>) -> Result<(), Violation> {
        let (deed, at) = (input.byte(), usize::from(input.byte()));
        let now = self.now;
        let id = (!self.held.is_empty()).then(|| self.held[at % self.held.len()]);
        match (deed & 0x1f, id) {
            (0, _) => {
                let body = RequestBody::Whole(vec![7; input.amount() % 100_000].into());
                self.held.extend(self.tunnel.request(&self.head, body, now));
            }
            (1 | 2, _) => {
                let body = RequestBody::Stream { length: None };
                self.held.extend(self.tunnel.request(&self.head, body, now));
            }
            (3, _) => self.held.extend(self.tunnel.connect(self::id(at), "", now)),
            (4..=6, Some(id)) => self.write(id, input.amount()),
            (7, Some(id)) if self.tunnel.finish(id).is_ok() && id.is_request() => {
                assert!(self.finished.insert(id), "once");
            }
            (8..=10, Some(id)) => drop(self.read(id)),
            (11, Some(id)) => drop(self.tunnel.head(id)),
            (12, Some(id)) => self.release(id),
            (13 | 14, Some(id)) if id.is_request() && self.tunnel.wants_input() => {
                self.server(id, HEAD, br#"{"status":200,"headers":[]}"#)?;
            }
            (15..=19, Some(id)) if self.tunnel.wants_input() => {
                let length = input.amount() % STEP;
                let from = self.said.get(&id).copied().unwrap_or(0);
                // Counted only if it is taken: then something more is queued.
                let before = self.tunnel.queued();
                self.server(id, BODY, &bytes(id, false, from, length))?;
                if self.tunnel.queued() > before {
                    assert_eq!(self.tunnel.queued(), before + length);
                    *self.said.entry(id).or_default() += length;
                }
            }
            (20, Some(id)) if id.is_request() && self.tunnel.wants_input() => self.server(id, END, b"")?,
            (21, Some(id)) if self.tunnel.wants_input() => self.frame(id.get(), Kind::HttpCancel, b"")?,
            (22, _) if self.tunnel.wants_input() => {
                self.wild = true;
                self.tunnel.receive(input.some().to_vec(), at & 1 == 1, now)?;
            }
            (23, _) if self.tunnel.wants_input() => self.frame(0, Kind::Heartbeat, b"")?,
            (24..=27, _) => self.transmit(input.amount()),
            (28, _) => self.pass(Duration::from_millis(at as u64 * 8))?,
            (29, _) => {
                if self.tunnel.wants_input() && !self.wild {
                    self.frame(0, Kind::Heartbeat, b"")?;
                }
                self.pass(Duration::from_secs(at as u64 / 4))?;
            }
            (30, _) if at > 250 => self.tunnel.drain(Duration::from_secs(at as u64 - 250), now),
            _ => {}
        }
        Ok(())
    }

    fn frame(&mut self, id: u32, kind: Kind, payload: &[u8]) -> Result<(), Violation> {
        let mut wire = frame::header(id, kind, payload.len() as u16).to_vec();
        wire.extend_from_slice(payload);
        // In two pieces.
        let (one, other) = wire.split_at(wire.len() / 3);
        self.tunnel.receive(one.to_vec(), false, self.now)?;
        self.tunnel.receive(other.to_vec(), true, self.now)
    }

    fn server(&mut self, id: StreamId, tag: u8, payload: &[u8]) -> Result<(), Violation> {
        if id.is_request() {
            self.frame(id.get(), Kind::HttpResponse, &[&[tag], payload].concat())
        } else {
            self.frame(id.get(), Kind::Data, payload)
        }
    }

    fn write(&mut self, id: StreamId, length: usize) {
        let from = self.wrote.get(&id).copied().unwrap_or(0);
        let mut some = Bytes::from(bytes(id, true, from, length));
        if let Ok(taken) = self.tunnel.write(id, &mut some, self.now) {
            assert_eq!(taken + some.len(), length);
            assert!(!self.finished.contains(&id));
            *self.wrote.entry(id).or_default() += taken;
        }
    }

    /// Reads a piece; `false` when there was none.
    fn read(&mut self, id: StreamId) -> bool {
        let was_blocked = self.blocked.remove(&id);
        match self.tunnel.read(id, self.now) {
            Read::Data(data) => {
                assert!(!was_blocked, "who waits is told");
                assert!(!data.is_empty());
                if !self.wild {
                    let at = self.read.entry(id).or_default();
                    assert_eq!(data, bytes(id, false, *at, data.len()), "in order");
                    *at += data.len();
                    assert!(*at <= self.said[&id]);
                }
                true
            }
            Read::Blocked => {
                self.blocked.insert(id);
                false
            }
            Read::End => {
                assert!(!was_blocked, "who waits is told");
                assert!(self.wild || self.read.get(&id) == self.said.get(&id), "all was read");
                false
            }
            Read::Failed(_) => {
                assert!(!was_blocked, "who waits is told");
                false
            }
        }
    }

    fn release(&mut self, id: StreamId) {
        self.tunnel.release(id, self.now);
        self.held.retain(|held| *held != id);
        self.blocked.remove(&id);
        // A second time is nothing.
        self.tunnel.release(id, self.now);
    }

    fn pass(&mut self, time: Duration) -> Result<(), Violation> {
        let until = self.now + time;
        let mut last = None;
        while let Some(deadline) = self.tunnel.deadline().filter(|deadline| *deadline <= until) {
            assert_ne!(last, Some(deadline), "what is due is done");
            last = Some(deadline);
            self.now = self.now.max(deadline);
            self.tunnel.on_time(self.now)?;
        }
        self.now = until;
        Ok(())
    }

    /// All that is said is what the page says: one frame a message, control first, turns, each stream in order.
    fn transmit(&mut self, budget: usize) {
        let mut batch = Batch::new();
        let wanted = self.tunnel.wants_transmit();
        assert_eq!(self.tunnel.transmit(budget, self.now, &mut batch), wanted && budget > 0 || !batch.is_empty());
        assert!(batch.len() <= budget.saturating_add(70_000));
        let mut wire = BytesMut::new();
        batch.pieces().for_each(|piece| wire.extend_from_slice(piece));
        assert_eq!(wire.len(), batch.len());
        let limits = ws::Limits { frame: 65_542, message: 65_542 };
        let mut decoder = ws::Decoder::new(ws::Role::Client, limits, ws::Text::Checked);
        let mut assembler = ws::Assembler::new();
        let mut turns: Vec<u32> = Vec::new();
        while let Some(event) = decoder.decode(&mut wire).expect("ours is well formed") {
            let ws::Assembled::Message(message) = assembler.push(event) else { continue };
            if message.kind == ws::Kind::Text {
                assert!(message.payload.starts_with(b"{\"type\":\"hello_ack\""));
                continue;
            }
            let mut input = message.payload.freeze();
            let piece = Decoder::new().decode(&mut input).expect("a type that servers know").expect("whole");
            assert!(piece.last && input.is_empty(), "a frame a message");
            match piece.kind {
                Kind::HttpRequest | Kind::Data => {
                    turns.push(piece.id);
                    self.said_by_us(piece.id, piece.kind, piece.bytes);
                }
                // A channel's last word follows its data.
                Kind::ClientDisconnect => {}
                Kind::Heartbeat | Kind::HttpCancel | Kind::ClientConnect => {
                    assert!(turns.is_empty(), "control frames first");
                }
                Kind::Disconnected | Kind::Error | Kind::HttpResponse => panic!("a hub does not say that to a server"),
            }
        }
        for (at, id) in turns.iter().enumerate() {
            if let Some(next) = turns[at + 1..].iter().position(|other| other == id) {
                let between = &turns[at + 1..at + 1 + next];
                assert_eq!(between.iter().collect::<HashSet<_>>().len(), between.len(), "turns");
            }
        }
    }

    fn said_by_us(&mut self, id: u32, kind: Kind, mut payload: Bytes) {
        let Some(id) = self.held.iter().copied().find(|held| held.get() == id) else { return };
        if kind == Kind::HttpRequest {
            match payload.get_u8() {
                BODY => {}
                END => {
                    // A body that was whole at once was not written by us.
                    let wrote = self.wrote.get(&id);
                    assert!(!self.finished.contains(&id) || wrote == self.sent.get(&id), "all went before");
                    return;
                }
                _ => return,
            }
        }
        if self.wrote.contains_key(&id) {
            let at = self.sent.entry(id).or_default();
            assert!(payload.iter().enumerate().all(|(more, got)| *got == byte(id, true, *at + more)), "in order");
            *at += payload.len();
            assert!(*at <= self.wrote[&id]);
        }
    }

    fn check(&mut self) {
        let config = config();
        let tunnel = &mut self.tunnel;
        assert!(tunnel.requests() <= config.max_requests);
        assert!(tunnel.channels() <= config.max_channels);
        assert!(tunnel.queued() <= config.tunnel_queue + STEP);
        assert!(tunnel.queued() <= (config.stream_queue + STEP) * self.held.len());
        // Whole bodies are counted, too.
        assert!(tunnel.uploading() <= 100_000 * (config.max_requests + config.max_channels));
        while let Some(event) = tunnel.next_event() {
            match event {
                Event::Readable(id) => drop(self.blocked.remove(&id)),
                Event::Writable(_) => {}
                Event::Drained => assert!(!std::mem::replace(&mut self.drained, true), "once"),
                Event::Hello(_) => panic!("there was one"),
            }
        }
    }

    /// Everything ends, and nothing is left. Either the socket is gone first, or all is said.
    fn finish(mut self, cut: bool) {
        if cut {
            self.tunnel.close(self.now);
            assert!(!self.tunnel.wants_input() && !self.tunnel.wants_transmit() && self.tunnel.deadline().is_none());
        }
        self.check();
        for id in self.held.clone() {
            if cut {
                while self.read(id) {}
                assert!(!self.blocked.contains(&id), "nobody waits for ever");
            }
            self.release(id);
        }
        self.transmit(usize::MAX / 2);
        assert!(!self.tunnel.wants_transmit());
        let tunnel = &self.tunnel;
        assert_eq!((tunnel.requests(), tunnel.channels(), tunnel.queued(), tunnel.uploading()), (0, 0, 0, 0));
        assert!(!tunnel.paused());
    }
}
