//! The two messages before the first frame: raw JSON, without a frame's header (legacy-relay-wire s.1.2).

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::ids::{ServerId, TunnelId};

/// Longest HELLO, bytes: an enrollment JWT has less than one KiB.
pub const MAX_HELLO: usize = 16 * 1024;

/// What a server says first.
#[derive(Clone, PartialEq, Eq)]
pub struct Hello {
    pub server_id: ServerId,
    /// A secret, unverified.
    pub enrollment_jwt: String,
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello").field("server_id", &self.server_id).finish_non_exhaustive()
    }
}

/// Why a first message is no HELLO. The cases are those of legacy-relay-wire s.1.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    #[error("first message is not a flat JSON object")]
    NotAnObject,
    #[error("first message is longer than 16 KiB")]
    TooLong,
    #[error("server_id is missing or empty")]
    NoServerId,
    #[error("server_id is not an id")]
    BadServerId,
    #[error("type is not hello")]
    NotHello,
    #[error("enrollment_jwt is missing or empty")]
    NoToken,
}

impl HelloError {
    /// Upstream's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::NotAnObject | Self::TooLong | Self::NotHello => "invalid_hello",
            Self::NoServerId => "missing_server_id",
            Self::BadServerId | Self::NoToken => "invalid_hello_payload",
        }
    }
}

impl Hello {
    /// Reads a server's first message. Scalars that it does not know are passed over; of a key that comes twice the last
    /// counts, as in PHP.
    //= legacy-relay-wire s.1.2: upstream parses with depth 2, so nested values are refused
    pub fn parse(message: &[u8]) -> Result<Self, HelloError> {
        if message.len() > MAX_HELLO {
            return Err(HelloError::TooLong);
        }
        let object: Map<String, Value> = serde_json::from_slice(message).map_err(|_| HelloError::NotAnObject)?;
        if object.values().any(|value| value.is_array() || value.is_object()) {
            return Err(HelloError::NotAnObject);
        }
        let text = |key| object.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let server_id = text("server_id").ok_or(HelloError::NoServerId)?;
        if text("type") != Some("hello") {
            return Err(HelloError::NotHello);
        }
        let enrollment_jwt = text("enrollment_jwt").ok_or(HelloError::NoToken)?.to_owned();
        let server_id = server_id.parse().map_err(|_| HelloError::BadServerId)?;
        Ok(Self { server_id, enrollment_jwt })
    }
}

/// What a hub answers.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename = "hello_ack")]
pub struct HelloAck<'a> {
    /// Of this connection.
    pub relay_session_id: Uuid,
    pub tunnel_id: TunnelId,
    /// What more we can do: the one place where today's servers pass over what they don't know.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub caps: &'a [&'a str],
}

impl HelloAck<'_> {
    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("ids and words are JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "11111111-2222-4333-8444-555555555555";

    #[test]
    fn each_wrong_hello_has_its_name() {
        let deep = "[".repeat(5000);
        let long = format!("{{\"type\":\"hello\",\"x\":\"{}\"}}", "x".repeat(MAX_HELLO));
        for (message, error) in [
            ("", HelloError::NotAnObject),
            ("hello", HelloError::NotAnObject),
            ("[]", HelloError::NotAnObject),
            ("null", HelloError::NotAnObject),
            (&deep, HelloError::NotAnObject),
            (&long, HelloError::TooLong),
            ("{\"type\":\"hello\",\"server_id\":\"ID\",\"enrollment_jwt\":\"J\",\"x\":{}}", HelloError::NotAnObject),
            ("{\"type\":\"hello\",\"server_id\":\"ID\",\"enrollment_jwt\":\"J\"}x", HelloError::NotAnObject),
            ("{\"type\":\"hello\",\"enrollment_jwt\":\"J\"}", HelloError::NoServerId),
            ("{\"type\":\"hello\",\"server_id\":\"\",\"enrollment_jwt\":\"J\"}", HelloError::NoServerId),
            ("{\"type\":\"hello\",\"server_id\":7,\"enrollment_jwt\":\"J\"}", HelloError::NoServerId),
            ("{}", HelloError::NoServerId),
            ("{\"type\":\"Hello\",\"server_id\":\"ID\",\"enrollment_jwt\":\"J\"}", HelloError::NotHello),
            ("{\"server_id\":\"ID\",\"enrollment_jwt\":\"J\"}", HelloError::NotHello),
            ("{\"type\":\"hello\",\"server_id\":\"ID\"}", HelloError::NoToken),
            ("{\"type\":\"hello\",\"server_id\":\"ID\",\"enrollment_jwt\":null}", HelloError::NoToken),
            ("{\"type\":\"hello\",\"server_id\":\"S\",\"enrollment_jwt\":\"J\"}", HelloError::BadServerId),
        ] {
            assert_eq!(Hello::parse(message.replace("ID", ID).as_bytes()), Err(error), "{message:.80}");
        }
        assert_eq!(Hello::parse(b"{\"type\":\"\xff\"}"), Err(HelloError::NotAnObject));
    }

    #[test]
    fn what_a_hello_may_have_beside_is_passed_over() {
        let message =
            format!("  {{\"type\":\"hello\",\"v\":1.5,\"x\":null,\"server_id\":\"{ID}\",\"enrollment_jwt\":\"J\"}}\n");
        let hello = Hello::parse(message.as_bytes()).expect("a hello");
        assert_eq!((hello.server_id.to_string().as_str(), hello.enrollment_jwt.as_str()), (ID, "J"));
        assert!(!format!("{hello:?}").contains("\"J\""), "the token is a secret");
    }

    #[test]
    fn caps_are_said_only_where_there_are_some() {
        let tunnel_id = TunnelId::new(Uuid::from_u128(1));
        let ack = |caps| HelloAck { relay_session_id: Uuid::nil(), tunnel_id, caps }.encode();
        let said: Value = serde_json::from_slice(&ack(&["a"])).expect("JSON");
        assert_eq!(said["caps"], serde_json::json!(["a"]));
        assert_eq!(said["type"], "hello_ack");
        assert!(!String::from_utf8_lossy(&ack(&[])).contains("caps"));
    }
}
