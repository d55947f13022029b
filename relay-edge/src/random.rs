//! Randomness, from the one crypto library.

/// Fills an array.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    aws_lc_rs::rand::fill(&mut out).expect("the operating system has randomness");
    out
}

/// One byte.
pub(crate) fn byte() -> u8 {
    bytes::<1>()[0]
}

/// A version 4 UUID.
pub(crate) fn uuid() -> uuid::Uuid {
    uuid::Builder::from_random_bytes(bytes()).into_uuid()
}
