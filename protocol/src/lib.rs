//! What the parts of Phlix Hub say to each other.
//!
//! Pure: bytes in, values out. No sockets, no clock (`now` is an argument), no randomness (nonces and ids are
//! arguments), so that every rule here can be tested by moving numbers. Control plane, edge and agent all depend on
//! this crate; it depends on none of them.

mod bucket;
pub mod hostname;
pub mod ids;
pub mod keys;
pub mod legacy;
pub mod native;
pub mod token;
pub mod uplink;
pub mod ws;

/// Base64url without padding (RFC 4648 s.5), the only base64 on our own wires.
pub mod b64 {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    /// Encodes bytes.
    pub fn encode(bytes: impl AsRef<[u8]>) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Decodes text; `None` when it is not base64url without padding.
    pub fn decode(text: &str) -> Option<Vec<u8>> {
        URL_SAFE_NO_PAD.decode(text).ok()
    }

    /// Decodes exactly `N` bytes.
    pub fn decode_array<const N: usize>(text: &str) -> Option<[u8; N]> {
        // Longer text can't be N bytes: refused before anything is allocated for it.
        if text.len() > N.div_ceil(3) * 4 {
            return None;
        }
        decode(text)?.try_into().ok()
    }
}
