//! What a raw client says in its handshake: at which server, and by which token (legacy-relay-wire s.3.2).

use phlix_protocol::ids::ServerId;

use super::handshake::{Asked, No, Welcome};
use crate::road::paths;

/// The subprotocol that browsers name beside their token: they can't send `Authorization`.
const BEARER: &str = "bearer";

/// Who wants to be mounted.
#[derive(PartialEq, Eq)]
pub(super) struct Client {
    /// `None`: what stands there is no server's id.
    pub(super) server: Option<ServerId>,
    pub(super) token: Option<String>,
}

/// Reads a request; the path is judged before all else.
pub(super) fn client(request: &Asked<'_, '_>) -> Result<Welcome<Client>, No> {
    let target = request.path.unwrap_or_default();
    // A token in the query would be in everybody's logs: nothing of it is read.
    let path = target.split('?').next().unwrap_or_default();
    let segment = path.strip_prefix("/client/").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    let segment = segment.filter(|segment| !segment.is_empty() && !segment.contains('/'));
    let segment = segment.ok_or(No::NotHere("Clients connect to /client/ and a server's id.\n"))?;
    let server = String::from_utf8(paths::decode(segment.as_bytes())).ok().and_then(|text| text.trim().parse().ok());

    let values = |name: &'static str| {
        let fields = request.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        fields.filter_map(|field| std::str::from_utf8(field.value).ok())
    };
    let by_header = values("authorization").find_map(|value| {
        let (scheme, token) = value.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case(BEARER).then(|| token.trim())
    });
    let offered = || values("sec-websocket-protocol").flat_map(|value| value.split(',')).map(str::trim);
    let by_subprotocol = || offered().find(|word| !word.is_empty() && *word != BEARER);
    let token = by_header.or_else(by_subprotocol).map(str::to_owned);
    // Browsers refuse an answer without one of those that they offered, and one with another.
    let subprotocol = offered().any(|word| word == BEARER).then_some(BEARER);
    Ok(Welcome { asked: Client { server, token }, subprotocol })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "99999999-9999-4999-8999-999999999999";

    fn read(target: &str, fields: &[(&str, &str)]) -> Option<(bool, Option<String>, Option<&'static str>)> {
        let mut headers: Vec<httparse::Header<'_>> =
            fields.iter().map(|(name, value)| httparse::Header { name, value: value.as_bytes() }).collect();
        let request =
            httparse::Request { method: Some("GET"), path: Some(target), version: Some(1), headers: &mut headers };
        let welcome = client(&request).ok()?;
        Some((welcome.asked.server.is_some(), welcome.asked.token, welcome.subprotocol))
    }

    #[test]
    fn one_segment_is_a_server_however_it_is_written() {
        for target in ["", "/", "?x=1", "/?x=1", "%20", "/?token=a"].map(|end| format!("/client/{ID}{end}")) {
            assert_eq!(read(&target, &[]), Some((true, None, None)), "{target}");
        }
        assert_eq!(read(&format!("/client/{}", ID.replace('9', "%39")), &[]), Some((true, None, None)));
        assert_eq!(read("/client/somebody", &[]), Some((false, None, None)));
        for target in ["/", "/client", "/client/", "/client//", "/clients/x", "/client/a/b", "*", "client/x"] {
            assert_eq!(read(target, &[]), None, "{target}");
        }
    }

    #[test]
    fn the_token_is_in_a_field_or_among_subprotocols() {
        let target = format!("/client/{ID}?token=query");
        for (fields, token, subprotocol) in [
            (&[("Authorization", "Bearer abc")][..], Some("abc"), None),
            (&[("authorization", "bearer  abc ")], Some("abc"), None),
            (&[("Authorization", "Basic abc")], None, None),
            (&[("Authorization", "abc")], None, None),
            (&[("Sec-WebSocket-Protocol", "bearer, abc")], Some("abc"), Some("bearer")),
            (
                &[("Sec-WebSocket-Protocol", "bearer"), ("sec-websocket-protocol", "abc,def")],
                Some("abc"),
                Some("bearer"),
            ),
            (&[("Sec-WebSocket-Protocol", "abc")], Some("abc"), None),
            (&[("Sec-WebSocket-Protocol", "bearer")], None, Some("bearer")),
            (
                &[("Authorization", "Bearer abc"), ("Sec-WebSocket-Protocol", "bearer, def")],
                Some("abc"),
                Some("bearer"),
            ),
        ] {
            assert_eq!(read(&target, fields), Some((true, token.map(str::to_owned), subprotocol)), "{fields:?}");
        }
    }
}
