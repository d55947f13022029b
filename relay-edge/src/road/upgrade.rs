//! WebSockets: an upgrade that the origin grants becomes a stream of bytes both ways.
//!
//! To the origin it is always HTTP/1.1's upgrade (RFC 6455), whatever the viewer speaks: that, or an Extended CONNECT
//! (RFC 8441 over HTTP/2, RFC 9220 over HTTP/3), for which the edge makes the key itself. The origin gets no byte of the
//! viewer's stream before it has said 101 with the right accept key.
//= trust s.4.4

use std::sync::Arc;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use phlix_protocol::b64;
use phlix_protocol::hostname::Hostname;
use phlix_protocol::native::stream::{ResetCode, StreamHeader};
use phlix_protocol::ws::handshake;

use super::carry::{self, Errand};
use super::headers;
use super::live::Listed;
use super::refusal::{Refusal, malformed};
use super::splice::Splice;
use crate::body::{self, Body, ViewerBody};
use crate::random;
use crate::tunnels::activity::Activity;
use crate::tunnels::{Answered, Tunnel};

/// How a viewer asks for a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// `Upgrade` in HTTP/1.1: the viewer's key goes to the origin, and the origin's answer to the viewer.
    Upgrade,
    /// An Extended CONNECT, which has no key.
    Connect,
}

/// Whether a request asks for a WebSocket, and how; what asks for another protocol is refused.
pub(crate) fn asked(head: &Parts) -> Result<Option<Way>, Refusal> {
    let refused = |message| Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "upgrade.unsupported", message));
    if head.method == Method::CONNECT {
        return match head.extensions.get::<hyper::ext::Protocol>().map(hyper::ext::Protocol::as_str) {
            Some("websocket") => Ok(Some(Way::Connect)),
            Some(_) => refused("Only WebSockets can be connected to here."),
            None => Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "method.unsupported", "This is no proxy.")),
        };
    }
    // h2c is an offer that may be passed over (RFC 9110 s.7.8); anything else the sender counts on.
    let mut tokens =
        head.headers.get_all(UPGRADE).iter().filter(|value| !value.as_bytes().eq_ignore_ascii_case(b"h2c"));
    let Some(token) = tokens.next() else { return Ok(None) };
    let bodyless = !head.headers.contains_key(TRANSFER_ENCODING)
        && head.headers.get_all(CONTENT_LENGTH).iter().all(|length| length == "0");
    let granted = tokens.next().is_none()
        && token.as_bytes().eq_ignore_ascii_case(b"websocket")
        && head.method == Method::GET
        && head.version == Version::HTTP_11
        && has_token(&head.headers, CONNECTION, "upgrade")
        && bodyless;
    if granted { Ok(Some(Way::Upgrade)) } else { refused("Connections can't be upgraded so here.") }
}

/// One upgrade, as far as both ends must agree on it.
pub(super) struct Handshake {
    way: Way,
    /// The viewer's, or one that we made for it.
    key: String,
}

impl Handshake {
    pub(super) fn begin(way: Way, headers: &HeaderMap, incoming: &ViewerBody) -> Result<Self, Refusal> {
        if !incoming.is_end_stream() {
            return Err(malformed("An upgrade has no body."));
        }
        let key = match way {
            Way::Upgrade => key_of(headers)?,
            Way::Connect => handshake::key(random::bytes()),
        };
        Ok(Self { way, key })
    }

    /// Makes a head whose fields are for an origin ask it for the upgrade.
    pub(super) fn ask(&self, head: &mut Parts) {
        for gone in [EXPECT, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT] {
            head.headers.remove(gone);
        }
        head.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        head.headers.entry(SEC_WEBSOCKET_VERSION).or_insert(HeaderValue::from_static("13"));
        if let Ok(key) = HeaderValue::try_from(&self.key) {
            head.headers.insert(SEC_WEBSOCKET_KEY, key);
        }
        head.extensions.clear();
        head.method = Method::GET;
        head.version = Version::HTTP_11;
    }

    /// The viewer's answer, where a 101 with these fields is the one to our request.
    pub(super) fn grant(&self, granted: HeaderMap) -> Option<Response<Body>> {
        if !is_granted(&granted, &self.key) {
            return None;
        }
        let mut answer = Response::new(body::empty());
        *answer.headers_mut() = granted;
        let headers = answer.headers_mut();
        headers::from_origin(headers);
        headers.remove(CONTENT_LENGTH);
        match self.way {
            Way::Upgrade => {
                headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            }
            Way::Connect => drop(headers.remove(SEC_WEBSOCKET_ACCEPT)),
        }
        Some(answer)
    }

    /// Whether the viewer would take a status that is no 101 for a grant.
    pub(super) fn is_misled_by(&self, status: StatusCode) -> bool {
        self.way == Way::Connect && status.is_success()
    }
}

/// Another site's page asks.
pub(super) fn cross_site() -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "request.cross_site", "Another site may not open a WebSocket in your name.")
}

/// Carries an upgrade. Granted, the answer has the [`Splice`] with it; else it is an answer like any other.
pub(super) async fn upgrade(
    tunnel: &Arc<Tunnel>,
    mut head: Parts,
    incoming: ViewerBody,
    way: Way,
    errand: Errand<'_>,
    listed: Listed,
    activity: Arc<Activity>,
) -> Result<Response<Body>, Refusal> {
    let handshake = Handshake::begin(way, &head.headers, &incoming)?;
    if !is_from_here(&head, errand.said.host) {
        return Err(cross_site());
    }
    // What an origin says in a WebSocket knows no libraries.
    if errand.viewer.is_some_and(|viewer| !viewer.claims.libs.is_all()) {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "upgrade.not_allowed",
            "What was shared with you has no WebSockets.",
        ));
    }
    headers::for_origin(&mut head.headers, &errand.said);
    head.uri = carry::origin_form(&head)?;
    handshake.ask(&mut head);
    activity.set_request_sent();

    let header = StreamHeader::http(errand.host.clone(), errand.viewer.map(|viewer| viewer.ticket.clone()));
    let request = Request::from_parts(head, body::empty());
    let answered = tunnel
        .upgrade(carry::pool_key(&errand), header, request, &activity)
        .await
        .map_err(|error| carry::explain(&error, errand.viewer.is_some()))?;
    let (head, socket) = match answered {
        Answered::Switched(head, socket) => (head, socket),
        // What a viewer takes for a grant must be one.
        Answered::Not(response) if handshake.is_misled_by(response.status()) => return Err(carry::broken_off()),
        Answered::Not(response) => return Ok(carry::answer(response, listed, None)),
    };
    let Some(mut answer) = handshake.grant(head.headers) else {
        activity.set_reset(ResetCode::OriginFailed);
        return Err(carry::broken_off());
    };
    Splice::new(Box::new(socket), listed, activity, errand.taken).put(&mut answer);
    Ok(answer)
}

/// Whether the page that asks, if it is one, is this name's own. A program says no origin.
pub(super) fn is_from_here(head: &Parts, name: &str) -> bool {
    let mut origins = head.headers.get_all(ORIGIN).iter();
    let (origin, more) = (origins.next(), origins.next());
    let Some(origin) = origin else { return true };
    let Some(origin) = origin.to_str().ok().and_then(|origin| origin.strip_prefix("https://")) else { return false };
    let Some(origin) = place(origin).filter(|_| more.is_none()) else { return false };
    // As the viewer spelled it, too: the port may be another one outside.
    let asked = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let asked = asked.or_else(|| head.uri.authority().map(http::uri::Authority::as_str));
    place(name).as_ref() == Some(&origin) || asked.and_then(place) == Some(origin)
}

/// Host and port of an `https` authority.
fn place(authority: &str) -> Option<(Hostname, u16)> {
    let host = Hostname::from_authority(authority).ok()?;
    let port = match authority.rsplit_once(':') {
        Some((_, port)) => port.parse().ok()?,
        None => 443,
    };
    Some((host, port))
}

/// The viewer's key: one, and 16 bytes in base64.
fn key_of(headers: &HeaderMap) -> Result<String, Refusal> {
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let (key, more) = (keys.next(), keys.next());
    let key = key.filter(|_| more.is_none()).and_then(|key| key.to_str().ok());
    key.filter(|key| is_key(key)).map(str::to_owned).ok_or_else(|| malformed("Sec-WebSocket-Key is no key."))
}

fn is_key(key: &str) -> bool {
    let digits = key.strip_suffix("==").map(|digits| digits.replace('+', "-").replace('/', "_"));
    digits.is_some_and(|digits| b64::decode_array::<16>(&digits).is_some())
}

/// Whether a 101 is the one to our request.
fn is_granted(headers: &HeaderMap, key: &str) -> bool {
    let mut accepts = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
    let (accept, more) = (accepts.next(), accepts.next());
    accept.is_some_and(|accept| accept.as_bytes() == handshake::accept_key(key).as_bytes())
        && more.is_none()
        && has_token(headers, UPGRADE, "websocket")
        && has_token(headers, CONNECTION, "upgrade")
}

fn has_token(headers: &HeaderMap, name: http::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name);
    let mut tokens = values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    tokens.any(|value| value.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn head(method: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri("/socket");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn only_a_get_becomes_a_websocket() {
        let (connection, websocket) = (("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket"));
        assert_eq!(asked(&head("GET", &[])).unwrap(), None);
        assert_eq!(asked(&head("GET", &[("upgrade", "h2c")])).unwrap(), None);
        assert_eq!(asked(&head("GET", &[connection, websocket])).unwrap(), Some(Way::Upgrade));
        for (method, fields) in [
            ("POST", &[connection, websocket][..]),
            ("GET", &[websocket]),
            ("GET", &[connection, ("upgrade", "websocket, h2c")]),
            ("GET", &[connection, websocket, websocket]),
            ("GET", &[connection, websocket, ("content-length", "1")]),
            ("GET", &[connection, websocket, ("transfer-encoding", "chunked")]),
            ("GET", &[connection, ("upgrade", "tls/1.3")]),
            ("CONNECT", &[]),
        ] {
            assert_eq!(asked(&head(method, fields)).unwrap_err().status, StatusCode::NOT_IMPLEMENTED, "{fields:?}");
        }
        let mut connect = head("CONNECT", &[]);
        connect.extensions.insert(hyper::ext::Protocol::from_static("websocket"));
        assert_eq!(asked(&connect).unwrap(), Some(Way::Connect));
        connect.extensions.insert(hyper::ext::Protocol::from_static("connect-udp"));
        assert!(asked(&connect).is_err());
    }

    #[test]
    fn a_page_of_another_place_opens_no_websocket() {
        let from = |origins: &[&str]| {
            let fields: Vec<_> = std::iter::once(("host", "ab.names.example"))
                .chain(origins.iter().map(|origin| ("origin", *origin)))
                .collect();
            is_from_here(&head("GET", &fields), "ab.names.example:8443")
        };
        assert!(from(&[]));
        assert!(from(&["https://ab.names.example:8443"]));
        assert!(from(&["https://AB.names.example"]), "as the viewer spelled it");
        assert!(from(&["https://ab.names.example:443"]));
        for origin in [
            "https://cd.names.example",
            "http://ab.names.example",
            "https://ab.names.example:9443",
            "https://ab.names.example.evil",
            "null",
            "",
        ] {
            assert!(!from(&[origin]), "{origin}");
        }
        assert!(!from(&["https://ab.names.example", "https://ab.names.example"]));
    }

    #[test]
    fn a_grant_is_one_to_our_own_key() {
        let granted = |fields: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, value.parse().unwrap());
            }
            is_granted(&headers, KEY)
        };
        let (connection, upgrade) = (("connection", "upgrade"), ("upgrade", "websocket"));
        let accept = ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(granted(&[connection, upgrade, accept]));
        assert!(!granted(&[connection, upgrade]));
        assert!(!granted(&[connection, accept]));
        assert!(!granted(&[upgrade, accept]));
        assert!(!granted(&[connection, upgrade, accept, accept]));
        assert!(!granted(&[connection, upgrade, ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOp=")]));
    }
}
