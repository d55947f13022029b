//! The halves of a stream, or of the control channel.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use phlix_protocol::native::mux::{self, Read, Sent, StreamId};
use phlix_protocol::native::stream::ResetCode;
use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::shared::Handle;
use crate::end::{ReadError, Stopped, WriteError};
use crate::stream::Priority;

/// Most bytes that are copied for a writer at a time: what is not taken was copied in vain.
const COPY: usize = 64 * 1024;

/// What is written or read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Channel {
    Control,
    Stream(StreamId),
}

/// What this side sends.
#[derive(Debug)]
pub(crate) struct SendStream {
    handle: Arc<Handle>,
    channel: Channel,
}

impl SendStream {
    pub(super) fn new(handle: Arc<Handle>, channel: Channel) -> Self {
        Self { handle, channel }
    }

    pub(crate) fn poll_write_chunks(
        &mut self,
        cx: &mut Context<'_>,
        chunks: &mut [Bytes],
    ) -> Poll<Result<usize, WriteError>> {
        self.handle.shared().with(|state| {
            if let Some(end) = &state.end {
                return Poll::Ready(Err(end.clone().into()));
            }
            let mut all = 0;
            for chunk in chunks.iter_mut().filter(|chunk| !chunk.is_empty()) {
                let taken = match self.channel {
                    Channel::Stream(id) => state.mux.write(id, chunk).map_err(|error| match error {
                        mux::WriteError::Stopped(code) => WriteError::Stopped(code.into()),
                        mux::WriteError::Closed => WriteError::Ended,
                    }),
                    Channel::Control => {
                        let taken = state.mux.write_control(chunk);
                        chunk.advance(taken);
                        Ok(taken)
                    }
                };
                match taken {
                    Ok(0) if all == 0 => {
                        let waker = cx.waker().clone();
                        match self.channel {
                            Channel::Stream(id) => drop(state.waiting.writers.insert(id, waker)),
                            Channel::Control => state.waiting.control_writer = Some(waker),
                        }
                        return Poll::Pending;
                    }
                    Ok(0) => break,
                    Ok(taken) => all += taken,
                    // What was taken before is told first; the next call fails.
                    Err(_) if all > 0 => break,
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            Poll::Ready(Ok(all))
        })
    }

    /// Takes a copy of as much as may be sent now.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, WriteError>> {
        let mut chunk = Bytes::copy_from_slice(&bytes[..bytes.len().min(COPY)]);
        self.poll_write_chunks(cx, std::slice::from_mut(&mut chunk))
    }

    /// The control channel has no end of its own.
    pub(crate) fn finish(&mut self) -> Result<(), WriteError> {
        let Channel::Stream(id) = self.channel else { return Ok(()) };
        self.handle.shared().with(|state| {
            state.mux.finish(id).map_err(|error| match error {
                mux::WriteError::Stopped(_) | mux::WriteError::Closed => WriteError::Ended,
            })
        })
    }

    pub(crate) fn reset(&mut self, code: ResetCode) {
        if let Channel::Stream(id) = self.channel {
            self.handle.shared().with(|state| state.mux.reset(id, code.code()));
        }
    }

    pub(crate) fn set_priority(&self, priority: Priority) {
        if let Channel::Stream(id) = self.channel {
            let priority = match priority {
                Priority::Control => mux::Priority::Control,
                Priority::Fresh => mux::Priority::Fresh,
                Priority::Bulk => mux::Priority::Bulk,
            };
            self.handle.shared().with(|state| state.mux.set_priority(id, priority));
        }
    }

    /// Does not keep the connection open.
    pub(crate) fn stopped(&self) -> impl Future<Output = Stopped> + Send + Sync + 'static {
        let shared = self.handle.shared().clone();
        let channel = self.channel;
        poll_fn(move |cx| {
            shared.with(|state| {
                let Channel::Stream(id) = channel else {
                    // Never delivered, never refused: it ends with the connection.
                    return match state.end {
                        Some(_) => Poll::Ready(Stopped::Lost),
                        None => {
                            state.waiting.ends.push(cx.waker().clone());
                            Poll::Pending
                        }
                    };
                };
                match state.mux.sent(id) {
                    Some(Sent::Stopped(code)) => Poll::Ready(Stopped::Asked(code.into())),
                    Some(Sent::Whole | Sent::Reset) => Poll::Ready(Stopped::Delivered),
                    None if state.end.is_some() => Poll::Ready(Stopped::Lost),
                    None => {
                        let wakers = state.waiting.sent.entry(id).or_default();
                        if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                            wakers.push(cx.waker().clone());
                        }
                        Poll::Pending
                    }
                }
            })
        })
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if let Channel::Stream(id) = self.channel {
            self.handle.shared().with(|state| {
                state.mux.release_send(id);
                state.waiting.writers.remove(&id);
            });
        }
    }
}

/// What the peer sends.
#[derive(Debug)]
pub(crate) struct RecvStream {
    handle: Arc<Handle>,
    channel: Channel,
}

impl RecvStream {
    pub(super) fn new(handle: Arc<Handle>, channel: Channel) -> Self {
        Self { handle, channel }
    }

    /// The next bytes, at most `most`; `None` at the end.
    pub(crate) fn poll_read_chunk(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<Result<Option<Bytes>, ReadError>> {
        self.handle.shared().with(|state| {
            let read = match self.channel {
                Channel::Stream(id) => state.mux.read(id, most, Instant::now().into_std()),
                Channel::Control => Ok(state.mux.read_control(most).map_or(Read::Blocked, Read::Data)),
            };
            match read {
                Ok(Read::Data(bytes)) => Poll::Ready(Ok(Some(bytes))),
                Ok(Read::End) => Poll::Ready(Ok(None)),
                Err(mux::ReadError::Reset(code)) => Poll::Ready(Err(ReadError::Reset(code.into()))),
                Err(mux::ReadError::Closed) => Poll::Ready(Err(ReadError::Ended)),
                Ok(Read::Blocked) => {
                    if let Some(end) = &state.end {
                        return Poll::Ready(Err(end.clone().into()));
                    }
                    let waker = cx.waker().clone();
                    match self.channel {
                        Channel::Stream(id) => drop(state.waiting.readers.insert(id, waker)),
                        Channel::Control => state.waiting.control_reader = Some(waker),
                    }
                    Poll::Pending
                }
            }
        })
    }

    /// Fills the buffer with what is there; nothing at the end.
    pub(crate) fn poll_read_buf(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<(), ReadError>> {
        let before = buf.filled().len();
        while buf.remaining() > 0 {
            match self.poll_read_chunk(cx, buf.remaining()) {
                Poll::Ready(Ok(Some(bytes))) => buf.put_slice(&bytes),
                // What is there is told first; the next call says the rest.
                _ if buf.filled().len() > before => break,
                other => {
                    ready!(other)?;
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn stop_with(&mut self, code: u32) {
        if let Channel::Stream(id) = self.channel {
            let code = u16::try_from(code).unwrap_or(u16::MAX);
            self.handle.shared().with(|state| state.mux.stop(id, code));
        }
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        if let Channel::Stream(id) = self.channel {
            self.handle.shared().with(|state| {
                state.mux.release_recv(id);
                state.waiting.readers.remove(&id);
            });
        }
    }
}
