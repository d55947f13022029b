//! An upgraded connection: bytes from the viewer to the origin and back, until both have ended or one has broken off.
//!
//! Nothing is held while nothing moves. What one side does not take stays at the other: 16 KiB are read at most before
//! they are written. Where no byte moves either way for `Timeouts::viewer_stall` (10 min), `Live` cuts it; media servers
//! and their players ping each other every 30 to 60 s.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf as _, Bytes};
use http::Response;
use phlix_protocol::native::stream::ResetCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::account::{Account, Taken};
use super::live::Listed;
use crate::body::Body;
use crate::tunnels::Upgraded;
use crate::tunnels::activity::Activity;

/// What is read at once.
const READ: usize = 16 * 1024;

/// Reads in a row, before others have their turn.
const TURNS: usize = 16;

/// The origin's end of an upgraded connection, until the viewer's is there.
pub(crate) struct Splice {
    origin: Box<dyn Upgraded>,
    listed: Listed,
    activity: Arc<Activity>,
    taken: Taken,
    account: Option<Account>,
}

/// In an answer's extensions, which want to be cloned.
#[derive(Clone)]
struct Carried(Arc<Mutex<Option<Splice>>>);

/// How it ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpliceError {
    #[error("the right to it was withdrawn, or nothing moved for too long")]
    Cut,
    #[error("an upgraded connection broke off")]
    Io(#[from] io::Error),
}

impl Splice {
    pub(super) fn new(origin: Box<dyn Upgraded>, listed: Listed, activity: Arc<Activity>, taken: Taken) -> Self {
        Self { origin, listed, activity, taken, account: None }
    }

    /// Sends it along with the answer that says so.
    pub(super) fn put(self, answer: &mut Response<Body>) {
        answer.extensions_mut().insert(Carried(Arc::new(Mutex::new(Some(self)))));
    }

    /// Takes it off an answer. Whoever serves the viewer runs it once the answer is out; dropped, it resets the origin's
    /// stream.
    pub(crate) fn take(answer: &mut Response<Body>) -> Option<Self> {
        let carried: Carried = answer.extensions_mut().remove()?;
        carried.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn count_by(&mut self, account: Account) {
        self.account = Some(account);
    }

    /// Moves bytes between the origin and this viewer.
    pub(crate) async fn run<V>(mut self, mut viewer: V) -> Result<(), SpliceError>
    where
        V: AsyncRead + AsyncWrite + Unpin,
    {
        let pace = self.listed.entry.pace.clone();
        let mut held: Option<Pin<Box<Sleep>>> = None;
        let (mut up, mut down) = (Direction::default(), Direction::default());
        let ended = poll_fn(|cx| {
            self.activity.register(cx.waker());
            if self.activity.is_cut() {
                return Poll::Ready(Err(SpliceError::Cut));
            }
            let taken = &self.taken;
            let sent = up.poll(cx, &mut viewer, &mut self.origin, |bytes| taken.add(bytes))?;
            if let Some(wait) = &mut held
                && wait.as_mut().poll(cx).is_ready()
            {
                held = None;
            }
            let mut given = 0;
            let received = if held.is_some() {
                Poll::Pending
            } else {
                down.poll(cx, &mut self.origin, &mut viewer, |bytes| given += bytes)
            };
            if let Some(account) = &mut self.account {
                account.gave(given);
            }
            let received = received?;
            if let (Some(pace), true) = (&pace, given > 0) {
                let now = Instant::now();
                pace.spend(given, now);
                if let Some(until) = pace.wait(now) {
                    held = Some(Box::pin(tokio::time::sleep_until(until.into())));
                    cx.waker().wake_by_ref();
                }
            }
            if sent.is_ready() && received.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await;
        match &ended {
            Ok(()) => {
                self.origin.release();
                if let Some(account) = &mut self.account {
                    account.ended();
                }
            }
            Err(SpliceError::Io(_)) => self.activity.set_reset(ResetCode::CancelledByViewer),
            Err(SpliceError::Cut) => {}
        }
        ended
    }
}

/// One way.
#[derive(Default)]
struct Direction {
    /// Read and not taken yet.
    pending: Bytes,
    read: bool,
    ended: bool,
}

impl Direction {
    /// Ready when all was passed on, the end included.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        mut moved: impl FnMut(usize),
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..TURNS {
            while !self.pending.is_empty() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.pending))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.pending.advance(written);
                moved(written);
            }
            if self.read {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.ended = true;
                return Poll::Ready(Ok(()));
            }
            let mut space = [const { MaybeUninit::uninit() }; READ];
            let mut buffer = ReadBuf::uninit(&mut space);
            if Pin::new(&mut *from).poll_read(cx, &mut buffer)?.is_pending() {
                ready!(Pin::new(&mut *to).poll_flush(cx))?;
                return Poll::Pending;
            }
            let mut bytes = buffer.filled();
            self.read = bytes.is_empty();
            while !bytes.is_empty() {
                match Pin::new(&mut *to).poll_write(cx, bytes)? {
                    Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(written) => {
                        bytes = &bytes[written..];
                        moved(written);
                    }
                    Poll::Pending => {
                        self.pending = Bytes::copy_from_slice(bytes);
                        return Poll::Pending;
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// Passes one way between two pipes of 8 bytes.
    fn pass() -> (tokio::io::DuplexStream, tokio::io::DuplexStream, impl Future<Output = io::Result<usize>>) {
        let (source, mut from) = duplex(8);
        let (mut to, sink) = duplex(8);
        let passing = async move {
            let mut count = 0;
            let mut direction = Direction::default();
            poll_fn(|cx| direction.poll(cx, &mut from, &mut to, |bytes| count += bytes)).await?;
            Ok(count)
        };
        (source, sink, passing)
    }

    #[tokio::test]
    async fn bytes_and_their_end_pass_through_narrow_pipes() {
        let (mut source, mut sink, passing) = pass();
        let sending = async {
            source.write_all(&[7; 1000]).await.unwrap();
            source.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let (passed, (), read) = tokio::join!(passing, sending, sink.read_to_end(&mut got));
        assert_eq!((passed.unwrap(), read.unwrap()), (1000, 1000));
    }

    #[tokio::test]
    async fn who_is_gone_ends_it() {
        let (mut source, sink, passing) = pass();
        drop(sink);
        source.write_all(b"x").await.unwrap();
        assert!(passing.await.is_err());
    }
}
