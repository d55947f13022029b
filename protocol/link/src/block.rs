//! Reading a connection block by block: one block a thread, of which what is read is cut out.
//!
//! No connection holds a buffer while nothing comes, and nobody copies a payload.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::AsyncRead;

/// What is read at a time, bytes: 16 TLS records.
const BLOCK: usize = 256 * 1024;

/// Below this a block is not read into any more: a new one is begun.
const BLOCK_LEAST: usize = 64 * 1024;

thread_local! {
    /// Where this thread's connections read into. Payloads are slices of it, so it is made anew while they live.
    static READ: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// What was read.
#[derive(Debug)]
pub struct Block {
    /// Empty at the end of the connection.
    pub bytes: BytesMut,
    /// The socket was not asked until it had nothing.
    pub more: bool,
}

/// Reads what is there, at most a block of 256 KiB, with `held` before it.
pub fn read_block<S: AsyncRead + Unpin>(
    io: &mut S,
    cx: &mut Context<'_>,
    held: &mut BytesMut,
) -> Poll<io::Result<Block>> {
    READ.with_borrow_mut(|block| {
        if !block.try_reclaim(BLOCK) && block.capacity() < BLOCK_LEAST {
            *block = BytesMut::with_capacity(BLOCK);
        }
        block.extend_from_slice(held);
        let before = block.len();
        let mut outcome = Poll::Ready(Ok(0));
        // A TLS stream gives a record at a time.
        while block.len() < block.capacity() && block.len() < BLOCK {
            outcome = tokio_util::io::poll_read_buf(Pin::new(&mut *io), cx, block);
            if !matches!(outcome, Poll::Ready(Ok(1..))) {
                break;
            }
        }
        if block.len() > before {
            // An error or the end will be met again.
            held.clear();
            return Poll::Ready(Ok(Block { bytes: block.split(), more: outcome.is_ready() }));
        }
        block.clear();
        outcome.map_ok(|_| Block { bytes: BytesMut::new(), more: false })
    })
}
