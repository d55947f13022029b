//! The legacy relay's frames and messages: any cut is understood alike, and what is understood is what HTTP can have.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use phlix_protocol::legacy::frame::{Decoder, HEADER, Kind, UnknownType, header};
use phlix_protocol::legacy::handshake::Hello;
use phlix_protocol::legacy::http::{MAX_FIELDS, RequestHead, ResponseHead};

use crate::input::Input;

type Frame = (u32, Kind, Vec<u8>);

/// Whole frames out of pieces of so many bytes each, in turn; what is left unsaid; how it broke off.
fn hear(wire: &[u8], cuts: &[usize]) -> (Vec<Frame>, Vec<u8>, Option<UnknownType>) {
    let mut decoder = Decoder::new();
    let (mut all, mut payload) = (Vec::new(), Vec::new());
    let mut rest = wire;
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let cut = (*cuts.next().expect("there is one, again and again")).min(rest.len());
        let (now, later) = rest.split_at(cut);
        rest = later;
        let mut input = Bytes::copy_from_slice(now);
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(piece)) => {
                    assert_eq!(piece.first, payload.is_empty());
                    assert_eq!(piece.bytes.is_empty(), piece.length == 0);
                    payload.extend_from_slice(&piece.bytes);
                    assert_eq!(piece.last, payload.len() == usize::from(piece.length));
                    if piece.last {
                        all.push((piece.id, piece.kind, std::mem::take(&mut payload)));
                    }
                }
                Ok(None) => break,
                Err(error) => return (all, Vec::new(), Some(error)),
            }
        }
        assert!(input.is_empty(), "all is taken");
    }
    (all, payload, None)
}

/// Any bytes as what a server says.
pub(crate) fn frames(data: &[u8]) {
    let mut input = Input::new(data);
    let cuts = [input.amount(), input.amount()];
    let wire = input.rest();
    let whole = hear(wire, &[usize::MAX]);
    assert_eq!(whole, hear(wire, &cuts), "the cut does not matter");
    assert_eq!(whole, hear(wire, &[1]), "the cut does not matter");
    let mut said = Vec::new();
    for (id, kind, payload) in &whole.0 {
        said.extend_from_slice(&header(*id, *kind, payload.len() as u16));
        said.extend_from_slice(payload);
        if *kind == Kind::HttpResponse {
            response(payload.get(1..).unwrap_or_default());
        }
    }
    assert_eq!(said, wire[..said.len()], "what was heard can be said");
    assert!(whole.2.is_some() || wire.len() - said.len() <= HEADER + usize::from(u16::MAX));
    response(wire);
    if let Ok(hello) = Hello::parse(wire) {
        assert!(!hello.enrollment_jwt.is_empty());
    }
    request(wire);
}

/// A head that is read is one that HTTP can have.
fn response(json: &[u8]) {
    let Ok(head) = ResponseHead::parse(json) else { return };
    assert!((200..600).contains(&head.status));
    assert!(head.headers.len() + head.skipped <= MAX_FIELDS);
    let mut lengths = 0;
    for (at, (name, value)) in head.headers.iter().enumerate() {
        let parsed = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        HeaderValue::from_bytes(value.as_bytes()).expect("a value");
        assert!(head.headers[..at].iter().all(|(other, _)| !other.eq_ignore_ascii_case(name)), "once");
        if parsed == http::header::CONTENT_LENGTH {
            lengths += 1;
            assert_eq!(value.parse().ok(), head.content_length);
        }
    }
    assert_eq!(lengths == 1, head.content_length.is_some());
}

/// A request that is written fits a frame, and is JSON.
fn request(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let mut lines = text.lines();
    let mut next = || lines.next().unwrap_or_default().to_owned();
    let (method, path, query) = (next(), next(), next());
    let headers =
        lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.into(), value.into())).collect();
    let Ok(head) = (RequestHead { method, path, query, headers }).encode() else { return };
    let chunk = head.chunk(Some(u64::MAX));
    assert!(chunk.len() <= usize::from(u16::MAX) && chunk[0] == 1 && chunk.ends_with(b"}}"));
    let most = vec![0xff; head.room()];
    let envelope = head.envelope(&most).expect("there is room");
    assert!(envelope.len() <= usize::from(u16::MAX) && envelope[0] == b'{' && envelope.ends_with(b"\"}"));
}
