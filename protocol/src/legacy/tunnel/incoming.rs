//! Bytes from the server that their viewer has not taken.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// A driver reads into blocks of so many bytes. One count of so many that came is in two of its blocks at most.
pub(super) const BLOCK: u64 = 256 * 1024;

/// Counts of blocks that one stream may keep alive.
const MAX_BLOCKS: usize = 3;

/// Streams of a tunnel that may keep blocks alive.
pub(super) const MAX_PINNING: usize = 16;

/// Payloads below this are copied: a slice would keep a whole block alive.
const COPY_BELOW: usize = 1024;

/// A copied stretch is at most so long.
const TAIL: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(super) struct Incoming {
    queue: VecDeque<Piece>,
    /// What follows the queue, copied.
    tail: BytesMut,
    pub(super) unread: usize,
    /// The blocks of slices in the queue, in order, and how many of each.
    blocks: VecDeque<(u64, usize)>,
}

#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    copied: bool,
}

impl Incoming {
    /// Whether it keeps blocks alive.
    pub(super) fn pins(&self) -> bool {
        !self.blocks.is_empty()
    }

    /// Adds bytes of a block, as a slice if that `may_pin` it.
    pub(super) fn push(&mut self, bytes: Bytes, block: u64, may_pin: bool) {
        if bytes.is_empty() {
            return;
        }
        self.unread += bytes.len();
        let held = self.blocks.back().is_some_and(|(last, _)| *last == block);
        let may_pin = held || (self.blocks.len() < MAX_BLOCKS && (may_pin || self.pins()));
        let copied = bytes.len() < COPY_BELOW || !may_pin;
        if !self.tail.is_empty() && (!copied || self.tail.len() + bytes.len() > TAIL) {
            let bytes = std::mem::take(&mut self.tail).freeze();
            self.queue.push_back(Piece { bytes, copied: true });
        }
        if copied {
            self.tail.extend_from_slice(&bytes);
            return;
        }
        self.queue.push_back(Piece { bytes, copied });
        match self.blocks.back_mut() {
            Some((last, count)) if *last == block => *count += 1,
            _ => self.blocks.push_back((block, 1)),
        }
    }

    /// Takes the next piece.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        let bytes = match self.queue.pop_front() {
            Some(piece) => {
                if !piece.copied
                    && let Some((_, count)) = self.blocks.front_mut()
                {
                    *count -= 1;
                    if *count == 0 {
                        self.blocks.pop_front();
                    }
                }
                piece.bytes
            }
            None if self.tail.is_empty() => return None,
            None => std::mem::take(&mut self.tail).freeze(),
        };
        self.unread -= bytes.len();
        if self.unread == 0 {
            *self = Self::default();
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(length: usize) -> Bytes {
        vec![7; length].into()
    }

    #[test]
    fn a_reader_that_is_behind_keeps_few_blocks_alive() {
        let mut incoming = Incoming::default();
        let pieces: Vec<_> = (0..10).map(|_| piece(2000)).collect();
        for (block, bytes) in pieces.iter().enumerate() {
            incoming.push(bytes.clone(), block as u64, true);
        }
        assert_eq!((incoming.blocks.len(), incoming.unread), (MAX_BLOCKS, 20_000));
        for bytes in &pieces[..3] {
            assert_eq!(incoming.take().expect("some").as_ptr(), bytes.as_ptr(), "not copied");
        }
        assert!(!incoming.pins());
        assert_eq!(incoming.take().expect("some").len(), 14_000, "copies are one piece");
        assert_eq!((incoming.take(), incoming.unread), (None, 0));
    }

    #[test]
    fn small_pieces_are_put_together() {
        let mut incoming = Incoming::default();
        (0..100_000).for_each(|_| incoming.push(piece(1), 0, true));
        assert!(!incoming.pins());
        assert_eq!(incoming.queue.len(), 1);
        assert_eq!(
            [incoming.take(), incoming.take()].map(|some| some.map(|bytes| bytes.len())),
            [Some(TAIL), Some(100_000 - TAIL)]
        );
    }

    #[test]
    fn order_is_kept_between_copies_and_slices() {
        let mut incoming = Incoming::default();
        let all: Vec<u8> = (0..20_000_u32).map(|at| at as u8).collect();
        let mut rest = Bytes::from(all.clone());
        for (at, length) in [2000, 10, 20, 3000, 5, 9000, 5965].into_iter().enumerate() {
            incoming.push(rest.split_to(length), at as u64 % 2, at % 3 != 1);
        }
        let mut read = Vec::new();
        while let Some(bytes) = incoming.take() {
            read.extend_from_slice(&bytes);
        }
        assert_eq!(read, all);
    }
}
