//! WebSocket (RFC 6455) without I/O: frames, messages, close codes and the opening handshake.
//!
//! [`Decoder`] takes bytes and gives [`Event`]s; [`encode`] writes frames into a buffer. Nothing here reads a socket,
//! keeps time or draws a random number: a client's masking keys are arguments.
//!
//! A decoder keeps no payload: it hands on pieces of a message as they arrive, cut out of the caller's buffer and
//! unmasked in place. Who wants whole messages puts an [`Assembler`] behind it.
//!
//! What an endpoint does with the events (RFC 6455 s.5.5):
//! * [`Event::Ping`]: answer with a pong of the same payload.
//! * [`Event::Close`]: answer with [`Closing::reply`] if no close frame was sent yet, then end. The decoder gives
//!   nothing after it.
//! * an error: send a close frame with [`WsError::close_code`], then end.

mod assemble;
mod close;
mod decode;
mod encode;
pub mod handshake;
mod mask;
mod utf8;

pub use assemble::{Assembled, Assembler, Message};
pub use close::{CloseCode, Closing};
pub use decode::{Decoder, Event, Limits, Text};
pub use encode::{MAX_HEADER, close, control, frame, header, pieces};
pub use mask::mask;

/// Which end of the connection we are. A client masks what it sends, a server must not (RFC 6455 s.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// Longest payload of a control frame (RFC 6455 s.5.5).
pub const MAX_CONTROL: usize = 125;

/// What a data message holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Binary,
}

/// What a frame is (RFC 6455 s.11.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    /// Whether such a frame may come between the fragments of a message.
    pub fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

impl From<Kind> for Opcode {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Text,
            Kind::Binary => Self::Binary,
        }
    }
}

/// What a peer broke. Fails the connection (RFC 6455 s.7.1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WsError {
    #[error("reserved bits are set and no extension was agreed on")]
    ReservedBits,
    #[error("opcode {0} is reserved")]
    ReservedOpcode(u8),
    #[error("a client's frame is not masked")]
    NotMasked,
    #[error("a server's frame is masked")]
    Masked,
    #[error("control frame is fragmented")]
    FragmentedControl,
    #[error("control frame's payload is over 125 bytes")]
    LongControl,
    #[error("length is not in its shortest form, or over 63 bits")]
    BadLength,
    #[error("continuation of no message")]
    NothingToContinue,
    #[error("new message within a fragmented one")]
    Interleaved,
    #[error("frame of {0} bytes is over the limit")]
    FrameTooLong(u64),
    #[error("message of {0} bytes or more is over the limit")]
    MessageTooLong(u64),
    #[error("text is not UTF-8")]
    NotUtf8,
    #[error("close frame's payload is one byte")]
    ShortClose,
    #[error("close code {0} may not be sent")]
    BadCloseCode(u16),
}

impl WsError {
    /// The code of the close frame that says so (RFC 6455 s.7.4.1).
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::FrameTooLong(_) | Self::MessageTooLong(_) => CloseCode::TOO_BIG,
            Self::NotUtf8 => CloseCode::INVALID_PAYLOAD,
            _ => CloseCode::PROTOCOL,
        }
    }
}
