//! The roads between an agent and its edge, which swallow data on command and let small talk pass: what
//! a broken middlebox, a path with a smaller MTU, or a proxy that has lost its backend's window looks like.
//!
//! One port number, as an edge has: UDP is forwarded datagram by datagram, and where it swallows, those
//! above 200 bytes are lost, so that ACKs and pings still pass. TCP is a proxy that terminates TLS and
//! reads the WebSocket's frames; where it swallows, DATA is lost and everything else passes.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use phlix_protocol::native::mux::frame::{FrameType, HEADER, Header};
use phlix_protocol::ws::{self, Assembled, Assembler, Decoder, Event, Limits, Opcode, Role, Text};
use phlix_tests::hub::Hub;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// Datagrams up to this size pass: ACKs, pings, closes.
const SMALL: usize = 200;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Road {
    Quic,
    WebSocket,
}

impl Road {
    /// As the hub and the agent call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::WebSocket => "websocket",
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Quic => Self::WebSocket,
            Self::WebSocket => Self::Quic,
        }
    }
}

/// What each road swallows now.
#[derive(Debug, Default)]
struct Swallows {
    quic: AtomicBool,
    websocket: AtomicBool,
}

/// Both roads, open until dropped.
#[derive(Debug)]
pub(crate) struct Roads {
    swallows: Arc<Swallows>,
    port: u16,
    sockets: Option<(TcpListener, UdpSocket)>,
    tasks: Vec<JoinHandle<()>>,
}

impl Roads {
    /// Takes a port; nothing is led anywhere yet.
    pub(crate) async fn bind() -> Self {
        for _ in 0..16 {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = tcp.local_addr().unwrap().port();
            if let Ok(udp) = UdpSocket::bind(("127.0.0.1", port)).await {
                return Self { swallows: Arc::default(), port, sockets: Some((tcp, udp)), tasks: Vec::new() };
            }
        }
        panic!("no port is free on TCP and UDP");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Leads to a hub: UDP to its TLS port's, TCP to its plain port, with the certificate that it has itself.
    pub(crate) fn lead_to(&mut self, hub: &Hub) {
        let (tcp, udp) = self.sockets.take().expect("once");
        let acceptor = TlsAcceptor::from(Arc::new(tls(&hub.data_folder().join("tls"))));
        self.tasks.push(tokio::spawn(forward(udp, hub.ready().tls, Arc::clone(&self.swallows))));
        self.tasks.push(tokio::spawn(proxy(tcp, acceptor, hub.ready().http, Arc::clone(&self.swallows))));
    }

    /// From now on data is lost, or passes, on connections that there are and on new ones.
    pub(crate) fn set_swallowing(&self, road: Road, swallowing: bool) {
        let switch = match road {
            Road::Quic => &self.swallows.quic,
            Road::WebSocket => &self.swallows.websocket,
        };
        switch.store(swallowing, Ordering::Relaxed);
    }
}

impl Drop for Roads {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn tls(folder: &Path) -> ServerConfig {
    let chain = CertificateDer::pem_file_iter(folder.join("dev-leaf.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(folder.join("dev-leaf.key")).unwrap();
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// Each sender gets a socket of its own towards the edge.
async fn forward(socket: UdpSocket, edge: SocketAddr, swallows: Arc<Swallows>) {
    let socket = Arc::new(socket);
    let mut senders: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut datagram = vec![0; 65_536];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut datagram).await else { continue };
        let towards = match senders.get(&from) {
            Some(towards) => Arc::clone(towards),
            None => {
                let towards = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                towards.connect(edge).await.unwrap();
                senders.insert(from, Arc::clone(&towards));
                tokio::spawn(back(Arc::clone(&towards), Arc::clone(&socket), from, Arc::clone(&swallows)));
                towards
            }
        };
        if passes(length, &swallows) {
            // A full buffer loses datagrams, here as anywhere.
            let _ = towards.send(&datagram[..length]).await;
        }
    }
}

async fn back(from_edge: Arc<UdpSocket>, socket: Arc<UdpSocket>, to: SocketAddr, swallows: Arc<Swallows>) {
    let mut datagram = vec![0; 65_536];
    loop {
        let Ok(length) = from_edge.recv(&mut datagram).await else { continue };
        if passes(length, &swallows) {
            let _ = socket.send_to(&datagram[..length], to).await;
        }
    }
}

fn passes(length: usize, swallows: &Swallows) -> bool {
    length <= SMALL || !swallows.quic.load(Ordering::Relaxed)
}

async fn proxy(listener: TcpListener, acceptor: TlsAcceptor, hub: SocketAddr, swallows: Arc<Swallows>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (acceptor, swallows) = (acceptor.clone(), Arc::clone(&swallows));
        tokio::spawn(async move {
            // An end that breaks off is its own affair.
            let _ = carry(stream, &acceptor, hub, &swallows).await;
        });
    }
}

async fn carry(agent: TcpStream, acceptor: &TlsAcceptor, hub: SocketAddr, swallows: &Swallows) -> io::Result<()> {
    agent.set_nodelay(true)?;
    let (mut from_agent, mut to_agent) = tokio::io::split(acceptor.accept(agent).await?);
    let edge = TcpStream::connect(hub).await?;
    edge.set_nodelay(true)?;
    let (mut from_edge, mut to_edge) = edge.into_split();

    let (head, after_request) = head(&mut from_agent).await?;
    to_edge.write_all(&head[..head.len() - 2]).await?;
    to_edge.write_all(b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: https\r\n\r\n").await?;
    let (head, after_answer) = self::head(&mut from_edge).await?;
    to_agent.write_all(&head).await?;
    to_agent.flush().await?;

    // Either end's end is the end of both.
    tokio::select! {
        end = frames(from_agent, to_edge, Role::Server, after_request, swallows) => end,
        end = frames(from_edge, to_agent, Role::Client, after_answer, swallows) => end,
    }
}

/// A head with its empty line, and what came after it.
async fn head(from: &mut (impl AsyncRead + Unpin)) -> io::Result<(BytesMut, BytesMut)> {
    let mut read = BytesMut::new();
    loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = read.split_off(end + 4);
            return Ok((read, rest));
        }
        if from.read_buf(&mut read).await? == 0 || read.len() > 64 * 1024 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Reads messages as `role` and writes them on as the other one.
async fn frames(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    role: Role,
    mut input: BytesMut,
    swallows: &Swallows,
) -> io::Result<()> {
    // Towards the edge we are a client, who masks; with which key is all the same on loopback.
    let key = (role == Role::Server).then_some([0x5a, 0xa5, 0x3c, 0xc3]);
    let mut decoder = Decoder::new(role, Limits { frame: 1 << 24, message: 1 << 24 }, Text::Checked);
    let mut assembler = Assembler::new();
    let mut out = BytesMut::new();
    loop {
        while let Some(event) = decoder.decode(&mut input).map_err(io::Error::other)? {
            match assembler.push(event) {
                Assembled::NotYet | Assembled::Other(Event::Data { .. }) => {}
                Assembled::Message(message) => {
                    let payload = if swallows.websocket.load(Ordering::Relaxed) {
                        without_data(&message.payload)
                    } else {
                        message.payload.to_vec()
                    };
                    ws::frame(&mut out, true, Opcode::Binary, &payload, key);
                }
                Assembled::Other(Event::Ping(payload)) => ws::control(&mut out, Opcode::Ping, &payload, key),
                Assembled::Other(Event::Pong(payload)) => ws::control(&mut out, Opcode::Pong, &payload, key),
                Assembled::Other(Event::Close(closing)) => ws::close(&mut out, closing.code, "", key),
            }
        }
        to.write_all(&out).await?;
        to.flush().await?;
        out.clear();
        if from.read_buf(&mut input).await? == 0 {
            return to.shutdown().await;
        }
    }
}

/// The frames of one message, less those that carry bytes of streams.
fn without_data(mut message: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    while let Some((header, rest)) = message.split_first_chunk::<HEADER>() {
        let decoded = Header::decode(*header).unwrap();
        let (payload, rest) = rest.split_at(decoded.length);
        if decoded.kind != Some(FrameType::Data) {
            kept.extend_from_slice(header);
            kept.extend_from_slice(payload);
        }
        message = rest;
    }
    assert!(message.is_empty(), "a message holds whole frames");
    kept
}
