//! What a raw client is told: one relay frame to a binary message, a payload never copied.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use phlix_protocol::legacy::frame::{self, Kind, MAX_PAYLOAD};
use phlix_protocol::ws::{self, Opcode};
use tokio::io::AsyncWrite;

/// Writes a message with one frame. Its payload is short: what we say ourselves.
pub(super) fn message(out: &mut BytesMut, id: u32, kind: Kind, payload: &[u8]) {
    let Ok(length) = u16::try_from(payload.len()) else { return };
    let head = frame::header(id, kind, length);
    ws::pieces(out, true, Opcode::Binary, head.len() + payload.len(), [&head[..], payload], None);
}

/// Messages on their way.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Headers of the message that is under way, or whole messages of ours.
    head: BytesMut,
    /// Its payload.
    payload: Bytes,
    /// What of the server's bytes is for later messages.
    rest: Bytes,
    /// Messages of ours that go next.
    pub(super) replies: BytesMut,
}

impl Outbox {
    /// Takes the server's bytes; what was before is out.
    pub(super) fn data(&mut self, channel: u32, mut bytes: Bytes) {
        self.payload = bytes.split_to(bytes.len().min(MAX_PAYLOAD));
        self.rest = bytes;
        let length = u16::try_from(self.payload.len()).unwrap_or(u16::MAX);
        ws::header(&mut self.head, true, Opcode::Binary, frame::HEADER + self.payload.len(), None);
        self.head.extend_from_slice(&frame::header(channel, Kind::Data, length));
    }

    /// Writes all there is. Ready when it is out.
    pub(super) fn poll_write<S>(&mut self, cx: &mut Context<'_>, io: &mut S, channel: u32) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        loop {
            if self.head.is_empty() && self.payload.is_empty() {
                if !self.replies.is_empty() {
                    self.head = std::mem::take(&mut self.replies);
                } else if !self.rest.is_empty() {
                    let rest = std::mem::take(&mut self.rest);
                    self.data(channel, rest);
                } else {
                    // Nothing is kept while nothing moves.
                    *self = Self::default();
                    return Pin::new(&mut *io).poll_flush(cx);
                }
            }
            let slices = [IoSlice::new(&self.head), IoSlice::new(&self.payload)];
            let written = ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_head = written.min(self.head.len());
            self.head.advance(of_head);
            self.payload.advance(written - of_head);
        }
    }

    /// What waits to go to the server's client is void, but for the message that is under way.
    pub(super) fn void_rest(&mut self) {
        self.rest = Bytes::new();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn bytes_go_out_in_frames_of_the_channel_and_ours_between_them() {
        let (mut near, mut far) = tokio::io::duplex(1000);
        let writing = async move {
            let mut outbox = Outbox::default();
            outbox.data(5, Bytes::from(vec![7; MAX_PAYLOAD + 1]));
            message(&mut outbox.replies, 0, Kind::Error, b"{}");
            poll_fn(|cx| outbox.poll_write(cx, &mut near, 5)).await.unwrap();
        };
        let mut got = Vec::new();
        tokio::join!(writing, async { far.read_to_end(&mut got).await.unwrap() });
        let mut wanted = b"\x82\x7f\0\0\0\0\0\x01\0\x06\0\0\0\x05\x05\xff\xff".to_vec();
        wanted.extend_from_slice(&[7; MAX_PAYLOAD]);
        wanted.extend_from_slice(b"\x82\x09\0\0\0\0\x08\0\x02{}");
        wanted.extend_from_slice(b"\x82\x08\0\0\0\x05\x05\0\x01\x07");
        assert!(got == wanted, "{} {}", got.len(), wanted.len());
    }
}
