//! The two halves of a stream.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use phlix_protocol::native::stream::ResetCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::end::{ReadError, Stopped, WriteError, narrow};
use crate::websocket;

/// Whose bytes go first where not all can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A stream that has sent much already.
    Bulk = 0,
    /// A request, or an answer that may be small.
    Fresh = 1,
    /// The control channel.
    Control = 2,
}

/// What this side sends. Dropped without `finish` or `reset`, it ends as if finished: whoever may be cut off must say so.
#[derive(Debug)]
pub struct SendStream(Sending);

#[derive(Debug)]
enum Sending {
    Quic(quinn::SendStream),
    WebSocket(websocket::SendStream),
}

impl From<quinn::SendStream> for SendStream {
    fn from(stream: quinn::SendStream) -> Self {
        Self(Sending::Quic(stream))
    }
}

impl From<websocket::SendStream> for SendStream {
    fn from(stream: websocket::SendStream) -> Self {
        Self(Sending::WebSocket(stream))
    }
}

impl SendStream {
    /// Takes as much from the front of `chunks` as may be sent now, without copying it; how many bytes. What was taken is
    /// gone from the slice.
    pub fn poll_write_chunks(&mut self, cx: &mut Context<'_>, chunks: &mut [Bytes]) -> Poll<Result<usize, WriteError>> {
        match &mut self.0 {
            // The future holds no state: it can be made anew each time.
            Sending::Quic(stream) => pin!(stream.write_chunks(chunks)).poll(cx).map(|done| Ok(done?.bytes)),
            Sending::WebSocket(stream) => stream.poll_write_chunks(cx, chunks),
        }
    }

    /// Sends all of it. Not to be dropped halfway.
    pub async fn write_chunk(&mut self, mut chunk: Bytes) -> Result<(), WriteError> {
        while !chunk.is_empty() {
            poll_fn(|cx| self.poll_write_chunks(cx, std::slice::from_mut(&mut chunk))).await?;
        }
        Ok(())
    }

    /// Sends a copy of all of it. Not to be dropped halfway.
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.write_chunk(Bytes::copy_from_slice(bytes)).await
    }

    /// This direction is whole.
    pub fn finish(&mut self) -> Result<(), WriteError> {
        match &mut self.0 {
            Sending::Quic(stream) => stream.finish().map_err(|_| WriteError::Ended),
            Sending::WebSocket(stream) => stream.finish(),
        }
    }

    /// This direction is broken off; what was not sent yet is not sent. Nothing happens where it has ended already.
    pub fn reset(&mut self, code: ResetCode) {
        match &mut self.0 {
            Sending::Quic(stream) => {
                let _ = stream.reset(var(code));
            }
            Sending::WebSocket(stream) => stream.reset(code),
        }
    }

    /// A stream that is gone already shows it at the next write.
    pub fn set_priority(&self, priority: Priority) {
        match &self.0 {
            Sending::Quic(stream) => {
                let _ = stream.set_priority(priority as i32);
            }
            Sending::WebSocket(stream) => stream.set_priority(priority),
        }
    }

    /// Completes when the peer reads no more, or has all.
    pub fn stopped(&self) -> impl Future<Output = Stopped> + Send + Sync + 'static {
        let (quic, socket) = match &self.0 {
            Sending::Quic(stream) => (Some(stream.stopped()), None),
            Sending::WebSocket(stream) => (None, Some(stream.stopped())),
        };
        async move {
            if let Some(stopped) = socket {
                return stopped.await;
            }
            match quic {
                Some(stopped) => match stopped.await {
                    Ok(Some(code)) => Stopped::Asked(narrow(code)),
                    Ok(None) => Stopped::Delivered,
                    Err(_) => Stopped::Lost,
                },
                None => Stopped::Lost,
            }
        }
    }
}

impl AsyncWrite for SendStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Sending::Quic(stream) => stream_write(stream, cx, bytes),
            Sending::WebSocket(stream) => stream.poll_write(cx, bytes).map_err(Into::into),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish().map_err(Into::into))
    }
}

fn stream_write(stream: &mut quinn::SendStream, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    let written = ready!(Pin::new(stream).poll_write(cx, bytes));
    Poll::Ready(written.map_err(|error| WriteError::from(error).into()))
}

/// What the peer sends. Dropped before its end, the peer is told that this side reads no more (code 0).
#[derive(Debug)]
pub struct RecvStream(Receiving);

#[derive(Debug)]
enum Receiving {
    Quic(quinn::RecvStream),
    WebSocket(websocket::RecvStream),
}

impl From<quinn::RecvStream> for RecvStream {
    fn from(stream: quinn::RecvStream) -> Self {
        Self(Receiving::Quic(stream))
    }
}

impl From<websocket::RecvStream> for RecvStream {
    fn from(stream: websocket::RecvStream) -> Self {
        Self(Receiving::WebSocket(stream))
    }
}

impl RecvStream {
    /// Reads into the caller's buffer; nothing at the end.
    pub fn poll_read_buf(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<(), ReadError>> {
        match &mut self.0 {
            Receiving::Quic(stream) => stream.poll_read_buf(cx, buf).map_err(Into::into),
            Receiving::WebSocket(stream) => stream.poll_read_buf(cx, buf),
        }
    }

    /// Reads what is there; `None` at the end. Nothing is lost when it is dropped before it is ready.
    pub async fn read(&mut self, bytes: &mut [u8]) -> Result<Option<usize>, ReadError> {
        if bytes.is_empty() {
            return Ok(Some(0));
        }
        let mut buf = ReadBuf::new(bytes);
        poll_fn(|cx| self.poll_read_buf(cx, &mut buf)).await?;
        let read = buf.filled().len();
        Ok((read > 0).then_some(read))
    }

    /// The next bytes, at most `most`, without copying them; `None` at the end. Nothing is lost when it is dropped before
    /// it is ready.
    pub async fn read_chunk(&mut self, most: usize) -> Result<Option<Bytes>, ReadError> {
        match &mut self.0 {
            Receiving::Quic(stream) => Ok(stream.read_chunk(most, true).await?.map(|chunk| chunk.bytes)),
            Receiving::WebSocket(stream) => poll_fn(|cx| stream.poll_read_chunk(cx, most)).await,
        }
    }

    /// Fills the buffer.
    pub async fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), ReadError> {
        let mut filled = 0;
        while filled < bytes.len() {
            filled += self.read(&mut bytes[filled..]).await?.ok_or(ReadError::TooShort)?;
        }
        Ok(())
    }

    /// This side reads no more: the peer may stop sending. Nothing happens where all has come already.
    pub fn stop(&mut self, code: ResetCode) {
        self.stop_with(code.code().into());
    }

    /// This side reads no more, and nothing is wrong.
    pub fn let_go(&mut self) {
        self.stop_with(0);
    }

    fn stop_with(&mut self, code: u32) {
        match &mut self.0 {
            Receiving::Quic(stream) => {
                let _ = stream.stop(quinn::VarInt::from_u32(code));
            }
            Receiving::WebSocket(stream) => stream.stop_with(code),
        }
    }
}

impl AsyncRead for RecvStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_read_buf(cx, buf).map_err(Into::into)
    }
}

fn var(code: ResetCode) -> quinn::VarInt {
    quinn::VarInt::from_u32(code.code().into())
}
