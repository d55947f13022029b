//! A small media server of our own: it has a login, a session cookie and a player page as Jellyfin
//! has, tells what reached it, and misbehaves where a story asks.
//!
//! | path | does |
//! |---|---|
//! | `/` `/player` | the player page; signed out: 302 to `/login` |
//! | `/login` | a form (`user`, `password`); right: cookie `home-session` and 303 to `/player` |
//! | `/video.mp4` `/hls/*` | the video, in ranges; signed out: 401 |
//! | `/open/video.mp4` | the same for everybody |
//! | `/echo` | JSON of the request as it came: method, target, headers, body, trailers |
//! | `/bytes/N` | N bytes, no length told beforehand with `?chunked` |
//! | `/upload` | reads all; JSON `{length, sha256}` |
//! | `/upload/stalls` | reads the first piece, then nothing |
//! | `/upload/refused` | 413 without reading the body |
//! | `/hangs` | no answer |
//! | `/endless` | a body without an end |
//! | `/short` `/short-chunked` | a body that breaks off after 1000 bytes |
//! | `/trailers` | a body with the trailer `x-checksum` |
//! | `/hostile` | the headers of [`HOSTILE`] |
//! | `/script` | a page that tries what it must not reach |
//! | `/socket` | a WebSocket that echoes |

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, COOKIE, ETAG, HeaderName, IF_NONE_MATCH, IF_RANGE,
    LOCATION, RANGE, SET_COOKIE, TRAILER,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use super::socket;
use crate::{media, until};

pub const USER: &str = "alice";
pub const PASSWORD: &str = "the origin's own";
const SESSION: &str = "home-session=5e5510";
const VIDEO_ETAG: &str = "\"video-1\"";

/// What a home server might send to reach beyond its own name; `X-Kept` must arrive.
pub const HOSTILE: &[(&str, &str)] = &[
    ("set-cookie", "own=1; Path=/"),
    ("set-cookie", "tossed=1; Domain=hub.localhost; Path=/"),
    ("set-cookie", "__Host-phlix-v=forged; Secure; Path=/"),
    ("set-cookie", "__Host-phlix-s=forged; Secure; Path=/"),
    ("set-cookie", "__Host-phlix-start=forged; Secure; Path=/"),
    ("set-cookie", "__HOST-PHLIX-V=forged; Secure; Path=/"),
    ("set-cookie", " __Host-phlix-v =forged; Secure; Path=/"),
    ("x-kept", "yes"),
];

type Body = BoxBody<Bytes, io::Error>;

/// What happened to a request at home, and when.
#[derive(Debug, Clone)]
pub struct Seen {
    pub target: String,
    pub came: Instant,
    /// When the connection dropped it before its answer was complete.
    pub cancelled: Option<Instant>,
    /// Body bytes read of an upload.
    pub read: u64,
    /// Body bytes handed over of the answer.
    pub written: u64,
}

/// The running origin.
#[derive(Debug)]
pub struct Home {
    address: SocketAddr,
    shared: Arc<Shared>,
    // Its own runtime, so that a story which blocks does not block home.
    runtime: Option<tokio::runtime::Runtime>,
}

#[derive(Debug)]
struct Shared {
    seen: Mutex<Vec<Seen>>,
    connections: Mutex<u64>,
    video: Bytes,
}

impl Home {
    pub fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// At an address where one has been before.
    pub fn start_at(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared =
            Arc::new(Shared { seen: Mutex::default(), connections: Mutex::default(), video: media::video().into() });
        let serving = Arc::clone(&shared);
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                *serving.connections.lock().unwrap() += 1;
                let shared = Arc::clone(&serving);
                tokio::spawn(async move {
                    let service = service_fn(|request| answer(Arc::clone(&shared), request));
                    // A connection that breaks is what some stories want.
                    let connection =
                        http1::Builder::new().half_close(false).serve_connection(TokioIo::new(stream), service);
                    let _ = connection.with_upgrades().await;
                });
            }
        });
        Self { address, shared, runtime: Some(runtime) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request that has come so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// How many connections have come so far.
    pub fn connections(&self) -> u64 {
        *self.shared.connections.lock().unwrap()
    }

    /// Waits for the (only) request of a target to come.
    pub async fn came(&self, target: &str) -> Seen {
        let limit = Duration::from_secs(10);
        until(&format!("{target} comes to the origin"), limit, || async {
            self.seen().into_iter().find(|seen| seen.target == target)
        })
        .await
    }

    /// Waits for the (only) request of a target to be cancelled; when that was.
    pub async fn cancelled(&self, target: &str) -> Instant {
        let limit = Duration::from_secs(10);
        until(&format!("{target} is cancelled at the origin"), limit, || async {
            self.seen().into_iter().find(|seen| seen.target == target)?.cancelled
        })
        .await
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Notes the life of one request; what is dropped before it is told to be complete was cancelled.
struct Watch {
    shared: Arc<Shared>,
    index: usize,
    complete: bool,
}

impl Watch {
    fn begin(shared: &Arc<Shared>, target: &str) -> Self {
        let mut seen = shared.seen.lock().unwrap();
        seen.push(Seen { target: target.to_owned(), came: Instant::now(), cancelled: None, read: 0, written: 0 });
        Self { shared: Arc::clone(shared), index: seen.len() - 1, complete: false }
    }

    fn read(&self, bytes: usize) {
        self.shared.seen.lock().unwrap()[self.index].read += bytes as u64;
    }

    fn written(&self, bytes: usize) {
        self.shared.seen.lock().unwrap()[self.index].written += bytes as u64;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.complete {
            self.shared.seen.lock().unwrap()[self.index].cancelled = Some(Instant::now());
        }
    }
}

/// A body that holds its [`Watch`] until it is done or dropped.
struct Watched {
    body: Body,
    watch: Watch,
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.watch.written(frame.data_ref().map_or(0, Bytes::len));
            }
            Poll::Ready(None) => self.watch.complete = true,
            _ => {}
        }
        // hyper does not ask again once it has all that it needs.
        if self.body.is_end_stream() {
            self.watch.complete = true;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let mut watch = Watch::begin(&shared, &request.uri().to_string());
    let response = route(&shared, &mut watch, request).await;
    let (parts, body) = response.into_parts();
    if body.is_end_stream() {
        watch.complete = true;
    }
    Ok(Response::from_parts(parts, Watched { body, watch }.boxed()))
}

async fn route(shared: &Shared, watch: &mut Watch, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let signed_in = signed_in(request.headers());
    match (request.method(), path.as_str()) {
        (_, "/login") => login(request).await,
        (_, "/" | "/player") if !signed_in => redirect(StatusCode::FOUND, "/login"),
        (_, "/" | "/player") => page(PLAYER),
        (_, "/video.mp4") if !signed_in => plain(StatusCode::UNAUTHORIZED, "sign in first"),
        (_, "/video.mp4" | "/open/video.mp4") => video(&shared.video, &request),
        (_, "/echo") => echo(request).await,
        (_, "/upload") => upload(watch, request).await,
        (_, "/upload/stalls") => {
            let mut body = request.into_body();
            if let Some(Ok(frame)) = body.frame().await {
                watch.read(frame.data_ref().map_or(0, Bytes::len));
            }
            std::future::pending().await
        }
        (_, "/upload/refused") => plain(StatusCode::PAYLOAD_TOO_LARGE, "too large for this origin"),
        (_, "/hangs") => std::future::pending().await,
        (_, "/endless") => Response::new(endless()),
        (_, "/short") => short(true),
        (_, "/short-chunked") => short(false),
        (_, "/trailers") => trailers(),
        (_, "/hostile") => hostile(),
        (_, "/script") => page(SCRIPT),
        (_, "/socket") => match socket::upgrade(request, socket::echo) {
            Some(response) => response.map(|body| body.map_err(socket::never).boxed()),
            None => plain(StatusCode::UPGRADE_REQUIRED, "a WebSocket is served here"),
        },
        (&Method::HEAD | &Method::GET, _) if path.starts_with("/bytes/") => some_bytes(&path, &request),
        (_, _) if path.starts_with("/hls/") => hls(&path, signed_in),
        _ => plain(StatusCode::NOT_FOUND, "no such path at this origin"),
    }
}

const PLAYER: &str = r#"<!doctype html><title>Home</title><h1>Home</h1>
<video id="video" src="/video.mp4" muted playsinline controls preload="auto"></video>"#;

const LOGIN: &str = r#"<!doctype html><title>Home: sign in</title>
<form method="post" action="/login"><input name="user" autocomplete="off">
<input name="password" type="password" autocomplete="off"><button>Sign in</button></form>"#;

/// Tries, from a home server's name, to read and write what is the hub's; shows what it got.
const SCRIPT: &str = r#"<!doctype html><title>waiting</title><script>
(async () => {
  const asked = new URLSearchParams(location.search);
  const got = [];
  document.cookie = "tossed=1; Domain=hub.localhost; Path=/";
  document.cookie = "__Host-phlix-v=forged; Secure; Path=/";
  if (/phlix/i.test(document.cookie)) got.push("cookie " + document.cookie);
  for (const base of [asked.get("hub"), asked.get("neighbour")])
    for (const path of ["/api/v1/me", "/app/", "/health", "/echo"]) {
      try { const r = await fetch(base + path, { credentials: "include" }); got.push(base + path + " " + r.status); }
      catch { /* refused, as it must be */ }
    }
  if (opener) got.push("its opener");
  document.title = got.length ? "reached: " + got.join("; ") : "reached nothing";
})();
</script>"#;

fn signed_in(headers: &HeaderMap) -> bool {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .any(|cookie| cookie.trim() == SESSION)
}

async fn login(request: Request<Incoming>) -> Response<Body> {
    if request.method() != Method::POST {
        return page(LOGIN);
    }
    let Ok(body) = request.into_body().collect().await else {
        return plain(StatusCode::BAD_REQUEST, "the form broke off");
    };
    let body = body.to_bytes();
    let form: Vec<_> = url::form_urlencoded::parse(&body).collect();
    let field = |name: &str| form.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_ref());
    if field("user") != Some(USER) || field("password") != Some(PASSWORD) {
        return plain(StatusCode::UNAUTHORIZED, "wrong user or password");
    }
    let mut response = redirect(StatusCode::SEE_OTHER, "/player");
    response.headers_mut().insert(SET_COOKIE, HeaderValue::from_static("home-session=5e5510; HttpOnly; Path=/"));
    response
}

fn video(bytes: &Bytes, request: &Request<Incoming>) -> Response<Body> {
    let headers = request.headers();
    let response =
        Response::builder().header(CONTENT_TYPE, "video/mp4").header(ACCEPT_RANGES, "bytes").header(ETAG, VIDEO_ETAG);
    let is = |name: HeaderName| headers.get(name).is_some_and(|v| v == VIDEO_ETAG);
    if is(IF_NONE_MATCH) {
        return response.status(304).body(full("")).unwrap();
    }
    let fresh = headers.get(IF_RANGE).is_none() || is(IF_RANGE);
    match headers.get(RANGE).filter(|_| fresh) {
        None => response.header(CONTENT_LENGTH, bytes.len()).body(full(bytes.clone())).unwrap(),
        Some(range) => match slice(range, bytes.len()) {
            Some((first, last)) => response
                .status(206)
                .header(CONTENT_RANGE, format!("bytes {first}-{last}/{}", bytes.len()))
                .body(full(bytes.slice(first..=last)))
                .unwrap(),
            None => {
                response.status(416).header(CONTENT_RANGE, format!("bytes */{}", bytes.len())).body(full("")).unwrap()
            }
        },
    }
}

/// First and last byte of a single range.
fn slice(range: &HeaderValue, length: usize) -> Option<(usize, usize)> {
    let (first, last) = range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => (first, last.min(length - 1)),
        (Ok(first), Err(_)) => (first, length - 1),
        (Err(_), Ok(suffix)) => (length.saturating_sub(suffix), length - 1),
        (Err(_), Err(_)) => return None,
    };
    (first <= last && first < length).then_some((first, last))
}

fn hls(path: &str, signed_in: bool) -> Response<Body> {
    let name = path.trim_start_matches("/hls/");
    if !signed_in {
        return plain(StatusCode::UNAUTHORIZED, "sign in first");
    }
    let plain_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '.');
    match std::fs::read(media::folder().join("hls").join(name)) {
        Ok(bytes) if plain_name => Response::new(full(bytes)),
        _ => plain(StatusCode::NOT_FOUND, "no such part"),
    }
}

async fn echo(request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(collected) = body.collect().await else {
        return plain(StatusCode::BAD_REQUEST, "the body broke off");
    };
    let list = |headers: &HeaderMap| -> Vec<[String; 2]> {
        headers
            .iter()
            .map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                [name.to_string(), value]
            })
            .collect()
    };
    let trailers = collected.trailers().map(list).unwrap_or_default();
    let body = collected.to_bytes();
    let told = json!({
        "method": parts.method.as_str(),
        "target": parts.uri.to_string(),
        "version": format!("{:?}", parts.version),
        "headers": list(&parts.headers),
        "trailers": trailers,
        "length": body.len(),
        "sha256": hex(&Sha256::digest(&body)),
    });
    Response::builder().header(CONTENT_TYPE, "application/json").body(full(told.to_string())).unwrap()
}

async fn upload(watch: &Watch, request: Request<Incoming>) -> Response<Body> {
    let mut body = request.into_body();
    let (mut hash, mut length) = (Sha256::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return plain(StatusCode::BAD_REQUEST, "the body broke off");
        };
        if let Some(data) = frame.data_ref() {
            hash.update(data);
            length += data.len();
            watch.read(data.len());
        }
    }
    let told = json!({ "length": length, "sha256": hex(&hash.finalize()) });
    Response::builder().header(CONTENT_TYPE, "application/json").body(full(told.to_string())).unwrap()
}

/// `length` bytes in pieces of 64 KiB; each piece tells its place.
fn pieces(length: u64) -> impl futures_util::Stream<Item = io::Result<Frame<Bytes>>> {
    stream::iter(texts(length).map(|text| Ok(Frame::data(text))))
}

fn texts(length: u64) -> impl Iterator<Item = Bytes> {
    const PIECE: u64 = 64 * 1024;
    (0..length.div_ceil(PIECE)).map(move |n| {
        let size = PIECE.min(length - n * PIECE);
        let text = format!("{n:016x}").repeat(PIECE as usize / 16);
        Bytes::from(text).slice(..size as usize)
    })
}

/// The SHA-256 of what `/bytes/N` answers, in hex.
pub fn sha256_of_bytes(length: u64) -> String {
    hex(&texts(length).fold(Sha256::new(), |hash, text| hash.chain_update(&text)).finalize())
}

fn some_bytes(path: &str, request: &Request<Incoming>) -> Response<Body> {
    let Ok(length) = path.trim_start_matches("/bytes/").parse::<u64>() else {
        return plain(StatusCode::NOT_FOUND, "no such size");
    };
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(pieces(length))));
    if request.uri().query() != Some("chunked") {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    response
}

fn endless() -> Body {
    BodyExt::boxed(StreamBody::new(pieces(u64::MAX / 2)))
}

fn short(with_length: bool) -> Response<Body> {
    let parts = stream::iter([Ok(Frame::data(Bytes::from(vec![b'x'; 1000])))]).chain(stream::once(async {
        // So that the first part is on its way before the break.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Err(io::Error::other("breaks off"))
    }));
    let parts = Box::pin(parts);
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(SyncStream::from(parts))));
    if with_length {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("5000"));
    }
    response
}

/// `BoxBody` asks for `Sync`, which async blocks are only by a lock.
pub struct SyncStream(Mutex<Pin<Box<Frames>>>);

pub type Frames = dyn futures_util::Stream<Item = io::Result<Frame<Bytes>>> + Send;

impl<S> From<Pin<Box<S>>> for SyncStream
where
    S: futures_util::Stream<Item = io::Result<Frame<Bytes>>> + Send + 'static,
{
    fn from(stream: Pin<Box<S>>) -> Self {
        Self(Mutex::new(stream))
    }
}

impl futures_util::Stream for SyncStream {
    type Item = io::Result<Frame<Bytes>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.lock().unwrap().as_mut().poll_next(cx)
    }
}

fn trailers() -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("42"));
    let frames = [Ok(Frame::data(Bytes::from_static(b"with a trailer"))), Ok(Frame::trailers(trailers))];
    Response::builder()
        .header(TRAILER, "x-checksum")
        .body(BodyExt::boxed(StreamBody::new(stream::iter(frames))))
        .unwrap()
}

fn hostile() -> Response<Body> {
    let mut response = plain(StatusCode::OK, "hostile");
    for (name, value) in HOSTILE {
        response.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

fn redirect(status: StatusCode, to: &str) -> Response<Body> {
    let mut response = plain(status, "");
    response.headers_mut().insert(LOCATION, HeaderValue::from_str(to).unwrap());
    response
}

fn page(html: &'static str) -> Response<Body> {
    Response::builder().header(CONTENT_TYPE, "text/html; charset=utf-8").body(full(html)).unwrap()
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    response
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
