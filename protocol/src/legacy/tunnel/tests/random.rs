//! Any cut, any bytes, any operations.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// Answers to a few requests and bytes of a channel, as a server that keeps the rules says them.
#[derive(Debug, Clone)]
enum Say {
    Head(usize, u16),
    Body(usize, usize),
    End(usize),
    Cancel(usize),
    Data(usize),
    Heartbeat,
}

fn say() -> impl Strategy<Value = Say> {
    prop_oneof![
        (0_usize..4, 200_u16..600).prop_map(|(who, status)| Say::Head(who, status)),
        (0_usize..4, 0_usize..5000).prop_map(|(who, length)| Say::Body(who, length)),
        (0_usize..4).prop_map(Say::End),
        (0_usize..4).prop_map(Say::Cancel),
        (0_usize..3000).prop_map(Say::Data),
        Just(Say::Heartbeat),
    ]
}

/// What was heard of each stream.
#[derive(Debug, PartialEq)]
struct Heard {
    heads: Vec<Option<Result<ResponseHead, Failure>>>,
    bodies: Vec<(Vec<u8>, Read)>,
    counts: Counts,
    end: Result<(), Violation>,
}

/// Feeds the wire in pieces of these sizes, in turn.
fn hear(wire: &[u8], cuts: &[usize]) -> Heard {
    let mut bench = Bench::open();
    let mut ids: Vec<_> = (0..4).map(|_| bench.get()).collect();
    ids.push(bench.tunnel.connect(Uuid::nil(), "", bench.now).expect("open"));
    bench.said();
    let mut rest = wire;
    let mut end = Ok(());
    for cut in cuts.iter().cycle() {
        let (now, later) = rest.split_at((*cut).clamp(1, rest.len().max(1)).min(rest.len()));
        rest = later;
        end = bench.tunnel.receive(now.to_vec(), rest.is_empty(), bench.now);
        if rest.is_empty() || end.is_err() {
            break;
        }
    }
    let heads = ids.iter().map(|id| bench.tunnel.head(*id)).collect();
    let bodies = ids.iter().map(|id| bench.read(*id)).collect();
    Heard { heads, bodies, counts: bench.tunnel.counts(), end }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_cut_of_a_conversation_is_heard_alike(
        said in prop::collection::vec(say(), 0..40),
        cuts in prop::collection::vec(1_usize..3000, 1..6),
    ) {
        let id = |who: usize| StreamId(FIRST_REQUEST + who as u32);
        let mut wire_all = Vec::new();
        for (at, say) in said.iter().enumerate() {
            wire_all.extend(match say {
                Say::Head(who, status) => tagged(id(*who), HEAD, format!("{{\"status\":{status}}}").as_bytes()),
                Say::Body(who, length) => tagged(id(*who), BODY, &vec![at as u8; *length]),
                Say::End(who) => tagged(id(*who), END, b""),
                Say::Cancel(who) => wire(id(*who).get(), Kind::HttpCancel, b""),
                Say::Data(length) => wire(1, Kind::Data, &vec![at as u8; *length]),
                Say::Heartbeat => wire(0, Kind::Heartbeat, b""),
            });
        }
        let whole = hear(&wire_all, &[usize::MAX]);
        prop_assert_eq!(whole.end, Ok(()));
        prop_assert_eq!(&hear(&wire_all, &cuts), &whole);
    }

    #[test]
    fn any_bytes_are_borne(
        wire in prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(0x80), Just(0x11), Just(0x12), Just(5), any::<u8>()], 0..3000),
        cuts in prop::collection::vec(1_usize..300, 1..4),
        before in any::<bool>(),
    ) {
        if before {
            let now = Instant::now();
            let mut tunnel = Tunnel::new(Config::default(), now);
            let _ = tunnel.receive(wire, true, now);
        } else {
            let whole = hear(&wire, &[usize::MAX]);
            prop_assert!(whole.bodies.iter().map(|(body, _)| body.len()).sum::<usize>() <= wire.len());
            let cut = hear(&wire, &cuts);
            prop_assert_eq!(cut.end, whole.end);
            prop_assert_eq!(cut.bodies, whole.bodies);
        }
    }

    #[test]
    fn any_operations_keep_the_promises(deeds in prop::collection::vec((0_u8..16, any::<u8>(), any::<u16>()), 0..250)) {
        Any::run(&deeds);
    }
}

/// A tunnel whose users and server do anything, and what is known of them.
struct Any {
    bench: Bench,
    held: Vec<StreamId>,
    wrote: HashMap<StreamId, usize>,
    got: HashMap<StreamId, usize>,
    finished: HashMap<StreamId, bool>,
}

impl Any {
    fn run(deeds: &[(u8, u8, u16)]) {
        let config = Config {
            stream_queue: 16 * KIB,
            tunnel_queue: 64 * KIB,
            upload_queue: 80 * KIB,
            upload_total: 256 * KIB,
            max_requests: 6,
            max_channels: 3,
            ..Config::default()
        };
        let mut any = Self {
            bench: Bench::with(config),
            held: Vec::new(),
            wrote: HashMap::new(),
            got: HashMap::new(),
            finished: HashMap::new(),
        };
        for (deed, who, amount) in deeds {
            any.deed(*deed, *who, usize::from(*amount));
            any.check(&config);
        }
        any.end();
    }

    fn deed(&mut self, deed: u8, who: u8, amount: usize) {
        let now = self.bench.now;
        let id = (!self.held.is_empty()).then(|| self.held[usize::from(who) % self.held.len()]);
        match (deed, id) {
            (0, _) => self.held.extend(self.bench.tunnel.request(&head("GET"), RequestBody::Whole(Bytes::new()), now)),
            (1, _) => {
                self.held.extend(self.bench.tunnel.request(&head("PUT"), RequestBody::Stream { length: None }, now));
            }
            (2, _) => self.held.extend(self.bench.tunnel.connect(Uuid::nil(), "", now)),
            (3, Some(id)) => {
                let mut bytes: Bytes = vec![who; amount].into();
                if let Ok(taken) = self.bench.tunnel.write(id, &mut bytes, now) {
                    assert_eq!(taken + bytes.len(), amount);
                    *self.wrote.entry(id).or_default() += taken;
                }
            }
            (4, Some(id)) if self.bench.tunnel.finish(id).is_ok() && id.is_request() => {
                self.finished.insert(id, false);
            }
            (5 | 6, Some(id)) => drop(self.bench.tunnel.read(id, now)),
            (7, Some(id)) => drop(self.bench.tunnel.head(id)),
            (8, Some(id)) => {
                self.bench.release(id);
                self.held.retain(|held| *held != id);
                self.forget(id);
            }
            (9, Some(id)) if self.bench.tunnel.wants_input() => {
                self.bench.hears(tagged(id, HEAD, br#"{"status":200}"#))
            }
            (10 | 11, Some(id)) if self.bench.tunnel.wants_input() => {
                let (kind, tag) = if id.is_request() { (Kind::HttpResponse, BODY) } else { (Kind::Data, 0) };
                self.bench.hears(wire(id.get(), kind, &[&[tag], &vec![7; amount % (20 * KIB)][..]].concat()));
            }
            (12, Some(id)) if self.bench.tunnel.wants_input() => self.bench.hears(tagged(id, END, b"")),
            (13, Some(id)) if self.bench.tunnel.wants_input() => {
                self.bench.hears(wire(id.get(), Kind::HttpCancel, b""));
            }
            (14, _) => self.transmit(amount * 2),
            (15, _) => {
                if self.bench.tunnel.wants_input() {
                    self.bench.hears(wire(0, Kind::Heartbeat, b""));
                }
                self.bench.pass(ms(amount as u64 % 2000)).expect("it is not silent");
            }
            _ => {}
        }
    }

    fn forget(&mut self, id: StreamId) {
        self.wrote.remove(&id);
        self.got.remove(&id);
        self.finished.remove(&id);
    }

    /// What the tunnel says is in order: each stream's frames as they were written, turns taken.
    fn transmit(&mut self, budget: usize) {
        let mut batch = Batch::new();
        self.bench.tunnel.transmit(budget, self.bench.now, &mut batch);
        assert!(batch.len() <= budget + 65_600);
        let mut control_over = false;
        let mut turns: Vec<u32> = Vec::new();
        for frame in frames(messages(&batch).into_iter().filter(|message| !message.starts_with(b"{\"type")).collect()) {
            let stream = matches!(frame.kind, Kind::HttpRequest | Kind::Data);
            let last = frame.kind == Kind::ClientDisconnect;
            assert!(stream || last || !control_over, "control frames first");
            control_over |= stream;
            if stream {
                turns.push(frame.id);
            }
            let id = StreamId(frame.id);
            let length = match frame.kind {
                Kind::Data => frame.payload.len(),
                Kind::HttpRequest if frame.payload[0] == BODY => frame.payload.len() - 1,
                Kind::HttpRequest if frame.payload[0] == END => {
                    assert_eq!(self.finished.insert(id, true), Some(false), "one end, after finish");
                    assert_eq!(self.got.get(&id), self.wrote.get(&id), "all went before");
                    0
                }
                _ => 0,
            };
            if length > 0 && self.held.contains(&id) {
                *self.got.entry(id).or_default() += length;
                assert!(self.got[&id] <= self.wrote[&id]);
            }
        }
        // Round robin: between two frames of a stream, no other has two.
        for (at, id) in turns.iter().enumerate() {
            if let Some(next) = turns[at + 1..].iter().position(|other| other == id) {
                let between = &turns[at + 1..at + 1 + next];
                assert!(between.iter().all(|other| between.iter().filter(|same| *same == other).count() == 1));
            }
        }
    }

    fn check(&mut self, config: &Config) {
        let tunnel = &mut self.bench.tunnel;
        assert!(tunnel.requests() <= config.max_requests && tunnel.channels() <= config.max_channels);
        // What came in one step after the last look is at most a frame.
        assert!(tunnel.queued() <= config.tunnel_queue + 20 * KIB + 1);
        let queues: usize = tunnel.streams.values().map(|stream| stream.incoming.unread).sum();
        assert_eq!(tunnel.queued(), queues);
        let uploads: usize = tunnel.streams.values().map(|stream| stream.outgoing.queued).sum();
        assert_eq!(tunnel.uploading(), uploads);
        assert!(uploads <= config.upload_queue * (config.max_requests + config.max_channels));
        let receiving = tunnel.streams.values().filter(|stream| stream.answer.is_none()).count();
        assert_eq!(tunnel.fairness.receiving(), receiving);
        let writers = tunnel.streams.values().filter(|stream| stream.outgoing.queued > 0).count();
        assert_eq!(tunnel.writers, writers);
        assert_eq!(tunnel.ready.len(), tunnel.streams.values().filter(|stream| stream.ready).count());
        let full = tunnel.streams.values().filter(|stream| stream.full).count();
        let (counted, pinning) = tunnel.fairness.held();
        assert_eq!(counted, full);
        assert_eq!(pinning, tunnel.streams.values().filter(|stream| stream.incoming.pins()).count());
        for stream in tunnel.streams.values() {
            assert!(stream.incoming.unread <= config.stream_queue + 20 * KIB + 1);
        }
        while let Some(event) = tunnel.next_event() {
            assert!(!matches!(event, Event::Hello(_) | Event::Drained));
        }
    }

    /// All that is held comes to an end, and nothing is left.
    fn end(mut self) {
        for id in std::mem::take(&mut self.held) {
            self.bench.release(id);
        }
        self.transmit(usize::MAX / 2);
        assert!(!self.bench.tunnel.wants_transmit());
        self.bench.assert_idle();
    }
}
