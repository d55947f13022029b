//! A request's stream after an Extended CONNECT: bytes both ways, in DATA frames.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::{Event, Fault, Stream};

pub(super) struct Bytestream {
    stream: Arc<Stream>,
    /// Came, and is not read yet.
    came: Bytes,
    ended: bool,
}

impl Bytestream {
    pub(super) fn new(stream: Arc<Stream>) -> Self {
        Self { stream, came: Bytes::new(), ended: false }
    }
}

fn broken(fault: Fault) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, fault)
}

impl AsyncRead for Bytestream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.came.is_empty() && !this.ended {
            match ready!(this.stream.poll_body(cx)).map_err(broken)? {
                Event::Data(data) => this.came = data,
                // Only DATA may follow (RFC 9114 s.4.4).
                Event::Headers(_) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "trailers after CONNECT")));
                }
                Event::End => this.ended = true,
            }
        }
        let length = this.came.len().min(buf.remaining());
        buf.put_slice(&this.came.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bytestream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // The frame before it has to be out: one is held at most.
        ready!(self.stream.poll_flush(cx)).map_err(broken)?;
        self.stream.begin_data(Bytes::copy_from_slice(bytes));
        if let Poll::Ready(Err(fault)) = self.stream.poll_flush(cx) {
            return Poll::Ready(Err(broken(fault)));
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream.poll_flush(cx)).map_err(broken)?;
        self.stream.half_close();
        Poll::Ready(Ok(()))
    }
}
