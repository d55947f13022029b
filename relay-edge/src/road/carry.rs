//! Phase 4: the request goes down the tunnel and its answer comes back, both streamed, both under backpressure.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::header::{CONTENT_LENGTH, EXPECT};
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use phlix_protocol::native::stream::{StreamHeader, StreamStatus};
use tokio::time::Sleep;

use super::account::Taken;
use super::admit::Viewer;
use super::headers;
use super::live::Listed;
use super::locate::offline;
use super::pace::Tempo;
use super::paced::Paced;
use super::refusal::{Refusal, malformed};
use super::resume::{Exchange, Lasting, Means};
use crate::body::{self, Body, BodyError, ViewerBody};
use crate::tunnels::activity::Activity;
use crate::tunnels::{LegBody, LegError, PoolKey, Tunnel, Who};
use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::ServerId;

/// What goes down the tunnel, and for whom.
pub(crate) struct Errand<'a> {
    pub(crate) server: ServerId,
    pub(crate) host: Hostname,
    /// `None` at an open name.
    pub(crate) viewer: Option<&'a Viewer>,
    /// The viewer's connection to us, by number.
    pub(crate) connection: u64,
    pub(crate) said: headers::Viewer<'a>,
    pub(crate) expect_continue: Duration,
    pub(crate) tempo: Tempo,
    pub(crate) taken: Taken,
    /// By which it is asked again when its tunnel dies.
    pub(crate) resumes: &'a Arc<Means>,
}

/// Carries one exchange.
pub(crate) async fn carry(
    tunnel: &Arc<Tunnel>,
    mut head: Parts,
    incoming: ViewerBody,
    errand: Errand<'_>,
    listed: Listed,
    activity: Arc<Activity>,
) -> Result<Response<Body>, Refusal> {
    headers::for_origin(&mut head.headers, &errand.said);
    head.extensions.clear();
    head.version = Version::HTTP_11;
    head.uri = origin_form(&head)?;
    let gate = expectation(&mut head, &incoming)?;
    // One length, the one that was counted by.
    if incoming.size_hint().exact().is_none() {
        head.headers.remove(CONTENT_LENGTH);
    }

    let bodyless = incoming.is_end_stream();
    let body = if bodyless {
        activity.set_request_sent();
        body::empty()
    } else {
        let gate = gate.clone().map(|gate| (gate, Box::pin(tokio::time::sleep(errand.expect_continue))));
        let (activity, tempo) = (Arc::clone(&activity), errand.tempo.clone());
        ToOrigin { incoming, gate, activity, taken: errand.taken.clone(), tempo }.boxed_unsync()
    };
    let key = pool_key(&errand);
    let (answered, again) = if bodyless && Exchange::is_repeatable(&head.method) {
        let mut exchange = Exchange::new(errand.resumes, errand.server, errand.viewer, head, key, &activity);
        match exchange.ask(tunnel).await {
            Ok((response, tunnel)) => (Ok(response), Some((exchange, tunnel))),
            Err(error) => (Err(error), None),
        }
    } else {
        let mut request = Request::from_parts(head, body);
        if let Some(gate) = gate {
            hyper::ext::on_informational(&mut request, move |answer| {
                if answer.status() == StatusCode::CONTINUE {
                    gate.open();
                }
            });
        }
        let header = StreamHeader::http(errand.host, errand.viewer.map(|viewer| viewer.ticket.clone()));
        (tunnel.request(key, header, request, &activity).await, None)
    };
    let response = answered.map_err(|error| explain(&error, errand.viewer.is_some()))?;
    // Nobody asked it to.
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(broken_off());
    }
    Ok(answer(response, listed, again))
}

/// An origin's answer, as the viewer gets it.
pub(super) fn answer(
    response: Response<LegBody>,
    listed: Listed,
    again: Option<(Exchange, Arc<Tunnel>)>,
) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    if body.size_hint().exact().is_none() {
        head.headers.remove(CONTENT_LENGTH);
    }
    listed.entry.set_flow(body.flow());
    let body = match again {
        Some((exchange, tunnel)) => Lasting::new(body, &head, exchange, &listed.entry, tunnel),
        None => Lasting::plain(body),
    };
    let mut answer = Response::new(Paced::new(body, listed).boxed_unsync());
    *answer.status_mut() = head.status;
    *answer.headers_mut() = head.headers;
    headers::from_origin(answer.headers_mut());
    answer
}

/// Whose connections to the origin may be used again for this errand.
pub(super) fn pool_key(errand: &Errand<'_>) -> PoolKey {
    let who = match errand.viewer {
        Some(viewer) => Who::SignedIn(viewer.claims.sub, viewer.claims.sid, viewer.claims.share_id),
        None => Who::Connection(errand.connection),
    };
    PoolKey { host: errand.host.clone(), who }
}

/// Path and query, byte for byte as they were sent.
pub(super) fn origin_form(head: &Parts) -> Result<http::Uri, Refusal> {
    let path = head.uri.path_and_query().ok_or_else(|| malformed("The address has no path."))?;
    Ok(http::Uri::from(path.clone()))
}

/// A viewer's body on its way to an origin that is not asked whether it wants it.
pub(super) fn upload(incoming: ViewerBody, activity: &Arc<Activity>, taken: Taken, tempo: Tempo) -> Body {
    if incoming.is_end_stream() {
        activity.set_request_sent();
        return body::empty();
    }
    ToOrigin { incoming, gate: None, activity: Arc::clone(activity), taken, tempo }.boxed_unsync()
}

/// Whether what the viewer expects is all right, that is, nothing or a word to go on.
pub(super) fn expects_to_continue(head: &Parts) -> Result<bool, Refusal> {
    let Some(expect) = head.headers.get(EXPECT) else { return Ok(false) };
    if expect.as_bytes().eq_ignore_ascii_case(b"100-continue") {
        return Ok(true);
    }
    Err(Refusal::new(StatusCode::EXPECTATION_FAILED, "request.expectation", "That can't be expected here."))
}

/// What the viewer expects before it sends its body (RFC 9110 s.10.1.1).
fn expectation(head: &mut Parts, incoming: &ViewerBody) -> Result<Option<Arc<Gate>>, Refusal> {
    if !expects_to_continue(head)? {
        return Ok(None);
    }
    if incoming.is_end_stream() {
        head.headers.remove(EXPECT);
        return Ok(None);
    }
    Ok(Some(Arc::new(Gate::default())))
}

/// Whose fault it was, as a status.
pub(super) fn explain(error: &LegError, by_ticket: bool) -> Refusal {
    match error {
        LegError::Refused(status) => match status {
            Some(StreamStatus::OriginRefused | StreamStatus::OriginUnreachable | StreamStatus::TimedOut) => {
                Refusal::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "server.origin_down",
                    "The server is connected, but the program behind it does not answer. It may be starting.",
                )
                .retry_after(Duration::from_secs(5))
            }
            Some(StreamStatus::NotAllowed) if by_ticket => {
                Refusal::new(StatusCode::FORBIDDEN, "tunnel.not_allowed", "The server does not accept this ticket.")
            }
            Some(StreamStatus::NotAllowed) => {
                Refusal::new(StatusCode::BAD_GATEWAY, "tunnel.not_allowed", "The server does not serve this name.")
            }
            Some(StreamStatus::OverLimit) => over_limit(),
            Some(StreamStatus::OriginTls) => Refusal::new(
                StatusCode::BAD_GATEWAY,
                "origin.tls",
                "The program behind the server shows a certificate that is not trusted there.",
            ),
            Some(StreamStatus::Connected) | None => broken_off(),
        },
        LegError::TooMany => over_limit(),
        LegError::TunnelLost => offline(),
        LegError::Origin(error) => {
            tracing::debug!(%error, "origin broke off before its answer");
            broken_off()
        }
        LegError::HeadTooLarge => {
            Refusal::new(StatusCode::BAD_GATEWAY, "origin.head_too_large", "The server's answer has too large a head.")
        }
        LegError::OriginSilent => {
            Refusal::new(StatusCode::GATEWAY_TIMEOUT, "gateway.timeout", "The server did not answer in time.")
        }
        LegError::ViewerStalled => {
            Refusal::new(StatusCode::REQUEST_TIMEOUT, "request.timeout", "The rest of the request did not come.")
        }
        LegError::Cut => Refusal::new(StatusCode::UNAUTHORIZED, "auth.revoked", "The right to this was withdrawn."),
    }
}

fn over_limit() -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "server.over_limit", "The server is busy with other requests.")
        .retry_after(Duration::from_secs(1))
}

pub(super) fn broken_off() -> Refusal {
    Refusal::new(StatusCode::BAD_GATEWAY, "origin.failed", "The program behind the server broke the exchange off.")
}

/// Holds a body back until the origin asks for it.
#[derive(Debug, Default)]
struct Gate {
    open: AtomicBool,
    task: AtomicWaker,
}

impl Gate {
    fn open(&self) {
        self.open.store(true, Ordering::Release);
        self.task.wake();
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }
}

/// A viewer's body on its way down.
struct ToOrigin {
    incoming: ViewerBody,
    /// Closed until 100, or until the origin has thought long enough.
    gate: Option<(Arc<Gate>, Pin<Box<Sleep>>)>,
    activity: Arc<Activity>,
    taken: Taken,
    tempo: Tempo,
}

impl http_body::Body for ToOrigin {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some((gate, patience)) = &mut this.gate {
            gate.task.register(cx.waker());
            if !gate.is_open() && patience.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.gate = None;
            // From here on the viewer is waited for, and its time begins.
            this.activity.touch(Instant::now());
        }
        let polled = Pin::new(&mut this.incoming).poll_frame(cx);
        this.activity.set_awaiting_viewer(polled.is_pending());
        match polled {
            Poll::Pending => {
                this.tempo.wait(Instant::now());
                Poll::Pending
            }
            Poll::Ready(None) => {
                this.activity.set_request_sent();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error))),
            Poll::Ready(Some(Ok(mut frame))) => {
                let (now, bytes) = (Instant::now(), frame.data_ref().map_or(0, Bytes::len));
                this.activity.touch(now);
                this.taken.add(bytes);
                if !this.tempo.came(bytes, now) {
                    return Poll::Ready(Some(Err(BodyError::Slow)));
                }
                let mut last = this.incoming.is_end_stream();
                if let Some(trailers) = frame.trailers_mut() {
                    headers::trailers(trailers);
                    last = true;
                }
                if last {
                    this.activity.set_request_sent();
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
