//! Who is at the other end: the address, the scheme and the host that the *viewer* used.
//!
//! `X-Forwarded-*` says so only where the request carries the identity of a core edge; every copy of such a header that came
//! otherwise is dropped before a handler can see it (trust s.9.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, StatusCode};

use super::error::ApiError;
use crate::app::App;
use crate::app::edge_identity::{self, CoreEdge, IdentityError};

/// How the viewer reached the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// The other end of a request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Of the viewer.
    pub(crate) address: IpAddr,
    /// As the viewer spoke it.
    pub(crate) scheme: Scheme,
    /// `Host` as the viewer sent it, where an edge passed it on.
    pub(crate) host: Option<String>,
    /// The core edge in between.
    #[expect(dead_code, reason = "audit records name the edge")]
    pub(crate) edge: Option<CoreEdge>,
}

impl Caller {
    /// May cookies be set for and taken from this request? Off loopback only over TLS: no weaker cookie on plain HTTP.
    //= trust s.6.3
    pub(crate) fn may_use_cookies(&self) -> bool {
        self.scheme == Scheme::Https || self.address.is_loopback()
    }

    /// What counts as one place when attempts are counted: an IPv4 address, an IPv6 /64 (what one household or one rented
    /// machine has to itself).
    pub(crate) fn place(&self) -> String {
        place(self.address)
    }
}

fn place(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        // Missing only where the router was built without `establish`.
        parts.extensions.get::<Caller>().cloned().ok_or_else(ApiError::internal)
    }
}

/// The layer in front of everything: puts a [`Caller`] into the request.
pub(super) async fn establish(State(app): State<App>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let token = parts.headers.get(edge_identity::HEADER).map(|value| value.to_str().unwrap_or_default().to_owned());
    let edge = match token {
        None => None,
        Some(token) => match app.edge_auth.identify(&parts, &token).await {
            Ok(edge) => Some(edge),
            Err(error) => return refuse(error).into_response(),
        },
    };
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    // Nobody's address: not loopback, so that a forgotten layer takes rights away instead of giving them.
    let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).to_canonical();
    let caller = match edge {
        None => Caller { address: peer, scheme: Scheme::Http, host: None, edge: None },
        Some(edge) => match forwarded(&parts.headers, edge) {
            Some(caller) => caller,
            None => {
                let error = ApiError::new(StatusCode::BAD_REQUEST, "Bad Request", "edge.invalid_forwarding")
                    .message("The edge did not say for whom it asks.");
                return error.into_response();
            }
        },
    };
    strip(&mut parts.headers);
    parts.extensions.insert(caller);
    next.run(Request::from_parts(parts, body)).await
}

fn refuse(error: IdentityError) -> ApiError {
    match error {
        IdentityError::Store(error) => error.into(),
        IdentityError::Invalid | IdentityError::NotCore => {
            ApiError::new(StatusCode::UNAUTHORIZED, "Unauthorized", "edge.invalid_identity").message(error.to_string())
        }
    }
}

/// What a core edge says about the viewer: exactly one of each.
fn forwarded(headers: &HeaderMap, edge: CoreEdge) -> Option<Caller> {
    let only = |name: &str| {
        let mut values = headers.get_all(name).iter();
        let value = values.next()?.to_str().ok()?;
        values.next().is_none().then(|| value.trim().to_owned())
    };
    let address: IpAddr = only("x-forwarded-for")?.parse().ok()?;
    let scheme = match only("x-forwarded-proto")?.as_str() {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        _ => return None,
    };
    let host = only("x-forwarded-host")?;
    Some(Caller { address: address.to_canonical(), scheme, host: Some(host), edge: Some(edge) })
}

/// After this no handler can mistake a stranger's word for an edge's.
fn strip(headers: &mut HeaderMap) {
    let names: Vec<_> = headers
        .keys()
        .filter(|name| {
            // PHP's and nginx's habit: an underscore is read as a hyphen.
            let name = name.as_str().replace('_', "-");
            name.starts_with("x-forwarded-")
                || matches!(name.as_str(), "forwarded" | "x-real-ip" | edge_identity::HEADER)
        })
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
    // One Host or none; hyper has refused two already.
    if headers.get_all(HOST).iter().count() > 1 {
        headers.remove(HOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_household_is_one_place() {
        let of = |text: &str| place(text.parse().unwrap());
        assert_eq!(of("192.0.2.7"), "192.0.2.7");
        assert_eq!(of("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(of("2001:db8:1:2:3::4"), "2001:db8:1:2::/64");
        assert_ne!(of("2001:db8:1:3::4"), of("2001:db8:1:2::4"));
    }
}
