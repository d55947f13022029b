//! The task that owns the socket.
//!
//! One poll reads a block at most, tells those who wait, and writes until the socket is full: so those who were woken run
//! between two blocks. An idle connection holds no buffer: blocks are read into a thread's own, and what is written lies in
//! a buffer that is let go once all of it went out.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use phlix_protocol::native::close;
use phlix_protocol::native::mux::{Batch, Violation};
use phlix_protocol::ws::{self, CloseCode, Closing, Decoder, Event, Limits, Opcode, Text};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use super::shared::{Farewell, Shared};
use crate::block::{Block, read_block};
use crate::end::End;

/// Bytes of frames that go into one message while the socket takes them, and once it does not: what is encrypted can't be
/// overtaken (relay-design s.3).
const BATCH_MOST: usize = 256 * 1024;
const BATCH_LEAST: usize = 16 * 1024;

/// Longest message of the peer's, bytes: its batch, the last frame's excess, and credit for thousands of streams.
const MESSAGE: u64 = 1024 * 1024;

/// How long a close may take, and how long the peer's own close frame is waited for.
const CLOSING: Duration = Duration::from_secs(3);
const LINGERING: Duration = Duration::from_secs(1);

/// Drives one connection to its end.
pub(super) struct Driver<S, M> {
    io: S,
    role: ws::Role,
    masks: M,
    shared: Arc<Shared>,
    decoder: Decoder,
    /// The beginning of a frame whose rest has not come: a header or a control frame.
    input: BytesMut,
    /// Read before the driver began.
    leftover: BytesMut,
    out: BytesMut,
    batch: Batch,
    budget: usize,
    pong: Option<Bytes>,
    timer: Pin<Box<Sleep>>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// What is left, and the close frame, is written until then.
    Closing {
        until: Instant,
    },
    /// All was written; what the peer still sends is dropped, so that no RST eats the close frame.
    Lingering {
        until: Instant,
    },
}

impl<S: AsyncRead + AsyncWrite + Unpin, M: FnMut() -> [u8; 4]> Driver<S, M> {
    pub(super) fn new(io: S, role: ws::Role, leftover: BytesMut, masks: M, shared: Arc<Shared>) -> Self {
        Self {
            io,
            role,
            masks,
            shared,
            decoder: Decoder::new(role, Limits { frame: MESSAGE, message: MESSAGE }, Text::Unchecked),
            input: BytesMut::new(),
            leftover,
            out: BytesMut::new(),
            batch: Batch::new(),
            budget: BATCH_MOST,
            pong: None,
            timer: Box::pin(tokio::time::sleep_until(Instant::now())),
            stage: Stage::Open,
        }
    }

    fn key(&mut self) -> Option<[u8; 4]> {
        (self.role == ws::Role::Client).then(|| (self.masks)())
    }

    /// Ends the connection, and begins to close it where the peer is to be told.
    fn end(&mut self, end: End, farewell: Option<Farewell>) {
        self.shared.end(end, farewell);
    }

    /// Reads a block and does what it says. `true` when there may be more; else we are woken when there is.
    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.leftover.is_empty() {
            let leftover = std::mem::take(&mut self.leftover);
            self.take(leftover);
            return true;
        }
        match read_block(&mut self.io, cx, &mut self.input) {
            Poll::Pending => return false,
            Poll::Ready(Ok(Block { bytes, .. })) if bytes.is_empty() => {
                self.end(End::Lost("the peer went away without a word".to_owned()), None);
            }
            Poll::Ready(Ok(Block { bytes, more })) => {
                self.take(bytes);
                return more;
            }
            Poll::Ready(Err(error)) => self.end(End::Lost(error.to_string()), None),
        }
        true
    }

    /// Understands what was read.
    fn take(&mut self, mut bytes: BytesMut) {
        if let Err(refusal) = self.understand(&mut bytes) {
            let (end, farewell) = refusal.split();
            self.end(end, farewell);
            return;
        }
        // A copy: a slice would keep the block.
        self.input = BytesMut::from(&bytes[..]);
    }

    fn understand(&mut self, bytes: &mut BytesMut) -> Result<(), Refusal> {
        let now = Instant::now().into_std();
        let Self { decoder, shared, pong, .. } = self;
        shared.drive(|state| {
            if state.end.is_some() {
                bytes.clear();
                return Ok(());
            }
            while let Some(event) = decoder.decode(bytes)? {
                match event {
                    Event::Data { kind: ws::Kind::Text, .. } => return Err(Refusal::Text),
                    Event::Data { piece, last, .. } => {
                        state.mux.handle(piece, now)?;
                        if last {
                            state.mux.end_of_message()?;
                        }
                    }
                    Event::Ping(payload) => *pong = Some(Bytes::copy_from_slice(&payload)),
                    Event::Pong(_) => {}
                    Event::Close(closing) => return Err(Refusal::Closed(closing)),
                }
            }
            Ok(())
        })
    }

    /// Writes until the socket is full or nothing is left. Ready when nothing is left.
    fn poll_write_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.out.is_empty() && !self.fill() {
                self.out = BytesMut::new();
                return Pin::new(&mut self.io).poll_flush(cx);
            }
            match Pin::new(&mut self.io).poll_write(cx, &self.out) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.out.advance(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.budget = BATCH_LEAST;
                    return Poll::Pending;
                }
            }
            if self.out.is_empty() {
                self.budget = (self.budget * 2).min(BATCH_MOST);
            }
        }
    }

    /// Puts the next message into the empty buffer; `false` when there is none.
    fn fill(&mut self) -> bool {
        self.out.clear();
        if self.stage != Stage::Open {
            return false;
        }
        if let Some(payload) = self.pong.take() {
            let key = self.key();
            ws::control(&mut self.out, Opcode::Pong, &payload, key);
        }
        self.message(self.budget);
        !self.out.is_empty()
    }

    /// Adds a message with what is ready.
    fn message(&mut self, budget: usize) {
        let now = Instant::now().into_std();
        let batch = &mut self.batch;
        if self.shared.drive(|state| state.mux.poll_transmit(now, budget, batch)) {
            let key = self.key();
            ws::pieces(&mut self.out, true, Opcode::Binary, self.batch.len(), self.batch.pieces(), key);
            self.batch.clear();
        }
    }

    /// When the connection has ended: the close frame goes behind what is in the buffer.
    fn begin_close(&mut self) {
        if self.stage != Stage::Open {
            return;
        }
        let Some((end, farewell)) = self.shared.drive(|state| Some((state.end.clone()?, state.farewell.take()))) else {
            return;
        };
        self.stage = Stage::Closing { until: Instant::now() + CLOSING };
        if let Some(Farewell { code, reason }) = farewell {
            if end == End::Local {
                // The last control messages, such as `refused`.
                self.message(BATCH_LEAST);
            }
            let key = self.key();
            ws::close(&mut self.out, CloseCode::private(code), &reason, key);
        }
    }

    /// Writes the end. Ready when the socket can be dropped.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Stage::Closing { until } = self.stage {
            let written = self.poll_write_all(cx);
            let shut = match written {
                Poll::Ready(Ok(())) => Pin::new(&mut self.io).poll_shutdown(cx),
                other => other,
            };
            match shut {
                Poll::Ready(Ok(())) => self.stage = Stage::Lingering { until: Instant::now() + LINGERING },
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return self.poll_until(cx, until),
            }
        }
        let Stage::Lingering { until } = self.stage else { return Poll::Pending };
        loop {
            match read_block(&mut self.io, cx, &mut self.input) {
                Poll::Ready(Ok(block)) if block.bytes.is_empty() => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return self.poll_until(cx, until),
            }
            // A peer that never stops is not listened to for ever.
            if Instant::now() >= until {
                return Poll::Ready(());
            }
        }
    }

    fn poll_until(&mut self, cx: &mut Context<'_>, when: Instant) -> Poll<()> {
        if self.timer.deadline() != when {
            self.timer.as_mut().reset(when);
        }
        self.timer.as_mut().poll(cx)
    }

    /// Keeps the multiplexer's time.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Result<(), Violation> {
        loop {
            let due = Instant::from_std(self.shared.drive(|state| state.mux.next_timeout()));
            if self.poll_until(cx, due).is_pending() {
                return Ok(());
            }
            self.shared.drive(|state| state.mux.handle_timeout(Instant::now().into_std()))?;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, M: FnMut() -> [u8; 4] + Unpin> Future for Driver<S, M> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.shared.drive(|state| {
            state.driver = Some(cx.waker().clone());
            state.blocked = false;
        });
        if this.stage == Stage::Open {
            let more = this.read(cx);
            if let Err(violation) = this.poll_time(cx) {
                let (end, farewell) = Refusal::from(violation).split();
                this.end(end, farewell);
            }
            this.begin_close();
            if this.stage == Stage::Open {
                match this.poll_write_all(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Pending => this.shared.drive(|state| state.blocked = true),
                    Poll::Ready(Err(error)) => {
                        this.end(End::Lost(error.to_string()), None);
                        this.begin_close();
                    }
                }
            }
            if this.stage == Stage::Open {
                // What was written may have brought the next PING forward.
                let due = this.shared.drive(|state| state.mux.next_timeout());
                if this.poll_until(cx, Instant::from_std(due)).is_ready() || more {
                    cx.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
        }
        this.poll_close(cx)
    }
}

impl<S, M> Drop for Driver<S, M> {
    fn drop(&mut self) {
        self.shared.gone();
    }
}

/// Why the peer is listened to no longer.
enum Refusal {
    Socket(ws::WsError),
    Rule(Violation),
    Text,
    Closed(Closing),
}

impl Refusal {
    fn split(self) -> (End, Option<Farewell>) {
        let broken = |reason: String| (End::Broken(reason.clone()), Some(Farewell { code: close::PROTOCOL, reason }));
        match self {
            Self::Socket(error) => broken(error.to_string()),
            Self::Rule(violation @ Violation::Silent) => {
                (End::TimedOut, Some(Farewell { code: close::DEAD_PATH, reason: violation.to_string() }))
            }
            Self::Rule(violation) => broken(violation.to_string()),
            Self::Text => broken("text message".to_owned()),
            Self::Closed(closing) => {
                let code = closing.code.and_then(CloseCode::as_private);
                let reply = Farewell { code: code.unwrap_or(close::BYE), reason: String::new() };
                match (code, closing.code) {
                    (Some(code), _) => (End::peer(code, closing.reason.as_bytes()), Some(reply)),
                    (None, Some(other)) => {
                        (End::Lost(format!("the WebSocket was closed with code {}", other.get())), Some(reply))
                    }
                    (None, None) => (End::Lost("the WebSocket was closed".to_owned()), Some(reply)),
                }
            }
        }
    }
}

impl From<ws::WsError> for Refusal {
    fn from(error: ws::WsError) -> Self {
        Self::Socket(error)
    }
}

impl From<Violation> for Refusal {
    fn from(violation: Violation) -> Self {
        Self::Rule(violation)
    }
}
