//! The plain HTTP proxy that a network may want us to go through: which hosts, and `CONNECT` (RFC 9110 s.9.3.6).
//!
//! The rules are those that people know from other programs: the variable `https_proxy` names it, `no_proxy` lists hosts
//! that are reached without it.

use std::fmt;
use std::io;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use url::Url;

/// Longest answer to `CONNECT`, in bytes.
const MAX_ANSWER: usize = 8 * 1024;

/// The text names no proxy that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a proxy: expected http://[user:password@]host[:port]")]
pub struct InvalidProxy;

/// A proxy and who is reached without it.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    proxy: Option<Proxy>,
    exceptions: Vec<Exception>,
}

/// A plain HTTP proxy. Its `Debug` does not tell the password.
#[derive(Clone)]
pub(crate) struct Proxy {
    host: String,
    port: u16,
    /// Value of `Proxy-Authorization`.
    authorization: Option<String>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({}:{})", self.host, self.port)
    }
}

/// A host that is reached without the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    All,
    /// A name, and all below it.
    Name(String),
    /// An address, or so many bits of it.
    Network(IpAddr, u8),
}

impl Proxies {
    /// Reads the values of `https_proxy` and `no_proxy`.
    pub fn parse(proxy: Option<&str>, exceptions: Option<&str>) -> Result<Self, InvalidProxy> {
        let proxy = proxy.map(str::trim).filter(|text| !text.is_empty()).map(Proxy::parse).transpose()?;
        let exceptions = exceptions
            .unwrap_or_default()
            .split([',', ' '])
            .filter(|entry| !entry.is_empty())
            .map(Exception::parse)
            .collect();
        Ok(Self { proxy, exceptions })
    }

    /// The proxy that a host (without brackets) is reached through.
    pub(crate) fn towards(&self, host: &str) -> Option<&Proxy> {
        let proxy = self.proxy.as_ref()?;
        (!self.exceptions.iter().any(|exception| exception.covers(host))).then_some(proxy)
    }
}

impl Exception {
    fn parse(entry: &str) -> Self {
        if entry == "*" {
            return Self::All;
        }
        let (address, bits) = match entry.split_once('/') {
            Some((address, bits)) => (address, bits.parse::<u8>().ok()),
            None => (entry, Some(128)),
        };
        match (address.trim_matches(['[', ']']).parse::<IpAddr>(), bits) {
            (Ok(address), Some(bits)) => Self::Network(address, bits),
            _ => Self::Name(entry.trim_matches('.').to_ascii_lowercase()),
        }
    }

    fn covers(&self, host: &str) -> bool {
        match self {
            Self::All => true,
            Self::Name(name) => {
                let host = host.trim_end_matches('.').to_ascii_lowercase();
                host == *name || host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'))
            }
            Self::Network(network, bits) => match (host.parse::<IpAddr>(), network) {
                (Ok(IpAddr::V4(host)), IpAddr::V4(network)) => {
                    same(host.to_bits().into(), network.to_bits().into(), 32, *bits)
                }
                (Ok(IpAddr::V6(host)), IpAddr::V6(network)) => same(host.to_bits(), network.to_bits(), 128, *bits),
                _ => false,
            },
        }
    }
}

/// Whether the first bits of two numbers of `width` bits are the same.
fn same(one: u128, other: u128, width: u8, bits: u8) -> bool {
    let ignored = u32::from(width.saturating_sub(bits));
    one.checked_shr(ignored).unwrap_or(0) == other.checked_shr(ignored).unwrap_or(0)
}

/// No way through the proxy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("the proxy can't be reached: {0}")]
    Unreachable(io::Error),
    #[error("the proxy broke off: {0}")]
    Broken(io::Error),
    #[error("the proxy wants a user and a password: https_proxy=http://user:password@host:port")]
    Unauthorized,
    #[error("the proxy refused, with status {0}")]
    Refused(u16),
    #[error("the proxy does not answer in HTTP")]
    Nonsense,
}

impl Proxy {
    fn parse(text: &str) -> Result<Self, InvalidProxy> {
        // Without a scheme it is an HTTP proxy.
        let url = if text.contains("://") { Url::parse(text) } else { Url::parse(&format!("http://{text}")) };
        let url = url.map_err(|_| InvalidProxy)?;
        let plain = url.scheme() == "http" && matches!(url.path(), "" | "/") && url.query().is_none();
        let host = url.host_str().filter(|_| plain).ok_or(InvalidProxy)?;
        let authorization = if url.username().is_empty() && url.password().is_none() {
            None
        } else {
            let mut pair = unescaped(url.username());
            pair.push(b':');
            pair.extend(unescaped(url.password().unwrap_or_default()));
            Some(format!("Basic {}", STANDARD.encode(pair)))
        };
        let host = host.trim_matches(['[', ']']).to_owned();
        Ok(Self { host, port: url.port().unwrap_or(80), authorization })
    }

    /// A connection to `host`, which may be a name that only the proxy knows. Bound it by time.
    pub(crate) async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, ProxyError> {
        let mut stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(ProxyError::Unreachable)?;
        let target = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let authorization =
            self.authorization.as_ref().map_or(String::new(), |value| format!("Proxy-Authorization: {value}\r\n"));
        let ask = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n");
        stream.write_all(ask.as_bytes()).await.map_err(ProxyError::Broken)?;
        let mut answer = Vec::new();
        loop {
            if stream.read_buf(&mut answer).await.map_err(ProxyError::Broken)? == 0 {
                return Err(ProxyError::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
            match status(&answer)? {
                // Nobody speaks before we do: more bytes would not be the other end's.
                Some((200..=299, length)) if length == answer.len() => return Ok(stream),
                Some((200..=299, _)) => return Err(ProxyError::Nonsense),
                Some((407, _)) => return Err(ProxyError::Unauthorized),
                Some((status, _)) => return Err(ProxyError::Refused(status)),
                None if answer.len() >= MAX_ANSWER => return Err(ProxyError::Nonsense),
                None => {}
            }
        }
    }
}

/// Status and length of an answer's head, once it is whole.
fn status(answer: &[u8]) -> Result<Option<(u16, usize)>, ProxyError> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(answer) {
        Ok(httparse::Status::Complete(length)) => Ok(response.code.map(|code| (code, length))),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(ProxyError::Nonsense),
    }
}

/// Percent-decoding (RFC 3986 s.2.1).
fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let Some((&byte, rest)) = bytes.split_first() {
        let escaped = (byte == b'%').then(|| rest.get(..2)).flatten();
        let code = escaped.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match code {
            Some(code) => {
                out.push(code);
                bytes = &rest[2..];
            }
            None => {
                out.push(byte);
                bytes = rest;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goes_through(exceptions: &str, host: &str) -> bool {
        Proxies::parse(Some("http://proxy:3128"), Some(exceptions)).unwrap().towards(host).is_some()
    }

    #[test]
    fn exceptions_are_names_with_all_below_addresses_and_networks() {
        for (exceptions, host, through) in [
            ("", "hub.example", true),
            ("", "127.0.0.1", true),
            ("*", "hub.example", false),
            ("example", "hub.example", false),
            (".example", "hub.example", false),
            ("hub.example", "HUB.example", false),
            ("ub.example", "hub.example", true),
            ("hub.example", "other.hub.example", false),
            ("a, b 127.0.0.1", "127.0.0.1", false),
            ("10.0.0.0/8", "10.200.3.4", false),
            ("10.0.0.0/8", "11.0.0.1", true),
            ("fd00::/8", "fd12::1", false),
            ("::1", "::1", false),
            ("0.0.0.0/0", "192.0.2.1", false),
            ("10.0.0.0/x", "10.0.0.1", true),
        ] {
            assert_eq!(goes_through(exceptions, host), through, "{exceptions} {host}");
        }
        assert!(Proxies::parse(None, None).unwrap().towards("hub.example").is_none());
        assert!(Proxies::parse(Some(" "), None).unwrap().towards("hub.example").is_none());
    }

    #[test]
    fn a_proxy_is_read_with_its_credentials_which_are_not_shown() {
        let proxy = Proxy::parse("http://me:p%40ss@[::1]:3128/").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("::1", 3128));
        assert_eq!(proxy.authorization.as_deref(), Some("Basic bWU6cEBzcw=="));
        assert!(!format!("{proxy:?}").contains("bWU6"));
        assert_eq!(Proxy::parse("proxy.example").unwrap().port, 80);
        for text in ["https://proxy", "socks5://proxy:1080", "http://", "http://proxy/path", "http://pro xy"] {
            assert_eq!(Proxy::parse(text).unwrap_err(), InvalidProxy, "{text}");
        }
    }
}
