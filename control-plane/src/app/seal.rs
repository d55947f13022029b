//! Secrets that must be readable again, sealed under the seal key: AES-256-GCM, a derived key per purpose, and where the value
//! lives as associated data, so that a sealed value can't be moved to another row, column or table (trust s.9.3).

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use phlix_protocol::keys::length_prefixed;
use thiserror::Error;

use crate::config::SealKey;
use crate::random;

/// First byte of every sealed value.
const VERSION: u8 = 1;

/// Where a sealed value lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) table: &'static str,
    pub(crate) row: &'a str,
    pub(crate) column: &'static str,
}

/// A sealed value can't be opened.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a sealed value can't be opened: it was sealed under another key, for another place, or was damaged")]
pub(crate) struct Unsealable;

/// Seals and opens. Its `Debug` shows the key's id alone.
#[derive(Clone)]
pub(crate) struct Sealer {
    root: Prk,
    id: String,
}

impl Sealer {
    pub(crate) fn new(key: &SealKey) -> Self {
        let root = Salt::new(HKDF_SHA256, b"phlix-seal/1").extract(key.bytes());
        // The id tells keys apart and says nothing about them.
        let id = crate::hex(&derive::<8>(&root, "key id"));
        Self { root, id }
    }

    /// Names the seal key in the rows that it sealed.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Seals `plain` for its place.
    pub(crate) fn seal(&self, place: Place<'_>, plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = random::bytes();
        let mut body = plain.to_vec();
        self.key(place)
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(self.aad(place)), &mut body)
            .expect("AES-GCM refuses only values of 64 GiB and more");
        [&[VERSION], &nonce[..], &body].concat()
    }

    /// Opens what [`Sealer::seal`] made for the same place.
    pub(crate) fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Vec<u8>, Unsealable> {
        let (version, rest) = sealed.split_first().ok_or(Unsealable)?;
        let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or(Unsealable)?;
        if *version != VERSION {
            return Err(Unsealable);
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unsealable)?;
        let mut body = body.to_vec();
        let plain = self.key(place).open_in_place(nonce, Aad::from(self.aad(place)), &mut body);
        plain.map(|plain| plain.to_vec()).map_err(|_| Unsealable)
    }

    /// A key of 32 bytes for a purpose that seals nothing, such as a keyed hash.
    pub(crate) fn subkey(&self, purpose: &'static str) -> [u8; 32] {
        derive(&self.root, purpose)
    }

    /// The purpose is the table: what is kept there has one meaning.
    fn key(&self, place: Place<'_>) -> LessSafeKey {
        let bytes: [u8; 32] = derive(&self.root, place.table);
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).expect("a key of AES-256 has 32 bytes"))
    }

    fn aad(&self, place: Place<'_>) -> Vec<u8> {
        length_prefixed(&[self.id.as_bytes(), place.table.as_bytes(), place.row.as_bytes(), place.column.as_bytes()])
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({})", self.id)
    }
}

fn derive<const N: usize>(root: &Prk, purpose: &str) -> [u8; N] {
    struct Length(usize);
    impl aws_lc_rs::hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut out = [0; N];
    root.expand(&[b"phlix-seal/1 ", purpose.as_bytes()], Length(N))
        .and_then(|okm| okm.fill(&mut out))
        .expect("HKDF-SHA256 gives up to 8160 bytes");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'static> = Place { table: "signing_keys", row: "a", column: "sealed_seed" };

    #[test]
    fn a_sealed_value_opens_only_in_its_place_and_under_its_key() {
        let sealer = Sealer::new(&SealKey::new([1; 32]));
        let sealed = sealer.seal(PLACE, b"secret");

        assert_eq!(sealer.open(PLACE, &sealed).unwrap(), b"secret");
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_ne!(sealed, sealer.seal(PLACE, b"secret"), "each time another nonce");
        for elsewhere in
            [Place { row: "b", ..PLACE }, Place { column: "other", ..PLACE }, Place { table: "webhooks", ..PLACE }]
        {
            assert_eq!(sealer.open(elsewhere, &sealed), Err(Unsealable), "{elsewhere:?}");
        }
        let other = Sealer::new(&SealKey::new([2; 32]));
        assert_ne!(other.id(), sealer.id());
        assert_eq!(other.open(PLACE, &sealed), Err(Unsealable));
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let sealer = Sealer::new(&SealKey::new([1; 32]));
        let sealed = sealer.seal(PLACE, b"secret");
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert_eq!(sealer.open(PLACE, &damaged), Err(Unsealable), "byte {at}");
            assert_eq!(sealer.open(PLACE, &sealed[..at]), Err(Unsealable), "cut at {at}");
        }
    }
}
