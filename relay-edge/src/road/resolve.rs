//! Phase 1: what is asked? Pure: a request's head in, a place or a refusal out.

use std::net::{IpAddr, Ipv6Addr};

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Method, StatusCode, Version};
use phlix_protocol::hostname::Hostname;
use phlix_protocol::ids::ServerId;

use super::paths;
use super::refusal::{Refusal, malformed, unknown_host};
use super::upgrade::{self, Way};
use crate::config::Limits;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The hub's own domain: the control plane answers.
    Hub,
    /// The hub's proxy path to a server.
    Proxy(Proxied),
    /// A server's name.
    Name(Hostname),
    /// A WebSocket at a server's name.
    Socket(Hostname, Way),
    /// The sign-in of a server's name.
    SignIn(Hostname, Step),
    /// A server's name without TLS: goes to its URL.
    PlainName(Hostname),
}

/// A place on the hub's proxy path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Proxied {
    /// `None`: what can't be a server.
    pub(crate) server: Option<ServerId>,
    /// So many bytes of the path are the hub's; what follows is the server's.
    pub(crate) prefix: usize,
    /// A WebSocket is asked for.
    pub(crate) way: Option<Way>,
}

/// Steps of a sign-in at a name (trust s.6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Start,
    Finish,
}

/// By which door a request came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Door {
    Plain,
    /// By a named proxy that has taken TLS off: what it says of the viewer's protocol is believed.
    Proxied,
    /// With the name that the TLS handshake asked for.
    Tls(Option<Hostname>),
}

/// Who answers to which host.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    pub(crate) hub: Vec<Hostname>,
    pub(crate) public_domain: Hostname,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Name(Hostname),
    /// An address: the hub's, where it is reached without a name.
    Address,
}

/// Decides.
pub(crate) fn resolve(head: &Parts, door: &Door, hosts: &Hosts, limits: &Limits) -> Result<Asked, Refusal> {
    let way = check_form(head, limits)?;
    let host = host(head)?;
    match (&host, door) {
        // A certificate may cover many names; a connection is for one.
        (Host::Name(host), Door::Tls(Some(sni))) if host != sni => return Err(unknown_host()),
        (Host::Name(_), Door::Tls(None)) => return Err(unknown_host()),
        (Host::Address, Door::Tls(Some(_))) => return Err(unknown_host()),
        _ => {}
    }
    let host = match host {
        Host::Address => return on_hub(head.uri.path(), way),
        Host::Name(host) if hosts.hub.contains(&host) => return on_hub(head.uri.path(), way),
        Host::Name(host) if host.label_under(&hosts.public_domain).is_some() => host,
        Host::Name(_) => return Err(unknown_host()),
    };
    if *door == Door::Plain {
        return Ok(Asked::PlainName(host));
    }
    match head.uri.path() {
        _ if way.is_some() => {}
        "/.phlix/start" => return Ok(Asked::SignIn(host, Step::Start)),
        "/.phlix/finish" => return Ok(Asked::SignIn(host, Step::Finish)),
        _ => {}
    }
    //= trust s.4.5: nothing under /.phlix/ reaches an origin, however it is spelled.
    if paths::segments(head.uri.path()).first().is_some_and(|first| first == ".phlix") {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "not_found", "There is no such page."));
    }
    Ok(match way {
        Some(way) => Asked::Socket(host, way),
        None => Asked::Name(host),
    })
}

/// What is refused whatever it asks for.
fn check_form(head: &Parts, limits: &Limits) -> Result<Option<Way>, Refusal> {
    if head.method == Method::TRACE {
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "method.unsupported", "TRACE is not supported."));
    }
    // Which of the two counts, an origin may see otherwise than we do (RFC 9112 s.6.1).
    if head.headers.contains_key(TRANSFER_ENCODING) && head.headers.contains_key(CONTENT_LENGTH) {
        return Err(malformed("The body has two lengths."));
    }
    let way = upgrade::asked(head)?;
    if head.uri.path_and_query().map_or(0, |path| path.as_str().len()) > limits.path_bytes {
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, "request.too_long", "The address is too long.").and_close());
    }
    let fields: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if fields > limits.head_bytes || head.headers.len() > limits.head_fields {
        return Err(Refusal::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "request.head_too_large",
            "The request's head is too large.",
        )
        .and_close());
    }
    if !head.uri.path().starts_with('/') && head.uri.path() != "*" {
        return Err(malformed("The address has no path."));
    }
    Ok(way)
}

/// The one host that a request names; several that agree are one (RFC 9112 s.3.2, RFC 9113 s.8.3.1).
fn host(head: &Parts) -> Result<Host, Refusal> {
    let mut fields = head.headers.get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(malformed("There is more than one Host."));
    }
    let field = field.map(|value| value.to_str().map_err(|_| malformed("Host is no host."))).transpose()?;
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    if authority.is_some_and(|authority| authority.contains('@')) {
        return Err(malformed("The address has a user in it."));
    }
    let text = match (field, authority) {
        (Some(field), Some(authority)) if !same_host(field, authority) => {
            return Err(malformed("Host and address disagree."));
        }
        (Some(host), _) | (None, Some(host)) => host,
        (None, None) => return Err(malformed("There is no Host.")),
    };
    if head.version < Version::HTTP_2 && field.is_none() {
        return Err(malformed("There is no Host."));
    }
    parse_host(text).ok_or_else(unknown_host)
}

fn same_host(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

fn parse_host(text: &str) -> Option<Host> {
    if let Ok(name) = Hostname::from_authority(text) {
        return Some(Host::Name(name));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        address.parse::<Ipv6Addr>().ok()?;
        return (port.is_empty() || is_port(port.strip_prefix(':')?)).then_some(Host::Address);
    }
    let address = match text.split_once(':') {
        Some((address, port)) if is_port(port) => address,
        Some(_) => return None,
        None => text,
    };
    matches!(address.parse(), Ok(IpAddr::V4(_))).then_some(Host::Address)
}

fn is_port(text: &str) -> bool {
    text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `/api/v1/servers/{id}/proxy/*` and its alias `/api/v1/relay/{id}/*`.
//= legacy-relay-wire s.3.3
fn on_hub(path: &str, way: Option<Way>) -> Result<Asked, Refusal> {
    if let Some((id, prefix)) = proxied(path) {
        return Ok(Asked::Proxy(Proxied { server: id.parse().ok(), prefix, way }));
    }
    if way.is_some() {
        return Err(Refusal::new(
            StatusCode::NOT_IMPLEMENTED,
            "upgrade.unsupported",
            "The hub itself has no WebSockets.",
        ));
    }
    Ok(Asked::Hub)
}

/// The server's id as it was written, and the length of the path up to the server's own.
fn proxied(path: &str) -> Option<(&str, usize)> {
    const SERVERS: &str = "/api/v1/servers/";
    const ALIAS: &str = "/api/v1/relay/";
    if let Some(rest) = path.strip_prefix(SERVERS) {
        let (id, tail) = rest.split_once('/')?;
        let proxy = tail == "proxy" || tail.starts_with("proxy/");
        return proxy.then_some((id, SERVERS.len() + id.len() + "/proxy".len()));
    }
    let id = path.strip_prefix(ALIAS)?.split('/').next().unwrap_or_default();
    Some((id, ALIAS.len() + id.len()))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn hosts() -> Hosts {
        Hosts {
            hub: ["hub.example", "localhost"].map(|host| host.parse().unwrap()).to_vec(),
            public_domain: "names.example".parse().unwrap(),
        }
    }

    fn name(host: &str) -> Hostname {
        host.parse().unwrap()
    }

    fn head(uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(uri);
        for (field, value) in fields {
            request = request.header(*field, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn over_tls(sni: &str, host: &str, path: &str) -> Result<Asked, StatusCode> {
        let head = head(path, &[("host", host)]);
        resolve(&head, &Door::Tls(Some(name(sni))), &hosts(), &Limits::default()).map_err(|refusal| refusal.status)
    }

    fn plain(host: &str, path: &str) -> Result<Asked, StatusCode> {
        let head = head(path, &[("host", host)]);
        resolve(&head, &Door::Plain, &hosts(), &Limits::default()).map_err(|refusal| refusal.status)
    }

    #[test]
    fn each_host_and_path_has_its_place() {
        let server: ServerId = "00000000-0000-4000-8000-000000000004".parse().unwrap();
        let at = name("ab.names.example");
        let proxied = |server, prefix: &str| Asked::Proxy(Proxied { server, prefix: prefix.len(), way: None });
        let (proxy, alias) = (format!("/api/v1/servers/{server}/proxy"), format!("/api/v1/relay/{server}"));
        for (host, path, asked) in [
            ("hub.example", "/", Asked::Hub),
            ("hub.example:8443", "/api/v1/me/servers", Asked::Hub),
            ("hub.example", "/.phlix/start", Asked::Hub),
            ("hub.example", &format!("{proxy}/hls/x"), proxied(Some(server), &proxy)),
            ("hub.example", &proxy, proxied(Some(server), &proxy)),
            ("hub.example", &format!("/api/v1/servers/{server}/proxyish"), Asked::Hub),
            ("hub.example", &format!("{alias}/hls/x"), proxied(Some(server), &alias)),
            ("hub.example", &alias, proxied(Some(server), &alias)),
            ("hub.example", "/api/v1/servers/nobody/proxy/x", proxied(None, "/api/v1/servers/nobody/proxy")),
            ("hub.example", "/api/v1/relay/", proxied(None, "/api/v1/relay/")),
            ("hub.example", "/api/v1/relays/x", Asked::Hub),
            ("AB.names.example.", "/video", Asked::Name(at.clone())),
            ("ab.names.example", "/.phlix/start", Asked::SignIn(at.clone(), Step::Start)),
            ("ab.names.example", "/.phlix/finish", Asked::SignIn(at.clone(), Step::Finish)),
        ] {
            let sni = Hostname::from_authority(host).unwrap();
            assert_eq!(over_tls(sni.as_str(), host, path), Ok(asked), "{host}{path}");
        }
        assert_eq!(plain("ab.names.example", "/x"), Ok(Asked::PlainName(at)));
        assert_eq!(plain("127.0.0.1:8800", "/x"), Ok(Asked::Hub));
        assert_eq!(plain("[::1]:8800", "/x"), Ok(Asked::Hub));
        assert_eq!(plain("localhost:8800", "/x"), Ok(Asked::Hub));
    }

    #[test]
    fn what_nobody_answers_to_is_misdirected() {
        let misdirected = Err(StatusCode::MISDIRECTED_REQUEST);
        assert_eq!(over_tls("ab.names.example", "cd.names.example", "/"), misdirected);
        assert_eq!(over_tls("hub.example", "ab.names.example", "/"), misdirected);
        assert_eq!(over_tls("hub.example", "127.0.0.1", "/"), misdirected);
        for host in
            ["other.example", "a.b.names.example", "names.example.evil", "evilnames.example", "a_b.names.example"]
        {
            assert_eq!(plain(host, "/"), misdirected, "{host}");
        }
        let nameless = head("/", &[("host", "ab.names.example")]);
        let refusal = resolve(&nameless, &Door::Tls(None), &hosts(), &Limits::default()).unwrap_err();
        assert_eq!(refusal.status, StatusCode::MISDIRECTED_REQUEST);
    }

    #[test]
    fn the_sign_ins_paths_never_reach_an_origin_in_any_spelling() {
        for path in [
            "/.phlix/",
            "/.phlix",
            "/.phlix/other",
            "//.phlix/start",
            "/%2ephlix/start",
            "/.PHLIX/start",
            "/%252ephlix/x",
            "/a/../.phlix/start",
            "/./.phlix/finish",
            "/.phlix%2fstart",
            "/.phlix;x/start",
        ] {
            let host = "ab.names.example";
            assert_eq!(over_tls(host, host, path), Err(StatusCode::NOT_FOUND), "{path}");
        }
    }

    #[test]
    fn a_request_that_contradicts_itself_is_refused() {
        let limits = Limits::default();
        let refused = |head: Parts| {
            resolve(&head, &Door::Tls(Some(name("ab.names.example"))), &hosts(), &limits).unwrap_err().status
        };
        let host = ("host", "ab.names.example");
        assert_eq!(refused(head("/", &[])), StatusCode::BAD_REQUEST);
        assert_eq!(refused(head("/", &[host, host])), StatusCode::BAD_REQUEST);
        let lengths = [host, ("content-length", "5"), ("transfer-encoding", "chunked")];
        assert_eq!(refused(head("/", &lengths)), StatusCode::BAD_REQUEST);
        assert_eq!(refused(head("https://cd.names.example/", &[host])), StatusCode::BAD_REQUEST);
        assert_eq!(
            refused(head("https://u@ab.names.example/", &[("host", "u@ab.names.example")])),
            StatusCode::BAD_REQUEST
        );
        assert_eq!(refused(head("/", &[host, ("upgrade", "websocket")])), StatusCode::NOT_IMPLEMENTED);
        assert_eq!(refused(head(&format!("/{}", "a".repeat(17_000)), &[host])), StatusCode::URI_TOO_LONG);
        let long = "a".repeat(40_000);
        let fat = head("/", &[host, ("x-one", &long), ("x-two", &long)]);
        assert_eq!(refused(fat), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        for method in [Method::CONNECT, Method::TRACE] {
            let mut head = head("/", &[host]);
            head.method = method;
            assert_eq!(refused(head), StatusCode::NOT_IMPLEMENTED);
        }
    }

    #[test]
    fn an_offer_of_h2c_is_passed_over() {
        let head = head("/", &[("host", "localhost"), ("upgrade", "h2c")]);
        assert!(resolve(&head, &Door::Plain, &hosts(), &Limits::default()).is_ok());
    }
}
