//! What a tunnel is told, and what it says.

use std::time::Duration;

use bytes::Bytes;

use crate::legacy::handshake::Hello;
use crate::legacy::http::HeadError;

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
pub struct StreamId(pub(super) u32);

/// The least id of a request; channels are below.
//= legacy-relay-wire s.2.2: hub counter from 0x80000001 to 0xFFFFFFFF, then back to 0x80000001
pub(super) const FIRST_REQUEST: u32 = 0x8000_0001;

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
