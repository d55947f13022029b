//! An agent: dials over QUIC or WebSocket, proves, serves streams.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use phlix_link::{Link, RecvStream, SendStream, Side, Transport};
use phlix_protocol::b64;
use phlix_protocol::ids::{EdgeId, InstanceId, ServerId, TunnelId};
use phlix_protocol::keys::SigningKey;
use phlix_protocol::native::control::{
    AgentInfo, Binding, Decoder, Hello, Message, Proof, Received, RefusedCode, Welcome, encode,
};
use phlix_protocol::native::proof::{ChannelBinding, proof_input};
use phlix_protocol::native::stream::{ResetCode, StreamHeader};
use phlix_protocol::native::{ALPN, EXPORTER_LABEL, WEBSOCKET_PATH, WEBSOCKET_PROTOCOL};
use phlix_protocol::token::{self, Presence, TunnelTicket};
use phlix_protocol::ws::handshake;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::hub::Hub;
use super::world::Trust;
use crate::{Addresses, clock, random};

/// What an agent does with a stream.
#[derive(Debug, Clone, Copy)]
pub(super) enum Serve {
    Origin(SocketAddr),
    /// Says this byte and ends.
    Status(u8),
}

/// How an agent introduces itself; a test changes what it wants to be wrong.
pub(super) struct Introduction {
    pub(super) hello: Hello,
    pub(super) key: SigningKey,
    /// Spoils the signature.
    pub(super) spoil: bool,
    /// Signs for a connection that is bound to nothing, whatever the challenge says.
    pub(super) unbound: bool,
    pub(super) by: By,
}

/// How an agent comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Quic,
    WebSocket,
    /// To the plain port, as a proxy that has taken TLS off.
    Proxy,
}

impl Introduction {
    pub(super) fn new(hub: &Hub, ticket: &TunnelTicket, key: &SigningKey) -> Self {
        let hello = Hello {
            versions: vec![1],
            server_id: ticket.server_id,
            ticket: token::sign(ticket, &hub.key),
            edge: "hub.localhost".into(),
            instance: InstanceId::new(random::uuid()),
            index: 0,
            agent: AgentInfo { version: "0".into(), os: "test".into(), arch: "test".into() },
            caps: Vec::new(),
        };
        Self { hello, key: key.clone(), spoil: false, unbound: false, by: By::Quic }
    }
}

pub(super) struct Agent {
    pub(super) link: Link,
    pub(super) welcome: Welcome,
    control: Control,
    key: SigningKey,
    headers: Arc<Mutex<Vec<StreamHeader>>>,
}

pub(super) struct Control {
    pub(super) send: SendStream,
    recv: RecvStream,
    decoder: Decoder,
}

impl Control {
    pub(super) async fn next(&mut self) -> Option<Received> {
        loop {
            if let Some(received) = self.decoder.next_message().unwrap() {
                return Some(received);
            }
            let mut buffer = vec![0; self.decoder.wanted()];
            let read = self.recv.read(&mut buffer).await.ok()??;
            self.decoder.push(&buffer[..read]);
        }
    }
}

/// Dials with an ALPN of the test's choice.
pub(super) async fn dial(
    edge: SocketAddr,
    trust: &Trust,
    alpn: &[&[u8]],
) -> Result<(quinn::Endpoint, quinn::Connection), quinn::ConnectionError> {
    let mut tls = trust.client();
    tls.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap())));
    let connection = endpoint.connect(edge, "hub.localhost").unwrap().await?;
    Ok((endpoint, connection))
}

/// Dials over TLS and asks for a tunnel at `host`; the edge's status where it grants none.
pub(super) async fn dial_websocket(edge: SocketAddr, trust: &Trust, host: &str) -> Result<Link, u16> {
    let mut tls = trust.client();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let socket = TcpStream::connect(edge).await.unwrap();
    let name = "hub.localhost".try_into().unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, socket).await.unwrap();
    let exporter = stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, Some(b"")).unwrap();
    upgrade(stream, host, &[], Some(exporter)).await
}

/// Asks for a tunnel on a connection.
pub(super) async fn upgrade<S>(
    mut stream: S,
    host: &str,
    fields: &[(&str, &str)],
    exporter: Option<[u8; 32]>,
) -> Result<Link, u16>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let key = handshake::key(random::bytes());
    let ask = handshake::request(WEBSOCKET_PATH, host, &key, Some(WEBSOCKET_PROTOCOL), fields).unwrap();
    stream.write_all(&ask).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = BytesMut::new();
    loop {
        assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "the edge answers");
        match handshake::check_response(&answer, &key, Some(WEBSOCKET_PROTOCOL)) {
            Ok(None) => {}
            Ok(Some(head)) => {
                return Ok(Link::websocket(stream, Side::Agent, answer.split_off(head), exporter, random::bytes));
            }
            Err(handshake::HandshakeError::Status(status)) => return Err(status),
            Err(error) => panic!("{error}"),
        }
    }
}

pub(super) async fn control(link: &Link) -> Control {
    let (send, recv) = link.open_control().await.unwrap();
    let mut decoder = Decoder::new();
    decoder.established();
    Control { send, recv, decoder }
}

impl Agent {
    /// Opens a tunnel; the edge's refusal otherwise.
    pub(super) async fn open(
        at: Addresses,
        edge_id: EdgeId,
        edge_key: &SigningKey,
        trust: &Trust,
        introduction: Introduction,
        serve: Serve,
    ) -> Result<Self, Option<RefusedCode>> {
        let link = match introduction.by {
            By::Quic => {
                let (endpoint, connection) = dial(at.tls, trust, &[ALPN]).await.map_err(|_| None)?;
                Link::quic_dialled(endpoint, connection, 1 << 20)
            }
            By::WebSocket => dial_websocket(at.tls, trust, "hub.localhost").await.map_err(|_| None)?,
            By::Proxy => {
                let stream = TcpStream::connect(at.http.unwrap()).await.unwrap();
                let fields = [("X-Forwarded-For", "192.0.2.7"), ("X-Forwarded-Proto", "https")];
                upgrade(stream, "hub.localhost", &fields, None).await.map_err(|_| None)?
            }
        };
        let mut control = control(&link).await;
        let hello = encode(&Message::Hello(introduction.hello));
        control.send.write_all(&hello).await.map_err(|_| None)?;

        let challenged = control.next().await.ok_or(None)?;
        let challenge = match challenged.message {
            Message::Challenge(challenge) => challenge,
            Message::Refused(refused) => return Err(Some(refused.code)),
            other => panic!("expected a challenge: {other:?}"),
        };
        assert_eq!(challenge.edge_id, edge_id);
        let nonce = b64::decode_array::<32>(&challenge.nonce).unwrap();
        let signed = phlix_protocol::native::proof::challenge_input(edge_id, &nonce, challenge.binding);
        assert!(edge_key.public().verifies(&signed, &b64::decode(&challenge.signature).unwrap()));

        let bound = match link.exporter().filter(|_| !introduction.unbound) {
            Some(exported) => ChannelBinding::Exporter(exported),
            None => ChannelBinding::None,
        };
        let expected = if introduction.by == By::Proxy { Binding::None } else { Binding::Exporter };
        assert_eq!(challenge.binding, expected);
        let transcript = proof_input(&hello[4..], &challenged.json, bound);
        let mut signature = introduction.key.sign(&transcript);
        if introduction.spoil {
            signature[7] ^= 1;
        }
        let proof = Message::Proof(Proof { signature: b64::encode(signature) });
        control.send.write_all(&encode(&proof)).await.map_err(|_| None)?;

        let welcome = match control.next().await.ok_or(None)?.message {
            Message::Welcome(welcome) => welcome,
            Message::Refused(refused) => return Err(Some(refused.code)),
            other => panic!("expected welcome: {other:?}"),
        };
        let headers = Arc::default();
        if link.transport() == Transport::WebSocket {
            link.set_max_streams(100);
        }
        tokio::spawn(serve_streams(link.clone(), serve, Arc::clone(&headers)));
        Ok(Self { link, welcome, control, key: introduction.key, headers })
    }

    pub(super) async fn say(&mut self, message: &Message) {
        self.control.send.write_all(&encode(message)).await.unwrap();
    }

    pub(super) async fn say_raw(&mut self, wire: &[u8]) {
        // The edge may close before it has read all of it.
        let _ = self.control.send.write_all(wire).await;
    }

    pub(super) async fn hear(&mut self) -> Option<Message> {
        Some(self.control.next().await?.message)
    }

    /// The statement that this tunnel ends at this edge.
    pub(super) fn statement(&self, server_id: ServerId, tunnel_id: TunnelId) -> Message {
        let claims = Presence { server_id, edge_id: self.welcome.edge_id, tunnel_id, iat: clock::unix_now() };
        let statement = token::sign_self(&claims, &self.key);
        Message::Presence(phlix_protocol::native::control::Presence { statement })
    }

    /// Headers of the streams so far.
    pub(super) fn headers(&self) -> Vec<StreamHeader> {
        self.headers.lock().unwrap().clone()
    }

    /// Why the edge closed the connection.
    pub(super) async fn closed(&self) -> Option<u32> {
        self.link.closed().await.code()
    }
}

async fn serve_streams(link: Link, serve: Serve, headers: Arc<Mutex<Vec<StreamHeader>>>) {
    while let Ok((mut send, mut recv)) = link.accept().await {
        let headers = Arc::clone(&headers);
        tokio::spawn(async move {
            let mut length = [0; 2];
            recv.read_exact(&mut length).await.ok()?;
            let mut json = vec![0; StreamHeader::announced(length).unwrap()];
            recv.read_exact(&mut json).await.ok()?;
            headers.lock().unwrap().push(StreamHeader::parse(&json).unwrap());
            match serve {
                Serve::Status(byte) => {
                    send.write_all(&[byte]).await.ok()?;
                    send.finish().ok()?;
                    send.stopped().await;
                }
                Serve::Origin(origin) => {
                    let stream = TcpStream::connect(origin).await.ok()?;
                    send.write_all(&[0]).await.ok()?;
                    splice(send, recv, stream).await;
                }
            }
            Some(())
        });
    }
}

async fn splice(mut send: SendStream, mut recv: RecvStream, stream: TcpStream) {
    let (mut from_origin, mut to_origin) = stream.into_split();
    let down = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match recv.read(&mut buffer).await {
                Ok(Some(read)) => to_origin.write_all(&buffer[..read]).await.map_err(drop)?,
                Ok(None) => {
                    let _ = to_origin.shutdown().await;
                    return Ok::<(), ()>(());
                }
                // The edge gave up: so does the origin's connection, at once.
                Err(_) => return Err(()),
            }
        }
    };
    let up = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match from_origin.read(&mut buffer).await {
                Ok(0) => {
                    let _ = send.finish();
                    return Ok::<(), ()>(());
                }
                Ok(read) => send.write_all(&buffer[..read]).await.map_err(drop)?,
                Err(_) => {
                    send.reset(ResetCode::OriginFailed);
                    return Err(());
                }
            }
        }
    };
    let _ = tokio::try_join!(down, up);
}
