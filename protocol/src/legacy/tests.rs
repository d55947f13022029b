//! The 40 golden vectors of the wire page: payloads written and read by the upstream codecs, and bytes captured from
//! Workerman sockets. JSON is compared by meaning: the order of keys and `\/` are PHP's.

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::channel::{self, Reason};
use super::frame::{self, Decoder, HEADER, Kind, UnknownType};
use super::handshake::{Hello, HelloAck};
use super::http::{BODY, END, HEAD, RequestHead, ResponseHead};
use super::tunnel::{Batch, Config, Event, RequestBody, Tunnel};
use crate::ws::{self, Assembled, Assembler, CloseCode, Limits, Role, Text};

/// Id, type and payload.
type Frame = (u32, Kind, Vec<u8>);

struct Vector {
    name: String,
    bytes: Vec<u8>,
    decoded: Value,
}

fn vectors() -> Vec<Vector> {
    let all: Vec<Value> = serde_json::from_str(include_str!("wire-vectors.json")).expect("a list");
    let vector = |one: &Value| Vector {
        name: one["name"].as_str().expect("text").into(),
        bytes: unhex(&one["hex"]),
        decoded: one["decoded"].clone(),
    };
    all.iter().map(vector).collect()
}

fn vector(name: &str) -> Vector {
    vectors().into_iter().find(|vector| vector.name == name).unwrap_or_else(|| panic!("there is {name}"))
}

fn unhex(text: &Value) -> Vec<u8> {
    let digits = text.as_str().expect("text").as_bytes();
    digits.chunks(2).map(|two| u8::from_str_radix(str::from_utf8(two).expect("hex"), 16).expect("hex")).collect()
}

/// Whole frames, by the streaming decoder, and whether one is left incomplete.
fn frames(wire: &[u8]) -> Result<(Vec<Frame>, bool), UnknownType> {
    let mut decoder = Decoder::new();
    let mut input = Bytes::copy_from_slice(wire);
    let (mut all, mut payload) = (Vec::new(), Vec::new());
    while let Some(piece) = decoder.decode(&mut input)? {
        payload.extend_from_slice(&piece.bytes);
        if piece.last {
            all.push((piece.id, piece.kind, std::mem::take(&mut payload)));
        }
    }
    Ok((all, decoder.within_frame()))
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

/// One frame is what the vector says, and our header of it is the same.
fn check_frame(name: &str, wire: &[u8], decoded: &Value) {
    let (all, incomplete) = frames(wire).expect("known types");
    assert_eq!((all.len(), incomplete), (1, false), "{name}");
    let (id, kind, payload) = &all[0];
    assert_eq!(
        json!({"id": id, "type": *kind as u8}),
        json!({"id": decoded["channel"], "type": decoded["type"]}),
        "{name}"
    );
    if let Some(length) = decoded["payload_len"].as_u64() {
        assert_eq!(payload.len() as u64, length, "{name}");
    }
    assert_eq!(frame::header(*id, *kind, payload.len() as u16), wire[..HEADER], "{name}");
    check_payload(name, payload, decoded);
}

fn check_payload(name: &str, payload: &[u8], decoded: &Value) {
    for (key, value) in decoded.as_object().expect("an object") {
        match key.as_str() {
            "payload_text" => assert_eq!(payload, value.as_str().expect("text").as_bytes(), "{name}"),
            "payload_hex" => assert_eq!(payload, unhex(value), "{name}"),
            "payload_json" => assert_eq!(json_of(payload), *value, "{name}"),
            "tag" => assert_eq!(json!(payload[0]), *value, "{name}"),
            "body_hex" => assert_eq!(payload[1..], unhex(value), "{name}"),
            "head" if value.get("status").is_some() => {
                let head = ResponseHead::parse(&payload[1..]).expect("a head");
                let headers: serde_json::Map<_, _> =
                    head.headers.into_iter().map(|(name, value)| (name, value.into())).collect();
                let said = json!({"status": head.status, "headers": headers, "bodyLength": head.body_length});
                assert_eq!(said, *value, "{name}");
            }
            "head" => assert_eq!(json_of(&payload[1..]), *value, "{name}"),
            _ => {}
        }
    }
}

/// What a connection says: messages as (opcode, payload), and a close code.
fn messages(role: Role, wire: &[u8]) -> (Vec<(u8, Vec<u8>)>, Option<CloseCode>) {
    let mut decoder = ws::Decoder::new(role, Limits { frame: 1 << 20, message: 1 << 20 }, Text::Unchecked);
    let mut assembler = Assembler::new();
    let mut input = BytesMut::from(wire);
    let (mut all, mut close) = (Vec::new(), None);
    while let Some(event) = decoder.decode(&mut input).expect("well formed") {
        match assembler.push(event) {
            Assembled::Message(message) => {
                all.push((ws::Opcode::from(message.kind) as u8, message.payload.to_vec()));
            }
            Assembled::Other(ws::Event::Close(closing)) => close = closing.code,
            Assembled::Other(ws::Event::Ping(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(input.is_empty());
    (all, close)
}

fn check_websocket(name: &str, wire: &[u8], decoded: &Value) {
    let masked = wire[1] & 0x80 != 0;
    let (said, close) = messages(if masked { Role::Server } else { Role::Client }, wire);
    if let Some(code) = decoded["code"].as_u64() {
        assert_eq!(close.map(|code| u64::from(code.get())), Some(code), "{name}");
        let mut ours = BytesMut::new();
        ws::close(&mut ours, close, "", None);
        assert_eq!(ours, wire, "{name}");
        return;
    }
    let one = [decoded.clone()];
    let expected = decoded["ws_messages"].as_array().map_or(&one[..], Vec::as_slice);
    assert_eq!(said.len(), expected.len(), "{name}");
    for ((opcode, payload), expected) in said.iter().zip(expected) {
        assert_eq!(json!(opcode), expected["ws_opcode"], "{name}");
        if expected.get("channel").is_some() {
            check_frame(name, payload, expected);
        } else {
            check_payload(name, payload, expected);
        }
    }
}

#[test]
fn every_vector_is_read_as_it_says() {
    let all = vectors();
    assert_eq!(all.len(), 40);
    for Vector { name, bytes, decoded } in all {
        if name.starts_with("ws_") {
            check_websocket(&name, &bytes, &decoded);
        } else if decoded["kind"] == "handshake" {
            assert_eq!(json_of(&bytes), decoded["json"], "{name}");
        } else if decoded["result"] == "incomplete" {
            assert_eq!(frames(&bytes), Ok((Vec::new(), true)), "{name}");
        } else if decoded["result"] == "error" {
            assert_eq!(frames(&bytes), Err(UnknownType(bytes[4])), "{name}");
        } else if decoded["hex_truncated"] == true {
            check_longest(&bytes, &decoded);
        } else if let Some(expected) = decoded["frames"].as_array() {
            let (said, incomplete) = frames(&bytes).expect("known types");
            assert_eq!((said.len(), incomplete), (expected.len(), false), "{name}");
            for ((id, kind, payload), expected) in said.iter().zip(expected) {
                assert_eq!(json!([id, *kind as u8]), json!([expected["channel"], expected["type"]]), "{name}");
                check_payload(&name, payload, expected);
            }
        } else {
            check_frame(&name, &bytes, &decoded);
        }
    }
}

/// `http_response_body_max`: only its beginning and its digest are written down.
fn check_longest(beginning: &[u8], decoded: &Value) {
    let mut wire = frame::header(0x8000_0001, Kind::HttpResponse, u16::MAX).to_vec();
    wire.push(BODY);
    wire.resize(HEADER + 65_535, 0x41);
    assert_eq!(wire[..beginning.len()], *beginning);
    assert_eq!(json!(wire.len()), decoded["frame_len"]);
    assert_eq!(Sha256::digest(&wire)[..], unhex(&decoded["sha256"]));
    let (said, incomplete) = frames(&wire).expect("a known type");
    assert_eq!((said[0].2.len(), incomplete), (65_535, false));
}

#[test]
fn our_handshake_is_that_of_the_vectors() {
    let hello = vector("hello_json");
    let parsed = Hello::parse(&hello.bytes).expect("a hello");
    assert_eq!(json!(parsed.server_id), hello.decoded["json"]["server_id"]);
    assert_eq!(json!(parsed.enrollment_jwt), hello.decoded["json"]["enrollment_jwt"]);
    let ack = vector("hello_ack_json");
    let said = HelloAck {
        relay_session_id: "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee".parse().expect("an id"),
        tunnel_id: "99999999-8888-4777-8666-555555555555".parse().expect("an id"),
        caps: &[],
    };
    assert_eq!(json_of(&said.encode()), json_of(&ack.bytes));
}

#[test]
fn our_payloads_are_those_of_the_vectors() {
    let client = "cccccccc-0000-4000-8000-000000000001".parse().expect("an id");
    let session = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";
    for (name, payload) in [
        ("client_connect", channel::client_connect(client, "")),
        ("client_connect_ch_max", channel::client_connect(client, session)),
        ("client_disconnect", channel::client_disconnect(client)),
        ("disconnected", channel::disconnected(Reason::ServerClosed)),
        ("error_to_client", channel::unexpected_type()),
    ] {
        assert_eq!(json_of(&payload), vector(name).decoded["payload_json"], "{name}");
    }
}

/// What a tunnel says to a server that has said HELLO: payloads of frames, and of the ack.
fn open_tunnel(now: std::time::Instant) -> Tunnel {
    let mut tunnel = Tunnel::new(Config::default(), now);
    tunnel.receive(vector("hello_json").bytes, true, now).expect("a hello");
    assert!(matches!(tunnel.next_event(), Some(Event::Hello(_))));
    let tunnel_id = "99999999-8888-4777-8666-555555555555".parse().expect("an id");
    tunnel.accept(&HelloAck { relay_session_id: uuid::Uuid::nil(), tunnel_id, caps: &[] }, now);
    tunnel
}

fn said(tunnel: &mut Tunnel, now: std::time::Instant) -> Vec<(u8, Vec<u8>)> {
    let mut batch = Batch::new();
    tunnel.transmit(usize::MAX, now, &mut batch);
    messages(Role::Client, &batch.pieces().collect::<Vec<_>>().concat()).0
}

#[test]
fn a_tunnel_asks_as_the_vectors_do() {
    let now = std::time::Instant::now();
    let mut tunnel = open_tunnel(now);
    assert_eq!(said(&mut tunnel, now).len(), 1, "the ack");
    let names =
        ["http_request_single_get", "http_request_no_headers", "http_request_single_post", "http_request_chunk_head"];
    for (at, name) in names.into_iter().enumerate() {
        let vector = vector(name);
        let chunked = vector.decoded["tag"] == HEAD;
        let said_head = if chunked { &vector.decoded["head"] } else { &vector.decoded["payload_json"] };
        let text = |key: &str| said_head[key].as_str().expect("text").to_owned();
        let headers = said_head["headers"].as_object().expect("a map").iter();
        let head = RequestHead {
            method: text("method"),
            path: text("path"),
            query: text("query"),
            headers: headers.map(|(name, value)| (name.clone(), value.as_str().expect("text").into())).collect(),
        };
        let body = if chunked {
            vec![0x42; 70_000]
        } else {
            vector.decoded["body_text"].as_str().unwrap_or_default().as_bytes().to_vec()
        };
        let id = tunnel.request(&head.encode().expect("fine"), RequestBody::Whole(body.into()), now).expect("open");
        assert_eq!(id.get(), 0x8000_0001 + at as u32);
        let all: Vec<_> = said(&mut tunnel, now);
        assert!(all.iter().all(|(opcode, _)| *opcode == 2), "binary is required for some and safe for all");
        let all: Vec<_> = all.into_iter().map(|(_, message)| frames(&message).expect("ours").0.remove(0)).collect();
        assert_eq!((all[0].0, all[0].1), (id.get(), Kind::HttpRequest));
        check_payload(name, &all[0].2, &vector.decoded);
        if chunked {
            let lengths: Vec<_> = all[1..].iter().map(|(_, _, payload)| (payload[0], payload.len())).collect();
            assert_eq!(lengths, [(BODY, 65_535), (BODY, 70_000 - 65_534 + 1), (END, 1)]);
        } else {
            assert_eq!(all.len(), 1);
        }
    }
}

#[test]
fn a_tunnel_says_frames_byte_for_byte_as_the_vectors_do() {
    let now = std::time::Instant::now();
    let mut tunnel = open_tunnel(now);
    said(&mut tunnel, now);
    let client = "cccccccc-0000-4000-8000-000000000001".parse().expect("an id");
    let channel = tunnel.connect(client, "", now).expect("open");
    let mut bytes = Bytes::from_static(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    tunnel.write(channel, &mut bytes, now).expect("open");
    let head = RequestHead { method: "GET".into(), path: "/".into(), query: String::new(), headers: Vec::new() };
    let request = tunnel.request(&head.encode().expect("fine"), RequestBody::Whole(Bytes::new()), now).expect("open");
    let first = said(&mut tunnel, now);
    tunnel.release(request, now);
    tunnel.release(channel, now);
    let then = std::time::Instant::now() + Config::default().heartbeat;
    tunnel.on_time(then).expect("not silent");
    let later: Vec<_> = said(&mut tunnel, then).into_iter().map(|(_, message)| message).collect();
    let expected = ["heartbeat", "http_cancel_hub", "client_disconnect"];
    assert_eq!(later, expected.map(|name| vector(name).bytes));
    assert_eq!(first[0].1, vector("client_connect").bytes);
    assert!(first.iter().any(|(_, message)| *message == vector("data_http_get").bytes));
}

#[test]
fn a_live_tunnel_closes_at_the_vectors_that_are_no_frames() {
    for name in ["invalid_type_00", "invalid_type_13", "stray_hello_in_binary_mode"] {
        let now = std::time::Instant::now();
        let violation = open_tunnel(now).receive(vector(name).bytes, true, now).expect_err("closes");
        assert_eq!((violation.word(), violation.close_code()), ("invalid_frame", CloseCode::PROTOCOL), "{name}");
    }
}
