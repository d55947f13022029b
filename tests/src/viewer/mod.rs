//! A viewer inside the test, where the moment or the single byte matters.
//!
//! Speaks to the hub's TLS port by a server's name, trusts the development CA and nothing else. The
//! three versions of HTTP are hyper's and the h3 crate's; a viewer of another make is [`crate::curl`] or
//! [`crate::aioquic`].

mod h3;
mod socket;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{Method, Request, Response, Uri, request};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::hub::Hub;

pub use socket::{Socket, socket};

/// What a viewer sends, and what it gets.
pub type Body = BoxBody<Bytes, io::Error>;

/// Which HTTP a viewer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    H1,
    H2,
    H3,
}

impl Protocol {
    /// Those over TCP, which curl speaks too.
    pub const BOTH: [Self; 2] = [Self::H1, Self::H2];
    pub const ALL: [Self; 3] = [Self::H1, Self::H2, Self::H3];

    /// Its name in TLS.
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::H1 => b"http/1.1",
            Self::H2 => b"h2",
            Self::H3 => b"h3",
        }
    }
}

/// Where a name is reached: an address, the name that is asked for, and who vouches for it.
#[derive(Debug, Clone)]
pub struct Door {
    pub address: SocketAddr,
    pub host: String,
    pub roots: RootCertStore,
}

impl Door {
    /// A name at the hub's TLS port.
    pub fn of(hub: &Hub, host: &str) -> Self {
        let mut address = hub.ready().tls;
        if address.ip().is_unspecified() {
            address.set_ip(IpAddr::from([127, 0, 0, 1]));
        }
        Self { address, host: host.to_owned(), roots: hub.roots() }
    }

    /// The same at another address of the machine.
    #[must_use]
    pub fn at(self, ip: impl Into<IpAddr>) -> Self {
        Self { address: SocketAddr::new(ip.into(), self.address.port()), ..self }
    }

    fn authority(&self) -> Authority {
        authority(&self.host, self.address)
    }
}

enum Sender {
    H1(hyper::client::conn::http1::SendRequest<Body>),
    H2(hyper::client::conn::http2::SendRequest<Body>),
    H3(h3::Sender),
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
        Self::at(&Door::of(hub, host), protocol).await
    }

    /// Connects at a door.
    pub async fn at(door: &Door, protocol: Protocol) -> Self {
        let authority = door.authority();
        if protocol == Protocol::H3 {
            let (sender, driver) = h3::connect(door).await.unwrap();
            return Self { sender: Sender::H3(sender), authority, driver };
        }
        let stream = tls_at(door, &[protocol.alpn()]).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.alpn()));
        let io = TokioIo::new(stream);
        // How a connection ended is what its requests tell.
        if protocol == Protocol::H1 {
            let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            let driver = tokio::spawn(async move { drop(connection.with_upgrades().await) });
            Self { sender: Sender::H1(sender), authority, driver }
        } else {
            let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            let driver = tokio::spawn(async move { drop(connection.await) });
            Self { sender: Sender::H2(sender), authority, driver }
        }
    }

    /// A request for a path, to be completed.
    pub fn request(&self, method: Method, path: &str) -> request::Builder {
        let builder = Request::builder().method(method);
        match self.sender {
            Sender::H1(_) => builder.uri(path).header(HOST, self.authority.as_str()),
            Sender::H2(_) | Sender::H3(_) => builder.uri(
                Uri::builder()
                    .scheme(Scheme::HTTPS)
                    .authority(self.authority.clone())
                    .path_and_query(path)
                    .build()
                    .unwrap(),
            ),
        }
    }

    /// Sends a request; the answer's head, its body to be read.
    ///
    /// # Errors
    /// Where the connection or the stream ends before there is one.
    pub async fn send(&mut self, request: Request<Body>) -> io::Result<Response<Body>> {
        let answer = match &mut self.sender {
            Sender::H1(sender) => {
                sender.ready().await.map_err(io::Error::other)?;
                sender.send_request(request).await.map_err(io::Error::other)?
            }
            Sender::H2(sender) => {
                sender.ready().await.map_err(io::Error::other)?;
                sender.send_request(request).await.map_err(io::Error::other)?
            }
            Sender::H3(sender) => return sender.send(request).await,
        };
        Ok(answer.map(|body| body.map_err(io::Error::other).boxed()))
    }

    /// GET with some headers.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
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
    tls_at(&Door::of(hub, host), alpn).await
}

/// The same at a door.
pub async fn tls_at(door: &Door, alpn: &[&[u8]]) -> TlsStream<TcpStream> {
    let mut config = ClientConfig::builder().with_root_certificates(door.roots.clone()).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let tcp = TcpStream::connect(door.address).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let name = ServerName::try_from(door.host.clone()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
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
pub async fn read(response: Response<Body>) -> io::Result<Bytes> {
    Ok(response.into_body().collect().await?.to_bytes())
}

/// The whole body of a 200 as JSON.
pub async fn json(response: Response<Body>) -> serde_json::Value {
    let status = response.status();
    let body = read(response).await.unwrap();
    let text = String::from_utf8_lossy(&body);
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}
