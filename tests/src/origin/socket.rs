//! A WebSocket at home: what comes goes back. The handshake's checks and the frames are tungstenite's.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// A WebSocket that a viewer opened.
pub type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Answers the opening handshake (RFC 6455 s.4.2.2) and hands the socket to `act`; `None` where it is
/// no WebSocket handshake.
pub fn upgrade<A, F>(mut request: Request<Incoming>, act: A) -> Option<Response<http_body_util::Empty<Bytes>>>
where
    A: FnOnce(Socket) -> F + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let headers = request.headers();
    let key = headers.get(SEC_WEBSOCKET_KEY)?;
    let asked = says(headers, UPGRADE.as_str(), "websocket")
        && says(headers, CONNECTION.as_str(), "upgrade")
        && headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    if !asked {
        return None;
    }
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()?;
    tokio::spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(&mut request).await {
            act(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await).await;
        }
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_ACCEPT, accept);
    response.body(http_body_util::Empty::new()).ok()
}

fn says(headers: &HeaderMap, name: &str, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
}

/// Sends back what comes, until the other side closes or leaves.
pub async fn echo(mut socket: Socket) {
    while let Some(Ok(message)) = socket.next().await {
        // tungstenite answers pings and a close by itself, at the next read.
        if matches!(message, Message::Text(_) | Message::Binary(_)) && socket.send(message).await.is_err() {
            return;
        }
    }
}

/// A body without bytes has no error either.
pub fn never<T>(never: Infallible) -> T {
    match never {}
}
