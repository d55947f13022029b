//! Heads as they go on: what concerns one hop stays here, and who the viewer is, only we say.

use std::collections::HashSet;
use std::net::IpAddr;

use http::header::{
    ALT_SVC, CONNECTION, HOST, HeaderName, STRICT_TRANSPORT_SECURITY, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue};

use super::cookies;

/// Fields that end at each hop (RFC 9110 s.7.6.1).
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Whether a field says who or where the viewer is, in a spelling that some origin would take for it: servers that speak
/// CGI's language fold `_` and `-` into one.
pub(super) fn is_identity(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    name.starts_with("x-phlix-")
        || name.starts_with("x-forwarded-")
        || matches!(
            name.as_str(),
            "x-phlix"
                | "x-forwarded"
                | "forwarded"
                | "forwarded-for"
                | "forwarded-proto"
                | "x-forward-for"
                | "x-real-ip"
                | "x-real-proto"
                | "x-client-ip"
                | "x-cluster-client-ip"
                | "x-original-for"
                | "x-original-forwarded-for"
                | "x-original-host"
                | "x-original-proto"
                | "x-original-url"
                | "x-rewrite-url"
                | "x-host"
                | "x-scheme"
                | "x-url-scheme"
                | "x-remote-addr"
                | "x-remote-ip"
                | "client-ip"
                | "true-client-ip"
                | "cf-connecting-ip"
                | "fastly-client-ip"
                | "remote-addr"
                | "remote-user"
                | "x-remote-user"
                | "front-end-https"
                | "proxy"
        )
}

/// Names that `Connection` lists: they end here, too.
fn connection_listed(headers: &HeaderMap) -> HashSet<String> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty())
        .collect()
}

pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let listed = connection_listed(headers);
    retain(headers, |name| {
        // A sender can't have us take off what belongs to the message itself.
        let framing = matches!(name, "content-length" | "host" | "trailer" | "cookie" | "authorization");
        !HOP_BY_HOP.contains(&name) && (framing || !listed.contains(name))
    });
}

/// Keeps the fields of these names alone.
pub(super) fn retain(headers: &mut HeaderMap, keep: impl Fn(&str) -> bool) {
    let doomed: Vec<HeaderName> = headers.keys().filter(|name| !keep(name.as_str())).cloned().collect();
    for name in doomed {
        headers.remove(name);
    }
}

/// Who asks, as an origin is told.
pub(crate) struct Viewer<'a> {
    pub(crate) address: IpAddr,
    pub(crate) proto: &'static str,
    /// Host and, where it is not the scheme's own, port.
    pub(crate) host: &'a str,
}

impl Viewer<'_> {
    fn write(&self, headers: &mut HeaderMap) {
        // An IPv4 viewer on a dual-stack socket is an IPv4 viewer.
        let address = self.address.to_canonical().to_string();
        for (name, value) in
            [("x-forwarded-for", address.as_str()), ("x-forwarded-proto", self.proto), ("x-forwarded-host", self.host)]
        {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}

/// A request's head for a generic origin: its own cookies and `Authorization` pass, ours don't (trust s.4.5).
pub(crate) fn for_origin(headers: &mut HeaderMap, viewer: &Viewer<'_>) {
    let takes_trailers =
        headers.get_all(TE).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(
            |coding| coding.split(';').next().is_some_and(|coding| coding.trim().eq_ignore_ascii_case("trailers")),
        );
    strip_hop_by_hop(headers);
    retain(headers, |name| !is_identity(name));
    strip_trailer_list(headers);
    cookies::strip_request(headers);
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Ok(host) = HeaderValue::try_from(viewer.host) {
        headers.insert(HOST, host);
    }
    viewer.write(headers);
}

/// A request's head for the control plane: everything but what only we say.
pub(crate) fn for_hub(headers: &mut HeaderMap, viewer: &Viewer<'_>) {
    strip_hop_by_hop(headers);
    retain(headers, |name| !is_identity(name) || passes_to_hub(name));
    cookies::join(headers);
    if let Ok(host) = HeaderValue::try_from(viewer.host) {
        headers.insert(HOST, host);
    }
    viewer.write(headers);
}

/// Fields of ours that clients send to the hub themselves: a native server's signature.
fn passes_to_hub(name: &str) -> bool {
    name == "x-phlix-proof"
}

/// An origin's answer: no hop-by-hop field, no cookie or promise beyond its own name.
pub(crate) fn from_origin(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    headers.remove(ALT_SVC);
    headers.remove(TRANSFER_ENCODING);
    headers.remove(UPGRADE);
    strip_trailer_list(headers);
    cookies::strip_response(headers);
    let beyond = headers
        .get_all(STRICT_TRANSPORT_SECURITY)
        .iter()
        .any(|value| value.to_str().is_ok_and(|text| text.to_ascii_lowercase().contains("includesubdomains")));
    if beyond {
        headers.remove(STRICT_TRANSPORT_SECURITY);
    }
}

/// The control plane's answer.
pub(crate) fn from_hub(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
}

/// Announced trailers that `trailers` would drop are not announced.
fn strip_trailer_list(headers: &mut HeaderMap) {
    let lists: Vec<HeaderValue> = headers.get_all(TRAILER).iter().cloned().collect();
    if lists.is_empty() {
        return;
    }
    let names: Vec<String> = lists
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_owned())
        .filter(|name| is_trailer(name))
        .collect();
    headers.remove(TRAILER);
    if !names.is_empty()
        && let Ok(value) = HeaderValue::try_from(names.join(", "))
    {
        headers.insert(TRAILER, value);
    }
}

/// Whether a field may come in trailers at all (RFC 9110 s.6.5.1).
fn is_trailer(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !name.is_empty()
        && !is_identity(&name)
        && !HOP_BY_HOP.contains(&name.as_str())
        && !matches!(
            name.as_str(),
            "content-length"
                | "content-encoding"
                | "content-type"
                | "content-range"
                | "host"
                | "trailer"
                | "cookie"
                | "set-cookie"
                | "authorization"
                | "cache-control"
                | "expect"
                | "max-forwards"
                | "range"
                | "location"
                | "alt-svc"
                | "strict-transport-security"
        )
}

/// Trailers, in either direction.
pub(crate) fn trailers(trailers: &mut HeaderMap) {
    retain(trailers, is_trailer);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap()))
            .collect()
    }

    fn viewer() -> Viewer<'static> {
        Viewer { address: "::ffff:192.0.2.7".parse().unwrap(), proto: "https", host: "ab.names.example:8443" }
    }

    #[test]
    fn who_the_viewer_is_only_we_say_in_any_spelling() {
        let mut headers = map(&[
            ("host", "evil.example"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("X-Forwarded-Proto", "gopher"),
            ("x_forwarded_for", "10.0.0.3"),
            ("x-forwarded_host", "evil"),
            ("X_Real_IP", "10.0.0.4"),
            ("forwarded", "for=10.0.0.5"),
            ("x-phlix-relay-user", "admin"),
            ("x_phlix_relay_user", "admin"),
            ("x-phlix-ticket", "t"),
            ("x-phlix-edge", "t"),
            ("true-client-ip", "10.0.0.6"),
            ("x-forwarded-prefix", "/x"),
            ("accept", "*/*"),
        ]);
        for_origin(&mut headers, &viewer());
        let mut left: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        left.sort();
        assert_eq!(
            left,
            [
                "accept: */*",
                "host: ab.names.example:8443",
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-host: ab.names.example:8443",
                "x-forwarded-proto: https",
            ]
        );
    }

    #[test]
    fn what_concerns_one_hop_stays_and_the_origins_own_login_passes() {
        let mut headers = map(&[
            ("connection", "close, X-Secret, X-Forwarded-For, Host, Cookie"),
            ("x-secret", "1"),
            ("keep-alive", "1"),
            ("te", "trailers, gzip;q=0.5"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "Basic x"),
            ("authorization", "MediaBrowser Token=1"),
            ("cookie", "sid=1; __Host-phlix-v=t"),
            ("trailer", "Digest, X-Forwarded-For, Content-Length"),
        ]);
        for_origin(&mut headers, &viewer());
        for gone in ["connection", "x-secret", "keep-alive", "transfer-encoding", "proxy-authorization"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert_eq!(headers["te"], "trailers");
        assert_eq!(headers["authorization"], "MediaBrowser Token=1");
        assert_eq!(headers["cookie"], "sid=1");
        assert_eq!(headers["trailer"], "Digest");
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(headers["host"], "ab.names.example:8443");
    }

    #[test]
    fn trailers_carry_no_identity_and_no_framing() {
        let mut fields = map(&[
            ("digest", "x"),
            ("x-forwarded-for", "1"),
            ("x_phlix_relay_user", "1"),
            ("content-length", "5"),
            ("set-cookie", "a=1"),
            ("transfer-encoding", "chunked"),
        ]);
        trailers(&mut fields);
        assert_eq!(fields, map(&[("digest", "x")]));
    }

    #[test]
    fn an_origin_promises_nothing_beyond_its_name() {
        let mut headers = map(&[
            ("alt-svc", "h3=\":443\""),
            ("strict-transport-security", "max-age=1; includeSubDomains"),
            ("set-cookie", "a=1; Domain=names.example"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("content-length", "3"),
            ("etag", "\"x\""),
        ]);
        from_origin(&mut headers);
        assert_eq!(headers, map(&[("content-length", "3"), ("etag", "\"x\""), ("set-cookie", "a=1")]));
    }

    #[test]
    fn cookies_in_crumbs_reach_the_hub_in_one_field() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "__Host-phlix-s=x"), ("cookie", "b=2; c=3")]);
        for_hub(&mut headers, &viewer());
        let cookies: Vec<_> = headers.get_all("cookie").iter().collect();
        assert_eq!(cookies, ["a=1; __Host-phlix-s=x; b=2; c=3"]);
    }

    #[test]
    fn the_hub_gets_cookies_and_bearers_but_no_word_that_is_ours() {
        let mut headers = map(&[
            ("authorization", "Bearer x"),
            ("cookie", "__Host-phlix-s=x"),
            ("x-phlix-proof", "p"),
            ("x-phlix-edge", "forged"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-real-ip", "10.0.0.1"),
        ]);
        for_hub(&mut headers, &viewer());
        assert_eq!(headers["authorization"], "Bearer x");
        assert_eq!(headers["cookie"], "__Host-phlix-s=x");
        assert_eq!(headers["x-phlix-proof"], "p");
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
        assert!(!headers.contains_key("x-phlix-edge"));
        assert!(!headers.contains_key("x-real-ip"));
    }
}
