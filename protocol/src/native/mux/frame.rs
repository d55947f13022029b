//! The multiplexer's frames (native-tunnel s.4):
//! `u32` stream id · `u8` type · `u8` flags · `u16` length · payload, big-endian.

use super::Violation;

/// Bytes of a frame's header.
pub const HEADER: usize = 8;

/// Longest payload: a frame and its headers fit a TLS record of 16 KiB.
pub const MAX_PAYLOAD: usize = 16 * 1024 - 32;

/// What a frame is. All type numbers that were ever given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameType {
    /// Bytes of the control channel; stream 0.
    Control = 0,
    /// A stream begins. The payload is its first bytes: the header of native-tunnel s.3.
    Open = 1,
    /// Bytes of a stream; [`FIN`] = end of this direction.
    Data = 2,
    /// `u32`: so many more bytes may be sent on this stream.
    Credit = 3,
    /// `u16` code; [`ABORT`], [`STOP`], neither = both.
    Reset = 4,
    /// 8 bytes to send back; stream 0.
    Ping = 5,
    /// The 8 bytes of a PING; stream 0.
    Pong = 6,
    /// `u64`: bytes of all payloads of OPEN and DATA that came so far; stream 0. Comes with every PONG, and with the first
    /// data after half a second without one, so that a sender sees its data arrive also where a PING is stuck behind it.
    Ack = 7,
}

/// Types from here on are passed over by who does not know them; lower unknown ones close the tunnel.
pub const FIRST_IGNORED: u8 = 128;

/// Flag of DATA: this direction ends with the payload.
pub const FIN: u8 = 1;

/// Flag of RESET: I send no more on this stream, and what you have not read is void.
pub const ABORT: u8 = 1;

/// Flag of RESET: I read no more on this stream.
pub const STOP: u8 = 2;

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub stream: u32,
    /// `None` for a type that is passed over.
    pub kind: Option<FrameType>,
    pub flags: u8,
    /// Bytes of payload that follow.
    pub length: usize,
}

impl Header {
    /// Reads a header and checks its length against its type.
    pub fn decode(bytes: [u8; HEADER]) -> Result<Self, Violation> {
        let [a, b, c, d, kind, flags, e, f] = bytes;
        let length = usize::from(u16::from_be_bytes([e, f]));
        let kind = match kind {
            0 => Some(FrameType::Control),
            1 => Some(FrameType::Open),
            2 => Some(FrameType::Data),
            3 => Some(FrameType::Credit),
            4 => Some(FrameType::Reset),
            5 => Some(FrameType::Ping),
            6 => Some(FrameType::Pong),
            7 => Some(FrameType::Ack),
            FIRST_IGNORED.. => None,
            _ => return Err(Violation::UnknownType),
        };
        let fits = match kind {
            Some(FrameType::Credit) => length == 4,
            Some(FrameType::Reset) => length == 2,
            Some(FrameType::Ping | FrameType::Pong | FrameType::Ack) => length == 8,
            _ => length <= MAX_PAYLOAD,
        };
        if fits {
            Ok(Self { stream: u32::from_be_bytes([a, b, c, d]), kind, flags, length })
        } else {
            Err(Violation::BadLength)
        }
    }

    /// Writes a header.
    pub fn encode(stream: u32, kind: FrameType, flags: u8, length: usize) -> [u8; HEADER] {
        let [a, b, c, d] = stream.to_be_bytes();
        let [e, f] = u16::try_from(length).expect("payloads are at most MAX_PAYLOAD").to_be_bytes();
        [a, b, c, d, kind as u8, flags, e, f]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_looks_as_the_page_says() {
        let wire = Header::encode(0x0102_0304, FrameType::Data, FIN, 0x1234);
        assert_eq!(wire, [1, 2, 3, 4, 2, 1, 0x12, 0x34]);
        let header = Header { stream: 0x0102_0304, kind: Some(FrameType::Data), flags: FIN, length: 0x1234 };
        assert_eq!(Header::decode(wire), Ok(header));
    }

    #[test]
    fn lengths_are_those_of_the_type() {
        for (kind, length, fits) in
            [(3, 4, true), (3, 5, false), (4, 1, false), (4, 2, true), (5, 8, true), (6, 7, false), (7, 8, true)]
        {
            assert_eq!(Header::decode([0, 0, 0, 2, kind, 0, 0, length]).is_ok(), fits, "{kind} {length}");
        }
        let [high, low] = (MAX_PAYLOAD as u16).to_be_bytes();
        assert!(Header::decode([0, 0, 0, 2, 2, 0, high, low]).is_ok());
        assert_eq!(Header::decode([0, 0, 0, 2, 2, 0, high, low + 1]), Err(Violation::BadLength));
        assert_eq!(Header::decode([0, 0, 0, 2, 8, 0, 0, 0]), Err(Violation::UnknownType));
        assert_eq!(Header::decode([0, 0, 0, 2, 128, 0, 0, 0]).map(|header| header.kind), Ok(None));
    }
}
