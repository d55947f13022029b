//! Viewers: HTTP/1.1 and HTTP/2 over TLS, HTTP/3, and bare sockets.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use futures_util::stream::unfold;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use quinn::crypto::rustls::QuicClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::world::Trust;

pub(super) type ViewerBody = UnsyncBoxBody<Bytes, std::io::Error>;

pub(super) type AnyError = Box<dyn Error + Send + Sync>;

/// An answer's body, by whichever protocol.
pub(super) type AnswerBody = UnsyncBoxBody<Bytes, AnyError>;

pub(super) fn nothing() -> ViewerBody {
    bytes(Bytes::new())
}

pub(super) fn bytes(bytes: impl Into<Bytes>) -> ViewerBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(super) async fn tls(edge: SocketAddr, trust: &Trust, sni: &str, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
    let mut config = trust.client();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(edge).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from(sni.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// A QUIC connection that speaks HTTP/3.
pub(super) async fn quic(edge: SocketAddr, trust: &Trust, sni: &str) -> quinn::Connection {
    let mut tls = trust.client();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap())));
    endpoint.connect(edge, sni).unwrap().await.unwrap()
}

/// One connection of a viewer.
pub(super) enum Viewer {
    H1(hyper::client::conn::http1::SendRequest<ViewerBody>),
    H2(hyper::client::conn::http2::SendRequest<ViewerBody>),
    H3(H3),
}

/// One connection over HTTP/3; dropped, it is closed.
pub(super) struct H3 {
    pub(super) connection: quinn::Connection,
    sender: h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>,
}

impl Drop for H3 {
    fn drop(&mut self) {
        self.connection.close(0x100_u32.into(), b"");
    }
}

impl Viewer {
    pub(super) async fn h1(edge: SocketAddr, trust: &Trust, sni: &str) -> Self {
        let stream = tls(edge, trust, sni, &[b"http/1.1"]).await;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self::H1(sender)
    }

    pub(super) async fn h2(edge: SocketAddr, trust: &Trust, sni: &str) -> Self {
        let stream = tls(edge, trust, sni, &[b"h2", b"http/1.1"]).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self::H2(sender)
    }

    pub(super) async fn h3(edge: SocketAddr, trust: &Trust, sni: &str) -> Self {
        let connection = quic(edge, trust, sni).await;
        let transport = h3_quinn::Connection::new(connection.clone());
        let (mut driver, sender) = h3::client::new(transport).await.unwrap();
        tokio::spawn(async move { driver.wait_idle().await });
        Self::H3(H3 { connection, sender })
    }

    pub(super) async fn plain(edge: SocketAddr) -> Self {
        let stream = TcpStream::connect(edge).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self::H1(sender)
    }

    pub(super) async fn send(&mut self, request: Request<ViewerBody>) -> Result<Response<AnswerBody>, AnyError> {
        match self {
            Self::H1(sender) => {
                sender.ready().await?;
                Ok(sender.send_request(request).await?.map(|body| body.map_err(AnyError::from).boxed_unsync()))
            }
            Self::H2(sender) => {
                sender.ready().await?;
                let request = of_pseudo_headers(request);
                Ok(sender.send_request(request).await?.map(|body| body.map_err(AnyError::from).boxed_unsync()))
            }
            Self::H3(viewer) => viewer.send(of_pseudo_headers(request)).await,
        }
    }

    /// Sends and reads all of the answer.
    pub(super) async fn fetch(&mut self, request: Request<ViewerBody>) -> Fetched {
        let response = self.send(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned();
        Fetched { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes(), trailers }
    }
}

/// Since HTTP/2 the host is a pseudo-header.
fn of_pseudo_headers(request: Request<ViewerBody>) -> Request<ViewerBody> {
    let (mut head, body) = request.into_parts();
    if let Some(host) = head.headers.remove("host") {
        let path = head.uri.path_and_query().unwrap().as_str();
        head.uri = format!("https://{}{path}", host.to_str().unwrap()).parse().unwrap();
    }
    Request::from_parts(head, body)
}

impl H3 {
    async fn send(&mut self, request: Request<ViewerBody>) -> Result<Response<AnswerBody>, AnyError> {
        let (mut head, mut body) = request.into_parts();
        head.version = Version::HTTP_3;
        if let Some(length) = http_body::Body::size_hint(&body).exact().filter(|length| *length > 0) {
            head.headers.insert("content-length", length.into());
        }
        let stream = self.sender.send_request(Request::from_parts(head, ())).await?;
        let (mut send, mut recv) = stream.split();
        tokio::spawn(async move {
            while let Some(Ok(frame)) = body.frame().await {
                match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => send.send_data(data).await?,
                    Err(frame) => send.send_trailers(frame.into_trailers().unwrap()).await?,
                }
            }
            send.finish().await
        });
        let (head, ()) = recv.recv_response().await?.into_parts();
        let frames = unfold(Some(recv), |recv| async {
            let mut recv = recv?;
            match recv.recv_data().await {
                Ok(Some(mut data)) => {
                    let data = data.copy_to_bytes(data.remaining());
                    Some((Ok(Frame::data(data)), Some(recv)))
                }
                Ok(None) => match recv.recv_trailers().await {
                    Ok(trailers) => Some((Ok(Frame::trailers(trailers?)), None)),
                    Err(error) => Some((Err(AnyError::from(error)), None)),
                },
                Err(error) => Some((Err(error.into()), None)),
            }
        });
        Ok(Response::from_parts(head, StreamBody::new(frames).boxed_unsync()))
    }
}

/// An answer, whole.
pub(super) struct Fetched {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) trailers: Option<HeaderMap>,
}

impl Fetched {
    /// The code in a body of ours.
    pub(super) fn code(&self) -> String {
        let value: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        value["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}
