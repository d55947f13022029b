//! The extractor of this room: an edge's own call, with its body.

use axum::extract::{FromRequest, Request};
use http::StatusCode;
use http::request::Parts;
use http::uri::PathAndQuery;
use http_body_util::{BodyExt as _, Limited};
use phlix_protocol::b64;
use phlix_protocol::uplink::EdgeStatus;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::refusal::Refusal;
use crate::app::App;
use crate::app::edge_identity::HEADER;
use crate::domain::edge::Edge;

/// Longest body, in bytes: a full presence report of about 10 000 tunnels. Only read after the head's signature was good.
const MAX_BODY: usize = 8 << 20;

/// An approved edge asks.
pub(super) struct Asking {
    pub(super) edge: Edge,
    body: bytes::Bytes,
}

/// An edge asks that may still wait for its approval.
pub(super) struct Applying(pub(super) Asking);

impl Asking {
    /// The body as what this call expects.
    pub(super) fn body<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        serde_json::from_slice(&self.body).map_err(|_| Refusal::malformed("The body is not understood."))
    }
}

impl FromRequest<App> for Applying {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &App) -> Result<Self, Refusal> {
        let (head, body) = request.into_parts();
        let token = only_token(&head).ok_or_else(refused)?;
        let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let identified = app.edges.identify(token, head.method.as_str(), target).await?.ok_or_else(refused)?;
        let body = Limited::new(body, MAX_BODY).collect().await;
        let body = body.map_err(|_| Refusal::malformed("The body broke off or is too long."))?.to_bytes();
        if identified.body_hash.as_deref() != Some(b64::encode(Sha256::digest(&body)).as_str()) {
            return Err(refused());
        }
        let edge = app.edges.accept(identified).ok_or_else(refused)?;
        Ok(Self(Asking { edge, body }))
    }
}

impl FromRequest<App> for Asking {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &App) -> Result<Self, Refusal> {
        let Applying(asking) = Applying::from_request(request, app).await?;
        if asking.edge.status != EdgeStatus::Approved {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "Forbidden", "edge.not_approved")
                .message("An administrator has not approved this edge."));
        }
        Ok(asking)
    }
}

fn only_token(head: &Parts) -> Option<&str> {
    let mut values = head.headers.get_all(HEADER).iter();
    let token = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(token)
}

fn refused() -> Refusal {
    Refusal::unauthorized("edge.invalid_identity")
}
