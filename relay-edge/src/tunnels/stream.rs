//! A relayed connection as bytes: two halves of a stream, less the agent's first byte.
//!
//! A stream that is dropped before its exchange was whole is reset in both directions at once: a `SendStream` that is
//! just dropped would look like a clean end, and an origin must not take half an upload for all of it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use phlix_link::{RecvStream, SendStream, WriteError};
use phlix_protocol::native::stream::StreamStatus;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;

use super::activity::Activity;

/// Both halves. Tells whose exchange it serves what moves.
pub(super) struct TunnelStream {
    send: SendStream,
    recv: RecvStream,
    connected: bool,
    owner: Owner,
    _permit: OwnedSemaphorePermit,
}

/// Whose exchange a stream serves: changes when a pooled connection is used again.
#[derive(Clone)]
pub(super) struct Owner(Arc<Mutex<Option<Arc<Activity>>>>);

impl Owner {
    /// The next exchange.
    pub(super) fn hand_to(&self, activity: Arc<Activity>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(activity);
    }

    /// Nobody's: an exchange ended whole, and the stream may end cleanly.
    pub(super) fn release(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn activity(&self) -> Option<Arc<Activity>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn touch(&self) {
        if let Some(activity) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            activity.touch(Instant::now());
        }
    }
}

impl TunnelStream {
    pub(super) fn new(
        send: SendStream,
        recv: RecvStream,
        permit: OwnedSemaphorePermit,
        activity: Arc<Activity>,
    ) -> Self {
        Self { send, recv, connected: false, owner: Owner(Arc::new(Mutex::new(Some(activity)))), _permit: permit }
    }

    /// Says the header, whole.
    pub(super) async fn say(&mut self, header: Bytes) -> Result<(), WriteError> {
        self.send.write_chunk(header).await
    }

    /// The handle by which the stream changes hands.
    pub(super) fn owner(&self) -> Owner {
        self.owner.clone()
    }

    /// Takes the agent's first byte off.
    fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut byte = [0];
        let mut buf = ReadBuf::new(&mut byte);
        ready!(AsyncRead::poll_read(Pin::new(&mut self.recv), cx, &mut buf))?;
        let Some(status) = buf.filled().first().copied() else {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the agent said nothing")));
        };
        if let Some(activity) = self.owner.activity() {
            activity.set_status(status);
        }
        self.owner.touch();
        if StreamStatus::from_byte(status) != Some(StreamStatus::Connected) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the agent has no connection")));
        }
        self.connected = true;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.connected {
            ready!(self.poll_connected(cx))?;
        }
        let before = buf.filled().len();
        ready!(AsyncRead::poll_read(Pin::new(&mut self.recv), cx, buf))?;
        if buf.filled().len() > before {
            self.owner.touch();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(AsyncWrite::poll_write(Pin::new(&mut self.send), cx, bytes))?;
        self.owner.touch();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), cx)
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        // What fails here has already ended.
        match self.owner.activity() {
            None => {
                let _ = self.send.finish();
                self.recv.let_go();
            }
            Some(activity) => {
                let code = activity.reset();
                self.send.reset(code);
                self.recv.stop(code);
            }
        }
    }
}
