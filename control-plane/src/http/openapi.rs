//! The contract, made from the handlers. `openapi.json` beside this crate is its pinned copy.

use utoipa::OpenApi;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};

/// The frame; the routes add themselves.
#[derive(OpenApi)]
#[openapi(
    info(title = "Phlix Hub", description = "The HTTP API of the hub's control plane.", license(name = "MIT")),
    tags(
        (name = "accounts", description = "Accounts and sign-ins"),
        (name = "claims", description = "How a server comes to its owner"),
        (name = "keys", description = "The hub's public keys"),
        (name = "my servers", description = "A user's servers"),
        (name = "servers", description = "What a server does for itself"),
        (name = "operations", description = "Is it alive, can it work"),
    ),
    modifiers(&Security)
)]
struct Frame;

struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_with(Default::default);
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let enrollment = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT");
        let enrollment =
            enrollment.description(Some("A server's enrollment; native ones sign each call in X-Phlix-Proof."));
        components.add_security_scheme("enrollment", SecurityScheme::Http(enrollment.build()));
        let cookie = ApiKeyValue::new("__Host-phlix-s");
        components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    }
}

pub(super) fn base() -> utoipa::openapi::OpenApi {
    let mut frame = Frame::openapi();
    // The version of the API, not of the crate: a release that changes no route leaves the document as it is.
    frame.info.version = "1".to_owned();
    frame
}

/// The whole document, as pretty JSON with a newline at its end.
pub(crate) fn document() -> String {
    let (_, openapi) = super::described().split_for_parts();
    let mut text = openapi.to_pretty_json().expect("the document is plain data");
    text.push('\n');
    text
}
