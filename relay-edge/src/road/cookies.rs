//! Our cookies, and keeping them ours.

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

/// The viewer ticket at a name.
pub(crate) const VIEWER: &str = "__Host-phlix-v";
/// State of a sign-in that is under way at a name.
pub(crate) const START: &str = "__Host-phlix-start";
/// The session at the hub.
pub(crate) const SESSION: &str = "__Host-phlix-s";

/// All of our cookies begin so, in any case that a server might fold.
const OURS: &str = "__host-phlix-";

fn is_ours(name: &str) -> bool {
    name.get(..OURS.len()).is_some_and(|start| start.eq_ignore_ascii_case(OURS))
}

/// The value of a cookie; `None` when it is not there or there more than once (somebody is playing tricks).
pub(crate) fn get<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut found = None;
    for value in headers.get_all(COOKIE) {
        for pair in value.to_str().ok()?.split(';') {
            if let Some((key, value)) = pair.trim().split_once('=')
                && key == name
                && found.replace(value).is_some()
            {
                return None;
            }
        }
    }
    found
}

/// Puts cookies that came in several fields, as HTTP/2 and HTTP/3 may have them, into one (RFC 9113 s.8.2.3).
pub(crate) fn join(headers: &mut HeaderMap) {
    let fields: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if fields.len() > 1
        && let Ok(value) = HeaderValue::from_bytes(&fields.join(&b"; "[..]))
    {
        headers.insert(COOKIE, value);
    }
}

/// Takes our cookies out of a request; what is left stays byte for byte, in one field (RFC 9113 s.8.2.3).
pub(crate) fn strip_request(headers: &mut HeaderMap) {
    let mut left: Vec<u8> = Vec::new();
    let fields: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
    if fields.is_empty() {
        return;
    }
    for field in &fields {
        for pair in field.as_bytes().split(|byte| *byte == b';') {
            let pair = pair.trim_ascii();
            let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
            let ours = std::str::from_utf8(name).is_ok_and(is_ours);
            if pair.is_empty() || ours {
                continue;
            }
            if !left.is_empty() {
                left.extend_from_slice(b"; ");
            }
            left.extend_from_slice(pair);
        }
    }
    headers.remove(COOKIE);
    if !left.is_empty()
        && let Ok(value) = HeaderValue::from_bytes(&left)
    {
        headers.insert(COOKIE, value);
    }
}

/// Keeps an origin's cookies on its own name: ours are dropped, and `Domain` is taken off the others.
pub(crate) fn strip_response(headers: &mut HeaderMap) {
    if !headers.contains_key(SET_COOKIE) {
        return;
    }
    let fields: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
    headers.remove(SET_COOKIE);
    for field in fields {
        let mut parts = field.as_bytes().split(|byte| *byte == b';');
        let pair = parts.next().unwrap_or_default();
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        // A cookie without a name whose value looks like "name=value" is sent as if it were that one.
        let nameless = pair.trim_ascii_start().starts_with(b"=");
        if nameless || std::str::from_utf8(name).is_ok_and(is_ours) {
            continue;
        }
        let mut kept = pair.to_vec();
        for attribute in parts {
            let key = attribute.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
            if !key.eq_ignore_ascii_case(b"domain") {
                kept.push(b';');
                kept.extend_from_slice(attribute);
            }
        }
        if let Ok(value) = HeaderValue::from_bytes(&kept) {
            headers.append(SET_COOKIE, value);
        }
    }
}

/// Sets one of our cookies for `seconds`.
pub(crate) fn set(name: &str, value: &str, seconds: i64) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={}", seconds.max(0)))
        .ok()
}

/// Takes one of our cookies back.
pub(crate) fn clear(name: &str) -> HeaderValue {
    set(name, "", 0).expect("our names are ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(name: http::HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn our_cookies_are_taken_out_and_the_others_pass_as_they_were() {
        let mut headers = map(
            COOKIE,
            &[
                "a=1; __Host-phlix-v=ticket; b=\"2 3\"",
                "__HOST-PHLIX-s=x",
                "c=4;__Host-phlix-start=y; d",
                "__Host-other=5",
            ],
        );
        strip_request(&mut headers);
        let left: Vec<_> = headers.get_all(COOKIE).iter().collect();
        assert_eq!(left, ["a=1; b=\"2 3\"; c=4; d; __Host-other=5"]);

        let mut headers = map(COOKIE, &["__Host-phlix-v=ticket"]);
        strip_request(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn an_origin_sets_cookies_for_its_own_name_alone() {
        let mut headers = map(
            SET_COOKIE,
            &[
                "sid=1; Path=/; Domain=.names.example; HttpOnly",
                "__Host-phlix-v=evil; Path=/; Secure",
                " __HOST-phlix-s =evil",
                "=__Host-phlix-v=evil; Path=/; Secure",
                "plain=2;domain=x;Secure",
            ],
        );
        strip_response(&mut headers);
        let left: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
        assert_eq!(left, ["sid=1; Path=/; HttpOnly", "plain=2;Secure"]);
    }

    #[test]
    fn a_cookie_that_is_there_twice_is_none() {
        let headers = map(COOKIE, &["a=1; __Host-phlix-v=x", "__Host-phlix-v=y"]);
        assert_eq!(get(&headers, VIEWER), None);
        assert_eq!(get(&headers, "a"), Some("1"));
    }
}
