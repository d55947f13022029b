//! One request down a legacy tunnel, and its answer.
//!
//! The viewer's body and the home's answer move at the same time: first both are polled while the head is awaited, then the
//! answer's body polls what is left of the viewer's. Nothing runs in a task of its own, so that dropping either is all it
//! takes to cancel.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use phlix_protocol::legacy::http::{RequestError, RequestHead, ResponseHead};
use phlix_protocol::legacy::tunnel::{Failure, OpenError, Read, RequestBody, StreamId, WriteError};
use tokio::time::Sleep;

use super::LegacyTunnel;
use crate::body::{Body, BodyError};
use crate::tunnels::activity::Activity;

/// Why a request brought no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LegacyError {
    #[error("the tunnel was lost")]
    TunnelLost,
    #[error("the tunnel carries as many requests as it may")]
    TooMany,
    #[error("the body is longer than existing media servers take")]
    TooLong,
    #[error("the head does not fit into a frame")]
    HeadTooLong,
    #[error("a method or path that existing media servers refuse")]
    Unspeakable,
    #[error("the home broke the exchange off before its answer")]
    NoHead,
    #[error("the home did not answer in time")]
    Silent,
    /// Its viewer did not read while others of the tunnel waited.
    #[error("the answer was given up for others")]
    Stalled,
    #[error("the viewer's body stopped coming")]
    ViewerStalled,
    #[error("the viewer's body broke off")]
    Viewer(#[source] BodyError),
    #[error("the right to this exchange was withdrawn")]
    Cut,
}

impl From<RequestError> for LegacyError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Method | RequestError::Path => Self::Unspeakable,
            RequestError::TooLong => Self::HeadTooLong,
        }
    }
}

impl From<OpenError> for LegacyError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::TooMany => Self::TooMany,
            OpenError::TooLong => Self::TooLong,
            OpenError::NotOpen | OpenError::Draining => Self::TunnelLost,
        }
    }
}

/// A stream, until it is released.
struct Held {
    tunnel: Arc<LegacyTunnel>,
    id: StreamId,
    released: AtomicBool,
}

impl Held {
    fn release(&self) {
        if !self.released.swap(true, Ordering::Relaxed) {
            self.tunnel.shared.with(|state| state.release(self.id));
        }
    }

    /// The viewer has all that was promised: the server's END is waited for without it.
    fn linger(&self) {
        if !self.released.swap(true, Ordering::Relaxed) {
            self.tunnel.shared.with(|state| state.linger(self.id));
        }
    }

    fn is_released(&self) -> bool {
        self.released.load(Ordering::Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

/// What takes an answer away from its viewer, also while nobody polls it.
#[derive(Clone)]
pub(crate) struct Stop(Option<Arc<Held>>);

impl Stop {
    /// Cancels the request. The body fails when it is polled next.
    pub(crate) fn stop(&self) {
        if let Some(held) = &self.0 {
            held.release();
        }
    }
}

pub(super) async fn request(
    tunnel: &Arc<LegacyTunnel>,
    head: RequestHead,
    body: Body,
    patience: Duration,
    activity: &Arc<Activity>,
) -> Result<Response<LegacyBody>, LegacyError> {
    let encoded = head.encode()?;
    let bodyless = encoded.bodiless();
    let mut alarm = Alarm::new(patience, tunnel.limits.request_body_wait);
    let mut upload = Upload { body, pending: Bytes::new(), room: tunnel.limits.request_body, ended: false };
    if upload.body.size_hint().lower() > upload.room {
        return Err(LegacyError::TooLong);
    }
    let whole = poll_fn(|cx| {
        activity.register(cx.waker());
        if activity.is_cut() {
            return Poll::Ready(Err(LegacyError::Cut));
        }
        match upload.poll_gather(encoded.room(), cx) {
            Poll::Pending => alarm.poll(cx, activity).map(Err),
            ready => ready,
        }
    })
    .await?;
    let request = if whole {
        RequestBody::Whole(std::mem::take(&mut upload.pending))
    } else {
        RequestBody::Stream { length: upload.length() }
    };
    let id = tunnel.shared.with(|state| state.machine.request(&encoded, request, Instant::now()))?;
    let held = Arc::new(Held { tunnel: Arc::clone(tunnel), id, released: AtomicBool::new(false) });
    activity.touch(Instant::now());
    let mut upload = (!whole).then_some(upload);
    let head = poll_fn(|cx| {
        activity.register(cx.waker());
        if activity.is_cut() {
            return Poll::Ready(Err(LegacyError::Cut));
        }
        let uploaded = poll_upload(&mut upload, &held, cx);
        if let Poll::Ready(head) = poll_head(&held, cx) {
            return Poll::Ready(head);
        }
        if let Poll::Ready(Err(error)) = uploaded {
            return Poll::Ready(Err(error));
        }
        alarm.poll(cx, activity).map(Err)
    })
    .await?;
    answer(head, bodyless, held, upload, patience, activity)
}

fn poll_head(held: &Held, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, LegacyError>> {
    held.tunnel.shared.with(|state| match state.machine.head(held.id) {
        Some(Ok(head)) => Poll::Ready(Ok(head)),
        Some(Err(Failure::Lost)) => Poll::Ready(Err(LegacyError::TunnelLost)),
        Some(Err(Failure::Stalled)) => Poll::Ready(Err(LegacyError::Stalled)),
        Some(Err(error)) => {
            tracing::debug!(%error, "a media server did not answer");
            Poll::Ready(Err(LegacyError::NoHead))
        }
        None => {
            state.wait_for_reader(held.id, cx.waker());
            Poll::Pending
        }
    })
}

/// The answer as HTTP knows it.
fn answer(
    head: ResponseHead,
    bodyless: bool,
    held: Arc<Held>,
    upload: Option<Upload>,
    patience: Duration,
    activity: &Arc<Activity>,
) -> Result<Response<LegacyBody>, LegacyError> {
    let status = StatusCode::from_u16(head.status).map_err(|_| LegacyError::NoHead)?;
    if status.is_informational() {
        return Err(LegacyError::NoHead);
    }
    let bodyless = bodyless || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let mut hint = SizeHint::new();
    match head.content_length {
        _ if bodyless => hint.set_exact(0),
        Some(length) => hint.set_exact(length),
        None => {}
    }
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    for (name, value) in &head.headers {
        // What can't be a field is left out (legacy-relay-wire s.3.3).
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()))
        {
            headers.append(name, value);
        }
    }
    if bodyless && upload.is_none() {
        held.linger();
    }
    let silence = Silence { patience, since: None, clock: None };
    let body = LegacyBody { held, upload, activity: Arc::clone(activity), silence, hint, over: bodyless };
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    Ok(answer)
}

/// An answer's body. Cancels the request when it is dropped before its end.
pub(crate) struct LegacyBody {
    held: Arc<Held>,
    upload: Option<Upload>,
    activity: Arc<Activity>,
    silence: Silence,
    /// Of what is still to come.
    hint: SizeHint,
    over: bool,
}

impl LegacyBody {
    /// The handle that takes the answer away.
    pub(crate) fn stopper(&self) -> Stop {
        Stop((!self.over).then(|| Arc::clone(&self.held)))
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.over = true;
        self.held.release();
        Poll::Ready(Some(Err(error)))
    }

    fn end(&mut self) {
        self.over = true;
        self.held.release();
    }
}

/// What a look for the next bytes brought.
enum Next {
    Bytes(Bytes),
    End,
    Failed(BodyError),
    Wait,
}

impl http_body::Body for LegacyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(None);
        }
        this.activity.register(cx.waker());
        if this.activity.is_cut() || this.held.is_released() {
            return this.fail(BodyError::Cut);
        }
        if let Poll::Ready(Err(error)) = poll_upload(&mut this.upload, &this.held, cx) {
            let error = match error {
                LegacyError::Viewer(error) => error,
                _ => BodyError::Slow,
            };
            return this.fail(error);
        }
        this.activity.set_awaiting_origin(false);
        let now = Instant::now();
        let next = next(&this.held, cx, now);
        match next {
            Next::Bytes(bytes) => {
                this.activity.touch(now);
                this.silence.since = None;
                if let Some(exact) = this.hint.exact() {
                    this.hint.set_exact(exact.saturating_sub(bytes.len() as u64));
                }
                // Who counted along asks for nothing more.
                if this.hint.exact() == Some(0) && this.upload.is_none() {
                    this.over = true;
                    this.held.linger();
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Next::End => {
                this.end();
                Poll::Ready(None)
            }
            Next::Failed(error) => this.fail(error),
            Next::Wait => {
                this.activity.set_awaiting_origin(true);
                if this.silence.is_over(cx, &this.activity, now) {
                    return this.fail(BodyError::Stalled);
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over && !self.activity.is_cut()
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

fn next(held: &Held, cx: &mut Context<'_>, now: Instant) -> Next {
    held.tunnel.shared.with(|state| match state.machine.read(held.id, now) {
        Read::Data(bytes) => Next::Bytes(bytes),
        Read::End => Next::End,
        Read::Failed(failure) => Next::Failed(match failure {
            Failure::Lost => BodyError::TunnelLost,
            Failure::Stalled => BodyError::Stalled,
            failure => {
                held.tunnel.metrics.legacy.short.inc();
                tracing::debug!(server.id = %held.tunnel.server, %failure, "a media server's answer broke off");
                BodyError::Short
            }
        }),
        Read::Blocked => {
            state.wait_for_reader(held.id, cx.waker());
            Next::Wait
        }
    })
}

/// The viewer's body on its way.
struct Upload {
    body: Body,
    /// Taken from the body and not yet from us.
    pending: Bytes,
    /// Bytes that the home still takes.
    room: u64,
    /// The body has ended.
    ended: bool,
}

impl Upload {
    /// Takes the body as long as it may fit an envelope of `most` bytes. Ready with whether that is all of it.
    fn poll_gather(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<Result<bool, LegacyError>> {
        if self.body.size_hint().lower() > most as u64 {
            return Poll::Ready(Ok(false));
        }
        while !self.ended {
            if self.pending.len() > most {
                return Poll::Ready(Ok(false));
            }
            let Some(bytes) = ready!(self.poll_body(cx))? else { break };
            if self.pending.is_empty() {
                self.pending = bytes;
            } else {
                self.pending = [&*self.pending, &*bytes].concat().into();
            }
        }
        Poll::Ready(Ok(self.pending.len() <= most))
    }

    /// The length of all that is to be sent, where it is known.
    fn length(&self) -> Option<u64> {
        let rest = if self.ended { Some(0) } else { self.body.size_hint().exact() };
        rest.map(|rest| rest + self.pending.len() as u64)
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, LegacyError>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => {
                    self.ended = true;
                    return Poll::Ready(Ok(None));
                }
                Some(Ok(frame)) => frame,
                Some(Err(BodyError::Slow)) => return Poll::Ready(Err(LegacyError::ViewerStalled)),
                Some(Err(error)) => return Poll::Ready(Err(LegacyError::Viewer(error))),
            };
            // Trailers can't be said on this wire.
            if let Ok(bytes) = frame.into_data()
                && !bytes.is_empty()
            {
                self.room = self.room.checked_sub(bytes.len() as u64).ok_or(LegacyError::TooLong)?;
                return Poll::Ready(Ok(Some(bytes)));
            }
        }
    }

    /// Ready when all was taken, or the home takes no more.
    fn poll(&mut self, held: &Held, cx: &mut Context<'_>) -> Poll<Result<(), LegacyError>> {
        loop {
            while !self.pending.is_empty() {
                let pending = &mut self.pending;
                let taken =
                    held.tunnel.shared.with(|state| match state.machine.write(held.id, pending, Instant::now()) {
                        Ok(0) => {
                            state.wait_for_writer(held.id, cx.waker());
                            None
                        }
                        taken => Some(taken),
                    });
                match taken {
                    None => return Poll::Pending,
                    Some(Ok(_)) => {}
                    Some(Err(WriteError::TooLong)) => return Poll::Ready(Err(LegacyError::TooLong)),
                    // Answered before all was said, or gone: what came of it, the head or the body says.
                    Some(Err(WriteError::Answered | WriteError::Closed)) => return Poll::Ready(Ok(())),
                }
            }
            if self.ended {
                // Where it is over already, the head or the body says so.
                let _ = held.tunnel.shared.with(|state| state.machine.finish(held.id));
                return Poll::Ready(Ok(()));
            }
            if let Some(bytes) = ready!(self.poll_body(cx))? {
                self.pending = bytes;
            }
        }
    }
}

/// Moves what is left of the viewer's body.
fn poll_upload(upload: &mut Option<Upload>, held: &Held, cx: &mut Context<'_>) -> Poll<Result<(), LegacyError>> {
    let Some(left) = upload else { return Poll::Ready(Ok(())) };
    let polled = ready!(left.poll(held, cx));
    *upload = None;
    Poll::Ready(polled)
}

/// How long an answer's head is waited for, and the viewer's body meanwhile. Set anew only when it rings.
struct Alarm {
    home: Duration,
    viewer: Duration,
    clock: Pin<Box<Sleep>>,
}

impl Alarm {
    fn new(home: Duration, viewer: Duration) -> Self {
        Self { home, viewer, clock: Box::pin(tokio::time::sleep(home.min(viewer))) }
    }

    fn poll(&mut self, cx: &mut Context<'_>, activity: &Activity) -> Poll<LegacyError> {
        while self.clock.as_mut().poll(cx).is_ready() {
            let (limit, error) = if activity.awaiting_viewer() {
                (self.viewer, LegacyError::ViewerStalled)
            } else {
                (self.home, LegacyError::Silent)
            };
            let due = activity.last() + limit;
            if due <= Instant::now() {
                return Poll::Ready(error);
            }
            self.clock.as_mut().reset(due.into());
        }
        Poll::Pending
    }
}

/// How long a waiting viewer has been kept waiting.
struct Silence {
    patience: Duration,
    since: Option<Instant>,
    clock: Option<Pin<Box<Sleep>>>,
}

impl Silence {
    fn is_over(&mut self, cx: &mut Context<'_>, activity: &Activity, now: Instant) -> bool {
        // A viewer who paused has not been waiting: the wait starts when there is nothing for it.
        let since = *self.since.get_or_insert(now);
        let patience = self.patience;
        let clock = self.clock.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        while clock.as_mut().poll(cx).is_ready() {
            let due = activity.last().max(since) + patience;
            if due <= now {
                return true;
            }
            clock.as_mut().reset(due.into());
        }
        false
    }
}
