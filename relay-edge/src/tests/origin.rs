//! Origins: one that behaves, and one that says whatever bytes a test gives it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use phlix_protocol::b64;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;

pub(super) const VIDEO: usize = 1 << 20;

/// A megabyte that is nowhere like itself.
pub(super) fn video() -> Bytes {
    let mut out = Vec::with_capacity(VIDEO);
    let mut block = Sha256::digest(b"video");
    while out.len() < VIDEO {
        out.extend_from_slice(&block);
        block = Sha256::digest(block);
    }
    out.truncate(VIDEO);
    out.into()
}

#[derive(Default)]
pub(super) struct Seen {
    pub(super) heads: Mutex<Vec<http::request::Parts>>,
    pub(super) trailers: Mutex<Vec<HeaderMap>>,
    pub(super) connections: Mutex<usize>,
    /// A streamed answer was given up.
    pub(super) dropped: Notify,
    /// An upload has begun to arrive.
    pub(super) uploading: Notify,
    /// An upload broke off.
    pub(super) upload_broken: Notify,
}

pub(super) struct Origin {
    pub(super) address: SocketAddr,
    pub(super) seen: Arc<Seen>,
}

impl Origin {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Seen>::default();
        let shared = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&shared);
                *seen.connections.lock().unwrap() += 1;
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let seen = Arc::clone(&seen);
                        async move { answer(request, &seen).await }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, seen }
    }

    pub(super) fn last_head(&self) -> http::request::Parts {
        self.seen.heads.lock().unwrap().last().cloned().unwrap()
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

fn full(status: StatusCode, bytes: impl Into<Bytes>) -> Answer {
    Response::builder().status(status).body(Full::new(bytes.into()).boxed_unsync()).unwrap()
}

async fn answer(request: Request<Incoming>, seen: &Arc<Seen>) -> Result<Answer, std::io::Error> {
    let (head, mut body) = request.into_parts();
    seen.heads.lock().unwrap().push(head.clone());
    Ok(match head.uri.path() {
        "/video" => ranged(&head),
        "/hash" => {
            let mut hash = Sha256::new();
            let mut length = 0;
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else {
                    seen.upload_broken.notify_one();
                    return Err(std::io::Error::other("broken"));
                };
                seen.uploading.notify_one();
                if let Some(data) = frame.data_ref() {
                    length += data.len();
                    hash.update(data);
                }
                if let Ok(trailers) = frame.into_trailers() {
                    seen.trailers.lock().unwrap().push(trailers);
                }
            }
            full(StatusCode::OK, format!("{length} {}", b64::encode(hash.finalize())))
        }
        "/endless" => {
            let body = Endless(Arc::clone(seen));
            Response::new(body.boxed_unsync())
        }
        "/silent" => std::future::pending().await,
        "/refuse-early" => full(StatusCode::UNAUTHORIZED, "no"),
        "/empty" => full(StatusCode::NO_CONTENT, ""),
        "/not-modified" => {
            let mut answer = full(StatusCode::NOT_MODIFIED, "");
            answer.headers_mut().insert("etag", "\"v\"".parse().unwrap());
            answer
        }
        "/trailers" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("digest", "abc".parse().unwrap());
            trailers.insert("x-forwarded-for", "6.6.6.6".parse().unwrap());
            let frames = [Ok(Frame::data(Bytes::from_static(b"body"))), Ok(Frame::trailers(trailers))];
            let mut answer = Response::new(StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync());
            answer.headers_mut().insert("trailer", "digest, x-forwarded-for".parse().unwrap());
            answer
        }
        "/cookies" => {
            let mut answer = full(StatusCode::OK, "");
            for cookie in ["sid=1; Domain=hub.localhost; Path=/", "__Host-phlix-v=evil; Path=/; Secure"] {
                answer.headers_mut().append("set-cookie", cookie.parse().unwrap());
            }
            answer
        }
        _ => full(StatusCode::OK, "hello"),
    })
}

fn ranged(head: &http::request::Parts) -> Answer {
    let video = video();
    let Some(range) = head.headers.get("range") else {
        let mut answer = full(StatusCode::OK, if head.method == "HEAD" { Bytes::new() } else { video });
        answer.headers_mut().insert("content-length", VIDEO.into());
        answer.headers_mut().insert("accept-ranges", "bytes".parse().unwrap());
        return answer;
    };
    let range = range.to_str().unwrap().strip_prefix("bytes=").unwrap();
    let (from, to) = range.split_once('-').unwrap();
    let from: usize = from.parse().unwrap();
    if from >= VIDEO {
        let mut answer = full(StatusCode::RANGE_NOT_SATISFIABLE, "");
        answer.headers_mut().insert("content-range", format!("bytes */{VIDEO}").parse().unwrap());
        return answer;
    }
    let to = to.parse().unwrap_or(VIDEO - 1);
    let mut answer = full(StatusCode::PARTIAL_CONTENT, video.slice(from..=to));
    answer.headers_mut().insert("content-range", format!("bytes {from}-{to}/{VIDEO}").parse().unwrap());
    answer
}

/// Never ends; tells when it is given up.
struct Endless(Arc<Seen>);

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[7; 16 * 1024])))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.0.dropped.notify_one();
    }
}

/// Reads a head, says these bytes, and closes; or holds the connection.
pub(super) async fn raw(says: &'static [u8], close: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let _ = stream.write_all(says).await;
                if !close {
                    std::future::pending::<()>().await;
                }
            });
        }
    });
    address
}
