//! What a peer may not do, and how much of what it may.

use std::time::Instant;

use crate::bucket::Bucket;

/// A broken rule. Closes the tunnel; the sentence is the reason in the close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("more data than credit")]
    CreditOverrun,
    #[error("data for streams that are not open")]
    UnknownStream,
    #[error("bad frame length")]
    BadLength,
    #[error("unknown frame type")]
    UnknownType,
    #[error("stream id of the wrong side, used before, or of the wrong frame type")]
    BadStreamId,
    #[error("too many streams")]
    TooManyStreams,
    #[error("data after the end of a stream")]
    AfterEnd,
    #[error("flood of empty frames")]
    EmptyFrames,
    #[error("flood of pings")]
    PingFlood,
    #[error("flood of resets")]
    ResetFlood,
    #[error("flood of control messages")]
    ControlFlood,
    #[error("acknowledgement of what was not sent")]
    BadAck,
    #[error("message ends within a frame")]
    CutFrame,
    #[error("no frame for 15 s")]
    Silent,
}

/// A connection's budgets. Each bears what a well-behaved peer does in the worst case, several times over.
#[derive(Debug)]
pub(super) struct Budgets {
    /// DATA on streams that were closed so long ago that we have forgotten them: a race of milliseconds. Frames.
    pub(super) strays: Bucket,
    /// Frames that carry nothing: DATA without bytes or end, CREDIT of 0 or for a closed stream, unknown types, stray PONGs.
    pub(super) empty: Bucket,
    /// PING comes twice a second at most, but those of 15 s may arrive at once.
    pub(super) pings: Bucket,
    /// A reset per cancelled request.
    pub(super) resets: Bucket,
    /// Bytes of control messages. The largest has 64 KiB; few are larger than 4 KiB.
    pub(super) control: Bucket,
}

impl Budgets {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            strays: Bucket::new(16, 1, now),
            empty: Bucket::new(200, 20, now),
            pings: Bucket::new(64, 10, now),
            resets: Bucket::new(2000, 500, now),
            control: Bucket::new(256 * 1024, 32 * 1024, now),
        }
    }
}
