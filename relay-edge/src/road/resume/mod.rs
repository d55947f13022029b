//! When a tunnel dies under an exchange: the same question on another tunnel, and the rest of an answer by `Range`.
//!
//! `again` asks once more, `rules` decides whether an answer may go on from another one, `body` is what the viewer reads
//! meanwhile.
//= trust s.10

mod again;
mod body;
mod rules;

pub(crate) use self::again::{Exchange, Means};
pub(crate) use self::body::Lasting;
