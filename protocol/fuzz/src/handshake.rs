//! The opening handshake: a client's fields, and a server's answer.

use phlix_protocol::ws::handshake::{MAX_RESPONSE, accept_key, check_request, check_response, key, request};

use crate::input::Input;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let key = key(*b"0123456789abcdef");
    let subprotocol = input.flag().then_some("phlix-tunnel.1");
    if input.flag() {
        let wire = input.rest();
        if let Ok(Some(length)) = check_response(wire, &key, subprotocol) {
            assert!(length <= wire.len() && length <= MAX_RESPONSE);
            let head = String::from_utf8_lossy(&wire[..length]);
            assert!(head.contains(&accept_key(&key)), "only who knows the key may accept");
            assert_eq!(check_response(&wire[..length], &key, subprotocol), Ok(Some(length)));
        }
        return;
    }
    let (target, host) = (text(input.some()), text(input.some()));
    if let Ok(written) = request(&target, &host, &key, subprotocol, &[("User-Agent", "phlix")]) {
        let written = String::from_utf8(written).expect("it is ASCII");
        let lines = 7 + usize::from(subprotocol.is_some());
        assert_eq!(written.split("\r\n").count(), lines + 2, "nothing was smuggled in");
    }
    let rest = text(input.rest());
    let fields = rest.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.as_bytes()));
    if let Ok(granted) = check_request(fields, subprotocol) {
        assert_eq!(granted.accept.len(), 28);
        assert!(rest.to_ascii_lowercase().contains("websocket"));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
