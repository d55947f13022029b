//! HTTP/3 for [`super::Client`]: quinn and the h3 crate.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::client::RequestStream;
use h3::error::Code;
use h3_quinn::{OpenStreams, RecvStream, SendStream};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Frame;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::ClientConfig;
use tokio::task::JoinHandle;

use super::{Body, Door};

/// Sends requests on one connection, which ends with it.
pub(super) struct Sender {
    requests: h3::client::SendRequest<OpenStreams, Bytes>,
    connection: quinn::Connection,
    endpoint: quinn::Endpoint,
}

/// Connects over UDP.
pub(super) async fn connect(door: &Door) -> io::Result<(Sender, JoinHandle<()>)> {
    let mut tls = ClientConfig::builder().with_root_certificates(door.roots.clone()).with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let any = if door.address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let mut endpoint = quinn::Endpoint::client(any.parse::<SocketAddr>().unwrap())?;
    let quic = QuicClientConfig::try_from(tls).map_err(io::Error::other)?;
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(quic)));
    let connecting = endpoint.connect(door.address, &door.host).map_err(io::Error::other)?;
    let connection = connecting.await?;
    let (mut driver, requests) =
        h3::client::new(h3_quinn::Connection::new(connection.clone())).await.map_err(io::Error::other)?;
    // How it ended is what its requests tell.
    let driver = tokio::spawn(async move { drop(driver.wait_idle().await) });
    Ok((Sender { requests, connection, endpoint }, driver))
}

impl Sender {
    pub(super) async fn send(&mut self, request: Request<Body>) -> io::Result<Response<Body>> {
        let (parts, body) = request.into_parts();
        let stream = self.requests.send_request(Request::from_parts(parts, ())).await.map_err(io::Error::other)?;
        let (sending, mut receiving) = stream.split();
        let sending = Sending(tokio::spawn(upload(sending, body)));
        let head = receiving.recv_response().await.map_err(io::Error::other)?;
        Ok(head.map(|()| Answer { receiving, state: State::Data, _sending: sending }.boxed()))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // RFC 9114 s.8.1: H3_NO_ERROR. The endpoint's task sends it before it ends.
        self.connection.close(0x100_u32.into(), b"");
        self.endpoint.close(0x100_u32.into(), b"");
    }
}

/// The task that sends a request's body; what is left of it when the answer is dropped is not sent.
struct Sending(JoinHandle<()>);

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn upload(stream: RequestStream<SendStream<Bytes>, Bytes>, mut body: Body) {
    let mut uploading = Uploading { stream, finished: false };
    while let Some(frame) = body.frame().await {
        let sent = match frame.map(Frame::into_data) {
            Ok(Ok(data)) => uploading.stream.send_data(data).await,
            Ok(Err(frame)) => match frame.into_trailers() {
                Ok(trailers) => uploading.stream.send_trailers(trailers).await,
                Err(_) => Ok(()),
            },
            Err(_) => return,
        };
        // Where the other side reads no more, the answer tells why.
        if sent.is_err() {
            return;
        }
    }
    uploading.finished = uploading.stream.finish().await.is_ok();
}

/// A request under way: dropped before its end it is reset, since quinn would end it as if it were whole.
struct Uploading {
    stream: RequestStream<SendStream<Bytes>, Bytes>,
    finished: bool,
}

impl Drop for Uploading {
    fn drop(&mut self) {
        if !self.finished {
            self.stream.stop_stream(Code::H3_REQUEST_CANCELLED);
        }
    }
}

enum State {
    Data,
    Trailers,
    End,
}

/// A body as it comes: nothing is read that is not asked for.
struct Answer {
    receiving: RequestStream<RecvStream, Bytes>,
    state: State,
    _sending: Sending,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if matches!(self.state, State::Data) {
            match ready!(self.receiving.poll_recv_data(cx)) {
                Ok(Some(mut data)) => {
                    let data = data.copy_to_bytes(data.remaining());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(None) => self.state = State::Trailers,
                Err(e) => {
                    self.state = State::End;
                    return Poll::Ready(Some(Err(io::Error::other(e))));
                }
            }
        }
        if matches!(self.state, State::Trailers) {
            let trailers = ready!(self.receiving.poll_recv_trailers(cx));
            self.state = State::End;
            return match trailers {
                Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(None) => Poll::Ready(None),
                Err(e) => Poll::Ready(Some(Err(io::Error::other(e)))),
            };
        }
        Poll::Ready(None)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !matches!(self.state, State::End) {
            // RFC 9114 s.4.1.1: who is no longer interested says so.
            self.receiving.stop_sending(Code::H3_REQUEST_CANCELLED);
        }
    }
}
