//! The watch over an HTTP/2 connection, in both directions.
//!
//! Sans-IO. Frame heads are read where they pass, payloads are skipped: bulk data costs one subtraction per read.

use std::time::Instant;

use super::{Budget, Glitch, SMALL};

/// The head of an HTTP/2 frame (RFC 9113 s.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FrameHead {
    length: u32,
    kind: u8,
    flags: u8,
    stream: u32,
}

const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// RFC 9218 s.7.1.
const PRIORITY_UPDATE: u8 = 16;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The preface of a client (RFC 9113 s.3.4).
const PREFACE: u64 = 24;

/// One direction of an HTTP/2 connection, cut into frames wherever it is cut into reads.
#[derive(Debug)]
struct Frames {
    /// Bytes to skip: of the preface or of a frame's payload.
    skip: u64,
    head: [u8; HEAD],
    have: usize,
    /// Whether what is skipped is DATA.
    data: bool,
}

impl Frames {
    fn new(preface: u64) -> Self {
        Self { skip: preface, head: [0; HEAD], have: 0, data: false }
    }

    /// Shows each frame's head.
    fn scan<E>(&mut self, mut bytes: &[u8], mut each: impl FnMut(FrameHead) -> Result<(), E>) -> Result<(), E> {
        loop {
            let skipped = bytes.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            self.skip -= skipped as u64;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return Ok(());
            }
            let more = bytes.len().min(HEAD - self.have);
            self.head[self.have..self.have + more].copy_from_slice(&bytes[..more]);
            self.have += more;
            bytes = &bytes[more..];
            if self.have < HEAD {
                return Ok(());
            }
            let [a, b, c, kind, flags, s, t, u, v] = self.head;
            let length = u32::from_be_bytes([0, a, b, c]);
            let stream = u32::from_be_bytes([s & 0x7f, t, u, v]);
            self.have = 0;
            self.skip = length.into();
            self.data = kind == DATA;
            each(FrameHead { length, kind, flags, stream })?;
        }
    }

    /// Whether a frame may begin here.
    fn between(&self) -> bool {
        self.skip == 0 && self.have == 0
    }
}

/// The watch over one HTTP/2 connection.
#[derive(Debug)]
pub(in crate::accept) struct Http2 {
    budget: Budget,
    came: Frames,
    went: Frames,
    /// A header block has begun and not ended: nothing else may come meanwhile.
    in_block: bool,
    /// How many frames and blocks have come whole, roughly: so that two that are not whole can be told apart.
    frames: u64,
    /// The last stream that the viewer opened.
    last: u32,
    /// Bytes of DATA that went and earned no PING yet.
    sent: u64,
}

impl Http2 {
    pub(in crate::accept) fn new(now: Instant) -> Self {
        Self {
            budget: Budget::new(now),
            came: Frames::new(PREFACE),
            went: Frames::new(0),
            in_block: false,
            frames: 0,
            last: 0,
            sent: 0,
        }
    }

    /// Bytes that came from the viewer.
    pub(in crate::accept) fn came(&mut self, bytes: &[u8], now: Instant) -> Result<(), Glitch> {
        self.budget.refill(now);
        let Self { budget, came, in_block, frames, last, .. } = self;
        came.scan(bytes, |head| {
            *frames += 1;
            match head.kind {
                DATA if head.flags & END_STREAM != 0 || head.length > SMALL => Ok(()),
                DATA if head.length == 0 => budget.take(Glitch::EmptyData, 1),
                DATA => budget.take(Glitch::SmallData, 1),
                HEADERS => {
                    *in_block = head.flags & END_HEADERS == 0;
                    *last = head.stream.max(*last);
                    budget.take(Glitch::HeaderBytes, head.length.into())
                }
                CONTINUATION => {
                    *in_block = head.flags & END_HEADERS == 0;
                    budget.take(Glitch::Continuation, 1)?;
                    budget.take(Glitch::HeaderBytes, head.length.into())
                }
                RST_STREAM => budget.take(Glitch::Reset, 1),
                // A frame may hold thousands of settings.
                SETTINGS => budget.take(Glitch::Settings, 1 + u64::from(head.length) / 256),
                PING => budget.take(Glitch::Ping, 1),
                PRIORITY | PRIORITY_UPDATE => budget.take(Glitch::Priority, 1),
                WINDOW_UPDATE => budget.take(Glitch::Window, 1),
                // The last word, and then no other.
                GOAWAY => budget.take(Glitch::Unknown, 1),
                _ => budget.take(Glitch::Unknown, 1 + u64::from(head.length) / 1024),
            }
        })
    }

    /// Bytes that went to the viewer.
    pub(in crate::accept) fn went<'a>(&mut self, bufs: impl Iterator<Item = &'a [u8]>) -> Result<(), Glitch> {
        let Self { budget, went, sent, .. } = self;
        for bytes in bufs {
            went.scan(bytes, |head| match head.kind {
                DATA => {
                    budget.earn(Glitch::Window, 1 + u64::from(head.length) / 512);
                    // Estimators of bandwidth send one per round trip, at most: 32 KiB are one of 0.1 ms at 2.5 Gbit/s.
                    *sent += u64::from(head.length);
                    budget.earn(Glitch::Ping, *sent / 32_768);
                    *sent %= 32_768;
                    Ok(())
                }
                RST_STREAM => budget.take(Glitch::MadeReset, 1),
                _ => Ok(()),
            })?;
        }
        Ok(())
    }

    /// What the viewer has begun and holds everything else up with: preface, header block, a control frame. With a number
    /// that is its own.
    pub(in crate::accept) fn unfinished(&self) -> Option<u64> {
        let frame = self.came.have > 0 || (self.came.skip > 0 && !self.came.data);
        // A block is one from its first frame to its last.
        (self.in_block || frame).then_some(if self.in_block { u64::MAX } else { self.frames })
    }

    /// `GOAWAY` with `ENHANCE_YOUR_CALM`, if a frame may be written now.
    pub(in crate::accept) fn goaway(&self) -> Option<[u8; 17]> {
        let mut frame = [0, 0, 8, GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xb];
        frame[9..13].copy_from_slice(&self.last.to_be_bytes());
        self.went.between().then_some(frame)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: usize) -> Vec<u8> {
        let mut bytes = u32::try_from(payload).unwrap().to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        // Payloads full of what would be heads, if they were taken for such.
        bytes.extend([0, 0, 0, RST_STREAM, 0, 0, 0, 0, 1].iter().cycle().take(payload));
        bytes
    }

    fn greeted(now: Instant) -> Http2 {
        let mut watch = Http2::new(now);
        watch.came(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", now).unwrap();
        watch.came(&frame(SETTINGS, 0, 0, 18), now).unwrap();
        watch
    }

    /// How many of these in one go are too many, up to a limit.
    fn flood(bytes: &[u8]) -> Option<(usize, Glitch)> {
        let now = Instant::now();
        let mut watch = greeted(now);
        (1..=20_000).find_map(|count| watch.came(bytes, now).err().map(|kind| (count, kind)))
    }

    #[test]
    fn each_flood_ends_at_its_budget() {
        let reset = [frame(HEADERS, 5, 1, 30), frame(RST_STREAM, 0, 1, 4)].concat();
        let block = [frame(HEADERS, 1, 1, 30), frame(CONTINUATION, 0, 1, 0)].concat();
        for (what, bytes, kind, at_most) in [
            ("rapid reset", reset, Glitch::Reset, 401),
            ("settings", frame(SETTINGS, 0, 0, 0), Glitch::Settings, 51),
            ("large settings", frame(SETTINGS, 0, 0, 16_380), Glitch::Settings, 2),
            ("acknowledged settings", frame(SETTINGS, 1, 0, 0), Glitch::Settings, 51),
            ("pings", frame(PING, 0, 0, 8), Glitch::Ping, 401),
            ("priorities", frame(PRIORITY, 0, 1, 5), Glitch::Priority, 2001),
            ("windows", frame(WINDOW_UPDATE, 0, 0, 4), Glitch::Window, 2001),
            ("empty data", frame(DATA, 0, 1, 0), Glitch::EmptyData, 51),
            ("small data", frame(DATA, 0, 1, 1), Glitch::SmallData, 8001),
            ("continuations", block, Glitch::Continuation, 61),
            ("heads", frame(HEADERS, 5, 1, 16_384), Glitch::HeaderBytes, 257),
            ("unknown", frame(0xbe, 0, 1, 8), Glitch::Unknown, 101),
        ] {
            assert_eq!(flood(&bytes).map(|(_, kind)| kind), Some(kind), "{what}");
            let (count, _) = flood(&bytes).unwrap();
            assert!(count <= at_most, "{what}: {count}");
        }
    }

    #[test]
    fn what_ordinary_viewers_send_has_no_end() {
        let request = frame(HEADERS, 5, 1, 200);
        assert_eq!(flood(&request), None, "20 000 requests of 200 bytes are 4 MB");
        assert_eq!(flood(&frame(DATA, 0, 1, 16_384)), None);
        assert_eq!(flood(&frame(DATA, END_STREAM, 1, 0)), None);
    }

    #[test]
    fn a_budget_comes_back_with_time() {
        let mut now = Instant::now();
        let mut watch = greeted(now);
        for _ in 0..60 {
            for _ in 0..90 {
                watch.came(&frame(RST_STREAM, 0, 1, 4), now).unwrap();
            }
            now += Duration::from_secs(1);
        }
    }

    #[test]
    fn who_reads_much_may_acknowledge_much() {
        let now = Instant::now();
        let mut watch = greeted(now);
        let (data, window) = (frame(DATA, 0, 1, 16_384), frame(WINDOW_UPDATE, 0, 1, 4));
        let ping = frame(PING, 0, 0, 8);
        for n in 0..50_000 {
            if n % 2 == 0 {
                watch.came(&ping, now).unwrap();
            }
            watch.went(std::iter::once(data.as_slice())).unwrap();
            for _ in 0..2 {
                watch.came(&window, now).unwrap();
            }
        }
    }

    #[test]
    fn streams_that_a_viewer_makes_us_reset_are_counted() {
        let mut watch = greeted(Instant::now());
        let reset = frame(RST_STREAM, 0, 1, 4);
        let count = (1..1000).find(|_| watch.went([reset.as_slice()].into_iter()).is_err());
        assert_eq!(count, Some(401));
    }

    #[test]
    fn what_is_unfinished_has_a_clock() {
        let now = Instant::now();
        let mut watch = Http2::new(now);
        assert!(watch.unfinished().is_some(), "the preface has not come");
        let mut watch2 = greeted(now);
        assert_eq!(watch2.unfinished(), None);
        watch2.came(&frame(HEADERS, 1, 1, 10), now).unwrap();
        let block = watch2.unfinished();
        assert!(block.is_some());
        watch2.came(&frame(CONTINUATION, 0, 1, 10), now).unwrap();
        assert_eq!(watch2.unfinished(), block, "a block that dribbles is one");
        watch2.came(&frame(CONTINUATION, END_HEADERS, 1, 10), now).unwrap();
        assert_eq!(watch2.unfinished(), None);
        watch2.came(&frame(DATA, 0, 1, 100)[..50], now).unwrap();
        assert_eq!(watch2.unfinished(), None, "an upload may be slow");
        watch.came(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", now).unwrap();
        watch.came(&frame(HEADERS, 5, 1, 100)[..50], now).unwrap();
        assert!(watch.unfinished().is_some());
    }

    #[test]
    fn the_last_word_is_said_between_frames_only() {
        let now = Instant::now();
        let mut watch = greeted(now);
        watch.came(&frame(HEADERS, 5, 7, 3), now).unwrap();
        assert_eq!(watch.goaway().unwrap(), [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 11]);
        let data = frame(DATA, 0, 1, 100);
        watch.went([&data[..20]].into_iter()).unwrap();
        assert_eq!(watch.goaway(), None);
        watch.went([&data[20..]].into_iter()).unwrap();
        assert!(watch.goaway().is_some());
    }

    proptest! {
        #[test]
        fn reads_may_be_cut_anywhere(
            frames in proptest::collection::vec((0_u8..12, any::<u8>(), 0_u32..9, 0_usize..60), 1..40),
            cuts in proptest::collection::vec(1_usize..30, 1..40),
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|&(kind, flags, stream, payload)| frame(kind, flags, stream, payload)).collect();
            let mut seen = Vec::new();
            let mut scanner = Frames::new(0);
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at(rest.len().min(*cut));
                scanner.scan(piece, |head| { seen.push(head); Ok::<_, ()>(()) }).unwrap();
                rest = after;
            }
            let meant: Vec<FrameHead> = frames.iter().map(|&(kind, flags, stream, payload)| FrameHead { length: u32::try_from(payload).unwrap(), kind, flags, stream }).collect();
            prop_assert_eq!(seen, meant);
            prop_assert!(scanner.between());
        }
    }
}
