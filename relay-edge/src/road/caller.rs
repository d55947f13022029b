//! Who is at the other end, after proxies that may speak for others were heard; and what plain HTTP is good for.

use std::net::IpAddr;

use http::request::Parts;
use http::{HeaderMap, Method};
use ipnet::IpNet;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) address: IpAddr,
    pub(crate) https: bool,
    /// On loopback, or behind a proxy that is named.
    pub(crate) near: bool,
}

/// The viewer behind a connection from `peer`. Only named proxies speak for others.
pub(crate) fn caller(headers: &HeaderMap, peer: IpAddr, tls: bool, proxies: &[IpNet]) -> Caller {
    let trusted = |address: IpAddr| proxies.iter().any(|net| net.contains(&address.to_canonical()));
    if !trusted(peer) {
        return Caller { address: peer, https: tls, near: peer.to_canonical().is_loopback() };
    }
    // From the right: each proxy appended whom it heard; the first that is no proxy of ours is the viewer.
    let forwarded: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let mut address = peer;
    for hop in forwarded.iter().rev() {
        let Ok(heard) = hop.parse::<IpAddr>() else { break };
        address = heard;
        if !trusted(heard) {
            break;
        }
    }
    // The last is the proxy's own word; what stands before it came with the request.
    let last = headers.get_all("x-forwarded-proto").iter().next_back();
    let last = last.map(|proto| proto.as_bytes().rsplit(|byte| *byte == b',').next().unwrap_or_default().trim_ascii());
    let https = last.map_or(tls, |proto| proto.eq_ignore_ascii_case(b"https"));
    Caller { address, https, near: true }
}

/// What a request to the hub's own domain over plain HTTP gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plain {
    /// Everything.
    Pass,
    /// The API, for bearers: cookies neither in nor out.
    WithoutCookies,
    /// Is sent to TLS.
    Redirect,
    Refused,
}

/// Decides by who asks for what; `api` says whether the API is open to plain HTTP at all.
//= trust s.6.3
pub(crate) fn over_plain_http(head: &Parts, caller: &Caller, api: bool) -> Plain {
    if caller.near {
        return Plain::Pass;
    }
    let path = head.uri.path();
    let is_api = path.starts_with("/api/") || path.starts_with("/.well-known/") || matches!(path, "/health" | "/ready");
    match (is_api, matches!(head.method, Method::GET | Method::HEAD)) {
        (true, _) if api => Plain::WithoutCookies,
        (false, true) => Plain::Redirect,
        _ => Plain::Refused,
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn heard(peer: &str, fields: &[(&'static str, &'static str)]) -> Caller {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        caller(&headers, address(peer), false, &["192.0.2.0/28".parse().unwrap()])
    }

    #[test]
    fn a_stranger_speaks_for_himself() {
        let lies = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-proto", "https")];
        let stranger = Caller { address: address("198.51.100.7"), https: false, near: false };
        assert_eq!(heard("198.51.100.7", &lies), stranger);
        assert!(heard("::ffff:127.0.0.1", &lies).near);
        assert_eq!(heard("127.0.0.1", &lies).address, address("127.0.0.1"));
    }

    #[test]
    fn a_named_proxy_speaks_for_the_last_whom_no_proxy_heard() {
        let of = |list: &'static str| {
            heard("::ffff:192.0.2.1", &[("x-forwarded-for", list), ("x-forwarded-proto", "https")])
        };
        let viewer = Caller { address: address("198.51.100.7"), https: true, near: true };
        assert_eq!(of("198.51.100.7"), viewer);
        assert_eq!(of("6.6.6.6, 198.51.100.7"), viewer);
        assert_eq!(of("6.6.6.6, 198.51.100.7, 192.0.2.9"), viewer);
        assert_eq!(of("198.51.100.7, nonsense").address, address("::ffff:192.0.2.1"));
        let two = heard("192.0.2.1", &[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "198.51.100.7")]);
        assert_eq!(two.address, address("198.51.100.7"));
        assert_eq!(heard("192.0.2.1", &[]).address, address("192.0.2.1"));
    }

    #[test]
    fn plain_http_from_afar_is_for_bearers_alone() {
        let far = Caller { address: address("198.51.100.7"), https: false, near: false };
        let near = Caller { near: true, ..far };
        let of = |method: &str, path: &str, caller: &Caller, api: bool| {
            let head = Request::builder().method(method).uri(path).body(()).unwrap().into_parts().0;
            over_plain_http(&head, caller, api)
        };
        for (method, path) in [("GET", "/"), ("POST", "/api/v1/auth/login"), ("POST", "/app/")] {
            assert_eq!(of(method, path, &near, false), Plain::Pass);
        }
        assert_eq!(of("GET", "/app/login", &far, true), Plain::Redirect);
        assert_eq!(of("POST", "/app/login", &far, true), Plain::Refused);
        for path in ["/api/v1/auth/login", "/.well-known/jwks.json", "/health"] {
            assert_eq!(of("POST", path, &far, true), Plain::WithoutCookies, "{path}");
            assert_eq!(of("GET", path, &far, false), Plain::Refused, "{path}");
        }
    }
}
