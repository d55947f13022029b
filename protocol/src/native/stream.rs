//! A relayed connection: its header, the agent's first byte, and reset codes (native-tunnel s.3).

use serde::{Deserialize, Serialize};

use crate::hostname::Hostname;

/// Longest header, in bytes of JSON: a viewer ticket and a host name fit with room to grow.
pub const MAX_HEADER: usize = 16 * 1024;

/// What an edge says first on each stream that it opens: `u16` big-endian length, then this as JSON. Unknown keys are
/// ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamHeader {
    /// Version of this header.
    #[serde(default = "version_one")]
    pub v: u32,
    #[serde(flatten)]
    pub kind: StreamKind,
    /// The viewer's ticket; absent where the name is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// The name that was asked for; the agent maps it to an origin by its own configuration.
    pub host: Hostname,
}

fn version_one() -> u32 {
    super::VERSION
}

/// What flows after the header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum StreamKind {
    /// HTTP/1.1.
    Http,
    /// TLS that ends at the agent.
    Tls { peer: String, sni: String },
    /// A raw service that the owner has declared.
    Tcp { origin: String, peer: String },
}

/// The header is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("stream header of {0} bytes is over the limit")]
    TooLong(usize),
    #[error("stream header is malformed")]
    Malformed,
    #[error("stream header has version {0}")]
    Version(u32),
}

impl StreamHeader {
    /// A header for HTTP.
    pub fn http(host: Hostname, ticket: Option<String>) -> Self {
        Self { v: super::VERSION, kind: StreamKind::Http, ticket, host }
    }

    /// Length and JSON.
    pub fn encode(&self) -> Result<Vec<u8>, HeaderError> {
        let json = serde_json::to_vec(self).expect("headers are plain structs");
        if json.len() > MAX_HEADER {
            return Err(HeaderError::TooLong(json.len()));
        }
        let mut out = Vec::with_capacity(2 + json.len());
        out.extend_from_slice(&(json.len() as u16).to_be_bytes());
        out.extend_from_slice(&json);
        Ok(out)
    }

    /// How many bytes of JSON follow the first two.
    pub fn announced(length: [u8; 2]) -> Result<usize, HeaderError> {
        let length = usize::from(u16::from_be_bytes(length));
        if length > MAX_HEADER { Err(HeaderError::TooLong(length)) } else { Ok(length) }
    }

    /// Parses the JSON.
    pub fn parse(json: &[u8]) -> Result<Self, HeaderError> {
        let header: Self = serde_json::from_slice(json).map_err(|_| HeaderError::Malformed)?;
        if header.v != super::VERSION {
            return Err(HeaderError::Version(header.v));
        }
        Ok(header)
    }
}

/// The first byte of the agent's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum StreamStatus {
    Connected = 0,
    OriginRefused = 1,
    OriginUnreachable = 2,
    TimedOut = 3,
    NotAllowed = 4,
    OverLimit = 5,
    OriginTls = 6,
}

impl StreamStatus {
    /// The byte.
    pub fn byte(self) -> u8 {
        self as u8
    }

    /// The meaning of a byte; `None` for one that this version does not know, which is a failure of unknown kind.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Connected,
            1 => Self::OriginRefused,
            2 => Self::OriginUnreachable,
            3 => Self::TimedOut,
            4 => Self::NotAllowed,
            5 => Self::OverLimit,
            6 => Self::OriginTls,
            _ => return None,
        })
    }
}

/// Why one direction of a stream was cut off: QUIC's reset and stop codes, and the multiplexer's RESET payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum ResetCode {
    CancelledByViewer = 1,
    OriginFailed = 2,
    OverLimit = 3,
    Stalled = 4,
    Draining = 5,
    Internal = 6,
    /// The sender of the header broke the protocol.
    Protocol = 7,
}

impl ResetCode {
    /// The number on the wire.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// The meaning of a number; what this version does not know is `Internal`.
    pub fn from_code(code: u64) -> Self {
        match code {
            1 => Self::CancelledByViewer,
            2 => Self::OriginFailed,
            3 => Self::OverLimit,
            4 => Self::Stalled,
            5 => Self::Draining,
            7 => Self::Protocol,
            _ => Self::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_looks_as_the_page_says() {
        let header = StreamHeader::http("a.hub.localhost".parse().expect("host"), Some("t".into()));
        let wire = header.encode().expect("short");
        assert_eq!(&wire[2..], br#"{"v":1,"kind":"http","ticket":"t","host":"a.hub.localhost"}"#);
        assert_eq!(usize::from(u16::from_be_bytes([wire[0], wire[1]])), wire.len() - 2);
    }

    #[test]
    fn unknown_keys_are_ignored_and_unknown_kinds_refused() {
        let parse = |json: &str| StreamHeader::parse(json.as_bytes());
        assert!(parse(r#"{"kind":"http","host":"a.b","later":[1]}"#).is_ok());
        assert_eq!(parse(r#"{"kind":"ftp","host":"a.b"}"#), Err(HeaderError::Malformed));
        assert_eq!(parse(r#"{"kind":"tcp","host":"a.b"}"#), Err(HeaderError::Malformed));
        assert_eq!(parse(r#"{"kind":"http","host":"A B"}"#), Err(HeaderError::Malformed));
        assert_eq!(parse(r#"{"v":2,"kind":"http","host":"a.b"}"#), Err(HeaderError::Version(2)));
    }

    #[test]
    fn a_header_over_the_limit_is_not_sent_and_not_read() {
        let header = StreamHeader::http("a.b".parse().expect("host"), Some("t".repeat(MAX_HEADER)));
        assert!(matches!(header.encode(), Err(HeaderError::TooLong(_))));
        assert_eq!(StreamHeader::announced([0xff, 0xff]), Err(HeaderError::TooLong(65_535)));
    }

    proptest! {
        #[test]
        fn headers_round_trip(ticket in proptest::option::of("[a-zA-Z0-9._-]{0,600}"), peer in "[0-9.:]{1,40}", which in 0..3u8) {
            let kind = match which {
                0 => StreamKind::Http,
                1 => StreamKind::Tls { peer, sni: "a.e2e.hub.localhost".into() },
                _ => StreamKind::Tcp { origin: "ssh".into(), peer },
            };
            let header = StreamHeader { v: 1, kind, ticket, host: "a.hub.localhost".parse().expect("host") };
            let wire = header.encode().expect("short");
            prop_assert_eq!(StreamHeader::parse(&wire[2..]), Ok(header));
        }

        #[test]
        fn damaged_headers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = StreamHeader::parse(&bytes);
        }
    }
}
