//! WebSocket through HTTP/1.1's Upgrade and HTTP/2's Extended CONNECT (RFC 8441); frames are tungstenite's.

use std::io;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use http::header::{CONNECTION, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::ext::Protocol as ConnectProtocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{Body, Client, Door, Protocol, Sender, empty};

/// An open WebSocket, and its connection, which ends with it.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<TokioIo<Upgraded>>,
    _client: Client,
}

impl Deref for Socket {
    type Target = WebSocketStream<TokioIo<Upgraded>>;

    fn deref(&self) -> &Self::Target {
        &self.stream
    }
}

impl DerefMut for Socket {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.stream
    }
}

/// RFC 6455 s.1.3's example; what a key is matters to nobody.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Opens a WebSocket as a page of that name would.
///
/// # Errors
/// The answer, where it is another than the upgrade.
pub async fn socket(
    door: &Door,
    protocol: Protocol,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Socket, Response<Body>> {
    let mut client = Client::at(door, protocol).await;
    let origin = format!("https://{}", client.authority);
    let mut request = match protocol {
        Protocol::H1 => client
            .request(Method::GET, path)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_KEY, KEY),
        Protocol::H2 => client.request(Method::CONNECT, path).extension(ConnectProtocol::from_static("websocket")),
        Protocol::H3 => panic!("the h3 crate's client knows no :protocol websocket; aioquic does"),
    };
    request = request.header(SEC_WEBSOCKET_VERSION, "13");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("origin")) {
        request = request.header(ORIGIN, origin);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(empty()).unwrap();
    if protocol == Protocol::H2 {
        // RFC 8441 s.3: not before the server's settings say that it may.
        until_allowed(&mut client).await;
    }
    let answer = match &mut client.sender {
        Sender::H1(sender) => sender.send_request(request).await.unwrap(),
        Sender::H2(sender) => sender.send_request(request).await.unwrap(),
        Sender::H3(_) => unreachable!("refused above"),
    };
    let opened = match protocol {
        Protocol::H1 => StatusCode::SWITCHING_PROTOCOLS,
        _ => StatusCode::OK,
    };
    if answer.status() != opened {
        return Err(answer.map(|body| body.map_err(io::Error::other).boxed()));
    }
    if protocol == Protocol::H1 {
        assert_eq!(answer.headers()["sec-websocket-accept"], derive_accept_key(KEY.as_bytes()));
    }
    let upgraded = hyper::upgrade::on(answer).await.unwrap();
    let stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await;
    Ok(Socket { stream, _client: client })
}

/// The first answer comes after the server's settings.
async fn until_allowed(client: &mut Client) {
    let request = client.request(Method::GET, "/.phlix/none").body(empty()).unwrap();
    tokio::time::timeout(Duration::from_secs(10), client.send(request)).await.unwrap().unwrap();
}
