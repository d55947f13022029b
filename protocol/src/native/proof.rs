//! The bytes that the tunnel's two signatures cover (trust s.3).
//!
//! Because they name the edge, the nonce, both messages and the TLS connection, a signature can't be relayed, replayed
//! or used for another server, edge, version or transport.

use sha2::{Digest as _, Sha256};

use super::control::Binding;
use crate::ids::EdgeId;
use crate::keys::length_prefixed;

/// What an edge signs with its own key when it challenges an agent. `nonce` is raw, not its base64.
pub fn challenge_input(edge: EdgeId, nonce: &[u8; 32], binding: Binding) -> Vec<u8> {
    length_prefixed(&[b"phlix-tunnel/1 challenge", edge.to_string().as_bytes(), nonce, binding.as_str().as_bytes()])
}

/// What ties a proof to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    /// 32 bytes of the TLS exporter, label `EXPORTER_LABEL`.
    Exporter([u8; 32]),
    /// The edge stands behind a TLS-terminating proxy, and the hub says so.
    None,
}

/// What an agent signs with its server's key: `hello` as sent, `challenge` as received (their JSON, without length).
pub fn proof_input(hello_json: &[u8], challenge_json: &[u8], binding: ChannelBinding) -> Vec<u8> {
    let hello = Sha256::digest(hello_json);
    let challenge = Sha256::digest(challenge_json);
    let binding: &[u8] = match &binding {
        ChannelBinding::Exporter(bytes) => bytes,
        ChannelBinding::None => b"none",
    };
    length_prefixed(&[b"phlix-tunnel/1", &hello, &challenge, binding])
}

/// What a native server signs with its key when it asks for a claim (trust s.7). `hub_origin` is the scheme, host and
/// port that it talks to, such as `https://hub.example`; `time` is unix seconds in decimal.
pub fn claim_input(hub_origin: &str, time: i64) -> Vec<u8> {
    length_prefixed(&[b"phlix-claim/1", hub_origin.as_bytes(), time.to_string().as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_changes_the_bytes() {
        let edge = EdgeId::new(uuid::Uuid::from_u128(1));
        let base = challenge_input(edge, &[1; 32], Binding::Exporter);
        assert_ne!(base, challenge_input(EdgeId::new(uuid::Uuid::from_u128(2)), &[1; 32], Binding::Exporter));
        assert_ne!(base, challenge_input(edge, &[2; 32], Binding::Exporter));
        assert_ne!(base, challenge_input(edge, &[1; 32], Binding::None));

        let base = proof_input(b"hello", b"challenge", ChannelBinding::Exporter([1; 32]));
        assert_ne!(base, proof_input(b"hellO", b"challenge", ChannelBinding::Exporter([1; 32])));
        assert_ne!(base, proof_input(b"hello", b"challengE", ChannelBinding::Exporter([1; 32])));
        assert_ne!(base, proof_input(b"hello", b"challenge", ChannelBinding::Exporter([2; 32])));
        assert_ne!(base, proof_input(b"hello", b"challenge", ChannelBinding::None));

        assert_ne!(claim_input("http://a", 1), claim_input("http://a", 2));
        assert_ne!(claim_input("http://a", 1), claim_input("http://b", 1));
    }

    #[test]
    fn the_layout_is_pinned() {
        let bytes = claim_input("http://h", 12);
        assert_eq!(bytes, b"\0\0\0\x0dphlix-claim/1\0\0\0\x08http://h\0\0\0\x0212");
    }
}
