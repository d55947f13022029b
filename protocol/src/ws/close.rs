//! Close frames: the code, the reason, and which codes may be on the wire (RFC 6455 s.7.4).

use super::WsError;

/// A close code that may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The purpose is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// The endpoint goes away.
    pub const GOING_AWAY: Self = Self(1001);
    /// A rule of the protocol was broken.
    pub const PROTOCOL: Self = Self(1002);
    /// Data of a kind that the endpoint can't take.
    pub const UNSUPPORTED: Self = Self(1003);
    /// Data that is not what its kind says: text that is not UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// A rule of the application was broken.
    pub const POLICY: Self = Self(1008);
    /// A message that is too big to process.
    pub const TOO_BIG: Self = Self(1009);
    /// Something unexpected at the server.
    pub const INTERNAL: Self = Self(1011);

    /// A code of our own protocols: 4000 to 4999 are private (RFC 6455 s.7.4.2). `None` above 999.
    pub fn private(code: u32) -> Option<Self> {
        u16::try_from(code).ok().filter(|code| *code < 1000).map(|code| Self(4000 + code))
    }

    /// The number within the private range.
    pub fn as_private(self) -> Option<u32> {
        (4000..5000).contains(&self.0).then(|| u32::from(self.0) - 4000)
    }

    /// A code that came over the wire. 1004 to 1006 and 1015 are never sent, 1016 to 2999 are not given out, and what is
    /// below 1000 or above 4999 is no code.
    pub fn from_wire(code: u16) -> Option<Self> {
        matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999).then_some(Self(code))
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

/// What a close frame said; it may say nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    pub code: Option<CloseCode>,
    /// For people. At most 123 bytes.
    pub reason: String,
}

impl Closing {
    /// The code to answer with: the peer's own (RFC 6455 s.5.5.1).
    pub fn reply(&self) -> Option<CloseCode> {
        self.code
    }

    pub(super) fn parse(payload: &[u8]) -> Result<Self, WsError> {
        let Some((code, reason)) = payload.split_first_chunk::<2>() else {
            return if payload.is_empty() {
                Ok(Self { code: None, reason: String::new() })
            } else {
                Err(WsError::ShortClose)
            };
        };
        let number = u16::from_be_bytes(*code);
        let code = CloseCode::from_wire(number).ok_or(WsError::BadCloseCode(number))?;
        let reason = std::str::from_utf8(reason).map_err(|_| WsError::NotUtf8)?;
        Ok(Self { code: Some(code), reason: reason.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_may_not_be_on_the_wire_are_refused() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert_eq!(CloseCode::from_wire(code), None, "{code}");
        }
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
            assert_eq!(CloseCode::from_wire(code).map(CloseCode::get), Some(code));
        }
    }

    #[test]
    fn our_own_codes_are_in_the_private_range() {
        assert_eq!(CloseCode::private(7).map(CloseCode::get), Some(4007));
        assert_eq!(CloseCode::private(7).and_then(CloseCode::as_private), Some(7));
        assert_eq!(CloseCode::private(1000), None);
        assert_eq!(CloseCode::NORMAL.as_private(), None);
    }

    #[test]
    fn a_close_payload_is_nothing_or_a_code_and_text() {
        assert_eq!(Closing::parse(b""), Ok(Closing { code: None, reason: String::new() }));
        assert_eq!(Closing::parse(b"\x03"), Err(WsError::ShortClose));
        assert_eq!(Closing::parse(b"\x03\xe8bye").map(|c| c.reason), Ok("bye".to_owned()));
        assert_eq!(Closing::parse(b"\x03\xe8\xff"), Err(WsError::NotUtf8));
        assert_eq!(Closing::parse(b"\x03\xed"), Err(WsError::BadCloseCode(1005)));
    }
}
