//! Relay frames (legacy-relay-wire s.2): `u32` id, `u8` type, `u16` length, all big-endian, then the payload. A frame may
//! be split over WebSocket messages, and a message may hold several.

use bytes::{Buf, Bytes};

/// Bytes of a frame's header.
pub const HEADER: usize = 7;

/// Longest payload.
pub const MAX_PAYLOAD: usize = 65_535;

/// What a frame is. 01 and 02 (HELLO, HELLO_ACK) were never frames, 09 to 0F are retired: a server's decoder waits for
/// ever at a type that it does not know, so neither is ever sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Hub to server: a raw channel begins. JSON, see [`channel`](super::channel).
    ClientConnect = 0x03,
    /// Hub to server: a raw channel's client left. JSON.
    ClientDisconnect = 0x04,
    /// Bytes of a raw channel.
    Data = 0x05,
    /// Liveness, both ways; id 0, no payload. Never echoed by a hub.
    Heartbeat = 0x06,
    /// Hub to a raw client: its tunnel is gone. JSON.
    Disconnected = 0x07,
    /// Hub to anyone: what was wrong. JSON.
    Error = 0x08,
    /// Hub to server: an envelope or a tagged chunk, see [`http`](super::http).
    HttpRequest = 0x10,
    /// Server to hub: a tagged chunk.
    HttpResponse = 0x11,
    /// Hub to server: nobody waits any more. Server to hub: after each response.
    HttpCancel = 0x12,
}

impl Kind {
    fn from_wire(byte: u8) -> Result<Self, UnknownType> {
        Ok(match byte {
            0x03 => Self::ClientConnect,
            0x04 => Self::ClientDisconnect,
            0x05 => Self::Data,
            0x06 => Self::Heartbeat,
            0x07 => Self::Disconnected,
            0x08 => Self::Error,
            0x10 => Self::HttpRequest,
            0x11 => Self::HttpResponse,
            0x12 => Self::HttpCancel,
            _ => return Err(UnknownType(byte)),
        })
    }
}

/// The type byte of no frame: what follows can't be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("frame type {0:#04x} is not in use")]
pub struct UnknownType(pub u8);

/// Writes a frame's header; `length` bytes of payload must follow.
pub fn header(id: u32, kind: Kind, length: u16) -> [u8; HEADER] {
    let [a, b, c, d] = id.to_be_bytes();
    let [e, f] = length.to_be_bytes();
    [a, b, c, d, kind as u8, e, f]
}

/// The next part of a frame: as much of its payload as is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// A channel's or a request's.
    pub id: u32,
    pub kind: Kind,
    /// The whole frame's payload, bytes.
    pub length: u16,
    /// No piece of this frame came before.
    pub first: bool,
    /// The frame is whole.
    pub last: bool,
    /// Empty only where the frame has no payload.
    pub bytes: Bytes,
}

/// Turns the payloads of WebSocket messages, cut anywhere, into pieces of frames. Keeps at most a header; payloads are
/// slices of the input.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: [u8; HEADER],
    held: usize,
    frame: Option<Frame>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    id: u32,
    kind: Kind,
    length: u16,
    taken: u16,
}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// The next piece; `None` when more bytes are needed. Takes all that it has understood off the front of `input`.
    /// After an error it must not be asked again.
    pub fn decode(&mut self, input: &mut Bytes) -> Result<Option<Piece>, UnknownType> {
        let frame = match self.frame {
            Some(frame) => frame,
            None => {
                let Some(frame) = self.header(input)? else { return Ok(None) };
                frame
            }
        };
        let length = usize::from(frame.length - frame.taken).min(input.len());
        if length == 0 && frame.length > 0 {
            self.frame = Some(frame);
            return Ok(None);
        }
        let taken = frame.taken + length as u16;
        let last = taken == frame.length;
        self.frame = (!last).then_some(Frame { taken, ..frame });
        let Frame { id, kind, length: whole, taken: before } = frame;
        Ok(Some(Piece { id, kind, length: whole, first: before == 0, last, bytes: input.split_to(length) }))
    }

    /// Whether a frame is under way: the end of the connection here cuts it off.
    pub fn within_frame(&self) -> bool {
        self.held > 0 || self.frame.is_some()
    }

    fn header(&mut self, input: &mut Bytes) -> Result<Option<Frame>, UnknownType> {
        let head = match input.first_chunk::<HEADER>() {
            Some(head) if self.held == 0 => {
                let head = *head;
                input.advance(HEADER);
                head
            }
            _ => {
                let more = (HEADER - self.held).min(input.len());
                self.partial[self.held..self.held + more].copy_from_slice(&input[..more]);
                self.held += more;
                input.advance(more);
                if self.held < HEADER {
                    // The type is told as soon as it is there.
                    return if self.held > 4 { Kind::from_wire(self.partial[4]).map(|_| None) } else { Ok(None) };
                }
                self.held = 0;
                self.partial
            }
        };
        let [a, b, c, d, kind, e, f] = head;
        let kind = Kind::from_wire(kind)?;
        Ok(Some(Frame { id: u32::from_be_bytes([a, b, c, d]), kind, length: u16::from_be_bytes([e, f]), taken: 0 }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whole frames out of bytes that come `step` at a time.
    fn frames(wire: &[u8], step: usize) -> Result<Vec<(u32, Kind, Vec<u8>)>, UnknownType> {
        let mut decoder = Decoder::new();
        let (mut all, mut payload) = (Vec::new(), Vec::new());
        for some in wire.chunks(step.max(1)) {
            let mut input = Bytes::copy_from_slice(some);
            while let Some(piece) = decoder.decode(&mut input)? {
                assert_eq!(piece.first, payload.is_empty());
                assert_eq!(piece.bytes.is_empty(), piece.length == 0);
                payload.extend_from_slice(&piece.bytes);
                assert_eq!(piece.last, payload.len() == usize::from(piece.length));
                if piece.last {
                    all.push((piece.id, piece.kind, std::mem::take(&mut payload)));
                }
            }
            assert!(input.is_empty());
        }
        assert!(payload.is_empty() || decoder.within_frame());
        Ok(all)
    }

    #[test]
    fn payloads_are_slices_of_the_input() {
        let mut wire = header(1, Kind::Data, 3).to_vec();
        wire.extend_from_slice(b"abc");
        let mut input = Bytes::from(wire);
        let at = input[HEADER..].as_ptr();
        let piece = Decoder::new().decode(&mut input).expect("known").expect("whole");
        assert_eq!((piece.bytes.as_ptr(), &piece.bytes[..]), (at, &b"abc"[..]));
    }

    #[test]
    fn retired_and_unknown_types_are_refused_at_their_fifth_byte() {
        for kind in 0..=u8::MAX {
            let known = matches!(kind, 3..=8 | 0x10..=0x12);
            let mut input = Bytes::copy_from_slice(&[0, 0, 0, 1, kind]);
            assert_eq!(Decoder::new().decode(&mut input), if known { Ok(None) } else { Err(UnknownType(kind)) });
        }
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_frames(
            sizes in prop::collection::vec((any::<u32>(), 0_usize..400, 0_u8..9), 0..8),
            step in 1_usize..600,
        ) {
            let mut wire = Vec::new();
            for (id, size, kind) in &sizes {
                let kind = Kind::from_wire([3, 4, 5, 6, 7, 8, 0x10, 0x11, 0x12][usize::from(*kind)]).expect("known");
                wire.extend_from_slice(&header(*id, kind, *size as u16));
                wire.extend(std::iter::repeat_n(*id as u8, *size));
            }
            let whole = frames(&wire, wire.len());
            prop_assert_eq!(whole.as_ref().map(Vec::len), Ok(sizes.len()));
            prop_assert_eq!(frames(&wire, step), whole);
        }

        #[test]
        fn any_bytes_are_borne(wire in prop::collection::vec(any::<u8>(), 0..2000), step in 1_usize..50) {
            prop_assert_eq!(frames(&wire, step), frames(&wire, 2000));
        }
    }
}
