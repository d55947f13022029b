//! Control messages: `u32` big-endian length (at most 64 KiB), then JSON with a `type` (native-tunnel s.2).

use serde::{Deserialize, Serialize};

use crate::hostname::Hostname;
use crate::ids::{EdgeId, InstanceId, ServerId, TunnelId};
use crate::token::{Limits, NamedHost};

/// Longest message, in bytes of JSON.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// Longest `hello`, and longest message before `welcome`, in bytes of JSON.
pub const MAX_HELLO: usize = 8 * 1024;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    Hello(Hello),
    Challenge(Challenge),
    Proof(Proof),
    Welcome(Welcome),
    Refused(Refused),
    Presence(Presence),
    Ticket(Ticket),
    Update(Update),
    Drain(Drain),
    Bye(Bye),
    Report(Report),
}

/// Agent: who I am and which edge I mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub versions: Vec<u32>,
    pub server_id: ServerId,
    /// The tunnel ticket.
    pub ticket: String,
    /// The name or address that was dialled; the edge checks that it is one of its own.
    pub edge: String,
    /// Random per installation.
    pub instance: InstanceId,
    /// Which of its tunnels: 0 or 1.
    pub index: u8,
    pub agent: AgentInfo,
    #[serde(default)]
    pub caps: Vec<String>,
}

/// What program dials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    pub version: String,
    pub os: String,
    pub arch: String,
}

/// How a proof is bound to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Binding {
    /// The TLS exporter of this connection.
    Exporter,
    /// Nothing: only for an edge that the hub's list marks as behind a TLS-terminating proxy.
    None,
}

impl Binding {
    /// The word as it stands in messages and signatures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exporter => "exporter",
            Self::None => "none",
        }
    }
}

/// Edge: prove it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    pub edge_id: EdgeId,
    /// 32 random bytes, base64url.
    pub nonce: String,
    pub binding: Binding,
    /// The edge's own key over `proof::challenge_input`, base64url.
    pub signature: String,
}

/// Agent: the server's key over `proof::proof_input`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Base64url.
    pub signature: String,
}

/// Edge: the tunnel is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    pub version: u32,
    pub tunnel_id: TunnelId,
    pub edge_id: EdgeId,
    pub region: String,
    pub names: Vec<NamedHost>,
    pub limits: Limits,
    /// The edge's clock, unix seconds: from it the agent learns how wrong its own is.
    pub now: i64,
}

/// Why an edge refuses a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedCode {
    Unauthorized,
    Expired,
    WrongEdge,
    Version,
    RateLimited,
    Draining,
    OverLimit,
    Internal,
    /// A code of a newer version.
    #[serde(other)]
    Unknown,
}

/// Edge: no; the connection is closed after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub code: RefusedCode,
    /// For people.
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// Agent: this tunnel ends here; after `welcome`, then every 5 minutes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// JWT by the server's key, `token::Presence`.
    pub statement: String,
}

/// Agent: a fresh tunnel ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    pub ticket: String,
}

/// Edge: names or limits changed; the agent fetches a fresh ticket at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<Hostname>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// Edge: go elsewhere; no new streams come here, what runs may finish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    pub deadline_ms: u64,
    pub reason: String,
}

/// Either: orderly end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bye {
    pub reason: String,
}

/// Agent: how the home side does; every 30 s and on change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whether the origin took a connection lately.
    pub origin_up: bool,
    /// Bits per second, where measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_bps: Option<u64>,
    /// Round trip, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
}

/// What a peer broke. Closes the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    #[error("control message of {0} bytes is over the limit")]
    TooLong(usize),
    #[error("control message is not JSON of the form that its type asks for")]
    Malformed,
    #[error("control message must be understood and is not")]
    NotUnderstood,
}

/// A decoded message with the JSON that it was, which signatures cover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub message: Message,
    pub json: Vec<u8>,
}

/// Encodes a message: length and JSON. The JSON alone (what signatures cover) is the answer's bytes from 4 on.
pub fn encode(message: &Message) -> Vec<u8> {
    let json = serde_json::to_vec(message).expect("messages are plain structs");
    let length = u32::try_from(json.len()).expect("messages are bounded far below 4 GiB");
    let mut out = Vec::with_capacity(4 + json.len());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&json);
    out
}

/// Turns a control channel's bytes into messages. Holds at most one message's bytes.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    limit: usize,
}

impl Decoder {
    /// Starts with the limit that holds before `welcome`.
    pub fn new() -> Self {
        Self { buffer: Vec::new(), limit: MAX_HELLO }
    }

    /// Raises the limit once the peer has proved who it is.
    pub fn established(&mut self) {
        self.limit = MAX_MESSAGE;
    }

    /// How many bytes `push` takes now: until the next message is whole. Never 0.
    pub fn wanted(&self) -> usize {
        match self.announced() {
            None => 4 - self.buffer.len(),
            // An over-long announcement is refused by `next` before more is read.
            Some(length) => (4 + length.min(self.limit)).saturating_sub(self.buffer.len()).max(1),
        }
    }

    /// Adds bytes that were read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, `None` when more bytes are needed. Messages of unknown type are passed over.
    pub fn next_message(&mut self) -> Result<Option<Received>, ControlError> {
        loop {
            let Some(length) = self.announced() else { return Ok(None) };
            if length > self.limit {
                return Err(ControlError::TooLong(length));
            }
            if self.buffer.len() < 4 + length {
                return Ok(None);
            }
            let rest = self.buffer.split_off(4 + length);
            let mut json = std::mem::replace(&mut self.buffer, rest);
            json.drain(..4);
            if let Some(message) = parse(&json)? {
                return Ok(Some(Received { message, json }));
            }
        }
    }

    fn announced(&self) -> Option<usize> {
        let length: [u8; 4] = self.buffer.get(..4)?.try_into().expect("four bytes were asked for");
        Some(u32::from_be_bytes(length) as usize)
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

/// One message's JSON; `None` for an unknown type that need not be understood.
fn parse(json: &[u8]) -> Result<Option<Message>, ControlError> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(rename = "type", borrow)]
        kind: std::borrow::Cow<'a, str>,
        #[serde(default)]
        must_understand: bool,
    }
    const KNOWN: [&str; 11] =
        ["hello", "challenge", "proof", "welcome", "refused", "presence", "ticket", "update", "drain", "bye", "report"];
    let envelope: Envelope<'_> = serde_json::from_slice(json).map_err(|_| ControlError::Malformed)?;
    if !KNOWN.contains(&envelope.kind.as_ref()) {
        return if envelope.must_understand { Err(ControlError::NotUnderstood) } else { Ok(None) };
    }
    serde_json::from_slice(json).map(Some).map_err(|_| ControlError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain() -> Message {
        Message::Drain(Drain { deadline_ms: 900_000, reason: "upgrade".into() })
    }

    #[test]
    fn messages_survive_any_split() {
        let mut wire = encode(&drain());
        wire.extend(encode(&Message::Bye(Bye { reason: "done".into() })));
        for cut in 0..=wire.len() {
            let mut decoder = Decoder::new();
            decoder.push(&wire[..cut]);
            let mut seen = Vec::new();
            while let Some(received) = decoder.next_message().expect("well formed") {
                seen.push(received.message);
            }
            decoder.push(&wire[cut..]);
            while let Some(received) = decoder.next_message().expect("well formed") {
                seen.push(received.message);
            }
            assert_eq!(seen, [drain(), Message::Bye(Bye { reason: "done".into() })]);
        }
    }

    #[test]
    fn the_json_that_signatures_cover_is_the_json_that_was_sent() {
        let wire = encode(&drain());
        let mut decoder = Decoder::new();
        decoder.push(&wire);
        let received = decoder.next_message().expect("well formed").expect("whole");
        assert_eq!(received.json, wire[4..]);
    }

    #[test]
    fn an_over_long_message_is_refused_before_it_is_read() {
        let mut decoder = Decoder::new();
        decoder.push(&u32::MAX.to_be_bytes());
        assert_eq!(decoder.next_message(), Err(ControlError::TooLong(u32::MAX as usize)));

        let mut decoder = Decoder::new();
        decoder.push(&(MAX_HELLO as u32 + 1).to_be_bytes());
        assert_eq!(decoder.next_message(), Err(ControlError::TooLong(MAX_HELLO + 1)));
        let mut decoder = Decoder::new();
        decoder.established();
        decoder.push(&(MAX_HELLO as u32 + 1).to_be_bytes());
        assert_eq!(decoder.next_message(), Ok(None));
    }

    fn framed(json: &str) -> Vec<u8> {
        let mut wire = (json.len() as u32).to_be_bytes().to_vec();
        wire.extend_from_slice(json.as_bytes());
        wire
    }

    #[test]
    fn unknown_types_and_keys_are_ignored_unless_they_must_be_understood() {
        let mut decoder = Decoder::new();
        decoder.push(&framed(r#"{"type":"weather","sun":true}"#));
        decoder.push(&framed(r#"{"type":"bye","reason":"x","new":{"deep":[1]}}"#));
        let received = decoder.next_message().expect("ignored").expect("the second");
        assert_eq!(received.message, Message::Bye(Bye { reason: "x".into() }));

        decoder.push(&framed(r#"{"type":"weather","must_understand":true}"#));
        assert_eq!(decoder.next_message(), Err(ControlError::NotUnderstood));
    }

    #[test]
    fn a_known_type_of_wrong_form_is_malformed() {
        for json in [r#"{"type":"drain"}"#, r#"{"type":"bye","reason":7}"#, "[]", "", "{", r#"{"type":7}"#] {
            let mut decoder = Decoder::new();
            decoder.push(&framed(json));
            assert_eq!(decoder.next_message(), Err(ControlError::Malformed), "{json}");
        }
    }

    proptest! {
        #[test]
        fn damaged_bytes_never_panic_and_never_grow_the_buffer_beyond_a_message(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..64)) {
            let mut decoder = Decoder::new();
            for chunk in chunks {
                prop_assert!(decoder.wanted() > 0);
                decoder.push(&chunk);
                prop_assert!(decoder.buffer.len() <= 4 + MAX_HELLO + 64);
                match decoder.next_message() {
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        }
    }
}
