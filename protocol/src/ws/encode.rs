//! Frames into a buffer. A client gives a fresh, unpredictable key for each frame; a server gives none.

use bytes::{BufMut, BytesMut};

use super::mask::mask;
use super::{CloseCode, MAX_CONTROL, Opcode};

/// Longest header: two bytes, eight of length, four of key.
pub const MAX_HEADER: usize = 14;

/// So many bytes are copied and then masked, before the next: they are still in the first cache.
const STEP: usize = 4 * 1024;

/// Writes a frame's header. `key` is the masking key, which the payload must be masked with.
pub fn header(out: &mut BytesMut, fin: bool, opcode: Opcode, length: usize, key: Option<[u8; 4]>) {
    let masked = if key.is_some() { 0x80 } else { 0 };
    out.put_u8((u8::from(fin) << 7) | opcode as u8);
    match length {
        0..=125 => out.put_u8(masked | length as u8),
        126..=0xffff => {
            out.put_u8(masked | 126);
            out.put_u16(length as u16);
        }
        _ => {
            out.put_u8(masked | 127);
            out.put_u64(length as u64);
        }
    }
    if let Some(key) = key {
        out.put_slice(&key);
    }
}

/// Writes a whole frame.
pub fn frame(out: &mut BytesMut, fin: bool, opcode: Opcode, payload: &[u8], key: Option<[u8; 4]>) {
    pieces(out, fin, opcode, payload.len(), [payload], key);
}

/// Writes a whole frame whose payload lies in pieces, `length` bytes in all: each is copied once and masked while it is
/// in the cache.
pub fn pieces<'a>(
    out: &mut BytesMut,
    fin: bool,
    opcode: Opcode,
    length: usize,
    payload: impl IntoIterator<Item = &'a [u8]>,
    key: Option<[u8; 4]>,
) {
    out.reserve(MAX_HEADER + length);
    header(out, fin, opcode, length, key);
    let start = out.len();
    for piece in payload {
        for step in piece.chunks(STEP) {
            let at = out.len();
            out.extend_from_slice(step);
            if let Some(key) = key {
                mask(&mut out[at..], key, (at - start) as u64);
            }
        }
    }
    debug_assert_eq!(out.len() - start, length, "the pieces are as long as was said");
}

/// Writes a ping or pong; what is over 125 bytes is cut off.
pub fn control(out: &mut BytesMut, opcode: Opcode, payload: &[u8], key: Option<[u8; 4]>) {
    frame(out, true, opcode, &payload[..payload.len().min(MAX_CONTROL)], key);
}

/// Writes a close frame; a reason is cut at 123 bytes, between characters.
pub fn close(out: &mut BytesMut, code: Option<CloseCode>, reason: &str, key: Option<[u8; 4]>) {
    let Some(code) = code else { return frame(out, true, Opcode::Close, b"", key) };
    let mut end = reason.len().min(MAX_CONTROL - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let number = code.get().to_be_bytes();
    pieces(out, true, Opcode::Close, 2 + end, [&number[..], &reason.as_bytes()[..end]], key);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(payload: &[u8], key: Option<[u8; 4]>) -> BytesMut {
        let mut out = BytesMut::new();
        frame(&mut out, true, Opcode::Binary, payload, key);
        out
    }

    #[test]
    fn lengths_take_their_shortest_form() {
        assert_eq!(written(&[0; 125], None)[..2], [0x82, 125]);
        assert_eq!(written(&[0; 126], None)[..4], [0x82, 126, 0, 126]);
        assert_eq!(written(&[0; 65_535], None)[..4], [0x82, 126, 0xff, 0xff]);
        assert_eq!(written(&[0; 65_536], None)[..10], [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    /// The examples of RFC 6455 s.5.7.
    #[test]
    fn the_examples_of_the_rfc() {
        let mut out = BytesMut::new();
        frame(&mut out, true, Opcode::Text, b"Hello", None);
        assert_eq!(&out[..], b"\x81\x05Hello");
        out.clear();
        frame(&mut out, true, Opcode::Text, b"Hello", Some([0x37, 0xfa, 0x21, 0x3d]));
        assert_eq!(&out[..], b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
        out.clear();
        frame(&mut out, false, Opcode::Text, b"Hel", None);
        frame(&mut out, true, Opcode::Continuation, b"lo", None);
        assert_eq!(&out[..], b"\x01\x03Hel\x80\x02lo");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let mut out = BytesMut::new();
        close(&mut out, Some(CloseCode::NORMAL), &"ü".repeat(100), None);
        assert_eq!(out.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&out[4..]).is_ok());
    }
}
