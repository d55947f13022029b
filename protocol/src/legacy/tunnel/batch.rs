//! WebSocket messages as they go to the socket, payloads not copied.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use crate::legacy::frame::{self, HEADER, Kind};
use crate::ws::{self, Opcode};

/// Payloads below this are copied behind their header: that costs less than a slice of their own.
const COPY_BELOW: usize = 1024;

/// Whole WebSocket messages, unmasked, as a hub sends them: each holds one relay frame.
//= legacy-relay-wire s.2: our hub must keep one WS message to at most a frame or so
#[derive(Debug, Default)]
pub struct Batch {
    /// Headers and short payloads.
    short: BytesMut,
    pieces: VecDeque<Piece>,
    length: usize,
}

#[derive(Debug)]
enum Piece {
    /// So many of the next bytes of `short`.
    Short(usize),
    Long(Bytes),
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes that are left.
    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The bytes, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut short = &self.short[..];
        self.pieces.iter().map(move |piece| match piece {
            Piece::Short(length) => {
                let (now, later) = short.split_at(*length);
                short = later;
                now
            }
            Piece::Long(bytes) => bytes,
        })
    }

    /// So many bytes were written.
    pub fn advance(&mut self, mut written: usize) {
        self.length -= written;
        while written > 0 {
            let Some(piece) = self.pieces.front_mut() else { return };
            let whole = match piece {
                Piece::Short(length) => {
                    let some = (*length).min(written);
                    self.short.advance(some);
                    *length -= some;
                    written -= some;
                    *length == 0
                }
                Piece::Long(bytes) => {
                    let some = bytes.len().min(written);
                    bytes.advance(some);
                    written -= some;
                    bytes.is_empty()
                }
            };
            if whole {
                self.pieces.pop_front();
            }
        }
    }

    /// Drops all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// A message that is no frame.
    pub(super) fn text(&mut self, text: &[u8]) {
        self.short(|short| ws::frame(short, true, Opcode::Text, text, None));
    }

    pub(super) fn ping(&mut self) {
        self.short(|short| ws::control(short, Opcode::Ping, b"", None));
    }

    /// A frame's header in a message of its own; `tag` is the first byte of its payload, and `length` bytes must follow.
    pub(super) fn head(&mut self, id: u32, kind: Kind, tag: Option<u8>, length: usize) {
        let payload = length + usize::from(tag.is_some());
        let header = frame::header(id, kind, u16::try_from(payload).expect("payloads are at most MAX_PAYLOAD"));
        self.short(|short| {
            ws::header(short, true, Opcode::Binary, HEADER + payload, None);
            short.extend_from_slice(&header);
            short.extend(tag);
        });
    }

    pub(super) fn payload(&mut self, bytes: Bytes) {
        if bytes.len() < COPY_BELOW {
            self.short(|short| short.extend_from_slice(&bytes));
        } else {
            self.length += bytes.len();
            self.pieces.push_back(Piece::Long(bytes));
        }
    }

    fn short(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let before = self.short.len();
        write(&mut self.short);
        let more = self.short.len() - before;
        self.length += more;
        match self.pieces.back_mut() {
            Some(Piece::Short(length)) => *length += more,
            _ if more > 0 => self.pieces.push_back(Piece::Short(more)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_gone_from_the_front() {
        let long = Bytes::from(vec![9; 3000]);
        let mut batch = Batch::new();
        batch.ping();
        batch.head(1, Kind::Data, None, 3000);
        batch.payload(long.clone());
        batch.head(0x8000_0001, Kind::HttpRequest, Some(3), 0);
        let all = batch.pieces().collect::<Vec<_>>().concat();
        assert_eq!(batch.pieces().nth(1).map(<[u8]>::as_ptr), Some(long.as_ptr()), "not copied");
        assert_eq!(&all[..13], [0x89, 0, 0x82, 126, 0x0b, 0xbf, 0, 0, 0, 1, 5, 0x0b, 0xb8]);
        assert_eq!(&all[3013..], [0x82, 8, 0x80, 0, 0, 1, 0x10, 0, 1, 3]);
        for step in [1, 7, 13, 100, 3000, 3023] {
            let mut batch = Batch::new();
            batch.ping();
            batch.head(1, Kind::Data, None, 3000);
            batch.payload(long.clone());
            batch.head(0x8000_0001, Kind::HttpRequest, Some(3), 0);
            let mut at = 0;
            while !batch.is_empty() {
                assert_eq!(batch.pieces().collect::<Vec<_>>().concat(), all[at..]);
                assert_eq!(batch.len(), all.len() - at);
                let some = step.min(batch.len());
                batch.advance(some);
                at += some;
            }
            assert_eq!(batch.pieces().count(), 0);
        }
    }

    #[test]
    fn the_longest_frame_is_one_message() {
        let mut batch = Batch::new();
        batch.head(0x8000_0001, Kind::HttpRequest, Some(2), 65_534);
        let all = batch.pieces().collect::<Vec<_>>().concat();
        assert_eq!(all, [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 6, 0x80, 0, 0, 1, 0x10, 0xff, 0xff, 2]);
    }
}
