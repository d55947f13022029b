//! Carries bytes between a stream and the origin, both ways in one task.
//!
//! What was read is handed on as `Bytes` without another copy; a stream that has nothing to carry holds no buffer: the
//! block that is read into belongs to the thread. Each direction reads only when what it read before has been taken, so
//! pressure passes through. (relay-design s.1, s.4.6)

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use phlix_link::{Priority, RecvStream};
use phlix_protocol::native::stream::ResetCode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use super::origin::OriginStream;
use super::stall::StallWatch;
use super::{Answer, Stopped};

/// Read at most this at a time.
const BLOCK: usize = 256 * 1024;
/// A block with less room than this is left to those who hold parts of it.
const LEAST_ROOM: usize = 64 * 1024;
/// Less than this is copied out: a slice would keep its whole block alive while a slow viewer makes it wait.
const COPY_BELOW: usize = 32 * 1024;
/// After so much of an answer a stream is bulk (relay-design s.4.6).
const SMALL_ANSWER: u64 = 32 * 1024;
/// Reads of one direction before neighbours get their turn.
const ROUNDS: usize = 8;

thread_local! {
    static READ_BLOCK: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Runs until both directions have ended in order, or one of them broke.
pub(super) async fn splice(answer: Answer, request: RecvStream, origin: OriginStream, stall: StallWatch) {
    let stopped = Box::pin(answer.stopped());
    let splice = Splice {
        answer,
        request,
        origin,
        up: Direction::default(),
        down: Direction::default(),
        answered: 0,
        bulk: false,
        uploaded: 0,
    };
    Running { splice, stopped, stall }.await;
}

/// How a splice came to its end before both directions had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// The edge reset or stopped the stream, or the tunnel is gone.
    Viewer,
    /// The origin broke off.
    Origin,
    /// The origin takes nothing, and others need the room.
    Stalled,
}

#[derive(Default)]
struct Direction {
    /// Read, and not taken yet.
    waiting: Bytes,
    /// The source has ended; the sink has not been told.
    source_ended: bool,
    /// The sink has been told.
    done: bool,
    /// The sink may hold bytes back until it is flushed.
    unflushed: bool,
}

struct Splice {
    answer: Answer,
    request: RecvStream,
    origin: OriginStream,
    /// From viewer to origin.
    up: Direction,
    /// From origin to viewer.
    down: Direction,
    /// Bytes of the answer to the request that came last.
    answered: u64,
    bulk: bool,
    /// Bytes that the origin has taken.
    uploaded: u64,
}

struct Running<S> {
    splice: Splice,
    stopped: Pin<Box<S>>,
    stall: StallWatch,
}

impl<S: Future<Output = Stopped>> Future for Running<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if let Poll::Ready(stopped) = this.stopped.as_mut().poll(cx) {
            if stopped == Stopped::InOrder {
                this.splice.origin.let_go();
            }
            this.splice.break_off(Broken::Viewer);
            return Poll::Ready(());
        }
        // Requests first: they are small, and an answer's priority depends on them.
        let up = this.splice.poll_up(cx);
        let down = this.splice.poll_down(cx);
        for outcome in [up, down] {
            if let Poll::Ready(Err(broken)) = outcome {
                this.splice.break_off(broken);
                return Poll::Ready(());
            }
        }
        if this.splice.up.done && this.splice.down.done {
            this.splice.origin.let_go();
            return Poll::Ready(());
        }
        if this.stall.poll(!this.splice.up.waiting.is_empty(), this.splice.uploaded, cx) {
            this.splice.break_off(Broken::Stalled);
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Splice {
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.up.done {
            return Poll::Pending;
        }
        for _ in 0..ROUNDS {
            while !self.up.waiting.is_empty() {
                match ready!(Pin::new(&mut self.origin).poll_write(cx, &self.up.waiting)) {
                    Ok(taken @ 1..) => {
                        self.up.waiting.advance(taken);
                        self.uploaded += taken as u64;
                    }
                    Ok(0) | Err(_) => return self.origin_takes_no_more(),
                }
            }
            if self.up.source_ended {
                if ready!(Pin::new(&mut self.origin).poll_shutdown(cx)).is_err() {
                    return self.origin_takes_no_more();
                }
                self.up.done = true;
                return Poll::Ready(Ok(()));
            }
            match self.poll_read_request(cx) {
                Poll::Ready(Ok(Some(bytes))) => {
                    self.a_request_came();
                    self.up.unflushed = true;
                    self.up.waiting = bytes;
                }
                Poll::Ready(Ok(None)) => self.up.source_ended = true,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Viewer)),
                Poll::Pending => {
                    if self.up.unflushed {
                        match ready!(Pin::new(&mut self.origin).poll_flush(cx)) {
                            Ok(()) => self.up.unflushed = false,
                            Err(_) => return self.origin_takes_no_more(),
                        }
                    }
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.down.done {
            return Poll::Pending;
        }
        for _ in 0..ROUNDS {
            while !self.down.waiting.is_empty() {
                let chunks = std::slice::from_mut(&mut self.down.waiting);
                match ready!(self.answer.send.poll_write_chunks(cx, chunks)) {
                    Ok(written) => self.answered += written as u64,
                    Err(_) => return Poll::Ready(Err(Broken::Viewer)),
                }
                if !self.bulk && self.answered > SMALL_ANSWER {
                    self.bulk = true;
                    self.answer.send.set_priority(Priority::Bulk);
                }
            }
            match ready!(poll_read_bytes(Pin::new(&mut self.origin), cx)) {
                Ok(Some(bytes)) => self.down.waiting = bytes,
                Ok(None) => {
                    self.answer.finish();
                    self.down.done = true;
                    return Poll::Ready(Ok(()));
                }
                Err(_) => return Poll::Ready(Err(Broken::Origin)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_read_request(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        poll_read_bytes(Pin::new(&mut self.request), cx)
    }

    /// The next answer is small until it shows that it is not, also on a stream that was used before.
    fn a_request_came(&mut self) {
        self.answered = 0;
        if std::mem::take(&mut self.bulk) {
            self.answer.send.set_priority(Priority::Fresh);
        }
    }

    /// The origin reads no more of the request. It may still answer (413 and the like): only the upload ends here.
    fn origin_takes_no_more(&mut self) -> Poll<Result<(), Broken>> {
        self.up = Direction { done: true, ..Direction::default() };
        self.request.stop(ResetCode::OriginFailed);
        Poll::Ready(Ok(()))
    }

    /// Passes the break on to both sides. The origin's connection is cut when it is dropped.
    fn break_off(&mut self, broken: Broken) {
        let reset = match broken {
            Broken::Viewer => ResetCode::CancelledByViewer,
            Broken::Origin => ResetCode::OriginFailed,
            Broken::Stalled => ResetCode::Stalled,
        };
        if !self.down.done {
            self.answer.reset(reset);
        }
        self.request.stop(reset);
    }
}

/// Reads into the thread's block; `None` at the end.
fn poll_read_bytes<R: AsyncRead>(source: Pin<&mut R>, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
    READ_BLOCK.with_borrow_mut(|block| {
        if block.capacity() < LEAST_ROOM {
            // Takes the old block back where nobody holds a part of it any more.
            block.reserve(BLOCK);
        }
        let read = match ready!(poll_read_buf(source, cx, block)) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                // TLS without its goodbye. HTTP's own lengths tell the edge whether the answer was whole.
                0
            }
            Err(error) => return Poll::Ready(Err(error)),
        };
        Poll::Ready(Ok(if read == 0 {
            None
        } else if read < COPY_BELOW {
            let bytes = Bytes::copy_from_slice(&block[..read]);
            block.clear();
            Some(bytes)
        } else {
            Some(block.split().freeze())
        }))
    })
}
