//! `/authorize-name`: the hub's part of the sign-in at a protected name (trust s.6.2). A page for browsers, no API.
//!
//! Where it leads is looked up in our own table of names: no address to return to is taken from anybody.

use axum::Router;
use axum::extract::State;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, LOCATION};
use http::uri::PathAndQuery;
use http::{HeaderValue, StatusCode, Uri};
use phlix_protocol::b64;
use phlix_protocol::hostname::Hostname;
use url::form_urlencoded;

use super::error::ApiError;
use super::user::Visitor;
use crate::app::App;
use crate::app::names::{self, Authorized};

pub(super) fn routes() -> Router<App> {
    Router::new().route("/authorize-name", get(authorize))
}

/// Longest `state` of an edge, in bytes.
const MAX_STATE: usize = 256;

/// What the edge sent the browser here with.
struct Asked {
    host: Hostname,
    state: String,
    challenge: String,
}

impl Asked {
    /// Exactly one of each; state and challenge are base64url, so that they stay what they are in any URL.
    fn parse(query: &str) -> Option<Self> {
        let only = |name: &str| {
            let mut found = form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name);
            let (_, value) = found.next()?;
            found.next().is_none().then(|| value.into_owned())
        };
        let (state, challenge) = (only("state")?, only("challenge")?);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let fits = (16..=MAX_STATE).contains(&state.len()) && state.bytes().all(plain);
        b64::decode_array::<32>(&challenge)?;
        let host = only("host")?.parse().ok()?;
        fits.then_some(Self { host, state, challenge })
    }
}

async fn authorize(State(app): State<App>, uri: Uri, Visitor(visitor): Visitor) -> Result<Response, ApiError> {
    let Some(asked) = Asked::parse(uri.query().unwrap_or_default()) else {
        return Ok(page(StatusCode::BAD_REQUEST, "This link is not complete", "Open the server's address again."));
    };
    let Some(who) = visitor else {
        let here = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let here: String = form_urlencoded::byte_serialize(here.as_bytes()).collect();
        return Ok(lead(&format!("/app/login?next={here}")));
    };
    Ok(match names::authorize(&app, &who, &asked.host, &asked.challenge).await? {
        Authorized::NoSuchName => {
            page(StatusCode::NOT_FOUND, "Nobody is here", "There is no server under this name any more.")
        }
        Authorized::Denied => page(
            StatusCode::FORBIDDEN,
            "This server is not shared with you",
            "You are signed in, but its owner has not given you access. Ask them, or sign in with another account.",
        ),
        Authorized::Code { name, code } => {
            let back = name.url(app.config.names_port);
            // Code and state are base64url: nothing in them needs escaping.
            lead(&format!("{back}.phlix/finish?code={code}&state={}", asked.state))
        }
    })
}

fn lead(to: &str) -> Response {
    match HeaderValue::from_str(to) {
        Ok(to) => (StatusCode::FOUND, [(LOCATION, to), (CACHE_CONTROL, no_store())]).into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

/// Plain, without scripts or styles; the strict policy comes with every answer. Only our own words: nothing of the request.
fn page(status: StatusCode, title: &str, text: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title></head>\
         <body><h1>{title}</h1><p>{text}</p><p><a href=\"/app/servers\">My servers</a></p></body></html>"
    );
    (status, [(CACHE_CONTROL, no_store())], Html(html)).into_response()
}

fn no_store() -> HeaderValue {
    HeaderValue::from_static("no-store")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_and_plain_question_is_taken() {
        let challenge = b64::encode([7; 32]);
        let state = "s".repeat(22);
        let good = format!("host=a.hub.localhost&state={state}&challenge={challenge}");
        assert!(Asked::parse(&good).is_some());
        for bad in [
            String::new(),
            good.replace("a.hub.localhost", "a.hub.localhost:1"),
            good.replace("a.hub.localhost", "https://evil.example/"),
            good.replace(&state, "short"),
            good.replace(&state, &"s".repeat(257)),
            good.replace(&state, "abcdefghijklmnop%0d%0aX"),
            good.replace(&state, "abcdefghijklmnop%26code=x"),
            good.replace(&challenge, "x"),
            format!("{good}&host=b.hub.localhost"),
            format!("{good}&state={state}"),
        ] {
            assert!(Asked::parse(&bad).is_none(), "{bad}");
        }
    }
}
