//! WebSocket frames: any cut of the bytes is understood alike, and what is understood can be said again.

use bytes::BytesMut;
use phlix_protocol::ws::{
    self, Assembled, Assembler, Closing, Decoder, Event, Limits, MAX_HEADER, Message, Opcode, Role, Text, WsError,
};

use crate::input::Input;

const LIMITS: Limits = Limits { frame: 100_000, message: 150_000 };

/// What a connection said: whole messages, control frames, and how it broke off.
#[derive(Debug, PartialEq)]
struct Heard {
    said: Vec<Said>,
    end: Option<WsError>,
    within: bool,
}

#[derive(Debug, PartialEq)]
enum Said {
    Message(Message),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Closing),
}

/// Decodes pieces of at most so many bytes each.
fn hear(role: Role, text: Text, wire: &[u8], cuts: &[usize]) -> Heard {
    let mut decoder = Decoder::new(role, LIMITS, text);
    let mut assembler = Assembler::new();
    let mut heard = Heard { said: Vec::new(), end: None, within: false };
    let mut input = BytesMut::new();
    let mut rest = wire;
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let cut = (*cuts.next().expect("there is one, again and again")).min(rest.len());
        let (now, later) = rest.split_at(cut);
        input.extend_from_slice(now);
        rest = later;
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(event)) => heard.said.extend(match assembler.push(event) {
                    Assembled::Message(message) => Some(Said::Message(message)),
                    Assembled::NotYet => None,
                    Assembled::Other(Event::Ping(payload)) => Some(Said::Ping(payload.to_vec())),
                    Assembled::Other(Event::Pong(payload)) => Some(Said::Pong(payload.to_vec())),
                    Assembled::Other(Event::Close(closing)) => Some(Said::Close(closing)),
                    Assembled::Other(Event::Data { .. }) => panic!("the assembler keeps data"),
                }),
                Ok(None) => break,
                Err(error) => {
                    heard.end = Some(error);
                    return heard;
                }
            }
        }
        // A data frame's payload is handed on at once; a control frame's is short.
        assert!(input.len() < MAX_HEADER + ws::MAX_CONTROL);
    }
    heard.within = decoder.within_message();
    heard
}

fn say(role: Role, said: &[Said]) -> BytesMut {
    let mut out = BytesMut::new();
    let mut key = 0x0102_0304_u32;
    for said in said {
        key = key.wrapping_mul(0x9e37_79b1);
        let mask = (role == Role::Client).then(|| key.to_be_bytes());
        match said {
            Said::Message(message) => ws::frame(&mut out, true, message.kind.into(), &message.payload, mask),
            Said::Ping(payload) => ws::control(&mut out, Opcode::Ping, payload, mask),
            Said::Pong(payload) => ws::control(&mut out, Opcode::Pong, payload, mask),
            Said::Close(closing) => ws::close(&mut out, closing.code, &closing.reason, mask),
        }
    }
    out
}

/// Any bytes as a connection's.
pub(crate) fn frames(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.byte();
    let (role, peer) = if flags & 1 == 0 { (Role::Client, Role::Server) } else { (Role::Server, Role::Client) };
    let text = if flags & 2 == 0 { Text::Checked } else { Text::Unchecked };
    let cuts = [input.amount(), input.amount()];
    let wire = input.rest();

    let whole = hear(role, text, wire, &[usize::MAX]);
    assert_eq!(whole, hear(role, text, wire, &cuts), "the cut does not matter");
    assert_eq!(whole, hear(role, text, wire, &[1]), "the cut does not matter");
    if text == Text::Checked {
        for said in &whole.said {
            if let Said::Message(Message { kind: ws::Kind::Text, payload }) = said {
                assert!(std::str::from_utf8(payload).is_ok());
            }
        }
    }
    let again = hear(role, text, &say(peer, &whole.said), &cuts);
    assert_eq!(again, Heard { said: whole.said, end: None, within: false }, "what was heard can be said");
}
