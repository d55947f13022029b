//! What a raw client says: WebSocket messages, in them relay frames, of which only DATA goes on.
//!
//! Pure: bytes in, payloads and answers out.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use phlix_protocol::legacy::channel;
use phlix_protocol::legacy::frame::{self, Kind};
use phlix_protocol::ws::{self, CloseCode, Opcode};

use super::outbox;

/// Longest message, bytes: what existing peers take (legacy-relay-wire s.1.1). It is never held.
const MESSAGE: u64 = 10 * 1024 * 1024;

/// Frames that begin in one message.
//= legacy-relay-wire s.2
const MAX_FRAMES: u32 = 4096;

/// Turns bytes into payloads.
#[derive(Debug)]
pub(super) struct Inbox {
    messages: ws::Decoder,
    frames: frame::Decoder,
    frames_in_message: u32,
    /// The beginning of a WebSocket frame whose rest has not come.
    input: BytesMut,
    /// For the server.
    data: VecDeque<Bytes>,
}

/// Why nothing more is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// The client says good-bye, with this code to answer with.
    Left(Option<CloseCode>),
    /// It can't be understood.
    Broke(CloseCode),
}

impl Inbox {
    pub(super) fn new() -> Self {
        let limits = ws::Limits { frame: MESSAGE, message: MESSAGE };
        Self {
            messages: ws::Decoder::new(ws::Role::Server, limits, ws::Text::Unchecked),
            frames: frame::Decoder::new(),
            frames_in_message: 0,
            input: BytesMut::new(),
            data: VecDeque::new(),
        }
    }

    /// The payload that is next for the server.
    pub(super) fn front(&mut self) -> Option<&mut Bytes> {
        self.data.front_mut()
    }

    pub(super) fn pop(&mut self) {
        self.data.pop_front();
        if self.data.is_empty() {
            self.data = VecDeque::new();
        }
    }

    /// Understands what was read. What is to be answered is written to `replies`.
    pub(super) fn take(&mut self, bytes: &[u8], replies: &mut BytesMut) -> Result<(), Over> {
        self.input.extend_from_slice(bytes);
        while let Some(event) =
            self.messages.decode(&mut self.input).map_err(|error| Over::Broke(error.close_code()))?
        {
            match event {
                ws::Event::Data { piece, last, .. } => {
                    self.understand(piece.freeze(), replies)?;
                    if last {
                        self.frames_in_message = 0;
                    }
                }
                ws::Event::Ping(payload) => ws::control(replies, Opcode::Pong, &payload, None),
                ws::Event::Pong(_) => {}
                ws::Event::Close(closing) => return Err(Over::Left(closing.reply())),
            }
        }
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        Ok(())
    }

    fn understand(&mut self, mut bytes: Bytes, replies: &mut BytesMut) -> Result<(), Over> {
        //= legacy-relay-wire s.3.2: undecodable frames close it
        while let Some(piece) = self.frames.decode(&mut bytes).map_err(|_| Over::Broke(CloseCode::PROTOCOL))? {
            if piece.first {
                self.frames_in_message += 1;
                if self.frames_in_message > MAX_FRAMES {
                    return Err(Over::Broke(CloseCode::PROTOCOL));
                }
            }
            match piece.kind {
                // Its number for the channel is nobody's business.
                Kind::Data if piece.bytes.is_empty() => {}
                Kind::Data => self.data.push_back(piece.bytes),
                //= legacy-relay-wire s.3.2: client frames other than DATA get an ERROR frame and the connection stays
                _ if piece.first => outbox::message(replies, 0, Kind::Error, &channel::unexpected_type()),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages as a client sends them: masked with zeroes, text.
    fn messages(payloads: &[&[u8]]) -> Vec<u8> {
        let mut out = BytesMut::new();
        for payload in payloads {
            ws::frame(&mut out, true, Opcode::Text, payload, Some([0; 4]));
        }
        out.to_vec()
    }

    fn frame(id: u32, kind: Kind, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).expect("a payload");
        [&frame::header(id, kind, length)[..], payload].concat()
    }

    /// What goes to the server and back, when the bytes come `step` at a time.
    fn heard(wire: &[u8], step: usize) -> (Vec<u8>, Vec<u8>, Result<(), Over>) {
        let (mut inbox, mut replies) = (Inbox::new(), BytesMut::new());
        let result = wire.chunks(step).try_for_each(|some| inbox.take(some, &mut replies));
        let data: Vec<u8> = inbox.data.iter().flatten().copied().collect();
        (data, replies.to_vec(), result)
    }

    #[test]
    fn data_goes_on_and_the_rest_is_answered_in_any_split() {
        let mut error = BytesMut::new();
        outbox::message(&mut error, 0, Kind::Error, br#"{"error":"Unexpected frame type"}"#);
        let both = [frame(77, Kind::Data, b"GET "), frame(0, Kind::Heartbeat, b"")].concat();
        let cut = frame(1, Kind::Data, b"/ \xff\r\n");
        let wire = messages(&[&both, &cut[..3], &cut[3..], &frame(9, Kind::HttpRequest, b"{}")]);
        for step in [1, 2, 7, 50, 1000] {
            let (data, replies, result) = heard(&wire, step);
            assert_eq!((data, result), (b"GET / \xff\r\n".to_vec(), Ok(())), "{step}");
            assert_eq!(replies, [&error[..], &error[..]].concat(), "{step}");
        }
    }

    #[test]
    fn what_can_not_be_understood_ends_it() {
        let unknown = [0, 0, 0, 1, 0x13, 0, 0];
        let many = frame(1, Kind::Data, b"").repeat(4097);
        let masked = messages(&[b"x"]);
        let unmasked = [&[0x81, 1, b'x'][..]].concat();
        for (what, wire) in [
            ("an unknown type", messages(&[&unknown])),
            ("too many frames in a message", messages(&[&many])),
            ("a frame without a mask", unmasked),
            ("a reserved opcode", [&[0x83], &masked[1..]].concat()),
        ] {
            assert_eq!(heard(&wire, 4096).2, Err(Over::Broke(CloseCode::PROTOCOL)), "{what}");
        }
        let many = frame(1, Kind::Data, b"").repeat(4096);
        assert_eq!(heard(&messages(&[&many, &many]), 4096).2, Ok(()));
    }

    #[test]
    fn pings_are_answered_and_good_byes_returned() {
        let mut wire = BytesMut::new();
        ws::control(&mut wire, Opcode::Ping, b"p", Some([0; 4]));
        ws::close(&mut wire, Some(CloseCode::GOING_AWAY), "bye", Some([0; 4]));
        let (_, replies, result) = heard(&wire, 3);
        assert_eq!(replies, b"\x8a\x01p");
        assert_eq!(result, Err(Over::Left(Some(CloseCode::GOING_AWAY))));
    }
}
