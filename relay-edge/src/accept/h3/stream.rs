//! One request's QUIC stream: HTTP/3's frames, in and out.
//!
//! The h3 crate decodes and encodes heads and trailers, and sees nothing else of the stream: it would hold a frame of
//! any length before it looked at it, read ahead of whoever takes a body, and copy what it writes. Here a head has a
//! bound before it is held, a body is read only when somebody takes it, and is written without a copy.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h3::error::Code;
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};

use super::section::{self, Malformed, Protocol};
use super::transport::Shared;

const DATA: u64 = 0x00;
const HEADERS: u64 = 0x01;

/// Frames that no request's stream may have: the control stream's, server push, and those that HTTP/2 had (RFC 9114
/// s.7.2).
const FORBIDDEN: [u64; 9] = [0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0d];

/// A frame's type and length, in bytes at most.
const FRAME_HEAD: usize = 16;

/// Why a request's stream goes no further.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Fault {
    #[error("a head is longer than one may be")]
    TooLarge,
    #[error("the request is malformed: {0}")]
    Malformed(#[from] Malformed),
    /// The viewer has reset the stream, or stopped reading it.
    #[error("the viewer gave the request up, code {0:#x}")]
    GivenUp(u64),
    /// Not only this request: the connection was closed for it.
    #[error("the viewer broke HTTP/3's rules: {0}")]
    Broken(Code),
    #[error("the viewer's connection is gone: {0}")]
    Lost(ConnectionError),
    #[error("the stream is closed")]
    Closed,
}

/// What comes on a stream.
#[derive(Debug)]
pub(super) enum Event {
    /// Some of a body.
    Data(Bytes),
    /// A field section, whole.
    Headers(Bytes),
    /// The viewer says no more.
    End,
}

/// Both directions, shared by what reads, what writes and the h3 crate.
pub(super) struct Stream {
    shared: Arc<Shared>,
    reading: Mutex<Reading>,
    writing: Mutex<Writing>,
    protocol: AtomicU8,
}

struct Reading {
    stream: RecvStream,
    /// Read, and taken by nobody yet.
    chunk: Bytes,
    /// A frame's head, as far as it came.
    head: ([u8; FRAME_HEAD], usize),
    frame: Option<Frame>,
    /// What the h3 crate may read.
    granted: VecDeque<Bytes>,
    stage: Stage,
    peeked: Option<Event>,
    ended: bool,
    /// Why nothing more will come: said to everybody who asks.
    fault: Option<Fault>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Body,
    Trailers,
}

enum Frame {
    Data(u64),
    Headers(BytesMut, usize),
    /// Unknown: passed over (RFC 9114 s.9).
    Unknown(u64),
}

struct Writing {
    stream: SendStream,
    /// Begun and not yet written.
    pending: VecDeque<Bytes>,
    finished: bool,
    answered: bool,
}

impl Stream {
    pub(super) fn new(shared: Arc<Shared>, send: SendStream, recv: RecvStream) -> Arc<Self> {
        let reading = Reading {
            stream: recv,
            chunk: Bytes::new(),
            head: ([0; FRAME_HEAD], 0),
            frame: None,
            granted: VecDeque::new(),
            stage: Stage::Head,
            peeked: None,
            ended: false,
            fault: None,
        };
        let writing = Writing { stream: send, pending: VecDeque::new(), finished: false, answered: false };
        Arc::new(Self {
            shared,
            reading: Mutex::new(reading),
            writing: Mutex::new(writing),
            protocol: AtomicU8::new(0),
        })
    }

    /// The stream's number.
    pub(super) fn id(&self) -> u64 {
        VarInt::from(self.reading().stream.id()).into_inner()
    }

    /// What an Extended CONNECT asked for, once its head was read.
    pub(super) fn protocol(&self) -> Option<Protocol> {
        match self.protocol.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Protocol::WebSocket),
            _ => Some(Protocol::Other),
        }
    }

    /// The next of a body. A field section that ends it is left for the h3 crate, which is asked next.
    pub(super) fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Result<Event, Fault>> {
        let mut reading = self.reading();
        match reading.peeked.take() {
            Some(event) => Poll::Ready(Ok(event)),
            None => reading.poll_body(cx, &self.shared),
        }
    }

    /// Looks at what the body begins with, without taking it.
    pub(super) fn poll_peek(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut reading = self.reading();
        if reading.peeked.is_none() {
            // A fault comes again to whoever takes the body.
            if let Ok(event) = ready!(reading.poll_body(cx, &self.shared)) {
                reading.peeked = Some(event);
            }
        }
        Poll::Ready(())
    }

    /// Whether what comes next, as it was peeked at, is some of a body.
    pub(super) fn has_data(&self) -> bool {
        matches!(self.reading().peeked, Some(Event::Data(_)))
    }

    /// Whether nothing more comes.
    pub(super) fn is_read(&self) -> bool {
        let reading = self.reading();
        matches!(reading.peeked, Some(Event::End)) || (reading.ended && reading.peeked.is_none())
    }

    /// Why nothing more comes, where that is so.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.reading().fault.clone()
    }

    /// For the h3 crate: bytes of the head, or of trailers.
    pub(super) fn poll_granted(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Fault>> {
        let mut reading = self.reading();
        if let Some(bytes) = reading.granted.pop_front() {
            return Poll::Ready(Ok(Some(bytes)));
        }
        match reading.stage {
            Stage::Head => match ready!(reading.poll_event(cx, &self.shared))? {
                Event::Headers(bytes) => {
                    let section = section::look_over(bytes).map_err(|malformed| reading.fails(malformed.into()))?;
                    self.protocol.store(section.protocol.map_or(0, |protocol| protocol as u8 + 1), Ordering::Relaxed);
                    reading.stage = Stage::Body;
                    reading.grant(section.bytes);
                    Poll::Ready(Ok(reading.granted.pop_front()))
                }
                Event::Data(_) => Poll::Ready(Err(self.shared.broken(Code::H3_FRAME_UNEXPECTED))),
                Event::End => Poll::Ready(Ok(None)),
            },
            // Between head and trailers it has nothing to read, and isn't asked.
            Stage::Body => Poll::Pending,
            Stage::Trailers => match ready!(reading.poll_event(cx, &self.shared))? {
                Event::End => Poll::Ready(Ok(None)),
                Event::Data(_) | Event::Headers(_) => Poll::Ready(Err(self.shared.broken(Code::H3_FRAME_UNEXPECTED))),
            },
        }
    }

    /// Writes raw bytes as far as they fit, for the h3 crate, which frames heads itself.
    pub(super) fn poll_write_raw(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Fault>> {
        let mut writing = self.writing();
        writing.answered = true;
        ready!(writing.poll_pending(cx))?;
        let mut write = pin!(writing.stream.write(bytes));
        write.as_mut().poll(cx).map_err(Fault::from)
    }

    /// Begins a DATA frame: it is written by `poll_flush`.
    pub(super) fn begin_data(&self, data: Bytes) {
        let mut head = BytesMut::with_capacity(FRAME_HEAD);
        put(&mut head, DATA);
        put(&mut head, data.len() as u64);
        let mut writing = self.writing();
        writing.pending.push_back(head.freeze());
        writing.pending.push_back(data);
    }

    /// Writes what was begun.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.writing().poll_pending(cx)
    }

    /// Says `100 (Continue)`, unless an answer has begun. Six bytes that don't fit are not waited for: the viewer sends
    /// its body without, a little later (RFC 9110 s.10.1.1).
    pub(super) fn say_continue(&self) {
        // HEADERS of 4 bytes: the section's prefix, and line 63 of the static table, `:status: 100`.
        const CONTINUE: [u8; 6] = [0x01, 0x04, 0x00, 0x00, 0xff, 0x00];
        let mut writing = self.writing();
        if !writing.answered && writing.pending.is_empty() {
            writing.pending.push_back(Bytes::from_static(&CONTINUE));
            let _ = writing.poll_pending(&mut Context::from_waker(Waker::noop()));
        }
    }

    /// Answers `431`, whose head no crate is needed for, and ends.
    pub(super) fn say_too_large(&self) {
        // HEADERS of 8 bytes: the section's prefix, and `431` under line 24's name, `:status`.
        const TOO_LARGE: [u8; 10] = [0x01, 0x08, 0x00, 0x00, 0x5f, 0x09, 0x03, b'4', b'3', b'1'];
        let mut writing = self.writing();
        if !writing.answered {
            writing.pending.push_back(Bytes::from_static(&TOO_LARGE));
            let _ = writing.poll_pending(&mut Context::from_waker(Waker::noop()));
        }
        drop(writing);
        self.finish();
    }

    /// Ends our direction cleanly, and tells the viewer that nothing more of its own is wanted.
    pub(super) fn finish(&self) {
        let mut writing = self.writing();
        if !writing.finished && writing.pending.is_empty() {
            writing.finished = true;
            let _ = writing.stream.finish();
        }
        drop(writing);
        self.stop(Code::H3_NO_ERROR);
    }

    /// Ends our direction cleanly and goes on reading.
    pub(super) fn half_close(&self) {
        let mut writing = self.writing();
        writing.finished = true;
        let _ = writing.stream.finish();
    }

    /// Ends both directions at once; what is written and not yet there is dropped.
    pub(super) fn abort(&self, code: Code) {
        let mut writing = self.writing();
        if !writing.finished {
            writing.finished = true;
            let _ = writing.stream.reset(var(code));
        }
        drop(writing);
        self.stop(code);
    }

    /// Reads no more.
    pub(super) fn stop(&self, code: Code) {
        let mut reading = self.reading();
        if !reading.ended {
            reading.ended = true;
            reading.fault.get_or_insert(Fault::Closed);
            let _ = reading.stream.stop(var(code));
        }
    }

    /// Comes when the viewer stops reading (with its code), has it all, or is gone.
    pub(super) fn stopped(&self) -> impl Future<Output = Option<u64>> + Send + use<> {
        let stopped = self.writing().stream.stopped();
        async move {
            match stopped.await {
                Ok(code) => code.map(VarInt::into_inner),
                Err(_) => Some(Code::H3_NO_ERROR.value()),
            }
        }
    }

    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // quinn would end it cleanly: half an answer must not look whole.
        self.abort(Code::H3_INTERNAL_ERROR);
    }
}

impl Reading {
    fn poll_body(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<Result<Event, Fault>> {
        let event = ready!(self.poll_event(cx, shared))?;
        if let Event::Headers(section) = event {
            self.stage = Stage::Trailers;
            self.grant(section.clone());
            return Poll::Ready(Ok(Event::Headers(section)));
        }
        Poll::Ready(Ok(event))
    }

    fn fails(&mut self, fault: Fault) -> Fault {
        self.fault = Some(fault.clone());
        fault
    }

    /// Lets the h3 crate read this section, as a frame.
    fn grant(&mut self, section: Bytes) {
        let mut head = BytesMut::with_capacity(FRAME_HEAD);
        put(&mut head, HEADERS);
        put(&mut head, section.len() as u64);
        self.granted.push_back(head.freeze());
        if !section.is_empty() {
            self.granted.push_back(section);
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<Result<Event, Fault>> {
        if let Some(fault) = &self.fault {
            return Poll::Ready(Err(fault.clone()));
        }
        let polled = self.poll_next(cx, shared);
        if let Poll::Ready(Err(fault)) = &polled {
            self.fault = Some(fault.clone());
        }
        polled
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<Result<Event, Fault>> {
        loop {
            if self.chunk.is_empty() && !self.needs_no_byte() && !ready!(self.poll_fill(cx))? {
                let between = self.frame.is_none() && self.head.1 == 0;
                return Poll::Ready(if between { Ok(Event::End) } else { Err(shared.broken(Code::H3_FRAME_ERROR)) });
            }
            match &mut self.frame {
                None => self.begin_frame(shared)?,
                Some(Frame::Data(0) | Frame::Unknown(0)) => self.frame = None,
                Some(Frame::Data(left)) => {
                    let data = take(&mut self.chunk, left);
                    return Poll::Ready(Ok(Event::Data(data)));
                }
                Some(Frame::Unknown(left)) => drop(take(&mut self.chunk, left)),
                Some(Frame::Headers(section, length)) => {
                    let wanted = (*length - section.len()).min(self.chunk.len());
                    section.extend_from_slice(&self.chunk[..wanted]);
                    self.chunk.advance(wanted);
                    if section.len() == *length {
                        let section = std::mem::take(section).freeze();
                        self.frame = None;
                        return Poll::Ready(Ok(Event::Headers(section)));
                    }
                }
            }
        }
    }

    /// Whether the next step is made without another byte.
    fn needs_no_byte(&self) -> bool {
        match &self.frame {
            None => false,
            Some(Frame::Data(left) | Frame::Unknown(left)) => *left == 0,
            Some(Frame::Headers(section, length)) => section.len() == *length,
        }
    }

    /// Takes bytes of a frame's head; afterwards there is a frame, or not enough of one.
    fn begin_frame(&mut self, shared: &Shared) -> Result<(), Fault> {
        while !self.chunk.is_empty() {
            let (bytes, length) = &mut self.head;
            bytes[*length] = self.chunk.get_u8();
            *length += 1;
            let mut head = &bytes[..*length];
            let (Some(kind), Some(size)) = (get(&mut head), get(&mut head)) else { continue };
            *length = 0;
            self.frame = Some(match kind {
                DATA => {
                    if size == 0 {
                        shared.odd()?;
                    }
                    Frame::Data(size)
                }
                HEADERS => {
                    let size = usize::try_from(size).ok().filter(|size| *size <= shared.head_bytes);
                    Frame::Headers(BytesMut::new(), size.ok_or(Fault::TooLarge)?)
                }
                forbidden if FORBIDDEN.contains(&forbidden) => return Err(shared.broken(Code::H3_FRAME_UNEXPECTED)),
                _ => {
                    shared.odd()?;
                    Frame::Unknown(size)
                }
            });
            return Ok(());
        }
        Ok(())
    }

    /// Whether there is another chunk; not at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Fault>> {
        if self.ended {
            return Poll::Ready(Ok(false));
        }
        let chunk = pin!(self.stream.read_chunk(CHUNK, true));
        match ready!(chunk.poll(cx))? {
            Some(chunk) => self.chunk = chunk.bytes,
            None => self.ended = true,
        }
        Poll::Ready(Ok(!self.ended))
    }
}

/// What is taken off a stream at once, at most.
const CHUNK: usize = 256 * 1024;

impl Writing {
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        while !self.pending.is_empty() {
            let chunks = self.pending.make_contiguous();
            let written = {
                let write = pin!(self.stream.write_chunks(chunks));
                ready!(write.poll(cx))?
            };
            self.pending.drain(..written.chunks);
        }
        Poll::Ready(Ok(()))
    }
}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::GivenUp(code.into_inner()),
            ReadError::ConnectionLost(error) => Self::Lost(error),
            ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => Self::Closed,
        }
    }
}

impl From<WriteError> for Fault {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::GivenUp(code.into_inner()),
            WriteError::ConnectionLost(error) => Self::Lost(error),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::Closed,
        }
    }
}

/// A code as QUIC wants it.
pub(super) fn var(code: Code) -> VarInt {
    VarInt::from_u64(code.value()).unwrap_or(VarInt::MAX)
}

fn take(chunk: &mut Bytes, left: &mut u64) -> Bytes {
    let wanted = usize::try_from(*left).unwrap_or(usize::MAX).min(chunk.len());
    *left -= wanted as u64;
    chunk.split_to(wanted)
}

/// Takes a variable-length integer off (RFC 9000 s.16); `None` leaves the rest as it may be.
pub(super) fn get(bytes: &mut &[u8]) -> Option<u64> {
    let first = *bytes.first()?;
    let length = 1 << (first >> 6);
    let (number, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(number[1..].iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte)))
}

fn put(bytes: &mut BytesMut, number: u64) {
    match number {
        0..0x40 => bytes.put_uint(number, 1),
        0x40..0x4000 => bytes.put_uint(number | 1 << 14, 2),
        0x4000..0x4000_0000 => bytes.put_uint(number | 2 << 30, 4),
        _ => bytes.put_u64(number | 3 << 62),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_length_come_back() {
        for number in [0, 63, 64, 16_383, 16_384, (1 << 30) - 1, 1 << 30, (1 << 62) - 1] {
            let mut bytes = BytesMut::new();
            put(&mut bytes, number);
            for end in 0..bytes.len() {
                assert_eq!(get(&mut &bytes[..end]), None);
            }
            let mut all = &bytes[..];
            assert_eq!((get(&mut all), all.len()), (Some(number), 0));
        }
    }
}
