//! Choices out of bytes.

/// What is left of the fuzzer's bytes. Out of bytes, every choice is 0.
#[derive(Debug, Clone)]
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// From 1 to about 256 Ki, small numbers more often.
    pub(crate) fn amount(&mut self) -> usize {
        let byte = usize::from(self.byte());
        1 + ((byte & 0xf) << ((byte >> 4) & 0xe))
    }

    /// A length and so many bytes.
    pub(crate) fn some(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (some, rest) = self.0.split_at(length);
        self.0 = rest;
        some
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}
