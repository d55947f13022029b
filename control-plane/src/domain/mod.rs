//! The nouns and what may be decided without asking anybody: no async, no I/O, no clock of its own.

pub(crate) mod key;
pub(crate) mod time;
