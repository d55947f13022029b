//! Requests and answers in frames (legacy-relay-wire s.2.2, s.2.3).
//!
//! A header's value is one string, and a header's name stands once: what HTTP can say and this can't is joined or left
//! out, and counted.

mod request;
mod response;

pub use request::{EncodedHead, MAX_REQUEST_BODY, RequestError, RequestHead};
pub use response::{HeadError, ResponseHead};

/// First byte of a chunk's payload: what follows is the head, JSON.
pub const HEAD: u8 = 1;
/// What follows are bytes of the body.
pub const BODY: u8 = 2;
/// Nothing follows: all was said.
pub const END: u8 = 3;

/// Most bytes of a body in one frame, which also has a tag.
pub const MAX_BODY: usize = super::frame::MAX_PAYLOAD - 1;

/// Header fields of one head, either way.
pub const MAX_FIELDS: usize = 256;

/// Whether a header can have this name (RFC 9110 s.5.1).
fn is_name(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(token)
}

/// Whether a header can have this value (RFC 9110 s.5.5).
fn is_value(value: &str) -> bool {
    value.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
}
