//! A stand-in for an edge: speaks the tunnel's protocol from the other side, honestly or not.

use std::sync::Arc;
use std::time::SystemTime;

use phlix_certs::dev::DevCerts;
use phlix_protocol::b64;
use phlix_protocol::ids::{EdgeId, TunnelId};
use phlix_protocol::keys::SigningKey;
use phlix_protocol::native::control::{
    self, Binding, Challenge, Decoder, Hello, Message, Proof, Received, Refused, RefusedCode, Welcome,
};
use phlix_protocol::native::proof::{ChannelBinding, challenge_input, proof_input};
use phlix_protocol::native::stream::StreamHeader;
use phlix_protocol::native::{ALPN, EXPORTER_LABEL};
use phlix_protocol::token::{self, EdgeEntry, Limits, TunnelTicket};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, VarInt};
use rustls::sign::SingleCertAndKey;
use tokio::sync::mpsc;

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
    pub(super) connection: Connection,
    pub(super) hello: Hello,
    send: SendStream,
    receive: RecvStream,
    decoder: Decoder,
}

impl FakeEdge {
    pub(super) fn start(manner: Manner) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certs = DevCerts::load_or_issue(folder.path(), "hub.localhost", &[], SystemTime::now()).unwrap();
        let mut tls = rustls::ServerConfig::builder_with_provider(crate::trust::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certs.key())));
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        let endpoint = Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
        let (sender, tunnels) = mpsc::channel(8);
        let id = EdgeId::new(random::uuid());
        let key = SigningKey::from_seed(&random::bytes());
        let hellos = Arc::default();
        let accepting = Accepting { id, key: key.clone(), manner, sender, hellos: Arc::clone(&hellos) };
        tokio::spawn(accepting.run(endpoint.clone()));
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
    async fn run(self, endpoint: Endpoint) {
        while let Some(incoming) = endpoint.accept().await {
            let Ok(connecting) = incoming.accept() else { continue };
            let Ok(connection) = connecting.await else { continue };
            if let Some(tunnel) = self.handshake(connection).await {
                let _ = self.sender.send(tunnel).await;
            }
        }
    }

    async fn handshake(&self, connection: Connection) -> Option<EdgeTunnel> {
        let (send, receive) = connection.accept_bi().await.ok()?;
        let mut decoder = Decoder::new();
        decoder.established();
        let placeholder: Hello = serde_json::from_value(serde_json::json!({
            "versions": [1], "server_id": random::uuid(), "ticket": "", "edge": "", "instance": random::uuid(),
            "index": 0, "agent": {"version": "", "os": "", "arch": ""},
        }))
        .unwrap();
        let mut tunnel = EdgeTunnel { connection, hello: placeholder, send, receive, decoder };
        let hello = tunnel.hear().await?;
        self.hellos.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let Message::Hello(said) = hello.message else { panic!("no hello: {:?}", hello.message) };
        assert_eq!(said.edge, "edge.hub.localhost");
        tunnel.hello = said;
        if let Manner::Refusing(code) = self.manner {
            tunnel.say(Message::Refused(Refused { code, reason: "test".into(), retry_after_ms: None })).await;
            tunnel.connection.closed().await;
            return None;
        }
        if self.manner == Manner::Mute {
            tunnel.connection.closed().await;
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
            let mut exporter = [0; 32];
            tunnel.connection.export_keying_material(&mut exporter, EXPORTER_LABEL, b"").unwrap();
            let ticket: TunnelTicket = token::peek(&tunnel.hello.ticket).unwrap();
            let signed = proof_input(&hello.json, &sent[4..], ChannelBinding::Exporter(exporter));
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
            tunnel.connection.closed().await;
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
            let chunk = self.receive.read_chunk(self.decoder.wanted(), true).await.ok()??;
            self.decoder.push(&chunk.bytes);
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
        let (mut send, receive) = self.connection.open_bi().await.unwrap();
        send.write_all(&header.encode().unwrap()).await.unwrap();
        (send, receive)
    }

    pub(super) fn close(&self, code: u32) {
        self.connection.close(VarInt::from_u32(code), b"");
    }
}

/// The first byte of an answer.
pub(super) async fn status_of(receive: &mut RecvStream) -> u8 {
    let mut status = [0];
    receive.read_exact(&mut status).await.unwrap();
    status[0]
}
