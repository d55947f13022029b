//! The opening handshake over HTTP/1.1 (RFC 6455 s.4), as functions of text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// What `Sec-WebSocket-Accept` is made with (RFC 6455 s.1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Longest answer to a handshake, in bytes.
pub const MAX_RESPONSE: usize = 16 * 1024;

/// Most fields in an answer to a handshake.
const MAX_FIELDS: usize = 64;

/// Why a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    #[error("no upgrade to websocket is asked for, or granted")]
    NoUpgrade,
    #[error("version is not 13")]
    Version,
    #[error("key is missing, or not 16 bytes in base64")]
    Key,
    #[error("accept key is missing or not that of our key")]
    Accept,
    #[error("subprotocol is not ours")]
    Subprotocol,
    #[error("an extension was granted that nobody asked for")]
    Extension,
    #[error("target, host or subprotocol can't stand in a request")]
    Unspeakable,
    #[error("answered with status {0}")]
    Status(u16),
    #[error("answer is not HTTP/1.1, or over the limit")]
    Malformed,
}

/// The `Sec-WebSocket-Key` of 16 random bytes.
pub fn key(random: [u8; 16]) -> String {
    STANDARD.encode(random)
}

/// The `Sec-WebSocket-Accept` of a key.
pub fn accept_key(key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(key.as_bytes()).chain_update(GUID).finalize())
}

/// A client's request that may be granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The value of `Sec-WebSocket-Accept`.
    pub accept: String,
}

/// Checks the fields of a client's `GET` over HTTP/1.1 (RFC 6455 s.4.2.1). `subprotocol` must be among those that it
/// offers and is then the one to answer with; `None` where there is none to agree on.
pub fn check_request<'a>(
    fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    subprotocol: Option<&str>,
) -> Result<Granted, HandshakeError> {
    let fields = Fields::read(fields);
    if !fields.upgrade || !fields.connection {
        return Err(HandshakeError::NoUpgrade);
    }
    if fields.version != Once::Some(b"13") {
        return Err(HandshakeError::Version);
    }
    let Once::Some(key) = fields.key else { return Err(HandshakeError::Key) };
    let key = std::str::from_utf8(key).map_err(|_| HandshakeError::Key)?;
    // 16 bytes are 24 characters; longer ones are not decoded.
    if key.len() != 24 || STANDARD.decode(key).map_or(0, |bytes| bytes.len()) != 16 {
        return Err(HandshakeError::Key);
    }
    if subprotocol.is_some_and(|ours| !fields.protocols.iter().any(|value| has_token(value, ours))) {
        return Err(HandshakeError::Subprotocol);
    }
    Ok(Granted { accept: accept_key(key) })
}

/// A client's request. `fields` come after those of the handshake, each as `name: value`.
pub fn request(
    target: &str,
    host: &str,
    key: &str,
    subprotocol: Option<&str>,
    fields: &[(&str, &str)],
) -> Result<Vec<u8>, HandshakeError> {
    let word = |text: &str| !text.is_empty() && text.bytes().all(|byte| (0x21..0x7f).contains(&byte));
    let value = |text: &str| text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    let speakable = word(target)
        && word(host)
        && word(key)
        && subprotocol.is_none_or(word)
        && fields.iter().all(|(name, text)| word(name) && !name.contains(':') && value(text));
    if !speakable {
        return Err(HandshakeError::Unspeakable);
    }
    let mut out = format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
    );
    if let Some(subprotocol) = subprotocol {
        out.push_str(&format!("Sec-WebSocket-Protocol: {subprotocol}\r\n"));
    }
    for (name, text) in fields {
        out.push_str(&format!("{name}: {text}\r\n"));
    }
    out.push_str("\r\n");
    Ok(out.into_bytes())
}

/// Reads the answer to a request. `None` when more bytes are needed, else how many bytes it has: frames follow.
pub fn check_response(input: &[u8], key: &str, subprotocol: Option<&str>) -> Result<Option<usize>, HandshakeError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut headers);
    let head = &input[..input.len().min(MAX_RESPONSE)];
    let length = match response.parse(head) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if head.len() < MAX_RESPONSE => return Ok(None),
        _ => return Err(HandshakeError::Malformed),
    };
    match response.code {
        Some(101) => {}
        Some(code) => return Err(HandshakeError::Status(code)),
        None => return Err(HandshakeError::Malformed),
    }
    if response.version != Some(1) {
        return Err(HandshakeError::Malformed);
    }
    let fields = Fields::read(response.headers.iter().map(|header| (header.name, header.value)));
    if !fields.upgrade || !fields.connection {
        return Err(HandshakeError::NoUpgrade);
    }
    if fields.accept != Once::Some(accept_key(key).as_bytes()) {
        return Err(HandshakeError::Accept);
    }
    if fields.extensions {
        return Err(HandshakeError::Extension);
    }
    match (subprotocol, &fields.protocols[..]) {
        (None, []) => {}
        (Some(ours), [theirs]) if theirs.trim_ascii() == ours.as_bytes() => {}
        _ => return Err(HandshakeError::Subprotocol),
    }
    Ok(Some(length))
}

/// A field that may stand once.
#[derive(Debug, Default, PartialEq, Eq)]
enum Once<'a> {
    #[default]
    None,
    Some(&'a [u8]),
    Twice,
}

impl<'a> Once<'a> {
    fn set(&mut self, value: &'a [u8]) {
        *self = if *self == Self::None { Self::Some(value.trim_ascii()) } else { Self::Twice };
    }
}

/// The fields that a handshake is about.
#[derive(Debug, Default)]
struct Fields<'a> {
    upgrade: bool,
    connection: bool,
    extensions: bool,
    version: Once<'a>,
    key: Once<'a>,
    accept: Once<'a>,
    protocols: Vec<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn read(fields: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut read = Self::default();
        for (name, value) in fields {
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            if is("upgrade") {
                read.upgrade |= has_token(value, "websocket");
            } else if is("connection") {
                read.connection |= has_token(value, "upgrade");
            } else if is("sec-websocket-version") {
                read.version.set(value);
            } else if is("sec-websocket-key") {
                read.key.set(value);
            } else if is("sec-websocket-accept") {
                read.accept.set(value);
            } else if is("sec-websocket-protocol") {
                read.protocols.push(value);
            } else if is("sec-websocket-extensions") {
                read.extensions = true;
            }
        }
        read
    }
}

/// Whether a comma-separated list has a token. Case does not count (RFC 6455 s.4.1 and s.4.2.1; our subprotocol has
/// small letters alone).
fn has_token(list: &[u8], token: &str) -> bool {
    list.split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ASKED: [(&str, &str); 5] = [
        ("Upgrade", "WebSocket"),
        ("Connection", "keep-alive, Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Protocol", "other, phlix-tunnel.1"),
    ];

    fn asked(change: Option<(&'static str, Option<&'static str>)>) -> Result<Granted, HandshakeError> {
        let fields = ASKED.into_iter().filter_map(|(name, value)| match change {
            Some((changed, value)) if changed == name => value.map(|value| (name, value.as_bytes())),
            _ => Some((name, value.as_bytes())),
        });
        check_request(fields, Some("phlix-tunnel.1"))
    }

    /// The example of RFC 6455 s.1.3.
    #[test]
    fn the_accept_key_is_that_of_the_rfc() {
        assert_eq!(accept_key(KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(key(*b"the sample nonce"), KEY);
        assert_eq!(asked(None), Ok(Granted { accept: "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into() }));
    }

    #[test]
    fn each_field_of_a_request_is_needed() {
        for (name, error) in [
            ("Upgrade", HandshakeError::NoUpgrade),
            ("Connection", HandshakeError::NoUpgrade),
            ("Sec-WebSocket-Version", HandshakeError::Version),
            ("Sec-WebSocket-Key", HandshakeError::Key),
            ("Sec-WebSocket-Protocol", HandshakeError::Subprotocol),
        ] {
            assert_eq!(asked(Some((name, None))), Err(error));
            assert_eq!(asked(Some((name, Some("8")))), Err(error));
        }
        let twice = ASKED.iter().chain(&ASKED[3..4]).map(|(name, value)| (*name, value.as_bytes()));
        assert_eq!(check_request(twice, None), Err(HandshakeError::Key));
    }

    fn answer(fields: &str) -> Result<Option<usize>, HandshakeError> {
        let text = format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n");
        check_response(text.as_bytes(), KEY, Some("phlix-tunnel.1"))
    }

    const GOOD: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: phlix-tunnel.1\r\n";

    #[test]
    fn an_answer_is_read_to_its_end_and_no_further() {
        let text = format!("HTTP/1.1 101 Switching Protocols\r\n{GOOD}\r\n\x02\x00");
        let head = text.len() - 2;
        for cut in 0..head {
            assert_eq!(check_response(&text.as_bytes()[..cut], KEY, Some("phlix-tunnel.1")), Ok(None), "{cut}");
        }
        assert_eq!(check_response(text.as_bytes(), KEY, Some("phlix-tunnel.1")), Ok(Some(head)));
    }

    #[test]
    fn an_answer_that_is_not_to_our_key_is_refused() {
        for (from, to, error) in [
            ("s3pPLMBi", "AAAAAAAA", HandshakeError::Accept),
            ("Upgrade: websocket", "Upgrade: h2c", HandshakeError::NoUpgrade),
            ("phlix-tunnel.1", "phlix-tunnel.2", HandshakeError::Subprotocol),
            ("Connection: Upgrade", "Connection: close", HandshakeError::NoUpgrade),
            ("Connection: Upgrade", "Connection: Upgrade\r\nSec-WebSocket-Extensions: x", HandshakeError::Extension),
        ] {
            assert_eq!(answer(&GOOD.replace(from, to)), Err(error));
        }
        assert_eq!(check_response(b"HTTP/1.1 403 No\r\n\r\n", KEY, None), Err(HandshakeError::Status(403)));
        assert_eq!(check_response(b"SSH-2.0-x\r\n", KEY, None), Err(HandshakeError::Malformed));
    }

    #[test]
    fn an_endless_answer_is_refused_at_its_limit() {
        let endless = format!("HTTP/1.1 101 x\r\nA: {}", "a".repeat(MAX_RESPONSE));
        assert_eq!(check_response(endless.as_bytes(), KEY, None), Err(HandshakeError::Malformed));
    }

    #[test]
    fn a_request_can_be_granted_and_nothing_can_be_smuggled_into_it() {
        let text = request("/tunnel", "a.b:8443", KEY, Some("phlix-tunnel.1"), &[]).expect("plain words");
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut parsed = httparse::Request::new(&mut headers);
        assert!(parsed.parse(&text).expect("HTTP").is_complete());
        let fields = parsed.headers.iter().map(|header| (header.name, header.value));
        assert!(check_request(fields, Some("phlix-tunnel.1")).is_ok());
        for host in ["a\r\nX: y", "", "a b"] {
            assert_eq!(request("/tunnel", host, KEY, None, &[]), Err(HandshakeError::Unspeakable));
        }
        assert_eq!(request("/t", "a", KEY, None, &[("X", "a\r\nY: z")]), Err(HandshakeError::Unspeakable));
    }
}
