//! Frames that go into one WebSocket message, not yet copied.

use bytes::Bytes;

use super::frame::{FrameType, HEADER, Header};

/// Longest payload of a frame that is kept in place: 8 bytes of PING, PONG or ACK.
const SHORT: usize = 8;

/// A list of frames whose payloads lie where they were: the driver copies each once, into its buffer, where it is masked
/// in the same pass.
#[derive(Debug, Default)]
pub struct Batch {
    pieces: Vec<Piece>,
    length: usize,
}

#[derive(Debug)]
enum Piece {
    /// A header, with its payload where that is short.
    Head {
        bytes: [u8; HEADER + SHORT],
        length: u8,
    },
    Payload(Bytes),
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes of all frames, headers included.
    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The bytes, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|piece| match piece {
            Piece::Head { bytes, length } => &bytes[..usize::from(*length)],
            Piece::Payload(bytes) => bytes,
        })
    }

    /// Drops all frames and keeps the list's room.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.length = 0;
    }

    /// A frame whose payload is at most 8 bytes.
    pub(super) fn short(&mut self, stream: u32, kind: FrameType, flags: u8, payload: &[u8]) {
        let mut bytes = [0; HEADER + SHORT];
        let length = HEADER + payload.len();
        bytes[..HEADER].copy_from_slice(&Header::encode(stream, kind, flags, payload.len()));
        bytes[HEADER..length].copy_from_slice(payload);
        self.pieces.push(Piece::Head { bytes, length: length as u8 });
        self.length += length;
    }

    /// A frame's header; `length` bytes of payload must follow.
    pub(super) fn head(&mut self, stream: u32, kind: FrameType, flags: u8, length: usize) {
        let mut bytes = [0; HEADER + SHORT];
        bytes[..HEADER].copy_from_slice(&Header::encode(stream, kind, flags, length));
        self.pieces.push(Piece::Head { bytes, length: HEADER as u8 });
        self.length += HEADER;
    }

    pub(super) fn payload(&mut self, bytes: Bytes) {
        self.length += bytes.len();
        self.pieces.push(Piece::Payload(bytes));
    }
}
