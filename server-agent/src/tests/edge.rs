//! A stand-in for an edge: speaks the tunnel's protocol from the other side, honestly or not.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::BytesMut;
use phlix_certs::dev::DevCerts;
use phlix_link::{Link, ReadError, RecvStream, SendStream, Side, Transport};
use phlix_protocol::b64;
use phlix_protocol::ids::{EdgeId, TunnelId};
use phlix_protocol::keys::SigningKey;
use phlix_protocol::native::control::{
    self, Binding, Challenge, Decoder, Hello, Message, Proof, Received, Refused, RefusedCode, Welcome,
};
use phlix_protocol::native::proof::{ChannelBinding, challenge_input, proof_input};
use phlix_protocol::native::stream::StreamHeader;
use phlix_protocol::native::{ALPN, EXPORTER_LABEL, WEBSOCKET_PROTOCOL};
use phlix_protocol::token::{self, EdgeEntry, Limits, TunnelTicket};
use phlix_protocol::ws::handshake;
use quinn::Endpoint;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::sign::SingleCertAndKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::hub::now;
use crate::random;

/// How an edge behaves in the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    Honest,
    /// Signs its challenge with a key that is not in the hub's list.
    WrongKey,
    /// Says that it is another edge.
    OtherId,
    /// Asks for a proof without the exporter.
    Unbound,
    Refusing(RefusedCode),
    /// Welcomes somebody who has not been challenged.
    Hasty,
    /// Says nothing at all.
    Mute,
    /// Says nothing over QUIC, and is honest over WebSocket.
    MuteOverQuic,
    /// Takes no QUIC.
    WithoutQuic,
    /// Takes no WebSocket.
    WithoutWebSocket,
}

pub(super) struct FakeEdge {
    pub(super) id: EdgeId,
    pub(super) key: SigningKey,
    endpoint: Endpoint,
    certs: DevCerts,
    tunnels: tokio::sync::Mutex<mpsc::Receiver<EdgeTunnel>>,
    /// How many agents have knocked.
    pub(super) hellos: Arc<std::sync::atomic::AtomicUsize>,
    _folder: tempfile::TempDir,
}

/// A tunnel as the edge sees it.
pub(super) struct EdgeTunnel {
    pub(super) link: Link,
    pub(super) hello: Hello,
    send: SendStream,
    receive: RecvStream,
    decoder: Decoder,
}

impl FakeEdge {
    /// Listens for both transports on ports of one number.
    pub(super) fn start(manner: Manner) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certs = DevCerts::load_or_issue(folder.path(), "hub.localhost", &[], SystemTime::now()).unwrap();
        let tls = |alpn: &[u8]| {
            let mut tls = rustls::ServerConfig::builder_with_provider(crate::trust::provider())
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(SingleCertAndKey::from(certs.key())));
            tls.alpn_protocols = vec![alpn.to_vec()];
            tls
        };
        let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls(ALPN)).unwrap()));
        // Of a few numbers that are free on UDP, one is free on TCP.
        let (endpoint, listener) = (0..16)
            .find_map(|_| {
                let endpoint = Endpoint::server(config.clone(), "127.0.0.1:0".parse().unwrap()).unwrap();
                let listener = std::net::TcpListener::bind(endpoint.local_addr().unwrap()).ok()?;
                listener.set_nonblocking(true).unwrap();
                Some((endpoint, tokio::net::TcpListener::from_std(listener).unwrap()))
            })
            .unwrap();
        let (sender, tunnels) = mpsc::channel(8);
        let id = EdgeId::new(random::uuid());
        let key = SigningKey::from_seed(&random::bytes());
        let hellos = Arc::default();
        let accepting = Arc::new(Accepting { id, key: key.clone(), manner, sender, hellos: Arc::clone(&hellos) });
        tokio::spawn(Arc::clone(&accepting).run_quic(endpoint.clone()));
        tokio::spawn(accepting.run_websocket(listener, TlsAcceptor::from(Arc::new(tls(b"http/1.1")))));
        Self { id, key, endpoint, certs, tunnels: tokio::sync::Mutex::new(tunnels), hellos, _folder: folder }
    }

    /// As the hub's list has it.
    pub(super) fn entry(&self) -> EdgeEntry {
        EdgeEntry {
            id: self.id,
            key: self.key.public(),
            addresses: vec!["127.0.0.1".into()],
            port: self.endpoint.local_addr().unwrap().port(),
            region: "test".into(),
            names: vec!["edge.hub.localhost".into()],
            spki: Some(self.certs.pin().to_string()),
            behind_proxy: false,
        }
    }

    /// The next tunnel that an agent opens.
    pub(super) async fn tunnel(&self) -> EdgeTunnel {
        self.tunnels.lock().await.recv().await.expect("the edge runs")
    }
}

struct Accepting {
    id: EdgeId,
    key: SigningKey,
    manner: Manner,
    sender: mpsc::Sender<EdgeTunnel>,
    hellos: Arc<std::sync::atomic::AtomicUsize>,
}

impl Accepting {
    async fn run_quic(self: Arc<Self>, endpoint: Endpoint) {
        while let Some(incoming) = endpoint.accept().await {
            if self.manner == Manner::WithoutQuic {
                incoming.ignore();
                continue;
            }
            let Ok(connecting) = incoming.accept() else { continue };
            let Ok(connection) = connecting.await else { continue };
            if let Some(tunnel) = self.handshake(Link::quic(connection, 1 << 20)).await {
                let _ = self.sender.send(tunnel).await;
            }
        }
    }

    async fn run_websocket(self: Arc<Self>, listener: tokio::net::TcpListener, acceptor: TlsAcceptor) {
        while let Ok((socket, _)) = listener.accept().await {
            if self.manner == Manner::WithoutWebSocket {
                continue;
            }
            let (accepting, acceptor) = (Arc::clone(&self), acceptor.clone());
            tokio::spawn(async move {
                let link = upgraded(socket, &acceptor).await?;
                let tunnel = accepting.handshake(link).await?;
                accepting.sender.send(tunnel).await.ok()
            });
        }
    }

    async fn handshake(&self, link: Link) -> Option<EdgeTunnel> {
        let (send, receive) = link.accept_control().await.ok()?;
        let mut decoder = Decoder::new();
        decoder.established();
        let placeholder: Hello = serde_json::from_value(serde_json::json!({
            "versions": [1], "server_id": random::uuid(), "ticket": "", "edge": "", "instance": random::uuid(),
            "index": 0, "agent": {"version": "", "os": "", "arch": ""},
        }))
        .unwrap();
        let mut tunnel = EdgeTunnel { link, hello: placeholder, send, receive, decoder };
        let hello = tunnel.hear().await?;
        self.hellos.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let Message::Hello(said) = hello.message else { panic!("no hello: {:?}", hello.message) };
        assert_eq!(said.edge, "edge.hub.localhost");
        tunnel.hello = said;
        if let Manner::Refusing(code) = self.manner {
            tunnel.say(Message::Refused(Refused { code, reason: "test".into(), retry_after_ms: None })).await;
            tunnel.link.closed().await;
            return None;
        }
        let over_quic = tunnel.link.transport() == Transport::Quic;
        if self.manner == Manner::Mute || (self.manner == Manner::MuteOverQuic && over_quic) {
            tunnel.link.closed().await;
            return None;
        }
        let nonce: [u8; 32] = random::bytes();
        let id = if self.manner == Manner::OtherId { EdgeId::new(random::uuid()) } else { self.id };
        let binding = if self.manner == Manner::Unbound { Binding::None } else { Binding::Exporter };
        let key =
            if self.manner == Manner::WrongKey { SigningKey::from_seed(&random::bytes()) } else { self.key.clone() };
        let signature = b64::encode(key.sign(&challenge_input(id, &nonce, binding)));
        let challenge = Challenge { edge_id: id, nonce: b64::encode(nonce), binding, signature };
        let sent = control::encode(&Message::Challenge(challenge));
        if self.manner != Manner::Hasty {
            tunnel.send.write_all(&sent).await.ok()?;
            let Message::Proof(Proof { signature }) = tunnel.hear().await?.message else { return None };
            let channel = match binding {
                Binding::None => ChannelBinding::None,
                Binding::Exporter => ChannelBinding::Exporter(tunnel.link.exporter().unwrap()),
            };
            let ticket: TunnelTicket = token::peek(&tunnel.hello.ticket).unwrap();
            let signed = proof_input(&hello.json, &sent[4..], channel);
            assert!(ticket.cnf.jwk.verifies(&signed, &b64::decode(&signature).unwrap()), "the proof must hold");
        }
        tunnel
            .say(Message::Welcome(Welcome {
                version: 1,
                tunnel_id: TunnelId::new(random::uuid()),
                edge_id: self.id,
                region: "test".into(),
                names: vec![],
                limits: Limits { streams: 100, header_bytes: 65_536 },
                now: now(),
            }))
            .await;
        if self.manner == Manner::Hasty {
            tunnel.link.closed().await;
            return None;
        }
        Some(tunnel)
    }
}

impl EdgeTunnel {
    pub(super) async fn say(&mut self, message: Message) {
        let _ = self.send.write_all(&control::encode(&message)).await;
    }

    pub(super) async fn hear(&mut self) -> Option<Received> {
        loop {
            if let Some(received) = self.decoder.next_message().unwrap() {
                return Some(received);
            }
            let chunk = self.receive.read_chunk(self.decoder.wanted()).await.ok()??;
            self.decoder.push(&chunk);
        }
    }

    /// Hears until a message of the wanted kind comes.
    pub(super) async fn hear_until<T>(&mut self, wanted: impl Fn(Message) -> Option<T>) -> T {
        loop {
            let received = self.hear().await.expect("the tunnel is open");
            if let Some(found) = wanted(received.message) {
                return found;
            }
        }
    }

    /// Opens a stream for a viewer.
    pub(super) async fn open(&self, name: &str, ticket: Option<String>) -> (SendStream, RecvStream) {
        self.open_with(&StreamHeader::http(super::hub::host(name), ticket)).await
    }

    pub(super) async fn open_with(&self, header: &StreamHeader) -> (SendStream, RecvStream) {
        let (mut send, receive) = self.link.open().await.unwrap();
        send.write_all(&header.encode().unwrap()).await.unwrap();
        (send, receive)
    }

    pub(super) fn close(&self, code: u32) {
        self.link.close(code, "");
    }
}

/// The first byte of an answer.
pub(super) async fn status_of(receive: &mut RecvStream) -> u8 {
    let mut status = [0];
    receive.read_exact(&mut status).await.unwrap();
    status[0]
}

/// Reads to the end, at most so many bytes.
pub(super) async fn to_end(receive: &mut RecvStream, most: usize) -> Result<Vec<u8>, ReadError> {
    let mut all = Vec::new();
    while let Some(chunk) = receive.read_chunk(64 * 1024).await? {
        all.extend_from_slice(&chunk);
        assert!(all.len() <= most, "more than {most} bytes came");
    }
    Ok(all)
}

/// TLS and the opening handshake.
async fn upgraded(socket: TcpStream, acceptor: &TlsAcceptor) -> Option<Link> {
    let mut stream = acceptor.accept(socket).await.ok()?;
    let exporter = stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, Some(b"")).unwrap();
    let mut asked = BytesMut::new();
    let (head, accept) = loop {
        if stream.read_buf(&mut asked).await.ok()? == 0 {
            return None;
        }
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut fields);
        if let httparse::Status::Complete(length) = request.parse(&asked).unwrap() {
            assert_eq!((request.method, request.path), (Some("GET"), Some("/tunnel")));
            let fields = request.headers.iter().map(|header| (header.name, header.value));
            break (length, handshake::check_request(fields, Some(WEBSOCKET_PROTOCOL)).unwrap().accept);
        }
    };
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {WEBSOCKET_PROTOCOL}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.ok()?;
    stream.flush().await.ok()?;
    Some(Link::websocket(stream, Side::Edge, asked.split_off(head), Some(exporter), || [0; 4]))
}
