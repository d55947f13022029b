//! Viewers: HTTP/1.1 and HTTP/2 over TLS, and bare sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::world::Trust;

pub(super) type ViewerBody = UnsyncBoxBody<Bytes, std::io::Error>;

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

/// One connection of a viewer.
pub(super) enum Viewer {
    H1(hyper::client::conn::http1::SendRequest<ViewerBody>),
    H2(hyper::client::conn::http2::SendRequest<ViewerBody>),
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

    pub(super) async fn plain(edge: SocketAddr) -> Self {
        let stream = TcpStream::connect(edge).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self::H1(sender)
    }

    pub(super) async fn send(&mut self, request: Request<ViewerBody>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::H1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::H2(sender) => {
                let (mut head, body) = request.into_parts();
                // In HTTP/2 the host is a pseudo-header.
                if let Some(host) = head.headers.remove("host") {
                    let path = head.uri.path_and_query().unwrap().as_str();
                    head.uri = format!("https://{}{path}", host.to_str().unwrap()).parse().unwrap();
                }
                sender.ready().await?;
                sender.send_request(Request::from_parts(head, body)).await
            }
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
