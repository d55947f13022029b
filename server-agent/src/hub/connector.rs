//! A connection to the hub: direct, or through the proxy where there is TLS inside.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::Service;

use crate::proxy::Proxies;

/// What hyper's client makes its connections with.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    pub(super) tcp: HttpConnector,
    pub(super) proxies: Proxies,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        // The proxy that is known is one for TLS.
        let proxy = self.proxies.towards(&host).filter(|_| uri.scheme_str() == Some("https")).cloned();
        match proxy {
            None => {
                let connecting = self.tcp.call(uri);
                Box::pin(async move { Ok(connecting.await?) })
            }
            Some(proxy) => Box::pin(async move {
                let stream = proxy.connect(&host, uri.port_u16().unwrap_or(443)).await.map_err(io::Error::other)?;
                stream.set_nodelay(true)?;
                Ok(TokioIo::new(stream))
            }),
        }
    }
}
