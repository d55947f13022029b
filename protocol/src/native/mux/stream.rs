//! One stream: what waits to be sent, what waits to be read, and how each direction stands.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::Priority;

/// What each side may send before any CREDIT, bytes.
//= native-tunnel s.4
pub const INITIAL_CREDIT: u64 = 256 * 1024;

/// A stream whose answer is shorter than this goes before longer ones, bytes.
pub(super) const FRESH: u32 = 32 * 1024;

/// Payloads below this are copied: a slice would keep a whole read block alive.
const COPY_BELOW: usize = 1024;

/// A copied stretch of unread bytes is at most so long.
const TAIL: usize = 64 * 1024;

/// Room for which a writer is woken while others of its bytes wait, bytes.
const WORTH_WAKING: usize = 16 * 1024;

/// Which of the sender's queues a stream waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Control,
    Fresh,
    Bulk,
}

/// Both directions.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) send: SendHalf,
    pub(super) recv: RecvHalf,
    /// We opened it, and the peer does not know yet.
    pub(super) unopened: bool,
    /// The peer opened it, and it counts against the peer's limit.
    pub(super) counted: bool,
    /// RESETs that wait to be sent, with their codes.
    pub(super) abort: Option<u16>,
    pub(super) stop: Option<u16>,
}

impl Stream {
    pub(super) fn new(unopened: bool, now: Instant) -> Self {
        Self { send: SendHalf::new(), recv: RecvHalf::new(now), unopened, counted: !unopened, abort: None, stop: None }
    }

    /// Whether both directions have ended, as far as the peer is told.
    pub(super) fn ended(&self) -> bool {
        !matches!(self.send.state, SendState::Open | SendState::Finishing)
            && self.recv.state != RecvState::Open
            && self.abort.is_none()
            && self.stop.is_none()
    }

    /// Whether nobody asks for it any more.
    pub(super) fn released(&self) -> bool {
        self.send.released && self.recv.released
    }

    /// Where it would wait to send DATA; `None` when it has nothing to say, or may not say it.
    pub(super) fn lane(&self) -> Option<Lane> {
        let send = &self.send;
        let speaks = match send.state {
            SendState::Open => send.queued > 0 && send.credit > 0,
            SendState::Finishing => send.queued == 0 || send.credit > 0,
            _ => false,
        };
        if self.unopened || !speaks {
            return None;
        }
        Some(match send.priority {
            Priority::Control => Lane::Control,
            Priority::Fresh if send.fresh > 0 => Lane::Fresh,
            _ => Lane::Bulk,
        })
    }
}

/// How the direction from us stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendState {
    Open,
    /// The end is to be sent after what is queued.
    Finishing,
    Finished,
    /// By us.
    Reset,
    /// By the peer, with its code.
    Stopped(u16),
}

#[derive(Debug)]
pub(super) struct SendHalf {
    pub(super) state: SendState,
    queue: VecDeque<Bytes>,
    /// Bytes in `queue`.
    pub(super) queued: usize,
    /// What the peer takes, bytes; those in `queue` are part of it.
    pub(super) credit: u64,
    pub(super) priority: Priority,
    /// Bytes of the present answer that go before bulk.
    pub(super) fresh: u32,
    pub(super) lane: Option<Lane>,
    /// A writer was told to wait.
    pub(super) waiting: bool,
    pub(super) released: bool,
}

impl SendHalf {
    fn new() -> Self {
        Self {
            state: SendState::Open,
            queue: VecDeque::new(),
            queued: 0,
            credit: INITIAL_CREDIT,
            priority: Priority::Fresh,
            fresh: FRESH,
            lane: None,
            waiting: false,
            released: false,
        }
    }

    /// How many more bytes may be queued: what can't be sent for want of credit stays with the writer.
    pub(super) fn room(&self, most: usize) -> usize {
        usize::try_from(self.credit).unwrap_or(usize::MAX).min(most).saturating_sub(self.queued)
    }

    /// Whether it is worth waking a writer that was told to wait.
    pub(super) fn wants_writer(&self, most: usize) -> bool {
        let room = self.room(most);
        room > 0 && (self.queued == 0 || room >= WORTH_WAKING)
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        self.queued += bytes.len();
        self.queue.push_back(bytes);
    }

    /// How many bytes the next frame has, of at most `most`.
    pub(super) fn next_length(&self, most: usize) -> usize {
        self.queued.min(most).min(usize::try_from(self.credit).unwrap_or(usize::MAX))
    }

    /// Takes up to `length` bytes off the queue's front as one slice; fewer where a slice ends.
    pub(super) fn take(&mut self, length: usize) -> Bytes {
        let Some(front) = self.queue.front_mut() else { return Bytes::new() };
        let piece =
            if front.len() > length { front.split_to(length) } else { self.queue.pop_front().expect("it has a front") };
        self.queued -= piece.len();
        self.credit -= piece.len() as u64;
        self.fresh = self.fresh.saturating_sub(piece.len() as u32);
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        piece
    }

    /// The length of the slice at the queue's front.
    pub(super) fn front_length(&self) -> usize {
        self.queue.front().map_or(0, Bytes::len)
    }

    /// Ends at once; what was queued is void.
    pub(super) fn cut(&mut self, state: SendState) {
        self.state = state;
        self.queue = VecDeque::new();
        self.queued = 0;
    }
}

/// How the direction to us stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecvState {
    Open,
    /// The peer's end came; what is unread is good.
    Ended,
    /// By the peer, with its code.
    Reset(u16),
    /// By us: what comes is dropped.
    Stopped,
}

#[derive(Debug)]
pub(super) struct RecvHalf {
    pub(super) state: RecvState,
    /// The peer sends nothing more, however the state came about.
    pub(super) silent: bool,
    queue: VecDeque<Bytes>,
    /// Unread bytes after `queue`, copied.
    tail: BytesMut,
    pub(super) unread: usize,
    /// The batch in which the first unread byte came.
    since: u64,
    /// A reader waited for that byte.
    awaited: bool,
    /// `queue` has slices of a block that was read.
    sliced: bool,
    /// All bytes that came.
    pub(super) received: u64,
    /// All bytes that were read.
    pub(super) consumed: u64,
    /// All bytes that the peer may send.
    pub(super) granted: u64,
    /// How far `granted` may be ahead of `consumed`.
    pub(super) window: u64,
    pub(super) granted_at: Instant,
    /// CREDIT that waits to be sent.
    pub(super) grant: u32,
    /// A reader was told to wait.
    pub(super) waiting: bool,
    pub(super) released: bool,
}

impl RecvHalf {
    fn new(now: Instant) -> Self {
        Self {
            state: RecvState::Open,
            silent: false,
            queue: VecDeque::new(),
            tail: BytesMut::new(),
            unread: 0,
            since: 0,
            awaited: false,
            sliced: false,
            received: 0,
            consumed: 0,
            granted: INITIAL_CREDIT,
            window: INITIAL_CREDIT,
            granted_at: now,
            grant: 0,
            waiting: false,
            released: false,
        }
    }

    /// Adds bytes that came in a batch. They are slices of a block that was read, and keep it alive: so a reader that does
    /// not wait for them, or is behind by a batch, gets copies.
    pub(super) fn push(&mut self, bytes: Bytes, batch: u64) {
        if bytes.is_empty() {
            return;
        }
        if self.unread == 0 {
            self.since = batch;
            self.awaited = self.waiting;
            self.sliced = false;
        }
        if self.sliced && self.since != batch {
            self.let_go_of_blocks();
        }
        self.unread += bytes.len();
        let copied = bytes.len() < COPY_BELOW || self.since != batch || !self.awaited;
        if !self.tail.is_empty() && (!copied || self.tail.len() + bytes.len() > TAIL) {
            self.queue.push_back(std::mem::take(&mut self.tail).freeze());
        }
        if copied {
            self.tail.extend_from_slice(&bytes);
        } else {
            self.sliced = true;
            self.queue.push_back(bytes);
        }
    }

    /// Copies what is queued.
    fn let_go_of_blocks(&mut self) {
        self.sliced = false;
        for bytes in &mut self.queue {
            *bytes = Bytes::copy_from_slice(bytes);
        }
    }

    /// Takes the next unread bytes, at most `most`, which is not 0.
    pub(super) fn take(&mut self, most: usize) -> Option<Bytes> {
        if self.unread == 0 {
            return None;
        }
        if self.queue.is_empty() {
            self.queue.push_back(std::mem::take(&mut self.tail).freeze());
        }
        let front = self.queue.front_mut()?;
        let piece = if front.len() > most { front.split_to(most) } else { self.queue.pop_front()? };
        if self.queue.is_empty() && self.tail.is_empty() {
            self.queue = VecDeque::new();
        }
        self.unread -= piece.len();
        self.consumed += piece.len() as u64;
        Some(piece)
    }

    /// Ends at once; what is unread is void.
    pub(super) fn cut(&mut self, state: RecvState) {
        self.state = state;
        self.queue = VecDeque::new();
        self.tail = BytesMut::new();
        self.unread = 0;
        self.grant = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_does_not_wait_or_is_behind_holds_its_bytes_and_not_the_block_they_came_in() {
        let block = Bytes::from(vec![7; 256 * 1024]);
        let piece = || block.slice(..16 * 1024);
        let read = |recv: &mut RecvHalf| std::iter::from_fn(|| recv.take(usize::MAX)).map(|b| b.len()).sum::<usize>();

        let mut busy = RecvHalf::new(Instant::now());
        busy.push(piece(), 1);
        assert!(block.is_unique(), "nobody waited");
        assert_eq!(read(&mut busy), 16 * 1024);

        let mut waits = RecvHalf::new(Instant::now());
        waits.waiting = true;
        waits.push(piece(), 1);
        waits.push(piece(), 1);
        assert!(!block.is_unique(), "what will be read at once is not copied");
        waits.push(piece(), 2);
        assert!(block.is_unique(), "it was not read at once");
        assert_eq!(read(&mut waits), 48 * 1024);
    }
}
