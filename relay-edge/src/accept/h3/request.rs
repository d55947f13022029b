//! One request over HTTP/3, from its head to its answer's end.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h3::error::{Code, StreamError};
use h3::server::{RequestResolver, RequestStream};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HeaderName, TE};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::Sleep;

use super::bytestream::Bytestream;
use super::section::Protocol;
use super::stream::{Event, Fault, Stream};
use super::transport::{self, Transport};
use crate::body::{self, Body, BodyError, ViewerBody};
use crate::road::splice::Splice;
use crate::road::{Road, Visit};

/// Fields that are about a connection, which HTTP/3 has no fields for: a request with one is malformed (RFC 9114 s.4.2).
const OF_A_CONNECTION: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// The largest DATA frame that we write.
const FRAME: usize = 256 * 1024;

type Half = RequestStream<transport::Request, Bytes>;

/// Serves one request. Dropped before its end, it resets the stream, and the origin's with it.
pub(super) async fn serve(
    road: Arc<Road>,
    visit: Arc<Visit>,
    resolver: RequestResolver<Transport, Bytes>,
    stream: Arc<Stream>,
) {
    let resolved = tokio::time::timeout(road.config.timeouts.head, resolver.resolve_request()).await;
    let (request, half) = match resolved {
        Ok(Ok(resolved)) => resolved,
        Ok(Err(error)) => return refuse(&stream, &error),
        Err(_) => return stream.abort(Code::H3_REQUEST_INCOMPLETE),
    };
    let (answering, trailers) = half.split();
    let (mut head, ()) = request.into_parts();
    let Some(length) = check(&head) else { return stream.abort(Code::H3_MESSAGE_ERROR) };
    head.extensions.clear();
    match stream.protocol() {
        None => {}
        Some(_) if head.method != Method::CONNECT => return stream.abort(Code::H3_MESSAGE_ERROR),
        Some(protocol) => {
            head.extensions.insert(match protocol {
                Protocol::WebSocket => hyper::ext::Protocol::from_static("websocket"),
                Protocol::Other => hyper::ext::Protocol::from_static("other"),
            });
        }
    }
    let Some(body) = body(&stream, trailers, &head, length, road.config.timeouts.head).await else {
        return stream.abort(Code::H3_MESSAGE_ERROR);
    };
    let method = head.method.clone();
    let response = {
        let mut travel = pin!(road.travel(Request::from_parts(head, body), &visit, Box::new(())));
        let mut stopped = pin!(stream.stopped());
        tokio::select! {
            biased;
            // Whoever reads no answer wants none.
            _ = stopped.as_mut() => None,
            response = travel.as_mut() => Some(response),
        }
    };
    let Some(mut response) = response else { return stream.abort(Code::H3_REQUEST_CANCELLED) };
    let stall = road.config.timeouts.viewer_stall;
    if let Some(splice) = Splice::take(&mut response) {
        return upgraded(&stream, answering, response, splice).await;
    }
    match answer(&stream, answering, response, &method, stall).await {
        Ok(()) => {
            stream.finish();
            // A connection must not be closed over bytes that are still on their way.
            let _ = tokio::time::timeout(stall, stream.stopped()).await;
        }
        Err(code) => stream.abort(code),
    }
}

/// Serves a WebSocket after its Extended CONNECT (RFC 9220).
async fn upgraded(stream: &Arc<Stream>, mut half: Half, response: Response<Body>, splice: Splice) {
    let (head, _) = response.into_parts();
    if let Err(error) = half.send_response(Response::from_parts(head, ())).await {
        return stream.abort(code(&error));
    }
    match splice.run(Bytestream::new(Arc::clone(stream))).await {
        Ok(()) => {}
        Err(error) => {
            tracing::debug!(%error, "an upgraded connection was aborted");
            stream.abort(Code::H3_REQUEST_CANCELLED);
        }
    }
}

/// A head that is no request.
fn refuse(stream: &Stream, error: &StreamError) {
    tracing::debug!(%error, "an HTTP/3 request was refused");
    match stream.fault() {
        Some(Fault::TooLarge) => stream.say_too_large(),
        // The crate has answered 431.
        None if matches!(error, StreamError::HeaderTooBig { .. }) => stream.finish(),
        _ => stream.abort(Code::H3_MESSAGE_ERROR),
    }
}

/// What the h3 crate does not look at. The body's length, where the head says one; `None`: malformed.
#[expect(clippy::option_option, reason = "malformed, without a length, with one")]
fn check(head: &Parts) -> Option<Option<u64>> {
    if OF_A_CONNECTION.iter().any(|name| head.headers.contains_key(*name)) {
        return None;
    }
    if head.headers.get_all(TE).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        return None;
    }
    let plain_connect = head.method == Method::CONNECT && head.uri.scheme().is_none();
    if !plain_connect && head.uri.scheme_str() != Some("https") {
        return None;
    }
    let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => Some(None),
        (Some(length), None) => {
            let text = length.to_str().ok()?;
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten().map(Some)
        }
        (Some(_), Some(_)) => None,
    }
}

/// The request's body, empty where the stream has ended already; `None` where there is one though the head says none.
async fn body(
    stream: &Arc<Stream>,
    trailers: Half,
    head: &Parts,
    length: Option<u64>,
    patience: Duration,
) -> Option<ViewerBody> {
    if head.method == Method::CONNECT {
        return Some(ViewerBody::Boxed(body::empty()));
    }
    // An end that is a packet late must not make a body of unknown length out of none. Whoever does send one with such a
    // request has sent it by then, or is slow.
    let bodiless = matches!(head.method, Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS);
    if length == Some(0) || (bodiless && length.is_none()) {
        let _ = tokio::time::timeout(patience, poll_fn(|cx| stream.poll_peek(cx))).await;
    } else {
        let _ = stream.poll_peek(&mut Context::from_waker(Waker::noop()));
    }
    if length == Some(0) && stream.has_data() {
        return None;
    }
    let expects = head.headers.contains_key(EXPECT);
    let coming = Coming { stream: Arc::clone(stream), trailers, expects, length, came: 0, state: State::Data };
    Some(ViewerBody::Boxed(coming.boxed_unsync()))
}

/// A body as it comes.
struct Coming {
    stream: Arc<Stream>,
    trailers: Half,
    /// The viewer waits until it is told to go on.
    expects: bool,
    length: Option<u64>,
    came: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Data,
    Trailers,
    Ended,
}

impl Coming {
    fn fails(&mut self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BodyError {
        self.state = State::Ended;
        BodyError::Viewer(error.into())
    }

    /// A length that was a lie: the request is malformed (RFC 9114 s.4.1.2).
    fn is_as_long_as_said(&mut self, whole: bool) -> Result<(), BodyError> {
        let wrong = self.length.is_some_and(|length| self.came > length || (whole && self.came != length));
        if wrong {
            self.stream.abort(Code::H3_MESSAGE_ERROR);
            return Err(self.fails("the body is not as long as its head says"));
        }
        Ok(())
    }
}

impl http_body::Body for Coming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if std::mem::take(&mut this.expects) {
            this.stream.say_continue();
        }
        if this.state == State::Data {
            match ready!(this.stream.poll_body(cx)) {
                Ok(Event::Data(data)) => {
                    this.came += data.len() as u64;
                    this.is_as_long_as_said(false)?;
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Event::Headers(_)) => {
                    this.is_as_long_as_said(true)?;
                    this.state = State::Trailers;
                }
                Ok(Event::End) => {
                    this.is_as_long_as_said(true)?;
                    this.state = State::Ended;
                }
                Err(fault) => return Poll::Ready(Some(Err(this.fails(fault)))),
            }
        }
        if this.state == State::Trailers {
            let trailers = ready!(this.trailers.poll_recv_trailers(cx));
            this.state = State::Ended;
            return match trailers {
                Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(None) => Poll::Ready(None),
                Err(error) => {
                    this.stream.abort(Code::H3_MESSAGE_ERROR);
                    Poll::Ready(Some(Err(BodyError::Viewer(error.into()))))
                }
            };
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        match self.state {
            State::Ended => true,
            // What is shorter than its head says must be polled, to fail.
            State::Data => self.stream.is_read() && self.length.is_none_or(|length| length == self.came),
            State::Trailers => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() {
            return SizeHint::with_exact(0);
        }
        self.length.map_or_else(SizeHint::default, |length| SizeHint::with_exact(length.saturating_sub(self.came)))
    }
}

/// Writes an answer. The code says with what to reset the stream where it broke off.
async fn answer(
    stream: &Stream,
    mut half: Half,
    response: Response<Body>,
    method: &Method,
    stall: Duration,
) -> Result<(), Code> {
    let (mut head, mut body) = response.into_parts();
    // About a connection, which HTTP/3 says otherwise.
    head.headers.remove(CONNECTION);
    head.headers.remove(HeaderName::from_static("keep-alive"));
    let none = *method == Method::HEAD
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || head.status.is_informational();
    if let (false, Some(length)) = (none, body.size_hint().exact()) {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    let head = Response::from_parts(head, ());
    half.send_response(head).await.map_err(|error| code(&error))?;
    if none {
        return Ok(());
    }
    let mut stopped = pin!(stream.stopped());
    while !body.is_end_stream() {
        let frame = tokio::select! {
            biased;
            _ = stopped.as_mut() => return Err(Code::H3_REQUEST_CANCELLED),
            frame = body.frame() => frame,
        };
        let Some(frame) = frame else { break };
        // A short answer never ends cleanly.
        let frame = frame.map_err(|_| Code::H3_INTERNAL_ERROR)?;
        match frame.into_data() {
            Ok(mut data) => {
                while !data.is_empty() {
                    stream.begin_data(data.split_to(FRAME.min(data.len())));
                    flush(stream, stall).await?;
                }
            }
            Err(frame) => {
                let trailers: HeaderMap = frame.into_trailers().unwrap_or_default();
                if !trailers.is_empty() {
                    half.send_trailers(trailers).await.map_err(|error| code(&error))?;
                }
            }
        }
    }
    Ok(())
}

/// Writes what was begun; a viewer that takes nothing for so long is given up.
async fn flush(stream: &Stream, stall: Duration) -> Result<(), Code> {
    let mut clock: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| match stream.poll_flush(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
        Poll::Ready(Err(_)) => Poll::Ready(Err(Code::H3_REQUEST_CANCELLED)),
        Poll::Pending => {
            let clock = clock.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
            ready!(clock.as_mut().poll(cx));
            Poll::Ready(Err(Code::H3_REQUEST_CANCELLED))
        }
    })
    .await
}

fn code(error: &StreamError) -> Code {
    match error {
        StreamError::RemoteTerminate { .. } => Code::H3_REQUEST_CANCELLED,
        _ => Code::H3_INTERNAL_ERROR,
    }
}
