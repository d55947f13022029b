//! A raw channel: bytes both ways between a client and the media server's own port (legacy-relay-wire s.2.1).
//!
//! The wire has no half-close, and a server does not say when its side of a channel ended: so a channel that is shut from
//! here is over both ways, and one on which nothing moves ends by the tunnel's clock.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf as _, Bytes};
use phlix_protocol::legacy::tunnel::{Failure, Read, StreamId, WriteError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use uuid::Uuid;

use super::{LegacyError, LegacyTunnel};
use crate::tunnels::activity::Activity;

/// What a writer copies into the queue at once, bytes.
const COPY: usize = 16 * 1024;

/// A client's end of a channel. Dropped, the server is told that the client left.
pub(crate) struct Channel {
    tunnel: Arc<LegacyTunnel>,
    id: StreamId,
    activity: Arc<Activity>,
    /// Read, and not yet taken by whoever reads bytes.
    unread: Bytes,
    shut: bool,
}

/// Why nothing more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the tunnel is gone: {0}")]
    Lost(&'static str),
    #[error("what came was not taken while others of the tunnel waited")]
    Stalled,
    #[error("nothing moved for too long")]
    Idle,
    #[error("it was shut")]
    Shut,
}

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> Self {
        let kind = match broken {
            Broken::Lost(_) => io::ErrorKind::ConnectionReset,
            Broken::Stalled => io::ErrorKind::ConnectionAborted,
            Broken::Idle => io::ErrorKind::TimedOut,
            Broken::Shut => io::ErrorKind::BrokenPipe,
        };
        Self::new(kind, broken)
    }
}

impl Channel {
    pub(super) fn open(
        tunnel: &Arc<LegacyTunnel>,
        client: Uuid,
        activity: &Arc<Activity>,
    ) -> Result<Self, LegacyError> {
        //= legacy-relay-wire s.2: session_id is "" today
        let id = tunnel.shared.with(|state| state.machine.connect(client, "", Instant::now()))?;
        Ok(Self { tunnel: Arc::clone(tunnel), id, activity: Arc::clone(activity), unread: Bytes::new(), shut: false })
    }

    /// Its number on the wire.
    pub(crate) fn number(&self) -> u32 {
        self.id.get()
    }

    /// The next bytes from the server, never none.
    pub(crate) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Broken>> {
        if self.shut {
            return Poll::Ready(Err(Broken::Shut));
        }
        self.activity.set_awaiting_origin(false);
        let now = Instant::now();
        let id = self.id;
        let polled = self.tunnel.shared.with(|state| match state.machine.read(id, now) {
            Read::Data(bytes) => Poll::Ready(Ok(bytes)),
            Read::Blocked => {
                state.wait_for_reader(id, cx.waker());
                Poll::Pending
            }
            Read::End => Poll::Ready(Err(Broken::Shut)),
            Read::Failed(Failure::Stalled) => Poll::Ready(Err(Broken::Stalled)),
            Read::Failed(Failure::Idle) => Poll::Ready(Err(Broken::Idle)),
            Read::Failed(_) => {
                Poll::Ready(Err(Broken::Lost(state.end.as_ref().map_or("server_closed", |end| end.why))))
            }
        });
        match &polled {
            Poll::Ready(Ok(_)) => self.activity.touch(now),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.activity.set_awaiting_origin(true),
        }
        polled
    }

    /// Sends bytes to the server. Ready when none is left; of a channel that is over, what came of it is read.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<()> {
        while !bytes.is_empty() {
            if ready!(self.poll_queue(cx, bytes)).is_err() {
                bytes.clear();
            }
        }
        Poll::Ready(())
    }

    fn poll_queue(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<Result<usize, WriteError>> {
        let now = Instant::now();
        let id = self.id;
        let written = self.tunnel.shared.with(|state| match state.machine.write(id, bytes, now) {
            Ok(0) => {
                state.wait_for_writer(id, cx.waker());
                Poll::Pending
            }
            written => Poll::Ready(written),
        });
        if let Poll::Ready(Ok(_)) = written {
            self.activity.touch(now);
        }
        written
    }

    /// What was sent goes before the end.
    fn release(&self) {
        self.tunnel.shared.with(|state| state.release(self.id));
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.release();
    }
}

impl AsyncRead for Channel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.shut {
            return Poll::Ready(Ok(()));
        }
        if self.unread.is_empty() {
            self.unread = ready!(self.poll_bytes(cx))?;
        }
        let length = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..length]);
        self.unread.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Channel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut copied = Bytes::copy_from_slice(&bytes[..bytes.len().min(COPY)]);
        if copied.is_empty() {
            return Poll::Ready(Ok(0));
        }
        match ready!(self.poll_queue(cx, &mut copied)) {
            Ok(written) => Poll::Ready(Ok(written)),
            Err(_) => Poll::Ready(Err(Broken::Shut.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            self.shut = true;
            self.unread = Bytes::new();
            self.release();
        }
        Poll::Ready(Ok(()))
    }
}
