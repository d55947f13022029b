//! A viewer's connection with its clocks (a head that comes too slowly, a socket that takes nothing) and with the watch
//! over what comes: HTTP/1.1's heads, HTTP/2's frames.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::glitches::{self, Http2};
use super::heads::Heads;
use crate::metrics::Metrics;

/// Requests of one connection: while none is under way, what comes is a head.
#[derive(Debug, Clone, Default)]
pub(super) struct UnderWay(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    open: AtomicUsize,
    begun: AtomicU64,
}

/// One request under way.
pub(super) struct Token(UnderWay);

impl UnderWay {
    pub(super) fn begin(&self) -> Token {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        Token(self.clone())
    }

    fn none(&self) -> bool {
        self.0.open.load(Ordering::Relaxed) == 0
    }

    fn begun(&self) -> u64 {
        self.0.begun.load(Ordering::Relaxed)
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is followed on its way.
#[derive(Debug)]
pub(super) enum Watch {
    Http1(Heads),
    Http2(Http2),
}

/// A stream with two clocks and a watch.
pub(super) struct Timed<S> {
    stream: S,
    watch: Watch,
    metrics: Arc<Metrics>,
    under_way: UnderWay,
    head: Duration,
    stall: Duration,
    /// Runs from a head's first byte to its last; with a number that is that head's own.
    reading: Option<(Pin<Box<Sleep>>, u64)>,
    /// Runs while the socket takes nothing.
    writing: Option<Pin<Box<Sleep>>>,
    /// What hyper gets in the place of what it must not see.
    instead: Option<&'static [u8]>,
}

impl<S> Timed<S> {
    /// The stream alone, for another protocol than HTTP.
    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    pub(super) fn new(
        stream: S,
        watch: Watch,
        metrics: Arc<Metrics>,
        under_way: UnderWay,
        head: Duration,
        stall: Duration,
    ) -> Self {
        Self { stream, watch, metrics, under_way, head, stall, reading: None, writing: None, instead: None }
    }

    fn written<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.writing = None;
            return polled;
        }
        let stall = self.stall;
        let clock = self.writing.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        match clock.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the viewer doesn't read"))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// The head that is coming now.
    fn unfinished(&self) -> Option<u64> {
        match &self.watch {
            Watch::Http1(_) => self.under_way.none().then(|| self.under_way.begun()),
            Watch::Http2(frames) => frames.unfinished(),
        }
    }

    /// What is left of what comes instead.
    fn give_instead(&mut self, buf: &mut ReadBuf<'_>) {
        if let Some(instead) = &mut self.instead {
            let (now, later) = instead.split_at(instead.len().min(buf.remaining()));
            buf.put_slice(now);
            *instead = later;
        }
    }
}

impl<S: AsyncWrite + Unpin> Timed<S> {
    /// Looks at what came; cuts off who may send no more of it.
    fn watch(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, before: usize) -> io::Result<()> {
        let came = &buf.filled()[before..];
        match &mut self.watch {
            Watch::Http1(heads) => {
                if let Err(refused) = heads.scan(came) {
                    tracing::debug!(why = refused.why, "a request is refused");
                    self.metrics.glitches.with_label_values(&["framing"]).inc();
                    buf.set_filled(before + refused.good);
                    self.instead = Some(refused.instead);
                    if refused.good == 0 {
                        self.give_instead(buf);
                    }
                }
                Ok(())
            }
            Watch::Http2(frames) => match frames.came(came, Instant::now().into_std()) {
                Ok(()) => Ok(()),
                Err(kind) => {
                    glitches::report(kind.as_str(), &self.metrics);
                    if let Some(goaway) = frames.goaway() {
                        // Told if the socket takes it; who doesn't read has to do without.
                        let _ = Pin::new(&mut self.stream).poll_write(cx, &goaway);
                        let _ = Pin::new(&mut self.stream).poll_flush(cx);
                    }
                    Err(over())
                }
            },
        }
    }

    /// Looks at what went out of these.
    fn sent<'a>(&mut self, bufs: impl Iterator<Item = &'a [u8]>, written: usize) -> io::Result<()> {
        let Watch::Http2(frames) = &mut self.watch else { return Ok(()) };
        let mut left = written;
        let went = bufs.map_while(|buf| {
            let piece = &buf[..buf.len().min(left)];
            left -= piece.len();
            (!piece.is_empty()).then_some(piece)
        });
        frames.went(went).map_err(|kind| {
            glitches::report(kind.as_str(), &self.metrics);
            over()
        })
    }
}

fn over() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the viewer's budget is used up")
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Timed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.instead.is_some() {
            this.give_instead(buf);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        let came = polled.is_ready() && buf.filled().len() > before;
        if came {
            this.watch(cx, buf, before)?;
        }
        let Some(head) = this.unfinished() else {
            this.reading = None;
            return polled;
        };
        if this.reading.as_ref().is_some_and(|(_, then)| *then != head) {
            // That head came whole, and this is another one.
            this.reading = None;
        }
        if came && this.reading.is_none() {
            let deadline = Instant::now() + this.head;
            this.reading = Some((Box::pin(tokio::time::sleep_until(deadline)), head));
        }
        if polled.is_ready() {
            return polled;
        }
        match this.reading.as_mut().map(|(clock, _)| clock.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "a head came too slowly")))
            }
            Some(Poll::Pending) | None => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = polled {
            self.sent(std::iter::once(bytes), written)?;
        }
        self.written(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(written)) = polled {
            self.sent(bufs.iter().map(|buf| &**buf), written)?;
        }
        self.written(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.written(cx, polled)
    }
}
