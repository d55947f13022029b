//! A media server that costs its machine as little as it can: a big item comes out of memory, in the frames that a real
//! one sends (text opcode, a mask of zeroes, 65 534 bytes each), and nothing else is done.

use std::fs;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use phlix_tests::hub::Hub;
use phlix_tests::until;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

const MAX_BODY: usize = 65_534;

/// Frames that are written at a time; after so many, the bytes are the same again.
const FRAMES: usize = 16;
const PERIOD: usize = FRAMES * MAX_BODY;

const HTTP_REQUEST: u8 = 0x10;
const HTTP_RESPONSE: u8 = 0x11;
const HTTP_CANCEL: u8 = 0x12;

/// A close code.
const TRY_LATER: u16 = 1013;

/// A server's place at the hub.
pub(crate) struct Enrollment {
    pub(crate) server: String,
    pub(crate) jwt: String,
}

/// How it connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Plain,
    Tls,
}

trait Stream: AsyncRead + AsyncWrite + Send {}
impl<S: AsyncRead + AsyncWrite + Send> Stream for S {}

/// A tunnel that was acknowledged.
pub(crate) struct Tunnel {
    stream: Pin<Box<dyn Stream>>,
    server: String,
}

/// A tunnel whose requests are answered, until it is dropped.
pub(crate) struct Served {
    pub(crate) server: String,
    task: JoinHandle<io::Result<()>>,
}

impl Served {
    pub(crate) fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connect(hub: &Hub, way: Way) -> Pin<Box<dyn Stream>> {
    let tcp = TcpStream::connect(hub.ready().relay_server()).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    if way == Way::Plain {
        return Box::pin(tcp);
    }
    let config = ClientConfig::builder().with_root_certificates(hub.roots()).with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    Box::pin(TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap())
}

impl Tunnel {
    /// Opens it; a hub that has just started may say that it is too early.
    pub(crate) async fn open(hub: &Hub, enrollment: &Enrollment, way: Way) -> Self {
        until("a tunnel opens", Duration::from_secs(20), || async {
            let mut tunnel = Self { stream: connect(hub, way).await, server: enrollment.server.clone() };
            match tunnel.shake(enrollment).await.unwrap() {
                (1, _) => Some(tunnel),
                (8, why) if why == TRY_LATER.to_be_bytes() => None,
                other => panic!("no ack: {other:?}"),
            }
        })
        .await
    }

    /// Up to the hub's answer to HELLO.
    async fn shake(&mut self, enrollment: &Enrollment) -> io::Result<(u8, Vec<u8>)> {
        let upgrade = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        self.stream.write_all(upgrade.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await?);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        let Enrollment { server, jwt } = enrollment;
        let hello = format!(r#"{{"type":"hello","enrollment_jwt":"{jwt}","server_id":"{server}"}}"#);
        let mut message = Vec::new();
        put_message(&mut message, &[hello.as_bytes()]);
        self.stream.write_all(&message).await?;
        self.stream.flush().await?;
        self.read().await
    }

    /// One message of the hub's.
    async fn read(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let opcode = self.stream.read_u8().await? & 0x0f;
        let length = match self.stream.read_u8().await? {
            126 => u64::from(self.stream.read_u16().await?),
            127 => self.stream.read_u64().await?,
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).await?;
        Ok((opcode, payload))
    }

    /// Answers what is asked.
    pub(crate) fn serve(mut self) -> Served {
        let server = self.server.clone();
        let task = tokio::spawn(async move {
            loop {
                let (opcode, message) = self.read().await?;
                // An idle tunnel is pinged, and whoever keeps TCP alive need not answer.
                if opcode <= 2 && message[4] == HTTP_REQUEST {
                    let id = u32::from_be_bytes(message[..4].try_into().unwrap());
                    let request: Value = serde_json::from_slice(&message[7..]).unwrap();
                    let size = request["query"].as_str().and_then(|query| query.strip_prefix("size="));
                    self.answer(id, size.unwrap().parse().unwrap()).await?;
                }
            }
        });
        Served { server, task }
    }

    async fn answer(&mut self, id: u32, size: usize) -> io::Result<()> {
        let head = format!(
            r#"{{"status":200,"headers":{{"Content-Type":"video\/mp4","Content-Length":"{size}"}},"bodyLength":{size}}}"#
        );
        let mut out = Vec::new();
        put_frame(&mut out, id, HTTP_RESPONSE, &[&[1], head.as_bytes()]);
        self.stream.write_all(&out).await?;
        let bytes = period();
        let mut block = Vec::new();
        for body in bytes.chunks(MAX_BODY) {
            put_frame(&mut block, id, HTTP_RESPONSE, &[&[2], body]);
        }
        for _ in 0..size / PERIOD {
            self.stream.write_all(&block).await?;
        }
        out.clear();
        for body in bytes[..size % PERIOD].chunks(MAX_BODY) {
            put_frame(&mut out, id, HTTP_RESPONSE, &[&[2], body]);
        }
        put_frame(&mut out, id, HTTP_RESPONSE, &[&[3]]);
        put_frame(&mut out, id, HTTP_CANCEL, &[]);
        self.stream.write_all(&out).await?;
        self.stream.flush().await
    }
}

fn period() -> Vec<u8> {
    (0..PERIOD).map(|at| (at % 251) as u8).collect()
}

/// The file is what a server sends.
#[track_caller]
pub(crate) fn assert_whole(file: &Path, size: u64) {
    let seen = fs::read(file).unwrap();
    assert_eq!(seen.len() as u64, size);
    let bytes = period();
    for (at, seen) in seen.chunks(PERIOD).enumerate() {
        assert!(bytes[..seen.len()] == *seen, "another byte came in {} MiB", at);
    }
}

fn put_frame(out: &mut Vec<u8>, id: u32, kind: u8, payload: &[&[u8]]) {
    let length: usize = payload.iter().map(|part| part.len()).sum();
    let mut header = id.to_be_bytes().to_vec();
    header.push(kind);
    header.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
    let mut parts = vec![&header[..]];
    parts.extend(payload);
    put_message(out, &parts);
}

fn put_message(out: &mut Vec<u8>, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.push(0x81);
    match length {
        n @ 0..=125 => out.push(0x80 | n as u8),
        n @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    parts.iter().for_each(|part| out.extend_from_slice(part));
}
