//! The nouns and what may be decided without asking anybody: no async, no I/O, no clock of its own.

pub(crate) mod time;
