//! HTTP/1.1 to an origin over one stream of a tunnel.
//!
//! hyper's client speaks it; its connection future is polled by the exchange itself, first while the head is awaited,
//! then by the answer's body. Spawning it costs two task switches per chunk (relay design s.4.4), and dropping the body
//! here drops connection and stream at once, which is how a cancellation reaches the origin.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::response::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use phlix_protocol::native::stream::{ResetCode, StreamHeader, StreamStatus};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::activity::Activity;
use super::flows::Listed;
use super::pool::PoolKey;
use super::stream::{Owner, TunnelStream};
use super::{Patience, Tunnel, Upgraded};
use crate::body::{Body, BodyError};

/// What is read from a stream at once, in bytes, at most: a viewer who stops reading holds a few of them.
const BUFFER: usize = 64 * 1024;

/// A piece of a body that is shorter is copied out, in bytes: hyper hands on a slice, which would keep its whole buffer
/// while it waits for the viewer.
const COPY_BELOW: usize = BUFFER / 2;

/// How often a request that waits for its answer looks whether its tunnel still moves.
const GLANCE: Duration = Duration::from_millis(500);

/// Why an exchange brought no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LegError {
    /// The server's limit on streams, or the agent's on headers.
    #[error("the tunnel carries as many streams as it may")]
    TooMany,
    #[error("the tunnel was lost")]
    TunnelLost,
    /// The agent has no connection to the origin; `None`: for a reason of a newer version.
    #[error("the agent has no connection to the origin ({0:?})")]
    Refused(Option<StreamStatus>),
    #[error("the origin broke HTTP off")]
    Origin(#[source] hyper::Error),
    #[error("the origin's answer is longer than a head may be")]
    HeadTooLarge,
    #[error("the origin did not answer in time")]
    OriginSilent,
    #[error("the viewer's body stopped coming")]
    ViewerStalled,
    #[error("the right to this exchange was withdrawn")]
    Cut,
}

/// One connection to an origin.
pub(super) struct Leg {
    sender: SendRequest<Body>,
    connection: Connection<TokioIo<TunnelStream>, Body>,
    owner: Owner,
    ended: bool,
}

impl Leg {
    /// Moves bytes; afterwards `ended` says whether there can be more.
    fn poll_connection(&mut self, cx: &mut Context<'_>) {
        // What went wrong, hyper tells the request or the body. Without shutdown: how the stream ends is decided when it
        // is dropped.
        if !self.ended && self.connection.poll_without_shutdown(cx).is_ready() {
            self.ended = true;
        }
    }

    /// Whether another request may follow: alive, nothing left over from the last one, no surplus byte.
    pub(super) fn is_reusable(&mut self) -> bool {
        self.poll_connection(&mut Context::from_waker(Waker::noop()));
        !self.ended && self.sender.is_ready()
    }
}

pub(super) async fn request(
    tunnel: &Arc<Tunnel>,
    key: PoolKey,
    header: StreamHeader,
    request: Request<Body>,
    activity: &Arc<Activity>,
) -> Result<Response<LegBody>, LegError> {
    let (head, body) = request.into_parts();
    // A used connection may just be closing. What can be said twice takes the risk; the rest gets a fresh stream, which
    // costs the agent a connection and nobody a round trip.
    let repeatable = is_idempotent(&head.method) && body.is_end_stream();
    if repeatable && let Some(mut leg) = tunnel.pool.take(&key, Instant::now()) {
        leg.owner.hand_to(Arc::clone(activity));
        let request = Request::from_parts(head.clone(), crate::body::empty());
        match exchange(&mut leg, request, activity, tunnel, repeatable).await {
            Ok(answer) => return Ok(LegBody::begin(tunnel, key, leg, answer, activity)),
            Err(LegError::Origin(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let mut leg = begin(tunnel, &header, activity).await?;
    match exchange(&mut leg, Request::from_parts(head, body), activity, tunnel, repeatable).await {
        Ok(answer) => Ok(LegBody::begin(tunnel, key, leg, answer, activity)),
        Err(LegError::Origin(_)) if tunnel.closed() => Err(LegError::TunnelLost),
        Err(error) => Err(error),
    }
}

/// What an origin said to an upgrade.
pub(crate) enum Answered {
    /// 101: from here on the stream is another protocol's.
    Switched(Parts, Socket),
    Not(Response<LegBody>),
}

/// An origin's stream after HTTP.
pub(crate) struct Socket {
    /// What came right behind the head.
    early: Bytes,
    stream: TunnelStream,
}

impl Upgraded for Socket {
    fn release(&self) {
        self.stream.owner().release();
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let length = self.early.len().min(buf.remaining());
        buf.put_slice(&self.early.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Asks for an upgrade, on a stream of its own.
pub(super) async fn upgrade(
    tunnel: &Arc<Tunnel>,
    key: PoolKey,
    header: StreamHeader,
    request: Request<Body>,
    activity: &Arc<Activity>,
) -> Result<Answered, LegError> {
    let mut leg = begin(tunnel, &header, activity).await?;
    match exchange(&mut leg, request, activity, tunnel, true).await {
        Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
            // What hyper has made of what follows does not matter: the bytes are still there.
            let http1::Parts { io, read_buf, .. } = leg.connection.into_parts();
            let socket = Socket { early: read_buf, stream: io.into_inner() };
            Ok(Answered::Switched(answer.into_parts().0, socket))
        }
        Ok(answer) => Ok(Answered::Not(LegBody::begin(tunnel, key, leg, answer, activity))),
        Err(LegError::Origin(_)) if tunnel.closed() => Err(LegError::TunnelLost),
        Err(error) => Err(error),
    }
}

/// A connection to the origin on a fresh stream.
async fn begin(tunnel: &Tunnel, header: &StreamHeader, activity: &Arc<Activity>) -> Result<Leg, LegError> {
    let stream = tunnel.open(header, activity).await?;
    let owner = stream.owner();
    let (sender, connection) = http1::Builder::new()
        .max_header_size(tunnel.head_bytes)
        .max_headers(256)
        .max_buf_size(BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(LegError::Origin)?;
    Ok(Leg { sender, connection, owner, ended: false })
}

/// Sends one request and waits for the answer's head, moving the connection's bytes meanwhile.
async fn exchange(
    leg: &mut Leg,
    request: Request<Body>,
    activity: &Activity,
    tunnel: &Tunnel,
    repeatable: bool,
) -> Result<Response<Incoming>, LegError> {
    let patience = &tunnel.patience;
    let mut answer = pin!(leg.sender.send_request(request));
    let mut alarm = pin!(tokio::time::sleep(patience.shortest()));
    let mut glance = pin!(tokio::time::sleep(GLANCE));
    poll_fn(|cx| {
        activity.register(cx.waker());
        if activity.is_cut() {
            return Poll::Ready(Err(LegError::Cut));
        }
        if !leg.ended && leg.connection.poll_without_shutdown(cx).is_ready() {
            leg.ended = true;
        }
        if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
            return Poll::Ready(answer.map_err(|error| classify(error, activity)));
        }
        // A tunnel that acknowledges nothing has not heard of this request: it is not waited for, where asking again is
        // free. An upload may outlast a bad moment of the line.
        while repeatable && glance.as_mut().poll(cx).is_ready() {
            if tunnel.stalled() {
                return Poll::Ready(Err(LegError::TunnelLost));
            }
            glance.as_mut().reset((Instant::now() + GLANCE).into());
        }
        patience.poll(alarm.as_mut(), cx, activity).map(Err)
    })
    .await
}

/// What a failure of hyper's means here.
fn classify(error: hyper::Error, activity: &Activity) -> LegError {
    match activity.status().map(StreamStatus::from_byte) {
        Some(Some(StreamStatus::Connected)) | None => {}
        Some(status) => return LegError::Refused(status),
    }
    let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref());
    if matches!(cause, Some(BodyError::Slow)) {
        return LegError::ViewerStalled;
    }
    if error.is_parse_too_large() { LegError::HeadTooLarge } else { LegError::Origin(error) }
}

/// Whether a request may be made twice.
pub(crate) fn is_idempotent(method: &Method) -> bool {
    // RFC 9110 s.9.2.2, less TRACE, which does not come here.
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

impl Patience {
    fn shortest(&self) -> Duration {
        self.first_byte.min(self.request_body).min(self.origin_silence)
    }

    /// Ready when somebody has kept us waiting too long. The alarm is set anew only when it rings.
    fn poll(&self, mut alarm: Pin<&mut Sleep>, cx: &mut Context<'_>, activity: &Activity) -> Poll<LegError> {
        while alarm.as_mut().poll(cx).is_ready() {
            let (limit, error) = if activity.awaiting_viewer() {
                (self.request_body, LegError::ViewerStalled)
            } else if activity.request_sent() {
                (self.first_byte, LegError::OriginSilent)
            } else {
                (self.origin_silence, LegError::OriginSilent)
            };
            let due = activity.last() + limit;
            if due <= Instant::now() {
                return Poll::Ready(error);
            }
            alarm.as_mut().reset(due.into());
        }
        Poll::Pending
    }
}

/// An answer's body. Drives its connection; returns it to the pool when all of it came, resets it when dropped before.
pub(crate) struct LegBody {
    flow: Flow,
    activity: Arc<Activity>,
    alarm: Option<Pin<Box<Sleep>>>,
    silence: Duration,
    waiting_since: Option<Instant>,
    hint: SizeHint,
    _listed: Option<Listed>,
}

/// The connection under a body, which a cut takes away even while nobody polls.
#[derive(Clone)]
pub(crate) struct Flow(Arc<Mutex<Option<Flowing>>>);

struct Flowing {
    leg: Leg,
    incoming: Incoming,
    tunnel: Arc<Tunnel>,
    key: PoolKey,
}

impl Flow {
    /// Nothing flows.
    pub(super) fn none() -> Self {
        Self(Arc::new(Mutex::new(None)))
    }

    /// Resets the stream. The body fails when it is polled next.
    pub(crate) fn stop(&self) {
        let flowing = self.lock().take();
        drop(flowing);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Flowing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LegBody {
    fn begin(
        tunnel: &Arc<Tunnel>,
        key: PoolKey,
        leg: Leg,
        answer: Response<Incoming>,
        activity: &Arc<Activity>,
    ) -> Response<Self> {
        answer.map(|incoming| {
            let hint = incoming.size_hint();
            let done = incoming.is_end_stream();
            let flowing = Flowing { leg, incoming, tunnel: Arc::clone(tunnel), key };
            let (flow, listed) = if done {
                flowing.end(&mut Context::from_waker(Waker::noop()), activity);
                (Flow::none(), None)
            } else {
                let flow = Flow(Arc::new(Mutex::new(Some(flowing))));
                let listed = tunnel.flows.list(Arc::clone(activity), flow.clone());
                (flow, Some(listed))
            };
            Self {
                flow,
                activity: Arc::clone(activity),
                alarm: None,
                silence: tunnel.patience.origin_silence,
                waiting_since: None,
                hint,
                _listed: listed,
            }
        })
    }

    /// The handle that can take the connection away.
    pub(crate) fn flow(&self) -> Flow {
        self.flow.clone()
    }

    /// Whether the origin has kept a waiting viewer waiting too long.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> bool {
        let now = Instant::now();
        // A viewer who paused has not been waiting: the wait starts when there is nothing for it.
        let since = *self.waiting_since.get_or_insert(now);
        let silence = self.silence;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep(silence)));
        while alarm.as_mut().poll(cx).is_ready() {
            let due = self.activity.last().max(since) + silence;
            if due <= now {
                return true;
            }
            alarm.as_mut().reset(due.into());
        }
        false
    }
}

impl Flowing {
    /// The answer is whole: the connection is kept if it is clean, and else ended as cleanly as the request was.
    fn end(mut self, cx: &mut Context<'_>, activity: &Activity) {
        self.leg.poll_connection(cx);
        if !self.leg.ended && self.leg.sender.is_ready() {
            self.leg.owner.release();
            self.tunnel.pool.put(self.key, self.leg, Instant::now());
        } else if activity.request_sent() {
            self.leg.owner.release();
        }
    }
}

/// The same frame without the buffer that it is a small part of.
fn compact(frame: Frame<Bytes>) -> Frame<Bytes> {
    frame.map_data(|data| if data.len() < COPY_BELOW { Bytes::copy_from_slice(&data) } else { data })
}

impl http_body::Body for LegBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        this.activity.register(cx.waker());
        if this.activity.is_cut() {
            this.flow.stop();
            return Poll::Ready(Some(Err(BodyError::Cut)));
        }
        let flow = this.flow.clone();
        let mut guard = flow.lock();
        let Some(flowing) = guard.as_mut() else { return Poll::Ready(None) };
        this.activity.set_awaiting_origin(false);
        // Twice: only when the body has asked does the connection read for it.
        for _ in 0..2 {
            flowing.leg.poll_connection(cx);
            match Pin::new(&mut flowing.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let frame = compact(frame);
                    this.activity.touch(Instant::now());
                    this.waiting_since = None;
                    if let (Some(data), Some(exact)) = (frame.data_ref(), this.hint.exact()) {
                        this.hint.set_exact(exact.saturating_sub(data.len() as u64));
                    }
                    if flowing.incoming.is_end_stream()
                        && let Some(flowing) = guard.take()
                    {
                        flowing.end(cx, &this.activity);
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(None) => {
                    if let Some(flowing) = guard.take() {
                        flowing.end(cx, &this.activity);
                    }
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(error))) => {
                    this.activity.set_reset(ResetCode::OriginFailed);
                    // A stream that ends with its tunnel says nothing of the origin.
                    let lost = guard.take().is_some_and(|flowing| flowing.tunnel.closed());
                    let error = if lost { BodyError::TunnelLost } else { BodyError::Origin(error) };
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Pending => {}
            }
        }
        drop(guard);
        this.activity.set_awaiting_origin(true);
        if this.poll_alarm(cx) {
            this.activity.set_reset(ResetCode::Stalled);
            this.flow.stop();
            return Poll::Ready(Some(Err(BodyError::Stalled)));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.flow.lock().is_none() && !self.activity.is_cut()
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}
