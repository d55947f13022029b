//! UTF-8 in pieces: says no at the first byte that can't belong to a text, wherever the pieces were cut.

/// Checks one text.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Utf8 {
    /// The start of a character whose end has not come yet.
    held: [u8; 4],
    len: u8,
}

impl Utf8 {
    /// Takes the next piece; `false` when no text starts so.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> bool {
        while self.len > 0 {
            let Some((first, rest)) = bytes.split_first() else { return true };
            self.held[usize::from(self.len)] = *first;
            self.len += 1;
            bytes = rest;
            match std::str::from_utf8(&self.held[..usize::from(self.len)]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_some() => return false,
                // Four bytes are either a character or an error, so `held` can't overflow.
                Err(_) => {}
            }
        }
        match std::str::from_utf8(bytes) {
            Ok(_) => true,
            Err(error) if error.error_len().is_some() => false,
            Err(error) => {
                let tail = &bytes[error.valid_up_to()..];
                self.held[..tail.len()].copy_from_slice(tail);
                self.len = tail.len() as u8;
                true
            }
        }
    }

    /// Whether the text may end here. Ready for the next one.
    pub(super) fn end(&mut self) -> bool {
        std::mem::take(&mut self.len) == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(pieces: &[&[u8]]) -> bool {
        let mut utf8 = Utf8::default();
        pieces.iter().all(|piece| utf8.push(piece)) && utf8.end()
    }

    #[test]
    fn the_first_impossible_byte_is_refused_at_once() {
        let mut utf8 = Utf8::default();
        assert!(utf8.push(b"\xce\xba\xe1"));
        assert!(!utf8.push(b"\xff"));
        // A surrogate is known by its second byte, a character above U+10FFFF too.
        assert!(!Utf8::default().push(b"\xed\xa0"));
        assert!(!Utf8::default().push(b"\xf4\x90"));
        let mut utf8 = Utf8::default();
        assert!(utf8.push(b"\xf4"));
        assert!(!utf8.push(b"\x90"));
    }

    #[test]
    fn a_text_may_not_end_within_a_character() {
        assert!(!check(&[b"\xe2\x82"]));
        assert!(check(&[b"\xe2\x82", b"\xac"]));
    }

    proptest! {
        #[test]
        fn pieces_are_judged_as_the_whole(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), 0x80..0xc0u8, Just(0xe2), Just(0xf0)], 0..12), cut in 0..12usize, text in "\\PC{0,8}", cut2 in 0..40usize) {
            let cut = cut.min(bytes.len());
            prop_assert_eq!(check(&[&bytes[..cut], &bytes[cut..]]), std::str::from_utf8(&bytes).is_ok());
            let cut2 = cut2.min(text.len());
            prop_assert!(check(&[&text.as_bytes()[..cut2], &text.as_bytes()[cut2..]]));
        }
    }
}
