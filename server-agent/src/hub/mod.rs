//! The hub's HTTP API as an agent uses it.
//!
//! Replies are bounded in size and time, redirects are not followed (a hub that moved is for its operator to say), and
//! each reply's `Date` sets the clock that tickets are judged by.

mod api;
mod connector;
mod keys;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, DATE, RETRY_AFTER};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use phlix_certs::pin::SpkiPin;
use phlix_protocol::b64;
use phlix_protocol::keys::SigningKey;
use phlix_protocol::token::{self, RequestProof};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use url::Url;

pub(crate) use api::{ClaimState, PendingClaim, TicketReply};
pub(crate) use keys::HubKeys;

use self::connector::Connector;
use crate::clock::{HubClock, parse_http_date};
use crate::config::Config;
use crate::random;
use crate::trust::{self, RefusedKey, TrustError};

/// Clocks that differ by more than this after a refusal are worth a second try with the right time, in seconds.
const WORTH_A_RETRY: i64 = 5;

/// The address is none that an agent may talk to.
#[derive(Debug, thiserror::Error)]
pub enum HubUrlError {
    #[error("{0} is no address of a hub: expected https://host[:port], without a path")]
    Form(String),
    #[error(
        "{0} is plain HTTP and not on this machine: anybody on the way could take this server over. Use https://, or --insecure if you accept that"
    )]
    Plain(String),
}

/// A call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("the hub's certificate is not trusted; its key is SHA-256 {}", .seen.hex())]
    NotTrusted { seen: SpkiPin },
    #[error("the hub shows another key than the one that was confirmed: SHA-256 {}. If its operator changed it, confirm the new one with --hub-key", .seen.hex())]
    OtherKey { seen: SpkiPin },
    #[error("the hub can't be reached: {0}")]
    Unreachable(String),
    #[error("the hub did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    #[error("the hub's answer makes no sense: {0}")]
    Nonsense(&'static str),
    #[error("the hub says {status}: {message} ({code})")]
    Refused { status: StatusCode, code: String, message: String, retry_after: Option<Duration> },
}

impl HubError {
    /// Whether the hub no longer knows this server or its enrollment: asking again can't help.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Refused { status, code, .. } => match *status {
                StatusCode::UNAUTHORIZED => {
                    matches!(code.as_str(), "auth.enrollment_expired" | "auth.enrollment_revoked")
                }
                StatusCode::NOT_FOUND => code == "server.not_found",
                _ => false,
            },
            _ => false,
        }
    }

    /// How long the hub wants to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Who calls: an enrollment and the key that it is bound to.
pub(crate) struct Identity {
    pub(crate) enrollment: String,
    pub(crate) key: SigningKey,
}

/// Checks an address and gives its origin, such as `https://hub.example`.
pub(crate) fn checked_origin(url: &Url, insecure: bool) -> Result<String, HubUrlError> {
    let form = || HubUrlError::Form(url.to_string());
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.path() == "/";
    let host = url.host().filter(|_| plain).ok_or_else(form)?;
    let origin = url.origin().ascii_serialization();
    match url.scheme() {
        "https" => Ok(origin),
        "http" => {
            let here = match host {
                url::Host::Domain(name) => name == "localhost",
                url::Host::Ipv4(address) => address.is_loopback(),
                url::Host::Ipv6(address) => address.is_loopback(),
            };
            if here || insecure { Ok(origin) } else { Err(HubUrlError::Plain(url.to_string())) }
        }
        _ => Err(form()),
    }
}

/// Talks to one hub.
pub(crate) struct HubClient {
    origin: String,
    client: Client<HttpsConnector<Connector>, Full<Bytes>>,
    refused_key: RefusedKey,
    pinned: bool,
    clock: Arc<HubClock>,
    time_limit: Duration,
    longest_reply: usize,
}

impl HubClient {
    /// A client for the hub at `origin`, trusted by `pin` where there is one.
    pub(crate) fn new(
        config: &Config,
        origin: String,
        pin: Option<SpkiPin>,
        clock: Arc<HubClock>,
    ) -> Result<Self, TrustError> {
        let refused_key = RefusedKey::default();
        let tls = match pin {
            Some(pin) => trust::pinned(pin, refused_key.clone())?,
            // A hub without TLS needs no roots, and reading the system's takes a while.
            None if origin.starts_with("http://") => {
                trust::rooted(rustls::RootCertStore::empty(), refused_key.clone())?
            }
            None => trust::rooted(trust::roots(config.ca_file.as_deref())?, refused_key.clone())?,
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(config.timings.hub_call / 3));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(Connector { tcp, proxies: config.proxies.clone() });
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector);
        Ok(Self {
            origin,
            client,
            refused_key,
            pinned: pin.is_some(),
            clock,
            time_limit: config.timings.hub_call,
            longest_reply: config.limits.hub_reply,
        })
    }

    /// Scheme, host and port that are dialled.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// A call without credentials.
    async fn call<R: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<R, HubError> {
        self.send(method, path, body, None).await
    }

    /// A call signed by the server's key (trust s.2.3).
    async fn signed_call<R: DeserializeOwned>(
        &self,
        identity: &Identity,
        path: &str,
        body: Bytes,
    ) -> Result<R, HubError> {
        self.in_time(|| self.send(Method::POST, path, body.clone(), Some(identity))).await
    }

    /// Makes a call that says what time it is. Where it was refused and the answer shows that our clock was wrong, it
    /// is made once more, with the hub's time.
    async fn in_time<R, F>(&self, call: impl Fn() -> F) -> Result<R, HubError>
    where
        F: Future<Output = Result<R, HubError>>,
    {
        let before = self.clock.offset();
        match call().await {
            Err(HubError::Refused { status: StatusCode::UNAUTHORIZED | StatusCode::BAD_REQUEST, .. })
                if (self.clock.offset() - before).abs() > WORTH_A_RETRY =>
            {
                call().await
            }
            outcome => outcome,
        }
    }

    async fn send<R: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        identity: Option<&Identity>,
    ) -> Result<R, HubError> {
        let mut request = Request::builder()
            .method(method.clone())
            .uri(format!("{}{path}", self.origin))
            .header("accept-phlix-protocol", "v1")
            .header("accept", "application/json")
            .header("user-agent", concat!("phlix-agent/", env!("CARGO_PKG_VERSION")));
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(identity) = identity {
            let proof = RequestProof {
                htm: method.to_string(),
                htu: path.to_owned(),
                bh: b64::encode(Sha256::digest(&body)),
                iat: self.clock.now(),
                jti: random::uuid().to_string(),
            };
            request = request
                .header(AUTHORIZATION, format!("Bearer {}", identity.enrollment))
                .header("x-phlix-proof", token::sign_self(&proof, &identity.key));
        }
        let request = request.body(Full::new(body)).map_err(|_| HubError::Nonsense("its address or token"))?;
        match tokio::time::timeout(self.time_limit, self.exchange(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(HubError::TimedOut(self.time_limit)),
        }
    }

    async fn exchange<R: DeserializeOwned>(&self, request: Request<Full<Bytes>>) -> Result<R, HubError> {
        let reply = self.client.request(request).await.map_err(|error| match self.refused_key.take() {
            Some(seen) if self.pinned => HubError::OtherKey { seen },
            Some(seen) => HubError::NotTrusted { seen },
            None => HubError::Unreachable(chain(&error)),
        })?;
        let (head, body) = reply.into_parts();
        if let Some(now) = head.headers.get(DATE).and_then(|date| parse_http_date(date.to_str().ok()?)) {
            self.clock.heard_hub(now);
        }
        let body = Limited::new(body, self.longest_reply)
            .collect()
            .await
            .map_err(|_| HubError::Nonsense("it broke off or is too long"))?
            .to_bytes();
        if head.status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|_| HubError::Nonsense("it is not the JSON that was asked for"));
        }
        let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Err(refusal(head.status, &body, retry_after.map(Duration::from_secs)))
    }
}

/// Reads an error body (upstream-api s.0): text of a stranger, cut to what fits a line.
fn refusal(status: StatusCode, body: &[u8], retry_after: Option<Duration>) -> HubError {
    #[derive(Default, Deserialize)]
    struct ErrorBody {
        #[serde(default)]
        error: Option<String>,
        #[serde(default)]
        code: Option<String>,
        #[serde(default)]
        message: Option<String>,
    }
    let body: ErrorBody = serde_json::from_slice(body).unwrap_or_default();
    let line = |text: String| text.chars().filter(|c| !c.is_control()).take(300).collect::<String>();
    let message = match body.message.or(body.error) {
        Some(text) => line(text),
        None if status.is_redirection() => "it has moved; give its new address".to_owned(),
        None => "no reason given".to_owned(),
    };
    HubError::Refused { status, code: line(body.code.unwrap_or_else(|| "no code".to_owned())), message, retry_after }
}

/// An error with what caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str, insecure: bool) -> Result<String, HubUrlError> {
        checked_origin(&url.parse().unwrap(), insecure)
    }

    #[test]
    fn plain_http_is_for_this_machine_or_by_choice() {
        for url in ["http://localhost:8800", "http://127.0.0.1:8800/", "http://127.9.9.9", "http://[::1]:1"] {
            origin(url, false).unwrap();
        }
        for url in ["http://hub.example", "http://10.0.0.1:8800", "http://localhost.example", "http://128.0.0.1"] {
            assert!(matches!(origin(url, false), Err(HubUrlError::Plain(_))), "{url}");
            origin(url, true).unwrap();
        }
    }

    #[test]
    fn an_origin_has_neither_path_nor_default_port() {
        assert_eq!(origin("https://Hub.Example:443", false).unwrap(), "https://hub.example");
        for url in ["https://hub.example/x", "https://u@hub.example", "https://hub.example/?q", "ftp://hub.example"] {
            assert!(matches!(origin(url, true), Err(HubUrlError::Form(_))), "{url}");
        }
    }

    #[test]
    fn a_refusal_is_read_from_any_body() {
        let lost = refusal(StatusCode::NOT_FOUND, br#"{"error":"SERVER_NOT_FOUND","code":"server.not_found"}"#, None);
        assert!(lost.is_final());
        let expired = refusal(StatusCode::UNAUTHORIZED, br#"{"error":"X","code":"auth.enrollment_expired"}"#, None);
        assert!(expired.is_final());
        for body in [&b""[..], b"<html>", b"[]", br#"{"code":7}"#, br#"{"error":"a\u001b[31mb"}"#] {
            let other = refusal(StatusCode::NOT_FOUND, body, None);
            assert!(!other.is_final());
            assert!(!other.to_string().contains('\u{1b}'));
        }
    }
}
