//! Bytes into events.

use bytes::{Buf, Bytes, BytesMut};

use super::mask::mask;
use super::utf8::Utf8;
use super::{Closing, Kind, MAX_CONTROL, Opcode, Role, WsError};

/// What a peer may send, in bytes of payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub frame: u64,
    /// All fragments together.
    pub message: u64,
}

/// Whether text must be UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// As RFC 6455 s.8.1 asks; refused at the first wrong byte.
    Checked,
    /// For peers who write bytes into text messages.
    Unchecked,
}

/// What arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The next piece of a message, unmasked: as much of the present frame as is there. May be empty.
    Data {
        kind: Kind,
        piece: BytesMut,
        /// No piece of this message came before.
        first: bool,
        /// The message is whole.
        last: bool,
    },
    Ping(Bytes),
    Pong(Bytes),
    /// The peer sends nothing more.
    Close(Closing),
}

/// Turns a connection's bytes into events. Three answers: an event, more bytes are needed, or a refusal, after which
/// it must not be asked again.
#[derive(Debug)]
pub struct Decoder {
    role: Role,
    limits: Limits,
    text: Text,
    utf8: Utf8,
    /// The fragmented message that is under way.
    message: Option<Message>,
    /// The frame whose payload is under way.
    frame: Option<Frame>,
    closed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Message {
    kind: Kind,
    /// Payload of its frames so far, the present one counted whole.
    length: u64,
    /// A piece was handed out.
    begun: bool,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    fin: bool,
    opcode: Opcode,
    key: Option<[u8; 4]>,
    length: u64,
    /// Payload handed out so far.
    taken: u64,
}

impl Decoder {
    /// For our end of a connection.
    pub fn new(role: Role, limits: Limits, text: Text) -> Self {
        Self { role, limits, text, utf8: Utf8::default(), message: None, frame: None, closed: false }
    }

    /// The next event; `None` when more bytes are needed. Takes what it has understood off the front of `input`: what
    /// is left (at most a header, or a control frame) belongs before the bytes that are read next.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Event>, WsError> {
        if self.closed {
            // RFC 6455 s.5.5.1: nothing counts after a close frame.
            input.clear();
            return Ok(None);
        }
        let frame = match self.frame {
            Some(frame) => frame,
            None => {
                let Some(frame) = self.header(input)? else { return Ok(None) };
                self.begin(&frame)?;
                self.frame = Some(frame);
                frame
            }
        };
        if frame.opcode.is_control() { self.control(frame, input) } else { self.data(frame, input) }
    }

    /// Whether a message or frame is under way: an end of the connection here cuts it off.
    pub fn within_message(&self) -> bool {
        self.message.is_some() || self.frame.is_some()
    }

    /// RFC 6455 s.5.2.
    fn header(&self, input: &mut BytesMut) -> Result<Option<Frame>, WsError> {
        let Some((&[first, second], rest)) = input.split_first_chunk::<2>() else {
            // Even one byte tells whether it can be a frame.
            return match input.first() {
                Some(first) => self.first_byte(*first).map(|_| None),
                None => Ok(None),
            };
        };
        let (fin, opcode) = self.first_byte(first)?;
        match (self.role, second & 0x80 != 0) {
            (Role::Server, false) => return Err(WsError::NotMasked),
            (Role::Client, true) => return Err(WsError::Masked),
            _ => {}
        }
        let short = second & 0x7f;
        if opcode.is_control() && usize::from(short) > MAX_CONTROL {
            return Err(WsError::LongControl);
        }
        let (length, used) = match short {
            126 => match rest.first_chunk::<2>() {
                Some(bytes) => (u64::from(u16::from_be_bytes(*bytes)), 2),
                None => return Ok(None),
            },
            127 => match rest.first_chunk::<8>() {
                Some(bytes) => (u64::from_be_bytes(*bytes), 8),
                None => return Ok(None),
            },
            short => (u64::from(short), 0),
        };
        let least = [0, 0, 126, 0, 0, 0, 0, 0, 0x1_0000][used];
        if length < least || length >> 63 != 0 {
            return Err(WsError::BadLength);
        }
        let key = match self.role {
            Role::Client => None,
            Role::Server => match rest[used..].first_chunk::<4>() {
                Some(key) => Some(*key),
                None => return Ok(None),
            },
        };
        input.advance(2 + used + if key.is_some() { 4 } else { 0 });
        Ok(Some(Frame { fin, opcode, key, length, taken: 0 }))
    }

    fn first_byte(&self, first: u8) -> Result<(bool, Opcode), WsError> {
        if first & 0x70 != 0 {
            return Err(WsError::ReservedBits);
        }
        let fin = first & 0x80 != 0;
        let opcode = Opcode::from_bits(first & 0x0f).ok_or(WsError::ReservedOpcode(first & 0x0f))?;
        match opcode {
            Opcode::Continuation if self.message.is_none() => Err(WsError::NothingToContinue),
            Opcode::Text | Opcode::Binary if self.message.is_some() => Err(WsError::Interleaved),
            _ if opcode.is_control() && !fin => Err(WsError::FragmentedControl),
            _ => Ok((fin, opcode)),
        }
    }

    /// What a header alone decides.
    fn begin(&mut self, frame: &Frame) -> Result<(), WsError> {
        if frame.opcode.is_control() {
            return Ok(());
        }
        if frame.length > self.limits.frame {
            return Err(WsError::FrameTooLong(frame.length));
        }
        let kind = if frame.opcode == Opcode::Text { Kind::Text } else { Kind::Binary };
        let message = self.message.get_or_insert(Message { kind, length: 0, begun: false });
        message.length = message.length.saturating_add(frame.length);
        if message.length > self.limits.message {
            return Err(WsError::MessageTooLong(message.length));
        }
        Ok(())
    }

    fn data(&mut self, mut frame: Frame, input: &mut BytesMut) -> Result<Option<Event>, WsError> {
        let left = frame.length - frame.taken;
        if left > 0 && input.is_empty() {
            return Ok(None);
        }
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let mut piece = input.split_to(take);
        if let Some(key) = frame.key {
            mask(&mut piece, key, frame.taken);
        }
        frame.taken += take as u64;
        let whole = frame.taken == frame.length;
        let last = whole && frame.fin;
        let Some(message) = &mut self.message else { unreachable!("`begin` made it for this frame") };
        let kind = message.kind;
        let first = !std::mem::replace(&mut message.begun, true);
        if kind == Kind::Text && self.text == Text::Checked && !(self.utf8.push(&piece) && (!last || self.utf8.end())) {
            return Err(WsError::NotUtf8);
        }
        self.frame = (!whole).then_some(frame);
        if last {
            self.message = None;
        }
        Ok(Some(Event::Data { kind, piece, first, last }))
    }

    fn control(&mut self, frame: Frame, input: &mut BytesMut) -> Result<Option<Event>, WsError> {
        let length = frame.length as usize;
        if input.len() < length {
            return Ok(None);
        }
        let mut payload = input.split_to(length);
        if let Some(key) = frame.key {
            mask(&mut payload, key, 0);
        }
        self.frame = None;
        Ok(Some(match frame.opcode {
            Opcode::Ping => Event::Ping(payload.freeze()),
            Opcode::Pong => Event::Pong(payload.freeze()),
            _ => {
                let closing = Closing::parse(&payload)?;
                self.closed = true;
                Event::Close(closing)
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{CloseCode, encode};
    use super::*;

    const LIMITS: Limits = Limits { frame: 1 << 20, message: 2 << 20 };

    fn client() -> Decoder {
        Decoder::new(Role::Client, LIMITS, Text::Checked)
    }

    fn all(decoder: &mut Decoder, wire: &[u8]) -> Result<Vec<Event>, WsError> {
        let mut input = BytesMut::from(wire);
        let mut events = Vec::new();
        while let Some(event) = decoder.decode(&mut input)? {
            events.push(event);
        }
        Ok(events)
    }

    fn refusal(wire: &[u8]) -> WsError {
        all(&mut client(), wire).expect_err("the wire breaks a rule")
    }

    fn data(kind: Kind, piece: &[u8], first: bool, last: bool) -> Event {
        Event::Data { kind, piece: piece.into(), first, last }
    }

    #[test]
    fn control_frames_come_between_fragments() {
        let events = all(&mut client(), b"\x01\x03Hel\x89\x01p\x80\x02lo").expect("well formed");
        assert_eq!(
            events,
            [
                data(Kind::Text, b"Hel", true, false),
                Event::Ping(Bytes::from_static(b"p")),
                data(Kind::Text, b"lo", false, true)
            ]
        );
    }

    #[test]
    fn each_broken_rule_has_its_name_and_close_code() {
        for (wire, error, code) in [
            (&b"\xc1\x00"[..], WsError::ReservedBits, CloseCode::PROTOCOL),
            (b"\x83\x00", WsError::ReservedOpcode(3), CloseCode::PROTOCOL),
            (b"\x8b\x00", WsError::ReservedOpcode(11), CloseCode::PROTOCOL),
            (b"\x81\x81\0\0\0\0a", WsError::Masked, CloseCode::PROTOCOL),
            (b"\x09\x00", WsError::FragmentedControl, CloseCode::PROTOCOL),
            (b"\x89\x7e\x00\x7e", WsError::LongControl, CloseCode::PROTOCOL),
            (b"\x82\x7e\x00\x05", WsError::BadLength, CloseCode::PROTOCOL),
            (b"\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff", WsError::BadLength, CloseCode::PROTOCOL),
            (b"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", WsError::BadLength, CloseCode::PROTOCOL),
            (b"\x80\x00", WsError::NothingToContinue, CloseCode::PROTOCOL),
            (b"\x01\x00\x81\x00", WsError::Interleaved, CloseCode::PROTOCOL),
            (b"\x82\x7f\x00\x00\x00\x00\x00\x10\x00\x01", WsError::FrameTooLong(0x10_0001), CloseCode::TOO_BIG),
            (b"\x81\x01\xff", WsError::NotUtf8, CloseCode::INVALID_PAYLOAD),
            (b"\x88\x01\x03", WsError::ShortClose, CloseCode::PROTOCOL),
            (b"\x88\x02\x03\xed", WsError::BadCloseCode(1005), CloseCode::PROTOCOL),
        ] {
            assert_eq!(refusal(wire), error);
            assert_eq!(error.close_code(), code);
        }
        let mut server = Decoder::new(Role::Server, LIMITS, Text::Checked);
        assert_eq!(all(&mut server, b"\x81\x01a"), Err(WsError::NotMasked));
    }

    #[test]
    fn a_message_is_bounded_over_all_its_fragments_before_they_are_read() {
        let limits = Limits { frame: 6, message: 10 };
        let mut decoder = Decoder::new(Role::Client, limits, Text::Checked);
        assert_eq!(all(&mut decoder, b"\x02\x06abcdef\x80\x05"), Err(WsError::MessageTooLong(11)));
    }

    #[test]
    fn text_fails_at_the_first_wrong_byte_within_a_frame() {
        let mut decoder = client();
        // Ten bytes are announced; four are there, the last of which can't be.
        assert_eq!(all(&mut decoder, b"\x81\x0aabc\xff"), Err(WsError::NotUtf8));
        let mut decoder = Decoder::new(Role::Client, LIMITS, Text::Unchecked);
        assert!(all(&mut decoder, b"\x81\x04abc\xff").is_ok());
    }

    #[test]
    fn text_may_be_cut_within_a_character_but_not_end_there() {
        assert!(all(&mut client(), b"\x01\x02\xe2\x82\x80\x01\xac").is_ok());
        assert_eq!(refusal(b"\x81\x02\xe2\x82"), WsError::NotUtf8);
        // The next text starts afresh.
        assert!(all(&mut client(), b"\x81\x03\xe2\x82\xac\x81\x01a").is_ok());
    }

    #[test]
    fn nothing_counts_after_a_close_frame() {
        let events = all(&mut client(), b"\x88\x05\x03\xe8bye\xff\xff\xff").expect("well formed");
        assert_eq!(events, [Event::Close(Closing { code: Some(CloseCode::NORMAL), reason: "bye".into() })]);
    }

    #[test]
    fn empty_messages_are_messages() {
        assert_eq!(all(&mut client(), b"\x82\x00"), Ok(vec![data(Kind::Binary, b"", true, true)]));
    }

    #[test]
    fn a_zero_key_is_a_key() {
        let mut server = Decoder::new(Role::Server, LIMITS, Text::Checked);
        assert_eq!(all(&mut server, b"\x81\x81\0\0\0\0a"), Ok(vec![data(Kind::Text, b"a", true, true)]));
    }

    proptest! {
        #[test]
        fn messages_survive_any_fragmentation_and_any_split(
            frames in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..300), any::<[u8; 4]>()), 1..5),
            cuts in proptest::collection::vec(1..40usize, 1..20),
            masked: bool,
        ) {
            let mut wire = BytesMut::new();
            let count = frames.len();
            for (i, (payload, key)) in frames.iter().enumerate() {
                let opcode = if i == 0 { Opcode::Binary } else { Opcode::Continuation };
                encode::frame(&mut wire, i + 1 == count, opcode, payload, masked.then_some(*key));
            }
            let role = if masked { Role::Server } else { Role::Client };
            let mut decoder = Decoder::new(role, LIMITS, Text::Checked);
            let mut input = BytesMut::new();
            let mut got = Vec::new();
            let mut ends = 0;
            for cut in cuts.iter().cycle() {
                if wire.is_empty() {
                    break;
                }
                let cut = (*cut).min(wire.len());
                input.extend_from_slice(&wire.split_to(cut));
                while let Some(event) = decoder.decode(&mut input).expect("well formed") {
                    let Event::Data { piece, last, .. } = event else { panic!("data alone was sent") };
                    got.extend_from_slice(&piece);
                    ends += usize::from(last);
                }
                prop_assert!(input.len() < encode::MAX_HEADER);
            }
            prop_assert_eq!(ends, 1);
            prop_assert_eq!(got, frames.into_iter().flat_map(|(payload, _)| payload).collect::<Vec<_>>());
            prop_assert!(!decoder.within_message());
        }

        #[test]
        fn damaged_bytes_never_panic_and_are_judged_alike_in_any_split(wire in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0x81), Just(0x01), Just(0x80), Just(0x88)], 0..120), at in 0..120usize) {
            let mut whole = client();
            let one = all(&mut whole, &wire).map(|_| ());
            let at = at.min(wire.len());
            let mut parts = client();
            let mut input = BytesMut::from(&wire[..at]);
            let mut two = Ok(());
            for rest in [&wire[at..], b""] {
                loop {
                    match parts.decode(&mut input) {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(error) => { two = Err(error); break }
                    }
                }
                if two.is_err() { break }
                input.extend_from_slice(rest);
            }
            prop_assert_eq!(one, two);
        }
    }
}
