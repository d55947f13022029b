//! A viewer inside the test, where the moment or the single byte matters.
//!
//! Speaks to the hub's TLS port by a server's name, trusts the development CA and nothing else.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{Method, Request, Response, Uri, request};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::hub::Hub;

/// What a viewer sends.
pub type Body = BoxBody<Bytes, io::Error>;

/// Which HTTP a viewer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    H1,
    H2,
}

impl Protocol {
    pub const BOTH: [Self; 2] = [Self::H1, Self::H2];
}

enum Sender {
    H1(hyper::client::conn::http1::SendRequest<Body>),
    H2(hyper::client::conn::http2::SendRequest<Body>),
}

/// One connection; leaving is dropping it.
pub struct Client {
    sender: Sender,
    authority: Authority,
    driver: JoinHandle<()>,
}

impl Client {
    /// Connects to `host` at the hub's TLS port.
    pub async fn connect(hub: &Hub, host: &str, protocol: Protocol) -> Self {
        let alpn: &[u8] = match protocol {
            Protocol::H1 => b"http/1.1",
            Protocol::H2 => b"h2",
        };
        let stream = tls(hub, host, &[alpn]).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn));
        let io = TokioIo::new(stream);
        let authority = authority(host, hub.ready().tls);
        let (sender, driver) = match protocol {
            Protocol::H1 => {
                let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
                let driver = tokio::spawn(async move {
                    // How it ended is what the requests tell.
                    let _ = connection.await;
                });
                (Sender::H1(sender), driver)
            }
            Protocol::H2 => {
                let (sender, connection) =
                    hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
                let driver = tokio::spawn(async move {
                    let _ = connection.await;
                });
                (Sender::H2(sender), driver)
            }
        };
        Self { sender, authority, driver }
    }

    /// A request for a path, to be completed.
    pub fn request(&self, method: Method, path: &str) -> request::Builder {
        let builder = Request::builder().method(method);
        match self.sender {
            Sender::H1(_) => builder.uri(path).header(HOST, self.authority.as_str()),
            Sender::H2(_) => builder.uri(
                Uri::builder()
                    .scheme(Scheme::HTTPS)
                    .authority(self.authority.clone())
                    .path_and_query(path)
                    .build()
                    .unwrap(),
            ),
        }
    }

    /// Sends a request; the answer's head.
    ///
    /// # Errors
    /// Where the connection or the stream ends before there is one.
    pub async fn send(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::H1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::H2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// GET with some headers.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Response<Incoming> {
        let mut builder = self.request(Method::GET, path);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        self.send(builder.body(empty()).unwrap()).await.unwrap()
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.authority)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A TLS connection to a name, for bytes that no HTTP library would send.
pub async fn tls(hub: &Hub, host: &str, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
    let mut config = ClientConfig::builder().with_root_certificates(hub.roots()).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let tcp = TcpStream::connect(hub.ready().tls).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(host.to_owned()).unwrap(), tcp).await.unwrap()
}

/// `host:port` as it stands in Host and `:authority`.
pub fn authority(host: &str, tls: SocketAddr) -> Authority {
    format!("{host}:{}", tls.port()).parse().unwrap()
}

pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// The whole body.
///
/// # Errors
/// Where it ends early.
pub async fn read(response: Response<Incoming>) -> hyper::Result<Bytes> {
    Ok(response.into_body().collect().await?.to_bytes())
}

/// The whole body of a 200 as JSON.
pub async fn json(response: Response<Incoming>) -> serde_json::Value {
    let status = response.status();
    let body = read(response).await.unwrap();
    let text = String::from_utf8_lossy(&body);
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}
