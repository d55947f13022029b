//! Masking (RFC 6455 s.5.3): the payload's byte `i` is XORed with the key's byte `i % 4`.

/// Masks or unmasks in place. `offset` is where in the frame's payload these bytes start.
pub fn mask(bytes: &mut [u8], key: [u8; 4], offset: u64) {
    let key = turned(key, offset);
    if key == [0; 4] {
        return;
    }
    // 16 bytes a step: a whole number of keys, so each step starts with the key's first byte.
    let wide = u128::from_ne_bytes(std::array::from_fn(|i| key[i % 4]));
    let mut steps = bytes.chunks_exact_mut(16);
    for step in &mut steps {
        let word = u128::from_ne_bytes((&*step).try_into().expect("steps are 16 bytes")) ^ wide;
        step.copy_from_slice(&word.to_ne_bytes());
    }
    for (i, byte) in steps.into_remainder().iter_mut().enumerate() {
        *byte ^= key[i % 4];
    }
}

/// The key as it stands `offset` bytes into the payload.
fn turned(mut key: [u8; 4], offset: u64) -> [u8; 4] {
    key.rotate_left((offset % 4) as usize);
    key
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn masking_in_parts_is_masking_by_the_byte(bytes in proptest::collection::vec(any::<u8>(), 0..200), key: [u8; 4], cut in 0..200usize) {
            let wanted: Vec<u8> = bytes.iter().enumerate().map(|(i, b)| b ^ key[i % 4]).collect();
            let cut = cut.min(bytes.len());
            let mut got = bytes;
            let (a, b) = got.split_at_mut(cut);
            mask(a, key, 0);
            mask(b, key, cut as u64);
            prop_assert_eq!(got, wanted);
        }
    }
}
