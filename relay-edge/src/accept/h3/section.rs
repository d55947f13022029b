//! A request's field section as it came, looked over before the h3 crate decodes it.
//!
//! The crate takes the last of two `:path`s, does not mind pseudo-headers behind fields, and knows no `:protocol` of
//! `websocket` (RFC 9220). All of that shows without decoding a value: QPACK's static table and the few names' only
//! spellings say which field line is which. The section goes on with the protocol under a name that the crate knows.
//! What refers to the dynamic table is left to the crate, which refuses it: we offer none.

use bytes::{Bytes, BytesMut};

/// A section that may go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) bytes: Bytes,
    pub(super) protocol: Option<Protocol>,
}

/// What an Extended CONNECT asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    WebSocket,
    Other,
}

/// A section that no request may have (RFC 9114 s.4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("a pseudo-header follows a field")]
    Order,
    #[error("a pseudo-header is there twice")]
    Twice,
    #[error("there is no such pseudo-header in a request")]
    Unknown,
    #[error("a field line is cut off")]
    CutOff,
}

/// A pseudo-header of a request, as a bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pseudo {
    Method = 1,
    Scheme = 2,
    Authority = 4,
    Path = 8,
    Protocol = 16,
}

/// Literal names: as they are, and in Huffman's code, which has one spelling for each (RFC 7541 s.5.2).
const NAMES: [(&[u8], &[u8], Pseudo); 5] = [
    (b":method", b"\xb9\x49\x53\x39\xe4", Pseudo::Method),
    (b":scheme", b"\xb8\x82\x4e\x5a\x4b", Pseudo::Scheme),
    (b":authority", b"\xb8\x3b\x53\x39\xec\x32\x7d\x7f", Pseudo::Authority),
    (b":path", b"\xb9\x58\xd3\x3f", Pseudo::Path),
    (b":protocol", b"\xb9\x5d\x87\x49\xc8\x7a\x3f", Pseudo::Protocol),
];

const WEBSOCKET: (&[u8], &[u8]) = (b"websocket", b"\xf0\x58\xd0\x72\x75\x2a\x7f");

/// A value of `:protocol` that the crate takes: its length, and it.
const STAND_IN: &[u8] = b"\x0bconnect-udp";

/// Looks a section over.
pub(super) fn look_over(bytes: Bytes) -> Result<Section, Malformed> {
    let mut lines = Lines { bytes: &bytes, at: 0 };
    lines.integer(8)?;
    lines.integer(7)?;
    let mut seen = 0;
    let mut fields = false;
    let mut protocol = None;
    while let Some(first) = lines.peek() {
        let name = match first {
            // Indexed: a whole line of the static table.
            0xc0.. => of_static(lines.integer(6)?)?,
            // A value under a name of the static table.
            0x50..=0x5f | 0x70..=0x7f => {
                let name = of_static(lines.integer(4)?)?;
                lines.string(7)?;
                name
            }
            // A literal name.
            0x20..=0x3f => {
                let (name, huffman) = lines.string(3)?;
                let name = of_literal(name, huffman)?;
                let begin = lines.at;
                let (value, huffman) = lines.string(7)?;
                if name == Some(Pseudo::Protocol) {
                    let websocket = if huffman { WEBSOCKET.1 } else { WEBSOCKET.0 };
                    let known = if value == websocket { Protocol::WebSocket } else { Protocol::Other };
                    protocol = Some((known, begin..lines.at));
                }
                name
            }
            // The dynamic table.
            _ => return Ok(Section { bytes, protocol: None }),
        };
        match name {
            None => fields = true,
            Some(_) if fields => return Err(Malformed::Order),
            Some(pseudo) if seen & pseudo as u8 != 0 => return Err(Malformed::Twice),
            Some(pseudo) => seen |= pseudo as u8,
        }
    }
    let Some((protocol, value)) = protocol else { return Ok(Section { bytes, protocol: None }) };
    let mut changed = BytesMut::with_capacity(bytes.len() + STAND_IN.len());
    changed.extend_from_slice(&bytes[..value.start]);
    changed.extend_from_slice(STAND_IN);
    changed.extend_from_slice(&bytes[value.end..]);
    Ok(Section { bytes: changed.freeze(), protocol: Some(protocol) })
}

/// Which lines of the static table are pseudo-headers (RFC 9204 appendix A).
fn of_static(index: u64) -> Result<Option<Pseudo>, Malformed> {
    Ok(Some(match index {
        0 => Pseudo::Authority,
        1 => Pseudo::Path,
        15..=21 => Pseudo::Method,
        22 | 23 => Pseudo::Scheme,
        24..=28 | 63..=71 => return Err(Malformed::Unknown),
        _ => return Ok(None),
    }))
}

fn of_literal(name: &[u8], huffman: bool) -> Result<Option<Pseudo>, Malformed> {
    let begins = name.first().copied().unwrap_or_default();
    // `:` is 1011100 in Huffman's code.
    let is_pseudo = if huffman { begins >> 1 == 0b101_1100 } else { begins == b':' };
    if !is_pseudo {
        return Ok(None);
    }
    let known = NAMES.iter().find(|(plain, coded, _)| name == if huffman { *coded } else { *plain });
    known.map(|(.., pseudo)| Some(*pseudo)).ok_or(Malformed::Unknown)
}

struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8, Malformed> {
        let byte = self.peek().ok_or(Malformed::CutOff)?;
        self.at += 1;
        Ok(byte)
    }

    /// An integer with a prefix of so many bits (RFC 7541 s.5.1).
    fn integer(&mut self, prefix: u32) -> Result<u64, Malformed> {
        let mask = (1_u64 << prefix) - 1;
        let mut value = u64::from(self.next()?) & mask;
        if value < mask {
            return Ok(value);
        }
        // Four more bytes say more than any section is long.
        for shift in [0, 7, 14, 21] {
            let byte = u64::from(self.next()?);
            value += (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed::CutOff)
    }

    /// A string whose length has a prefix of so many bits, and whether it is in Huffman's code: the bit above.
    fn string(&mut self, prefix: u32) -> Result<(&'a [u8], bool), Malformed> {
        let huffman = self.peek().ok_or(Malformed::CutOff)? >> prefix & 1 == 1;
        let length = usize::try_from(self.integer(prefix)?).map_err(|_| Malformed::CutOff)?;
        let end = self.at.checked_add(length).ok_or(Malformed::CutOff)?;
        let text = self.bytes.get(self.at..end).ok_or(Malformed::CutOff)?;
        self.at = end;
        Ok((text, huffman))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GET https, authority `a`, path `/`.
    const GET: &[u8] = b"\x00\x00\xd1\xd7\x50\x01a\xc1";

    fn section(parts: &[&[u8]]) -> Result<Section, Malformed> {
        look_over(parts.concat().into())
    }

    #[test]
    fn a_request_goes_on_as_it_came() {
        for more in [&b""[..], b"\x23foo\x03bar", b"\xff\x00"] {
            let whole = [GET, more].concat();
            let expected = if more == b"\xff\x00" {
                Err(Malformed::Unknown)
            } else {
                Ok(Section { bytes: whole.clone().into(), protocol: None })
            };
            assert_eq!(look_over(whole.into()), expected);
        }
    }

    #[test]
    fn pseudo_headers_come_first_once_and_are_known() {
        assert_eq!(section(&[GET, b"\xc1"]), Err(Malformed::Twice));
        assert_eq!(section(&[GET, b"\x25:path\x01/"]), Err(Malformed::Twice));
        assert_eq!(section(&[GET, b"\x2c\xb9\x58\xd3\x3f\x01/"]), Err(Malformed::Twice));
        assert_eq!(section(&[b"\x00\x00\xd1\xd7\x23foo\x03bar\xc1"]), Err(Malformed::Order));
        assert_eq!(section(&[GET, b"\x25:evil\x01x"]), Err(Malformed::Unknown));
        assert_eq!(section(&[GET, b"\xd9"]), Err(Malformed::Unknown));
    }

    #[test]
    fn an_extended_connect_is_known_in_both_spellings() {
        let connect = b"\x00\x00\xcf\xd7\x50\x01a\xc1";
        for name in [&b"\x27\x02:protocol"[..], b"\x2f\x00\xb9\x5d\x87\x49\xc8\x7a\x3f"] {
            for (value, protocol) in [
                (&b"\x09websocket"[..], Protocol::WebSocket),
                (b"\x87\xf0\x58\xd0\x72\x75\x2a\x7f", Protocol::WebSocket),
                (b"\x03foo", Protocol::Other),
                (b"\x09WebSocket", Protocol::Other),
            ] {
                let section = section(&[connect, name, value]).unwrap();
                assert_eq!(section.protocol, Some(protocol));
                assert_eq!(section.bytes, [connect, name, STAND_IN].concat());
            }
        }
    }

    #[test]
    fn damaged_sections_are_refused_and_never_panic() {
        for end in 0..GET.len() {
            let _ = look_over(Bytes::from_static(&GET[..end]));
        }
        for bytes in [&b""[..], b"\x00", b"\x00\x00\x27\xff\xff\xff\xff\xff\xff", b"\x00\x00\x5f\xff\xff\xff\xff\x7f"] {
            assert_eq!(look_over(Bytes::from_static(bytes)), Err(Malformed::CutOff));
        }
        let dynamic = Bytes::from_static(b"\x02\x00\x80");
        assert_eq!(look_over(dynamic.clone()), Ok(Section { bytes: dynamic, protocol: None }));
    }
}
