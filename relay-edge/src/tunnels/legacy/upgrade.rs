//! HTTP/1.1's upgrade over a raw channel: the one way to a WebSocket of an existing media server.
//!
//! The request goes to the server's own port, past its relay: nobody is vouched for there, and the head is what the road
//! wrote, every byte of it.

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use http::response::Parts;
use http::{Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::channel::Channel;
use super::{LegacyError, LegacyTunnel};
use crate::body::{Body, BodyError};
use crate::random;
use crate::tunnels::Upgraded;
use crate::tunnels::activity::Activity;

/// What is read of an answer at once, bytes, at most: its head has to fit.
const BUFFER: usize = 64 * 1024;

/// What a media server said to an upgrade.
pub(crate) enum LegacyAnswered {
    /// 101: from here on the channel is another protocol's.
    Switched(Parts, Socket),
    Not(Box<Response<ChannelBody>>),
}

/// A channel after HTTP.
pub(crate) struct Socket {
    /// What came right behind the head.
    early: Bytes,
    channel: Channel,
}

pub(super) async fn upgrade(
    tunnel: &Arc<LegacyTunnel>,
    request: Request<Body>,
    patience: Duration,
    activity: &Arc<Activity>,
) -> Result<LegacyAnswered, LegacyError> {
    let channel = Channel::open(tunnel, random::uuid(), activity)?;
    let broke = |error: hyper::Error| {
        tracing::debug!(%error, "a media server did not answer an upgrade");
        if tunnel.closed() { LegacyError::TunnelLost } else { LegacyError::NoHead }
    };
    let (mut sender, mut connection) =
        http1::Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(channel)).await.map_err(broke)?;
    let mut answer = pin!(sender.send_request(request));
    let mut alarm = pin!(tokio::time::sleep(patience));
    let mut ended = false;
    let answer = poll_fn(|cx| {
        activity.register(cx.waker());
        if activity.is_cut() {
            return Poll::Ready(Err(LegacyError::Cut));
        }
        // Without shutdown: after a 101 the channel goes on.
        if !ended {
            ended = connection.poll_without_shutdown(cx).is_ready();
        }
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(answer.map_err(broke));
        }
        alarm.as_mut().poll(cx).map(|()| Err(LegacyError::Silent))
    })
    .await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let http1::Parts { io, read_buf, .. } = connection.into_parts();
        let socket = Socket { early: read_buf, channel: io.into_inner() };
        return Ok(LegacyAnswered::Switched(answer.into_parts().0, socket));
    }
    let activity = Arc::clone(activity);
    let answer = answer.map(|incoming| ChannelBody { connection, incoming, ended, activity });
    Ok(LegacyAnswered::Not(Box::new(answer)))
}

/// The body of an answer that grants no upgrade. Its channel ends with it.
pub(crate) struct ChannelBody {
    connection: Connection<TokioIo<Channel>, Body>,
    incoming: Incoming,
    /// The connection has ended.
    ended: bool,
    activity: Arc<Activity>,
}

impl http_body::Body for ChannelBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        this.activity.register(cx.waker());
        if this.activity.is_cut() {
            return Poll::Ready(Some(Err(BodyError::Cut)));
        }
        // Twice: only when the body has asked does the connection read for it.
        for _ in 0..2 {
            if !this.ended {
                this.ended = this.connection.poll_without_shutdown(cx).is_ready();
            }
            if let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) {
                this.activity.touch(Instant::now());
                return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Origin)));
            }
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Upgraded for Socket {
    /// Dropping a channel is its only end, and a clean one.
    fn release(&self) {}
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.channel).poll_read(cx, buf);
        }
        let length = self.early.len().min(buf.remaining());
        buf.put_slice(&self.early[..length]);
        self.early.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.channel).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.channel).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.channel).poll_shutdown(cx)
    }
}
