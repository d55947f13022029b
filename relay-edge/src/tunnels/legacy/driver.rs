//! The task that owns a tunnel's socket.
//!
//! One poll reads a block at most, tells those who wait, and writes until the socket is full: so those who were woken run
//! between two blocks. An idle tunnel holds no buffer: blocks are read into a thread's own, and what is written is let go
//! once all of it went out.

use std::future::Future;
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use phlix_link::{Block, read_block};
use phlix_protocol::legacy::handshake::HelloError;
use phlix_protocol::legacy::tunnel::{Batch, Violation};
use phlix_protocol::ws::{self, CloseCode, Closing, Decoder, Limits, Opcode, Text};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use super::open::{Newcomer, OpenTunnel};
use super::shared::{End, Farewell, Shared};
use super::socket::Socket;
use crate::tunnels::native::Tunnels;

/// Bytes of frames that are taken to be written while the socket takes them, and once it does not: what was taken can't be
/// overtaken.
const BATCH_MOST: usize = 256 * 1024;
const BATCH_LEAST: usize = 16 * 1024;

/// Slices a system call.
const SLICES: usize = 64;

/// Longest message, bytes: what existing hubs take (legacy-relay-wire s.1.1). It is never held.
const MESSAGE: u64 = 10 * 1024 * 1024;

/// How long a close may take, and how long the server's own end is waited for.
const CLOSING: Duration = Duration::from_secs(3);
const LINGERING: Duration = Duration::from_secs(1);

/// Bytes that a server has not answered at all, from which on it may be busy and its kernel full: then unacknowledged bytes
/// are no sign of death, and `BUSY` is how long it is waited for. Kernels keep room for more than this.
const UNANSWERED: usize = 32 * 1024;
const BUSY: Duration = Duration::from_secs(60);

/// Drives one tunnel to its end.
pub(super) struct Driver<S> {
    io: S,
    tunnels: Arc<Tunnels>,
    shared: Arc<Shared>,
    /// Who it is, and before that who it may be.
    who: Who,
    decoder: Decoder,
    /// The beginning of a WebSocket frame whose rest has not come.
    input: BytesMut,
    /// Read before the driver began.
    leftover: BytesMut,
    out: Batch,
    /// Frames of the WebSocket itself: pongs, the last text, the close.
    own: BytesMut,
    budget: usize,
    timer: Pin<Box<Sleep>>,
    stage: Stage,
    /// Written since the server last said anything, bytes.
    unanswered: usize,
    busy: bool,
}

enum Who {
    Stranger(Newcomer),
    Server(OpenTunnel),
    Nobody,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// What is left, and the farewell, is written until then.
    Closing {
        until: Instant,
    },
    /// All was written; what still comes is dropped, so that no RST eats the farewell.
    Lingering {
        until: Instant,
    },
}

impl<S: Socket + AsyncRead + AsyncWrite + Unpin> Driver<S> {
    pub(super) fn new(
        io: S,
        leftover: BytesMut,
        tunnels: Arc<Tunnels>,
        shared: Arc<Shared>,
        newcomer: Newcomer,
    ) -> Self {
        io.set_patience(tunnels.config.legacy.unacknowledged);
        Self {
            io,
            tunnels,
            shared,
            who: Who::Stranger(newcomer),
            decoder: Decoder::new(ws::Role::Server, Limits { frame: MESSAGE, message: MESSAGE }, Text::Unchecked),
            input: BytesMut::new(),
            leftover,
            out: Batch::default(),
            own: BytesMut::new(),
            budget: BATCH_MOST,
            timer: Box::pin(tokio::time::sleep_until(Instant::now())),
            stage: Stage::Open,
            unanswered: 0,
            busy: false,
        }
    }

    fn end(&mut self, end: End) {
        self.shared.drive(|state| state.finish(end));
    }

    /// Reads a block and does what it says. `true` when there may be more; else we are woken when there is.
    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.leftover.is_empty() {
            let leftover = std::mem::take(&mut self.leftover);
            self.take(leftover);
            return true;
        }
        let wanted = self.shared.drive(|state| {
            let wanted = state.machine.wants_input();
            state.paused = !wanted;
            wanted
        });
        if !wanted {
            return false;
        }
        match read_block(&mut self.io, cx, &mut self.input) {
            Poll::Pending => return false,
            Poll::Ready(Ok(Block { bytes, .. })) if bytes.is_empty() => {
                self.end(End { why: "server_closed", farewell: Farewell::Nothing });
            }
            Poll::Ready(Ok(Block { bytes, more })) => {
                self.answered();
                self.take(bytes);
                return more;
            }
            Poll::Ready(Err(error)) => self.lost(&error),
        }
        true
    }

    fn lost(&mut self, error: &io::Error) {
        tracing::debug!(%error, "a media server's connection was lost");
        self.end(End { why: "lost", farewell: Farewell::Nothing });
    }

    /// Understands what was read.
    fn take(&mut self, mut bytes: BytesMut) {
        if let Err(end) = self.understand(&mut bytes) {
            self.end(end);
            return;
        }
        // A copy: a slice would keep the block.
        self.input = BytesMut::from(&bytes[..]);
    }

    fn understand(&mut self, bytes: &mut BytesMut) -> Result<(), End> {
        let now = Instant::now().into_std();
        let Self { decoder, shared, own, .. } = self;
        shared.drive(|state| {
            if state.end.is_some() {
                bytes.clear();
                return Ok(());
            }
            while let Some(event) = decoder.decode(bytes).map_err(broken)? {
                match event {
                    //= legacy-relay-wire s.1.1
                    // Text and binary alike.
                    ws::Event::Data { piece, last, .. } => {
                        state.machine.receive(piece.freeze(), last, now).map_err(violated)?;
                    }
                    // One answer for all that came since the last write (RFC 6455 s.5.5.3).
                    ws::Event::Ping(payload) => {
                        own.clear();
                        ws::control(own, Opcode::Pong, &payload, None);
                    }
                    ws::Event::Pong(_) => {}
                    ws::Event::Close(closing) => return Err(left(&closing)),
                }
            }
            Ok(())
        })
    }

    /// Judges who says hello.
    fn meet(&mut self) {
        let Some(hello) = self.shared.drive(|state| state.hello.take()) else { return };
        let Who::Stranger(newcomer) = std::mem::replace(&mut self.who, Who::Nobody) else { return };
        match OpenTunnel::admit(&self.tunnels, &self.shared, &hello, newcomer) {
            Ok(open) => self.who = Who::Server(open),
            Err(end) => self.end(end),
        }
    }

    /// The server said something.
    fn answered(&mut self) {
        self.unanswered = 0;
        if std::mem::take(&mut self.busy) {
            self.io.set_patience(self.tunnels.config.legacy.unacknowledged);
        }
    }

    fn wrote(&mut self, bytes: usize) {
        self.unanswered = self.unanswered.saturating_add(bytes);
        if self.unanswered > UNANSWERED && !self.busy {
            self.busy = true;
            self.io.set_patience(BUSY.max(self.tunnels.config.legacy.unacknowledged));
        }
    }

    /// Writes until the socket is full or nothing is left. Ready when nothing is left.
    fn poll_write_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.out.is_empty() && self.own.is_empty() && !self.fill() {
                self.out.clear();
                self.own = BytesMut::new();
                return Pin::new(&mut self.io).poll_flush(cx);
            }
            let written = match self.poll_write(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => written,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.budget = BATCH_LEAST;
                    return Poll::Pending;
                }
            };
            self.wrote(written);
            if self.out.is_empty() {
                self.budget = (self.budget * 2).min(BATCH_MOST);
            }
        }
    }

    /// Writes once: frames that were begun come before our own.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.own))?;
            self.own.advance(written);
            return Poll::Ready(Ok(written));
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(self.out.pieces()) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &slices[..count]))?;
        self.out.advance(written);
        Poll::Ready(Ok(written))
    }

    /// Takes what is ready; `false` when there is nothing.
    fn fill(&mut self) -> bool {
        if self.stage != Stage::Open {
            return false;
        }
        let now = Instant::now().into_std();
        let (budget, out) = (self.budget, &mut self.out);
        self.shared.drive(|state| state.machine.transmit(budget, now, out))
    }

    /// When the tunnel has ended: the farewell goes behind what was begun.
    fn begin_close(&mut self) {
        let Some(end) = self.shared.see(|state| state.end.clone()) else { return };
        self.stage = Stage::Closing { until: Instant::now() + CLOSING };
        match end.farewell {
            Farewell::Code(code) => ws::close(&mut self.own, Some(code), "", None),
            Farewell::Text(text) => ws::frame(&mut self.own, true, Opcode::Text, text.as_bytes(), None),
            Farewell::Nothing => {}
        }
        match std::mem::replace(&mut self.who, Who::Nobody) {
            Who::Server(open) => open.ended(end.why),
            Who::Stranger(_) => self.tunnels.metrics.tunnels_refused.with_label_values(&[end.why]).inc(),
            Who::Nobody => {}
        }
    }

    /// Writes the end. Ready when the socket can be dropped.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Stage::Closing { until } = self.stage {
            let shut = match self.poll_write_all(cx) {
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
            // A server that never stops is not listened to for ever.
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

    /// Keeps the tunnel's time.
    fn poll_time(&mut self, cx: &mut Context<'_>) {
        loop {
            let Some(due) = self.shared.see(|state| state.machine.deadline()) else { return };
            if self.poll_until(cx, due.into()).is_pending() {
                return;
            }
            let kept = self.shared.drive(|state| state.machine.on_time(Instant::now().into_std()));
            if let Err(violation) = kept {
                return self.end(violated(violation));
            }
        }
    }
}

impl<S: Socket + AsyncRead + AsyncWrite + Unpin> Future for Driver<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.shared.drive(|state| {
            state.driver = Some(cx.waker().clone());
            state.blocked = false;
        });
        if this.stage == Stage::Open {
            let more = this.read(cx);
            this.meet();
            this.poll_time(cx);
            match this.poll_write_all(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Pending => this.shared.drive(|state| state.blocked = true),
                Poll::Ready(Err(error)) => this.lost(&error),
            }
            if let Who::Server(open) = &mut this.who {
                open.count();
            }
            this.begin_close();
            if this.stage == Stage::Open {
                // What was written may have brought the next deadline forward.
                let due = this.shared.see(|state| state.machine.deadline());
                let late = due.is_some_and(|due| this.poll_until(cx, due.into()).is_ready());
                if late || more {
                    cx.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
        }
        this.poll_close(cx)
    }
}

impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        let end = End { why: "server_closed", farewell: Farewell::Nothing };
        self.shared.drive(|state| state.finish(end));
        if let Who::Server(open) = std::mem::replace(&mut self.who, Who::Nobody) {
            open.ended("drained");
        }
    }
}

/// The WebSocket's own rules were broken.
fn broken(error: ws::WsError) -> End {
    tracing::debug!(%error, "a media server broke WebSocket");
    End { why: "protocol_error", farewell: Farewell::Code(error.close_code()) }
}

/// The relay's rules were broken, or its times.
fn violated(violation: Violation) -> End {
    tracing::debug!(%violation, "a media server broke the relay's rules");
    //= legacy-relay-wire s.1.3
    let farewell = match violation {
        Violation::Hello(error @ (HelloError::NotAnObject | HelloError::TooLong | HelloError::NoServerId)) => {
            Farewell::Text(error.word())
        }
        _ => Farewell::Code(violation.close_code()),
    };
    End { why: violation.word(), farewell }
}

/// The server said good-bye.
fn left(closing: &Closing) -> End {
    // RFC 6455 s.5.5.1: the same code comes back.
    End { why: "server_closed", farewell: Farewell::Code(closing.reply().unwrap_or(CloseCode::NORMAL)) }
}
