//! A tunnel and its server, in virtual time.

mod answers;
mod fairness;
mod hostile;
mod life;
mod random;
mod requests;

use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use super::*;
use crate::legacy::frame::{self, HEADER, Kind};
use crate::legacy::http::{BODY, END, EncodedHead, HEAD, RequestHead, ResponseHead};

const KIB: usize = 1024;
const HELLO: &[u8] = br#"{"type":"hello","enrollment_jwt":"J","server_id":"11111111-2222-4333-8444-555555555555"}"#;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A frame of ours or of the server's.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    id: u32,
    kind: Kind,
    payload: Vec<u8>,
}

/// A tunnel, the time, and what its server says.
struct Bench {
    tunnel: Tunnel,
    now: Instant,
}

fn ack(tunnel: &mut Tunnel, now: Instant) {
    let tunnel_id = crate::ids::TunnelId::new(Uuid::from_u128(7));
    tunnel.accept(&HelloAck { relay_session_id: Uuid::nil(), tunnel_id, caps: &[] }, now);
}

fn wire(id: u32, kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut wire = frame::header(id, kind, payload.len() as u16).to_vec();
    wire.extend_from_slice(payload);
    wire
}

fn tagged(id: StreamId, tag: u8, rest: &[u8]) -> Vec<u8> {
    wire(id.get(), Kind::HttpResponse, &[&[tag], rest].concat())
}

impl Bench {
    /// Whose HELLO was answered.
    fn open() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let now = Instant::now();
        let mut tunnel = Tunnel::new(config, now);
        tunnel.receive(HELLO, true, now).expect("a hello");
        assert!(matches!(tunnel.next_event(), Some(Event::Hello(_))));
        ack(&mut tunnel, now);
        let mut bench = Self { tunnel, now };
        assert_eq!(bench.messages().len(), 1);
        bench
    }

    /// What the tunnel says, as payloads of messages; pings are empty.
    fn messages(&mut self) -> Vec<Vec<u8>> {
        let mut batch = Batch::new();
        assert_eq!(self.tunnel.wants_transmit(), self.tunnel.transmit(usize::MAX, self.now, &mut batch));
        messages(&batch)
    }

    /// The frames that the tunnel says.
    fn said(&mut self) -> Vec<Frame> {
        frames(self.messages())
    }

    /// The server says something, in one message.
    fn hears(&mut self, wire: impl Into<Bytes>) {
        self.tunnel.receive(wire, true, self.now).expect("within the rules");
    }

    fn refuses(&mut self, wire: impl Into<Bytes>) -> Violation {
        self.tunnel.receive(wire, true, self.now).expect_err("against the rules")
    }

    fn get(&mut self) -> StreamId {
        self.ask("GET")
    }

    /// A request that the server was told of.
    fn ask(&mut self, method: &str) -> StreamId {
        let id = self.tunnel.request(&head(method), RequestBody::Whole(Bytes::new()), self.now).expect("open");
        assert_eq!(kinds(&self.said()).last(), Some(&(id.get(), Kind::HttpRequest)));
        id
    }

    /// A request with an answer's head that was read.
    fn answered(&mut self, head: &str) -> StreamId {
        let id = self.get();
        self.hears(tagged(id, HEAD, head.as_bytes()));
        self.tunnel.head(id).expect("it came").expect("a head");
        id
    }

    fn body(&mut self, id: StreamId, length: usize) {
        for _ in 0..length / (32 * KIB) {
            self.hears(tagged(id, BODY, &[7; 32 * KIB]));
        }
        if !length.is_multiple_of(32 * KIB) {
            self.hears(tagged(id, BODY, &vec![7; length % (32 * KIB)]));
        }
    }

    /// All that can be read, and what then comes.
    fn read(&mut self, id: StreamId) -> (Vec<u8>, Read) {
        let mut all = Vec::new();
        loop {
            match self.tunnel.read(id, self.now) {
                Read::Data(bytes) => all.extend_from_slice(&bytes),
                end => return (all, end),
            }
        }
    }

    fn release(&mut self, id: StreamId) {
        self.tunnel.release(id, self.now);
    }

    /// Lets time pass, doing what is due when it is due.
    fn pass(&mut self, time: Duration) -> Result<(), Violation> {
        let until = self.now + time;
        while let Some(deadline) = self.tunnel.deadline().filter(|deadline| *deadline <= until) {
            assert!(deadline >= self.now || self.tunnel.wants_transmit(), "what was due is done");
            self.now = self.now.max(deadline);
            self.tunnel.on_time(self.now)?;
            assert_ne!(self.tunnel.deadline(), Some(deadline), "no deadline comes twice");
        }
        self.now = until;
        Ok(())
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.tunnel.next_event()).collect()
    }

    /// Nothing is held.
    fn assert_idle(&mut self) {
        let tunnel = &self.tunnel;
        assert_eq!((tunnel.requests(), tunnel.channels(), tunnel.queued(), tunnel.uploading()), (0, 0, 0, 0));
        assert_eq!((tunnel.writers, tunnel.fairness.receiving(), tunnel.paused()), (0, 0, false));
        assert!(tunnel.streams.is_empty() && tunnel.ready.is_empty());
    }
}

fn head(method: &str) -> EncodedHead {
    let head = RequestHead { method: method.into(), path: "/x".into(), query: String::new(), headers: Vec::new() };
    head.encode().expect("fine")
}

/// Payloads of the WebSocket messages of a batch.
fn messages(batch: &Batch) -> Vec<Vec<u8>> {
    let bytes = batch.pieces().collect::<Vec<_>>().concat();
    assert_eq!(bytes.len(), batch.len());
    let mut all = Vec::new();
    let mut rest = &bytes[..];
    while let [_, short, ..] = rest {
        let (at, length) = match short {
            126 => (4, u64::from(u16::from_be_bytes([rest[2], rest[3]]))),
            127 => (10, u64::from_be_bytes(rest[2..10].try_into().expect("8 bytes"))),
            short => (2, u64::from(*short)),
        };
        let end = at + length as usize;
        all.push(rest[at..end].to_vec());
        rest = &rest[end..];
    }
    all
}

/// Each message holds one frame.
fn frames(messages: Vec<Vec<u8>>) -> Vec<Frame> {
    let frame = |message: Vec<u8>| {
        let mut input = Bytes::from(message);
        let piece = crate::legacy::frame::Decoder::new().decode(&mut input).expect("ours").expect("whole");
        assert!(piece.last && input.is_empty() && piece.bytes.len() + HEADER <= 65_542);
        Frame { id: piece.id, kind: piece.kind, payload: piece.bytes.to_vec() }
    };
    messages.into_iter().filter(|message| !message.is_empty()).map(frame).collect()
}

fn kinds(frames: &[Frame]) -> Vec<(u32, Kind)> {
    frames.iter().map(|frame| (frame.id, frame.kind)).collect()
}
