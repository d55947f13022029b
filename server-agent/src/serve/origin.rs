//! Connections to the media server: the one that the configuration names, and no other.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use phlix_protocol::native::stream::StreamStatus;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{Config, Origin, OriginTls};
use crate::shared::Shared;
use crate::trust::{self, RefusedKey, TrustError};

/// TLS towards an `https` origin, set up once.
#[derive(Clone)]
pub(crate) struct OriginConnector(Option<TlsConnector>);

impl OriginConnector {
    /// Reads certificates where the origin needs them.
    pub(crate) fn new(config: &Config) -> Result<Self, TrustError> {
        if !matches!(config.origin, Origin::Https { .. }) {
            return Ok(Self(None));
        }
        let mut tls: ClientConfig = match &config.origin_tls {
            OriginTls::System => trust::rooted(trust::roots(None)?, RefusedKey::default())?,
            OriginTls::CaFile(path) => {
                let mut roots = trust::roots(None)?;
                trust::add_file(&mut roots, path)?;
                trust::rooted(roots, RefusedKey::default())?
            }
            OriginTls::Unverified => trust::unverified()?,
        };
        //= native-tunnel s.3: HTTP/1.1 is spoken edge to origin
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Some(TlsConnector::from(Arc::new(tls)))))
    }
}

/// A connection to the origin. Dropped before it was let go, it is cut off with a reset, so that the origin stops at
/// once instead of working for somebody who has left.
pub(crate) struct OriginStream {
    io: Io,
    let_go: bool,
}

enum Io {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl OriginStream {
    fn new(io: Io) -> Self {
        Self { io, let_go: false }
    }

    /// Both directions have ended in order.
    pub(super) fn let_go(&mut self) {
        self.let_go = true;
    }
}

impl Drop for OriginStream {
    fn drop(&mut self) {
        if self.let_go {
            return;
        }
        let cut = match &self.io {
            Io::Tcp(tcp) => tcp.set_zero_linger(),
            Io::Tls(tls) => tls.get_ref().0.set_zero_linger(),
            // Closing a Unix socket tells the other side at once as it is.
            Io::Unix(_) => Ok(()),
        };
        // A socket that can't be told is closed in the usual way.
        drop(cut);
    }
}

impl AsyncRead for OriginStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buf),
            Io::Unix(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for OriginStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_write(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_write(cx, buf),
            Io::Unix(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
            Io::Unix(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
            Io::Unix(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

/// Connects for a stream; what comes of it is noted as the origin's health.
pub(super) async fn connect(shared: &Shared) -> Result<OriginStream, StreamStatus> {
    match connect_in_time(shared).await {
        Ok(io) => {
            shared.origin.note(shared, Ok(()));
            Ok(OriginStream::new(io))
        }
        Err(failure) => {
            shared.origin.note(shared, Err(&failure.error));
            Err(failure.status)
        }
    }
}

/// Connects to see whether the origin is there, and hangs up.
pub(crate) async fn look(shared: &Shared) -> io::Result<()> {
    let mut stream = OriginStream::new(connect_in_time(shared).await.map_err(|failure| failure.error)?);
    // An orderly goodbye: servers log resets.
    stream.let_go();
    Ok(())
}

struct Failure {
    status: StreamStatus,
    error: io::Error,
}

async fn connect_in_time(shared: &Shared) -> Result<Io, Failure> {
    let limit = shared.config.timings.origin_connect;
    match tokio::time::timeout(limit, connect_io(shared)).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let error = io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {} s", limit.as_secs()));
            Err(Failure { status: StreamStatus::TimedOut, error })
        }
    }
}

async fn connect_io(shared: &Shared) -> Result<Io, Failure> {
    match &shared.config.origin {
        Origin::Unix(path) => UnixStream::connect(path).await.map(Io::Unix).map_err(failure),
        Origin::Http { host, port } => tcp(host, *port).await.map(Io::Tcp),
        Origin::Https { host, port } => {
            let tcp = tcp(host, *port).await?;
            let bad_tls = |error| Failure { status: StreamStatus::OriginTls, error };
            let name = ServerName::try_from(host.clone()).map_err(|e| bad_tls(io::Error::other(e)))?;
            let Some(connector) = &shared.origin_connector.0 else {
                return Err(bad_tls(io::Error::other("TLS was not set up for this origin")));
            };
            let tls = connector.connect(name, tcp).await.map_err(bad_tls)?;
            Ok(Io::Tls(Box::new(tls)))
        }
    }
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream, Failure> {
    let tcp = TcpStream::connect((host, port)).await.map_err(failure)?;
    tcp.set_nodelay(true).map_err(failure)?;
    Ok(tcp)
}

fn failure(error: io::Error) -> Failure {
    let status = match error.kind() {
        io::ErrorKind::ConnectionRefused => StreamStatus::OriginRefused,
        io::ErrorKind::TimedOut => StreamStatus::TimedOut,
        _ => StreamStatus::OriginUnreachable,
    };
    Failure { status, error }
}
