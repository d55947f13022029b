//! The multiplexer: many streams and a control channel over one ordered byte pipe (native-tunnel s.4).
//!
//! A [`Mux`] is one end of it, without I/O: `now` is an argument, bytes go in by [`Mux::handle`] and come out by
//! [`Mux::poll_transmit`]. Its methods are of four families:
//!
//! * **in**: [`handle`](Mux::handle), [`end_of_message`](Mux::end_of_message), [`handle_timeout`](Mux::handle_timeout).
//!   Each may say that the peer broke a rule ([`Violation`]): then the tunnel is closed with that reason.
//! * **out**: [`poll_transmit`](Mux::poll_transmit) fills a [`Batch`], one WebSocket message;
//!   [`next_timeout`](Mux::next_timeout) says when to call `handle_timeout`.
//! * **what happened**: [`poll`](Mux::poll) gives [`Event`]s for those who were told to wait.
//! * **streams**: `open`, `accept`, `write`, `finish`, `reset`, `read`, `stop`, `set_priority`, `release_*`.
//!
//! # What differs from the page
//!
//! * RESET has flags: [`frame::ABORT`] = I send no more, [`frame::STOP`] = I read no more, neither = both.
//! * Type 7, ACK: `u64`, the bytes of all payloads of OPEN and DATA that came so far. It is sent with every PONG, and with
//!   the first data after 500 ms without one. PING goes out every 5 s, every 500 ms while bytes are not acknowledged:
//!   PINGs that pass while [`acknowledged`](Mux::acknowledged) stands still mean that data is being lost.
//! * The payload of OPEN is the first bytes of the stream; they count as data, for credit and ACK.
//! * Types from 128 on are passed over.
//!
//! # Who may hold what
//!
//! A reader that does not read holds its stream's window, 256 KiB at first. A window doubles while half of it is consumed
//! within a round trip, so up to two to four bandwidth-delay products, at most 8 MiB, as long as all windows together are
//! below the connection's cap, and no further than the cap divided by the streams that receive. It shrinks by withheld
//! credit when there are more of them, and is halved where a reader leaves what came lying for many round trips. A writer
//! holds what it has credit for, at most 256 KiB, less when many write. An idle stream holds no buffer.

mod batch;
pub mod frame;
mod pings;
mod receive;
mod stream;
#[cfg(test)]
mod tests;
mod transmit;
mod violation;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

pub use batch::Batch;
pub use pings::{PING_BUSY, PING_IDLE, SILENCE};
pub use stream::INITIAL_CREDIT;
pub use violation::Violation;

use pings::{Pings, Progress};
use stream::{FRESH, RecvState, SendState, Stream};
use violation::Budgets;

/// Widest window of a stream, bytes: 1 Gbit/s at 64 ms.
pub const MAX_WINDOW: u64 = 8 * 1024 * 1024;

/// Control bytes that wait to be sent, or to be read: two messages of the greatest length.
pub const MAX_CONTROL: usize = 2 * (4 + crate::native::control::MAX_MESSAGE);

/// What one writer may have queued, bytes, and what all may have together as long as each gets its least.
const MOST_QUEUED: usize = 256 * 1024;
const ALL_QUEUED: usize = 1024 * 1024;
const LEAST_QUEUED: usize = 32 * 1024;

/// Round trips for which half a window lies unread before the window is halved: the path fills one in two at most.
const LYING: u32 = 8;

/// Closed streams that are remembered for what the peer may still send on them.
const MAX_CLOSED: usize = 4096;

/// Which end we are: the agent's streams have odd ids, the edge's even ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Agent,
    Edge,
}

/// How an end behaves.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    pub role: Role,
    /// What all windows together may grow to, bytes.
    pub receive_cap: u64,
    /// Streams that the peer may have open at a time.
    pub max_streams: u32,
}

/// A stream's number on the wire. Never used twice on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(u32);

impl StreamId {
    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

/// When a stream's bytes go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Before all others.
    Control,
    /// The beginning of an answer: its first 32 KiB go before bulk. To set it again begins the next answer.
    Fresh,
    /// In turns of 16 KiB.
    Bulk,
}

/// Something that somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// [`Mux::accept`] has a stream.
    Opened,
    /// [`Mux::read`] had said [`Read::Blocked`] and would not now.
    Readable(StreamId),
    /// [`Mux::write`] had taken nothing and would now, or fail.
    Writable(StreamId),
    /// Nothing more of this stream is to be sent: [`Mux::sent`] says why.
    Sent(StreamId),
    /// [`Mux::read_control`] had nothing and has now.
    ControlReadable,
    /// [`Mux::write_control`] had taken nothing and would now.
    ControlWritable,
}

/// What a reader gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    Data(Bytes),
    /// Nothing yet: [`Event::Readable`] follows.
    Blocked,
    /// All was read.
    End,
}

/// How our direction of a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Whole, its end included.
    Whole,
    /// We reset it.
    Reset,
    /// The peer reads no more, with its code.
    Stopped(u16),
}

/// Why nothing more can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("peer reset the stream with code {0}")]
    Reset(u16),
    #[error("stream was stopped by us, or is unknown")]
    Closed,
}

/// Why nothing more can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("peer stopped the stream with code {0}")]
    Stopped(u16),
    #[error("stream was finished or reset by us, or is unknown")]
    Closed,
}

/// One end of a multiplexed connection.
#[derive(Debug)]
pub struct Mux {
    max_streams: u32,
    receive_cap: u64,
    streams: HashMap<StreamId, Stream>,
    next_local: u32,
    last_remote: u32,
    /// Streams of the peer's that have not ended.
    remote_open: u32,
    accepting: VecDeque<StreamId>,
    closed: HashMap<StreamId, Closed>,
    events: VecDeque<Event>,
    pings: Pings,
    progress: Progress,
    budgets: Budgets,

    /// The beginning of a frame whose rest has not come.
    partial: BytesMut,
    /// Counts calls of `handle`.
    batch: u64,
    /// Bytes of payloads of OPEN and DATA.
    arrived: u64,
    acked_at: Instant,
    control_in: BytesMut,
    control_reader_waits: bool,
    /// Streams whose direction to us is open, and their windows together.
    receiving: u64,
    windows: u64,

    control_out: BytesMut,
    control_writer_waits: bool,
    pongs: VecDeque<[u8; 8]>,
    ack_due: bool,
    ping_due: bool,
    opens: VecDeque<StreamId>,
    resets: VecDeque<StreamId>,
    credits: VecDeque<StreamId>,
    lanes: [VecDeque<StreamId>; 3],
    /// Streams that have bytes queued.
    writing: usize,
}

/// A stream that we have stopped reading and forgotten.
#[derive(Debug, Clone, Copy)]
struct Closed {
    /// Bytes that the peer may still send: what it had credit for when it did not know yet.
    credit: u64,
    /// The answer to this PING, or a later one, comes after everything that the peer sent before it knew.
    until_pong: u64,
}

impl Mux {
    pub fn new(config: Config, now: Instant) -> Self {
        Self {
            max_streams: config.max_streams,
            receive_cap: config.receive_cap,
            streams: HashMap::new(),
            next_local: match config.role {
                Role::Agent => 1,
                Role::Edge => 2,
            },
            last_remote: 0,
            remote_open: 0,
            accepting: VecDeque::new(),
            closed: HashMap::new(),
            events: VecDeque::new(),
            pings: Pings::new(now),
            progress: Progress::default(),
            budgets: Budgets::new(now),
            partial: BytesMut::new(),
            batch: 0,
            arrived: 0,
            acked_at: now,
            control_in: BytesMut::new(),
            control_reader_waits: false,
            receiving: 0,
            windows: 0,
            control_out: BytesMut::new(),
            control_writer_waits: false,
            pongs: VecDeque::new(),
            ack_due: false,
            ping_due: false,
            opens: VecDeque::new(),
            resets: VecDeque::new(),
            credits: VecDeque::new(),
            lanes: Default::default(),
            writing: 0,
        }
    }

    /// The next event.
    pub fn poll(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if event.is_none() && self.events.capacity() > 0 {
            self.events = VecDeque::new();
        }
        event
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn next_timeout(&self) -> Instant {
        let dead = self.pings.dead_at();
        match self.pings.due(self.outstanding() > 0) {
            Some(due) if !self.ping_due => due.min(dead),
            _ => dead,
        }
    }

    /// A time has come.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), Violation> {
        if now >= self.pings.dead_at() {
            return Err(Violation::Silent);
        }
        self.ping_due |= self.pings.due(self.outstanding() > 0).is_some_and(|due| due <= now);
        Ok(())
    }

    /// The last round trip, where one is known.
    pub fn rtt(&self) -> Option<Duration> {
        self.pings.latest()
    }

    /// Bytes of streams that were sent and are not acknowledged.
    pub fn outstanding(&self) -> u64 {
        self.progress.outstanding()
    }

    /// Bytes of streams that the peer has.
    pub fn acknowledged(&self) -> u64 {
        self.progress.acknowledged()
    }

    /// Streams that somebody holds, or that have not ended.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Changes what all windows together may grow to, bytes.
    pub fn set_receive_cap(&mut self, bytes: u64) {
        self.receive_cap = bytes;
    }

    /// Changes how many streams the peer may have open at a time.
    pub fn set_max_streams(&mut self, count: u32) {
        self.max_streams = count;
    }

    /// Opens a stream. The peer hears of it with the next batch; what was written until then goes with it. `None` when
    /// all two thousand million ids are used up.
    pub fn open(&mut self, now: Instant) -> Option<StreamId> {
        let id = StreamId(self.next_local);
        self.next_local = self.next_local.checked_add(2)?;
        self.insert(id, Stream::new(true, now));
        self.opens.push_back(id);
        Some(id)
    }

    /// A stream that the peer opened.
    pub fn accept(&mut self) -> Option<StreamId> {
        self.accepting.pop_front()
    }

    /// Queues as much of `bytes` as there is room for and takes it off. When that is nothing, [`Event::Writable`] follows.
    pub fn write(&mut self, id: StreamId, bytes: &mut Bytes) -> Result<usize, WriteError> {
        let most = self.most_queued();
        let send = &mut self.streams.get_mut(&id).ok_or(WriteError::Closed)?.send;
        match send.state {
            SendState::Open => {}
            SendState::Stopped(code) => return Err(WriteError::Stopped(code)),
            _ => return Err(WriteError::Closed),
        }
        let length = send.room(most).min(bytes.len());
        if length == 0 {
            send.waiting = !bytes.is_empty();
            return Ok(0);
        }
        self.writing += usize::from(send.queued == 0);
        send.push(bytes.split_to(length));
        self.enqueue(id);
        Ok(length)
    }

    /// Ends our direction after what was written.
    pub fn finish(&mut self, id: StreamId) -> Result<(), WriteError> {
        let stream = self.streams.get_mut(&id).ok_or(WriteError::Closed)?;
        match stream.send.state {
            SendState::Open => stream.send.state = SendState::Finishing,
            SendState::Stopped(code) => return Err(WriteError::Stopped(code)),
            _ => return Err(WriteError::Closed),
        }
        self.enqueue(id);
        Ok(())
    }

    /// Ends our direction at once. Nothing happens when its end was sent already.
    pub fn reset(&mut self, id: StreamId, code: u16) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !matches!(stream.send.state, SendState::Open | SendState::Finishing) {
            return;
        }
        self.writing -= usize::from(stream.send.queued > 0);
        stream.send.cut(SendState::Reset);
        stream.abort = Some(code);
        self.resets.push_back(id);
        self.events.push_back(Event::Sent(id));
        self.settle(id);
    }

    /// Reads no more. Nothing is said to a peer whose direction has ended.
    pub fn stop(&mut self, id: StreamId, code: u16) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.recv.state == RecvState::Open {
            stream.recv.cut(RecvState::Stopped);
            stream.stop = Some(code);
            self.windows -= stream.recv.window;
            self.receiving -= 1;
            self.resets.push_back(id);
        } else {
            let state = stream.recv.state;
            stream.recv.cut(state);
        }
        self.settle(id);
    }

    /// When this stream's bytes go out.
    pub fn set_priority(&mut self, id: StreamId, priority: Priority) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.send.priority = priority;
        if priority == Priority::Fresh {
            stream.send.fresh = FRESH;
        }
        if let Some(lane) = stream.send.lane
            && stream.lane() != Some(lane)
        {
            stream.send.lane = None;
            self.lanes[lane as usize].retain(|other| *other != id);
        }
        self.enqueue(id);
    }

    /// Reads up to `most` bytes (at least one), which gives the peer credit.
    pub fn read(&mut self, id: StreamId, most: usize, now: Instant) -> Result<Read, ReadError> {
        let recv = &mut self.streams.get_mut(&id).ok_or(ReadError::Closed)?.recv;
        if let Some(bytes) = recv.take(most.max(1)) {
            if recv.state == RecvState::Open {
                self.grant(id, now);
            }
            return Ok(Read::Data(bytes));
        }
        match recv.state {
            RecvState::Open => {
                recv.waiting = true;
                Ok(Read::Blocked)
            }
            RecvState::Ended => Ok(Read::End),
            RecvState::Reset(code) => Err(ReadError::Reset(code)),
            RecvState::Stopped => Err(ReadError::Closed),
        }
    }

    /// How our direction ended; `None` while it has not. Of a stream that is forgotten, all was sent.
    pub fn sent(&self, id: StreamId) -> Option<Sent> {
        match self.streams.get(&id).map(|stream| stream.send.state) {
            Some(SendState::Open | SendState::Finishing) => None,
            Some(SendState::Finished) | None => Some(Sent::Whole),
            Some(SendState::Reset) => Some(Sent::Reset),
            Some(SendState::Stopped(code)) => Some(Sent::Stopped(code)),
        }
    }

    /// Nobody writes to this stream any more: it is finished if it was not.
    pub fn release_send(&mut self, id: StreamId) {
        let _ = self.finish(id);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.send.released = true;
            self.settle(id);
        }
    }

    /// Nobody reads this stream any more: it is stopped if it has not ended.
    pub fn release_recv(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.recv.released = true;
            self.stop(id, 0);
        }
    }

    /// Queues control bytes; how many were taken. When that is none, [`Event::ControlWritable`] follows.
    pub fn write_control(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(MAX_CONTROL - self.control_out.len());
        self.control_out.extend_from_slice(&bytes[..taken]);
        self.control_writer_waits = taken == 0 && !bytes.is_empty();
        taken
    }

    /// Reads up to `most` control bytes. When there are none, [`Event::ControlReadable`] follows.
    pub fn read_control(&mut self, most: usize) -> Option<Bytes> {
        if self.control_in.is_empty() {
            self.control_in = BytesMut::new();
            self.control_reader_waits = true;
            return None;
        }
        Some(self.control_in.split_to(most.min(self.control_in.len())).freeze())
    }

    fn insert(&mut self, id: StreamId, stream: Stream) {
        self.windows += stream.recv.window;
        self.receiving += 1;
        self.streams.insert(id, stream);
    }

    /// What one writer may have queued now, bytes.
    fn most_queued(&self) -> usize {
        (ALL_QUEUED / self.writing.max(1)).clamp(LEAST_QUEUED, MOST_QUEUED)
    }

    /// Puts a stream where it waits to send DATA, if it has any to send.
    fn enqueue(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.send.lane.is_some() {
            return;
        }
        if let Some(lane) = stream.lane() {
            stream.send.lane = Some(lane);
            self.lanes[lane as usize].push_back(id);
        }
    }

    /// Forgets a stream once it has ended and nobody holds it.
    fn settle(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let unheard =
            stream.unopened && stream.send.state == SendState::Reset && stream.recv.state == RecvState::Stopped;
        if unheard {
            // The peer has never heard of it and need not.
            stream.abort = None;
            stream.stop = None;
        }
        if !stream.ended() {
            return;
        }
        if std::mem::take(&mut stream.counted) {
            self.remote_open -= 1;
        }
        if !stream.released() {
            return;
        }
        let recv = &stream.recv;
        if recv.state == RecvState::Stopped && !recv.silent && !unheard && self.closed.len() < MAX_CLOSED {
            let credit = recv.granted - recv.received;
            self.closed.insert(id, Closed { credit, until_pong: self.pings.next_number() });
            // Many at once: ask now for the answer after which they can be forgotten.
            self.ping_due |= self.closed.len().is_multiple_of(MAX_CLOSED / 4);
        }
        self.streams.remove(&id);
        if self.streams.is_empty() && self.streams.capacity() > 64 {
            self.streams = HashMap::new();
        }
    }

    /// Gives the peer credit for what was read, in steps of half a window.
    fn grant(&mut self, id: StreamId, now: Instant) {
        let fair = MAX_WINDOW.min(self.receive_cap / self.receiving.max(1)).max(INITIAL_CREDIT);
        let trip = self.pings.least();
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let recv = &mut stream.recv;
        if recv.window > fair {
            self.windows -= recv.window - fair;
            recv.window = fair;
        }
        let ahead = recv.granted - recv.consumed;
        if ahead > recv.window / 2 {
            return;
        }
        let took = now.saturating_duration_since(recv.granted_at);
        let wider = (recv.window * 2).min(fair);
        let fits = self.windows + (wider - recv.window) <= self.receive_cap;
        // Half of what the peer could send on is here and was not waited for: the reader is the slow one.
        let lies = recv.unread as u64 >= recv.window / 4;
        match trip {
            Some(trip) if took < trip && fits => {
                self.windows += wider - recv.window;
                recv.window = wider;
            }
            Some(trip) if took > LYING * trip && lies => {
                let narrower = (recv.window / 2).max(INITIAL_CREDIT.min(recv.window));
                self.windows -= recv.window - narrower;
                recv.window = narrower;
            }
            _ => {}
        }
        let grant = recv.window.saturating_sub(ahead);
        if grant == 0 {
            return;
        }
        if recv.grant == 0 {
            self.credits.push_back(id);
        }
        recv.grant += grant as u32;
        recv.granted += grant;
        recv.granted_at = now;
    }

    /// Whether an id is one of ours, by its parity.
    fn is_ours(&self, id: StreamId) -> bool {
        id.0 % 2 == self.next_local % 2
    }

    /// Whether there was a stream of this id and is none now.
    fn is_past(&self, id: StreamId) -> bool {
        let begun = if self.is_ours(id) { id.0 < self.next_local } else { id.0 <= self.last_remote };
        begun && !self.streams.contains_key(&id)
    }
}
