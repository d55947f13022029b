//! Why a connection, or a direction of a stream, ended.

use std::io;

/// Longest reason of a peer that is kept, in characters.
const REASON: usize = 200;

/// Why a connection ended. `native::close` names the codes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// This side closed it.
    #[error("closed here")]
    Local,
    /// The peer closed it.
    #[error("closed by the peer with code {code}")]
    Peer { code: u32, reason: String },
    /// The peer was not heard for too long.
    #[error("the peer was not heard for too long")]
    TimedOut,
    /// The peer does not know the connection: it has restarted.
    #[error("the peer does not know the connection")]
    Reset,
    /// The peer broke a rule of the transport.
    #[error("the peer broke a rule of the transport: {0}")]
    Broken(String),
    #[error("the connection was lost: {0}")]
    Lost(String),
}

impl End {
    /// The peer's close, with as much of its reason as fits a line.
    pub fn peer(code: u32, reason: &[u8]) -> Self {
        let reason = String::from_utf8_lossy(&reason[..reason.len().min(4 * REASON)]);
        Self::Peer { code, reason: reason.chars().filter(|c| !c.is_control()).take(REASON).collect() }
    }

    /// The code with which the peer closed.
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Peer { code, .. } => Some(*code),
            _ => None,
        }
    }
}

impl From<quinn::ConnectionError> for End {
    fn from(error: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as E;
        match error {
            E::ApplicationClosed(close) => Self::peer(narrow(close.error_code), &close.reason),
            E::LocallyClosed => Self::Local,
            E::TimedOut => Self::TimedOut,
            E::Reset => Self::Reset,
            other => Self::Lost(other.to_string()),
        }
    }
}

/// What was written does not arrive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The peer reads no more of this stream.
    #[error("the peer reads no more (code {0})")]
    Stopped(u32),
    /// This side has finished or reset it before.
    #[error("the stream was ended before")]
    Ended,
    #[error(transparent)]
    Lost(#[from] End),
}

/// Nothing more comes, and that was not all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The peer broke the stream off.
    #[error("the peer broke off (code {0})")]
    Reset(u32),
    /// This side reads no more, or has read all.
    #[error("the stream was ended before")]
    Ended,
    /// It ended before as much had come as was wanted.
    #[error("the stream ended early")]
    TooShort,
    #[error(transparent)]
    Lost(#[from] End),
}

/// How the peer is done with what was sent on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It reads no more, with its code.
    Asked(u32),
    /// All was sent, its end included.
    Delivered,
    /// The connection is gone.
    Lost,
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> Self {
        let kind = match error {
            WriteError::Stopped(_) => io::ErrorKind::ConnectionReset,
            WriteError::Ended | WriteError::Lost(_) => io::ErrorKind::NotConnected,
        };
        Self::new(kind, error)
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        let kind = match error {
            ReadError::Reset(_) => io::ErrorKind::ConnectionReset,
            ReadError::TooShort => io::ErrorKind::UnexpectedEof,
            ReadError::Ended | ReadError::Lost(_) => io::ErrorKind::NotConnected,
        };
        Self::new(kind, error)
    }
}

impl From<quinn::WriteError> for WriteError {
    fn from(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::Stopped(code) => Self::Stopped(narrow(code)),
            quinn::WriteError::ConnectionLost(error) => Self::Lost(error.into()),
            quinn::WriteError::ClosedStream | quinn::WriteError::ZeroRttRejected => Self::Ended,
        }
    }
}

impl From<quinn::ReadError> for ReadError {
    fn from(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::Reset(code) => Self::Reset(narrow(code)),
            quinn::ReadError::ConnectionLost(error) => Self::Lost(error.into()),
            quinn::ReadError::ClosedStream
            | quinn::ReadError::IllegalOrderedRead
            | quinn::ReadError::ZeroRttRejected => Self::Ended,
        }
    }
}

/// A code of QUIC's 62 bits as ours, none of which is that large.
pub(crate) fn narrow(code: quinn::VarInt) -> u32 {
    u32::try_from(code.into_inner()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_reason_is_cut_to_a_line() {
        let End::Peer { reason, .. } = End::peer(7, "a\nb\u{1b}[31m".repeat(1000).as_bytes()) else { panic!() };
        assert!(reason.len() <= REASON && !reason.contains(char::is_control));
        assert_eq!(End::peer(7, &[0xff; 3]).code(), Some(7));
    }
}
