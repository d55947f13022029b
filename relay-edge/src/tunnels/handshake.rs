//! From `hello` to `welcome`: an agent says who it is and proves it, and so does the edge (native-tunnel s.2, trust s.3).

use std::time::Duration;

use phlix_link::{Link, RecvStream, SendStream};
use phlix_protocol::b64;
use phlix_protocol::ids::EdgeId;
use phlix_protocol::native::VERSION;
use phlix_protocol::native::control::{
    Binding, Challenge, ControlError, Decoder, Hello, Message, Received, Refused, RefusedCode, encode,
};
use phlix_protocol::native::proof::{ChannelBinding, challenge_input, proof_input};
use phlix_protocol::token::{self, TokenError, TunnelTicket};

use super::native::Tunnels;
use super::registry::NotEntered;
use crate::{clock, random};

/// Most bytes taken from the control stream at once.
const READ: usize = 16 * 1024;

/// What ends a control channel.
#[derive(Debug, thiserror::Error)]
pub(super) enum ControlFailure {
    #[error("the agent broke the protocol: {0}")]
    Protocol(#[from] ControlError),
    #[error("the agent said something out of turn")]
    OutOfTurn,
    #[error("the agent floods the control channel")]
    Flood,
    #[error("the control channel ended")]
    Ended,
}

/// The first stream.
pub(super) struct Control {
    send: SendStream,
    recv: RecvStream,
    decoder: Decoder,
}

impl Control {
    pub(super) fn new(send: SendStream, recv: RecvStream) -> Self {
        Self { send, recv, decoder: Decoder::new() }
    }

    /// Raises the limit on messages: the agent has proved who it is.
    pub(super) fn established(&mut self) {
        self.decoder.established();
    }

    /// The next message. Cancel-safe: what was read stays in the decoder.
    pub(super) async fn next(&mut self) -> Result<Received, ControlFailure> {
        loop {
            if let Some(received) = self.decoder.next_message()? {
                return Ok(received);
            }
            let mut buffer = [0; READ];
            let wanted = self.decoder.wanted().min(READ);
            match self.recv.read(&mut buffer[..wanted]).await {
                Ok(Some(read)) => self.decoder.push(&buffer[..read]),
                Ok(None) | Err(_) => return Err(ControlFailure::Ended),
            }
        }
    }

    /// Says something. An agent that doesn't read its control channel loses it.
    pub(super) async fn say(&mut self, message: &Message) -> Result<(), ControlFailure> {
        self.write(&encode(message)).await
    }

    async fn write(&mut self, wire: &[u8]) -> Result<(), ControlFailure> {
        match tokio::time::timeout(Duration::from_secs(5), self.send.write_all(wire)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ControlFailure::Ended),
        }
    }

    /// Ends our direction and waits a moment until the agent has it all.
    pub(super) async fn finish(&mut self) {
        if self.send.finish().is_ok() {
            // Whether it arrived or not, the connection is closed next.
            let _ = tokio::time::timeout(Duration::from_secs(1), self.send.stopped()).await;
        }
    }
}

/// An agent that proved to be its server's.
pub(super) struct Proved {
    pub(super) hello: Hello,
    pub(super) ticket: TunnelTicket,
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotProved {
    #[error("refused: {reason}")]
    Refused { code: RefusedCode, reason: &'static str, retry_after: Option<Duration> },
    #[error(transparent)]
    Broken(#[from] ControlFailure),
}

impl NotProved {
    fn refused(code: RefusedCode, reason: &'static str) -> Self {
        Self::Refused { code, reason, retry_after: None }
    }

    fn later(code: RefusedCode, reason: &'static str) -> Self {
        Self::Refused { code, reason, retry_after: Some(Duration::from_secs(2)) }
    }
}

impl From<NotEntered> for NotProved {
    fn from(error: NotEntered) -> Self {
        match error {
            NotEntered::TooManyInstances => {
                Self::refused(RefusedCode::OverLimit, "two installations of this server are connected already")
            }
            NotEntered::Full => Self::later(RefusedCode::OverLimit, "this edge holds as many tunnels as it may"),
            NotEntered::Draining => Self::refused(RefusedCode::Draining, "this edge is going away"),
        }
    }
}

/// What the agent is told.
pub(super) fn refusal(code: RefusedCode, reason: &str, retry_after: Option<Duration>) -> Message {
    let retry_after_ms = retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    Message::Refused(Refused { code, reason: reason.to_owned(), retry_after_ms })
}

/// Reads `hello`, challenges, checks the proof.
pub(super) async fn prove(tunnels: &Tunnels, link: &Link, control: &mut Control) -> Result<Proved, NotProved> {
    let received = control.next().await?;
    let Message::Hello(hello) = received.message else { return Err(ControlFailure::OutOfTurn.into()) };
    if !hello.versions.contains(&VERSION) {
        return Err(NotProved::refused(RefusedCode::Version, "this edge speaks version 1"));
    }
    if !tunnels.is_ours(&hello.edge) {
        return Err(NotProved::refused(RefusedCode::WrongEdge, "this edge has another name"));
    }
    if !tunnels.uplink.approved() {
        return Err(NotProved::later(RefusedCode::Internal, "this edge is not admitted by its hub yet"));
    }
    if hello.index > 1 {
        return Err(NotProved::refused(RefusedCode::OverLimit, "a server has tunnels 0 and 1"));
    }
    let ticket = check_ticket(tunnels, &hello.ticket).await?;
    if ticket.server_id != hello.server_id {
        return Err(NotProved::refused(RefusedCode::Unauthorized, "the ticket is another server's"));
    }

    let nonce = random::bytes::<32>();
    let (binding, bound) = match link.exporter() {
        Some(exported) => (Binding::Exporter, ChannelBinding::Exporter(exported)),
        // The door lets such a connection in only where the hub's list says that TLS ends at a proxy.
        None => (Binding::None, ChannelBinding::None),
    };
    let challenge = challenge(tunnels.config.id, &nonce, binding, |input| tunnels.config.key.sign(input));
    let wire = encode(&Message::Challenge(challenge));
    control.write(&wire).await?;

    let Message::Proof(proof) = control.next().await?.message else { return Err(ControlFailure::OutOfTurn.into()) };
    let transcript = proof_input(&received.json, &wire[4..], bound);
    let signature = b64::decode_array::<64>(&proof.signature).unwrap_or([0; 64]);
    if !ticket.cnf.jwk.verifies(&transcript, &signature) {
        return Err(NotProved::refused(RefusedCode::Unauthorized, "the proof is not by the server's key"));
    }
    Ok(Proved { hello, ticket })
}

fn challenge(edge: EdgeId, nonce: &[u8; 32], binding: Binding, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Challenge {
    let signature = sign(&challenge_input(edge, nonce, binding));
    Challenge { edge_id: edge, nonce: b64::encode(nonce), binding, signature: b64::encode(signature) }
}

/// Verifies a tunnel ticket against what the bulletin says, once the bulletin has reached the ticket's revision.
pub(super) async fn check_ticket(tunnels: &Tunnels, text: &str) -> Result<TunnelTicket, NotProved> {
    let revision = token::peek::<TunnelTicket>(text).map_or(0, |claims| claims.rev);
    let patience = tunnels.config.timeouts.uplink;
    let world = match tunnels.uplink.bulletin.reached(revision, patience).await {
        Some(world) => world,
        // Behind the hub, or a made-up revision: what is known decides whether it is the hub's at all.
        None if tunnels.uplink.bulletin.has_snapshot() => {
            token::verify::<TunnelTicket>(text, &tunnels.uplink.bulletin.world().keys, clock::unix_now())
                .map_err(ticket_refusal)?;
            return Err(NotProved::later(RefusedCode::Internal, "this edge has not caught up with its hub"));
        }
        None => return Err(NotProved::later(RefusedCode::Internal, "this edge has not heard from its hub yet")),
    };
    let ticket: TunnelTicket = token::verify(text, &world.keys, clock::unix_now()).map_err(ticket_refusal)?;
    if world.revokes_tunnel(&ticket) {
        return Err(NotProved::refused(RefusedCode::Unauthorized, "the server's right to a tunnel was withdrawn"));
    }
    Ok(ticket)
}

fn ticket_refusal(error: TokenError) -> NotProved {
    tracing::debug!(%error, "tunnel ticket refused");
    match error {
        TokenError::Expired => NotProved::refused(RefusedCode::Expired, "the ticket has expired"),
        _ => NotProved::refused(RefusedCode::Unauthorized, "the ticket is not the hub's"),
    }
}
