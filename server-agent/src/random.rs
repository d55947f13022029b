//! Randomness, from one place.

use uuid::Uuid;

/// Bytes that nobody can foresee.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's random number generator never runs dry");
    bytes
}

/// An id (version 4).
pub(crate) fn uuid() -> Uuid {
    uuid::Builder::from_random_bytes(bytes()).into_uuid()
}

/// A number from 0 up to and without 1.
pub(crate) fn fraction() -> f64 {
    // 53 bits: what an f64 holds exactly.
    (u64::from_be_bytes(bytes()) >> 11) as f64 / (1u64 << 53) as f64
}
