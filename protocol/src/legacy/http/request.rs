//! A request's head and small body as a server reads them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::{HEAD, MAX_FIELDS, is_name, is_value};
use crate::legacy::frame::MAX_PAYLOAD;

/// Longest body that a server puts together; over it, it answers 413.
//= legacy-relay-wire s.2.2: 25 MiB (26 214 400) reassembled body
pub const MAX_REQUEST_BODY: u64 = 26_214_400;

/// Room that is kept in a chunked head for the Content-Length that is added, and the braces.
const CLOSING: usize = 40;

/// What is asked. The caller has taken out what may not pass, and put in who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    pub method: String,
    /// As the viewer wrote it, percent-encoding included.
    pub path: String,
    /// Without `?`.
    pub query: String,
    pub headers: Vec<(String, String)>,
}

/// Why a server can't be asked this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("the server does not take this method")]
    Method,
    #[error("the server does not take this path")]
    Path,
    #[error("the head does not fit into a frame")]
    TooLong,
}

impl RequestHead {
    /// Writes it, after the checks that the server makes (a request that fails them would be answered 400).
    ///
    /// Fields of one name are joined (RFC 9110 s.5.3). Left out: `Content-Length`, which is ours to say, and fields that
    /// JSON and PHP can't carry: a name that PHP takes for a number, control bytes in a value.
    pub fn encode(&self) -> Result<EncodedHead, RequestError> {
        let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        if !known.iter().any(|known| self.method.eq_ignore_ascii_case(known)) {
            return Err(RequestError::Method);
        }
        if !takes(&self.path) {
            return Err(RequestError::Path);
        }
        let long = self.path.len() + self.query.len() > MAX_PAYLOAD || self.headers.len() > MAX_FIELDS;
        if long {
            return Err(RequestError::TooLong);
        }
        let mut head = EncodedHead {
            json: Vec::with_capacity(512),
            bodiless: self.method.eq_ignore_ascii_case("HEAD"),
            fields: false,
            skipped: 0,
        };
        for (key, text) in [("{\"method\":", &self.method), (",\"path\":", &self.path), (",\"query\":", &self.query)] {
            head.json.extend_from_slice(key.as_bytes());
            write_text(&mut head.json, text);
        }
        head.json.extend_from_slice(b",\"headers\":{");
        for (at, (name, value)) in self.headers.iter().enumerate() {
            let same = |other: &&(String, String)| other.0.eq_ignore_ascii_case(name);
            if self.headers[..at].iter().any(|other| same(&other)) {
                continue;
            }
            let mut rest = self.headers[at + 1..].iter().filter(same).peekable();
            if rest.peek().is_none() {
                head.field(name, value);
            } else {
                let between = if name.eq_ignore_ascii_case("cookie") { "; " } else { ", " };
                let joined = rest.fold(value.clone(), |all, (_, value)| all + between + value);
                head.field(name, &joined);
            }
        }
        if head.json.len() + 1 + CLOSING > MAX_PAYLOAD { Err(RequestError::TooLong) } else { Ok(head) }
    }
}

/// A head in JSON, not yet closed: whether it becomes an envelope or a chunk depends on the body.
#[derive(Debug, Clone)]
pub struct EncodedHead {
    json: Vec<u8>,
    bodiless: bool,
    fields: bool,
    skipped: usize,
}

impl EncodedHead {
    /// Bytes of body that fit into the envelope.
    pub fn room(&self) -> usize {
        MAX_PAYLOAD.saturating_sub(self.json.len() + ENVELOPE.0.len() + ENVELOPE.1.len()) / 4 * 3
    }

    /// Header fields that could not be said.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// Whether the method is HEAD, whose answer has no body.
    pub fn bodiless(&self) -> bool {
        self.bodiless
    }

    /// The single frame's payload; `None` where the body does not fit.
    pub fn envelope(&self, body: &[u8]) -> Option<Bytes> {
        if body.len() > self.room() {
            return None;
        }
        let encoded = body.len().div_ceil(3) * 4;
        let mut all = Vec::with_capacity(self.json.len() + ENVELOPE.0.len() + encoded + ENVELOPE.1.len());
        all.extend_from_slice(&self.json);
        all.extend_from_slice(ENVELOPE.0);
        let start = all.len();
        all.resize(start + encoded, 0);
        let wrote = STANDARD.encode_slice(body, &mut all[start..]).expect("the room is the length of the text");
        debug_assert_eq!(wrote, encoded);
        all.extend_from_slice(ENVELOPE.1);
        Some(all.into())
    }

    /// The payload of a chunked request's first frame, its tag included.
    pub fn chunk(&self, length: Option<u64>) -> Bytes {
        let mut all = Vec::with_capacity(1 + self.json.len() + CLOSING);
        all.push(HEAD);
        all.extend_from_slice(&self.json);
        if let Some(length) = length {
            let comma = if self.fields { "," } else { "" };
            all.extend_from_slice(format!("{comma}\"Content-Length\":\"{length}\"").as_bytes());
        }
        all.extend_from_slice(b"}}");
        all.into()
    }

    fn field(&mut self, name: &str, value: &str) {
        if name.eq_ignore_ascii_case("content-length") {
            return;
        }
        if !is_name(name) || is_number(name) || !is_value(value) {
            self.skipped += 1;
            return;
        }
        if std::mem::replace(&mut self.fields, true) {
            self.json.push(b',');
        }
        write_text(&mut self.json, name);
        self.json.push(b':');
        write_text(&mut self.json, value);
    }
}

/// What stands before and after the body of an envelope.
const ENVELOPE: (&[u8], &[u8]) = (b"},\"body\":\"", b"\"}");

/// Whether PHP makes a number of an array's key.
fn is_number(name: &str) -> bool {
    let digits = name.strip_prefix('-').unwrap_or(name);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("text is JSON, and memory takes it");
}

/// The server's gate (legacy-relay-wire s.2.2).
fn takes(path: &str) -> bool {
    path.starts_with('/') && !path.starts_with("//") && clean(path.as_bytes()) && clean(&decoded(path.as_bytes()))
}

fn clean(path: &[u8]) -> bool {
    let has = |text: &[u8]| path.windows(text.len()).any(|window| window == text);
    !path.iter().any(|byte| *byte < 0x20 || matches!(byte, b'\\' | b'?' | b'#')) && !has(b"..") && !has(b"://")
}

/// One percent-decoding; what is no escape stays.
fn decoded(path: &[u8]) -> Vec<u8> {
    let digit = |at: usize| path.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(path.len());
    let mut at = 0;
    while let Some(byte) = path.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> RequestHead {
        RequestHead {
            method: method.into(),
            path: path.into(),
            query: "a=1&b=\"2\"".into(),
            headers: headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        }
    }

    fn parsed(payload: &[u8]) -> Value {
        serde_json::from_slice(payload).expect("JSON")
    }

    #[test]
    fn an_envelope_holds_as_much_as_it_says() {
        let head = head("POST", "/x", &[("Accept", "*/*")]).encode().expect("fine");
        let most = head.room();
        let payload = head.envelope(&vec![7; most]).expect("it fits");
        assert!((MAX_PAYLOAD - 3..=MAX_PAYLOAD).contains(&payload.len()));
        assert_eq!(head.envelope(&vec![7; most + 1]), None);
        let said = parsed(&payload);
        let body = said["body"].as_str().expect("text");
        assert_eq!(STANDARD.decode(body).expect("strict base64"), vec![7; most]);
        assert_eq!(said["headers"], json!({"Accept": "*/*"}));
        assert_eq!(said["query"], "a=1&b=\"2\"");
    }

    #[test]
    fn a_chunked_head_says_the_length_where_it_is_known() {
        for (headers, rest) in [(&[("Content-Length", "9"), ("A", "b")][..], json!({"A": "b"})), (&[], json!({}))] {
            let head = head("PUT", "/x", headers).encode().expect("fine");
            let chunk = head.chunk(None);
            assert_eq!((chunk[0], &parsed(&chunk[1..])["headers"]), (HEAD, &rest));
            let mut with = rest.clone();
            with["Content-Length"] = "70000".into();
            assert_eq!(parsed(&head.chunk(Some(70_000))[1..])["headers"], with);
        }
    }

    #[test]
    fn what_this_wire_cannot_say_is_joined_or_skipped() {
        let headers = [
            ("Accept", "a"),
            ("123", "PHP makes a list of it"),
            ("-5", "and of this"),
            ("X-A", "line\r\nbreak"),
            ("accept", "b"),
            ("a:b", "no name"),
            ("", "no name"),
            ("X-B", "nul\0"),
            ("X-C", "tab\tis fine"),
            ("Cookie", "a=1"),
            ("Cookie", "b=2"),
        ];
        let head = head("get", "/x", &headers).encode().expect("fine");
        assert_eq!(head.skipped(), 6);
        let said = parsed(&head.envelope(b"").expect("it fits"));
        assert_eq!(said["headers"], json!({"Accept": "a, b", "X-C": "tab\tis fine", "Cookie": "a=1; b=2"}));
        assert_eq!(said["body"], "");
    }

    #[test]
    fn what_the_server_would_refuse_is_not_sent() {
        for method in ["CONNECT", "TRACE", "", "GET ", "PROPFIND"] {
            assert_eq!(head(method, "/x", &[]).encode().err(), Some(RequestError::Method), "{method}");
        }
        for path in [
            "",
            "x",
            "//x",
            "http://x/",
            "/a/../b",
            "/a..b",
            "/a%2e%2e/b",
            "/a%2E./b",
            "/a\\b",
            "/a%5cb",
            "/a\0",
            "/a%00",
            "/a%1fb",
            "/a://b",
            "/a%3a//b",
            "/a?b",
            "/a%3fb",
            "/a#b",
            "/a%23b",
            "/a\nb",
        ] {
            assert_eq!(head("GET", path, &[]).encode().err(), Some(RequestError::Path), "{path}");
        }
        for path in ["/", "/a//b", "/a%252e%252e", "/%", "/%4", "/%zz", "/ä", "/a.b:c"] {
            assert!(head("PATCH", path, &[]).encode().is_ok(), "{path}");
        }
    }

    #[test]
    fn a_head_that_no_frame_can_hold_is_refused() {
        let long = "x".repeat(70_000);
        assert_eq!(head("GET", "/x", &[("A", &long)]).encode().err(), Some(RequestError::TooLong));
        // Six bytes of JSON for each byte.
        let controls = "/".to_owned() + &"\u{7f}".repeat(100);
        assert!(head("GET", &controls, &[]).encode().is_ok());
        let many = vec![("A", "b"); MAX_FIELDS + 1];
        assert_eq!(head("GET", "/x", &many).encode().err(), Some(RequestError::TooLong));
        let fits = "x".repeat(MAX_PAYLOAD - 200);
        let head = head("GET", "/x", &[("A", &fits)]).encode().expect("it fits");
        assert!(head.chunk(Some(u64::MAX)).len() <= MAX_PAYLOAD);
        assert!(head.envelope(b"").is_some());
    }
}
