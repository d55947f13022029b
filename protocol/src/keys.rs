//! Ed25519 keys (RFC 8032) as every part uses them: JWK outside (RFC 8037), key id by hash, strict verification.

use std::fmt;

use ed25519_dalek::Signer as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::b64;

/// A public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(ed25519_dalek::VerifyingKey);

/// The bytes or the JWK are no usable Ed25519 public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 public key (kty OKP, crv Ed25519, x of 32 bytes)")]
pub struct InvalidKey;

impl PublicKey {
    /// Takes 32 bytes; points off the curve and of small order are refused.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, InvalidKey> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| InvalidKey)?;
        if key.is_weak() { Err(InvalidKey) } else { Ok(Self(key)) }
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The key's id: base64url of SHA-256 over the 32 bytes (upstream-api s.2.2).
    pub fn kid(&self) -> String {
        b64::encode(Sha256::digest(self.as_bytes()))
    }

    /// Whether `signature` (64 bytes) is this key's over `message`; strict, so that it can't be malleated.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let Ok(signature) = ed25519_dalek::Signature::from_slice(signature) else { return false };
        self.0.verify_strict(message, &signature).is_ok()
    }

    /// The key as JWK, without metadata.
    pub fn jwk(&self) -> Jwk {
        Jwk { kty: "OKP".into(), crv: "Ed25519".into(), x: b64::encode(self.as_bytes()), ..Jwk::default() }
    }

    /// The key as it stands in a JWKS: with `kid`, `use` and `alg`.
    pub fn published_jwk(&self) -> Jwk {
        Jwk { kid: Some(self.kid()), usage: Some("sig".into()), alg: Some("EdDSA".into()), ..self.jwk() }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.kid())
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.jwk().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Jwk::deserialize(deserializer)?.public_key().map_err(serde::de::Error::custom)
    }
}

/// A public key in JSON (RFC 7517, RFC 8037). Unknown members are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    pub kty: String,
    pub crv: String,
    pub x: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub usage: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
}

impl Jwk {
    /// The key, where this is an Ed25519 one.
    pub fn public_key(&self) -> Result<PublicKey, InvalidKey> {
        if self.kty != "OKP" || self.crv != "Ed25519" {
            return Err(InvalidKey);
        }
        PublicKey::from_bytes(&b64::decode_array(&self.x).ok_or(InvalidKey)?)
    }
}

/// A set of public keys in JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwks {
    pub keys: Vec<Jwk>,
}

impl Jwks {
    /// The usable keys; what is not Ed25519 is passed over, as RFC 7517 s.5 asks.
    pub fn key_set(&self) -> KeySet {
        KeySet::new(self.keys.iter().filter_map(|jwk| jwk.public_key().ok()))
    }
}

/// Public keys by key id.
#[derive(Debug, Clone, Default)]
pub struct KeySet(Vec<(String, PublicKey)>);

impl KeySet {
    /// Makes a set; each key's id is computed, never taken on somebody's word.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        Self(keys.into_iter().map(|key| (key.kid(), key)).collect())
    }

    /// The key with this id.
    pub fn get(&self, kid: &str) -> Option<&PublicKey> {
        self.0.iter().find(|(id, _)| id == kid).map(|(_, key)| key)
    }

    /// Whether there is no key at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All keys.
    pub fn iter(&self) -> impl Iterator<Item = &PublicKey> {
        self.0.iter().map(|(_, key)| key)
    }
}

/// A private key. Its `Debug` shows the key id alone.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// Makes the key of a 32-byte seed (RFC 8032 s.5.1.5); the caller brings the randomness.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The seed, to be sealed or written to a file of mode 0600 and nothing else.
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// The id of the public half.
    pub fn kid(&self) -> String {
        self.public().kid()
    }

    /// Signs bytes.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// PKCS#8 v1 (RFC 5958): the only form that the JWT library takes.
    pub(crate) fn pkcs8(&self) -> [u8; 48] {
        const PREFIX: [u8; 16] =
            [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
        let mut der = [0; 48];
        der[..16].copy_from_slice(&PREFIX);
        der[16..].copy_from_slice(&self.seed());
        der
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.kid())
    }
}

/// Joins items so that no two lists give the same bytes: each is preceded by its length as `u32`, big-endian.
//= trust s.3
pub fn length_prefixed(items: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(items.iter().map(|item| 4 + item.len()).sum());
    for item in items {
        let length = u32::try_from(item.len()).expect("signed items are bounded far below 4 GiB by their decoders");
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(item);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jwk_round_trips_and_ignores_what_it_does_not_know() {
        let key = SigningKey::from_seed(&[7; 32]).public();
        let json =
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}","d":"x","foo":[1]}}"#, b64::encode(key.as_bytes()));
        assert_eq!(serde_json::from_str::<PublicKey>(&json).expect("a JWK"), key);
        assert_eq!(serde_json::to_value(key).expect("serializes")["kty"], "OKP");
    }

    #[test]
    fn keys_of_another_kind_or_of_small_order_are_refused() {
        let good = SigningKey::from_seed(&[7; 32]).public().jwk();
        assert!(Jwk { kty: "EC".into(), ..good.clone() }.public_key().is_err());
        assert!(Jwk { crv: "X25519".into(), ..good.clone() }.public_key().is_err());
        assert!(Jwk { x: b64::encode([1; 31]), ..good.clone() }.public_key().is_err());
        let mut identity = [0; 32];
        identity[0] = 1;
        assert!(Jwk { x: b64::encode(identity), ..good }.public_key().is_err());
    }

    #[test]
    fn length_prefixes_keep_items_apart() {
        assert_ne!(length_prefixed(&[b"ab", b"c"]), length_prefixed(&[b"a", b"bc"]));
        assert_eq!(length_prefixed(&[b"ab"]), [0, 0, 0, 2, b'a', b'b']);
    }

    #[test]
    fn debug_of_a_private_key_shows_no_secret() {
        let key = SigningKey::from_seed(&[0x41; 32]);
        assert_eq!(format!("{key:?}"), format!("SigningKey({})", key.kid()));
    }
}
