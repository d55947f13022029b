//! Chance: bytes from the operating system's generator, and the ids made of them.

use aws_lc_rs::rand;
use uuid::Uuid;

/// `N` random bytes.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The generator seeds itself from the kernel and fails only where the kernel has no randomness at all; going on without
    // would hand out guessable secrets.
    rand::fill(&mut bytes).expect("the operating system has randomness");
    bytes
}

/// A fresh id (UUID, version 4).
pub(crate) fn uuid() -> Uuid {
    uuid::Builder::from_random_bytes(bytes()).into_uuid()
}
