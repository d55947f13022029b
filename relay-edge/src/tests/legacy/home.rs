//! A media server's end of the legacy wire, written from its page: text opcode, zero masks, frames by hand.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use phlix_protocol::ids::ServerId;
use phlix_protocol::token::{self, Enrollment};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::clock;
use crate::tests::hub::Hub;
use crate::tests::world::{Trust, World};

pub(in crate::tests) const CONNECT: u8 = 0x03;
pub(in crate::tests) const DISCONNECT: u8 = 0x04;
pub(in crate::tests) const DATA: u8 = 0x05;
pub(in crate::tests) const HEARTBEAT: u8 = 0x06;
pub(in crate::tests) const DISCONNECTED: u8 = 0x07;
pub(in crate::tests) const ERROR: u8 = 0x08;
pub(in crate::tests) const REQUEST: u8 = 0x10;
pub(in crate::tests) const RESPONSE: u8 = 0x11;
pub(in crate::tests) const CANCEL: u8 = 0x12;

/// The handshake of Workerman 5.
const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: hub.localhost:8802\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// The connection.
pub(in crate::tests) struct Home {
    io: Box<dyn Io>,
    input: BytesMut,
}

/// What the hub sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::tests) enum Heard {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping,
    Close(Vec<u8>),
    /// The connection ended.
    End,
}

/// A relay frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::tests) struct Relay {
    pub(in crate::tests) id: u32,
    pub(in crate::tests) kind: u8,
    pub(in crate::tests) payload: Vec<u8>,
}

pub(in crate::tests) fn enrollment(hub: &Hub, server: ServerId) -> Enrollment {
    let now = clock::unix_now();
    Enrollment {
        iss: token::ISSUER.into(),
        sub: server,
        aud: "server".into(),
        exp: now + 604_800,
        iat: now,
        kid: hub.key.kid(),
        hub_base_url: "http://localhost".into(),
        server_id: server,
        cnf: None,
        generation: None,
    }
}

pub(in crate::tests) fn hello(hub: &Hub, enrollment: &Enrollment) -> String {
    let jwt = token::sign(enrollment, &hub.key);
    format!(r#"{{"type":"hello","enrollment_jwt":"{jwt}","server_id":"{}"}}"#, enrollment.server_id)
}

pub(in crate::tests) fn frame(id: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    out.push(kind);
    out.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    out.extend(payload);
    out
}

impl Home {
    pub(in crate::tests) async fn dial(at: SocketAddr) -> Self {
        Self::upgrade(Box::new(TcpStream::connect(at).await.unwrap())).await
    }

    pub(in crate::tests) async fn dial_tls(at: SocketAddr, trust: &Trust) -> Self {
        Self::upgrade(tls(at, trust).await).await
    }

    async fn upgrade(io: Box<dyn Io>) -> Self {
        Self::shake(io, UPGRADE).await.0
    }

    /// A raw client, with its own target and fields; and the answer to them.
    pub(in crate::tests) async fn client(at: SocketAddr, target: &str, fields: &str) -> (Self, String) {
        Self::shake(Box::new(TcpStream::connect(at).await.unwrap()), &asking(target, fields)).await
    }

    pub(in crate::tests) async fn client_tls(
        at: SocketAddr,
        trust: &Trust,
        target: &str,
        fields: &str,
    ) -> (Self, String) {
        Self::shake(tls(at, trust).await, &asking(target, fields)).await
    }

    async fn shake(mut io: Box<dyn Io>, request: &str) -> (Self, String) {
        io.write_all(request.as_bytes()).await.unwrap();
        let mut input = BytesMut::new();
        let end = loop {
            if let Some(at) = input.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(io.read_buf(&mut input).await.unwrap() > 0, "the upgrade is answered");
        };
        let head = String::from_utf8(input.split_to(end).to_vec()).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        (Self { io, input }, head)
    }

    /// A tunnel of the world's server.
    pub(in crate::tests) async fn of(world: &World) -> Self {
        Self::with(world, &enrollment(&world.hub, world.server)).await
    }

    pub(in crate::tests) async fn with(world: &World, enrollment: &Enrollment) -> Self {
        let mut home = Self::dial(world.at.relay_server.unwrap()).await;
        home.introduce(&world.hub, enrollment).await;
        home
    }

    pub(in crate::tests) async fn introduce(&mut self, hub: &Hub, enrollment: &Enrollment) {
        self.say(hello(hub, enrollment).as_bytes()).await;
        let Heard::Text(ack) = self.hear().await else { panic!("the first thing to come is the ack") };
        let ack: serde_json::Value = serde_json::from_slice(&ack).unwrap();
        assert_eq!(ack["type"], "hello_ack");
        assert!(ack["tunnel_id"].is_string() && ack["relay_session_id"].is_string(), "{ack}");
    }

    /// A message as Workerman sends it.
    pub(in crate::tests) async fn say(&mut self, payload: &[u8]) {
        // A hub that has had enough of us resets.
        let _ = self.io.write_all(&message(0x81, payload)).await;
    }

    pub(in crate::tests) async fn say_raw(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.unwrap();
    }

    pub(in crate::tests) async fn relay(&mut self, id: u32, kind: u8, payload: &[u8]) {
        self.say(&frame(id, kind, payload)).await;
    }

    pub(in crate::tests) async fn head(&mut self, id: u32, status: u16, headers: &str) {
        let json = format!("\x01{{\"status\":{status},\"headers\":{headers},\"bodyLength\":null}}");
        self.relay(id, RESPONSE, json.as_bytes()).await;
    }

    pub(in crate::tests) async fn body(&mut self, id: u32, bytes: &[u8]) {
        self.relay(id, RESPONSE, &[b"\x02", bytes].concat()).await;
    }

    /// As servers do after each answer.
    pub(in crate::tests) async fn end(&mut self, id: u32) {
        self.relay(id, RESPONSE, b"\x03").await;
        self.relay(id, CANCEL, b"").await;
    }

    /// What comes next; within 10 s.
    pub(in crate::tests) async fn hear(&mut self) -> Heard {
        tokio::time::timeout(Duration::from_secs(10), self.next()).await.expect("nothing came")
    }

    /// What comes next, whenever it does.
    pub(in crate::tests) async fn hear_long(&mut self) -> Heard {
        self.next().await
    }

    async fn next(&mut self) -> Heard {
        loop {
            if let Some(heard) = self.take() {
                return heard;
            }
            match self.io.read_buf(&mut self.input).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Heard::End,
            }
        }
    }

    fn take(&mut self) -> Option<Heard> {
        let (first, second) = (*self.input.first()?, *self.input.get(1)?);
        let (head, length) = match second {
            126 => (4, usize::from(u16::from_be_bytes(self.input.get(2..4)?.try_into().unwrap()))),
            127 => (10, usize::try_from(u64::from_be_bytes(self.input.get(2..10)?.try_into().unwrap())).unwrap()),
            length => (2, usize::from(length)),
        };
        assert!(second < 128, "a hub's frames are not masked");
        if self.input.len() < head + length {
            return None;
        }
        self.input.advance(head);
        let payload = self.input.split_to(length).to_vec();
        Some(match first {
            0x81 => Heard::Text(payload),
            0x82 => Heard::Binary(payload),
            0x88 => Heard::Close(payload),
            0x89 => Heard::Ping,
            other => panic!("{other:#x}"),
        })
    }

    /// The next relay frame that is no heartbeat: one to a message.
    pub(in crate::tests) async fn hear_relay(&mut self) -> Relay {
        loop {
            match self.hear().await {
                Heard::Binary(bytes) => {
                    let (head, payload) = bytes.split_at(7);
                    assert_eq!(usize::from(u16::from_be_bytes([head[5], head[6]])), payload.len());
                    let id = u32::from_be_bytes(head[..4].try_into().unwrap());
                    if head[4] != HEARTBEAT {
                        return Relay { id, kind: head[4], payload: payload.to_vec() };
                    }
                }
                Heard::Ping => {}
                other => panic!("no frame: {other:?}"),
            }
        }
    }

    /// A request in an envelope.
    pub(in crate::tests) async fn asked(&mut self) -> (u32, serde_json::Value) {
        let mut relay = self.hear_relay().await;
        // Of a request before.
        while relay.kind == CANCEL {
            relay = self.hear_relay().await;
        }
        assert_eq!(relay.kind, REQUEST, "{relay:?}");
        (relay.id, serde_json::from_slice(&relay.payload).unwrap())
    }

    /// The close frame's payload, or nothing where the connection just ends.
    pub(in crate::tests) async fn closed(&mut self) -> Vec<u8> {
        loop {
            match self.hear().await {
                Heard::Close(payload) => return payload,
                Heard::End => return Vec::new(),
                Heard::Ping | Heard::Binary(_) | Heard::Text(_) => {}
            }
        }
    }

    /// All that comes until the connection ends.
    pub(in crate::tests) async fn rest(&mut self) -> Vec<Heard> {
        let mut all = Vec::new();
        loop {
            match self.hear().await {
                Heard::End => return all,
                heard => all.push(heard),
            }
        }
    }
}

async fn tls(at: SocketAddr, trust: &Trust) -> Box<dyn Io> {
    let tcp = TcpStream::connect(at).await.unwrap();
    let name = ServerName::try_from("hub.localhost").unwrap();
    let connector = TlsConnector::from(std::sync::Arc::new(trust.client()));
    Box::new(connector.connect(name, tcp).await.unwrap())
}

/// The handshake with another target, and with more fields, each with its end of line.
fn asking(target: &str, fields: &str) -> String {
    let request = UPGRADE.replace("GET / ", &format!("GET {target} "));
    request.replace("\r\n\r\n", &format!("\r\n{fields}\r\n"))
}

/// A client's frame with a zero key.
pub(in crate::tests) fn message(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        0..126 => out.push(0x80 | u8::try_from(payload.len()).unwrap()),
        126..65_536 => {
            out.push(0x80 | 126);
            out.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend((payload.len() as u64).to_be_bytes());
        }
    }
    out.extend([0; 4]);
    out.extend(payload);
    out
}

/// The payload of a close frame with a code alone.
pub(in crate::tests) fn code(code: u16) -> Vec<u8> {
    code.to_be_bytes().to_vec()
}
