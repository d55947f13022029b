//! The browser's sign-in at a protected name (trust s.6.2).
//!
//! `/.phlix/start` remembers state, PKCE verifier and where to return in a cookie of this name and goes to the hub. The
//! hub checks who it is and sends back a single-use code; `/.phlix/finish` redeems it for a viewer ticket.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::header::{CACHE_CONTROL, LOCATION, REFERRER_POLICY, SET_COOKIE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use phlix_protocol::b64;
use phlix_protocol::hostname::Hostname;
use phlix_protocol::uplink::NameCode;
use sha2::{Digest as _, Sha256};

use super::refusal::{Refusal, hub_away, malformed, unknown_host};
use super::resolve::Step;
use super::{Road, admit, cookies};
use crate::body::{self, Body};
use crate::uplink::client::CallError;
use crate::{clock, random};

/// How long a sign-in may take, in seconds.
const START_LIFE: i64 = 300;

/// Longest path to return to.
const MAX_RETURN: usize = 2048;

pub(crate) async fn sign_in(road: &Road, head: &Parts, host: Hostname, step: Step) -> Result<Response<Body>, Refusal> {
    if head.method != Method::GET {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method.not_allowed", "Only GET signs in.")
            .with(http::header::ALLOW, HeaderValue::from_static("GET")));
    }
    match step {
        Step::Start => start(road, head, &host).await,
        Step::Finish => finish(road, head, host).await,
    }
}

async fn start(road: &Road, head: &Parts, host: &Hostname) -> Result<Response<Body>, Refusal> {
    // Only for names that there are: the hub would refuse the others, after a detour.
    road.uplink.directory.route(host).await.map_err(|_| hub_away())?.ok_or_else(unknown_host)?;
    let started = Started {
        state: b64::encode(random::bytes::<16>()),
        verifier: b64::encode(random::bytes::<32>()),
        to: return_path(query(head, "return").as_deref()),
    };
    let challenge = b64::encode(Sha256::digest(started.verifier.as_bytes()));
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("host", host.as_str()).append_pair("state", &started.state).append_pair("challenge", &challenge);
    let hub = format!("{}/authorize-name?{}", road.hub_origin, query.finish());
    let cookie = cookies::set(cookies::START, &started.encode(), START_LIFE)
        .ok_or_else(|| malformed("There is no such place to return to."))?;
    redirect(&hub, [cookie])
}

async fn finish(road: &Road, head: &Parts, host: Hostname) -> Result<Response<Body>, Refusal> {
    let failed = |message| {
        Refusal::new(StatusCode::BAD_REQUEST, "sign_in.failed", message)
            .with(SET_COOKIE, cookies::clear(cookies::START))
    };
    let started = cookies::get(&head.headers, cookies::START).and_then(Started::decode).ok_or_else(|| {
        failed("This sign-in has expired, or was started in another browser. Please open the page again.")
    })?;
    let state = query(head, "state").unwrap_or_default();
    if verify_slices_are_equal(state.as_bytes(), started.state.as_bytes()).is_err() {
        return Err(failed("This sign-in was started elsewhere. Please open the page again."));
    }
    let code = query(head, "code")
        .filter(|code| (1..=512).contains(&code.len()))
        .ok_or_else(|| failed("The hub did not sign you in."))?;

    let redeemed =
        road.uplink.directory.redeem(NameCode { code, host: host.clone(), verifier: started.verifier }).await;
    let reply = match redeemed {
        Ok(reply) => reply,
        Err(CallError::Refused(..)) => return Err(failed("The hub's answer is used up. Please open the page again.")),
        Err(error) => {
            tracing::warn!(%error, "a sign-in's code could not be redeemed");
            return Err(hub_away());
        }
    };
    let now = clock::unix_now();
    let route = road.uplink.directory.route(&host).await.map_err(|_| hub_away())?.ok_or_else(unknown_host)?;
    let claims = road.tickets.verify(&road.uplink, &reply.ticket, now).await;
    if !claims.is_some_and(|claims| admit::opens(&claims, &host, route.server_id, road.config.id)) {
        tracing::error!(server.id = %route.server_id, "the hub redeemed a code for a ticket that doesn't open the name");
        return Err(failed("The hub's ticket does not open this name."));
    }
    let cookie = cookies::set(cookies::VIEWER, &reply.ticket, reply.expires_at - now)
        .ok_or_else(|| failed("The hub's ticket is malformed."))?;
    redirect(&started.to, [cookie, cookies::clear(cookies::START)])
}

fn redirect(to: &str, set: impl IntoIterator<Item = HeaderValue>) -> Result<Response<Body>, Refusal> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::FOUND;
    let headers = response.headers_mut();
    headers.insert(LOCATION, HeaderValue::try_from(to).map_err(|_| malformed("There is no such place to return to."))?);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    for cookie in set {
        headers.append(SET_COOKIE, cookie);
    }
    Ok(response)
}

fn query(head: &Parts, key: &str) -> Option<String> {
    let query = head.uri.query()?;
    url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == key).map(|(_, value)| value.into_owned())
}

/// Where to go after the sign-in: a path of this name and nothing that a browser could take for another host.
fn return_path(wanted: Option<&str>) -> String {
    let is_safe = |path: &&str| {
        path.len() <= MAX_RETURN
            && path.starts_with('/')
            && !path.starts_with("//")
            && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
            // Starting another sign-in from here would go round in circles.
            && !path.starts_with("/.phlix/")
    };
    wanted.filter(is_safe).unwrap_or("/").to_owned()
}

/// What a sign-in remembers, in the browser alone.
#[derive(Debug, PartialEq, Eq)]
struct Started {
    state: String,
    verifier: String,
    to: String,
}

impl Started {
    fn encode(&self) -> String {
        format!("{}.{}.{}", self.state, self.verifier, b64::encode(&self.to))
    }

    fn decode(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        let (state, verifier, to) = (parts.next()?, parts.next()?, parts.next()?);
        let to = String::from_utf8(b64::decode(to)?).ok()?;
        let state = (!state.is_empty()).then(|| state.to_owned())?;
        Some(Self { state, verifier: verifier.to_owned(), to: return_path(Some(&to)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_return_path_never_leaves_the_name() {
        for good in ["/", "/a/b?c=d&e=%2F", "/:8443/x", "/@evil.example"] {
            assert_eq!(return_path(Some(good)), good);
        }
        for bad in [
            "",
            "a",
            "//evil.example",
            "/\\evil.example",
            "\\/evil.example",
            "https://evil.example",
            "/\t/evil",
            "/\r\nX: y",
            "/ä",
            "/a b",
            "/.phlix/start?return=/",
        ] {
            assert_eq!(return_path(Some(bad)), "/", "{bad:?}");
        }
        assert_eq!(return_path(Some(&format!("/{}", "a".repeat(MAX_RETURN)))), "/");
        assert_eq!(return_path(None), "/");
    }

    #[test]
    fn what_a_sign_in_remembers_survives_the_cookie_and_is_checked_again() {
        let started = Started { state: "s".into(), verifier: "v".into(), to: "/a.b?c".into() };
        assert_eq!(Started::decode(&started.encode()), Some(started));
        let forged = format!("s.v.{}", b64::encode("//evil.example"));
        assert_eq!(Started::decode(&forged).unwrap().to, "/");
        for text in ["", "a", "a.b", "..", ".v.Lw", "s.v.!"] {
            assert_eq!(Started::decode(text), None, "{text:?}");
        }
    }
}
