//! QUIC as the h3 crate sees it: control and QPACK streams whole, of a request's stream the heads.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h3::error::Code;
use h3::quic::{
    BidiStream, Connection, ConnectionErrorIncoming, OpenStreams, RecvStream, SendStream, StreamErrorIncoming,
    StreamId, WriteBuf,
};
use quinn::ConnectionError;

use super::stream::{Fault, Stream, get, var};

/// Frames of the control stream: settings are the longest.
const CONTROL_FRAME: u64 = 16 * 1024;

/// Frames that say nothing, streams and control frames that serve no request: so many are borne, and some more for each
/// request.
const ODD: u32 = 1_000;

/// Priorities change with requests, and players change them often.
const ODD_PER_REQUEST: u32 = 8;

/// What all streams of a connection share.
pub(super) struct Shared {
    pub(super) connection: quinn::Connection,
    /// Bytes of a field section as it is sent.
    pub(super) head_bytes: usize,
    odd: AtomicU32,
    /// Requests' streams that the h3 crate was given, and we take.
    fresh: Mutex<VecDeque<Arc<Stream>>>,
}

impl Shared {
    pub(super) fn new(connection: quinn::Connection, head_bytes: usize) -> Arc<Self> {
        Arc::new(Self { connection, head_bytes, odd: AtomicU32::new(0), fresh: Mutex::default() })
    }

    /// Closes the connection: its peer does not speak HTTP/3.
    pub(super) fn broken(&self, code: Code) -> Fault {
        self.connection.close(var(code), b"");
        Fault::Broken(code)
    }

    /// Something that serves no request: borne within a budget.
    pub(super) fn odd(&self) -> Result<(), Fault> {
        if self.odd.fetch_add(1, Ordering::Relaxed) < ODD { Ok(()) } else { Err(self.broken(Code::H3_EXCESSIVE_LOAD)) }
    }

    /// A request has come.
    fn request(&self) {
        let odd = self.odd.load(Ordering::Relaxed);
        self.odd.store(odd.saturating_sub(ODD_PER_REQUEST), Ordering::Relaxed);
    }

    /// The stream of this number, once.
    pub(super) fn take(&self, id: u64) -> Option<Arc<Stream>> {
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        // Those before it were refused by the h3 crate.
        std::iter::from_fn(|| fresh.pop_front()).find(|stream| stream.id() == id)
    }
}

type Accepting<T> = Option<Pin<Box<dyn Future<Output = Result<T, ConnectionError>> + Send + Sync>>>;

/// A QUIC connection for the h3 crate.
pub(super) struct Transport {
    shared: Arc<Shared>,
    accepting: Accepting<(quinn::SendStream, quinn::RecvStream)>,
    accepting_uni: Accepting<quinn::RecvStream>,
    opening_uni: Accepting<quinn::SendStream>,
}

impl Transport {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), accepting: None, accepting_uni: None, opening_uni: None }
    }
}

/// Polls what is under way, or begins it.
fn poll_next<T, F>(
    slot: &mut Accepting<T>,
    cx: &mut Context<'_>,
    begin: impl FnOnce() -> F,
) -> Poll<Result<T, ConnectionError>>
where
    F: Future<Output = Result<T, ConnectionError>> + Send + Sync + 'static,
{
    let next = slot.get_or_insert_with(|| Box::pin(begin()));
    let done = ready!(next.as_mut().poll(cx));
    *slot = None;
    Poll::Ready(done)
}

impl Connection<Bytes> for Transport {
    type RecvStream = Uni;
    type OpenStreams = Self;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Uni, ConnectionErrorIncoming>> {
        let connection = &self.shared.connection;
        let accepted = poll_next(&mut self.accepting_uni, cx, || {
            let connection = connection.clone();
            async move { connection.accept_uni().await }
        });
        let stream = ready!(accepted).map_err(lost)?;
        if self.shared.odd().is_err() {
            return Poll::Pending;
        }
        Poll::Ready(Ok(Uni { stream, shared: Arc::clone(&self.shared), watch: Watch::default() }))
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Request, ConnectionErrorIncoming>> {
        let connection = &self.shared.connection;
        let accepted = poll_next(&mut self.accepting, cx, || {
            let connection = connection.clone();
            async move { connection.accept_bi().await }
        });
        let (send, recv) = ready!(accepted).map_err(lost)?;
        self.shared.request();
        let stream = Stream::new(Arc::clone(&self.shared), send, recv);
        self.shared.fresh.lock().unwrap_or_else(PoisonError::into_inner).push_back(Arc::clone(&stream));
        Poll::Ready(Ok(Request { stream, writing: None }))
    }

    fn opener(&self) -> Self {
        Self::new(&self.shared)
    }
}

impl OpenStreams<Bytes> for Transport {
    type BidiStream = Request;
    type SendStream = Out;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Request, StreamErrorIncoming>> {
        // Only viewers open such streams.
        Poll::Ready(Err(fault(Fault::Closed)))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Out, StreamErrorIncoming>> {
        let connection = &self.shared.connection;
        let opened = poll_next(&mut self.opening_uni, cx, || {
            let connection = connection.clone();
            async move { connection.open_uni().await }
        });
        let stream = ready!(opened).map_err(|error| fault(Fault::Lost(error)))?;
        Poll::Ready(Ok(Out { stream, writing: None }))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.shared.connection.close(var(code), reason);
    }
}

fn lost(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into_inner() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        error => ConnectionErrorIncoming::Undefined(Arc::new(error)),
    }
}

fn fault(fault: Fault) -> StreamErrorIncoming {
    match fault {
        Fault::GivenUp(error_code) => StreamErrorIncoming::StreamTerminated { error_code },
        Fault::Lost(error) => StreamErrorIncoming::ConnectionErrorIncoming { connection_error: lost(error) },
        fault => StreamErrorIncoming::Unknown(Box::new(fault)),
    }
}

/// A request's stream.
pub(super) struct Request {
    stream: Arc<Stream>,
    writing: Option<WriteBuf<Bytes>>,
}

impl SendStream<Bytes> for Request {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while let Some(buffer) = self.writing.as_mut().filter(|buffer| buffer.has_remaining()) {
            let written = ready!(self.stream.poll_write_raw(cx, buffer.chunk())).map_err(fault)?;
            buffer.advance(written);
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.stream.half_close();
        Poll::Ready(Ok(()))
    }

    fn reset(&mut self, code: u64) {
        self.stream.abort(Code::from(code));
    }

    fn send_id(&self) -> StreamId {
        id(self.stream.id())
    }
}

impl RecvStream for Request {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.stream.poll_granted(cx).map_err(fault)
    }

    fn stop_sending(&mut self, code: u64) {
        self.stream.stop(Code::from(code));
    }

    fn recv_id(&self) -> StreamId {
        id(self.stream.id())
    }
}

impl BidiStream<Bytes> for Request {
    type SendStream = Self;
    type RecvStream = Self;

    fn split(self) -> (Self, Self) {
        let other = Self { stream: Arc::clone(&self.stream), writing: None };
        (self, other)
    }
}

fn id(number: u64) -> StreamId {
    StreamId::try_from(number).expect("QUIC's numbers of streams are below 2^62")
}

/// A stream of ours: control, QPACK.
pub(super) struct Out {
    stream: quinn::SendStream,
    writing: Option<WriteBuf<Bytes>>,
}

impl SendStream<Bytes> for Out {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while let Some(buffer) = self.writing.as_mut().filter(|buffer| buffer.has_remaining()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buffer.chunk()))
                .map_err(|error| fault(Fault::from(error)))?;
            buffer.advance(written);
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        Poll::Ready(self.stream.finish().map_err(|_| fault(Fault::Closed)))
    }

    fn reset(&mut self, code: u64) {
        let _ = self.stream.reset(var(Code::from(code)));
    }

    fn send_id(&self) -> StreamId {
        id(quinn::VarInt::from(self.stream.id()).into_inner())
    }
}

/// A stream of the viewer's: control, QPACK, or nothing that we know.
pub(super) struct Uni {
    stream: quinn::RecvStream,
    shared: Arc<Shared>,
    watch: Watch,
}

impl RecvStream for Uni {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let chunk = {
            let read = pin!(self.stream.read_chunk(CONTROL_CHUNK, true));
            ready!(read.poll(cx)).map_err(|error| fault(Fault::from(error)))?
        };
        let Some(chunk) = chunk else { return Poll::Ready(Ok(None)) };
        self.watch.over(&chunk.bytes, &self.shared).map_err(fault)?;
        Poll::Ready(Ok(Some(chunk.bytes)))
    }

    fn stop_sending(&mut self, code: u64) {
        let _ = self.stream.stop(var(Code::from(code)));
    }

    fn recv_id(&self) -> StreamId {
        id(quinn::VarInt::from(self.stream.id()).into_inner())
    }
}

/// What is taken off a control stream at once, at most.
const CONTROL_CHUNK: usize = 16 * 1024;

/// Follows a control stream's frames, so that the h3 crate, which holds each whole, is given none that is too long, nor
/// too many.
#[derive(Default)]
struct Watch {
    is_control: Option<bool>,
    head: Vec<u8>,
    left: u64,
}

impl Watch {
    fn over(&mut self, mut bytes: &[u8], shared: &Shared) -> Result<(), Fault> {
        while !bytes.is_empty() && self.is_control != Some(false) {
            let skipped = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left -= skipped as u64;
            bytes = &bytes[skipped..];
            let Some((byte, rest)) = bytes.split_first() else { break };
            bytes = rest;
            self.head.push(*byte);
            let mut head = &self.head[..];
            let Some(first) = get(&mut head) else { continue };
            if self.is_control.is_none() {
                self.is_control = Some(first == 0);
                self.head.clear();
            } else if let Some(length) = get(&mut head) {
                self.head.clear();
                shared.odd()?;
                if length > CONTROL_FRAME {
                    return Err(shared.broken(Code::H3_EXCESSIVE_LOAD));
                }
                self.left = length;
            }
        }
        Ok(())
    }
}
