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
mod timers;
mod transmit;
mod violation;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use super::channel;
use super::frame::Decoder;
use super::handshake::{Hello, HelloAck};
use super::http::{EncodedHead, HeadError, MAX_REQUEST_BODY, ResponseHead};

pub use batch::Batch;
pub use violation::Violation;

use fairness::Fairness;
use outgoing::Outgoing;
use receive::Inbound;
use stream::{Nature, Stream};
use violation::Budgets;

/// What a tunnel may take, and when it does what.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// From the upgrade to a verified HELLO.
    pub hello: Duration,
    /// Between our HEARTBEATs.
    //= legacy-relay-wire s.4: every 30 s, all active tunnels
    pub heartbeat: Duration,
    /// Without a byte from the server for so long, it is gone.
    //= legacy-relay-wire s.4: close when nothing inbound for > 90 s
    pub silence: Duration,
    /// A WebSocket ping goes out when nothing else did for so long: a server that vanished is noticed by TCP's time-out of
    /// what it has not acknowledged.
    pub ping: Duration,
    /// How long one answer may keep others waiting.
    pub pause: Duration,
    /// A raw channel on which nothing moves ends: its server does not say that it ended.
    pub channel_idle: Duration,
    /// Bytes of one answer that its viewer has not taken.
    pub stream_queue: usize,
    /// Bytes of all answers together.
    pub tunnel_queue: usize,
    /// Bytes of one request that wait to be sent.
    pub upload_queue: usize,
    /// Bytes of all requests together, as long as each gets its 64 KiB.
    pub upload_total: usize,
    /// Requests at a time.
    pub max_requests: usize,
    /// Raw channels at a time.
    pub max_channels: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hello: Duration::from_secs(10),
            heartbeat: Duration::from_secs(30),
            silence: Duration::from_secs(90),
            ping: Duration::from_secs(5),
            pause: Duration::from_secs(1),
            channel_idle: Duration::from_secs(300),
            stream_queue: 256 * 1024,
            tunnel_queue: 16 * 1024 * 1024,
            upload_queue: 256 * 1024,
            upload_total: 4 * 1024 * 1024,
            max_requests: 1024,
            max_channels: 256,
        }
    }
}

/// A request's or a raw channel's number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(u32);

/// The least id of a request; channels are below.
//= legacy-relay-wire s.2.2: hub counter from 0x80000001 to 0xFFFFFFFF, then back to 0x80000001
const FIRST_REQUEST: u32 = 0x8000_0001;

impl StreamId {
    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }

    /// Whether it is a request, or else a raw channel.
    pub fn is_request(self) -> bool {
        self.0 >= FIRST_REQUEST
    }
}

/// Something to see to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// To be verified, then [`Tunnel::accept`].
    Hello(Hello),
    /// [`Tunnel::head`] or [`Tunnel::read`] had nothing and has now.
    Readable(StreamId),
    /// [`Tunnel::write`] had taken nothing and would now, or fail.
    Writable(StreamId),
    /// After [`Tunnel::drain`]: nothing is under way any more, or the grace is over.
    Drained,
}

/// A request's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestBody {
    /// All of it: in the envelope where it fits.
    Whole(Bytes),
    /// It comes by [`Tunnel::write`] and [`Tunnel::finish`].
    Stream { length: Option<u64> },
}

/// Why a stream can't begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("tunnel is not open")]
    NotOpen,
    #[error("tunnel is being drained")]
    Draining,
    #[error("too many streams on this tunnel")]
    TooMany,
    #[error("body is longer than the 25 MiB that a server takes")]
    TooLong,
}

/// Why nothing more can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("stream is finished, failed or unknown")]
    Closed,
    #[error("the server has answered and waits for no more")]
    Answered,
    #[error("body is longer than the 25 MiB that a server takes")]
    TooLong,
}

/// Why an answer is not whole, or a channel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("answer ended without a head")]
    NoHead,
    #[error("answer's head is bad")]
    BadHead(#[from] HeadError),
    #[error("answer has two heads")]
    SecondHead,
    #[error("answer has an untagged or oddly tagged frame")]
    BadFrame,
    #[error("server cancelled the answer before its end")]
    Cancelled,
    #[error("answer is longer than it promised")]
    TooLong,
    #[error("answer is shorter than it promised")]
    Short,
    #[error("viewer took too little while others waited")]
    Stalled,
    #[error("nothing moved on the channel for too long")]
    Idle,
    #[error("tunnel is gone")]
    Lost,
}

/// What a reader gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    Data(Bytes),
    /// Nothing yet: [`Event::Readable`] follows.
    Blocked,
    /// All was read.
    End,
    /// What came before the failure was read, where it was kept.
    Failed(Failure),
}

/// What was counted since the tunnel began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub frames_in: u64,
    pub frames_out: u64,
    /// Of ids that nobody waits for.
    pub dropped_frames: u64,
    pub dropped_bytes: u64,
    /// Header fields of answers that HTTP can't have, or that were said twice.
    pub skipped_fields: u64,
    /// How often reading was paused.
    pub pauses: u64,
    /// Streams that failed because their viewers took too little.
    pub stalled: u64,
}

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

    /// Asks for something. The stream must be [`release`](Self::release)d, however it ends.
    pub fn request(&mut self, head: &EncodedHead, body: RequestBody) -> Result<StreamId, OpenError> {
        self.may_open()?;
        if self.streams.len() - self.channels >= self.config.max_requests {
            return Err(OpenError::TooMany);
        }
        let length = match &body {
            RequestBody::Whole(bytes) => Some(bytes.len() as u64),
            RequestBody::Stream { length } => *length,
        };
        if length.is_some_and(|length| length > MAX_REQUEST_BODY) {
            return Err(OpenError::TooLong);
        }
        let outgoing = match body {
            RequestBody::Whole(bytes) => match head.envelope(&bytes) {
                Some(envelope) => Outgoing::envelope(envelope),
                None => Outgoing::whole(head.chunk(length), bytes),
            },
            RequestBody::Stream { .. } => Outgoing::chunked(head.chunk(length)),
        };
        self.uploading += outgoing.queued;
        self.writers += usize::from(outgoing.queued > 0);
        let id = self.next_request();
        self.insert(id, Stream::new(Nature::request(head.bodiless()), outgoing));
        self.enqueue(id);
        Ok(id)
    }

    /// Opens a raw channel for a client. It must be [`release`](Self::release)d, however it ends.
    pub fn connect(&mut self, client: Uuid, session: &str, now: Instant) -> Result<StreamId, OpenError> {
        self.may_open()?;
        if self.channels >= self.config.max_channels || self.next_channel >= FIRST_REQUEST - 1 {
            return Err(OpenError::TooMany);
        }
        let id = StreamId(self.next_channel);
        self.next_channel += 1;
        self.channels += 1;
        self.insert(id, Stream::new(Nature::Channel { client, active: now }, Outgoing::channel()));
        self.control.push_back(transmit::Control::Connect(id, channel::client_connect(client, session)));
        self.channels_at.get_or_insert(now + self.config.channel_idle);
        Ok(id)
    }

    /// Queues as much of `bytes` as there is room for and takes it off. When that is nothing, [`Event::Writable`] follows.
    pub fn write(&mut self, id: StreamId, bytes: &mut Bytes, now: Instant) -> Result<usize, WriteError> {
        let most = self.most_queued();
        let stream = self.streams.get_mut(&id).ok_or(WriteError::Closed)?;
        stream.may_write()?;
        let length = most.saturating_sub(stream.outgoing.queued).min(bytes.len());
        if length == 0 {
            stream.write_waits = !bytes.is_empty();
            return Ok(0);
        }
        if id.is_request() && stream.outgoing.total + length as u64 > MAX_REQUEST_BODY {
            return Err(WriteError::TooLong);
        }
        self.writers += usize::from(stream.outgoing.queued == 0);
        self.uploading += length;
        stream.outgoing.push(bytes.split_to(length));
        stream.touch(now);
        self.enqueue(id);
        Ok(length)
    }

    /// The request's body ends with what was written. A channel has no such end.
    pub fn finish(&mut self, id: StreamId) -> Result<(), WriteError> {
        let stream = self.streams.get_mut(&id).ok_or(WriteError::Closed)?;
        stream.may_write()?;
        if id.is_request() {
            stream.outgoing.finish();
            self.enqueue(id);
        }
        Ok(())
    }

    /// The answer's head, once. When there is none yet, [`Event::Readable`] follows.
    pub fn head(&mut self, id: StreamId) -> Option<Result<ResponseHead, Failure>> {
        let Some(stream) = self.streams.get_mut(&id) else { return Some(Err(Failure::Lost)) };
        let head = stream.head();
        stream.read_waits = head.is_none();
        head
    }

    /// The next bytes of the answer, or of the channel.
    pub fn read(&mut self, id: StreamId, now: Instant) -> Read {
        let Some(stream) = self.streams.get_mut(&id) else { return Read::Failed(Failure::Lost) };
        let pinned = stream.incoming.pins();
        if let Some(bytes) = stream.incoming.take() {
            stream.touch(now);
            self.took(id, bytes.len(), pinned, now);
            return Read::Data(bytes);
        }
        match stream.answer {
            None => {
                stream.read_waits = true;
                Read::Blocked
            }
            Some(Ok(())) => Read::End,
            Some(Err(failure)) => Read::Failed(failure),
        }
    }

    /// Nobody holds this stream any more. The server is told where it does not know that it ended; what a channel's client
    /// had written goes before.
    pub fn release(&mut self, id: StreamId, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.released {
            return;
        }
        stream.released = true;
        if stream.told && stream.answer.is_none() && !id.is_request() && stream.outgoing.queued > 0 {
            stream.outgoing.finish();
            self.close_answer(id, Ok(()), now);
            self.forget_incoming(id, now);
            return;
        }
        self.end(id, Ok(()), true, now);
        self.forget_incoming(id, now);
        self.remove(id);
        self.check_drained();
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

    fn may_open(&self) -> Result<(), OpenError> {
        match self.stage {
            Stage::Open => Ok(()),
            Stage::Draining { .. } => Err(OpenError::Draining),
            Stage::Hello { .. } | Stage::Verifying { .. } | Stage::Closed => Err(OpenError::NotOpen),
        }
    }

    /// The next id of a request that is not in flight; there are more ids than requests.
    fn next_request(&mut self) -> StreamId {
        loop {
            let id = StreamId(self.next_request);
            self.next_request = self.next_request.checked_add(1).unwrap_or_else(|| {
                self.wrapped = true;
                FIRST_REQUEST
            });
            if !self.streams.contains_key(&id) {
                return id;
            }
        }
    }

    /// Whether this id was given out before.
    fn was_used(&self, id: StreamId) -> bool {
        match id.0 {
            FIRST_REQUEST.. => self.wrapped || id.0 < self.next_request,
            _ => (1..self.next_channel).contains(&id.0),
        }
    }

    fn most_queued(&self) -> usize {
        (self.config.upload_total / self.writers.max(1)).max(64 * 1024).min(self.config.upload_queue)
    }

    fn insert(&mut self, id: StreamId, stream: Stream) {
        self.streams.insert(id, stream);
        self.fairness.opened();
    }

    /// The stream hears no more from the server. `tell` it so where it may not know.
    fn end(&mut self, id: StreamId, result: Result<(), Failure>, tell: bool, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.answer.is_some() {
            return;
        }
        let told = stream.told;
        let client = match stream.nature {
            Nature::Channel { client, .. } => Some(client),
            Nature::Request { .. } => None,
        };
        self.cut_outgoing(id);
        match client {
            _ if told && tell => self.control.push_back(match client {
                Some(client) => transmit::Control::Disconnect(id, client),
                None => transmit::Control::Cancel(id),
            }),
            Some(_) if !told => self.control.retain(|control| !control.is_connect(id)),
            _ => {}
        }
        self.close_answer(id, result, now);
        self.check_drained();
    }

    /// What was not sent is void.
    fn cut_outgoing(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        self.uploading -= stream.outgoing.queued;
        self.writers -= usize::from(stream.outgoing.queued > 0);
        stream.outgoing.cut();
        if std::mem::take(&mut stream.ready) {
            self.ready.retain(|other| *other != id);
        }
        if std::mem::take(&mut stream.write_waits) {
            self.events.push_back(Event::Writable(id));
        }
    }

    fn close_answer(&mut self, id: StreamId, result: Result<(), Failure>, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.answer = Some(result);
        if std::mem::take(&mut stream.read_waits) {
            self.events.push_back(Event::Readable(id));
        }
        self.not_receiving(id, now);
    }

    fn remove(&mut self, id: StreamId) {
        if self.streams.remove(&id).is_some() {
            self.channels -= usize::from(!id.is_request());
        }
        if self.streams.is_empty() {
            self.streams = HashMap::new();
            self.ready = VecDeque::new();
        }
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
