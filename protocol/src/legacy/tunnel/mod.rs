//! The life of one legacy tunnel, without I/O: `now` is an argument, pieces of WebSocket messages go in by
//! [`Tunnel::receive`] and bytes for the socket come out by [`Tunnel::transmit`]. Its methods are of four families:
//!
//! * **in**: `receive`, `on_time`. Each may say that the server broke a rule ([`Violation`]): the driver closes the socket
//!   with its close code, and calls [`Tunnel::close`]. While [`Tunnel::wants_input`] is false nothing more is read.
//! * **out**: `transmit` fills a [`Batch`]; [`Tunnel::deadline`] says when to call `on_time`.
//! * **what happened**: [`Tunnel::next_event`] gives [`Event`]s: the HELLO, and for those who were told to wait.
//! * **streams**, which are requests or raw channels: `request`, `connect`, `write`, `finish`, `head`, `read`, `release`.
//!
//! # Stages
//!
//! HELLO is awaited for 10 s. The driver verifies its token and [`accept`](Tunnel::accept)s; no frame is heard or said
//! before. From then on there are only frames. [`drain`](Tunnel::drain) lets what is under way end, for a while.
//!
//! # Who may hold what
//!
//! The wire has no windows: a server sends an answer as fast as TCP takes it, so an answer whose viewer is slower fills its
//! queue here. At its budget it pauses the reading of the whole tunnel. If others wait meanwhile, that lasts at most
//! [`Config::pause`], then that answer alone fails and the others go on; an answer that is alone may hold the tunnel for as
//! long as its viewer bears. A queue goes over its budget by what the driver had read when the pause began, one block.
//! Queues are made of slices of the blocks that were read. A stream keeps at most 4 of these alive, and 16 streams of a
//! tunnel may; other bytes are copied.
//!
//! What goes to the server is queued up to [`Config::upload_queue`]; writers wait for room. Control frames go before
//! streams, streams take turns of a frame each.

mod batch;
mod fairness;
mod incoming;
mod outgoing;
mod receive;
mod stream;
mod streams;
#[cfg(test)]
mod tests;
mod timers;
mod transmit;
mod types;
mod violation;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::frame::Decoder;
use super::handshake::HelloAck;

pub use batch::Batch;
pub use types::{Config, Counts, Event, Failure, OpenError, Read, RequestBody, StreamId, WriteError};
pub use violation::Violation;

use fairness::Fairness;
use receive::Inbound;
use stream::Stream;
use types::FIRST_REQUEST;
use violation::Budgets;

#[derive(Debug)]
enum Stage {
    Hello { until: Instant, text: BytesMut },
    Verifying { until: Instant },
    Open,
    Draining { until: Instant, told: bool },
    Closed,
}

/// One server's tunnel.
#[derive(Debug)]
pub struct Tunnel {
    config: Config,
    stage: Stage,
    streams: HashMap<StreamId, Stream>,
    channels: usize,
    next_request: u32,
    /// All ids of requests were given out once.
    wrapped: bool,
    next_channel: u32,
    events: VecDeque<Event>,
    counts: Counts,
    budgets: Budgets,
    fairness: Fairness,

    decoder: Decoder,
    inbound: Inbound,
    /// The beginning of an answer's head whose rest has not come.
    head: BytesMut,
    frames_in_message: u32,
    bytes_in: u64,
    heard: Instant,

    /// The answer to HELLO, until it is sent.
    ack: Option<Vec<u8>>,
    control: VecDeque<transmit::Control>,
    /// Whose turn it is to send.
    ready: VecDeque<StreamId>,
    /// Bytes of requests and channels that wait to be sent, and streams that have some.
    uploading: usize,
    writers: usize,
    spoke: Instant,
    ping_due: bool,
    heartbeat_at: Instant,
    heartbeat_due: bool,
    channels_at: Option<Instant>,
}

impl Tunnel {
    /// After the WebSocket handshake.
    pub fn new(config: Config, now: Instant) -> Self {
        Self {
            config,
            stage: Stage::Hello { until: now + config.hello, text: BytesMut::new() },
            streams: HashMap::new(),
            channels: 0,
            next_request: FIRST_REQUEST,
            wrapped: false,
            next_channel: 1,
            events: VecDeque::new(),
            counts: Counts::default(),
            budgets: Budgets::new(now),
            fairness: Fairness::default(),
            decoder: Decoder::new(),
            inbound: Inbound::Skip,
            head: BytesMut::new(),
            frames_in_message: 0,
            bytes_in: 0,
            heard: now,
            ack: None,
            control: VecDeque::new(),
            ready: VecDeque::new(),
            uploading: 0,
            writers: 0,
            spoke: now,
            ping_due: false,
            heartbeat_at: now,
            heartbeat_due: false,
            channels_at: None,
        }
    }

    /// The next event.
    pub fn next_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if event.is_none() && self.events.capacity() > 0 {
            self.events = VecDeque::new();
        }
        event
    }

    /// The HELLO is good. Nothing happens in another stage.
    pub fn accept(&mut self, ack: &HelloAck<'_>, now: Instant) {
        if matches!(self.stage, Stage::Verifying { .. }) {
            self.stage = Stage::Open;
            self.ack = Some(ack.encode());
            self.heard = now;
            self.spoke = now;
            self.heartbeat_at = now + self.config.heartbeat;
        }
    }

    /// No new streams; [`Event::Drained`] when none is left that waits for the server, or after `grace`.
    pub fn drain(&mut self, grace: Duration, now: Instant) {
        if matches!(self.stage, Stage::Open) {
            self.stage = Stage::Draining { until: now + grace, told: false };
            self.check_drained();
            if grace.is_zero() {
                self.tell_drained();
            }
        }
    }

    /// The socket is gone, or is being closed. What has come can still be read; the rest is [`Failure::Lost`].
    pub fn close(&mut self, now: Instant) {
        self.stage = Stage::Closed;
        let open: Vec<_> =
            self.streams.iter().filter(|(_, stream)| stream.answer.is_none()).map(|(id, _)| *id).collect();
        for id in open {
            self.end(id, Err(Failure::Lost), false, now);
        }
        let lingering: Vec<_> = self.streams.iter().filter(|(_, stream)| stream.released).map(|(id, _)| *id).collect();
        for id in lingering {
            self.cut_outgoing(id);
            self.remove(id);
        }
        self.ack = None;
        self.control = VecDeque::new();
        self.head = BytesMut::new();
    }

    /// Whether streams can begin.
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open)
    }

    /// Requests that somebody holds.
    pub fn requests(&self) -> usize {
        self.streams.len() - self.channels
    }

    /// Raw channels that somebody holds, or whose last bytes wait to be sent.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Bytes that viewers have not taken.
    pub fn queued(&self) -> usize {
        self.fairness.queued()
    }

    /// Bytes that wait to be sent to the server.
    pub fn uploading(&self) -> usize {
        self.uploading
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn check_drained(&mut self) {
        if self.fairness.receiving() == 0 && self.writers == 0 {
            self.tell_drained();
        }
    }

    fn tell_drained(&mut self) {
        if let Stage::Draining { told, .. } = &mut self.stage
            && !std::mem::replace(told, true)
        {
            self.events.push_back(Event::Drained);
        }
    }
}
