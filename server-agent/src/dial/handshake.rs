//! Who are you, who am I: `hello`, `challenge`, `proof`, `welcome` (trust s.3).

use std::time::Duration;

use bytes::Bytes;
use phlix_link::{Link, RecvStream, SendStream, Transport};
use phlix_protocol::b64;
use phlix_protocol::ids::EdgeId;
use phlix_protocol::native::control::{
    self, AgentInfo, Binding, Challenge, ControlError, Decoder, Hello, Message, Proof, Received, RefusedCode, Welcome,
};
use phlix_protocol::native::proof::{ChannelBinding, challenge_input, proof_input};
use phlix_protocol::native::{VERSION, close};
use phlix_protocol::token::EdgeEntry;

use crate::shared::{Credentials, Shared};

/// Why there is no tunnel although there is a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("the connection broke during the handshake: {0}")]
    Broken(String),
    #[error(transparent)]
    Protocol(#[from] ControlError),
    #[error("it sent {0} where another message was due")]
    OutOfTurn(&'static str),
    #[error("it says that it is edge {0}, which is not the one that was dialled")]
    OtherEdge(EdgeId),
    #[error("it could not prove that it is the edge of the hub's list")]
    BadChallenge,
    #[error("it wants a proof that is not bound to the connection")]
    Unbound,
    #[error("it speaks version {0} of the tunnel's protocol")]
    Version(u32),
    #[error("it refused: {reason} ({code:?})")]
    Refused { code: RefusedCode, reason: String, retry_after: Option<Duration> },
    #[error("no welcome within {} s", .0.as_secs())]
    TimedOut(Duration),
}

impl HandshakeError {
    /// With what the connection is closed.
    pub(super) fn close_code(&self) -> u32 {
        match self {
            Self::TimedOut(_) => close::HANDSHAKE_TIMEOUT,
            Self::Refused { .. } => close::REFUSED,
            _ => close::PROTOCOL,
        }
    }
}

/// The control channel.
pub(super) struct Control {
    send: SendStream,
    receive: RecvStream,
    decoder: Decoder,
}

/// The control channel is of no more use.
#[derive(Debug, thiserror::Error)]
pub(super) enum ControlEnd {
    #[error("the control channel ended: {0}")]
    Broken(String),
    #[error(transparent)]
    Protocol(#[from] ControlError),
}

impl From<ControlEnd> for HandshakeError {
    fn from(end: ControlEnd) -> Self {
        match end {
            ControlEnd::Broken(reason) => Self::Broken(reason),
            ControlEnd::Protocol(error) => Self::Protocol(error),
        }
    }
}

impl Control {
    async fn open(link: &Link) -> Result<Self, HandshakeError> {
        let (send, receive) = link.open_control().await.map_err(|end| HandshakeError::Broken(end.to_string()))?;
        Ok(Self { send, receive, decoder: Decoder::new() })
    }

    /// Sends a message and gives its JSON, which signatures cover.
    pub(super) async fn send(&mut self, message: &Message) -> Result<Bytes, ControlEnd> {
        let wire = Bytes::from(control::encode(message));
        self.send.write_chunk(wire.clone()).await.map_err(|error| ControlEnd::Broken(error.to_string()))?;
        Ok(wire.slice(4..))
    }

    /// The next message. Nothing is lost when it is dropped halfway.
    pub(super) async fn next(&mut self) -> Result<Received, ControlEnd> {
        loop {
            if let Some(received) = self.decoder.next_message()? {
                return Ok(received);
            }
            match self.receive.read_chunk(self.decoder.wanted()).await {
                Ok(Some(chunk)) => self.decoder.push(&chunk),
                Ok(None) => return Err(ControlEnd::Broken("closed by the edge".into())),
                Err(error) => return Err(ControlEnd::Broken(error.to_string())),
            }
        }
    }

    /// No more is said.
    pub(super) fn finish(&mut self) {
        let _ = self.send.finish();
    }
}

/// Runs the handshake up to `welcome`.
pub(super) async fn prove(
    shared: &Shared,
    credentials: &Credentials,
    edge: &EdgeEntry,
    dialled: &str,
    link: &Link,
) -> Result<(Control, Welcome), HandshakeError> {
    let mut control = Control::open(link).await?;
    let hello = control
        .send(&Message::Hello(Hello {
            versions: vec![VERSION],
            server_id: shared.server_id,
            ticket: credentials.ticket.clone(),
            edge: dialled.to_owned(),
            instance: shared.instance,
            index: 0,
            agent: AgentInfo {
                version: env!("CARGO_PKG_VERSION").into(),
                os: std::env::consts::OS.into(),
                arch: std::env::consts::ARCH.into(),
            },
            caps: Vec::new(),
        }))
        .await?;

    let received = control.next().await?;
    let challenge = match received.message {
        Message::Challenge(challenge) => challenge,
        other => return Err(unexpected(other)),
    };
    check_challenge(edge, link.transport(), &challenge)?;
    let binding = match challenge.binding {
        Binding::None => ChannelBinding::None,
        _ => ChannelBinding::Exporter(
            link.exporter().ok_or_else(|| HandshakeError::Broken("TLS gives no exporter".into()))?,
        ),
    };
    let signed = proof_input(&hello, &received.json, binding);
    let signature = b64::encode(shared.key.sign(&signed));
    control.send(&Message::Proof(Proof { signature })).await?;

    let welcome = match control.next().await?.message {
        Message::Welcome(welcome) => welcome,
        other => return Err(unexpected(other)),
    };
    if welcome.version != VERSION {
        return Err(HandshakeError::Version(welcome.version));
    }
    if welcome.edge_id != edge.id {
        return Err(HandshakeError::OtherEdge(welcome.edge_id));
    }
    control.decoder.established();
    shared.clock.heard_edge(welcome.now);
    Ok((control, welcome))
}

/// Believes an edge only as the one that the hub's signed list names, and that we meant to reach.
fn check_challenge(edge: &EdgeEntry, transport: Transport, challenge: &Challenge) -> Result<(), HandshakeError> {
    if challenge.edge_id != edge.id {
        return Err(HandshakeError::OtherEdge(challenge.edge_id));
    }
    //= trust s.3: `none` only for an edge that the hub's signed edge list marks as behind a TLS-terminating proxy
    // Such a proxy carries no QUIC: there TLS is the connection.
    let may_be_unbound = edge.behind_proxy && transport == Transport::WebSocket;
    let bound = match challenge.binding {
        Binding::Exporter => true,
        Binding::None => may_be_unbound,
    };
    if !bound {
        return Err(HandshakeError::Unbound);
    }
    let nonce: [u8; 32] = b64::decode_array(&challenge.nonce).ok_or(HandshakeError::BadChallenge)?;
    let signature: [u8; 64] = b64::decode_array(&challenge.signature).ok_or(HandshakeError::BadChallenge)?;
    if edge.key.verifies(&challenge_input(edge.id, &nonce, challenge.binding), &signature) {
        Ok(())
    } else {
        Err(HandshakeError::BadChallenge)
    }
}

fn unexpected(message: Message) -> HandshakeError {
    match message {
        Message::Refused(refused) => HandshakeError::Refused {
            code: refused.code,
            reason: refused.reason.chars().filter(|c| !c.is_control()).take(200).collect(),
            retry_after: refused.retry_after_ms.map(Duration::from_millis),
        },
        other => HandshakeError::OutOfTurn(name(&other)),
    }
}

fn name(message: &Message) -> &'static str {
    match message {
        Message::Hello(_) => "hello",
        Message::Challenge(_) => "challenge",
        Message::Proof(_) => "proof",
        Message::Welcome(_) => "welcome",
        Message::Refused(_) => "refused",
        Message::Presence(_) => "presence",
        Message::Ticket(_) => "ticket",
        Message::Update(_) => "update",
        Message::Drain(_) => "drain",
        Message::Bye(_) => "bye",
        Message::Report(_) => "report",
    }
}

#[cfg(test)]
mod tests {
    use phlix_protocol::keys::SigningKey;

    use super::*;

    fn edge(key: &SigningKey) -> EdgeEntry {
        EdgeEntry {
            id: EdgeId::new(uuid::Uuid::from_u128(1)),
            key: key.public(),
            addresses: vec![],
            port: 1,
            region: "home".into(),
            names: vec![],
            spki: None,
            behind_proxy: false,
        }
    }

    fn challenge(id: EdgeId, key: &SigningKey, binding: Binding) -> Challenge {
        let nonce = [9; 32];
        Challenge {
            edge_id: id,
            nonce: b64::encode(nonce),
            binding,
            signature: b64::encode(key.sign(&challenge_input(id, &nonce, binding))),
        }
    }

    #[test]
    fn a_challenge_is_believed_of_the_edge_that_was_dialled_alone() {
        let key = SigningKey::from_seed(&[1; 32]);
        let stranger = SigningKey::from_seed(&[2; 32]);
        let edge = edge(&key);
        let other = EdgeId::new(uuid::Uuid::from_u128(2));
        let good = challenge(edge.id, &key, Binding::Exporter);
        assert!(check_challenge(&edge, Transport::Quic, &good).is_ok());
        let refused = |challenge| check_challenge(&edge, Transport::WebSocket, &challenge).unwrap_err().to_string();
        assert!(refused(challenge(other, &key, Binding::Exporter)).contains("not the one that was dialled"));
        assert!(refused(challenge(edge.id, &stranger, Binding::Exporter)).contains("could not prove"));
        assert!(refused(challenge(edge.id, &key, Binding::None)).contains("not bound"));
        assert!(refused(Challenge { nonce: b64::encode([8; 32]), ..good.clone() }).contains("could not prove"));
        assert!(refused(Challenge { nonce: "x".repeat(10_000), ..good.clone() }).contains("could not prove"));
        assert!(refused(Challenge { signature: String::new(), ..good }).contains("could not prove"));
    }

    #[test]
    fn a_proof_without_binding_is_for_marked_edges_over_websocket() {
        let key = SigningKey::from_seed(&[1; 32]);
        let marked = EdgeEntry { behind_proxy: true, ..edge(&key) };
        let unbound = challenge(marked.id, &key, Binding::None);
        assert!(check_challenge(&marked, Transport::WebSocket, &unbound).is_ok());
        assert!(check_challenge(&marked, Transport::Quic, &unbound).is_err());
        assert!(check_challenge(&edge(&key), Transport::WebSocket, &unbound).is_err());
        let bound = challenge(marked.id, &key, Binding::Exporter);
        assert!(check_challenge(&marked, Transport::WebSocket, &bound).is_ok());
    }
}
