//! An answer that the edge gives itself: JSON for programs, a plain page for people.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, LOCATION, REFERRER_POLICY,
    RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde::Serialize;

use super::linger::Lingering;
use crate::body::{self, Body, ViewerBody};

/// Why a request goes no further.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    /// Behind a pointer: a refusal is in the result of every phase.
    details: Box<Details>,
}

#[derive(Debug, Default)]
struct Details {
    message: Cow<'static, str>,
    url: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// A body that the control plane wrote, passed on as it is.
    body: Option<Bytes>,
    rest: Option<Rest>,
}

/// What is left of the request's body.
struct Rest(ViewerBody);

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rest")
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, details: Box::new(Details { message: message.into(), ..Details::default() }) }
    }

    /// A redirect; people and programs alike follow it.
    pub(crate) fn redirect(status: StatusCode, to: &str) -> Self {
        let refusal = Self::new(status, "redirect", "Go there.");
        match HeaderValue::try_from(to) {
            Ok(location) => refusal.with(LOCATION, location),
            Err(_) => Self::new(StatusCode::BAD_REQUEST, "request.malformed", "There is no such place."),
        }
    }

    /// A limit that clients of the proxy path look for as `error.code`.
    //= legacy-relay-wire s.3.3
    pub(crate) fn nested(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        let body = serde_json::json!({ "error": { "code": code, "message": message } });
        Self::passed_on(status, code, Bytes::from(body.to_string()))
    }

    /// What the control plane said, word for word.
    pub(crate) fn passed_on(status: StatusCode, code: &'static str, body: Bytes) -> Self {
        let details = Details { body: Some(body), ..Details::default() };
        Self { status, code, details: Box::new(details) }
    }

    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.details.headers.push((name, value));
        self
    }

    /// The connection ends with this answer; over HTTP/2 the stream does in any case.
    pub(crate) fn and_close(self) -> Self {
        self.with(CONNECTION, HeaderValue::from_static("close"))
    }

    /// So that the sender reads this answer before the connection ends under what it still sends.
    pub(super) fn and_hear_out(mut self, rest: ViewerBody) -> Self {
        self.details.rest = Some(Rest(rest));
        self
    }

    pub(crate) fn with_url(mut self, url: Option<String>) -> Self {
        self.details.url = url;
        self
    }

    /// When to come back, in whole seconds and at least one.
    pub(crate) fn retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.with(RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// The answer; a page where a person is looking.
    pub(crate) fn into_response(self, to_a_person: bool) -> Response<Body> {
        let Details { message, url, headers: more, body, rest } = *self.details;
        let page = to_a_person && body.is_none();
        let (kind, content) = if self.status.is_redirection() {
            ("text/plain; charset=utf-8", Bytes::new())
        } else if let Some(body) = body {
            ("application/json", body)
        } else if page {
            ("text/html; charset=utf-8", Bytes::from(html(self.status, &message)))
        } else {
            let reason = self.status.canonical_reason().unwrap_or("Error");
            let body = ErrorBody { error: reason, code: self.code, message: &message, url: url.as_deref() };
            ("application/json", Bytes::from(serde_json::to_vec(&body).unwrap_or_default()))
        };
        let mut response = Response::new(match rest {
            Some(Rest(rest)) => Lingering::new(content, rest).boxed_unsync(),
            None => body::full(content),
        });
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
        );
        for (name, value) in more {
            headers.append(name, value);
        }
        response
    }
}

/// A page without script, style or anything else to load. The messages are our own words: nothing of the request is on it.
fn html(status: StatusCode, message: &str) -> String {
    let title = status.canonical_reason().unwrap_or("Error");
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title></head>\n<body><h1>{title}</h1><p>{message}</p></body></html>\n"
    )
}

/// The control plane is away and nothing that is known answers the question.
pub(crate) fn hub_away() -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "hub.unavailable",
        "The hub does not answer at the moment. What is already playing goes on; please try again shortly.",
    )
    .retry_after(Duration::from_secs(5))
}

/// Nobody here has that name.
pub(crate) fn unknown_host() -> Refusal {
    Refusal::new(StatusCode::MISDIRECTED_REQUEST, "host.unknown", "There is nothing here by that name.")
}

/// The request contradicts itself or HTTP. What follows it on its connection is not believed either.
pub(crate) fn malformed(message: &'static str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "request.malformed", message).and_close()
}
