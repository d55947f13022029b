//! Pieces into whole messages, for those who want them so.

use bytes::BytesMut;

use super::{Event, Kind};

/// A whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub kind: Kind,
    pub payload: BytesMut,
}

/// Collects the pieces of one message; the decoder's limits bound it. A message that comes in one piece is not copied.
#[derive(Debug, Default)]
pub struct Assembler {
    held: BytesMut,
}

impl Assembler {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a decoder's event: gives the message that it completes, or the event back when it is no data.
    pub fn push(&mut self, event: Event) -> Assembled {
        let Event::Data { kind, piece, last, .. } = event else { return Assembled::Other(event) };
        if self.held.is_empty() {
            self.held = piece;
        } else {
            self.held.extend_from_slice(&piece);
        }
        if !last {
            return Assembled::NotYet;
        }
        Assembled::Message(Message { kind, payload: std::mem::take(&mut self.held) })
    }
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assembled {
    Message(Message),
    /// More pieces of the message are to come.
    NotYet,
    /// A ping, pong or close, as it was.
    Other(Event),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_given_once_it_is_whole() {
        let mut assembler = Assembler::new();
        let data = |piece: &[u8], first, last| Event::Data { kind: Kind::Text, piece: piece.into(), first, last };
        assert_eq!(assembler.push(data(b"Hel", true, false)), Assembled::NotYet);
        assert_eq!(assembler.push(Event::Ping("x".into())), Assembled::Other(Event::Ping("x".into())));
        let whole = Message { kind: Kind::Text, payload: b"Hello"[..].into() };
        assert_eq!(assembler.push(data(b"lo", false, true)), Assembled::Message(whole));
        let empty = Message { kind: Kind::Text, payload: BytesMut::new() };
        assert_eq!(assembler.push(data(b"", true, true)), Assembled::Message(empty));
    }
}
