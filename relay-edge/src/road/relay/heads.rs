//! Heads on a legacy tunnel: fields as one map of strings, with the viewer's identity stamped by us. Pure.
//!
//! The media server takes `X-Phlix-Relay-User` for the user who asks and trusts it: so every client's word that could be
//! taken for it, or for any other of ours, is dropped, in every spelling, before ours is written.
//= legacy-relay-wire s.2.2, s.3.3; trust s.4.1

use std::net::IpAddr;

use http::header::{CONTENT_LENGTH, HeaderName, SET_COOKIE};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use phlix_protocol::ids::UserId;

use super::super::headers;

/// A request's fields for the server.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) fields: Vec<(String, String)>,
    /// So many can't be said on this wire, and were left out.
    pub(crate) unspeakable: u64,
}

/// What stays here beside what ends at each hop: the viewer's credentials for the hub, and what the server hears from the
/// wire's own head.
fn is_dropped(name: &str) -> bool {
    name.starts_with("proxy-")
        || matches!(
            name,
            "host"
                | "content-length"
                | "trailer"
                | "expect"
                | "authorization"
                | "cookie"
                | "cookie2"
                | "http2-settings"
        )
}

/// Fields of clients' own that begin like ours.
fn is_device(name: &str) -> bool {
    matches!(name, "x-phlix-device-id" | "x-phlix-device-name" | "x-phlix-device-type" | "x-phlix-session-id")
}

/// A name as the most lenient server could read it: whatever is no letter or digit is one sign (CGI's `HTTP_…`).
fn folded(name: &str) -> String {
    name.chars().map(|sign| if sign.is_ascii_alphanumeric() { sign.to_ascii_lowercase() } else { '-' }).collect()
}

/// Whether PHP makes a number of a name: it would be no key of strings any more, and the whole request refused.
fn is_number(name: &str) -> bool {
    let digits = name.strip_prefix('-').unwrap_or(name);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// A viewer's fields, as the server gets them, with ours.
pub(crate) fn request(headers: &HeaderMap, user: UserId, address: IpAddr) -> Fields {
    let mut kept = headers.clone();
    headers::strip_hop_by_hop(&mut kept);
    let mut out = Fields::default();
    for name in kept.keys() {
        let folded = folded(name.as_str());
        if is_dropped(&folded) || (headers::is_identity(&folded) && !is_device(name.as_str())) {
            continue;
        }
        let values: Result<Vec<&str>, _> =
            kept.get_all(name).iter().map(|value| std::str::from_utf8(value.as_bytes())).collect();
        match values {
            // A map has one value a name: a list says the same (RFC 9110 s.5.3).
            Ok(values) if !is_number(name.as_str()) => out.fields.push((name.as_str().to_owned(), values.join(", "))),
            _ => out.unspeakable += 1,
        }
    }
    let address = address.to_canonical().to_string();
    for (name, value) in
        [("X-Phlix-Relay", "1".to_owned()), ("X-Phlix-Relay-User", user.to_string()), ("X-Forwarded-For", address)]
    {
        out.fields.push((name.to_owned(), value));
    }
    out
}

/// A viewer's fields for an upgrade at the server's own port, past its relay: nobody is vouched for there, so no credential
/// and no identity goes along, only where the viewer is.
pub(super) fn upgrade(headers: &mut HeaderMap, viewer: &headers::Viewer<'_>) {
    let dropped: Vec<HeaderName> = headers.keys().filter(|name| is_dropped(&folded(name.as_str()))).cloned().collect();
    for name in dropped {
        headers.remove(name);
    }
    headers::for_origin(headers, viewer);
}

/// A server's answer before its head goes on: no field of one hop, no length but the right one. Says how many cookies
/// beyond one were dropped; the wire can't carry them anyhow.
pub(crate) fn answer(head: &mut Parts, method: &Method, length: Option<u64>) -> u64 {
    headers::from_origin(&mut head.headers);
    let declared = declared_length(&head.headers);
    let without_body = *method == Method::HEAD || head.status == StatusCode::NOT_MODIFIED;
    // Of an answer without a body it is the length that another one would have.
    let right = match declared {
        Some(_) if head.status == StatusCode::NO_CONTENT => false,
        Some(_) if without_body => true,
        Some(declared) => length == Some(declared),
        None => false,
    };
    if !right {
        head.headers.remove(CONTENT_LENGTH);
    }
    keep_last(&mut head.headers, &SET_COOKIE)
}

/// The one length that a head says.
fn declared_length(headers: &HeaderMap) -> Option<u64> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let (length, more) = (lengths.next()?, lengths.next());
    let text = length.to_str().ok().filter(|text| more.is_none() && text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok()
}

/// Keeps the last of several; says how many are gone.
fn keep_last(headers: &mut HeaderMap, name: &HeaderName) -> u64 {
    let values: Vec<HeaderValue> = headers.get_all(name).iter().cloned().collect();
    let Some((last, others)) = values.split_last() else { return 0 };
    if !others.is_empty() {
        headers.insert(name, last.clone());
    }
    others.len() as u64
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;

    fn map(fields: &[(&str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn user() -> UserId {
        UserId::new(uuid::Uuid::from_u128(7))
    }

    fn sent(fields: &[(&str, &[u8])]) -> Fields {
        let mut sent = request(&map(fields), user(), "::ffff:192.0.2.7".parse().unwrap());
        sent.fields.sort();
        sent
    }

    const STAMPED: [(&str, &str); 3] = [
        ("X-Forwarded-For", "192.0.2.7"),
        ("X-Phlix-Relay", "1"),
        ("X-Phlix-Relay-User", "00000000-0000-0000-0000-000000000007"),
    ];

    /// What is sent beside the stamps.
    fn beside(fields: &[(&str, &[u8])]) -> Vec<(String, String)> {
        let mut sent = sent(fields).fields;
        for (name, value) in STAMPED {
            let at = sent.iter().position(|(sent, _)| sent == name).expect(name);
            assert_eq!(sent.remove(at).1, value);
        }
        sent
    }

    #[test]
    fn who_asks_only_we_say_in_any_spelling() {
        for name in [
            "x-phlix-relay",
            "x-phlix-relay-user",
            "X-Phlix-Relay-User",
            "X-PHLIX-RELAY-USER",
            "x_phlix_relay_user",
            "x-phlix_relay-user",
            "x.phlix.relay.user",
            "x~phlix|relay^user",
            "x-phlix-relay-anything",
            "x_phlix_relay",
            "x-phlix-ticket",
            "x-phlix-edge",
            "x-phlix-proof",
            "x_phlix_ticket",
            "x-forwarded-for",
            "x_forwarded_for",
            "X-Forwarded-Host",
            "x-forwarded-proto",
            "x-forwarded-anything",
            "forwarded",
            "x-real-ip",
            "x_real_ip",
            "true-client-ip",
            "authorization",
            "Authorization",
            "proxy-authorization",
            "proxy-connection",
            "proxy-anything",
            "cookie",
        ] {
            assert_eq!(beside(&[(name, b"admin")]), [], "{name}");
        }
    }

    #[test]
    fn what_concerns_one_hop_stays_and_the_rest_passes_word_for_word() {
        let fields = beside(&[
            ("host", b"hub.example"),
            ("content-length", b"5"),
            ("connection", b"close, x-hop, x-phlix-relay-user"),
            ("x-hop", b"1"),
            ("keep-alive", b"timeout=5"),
            ("te", b"trailers"),
            ("trailer", b"digest"),
            ("transfer-encoding", b"chunked"),
            ("upgrade", b"h2c"),
            ("http2-settings", b"AAA"),
            ("expect", b"100-continue"),
            ("range", b"bytes=0-0,-1"),
            ("if-range", b"\"v1\""),
            ("accept", b"*/*"),
            ("user-agent", "Küche/1".as_bytes()),
            ("x-phlix-device-id", b"tv"),
            ("x-phlix-device-name", b"TV"),
            ("x-phlix-device-type", b"tizen"),
            ("x-phlix-session-id", b"s"),
            ("x-server-id", b"1"),
            ("content-type", b"application/json"),
        ]);
        let wanted: Vec<(String, String)> = [
            ("accept", "*/*"),
            ("content-type", "application/json"),
            ("if-range", "\"v1\""),
            ("range", "bytes=0-0,-1"),
            ("user-agent", "Küche/1"),
            ("x-phlix-device-id", "tv"),
            ("x-phlix-device-name", "TV"),
            ("x-phlix-device-type", "tizen"),
            ("x-phlix-session-id", "s"),
            ("x-server-id", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        assert_eq!(fields, wanted);
    }

    #[test]
    fn several_values_of_a_name_are_one_list() {
        let fields = beside(&[("accept", b"a"), ("accept", b"b;q=0.5"), ("accept-language", b"de")]);
        assert_eq!(fields, [("accept".into(), "a, b;q=0.5".into()), ("accept-language".into(), "de".to_owned())]);
    }

    #[test]
    fn what_the_wire_cant_say_is_left_out_and_counted() {
        let sent = sent(&[
            ("123", b"x"),
            ("0", b"x"),
            ("-5", b"x"),
            ("x-latin", b"K\xfcche"),
            ("1a", b"kept"),
            ("x-half", b"\xc3"),
        ]);
        assert_eq!(sent.unspeakable, 5);
        assert!(sent.fields.contains(&("1a".into(), "kept".into())));
        assert_eq!(sent.fields.len(), 1 + STAMPED.len());
    }

    fn answered(method: &str, status: u16, fields: &[(&str, &[u8])], length: Option<u64>) -> (HeaderMap, u64) {
        let mut response = Response::builder().status(status).body(()).unwrap();
        *response.headers_mut() = map(fields);
        let mut head = response.into_parts().0;
        let dropped = answer(&mut head, &method.parse().unwrap(), length);
        (head.headers, dropped)
    }

    #[test]
    fn an_answers_length_stays_only_where_it_is_right() {
        let length = |method: &str, status: u16, declared: &[u8], actual: Option<u64>| {
            let (headers, _) = answered(method, status, &[("content-length", declared)], actual);
            headers.get(CONTENT_LENGTH).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(length("GET", 200, b"5", Some(5)).as_deref(), Some("5"));
        assert_eq!(length("GET", 206, b"5", Some(5)).as_deref(), Some("5"));
        assert_eq!(length("HEAD", 200, b"5", Some(0)).as_deref(), Some("5"));
        assert_eq!(length("GET", 304, b"5", Some(0)).as_deref(), Some("5"));
        assert_eq!(length("GET", 200, b"5", Some(6)), None);
        assert_eq!(length("GET", 200, b"5", None), None);
        assert_eq!(length("GET", 204, b"0", Some(0)), None);
        for odd in [&b"+5"[..], b"5, 5", b"five", b"", b"99999999999999999999999"] {
            assert_eq!(length("HEAD", 200, odd, Some(0)), None, "{odd:?}");
            assert_eq!(length("GET", 200, odd, Some(5)), None, "{odd:?}");
        }
        let (headers, _) = answered("HEAD", 200, &[("content-length", b"5"), ("content-length", b"6")], Some(0));
        assert!(!headers.contains_key(CONTENT_LENGTH));
    }

    #[test]
    fn an_answers_fields_of_one_hop_stay_here() {
        let (headers, dropped) = answered(
            "GET",
            200,
            &[
                ("connection", b"keep-alive, x-hop"),
                ("keep-alive", b"timeout=5"),
                ("transfer-encoding", b"chunked"),
                ("x-hop", b"1"),
                ("trailer", b"content-length"),
                ("upgrade", b"h2c"),
                ("alt-svc", b"h3=\":1\""),
                ("etag", b"\"x\""),
                ("content-range", b"bytes 0-4/9"),
                ("accept-ranges", b"bytes"),
                ("set-cookie", b"a=1; Domain=names.example"),
                ("set-cookie", b"__Host-phlix-v=evil; Path=/; Secure"),
                ("set-cookie", b"b=2"),
            ],
            None,
        );
        let wanted = map(&[
            ("etag", b"\"x\""),
            ("content-range", b"bytes 0-4/9"),
            ("accept-ranges", b"bytes"),
            ("set-cookie", b"b=2"),
        ]);
        assert_eq!(headers, wanted);
        assert_eq!(dropped, 1, "ours was none of the server's");
    }
}
