//! What a server may not do, and how much of what it may.

use std::time::Instant;

use crate::bucket::Bucket;
use crate::legacy::frame::UnknownType;
use crate::legacy::handshake::HelloError;
use crate::ws::CloseCode;

/// Frames with shorter payloads are counted: they cost us more than they cost the server. Bytes.
pub(super) const SMALL: u16 = 256;

/// Frames that begin in one WebSocket message.
//= legacy-relay-wire s.2: 4096 frames per WS message; beyond, close
pub(super) const MAX_FRAMES: u32 = 4096;

/// A broken rule. Closes the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("no hello within the time given")]
    NoHello,
    #[error(transparent)]
    Hello(#[from] HelloError),
    #[error("a message before the hello was answered")]
    Early,
    #[error(transparent)]
    UnknownType(#[from] UnknownType),
    #[error("a type of frame that servers don't send")]
    UnexpectedType,
    #[error("more than 4096 frames in a message")]
    TooManyFrames,
    #[error("flood of frames for streams that never were")]
    StrayFlood,
    #[error("flood of small frames")]
    SmallFlood,
    #[error("nothing heard for too long")]
    Silent,
}

impl Violation {
    /// The code of the close frame that says so.
    pub fn close_code(self) -> CloseCode {
        CloseCode::PROTOCOL
    }

    /// Upstream's word for it, where it has one: for logs, metrics, and what raw clients are told.
    pub fn word(self) -> &'static str {
        match self {
            Self::NoHello | Self::Silent => "timeout",
            Self::Hello(error) => error.word(),
            Self::UnknownType(_) => "invalid_frame",
            Self::TooManyFrames => "frame_buffer_overflow",
            Self::Early | Self::UnexpectedType | Self::StrayFlood | Self::SmallFlood => "protocol_error",
        }
    }
}

/// A tunnel's budgets. Each bears what an unmodified server does in the worst case, several times over.
#[derive(Debug)]
pub(super) struct Budgets {
    /// Frames for ids that we never gave out. A server has no reason for any.
    pub(super) strays: Bucket,
    /// Small frames for ids that ended: a server that refuses a chunked upload of 25 MiB answers each of its 400 chunks by
    /// three frames.
    pub(super) late: Bucket,
    /// Small frames for ids that somebody waits for, and messages without bytes. An event stream has some in a second.
    pub(super) small: Bucket,
}

impl Budgets {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            strays: Bucket::new(256, 4, now),
            late: Bucket::new(20_000, 2_000, now),
            small: Bucket::new(65_536, 16_384, now),
        }
    }
}
