//! Control messages: any cut is understood alike, no more is held than one message, and what is understood can be said.

use phlix_protocol::native::control::{ControlError, Decoder, MAX_HELLO, MAX_MESSAGE, Message, Received, encode};

use crate::input::Input;

fn hear(established: bool, wire: &[u8], cut: usize) -> (Vec<Received>, Option<ControlError>) {
    let mut decoder = Decoder::new();
    if established {
        decoder.established();
    }
    let most = if established { MAX_MESSAGE } else { MAX_HELLO };
    let mut heard = Vec::new();
    let mut rest = wire;
    loop {
        loop {
            match decoder.next_message() {
                Ok(Some(received)) => heard.push(received),
                Ok(None) => break,
                Err(error) => return (heard, Some(error)),
            }
        }
        let wanted = decoder.wanted();
        assert!((1..=4 + most).contains(&wanted));
        if rest.is_empty() {
            return (heard, None);
        }
        let (now, later) = rest.split_at(cut.min(wanted).min(rest.len()));
        decoder.push(now);
        rest = later;
    }
}

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let established = input.flag();
    let cut = input.amount();
    let mut wire = input.clone().rest().to_vec();
    if input.flag() {
        // The fuzzer writes JSON alone, and the length is right.
        let json = input.rest();
        wire = (json.len() as u32).to_be_bytes().to_vec();
        wire.extend_from_slice(json);
    }
    let (heard, end) = hear(established, &wire, usize::MAX);
    let (again, other_end) = hear(established, &wire, cut);
    assert_eq!(heard, again, "the cut does not matter");
    assert_eq!(end, other_end);
    for Received { message, json } in heard {
        let said = encode(&message);
        if said.len() <= 4 + MAX_HELLO {
            let (back, end) = hear(established, &said, cut);
            assert_eq!(back.iter().map(|received| &received.message).collect::<Vec<&Message>>(), [&message]);
            assert_eq!((end, &back[0].json[..]), (None, &said[4..]));
        }
        assert!(wire.windows(json.len()).any(|some| some == json), "signatures cover what was sent");
    }
}
